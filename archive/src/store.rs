//! Where an archive lies: a directory, a bucket of S3 or of Google Cloud Storage, or a container of Azure Blob Storage.
//!
//! A [`Store`] promises:
//!
//! - **Write once.** [`Store::put_new`] never overwrites. What is there already counts as put only after it was read
//!   back and has the same SHA-256; other bytes are an error that names the object, and are left as they are. Nothing is
//!   ever deleted, save an upload of our own that was given up before it became an object.
//! - **All or nothing.** An object is under its name with all of its bytes, durably, or it is not there.
//! - **Bounded memory.** A file goes up in parts of [`PART_BYTES`], one at a time. A put holds two of them at most.
//! - **Silence.** No secret is in a `Debug` or in an error.
//! - **No hidden waiting.** A request is made once. Whoever asks decides from the [`StoreError`] whether and when it
//!   asks again; asking again is always safe.
//!
//! | file | what it holds |
//! |---|---|
//! | `target.rs` | [`Target`]: which place, and who may go there |
//! | `error.rs` | [`StoreError`] |
//! | `directory.rs` | a directory of this machine, with its layout on disk |
//! | `bucket.rs` | what S3, Azure and Google Cloud have in common |
//! | `s3.rs`, `azure.rs`, `gcs.rs` | each of them: its address, and who we are there |
//! | `wire.rs` | what is added to requests, and what answers mean |
//! | `keys.rs` | keys in a bucket that the library cannot hold |
//! | `refused.rs` | from an answer to a [`StoreError`] with advice |

mod azure;
mod bucket;
mod credentials;
mod directory;
mod error;
mod gcs;
mod keys;
mod refused;
mod s3;
pub mod target;
mod wire;

use std::{ops::Range, path::Path, sync::Arc};

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};

pub use error::StoreError;
pub use target::Target;

use self::{bucket::Bucket, directory::Directory};
use crate::{Hash, Hasher, MANIFESTS, ObjectPath};

/// How many bytes of a file are in memory at a time while it is put, besides those that are on their way.
pub const PART_BYTES: usize = 8 * 1024 * 1024;

/// Where an archive lies. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Store(Arc<Place>);

#[derive(Debug)]
enum Place {
    Directory(Directory),
    Bucket(Bucket),
}

/// What is to be put.
#[derive(Debug, Clone)]
pub enum Source<'a> {
    /// A file of this machine, which does not change meanwhile.
    File(&'a Path),
    /// A few bytes.
    Bytes(Bytes),
}

/// How an object came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was put now.
    Created,
    /// It was there already, and has the same bytes.
    AlreadyThere,
}

/// An object that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its size.
    pub bytes: u64,
    /// When the store says that it was put.
    pub modified: DateTime<Utc>,
}

/// An object as a listing names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its whole name below the target. Somebody else may have put it there, so it need not be an [`ObjectPath`].
    pub name: String,
    /// Its size and time.
    pub head: Head,
}

/// A place for archives, told apart from every other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceName {
    /// Its name.
    pub name: String,
    /// What it was called before services were told apart that have a bucket of the same name.
    pub former_name: String,
}

/// The content of an object.
pub struct Body {
    /// Its size.
    pub bytes: u64,
    /// Its bytes, in pieces of at most a few hundred KiB.
    pub pieces: BoxStream<'static, Result<Bytes, StoreError>>,
}

impl Store {
    /// Gets ready to use a target. It makes no request: [`Store::probe`] does.
    ///
    /// # Errors
    ///
    /// When the target's settings cannot be used.
    pub async fn open(target: &Target) -> Result<Self, StoreError> {
        let place = match target {
            Target::Directory(directory) => Place::Directory(Directory::new(directory.clone())),
            Target::S3(target) => Place::Bucket(s3::open(target).await?),
            Target::Azure(target) => Place::Bucket(azure::open(target).await?),
            Target::Gcs(target) => Place::Bucket(gcs::open(target).await?),
        };
        Ok(Self(Arc::new(place)))
    }

    /// Puts a new object. `sha256` is the hash that its bytes must have: a source that has another one is refused
    /// before anything is visible under the name.
    ///
    /// # Errors
    ///
    /// [`StoreError::OtherBytes`] when the name is taken by something else, and whatever else can go wrong. It may be
    /// called again after any error and after it was dropped.
    pub async fn put_new(
        &self,
        path: &ObjectPath,
        source: Source<'_>,
        sha256: &Hash,
    ) -> Result<Put, StoreError> {
        if let Source::Bytes(bytes) = &source {
            let found = Hash::of(bytes);
            if found != *sha256 {
                let path = path.as_str().into();
                return Err(StoreError::SourceChanged { path, expected: *sha256, found });
            }
        }
        let created = match &*self.0 {
            Place::Directory(directory) => directory.create(path, &source, sha256).await,
            Place::Bucket(bucket) => bucket.create(path, &source, sha256).await,
        };
        let created = match created {
            // What became of the file does not matter when the object is there already.
            Err(error) if is_of_source(&error, &source) => {
                return match self.hash(path).await {
                    Ok(found) if found == *sha256 => Ok(Put::AlreadyThere),
                    Ok(_) | Err(StoreError::NotFound { .. }) => Err(error),
                    Err(unknown) => Err(unknown),
                };
            }
            created => created?,
        };
        if created {
            return Ok(Put::Created);
        }
        let found = match self.hash(path).await {
            // Two wrote it at once, and neither did. The next attempt will tell.
            Err(StoreError::NotFound { object }) => return Err(StoreError::Contended { object }),
            found => found?,
        };
        if found == *sha256 {
            return Ok(Put::AlreadyThere);
        }
        Err(StoreError::OtherBytes { object: self.describe(path), expected: *sha256, found })
    }

