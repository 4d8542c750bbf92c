//! Where an archive lies: a directory, a bucket or a container.

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use archive::{
    ObjectPath, Target,
    store::target::{
        Azure, AzureCredentials, Gcs, GcsCredentials, Immutability, LockMode, Network, ObjectLock, S3,
        S3Credentials,
    },
};
use entra::{Scope, SecretSource, ServiceUrl};
use reqwest::Client;
use url::Url;

use super::super::{
    super::{reader::Section, tenant::CREDENTIAL_KEYS, value::Keyword},
    azure::{AzureCloud, EntraLogin},
};

/// What a token for blobs is asked for, in every cloud ("Authorize access to blobs using Microsoft Entra ID").
const STORAGE: &str = "https://storage.azure.com";

/// Where an archive lies, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Directory(PathBuf),
    /// Its network is filled in when it is used.
    S3(Box<S3>),
    Azure(Box<AzurePlace>),
    Gcs(Box<Gcs>),
}

/// A container of Azure, whose target cannot be compared with another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AzurePlace {
    account: String,
    container: String,
    prefix: Option<ObjectPath>,
    endpoint: Option<ServiceUrl>,
    key: AzureKey,
    immutability: Option<Immutability>,
}

/// Who mailtrail is for Azure.
#[derive(Debug, Clone, PartialEq, Eq)]
enum AzureKey {
    Account(SecretSource),
    Sas(SecretSource),
    Entra(EntraLogin),
}

/// The kinds of targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    S3,
    Azure,
    Gcs,
}

impl Keyword for Kind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("directory", Self::Directory), ("s3", Self::S3), ("azure", Self::Azure), ("gcs", Self::Gcs)];
}

impl Keyword for LockMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("governance", Self::Governance), ("compliance", Self::Compliance)];
}

impl Place {
    /// Whether it is reached through the network.
    pub(super) fn uses_network(&self) -> bool {
        !matches!(self, Self::Directory(_))
    }

    /// Why Amazon Security Lake would not find what lies here, and the key that says so.
    pub(super) fn unfit_for_a_lake(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::S3(s3) if s3.prefix.is_some() => Some((
                "s3",
                "must have no prefix with layout = \"security_lake\": the lake looks for `ext/` at the top of its bucket",
            )),
            // A directory can be copied into the bucket.
            Self::S3(_) | Self::Directory(_) => None,
            Self::Azure(_) | Self::Gcs(_) => Some((
                "target",
                "must be \"s3\" (or \"directory\", for a copy) with layout = \"security_lake\": the lake is a bucket of AWS",
            )),
        }
    }

    pub(super) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(directory) => Some(directory),
            Self::S3(_) | Self::Azure(_) | Self::Gcs(_) => None,
        }
    }

    /// The address of the bucket or container, with the folder in it.
    pub(super) fn bucket(&self) -> Option<String> {
        let (service, name, prefix) = match self {
            Self::Directory(_) => return None,
            Self::S3(s3) => {
                let service = s3.endpoint.as_ref().map(|endpoint| endpoint.origin().ascii_serialization());
                (service.unwrap_or_else(|| "S3".to_owned()), s3.bucket.clone(), &s3.prefix)
            }
            Self::Azure(azure) => {
                let service = azure.endpoint.as_ref().map_or("Azure", |endpoint| endpoint.as_str());
                (service.to_owned(), format!("{}/{}", azure.account, azure.container), &azure.prefix)
            }
            Self::Gcs(gcs) => ("Google Cloud Storage".to_owned(), gcs.bucket.clone(), &gcs.prefix),
        };
        let prefix = prefix.as_ref().map(|prefix| format!("/{prefix}")).unwrap_or_default();
        Some(format!("{name}{prefix} at {service}"))
    }

    /// Where the archive lies, reached in this way; logins go through this client.
    ///
    /// # Errors
    ///
    /// When the platform does not offer the identity that is configured.
    pub(super) fn target(&self, network: Network, http: &Client) -> Result<Target, String> {
        Ok(match self {
            Self::Directory(directory) => Target::Directory(directory.clone()),
            Self::S3(s3) => Target::S3(S3 { network, ..s3.as_ref().clone() }),
            Self::Gcs(gcs) => Target::Gcs(Gcs { network, ..gcs.as_ref().clone() }),
            Self::Azure(azure) => {
                let AzurePlace { account, container, prefix, endpoint, key, immutability } =
                    azure.as_ref().clone();
                let credentials = match key {
                    AzureKey::Account(source) => AzureCredentials::AccountKey(source),
                    AzureKey::Sas(source) => AzureCredentials::Sas(source),
                    AzureKey::Entra(login) => AzureCredentials::Entra(login.tokens("azure", http)?),
                };
                Target::Azure(Azure {
                    account,
                    container,
                    prefix,
                    endpoint,
                    credentials,
                    immutability,
                    network,
                })
            }
        })
    }
}

