//! `[tenants.NAME]`: one Microsoft 365 organisation, how to log in to it and how to ask it.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use chrono::TimeDelta;
use entra::{
    ClientId, Cloud, Credential, Endpoint, ManagedIdentity, ManagedIdentityError, Scope, SecretError,
    SecretSource, ServiceUrl, TokenSource, WorkloadIdentity,
};
use ingest::plan::Policy;
use schemas::{ContentType, TenantId};

use super::{
    reader::Section,
    value::{Bytes, Keyword},
};
use crate::units;

/// The oldest time back that the API can be asked for. It keeps content for seven days; the ten minutes are room for
/// a request that is under way and for clocks that differ.
const OLDEST_START: Duration = Duration::from_secs((167 * 60 + 50) * 60);

/// A tenant as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TenantConfig {
    /// The label: the name of its section.
    pub(crate) name: String,
    /// Who it is.
    pub(crate) tenant_id: TenantId,
    /// How mailtrail logs in to it.
    pub(crate) credentials: Credentials,
    /// Where it lives.
    pub(crate) cloud: Cloud,
    /// What is collected.
    pub(crate) content_types: Vec<ContentType>,
    /// Whose request quota is used.
    pub(crate) publisher_identifier: TenantId,
    /// The pause between two listings of a feed.
    pub(crate) poll_interval: Duration,
    /// The request budget, shared by all content types.
    pub(crate) requests_per_minute: NonZeroU32,
    /// Whether records that Microsoft repeats are dropped.
    pub(crate) dedupe: bool,
    /// The largest blob that is taken, inflated, in bytes.
    pub(crate) max_blob_bytes: u64,
    /// How far back the first listing begins.
    pub(crate) start: Duration,
    /// How far behind the watermark every listing begins.
    pub(crate) overlap: Duration,
    /// How often the whole retained week is listed again.
    pub(crate) sweep_interval: Duration,
    /// Mail domains of its own, in lower case: a target outside them is external.
    pub(crate) accepted_domains: Vec<String>,
    /// Ids of applications whose access to mailboxes is expected, beside Microsoft's own.
    pub(crate) first_party_apps: Vec<String>,
}

/// How mailtrail proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// An application with a client secret.
    ClientSecret {
        /// The application.
        client_id: ClientId,
        /// Its secret.
        secret: SecretSource,
    },
    /// An application with a certificate.
    Certificate {
        /// The application.
        client_id: ClientId,
        /// PEM: the certificate and its private key.
        pem: SecretSource,
    },
    /// The identity of the Azure machine that mailtrail runs on.
    ManagedIdentity {
        /// The user-assigned identity; `None` is the system-assigned one.
        client_id: Option<ClientId>,
    },
    /// A token of the platform (Kubernetes, GitHub, …) that Entra ID trusts.
    WorkloadIdentity {
        /// The application.
        client_id: ClientId,
        /// Where the platform puts the token; `None` is what `AZURE_FEDERATED_TOKEN_FILE` names.
        token_file: Option<PathBuf>,
    },
}

/// The tenant's way to log in is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    /// This is no machine with an identity.
    #[error("{place}.managed_identity: {cause}; {}", cause.advice())]
    ManagedIdentity {
        /// The section that it is configured in.
        place: String,
        /// Why not.
        cause: ManagedIdentityError,
    },
    /// The platform names no file with a token.
    #[error("{place}.workload_identity: {cause}; name the file with {{ token_file = \"/path\" }}")]
    WorkloadIdentity {
        /// The section that it is configured in.
        place: String,
        /// Why not.
        cause: SecretError,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CloudName {
    Commercial,
    Gcc,
    GccHigh,
    Dod,
    Custom,
}

impl Keyword for CloudName {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("commercial", Self::Commercial),
        ("gcc", Self::Gcc),
        ("gcc-high", Self::GccHigh),
        ("dod", Self::Dod),
        ("custom", Self::Custom),
    ];
}

