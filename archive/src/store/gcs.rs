//! A bucket of Google Cloud Storage.
//!
//! An object is created by a `PUT` with `x-goog-if-generation-match: 0`. Large ones go up in parts, and the service takes
//! no condition when they are put together; so it is asked just before whether the name is free. Two that write the same
//! large object at the same moment write the same bytes, because its name has the start of their hash. To make sure that
//! nobody else overwrites or deletes anything, give the bucket a retention policy. The identity needs
//! `roles/storage.objectCreator` and `roles/storage.objectViewer`.

use std::sync::Arc;

use object_store::gcp::GoogleCloudStorageBuilder;
use secrecy::ExposeSecret as _;

use super::{
    StoreError,
    bucket::{Bucket, Kind, client, settings, short_retries},
    target::{Gcs, GcsCredentials},
    wire::{Additions, Connector},
};

pub(super) async fn open(target: &Gcs) -> Result<Bucket, StoreError> {
    let mut options = client(&target.network, None, false).await?;
    let mut builder = GoogleCloudStorageBuilder::new();
    if let GcsCredentials::ServiceAccount(source) = &target.credentials {
        let key = source.read().await?;
        let key = key.expose_secret();
        if plain(key) {
            options = options.with_allow_http(true);
        }
        builder = builder.with_service_account_key(key);
    }
    let store = builder
        .with_bucket_name(&target.bucket)
        .with_retry(short_retries())
        .with_client_options(options)
        .with_http_connector(Connector(Additions::Nothing))
        .build()
        .map_err(settings)?;
    Ok(Bucket {
        store: Arc::new(store),
        kind: Kind::Gcs,
        place: format!("gs://{}", target.bucket),
        service: None,
        prefix: target.prefix.clone(),
    })
}

/// Whether a key is one of an emulator on this very machine, which names its address in the key.
fn plain(key: &str) -> bool {
    let address = serde_json::from_str::<serde_json::Value>(key)
        .ok()
        .and_then(|key| key.get("gcs_base_url")?.as_str()?.parse::<entra::ServiceUrl>().ok());
    address.is_some_and(|address| address.as_str().starts_with("http:"))
}
