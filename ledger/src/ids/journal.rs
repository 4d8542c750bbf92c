//! The journal of recent ids: what makes them durable before a table holds them.
//!
//! `journal-NNNNNNNNNN` is append-only. All numbers are big-endian.
//!
//! ```text
//! header  magic "mtidsjou" · version u32 · mark of the ledger [8] · number of the journal u64 · crc32 u32
//! frame   ids in it u32 · crc32 of that number and of the ids u32 · ids
//! id      partition u16 · slot [16]
//! ```
//!
//! The ledger's commit records how long the journal is. Up to there every byte is durable and checked, and damage is
//! an error; what is beyond was never committed and is cut off, whatever it is.

use std::io;
use std::path::{Path, PathBuf};

use super::disk::{self, DiskFile};
use super::slot::{Entry, Mark, Partition, SLOT_BYTES, Slot};
use super::{Checkpoint, IdsError};

const MAGIC: &[u8; 8] = b"mtidsjou";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 8;
const ENTRY_BYTES: usize = 2 + SLOT_BYTES;
/// Ids in one frame at most; bounds what reading and writing keep in memory to 36 KiB.
const FRAME_ENTRIES: usize = 2048;

/// The journal that is being written.
pub(super) struct Journal {
    dir: PathBuf,
    mark: Mark,
    number: u64,
    /// How much of the file is valid and durable; 0 when the file is yet to be made.
    length: u64,
    file: Option<DiskFile>,
    /// A sync failed. What the file holds then is unknown to everyone, and a later sync would not tell.
    broken: bool,
}

impl Journal {
    /// A journal that is yet to be written; its file is made with the first append.
    pub(super) fn fresh(dir: &Path, mark: Mark, number: u64) -> Self {
        Self { dir: dir.to_owned(), mark, number, length: 0, file: None, broken: false }
    }

