//! What S3, Azure Blob Storage and Google Cloud Storage have in common.
//!
//! A small object goes in one request that succeeds only when its name is free. A larger one goes in parts: each is read,
//! hashed and sent before the next is read, and the parts become an object only when the whole has the hash that it must
//! have. What was begun and is given up is aborted, also when whoever put it was dropped; what a killed process leaves
//! has to be swept by the bucket's own life-cycle rule (`AbortIncompleteMultipartUpload`; Azure does it after a week).

use std::{fmt, ops::Range, path::Path, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use entra::SecretSource;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use object_store::{
    BackoffConfig, Certificate, ClientOptions, Error, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMode, PutOptions, RetryConfig, path::Path as Location,
};
use secrecy::ExposeSecret as _;
use tokio::{fs::File, io::AsyncReadExt as _, runtime::Handle};

use super::{
    Body, Head, Listed, PART_BYTES, Source, StoreError, keys,
    refused::{Doing, explain},
    target::{Network, Proxy},
};
use crate::{Hash, Hasher, ObjectPath};

/// How long nothing may move on a connection.
const STALLED: Duration = Duration::from_secs(120);
/// The name under which a probe tries to write; nothing ever lies there.
const PROBE: &str = "mailtrail-probe";

/// Whose bucket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    S3 { locks: bool },
    Azure,
    Gcs,
}

