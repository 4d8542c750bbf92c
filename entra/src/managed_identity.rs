//! Managed identities: the host knows who it is, and nothing secret is configured.
//!
//! | where | how it is found | how it is asked |
//! |---|---|---|
//! | App Service, Functions, Container Apps | `IDENTITY_ENDPOINT` and `IDENTITY_HEADER` | with the header's value as proof |
//! | Azure Arc | `IDENTITY_ENDPOINT` and `IMDS_ENDPOINT` | twice: the first answer names a file that only those may read who may have the token |
//! | virtual machines, scale sets, AKS | otherwise | `169.254.169.254`, which nobody else can reach |
//!
//! None of these requests goes through a proxy or follows a redirect (Microsoft Entra "How to use managed identities to
//! acquire an access token"; App Service "Connect to Azure services in app code"; Azure Arc "Authenticate against Azure
//! resources with Azure Arc-enabled servers").

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use reqwest::{
    Client, RequestBuilder, StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE},
    redirect,
};
use secrecy::{ExposeSecret, SecretString};
use url::Url;
use zeroize::Zeroizing;

use crate::{
    answer::exchange,
    cloud::Scope,
    credential::ClientId,
    error::{Service, TokenError, causes},
    secret::read_bounded,
    token::AccessToken,
};

const VIRTUAL_MACHINE: &str = "http://169.254.169.254";
const VIRTUAL_MACHINE_PATH: &[&str] = &["metadata", "identity", "oauth2", "token"];
/// Where the Arc agent puts its challenges.
const ARC_DIRECTORY: &str = "/var/opt/azcmagent/tokens";
const ARC_KEY_MAX_BYTES: usize = 4096;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The identity of the host that this runs on.
#[derive(Clone)]
pub struct ManagedIdentity {
    http: Client,
    host: Host,
    client_id: Option<ClientId>,
}

#[derive(Clone)]
enum Host {
    VirtualMachine { endpoint: Url },
    AppService { endpoint: Url, header: SecretString },
    Arc { endpoint: Url, directory: PathBuf },
}

/// The host's identity cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ManagedIdentityError {
    /// An environment variable that the platform sets does not make sense.
    #[error("the environment variable `{variable}` is not the address of a managed identity endpoint")]
    BadEndpoint {
        /// Which one.
        variable: &'static str,
    },
    /// `IDENTITY_HEADER` cannot be a header.
    #[error("the environment variable `IDENTITY_HEADER` cannot be sent as a header")]
    BadHeader,
    /// Service Fabric has a protocol of its own.
    #[error("managed identities of Service Fabric are not supported")]
    ServiceFabric,
    /// Azure Arc has the machine's own identity only.
    #[error("Azure Arc has no user-assigned identities; leave the identity's client id out")]
    UserAssignedOnArc,
    /// The HTTP client for the endpoint cannot be made.
    #[error("cannot set up the client for the managed identity endpoint: {cause}")]
    Client {
        /// Why not.
        cause: String,
    },
    /// The Arc agent did not ask for a file.
    #[error("the Azure Arc agent did not answer with a challenge (HTTP {status})")]
    NoChallenge {
        /// The HTTP status.
        status: u16,
    },
    /// The Arc agent's challenge names a file that is not one of its own; it is not read.
    #[error("the challenge of the Azure Arc agent is not a .key file directly in {}", directory.display())]
    StrangeChallenge {
        /// Where its files are.
        directory: PathBuf,
    },
    /// The challenge is larger than any that the Arc agent makes.
    #[error("the challenge of the Azure Arc agent has more than {ARC_KEY_MAX_BYTES} bytes")]
    LargeChallenge,
    /// The challenge cannot be read.
    #[error("cannot read the challenge of the Azure Arc agent in {}: {cause}", directory.display())]
    UnreadableChallenge {
        /// Where it is.
        directory: PathBuf,
        /// Why not.
        #[source]
        cause: Arc<io::Error>,
    },
}

