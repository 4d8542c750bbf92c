//! The keys of `type = "kafka"`.

use std::{collections::BTreeMap, num::NonZeroU32, path::PathBuf, time::Duration};

use entra::{Scope, ServiceUrl};
use schemas::{SinkName, TenantId};
use sinks::{
    kafka::{
        ClientCertificate, Compression, KafkaConfig, Key, Login, Mechanism, Oidc, Oversize, Preset,
        Timestamp, Tls, Tokens, Transactions, is_topic_name, refused_setting, usual_delivery_timeout,
    },
    template::Template,
};
use toml::de::DeValue;
use transform::options::{OcsfVersion, RenderOptions, View};
use url::Url;

use super::super::{
    reader::Section,
    tenant::{Credentials, read_credentials},
    value::{Bytes, FromToml, Keyword, Misfit},
};

/// A `kafka` sink as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KafkaSinkConfig {
    /// What the sink wants to know.
    pub(crate) kafka: KafkaConfig,
    /// Where access tokens come from, when it logs in with them.
    tokens: Option<TokenConfig>,
}

/// Where access tokens come from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum TokenConfig {
    /// Entra ID.
    Entra {
        authority: ServiceUrl,
        /// `None` for a managed identity, which knows its own.
        tenant_id: Option<TenantId>,
        credentials: Credentials,
        scope: Scope,
    },
    /// Another provider.
    Oidc(Oidc),
}

impl KafkaSinkConfig {
    /// Whether it logs in with access tokens, which it gets over HTTP.
    pub(crate) fn uses_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// What gives out access tokens, if the sink logs in with them. Nothing is asked for yet.
    ///
    /// # Errors
    ///
    /// When the platform does not offer the identity that is configured.
    pub(crate) fn tokens(&self, http: &reqwest::Client) -> Result<Option<Tokens>, String> {
        match &self.tokens {
            None => Ok(None),
            Some(TokenConfig::Oidc(provider)) => {
                Ok(Some(Tokens::Oidc { provider: provider.clone(), http: http.clone() }))
            }
            Some(TokenConfig::Entra { authority, tenant_id, credentials, scope }) => {
                let tenant = tenant_id.map(|id| id.to_string());
                let source = credentials
                    .token_source("sasl.entra", authority, tenant.as_deref(), scope.clone(), http.clone())
                    .map_err(|error| error.to_string())?;
                Ok(Some(Tokens::Entra(source)))
            }
        }
    }
}

impl Keyword for Key {
    const WORDS: &'static [(&'static str, Self)] =
        &[("mailbox", Self::Mailbox), ("user", Self::User), ("tenant", Self::Tenant), ("none", Self::None)];
}

impl Keyword for Timestamp {
    const WORDS: &'static [(&'static str, Self)] =
        &[("creation_time", Self::CreationTime), ("sent", Self::Sent)];
}

impl Keyword for Compression {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("none", Self::None),
        ("gzip", Self::Gzip),
        ("snappy", Self::Snappy),
        ("lz4", Self::Lz4),
        ("zstd", Self::Zstd),
    ];
}

impl Keyword for Oversize {
    const WORDS: &'static [(&'static str, Self)] =
        &[("dead_letter", Self::DeadLetter), ("truncate", Self::Truncate)];
}

impl Keyword for Preset {
    const WORDS: &'static [(&'static str, Self)] = &[("kafka", Self::Kafka), ("event_hubs", Self::EventHubs)];
}

/// The mechanisms of SASL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sasl {
    Password(Mechanism),
    Token,
}

impl Keyword for Sasl {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("PLAIN", Self::Password(Mechanism::Plain)),
        ("SCRAM-SHA-256", Self::Password(Mechanism::ScramSha256)),
        ("SCRAM-SHA-512", Self::Password(Mechanism::ScramSha512)),
        ("OAUTHBEARER", Self::Token),
    ];
}

/// `host:port`.
struct Server(String);

impl FromToml for Server {
    const EXPECTED: &'static str = "a broker such as \"kafka-1.example.com:9092\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Misfit> {
        let text = String::from_toml(value)?;
        let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
        if port.is_none_or(|port| port.parse::<u16>().is_err()) || text.contains([',', '/', ' ']) {
            return Err(Misfit::Value(format!("{text:?} is not host:port")));
        }
        Ok(Self(text))
    }
}

