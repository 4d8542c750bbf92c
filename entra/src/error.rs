//! Why there is no token, whether waiting can help, and what to do.

use std::{fmt, time::Duration};

use crate::{
    certificate::CertificateError, managed_identity::ManagedIdentityError, refusal::Refusal,
    secret::SecretError, secret::SecretSource,
};

/// Who gives tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// The token endpoint of Microsoft Entra ID, or what a custom cloud has in its place.
    Entra,
    /// The endpoint of this host that gives tokens to its managed identity.
    ManagedIdentity,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entra => "Microsoft Entra ID",
            Self::ManagedIdentity => "the managed identity endpoint",
        })
    }
}

/// There is no token. No variant holds a secret, an assertion, a token or the body of an answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TokenError {
    /// The secret, or the federated token, cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The certificate cannot be used.
    #[error("cannot use the certificate in {source_of}: {problem}")]
    Certificate {
        /// Where it is.
        source_of: SecretSource,
        /// What is wrong with it.
        #[source]
        problem: CertificateError,
    },
    /// The managed identity of this host cannot be used.
    #[error(transparent)]
    ManagedIdentity(#[from] ManagedIdentityError),
    /// The request was understood and refused.
    #[error(transparent)]
    Refused(Refusal),
    /// The service says that it cannot answer now.
    #[error("{service} is not available (HTTP {status})")]
    Unavailable {
        /// Which service.
        service: Service,
        /// The HTTP status: 408, 429 or 5xx, for managed identities also 404 and 410.
        status: u16,
        /// How long it asked to wait.
        retry_after: Option<Duration>,
    },
    /// No answer came in time.
    #[error("{service} did not answer within {} s", after.as_secs_f32())]
    TimedOut {
        /// Which service.
        service: Service,
        /// How long it was waited for.
        after: Duration,
    },
    /// The connection could not be made, or broke.
    #[error("cannot reach {service}: {cause}")]
    Unreachable {
        /// Which service.
        service: Service,
        /// The host, the error and its causes.
        cause: String,
    },
    /// The answer would send the request elsewhere; secrets do not go there.
    #[error("{service} answered with a redirect (HTTP {status})")]
    Redirected {
        /// Which service.
        service: Service,
        /// The HTTP status.
        status: u16,
    },
    /// The answer is an error, but not one of a token endpoint.
    #[error("HTTP {status} came instead of an answer of {service}")]
    Foreign {
        /// Which service.
        service: Service,
        /// The HTTP status.
        status: u16,
    },
    /// The answer says that it is a success, but holds no token that can be used.
    #[error("the answer of {service} cannot be used: {problem}")]
    Unusable {
        /// Which service.
        service: Service,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl TokenError {
    /// Whether it is a matter of time: try again soon, with back-off. Everything else is a fault in the configuration
    /// here or in Entra: it halts the tenant, is shown, and is tried again slowly, because somebody may repair it.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. }
            | Self::TimedOut { .. }
            | Self::Unreachable { .. }
            | Self::Unusable { .. } => true,
            Self::Refused(refusal) => refusal.is_transient(),
            Self::ManagedIdentity(error) => error.retryable(),
            Self::Secret(_) | Self::Certificate { .. } | Self::Redirected { .. } | Self::Foreign { .. } => {
                false
            }
        }
    }

    /// How long the service asked to wait.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The same failure, when another wait is left of what the service asked for.
    pub(crate) fn with_wait(mut self, left: Option<Duration>) -> Self {
        if let Self::Unavailable { retry_after, .. } = &mut self {
            *retry_after = left;
        }
        self
    }

    /// What an administrator has to do.
    #[must_use]
    pub fn advice(&self) -> &str {
        match self {
            Self::Secret(SecretError::NotSet { .. }) => {
                "set it in the environment that mailtrail is started with, and start it anew"
            }
            Self::Secret(_) => "make the secret readable for mailtrail where the configuration points",
            Self::Certificate { problem, .. } => problem.advice(),
            Self::ManagedIdentity(error) => error.advice(),
            Self::Refused(refusal) => refusal.reason.advice(),
            Self::Unavailable { .. } => {
                "nothing, it is tried again; if it stays, see https://status.cloud.microsoft"
            }
            Self::TimedOut { service: Service::Entra, .. }
            | Self::Unreachable { service: Service::Entra, .. } => {
                "check DNS, firewall, proxy and the trusted certificate authorities between here and the authority"
            }
            Self::TimedOut { .. }
            | Self::Unreachable { .. }
            | Self::Foreign { service: Service::ManagedIdentity, .. } => {
                "check that this host runs in Azure or has the Azure Arc agent, and that a managed identity is \
                 assigned to it in the Azure portal > the resource > Identity"
            }
            Self::Redirected { .. } | Self::Foreign { .. } | Self::Unusable { .. } => {
                "check `cloud` and `authority`, and whether a proxy on the way answers in place of the service"
            }
        }
    }
}

/// An HTTP error and what caused it, in one line and without the address of the request. The outermost errors say that
/// a request failed, which is known: they are left out where there is more.
#[must_use]
pub fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut chain = vec![error.to_string()];
    let mut next = std::error::Error::source(&error);
    while let Some(cause) = next {
        chain.push(cause.to_string());
        next = cause.source();
    }
    let says_little = |text: &String| text == "error sending request" || text.starts_with("client error (");
    let skipped = chain.iter().take_while(|text| says_little(text)).count().min(chain.len() - 1);
    let mut text = String::new();
    for cause in &chain[skipped..] {
        if text.is_empty() {
            text.clone_from(cause);
        } else if !text.ends_with(cause.as_str()) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// The same, with the host in front: what a firewall or a proxy has to let through.
#[must_use]
pub fn causes_at_host(error: reqwest::Error) -> String {
    let host = error.url().and_then(|url| {
        let host = url.host_str()?;
        Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
    });
    let causes = causes(error);
    match host {
        Some(host) => format!("{host}: {causes}"),
        None => causes,
    }
}
