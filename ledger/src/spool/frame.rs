//! Frames: the form in which pieces of a body lie in the spool.
//!
//! A piece is up to 256 KiB of whole records, or a single larger one; a frame is a piece with a header of 40 bytes.
//! All numbers are little-endian.
//!
//! ```text
//!  0  magic            4  "MTPC"
//!  4  codec            1  0 stored as it is, 1 zstd
//!  5  zero             3
//!  8  stored           4  bytes that follow the header
//! 12  raw              4  bytes of the piece: the records, then their lengths
//! 16  lengths          4  bytes of the lengths (LEB128 numbers) at the end of the piece
//! 20  first            4  position of the first record in the body
//! 24  count            4  records
//! 28  work             8  whose body
//! 36  crc              4  CRC-32 of the 36 bytes before and of what follows the header
//! ```

use std::io::{self, Seek, SeekFrom, Write};

use schemas::Buffer;

use super::codec::{self, Codecs};
use crate::positions::{put_varint, take_varint};

/// Bytes of a frame's header.
pub(crate) const HEADER: usize = 40;

/// Bytes of records after which a piece is closed.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

const MAGIC: [u8; 4] = *b"MTPC";
const STORED: u8 = 0;
const ZSTD: u8 = 1;

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    codec: u8,
    pub(crate) stored: u32,
    raw: u32,
    lengths: u32,
    pub(crate) first: u32,
    pub(crate) count: u32,
    work: i64,
    crc: u32,
}

/// A piece of a body, unpacked.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// The records, one behind the other.
    pub(crate) bytes: Buffer,
    /// The length of each.
    pub(crate) lengths: Vec<u32>,
}

/// Closes a piece: makes a frame of it, compressed when there are `codecs` for that and it is worth it. `piece` holds room
/// for the header and then the records' bytes, so that it need not be copied when it is stored as it is; `lengths` are
/// their encoded lengths.
pub(crate) fn seal(
    mut piece: Buffer,
    lengths: &[u8],
    codecs: Option<&Codecs>,
    work: i64,
    first: u32,
    count: u32,
) -> Result<Buffer, u64> {
    piece.extend_from_slice(lengths);
    let raw = piece.len() - HEADER;
    let raw = u32::try_from(raw).map_err(|_| raw as u64)?;
    let packed = codecs.and_then(|codecs| {
        let mut packed = Buffer::default();
        packed.resize(HEADER, 0);
        codecs.compress(&piece[HEADER..], &mut packed).then_some(packed)
    });
    let (codec, mut frame) = match packed {
        Some(packed) => (ZSTD, packed),
        // It waits for its commit, and many small bodies are not to hold large buffers meanwhile.
        None if piece.len() < piece.capacity() / 2 => {
            let mut copy = Buffer::with_room(piece.len());
            copy.extend_from_slice(&piece);
            (STORED, copy)
        }
        None => (STORED, piece),
    };
    let stored = (frame.len() - HEADER) as u32;
    let header = Header { codec, stored, raw, lengths: lengths.len() as u32, first, count, work, crc: 0 };
    let mut crc = crc32fast::Hasher::new();
    crc.update(&frame[HEADER..]);
    frame[..HEADER].copy_from_slice(&header.sealed(&crc));
    Ok(frame)
}

/// Writes a frame of a single record, which may be large, without a copy of it in memory. `file` stands where the frame is
/// to begin, and stands behind it then. Gives the frame's length.
pub(crate) fn write_alone(
    file: &mut (impl Write + Seek),
    record: &[u8],
    packed: bool,
    work: i64,
    first: u32,
) -> io::Result<u64> {
    let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
    let mut lengths = Vec::new();
    put_length(&mut lengths, u32::try_from(record.len()).map_err(too_large)?);
    let raw = u32::try_from(record.len() + lengths.len()).map_err(too_large)?;
    let begin = file.stream_position()?;
    // What the header says is known at the end.
    file.write_all(&[0; HEADER])?;
    let mut body = Summed { file: &mut *file, crc: crc32fast::Hasher::new(), bytes: 0 };
    if packed {
        let mut encoder = zstd::Encoder::new(&mut body, codec::LEVEL)?;
        encoder.set_pledged_src_size(Some(u64::from(raw)))?;
        encoder.write_all(record)?;
        encoder.write_all(&lengths)?;
        encoder.finish()?;
    } else {
        body.write_all(record)?;
        body.write_all(&lengths)?;
    }
    let Summed { crc, bytes, .. } = body;
    let (codec, stored) = (if packed { ZSTD } else { STORED }, u32::try_from(bytes).map_err(too_large)?);
    let header = Header { codec, stored, raw, lengths: lengths.len() as u32, first, count: 1, work, crc: 0 };
    file.seek(SeekFrom::Start(begin))?;
    file.write_all(&header.sealed(&crc))?;
    let length = HEADER as u64 + bytes;
    file.seek(SeekFrom::Start(begin + length))?;
    Ok(length)
}

/// Passes bytes on, and sums up what went through.
struct Summed<W> {
    file: W,
    crc: crc32fast::Hasher,
    bytes: u64,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.crc.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The length of a record as it is kept in a piece.
pub(crate) fn put_length(lengths: &mut Vec<u8>, length: u32) {
    put_varint(lengths, length);
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = self.codec;
        for (at, number) in
            [(8, self.stored), (12, self.raw), (16, self.lengths), (20, self.first), (24, self.count)]
        {
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        bytes[28..36].copy_from_slice(&self.work.to_le_bytes());
        bytes
    }

    /// The header's bytes, when what follows it has this sum.
    fn sealed(self, follows: &crc32fast::Hasher) -> [u8; HEADER] {
        let mut bytes = self.to_bytes();
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[..HEADER - 4]);
        crc.combine(follows);
        bytes[HEADER - 4..].copy_from_slice(&crc.finalize().to_le_bytes());
        bytes
    }

