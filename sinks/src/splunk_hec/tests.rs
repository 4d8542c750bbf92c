//! What the tests of this sink share.

use entra::SecretSource;

use super::{config::Tls, *};

/// A configuration whose token is the name of this package.
pub(super) fn config() -> HecConfig {
    HecConfig {
        urls: vec!["https://splunk.example:8088".parse().unwrap()],
        token: SecretSource::Env("CARGO_PKG_NAME".to_owned()),
        acknowledgement: Acknowledgement::Indexer,
        ack_timeout: Duration::from_secs(300),
        event: EventForm::String,
        host: "{tenant}".parse().unwrap(),
        source: "src/{content_id}".parse().unwrap(),
        sourcetype: "st".parse().unwrap(),
        index: None,
        fields: Vec::new(),
        gzip: false,
        batch_bytes: 1 << 20,
        batch_events: 1000,
        linger: Duration::from_secs(1),
        connections: 4,
        timeout: Duration::from_secs(60),
        tls: Tls::default(),
    }
}
