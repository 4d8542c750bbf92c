//! `[sinks.NAME]`: one destination. A new kind of sink is one variant of [`SinkKind`], one word of [`SinkType`] and
//! one function that reads its own keys.

mod archive;
mod azure;
mod kafka;
mod sentinel;
mod splunk_hec;

use std::{
    num::{NonZeroU32, NonZeroU64},
    path::{Path, PathBuf},
    time::Duration,
};

use schemas::{SinkName, TenantId};
use sinks::{
    file::{Compression, FileConfig},
    rate::{LONGEST_BURST, Rate},
    splunk_hec::HecConfig,
};
use transform::{
    filter::{Filter, Match},
    options::{ClassPolicy, Facts, OcsfVersion, RawData, RenderOptions, View},
};

pub(crate) use self::{archive::ArchiveSinkConfig, kafka::KafkaSinkConfig, sentinel::SentinelSinkConfig};
use super::{
    reader::{Section, nearest},
    tenant::TenantConfig,
    value::{Bytes, Keyword},
};
use crate::units;

/// A destination as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SinkConfig {
    /// The name of its section: a key in the ledger.
    pub(crate) name: SinkName,
    /// What it is, with the keys of its kind.
    pub(crate) kind: SinkKind,
    /// In which shape it wants the records. What a tenant and its own kind add to it is not in here: see
    /// [`SinkConfig::render_options`].
    pub(crate) render: RenderOptions,
    /// Whether fetching waits for it when the spool is full. An optional sink's oldest deliveries make room instead.
    pub(crate) required: bool,
    /// What it gets when the ledger first meets it.
    pub(crate) start_from: StartFrom,
    /// The most records a second.
    pub(crate) events_per_second: Option<NonZeroU32>,
    /// The most bytes a second, as rendered.
    pub(crate) bytes_per_second: Option<NonZeroU64>,
    /// How much of both can be saved up.
    pub(crate) burst: Duration,
    /// Which records it wants.
    pub(crate) filter: Filter,
}

/// The kinds of sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SinkKind {
    /// Lines in files of a directory.
    File(FileConfig),
    /// Splunk's HTTP Event Collector.
    SplunkHec(Box<HecConfig>),
    /// Topics of Apache Kafka.
    Kafka(Box<KafkaSinkConfig>),
    /// A table of Microsoft Sentinel.
    Sentinel(Box<SentinelSinkConfig>),
    /// Objects of an archive.
    Archive(Box<ArchiveSinkConfig>),
}

impl SinkKind {
    /// Whether its destination remembers which ledger it was delivered from.
    pub(crate) fn remembers_its_ledger(&self) -> bool {
        match self {
            Self::Kafka(kafka) => kafka.kafka.transactions.is_some(),
            Self::File(_) | Self::SplunkHec(_) | Self::Sentinel(_) | Self::Archive(_) => false,
        }
    }

    /// What it asks of each record beside its bytes.
    fn facts(&self) -> Facts {
        match self {
            // A file's lines are known again by id, or by operation and user; Splunk and Sentinel are told the time.
            Self::File(_) | Self::SplunkHec(_) | Self::Sentinel(_) | Self::Archive(_) => Facts::Plain,
            Self::Kafka(kafka) if kafka.kafka.key == sinks::kafka::Key::Mailbox => Facts::Mailbox,
            Self::Kafka(_) => Facts::Plain,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SinkType {
    File,
    SplunkHec,
    Kafka,
    Sentinel,
    Archive,
}

/// What a new sink gets first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartFrom {
    /// Everything that the spool still holds.
    Spooled,
    /// Only what comes from then on.
    Now,
}

impl Keyword for SinkType {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("file", Self::File),
        ("splunk_hec", Self::SplunkHec),
        ("kafka", Self::Kafka),
        ("sentinel", Self::Sentinel),
        ("archive", Self::Archive),
    ];
}

impl Keyword for View {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("ocsf", Self::Ocsf),
        ("raw", Self::Raw),
        ("ecs", Self::Ecs),
        ("asim", Self::Asim),
        ("splunk", Self::Splunk),
        ("officeactivity", Self::OfficeActivity),
    ];
}

impl Keyword for StartFrom {
    const WORDS: &'static [(&'static str, Self)] = &[("spooled", Self::Spooled), ("now", Self::Now)];
}

impl Keyword for Compression {
    const WORDS: &'static [(&'static str, Self)] =
        &[("none", Self::None), ("gzip", Self::Gzip), ("zstd", Self::Zstd)];
}

impl Keyword for OcsfVersion {
    const WORDS: &'static [(&'static str, Self)] =
        &[("1.8.0", Self::V1_8), ("1.7.0", Self::V1_7), ("1.6.0", Self::V1_6), ("1.5.0", Self::V1_5)];
}

impl Keyword for ClassPolicy {
    const WORDS: &'static [(&'static str, Self)] = &[("rich", Self::Rich), ("api_only", Self::ApiOnly)];
}