/// The value of one of librdkafka's settings.
struct Setting(String);

impl FromToml for Setting {
    const EXPECTED: &'static str = "a text, a whole number, true or false";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Misfit> {
        if value.is_integer() {
            i64::from_toml(value).map(|number| Self(number.to_string()))
        } else if value.is_bool() {
            bool::from_toml(value).map(|value| Self(value.to_string()))
        } else {
            String::from_toml(value).map(Self)
        }
    }
}

/// The least that the queue within the producer can be of use with.
const SMALLEST_QUEUE: u64 = 1 << 20;

/// Reads the keys that only this kind of sink has. `render` is how its records look.
pub(super) fn read(
    section: &mut Section<'_>,
    name: Option<&SinkName>,
    render: &RenderOptions,
) -> Option<KafkaSinkConfig> {
    if !section.has("bootstrap_servers") {
        section.missing("bootstrap_servers", "name brokers to begin with, such as [\"kafka-1:9092\"]");
    }
    let servers: Option<Vec<Server>> = section.list("bootstrap_servers");
    let servers: Option<Vec<String>> =
        servers.map(|servers| servers.into_iter().map(|Server(server)| server).collect());
    let topic = read_topic(section);
    let preset = section.keyword("preset").unwrap_or(Preset::Kafka);
    let compression = section.keyword("compression").unwrap_or(preset.compression());
    if preset == Preset::EventHubs && !matches!(compression, Compression::None | Compression::Gzip) {
        section.wrong("compression", "can only be \"gzip\" or \"none\" with preset = \"event_hubs\"");
    }
    let max_message_bytes = read_max_message_bytes(section, preset);
    let Bytes(queue_bytes) = section.get_or("queue_bytes", Bytes(16 << 20));
    if queue_bytes < SMALLEST_QUEUE.max(2 * u64::from(max_message_bytes.get())) {
        section.wrong("queue_bytes", "must be at least 1MiB, and twice as much as max_message_bytes");
    }
    let transactions = read_transactions(section, name);
    let usual = usual_delivery_timeout(transactions.is_some());
    let delivery_timeout = section.get_or("delivery_timeout", usual);
    let longest = Duration::from_secs(15 * 60);
    if delivery_timeout < Duration::from_secs(5) || delivery_timeout > longest {
        section.wrong("delivery_timeout", "must be from 5s to 15m");
    }
    let tls = read_tls(section);
    let mut config = KafkaSinkConfig {
        kafka: KafkaConfig {
            bootstrap_servers: servers.clone().unwrap_or_default(),
            topic,
            key: section.keyword("key").unwrap_or(Key::Mailbox),
            timestamp: section.keyword("timestamp").unwrap_or(Timestamp::CreationTime),
            headers: section.get_or("headers", true),
            schema: schema(render),
            compression,
            max_message_bytes,
            oversize: section.keyword("oversize").unwrap_or(Oversize::DeadLetter),
            delivery_timeout,
            queue_bytes,
            transactions,
            tls,
            login: None,
            preset,
            librdkafka: read_settings(section),
        },
        tokens: None,
    };
    if section.has("sasl") {
        let (login, tokens) = read_sasl(section.section("sasl"), &config.kafka)?;
        config.kafka.login = Some(login);
        config.tokens = tokens;
    } else {
        section.asked_for("sasl");
    }
    servers.map(|_| config)
}

fn read_topic(section: &mut Section<'_>) -> Template {
    let usual = "o365.{content_type}".parse().expect("a template of our own");
    let topic: Template = section.get_or("topic", usual);
    let text = topic.to_string();
    let fixed: String = text.split(['{', '}']).step_by(2).collect();
    if text.contains("{content_id}") {
        section.wrong("topic", "cannot hold {content_id}: every blob would want a topic of its own");
    } else if !is_topic_name(&format!("{fixed}x")) {
        section.wrong("topic", "can only hold letters, digits, `.`, `_`, `-` and placeholders");
    }
    topic
}

fn read_max_message_bytes(section: &mut Section<'_>, preset: Preset) -> NonZeroU32 {
    let usual = NonZeroU32::new(preset.max_message_bytes()).expect("it is not zero");
    let Some(Bytes(bytes)) = section.get("max_message_bytes") else { return usual };
    let largest = match preset {
        Preset::Kafka => 100_000_000,
        Preset::EventHubs => 1_046_000,
    };
    match u32::try_from(bytes).ok().and_then(NonZeroU32::new) {
        Some(bytes) if (1_000..=largest).contains(&bytes.get()) => bytes,
        _ => {
            section.wrong("max_message_bytes", format!("must be from 1000 to {largest} bytes"));
            usual
        }
    }
}