/// A bucket, or a container.
pub(super) struct Bucket {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) kind: Kind,
    /// Its address, for messages.
    pub(super) place: String,
    /// Where the service is, when buckets of that name are at others too.
    pub(super) service: Option<String>,
    pub(super) prefix: Option<ObjectPath>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("place", &self.place)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Bucket {
    pub(super) fn describe(&self, path: &ObjectPath) -> String {
        format!("{}/{}", self.place, self.location(path.as_str()))
    }

    /// Where it lies, the prefix included.
    fn location(&self, path: &str) -> Location {
        match &self.prefix {
            Some(prefix) => Location::from(format!("{prefix}/{path}")),
            None => Location::from(path),
        }
    }

    fn failed(&self, doing: Doing, path: Option<&ObjectPath>, error: &Error) -> StoreError {
        let object = path.map_or_else(|| self.place.clone(), |path| self.describe(path));
        explain(self.kind, &self.place, doing, &object, error)
    }

    /// Puts an object; `false` when something has that name already.
    pub(super) async fn create(
        &self,
        path: &ObjectPath,
        source: &Source<'_>,
        sha256: &Hash,
    ) -> Result<bool, StoreError> {
        let file = match source {
            Source::Bytes(bytes) => return self.create_small(path, bytes.clone()).await,
            Source::File(file) => *file,
        };
        let mut parts = Parts::open(file).await?;
        let first = parts.next().await?;
        if first.len() < PART_BYTES {
            parts.check(sha256)?;
            return self.create_small(path, first).await;
        }
        // It spares sending all of it in vain, and the condition at the end where the service takes none.
        if self.head(path).await?.is_some() {
            return Ok(false);
        }
        self.create_large(path, first, parts, sha256).await
    }

    async fn create_small(&self, path: &ObjectPath, bytes: Bytes) -> Result<bool, StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&self.location(path.as_str()), bytes.into(), options).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(self.failed(Doing::Put, Some(path), &error)),
        }
    }

    async fn create_large(
        &self,
        path: &ObjectPath,
        first: Bytes,
        mut parts: Parts<'_>,
        sha256: &Hash,
    ) -> Result<bool, StoreError> {
        let failed = |error: &Error| self.failed(Doing::Put, Some(path), error);
        let begun = self.store.put_multipart(&self.location(path.as_str())).await;
        let mut upload = Upload(Some(begun.map_err(|error| failed(&error))?));
        let mut part = first;
        while !part.is_empty() {
            if let Err(error) = upload.part(part).await {
                upload.give_up().await;
                return Err(failed(&error));
            }
            part = match parts.next().await {
                Ok(part) => part,
                Err(error) => {
                    upload.give_up().await;
                    return Err(error);
                }
            };
        }
        if let Err(error) = parts.check(sha256) {
            upload.give_up().await;
            return Err(error);
        }
        match upload.complete().await {
            Ok(()) => Ok(true),
            Err(error) => {
                upload.give_up().await;
                match error {
                    Error::AlreadyExists { .. } | Error::Precondition { .. } => Ok(false),
                    error => Err(failed(&error)),
                }
            }
        }
    }

    pub(super) async fn get(&self, path: &ObjectPath) -> Result<Body, StoreError> {
        let failed = |error: &Error| self.failed(Doing::Get, Some(path), error);
        let found = self.store.get(&self.location(path.as_str())).await.map_err(|error| failed(&error))?;
        let bytes = found.meta.size;
        let (kind, place, object) = (self.kind, self.place.clone(), self.describe(path));
        let pieces = found
            .into_stream()
            .map_err(move |error| explain(kind, &place, Doing::Get, &object, &error))
            .boxed();
        Ok(Body { bytes, pieces })
    }

    pub(super) async fn get_part(&self, path: &ObjectPath, part: Range<u64>) -> Result<Bytes, StoreError> {
        let got = self.store.get_range(&self.location(path.as_str()), part).await;
        got.map_err(|error| self.failed(Doing::Get, Some(path), &error))
    }

    pub(super) async fn head(&self, path: &ObjectPath) -> Result<Option<Head>, StoreError> {
        match self.store.head(&self.location(path.as_str())).await {
            Ok(meta) => Ok(Some(head(&meta))),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(Doing::Get, Some(path), &error)),
        }
    }

    pub(super) fn list(
        &self,
        below: Option<&ObjectPath>,
    ) -> impl Stream<Item = Result<Listed, StoreError>> + Send + use<> {
        let prefix = match below {
            Some(below) => Some(self.location(below.as_str())),
            None => self.prefix.as_ref().map(|prefix| Location::from(prefix.as_str())),
        };
        let own = self.prefix.as_ref().map_or(0, |prefix| prefix.as_str().len() + 1);
        let (kind, place) = (self.kind, self.place.clone());
        self.store.list(prefix.as_ref()).map(move |listed| match listed {
            Ok(meta) => {
                let key = keys::key_of(meta.location.as_ref());
                let key = key.as_deref().unwrap_or(meta.location.as_ref());
                let name = key.get(own..).unwrap_or_default().to_owned();
                Ok(Listed { name, head: head(&meta) })
            }
            Err(error) => Err(explain(kind, &place, Doing::List, &place, &error)),
        })
    }

    /// Lists, reads, and begins to write an object that is never finished.
    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        let failed = |doing, error: &Error| self.failed(doing, None, error);
        let mut listed = Box::pin(self.list(None));
        listed.try_next().await?;
        drop(listed);
        let location = self.location(PROBE);
        match self.store.get(&location).await {
            Ok(_) | Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(failed(Doing::Get, &error)),
        }
        let begun = self.store.put_multipart(&location).await;
        let mut upload = Upload(Some(begun.map_err(|error| failed(Doing::Put, &error))?));
        let tried = upload.part(Bytes::from_static(b"probe")).await;
        upload.give_up().await;
        tried.map_err(|error| failed(Doing::Put, &error))
    }
}

fn head(meta: &ObjectMeta) -> Head {
    Head { bytes: meta.size, modified: meta.last_modified }
}

/// A file that is read part by part, and hashed meanwhile.
struct Parts<'a> {
    path: &'a Path,
    file: File,
    hash: Hasher,
}

impl<'a> Parts<'a> {
    async fn open(path: &'a Path) -> Result<Self, StoreError> {
        let file = File::open(path).await.map_err(|source| StoreError::io("read", path, source))?;
        Ok(Self { path, file, hash: Hasher::default() })
    }

