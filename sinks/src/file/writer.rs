//! The steps on disk, in the order that a crash at any of them can be made good. Blocking.
//!
//! A batch is one write for each of its parts and one fdatasync. Before the first write, what stands behind the place of
//! the batch is compared with it: a whole line that is the due record stays (somebody may have read it), anything else
//! is cut, but for whole lines of works that were given up meanwhile. Behind a body that came back as another these are cut,
//! too.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tracing::{error, warn};

use super::{
    disk::{Access, Disk, DiskFile, Identity, read_full, write_all},
    line::{Lines, is_record},
    locate::{Found, is_for_a_person, locate, not_regular, shorter, unknown},
    plan::{Place, Written},
    state::{Closing, State},
};
use crate::sink::{Batch, BatchPart, DeliverError, Disposition};

const CHUNK: usize = 256 * 1024;

/// Does what is to be done on disk.
pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    /// The live file's path in the configuration.
    live: PathBuf,
    access: Access,
    open: Option<OpenFile>,
    /// After a failed fsync nobody knows what is on disk: it is written again before the next one.
    suspect: bool,
    /// A directory whose entries changed and were not fsynced.
    dirty: Option<PathBuf>,
}

struct OpenFile {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    identity: Identity,
}

/// An error of the file system as the delivery loop is to see it.
pub(super) fn failed(what: &str, path: &Path, error: &io::Error) -> DeliverError {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let path = path.display();
    match error.kind() {
        StorageFull | QuotaExceeded => DeliverError::retry(format!(
            "no room to {what} {path}: {error}; nothing is lost, it goes on when there is room"
        )),
        FileTooLarge => DeliverError::halt(format!("cannot {what} {path}: {error}; lower rotate_bytes")),
        _ if is_for_a_person(error) => {
            DeliverError::halt(format!("cannot {what} {path}: {error}; check its owner and permissions"))
        }
        _ => DeliverError::retry(format!("cannot {what} {path}: {error}")),
    }
}

impl Writer {
    pub(super) fn new(disk: Arc<dyn Disk>, live: PathBuf, access: Access) -> Self {
        Self { disk, live, access, open: None, suspect: false, dirty: None }
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }

    /// Whether the file that the ledger knows has to be forgotten, because it is gone.
    pub(super) fn is_gone(&self, state: &State) -> Result<bool, DeliverError> {
        let found = locate(self.disk(), &self.live, Some(state))?;
        Ok(found.anew && (state.synced > 0 || state.path != self.live))
    }

    /// Makes ready what the ledger knows.
    pub(super) fn open(&mut self, state: Option<&State>) -> Result<Identity, DeliverError> {
        self.open = None;
        let Found { rename, live, anew } = locate(self.disk(), &self.live, state)?;
        self.make_directory()?;
        if let Some(closing) = &rename {
            self.rename(closing)?;
        } else if let Some(closing) = state.and_then(|state| state.closing.as_ref()) {
            // It happened in an earlier run, which may not have come to this.
            self.sync_directory_of(&closing.to)?;
        }
        let identity = match live {
            Some(path) => {
                let identity = self.reopen(&path)?;
                // An earlier run may have made it and not come to this.
                self.sync_directory_of(&path)?;
                if let Some(state) = state.filter(|_| !anew) {
                    self.look_at_tail(&path, state)?;
                }
                identity
            }
            None => {
                let identity = self.create(&self.live.clone())?;
                self.sync_dirty()?;
                identity
            }
        };
        Ok(identity)
    }

    /// What stands behind the last fsync may only be in memory, where a failed write left it: it is written again, so
    /// that the next fsync proves it. When nothing is due there, it is not ours.
    fn look_at_tail(&mut self, path: &Path, state: &State) -> Result<(), DeliverError> {
        let Some(open) = &self.open else { return Ok(()) };
        let fail = |error: io::Error| failed("read", path, &error);
        let length = open.file.look().map_err(fail)?.length;
        if length <= state.synced {
            return Ok(());
        }
        if !state.due.is_empty() || state.given_up.is_some() {
            return write_again(open.file.as_ref(), state.synced, length)
                .map_err(|error| failed("write", path, &error));
        }
        if state.synced == 0 {
            return Err(unknown(path));
        }
        error!("{}: cut {} bytes that nobody was to write", path.display(), length - state.synced);
        open.file.set_length(state.synced).and_then(|()| open.file.sync()).map_err(fail)
    }

    /// Appends a batch, or what is missing of it. `None` when the live file is gone: then the ledger has to know
    /// before another is made, or the next start would take that for a file that lost its end.
    pub(super) fn deliver(&mut self, place: &Place, batch: &Batch) -> Result<Option<Written>, DeliverError> {
        refuse_line_breaks(batch)?;
        if let Some(closing) = &place.closing {
            self.close(closing)?;
        }
        if !self.make_live(place)? {
            return Ok(None);
        }
        let result = self.append(place, batch);
        if result.is_err() {
            // The next attempt looks again at what is there.
            self.open = None;
        }
        let written = result?;
        self.sync_dirty()?;
        Ok(Some(written))
    }

