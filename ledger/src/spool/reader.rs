//! Reading bodies back: a piece at a time, from any thread.
//!
//! Frames are found by walking the headers from the body's beginning; where the last walk of a body ended is
//! remembered, so that reading on costs one step. Files are read with pread, a few stay open. A segment that is removed
//! meanwhile is read to its end all the same, through the open file.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use schemas::{Buffer, LedgerId};

use super::{
    Place,
    codec::Codecs,
    frame::{HEADER, Header, Unpacked},
    segment,
};
use crate::faults::{Faults, Point};

/// Files that stay open.
const OPEN_FILES: usize = 8;

/// Bodies whose reading position is remembered.
const HINTS: usize = 64;

/// Why a frame could not be read.
#[derive(Debug)]
pub(crate) enum ReadFailure {
    /// The file is not there: the body was moved or settled, or the file is lost.
    NoFile,
    /// The bytes are not what was written, or cannot be read any more.
    Corrupt {
        /// Where in the segment.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Reading failed in a way that may pass.
    Io(io::Error),
}

impl ReadFailure {
    /// What an error of the disk means.
    fn of(error: io::Error, offset: u64) -> Self {
        if segment::is_unreadable(&error) {
            Self::Corrupt { offset, what: "the disk cannot read it" }
        } else {
            Self::Io(error)
        }
    }
}

/// Where the walk over a body's frames stands.
#[derive(Debug, Clone, Copy)]
struct Hint {
    work: i64,
    place: Place,
    /// The position of the first record of the frame at `offset`.
    position: u32,
    offset: u64,
}

/// A piece, and where it lies in the body.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) first: u32,
    pub(crate) unpacked: Unpacked,
}

/// The readers' side of the spool.
pub(crate) struct SpoolReader {
    dir: PathBuf,
    ledger: LedgerId,
    codecs: Arc<Codecs>,
    faults: Faults,
    files: Mutex<VecDeque<(u64, Arc<File>)>>,
    hints: Mutex<VecDeque<Hint>>,
}

impl SpoolReader {
    pub(crate) fn new(dir: &Path, ledger: LedgerId, codecs: Arc<Codecs>, faults: Faults) -> Self {
        let (files, hints) = (Mutex::default(), Mutex::default());
        Self { dir: dir.to_owned(), ledger, codecs, faults, files, hints }
    }

    /// Reads the piece that holds the record at `position`, which must be before the body's end.
    pub(crate) fn piece(&self, work: i64, place: Place, position: u32) -> Result<Piece, ReadFailure> {
        let file = self.file(place.segment)?;
        let end = place.offset + place.stored;
        let (mut at, mut first) = self.hint(work, place, position);
        loop {
            let corrupt = |what| ReadFailure::Corrupt { offset: at, what };
            if at + HEADER as u64 > end {
                return Err(corrupt("the body ends too early"));
            }
            let mut head = [0; HEADER];
            self.read(&file, &mut head, at)?;
            let header = Header::parse(&head, work).map_err(corrupt)?;
            let next = at + HEADER as u64 + u64::from(header.stored);
            if next > end || header.first != first || header.count == 0 {
                return Err(corrupt("the frame does not fit where it stands"));
            }
            let behind = first.checked_add(header.count).ok_or_else(|| corrupt("the positions overflow"))?;
            if position >= behind {
                (at, first) = (next, behind);
                continue;
            }
            let mut stored = Buffer::of_length(header.stored as usize);
            self.read(&file, &mut stored, at + HEADER as u64)?;
            let unpacked = header.unpack(stored, &self.codecs).map_err(corrupt)?;
            self.remember(Hint { work, place, position: behind, offset: next });
            return Ok(Piece { first, unpacked });
        }
    }

    /// Reads the bytes of a body as they lie in the spool. What the disk cannot read is [`io::ErrorKind::InvalidData`].
    pub(crate) fn raw(&self, place: Place) -> Result<impl io::Read + use<>, ReadFailure> {
        let file = self.file(place.segment)?;
        Ok(Range { file, at: place.offset, left: place.stored, faults: self.faults.clone() })
    }

    /// Closes a segment's file, which was removed.
    pub(crate) fn forget(&self, segment: u64) {
        lock(&self.files).retain(|(number, _)| *number != segment);
    }

    fn file(&self, number: u64) -> Result<Arc<File>, ReadFailure> {
        let mut files = lock(&self.files);
        if let Some(at) = files.iter().position(|(open, _)| *open == number)
            && let Some(entry) = files.remove(at)
        {
            let file = Arc::clone(&entry.1);
            files.push_back(entry);
            return Ok(file);
        }
        let file = match File::open(segment::path(&self.dir, number)) {
            Ok(file) => match segment::origin(&file, number, self.ledger).map_err(ReadFailure::Io)? {
                segment::Origin::Ours => Arc::new(file),
                segment::Origin::Torn | segment::Origin::Foreign => {
                    return Err(ReadFailure::Corrupt {
                        offset: 0,
                        what: "it is not the segment that it should be",
                    });
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadFailure::NoFile),
            Err(error) => return Err(ReadFailure::of(error, 0)),
        };
        if files.len() >= OPEN_FILES {
            files.pop_front();
        }
        files.push_back((number, Arc::clone(&file)));
        Ok(file)
    }

    fn read(&self, file: &File, buffer: &mut [u8], at: u64) -> Result<(), ReadFailure> {
        let read = self.faults.at(Point::ReadSegment).and_then(|()| file.read_exact_at(buffer, at));
        match read {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(ReadFailure::Corrupt { offset: at, what: "the file ends too early" })
            }
            Err(error) => Err(ReadFailure::of(error, at)),
        }
    }

    /// The frame from which to look for a position: its offset and its first position.
    fn hint(&self, work: i64, place: Place, position: u32) -> (u64, u32) {
        let hints = lock(&self.hints);
        hints
            .iter()
            .find(|hint| hint.work == work && hint.place == place && hint.position <= position)
            .map_or((place.offset, 0), |hint| (hint.offset, hint.position))
    }

    fn remember(&self, hint: Hint) {
        let mut hints = lock(&self.hints);
        hints.retain(|old| old.work != hint.work);
        if hints.len() >= HINTS {
            hints.pop_front();
        }
        hints.push_back(hint);
    }
}

/// A lock whose holder cannot leave anything half done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A range of a file.
struct Range {
    file: Arc<File>,
    at: u64,
    left: u64,
    faults: Faults,
}

impl io::Read for Range {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read =
            self.faults.at(Point::ReadSegment).and_then(|()| self.file.read_at(&mut buffer[..want], self.at));
        let read = read.map_err(|error| {
            if segment::is_unreadable(&error) {
                io::Error::new(io::ErrorKind::InvalidData, error)
            } else {
                error
            }
        })?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
