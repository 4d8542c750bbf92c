//! The keys of `type = "splunk_hec"`.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use sinks::{
    splunk_hec::{Acknowledgement, EventForm, HecConfig, HecUrl, Tls},
    template::Template,
};
use transform::options::View;

use super::super::{
    reader::Section,
    value::{Bytes, FromToml, Keyword, Misfit, text},
};

/// Whether requests are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnTheWay {
    None,
    Gzip,
}

impl Keyword for OnTheWay {
    const WORDS: &'static [(&'static str, Self)] = &[("none", Self::None), ("gzip", Self::Gzip)];
}

impl Keyword for Acknowledgement {
    const WORDS: &'static [(&'static str, Self)] = &[("indexer", Self::Indexer), ("accept", Self::Accept)];
}

impl Keyword for EventForm {
    const WORDS: &'static [(&'static str, Self)] = &[("string", Self::String), ("object", Self::Object)];
}

impl FromToml for HecUrl {
    const EXPECTED: &'static str =
        "the URL of an HTTP Event Collector such as \"https://splunk.example.com:8088\"";

    // What is wrong is not shown: a URL may hold a password.
    fn from_toml(value: &toml::de::DeValue<'_>) -> Result<Self, Misfit> {
        text(value)?.parse().map_err(|error: sinks::splunk_hec::BadHecUrl| Misfit::Value(error.to_string()))
    }
}

/// A receiver takes at most this; beyond it, one large request would hold up all others.
const LARGEST_BATCH: u64 = 16 << 20;
/// Shorter, a receiver that is merely slow would get everything twice.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the keys that only this kind of sink has. The view is the section's own, or the default of this kind.
pub(super) fn read(section: &mut Section<'_>, view: View) -> Option<HecConfig> {
    let urls = read_urls(section);
    let token = section.secret("token");
    if !section.has("token") {
        section.missing("token", "say where it is: { env = \"NAME\" } or { file = \"/path\" }");
    }
    if !section.has("acknowledgement") {
        section.missing(
            "acknowledgement",
            "choose \"indexer\": delivered means that the indexer has it on disk (the token needs indexer \
             acknowledgement), or \"accept\": delivered means that the receiver took it, and its crash can lose that. \
             Splunk Cloud supports \"accept\" only",
        );
    }
    let acknowledgement: Option<Acknowledgement> = section.keyword("acknowledgement");
    let ack_timeout = section.get("ack_timeout");
    if ack_timeout.is_some() && acknowledgement == Some(Acknowledgement::Accept) {
        section.wrong("ack_timeout", "has no meaning with acknowledgement = \"accept\"");
    }
    let event = section.keyword("event").unwrap_or(match view {
        View::Raw => EventForm::String,
        View::Ocsf | View::Ecs | View::Asim | View::Splunk | View::OfficeActivity => EventForm::Object,
    });
    let fixed = |text: &str| text.parse::<Template>().expect("a template of our own");
    let host = section.get_or("host", fixed("{tenant}"));
    // What Splunk's own add-on writes, so that searches by it go on to find what they did.
    let source = section.get_or(
        "source",
        fixed("https://manage.office.com/api/v1.0/{tenant_id}/activity/feed/audit/{content_id}"),
    );
    let sourcetype = section.get_or(
        "sourcetype",
        match view {
            View::Raw | View::Splunk => fixed("o365:management:activity"),
            View::Ocsf | View::Ecs | View::Asim | View::OfficeActivity => fixed(&format!("mailtrail:{view}")),
        },
    );
    let index = section.get("index");
    let fields = section.entries("fields").unwrap_or_else(|| {
        vec![("o365_tenant".to_owned(), fixed("{tenant}")), ("o365_collector".to_owned(), fixed("mailtrail"))]
    });
    let gzip = section.keyword("compression").unwrap_or(OnTheWay::Gzip) == OnTheWay::Gzip;
    let Bytes(batch_bytes) = section.get_or("batch_bytes", Bytes(768 << 10));
    if batch_bytes > LARGEST_BATCH {
        section.wrong("batch_bytes", "can be at most 16MiB");
    }
    let number = |section: &mut Section<'_>, key, default| {
        let number: Option<NonZeroU32> = section.get(key);
        number.map_or(default, |number| number.get() as usize)
    };
    let batch_events = number(section, "batch_events", 1000);
    let linger = section.get_or("linger", Duration::from_secs(1));
    if linger > Duration::from_secs(60) {
        section.wrong("linger", "can be at most 60s");
    }
    let connections = number(section, "connections", 4);
    if connections > 64 {
        section.wrong("connections", "can be at most 64");
    }
    let timeout = section.get_or("timeout", Duration::from_secs(60));
    if timeout < SHORTEST_TIMEOUT {
        section
            .wrong("timeout", "must be at least 5s: what takes longer is sent again, and may arrive twice");
    }
    let tls = read_tls(section);
    Some(HecConfig {
        urls: urls?,
        token: token?,
        acknowledgement: acknowledgement?,
        ack_timeout: ack_timeout.unwrap_or(Duration::from_secs(300)),
        event,
        host,
        source,
        sourcetype,
        index,
        fields,
        gzip,
        batch_bytes: usize::try_from(batch_bytes.min(LARGEST_BATCH)).unwrap_or(1 << 20),
        batch_events,
        linger,
        connections,
        timeout,
        tls,
    })
}

fn read_urls(section: &mut Section<'_>) -> Option<Vec<HecUrl>> {
    let hint = "it is the scheme, host and port of the HTTP Event Collector, such as \"https://splunk.example.com:8088\"";
    let (one, several): (Option<HecUrl>, Option<Vec<HecUrl>>) = (section.get("url"), section.list("urls"));
    match (section.has("url"), section.has("urls")) {
        (true, true) => section.wrong("urls", "stands beside `url`; write all of them into `urls`"),
        (false, false) => section.missing("url", hint),
        _ => {}
    }
    if let Some(several) = &several
        && let Some(twice) =
            several.iter().enumerate().find_map(|(n, url)| several[..n].contains(url).then_some(url))
    {
        section.wrong("urls", format!("names {twice} twice"));
    }
    several.or_else(|| one.map(|one| vec![one]))
}

fn read_tls(section: &mut Section<'_>) -> Tls {
    let ca_file = section.get("ca_file");
    let certificate: Option<PathBuf> = section.get("client_certificate");
    let key = section.secret("client_key");
    for (key, other) in [("client_certificate", "client_key"), ("client_key", "client_certificate")] {
        if section.has(key) && !section.has(other) {
            section.wrong(key, format!("needs `{other}` beside it"));
        }
    }
    Tls { ca_file, client: certificate.zip(key), unverified: !section.get_or("verify", true) }
}