    /// Opens the journal that the ledger committed, gives each of its ids to `restore` and cuts off what is beyond.
    pub(super) fn reopen(
        dir: &Path,
        mark: Mark,
        committed: Checkpoint,
        mut restore: impl FnMut(Entry),
    ) -> Result<Self, IdsError> {
        let file = DiskFile::open(path(dir, committed.journal)).map_err(|error| match error {
            IdsError::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                IdsError::Damaged { path, what: "it is missing" }
            }
            error => error,
        })?;
        let damaged = |what| IdsError::Damaged { path: file.path().to_owned(), what };
        if file.len()? < committed.length {
            return Err(damaged("it is shorter than the ledger says"));
        }
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0)?;
        let version = number_at(&header, 8);
        if header[..8] != *MAGIC {
            return Err(damaged("it is no journal of ids"));
        }
        if crc32fast::hash(&header[..28]) != number_at(&header, 28) {
            return Err(damaged("the checksum of its header is wrong"));
        }
        if version != VERSION {
            return Err(IdsError::Newer { path: file.path().to_owned(), version });
        }
        if header[12..20] != mark.0 {
            return Err(IdsError::Foreign {
                path: file.path().to_owned(),
                what: "it bears another ledger's mark",
            });
        }
        if header[20..28] != committed.journal.to_be_bytes() {
            return Err(damaged("its number is not that of its name"));
        }
        let mut at = HEADER_BYTES as u64;
        let mut frame = Vec::new();
        while at < committed.length {
            let mut frame_header = [0; FRAME_HEADER_BYTES];
            file.read_exact_at(&mut frame_header, at)?;
            let entries = number_at(&frame_header, 0) as usize;
            let end = at + (FRAME_HEADER_BYTES + entries * ENTRY_BYTES) as u64;
            if entries > FRAME_ENTRIES || end > committed.length {
                return Err(damaged("a frame in it has an impossible length"));
            }
            frame.resize(entries * ENTRY_BYTES, 0);
            file.read_exact_at(&mut frame, at + FRAME_HEADER_BYTES as u64)?;
            if frame_crc(&frame_header[..4], &frame) != number_at(&frame_header, 4) {
                return Err(damaged("the checksum of a frame in it is wrong"));
            }
            for entry in frame.chunks_exact(ENTRY_BYTES) {
                restore(decode(entry).ok_or_else(|| damaged("an id in it has an impossible partition"))?);
            }
            at = end;
        }
        file.set_len(committed.length)?;
        let (number, length) = (committed.journal, committed.length);
        Ok(Self { dir: dir.to_owned(), mark, number, length, file: Some(file), broken: false })
    }

    pub(super) fn mark(&self) -> Mark {
        self.mark
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn checkpoint(&self) -> Checkpoint {
        Checkpoint { journal: self.number, length: self.length }
    }

    /// Whether nothing is in it yet, so that the next append must bring every recent id.
    pub(super) fn is_fresh(&self) -> bool {
        self.length == 0
    }

    /// Whether it must not be appended to any more.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Appends ids and makes them durable. When that fails, the journal is as long as it was.
    pub(super) fn append(&mut self, entries: impl Iterator<Item = Entry>) -> Result<(), IdsError> {
        let appended = self.try_append(entries);
        match appended {
            Ok(length) => self.length = length,
            Err(_) => self.cut_back(self.length),
        }
        appended.map(|_| ())
    }

    fn try_append(&mut self, mut entries: impl Iterator<Item = Entry>) -> Result<u64, IdsError> {
        debug_assert!(!self.broken, "a journal whose sync failed is left alone");
        let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + FRAME_ENTRIES * ENTRY_BYTES);
        let mut at = self.length;
        let new = self.file.is_none();
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(DiskFile::create(path(&self.dir, self.number))?),
        };
        if at == 0 {
            frame.extend_from_slice(MAGIC);
            frame.extend_from_slice(&VERSION.to_be_bytes());
            frame.extend_from_slice(&self.mark.0);
            frame.extend_from_slice(&self.number.to_be_bytes());
            frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
            file.write_all_at(&frame, 0)?;
            at = HEADER_BYTES as u64;
        }
        loop {
            frame.clear();
            frame.resize(FRAME_HEADER_BYTES, 0);
            entries.by_ref().take(FRAME_ENTRIES).for_each(|entry| encode(entry, &mut frame));
            let count = ((frame.len() - FRAME_HEADER_BYTES) / ENTRY_BYTES) as u32;
            if count == 0 {
                break;
            }
            let (header, ids) = frame.split_at_mut(FRAME_HEADER_BYTES);
            header[..4].copy_from_slice(&count.to_be_bytes());
            let crc = frame_crc(&header[..4], ids);
            header[4..].copy_from_slice(&crc.to_be_bytes());
            file.write_all_at(&frame, at)?;
            at += frame.len() as u64;
        }
        let synced = file.sync().and_then(|()| if new { disk::sync_directory(&self.dir) } else { Ok(()) });
        self.broken |= synced.is_err();
        synced.map(|()| at)
    }

    /// Takes back what is beyond `length`; 0 takes the whole file back.
    ///
    /// Nothing depends on the file's getting shorter: the next append writes over what was not cut off, and what is
    /// beyond the committed length is cut off at the next start.
    pub(super) fn cut_back(&mut self, length: u64) {
        self.length = length;
        if length == 0 {
            if self.file.take().is_some() {
                remove(&self.dir, self.number);
            }
        } else if let Some(file) = &self.file
            && let Err(error) = file.set_len(length)
        {
            tracing::debug!(%error, "could not shorten the journal of ids, its next append will write over the rest");
        }
    }
}

/// Removes a journal and says whether it is gone. That it is not is no failure: the next start tries again.
pub(super) fn remove(dir: &Path, number: u64) -> bool {
    disk::remove(&path(dir, number))
        .inspect_err(
            |error| tracing::warn!(%error, "could not remove a journal of ids that is not needed any more"),
        )
        .is_ok()
}

/// The path of a journal.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("journal-{number:010}"))
}

/// The number of the journal that has this file name.
pub(super) fn number_in(name: &str) -> Option<u64> {
    name.strip_prefix("journal-")?.parse().ok()
}

