//! One row group while it grows.

use std::{io::Write, mem};

use ::parquet::{
    data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type},
    errors::{ParquetError, Result},
    file::writer::{SerializedColumnWriter, SerializedFileWriter, SerializedRowGroupWriter},
};
use bytes::Bytes;

use super::{ParquetOptions, Row, order::Place, schema::PAGE_ROWS};

/// What a row takes beside its texts: numbers and the bookkeeping of texts.
const ROW_COST: usize = 14 * 16;
/// So many bytes of records are read at a time, save a single one that is larger. A page ends when it has 256 KiB, so none has
/// more than 768 KiB; Amazon Security Lake wants at most 1 MB.
const RECORDS_BYTES: usize = 512 << 10;

/// The values of all columns.
#[derive(Default)]
pub(super) struct Columns {
    rows: usize,
    bytes: usize,
    id: Texts,
    time: Numbers<i64>,
    record_type: Numbers<i32>,
    operation: Texts,
    workload: Texts,
    user: Texts,
    user_type: Numbers<i32>,
    user_key: Texts,
    mailbox: Texts,
    client_ip: Texts,
    object: Texts,
    result_status: Texts,
    class_uid: Numbers<i32>,
    tags: Lists,
    /// Where the records are; they are read when the row group is written.
    raw: Option<Vec<Place>>,
    tenant: String,
    feed: String,
}

impl Columns {
    pub(super) fn new(options: &ParquetOptions) -> Self {
        Self {
            raw: options.raw.then(Vec::new),
            tenant: options.feed.tenant.to_string(),
            feed: options.feed.content_type.to_string(),
            ..Self::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// What the row group holds, about, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What one more row adds to it.
    pub(super) fn cost(&self, row: &Row<'_>, record: Place) -> usize {
        let texts = [
            row.id,
            row.operation,
            row.workload,
            row.user,
            row.user_key,
            row.mailbox,
            row.client_ip,
            row.object,
            row.result_status,
        ];
        let texts = texts.iter().chain(row.tags).map(|text| text.len()).sum::<usize>();
        ROW_COST + texts + if self.raw.is_some() { record.length as usize } else { 0 }
    }

    pub(super) fn push(&mut self, row: &Row<'_>, record: Place) {
        self.bytes += self.cost(row, record);
        self.rows += 1;
        self.id.push(row.id);
        self.time.push(row.time_ms);
        self.record_type.push(row.record_type);
        self.operation.push(row.operation);
        self.workload.push(row.workload);
        self.user.push(row.user);
        self.user_type.push(row.user_type);
        self.user_key.push(row.user_key);
        self.mailbox.push(row.mailbox);
        self.client_ip.push(row.client_ip);
        self.object.push(row.object);
        self.result_status.push(row.result_status);
        self.class_uid.push(row.class_uid);
        self.tags.push(row.tags);
        if let Some(raw) = &mut self.raw {
            raw.push(record);
        }
    }

    /// Writes the row group, and begins the next. `read` fills in the record that is in a place.
    pub(super) fn write<W: Write + Send>(
        &mut self,
        writer: &mut SerializedFileWriter<W>,
        read: impl FnMut(Place, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut group = writer.next_row_group()?;
        self.id.write(&mut group)?;
        self.time.write::<Int64Type, W>(&mut group)?;
        self.record_type.write::<Int32Type, W>(&mut group)?;
        self.operation.write(&mut group)?;
        self.workload.write(&mut group)?;
        self.user.write(&mut group)?;
        self.user_type.write::<Int32Type, W>(&mut group)?;
        self.user_key.write(&mut group)?;
        self.mailbox.write(&mut group)?;
        self.client_ip.write(&mut group)?;
        self.object.write(&mut group)?;
        self.result_status.write(&mut group)?;
        self.class_uid.write::<Int32Type, W>(&mut group)?;
        self.tags.write(&mut group)?;
        for constant in [&self.tenant, &self.feed] {
            let values = vec![ByteArray::from(constant.as_str()); self.rows];
            column::<ByteArrayType, W>(&mut group, &values, None, None)?;
        }
        if let Some(raw) = &mut self.raw {
            write_records(&mut group, raw, read)?;
            raw.clear();
        }
        group.close()?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }
}

/// Writes the next column with the records that are in these places, few of them in memory.
fn write_records<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    mut places: &[Place],
    mut read: impl FnMut(Place, &mut [u8]) -> Result<()>,
) -> Result<()> {
    let mut column = next_column(group)?;
    while !places.is_empty() {
        let mut bytes = 0;
        let few = places.iter().take(PAGE_ROWS).take_while(|place| {
            bytes += place.length as usize;
            bytes <= RECORDS_BYTES
        });
        let (now, rest) = places.split_at(few.count().max(1));
        places = rest;
        let mut records = Texts::default();
        for place in now {
            records.push_with(place.length as usize, |record| read(*place, record))?;
        }
        let values = records.values();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&records.definitions), None)?;
    }
    column.close()
}