fn read_transactions(section: &mut Section<'_>, name: Option<&SinkName>) -> Option<Transactions> {
    let transactions = section.get_or("transactions", false);
    let progress_topic: Option<String> = section.get("progress_topic");
    let transactional_id: Option<String> = section.get("transactional_id");
    for key in ["progress_topic", "transactional_id"] {
        if section.has(key) && !transactions {
            section.wrong(key, "has no meaning without transactions = true");
        }
    }
    let progress_topic = progress_topic.unwrap_or_else(|| Transactions::PROGRESS_TOPIC.to_owned());
    if !is_topic_name(&progress_topic) {
        section.wrong("progress_topic", "must be the name of a topic: letters, digits, `.`, `_` and `-`");
    }
    if transactional_id.as_ref().is_some_and(|id| id.contains('/') || id.len() > 249) {
        section.wrong("transactional_id", "must have at most 249 characters, and no `/`");
    }
    let usual = || name.map(Transactions::usual_id).unwrap_or_default();
    let transactional_id = transactional_id.unwrap_or_else(usual);
    transactions.then_some(Transactions { progress_topic, transactional_id })
}

/// `tls = true`, or a section that says whom to trust and who one is.
fn read_tls(section: &mut Section<'_>) -> Option<Tls> {
    if section.has("tls") && !section.is_section("tls") {
        return section.get_or("tls", false).then(Tls::default);
    }
    let there = section.has("tls");
    let mut tls = section.section("tls");
    let ca_file = tls.get("ca_file");
    let certificate_file: Option<PathBuf> = tls.get("certificate_file");
    let key = tls.secret("key");
    let key_password = tls.secret("key_password");
    for (key, other) in [("certificate_file", "key"), ("key", "certificate_file"), ("key_password", "key")] {
        if tls.has(key) && !tls.has(other) {
            tls.wrong(key, format!("needs `{other}` beside it"));
        }
    }
    tls.finish();
    let client = certificate_file.zip(key);
    let client =
        client.map(|(certificate_file, key)| ClientCertificate { certificate_file, key, key_password });
    there.then_some(Tls { ca_file, client })
}

fn read_settings(section: &mut Section<'_>) -> BTreeMap<String, String> {
    if !section.has("librdkafka") {
        section.asked_for("librdkafka");
        return BTreeMap::new();
    }
    let settings: Vec<(String, Setting)> = section.entries("librdkafka").unwrap_or_default();
    for (name, _) in &settings {
        if let Some(why) = refused_setting(name) {
            section.wrong("librdkafka", format!("cannot set {name:?}: {why}"));
        }
    }
    settings.into_iter().map(|(name, Setting(value))| (name, value)).collect()
}

fn read_sasl(mut sasl: Section<'_>, kafka: &KafkaConfig) -> Option<(Login, Option<TokenConfig>)> {
    if !sasl.has("mechanism") {
        let words: Vec<_> = Sasl::WORDS.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        sasl.missing("mechanism", &format!("it is one of {}", words.join(", ")));
    }
    let mechanism: Option<Sasl> = sasl.keyword("mechanism");
    let username: Option<String> = sasl.get("username");
    let password = sasl.secret("password");
    let (has_entra, has_oidc) = (sasl.has("entra"), sasl.has("oidc"));
    let entra = read_entra(sasl.section("entra"), has_entra, kafka);
    let oidc = read_oidc(sasl.section("oidc"), has_oidc);
    let read = match mechanism? {
        Sasl::Password(mechanism) => {
            for key in ["entra", "oidc"].into_iter().filter(|key| sasl.has(key)) {
                sasl.wrong(key, "is for mechanism = \"OAUTHBEARER\"");
            }
            for (key, hint) in [
                ("username", "it is the user's name; \"$ConnectionString\" for Event Hubs"),
                ("password", "say where it is: { env = \"NAME\" } or { file = \"/path\" }"),
            ] {
                if !sasl.has(key) {
                    sasl.missing(key, hint);
                }
            }
            if mechanism == Mechanism::Plain && kafka.tls.is_none() {
                sasl.wrong("mechanism", "sends the password as it is: set tls = true, or use SCRAM-SHA-256");
            }
            let login = username.zip(password);
            login.map(|(username, password)| (Login::Password { mechanism, username, password }, None))
        }
        Sasl::Token => {
            for key in ["username", "password"].into_iter().filter(|key| sasl.has(key)) {
                sasl.wrong(key, "has no meaning for mechanism = \"OAUTHBEARER\"");
            }
            match (has_entra, has_oidc) {
                (true, true) | (false, false) => {
                    sasl.wrong_section(
                        "needs either `entra` (Event Hubs) or `oidc` (another provider) for OAUTHBEARER",
                    );
                    None
                }
                (true, false) => entra.map(|tokens| (Login::Token, Some(tokens))),
                (false, true) => oidc.map(|oidc| (Login::Token, Some(TokenConfig::Oidc(oidc)))),
            }
        }
    };
    sasl.finish();
    read
}

