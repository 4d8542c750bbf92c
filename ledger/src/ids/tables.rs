//! All tables of the index: which partitions have one, how ids get into them, and when they go.
//!
//! A few files are open at a time; what is known of the others is their header, so that a look-up in a partition
//! without a table costs no system call.

use std::path::{Path, PathBuf};

use super::disk::{self, DiskFile};
use super::slot::{Entry, Horizon, Id, Mark, PARTITIONS, Partition, Slot};
use super::table::{self, Header, Put, Writer};
use super::{Checkpoint, Day, IdsError, Owner};

/// The tables of one index.
pub(super) struct Tables {
    dir: PathBuf,
    mark: Mark,
    /// By the number of the partition.
    known: Vec<Option<Known>>,
    /// How many files may be open.
    handles: usize,
    open: usize,
    /// Counts uses, to find the handle that was not used for longest.
    clock: u64,
}

struct Known {
    header: Header,
    file: Option<DiskFile>,
    used: u64,
    /// The next flush writes it anew: it overflowed, or its file may not hold what was written to it.
    rebuild: bool,
}

impl Tables {
    /// No tables yet, and at most `handles` open files.
    pub(super) fn new(dir: &Path, mark: Mark, handles: usize) -> Self {
        let known = (0..PARTITIONS).map(|_| None).collect();
        Self { dir: dir.to_owned(), mark, known, handles: handles.max(1), open: 0, clock: 0 }
    }

    /// Adds a table that is in the directory, after checking it. `committed` is what the ledger knows.
    pub(super) fn adopt(&mut self, partition: Partition, committed: Checkpoint) -> Result<(), IdsError> {
        let file = DiskFile::open(path(&self.dir, partition))?;
        let header = Header::read(&file, self.mark, partition)?;
        if header.flushed > committed {
            let path = file.path().to_owned();
            return Err(IdsError::Foreign { path, what: "it knows more blobs than the ledger" });
        }
        let rebuild = false;
        self.known[usize::from(partition.number())] = Some(Known { header, file: None, used: 0, rebuild });
        Ok(())
    }

    /// Removes a table that is in the directory and was not adopted.
    pub(super) fn remove(&self, partition: Partition) -> Result<(), IdsError> {
        disk::remove(&path(&self.dir, partition))
    }

    /// Looks for an id, expired or not.
    pub(super) fn find(&mut self, id: &Id) -> Result<Option<Slot>, IdsError> {
        let at = usize::from(id.partition.number());
        let Some(known) = &self.known[at] else { return Ok(None) };
        let buckets = known.header.buckets;
        let wanted = Slot::new(id.fingerprint, Owner(0), Day(0));
        table::find(self.handle(id.partition)?, buckets, wanted)
    }

    /// Puts the ids of a run, sorted, into their tables and makes them durable. Ids that are there with an owner that
    /// still counts keep it, so that a run may be repeated after a failure or a crash.
    pub(super) fn put(
        &mut self,
        run: &[Entry],
        horizon: Horizon,
        flushed: Checkpoint,
    ) -> Result<(), IdsError> {
        run.chunk_by(|a, b| a.partition == b.partition)
            .try_for_each(|entries| self.put_partition(entries[0].partition, entries, horizon, flushed))
    }

    fn put_partition(
        &mut self,
        partition: Partition,
        entries: &[Entry],
        horizon: Horizon,
        flushed: Checkpoint,
    ) -> Result<(), IdsError> {
        let in_place = self.known[usize::from(partition.number())].as_ref().is_some_and(|known| {
            !known.rebuild
                && !table::is_crowded(known.header.buckets, known.header.ids + entries.len() as u64)
        });
        if in_place && self.put_in_place(partition, entries, horizon, flushed)? {
            return Ok(());
        }
        self.rebuild(partition, entries, horizon, flushed)
    }

    /// Says whether there was room.
    fn put_in_place(
        &mut self,
        partition: Partition,
        entries: &[Entry],
        horizon: Horizon,
        flushed: Checkpoint,
    ) -> Result<bool, IdsError> {
        self.handle(partition)?;
        let mark = self.mark;
        let Some(known) = &mut self.known[usize::from(partition.number())] else { return Ok(false) };
        let Some(file) = &known.file else { return Ok(false) };
        let mut header = Header { flushed, ..known.header };
        let mut writer = Writer::new(file, header.buckets, entries.len() as u64, horizon);
        for entry in entries {
            match writer.put(entry.slot)? {
                Put::Added => header.ids += 1,
                Put::Replaced | Put::Known => {}
                Put::Full => {
                    writer.finish()?;
                    return Ok(false);
                }
            }
            header.newest = header.newest.max(entry.slot.day());
        }
        writer.finish()?;
        header.write(file, mark)?;
        if let Err(error) = file.sync() {
            // What a failed sync leaves on the disk is unknown, and the next one would not tell.
            known.rebuild = true;
            return Err(error);
        }
        known.header = header;
        Ok(true)
    }

