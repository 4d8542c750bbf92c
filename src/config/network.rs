//! `[network]`: how mailtrail reaches Entra ID, the Management Activity API and sinks that speak HTTP.

use std::{path::PathBuf, time::Duration};

use archive::store::target::{Network, Proxy};
use entra::{SecretError, SecretSource};
use ingest::HttpSettings;
use secrecy::ExposeSecret as _;
use sinks::splunk_hec::{HecNetwork, HecProxy};
use url::Url;

use super::reader::Section;

/// What every connection shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetworkConfig {
    /// The proxy for logins, API calls and sinks that speak HTTP; `None` is what `HTTPS_PROXY`, `HTTP_PROXY` and `ALL_PROXY` say.
    pub(crate) proxy: Option<ProxyAddress>,
    /// Hosts and networks that are reached without the configured proxy.
    pub(crate) no_proxy: Vec<String>,
    /// PEM files of certificate authorities that are trusted besides those of the system.
    pub(crate) ca_files: Vec<PathBuf>,
    /// How long connecting may take, TLS included.
    pub(crate) connect_timeout: Duration,
}

/// Where the proxy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProxyAddress {
    /// A proxy that asks for no password.
    Plain(Url),
    /// A URL that may hold user and password: `http://user:password@host:port`.
    Secret(SecretSource),
}

/// The proxy's address cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    /// It is a secret that cannot be read.
    #[error("network.proxy: {0}")]
    Secret(#[from] SecretError),
    /// What was read is no URL. It is not shown.
    #[error("network.proxy: {0} holds no URL of the form http://user:password@host:port")]
    NotAUrl(SecretSource),
}

impl NetworkConfig {
    /// Reads the section.
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let proxy = if section.is_section("proxy") {
            section.secret("proxy").map(ProxyAddress::Secret)
        } else {
            section.get("proxy").map(ProxyAddress::Plain)
        };
        if let Some(ProxyAddress::Plain(url)) = &proxy
            && (!url.username().is_empty() || url.password().is_some())
        {
            section.wrong(
                "proxy",
                "must not hold a password in the file; put the whole URL into an environment variable or a file and \
                 write { env = \"NAME\" } or { file = \"/path\" }",
            );
        }
        let no_proxy: Vec<String> = section.list("no_proxy").unwrap_or_default();
        if section.has("no_proxy") && !section.has("proxy") {
            section.wrong("no_proxy", "has no meaning without 'network.proxy'");
        }
        let config = Self {
            proxy,
            no_proxy,
            ca_files: section.list("ca_files").unwrap_or_default(),
            connect_timeout: section.get_or("connect_timeout", Duration::from_secs(10)),
        };
        section.finish();
        config
    }

    /// The settings for HTTP Event Collectors, which read the proxy's password themselves.
    pub(crate) fn hec(&self) -> HecNetwork {
        HecNetwork {
            proxy: self.proxy.as_ref().map(|proxy| match proxy {
                ProxyAddress::Plain(url) => HecProxy::Plain(url.clone()),
                ProxyAddress::Secret(reference) => HecProxy::Secret(reference.clone()),
            }),
            no_proxy: self.no_proxy_text(),
            ca_files: self.ca_files.clone(),
            connect_timeout: self.connect_timeout,
        }
    }

    /// The settings for archives in buckets and containers, which read the proxy's password themselves.
    pub(crate) fn archive(&self) -> Network {
        Network {
            proxy: self.proxy.as_ref().map(|proxy| match proxy {
                ProxyAddress::Plain(url) => Proxy::Plain(url.clone()),
                ProxyAddress::Secret(reference) => Proxy::Secret(reference.clone()),
            }),
            no_proxy: self.no_proxy_text(),
            ca_files: self.ca_files.clone(),
            connect_timeout: self.connect_timeout,
        }
    }

    /// In the form of the variable `NO_PROXY`.
    fn no_proxy_text(&self) -> Option<String> {
        (!self.no_proxy.is_empty()).then(|| self.no_proxy.join(","))
    }

    /// The settings for the HTTP client, with the proxy's password as it is now.
    ///
    /// # Errors
    ///
    /// When the proxy's address is a secret that cannot be read, or is no URL.
    pub(crate) async fn http_settings(&self) -> Result<HttpSettings, ProxyError> {
        let proxy = match &self.proxy {
            None => None,
            Some(ProxyAddress::Plain(url)) => Some(url.clone()),
            Some(ProxyAddress::Secret(reference)) => {
                let text = reference.read().await?;
                let url = Url::parse(text.expose_secret().trim());
                let url =
                    url.ok().filter(|url| url.has_host()).ok_or(ProxyError::NotAUrl(reference.clone()))?;
                Some(url)
            }
        };
        Ok(HttpSettings {
            proxy,
            no_proxy: self.no_proxy_text(),
            ca_files: self.ca_files.clone(),
            connect_timeout: self.connect_timeout,
        })
    }
}
