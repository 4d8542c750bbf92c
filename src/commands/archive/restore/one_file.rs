//! One file of an archive on its way: verified, looked through, and handed over in portions.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use archive::restoring::{NotRestorable, ReadError, Selected};
use ledger::{BegunRestore, RestoreStep};
use schemas::ContentId;

use super::{
    Done, Failure, Restore, Stop,
    intake::Intake,
    wanted::{Look, Wanted},
};
use crate::restoring::PORTION;

/// How long a full spool is left alone before it is looked at again.
const FULL: Duration = Duration::from_secs(1);

/// Why a file's records are not all put back.
pub(super) enum FileStop {
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
pub(super) struct OneFile<'a> {
    pub(super) restore: &'a Restore<'a>,
    pub(super) file: &'a Selected,
    pub(super) wanted: &'a Wanted,
    pub(super) intake: Option<(&'a Intake, &'a BegunRestore)>,
    pub(super) interrupted: &'a AtomicBool,
}

impl OneFile<'_> {
    /// Puts back what is wanted of the file.
    pub(super) async fn run(&mut self, done: &mut Done) -> Result<(), FileStop> {
        let object = ContentId::try_from(self.file.path.as_str()).map_err(Failure::problem)?;
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
        let mut records = self.file.read(&self.restore.store, copy, &mut got).await?;
        let (mut portion, mut count, mut at) = (Vec::new(), 0, 0);
        while let Some(record) = records.next_record()? {
            if at >= from {
                if !portion.is_empty() && portion.len() + record.len() >= PORTION {
                    self.put_back(&object, (from, at, false), &mut portion).await?;
                    done.records += std::mem::take(&mut count);
                    from = at;
                }
                match self.wanted.look(record, self.file.feed, object.as_str()) {
                    Look::Wanted => {
                        portion.extend_from_slice(record);
                        portion.push(b'\n');
                        count += 1;
                    }
                    other => {
                        done.passed_over += 1;
                        done.without_time += u64::from(other == Look::WithoutTime);
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