/// Reads where the archive lies. Each kind of target has a section of its own, but for a directory.
pub(super) fn read(section: &mut Section<'_>) -> Option<Place> {
    if !section.has("target") {
        let words: Vec<_> = Kind::WORDS.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        section.missing("target", &format!("say where the archive lies: {}", words.join(", ")));
    }
    let kind: Option<Kind> = section.keyword("target");
    for (of, key) in
        [(Kind::Directory, "directory"), (Kind::S3, "s3"), (Kind::Azure, "azure"), (Kind::Gcs, "gcs")]
    {
        if kind.is_some_and(|kind| kind != of) && section.has(key) {
            section.wrong(key, format!("has a meaning with target = \"{}\" only", word(of)));
        }
        if kind != Some(of) {
            section.asked_for(key);
        }
    }
    match kind? {
        Kind::Directory => {
            let hint = "it is where the archive lies, such as \"/srv/archive\"";
            section.require("directory", hint).map(Place::Directory)
        }
        Kind::S3 => read_s3(section.section("s3")).map(|s3| Place::S3(Box::new(s3))),
        Kind::Azure => read_azure(section.section("azure")).map(|azure| Place::Azure(Box::new(azure))),
        Kind::Gcs => read_gcs(section.section("gcs")).map(|gcs| Place::Gcs(Box::new(gcs))),
    }
}

fn word(kind: Kind) -> &'static str {
    Kind::WORDS.iter().find(|(_, of)| *of == kind).map_or("", |(word, _)| word)
}

fn read_prefix(section: &mut Section<'_>) -> Option<ObjectPath> {
    let text: String = section.get("prefix")?;
    match text.trim_end_matches('/').parse() {
        Ok(prefix) => Some(prefix),
        Err(error) => {
            let error: archive::NotAPath = error;
            section.wrong("prefix", error);
            None
        }
    }
}

fn read_s3(mut section: Section<'_>) -> Option<S3> {
    let bucket: Option<String> = section.require("bucket", "it is the bucket's name");
    let prefix = read_prefix(&mut section);
    let region = section.get_or("region", "us-east-1".to_owned());
    let endpoint: Option<Url> = section.get("endpoint");
    let path_style = section.get_or("path_style", endpoint.is_some());
    let ca_file: Option<PathBuf> = section.get("ca_file");
    let access_key_id: Option<String> = section.get("access_key_id");
    let secret_access_key = section.secret("secret_access_key");
    let session_token = section.secret("session_token");
    if section.has("access_key_id") != section.has("secret_access_key") {
        section.wrong_section(
            "needs both access_key_id and secret_access_key, or neither for what the machine offers",
        );
    }
    if section.has("session_token") && !section.has("access_key_id") {
        section.wrong("session_token", "has no meaning without access_key_id");
    }
    let object_lock = read_lock(&mut section);
    section.finish();
    let credentials = match (access_key_id, secret_access_key) {
        (Some(access_key_id), Some(secret_access_key)) => {
            S3Credentials::Static { access_key_id, secret_access_key, session_token }
        }
        _ => S3Credentials::Ambient,
    };
    let network = Network::default();
    Some(S3 {
        bucket: bucket?,
        prefix,
        region,
        endpoint,
        path_style,
        ca_file,
        credentials,
        object_lock,
        network,
    })
}