impl Keyword for RawData {
    const WORDS: &'static [(&'static str, Self)] =
        &[("none", Self::None), ("hash", Self::Hash), ("full", Self::Full)];
}

impl SinkConfig {
    /// Reads the section. `None` when something in it is wrong, which is then reported. `tenants` are those that a
    /// filter may name.
    pub(super) fn read(name: &str, mut section: Section<'_>, tenants: &[TenantConfig]) -> Option<Self> {
        let name: Option<SinkName> = name.parse().ok();
        if name.is_none() {
            section.wrong_section("cannot name a sink: use 1 to 64 letters, digits, `_` or `-`");
        }
        if !section.has("type") {
            let words: Vec<_> = SinkType::WORDS.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            section.missing("type", &format!("say what it is: {}", words.join(", ")));
        }
        // Without a type the section's own keys are unknown, and complaining about each would hide what matters.
        let kind = section.keyword("type")?;
        let default_view = match kind {
            SinkType::File | SinkType::Kafka => View::Ocsf,
            // What is there for Splunk expects the record as it came.
            SinkType::SplunkHec => View::Raw,
            SinkType::Sentinel => View::Asim,
            // Evidence is the record itself.
            SinkType::Archive => View::Raw,
        };
        let render = read_render(&mut section, default_view);
        let kind = match kind {
            SinkType::File => read_file(&mut section).map(SinkKind::File),
            SinkType::SplunkHec => {
                splunk_hec::read(&mut section, render.view).map(|hec| SinkKind::SplunkHec(Box::new(hec)))
            }
            SinkType::Kafka => kafka::read(&mut section, name.as_ref(), &render)
                .map(|kafka| SinkKind::Kafka(Box::new(kafka))),
            SinkType::Sentinel => sentinel::read(&mut section, render.view)
                .map(|sentinel| SinkKind::Sentinel(Box::new(sentinel))),
            SinkType::Archive => {
                archive::read(&mut section, render.view).map(|archive| SinkKind::Archive(Box::new(archive)))
            }
        };
        let required = section.get_or("required", true);
        let start_from = section.keyword("start_from").unwrap_or(StartFrom::Spooled);
        let events_per_second = section.get("events_per_second");
        let bytes_per_second =
            section.get("bytes_per_second").and_then(|Bytes(bytes)| NonZeroU64::new(bytes));
        let burst = read_burst(&mut section);
        let excludes = section.has("exclude");
        let Match { tenants: only, content_types, operations, record_types, users, mailboxes } =
            read_match(section.section("filter"), tenants);
        let exclude = read_match(section.section("exclude"), tenants);
        if excludes && exclude == Match::default() {
            section.wrong("exclude", "is empty; name what is to be left out, or leave the section out");
        }
        section.finish();
        Some(Self {
            name: name?,
            kind: kind?,
            render,
            required,
            start_from,
            events_per_second,
            bytes_per_second,
            burst,
            filter: Filter {
                tenants: only,
                content_types,
                operations,
                record_types,
                users,
                mailboxes,
                exclude,
            },
        })
    }
}

impl SinkConfig {
    /// The directory on this machine that it writes to.
    pub(crate) fn directory(&self) -> Option<&Path> {
        match &self.kind {
            SinkKind::File(file) => Some(&file.directory),
            SinkKind::Archive(archive) => archive.directory(),
            SinkKind::SplunkHec(_) | SinkKind::Kafka(_) | SinkKind::Sentinel(_) => None,
        }
    }

    /// The address of the bucket or container, with the folder in it, that an archive lies in.
    pub(crate) fn bucket(&self) -> Option<String> {
        match &self.kind {
            SinkKind::Archive(archive) => archive.bucket(),
            _ => None,
        }
    }

    /// How fast it may be delivered to. It has to be made within a runtime.
    pub(crate) fn rate(&self) -> Rate {
        Rate::with_burst(self.events_per_second, self.bytes_per_second, self.burst)
    }

    /// The PEM of the certificate that it shows to its destination.
    pub(crate) fn client_certificate(&self) -> Option<&Path> {
        match &self.kind {
            SinkKind::SplunkHec(hec) => hec.tls.client.as_ref().map(|(certificate, _)| certificate.as_path()),
            SinkKind::Kafka(kafka) => {
                let client = kafka.kafka.tls.as_ref()?.client.as_ref()?;
                Some(&client.certificate_file)
            }
            SinkKind::File(_) | SinkKind::Sentinel(_) | SinkKind::Archive(_) => None,
        }
    }

    /// Whether it is made anew when `[network]` changes.
    pub(crate) fn uses_network(&self) -> bool {
        match &self.kind {
            SinkKind::File(_) => false,
            SinkKind::SplunkHec(_) | SinkKind::Sentinel(_) => true,
            SinkKind::Archive(archive) => archive.uses_network(),
            SinkKind::Kafka(kafka) => kafka.uses_tokens(),
        }
    }

