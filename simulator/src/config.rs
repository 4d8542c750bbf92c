//! What is simulated.

use std::{collections::BTreeSet, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use schemas::{ContentType, TenantId};
use uuid::Uuid;

use crate::{Blob, Faults};

/// A simulation. Every field has a default, which the field's documentation names.
#[derive(Debug, Clone)]
pub struct SimulatorConfig {
    /// Decides everything that is random. Default 1.
    pub seed: u64,
    /// The tenants. Default one, [`TenantConfig::default`].
    pub tenants: Vec<TenantConfig>,
    /// The instant before which the backlog lies and after which the steady flow begins. Default the start of the
    /// simulation, on the server's clock; with a fixed one, every byte of the simulation is the same in every run.
    pub anchor: Option<DateTime<Utc>>,
    /// The content types that have content; the others are known but empty. Default `Audit.Exchange` only.
    pub content_types: Vec<ContentType>,
    /// People with a mailbox, per tenant. Default 25.
    pub users: u64,
    /// Shared mailboxes, per tenant. Default 4.
    pub shared_mailboxes: u64,
    /// Mailboxes of Microsoft 365 groups, per tenant. Default 3.
    pub group_mailboxes: u64,
    /// Blobs that exist when the simulation starts, per feed. Default 20.
    pub blobs: u64,
    /// Records in a blob. Default 50.
    pub records_per_blob: u64,
    /// Grows records that are smaller to about this many bytes. Default none: as large as they are, 0.7 to 3 KB.
    pub record_bytes: Option<usize>,
    /// How far back the `contentCreated` of the backlog reaches, spread evenly; at most 7 days. Default 24 hours. A
    /// collector that keeps the rules asks for at most 7 days, so the oldest blobs of a longer span are beyond it.
    pub backlog_span: Duration,
    /// Records per second that are added while the simulation runs, per feed; they come in whole blobs. Default 0.
    pub rate: f64,
    /// The steady flow ends after this many blobs, per feed. Default none: it never ends.
    pub flow_blobs: Option<u64>,
    /// Mixes every oddity of [`quirk_catalogue`](crate::quirk_catalogue) into the traffic. Default false.
    pub quirks: bool,
    /// Blobs whose bytes the caller chose, beside the generated ones. Default none.
    pub given: Vec<Blob>,
    /// Blobs on a page of a listing. Microsoft does not publish its own number. Default 200.
    pub page_size: usize,
    /// Compresses bodies for clients that accept gzip. Default true.
    pub gzip: bool,
    /// Renders the backlog at the start and keeps it, for benchmarks that the simulator must not slow down; costs
    /// the backlog's size in memory. Default false.
    pub prerender: bool,
    /// What goes wrong. Default nothing.
    pub faults: Faults,
    /// How long tokens live. Default 3,599 seconds, as Entra ID grants them.
    pub token_lifetime: Duration,
    /// How long a blob can be fetched after it became available. Default 7 days.
    pub retention: Duration,
    /// Requests in a minute for each publisher of a tenant; none for no limit. Default 2,000 (Activity API
    /// reference, "API throttling").
    pub requests_per_minute: Option<u32>,
    /// How the quota is enforced. Default status 403 without Retry-After, as it is documented.
    pub throttle: ThrottleAnswer,
    /// The time that must pass between two starts of a subscription; zero for none. Default 15 minutes.
    pub start_spacing: Duration,
    /// The subscriptions are enabled from the beginning. Default false: they must be started, as in reality.
    pub subscribed: bool,
    /// The time after the start of a subscription in which nothing is listed; up to 12 hours in reality. Default zero.
    pub first_content_delay: Duration,
    /// NextPageUri says `/api/v1/` instead of `/api/v1.0/`, as Microsoft's own sample does. Default false.
    pub next_page_v1: bool,
    /// The origin in the URLs that the API hands out, when clients reach it by another name than the one in their
    /// Host header. Default none: the Host header.
    pub public_url: Option<String>,
}

/// A simulated organisation and the application that may read its audit log.
#[derive(Debug, Clone)]
pub struct TenantConfig {
    /// The directory id.
    pub tenant_id: TenantId,
    /// The organisation's domain. Default `contoso.onmicrosoft.com`.
    pub domain: String,
    /// The application (client) id.
    pub client_id: String,
    /// The client secret; none when the application has none.
    pub client_secret: Option<String>,
    /// The certificate, DER or PEM, whose key signs client assertions; none when the application has none.
    pub certificate: Option<Vec<u8>>,
    /// The assertion of a federated credential (workload identity): exactly this text is accepted.
    pub federated_assertion: Option<String>,
    /// Whether `/metadata/identity/oauth2/token` gives out this tenant's tokens. Default true.
    pub managed_identity: bool,
    /// The application's roles. Default `ActivityFeed.Read` and `ActivityFeed.ReadDlp`.
    pub roles: Vec<String>,
}

/// How a quota is enforced: the documents name two ways, and clients must live with both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThrottleAnswer {
    /// 403, as the troubleshooting page has it, or 429.
    pub status: u16,
    /// Whether Retry-After tells when the minute is over.
    pub retry_after: bool,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            tenants: vec![TenantConfig::default()],
            anchor: None,
            content_types: vec![ContentType::Exchange],
            users: 25,
            shared_mailboxes: 4,
            group_mailboxes: 3,
            blobs: 20,
            records_per_blob: 50,
            record_bytes: None,
            backlog_span: Duration::from_secs(24 * 3600),
            rate: 0.0,
            flow_blobs: None,
            quirks: false,
            given: Vec::new(),
            page_size: 200,
            gzip: true,
            prerender: false,
            faults: Faults::default(),
            token_lifetime: Duration::from_secs(3599),
            retention: Duration::from_secs(7 * 24 * 3600),
            requests_per_minute: Some(2000),
            throttle: ThrottleAnswer { status: 403, retry_after: false },
            start_spacing: Duration::from_secs(15 * 60),
            subscribed: false,
            first_content_delay: Duration::ZERO,
            next_page_v1: false,
            public_url: None,
        }
    }
}

