//! From the records of an open object to the object: its files made, hashed, counted, named.
//!
//! The same records and formats give the same bytes with the same version. That is not relied on: what is sealed is
//! kept until it is put.
//!
//! The object's tree is over the records as they came, which is how the lines have them. Without lines it is over them
//! in the order of the rows of the Parquet files, one file after the other, so that whoever has the files can make it
//! again.

use std::{fs::File, io};

use archive::{
    FileFormat, Hash, Hasher, Merkle, ObjectName, ObjectPath, SealedFile, SealedObject,
    parquet::{Slice, Understand},
};
use chrono::DateTime;
use schemas::{LedgerId, Seq};
use tokio_util::sync::CancellationToken;

use super::{
    config::Layout,
    ndjson,
    plan::Due,
    staging::{Kind, Staging, StagingError, io_error},
    twins,
};

/// What a file of an object came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) format: FileFormat,
    /// Which of the records it has, when it does not have all.
    pub(super) slice: Option<Slice>,
    pub(super) sha256: Hash,
    pub(super) bytes: u64,
    pub(super) records: u64,
}

/// Makes the files of an object, durably, beside its records. It ends early when it is cancelled.
pub(super) fn make(
    staging: &Staging,
    due: &Due,
    ledger: LedgerId,
    understand: &dyn Understand,
    cancelled: &CancellationToken,
) -> Result<SealedObject, StagingError> {
    let mut tree = Merkle::default();
    let mut made = Vec::new();
    if let Some(compression) = due.formats.compression {
        made.push(ndjson::make(staging, due, compression, &mut tree, cancelled)?);
    }
    if let Some(parquet) = &due.formats.parquet {
        let (first, alone) = (u32::from(!made.is_empty()), made.is_empty());
        let written = |record: &[u8]| {
            if alone {
                tree.push(record);
            }
        };
        made.extend(twins::make(staging, due, parquet, first, understand, written, cancelled)?);
    }
    let Some(first) = made.first() else {
        let (path, what) = (staging.file(due.span, Kind::Records), "there is nothing in it".to_owned());
        return Err(StagingError::Changed { path, what });
    };
    let (first_seq, last_seq) = due.whole.seqs.unwrap_or((Seq(0), Seq(0)));
    let name = ObjectName { ledger, first_seq, last_seq, short_hash: first.sha256.short() };
    let file = |made: &Made| SealedFile {
        path: path(due, &name, made),
        format: made.format,
        sha256: made.sha256,
        bytes: made.bytes,
        records: made.records,
    };
    let time = |millis: i64| DateTime::from_timestamp_millis(millis);
    Ok(SealedObject {
        content_type: due.feed.content_type,
        first_seq,
        last_seq,
        records: due.whole.records,
        first_creation_time: due.whole.times.and_then(|(first, _)| time(first)),
        last_creation_time: due.whole.times.and_then(|(_, last)| time(last)),
        merkle_root: tree.root(),
        files: made.iter().map(file).collect(),
    })
}

fn path(due: &Due, name: &ObjectName, made: &Made) -> ObjectPath {
    let layout = due.formats.parquet.as_ref().map(|parquet| &parquet.layout);
    match (layout, made.slice) {
        (Some(Layout::SecurityLake { source }), Some(slice)) => {
            source.path(due.feed.tenant, slice, name, due.began)
        }
        _ => name.hive_path(due.feed, due.began, made.format),
    }
}

/// The hashes of a sealed object's files on this machine; `None` of those that are not there.
pub(super) fn hashes_of(
    staging: &Staging,
    span: u64,
    files: &[SealedFile],
) -> Result<Vec<Option<Hash>>, StagingError> {
    (0..).zip(files).map(|(index, _)| hash_of(staging, span, index)).collect()
}

fn hash_of(staging: &Staging, span: u64, index: u32) -> Result<Option<Hash>, StagingError> {
    let path = staging.file(span, Kind::File(index));
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error("read", &path, source)),
    };
    let mut hasher = Hasher::default();
    io::copy(&mut file, &mut hasher).map_err(|source| io_error("read", &path, source))?;
    Ok(Some(hasher.finish()))
}
