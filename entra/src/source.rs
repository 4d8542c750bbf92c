//! What everybody asks for tokens.

use std::{fmt, sync::Arc};

use chrono::{DateTime, Utc};
use reqwest::Client;

use crate::{
    answer::TIMEOUT,
    cache::TokenCache,
    cloud::Scope,
    credential::{ClientId, Credential, read_certificate},
    endpoint::Endpoint,
    error::TokenError,
    managed_identity::ManagedIdentity,
    token::AccessToken,
};

/// Gives out the token of one identity for one scope. Cloning is cheap; clones share the token.
#[derive(Clone)]
pub struct TokenSource(Arc<Inner>);

struct Inner {
    login: Login,
    scope: Scope,
    cache: TokenCache,
}

enum Login {
    Application { http: Client, endpoint: Endpoint, client_id: ClientId, credential: Credential },
    Managed(ManagedIdentity),
}

impl TokenSource {
    /// Tokens for an application.
    ///
    /// `http` brings proxy, certificate authorities and the bound on connecting. It must not follow redirects, because
    /// they would take the credential elsewhere: build it with `redirect(Policy::none())`. An answer that came from
    /// another address is an error. No request lasts longer than 30 seconds.
    #[must_use]
    pub fn new(
        http: Client,
        endpoint: Endpoint,
        client_id: ClientId,
        credential: Credential,
        scope: Scope,
    ) -> Self {
        Self::with(Login::Application { http, endpoint, client_id, credential }, scope)
    }

    /// Tokens for the identity of the host that this runs on.
    #[must_use]
    pub fn managed_identity(identity: ManagedIdentity, scope: Scope) -> Self {
        Self::with(Login::Managed(identity), scope)
    }

    fn with(login: Login, scope: Scope) -> Self {
        Self(Arc::new(Inner { login, scope, cache: TokenCache::default() }))
    }

    /// A token that is good now. Most calls return at once; the others wait for at most one request (two with Azure
    /// Arc) of up to 30 seconds.
    ///
    /// # Errors
    ///
    /// When there is no usable token and none can be had.
    pub async fn token(&self) -> Result<AccessToken, TokenError> {
        self.0.cache.token(self.request()).await
    }

    /// Forgets a token that was refused with a 401, so that the next caller gets another. It does nothing when a newer
    /// one is at hand, so several calls that were refused with the same token cause one request.
    pub fn invalidate(&self, token: &AccessToken) {
        self.0.cache.invalidate(token);
    }

    /// What the tokens are for.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.0.scope
    }

    /// When the certificate ends that proves who we are, as it is now where the configuration points; `None` when it
    /// is not a certificate that proves it. An expired certificate has an end, too.
    ///
    /// # Errors
    ///
    /// When the certificate cannot be read.
    pub async fn certificate_ends(&self) -> Result<Option<DateTime<Utc>>, TokenError> {
        match &self.0.login {
            Login::Application { credential: Credential::Certificate(source), .. } => {
                Ok(Some(read_certificate(source).await?.not_after()))
            }
            _ => Ok(None),
        }
    }

    async fn request(&self) -> Result<AccessToken, TokenError> {
        let scope = &self.0.scope;
        let token = match &self.0.login {
            Login::Application { http, endpoint, client_id, credential } => {
                endpoint.request(http, client_id, credential, scope, TIMEOUT).await?
            }
            Login::Managed(identity) => identity.request(scope, TIMEOUT).await?,
        };
        tracing::debug!(
            login = %self.0.login,
            %scope,
            lifetime_seconds = token.lifetime().as_secs(),
            "got an access token"
        );
        Ok(token)
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Application { endpoint, client_id, .. } => write!(f, "{client_id}@{}", endpoint.tenant()),
            Self::Managed(identity) => write!(f, "managed identity ({})", identity.host_kind()),
        }
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSource")
            .field("login", &format_args!("{}", self.0.login))
            .field("scope", &self.0.scope.as_str())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
