//! `mailtrail archive restore`: archived records into one sink again.
//!
//! The command reads and verifies the archive, and picks the records; whoever has the ledger takes them
//! ([`restoring`](crate::restoring)).

mod intake;
mod wanted;

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use archive::{
    Store,
    restoring::{Chosen, NotRestorable, ReadError, Selected, Selection},
};
use chrono::Utc;
use indicatif::{MultiProgress, ProgressBar};
use ledger::{BegunRestore, RestoreAsk, RestoreStep};
use schemas::{ContentId, SinkName, TenantId};
use serde::Serialize;

use self::{intake::Intake, wanted::Wanted};
use super::{Failure, bar, load, open, print, runtime};
use crate::{
    cli::{ConfigArgs, PlaceArgs, RestoreArgs, When},
    commands::reconcile::wanted_tenants,
    config::{Config, SinkKind},
    restoring::PORTION,
    units::format_count,
};

/// How long a full spool is left alone before it is looked at again.
const FULL: Duration = Duration::from_secs(1);

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
                begun.begun_at.format("%Y-%m-%dT%H:%M:%SZ"),
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
            let mut work = FileWork { restore: self, file, wanted, intake, interrupted: &interrupted };
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
        let mut text = match (begun, done.objects) {
            (_, 0) if ended.is_ok() && unusable.is_empty() => {
                "The archive has no object with records of that time: nothing is restored.\n".to_owned()
            }
            (None, objects) => format!(
                "{records} records would be restored to sink {sink}: {} objects were read, {} of their records passed over.\n",
                format_count(objects),
                format_count(done.passed_over)
            ),
            (Some(begun), objects) => format!(
                "{records} records are due for sink {sink} (restore {}): {} objects were read, {} of their records passed over.\n",
                begun.id.0,
                format_count(objects),
                format_count(done.passed_over)
            ),
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

/// Why a file's records are not all put back.
enum FileStop {
    /// Something is wrong with it.
    Fault(NotRestorable),
    /// Nothing goes on.
    Stop(Stop),
}

impl From<Stop> for FileStop {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<Failure> for FileStop {
    fn from(failure: Failure) -> Self {
        Self::Stop(failure.into())
    }
}

impl From<ReadError> for FileStop {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotRestorable(fault) => Self::Fault(fault),
            error => Failure::problem(error).into(),
        }
    }
}

/// One file on its way.
struct FileWork<'a> {
    restore: &'a Restore<'a>,
    file: &'a Selected,
    wanted: &'a Wanted,
    intake: Option<(&'a Intake, &'a BegunRestore)>,
    interrupted: &'a AtomicBool,
}

impl FileWork<'_> {
    async fn run(&mut self, done: &mut Done) -> Result<(), FileStop> {
        let object = ContentId::try_from(self.file.path.as_str()).map_err(|error| Failure::problem(error))?;
        let mut from = 0;
        if let Some((intake, begun)) = self.intake {
            let position = intake.position(begun.id, object.clone()).await?;
            if position.done {
                self.restore.bar.inc(self.file.bytes);
                return Ok(());
            }
            from = position.lines;
        }
        let copy = scratch(&self.restore.config.state.directory)
            .map_err(|error| Failure::Problem(format!("cannot make a file for a copy: {error}")))?;
        let mut got = |bytes| self.restore.bar.inc(bytes);
        let mut lines = self.file.read(&self.restore.store, copy, &mut got).await?;
        let (mut portion, mut count, mut at) = (Vec::new(), 0, 0);
        while let Some(record) = lines.next_record()? {
            if at >= from {
                if !portion.is_empty() && portion.len() + record.len() >= PORTION {
                    self.put_back(&object, (from, at, false), &mut portion).await?;
                    done.records += std::mem::take(&mut count);
                    from = at;
                }
                match self.wanted.look(record, self.file.feed, object.as_str()) {
                    wanted::Look::Wanted => {
                        portion.extend_from_slice(record);
                        portion.push(b'\n');
                        count += 1;
                    }
                    other => {
                        done.passed_over += 1;
                        done.without_time += u64::from(other == wanted::Look::WithoutTime);
                    }
                }
            }
            at += 1;
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Stop::Interrupted.into());
            }
        }
        self.put_back(&object, (from, at, true), &mut portion).await?;
        done.records += count;
        Ok(())
    }

    /// Hands over what is wanted of the lines `from` to before `through`.
    async fn put_back(
        &self,
        object: &ContentId,
        (from, through, last): (u64, u64, bool),
        portion: &mut Vec<u8>,
    ) -> Result<(), Stop> {
        let Some((intake, begun)) = self.intake else {
            portion.clear();
            return Ok(());
        };
        let mut told = false;
        while !portion.is_empty() && !intake.position(begun.id, object.clone()).await?.room {
            if !intake.is_live() {
                return Err(Stop::Full);
            }
            if !std::mem::replace(&mut told, true) {
                self.restore.bar.suspend(|| {
                    tracing::info!("the spool is half full: waiting until the sinks have taken some of it");
                });
            }
            tokio::time::sleep(FULL).await;
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Stop::Interrupted);
            }
        }
        let step = RestoreStep {
            restore: begun.id,
            feed: self.file.feed,
            object: object.clone(),
            from,
            through,
            done: last,
        };
        intake.records(step, std::mem::take(portion)).await?;
        Ok(())
    }
}

/// A file for a copy, which nobody else can open and which is gone with this process.
fn scratch(state: &Path) -> io::Result<File> {
    // The ledger clears what lies there under such a name, should this process be killed before the name is gone.
    let spool = state.join("spool");
    let folder: PathBuf = if spool.is_dir() { spool } else { std::env::temp_dir() };
    let path = folder.join(format!("incoming-restore-{}.part", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
