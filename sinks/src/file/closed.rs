//! Closed files: their names, compression, and how many are kept.
//!
//! A closed file is `mailtrail-20260102T030405Z-7.ndjson`: when it was closed, and a number that grows with every
//! file. Compression writes `….ndjson.gz.tmp`, fsyncs it, renames it to `….ndjson.gz`, fsyncs the directory, and then
//! removes the original. A crash leaves the original, or both; where both are found, the original is removed only
//! after the other was unpacked and compared with it. Only names of this form are ever touched.
//!
//! The number says which file is older, and not the time: a clock may be set back.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use chrono::{DateTime, NaiveDateTime, Utc};
use flate2::{bufread::MultiGzDecoder, write::GzEncoder};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    config::{Compression, FileConfig},
    disk::{Access, Disk, DiskFile, write_all},
};

const TIME: &str = "%Y%m%dT%H%M%SZ";
const CHUNK: usize = 256 * 1024;

/// The name of a closed file, before compression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClosedName {
    pub(super) base: String,
    pub(super) time: DateTime<Utc>,
    pub(super) number: u64,
}

impl fmt::Display for ClosedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}.ndjson", self.base, self.time.format(TIME), self.number)
    }
}

impl ClosedName {
    /// Reads a name with what is behind `.ndjson`; `None` when it is not of this form.
    pub(super) fn parse<'a>(base: &str, name: &'a str) -> Option<(Self, &'a str)> {
        let rest = name.strip_prefix(base)?.strip_prefix('-')?;
        let (time, rest) = rest.split_once('-')?;
        let (number, suffix) = rest.split_once(".ndjson")?;
        let time = NaiveDateTime::parse_from_str(time, TIME).ok()?.and_utc();
        let closed = Self { base: base.to_owned(), time, number: number.parse().ok()? };
        // What is not spelt just like ours is not ours.
        name.strip_suffix(suffix).is_some_and(|plain| plain == closed.to_string()).then_some((closed, suffix))
    }
}

/// The highest number of those that were closed of this live file; 0 when there is none. A ledger that was made anew
/// knows nothing of them, and goes on behind it.
pub(super) fn last_number(disk: &dyn Disk, live: &Path) -> io::Result<u64> {
    let Some((directory, base)) = live.parent().zip(live.file_stem().and_then(|stem| stem.to_str())) else {
        return Ok(0);
    };
    let names = disk.list(directory)?;
    let numbers =
        names.iter().filter_map(|name| ClosedName::parse(base, name)).map(|(closed, _)| closed.number);
    Ok(numbers.max().unwrap_or(0))
}

/// Every form that a closed file may have.
pub(super) fn forms(closed: &Path) -> [PathBuf; 3] {
    [Compression::None, Compression::Gzip, Compression::Zstd].map(|form| with_suffix(closed, form.suffix()))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(suffix);
    text.into()
}

/// Compresses and deletes closed files as the configuration says, and finishes what a crash interrupted. Stops early
/// when it is told to; what it leaves is done the next time.
pub(super) fn tidy(
    disk: &dyn Disk,
    config: &FileConfig,
    access: Access,
    stop: &CancellationToken,
) -> io::Result<()> {
    let directory = &config.directory;
    // By number, so that the oldest comes first. Two that somebody gave the same one are told apart by their times.
    let mut files: BTreeMap<(u64, DateTime<Utc>), (PathBuf, Vec<Compression>)> = BTreeMap::new();
    for name in disk.list(directory)? {
        let Some((closed, suffix)) = ClosedName::parse(config.file_name.as_str(), &name) else { continue };
        let form = match suffix {
            "" => Compression::None,
            ".gz" => Compression::Gzip,
            ".zst" => Compression::Zstd,
            ".gz.tmp" | ".zst.tmp" => {
                disk.remove(&directory.join(&name))?;
                continue;
            }
            _ => continue,
        };
        let plain = directory.join(closed.to_string());
        files.entry((closed.number, closed.time)).or_insert_with(|| (plain, Vec::new())).1.push(form);
    }
    if let Some(keep) = config.keep {
        while files.len() > keep.get() as usize {
            let Some((_, (plain, found))) = files.pop_first() else { break };
            for form in found {
                disk.remove(&with_suffix(&plain, form.suffix()))?;
            }
            info!("deleted {}: {keep} closed files are kept", plain.display());
        }
    }
    for (plain, mut found) in files.into_values() {
        for form in [Compression::Gzip, Compression::Zstd] {
            if found.contains(&form) && found.contains(&Compression::None) {
                if stop.is_cancelled() {
                    return Ok(());
                }
                let removed = keep_one(disk, &plain, form)?;
                found.retain(|other| *other != removed);
            }
        }
        if config.compression != Compression::None && found == [Compression::None] {
            if stop.is_cancelled() {
                return Ok(());
            }
            compress(disk, &plain, config.compression, access, stop)?;
        }
    }
    disk.sync_directory(directory)
}