    /// How a tenant's records are rendered for this sink.
    pub(crate) fn render_options(&self, tenant: &TenantConfig) -> RenderOptions {
        RenderOptions {
            facts: self.kind.facts(),
            accepted_domains: tenant.accepted_domains.clone(),
            first_party_apps: tenant.first_party_apps.clone(),
            ..self.render.clone()
        }
    }
}

/// Under this, what the machine's timers are late by would make the pace slower than it is configured.
const SHORTEST_BURST: Duration = Duration::from_millis(100);

fn read_burst(section: &mut Section<'_>) -> Duration {
    let limited = section.has("events_per_second") || section.has("bytes_per_second");
    let burst: Option<Duration> = section.get("burst");
    if let Some(burst) = burst {
        if !(SHORTEST_BURST..=LONGEST_BURST).contains(&burst) {
            let what = format!("must be from 100ms to 1s, not {}", units::format_duration(burst));
            section.wrong("burst", what);
        } else if !limited {
            section.wrong("burst", "has no use without `events_per_second` or `bytes_per_second`");
        }
    }
    burst.unwrap_or(LONGEST_BURST)
}

fn read_file(section: &mut Section<'_>) -> Option<FileConfig> {
    let directory: Option<PathBuf> =
        section.require("directory", "it is where the files go, such as \"/var/log/mailtrail\"");
    let usual = FileConfig::new(directory.clone().unwrap_or_default());
    let Bytes(rotate_bytes) = section.get_or("rotate_bytes", Bytes(usual.rotate_bytes));
    let config = FileConfig {
        file_name: section.get_or("file_name", usual.file_name),
        rotate_bytes,
        rotate_interval: section.get_or("rotate_interval", usual.rotate_interval),
        mode: section.get_or("mode", usual.mode),
        group: section.get("group"),
        compression: section.keyword("compression").unwrap_or_default(),
        keep: section.get("keep"),
        directory: usual.directory,
    };
    if config.group.is_some() && config.mode.bits() & 0o060 == 0 {
        let what = format!(
            "has no use with mode = \"{:04o}\", which keeps the group out; set mode = \"0640\"",
            config.mode.bits()
        );
        section.wrong("group", what);
    }
    directory.map(|_| config)
}

/// The keys that only OCSF events have.
const OCSF_KEYS: [&str; 5] = ["ocsf_version", "class_policy", "raw_data", "observables", "captions"];

fn read_render(section: &mut Section<'_>, default_view: View) -> RenderOptions {
    let usual = RenderOptions::default();
    let options = RenderOptions {
        view: section.keyword("view").unwrap_or(default_view),
        ocsf_version: section.keyword("ocsf_version").unwrap_or(usual.ocsf_version),
        class_policy: section.keyword("class_policy").unwrap_or(usual.class_policy),
        raw_data: section.keyword("raw_data").unwrap_or(usual.raw_data),
        observables: section.get_or("observables", usual.observables),
        captions: section.get_or("captions", usual.captions),
        tags: section.get_or("tags", usual.tags),
        ..usual
    };
    match options.view {
        View::Ocsf => {}
        View::Raw => {
            for key in OCSF_KEYS.into_iter().chain(["tags"]).filter(|key| section.has(key)) {
                section.wrong(key, "has no meaning for view = \"raw\", which is the record's own bytes");
            }
        }
        view @ (View::Ecs | View::Asim | View::Splunk | View::OfficeActivity) => {
            for key in OCSF_KEYS.into_iter().filter(|key| section.has(key)) {
                section
                    .wrong(key, format!("has no meaning for view = \"{view}\"; only view = \"ocsf\" has it"));
            }
        }
    }
    options
}

/// The lists of `[sinks.NAME.filter]` and of `[sinks.NAME.exclude]`.
fn read_match(mut section: Section<'_>, tenants: &[TenantConfig]) -> Match {
    let named: Vec<String> = section.list("tenants").unwrap_or_default();
    for name in &named {
        check_tenant(&section, name, tenants);
    }
    let lists = Match {
        tenants: named,
        content_types: section.list("content_types").unwrap_or_default(),
        operations: section.list("operations").unwrap_or_default(),
        record_types: section.list("record_types").unwrap_or_default(),
        users: section.list("users").unwrap_or_default(),
        mailboxes: section.list("mailboxes").unwrap_or_default(),
    };
    section.finish();
    lists
}

/// A filter names tenants by the names of their sections, as patterns or not, or by id, which also fits one that is
/// no longer configured. A name that fits none would silently keep nothing.
fn check_tenant(section: &Section<'_>, name: &str, tenants: &[TenantConfig]) {
    let known = tenants.iter().any(|tenant| tenant.name.eq_ignore_ascii_case(name));
    if known || name.contains(['*', '?']) || name.parse::<TenantId>().is_ok() {
        return;
    }
    let hint = match nearest(name, tenants.iter().map(|tenant| tenant.name.as_str())) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => "use the name of a [tenants.NAME] section or a tenant id".to_owned(),
    };
    section.wrong("tenants", format!("names {name:?}, which is no tenant; {hint}"));
}
