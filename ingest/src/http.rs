//! The HTTP client that logins and API calls share: proxy, extra certificate authorities, timeouts, user agent.
//!
//! It never follows a redirect: a redirect could carry the bearer token, or a client secret, to another host. It never
//! repeats a request by itself: every request is counted in the tenant's budget.

use std::{io, path::PathBuf, time::Duration};

use entra::{error::causes, proxy};
use reqwest::{Certificate, Client, redirect};
use url::Url;

/// How to reach Microsoft.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// The proxy for everything, `http://user:password@host:port`. Without one the environment decides
    /// (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`). This machine is always reached without one.
    pub proxy: Option<Url>,
    /// Hosts and networks that are reached without the configured proxy, in the form of `NO_PROXY`.
    pub no_proxy: Option<String>,
    /// PEM files of certificate authorities to trust beside the system's.
    pub ca_files: Vec<PathBuf>,
    /// The longest wait for a connection, TLS included.
    pub connect_timeout: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self { proxy: None, no_proxy: None, ca_files: Vec::new(), connect_timeout: Duration::from_secs(10) }
    }
}

impl std::fmt::Debug for HttpSettings {
    /// Without the proxy's user and password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpSettings")
            .field("proxy", &self.proxy.as_ref().map(|url| url.host_str().unwrap_or_default().to_owned()))
            .field("no_proxy", &self.no_proxy)
            .field("ca_files", &self.ca_files)
            .field("connect_timeout", &self.connect_timeout)
            .finish()
    }
}

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum HttpSettingsError {
    /// A certificate authority's file cannot be read.
    #[error("cannot read the certificate authority file {}: {cause}; check its path and mode", path.display())]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// A certificate authority's file holds no certificate.
    #[error("{} holds no PEM certificate; it must contain -----BEGIN CERTIFICATE-----", path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// The proxy's address is of no use.
    #[error("the proxy's address cannot be used; expected the form http://host:port")]
    Proxy,
    /// The client refused its settings.
    #[error("cannot set up HTTPS: {cause}")]
    Client {
        /// Why.
        cause: String,
    },
}

impl HttpSettings {
    /// Makes the client.
    ///
    /// # Errors
    ///
    /// When a certificate file or the proxy's address cannot be used.
    pub fn client(&self) -> Result<Client, HttpSettingsError> {
        let mut builder = Client::builder()
            .user_agent(concat!("mailtrail/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(self.connect_timeout)
            .tcp_keepalive(Duration::from_secs(30))
            // What the peer may send ahead of the reader, for each body and for all of them (L8).
            .http2_initial_stream_window_size(256 * 1024)
            .http2_initial_connection_window_size(1024 * 1024);
        builder = proxy::set(builder, self.proxy.as_ref(), self.no_proxy.as_deref())
            .map_err(|_| HttpSettingsError::Proxy)?;
        for path in &self.ca_files {
            builder = builder.tls_certs_merge(certificates(path)?);
        }
        builder.build().map_err(|error| HttpSettingsError::Client { cause: causes(error) })
    }
}

fn certificates(path: &PathBuf) -> Result<Vec<Certificate>, HttpSettingsError> {
    let pem = std::fs::read(path).map_err(|cause| HttpSettingsError::CaFile { path: path.clone(), cause })?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(HttpSettingsError::NoCertificate { path: path.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_certificate_file_without_a_certificate_is_named() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "not a certificate").unwrap();
        let settings = HttpSettings { ca_files: vec![file.path().to_owned()], ..HttpSettings::default() };
        let error = settings.client().unwrap_err().to_string();
        assert!(error.contains(&*file.path().to_string_lossy()), "{error}");
        let settings = HttpSettings { ca_files: vec!["/nowhere/ca.pem".into()], ..HttpSettings::default() };
        assert!(settings.client().unwrap_err().to_string().contains("/nowhere/ca.pem"));
    }

    #[test]
    fn the_proxys_password_is_not_shown() {
        let settings = HttpSettings {
            proxy: Some("http://user:hunter2@proxy.example:3128".parse().unwrap()),
            ..HttpSettings::default()
        };
        let shown = format!("{settings:?}");
        assert!(!shown.contains("hunter2") && shown.contains("proxy.example"), "{shown}");
    }
}