fn encode(entry: Entry, into: &mut Vec<u8>) {
    into.extend_from_slice(&entry.partition.number().to_be_bytes());
    into.extend_from_slice(&entry.slot.to_bytes());
}

fn decode(bytes: &[u8]) -> Option<Entry> {
    let partition = Partition::new(u16::from_be_bytes(*bytes.first_chunk()?))?;
    let slot = Slot::from_bytes(*bytes.last_chunk()?);
    Some(Entry { partition, slot })
}

fn frame_crc(count: &[u8], ids: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(count);
    crc.update(ids);
    crc.finalize()
}

fn number_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(number)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::disk::faults;
    use super::super::{Day, Owner};
    use super::*;

    const MARK: Mark = Mark([7; 8]);

    fn entries(range: std::ops::Range<i64>) -> impl Iterator<Item = Entry> {
        range.map(|number| {
            let mut bytes = [0; SLOT_BYTES];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            let fingerprint = Slot::from_bytes(bytes).fingerprint();
            let partition = Partition::of_hour(number as i32);
            Entry { partition, slot: Slot::new(fingerprint, Owner(number), Day(3)) }
        })
    }

    fn read(dir: &Path, committed: Checkpoint) -> Result<Vec<Entry>, IdsError> {
        let mut found = Vec::new();
        Journal::reopen(dir, MARK, committed, |entry| found.push(entry))?;
        Ok(found)
    }

    #[test]
    fn what_was_appended_comes_back_in_order_over_frames_and_appends() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::fresh(dir.path(), MARK, 4);
        journal.append(entries(0..5000)).unwrap();
        let first = journal.checkpoint();
        journal.append(entries(5000..5003)).unwrap();
        assert_eq!(read(dir.path(), journal.checkpoint()).unwrap(), entries(0..5003).collect::<Vec<_>>());
        // Only now, because opening with the shorter length cuts the rest off.
        assert_eq!(read(dir.path(), first).unwrap(), entries(0..5000).collect::<Vec<_>>());
        assert_eq!(fs::metadata(path(dir.path(), 4)).unwrap().len(), first.length);
        assert_eq!(fs::metadata(path(dir.path(), 4)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_flipped_bit_anywhere_in_the_committed_part_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::fresh(dir.path(), MARK, 1);
        journal.append(entries(0..3)).unwrap();
        journal.append(entries(3..4)).unwrap();
        let committed = journal.checkpoint();
        let whole = fs::read(path(dir.path(), 1)).unwrap();
        assert_eq!(whole.len() as u64, committed.length);
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(path(dir.path(), 1), damaged).unwrap();
            let error = read(dir.path(), committed).unwrap_err();
            assert!(matches!(error, IdsError::Damaged { .. }), "bit {bit}: {error}");
        }
    }

    #[test]
    fn a_full_disk_leaves_the_journal_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::fresh(dir.path(), MARK, 1);
        faults::fill_disk_after(0);
        assert!(journal.append(entries(0..10)).unwrap_err().is_disk_full());
        assert!(!path(dir.path(), 1).exists());
        faults::heal();
        journal.append(entries(0..10)).unwrap();
        let length = journal.checkpoint().length;
        faults::fill_disk_after(1);
        assert!(journal.append(entries(10..9000)).unwrap_err().is_disk_full());
        faults::heal();
        assert_eq!(fs::metadata(path(dir.path(), 1)).unwrap().len(), length);
        assert!(!journal.is_broken());
        journal.append(entries(10..20)).unwrap();
        assert_eq!(read(dir.path(), journal.checkpoint()).unwrap(), entries(0..20).collect::<Vec<_>>());
    }

    #[test]
    fn names_are_read_back() {
        assert_eq!(number_in("journal-0000000012"), Some(12));
        assert_eq!(path(Path::new("x"), 12), Path::new("x/journal-0000000012"));
        assert_eq!(number_in("journal-x"), None);
        assert_eq!(number_in("hours-0001.table"), None);
    }
}