fn read_entra(mut entra: Section<'_>, there: bool, kafka: &KafkaConfig) -> Option<TokenConfig> {
    let authority: Option<ServiceUrl> = entra.get("authority");
    let tenant_id: Option<TenantId> = entra.get("tenant_id");
    let scope: Option<String> = entra.get("scope");
    let credentials = read_credentials(&mut entra, there);
    let managed = matches!(credentials, Some(Credentials::ManagedIdentity { .. }));
    if there && !managed && !entra.has("tenant_id") {
        entra.missing("tenant_id", "it is the directory (tenant) id that the application is registered in");
    }
    // https://learn.microsoft.com/azure/event-hubs/azure-event-hubs-apache-kafka-overview: the namespace is the resource.
    let namespace = kafka.bootstrap_servers.first().and_then(|server| server.rsplit_once(':'));
    let usual = namespace.map(|(host, _)| format!("https://{host}/.default")).unwrap_or_default();
    let scope = scope.unwrap_or(usual);
    let resource = scope.strip_suffix("/.default").and_then(|resource| Scope::of_resource(resource).ok());
    if there && resource.is_none() {
        entra.wrong("scope", "must be a resource and \"/.default\", such as \"https://NAMESPACE.servicebus.windows.net/.default\"");
    }
    entra.finish();
    let usual_authority =
        || "https://login.microsoftonline.com".parse().expect("Microsoft's own address is one");
    if !there || (tenant_id.is_none() && !managed) {
        return None;
    }
    Some(TokenConfig::Entra {
        authority: authority.unwrap_or_else(usual_authority),
        tenant_id,
        credentials: credentials?,
        scope: resource?,
    })
}

fn read_oidc(mut oidc: Section<'_>, there: bool) -> Option<Oidc> {
    let token_url: Option<Url> = oidc.get("token_url");
    let client_id: Option<String> = oidc.get("client_id");
    let client_secret = oidc.secret("client_secret");
    let scope = oidc.get("scope");
    let audience = oidc.get("audience");
    if there {
        for (key, hint) in [
            ("token_url", "it is the provider's token endpoint"),
            ("client_id", "it is who mailtrail is to the provider"),
            ("client_secret", "say where it is: { env = \"NAME\" } or { file = \"/path\" }"),
        ] {
            if !oidc.has(key) {
                oidc.missing(key, hint);
            }
        }
    }
    if let Some(url) = &token_url {
        let local = matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
        if url.scheme() != "https" && !local {
            oidc.wrong("token_url", "must begin with https://: the secret is sent there");
        }
        if !url.username().is_empty() || url.password().is_some() {
            oidc.wrong("token_url", "must not hold a password");
        }
    }
    oidc.finish();
    Some(Oidc {
        token_url: token_url?,
        client_id: client_id?,
        client_secret: client_secret?,
        scope,
        audience,
    })
}

/// What the header `schema` says.
fn schema(render: &RenderOptions) -> String {
    match render.view {
        View::Ocsf => {
            let version = OcsfVersion::WORDS.iter().find(|(_, version)| *version == render.ocsf_version);
            format!("ocsf/{}", version.map_or("", |(word, _)| word))
        }
        View::Raw => "o365-management-activity/1".to_owned(),
        view @ (View::Ecs | View::Asim | View::Splunk | View::OfficeActivity) => view.to_string(),
    }
}
