//! The spool: fetched bodies until every sink has them, in append-only segment files.
//!
//! It promises that a body whose row is committed is durable (L2): a group of bodies is appended, made durable with one
//! fdatasync a segment (and a sync of the directory for a new one), and then named in one commit of the database. What
//! a failed group appended is cut off again; after a failed fdatasync the file is not written to any more.

pub(crate) mod codec;
pub(crate) mod frame;
pub(crate) mod incoming;
pub(crate) mod reader;
pub(crate) mod segment;

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufRead},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use schemas::LedgerId;

use crate::{
    error::{LedgerError, OpenError, Result},
    faults::{Faults, Point},
};

/// Where a body lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) stored: u64,
}

/// A segment that bodies are appended to.
struct Tail {
    number: u64,
    file: File,
    /// Up to where it was made durable and committed.
    committed: u64,
    /// Up to where it was written.
    length: u64,
    made_now: bool,
}

/// The writer's side of the spool.
pub(crate) struct Spool {
    dir: PathBuf,
    ledger: LedgerId,
    segment_bytes: u64,
    /// The segments that the open group wrote to; the last one is the current one.
    tails: Vec<Tail>,
    next_number: u64,
    faults: Faults,
}

/// What the start found in the spool's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpoolRecovery {
    /// Bytes behind the committed end of segments, cut off: bodies that a crash interrupted.
    pub cut_bytes: u64,
    /// Segment files that no commit names, removed.
    pub orphans: u64,
    /// Files with bodies that were on their way, removed.
    pub parts: u64,
    /// Segments that are missing, or shorter than what was committed: their bodies are fetched again when they are read.
    pub damaged: Vec<u64>,
    /// Segment files of another ledger, left alone.
    pub foreign: u64,
}

/// A position in the open group that a failed operation goes back to.
pub(crate) struct Mark {
    tails: usize,
    length: u64,
}