    /// The next part; an empty one at the end.
    async fn next(&mut self) -> Result<Bytes, StoreError> {
        let mut part = BytesMut::with_capacity(PART_BYTES);
        while part.len() < PART_BYTES {
            let mut room = (&mut self.file).take((PART_BYTES - part.len()) as u64);
            let read = room.read_buf(&mut part).await;
            if read.map_err(|source| StoreError::io("read", self.path, source))? == 0 {
                break;
            }
        }
        self.hash.update(&part);
        Ok(part.freeze())
    }

    /// Whether all that was read is what it should be.
    fn check(&self, expected: &Hash) -> Result<(), StoreError> {
        let found = self.hash.clone().finish();
        if found == *expected {
            Ok(())
        } else {
            Err(StoreError::SourceChanged { path: self.path.to_owned(), expected: *expected, found })
        }
    }
}

/// An upload in parts that is aborted unless it was completed.
struct Upload(Option<Box<dyn MultipartUpload>>);

impl Upload {
    async fn part(&mut self, bytes: Bytes) -> Result<(), Error> {
        match &mut self.0 {
            Some(upload) => upload.put_part(bytes.into()).await,
            None => Ok(()),
        }
    }

    async fn complete(&mut self) -> Result<(), Error> {
        if let Some(upload) = &mut self.0 {
            upload.complete().await?;
        }
        self.0 = None;
        Ok(())
    }

    /// What went wrong is known already; that the rest could not be swept is for the log only.
    async fn give_up(&mut self) {
        if let Some(mut upload) = self.0.take() {
            abort(&mut *upload).await;
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(mut upload), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move { abort(&mut *upload).await });
        }
    }
}

async fn abort(upload: &mut dyn MultipartUpload) {
    if let Err(error) = upload.abort().await {
        tracing::debug!(%error, "cannot abort an upload; the bucket's life-cycle rule will");
    }
}

/// What every connection is like. `plain` allows addresses without TLS.
pub(super) async fn client(
    network: &Network,
    ca_file: Option<&Path>,
    plain: bool,
) -> Result<ClientOptions, StoreError> {
    let mut options = ClientOptions::new()
        .with_allow_http(plain)
        .with_connect_timeout(network.connect_timeout)
        .with_read_timeout(STALLED)
        // A part on a slow line takes as long as it takes, while it moves.
        .with_timeout_disabled();
    for path in network.ca_files.iter().map(AsRef::as_ref).chain(ca_file) {
        let unreadable = |why: &dyn fmt::Display| {
            StoreError::Settings(format!(
                "cannot use the certificate authorities in {}: {why}",
                path.display()
            ))
        };
        let pem = tokio::fs::read(path).await.map_err(|error| unreadable(&error))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| unreadable(&error))?;
        if certificates.is_empty() {
            return Err(unreadable(&"there is no certificate in it"));
        }
        options = certificates.into_iter().fold(options, ClientOptions::with_root_certificate);
    }
    if let Some(proxy) = &network.proxy {
        let direct = entra::proxy::exceptions(network.no_proxy.as_deref());
        options = options.with_proxy_url(proxy_url(proxy).await?).with_proxy_excludes(direct);
    }
    Ok(options)
}

async fn proxy_url(proxy: &Proxy) -> Result<String, StoreError> {
    match proxy {
        Proxy::Plain(url) => Ok(url.to_string()),
        Proxy::Secret(source) => Ok(SecretSource::read(source).await?.expose_secret().to_owned()),
    }
}

/// A request is made once: whoever asked knows better when to ask again.
pub(super) fn short_retries() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 0, retry_timeout: Duration::from_secs(1) }
}

/// The settings of a target that cannot be used. The error is about their form and holds no secret.
pub(super) fn settings(error: Error) -> StoreError {
    StoreError::Settings(error.to_string())
}
