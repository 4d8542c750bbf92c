//! Which place an archive lies in, as the configuration names it. No secret is in here, only where it is kept.

use std::{fmt, num::NonZeroU32, path::PathBuf, time::Duration};

use entra::{SecretSource, TokenSource};
use url::Url;

use crate::ObjectPath;

/// Where an archive lies.
#[derive(Debug, Clone)]
pub enum Target {
    /// A directory of this machine. It is made when it is not there, the one above it is not.
    Directory(PathBuf),
    /// A bucket of S3, or of anything that speaks its protocol.
    S3(S3),
    /// A container of Azure Blob Storage.
    Azure(Azure),
    /// A bucket of Google Cloud Storage.
    Gcs(Gcs),
}

/// A bucket of S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3 {
    /// Its name.
    pub bucket: String,
    /// The folder in it that the archive lies in.
    pub prefix: Option<ObjectPath>,
    /// Its region; other services take any name, most `us-east-1`.
    pub region: String,
    /// Where it is, if not with AWS. `http://` shows the records to the network, but no secret.
    pub endpoint: Option<Url>,
    /// Whether the bucket's name is part of the path, and not of the host.
    pub path_style: bool,
    /// PEM of certificate authorities that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Who mailtrail is there.
    pub credentials: S3Credentials,
    /// For how long nobody can delete or overwrite what is put.
    pub object_lock: Option<ObjectLock>,
    /// What all connections share.
    pub network: Network,
}

/// Who mailtrail is for S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum S3Credentials {
    /// An access key.
    Static {
        /// Its id.
        access_key_id: String,
        /// The key.
        secret_access_key: SecretSource,
        /// The token that comes with temporary keys.
        session_token: Option<SecretSource>,
    },
    /// What the machine offers: the environment variables of AWS's tools, a web identity (IRSA), a pod identity of EKS, a
    /// task of ECS, or the instance.
    Ambient,
}

/// S3 Object Lock for every object that is put. The bucket must have been made with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLock {
    /// Who can shorten it.
    pub mode: LockMode,
    /// For how long.
    pub days: NonZeroU32,
}

/// Who can shorten an Object Lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Whoever has the permission `s3:BypassGovernanceRetention`.
    Governance,
    /// Nobody, the root user included.
    Compliance,
}

/// A container of Azure Blob Storage.
#[derive(Debug, Clone)]
pub struct Azure {
    /// The storage account.
    pub account: String,
    /// The container.
    pub container: String,
    /// The folder in it that the archive lies in.
    pub prefix: Option<ObjectPath>,
    /// Where the account's blobs are, if not under `https://ACCOUNT.blob.core.windows.net`.
    pub endpoint: Option<entra::ServiceUrl>,
    /// Who mailtrail is there.
    pub credentials: AzureCredentials,
    /// For how long nobody can delete or overwrite what is put.
    pub immutability: Option<Immutability>,
    /// What all connections share.
    pub network: Network,
}

/// Who mailtrail is for Azure.
#[derive(Clone)]
pub enum AzureCredentials {
    /// One of the two keys of the account.
    AccountKey(SecretSource),
    /// A shared access signature with the rights to read, create, write and list.
    Sas(SecretSource),
    /// An identity with the role Storage Blob Data Contributor.
    Entra(TokenSource),
}

/// An immutability policy for every blob that is put. The container must support version-level immutability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Immutability {
    /// Whether nobody can shorten it.
    pub locked: bool,
    /// For how long.
    pub days: NonZeroU32,
}

/// A bucket of Google Cloud Storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gcs {
    /// Its name.
    pub bucket: String,
    /// The folder in it that the archive lies in.
    pub prefix: Option<ObjectPath>,
    /// Who mailtrail is there.
    pub credentials: GcsCredentials,
    /// What all connections share.
    pub network: Network,
}

/// Who mailtrail is for Google Cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GcsCredentials {
    /// The JSON key of a service account.
    ServiceAccount(SecretSource),
    /// What the machine offers: `GOOGLE_APPLICATION_CREDENTIALS`, the login of `gcloud`, or the instance.
    Ambient,
}

/// What all connections of the process share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The proxy; `None` is what the environment says. Its URL may hold user and password.
    pub proxy: Option<Proxy>,
    /// Hosts that are reached without the configured proxy, in the form of `NO_PROXY`.
    pub no_proxy: Option<String>,
    /// PEM files of certificate authorities that are trusted beside the system's.
    pub ca_files: Vec<PathBuf>,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
}

/// Where the proxy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proxy {
    /// A proxy that asks for no password.
    Plain(Url),
    /// A URL that may hold user and password.
    Secret(SecretSource),
}

impl Default for Network {
    fn default() -> Self {
        Self { proxy: None, no_proxy: None, ca_files: Vec::new(), connect_timeout: Duration::from_secs(10) }
    }
}

impl LockMode {
    /// As S3 spells it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        }
    }
}

impl fmt::Debug for AzureCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AccountKey(source) => f.debug_tuple("AccountKey").field(source).finish(),
            Self::Sas(source) => f.debug_tuple("Sas").field(source).finish(),
            Self::Entra(source) => f.debug_tuple("Entra").field(source.scope()).finish(),
        }
    }
}
