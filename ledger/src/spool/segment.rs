//! Segment files: `spool/NNNNNNNNNN.seg`.
//!
//! A segment begins with a header of 64 bytes; bodies follow, each a run of frames, up to the length that the database
//! says. What lies behind that was never committed.
//!
//! ```text
//!  0  magic    8  "MTSPOOL\n"
//!  8  version  4  1
//! 12  zero     4
//! 16  number   8
//! 24  ledger  16  the ledger's id
//! 40  zero    20
//! 60  crc      4  CRC-32 of the 60 bytes before
//! ```

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::errno::Errno;
use schemas::LedgerId;

/// Bytes of the header.
pub(crate) const HEADER: u64 = 64;

const MAGIC: [u8; 8] = *b"MTSPOOL\n";
const VERSION: u32 = 1;

/// The file of a segment.
pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.seg"))
}

/// The number of the segment that a file's name names.
pub(crate) fn number_in(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() >= 10 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Makes an empty segment.
pub(crate) fn create(dir: &Path, number: u64, ledger: LedgerId) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path(dir, number))?;
    file.write_all_at(&header(number, ledger), 0)?;
    Ok(file)
}

fn header(number: u64, ledger: LedgerId) -> [u8; HEADER as usize] {
    let mut bytes = [0; HEADER as usize];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&number.to_le_bytes());
    bytes[24..40].copy_from_slice(ledger.as_bytes());
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// What the beginning of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It is this segment of this ledger.
    Ours,
    /// Its header was never written whole, is damaged, or cannot be read.
    Torn,
    /// Another ledger's, or another segment.
    Foreign,
}

/// Whether the disk says that it cannot read a part of a file. Asked again it says the same, so that these bytes are as
/// lost as those of which the checksum is wrong.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    matches!(number, Some(Errno::EIO | Errno::EBADMSG | Errno::EUCLEAN))
}

/// Whose file it is.
pub(crate) fn origin(file: &File, number: u64, ledger: LedgerId) -> io::Result<Origin> {
    let mut bytes = [0; HEADER as usize];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Origin::Torn),
        Err(error) if is_unreadable(&error) => return Ok(Origin::Torn),
        Err(error) => return Err(error),
    }
    let sound = crc32fast::hash(&bytes[..60]).to_le_bytes() == bytes[60..];
    Ok(match sound {
        false => Origin::Torn,
        true if bytes == header(number, ledger) => Origin::Ours,
        true => Origin::Foreign,
    })
}
