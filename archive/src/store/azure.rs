//! A container of Azure Blob Storage.
//!
//! A blob is created by `Put Blob`, or by `Put Block List` when it is large, each with `If-None-Match: *`, and with an
//! immutability policy when one is configured; the container must support version-level immutability for that. An
//! identity of Entra needs the role Storage Blob Data Contributor, a shared access signature the rights `racwl`.

use std::sync::Arc;

use object_store::azure::MicrosoftAzureBuilder;

use super::{
    StoreError,
    bucket::{Bucket, Kind, client, settings, short_retries},
    credentials::AzureIdentity,
    target::{Azure, AzureCredentials},
    wire::{Additions, Connector},
};

pub(super) async fn open(target: &Azure) -> Result<Bucket, StoreError> {
    let secure = target.endpoint.as_ref().is_none_or(|endpoint| endpoint.as_str().starts_with("https:"));
    let options = client(&target.network, None, !secure).await?;
    let identity = Arc::new(match &target.credentials {
        AzureCredentials::AccountKey(source) => AzureIdentity::Key(source.clone()),
        AzureCredentials::Sas(source) => AzureIdentity::Sas(source.clone()),
        AzureCredentials::Entra(source) => AzureIdentity::Entra(source.clone()),
    });
    let additions = Additions::Azure {
        immutability: target.immutability,
        account: target.account.clone(),
        identity: Arc::clone(&identity),
    };
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(&target.account)
        .with_container_name(&target.container)
        .with_credentials(identity)
        .with_retry(short_retries())
        .with_client_options(options)
        .with_allow_http(!secure)
        .with_http_connector(Connector(additions));
    if let Some(endpoint) = &target.endpoint {
        builder = builder.with_endpoint(endpoint.as_str().to_owned());
    }
    Ok(Bucket {
        store: Arc::new(builder.build().map_err(settings)?),
        kind: Kind::Azure,
        place: format!("azure://{}/{}", target.account, target.container),
        service: None,
        prefix: target.prefix.clone(),
    })
}
