//! What sinks in Azure have in common: its clouds, and how mailtrail logs in to them.

use entra::{Scope, ServiceUrl, TokenSource};
use schemas::TenantId;

use super::super::{
    reader::Section,
    tenant::{Credentials, read_credentials},
    value::Keyword,
};

/// The clouds that Azure has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AzureCloud {
    Commercial,
    UsGovernment,
    China,
    Custom,
}

impl Keyword for AzureCloud {
    // GCC tenants have their Azure subscriptions in the commercial cloud.
    const WORDS: &'static [(&'static str, Self)] = &[
        ("commercial", Self::Commercial),
        ("gcc", Self::Commercial),
        ("gcc-high", Self::UsGovernment),
        ("dod", Self::UsGovernment),
        ("china", Self::China),
        ("custom", Self::Custom),
    ];
}

impl AzureCloud {
    /// The one that a section names, or the commercial one. `None` when what it names is none.
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let there = section.has("cloud");
        let cloud = section.keyword("cloud");
        if there { cloud } else { Some(Self::Commercial) }
    }

    /// Where tokens come from (Microsoft Entra, "National clouds").
    pub(super) fn authority(self) -> Option<ServiceUrl> {
        let authority = match self {
            Self::Commercial => "https://login.microsoftonline.com",
            Self::UsGovernment => "https://login.microsoftonline.us",
            Self::China => "https://login.partner.microsoftonline.cn",
            Self::Custom => return None,
        };
        Some(authority.parse().expect("Microsoft's own addresses are good"))
    }

    /// What a token for Azure Monitor is asked for ("Logs Ingestion API").
    pub(super) fn monitor(self) -> Option<Scope> {
        let resource = match self {
            Self::Commercial => "https://monitor.azure.com",
            Self::UsGovernment => "https://monitor.azure.us",
            Self::China => "https://monitor.azure.cn",
            Self::Custom => return None,
        };
        Some(Scope::of_resource(resource).expect("and so are its resources"))
    }

    /// Where an account's blobs are ("Storage account overview", standard endpoints).
    pub(super) fn blobs(self, account: &str) -> Option<ServiceUrl> {
        let domain = match self {
            Self::Commercial => "windows.net",
            Self::UsGovernment => "usgovcloudapi.net",
            Self::China => "chinacloudapi.cn",
            Self::Custom => return None,
        };
        format!("https://{account}.blob.core.{domain}").parse().ok()
    }
}

/// Who mailtrail is for Entra ID, and what its tokens are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntraLogin {
    authority: ServiceUrl,
    scope: Scope,
    /// `None` for a managed identity, which knows its own.
    tenant_id: Option<TenantId>,
    credentials: Credentials,
}

impl EntraLogin {
    /// What gives out access tokens. Nothing is asked for yet. `place` is the section that it is configured in.
    ///
    /// # Errors
    ///
    /// When the platform does not offer the identity that is configured.
    pub(super) fn tokens(&self, place: &str, http: &reqwest::Client) -> Result<TokenSource, String> {
        let tenant = self.tenant_id.map(|id| id.to_string());
        self.credentials
            .token_source(place, &self.authority, tenant.as_deref(), self.scope.clone(), http.clone())
            .map_err(|error| error.to_string())
    }

    /// Reads the keys of a login; `needed` says that there has to be one. Where it goes and what it is for is known
    /// already, unless something about that is wrong.
    pub(super) fn read(
        section: &mut Section<'_>,
        needed: bool,
        authority: Option<ServiceUrl>,
        scope: Option<Scope>,
    ) -> Option<Self> {
        let tenant_id: Option<TenantId> = section.get("tenant_id");
        let credentials = read_credentials(section, needed);
        let managed = matches!(credentials, Some(Credentials::ManagedIdentity { .. }));
        if needed && !managed && !section.has("tenant_id") {
            section.missing(
                "tenant_id",
                "it is the directory (tenant) id that the application is registered in",
            );
        }
        if !managed && tenant_id.is_none() {
            return None;
        }
        Some(Self { authority: authority?, scope: scope?, tenant_id, credentials: credentials? })
    }
}
