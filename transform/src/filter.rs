//! Which records a sink wants.
//!
//! A filter has lists. A record is kept when it matches every list that is given; `exclude` has the same lists, and a
//! record that matches every list given there is left out. Texts are compared without regard to case, and `*` and `?`
//! stand for any characters and for one.

use schemas::{ContentType, RecordFacts};
use serde::{Deserialize, Serialize};

use crate::Origin;

/// A sink's filter as the configuration has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Tenants, by the name in the configuration or by tenant id.
    pub tenants: Vec<String>,
    /// Content types.
    pub content_types: Vec<ContentType>,
    /// Operations, such as `MailItemsAccessed` or `Send*`.
    pub operations: Vec<String>,
    /// Record types, by their number.
    pub record_types: Vec<i64>,
    /// Who did it (`UserId`).
    pub users: Vec<String>,
    /// The mailbox that it was done to, by its owner's address or its GUID.
    pub mailboxes: Vec<String>,
    /// What to leave out of what is kept.
    pub exclude: Match,
}

/// Lists that a record matches when it matches every list that is given. No list at all matches nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// See [`Filter::tenants`].
    pub tenants: Vec<String>,
    /// See [`Filter::content_types`].
    pub content_types: Vec<ContentType>,
    /// See [`Filter::operations`].
    pub operations: Vec<String>,
    /// See [`Filter::record_types`].
    pub record_types: Vec<i64>,
    /// See [`Filter::users`].
    pub users: Vec<String>,
    /// See [`Filter::mailboxes`].
    pub mailboxes: Vec<String>,
}

impl Filter {
    /// Whether it keeps every record, so that nothing need be known of any.
    #[must_use]
    pub fn keeps_all(&self) -> bool {
        !self.lists().any_given() && !self.exclude.lists().any_given()
    }

    /// Whether the sink wants a record. `mailbox_guid` is the mailbox's GUID where [`RecordFacts::mailbox`] is its owner.
    #[must_use]
    pub fn keeps(&self, facts: &RecordFacts<'_>, mailbox_guid: &str, origin: &Origin<'_>) -> bool {
        self.lists().all_match(facts, mailbox_guid, origin)
            && !self.exclude.matches(facts, mailbox_guid, origin)
    }

    fn lists(&self) -> Lists<'_> {
        let Self { tenants, content_types, operations, record_types, users, mailboxes, exclude: _ } = self;
        Lists { tenants, content_types, operations, record_types, users, mailboxes }
    }
}

impl Match {
    fn matches(&self, facts: &RecordFacts<'_>, mailbox_guid: &str, origin: &Origin<'_>) -> bool {
        let lists = self.lists();
        lists.any_given() && lists.all_match(facts, mailbox_guid, origin)
    }

    fn lists(&self) -> Lists<'_> {
        let Self { tenants, content_types, operations, record_types, users, mailboxes } = self;
        Lists { tenants, content_types, operations, record_types, users, mailboxes }
    }
}

struct Lists<'f> {
    tenants: &'f [String],
    content_types: &'f [ContentType],
    operations: &'f [String],
    record_types: &'f [i64],
    users: &'f [String],
    mailboxes: &'f [String],
}

impl Lists<'_> {
    fn any_given(&self) -> bool {
        let texts = [self.tenants, self.operations, self.users, self.mailboxes];
        texts.iter().any(|list| !list.is_empty())
            || !self.content_types.is_empty()
            || !self.record_types.is_empty()
    }

    fn all_match(&self, facts: &RecordFacts<'_>, mailbox_guid: &str, origin: &Origin<'_>) -> bool {
        (self.content_types.is_empty() || self.content_types.contains(&origin.content_type))
            && (self.record_types.is_empty()
                || facts.record_type.is_some_and(|number| self.record_types.contains(&number)))
            && given(self.operations, &[facts.operation])
            && given(self.users, &[facts.user])
            && given(self.mailboxes, &[facts.mailbox, mailbox_guid])
            && (self.tenants.is_empty()
                || given(self.tenants, &[origin.tenant_name, &origin.tenant.to_string()]))
    }
}

/// Whether a list is not given, or one of its patterns fits one of the texts that a record has.
#[inline(always)]
fn given(patterns: &[String], texts: &[&str]) -> bool {
    patterns.is_empty() || one_fits(patterns, texts)
}