impl TenantConfig {
    /// Reads the section. `None` when something in it is wrong, which is then reported.
    pub(super) fn read(name: String, mut section: Section<'_>) -> Option<Self> {
        if !super::is_name(&name) {
            section.wrong_section("cannot name a tenant: use 1 to 64 letters, digits, `_` or `-`");
        }
        let tenant_id: Option<TenantId> = section.require(
            "tenant_id",
            "it is the directory (tenant) id, a GUID, as the Entra admin center shows it",
        );
        let credentials = read_credentials(&mut section, true);
        let cloud = read_cloud(&mut section);
        let content_types = read_content_types(&mut section);
        let publisher_identifier: Option<TenantId> = section.get("publisher_identifier");
        let poll_interval = section.get_or("poll_interval", Duration::from_secs(60));
        let requests_per_minute =
            section.get_or("requests_per_minute", NonZeroU32::new(2000).expect("2000 is not zero"));
        let dedupe = section.get_or("dedupe", true);
        let Bytes(max_blob_bytes) = section.get_or("max_blob_bytes", Bytes(256 << 20));
        let start = section.get_or("start", OLDEST_START);
        let overlap = section.get_or("overlap", Duration::from_secs(3600));
        let sweep_interval = section.get_or("sweep_interval", Duration::from_secs(6 * 3600));
        let accepted_domains: Vec<String> = section.list("accepted_domains").unwrap_or_default();
        let first_party_apps: Vec<String> = section.list("first_party_apps").unwrap_or_default();

        if start > OLDEST_START {
            section.wrong("start", "can be at most 167h50m: the API keeps content for 7 days");
        }
        let day = Duration::from_secs(24 * 3600);
        for (key, value) in
            [("overlap", overlap), ("poll_interval", poll_interval), ("sweep_interval", sweep_interval)]
        {
            if value > day {
                section.wrong(key, format!("can be at most 24h, not {}", units::format_duration(value)));
            }
        }
        for (key, value) in [("poll_interval", poll_interval), ("sweep_interval", sweep_interval)] {
            if value < Duration::from_secs(1) {
                section.wrong(key, "must be at least 1s: every listing takes requests that fetching needs");
            }
        }
        if overlap < Duration::from_secs(300) {
            section.wrong("overlap", "must be at least 5m: blobs appear late and clocks differ");
        }
        for domain in &accepted_domains {
            if domain.contains(['@', '*', '/', ' ']) || !domain.contains('.') {
                section.wrong(
                    "accepted_domains",
                    format!("must hold domains such as \"contoso.com\", not {domain:?}"),
                );
            }
        }
        for app in &first_party_apps {
            if uuid::Uuid::try_parse(app).is_err() {
                section.wrong(
                    "first_party_apps",
                    format!("must hold application ids, which are GUIDs, not {app:?}"),
                );
            }
        }
        section.finish();

        let tenant_id = tenant_id?;
        Some(Self {
            name,
            tenant_id,
            credentials: credentials?,
            cloud: cloud?,
            content_types,
            publisher_identifier: publisher_identifier.unwrap_or(tenant_id),
            poll_interval,
            requests_per_minute,
            dedupe,
            max_blob_bytes,
            start,
            overlap,
            sweep_interval,
            accepted_domains: accepted_domains.iter().map(|domain| domain.to_ascii_lowercase()).collect(),
            first_party_apps: first_party_apps.iter().map(|app| app.to_ascii_lowercase()).collect(),
        })
    }
}

impl TenantConfig {
    /// What gives out the tokens for the Management Activity API. Nothing is read or asked for yet. `http` is the client
    /// that the logins go through; a managed identity has its own, which uses no proxy.
    ///
    /// # Errors
    ///
    /// When the platform does not offer the identity that is configured.
    pub(crate) fn token_source(&self, http: reqwest::Client) -> Result<TokenSource, LoginError> {
        let place = format!("tenants.{}", self.name);
        let tenant = self.tenant_id.to_string();
        let scope = self.cloud.api_scope();
        self.credentials.token_source(&place, &self.cloud.authority(), Some(&tenant), scope, http)
    }

    /// What the collector is told.
    pub(crate) fn collector_config(&self, listing: ingest::Listing) -> ingest::TenantConfig {
        let api = self.cloud.api().url().clone();
        let delta = |duration| {
            TimeDelta::from_std(duration).expect("durations of the configuration are days at most")
        };
        ingest::TenantConfig {
            publisher: self.publisher_identifier,
            poll_interval: self.poll_interval,
            policy: Policy {
                overlap: delta(self.overlap),
                sweep_every: delta(self.sweep_interval),
                start: (self.start < OLDEST_START).then(|| delta(self.start)),
            },
            requests_per_minute: self.requests_per_minute,
            blob_max_bytes: self.max_blob_bytes,
            listing,
            ..ingest::TenantConfig::new(self.name.clone(), self.tenant_id, api, self.content_types.clone())
        }
    }
}

impl Credentials {
    /// What gives out the tokens for `scope`. `place` is the section that they are configured in; `tenant` is what a
    /// managed identity does without.
    ///
    /// # Errors
    ///
    /// When the platform does not offer the identity that is configured.
    pub(super) fn token_source(
        &self,
        place: &str,
        authority: &ServiceUrl,
        tenant: Option<&str>,
        scope: Scope,
        http: reqwest::Client,
    ) -> Result<TokenSource, LoginError> {
        let (client_id, credential) = match self {
            Self::ClientSecret { client_id, secret } => (client_id, Credential::ClientSecret(secret.clone())),
            Self::Certificate { client_id, pem } => (client_id, Credential::Certificate(pem.clone())),
            Self::WorkloadIdentity { client_id, token_file } => {
                let identity = match token_file {
                    Some(path) => WorkloadIdentity::new(path.clone()),
                    None => WorkloadIdentity::from_environment()
                        .map_err(|cause| LoginError::WorkloadIdentity { place: place.to_owned(), cause })?,
                };
                (client_id, Credential::WorkloadIdentity(identity))
            }
            Self::ManagedIdentity { client_id } => {
                let identity = ManagedIdentity::detect(client_id.clone())
                    .map_err(|cause| LoginError::ManagedIdentity { place: place.to_owned(), cause })?;
                return Ok(TokenSource::managed_identity(identity, scope));
            }
        };
        let endpoint = Endpoint::new(authority, tenant.unwrap_or_default()).expect("a GUID names a tenant");
        Ok(TokenSource::new(http, endpoint, client_id.clone(), credential, scope))
    }
}

