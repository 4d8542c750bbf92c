//! Access tokens for SASL OAUTHBEARER: from Entra ID, or from any OpenID Connect provider by client credentials.

use std::{fmt, time::Duration};

use chrono::Utc;
use entra::{SecretError, SecretSource, TokenError, TokenSource};
use rdkafka::client::OAuthToken;
use reqwest::{Client, StatusCode};
use secrecy::ExposeSecret as _;
use serde::Deserialize;

/// Who the tokens are for, as brokers log it. The token itself says who is allowed.
const PRINCIPAL: &str = "mailtrail";
/// How long the provider may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A provider's answer is no longer than this.
const LONGEST_ANSWER: usize = 256 << 10;
/// How long a token is taken to be good whose provider does not say.
const USUAL_LIFETIME: u64 = 300;

/// Where access tokens come from.
#[derive(Clone)]
pub enum Tokens {
    /// Entra ID, for Event Hubs.
    Entra(TokenSource),
    /// An OpenID Connect provider's token endpoint.
    Oidc {
        /// Whose login it is.
        provider: Oidc,
        /// The client for the request. It must not follow redirects, because they would take the secret elsewhere.
        http: Client,
    },
}

/// A login at an OpenID Connect provider, by client credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oidc {
    /// The token endpoint.
    pub token_url: reqwest::Url,
    /// Who mailtrail is there.
    pub client_id: String,
    /// The proof of it.
    pub client_secret: SecretSource,
    /// What the token is for, if the provider wants to know.
    pub scope: Option<String>,
    /// Whom the token is for, if the provider wants to know.
    pub audience: Option<String>,
}

/// There is no token. What the provider said is not repeated, but for its error code.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoToken {
    #[error("{error}; {advice}", advice = error.advice())]
    Entra { error: TokenError },
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("{url} cannot be asked: {why}")]
    Unreachable { url: String, why: String },
    #[error("{url} answers {status}{code}; check client_id, client_secret and scope")]
    Refused { url: String, status: StatusCode, code: Code },
    #[error("{url} gives no usable answer: {why}; is it the token endpoint?")]
    Answer { url: String, why: String },
}

/// The provider's error code, if it gave one.
#[derive(Debug)]
pub(super) struct Code(Option<String>);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |code| write!(f, " ({code})"))
    }
}

impl NoToken {
    /// Whether waiting cannot help.
    pub(super) fn needs_a_person(&self) -> bool {
        match self {
            Self::Entra { error } => !error.retryable(),
            Self::Secret(_) | Self::Answer { .. } => true,
            Self::Unreachable { .. } => false,
            Self::Refused { status, .. } => {
                status.is_client_error()
                    && !matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            }
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl Tokens {
    /// A token that is good now.
    pub(super) async fn token(&self) -> Result<OAuthToken, NoToken> {
        let (token, lifetime) = match self {
            Self::Entra(source) => {
                let token = source.token().await.map_err(|error| NoToken::Entra { error })?;
                (token.expose().to_owned(), token.remaining())
            }
            Self::Oidc { provider, http } => provider.token(http).await?,
        };
        let lifetime = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX / 2);
        Ok(OAuthToken {
            token,
            principal_name: PRINCIPAL.to_owned(),
            lifetime_ms: Utc::now().timestamp_millis() + lifetime,
        })
    }
}

impl Oidc {
    async fn token(&self, http: &Client) -> Result<(String, Duration), NoToken> {
        let url = self.token_url.to_string();
        let unreachable =
            |error: reqwest::Error| NoToken::Unreachable { url: url.clone(), why: root(&error) };
        let secret = self.client_secret.read().await?;
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(self.scope.as_deref().map(|scope| ("scope", scope)));
        form.extend(self.audience.as_deref().map(|audience| ("audience", audience)));
        let request = http
            .post(self.token_url.clone())
            .basic_auth(&self.client_id, Some(secret.expose_secret()))
            .timeout(TIMEOUT)
            .form(&form);
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST_ANSWER {
                return Err(NoToken::Answer { url, why: "it is too long".to_owned() });
            }
        }
        if !status.is_success() {
            let code = serde_json::from_slice(&body).ok().map(|refusal: Refusal| refusal.error);
            // A code is a short word; anything else could be an echo of what was sent.
            let code = code.filter(|code| {
                code.len() <= 40 && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            });
            return Err(NoToken::Refused { url, status, code: Code(code) });
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| NoToken::Answer { url, why: "there is no access_token in it".to_owned() })?;
        let lifetime = Duration::from_secs(answer.expires_in.unwrap_or(USUAL_LIFETIME));
        Ok((answer.access_token, lifetime))
    }
}

/// What is at the bottom of an error; the layers above only say that a request failed.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Answers one request; gives back what it was asked.
    async fn provider(answer: &'static str) -> (Oidc, tokio::task::JoinHandle<String>, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("secret");
        std::fs::write(&secret, "hunter2\n").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let mut length = 0;
            while !std::str::from_utf8(&request[..length]).unwrap().contains("grant_type") {
                length += stream.read(&mut request[length..]).await.unwrap();
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(request[..length].to_vec()).unwrap()
        });
        let oidc = Oidc {
            token_url: url.parse().unwrap(),
            client_id: "mail trail".to_owned(),
            client_secret: SecretSource::File(secret),
            scope: Some("kafka".to_owned()),
            audience: None,
        };
        (oidc, asked, directory)
    }

    #[tokio::test]
    async fn client_credentials_bring_a_token_with_its_lifetime() {
        let (provider, asked, _directory) = provider(
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"access_token\":\"abc\",\"token_type\":\"Bearer\",\"expires_in\":600}",
        )
        .await;
        let token = Tokens::Oidc { provider, http: Client::new() }.token().await.unwrap();
        let left = token.lifetime_ms - Utc::now().timestamp_millis();
        assert_eq!(token.token, "abc");
        assert!((590_000..=600_000).contains(&left), "{left}");
        let asked = asked.await.unwrap();
        assert!(asked.contains("authorization: Basic bWFpbCB0cmFpbDpodW50ZXIy"), "{asked}");
        assert!(asked.ends_with("grant_type=client_credentials&scope=kafka"), "{asked}");
    }

    #[tokio::test]
    async fn a_refusal_needs_a_person_and_shows_no_secret() {
        let answers = [
            (
                "HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\n{\"error\":\"invalid_client\",\"echo\":\"hunter2\"}",
                true,
            ),
            ("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n{\"error\":\"you sent hunter2\"}", true),
            ("HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\r\nhunter2", false),
            ("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n<html>hunter2", true),
        ];
        for (answer, needs_a_person) in answers {
            let (provider, _asked, _directory) = provider(answer).await;
            let error = Tokens::Oidc { provider, http: Client::new() }.token().await.err().unwrap();
            assert_eq!(error.needs_a_person(), needs_a_person, "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