    /// The content of an object.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] when there is none of that name, and whatever else can go wrong; then or later, in the
    /// stream.
    pub async fn get(&self, path: &ObjectPath) -> Result<Body, StoreError> {
        match &*self.0 {
            Place::Directory(directory) => directory.get(path).await,
            Place::Bucket(bucket) => bucket.get(path).await,
        }
    }

    /// A part of an object. It is as long as it is asked for.
    ///
    /// # Errors
    ///
    /// As [`Store::get`], also when the object has no such part.
    pub async fn get_part(&self, path: &ObjectPath, part: Range<u64>) -> Result<Bytes, StoreError> {
        if part.is_empty() {
            return Ok(Bytes::new());
        }
        match &*self.0 {
            Place::Directory(directory) => directory.get_part(path, part).await,
            Place::Bucket(bucket) => bucket.get_part(path, part).await,
        }
    }

    /// The content of a small object at once.
    ///
    /// # Errors
    ///
    /// As [`Store::get`], and [`StoreError::TooLarge`] when it has more than `at_most` bytes.
    pub async fn get_whole(&self, path: &ObjectPath, at_most: usize) -> Result<Bytes, StoreError> {
        let too_large = || StoreError::TooLarge { object: self.describe(path), at_most };
        let Body { bytes, mut pieces } = self.get(path).await?;
        let size = usize::try_from(bytes).ok().filter(|size| *size <= at_most).ok_or_else(too_large)?;
        let mut whole = BytesMut::with_capacity(size);
        while let Some(piece) = pieces.try_next().await? {
            if whole.len() + piece.len() > at_most {
                return Err(too_large());
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// Whether an object is there, and how large it is.
    ///
    /// # Errors
    ///
    /// Whatever can go wrong; that it is not there is no error.
    pub async fn head(&self, path: &ObjectPath) -> Result<Option<Head>, StoreError> {
        match &*self.0 {
            Place::Directory(directory) => directory.head(path).await,
            Place::Bucket(bucket) => bucket.head(path).await,
        }
    }

    /// Every object below a folder, or every one at all, in no particular order.
    pub fn list(&self, below: Option<&ObjectPath>) -> BoxStream<'static, Result<Listed, StoreError>> {
        match &*self.0 {
            Place::Directory(directory) => directory.list(below).boxed(),
            Place::Bucket(bucket) => bucket.list(below).boxed(),
        }
    }

    /// Finds out whether objects can be listed and put, and leaves nothing behind.
    ///
    /// # Errors
    ///
    /// What is in the way, with advice.
    pub async fn probe(&self) -> Result<(), StoreError> {
        match &*self.0 {
            Place::Directory(directory) => directory.probe().await,
            Place::Bucket(bucket) => bucket.probe().await,
        }
    }

    /// Which place it is. Whoever keeps something about an archive can tell by it whether it is still the same.
    #[must_use]
    pub fn place(&self) -> PlaceName {
        let manifests: ObjectPath = MANIFESTS.parse().expect("a word is a path");
        let former_name = self.describe(&manifests);
        let name = match &*self.0 {
            Place::Bucket(Bucket { service: Some(service), .. }) => format!("{former_name} at {service}"),
            Place::Bucket(_) | Place::Directory(_) => former_name.clone(),
        };
        PlaceName { name, former_name }
    }

    /// The whole address of an object, for messages.
    #[must_use]
    pub fn describe(&self, path: &ObjectPath) -> String {
        match &*self.0 {
            Place::Directory(directory) => directory.file(path).display().to_string(),
            Place::Bucket(bucket) => bucket.describe(path),
        }
    }

    /// The hash of what is stored under a name.
    async fn hash(&self, path: &ObjectPath) -> Result<Hash, StoreError> {
        let mut pieces = self.get(path).await?.pieces;
        let mut hash = Hasher::default();
        while let Some(piece) = pieces.try_next().await? {
            hash.update(&piece);
        }
        Ok(hash.finish())
    }
}

/// Whether the file that was to be put is at fault.
fn is_of_source(error: &StoreError, source: &Source<'_>) -> bool {
    let Source::File(file) = source else { return false };
    match error {
        StoreError::SourceChanged { path, .. } | StoreError::Io { path, .. } => path == file,
        _ => false,
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}