/// Writes the next column.
fn column<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    definitions: Option<&[i16]>,
    repetitions: Option<&[i16]>,
) -> Result<()> {
    let mut column = next_column(group)?;
    column.typed::<T>().write_batch(values, definitions, repetitions)?;
    column.close()
}

fn next_column<'a, W: Write + Send>(
    group: &'a mut SerializedRowGroupWriter<'_, W>,
) -> Result<SerializedColumnWriter<'a>> {
    let missing = || ParquetError::General("the schema has fewer columns than are written".to_owned());
    group.next_column()?.ok_or_else(missing)
}

/// A column of texts; empty ones are null.
#[derive(Default)]
struct Texts {
    /// All of them, one behind the other.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    definitions: Vec<i16>,
}

impl Texts {
    fn push(&mut self, text: &str) {
        if !text.is_empty() {
            self.bytes.extend_from_slice(text.as_bytes());
            self.ends.push(self.bytes.len());
        }
        self.definitions.push(i16::from(!text.is_empty()));
    }

    /// Adds a text of this length, which `fill` writes.
    fn push_with(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
        let start = self.bytes.len();
        self.bytes.resize(start + length, 0);
        fill(&mut self.bytes[start..])?;
        if length > 0 {
            self.ends.push(self.bytes.len());
        }
        self.definitions.push(i16::from(length > 0));
        Ok(())
    }

    /// The texts, which share one buffer.
    fn values(&mut self) -> Vec<ByteArray> {
        let bytes = Bytes::from(mem::take(&mut self.bytes));
        let mut start = 0;
        let mut value = |end| {
            let value = bytes.slice(start..end);
            start = end;
            ByteArray::from(value)
        };
        self.ends.drain(..).map(&mut value).collect()
    }

    fn write<W: Write + Send>(&mut self, group: &mut SerializedRowGroupWriter<'_, W>) -> Result<()> {
        let values = self.values();
        column::<ByteArrayType, W>(group, &values, Some(&self.definitions), None)?;
        self.definitions.clear();
        Ok(())
    }
}

/// A column of numbers that may be null.
#[derive(Default)]
struct Numbers<N> {
    values: Vec<N>,
    definitions: Vec<i16>,
}

impl<N> Numbers<N> {
    fn push(&mut self, number: Option<N>) {
        self.definitions.push(i16::from(number.is_some()));
        self.values.extend(number);
    }

    fn write<T: DataType<T = N>, W: Write + Send>(
        &mut self,
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<()> {
        column::<T, W>(group, &self.values, Some(&self.definitions), None)?;
        self.values.clear();
        self.definitions.clear();
        Ok(())
    }
}

/// A column of lists of texts.
#[derive(Default)]
struct Lists {
    texts: Texts,
    /// 0 begins a row, 1 goes on with it.
    repetitions: Vec<i16>,
}

impl Lists {
    fn push(&mut self, list: &[&str]) {
        if list.is_empty() {
            self.texts.push("");
            self.repetitions.push(0);
        }
        for (index, text) in list.iter().enumerate() {
            self.texts.push(text);
            self.repetitions.push(i16::from(index > 0));
        }
    }

    fn write<W: Write + Send>(&mut self, group: &mut SerializedRowGroupWriter<'_, W>) -> Result<()> {
        let values = self.texts.values();
        column::<ByteArrayType, W>(group, &values, Some(&self.texts.definitions), Some(&self.repetitions))?;
        self.texts.definitions.clear();
        self.repetitions.clear();
        Ok(())
    }
}
