//! From the records of an open object to the object: compressed, hashed, counted, named.
//!
//! The same records and settings give the same bytes with the same version. That is not relied on: what is sealed is
//! kept until it is put.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Write},
    os::unix::fs::OpenOptionsExt as _,
};

use archive::{Hash, Hasher, Merkle};
use flate2::write::GzEncoder;
use tokio_util::sync::CancellationToken;

use super::{
    config::Compression,
    plan::Due,
    staging::{Kind, Staging, StagingError, io_error},
};

/// How much is read at a time.
const CHUNK: usize = 256 << 10;
/// Good for text, and as fast as the hashing.
const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: u32 = 6;

/// What an object came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) sha256: Hash,
    pub(super) bytes: u64,
    pub(super) records: u64,
    pub(super) merkle_root: Hash,
}

/// A file that hashes what is written to it.
struct Hashing {
    file: File,
    hasher: Hasher,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

enum Encoder {
    Zstd(zstd::Encoder<'static, Hashing>),
    Gzip(GzEncoder<Hashing>),
}

impl Encoder {
    fn new(to: Hashing, compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(to, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                Self::Zstd(encoder)
            }
            Compression::Gzip => Self::Gzip(GzEncoder::new(to, flate2::Compression::new(GZIP_LEVEL))),
        })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Zstd(encoder) => encoder.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<Hashing> {
        match self {
            Self::Zstd(encoder) => encoder.finish(),
            Self::Gzip(encoder) => encoder.finish(),
        }
    }
}

/// Makes the object of a span, durably, beside its records. It ends early when it is cancelled.
pub(super) fn make(
    staging: &Staging,
    due: &Due,
    cancelled: &CancellationToken,
) -> Result<Made, StagingError> {
    let from = staging.file(due.span, Kind::Records);
    let to = staging.file(due.span, Kind::Part);
    staging.step()?;
    let reading = |source| io_error("read", &from, source);
    let writing = |source| io_error("write to", &to, source);
    let records = File::open(&from).map_err(reading)?;
    let mut records = BufReader::with_capacity(CHUNK, records.take(due.whole.bytes));
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&to);
    let hashing = Hashing { file: file.map_err(writing)?, hasher: Hasher::default() };
    let mut encoder = Encoder::new(hashing, due.settings.compression).map_err(writing)?;
    let mut tree = Merkle::default();
    let mut line = Vec::new();
    let mut since = 0;
    let mut read = 0;
    loop {
        line.clear();
        let length = records.read_until(b'\n', &mut line).map_err(reading)?;
        if length == 0 {
            break;
        }
        let Some(record) = line.strip_suffix(b"\n") else {
            return Err(StagingError::Changed { path: from, what: "a record is cut".to_owned() });
        };
        tree.push(record);
        encoder.write_all(&line).map_err(writing)?;
        read += length as u64;
        since += length;
        if since >= CHUNK {
            since = 0;
            if cancelled.is_cancelled() {
                return Err(StagingError::Cancelled);
            }
        }
    }
    if (read, tree.leaves()) != (due.whole.bytes, due.whole.records) {
        let what = format!(
            "{} records of {read} bytes, and {} of {} were expected",
            tree.leaves(),
            due.whole.records,
            due.whole.bytes
        );
        return Err(StagingError::Changed { path: from, what });
    }
    let Hashing { file, hasher } = encoder.finish().map_err(writing)?;
    file.sync_all().map_err(|source| io_error("flush", &to, source))?;
    staging.finish_object(due.span)?;
    let bytes = hasher.bytes();
    Ok(Made { sha256: hasher.finish(), bytes, records: tree.leaves(), merkle_root: tree.root() })
}

/// The hash of a sealed object on this machine; `None` when it is not there.
pub(super) fn hash_of(staging: &Staging, span: u64) -> Result<Option<Hash>, StagingError> {
    let path = staging.file(span, Kind::Object);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error("read", &path, source)),
    };
    let mut hasher = Hasher::default();
    io::copy(&mut file, &mut hasher).map_err(|source| io_error("read", &path, source))?;
    Ok(Some(hasher.finish()))
}
