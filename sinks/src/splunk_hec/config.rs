//! How a `splunk_hec` sink is configured, and where its receivers are.

use std::{path::PathBuf, str::FromStr, time::Duration};

use entra::SecretSource;
use url::Url;

use crate::template::Template;

/// The keys of a `splunk_hec` sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HecConfig {
    /// The receivers; at least one.
    pub urls: Vec<HecUrl>,
    /// The token. It is read for every request, so that a file that changes needs no restart.
    pub token: SecretSource,
    /// What proves delivery.
    pub acknowledgement: Acknowledgement,
    /// How long an acknowledgement is awaited before the batch is sent again.
    pub ack_timeout: Duration,
    /// How the event stands in its envelope.
    pub event: EventForm,
    /// `host` of every event.
    pub host: Template,
    /// `source` of every event.
    pub source: Template,
    /// `sourcetype` of every event.
    pub sourcetype: Template,
    /// `index` of every event; `None` leaves it to the token.
    pub index: Option<Template>,
    /// Indexed fields of every event.
    pub fields: Vec<(String, Template)>,
    /// Whether requests are compressed.
    pub gzip: bool,
    /// The most bytes of records in a request, as rendered: without envelopes, before compression.
    pub batch_bytes: usize,
    /// The most events in a request.
    pub batch_events: usize,
    /// How long an event waits for others to travel with it.
    pub linger: Duration,
    /// The most requests at once to each receiver.
    pub connections: usize,
    /// How long a request may take.
    pub timeout: Duration,
    /// How the receivers are believed.
    pub tls: Tls,
}

/// What proves delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledgement {
    /// The indexer says that it has it on disk.
    Indexer,
    /// The receiver says that it took it. If it crashes before it is indexed, it is lost.
    Accept,
}

/// How the event stands in its envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventForm {
    /// As text: Splunk's `_raw` is the record itself, on one line.
    String,
    /// As JSON.
    Object,
}

/// How the receivers are believed, and how they believe us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM of certificate authorities that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate, PEM, and its private key.
    pub client: Option<(PathBuf, SecretSource)>,
    /// Whether nobody's certificate is looked at.
    pub unverified: bool,
}

/// What all connections of the process share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HecNetwork {
    /// The proxy; `None` is what the environment says.
    pub proxy: Option<HecProxy>,
    /// Hosts that are reached without the configured proxy, in the form of `NO_PROXY`.
    pub no_proxy: Option<String>,
    /// PEM files of certificate authorities that are trusted beside the system's.
    pub ca_files: Vec<PathBuf>,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
}

/// Where the proxy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HecProxy {
    /// A proxy that asks for no password.
    Plain(Url),
    /// A URL that may hold user and password.
    Secret(SecretSource),
}

impl Default for HecNetwork {
    fn default() -> Self {
        Self { proxy: None, no_proxy: None, ca_files: Vec::new(), connect_timeout: Duration::from_secs(10) }
    }
}

/// Where one receiver is: scheme, host and port, and whatever a load balancer wants before HEC's own path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HecUrl {
    base: Url,
}

/// The text is not the address of a receiver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHecUrl {
    /// It is no URL.
    #[error("this is none: {0}")]
    NotAUrl(#[from] url::ParseError),
    /// It is another scheme, or names no host.
    #[error("it must begin with https:// (or http://, which shows the token to the network)")]
    Scheme,
    /// It holds a user, a password, a query or a fragment.
    #[error("it must hold no user, password, query or fragment; the token has a key of its own")]
    Surplus,
}

/// HEC's own path, which may stand in the configuration or not.
const COLLECTOR: &str = "services/collector";

impl FromStr for HecUrl {
    type Err = BadHecUrl;

    fn from_str(text: &str) -> Result<Self, BadHecUrl> {
        let mut base = Url::parse(text)?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(BadHecUrl::Scheme);
        }
        let named = !base.username().is_empty() || base.password().is_some();
        if named || base.query().is_some() || base.fragment().is_some() {
            return Err(BadHecUrl::Surplus);
        }
        let path = base.path().trim_end_matches('/');
        let path = ["/event", "/event/1.0"].iter().find_map(|end| path.strip_suffix(end)).unwrap_or(path);
        let path = path.strip_suffix(COLLECTOR).unwrap_or(path).trim_end_matches('/').to_owned();
        base.set_path(&path);
        Ok(Self { base })
    }
}

impl HecUrl {
    /// Whether others on the way can read what is sent.
    #[must_use]
    pub fn is_in_the_clear(&self) -> bool {
        let local = match self.base.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        self.base.scheme() == "http" && !local
    }

    pub(super) fn path(&self, end: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{COLLECTOR}/{end}", self.base.path().trim_end_matches('/')));
        url
    }
}

impl std::fmt::Display for HecUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.base.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_hold_the_collectors_path_or_not() {
        for (text, event) in [
            ("https://splunk.example:8088", "https://splunk.example:8088/services/collector/event"),
            ("https://splunk.example:8088/", "https://splunk.example:8088/services/collector/event"),
            ("http://h/services/collector", "http://h/services/collector/event"),
            ("http://h/services/collector/event", "http://h/services/collector/event"),
            ("http://h/services/collector/event/1.0", "http://h/services/collector/event"),
            ("https://h/splunk/hec/", "https://h/splunk/hec/services/collector/event"),
        ] {
            let url: HecUrl = text.parse().unwrap();
            assert_eq!(url.path("event").as_str(), event);
        }
        assert_eq!("https://h:8088/".parse::<HecUrl>().unwrap().to_string(), "https://h:8088");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["h:8088", "ftp://h", "https://", "https://u:p@h", "https://h?token=x", "https://h#x", ""]
        {
            assert!(text.parse::<HecUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn in_the_clear_is_what_leaves_the_machine_without_tls() {
        let clear = |text: &str| text.parse::<HecUrl>().unwrap().is_in_the_clear();
        assert!(clear("http://10.0.0.1:8088") && clear("http://splunk"));
        assert!(!clear("https://splunk") && !clear("http://127.0.0.1:8088") && !clear("http://[::1]"));
        assert!(!clear("http://localhost:8088"));
    }
}