fn read_lock(section: &mut Section<'_>) -> Option<ObjectLock> {
    let there = section.has("object_lock");
    let mut lock = section.section("object_lock");
    let mode = lock.keyword("mode");
    let days: Option<NonZeroU32> = lock.get("days");
    if there && !(lock.has("mode") && lock.has("days")) {
        lock.wrong_section("needs mode = \"governance\" or \"compliance\", and days");
    }
    lock.finish();
    Some(ObjectLock { mode: mode?, days: days? })
}

fn read_azure(mut section: Section<'_>) -> Option<AzurePlace> {
    let account: Option<String> = section.require("account", "it is the storage account's name");
    let container: Option<String> = section.require("container", "it is the container's name");
    let prefix = read_prefix(&mut section);
    let cloud = AzureCloud::read(&mut section);
    let endpoint: Option<ServiceUrl> = section.get("endpoint");
    if cloud == Some(AzureCloud::Custom) && !section.has("endpoint") {
        section.missing("endpoint", "cloud = \"custom\" needs it: it is where the account's blobs are");
    }
    let key = read_azure_key(&mut section, cloud);
    let there = section.has("immutability");
    let mut policy = section.section("immutability");
    let locked = policy.get_or("locked", false);
    let days: Option<NonZeroU32> = policy.get("days");
    if there && !policy.has("days") {
        policy.missing("days", "it is for how long nobody can delete or overwrite what is put");
    }
    policy.finish();
    section.finish();
    let account = account?;
    Some(AzurePlace {
        endpoint: endpoint.or_else(|| cloud?.blobs(&account)),
        account,
        container: container?,
        prefix,
        key: key?,
        immutability: days.map(|days| Immutability { locked, days }),
    })
}

/// Reads who mailtrail is for Azure.
fn read_azure_key(section: &mut Section<'_>, cloud: Option<AzureCloud>) -> Option<AzureKey> {
    let (account_key, sas) = (section.secret("account_key"), section.secret("sas"));
    let chosen: Vec<&str> = ["account_key", "sas"].into_iter().chain(CREDENTIAL_KEYS).collect();
    let has: Vec<&str> = chosen.iter().copied().filter(|key| section.has(key)).collect();
    let by_entra = matches!(has[..], [key] if CREDENTIAL_KEYS.contains(&key));
    let given: Option<ServiceUrl> = section.get("authority");
    let is_custom = cloud == Some(AzureCloud::Custom);
    if section.has("authority") && !is_custom {
        section.wrong("authority", "needs cloud = \"custom\"; the other clouds have fixed addresses");
    }
    if by_entra && is_custom && !section.has("authority") {
        let hint = "cloud = \"custom\" needs it, such as \"https://login.microsoftonline.com\"";
        section.missing("authority", hint);
    }
    let scope = Scope::of_resource(STORAGE).expect("Microsoft's own resource is good");
    let authority = given.or_else(|| cloud?.authority());
    let login = EntraLogin::read(section, by_entra, authority, Some(scope));
    if has.len() != 1 {
        let has = if has.is_empty() { "none".to_owned() } else { has.join(" and ") };
        section.wrong_section(format!("needs exactly one of {}; it has {has}", chosen.join(", ")));
        return None;
    }
    if by_entra {
        return login.map(AzureKey::Entra);
    }
    for key in ["tenant_id", "client_id", "authority"].into_iter().filter(|key| section.has(key)) {
        section.wrong(key, "has no meaning with account_key or sas, which need no login");
    }
    account_key.map(AzureKey::Account).or(sas.map(AzureKey::Sas))
}

fn read_gcs(mut section: Section<'_>) -> Option<Gcs> {
    let bucket: Option<String> = section.require("bucket", "it is the bucket's name");
    let prefix = read_prefix(&mut section);
    let credentials =
        section.secret("service_account").map_or(GcsCredentials::Ambient, GcsCredentials::ServiceAccount);
    section.finish();
    Some(Gcs { bucket: bucket?, prefix, credentials, network: Network::default() })
}