    /// Does a decided rotation and starts the new live file.
    pub(super) fn rotate(&mut self, place: &Place) -> Result<Identity, DeliverError> {
        if let Some(closing) = &place.closing {
            self.close(closing)?;
        }
        self.make_live(place)?;
        self.sync_dirty()?;
        match &self.open {
            Some(open) => Ok(open.identity),
            None => Err(DeliverError::retry("the new live file was lost")),
        }
    }

    /// Whether files can be made in the directory, and whether the ledger's file is as it should be. No
    /// file is changed.
    pub(super) fn probe(&self, state: Option<&State>) -> Result<(), DeliverError> {
        locate(self.disk(), &self.live, state)?;
        self.make_directory()?;
        let name = format!("{}.probe.tmp", self.live.display());
        let path = Path::new(&name);
        let fail = |error: io::Error| failed("make", path, &error);
        match self.disk.create(path, self.access) {
            Ok(_) => {}
            // Left by one that was killed, or of one that runs at this moment.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(fail(error)),
        }
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail(error)),
            _ => Ok(()),
        }
    }

    fn append(&mut self, place: &Place, batch: &Batch) -> Result<Written, DeliverError> {
        let (path, at) = (place.path.as_path(), place.at);
        let Some(OpenFile { file, identity, .. }) = &self.open else {
            return Err(DeliverError::retry("the live file is not open"));
        };
        let file = file.as_ref();
        let reading = |error: io::Error| failed("read", path, &error);
        let writing = |error: io::Error| failed("write", path, &error);
        let length = file.look().map_err(reading)?.length;
        if length < at {
            return Err(shorter(path, length, at));
        }
        if self.suspect {
            write_again(file, at, length).map_err(writing)?;
        }

        let mut tail = (length > at).then(|| Lines::new(file, at));
        let (mut end, mut kept) = (at, 0);
        let mut starts = Vec::with_capacity(batch.parts.len());
        for part in &batch.parts {
            let mut start = None;
            let mut there = 0;
            while let Some(lines) = &mut tail
                && let Some(record) = part.records().nth(there)
            {
                match lines.next().map_err(reading)? {
                    Some(line) if line.whole && is_record(line.bytes, &record) => {
                        start.get_or_insert(end);
                        end += line.bytes.len() as u64 + 1;
                        there += 1;
                    }
                    // Unless what is due has changed: then a line that is due later may be among them, and be written twice.
                    Some(line) if line.whole && end < place.keeps_below && !place.replaces => {
                        end += line.bytes.len() as u64 + 1;
                        kept = end;
                    }
                    Some(line) if line.whole && end == 0 && !place.replaces => return Err(unknown(path)),
                    line => {
                        if let Some(line) = line {
                            tell_cut(path, end, length, line.whole);
                            file.set_length(end).map_err(writing)?;
                        }
                        tail = None;
                    }
                }
            }
            starts.push(start.unwrap_or(end));
            let due = part.lines(there);
            if let Err((written, error)) = write_all(file, due, end) {
                // Whole lines stay, somebody may have read them; they are found when the batch comes again.
                let whole = due[..written].iter().rposition(|&b| b == b'\n').map_or(0, |last| last + 1);
                if let Err(error) = file.set_length(end + whole as u64) {
                    warn!("cannot take half a line off {}: {error}", path.display());
                }
                return Err(writing(error));
            }
            end += due.len() as u64;
        }
        if let Err(error) = file.sync() {
            self.suspect = true;
            return Err(failed("fsync", path, &error));
        }
        self.suspect = false;
        if kept > 0 {
            warn!(
                "{}: lines before {kept} stay that are not due: of blobs that were given up while nobody wrote here",
                path.display()
            );
        }
        let is_all = tail.is_none() || end >= length;
        Ok(Written { starts, end, identity: *identity, kept: is_all.then_some(kept) })
    }

    /// The live file is there and open, unless it is gone.
    fn make_live(&mut self, place: &Place) -> Result<bool, DeliverError> {
        let path = place.path.as_path();
        let found = self.disk.look(path).map_err(|error| failed("look at", path, &error))?;
        let Some(found) = found else {
            self.open = None;
            if place.at > 0 {
                error!("{} was removed or renamed by somebody else; a new file is started", path.display());
                return Ok(false);
            }
            self.make_directory()?;
            self.create(path)?;
            return Ok(true);
        };
        if !found.regular {
            return Err(not_regular(path));
        }
        match &self.open {
            Some(open) if open.path == path && open.identity == found.identity => {}
            Some(open) if open.path == path => return Err(unknown(path)),
            _ => {
                self.reopen(path)?;
            }
        }
        Ok(true)
    }

    /// A decided rotation, unless it has happened.
    fn close(&mut self, closing: &Closing) -> Result<(), DeliverError> {
        let from = &closing.from;
        let found = self.disk.look(from).map_err(|error| failed("look at", from, &error))?;
        if found.is_some_and(|found| found.identity == closing.identity) {
            self.rename(closing)?;
        } else {
            if found.is_none() && self.disk.look(&closing.to).is_ok_and(|closed| closed.is_none()) {
                error!("{} was removed or renamed by somebody else", from.display());
            }
            self.sync_directory_of(&closing.to)?;
        }
        if self.open.as_ref().is_some_and(|open| open.identity == closing.identity) {
            self.open = None;
        }
        Ok(())
    }

    fn rename(&mut self, closing: &Closing) -> Result<(), DeliverError> {
        let Closing { from, to, length, .. } = closing;
        let fail = |error: io::Error| failed("rename", from, &error);
        let file = self.disk.open(from).map_err(fail)?;
        let found = file.look().map_err(fail)?.length;
        if found > *length {
            error!("{}: cut {} bytes that nobody was to write", from.display(), found - length);
            file.set_length(*length).and_then(|()| file.sync()).map_err(fail)?;
        }
        self.disk.rename(from, to).map_err(fail)?;
        self.sync_directory_of(to)
    }

    fn create(&mut self, path: &Path) -> Result<Identity, DeliverError> {
        let fail = |error: io::Error| failed("make", path, &error);
        let file = self.disk.create(path, self.access).map_err(fail)?;
        self.dirty = path.parent().map(Path::to_owned);
        self.keep_open(path, file)
    }

    fn reopen(&mut self, path: &Path) -> Result<Identity, DeliverError> {
        let fail = |error: io::Error| failed("open", path, &error);
        let file = self.disk.open(path).map_err(fail)?;
        file.permit(self.access).map_err(|error| failed("set the mode or group of", path, &error))?;
        self.keep_open(path, file)
    }

    fn keep_open(&mut self, path: &Path, file: Box<dyn DiskFile>) -> Result<Identity, DeliverError> {
        let identity = file.look().map_err(|error| failed("look at", path, &error))?.identity;
        self.open = Some(OpenFile { path: path.to_owned(), file, identity });
        Ok(identity)
    }

    fn make_directory(&self) -> Result<(), DeliverError> {
        let directory = self.live.parent().unwrap_or(Path::new("/"));
        self.disk
            .make_directory(directory, self.access)
            .map_err(|error| failed("make the directory", directory, &error))
    }

    fn sync_directory_of(&self, path: &Path) -> Result<(), DeliverError> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        self.disk.sync_directory(directory).map_err(|error| failed("fsync", directory, &error))
    }

    fn sync_dirty(&mut self) -> Result<(), DeliverError> {
        if let Some(directory) = &self.dirty {
            self.disk.sync_directory(directory).map_err(|error| failed("fsync", directory, &error))?;
            self.dirty = None;
        }
        Ok(())
    }
}