    /// Writes the table anew, with room to grow and without what has expired, and puts the new file in place of the
    /// old one. Until then the old one is untouched.
    fn rebuild(
        &mut self,
        partition: Partition,
        entries: &[Entry],
        horizon: Horizon,
        flushed: Checkpoint,
    ) -> Result<(), IdsError> {
        let at = usize::from(partition.number());
        let old = self.known[at].as_ref().map(|known| known.header);
        let mut alive = 0;
        if let Some(old) = old {
            // Counted, because after a crash the header's sum may be wrong.
            table::scan(self.handle(partition)?, old.buckets, |run| {
                alive += run.iter().filter(|slot| horizon.includes(slot.day())).count() as u64;
                Ok(())
            })?;
        }
        let ids = alive + entries.len() as u64;
        let mut header =
            Header { partition, newest: Day(0), buckets: table::buckets_for(ids), ids: 0, flushed };
        let new = path(&self.dir, partition).with_extension(NEW);
        let made = DiskFile::create(new.clone()).and_then(|file| {
            file.set_len(header.file_bytes())?;
            let mut writer = Writer::new(&file, header.buckets, ids, horizon);
            let mut put = |slot: Slot| -> Result<(), IdsError> {
                if writer.put(slot)? == Put::Added {
                    header.ids += 1;
                }
                header.newest = header.newest.max(slot.day());
                Ok(())
            };
            if let Some(old) = old {
                table::scan(self.handle(partition)?, old.buckets, |run| {
                    run.iter().filter(|slot| horizon.includes(slot.day())).try_for_each(|slot| put(*slot))
                })?;
            }
            entries.iter().try_for_each(|entry| put(entry.slot))?;
            writer.finish()?;
            header.write(&file, self.mark)?;
            file.sync()?;
            Ok(file)
        });
        let renamed = made.and_then(|mut file| file.rename(path(&self.dir, partition)).map(|()| file));
        let file = match renamed {
            Ok(file) => file,
            Err(error) => {
                if let Err(error) = disk::remove(&new) {
                    tracing::debug!(%error, "the next start will remove it");
                }
                return Err(error);
            }
        };
        self.make_room();
        self.clock += 1;
        if self.known[at].as_ref().is_none_or(|known| known.file.is_none()) {
            self.open += 1;
        }
        // The new name is durable only after the directory is; when that fails, the file is written once more.
        let named = disk::sync_directory(&self.dir);
        self.known[at] = Some(Known { header, file: Some(file), used: self.clock, rebuild: named.is_err() });
        named
    }

    /// Removes the tables in which everything has expired.
    pub(super) fn expire(&mut self, horizon: Horizon) -> Result<(), IdsError> {
        for known in &mut self.known {
            if let Some(Known { header, file, .. }) = known
                && !horizon.includes(header.newest)
            {
                disk::remove(&path(&self.dir, header.partition))?;
                self.open -= usize::from(file.is_some());
                *known = None;
            }
        }
        Ok(())
    }

    /// The headers of all tables.
    pub(super) fn headers(&self) -> impl Iterator<Item = &Header> {
        self.known.iter().flatten().map(|known| &known.header)
    }

    /// How many files are open.
    pub(super) fn open_files(&self) -> usize {
        self.open
    }

    /// The open file of a partition that has a table.
    fn handle(&mut self, partition: Partition) -> Result<&DiskFile, IdsError> {
        let at = usize::from(partition.number());
        if self.known[at].as_ref().is_some_and(|known| known.file.is_none()) {
            self.make_room();
            let file = DiskFile::open(path(&self.dir, partition))?;
            self.open += 1;
            if let Some(known) = &mut self.known[at] {
                known.file = Some(file);
            }
        }
        self.clock += 1;
        let known = self.known[at].as_mut().expect("asked only for partitions that have a table");
        known.used = self.clock;
        Ok(known.file.as_ref().expect("opened above"))
    }

    /// Closes the file that was not used for longest, if as many are open as may be.
    fn make_room(&mut self) {
        while self.open >= self.handles {
            let open = self.known.iter_mut().flatten().filter(|known| known.file.is_some());
            let Some(idle) = open.min_by_key(|known| known.used) else { return };
            idle.file = None;
            self.open -= 1;
        }
    }
}

const TABLE: &str = "table";
const NEW: &str = "new";

fn path(dir: &Path, partition: Partition) -> PathBuf {
    dir.join(format!("hours-{:04}.{TABLE}", partition.number()))
}

/// What a file of the directory is, by its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// The table of a partition.
    Table(Partition),
    /// A table that was being written when mailtrail stopped.
    Unfinished,
}

/// Tells tables by their names; `None` for any other name.
pub(super) fn name(name: &str) -> Option<Name> {
    let (number, extension) = name.strip_prefix("hours-")?.split_once('.')?;
    let partition = Partition::new(number.parse().ok().filter(|_| number.len() == 4)?)?;
    match extension {
        TABLE => Some(Name::Table(partition)),
        NEW => Some(Name::Unfinished),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_our_own_are_recognised() {
        assert_eq!(name("hours-0007.table"), Some(Name::Table(Partition::of_hour(7))));
        assert_eq!(name("hours-2047.new"), Some(Name::Unfinished));
        for other in ["hours-2048.table", "hours-7.table", "hours-0007.tables", "hours-0007", "notes", ""] {
            assert_eq!(name(other), None, "{other}");
        }
    }
}