impl Default for TenantConfig {
    fn default() -> Self {
        Self {
            tenant_id: TenantId::new(Uuid::from_u128(0x5150_a11e_c0de_4000_8000_0000_0000_0001)),
            domain: "contoso.onmicrosoft.com".into(),
            client_id: "5150a11e-c0de-4000-8000-0000000000c1".into(),
            client_secret: Some("simulated-secret".into()),
            certificate: None,
            federated_assertion: None,
            managed_identity: true,
            roles: vec!["ActivityFeed.Read".into(), "ActivityFeed.ReadDlp".into()],
        }
    }
}

impl TenantConfig {
    /// The tenant of that number: `0` is the default one, the others differ in id, domain, client id and secret.
    #[must_use]
    pub fn numbered(number: u32) -> Self {
        if number == 0 {
            return Self::default();
        }
        let guid = |last: u128| {
            Uuid::from_u128(0x5150_a11e_c0de_4000_8000_0000_0000_0000 + (u128::from(number) << 16) + last)
        };
        Self {
            tenant_id: TenantId::new(guid(1)),
            domain: format!("contoso{number}.onmicrosoft.com"),
            client_id: guid(0xc1).to_string(),
            client_secret: Some(format!("simulated-secret-{number}")),
            ..Self::default()
        }
    }

    pub(crate) fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|known| known == role)
    }
}

/// A simulation that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// There is no tenant.
    #[error("a simulation needs at least one tenant")]
    NoTenant,
    /// Two tenants share an id.
    #[error("two tenants have the id {0}")]
    TenantTwice(TenantId),
    /// The span does not fit the API's week.
    #[error("the backlog can span at most 7 days, not {} s", .0.as_secs())]
    SpanTooLong(Duration),
    /// A number that must be positive is not.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// The rate is negative or not a number.
    #[error("the rate must be 0 or more records per second, not {0}")]
    BadRate(f64),
    /// More blobs than contents ids can number.
    #[error("a feed can hold at most 10^12 blobs")]
    TooManyBlobs,
    /// The throttling status is neither of the two.
    #[error("the API throttles with status 403 or 429, not {0}")]
    BadThrottleStatus(u16),
    /// The certificate has no public key that can be found.
    #[error("the certificate of tenant {0} is neither DER nor PEM of an X.509 certificate")]
    BadCertificate(TenantId),
    /// A given blob names a tenant that does not exist.
    #[error("a given blob belongs to tenant {0}, which is not simulated")]
    UnknownTenant(TenantId),
}

impl SimulatorConfig {
    /// A simulation of one tenant with so many blobs in each feed, and the defaults otherwise.
    #[must_use]
    pub fn backlog(blobs: u64, records_per_blob: u64) -> Self {
        Self { blobs, records_per_blob, ..Self::default() }
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.tenants.is_empty() {
            return Err(ConfigError::NoTenant);
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = self.tenants.iter().find(|tenant| !seen.insert(tenant.tenant_id)) {
            return Err(ConfigError::TenantTwice(twice.tenant_id));
        }
        if self.backlog_span > Duration::from_secs(7 * 24 * 3600) {
            return Err(ConfigError::SpanTooLong(self.backlog_span));
        }
        for (value, name) in
            [(self.records_per_blob, "records_per_blob"), (self.page_size as u64, "page_size")]
        {
            if value == 0 {
                return Err(ConfigError::Zero(name));
            }
        }
        if !self.rate.is_finite() || self.rate < 0.0 {
            return Err(ConfigError::BadRate(self.rate));
        }
        if self.blobs >= 1_000_000_000_000 {
            return Err(ConfigError::TooManyBlobs);
        }
        if ![403, 429].contains(&self.throttle.status) {
            return Err(ConfigError::BadThrottleStatus(self.throttle.status));
        }
        for tenant in &self.tenants {
            if tenant
                .certificate
                .as_deref()
                .is_some_and(|bytes| crate::assertion::Certificate::read(bytes).is_none())
            {
                return Err(ConfigError::BadCertificate(tenant.tenant_id));
            }
        }
        for blob in &self.given {
            if let Some(unknown) = blob.tenant.filter(|id| !seen.contains(id)) {
                return Err(ConfigError::UnknownTenant(unknown));
            }
        }
        Ok(())
    }
}

/// The time delta of a configured duration; the longest there is when it is longer.
pub(crate) fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
