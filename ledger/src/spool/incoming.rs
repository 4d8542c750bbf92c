//! Bodies on their way into the spool: cut into pieces while they stream in, so that nothing holds a whole one.
//!
//! Finished frames wait in memory up to 512 KiB and beyond that in a file `spool/incoming-*.part`, which is deleted with
//! the body or, after a crash, at the next start. A record that is larger than a piece goes there at once.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
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

/// Room for a piece, with the header of its frame before it and the lengths of its records behind it.
const PIECE_ROOM: usize = HEADER + PIECE_BYTES + (8 << 10);

/// How many bytes of a part file are read at once.
const READ_AT_ONCE: usize = 128 << 10;

/// How the name of a file with a body on its way begins.
pub(crate) const PREFIX: &str = "incoming-";

/// Numbers the files, so that a body that is fetched twice in a row does not meet its own.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Takes records and makes frames.
pub(crate) struct Incoming {
    dir: PathBuf,
    codecs: Arc<Codecs>,
    work: i64,
    /// The open piece, behind room for its frame's header. Empty when there is none.
    piece: Buffer,
    lengths: Vec<u8>,
    /// Position of the first record of the open piece.
    first: u32,
    /// Records so far.
    count: u32,
    /// Their bytes.
    bytes: u64,
    /// The frames in memory.
    frames: Vec<Buffer>,
    /// The bytes of these.
    waiting: usize,
    spilled: Option<Spilled>,
    stored: u64,
}

struct Spilled {
    path: PathBuf,
    file: File,
}

impl Spilled {
    fn new(dir: &Path, work: i64) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("{PREFIX}{work}-{number}.part"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(LedgerError::io("making a part file"))?;
        Ok(Self { path, file })
    }
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
        Self {
            dir,
            codecs,
            work,
            piece: Buffer::default(),
            lengths: Vec::new(),
            first: 0,
            count: 0,
            bytes: 0,
            frames: Vec::new(),
            waiting: 0,
            spilled: None,
            stored: 0,
        }
    }

    /// Appends a record.
    pub(crate) fn push(&mut self, record: &[u8]) -> Result<()> {
        let too_large = LedgerError::TooLarge { bytes: record.len() as u64 };
        let length = u32::try_from(record.len()).map_err(|_| too_large)?;
        if self.count > self.first && self.piece.len() + record.len() > HEADER + PIECE_BYTES {
            self.close_piece()?;
        }
        if record.len() > PIECE_BYTES {
            return self.push_alone(record);
        }
        if self.piece.is_empty() {
            self.piece = Buffer::with_room(PIECE_ROOM);
            self.piece.resize(HEADER, 0);
        }
        self.piece.extend_from_slice(record);
        self.bytes += u64::from(length);
        frame::put_length(&mut self.lengths, length);
        self.count_one()
    }

    /// Appends a record that is a piece of its own. It goes into the file at once: a copy of it would wait in memory.
    fn push_alone(&mut self, record: &[u8]) -> Result<()> {
        let pack = self.packs();
        let (work, first) = (self.work, self.count);
        let file = self.spill()?;
        let length = frame::write_alone(file, record, pack, work, first)
            .map_err(LedgerError::io("writing a part file"))?;
        self.stored += length;
        self.bytes += record.len() as u64;
        self.count_one()?;
        self.first = self.count;
        Ok(())
    }

    fn count_one(&mut self) -> Result<()> {
        self.count = self.count.checked_add(1).ok_or(LedgerError::TooLarge { bytes: u64::from(u32::MAX) })?;
        Ok(())
    }

    /// Whether what is closed now is to be compressed.
    fn packs(&self) -> bool {
        self.codecs.packing() || self.stored > PACK_FROM as u64
    }

    /// Bytes of memory that it takes.
    pub(crate) fn memory(&self) -> usize {
        self.piece.capacity() + self.lengths.capacity() + self.waiting
    }

    /// Records so far.
    pub(crate) fn records(&self) -> u32 {
        self.count
    }

    /// Bytes of these records.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
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
        self.lengths = Vec::new();
        Ok(())
    }

    /// The frames from the first one on.
    pub(crate) fn reader(&mut self) -> Result<Reader<'_>> {
        if let Some(spilled) = &mut self.spilled {
            spilled.file.seek(SeekFrom::Start(0)).map_err(LedgerError::io("reading a part file"))?;
        }
        let file = self.spilled.as_ref().map(|spilled| BufReader::with_capacity(READ_AT_ONCE, &spilled.file));
        Ok(Reader { file, frames: self.frames.iter(), frame: &[] })
    }

    fn close_piece(&mut self) -> Result<()> {
        let codecs = self.packs().then_some(&*self.codecs);
        let (piece, count) = (std::mem::take(&mut self.piece), self.count - self.first);
        let frame = frame::seal(piece, &self.lengths, codecs, self.work, self.first, count)
            .map_err(|bytes| LedgerError::TooLarge { bytes })?;
        self.stored += frame.len() as u64;
        self.waiting += frame.len();
        self.frames.push(frame);
        self.first = self.count;
        self.lengths.clear();
        if self.waiting > IN_MEMORY {
            self.spill()?;
        }
        Ok(())
    }

    /// Moves the frames into the file.
    fn spill(&mut self) -> Result<&mut File> {
        let mut spilled = match self.spilled.take() {
            Some(spilled) => spilled,
            None => Spilled::new(&self.dir, self.work)?,
        };
        for frame in self.frames.drain(..) {
            spilled.file.write_all(&frame).map_err(LedgerError::io("writing a part file"))?;
        }
        self.waiting = 0;
        Ok(&mut self.spilled.insert(spilled).file)
    }
}

/// The frames of a body: those in the file, then those in memory, which are not copied.
pub(crate) struct Reader<'a> {
    file: Option<BufReader<&'a File>>,
    frames: std::slice::Iter<'a, Buffer>,
    /// What is left of the frame that is read.
    frame: &'a [u8],
}

impl BufRead for Reader<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        let more = match &mut self.file {
            Some(file) => !file.fill_buf()?.is_empty(),
            None => false,
        };
        if !more {
            self.file = None;
        }
        if let Some(file) = &self.file {
            return Ok(file.buffer());
        }
        while self.frame.is_empty()
            && let Some(next) = self.frames.next()
        {
            self.frame = next;
        }
        Ok(self.frame)
    }

    fn consume(&mut self, bytes: usize) {
        match &mut self.file {
            Some(file) => file.consume(bytes),
            None => self.frame = &self.frame[bytes..],
        }
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