impl Spool {
    /// Opens the spool, whose committed segments and their lengths are given, and cleans up after a crash.
    pub(crate) fn open(
        dir: &Path,
        ledger: LedgerId,
        segment_bytes: u64,
        mut committed: HashMap<u64, u64>,
        faults: Faults,
    ) -> Result<(Self, SpoolRecovery), OpenError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { what, path, source }
        };
        let mut report = SpoolRecovery::default();
        let mut next_number = committed.keys().max().map_or(1, |last| last + 1);
        let mut current: Option<Tail> = None;
        for entry in fs::read_dir(dir).map_err(io("listing", dir))? {
            let entry = entry.map_err(io("listing", dir))?;
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(incoming::PREFIX) {
                fs::remove_file(&path).map_err(io("removing", &path))?;
                report.parts += 1;
                continue;
            }
            let Some(number) = segment::number_in(&name) else { continue };
            next_number = next_number.max(number + 1);
            let file = File::options().read(true).write(true).open(&path).map_err(io("opening", &path))?;
            let origin = segment::origin(&file, number, ledger).map_err(io("reading", &path))?;
            let Some(length) = committed.remove(&number) else {
                if origin == segment::Origin::Foreign {
                    tracing::warn!(path = %path.display(), "a segment of another ledger lies in the spool; it is left alone");
                    report.foreign += 1;
                } else {
                    fs::remove_file(&path).map_err(io("removing", &path))?;
                    report.orphans += 1;
                }
                continue;
            };
            let found = file.metadata().map_err(io("reading", &path))?.len();
            if found < length || origin != segment::Origin::Ours {
                report.damaged.push(number);
                continue;
            }
            if found > length {
                file.set_len(length).map_err(io("truncating", &path))?;
                report.cut_bytes += found - length;
            }
            if length < segment_bytes && current.as_ref().is_none_or(|tail| tail.number < number) {
                current = Some(Tail { number, file, committed: length, length, made_now: false });
            }
        }
        report.damaged.extend(committed.into_keys());
        report.damaged.sort_unstable();
        let spool = Self {
            dir: dir.to_owned(),
            ledger,
            segment_bytes,
            tails: current.into_iter().collect(),
            next_number,
            faults,
        };
        Ok((spool, report))
    }

    /// Appends a body of a known length. It counts when [`Spool::sync`] and the commit have succeeded.
    pub(crate) fn append(&mut self, body: &mut dyn BufRead, stored: u64) -> Result<Place> {
        if self.tails.last().is_none_or(|tail| tail.length >= self.segment_bytes) {
            self.begin_segment()?;
        }
        let Some(tail) = self.tails.last_mut() else { return Err(LedgerError::Closed) };
        let place = Place { segment: tail.number, offset: tail.length, stored };
        let reading = |error| LedgerError::io("reading a body")(error);
        let mut left = stored;
        while left > 0 {
            let chunk = match body.fill_buf() {
                Ok([]) => return Err(reading(io::ErrorKind::UnexpectedEof.into())),
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(reading(error)),
            };
            let want = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let chunk = &chunk[..want];
            if let Some(cut) = self.faults.cut(Point::Append, want) {
                let written = tail.file.write_all_at(&chunk[..cut], tail.length);
                return Err(LedgerError::io("appending to the spool")(
                    written.err().unwrap_or_else(|| io::Error::other("cut")),
                ));
            }
            self.faults
                .at(Point::Append)
                .and_then(|()| tail.file.write_all_at(chunk, tail.length))
                .map_err(LedgerError::io("appending to the spool"))?;
            tail.length += want as u64;
            left -= want as u64;
            body.consume(want);
        }
        Ok(place)
    }

    fn begin_segment(&mut self) -> Result<()> {
        let number = self.next_number;
        self.faults
            .at(Point::MakeSegment)
            .and_then(|()| segment::create(&self.dir, number, self.ledger))
            .map(|file| {
                self.next_number += 1;
                let (committed, length) = (0, segment::HEADER);
                self.tails.push(Tail { number, file, committed, length, made_now: true });
            })
            .map_err(LedgerError::io("making a segment of the spool"))
    }

    /// The segment that bodies are appended to, and its length.
    pub(crate) fn current(&self) -> Option<(u64, u64)> {
        self.tails.last().map(|tail| (tail.number, tail.length))
    }

    /// Stops appending to the current segment, to which the open group has appended nothing.
    pub(crate) fn leave_current(&mut self) {
        debug_assert!(self.tails.len() <= 1 && !self.has_uncommitted());
        self.tails.clear();
    }

    /// Whether the open group has appended anything.
    pub(crate) fn has_uncommitted(&self) -> bool {
        self.tails.iter().any(|tail| tail.length != tail.committed)
    }

    /// Where the open group stands.
    pub(crate) fn mark(&self) -> Mark {
        Mark { tails: self.tails.len(), length: self.tails.last().map_or(0, |tail| tail.length) }
    }

    /// Forgets what was appended since.
    pub(crate) fn rewind(&mut self, mark: &Mark) {
        while self.tails.len() > mark.tails
            && let Some(tail) = self.tails.pop()
        {
            remove(&self.dir, tail.number);
        }
        if self.tails.len() == mark.tails
            && let Some(tail) = self.tails.last_mut()
        {
            tail.length = mark.length;
        }
    }

    /// Makes everything that was appended durable.
    pub(crate) fn sync(&mut self) -> Result<()> {
        let mut made = false;
        for tail in self.tails.iter().filter(|tail| tail.length > tail.committed) {
            self.faults
                .at(Point::SyncSegments)
                .and_then(|()| tail.file.sync_data())
                .map_err(LedgerError::io("making the spool durable"))?;
            self.faults.synced(&segment::path(&self.dir, tail.number), tail.length);
            made |= tail.made_now;
        }
        if made {
            File::open(&self.dir)
                .and_then(|dir| dir.sync_all())
                .map_err(LedgerError::io("making the spool durable"))?;
        }
        Ok(())
    }

    /// Notes that the commit succeeded.
    pub(crate) fn committed(&mut self) {
        if self.tails.len() > 1 {
            self.tails.drain(..self.tails.len() - 1);
        }
        if let Some(tail) = self.tails.last_mut() {
            tail.committed = tail.length;
            tail.made_now = false;
        }
    }

    /// Forgets what the group appended, because it did not succeed. After a failed sync nobody knows what of a file is
    /// durable: it is never appended to again.
    pub(crate) fn roll_back(&mut self, distrust: bool) {
        let mut kept = None;
        for tail in std::mem::take(&mut self.tails) {
            if tail.made_now {
                remove(&self.dir, tail.number);
            } else if tail.length > tail.committed {
                let cut = tail.file.set_len(tail.committed);
                if cut.is_ok() && !distrust {
                    kept = Some(Tail { length: tail.committed, ..tail });
                }
            } else {
                kept = Some(tail);
            }
        }
        self.tails.extend(kept);
    }

    /// Removes a segment that no commit names any more. One that stays is an orphan, removed by the next start.
    pub(crate) fn remove(&self, number: u64) {
        if self.faults.at(Point::RemoveSegment).is_ok() {
            remove(&self.dir, number);
        }
    }
}

fn remove(dir: &Path, number: u64) {
    let path = segment::path(dir, number);
    if let Err(error) = fs::remove_file(&path) {
        tracing::warn!(path = %path.display(), %error, "a segment was not removed; the next start does");
    }
}
