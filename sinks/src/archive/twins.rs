//! The records of an object as columns.

use archive::{
    FileFormat,
    parquet::{Lines, ParquetOptions, SortBy, TwinError, Twins, Understand},
};
use tokio_util::sync::CancellationToken;

use super::{
    config::{Layout, Parquet},
    plan::Due,
    seal::Made,
    staging::{Kind, Staging, StagingError, io_error},
};

/// Makes the Parquet files of an object, durably, beside its records; the first of them is the object's file number
/// `first`. `written` gets each record in the order of their rows. It ends early when it is cancelled. Whoever calls
/// it is on the one thread for that (`one_thread.rs`).
pub(super) fn make(
    staging: &Staging,
    due: &Due,
    parquet: &Parquet,
    first: u32,
    understand: &dyn Understand,
    mut written: impl FnMut(&[u8]),
    cancelled: &CancellationToken,
) -> Result<Vec<Made>, StagingError> {
    let (sort_by, sliced) = match &parquet.layout {
        Layout::Hive { sort } => (*sort, false),
        Layout::SecurityLake { .. } => (SortBy::Time, true),
    };
    let path = staging.file(due.span, Kind::Records);
    let lines =
        Lines { path: &path, bytes: due.whole.bytes, understand, cancelled: &|| cancelled.is_cancelled() };
    staging.step()?;
    let twins = Twins::read(lines, ParquetOptions { feed: due.feed, sort_by, raw: parquet.raw, sliced });
    let twins = twins.map_err(unmade)?;
    let records = twins.slices().map(|(_, records)| records).sum();
    let has = due.has(records, twins.bytes());
    has.map_err(|what| StagingError::Changed { path: path.clone(), what })?;
    let mut made = Vec::new();
    for (index, (slice, _)) in (first..).zip(twins.slices()) {
        staging.step()?;
        let part = staging.file(due.span, Kind::Part(index));
        let twin = twins.write(slice, &part, &mut written).map_err(unmade)?;
        staging.finish(due.span, index)?;
        made.push(Made {
            format: FileFormat::Parquet,
            slice,
            sha256: twin.sha256,
            bytes: twin.bytes,
            records: twin.rows,
        });
    }
    Ok(made)
}

fn unmade(error: TwinError) -> StagingError {
    let full = error.disk_full();
    match error {
        TwinError::Cancelled => StagingError::Cancelled,
        TwinError::Read { path, source } if source.kind() == std::io::ErrorKind::InvalidData => {
            StagingError::Changed { path, what: source.to_string() }
        }
        TwinError::Read { path, source } => io_error("read", &path, source),
        TwinError::Write { path, .. } if full => StagingError::Full { path },
        TwinError::Write { path, source } => io_error("write to", &path, std::io::Error::other(source)),
    }
}
