//! The records out of a Parquet file again: its column `raw`, row group by row group.
//!
//! Of a file its directory is read, which is at its end, and then one part for each row group. In memory are that column of one row
//! group as it is stored, and one page of it unpacked.

use std::{io, ops::Range, sync::Arc};

use ::parquet::{
    basic::Type,
    column::reader::ColumnReaderImpl,
    data_type::{ByteArray, ByteArrayType},
    errors::{ParquetError, Result},
    file::{
        metadata::{ParquetMetaData, ParquetMetaDataReader},
        reader::{ChunkReader, Length, SerializedPageReader},
    },
};
use bytes::{Buf as _, Bytes, buf::Reader};

use super::nesting::is_flat;

/// The largest directory that is read. That of a file for 128 MiB of records has some 20 KiB.
pub(crate) const DIRECTORY_BYTES: usize = 4 << 20;
/// How much of a file's end is read before it is known how long its directory is.
const END_BYTES: u64 = 64 << 10;
/// So many rows are taken at a time; they share the page that they are in.
const ROWS: usize = 256;
/// The column that holds the records.
const RAW: &str = "raw";

/// Gives a part of a file.
pub(crate) type Part<'a> = Box<dyn FnMut(Range<u64>) -> io::Result<Bytes> + 'a>;

/// The records of a file, one at a time.
pub(crate) struct Rows<'a> {
    part: Part<'a>,
    /// The size of the file.
    bytes: u64,
    directory: ParquetMetaData,
    column: usize,
    /// The row group that comes next.
    next_group: usize,
    group: Option<ColumnReaderImpl<ByteArrayType>>,
    /// What was taken of it, the last row first.
    taken: Vec<ByteArray>,
    record: ByteArray,
}

impl<'a> Rows<'a> {
    /// The records of a file of this size.
    pub(crate) fn open(bytes: u64, mut part: Part<'a>) -> Result<Self> {
        let mut length = bytes.min(END_BYTES);
        let directory = loop {
            let end = part(bytes - length..bytes)?;
            match directory(&end) {
                Ok(directory) => break directory,
                Err(NoDirectory::Longer { bytes: longer }) if longer > length && longer <= bytes => {
                    length = longer;
                }
                Err(NoDirectory::Longer { .. }) => return Err(damaged("its directory is cut off")),
                Err(NoDirectory::Damaged(error)) => return Err(error),
            }
        };
        let columns = directory.file_metadata().schema_descr().columns();
        let is_raw = |path: &[String]| path.iter().eq([RAW]);
        let column = columns.iter().position(|column| is_raw(column.path().parts()));
        let column = column.filter(|at| columns[*at].physical_type() == Type::BYTE_ARRAY);
        let column = column.ok_or_else(|| damaged("it has no column with the records"))?;
        let (taken, record) = (Vec::new(), ByteArray::new());
        Ok(Self { part, bytes, directory, column, next_group: 0, group: None, taken, record })
    }

    /// The next record.
    pub(crate) fn next_row(&mut self) -> Result<Option<&[u8]>> {
        while self.taken.is_empty() {
            let Some(group) = &mut self.group else {
                if self.next_group == self.directory.num_row_groups() {
                    return Ok(None);
                }
                self.group = Some(self.open_group()?);
                self.next_group += 1;
                continue;
            };
            let mut present = Vec::new();
            let (rows, ..) = group.read_records(ROWS, Some(&mut present), None, &mut self.taken)?;
            if self.taken.len() != rows {
                return Err(damaged("a row has no record"));
            }
            if rows == 0 {
                self.group = None;
            }
            self.taken.reverse();
        }
        if let Some(record) = self.taken.pop() {
            self.record = record;
        }
        Ok(Some(self.record.data()))
    }

    fn open_group(&mut self) -> Result<ColumnReaderImpl<ByteArrayType>> {
        let group = self.directory.row_group(self.next_group);
        let chunk = group.columns().get(self.column).ok_or_else(|| damaged("a column is missing"))?;
        let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
        let range = u64::try_from(start).ok().zip(u64::try_from(chunk.compressed_size()).ok());
        let range = range.and_then(|(start, length)| Some(start..start.checked_add(length)?));
        let range = range.filter(|range| range.end <= self.bytes);
        let range = range.ok_or_else(|| damaged("a column lies outside of it"))?;
        let window = Window { start: range.start, bytes: (self.part)(range)? };
        let rows = usize::try_from(group.num_rows()).map_err(|_| damaged("a row group is too long"))?;
        let pages = SerializedPageReader::new(Arc::new(window), chunk, rows, None)?;
        let column = self.directory.file_metadata().schema_descr().column(self.column);
        Ok(ColumnReaderImpl::new(column, Box::new(pages)))
    }
}

/// Why there is no directory in the end of a file.
pub(crate) enum NoDirectory {
    /// It takes so many bytes of the end.
    Longer {
        /// How many.
        bytes: u64,
    },
    /// There is none.
    Damaged(ParquetError),
}

/// The directory of a Parquet file, from the last bytes of the file.
pub(crate) fn directory(end: &[u8]) -> Result<ParquetMetaData, NoDirectory> {
    let none = || NoDirectory::Damaged(damaged("it has no Parquet footer"));
    let (rest, tail) = end.split_last_chunk::<8>().ok_or_else(none)?;
    let [length @ .., b'P', b'A', b'R', b'1'] = *tail else { return Err(none()) };
    let length = u32::from_le_bytes(length) as usize;
    if length > DIRECTORY_BYTES {
        return Err(none());
    }
    match rest.len().checked_sub(length) {
        Some(from) if !is_flat(&rest[from..]) => {
            Err(NoDirectory::Damaged(damaged("the schema in its Parquet footer is none of an archive")))
        }
        Some(from) => ParquetMetaDataReader::decode_metadata(&rest[from..]).map_err(NoDirectory::Damaged),
        None => Err(NoDirectory::Longer { bytes: length as u64 + 8 }),
    }
}

fn damaged(what: &str) -> ParquetError {
    ParquetError::General(what.to_owned())
}

/// A part of a file, in its place.
struct Window {
    start: u64,
    bytes: Bytes,
}

impl Window {
    fn behind(&self, start: u64) -> Result<Bytes> {
        let at = start.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let at = at.filter(|at| *at <= self.bytes.len());
        at.map(|at| self.bytes.slice(at..)).ok_or_else(|| damaged("a page lies outside of its column"))
    }
}

impl Length for Window {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Window {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(self.behind(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let mut bytes = self.behind(start)?;
        if bytes.len() < length {
            return Err(damaged("a page is cut off"));
        }
        bytes.truncate(length);
        Ok(bytes)
    }
}
