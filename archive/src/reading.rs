//! Reading an archive: its chains, their entries, and files on a blocking thread.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    ops::Range,
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use futures_util::TryStreamExt as _;
use tokio::runtime::Handle;

use crate::{
    blocking::blocking,
    content::Lines,
    entry::{Entry, EntryError, SealedFile},
    envelope::{Envelope, EnvelopeError},
    names::{ChainFile, ChainKey, MANIFESTS},
    numbers::{Numbers, Place},
    parquet::rows::Rows,
    path::ObjectPath,
    records::{NotRecords, Records},
    store::{Body, Store, StoreError},
};

/// The largest entry that is read. One that names a thousand objects has less than 1 MiB.
pub(crate) const ENTRY_BYTES: usize = 64 << 20;

/// How often something is read before a failure that may pass is taken for one that does not.
const ATTEMPTS: u32 = 4;

/// An entry that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The store does not give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its envelope is damaged.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Its payload is damaged, or of another format.
    #[error(transparent)]
    Entry(#[from] EntryError),
}

/// Every chain of an archive, and which entries it has.
///
/// # Errors
///
/// When the archive cannot be listed.
pub async fn chains(store: &Store) -> Result<BTreeMap<ChainKey, Numbers>, StoreError> {
    let below = MANIFESTS.parse().expect("the folder's name is a path");
    let mut listed = store.list(Some(&below));
    let mut chains: BTreeMap<ChainKey, Numbers> = BTreeMap::new();
    while let Some(object) = listed.try_next().await? {
        if let Some((chain, ChainFile::Entry(number))) = chain_file(&object.name) {
            chains.entry(chain).or_default().insert(number);
        }
    }
    passed_by(store, &mut chains).await?;
    Ok(chains)
}

/// Looks for entries that were put while the archive was listed, and that the listing passed by: of each gap from its beginning on.
pub(crate) async fn passed_by(
    store: &Store,
    chains: &mut BTreeMap<ChainKey, Numbers>,
) -> Result<(), StoreError> {
    for (chain, numbers) in chains {
        let gap = |place| match place {
            Place::Missing { first, last } => Some(first..=last),
            Place::Entry(_) => None,
        };
        let gaps: Vec<_> = numbers.places().filter_map(gap).collect();
        for gap in gaps {
            for number in gap {
                if store.head(&chain.entry(number)).await?.is_none() {
                    break;
                }
                numbers.insert(number);
            }
        }
    }
    Ok(())
}

/// What a listed name is in the folder of the manifests.
pub(crate) fn chain_file(name: &str) -> Option<(ChainKey, ChainFile)> {
    name.parse().ok().and_then(|path: ObjectPath| ChainKey::parse(&path))
}

/// Reads an entry. Nothing is verified.
///
/// # Errors
///
/// When it is not there, or is no entry.
pub async fn read_entry(
    store: &Store,
    chain: &ChainKey,
    number: u64,
) -> Result<(Envelope, Entry), Unreadable> {
    let envelope = read_envelope(store, &chain.entry(number)).await?;
    let entry = Entry::parse(envelope.payload())?;
    Ok((envelope, entry))
}

async fn read_envelope(store: &Store, path: &ObjectPath) -> Result<Envelope, Unreadable> {
    Ok(Envelope::parse(&read_whole(store, path, ENTRY_BYTES).await?)?)
}

/// Reads a small file.
pub(crate) async fn read_whole(
    store: &Store,
    path: &ObjectPath,
    at_most: usize,
) -> Result<Bytes, StoreError> {
    let mut attempt = 1;
    loop {
        match store.get_whole(path, at_most).await {
            Err(error) if again(&error, attempt) => pause(&error, attempt).await,
            got => return got,
        }
        attempt += 1;
    }
}

/// Begins to read a file.
pub(crate) async fn open(store: &Store, path: &ObjectPath) -> Result<Body, StoreError> {
    let mut attempt = 1;
    loop {
        match store.get(path).await {
            Err(error) if again(&error, attempt) => pause(&error, attempt).await,
            got => return got,
        }
        attempt += 1;
    }
}

/// Whether a failed attempt is followed by another.
pub(crate) fn again(error: &StoreError, attempt: u32) -> bool {
    error.retryable() && attempt < ATTEMPTS
}

/// Waits before the next attempt.
pub(crate) async fn pause(error: &StoreError, attempt: u32) {
    let own = Duration::from_millis(250) * 2u32.pow(attempt);
    tokio::time::sleep(error.retry_after().unwrap_or(own)).await;
}

/// Gives an object to `read`, on a blocking thread. When the store stops giving it, that is the error, whatever `read`
/// makes of it.
pub(crate) async fn read_blocking<T: Send + 'static, E: Send + 'static>(
    store: &Store,
    path: &ObjectPath,
    read: impl FnOnce(&mut Content) -> Result<T, E> + Send + 'static,
) -> Result<Result<T, E>, StoreError> {
    let (body, runtime) = (open(store, path).await?, Handle::current());
    let (done, failed) = blocking(move || {
        let mut content = Content { body, runtime, piece: Bytes::new(), failed: None };
        let done = read(&mut content);
        (done, content.failed)
    })
    .await;
    match (done, failed) {
        (Err(_), Some(failed)) => Err(failed),
        (done, _) => Ok(done),
    }
}

/// Gives the records of a file to `read`, on a blocking thread: its lines as they come, or of a Parquet file the parts that
/// hold them.
pub(crate) async fn read_records<T: Send + 'static>(
    store: &Store,
    file: &SealedFile,
    read: impl FnOnce(&mut Records<'_>) -> Result<T, NotRecords> + Send + 'static,
) -> Result<Result<T, NotRecords>, StoreError> {
    let format = file.format;
    if format.is_ndjson() {
        return read_blocking(store, &file.path, move |content| {
            read(&mut Records::Lines(Lines::new(content, format)?))
        })
        .await;
    }
    let (store, path, bytes, runtime) = (store.clone(), file.path.clone(), file.bytes, Handle::current());
    blocking(move || {
        let mut failed = None;
        let part = |part| {
            runtime.block_on(read_part(&store, &path, part)).map_err(|error| {
                let text = error.to_string();
                failed = Some(error);
                io::Error::other(text)
            })
        };
        let rows = Rows::open(bytes, Box::new(part)).map_err(|source| NotRecords::Columns { source });
        let done = rows.and_then(|rows| read(&mut Records::Rows(Box::new(rows))));
        match failed {
            Some(failed) => Err(failed),
            None => Ok(done),
        }
    })
    .await
}

/// Reads a part of a file.
async fn read_part(store: &Store, path: &ObjectPath, part: Range<u64>) -> Result<Bytes, StoreError> {
    let mut attempt = 1;
    loop {
        match store.get_part(path, part.clone()).await {
            Err(error) if again(&error, attempt) => pause(&error, attempt).await,
            got => return got,
        }
        attempt += 1;
    }
}

/// An object's content for a blocking thread.
pub(crate) struct Content {
    body: Body,
    runtime: Handle,
    piece: Bytes,
    /// Why the store stopped giving it.
    failed: Option<StoreError>,
}

impl Content {
    /// How many bytes it has, as the store says.
    pub(crate) fn size(&self) -> u64 {
        self.body.bytes
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.runtime.block_on(self.body.pieces.try_next()) {
                Ok(Some(piece)) => self.piece = piece,
                Ok(None) => return Ok(0),
                Err(error) => {
                    let text = error.to_string();
                    self.failed = Some(error);
                    return Err(io::Error::other(text));
                }
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
