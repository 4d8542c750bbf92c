//! How an application proves who it is.

use std::{fmt, str::FromStr};

use chrono::Utc;
use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use crate::{
    certificate::Certificate, endpoint::Endpoint, error::TokenError, secret::SecretSource,
    workload_identity::WorkloadIdentity,
};

/// What an application shows to Entra. It is read anew for every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A client secret: its Value, not its Secret ID.
    ClientSecret(SecretSource),
    /// A PEM text with an RSA private key and its certificate.
    Certificate(SecretSource),
    /// The token of another issuer, which the application trusts.
    WorkloadIdentity(WorkloadIdentity),
}

/// What one request shows.
pub(crate) enum Proof {
    Secret(Zeroizing<String>),
    Assertion(Zeroizing<String>),
}

impl Proof {
    pub(crate) fn expose(&self) -> &str {
        match self {
            Self::Secret(text) | Self::Assertion(text) => text,
        }
    }
}

impl Credential {
    /// Reads the credential as it is now and makes the proof for one request.
    pub(crate) async fn prove(&self, endpoint: &Endpoint, client: &ClientId) -> Result<Proof, TokenError> {
        match self {
            Self::ClientSecret(source) => {
                let secret = source.read().await?;
                Ok(Proof::Secret(Zeroizing::new(secret.expose_secret().to_owned())))
            }
            Self::Certificate(source) => {
                let assertion = read_certificate(source)
                    .await?
                    .assertion(endpoint.token_url().as_str(), client, Utc::now())
                    .map_err(|problem| TokenError::Certificate { source_of: source.clone(), problem })?;
                Ok(Proof::Assertion(assertion))
            }
            Self::WorkloadIdentity(workload) => Ok(Proof::Assertion(workload.assertion().await?)),
        }
    }
}

/// Reads a certificate as it is now.
pub(crate) async fn read_certificate(source: &SecretSource) -> Result<Certificate, TokenError> {
    let pem = source.read().await?;
    Certificate::from_pem(pem.expose_secret())
        .map_err(|problem| TokenError::Certificate { source_of: source.clone(), problem })
}

/// The application (client) ID of an app registration or of a user-assigned managed identity. Entra's are GUIDs; any
/// short name is taken, because a simulated tenant may use others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientId(String);

/// The text is no client id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a client id is the Application (client) ID of an app registration: letters, digits, `-`, `_` and `.`, at most {} of them",
    ClientId::MAX_BYTES
)]
pub struct BadClientId;

impl ClientId {
    /// The longest client id.
    pub const MAX_BYTES: usize = 128;

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClientId {
    type Err = BadClientId;

    fn from_str(text: &str) -> Result<Self, BadClientId> {
        // The text is not quoted in the error: it may be a secret in the wrong place.
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if (1..=Self::MAX_BYTES).contains(&text.len()) && text.bytes().all(known) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadClientId)
        }
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_a_short_name() {
        for good in ["0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", "collector", "a.b_c"] {
            assert_eq!(good.parse::<ClientId>().unwrap().to_string(), good);
        }
        for bad in ["", "a b", "s3cr~et", "a/b", "ä", &"x".repeat(129)] {
            let error = bad.parse::<ClientId>().unwrap_err();
            assert!(bad.is_empty() || !error.to_string().contains(bad), "{error}");
        }
    }
}
