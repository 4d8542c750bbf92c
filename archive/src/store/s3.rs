//! A bucket of S3.
//!
//! An object is created by `PutObject`, or by `CompleteMultipartUpload` when it is large, each with `If-None-Match: *`. It
//! goes with its SHA-256, which S3 checks and keeps, and with an Object Lock when one is configured. The identity needs
//! `s3:PutObject`, `s3:GetObject`, `s3:ListBucket` and `s3:AbortMultipartUpload`, with an Object Lock
//! `s3:PutObjectRetention` as well.

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AwsCredentialProvider, Checksum, S3ConditionalPut};
use url::Url;

use super::{
    StoreError,
    bucket::{Bucket, Kind, client, settings, short_retries},
    credentials::AwsKey,
    target::{S3, S3Credentials},
    wire::{Additions, Connector},
};

pub(super) async fn open(target: &S3) -> Result<Bucket, StoreError> {
    let secure = target.endpoint.as_ref().is_none_or(|endpoint| endpoint.scheme() == "https");
    let options = client(&target.network, target.ca_file.as_deref(), !secure).await?;
    let base = match &target.credentials {
        S3Credentials::Static { .. } => AmazonS3Builder::new(),
        S3Credentials::Ambient => AmazonS3Builder::from_env(),
    };
    let mut builder = base
        .with_bucket_name(&target.bucket)
        .with_region(&target.region)
        .with_virtual_hosted_style_request(!target.path_style)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_checksum_algorithm(Checksum::SHA256)
        .with_retry(short_retries())
        .with_client_options(options);
    if let Some(endpoint) = &target.endpoint {
        builder = builder.with_endpoint(address(endpoint, &target.bucket, target.path_style)?);
    }
    let credentials: AwsCredentialProvider = match &target.credentials {
        S3Credentials::Static { access_key_id, secret_access_key, session_token } => Arc::new(AwsKey {
            id: access_key_id.clone(),
            secret: secret_access_key.clone(),
            token: session_token.clone(),
        }),
        // Built once to find out what the machine offers.
        S3Credentials::Ambient => Arc::clone(builder.clone().build().map_err(settings)?.credentials()),
    };
    let additions = Additions::S3 {
        lock: target.object_lock,
        region: target.region.clone(),
        credentials: Arc::clone(&credentials),
    };
    let store = builder
        .with_credentials(credentials)
        .with_http_connector(Connector(additions))
        .build()
        .map_err(settings)?;
    Ok(Bucket {
        store: Arc::new(store),
        kind: Kind::S3 { locks: target.object_lock.is_some() },
        place: format!("s3://{}", target.bucket),
        service: target.endpoint.as_ref().map(|endpoint| endpoint.origin().ascii_serialization()),
        prefix: target.prefix.clone(),
    })
}

/// The address with the bucket in it, where `object_store` wants it there.
fn address(endpoint: &Url, bucket: &str, path_style: bool) -> Result<String, StoreError> {
    let mut endpoint = endpoint.clone();
    if !path_style {
        let host = format!("{bucket}.{}", endpoint.host_str().unwrap_or_default());
        endpoint.set_host(Some(&host)).map_err(|_| {
            StoreError::Settings(format!(
                "the bucket `{bucket}` cannot be part of a host; set path_style = true"
            ))
        })?;
    }
    Ok(endpoint.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{PlaceName, Store, Target, target::Network},
        *,
    };

    #[test]
    fn the_bucket_is_part_of_the_path_or_of_the_host() {
        let endpoint: Url = "https://minio.example:9000/".parse().unwrap();
        assert_eq!(address(&endpoint, "audit", true).unwrap(), "https://minio.example:9000");
        assert_eq!(address(&endpoint, "audit", false).unwrap(), "https://audit.minio.example:9000");
        let number: Url = "http://127.0.0.1:9000".parse().unwrap();
        assert_eq!(address(&number, "audit", true).unwrap(), "http://127.0.0.1:9000");
        assert!(matches!(address(&number, "a b", false), Err(StoreError::Settings(_))));
    }

    /// A bucket's name is one bucket's at AWS only.
    #[tokio::test]
    async fn buckets_of_one_name_are_told_apart_by_where_they_are() {
        let place = async |endpoint: Option<&str>| {
            let target = S3 {
                bucket: "audit".to_owned(),
                prefix: Some("o365".parse().unwrap()),
                region: "us-east-1".to_owned(),
                endpoint: endpoint.map(|endpoint| endpoint.parse().unwrap()),
                path_style: true,
                ca_file: None,
                credentials: S3Credentials::Static {
                    access_key_id: "x".to_owned(),
                    secret_access_key: entra::SecretSource::Env("NOT_READ_YET".to_owned()),
                    session_token: None,
                },
                object_lock: None,
                network: Network::default(),
            };
            Store::open(&Target::S3(target)).await.unwrap().place()
        };
        let former_name = "s3://audit/o365/manifests".to_owned();
        assert_eq!(
            place(None).await,
            PlaceName { name: former_name.clone(), former_name: former_name.clone() }
        );
        let minio = place(Some("https://minio.example:9000/")).await;
        assert_eq!(minio.name, "s3://audit/o365/manifests at https://minio.example:9000");
        assert_eq!(minio.former_name, former_name);
        assert_ne!(minio, place(Some("https://other.example:9000/")).await);
    }
}
