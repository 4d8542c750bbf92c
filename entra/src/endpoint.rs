//! A tenant's token endpoint: the client credentials flow of OAuth 2.0, version 2.0 of the endpoint (Microsoft identity
//! platform, "OAuth 2.0 client credentials flow").

use std::{fmt, time::Duration};

use bytes::Bytes;
use reqwest::{Client, header::CONTENT_TYPE};
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use crate::{
    answer::exchange,
    cloud::{Scope, ServiceUrl},
    credential::{ClientId, Credential, Proof},
    error::{Service, TokenError},
    token::AccessToken,
};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Where the tokens of a tenant come from.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    tenant: String,
    token_url: Url,
}

/// The text names no tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` names no tenant; use the Tenant ID in Entra admin center > Overview, or one of its domains"
)]
pub struct BadTenant {
    /// What was given instead.
    pub text: String,
}

impl Endpoint {
    /// The endpoint of `tenant`, its id or one of its domains.
    ///
    /// # Errors
    ///
    /// When the tenant's name could not be part of an address.
    pub fn new(authority: &ServiceUrl, tenant: &str) -> Result<Self, BadTenant> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        let named = tenant.bytes().any(|byte| byte.is_ascii_alphanumeric());
        if !named || tenant.len() > 253 || !tenant.bytes().all(known) {
            return Err(BadTenant { text: tenant.to_owned() });
        }
        let token_url = authority.join(&[tenant, "oauth2", "v2.0", "token"]);
        Ok(Self { tenant: tenant.to_owned(), token_url })
    }

    /// The tenant as it was given.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// `{authority}/{tenant}/oauth2/v2.0/token`.
    #[must_use]
    pub const fn token_url(&self) -> &Url {
        &self.token_url
    }

    /// Asks for one token.
    pub(crate) async fn request(
        &self,
        http: &Client,
        client: &ClientId,
        credential: &Credential,
        scope: &Scope,
        timeout: Duration,
    ) -> Result<AccessToken, TokenError> {
        let proof = credential.prove(self, client).await?;
        let request = http
            .post(self.token_url.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form(client, scope, &proof));
        exchange(Service::Entra, request, timeout).await?.token(&[proof.expose()])
    }
}

/// The body of the request, in a buffer that is zeroed when it was sent.
fn form(client: &ClientId, scope: &Scope, proof: &Proof) -> Bytes {
    // Encoding makes three bytes of one at most, so the buffer never moves.
    let buffer = String::with_capacity(
        1024 + 3 * (client.as_str().len() + scope.as_str().len() + proof.expose().len()),
    );
    let mut form = form_urlencoded::Serializer::new(buffer);
    form.append_pair("client_id", client.as_str())
        .append_pair("scope", scope.as_str())
        .append_pair("grant_type", "client_credentials");
    match proof {
        Proof::Secret(secret) => form.append_pair("client_secret", secret),
        Proof::Assertion(assertion) => form
            .append_pair("client_assertion_type", ASSERTION_TYPE)
            .append_pair("client_assertion", assertion),
    };
    Bytes::from_owner(Zeroizing::new(form.finish().into_bytes()))
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.token_url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tenant_is_one_segment_of_the_address() {
        let authority = "http://127.0.0.1:9400/base/".parse().unwrap();
        for tenant in ["41463f53-8812-40f4-890f-865bf6e35190", "contoso.onmicrosoft.com"] {
            let endpoint = Endpoint::new(&authority, tenant).unwrap();
            assert_eq!(endpoint.tenant(), tenant);
            assert_eq!(
                endpoint.token_url().as_str(),
                format!("http://127.0.0.1:9400/base/{tenant}/oauth2/v2.0/token")
            );
        }
        for bad in ["", ".", "..", "a/b", "a?b", "a b", "%2e%2e", "ä", &"a".repeat(254)] {
            assert!(Endpoint::new(&authority, bad).is_err(), "{bad}");
        }
    }
}
