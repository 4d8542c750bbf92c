//! `mailtrail reconcile`: the proof that everything that was listed arrived, or what did not.

use std::{
    collections::{BTreeMap, HashMap},
    env,
    fmt::Write,
    process::ExitCode,
};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use ledger::{Finding, HourReport, Reconciliation, Sums};
use schemas::{FeedKey, SinkName, TenantId, TimeRange};
use serde::Serialize;

use super::{Failure, change, found, inspect, load, print, print_json};
use crate::{
    cli::{AcknowledgeArgs, ConfigArgs, ReconcileArgs, ReconcileBy},
    config::Config,
    operate::Change,
    table::{Align, Table},
    units::{format_count, format_time},
};

/// A row of the report: an hour, a day or all of a feed, or everything.
#[derive(Debug, Clone, Default, Serialize)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<DateTime<Utc>>,
    listed: u64,
    to_fetch: u64,
    fetched: u64,
    gaps: u64,
    quarantined: u64,
    holes: u64,
    records: u64,
    duplicates: u64,
    sinks: BTreeMap<String, SinkRow>,
    agrees: bool,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
struct SinkRow {
    delivered: u64,
    filtered: u64,
    dead: u64,
    pending: u64,
    resent: u64,
}

#[derive(Debug, Serialize)]
struct FindingRow {
    id: String,
    tenant: String,
    content_type: String,
    what: String,
    reason: String,
    at: DateTime<Utc>,
    records: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledged: Option<AcknowledgedRow>,
}

#[derive(Debug, Serialize)]
struct AcknowledgedRow {
    reason: String,
    name: String,
    at: DateTime<Utc>,
}

#[derive(Debug, Serialize)]
struct Report {
    agrees: bool,
    clean: bool,
    rows: Vec<Row>,
    total: Row,
    findings: Vec<FindingRow>,
}

/// Runs the command.
pub(super) fn run(args: ReconcileArgs) -> Result<ExitCode, Failure> {
    let config = load(&args.config)?;
    let now = Utc::now();
    // The last hour counts whole, whatever the servers' clock.
    let range = TimeRange {
        start: args.since.map_or(DateTime::UNIX_EPOCH, |since| since.resolve(now)),
        end: args.until.map_or(now + TimeDelta::days(1), |until| until.resolve(now)),
    };
    if range.is_empty() {
        return Err(Failure::Usage("--since must be before --until".to_owned()));
    }
    let wanted = wanted_tenants(&config, &args.tenants)?;
    let mut found_there = inspect(&config)?.reconcile(range).map_err(Failure::problem)?;
    if let Some(wanted) = &wanted {
        found_there.hours.retain(|hour| wanted.contains(&hour.feed.tenant));
        found_there.numbers.retain(|numbers| wanted.contains(&numbers.tenant));
        found_there.findings.retain(|finding| wanted.contains(&finding.feed.tenant));
    }
    let report = report(&config, &found_there, args.by);
    if args.json {
        print_json(&report)?;
    } else {
        print(&text(&report, args.by))?;
    }
    Ok(found(!report.clean))
}