/// A record with a line break in it would be two lines: a bug of the view, which must not spoil the file.
fn refuse_line_breaks(batch: &Batch) -> Result<(), DeliverError> {
    let breaks = |part: &BatchPart| memchr::memchr_iter(b'\n', part.lines(0)).count();
    if batch.parts.iter().all(|part| breaks(part) == part.indexes.len()) {
        return Ok(());
    }
    let broken = batch.records().enumerate().filter(|(_, (_, record))| record.bytes.contains(&b'\n'));
    let reason = "its rendering has a line break in it, and a record is one line";
    let records: Vec<_> = broken.map(|(index, _)| (index, reason.to_owned())).collect();
    Err(DeliverError { disposition: Disposition::Reject { records }, context: reason.to_owned() })
}

fn tell_cut(path: &Path, at: u64, length: u64, whole: bool) {
    let path = path.display();
    if whole {
        error!("{path}: cut {} bytes at {at}: the line there is not the record that is due", length - at);
    } else {
        warn!(
            "{path}: cut {} bytes of half a line at {at}, left by a crash; it is written again",
            length - at
        );
    }
}

/// Writes again what is there, so that it is written to disk whatever became of it.
fn write_again(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut offset = from;
    while offset < to {
        let want = usize::try_from(to - offset).unwrap_or(CHUNK).min(CHUNK);
        let read = read_full(file, &mut buffer[..want], offset)?;
        if read == 0 {
            break;
        }
        write_all(file, &buffer[..read], offset).map_err(|(_, error)| error)?;
        offset += read as u64;
    }
    Ok(())
}