impl ManagedIdentityError {
    /// Whether it is a matter of time.
    pub(crate) fn retryable(&self) -> bool {
        match self {
            // The agent takes its files away after a while, perhaps just before they were read.
            Self::UnreadableChallenge { cause, .. } => cause.kind() == io::ErrorKind::NotFound,
            // The agent may be starting.
            Self::NoChallenge { status } => *status == 429 || *status >= 500,
            _ => false,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::BadEndpoint { .. } | Self::BadHeader => {
                "unset the variable if it was set by hand; App Service and Azure Arc set it themselves"
            }
            Self::ServiceFabric => "use a certificate, or a workload identity",
            Self::UserAssignedOnArc => {
                "use the machine's own identity, a certificate, or a workload identity"
            }
            Self::Client { .. } => "check the trusted certificate authorities of this machine",
            Self::UnreadableChallenge { .. } => {
                "add the user that mailtrail runs as to the group `himds`, and start mailtrail again"
            }
            Self::NoChallenge { .. } | Self::StrangeChallenge { .. } | Self::LargeChallenge => {
                "check with `azcmagent show` that the Azure Arc agent is connected and up to date, and that no other \
                 program listens at its address"
            }
        }
    }
}

impl ManagedIdentity {
    /// Finds out on what kind of host this runs. `client_id` chooses a user-assigned identity; without one it is the
    /// host's own.
    ///
    /// # Errors
    ///
    /// When the environment says what cannot be, or the host cannot have such an identity.
    pub fn detect(client_id: Option<ClientId>) -> Result<Self, ManagedIdentityError> {
        Self::from_variables(client_id, |name| std::env::var(name).ok())
    }

    /// The same with the environment variables given by `lookup`.
    ///
    /// # Errors
    ///
    /// As for [`ManagedIdentity::detect`].
    pub fn from_variables(
        client_id: Option<ClientId>,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ManagedIdentityError> {
        let lookup = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let endpoint = lookup("IDENTITY_ENDPOINT");
        let header = lookup("IDENTITY_HEADER");
        let host = match (endpoint, header) {
            (Some(_), Some(_)) if lookup("IDENTITY_SERVER_THUMBPRINT").is_some() => {
                return Err(ManagedIdentityError::ServiceFabric);
            }
            (Some(endpoint), Some(header)) => {
                HeaderValue::from_str(&header).map_err(|_| ManagedIdentityError::BadHeader)?;
                let endpoint = address("IDENTITY_ENDPOINT", &endpoint)?;
                Host::AppService { endpoint, header: SecretString::from(header) }
            }
            (Some(endpoint), None) if lookup("IMDS_ENDPOINT").is_some() => {
                if client_id.is_some() {
                    return Err(ManagedIdentityError::UserAssignedOnArc);
                }
                let endpoint = address("IDENTITY_ENDPOINT", &endpoint)?;
                Host::Arc { endpoint, directory: PathBuf::from(ARC_DIRECTORY) }
            }
            _ => {
                // Azure's SDKs take the same variable, for AKS pod identity.
                let variable = "AZURE_POD_IDENTITY_AUTHORITY_HOST";
                let base = lookup(variable);
                let mut endpoint = address(variable, base.as_deref().unwrap_or(VIRTUAL_MACHINE))?;
                endpoint
                    .path_segments_mut()
                    .map_err(|()| ManagedIdentityError::BadEndpoint { variable })?
                    .pop_if_empty()
                    .extend(VIRTUAL_MACHINE_PATH);
                Host::VirtualMachine { endpoint }
            }
        };
        // The shared client may have a proxy. These addresses mean this very host.
        let http = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|error| ManagedIdentityError::Client { cause: causes(error) })?;
        Ok(Self { http, host, client_id })
    }

    /// Reads the challenges of the Azure Arc agent in another directory than the agent's own.
    #[must_use]
    pub fn with_arc_directory(mut self, path: PathBuf) -> Self {
        if let Host::Arc { directory, .. } = &mut self.host {
            *directory = path;
        }
        self
    }

