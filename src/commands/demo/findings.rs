//! What a SOC would look at first in the events of the demonstration.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::Value;

use crate::{
    table::{Align, Table},
    units::format_count,
};

/// How many lines of each list are shown.
const SHOWN: usize = 5;

/// What stands out.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Events by tag.
    tags: BTreeMap<String, u64>,
    /// Mailboxes that others than their owner were in: how often, and who.
    non_owner: BTreeMap<String, (u64, BTreeSet<String>)>,
    /// Rules and settings that forward outside: by mailbox or rule, to whom.
    forwarding: BTreeMap<String, BTreeSet<String>>,
}

impl Findings {
    /// Notes what stands out in an event.
    pub(super) fn look_at(&mut self, event: &Value) {
        for tag in event.pointer("/metadata/labels").and_then(Value::as_array).into_iter().flatten() {
            if let Some(tag) = tag.as_str() {
                *self.tags.entry(tag.to_owned()).or_default() += 1;
            }
        }
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
        let actor = text("/actor/user/name").unwrap_or("?").to_owned();
        let exchange = "/unmapped/exchange";
        let owner = text(&format!("{exchange}/mailbox/owner_upn"));
        if event.pointer(&format!("{exchange}/is_owner")) == Some(&Value::Bool(false))
            && let Some(owner) = owner
        {
            let (times, who) = self.non_owner.entry(owner.to_owned()).or_default();
            *times += 1;
            who.insert(actor.clone());
        }
        let targets =
            event.pointer(&format!("{exchange}/forwarding/external_targets")).and_then(Value::as_array);
        let targets: Vec<_> =
            targets.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        if !targets.is_empty() {
            let whose = owner.or_else(|| text("/resources/0/name")).unwrap_or(&actor).to_owned();
            self.forwarding.entry(whose).or_default().extend(targets);
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Align::{Left, Right};
        if self.tags.is_empty() && self.non_owner.is_empty() && self.forwarding.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nWhat a SOC would look at first:\n")?;
        let mut table = Table::new([("tag", Left), ("events", Right)]);
        let mut tags: Vec<_> = self.tags.iter().collect();
        tags.sort_by_key(|(_, events)| std::cmp::Reverse(**events));
        for (tag, events) in tags {
            table.row([tag.clone(), format_count(*events)]);
        }
        write!(f, "{table}")?;
        let mut table = Table::new([("mailbox used by others", Left), ("events", Right), ("by", Left)]);
        let mut mailboxes: Vec<_> = self.non_owner.iter().collect();
        mailboxes.sort_by_key(|(_, (times, _))| std::cmp::Reverse(*times));
        for (mailbox, (times, who)) in mailboxes.into_iter().take(SHOWN) {
            table.row([mailbox.clone(), format_count(*times), few(who)]);
        }
        write!(f, "\n{table}")?;
        let mut table = Table::new([("forwards outside", Left), ("to", Left)]);
        for (whose, targets) in self.forwarding.iter().take(SHOWN) {
            table.row([whose.clone(), few(targets)]);
        }
        write!(f, "\n{table}")
    }
}

fn few(names: &BTreeSet<String>) -> String {
    let mut text: Vec<_> = names.iter().take(3).cloned().collect();
    if names.len() > text.len() {
        text.push(format!("and {} more", names.len() - text.len()));
    }
    text.join(", ")
}
