//! Bodies on their way into the spool: cut into pieces while they stream in, so that nothing holds a whole one.
//!
//! Finished frames wait in memory up to 512 KiB and beyond that in a file `spool/incoming-*.part`, which is deleted with
//! the body or, after a crash, at the next start.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use schemas::Buffer;

use super::{
    codec::Codecs,
    frame::{self, HEADER, PIECE_BYTES},
};
use crate::error::{LedgerError, Result};

/// Bytes of frames that wait in memory.
const IN_MEMORY: usize = 512 << 10;

/// Bytes of frames from which on the rest of a body is compressed in any case: large bodies are to stay in memory.
const PACK_FROM: usize = IN_MEMORY / 2;

/// How the name of a file with a body on its way begins.
pub(crate) const PREFIX: &str = "incoming-";

/// Numbers the files, so that a body that is fetched twice in a row does not meet its own.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Takes records and makes frames.
pub(crate) struct Incoming {
    dir: PathBuf,
    codecs: Arc<Codecs>,
    work: i64,
    piece: Buffer,
    lengths: Vec<u8>,
    /// Position of the first record of the open piece.
    first: u32,
    /// Records so far.
    count: u32,
    frames: Buffer,
    spilled: Option<Spilled>,
    stored: u64,
}

struct Spilled {
    path: PathBuf,
    file: File,
}

impl Drop for Spilled {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a part file was not removed; the next start does");
        }
    }
}

impl Incoming {
    /// A body for the work.
    pub(crate) fn new(dir: PathBuf, codecs: Arc<Codecs>, work: i64) -> Self {
        let piece = Buffer::with_room(PIECE_BYTES);
        Self {
            dir,
            codecs,
            work,
            piece,
            lengths: Vec::new(),
            first: 0,
            count: 0,
            frames: Buffer::default(),
            spilled: None,
            stored: 0,
        }
    }

    /// Appends a record.
    pub(crate) fn push(&mut self, record: &[u8]) -> Result<()> {
        let too_large = LedgerError::TooLarge { bytes: record.len() as u64 };
        let length = u32::try_from(record.len()).map_err(|_| too_large)?;
        if !self.piece.is_empty() && self.piece.len() + record.len() > PIECE_BYTES {
            self.close_piece()?;
        }
        self.piece.extend_from_slice(record);
        frame::put_length(&mut self.lengths, length);
        self.count = self.count.checked_add(1).ok_or(LedgerError::TooLarge { bytes: u64::from(u32::MAX) })?;
        Ok(())
    }

    /// Records so far.
    pub(crate) fn records(&self) -> u32 {
        self.count
    }

    /// Bytes of all frames. Complete after [`Incoming::close`].
    pub(crate) fn stored(&self) -> u64 {
        self.stored
    }

    /// Ends the body.
    pub(crate) fn close(&mut self) -> Result<()> {
        if self.count > self.first {
            self.close_piece()?
        }
        self.piece = Buffer::default();
        self.lengths = Vec::new();
        Ok(())
    }

    /// The frames from the first one on.
    pub(crate) fn reader(&mut self) -> Result<impl Read + '_> {
        if let Some(spilled) = &mut self.spilled {
            spilled.file.seek(SeekFrom::Start(0)).map_err(LedgerError::io("reading a part file"))?;
        }
        let spilled = self.spilled.as_ref().map(|spilled| &spilled.file);
        Ok(MaybeFile(spilled).chain(self.frames.as_slice()))
    }

    fn close_piece(&mut self) -> Result<()> {
        let before = self.frames.len();
        let count = self.count - self.first;
        if self.frames.capacity() == 0 {
            self.frames = Buffer::with_room(self.piece.len() + self.lengths.len() + HEADER);
        }
        let pack = self.codecs.packing() || self.stored > PACK_FROM as u64;
        frame::encode(
            &mut self.frames,
            pack.then_some(&*self.codecs),
            self.work,
            self.first,
            count,
            &mut self.piece,
            &self.lengths,
        )
        .map_err(|bytes| LedgerError::TooLarge { bytes })?;
        self.stored += (self.frames.len() - before) as u64;
        self.first = self.count;
        self.lengths.clear();
        if self.piece.capacity() > 2 * PIECE_BYTES {
            self.piece = Buffer::with_room(PIECE_BYTES);
        } else {
            self.piece.clear();
        }
        if self.frames.len() > IN_MEMORY { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<()> {
        if self.spilled.is_none() {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = self.dir.join(format!("{PREFIX}{}-{number}.part", self.work));
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .map_err(LedgerError::io("making a part file"))?;
            self.spilled = Some(Spilled { path, file });
        }
        if let Some(spilled) = &mut self.spilled {
            spilled.file.write_all(&self.frames).map_err(LedgerError::io("writing a part file"))?;
        }
        self.frames.clear();
        Ok(())
    }
}

/// A file, or nothing to read.
struct MaybeFile<'a>(Option<&'a File>);

impl Read for MaybeFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.map_or(Ok(0), |mut file| file.read(buffer))
    }
}