    /// What kind of host this is, for messages.
    #[must_use]
    pub const fn host_kind(&self) -> &'static str {
        match self.host {
            Host::VirtualMachine { .. } => "virtual machine",
            Host::AppService { .. } => "App Service",
            Host::Arc { .. } => "Azure Arc",
        }
    }

    /// Asks for one token.
    pub(crate) async fn request(&self, scope: &Scope, timeout: Duration) -> Result<AccessToken, TokenError> {
        let service = Service::ManagedIdentity;
        match &self.host {
            Host::VirtualMachine { endpoint } => {
                let request = self.get(endpoint, "2018-02-01", scope).header("Metadata", "true");
                exchange(service, request, timeout).await?.token(&[])
            }
            Host::AppService { endpoint, header } => {
                let header = header.expose_secret();
                let mut value = HeaderValue::from_str(header).map_err(|_| ManagedIdentityError::BadHeader)?;
                value.set_sensitive(true);
                let request = self.get(endpoint, "2019-08-01", scope).header("X-IDENTITY-HEADER", value);
                exchange(service, request, timeout).await?.token(&[header])
            }
            Host::Arc { endpoint, directory } => {
                let request = || self.get(endpoint, "2020-06-01", scope).header("Metadata", "true");
                let challenge = exchange(service, request(), timeout).await?;
                let status = challenge.status;
                if status != StatusCode::UNAUTHORIZED {
                    return Err(ManagedIdentityError::NoChallenge { status: status.as_u16() }.into());
                }
                let path = challenge_path(&challenge.headers, directory)?;
                let key = read_challenge(path, directory).await?;
                let value = Zeroizing::new(format!("Basic {}", *key));
                let mut value = HeaderValue::from_str(&value)
                    .map_err(|_| ManagedIdentityError::StrangeChallenge { directory: directory.clone() })?;
                value.set_sensitive(true);
                exchange(service, request().header(AUTHORIZATION, value), timeout).await?.token(&[&key])
            }
        }
    }

    fn get(&self, endpoint: &Url, version: &str, scope: &Scope) -> RequestBuilder {
        let mut url = endpoint.clone();
        url.query_pairs_mut().append_pair("api-version", version).append_pair("resource", scope.resource());
        if let Some(client_id) = &self.client_id {
            url.query_pairs_mut().append_pair("client_id", client_id.as_str());
        }
        self.http.get(url)
    }
}

fn address(variable: &'static str, text: &str) -> Result<Url, ManagedIdentityError> {
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or(ManagedIdentityError::BadEndpoint { variable })
}

/// The file that a challenge names. Whoever took the agent's place must not make us read, and send, anything else: it
/// has to be a `.key` file directly in the agent's directory.
fn challenge_path(headers: &HeaderMap, directory: &Path) -> Result<PathBuf, ManagedIdentityError> {
    let strange = || ManagedIdentityError::StrangeChallenge { directory: directory.to_owned() };
    let challenge =
        headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).ok_or_else(strange)?;
    let (scheme, realm) = challenge.trim().split_once(' ').ok_or_else(strange)?;
    let realm = realm.trim().strip_prefix("realm=").ok_or_else(strange)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(strange());
    }
    let path = Path::new(realm.trim_matches('"'));
    // The parent of a path that ends with `..` is its text without it, so the name is asked for as well.
    let name = path.file_name().ok_or_else(strange)?;
    let own = path == directory.join(name)
        && path.parent() == Some(directory)
        && path.extension().is_some_and(|extension| extension == "key");
    if own { Ok(path.to_owned()) } else { Err(strange()) }
}

async fn read_challenge(path: PathBuf, directory: &Path) -> Result<Zeroizing<String>, ManagedIdentityError> {
    let unreadable = |cause| ManagedIdentityError::UnreadableChallenge {
        directory: directory.to_owned(),
        cause: Arc::new(cause),
    };
    let bytes = tokio::task::spawn_blocking(move || {
        // A link could lead out of the directory.
        if std::fs::symlink_metadata(&path)?.is_symlink() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a symbolic link"));
        }
        read_bounded(&path, ARC_KEY_MAX_BYTES)
    })
    .await
    .map_err(|gone| unreadable(io::Error::other(gone)))?
    .map_err(unreadable)?;
    if bytes.len() > ARC_KEY_MAX_BYTES {
        return Err(ManagedIdentityError::LargeChallenge);
    }
    let text = str::from_utf8(&bytes)
        .map_err(|_| unreadable(io::Error::new(io::ErrorKind::InvalidData, "it is not text")))?;
    Ok(Zeroizing::new(text.to_owned()))
}

impl fmt::Debug for ManagedIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagedIdentity")
            .field("host", &self.host_kind())
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
