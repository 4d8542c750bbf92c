//! The records of a file, one at a time, whether they are its lines or the rows of its columns.

use std::io;

use ::parquet::errors::ParquetError;

use crate::{content::Lines, parquet::rows::Rows};

/// A file that does not hold records.
#[derive(Debug, thiserror::Error)]
pub enum NotRecords {
    /// It is damaged, or cut off.
    #[error("it cannot be decompressed ({source})")]
    Compression {
        /// What the decoder says.
        source: io::Error,
    },
    /// It is cut off.
    #[error("its last line has no line break")]
    Unfinished,
    /// A line is longer than any record.
    #[error("it has a line of more than {bytes} bytes, which is no record")]
    TooLong {
        /// The most that one may have.
        bytes: u64,
    },
    /// Its columns are damaged, or do not have the records.
    #[error("its columns cannot be read ({source})")]
    Columns {
        /// What is wrong.
        source: ParquetError,
    },
}

/// See the module.
pub(crate) enum Records<'a> {
    /// It is a file of lines.
    Lines(Lines<'a>),
    /// It is a Parquet file.
    Rows(Box<Rows<'a>>),
}

impl Records<'_> {
    /// The next record.
    pub(crate) fn next_record(&mut self) -> Result<Option<&[u8]>, NotRecords> {
        match self {
            Self::Lines(lines) => lines.next_line(),
            Self::Rows(rows) => rows.next_row().map_err(|source| NotRecords::Columns { source }),
        }
    }
}
