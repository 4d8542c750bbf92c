//! `mailtrail status`: how far each feed and each sink is, from the ledger; and how a running process is doing.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    process::ExitCode,
};

use chrono::{DateTime, Utc};
use ledger::{FeedStatus, Inspector, RestoreStatus, SinkStatus, Status};
use serde::Serialize;
use sinks::archive::{ArchiveReport, ObjectStage};

use super::{Failure, found, inspect, load, print, print_json};
use crate::{
    cli::{ConfigArgs, StatusArgs},
    config::{self, Config, SinkKind},
    control,
    live::{LiveReport, LiveState},
    table::{Align, Table},
    units::{format_bytes, format_count, format_duration, format_time},
};

#[derive(Debug, Serialize)]
struct Report {
    ledger: String,
    running: Option<LiveReport>,
    feeds: Vec<Feed>,
    sinks: Vec<Sink>,
    restores: Vec<Restore>,
    archives: BTreeMap<String, ArchiveReport>,
    /// The tenants' names by their ids.
    #[serde(skip)]
    tenants: HashMap<String, String>,
    spool_bytes: u64,
    spool_max_bytes: u64,
    spool_live_bytes: u64,
    dead_letter_bytes: u64,
    open_dead_letters: u64,
    quarantined: u64,
}

#[derive(Debug, Serialize)]
struct Feed {
    tenant: String,
    content_type: String,
    watermark: Option<DateTime<Utc>>,
    swept_at: Option<DateTime<Utc>>,
    to_fetch: u64,
    first_expiry: Option<DateTime<Utc>>,
    gaps: u64,
    holes: u64,
    last_error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Sink {
    name: String,
    configured: bool,
    required: bool,
    pending: u64,
    pending_records: u64,
    pending_restored: u64,
    waiting: u64,
    oldest_pending: Option<DateTime<Utc>>,
    last_error: Option<String>,
}

/// A restore that is unfinished, or of which records are still to be delivered.
#[derive(Debug, Serialize)]
struct Restore {
    number: i64,
    sink: String,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
    begun_at: DateTime<Utc>,
    /// When all of it was taken from the archive.
    finished_at: Option<DateTime<Utc>>,
    records: u64,
    pending: u64,
}

/// Runs the command.
pub(super) fn run(args: StatusArgs) -> Result<ExitCode, Failure> {
    if args.alive {
        return alive(&args.config);
    }
    let config = load(&args.config).map_err(|failure| beside_a_running_one(failure, &args.config))?;
    let inspector = inspect(&config)?;
    let status = inspector.status().map_err(Failure::problem)?;
    let mut running = control::ask_live(&config.state.directory).map_err(Failure::problem)?;
    let bad = running.as_ref().is_some_and(|live| {
        let things = || live.sources.iter().chain(&live.sinks);
        live.spool_full || live.refused_config.is_some() || things().any(|state| state.bad)
    });
    let archives = archives(&config, &inspector, running.as_mut())?;
    let report = report(&config, status, running, archives);
    if args.json {
        print_json(&report)?;
    } else {
        print(&text(&report, Utc::now()))?;
    }
    Ok(found(bad))
}

/// Whether a running process answers. The file is asked for no more than where: one that was broken since the process
/// read it is no reason to restart it.
fn alive(args: &ConfigArgs) -> Result<ExitCode, Failure> {
    let state = config::load_state_directory(args.config.as_deref());
    let state = state.map_err(|error| Failure::Usage(error.to_string()))?;
    match control::ask_alive(&state).map_err(Failure::problem)? {
        Some(Ok(())) => Ok(ExitCode::SUCCESS),
        Some(Err(why)) => Err(Failure::Problem(why)),
        None => Err(Failure::Problem(format!("none runs with the state directory {}", state.display()))),
    }
}

/// A file that is wrong does not say how the process is doing that read it before.
fn beside_a_running_one(failure: Failure, args: &ConfigArgs) -> Failure {
    let running = config::load_state_directory(args.config.as_deref())
        .ok()
        .and_then(|state| control::ask_live(&state).ok().flatten());
    match failure {
        Failure::Usage(wrong) if running.is_some() => Failure::Usage(format!(
            "{wrong}\nthe running mailtrail goes on with the configuration that it read before; a restart would fail"
        )),
        failure => failure,
    }
}

/// What each archive sink has: as the running process says, or as the last one left it in the ledger.
fn archives(
    config: &Config,
    ledger: &Inspector,
    running: Option<&mut LiveReport>,
) -> Result<BTreeMap<String, ArchiveReport>, Failure> {
    let mut archives = running.map(|live| std::mem::take(&mut live.archives)).unwrap_or_default();
    for sink in config.sinks.iter().filter(|sink| matches!(sink.kind, SinkKind::Archive(_))) {
        let name = sink.name.to_string();
        if archives.contains_key(&name) {
            continue;
        }
        if let Some(state) = ledger.sink_state(&sink.name).map_err(Failure::problem)? {
            let report = ArchiveReport::of_state(&state);
            archives.insert(
                name,
                report.map_err(|error| Failure::Problem(format!("sink {}: {error}", sink.name)))?,
            );
        }
    }
    Ok(archives)
}

fn report(
    config: &Config,
    status: Status,
    running: Option<LiveReport>,
    archives: BTreeMap<String, ArchiveReport>,
) -> Report {
    let names: HashMap<_, _> =
        config.tenants.iter().map(|tenant| (tenant.tenant_id, tenant.name.clone())).collect();
    let feed = |feed: FeedStatus| Feed {
        tenant: names.get(&feed.feed.tenant).cloned().unwrap_or_else(|| feed.feed.tenant.to_string()),
        content_type: feed.feed.content_type.to_string(),
        watermark: feed.watermark,
        swept_at: feed.swept_at,
        to_fetch: feed.to_fetch,
        first_expiry: feed.first_expiry,
        gaps: feed.gaps,
        holes: feed.holes,
        last_error: feed.last_error,
    };
    let sink = |sink: SinkStatus| Sink {
        name: sink.name.to_string(),
        configured: sink.configured,
        required: sink.required,
        pending: sink.pending,
        pending_records: sink.pending_records,
        pending_restored: sink.pending_restored,
        waiting: sink.waiting,
        oldest_pending: sink.oldest_pending,
        last_error: sink.last_error,
    };
    let restore = |restore: RestoreStatus| Restore {
        number: restore.id.0,
        sink: restore.sink.to_string(),
        since: restore.span.start,
        until: restore.span.end,
        begun_at: restore.begun_at,
        finished_at: restore.ended_at,
        records: restore.records,
        pending: restore.pending,
    };
    Report {
        ledger: status.ledger.to_string(),
        running,
        feeds: status.feeds.into_iter().map(feed).collect(),
        sinks: status.sinks.into_iter().map(sink).collect(),
        restores: status.restores.into_iter().map(restore).collect(),
        archives,
        tenants: names.iter().map(|(id, name)| (id.to_string(), name.clone())).collect(),
        spool_bytes: status.spool_bytes,
        spool_max_bytes: config.state.spool_max_bytes,
        spool_live_bytes: status.spool_live_bytes,
        dead_letter_bytes: status.dead_letter_bytes,
        open_dead_letters: status.open_dead_letters,
        quarantined: status.quarantined,
    }
}

fn restores(restores: &[Restore], now: DateTime<Utc>) -> Table {
    use Align::{Left, Right};
    let mut table = Table::new([
        ("restore", Right),
        ("sink", Left),
        ("since", Left),
        ("until", Left),
        ("begun", Left),
        ("records", Right),
        ("pending", Right),
        ("from the archive", Left),
    ]);
    for restore in restores {
        table.row([
            restore.number.to_string(),
            restore.sink.clone(),
            format_time(restore.since),
            format_time(restore.until),
            ago(now, Some(restore.begun_at)),
            format_count(restore.records),
            format_count(restore.pending),
            match restore.finished_at {
                Some(_) => "complete".to_owned(),
                None => "unfinished: ask for the same again, and it goes on".to_owned(),
            },
        ]);
    }
    table
}

/// How long ago that was.
fn ago(now: DateTime<Utc>, time: Option<DateTime<Utc>>) -> String {
    let passed = time.and_then(|time| (now - time).to_std().ok());
    passed.map_or("-".to_owned(), |passed| {
        format!("{} ago", format_duration(std::time::Duration::from_secs(passed.as_secs())))
    })
}

fn text(report: &Report, now: DateTime<Utc>) -> String {
    use Align::{Left, Right};
    let mut text = match &report.running {
        Some(live) => format!("mailtrail {} runs as process {}\n\n", live.version, live.pid),
        None => "mailtrail does not run\n\n".to_owned(),
    };
    let ago = |time: Option<DateTime<Utc>>| ago(now, time);
    if let Some(refused) = report.running.as_ref().and_then(|live| live.refused_config.as_ref()) {
        let _ = writeln!(
            text,
            "The configuration that it read {} is refused; the one before stays in use:\n  {}\n",
            ago(Some(refused.at)),
            refused.problems.join("\n  ")
        );
    }
    let live = |states: Option<&Vec<LiveState>>, name: &str, part: &str| {
        let found =
            states.and_then(|states| states.iter().find(|state| state.name == name && state.part == part));
        found.map_or(("-".to_owned(), String::new()), |state| (state.state.clone(), state.error.clone()))
    };
    let mut table = Table::new([
        ("tenant", Left),
        ("content type", Left),
        ("state", Left),
        ("listed until", Left),
        ("last sweep", Left),
        ("to fetch", Right),
        ("gaps", Right),
        ("holes", Right),
        ("error", Left),
    ]);
    let sources = report.running.as_ref().map(|live| &live.sources);
    for feed in &report.feeds {
        let (state, error) = live(sources, &feed.tenant, &feed.content_type);
        table.row([
            feed.tenant.clone(),
            feed.content_type.clone(),
            state,
            ago(feed.watermark),
            ago(feed.swept_at),
            format_count(feed.to_fetch),
            format_count(feed.gaps),
            format_count(feed.holes),
            if error.is_empty() { feed.last_error.clone().unwrap_or_default() } else { error },
        ]);
    }
    // What the ledger has no line for yet: a tenant whose login fails, say.
    for state in sources.into_iter().flatten() {
        let known =
            report.feeds.iter().any(|feed| feed.tenant == state.name && feed.content_type == state.part);
        if !known {
            let mut cells = vec![state.name.clone(), state.part.clone(), state.state.clone()];
            cells.extend(std::iter::repeat_n(String::new(), 5));
            cells.push(state.error.clone());
            table.row(cells);
        }
    }
    let _ = write!(text, "{table}");
    let mut table = Table::new([
        ("sink", Left),
        ("state", Left),
        ("pending blobs", Right),
        ("records", Right),
        ("oldest", Left),
        ("waiting", Right),
        ("error", Left),
    ]);
    for sink in &report.sinks {
        let (state, error) = live(report.running.as_ref().map(|live| &live.sinks), &sink.name, "");
        let state = if sink.configured { state } else { "not configured".to_owned() };
        table.row([
            sink.name.clone(),
            state,
            format_count(sink.pending),
            format_count(sink.pending_records),
            ago(sink.oldest_pending),
            format_count(sink.waiting),
            if error.is_empty() { sink.last_error.clone().unwrap_or_default() } else { error },
        ]);
    }
    let _ = write!(text, "\n{table}");
    if !report.restores.is_empty() {
        let _ = write!(text, "\n{}", restores(&report.restores, now));
    }
    text += &archives_text(report, now);
    let _ = writeln!(
        text,
        "\nspool: {} of {}, {} of it still wanted{}",
        format_bytes(report.spool_bytes),
        format_bytes(report.spool_max_bytes),
        format_bytes(report.spool_live_bytes),
        if report.running.as_ref().is_some_and(|live| live.spool_full) {
            "; it is full, so fetching pauses until the sinks have caught up"
        } else {
            ""
        }
    );
    if report.open_dead_letters > 0 {
        let _ = writeln!(
            text,
            "dead letters: {}; `mailtrail dead-letters list` shows them",
            format_count(report.open_dead_letters)
        );
    }
    if report.quarantined > 0 {
        let _ = writeln!(text, "quarantined blobs: {}; `mailtrail reconcile` names them", report.quarantined);
    }
    text
}

/// The archives' objects that are not put yet, and the heads of their chains.
fn archives_text(report: &Report, now: DateTime<Utc>) -> String {
    use Align::{Left, Right};
    let name = |id: &schemas::TenantId| {
        let id = id.to_string();
        report.tenants.get(&id).cloned().unwrap_or(id)
    };
    let mut objects = Table::new([
        ("archive", Left),
        ("tenant", Left),
        ("content type", Left),
        ("object", Left),
        ("records", Right),
        ("size", Right),
        ("since", Left),
        ("waits to be", Left),
    ]);
    let mut chains = Table::new([
        ("archive", Left),
        ("tenant", Left),
        ("entry made", Left),
        ("unnamed objects", Right),
        ("head", Left),
    ]);
    for (archive, of) in &report.archives {
        for object in &of.objects {
            let waits = match (object.stage, object.until) {
                (ObjectStage::Open, Some(until)) if until > now => format!("full, or {}", format_time(until)),
                (ObjectStage::Open, None) => "full; goes on at the next start".to_owned(),
                (ObjectStage::Open | ObjectStage::Closed, _) => "sealed".to_owned(),
                (ObjectStage::Sealed, _) => format!("put: {}", object.path.as_deref().unwrap_or_default()),
            };
            objects.row([
                archive.clone(),
                name(&object.tenant),
                object.content_type.to_string(),
                object.stage.to_string(),
                object.records.map_or("-".to_owned(), format_count),
                format_bytes(object.bytes),
                format_time(object.since),
                waits,
            ]);
        }
        for chain in &of.chains {
            let waits = if chain.waits { " (waits to be put)" } else { "" };
            chains.row([
                archive.clone(),
                name(&chain.tenant),
                chain.made.map_or("-".to_owned(), format_time),
                format_count(chain.unnamed as u64),
                chain.head.as_ref().map_or("-".to_owned(), |head| format!("{head}{waits}")),
            ]);
        }
    }
    let mut text = String::new();
    for table in [objects, chains].iter().filter(|table| !table.is_empty()) {
        let _ = write!(text, "\n{table}");
    }
    text
}