#[inline(never)]
fn one_fits(patterns: &[String], texts: &[&str]) -> bool {
    let fits = |pattern: &String| {
        texts.iter().any(|text| !text.is_empty() && glob(pattern.as_bytes(), text.as_bytes()))
    };
    patterns.iter().any(fits)
}

/// Whether the pattern fits the whole text. Takes at most `pattern × text` steps, whatever the pattern.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, t));
                p += 1;
            }
            // A character is passed whole, with the bytes that continue it.
            Some(b'?') => {
                p += 1;
                t += 1;
                while text.get(t).is_some_and(|byte| byte & 0xc0 == 0x80) {
                    t += 1;
                }
            }
            Some(byte) if byte.eq_ignore_ascii_case(&text[t]) => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    p = star + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origin() -> Origin<'static> {
        Origin {
            tenant: "41463f53-8812-40f4-890f-865bf6e35190".parse().unwrap(),
            tenant_name: "contoso",
            content_type: ContentType::Exchange,
            content_id: "x",
        }
    }

    fn facts() -> RecordFacts<'static> {
        RecordFacts {
            operation: "SendAs",
            user: "Joni@contoso.com",
            mailbox: "cfo@contoso.com",
            record_type: Some(2),
            ..RecordFacts::default()
        }
    }

    fn keeps(filter: &str) -> bool {
        let filter: Filter = serde_json::from_str(filter).unwrap();
        filter.keeps(&facts(), "7cfcc8fc-0d4a-4e1c-9592-dbb3de1e3859", &origin())
    }

    #[test]
    fn every_given_list_must_match() {
        for kept in [
            "{}",
            r#"{"operations":["MailItemsAccessed","send*"]}"#,
            r#"{"operations":["Send??"],"record_types":[2,50],"tenants":["Contoso"],"users":["*@contoso.com"]}"#,
            r#"{"tenants":["41463F53-8812-40f4-890f-865bf6e35190"],"content_types":["Audit.Exchange"]}"#,
            r#"{"mailboxes":["CFO@contoso.com"]}"#,
            r#"{"mailboxes":["7cfcc8fc-*"]}"#,
        ] {
            assert!(keeps(kept), "{kept}");
        }
        for dropped in [
            r#"{"operations":["Send"]}"#,
            r#"{"operations":["Send*"],"record_types":[50]}"#,
            r#"{"content_types":["Audit.General"]}"#,
            r#"{"tenants":["fabrikam"]}"#,
            r#"{"users":["joni"]}"#,
            r#"{"mailboxes":["?"]}"#,
        ] {
            assert!(!keeps(dropped), "{dropped}");
        }
    }

    #[test]
    fn exclude_is_the_same_inverted() {
        assert!(!keeps(r#"{"exclude":{"operations":["send*"]}}"#));
        assert!(!keeps(r#"{"operations":["*"],"exclude":{"operations":["send*"],"record_types":[2]}}"#));
        assert!(keeps(r#"{"exclude":{"operations":["send*"],"record_types":[50]}}"#));
        assert!(keeps(r#"{"exclude":{}}"#));
    }

    #[test]
    fn a_record_without_the_text_matches_no_pattern() {
        let filter: Filter = serde_json::from_str(r#"{"mailboxes":["*"]}"#).unwrap();
        assert!(!filter.keeps(&RecordFacts::default(), "", &origin()));
    }

    #[test]
    fn unknown_keys_are_refused() {
        for wrong in [r#"{"operation":["Send"]}"#, r#"{"exclude":{"user":[]}}"#] {
            assert!(serde_json::from_str::<Filter>(wrong).is_err());
        }
    }

    fn slow_glob(pattern: &[char], text: &[char]) -> bool {
        match (pattern.first(), text.first()) {
            (None, None) => true,
            (Some('*'), _) => {
                slow_glob(&pattern[1..], text) || (!text.is_empty() && slow_glob(pattern, &text[1..]))
            }
            (Some('?'), Some(_)) => slow_glob(&pattern[1..], &text[1..]),
            (Some(p), Some(t)) if p.eq_ignore_ascii_case(t) => slow_glob(&pattern[1..], &text[1..]),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn globs_mean_what_they_should(pattern in "[abé*?]{0,6}", text in "[abAé]{0,8}") {
            let (pattern_chars, text_chars): (Vec<_>, Vec<_>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), slow_glob(&pattern_chars, &text_chars));
        }
    }
}