fn read_content_types(section: &mut Section<'_>) -> Vec<ContentType> {
    let mut kinds: Vec<ContentType> =
        section.list("content_types").unwrap_or_else(|| vec![ContentType::Exchange]);
    let given = kinds.len();
    kinds.sort_unstable();
    kinds.dedup();
    if kinds.len() < given {
        section.wrong("content_types", "names a content type twice");
    }
    kinds
}

/// The keys that each choose a way to log in.
pub(super) const CREDENTIAL_KEYS: [&str; 4] =
    ["client_secret", "certificate", "managed_identity", "workload_identity"];

/// Reads the keys of a login. `needed` says that there has to be one.
pub(super) fn read_credentials(section: &mut Section<'_>, needed: bool) -> Option<Credentials> {
    let client_id: Option<ClientId> = section.get("client_id");
    let client_secret = section.secret("client_secret");
    let certificate = section.secret("certificate");
    let managed: Option<bool> = section.get("managed_identity");
    let workload = read_workload_identity(section);

    let chosen: Vec<&str> = CREDENTIAL_KEYS.into_iter().filter(|key| section.has(key)).collect();
    let [chosen] = chosen[..] else {
        if !needed {
            return None;
        }
        let has = if chosen.is_empty() { "none".to_owned() } else { chosen.join(" and ") };
        section.wrong_section(format!("needs exactly one of {}; it has {has}", CREDENTIAL_KEYS.join(", ")));
        return None;
    };
    if chosen == "managed_identity" {
        if managed == Some(false) {
            section.wrong(chosen, "must be true, or be left out");
        }
        return (managed == Some(true)).then_some(Credentials::ManagedIdentity { client_id });
    }
    if !section.has("client_id") {
        section.missing(
            "client_id",
            "it is the application (client) id, a GUID, as the Entra admin center shows it",
        );
    }
    let client_id = client_id?;
    match chosen {
        "client_secret" => Some(Credentials::ClientSecret { client_id, secret: client_secret? }),
        "certificate" => Some(Credentials::Certificate { client_id, pem: certificate? }),
        _ => Some(Credentials::WorkloadIdentity { client_id, token_file: workload? }),
    }
}

/// `workload_identity = true`, or where the token is: `{ token_file = "/path" }`.
fn read_workload_identity(section: &mut Section<'_>) -> Option<Option<PathBuf>> {
    let key = "workload_identity";
    if section.has(key) && !section.is_section(key) {
        return match section.get(key) {
            Some(true) => Some(None),
            Some(false) => {
                section.wrong(key, "must be true or { token_file = \"/path\" }, or be left out");
                None
            }
            None => None,
        };
    }
    let there = section.has(key);
    let mut place = section.section(key);
    let token_file = if there {
        place.require("token_file", "it is where the platform puts the token")
    } else {
        place.get("token_file")
    };
    place.finish();
    token_file.map(Some)
}

fn read_cloud(section: &mut Section<'_>) -> Option<Cloud> {
    let there = section.has("cloud");
    let name: Option<CloudName> = section.keyword("cloud");
    let authority: Option<ServiceUrl> = section.get("authority");
    let api: Option<ServiceUrl> = section.get("api");
    let name = if there { name? } else { CloudName::Commercial };
    if name != CloudName::Custom {
        for key in ["authority", "api"].into_iter().filter(|key| section.has(key)) {
            section.wrong(key, "needs cloud = \"custom\"; the other clouds have fixed hosts");
        }
    }
    match name {
        CloudName::Commercial => Some(Cloud::Commercial),
        CloudName::Gcc => Some(Cloud::Gcc),
        CloudName::GccHigh => Some(Cloud::GccHigh),
        CloudName::Dod => Some(Cloud::Dod),
        CloudName::Custom => {
            for (key, url, example) in [
                ("authority", &authority, "https://login.microsoftonline.com"),
                ("api", &api, "https://manage.office.com"),
            ] {
                if url.is_none() && !section.has(key) {
                    section
                        .missing(key, &format!("cloud = \"custom\" needs it; a URL such as \"{example}\""));
                }
            }
            Some(Cloud::Custom { authority: authority?, api: api? })
        }
    }
}