/// Removes one of the two forms of a file that stand side by side after a crash; returns which.
fn keep_one(disk: &dyn Disk, plain: &Path, form: Compression) -> io::Result<Compression> {
    let packed = with_suffix(plain, form.suffix());
    if !same_content(disk, plain, &packed, form)? {
        warn!("{} does not hold what {} does, and is made again", packed.display(), plain.display());
        disk.remove(&packed)?;
        return Ok(form);
    }
    // Its name may be younger than the last fsync of the directory.
    disk.sync_directory(plain.parent().unwrap_or(Path::new(".")))?;
    disk.remove(plain)?;
    Ok(Compression::None)
}

/// Whether a compressed file can be unpacked and holds the same. Only the original must be readable.
fn same_content(disk: &dyn Disk, plain: &Path, packed: &Path, form: Compression) -> io::Result<bool> {
    let mut plain = reader(disk, plain)?;
    let packed = reader(disk, packed)?;
    let mut unpacked: Box<dyn BufRead> = match form {
        Compression::None => Box::new(packed),
        Compression::Gzip => Box::new(BufReader::new(MultiGzDecoder::new(packed))),
        Compression::Zstd => Box::new(BufReader::new(zstd::Decoder::with_buffer(packed)?)),
    };
    loop {
        let one = plain.fill_buf()?;
        let Ok(other) = unpacked.fill_buf() else { return Ok(false) };
        let count = one.len().min(other.len());
        if count == 0 {
            return Ok(one.len() == other.len());
        }
        if one[..count] != other[..count] {
            return Ok(false);
        }
        plain.consume(count);
        unpacked.consume(count);
    }
}

fn compress(
    disk: &dyn Disk,
    plain: &Path,
    form: Compression,
    access: Access,
    stop: &CancellationToken,
) -> io::Result<()> {
    let packed = with_suffix(plain, form.suffix());
    let temporary = with_suffix(&packed, ".tmp");
    match pack(disk, plain, &temporary, form, access, stop) {
        Ok(true) => {}
        Ok(false) => return disk.remove(&temporary),
        Err(error) => {
            // It would stand in the way of the room that is missing, perhaps.
            if let Err(error) = disk.remove(&temporary) {
                warn!("cannot remove {}: {error}", temporary.display());
            }
            return Err(error);
        }
    }
    disk.rename(&temporary, &packed)?;
    let directory = plain.parent().unwrap_or(Path::new("."));
    disk.sync_directory(directory)?;
    disk.remove(plain)
}

/// Whether it was done, and not stopped.
fn pack(
    disk: &dyn Disk,
    plain: &Path,
    to: &Path,
    form: Compression,
    access: Access,
    stop: &CancellationToken,
) -> io::Result<bool> {
    enum Packer {
        Gzip(GzEncoder<FileWriter>),
        Zstd(zstd::Encoder<'static, FileWriter>),
    }
    let mut source = reader(disk, plain)?;
    let target = FileWriter { file: disk.create(to, access)?, offset: 0, buffer: Vec::with_capacity(CHUNK) };
    let mut packer = match form {
        Compression::Gzip => Packer::Gzip(GzEncoder::new(target, flate2::Compression::default())),
        Compression::None | Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(target, zstd::DEFAULT_COMPRESSION_LEVEL)?;
            encoder.include_checksum(true)?;
            Packer::Zstd(encoder)
        }
    };
    loop {
        if stop.is_cancelled() {
            return Ok(false);
        }
        let chunk = source.fill_buf()?;
        if chunk.is_empty() {
            break;
        }
        match &mut packer {
            Packer::Gzip(encoder) => encoder.write_all(chunk)?,
            Packer::Zstd(encoder) => encoder.write_all(chunk)?,
        }
        let count = chunk.len();
        source.consume(count);
    }
    let mut target = match packer {
        Packer::Gzip(encoder) => encoder.finish()?,
        Packer::Zstd(encoder) => encoder.finish()?,
    };
    target.flush()?;
    target.file.sync()?;
    Ok(true)
}

fn reader(disk: &dyn Disk, path: &Path) -> io::Result<BufReader<FileReader>> {
    Ok(BufReader::with_capacity(CHUNK, FileReader { file: disk.open(path)?, offset: 0 }))
}

struct FileReader {
    file: Box<dyn DiskFile>,
    offset: u64,
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

struct FileWriter {
    file: Box<dyn DiskFile>,
    offset: u64,
    buffer: Vec<u8>,
}

impl Write for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > CHUNK {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        write_all(self.file.as_ref(), &self.buffer, self.offset).map_err(|(_, error)| error)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_ours() {
        let name = "mailtrail-20260102T030405Z-7.ndjson";
        let (closed, suffix) = ClosedName::parse("mailtrail", name).unwrap();
        assert_eq!((closed.to_string().as_str(), closed.number, suffix), (name, 7, ""));
        let (_, suffix) = ClosedName::parse("mailtrail", "mailtrail-20260102T030405Z-7.ndjson.zst").unwrap();
        assert_eq!(suffix, ".zst");
        for other in [
            "mailtrail.ndjson",
            "mailtrail-old-20260102T030405Z-7.ndjson",
            "mailtrail-20260102T030405Z-07.ndjson",
            "mailtrail-20260102T030405Z-+7.ndjson",
            "mailtrail-20261302T030405Z-7.ndjson",
            "mailtrail-20260102T030405Z-7.txt",
            "audit-20260102T030405Z-7.ndjson",
        ] {
            assert_eq!(ClosedName::parse("mailtrail", other), None, "{other}");
        }
    }
}