/// Takes note of losses.
pub(super) fn acknowledge(config: &ConfigArgs, args: AcknowledgeArgs) -> Result<ExitCode, Failure> {
    let config = load(config)?;
    let name = args
        .name
        .or_else(|| env::var("SUDO_USER").ok().filter(|name| !name.is_empty()))
        .or_else(|| nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name))
        .ok_or_else(|| Failure::Usage("say who acknowledges it, with --name".to_owned()))?;
    let done = change(&config, Change::Acknowledge { findings: args.ids, reason: args.reason, name })?;
    print(&format!("{done}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// The tenants that are named, by name or id; `None` when none is.
pub(super) fn wanted_tenants(config: &Config, named: &[String]) -> Result<Option<Vec<TenantId>>, Failure> {
    if named.is_empty() {
        return Ok(None);
    }
    let find = |text: &String| {
        let known = config.tenants.iter().find(|tenant| tenant.name == *text).map(|tenant| tenant.tenant_id);
        known.or_else(|| text.parse().ok()).ok_or_else(|| {
            let names: Vec<_> = config.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
            Failure::Usage(format!("no tenant `{text}`; there are {}, or give an id", names.join(", ")))
        })
    };
    named.iter().map(find).collect::<Result<_, _>>().map(Some)
}

fn report(config: &Config, found: &Reconciliation, by: ReconcileBy) -> Report {
    let names: HashMap<_, _> =
        config.tenants.iter().map(|tenant| (tenant.tenant_id, tenant.name.clone())).collect();
    let name = |feed: &FeedKey| names.get(&feed.tenant).cloned().unwrap_or_else(|| feed.tenant.to_string());
    let mut rows: BTreeMap<(FeedKey, Option<DateTime<Utc>>), Row> = BTreeMap::new();
    let mut total = Row { agrees: found.agrees(), ..Row::default() };
    for hour in &found.hours {
        let start = match by {
            ReconcileBy::Hour => Some(hour.hour),
            ReconcileBy::Day => Some(hour.hour.duration_trunc(TimeDelta::days(1)).unwrap_or(hour.hour)),
            ReconcileBy::Feed => None,
        };
        let row = rows.entry((hour.feed, start)).or_insert_with(|| Row {
            tenant: Some(name(&hour.feed)),
            content_type: Some(hour.feed.content_type.to_string()),
            start,
            agrees: true,
            ..Row::default()
        });
        row.add(hour);
        row.agrees &= hour.agrees();
        total.add(hour);
    }
    let finding = |finding: &Finding| FindingRow {
        id: finding.id.to_string(),
        tenant: name(&finding.feed),
        content_type: finding.feed.content_type.to_string(),
        what: finding.what.clone(),
        reason: finding.reason.clone(),
        at: finding.at,
        records: finding.records,
        acknowledged: finding.acknowledged.as_ref().map(|given| AcknowledgedRow {
            reason: given.reason.clone(),
            name: given.name.clone(),
            at: given.at,
        }),
    };
    Report {
        agrees: found.agrees(),
        clean: found.is_clean(),
        rows: rows.into_values().collect(),
        total,
        findings: found.findings.iter().map(finding).collect(),
    }
}

impl Row {
    fn add(&mut self, hour: &HourReport) {
        self.listed += hour.listed;
        self.to_fetch += hour.waiting;
        self.fetched += hour.fetched;
        self.gaps += hour.gaps;
        self.quarantined += hour.quarantined;
        self.holes += hour.holes;
        self.records += hour.records;
        self.duplicates += hour.duplicates;
        for (sink, sums) in &hour.sinks {
            // An hour in which something was restored need not be one of blobs.
            if sums.blobs != Sums::default() || sums.restores == Sums::default() {
                self.sinks.entry(sink_name(sink)).or_default().add(&sums.blobs);
            }
            if sums.retries != Sums::default() {
                self.sinks.entry(format!("{sink} (retried)")).or_default().add(&sums.retries);
            }
            if sums.restores != Sums::default() {
                self.sinks.entry(format!("{sink} (restored)")).or_default().add(&sums.restores);
            }
        }
    }
}

impl SinkRow {
    fn add(&mut self, sums: &Sums) {
        self.delivered += sums.delivered;
        self.filtered += sums.filtered;
        self.dead += sums.dead;
        self.pending += sums.pending;
        self.resent += sums.resent;
    }
}

fn sink_name(name: &SinkName) -> String {
    name.as_str().to_owned()
}

fn text(report: &Report, by: ReconcileBy) -> String {
    use Align::{Left, Right};
    let mut text = String::new();
    let start = match by {
        ReconcileBy::Hour => "hour",
        ReconcileBy::Day => "day",
        ReconcileBy::Feed => "",
    };
    let mut table = Table::new([
        ("tenant", Left),
        ("content type", Left),
        (start, Left),
        ("listed", Right),
        ("fetched", Right),
        ("to fetch", Right),
        ("gaps", Right),
        ("holes", Right),
        ("records", Right),
        ("duplicates", Right),
        ("sink", Left),
        ("delivered", Right),
        ("filtered", Right),
        ("dead", Right),
        ("pending", Right),
        ("resent", Right),
        ("sums", Left),
    ]);
    for row in report.rows.iter().chain([&report.total]) {
        row.show(&mut table, by);
    }
    let _ = write!(text, "{table}");
    if report.rows.is_empty() {
        text.push_str("nothing was listed in this time\n");
    }
    if !report.findings.is_empty() {
        let mut table = Table::new([
            ("id", Left),
            ("since", Left),
            ("tenant", Left),
            ("content type", Left),
            ("records", Right),
            ("what", Left),
            ("reason", Left),
            ("acknowledged", Left),
        ]);
        for finding in &report.findings {
            let acknowledged = finding.acknowledged.as_ref();
            let acknowledged =
                acknowledged.map_or("no".to_owned(), |given| format!("{}: {}", given.name, given.reason));
            table.row([
                finding.id.clone(),
                format_time(finding.at),
                finding.tenant.clone(),
                finding.content_type.clone(),
                format_count(finding.records),
                finding.what.clone(),
                finding.reason.clone(),
                acknowledged,
            ]);
        }
        let _ = write!(text, "\n{table}");
    }
    let open = report.findings.iter().filter(|finding| finding.acknowledged.is_none()).count();
    let _ = match (report.agrees, open) {
        (true, 0) => writeln!(text, "\nthe sums agree"),
        (true, 1) => writeln!(text, "\nthe sums agree; 1 loss is not acknowledged"),
        (true, open) => writeln!(text, "\nthe sums agree; {open} losses are not acknowledged"),
        (false, _) => writeln!(text, "\nTHE SUMS DO NOT AGREE: please report this, with the ledger"),
    };
    text
}

impl Row {
    /// One line for the feed, and one more for each further sink.
    fn show(&self, table: &mut Table, by: ReconcileBy) {
        let start = self.start.map(|start| {
            start.format(if by == ReconcileBy::Hour { "%Y-%m-%dT%H:00Z" } else { "%Y-%m-%d" }).to_string()
        });
        let feed = [
            self.tenant.clone().unwrap_or_else(|| "total".to_owned()),
            self.content_type.clone().unwrap_or_default(),
            start.unwrap_or_default(),
            format_count(self.listed),
            format_count(self.fetched),
            format_count(self.to_fetch),
            format_count(self.gaps + self.quarantined),
            format_count(self.holes),
            format_count(self.records),
            format_count(self.duplicates),
        ];
        let mut cells = Vec::from(feed);
        let mut sinks = self.sinks.iter();
        let sums = if self.agrees { "agree" } else { "DIFFER" };
        let sink_cells = |(name, sink): (&String, &SinkRow)| {
            let numbers =
                [sink.delivered, sink.filtered, sink.dead, sink.pending, sink.resent].map(format_count);
            std::iter::once(name.clone()).chain(numbers).collect::<Vec<_>>()
        };
        match sinks.next() {
            Some(first) => cells.extend(sink_cells(first)),
            None => cells.extend(std::iter::repeat_n(String::new(), 6)),
        }
        cells.push(sums.to_owned());
        table.row(cells);
        for further in sinks {
            let empty = std::iter::repeat_n(String::new(), 10);
            table.row(empty.chain(sink_cells(further)));
        }
    }
}
