//! `mailtrail archive restore`: archived records into one sink again.
//!
//! The command reads and verifies the archive, and picks the records; whoever has the ledger takes them
//! ([`restoring`](crate::restoring)).

mod intake;
mod one_file;
mod wanted;

use std::{
    collections::BTreeSet,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use archive::{
    Store,
    restoring::{Chosen, NotRestorable, Selected, Selection},
};
use chrono::Utc;
use indicatif::{MultiProgress, ProgressBar};
use ledger::{BegunRestore, RestoreAsk};
use schemas::{SinkName, TenantId};
use serde::Serialize;

use self::{
    intake::Intake,
    one_file::{FileStop, OneFile},
    wanted::Wanted,
};
use super::{Failure, bar, load, open, print, runtime};
use crate::{
    cli::{ConfigArgs, PlaceArgs, RestoreArgs, When},
    commands::reconcile::wanted_tenants,
    config::{Config, SinkKind},
    units::{format_count, format_time},
};

/// What was asked for, in words that are the same whenever the same is.
#[derive(Debug, Serialize)]
struct Asked {
    from: String,
    since: String,
    until: String,
    tenants: BTreeSet<TenantId>,
    operations: BTreeSet<String>,
    users: BTreeSet<String>,
    mailboxes: BTreeSet<String>,
}

/// What was done.
#[derive(Debug, Default)]
struct Done {
    /// Objects that were read to their end, now or earlier.
    objects: u64,
    /// Records that were put back now.
    records: u64,
    /// Records that were looked at and are not wanted.
    passed_over: u64,
    /// Of those, the ones that do not say when they were made.
    without_time: u64,
}

/// Why it went no further.
enum Stop {
    /// The whole command fails.
    Failed(Failure),
    /// Somebody pressed Ctrl-C.
    Interrupted,
    /// The spool is full, and nobody empties it.
    Full,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Runs the command.
pub(super) fn run(
    config: &ConfigArgs,
    args: RestoreArgs,
    shown: &MultiProgress,
) -> Result<ExitCode, Failure> {
    let config = load(config)?;
    let now = Utc::now();
    let (since, until) = (args.since.resolve(now), args.until.resolve(now));
    if since >= until {
        return Err(Failure::Usage("--since must be before --until".to_owned()));
    }
    check_sink(&config, &args.sink)?;
    let tenants = wanted_tenants(&config, &args.tenants)?.map(|ids| ids.into_iter().collect());
    let (place, from) = place(&config, &args)?;
    let asked = asked(&args, from, tenants.clone().unwrap_or_default())?;
    let wanted = Wanted::new(&args, (since, until));
    let bar = bar(shown);
    runtime()?.block_on(async {
        let given = ConfigArgs { config: Some(config.path.clone()) };
        let store = open(&given, &place).await?;
        let selection = Selection { since, until, tenants };
        let ask = RestoreAsk { sink: args.sink.clone(), asked, since, until, anew: args.anew };
        let restore = Restore { config: &config, store, bar, ask, dry_run: args.dry_run };
        restore.run(selection, wanted).await
    })
}

/// The sink is one that records can be put into.
fn check_sink(config: &Config, name: &SinkName) -> Result<(), Failure> {
    match config.sinks.iter().find(|sink| sink.name == *name).map(|sink| &sink.kind) {
        Some(SinkKind::Archive(_)) => Err(Failure::Usage(format!(
            "sink {name} is an archive: records are restored from one (--from), and into a sink of another kind"
        ))),
        Some(_) => Ok(()),
        None => {
            let others = config.sinks.iter().filter(|sink| !matches!(sink.kind, SinkKind::Archive(_)));
            let names: Vec<_> = others.map(|sink| sink.name.to_string()).collect();
            let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Err(Failure::Usage(format!(
                "there is no sink {name} in {}; records can be restored to: {there}",
                config.path.display()
            )))
        }
    }
}

/// Where the archive lies, and how that is called.
fn place(config: &Config, args: &RestoreArgs) -> Result<(PlaceArgs, String), Failure> {
    if let Some(directory) = &args.directory {
        let whole = directory.canonicalize().unwrap_or_else(|_| directory.clone());
        let place = PlaceArgs { sink: None, directory: Some(directory.clone()) };
        return Ok((place, whole.display().to_string()));
    }
    let archives = config.sinks.iter().filter(|sink| matches!(sink.kind, SinkKind::Archive(_)));
    let archives: Vec<_> = archives.map(|sink| &sink.name).collect();
    let name = match (&args.from, &archives[..]) {
        (Some(name), _) => name.clone(),
        (None, [only]) => (*only).clone(),
        (None, []) => {
            return Err(Failure::Usage(format!(
                "there is no archive sink in {}; say with --directory where the archive lies",
                config.path.display()
            )));
        }
        (None, several) => {
            let names: Vec<_> = several.iter().map(ToString::to_string).collect();
            return Err(Failure::Usage(format!("say with --from which archive: {}", names.join(", "))));
        }
    };
    Ok((PlaceArgs { sink: Some(name.clone()), directory: None }, format!("sink {name}")))
}

fn asked(args: &RestoreArgs, from: String, tenants: BTreeSet<TenantId>) -> Result<String, Failure> {
    // A span that was given as so long ago goes on as what it was when it began.
    let when = |when: When| match when {
        When::At(time) => time.to_rfc3339(),
        When::Ago(span) => format!("{} s ago", span.as_secs()),
    };
    let set = |list: &[String]| list.iter().map(|text| text.to_lowercase()).collect();
    let asked = Asked {
        from,
        since: when(args.since),
        until: when(args.until),
        tenants,
        operations: set(&args.operations),
        users: set(&args.users),
        mailboxes: set(&args.mailboxes),
    };
    serde_json::to_string(&asked).map_err(Failure::problem)
}

struct Restore<'a> {
    config: &'a Config,
    store: Store,
    bar: ProgressBar,
    ask: RestoreAsk,
    dry_run: bool,
}

impl Restore<'_> {
    async fn run(self, mut selection: Selection, mut wanted: Wanted) -> Result<ExitCode, Failure> {
        let mut chosen = self.choose(&selection).await?;
        let intake = if self.dry_run { None } else { Some(Intake::open(self.config)?) };
        let begun = match &intake {
            Some(intake) => Some(intake.begin(self.ask.clone()).await?),
            None => None,
        };
        if let Some(begun) = begun.as_ref().filter(|begun| begun.goes_on) {
            print(&format!(
                "Restore {} goes on: it was begun at {}, and has put {} records back so far.\n",
                begun.id.0,
                format_time(begun.begun_at),
                format_count(begun.records)
            ))?;
            if (begun.since, begun.until) != (selection.since, selection.until) {
                (selection.since, selection.until) = (begun.since, begun.until);
                wanted.span(begun.since, begun.until);
                chosen = self.choose(&selection).await?;
            }
        }
        self.bar.set_length(chosen.files.iter().map(|file| file.bytes).sum());
        let mut unusable = chosen.unusable;
        unusable.iter().for_each(|fault| self.tell(fault));
        let mut done = Done::default();
        let ended =
            self.go(&chosen.files, &wanted, intake.as_ref().zip(begun.as_ref()), &mut unusable, &mut done);
        let ended = ended.await;
        let finished = match (&intake, &begun) {
            (Some(intake), Some(begun)) if ended.is_ok() && unusable.is_empty() => {
                intake.end(begun.id).await.map_err(Stop::from)
            }
            _ => Ok(()),
        };
        self.bar.finish_and_clear();
        let live = intake.as_ref().is_some_and(Intake::is_live);
        if let Some(intake) = intake {
            intake.close().await;
        }
        self.report(ended.and(finished), begun.as_ref(), live, &done, &unusable)
    }

    /// What the archive has. Everybody whose records those are has to be configured.
    async fn choose(&self, selection: &Selection) -> Result<Chosen, Failure> {
        let chosen = selection.choose(&self.store).await.map_err(Failure::problem)?;
        let strangers: BTreeSet<_> = chosen
            .files
            .iter()
            .map(|file| file.feed.tenant)
            .filter(|id| !self.config.tenants.iter().any(|tenant| tenant.tenant_id == *id))
            .collect();
        if strangers.is_empty() {
            return Ok(chosen);
        }
        let list: Vec<_> = strangers.iter().map(ToString::to_string).collect();
        Err(Failure::Usage(format!(
            "the archive holds records of that time of tenants that are not in {}: {}; add them, or say with --tenant whose \
             records are to be restored",
            self.config.path.display(),
            list.join(", ")
        )))
    }

    fn tell(&self, fault: &NotRestorable) {
        self.bar.suspend(|| tracing::error!(path = fault.path, "cannot be restored: {}", fault.why));
    }

    /// Goes through the files. What is wrong with one is added to `unusable`.
    async fn go(
        &self,
        files: &[Selected],
        wanted: &Wanted,
        intake: Option<(&Intake, &BegunRestore)>,
        unusable: &mut Vec<NotRestorable>,
        done: &mut Done,
    ) -> Result<(), Stop> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let pressed = Arc::clone(&interrupted);
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                pressed.store(true, Ordering::Relaxed);
            }
        });
        for file in files {
            let mut work = OneFile { restore: self, file, wanted, intake, interrupted: &interrupted };
            match work.run(done).await {
                Ok(()) => done.objects += 1,
                Err(FileStop::Fault(fault)) => {
                    self.tell(&fault);
                    unusable.push(fault);
                }
                Err(FileStop::Stop(stop)) => return Err(stop),
            }
        }
        Ok(())
    }

    fn report(
        &self,
        ended: Result<(), Stop>,
        begun: Option<&BegunRestore>,
        live: bool,
        done: &Done,
        unusable: &[NotRestorable],
    ) -> Result<ExitCode, Failure> {
        let sink = &self.ask.sink;
        let records = format_count(done.records);
        let objects = match done.objects {
            1 => "1 object was read".to_owned(),
            count => format!("{} objects were read", format_count(count)),
        };
        let looked_at = format!("{objects}, {} records passed over", format_count(done.passed_over));
        let mut text = match begun {
            _ if done.objects == 0 && ended.is_ok() && unusable.is_empty() => {
                "The archive has no object with records of that time: nothing is restored.\n".to_owned()
            }
            _ if done.records == 0 => {
                let more = if begun.is_some_and(|begun| begun.goes_on) { "more " } else { "" };
                format!("Nothing {more}is restored: {looked_at}.\n")
            }
            None => format!("{records} records would be restored to sink {sink}: {looked_at}.\n"),
            Some(begun) => {
                format!("{records} records are due for sink {sink} (restore {}): {looked_at}.\n", begun.id.0)
            }
        };
        if done.without_time > 0 {
            text += &format!(
                "{} of those passed over have no CreationTime, so they are of no time that can be asked for.\n",
                format_count(done.without_time)
            );
        }
        if begun.is_some() && done.records > 0 {
            text += if live {
                "The running mailtrail delivers them; `mailtrail status` shows what is still pending.\n"
            } else {
                "mailtrail does not run: the next `mailtrail run` delivers them.\n"
            };
        }
        print(&text)?;
        let again = "what was put back stays; ask for the same again, and it goes on where it was";
        match ended {
            Err(Stop::Failed(Failure::Problem(why))) => Err(Failure::Problem(format!("{why}\n{again}"))),
            Err(Stop::Failed(failure)) => Err(failure),
            Err(Stop::Interrupted) => Err(Failure::Problem(format!("stopped before the end; {again}"))),
            Err(Stop::Full) => Err(Failure::Problem(format!(
                "restored records take half of the spool ({} bytes), and nobody empties it: start `mailtrail run`; {again}",
                format_count(self.config.state.spool_max_bytes / 2)
            ))),
            Ok(()) if unusable.is_empty() => Ok(ExitCode::SUCCESS),
            Ok(()) => {
                let list: Vec<_> =
                    unusable.iter().map(|fault| format!("  {}: {}", fault.path, fault.why)).collect();
                Err(Failure::Problem(format!(
                    "not everything was restored; nothing was taken from:\n{}\n`mailtrail archive verify` tells more; when they are \
                     whole again, ask for the same again: it goes on with them",
                    list.join("\n")
                )))
            }
        }
    }
}
