//! Requests over HTTP/1.1, and the client that makes them: TLS, proxy, token, channel, cookies.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use entra::{SecretError, error::causes};
use reqwest::{
    Certificate, Client, Identity, RequestBuilder,
    header::{AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HeaderValue, SET_COOKIE},
    redirect,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use url::Url;

use super::{
    answer::Said,
    channel::Channel,
    config::{HecConfig, HecNetwork, HecProxy, Tls},
};
use crate::http_answer::{self, retry_after};

/// No answer of a receiver is longer: a thousand acknowledgements are 20 KB.
const LONGEST_ANSWER: usize = 256 << 10;

/// Makes requests.
#[derive(Debug)]
pub(super) struct Requests {
    config: HecConfig,
    network: HecNetwork,
    client: Mutex<Option<Client>>,
    /// Whether the client is to be made anew, because certificates may have changed.
    stale: AtomicBool,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answered {
    /// The HTTP status.
    pub(super) http: u16,
    /// How long it asked to wait.
    pub(super) after: Option<Duration>,
    /// The body.
    pub(super) body: Vec<u8>,
}

/// Nothing came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// A person has to do something: a secret or a certificate cannot be used.
    Local(String),
    /// There was no connection: nothing was sent.
    NotSent(String),
    /// It was sent at least in part.
    Unknown(String),
}

/// A secret or a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
enum SetupError {
    #[error("{0}")]
    Secret(#[from] SecretError),
    #[error("the token holds characters that no HTTP header can hold; is it the right secret?")]
    Token,
    #[error("cannot read the certificate file {}: {cause}; check its path and mode", path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error("{} holds no PEM certificate; it must contain -----BEGIN CERTIFICATE-----", path.display())]
    NoCertificate { path: PathBuf },
    #[error("`client_certificate` and `client_key` do not go together as PEM: {0}")]
    Identity(String),
    #[error("the proxy's address cannot be used; expected the form http://host:port")]
    Proxy,
    #[error("cannot set up HTTPS: {0}")]
    Client(String),
    #[error("setting up HTTPS was interrupted")]
    Interrupted,
}

impl Requests {
    pub(super) fn new(config: HecConfig, network: HecNetwork) -> Self {
        Self { config, network, client: Mutex::default(), stale: AtomicBool::new(false) }
    }

    /// Certificates and keys are read anew before the next request.
    pub(super) fn renew(&self) {
        self.stale.store(true, Ordering::Release);
    }

    /// Sends events. `last` closes the connection afterwards, so that a load balancer chooses anew.
    pub(super) async fn events(
        &self,
        url: &Url,
        channel: Option<&Channel>,
        body: Vec<u8>,
        gzip: bool,
        last: bool,
    ) -> Result<Answered, Unanswered> {
        let change = |mut request: RequestBuilder| {
            if gzip {
                request = request.header(CONTENT_ENCODING, "gzip");
            }
            if last {
                request = request.header(CONNECTION, "close");
            }
            request.body(body)
        };
        self.send(url, channel, self.config.timeout, change).await
    }

    /// Sends a small body that is JSON, uncompressed.
    pub(super) async fn ask(
        &self,
        url: &Url,
        channel: Option<&Channel>,
        body: String,
    ) -> Result<Answered, Unanswered> {
        self.send(url, channel, self.patience(), |request| request.body(body)).await
    }

    /// Asks how the receiver is. It needs no token.
    pub(super) async fn health(&self, url: &Url) -> Result<Answered, Unanswered> {
        let request = self.client().await?.get(url.clone()).timeout(self.patience());
        self.finish(request, None).await
    }

    /// How long what is answered at once may take.
    fn patience(&self) -> Duration {
        self.config.timeout.min(Duration::from_secs(30))
    }

    async fn send(
        &self,
        url: &Url,
        channel: Option<&Channel>,
        timeout: Duration,
        change: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Answered, Unanswered> {
        let local = |error: SetupError| Unanswered::Local(error.to_string());
        let token = self.config.token.read().await.map_err(|error| local(error.into()))?;
        let token = authorization(&token).ok_or_else(|| local(SetupError::Token))?;
        let mut request = self
            .client()
            .await?
            .post(url.clone())
            .timeout(timeout)
            .header(AUTHORIZATION, token)
            .header(CONTENT_TYPE, "application/json");
        if let Some(channel) = channel {
            request = request.header("X-Splunk-Request-Channel", channel.id.to_string());
            if let Some(cookies) = channel.cookie_header() {
                request = request.header(COOKIE, cookies);
            }
        }
        self.finish(change(request), channel).await
    }

    async fn finish(
        &self,
        request: RequestBuilder,
        channel: Option<&Channel>,
    ) -> Result<Answered, Unanswered> {
        let response = request.send().await.map_err(|error| {
            if error.is_connect() {
                // It may have been a certificate that was renewed meanwhile.
                self.renew();
                Unanswered::NotSent(causes(error))
            } else {
                Unanswered::Unknown(causes(error))
            }
        })?;
        if let Some(channel) = channel {
            for cookie in response.headers().get_all(SET_COOKIE) {
                if let Ok(cookie) = cookie.to_str() {
                    channel.set_cookie(cookie);
                }
            }
        }
        let http = response.status().as_u16();
        let after = retry_after(&response);
        let body = http_answer::body(response, LONGEST_ANSWER)
            .await
            .map_err(|error| Unanswered::Unknown(causes(error)))?;
        Ok(Answered { http, after, body })
    }

    async fn client(&self) -> Result<Client, Unanswered> {
        let mut client = self.client.lock().await;
        if let Some(client) = client.as_ref().filter(|_| !self.stale.swap(false, Ordering::AcqRel)) {
            return Ok(client.clone());
        }
        let made = self.make_client().await.map_err(|error| Unanswered::Local(error.to_string()))?;
        *client = Some(made.clone());
        Ok(made)
    }

    async fn make_client(&self) -> Result<Client, SetupError> {
        let key = match &self.config.tls.client {
            Some((_, key)) => Some(key.read().await?),
            None => None,
        };
        let proxy = match &self.network.proxy {
            None => None,
            Some(HecProxy::Plain(url)) => Some(url.clone()),
            Some(HecProxy::Secret(source)) => {
                let text = source.read().await?;
                let url = Url::parse(text.expose_secret().trim()).ok().filter(Url::has_host);
                Some(url.ok_or(SetupError::Proxy)?)
            }
        };
        let (tls, network) = (self.config.tls.clone(), self.network.clone());
        let connections = self.config.connections;
        // It reads files, among them all of the system's certificates.
        let made =
            tokio::task::spawn_blocking(move || build(&tls, &network, proxy, key.as_ref(), connections))
                .await;
        made.map_err(|_| SetupError::Interrupted)?
    }
}

impl Answered {
    /// What the body says, as far as it is HEC's.
    pub(super) fn said(&self) -> Said {
        Said::read(&self.body)
    }
}

fn authorization(token: &SecretString) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Splunk {}", token.expose_secret().trim())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn build(
    tls: &Tls,
    network: &HecNetwork,
    proxy: Option<Url>,
    key: Option<&SecretString>,
    connections: usize,
) -> Result<Client, SetupError> {
    let mut builder = Client::builder()
        .user_agent(concat!("mailtrail/", env!("CARGO_PKG_VERSION")))
        // The token must not follow a redirect, and whether to send again is the delivery loop's to say.
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .http1_only()
        .connect_timeout(network.connect_timeout)
        // Splunk closes what is idle for longer; a request on a connection that is being closed would be ambiguous.
        .pool_idle_timeout(Duration::from_secs(5))
        .pool_max_idle_per_host(connections + 1)
        .tcp_keepalive(Duration::from_secs(30));
    builder = entra::proxy::set(builder, proxy.as_ref(), network.no_proxy.as_deref())
        .map_err(|_| SetupError::Proxy)?;
    for path in network.ca_files.iter().chain(&tls.ca_file) {
        builder = builder.tls_certs_merge(certificates(path)?);
    }
    if let (Some((path, _)), Some(key)) = (&tls.client, key) {
        let mut pem = file(path)?;
        pem.push(b'\n');
        pem.extend_from_slice(key.expose_secret().as_bytes());
        let identity = Identity::from_pem(&pem).map_err(|error| SetupError::Identity(causes(error)))?;
        builder = builder.identity(identity);
    }
    if tls.unverified {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    builder.build().map_err(|error| SetupError::Client(causes(error)))
}

fn file(path: &Path) -> Result<Vec<u8>, SetupError> {
    std::fs::read(path).map_err(|cause| SetupError::File { path: path.to_owned(), cause })
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, SetupError> {
    match Certificate::from_pem_bundle(&file(path)?) {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(SetupError::NoCertificate { path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use entra::SecretSource;

    use super::{super::tests::config, *};

    #[tokio::test]
    async fn what_cannot_be_used_is_named_and_no_secret_is_shown() {
        let url: Url = "http://127.0.0.1:1/".parse().unwrap();
        let ask = async |config: HecConfig| {
            let requests = Requests::new(config, HecNetwork::default());
            requests.ask(&url, None, String::new()).await.unwrap_err()
        };
        let mut missing = config();
        missing.token = SecretSource::Env("MAILTRAIL_TEST_NO_SUCH_TOKEN".to_owned());
        let error = ask(missing).await;
        assert!(
            matches!(&error, Unanswered::Local(why) if why.contains("MAILTRAIL_TEST_NO_SUCH_TOKEN")),
            "{error:?}"
        );

        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "hunter2\u{7}x").unwrap();
        let mut odd = config();
        odd.token = SecretSource::File(file.path().to_owned());
        let error = ask(odd.clone()).await;
        assert!(matches!(&error, Unanswered::Local(why) if !why.contains("hunter2")), "{error:?}");

        let mut no_certificate = config();
        no_certificate.tls.ca_file = Some(file.path().to_owned());
        let error = ask(no_certificate).await;
        assert!(matches!(&error, Unanswered::Local(why) if why.contains("BEGIN CERTIFICATE")), "{error:?}");

        let mut no_identity = config();
        no_identity.tls.client = Some((file.path().to_owned(), SecretSource::File(file.path().to_owned())));
        let error = ask(no_identity).await;
        assert!(matches!(&error, Unanswered::Local(why) if why.contains("client_key")), "{error:?}");
    }

    #[tokio::test]
    async fn without_a_connection_nothing_was_sent() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url: Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let requests = Requests::new(config(), HecNetwork::default());
        let error = requests.ask(&url, None, String::new()).await.unwrap_err();
        assert!(matches!(&error, Unanswered::NotSent(_)), "{error:?}");
    }
}
