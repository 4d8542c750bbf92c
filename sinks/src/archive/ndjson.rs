//! The records of an object one a line, compressed and hashed.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
};

use archive::{HashedFile, Merkle};
use flate2::write::GzEncoder;
use tokio_util::sync::CancellationToken;

use super::{
    config::Compression,
    plan::Due,
    seal::Made,
    staging::{Kind, Staging, StagingError, io_error},
};

/// How much is read at a time.
const CHUNK: usize = 256 << 10;
/// Good for text, and as fast as the hashing.
const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: u32 = 6;

enum Encoder {
    Zstd(zstd::Encoder<'static, HashedFile>),
    Gzip(GzEncoder<HashedFile>),
}

impl Encoder {
    fn new(to: HashedFile, compression: Compression) -> io::Result<Self> {
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

    fn finish(self) -> io::Result<HashedFile> {
        match self {
            Self::Zstd(encoder) => encoder.finish(),
            Self::Gzip(encoder) => encoder.finish(),
        }
    }
}

/// Makes the first file of an object, durably, beside its records, and the tree over these. It ends early
/// when it is cancelled.
pub(super) fn make(
    staging: &Staging,
    due: &Due,
    compression: Compression,
    tree: &mut Merkle,
    cancelled: &CancellationToken,
) -> Result<Made, StagingError> {
    let from = staging.file(due.span, Kind::Records);
    let to = staging.file(due.span, Kind::Part(0));
    staging.step()?;
    let reading = |source| io_error("read", &from, source);
    let writing = |source| io_error("write to", &to, source);
    let records = File::open(&from).map_err(reading)?;
    let mut records = BufReader::with_capacity(CHUNK, records.take(due.whole.bytes));
    let file = HashedFile::create(&to).map_err(writing)?;
    let mut encoder = Encoder::new(file, compression).map_err(writing)?;
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
    due.has(tree.leaves(), read).map_err(|what| StagingError::Changed { path: from, what })?;
    let file = encoder.finish().map_err(writing)?;
    let (sha256, bytes) = file.finish().map_err(|source| io_error("flush", &to, source))?;
    staging.finish(due.span, 0)?;
    Ok(Made { format: compression.format(), slice: None, sha256, bytes, records: tree.leaves() })
}