    /// Reads a header of a frame of this body. It is believed only when [`Header::unpack`] found the CRC to be right.
    pub(crate) fn parse(bytes: &[u8; HEADER], work: i64) -> Result<Self, &'static str> {
        if bytes[..4] != MAGIC {
            return Err("no frame begins here");
        }
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut owner = [0; 8];
        owner.copy_from_slice(&bytes[28..36]);
        let header = Self {
            codec: bytes[4],
            stored: number(8),
            raw: number(12),
            lengths: number(16),
            first: number(20),
            count: number(24),
            work: i64::from_le_bytes(owner),
            crc: number(36),
        };
        if header.work != work {
            return Err("the frame belongs to another body");
        }
        Ok(header)
    }

    /// Checks what follows the header and unpacks it.
    pub(crate) fn unpack(&self, stored: Buffer, codecs: &Codecs) -> Result<Unpacked, &'static str> {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.to_bytes()[..HEADER - 4]);
        crc.update(&stored);
        if crc.finalize() != self.crc {
            return Err("the checksum is wrong");
        }
        let mut bytes = match self.codec {
            STORED => stored,
            ZSTD => codecs.decompress(&stored, self.raw as usize).ok_or("it does not decompress")?,
            _ => return Err("its compression is unknown"),
        };
        if bytes.len() != self.raw as usize || self.lengths > self.raw {
            return Err("its length is wrong");
        }
        let split = bytes.len() - self.lengths as usize;
        let mut rest = &bytes[split..];
        let mut lengths = Vec::with_capacity((self.count as usize).min(rest.len()));
        let mut sum = 0u64;
        while let Some(length) = take_varint(&mut rest) {
            lengths.push(length);
            sum += u64::from(length);
        }
        if !rest.is_empty() || lengths.len() != self.count as usize || sum != split as u64 {
            return Err("its records do not add up");
        }
        bytes.truncate(split);
        Ok(Unpacked { bytes, lengths })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(records: &[Vec<u8>], packed: bool) -> Buffer {
        let (mut piece, mut lengths) = (buffer(&[0; HEADER]), Vec::new());
        for record in records {
            piece.extend_from_slice(record);
            put_length(&mut lengths, record.len() as u32);
        }
        let codecs = Codecs::default();
        let codecs = packed.then_some(&codecs);
        seal(piece, &lengths, codecs, 7, 3, records.len() as u32).unwrap()
    }

    fn buffer(bytes: &[u8]) -> Buffer {
        let mut buffer = Buffer::with_room(bytes.len());
        buffer.extend_from_slice(bytes);
        buffer
    }

    fn decode(bytes: &[u8], work: i64) -> Result<(Header, Unpacked), &'static str> {
        let head: &[u8; HEADER] = bytes.first_chunk().ok_or("too short")?;
        let header = Header::parse(head, work)?;
        let unpacked = header.unpack(buffer(&bytes[HEADER..]), &Codecs::default())?;
        Ok((header, unpacked))
    }

    #[test]
    fn a_frame_of_another_body_is_not_taken() {
        let bytes = frame(&[b"{}".to_vec()], false);
        assert!(decode(&bytes, 7).is_ok());
        assert_eq!(decode(&bytes, 8).unwrap_err(), "the frame belongs to another body");
    }

    proptest! {
        #[test]
        fn records_come_back(records in proptest::collection::vec(
            proptest::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 0..300), 0..30,
        ), packed in any::<bool>()) {
            let (header, unpacked) = decode(&frame(&records, packed), 7).unwrap();
            prop_assert_eq!((header.first, header.count as usize), (3, records.len()));
            prop_assert_eq!(&*unpacked.bytes, &records.concat());
            let lengths: Vec<_> = records.iter().map(|record| record.len() as u32).collect();
            prop_assert_eq!(unpacked.lengths, lengths);
        }

        #[test]
        fn a_record_that_is_written_alone_is_a_frame_like_any_other(
            record in proptest::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 0..3000), packed in any::<bool>()
        ) {
            let mut file = io::Cursor::new(b"before".to_vec());
            file.set_position(6);
            let length = write_alone(&mut file, &record, packed, 7, 3).unwrap();
            prop_assert_eq!(file.position(), 6 + length);
            let bytes = file.into_inner();
            prop_assert_eq!(bytes.len() as u64, 6 + length);
            let (header, unpacked) = decode(&bytes[6..], 7).unwrap();
            prop_assert_eq!((header.first, header.count), (3, 1));
            prop_assert_eq!(&*unpacked.bytes, &record);
            if !packed {
                prop_assert_eq!(&bytes[6..], &**frame(&[record], false));
            }
        }

        #[test]
        fn any_changed_byte_is_noticed(at: prop::sample::Index, by in 1u8..) {
            let mut bytes = frame(&[b"{\"a\":1}".repeat(20), b"{}".to_vec()], true);
            let at = at.index(bytes.len());
            // The three unused bytes mean nothing, and are zero when the CRC is taken.
            prop_assume!(!(5..8).contains(&at));
            bytes[at] = bytes[at].wrapping_add(by);
            prop_assert!(decode(&bytes, 7).is_err());
        }
    }
}
