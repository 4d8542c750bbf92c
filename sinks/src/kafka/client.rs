//! librdkafka as this sink uses it: its settings, and what it tells while it works.

use std::{
    error::Error,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext, client::OAuthToken, config::RDKafkaLogLevel, consumer::ConsumerContext,
    error::KafkaError, message::DeliveryResult, producer::ProducerContext, types::RDKafkaErrorCode,
};
use schemas::SinkName;
use secrecy::ExposeSecret as _;
use tokio::runtime::Handle;
use tracing::{debug, info, warn};

use super::{
    config::{KafkaConfig, Login, Preset},
    figures::Figures,
    oauth::Tokens,
    tally::Report,
    verdict::{Verdict, code_of, verdict},
};
use crate::sink::DeliverError;

/// How often librdkafka tells its statistics.
const STATISTICS: Duration = Duration::from_secs(5);
/// How long a message waits for others. A transaction waits for the rest of its only batch.
const LINGER_OF_TRANSACTION: Duration = Duration::from_millis(5);
/// Otherwise the next batch follows. An idempotent producer has one request under way for each partition, and librdkafka's
/// thread turns without a pause when a message has waited long enough while there is one; so this is longer than most
/// brokers take to answer.
const LINGER: Duration = Duration::from_millis(50);
/// Milliseconds after which a message is given up that is given up by the sink long before.
const NEVER: i32 = i32::MAX;
/// How long getting an access token may take.
const TOKEN: Duration = Duration::from_secs(40);

/// The settings, but for secrets: these are read anew for every client.
pub(super) fn settings(config: &KafkaConfig) -> ClientConfig {
    let mut settings = ClientConfig::new();
    let mut set = |key: &str, value: &str| {
        settings.set(key, value);
    };
    set("bootstrap.servers", &config.bootstrap_servers.join(","));
    set("client.id", "mailtrail");
    set("socket.keepalive.enable", "true");
    set("statistics.interval.ms", &STATISTICS.as_millis().to_string());
    set("message.max.bytes", &config.max_message_bytes.to_string());
    set("log.connection.close", "false");
    let security = match (&config.tls, &config.login) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    set("security.protocol", security);
    if let Some(tls) = &config.tls {
        match &tls.ca_file {
            Some(path) => set("ssl.ca.location", &path.to_string_lossy()),
            // OpenSSL is built in, so it does not know where the system's authorities are.
            None => set("ssl.ca.location", "probe"),
        }
        if let Some(client) = &tls.client {
            set("ssl.certificate.location", &client.certificate_file.to_string_lossy());
        }
    }
    match &config.login {
        Some(Login::Password { mechanism, username, .. }) => {
            set("sasl.mechanism", mechanism.as_str());
            set("sasl.username", username);
        }
        Some(Login::Token) => set("sasl.mechanism", "OAUTHBEARER"),
        None => {}
    }
    if config.preset == Preset::EventHubs {
        // It closes connections that are silent for 240 s, and takes up to 20 s longer than Kafka to answer.
        set("metadata.max.age.ms", "180000");
        set("connections.max.idle.ms", "180000");
        set("request.timeout.ms", "60000");
    }
    for (key, value) in &config.librdkafka {
        set(key, value);
    }
    settings
}

/// The settings of the producer.
pub(super) fn producer_settings(config: &KafkaConfig, base: &ClientConfig) -> ClientConfig {
    let mut settings = base.clone();
    let timeout = config.delivery_timeout.as_millis().to_string();
    settings
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", config.compression.as_str())
        // A bound in bytes is the one that counts.
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", (config.queue_bytes >> 10).max(1).to_string());
    let linger = if config.transactions.is_some() { LINGER_OF_TRANSACTION } else { LINGER };
    for (key, usual) in
        [("linger.ms", linger.as_millis().to_string()), ("partitioner", "murmur2_random".into())]
    {
        if !config.librdkafka.contains_key(key) {
            settings.set(key, usual);
        }
    }
    if let Some(transactions) = &config.transactions {
        settings
            .set("transactional.id", &transactions.transactional_id)
            .set("transaction.timeout.ms", &timeout)
            .set("message.timeout.ms", &timeout);
    } else {
        // What follows a message that failed must not arrive before that was sent anew. librdkafka holds to this for
        // whatever the broker says, but not for messages whose time is over: that is for the sink to see.
        settings.set("enable.gapless.guarantee", "true").set("message.timeout.ms", NEVER.to_string());
    }
    settings
}

/// The settings with the secrets as they are now.
pub(super) async fn with_secrets(
    config: &KafkaConfig,
    settings: &ClientConfig,
) -> Result<ClientConfig, DeliverError> {
    let mut settings = settings.clone();
    let unreadable = |error: entra::SecretError| DeliverError::halt(error.to_string());
    if let Some(Login::Password { password, .. }) = &config.login {
        let password = password.read().await.map_err(unreadable)?;
        settings.set("sasl.password", password.expose_secret());
    }
    if let Some(client) = config.tls.as_ref().and_then(|tls| tls.client.as_ref()) {
        let key = client.key.read().await.map_err(unreadable)?;
        settings.set("ssl.key.pem", key.expose_secret());
        if let Some(password) = &client.key_password {
            let password = password.read().await.map_err(unreadable)?;
            settings.set("ssl.key.password", password.expose_secret());
        }
    }
    Ok(settings)
}

/// What librdkafka says beside its answers. Every client of a sink has the same.
#[derive(Clone)]
pub(super) struct Context(Arc<Inner>);

struct Inner {
    sink: SinkName,
    figures: Arc<Figures>,
    tokens: Option<Tokens>,
    runtime: Handle,
    trouble: Mutex<Trouble>,
    /// Whether there may be trouble. Every message that is delivered looks here.
    troubled: AtomicBool,
}

/// What is wrong as far as it is known. What was said last is kept until a message is delivered.
#[derive(Debug, Clone, Default)]
pub(super) struct Trouble {
    /// The login, the certificate or the token is refused: what to do, and what was said.
    pub(super) refused: Option<String>,
    /// No broker can be reached.
    pub(super) unreachable: bool,
    /// What was said last.
    pub(super) last: Option<String>,
}

impl Context {
    /// Has to be made within a runtime, which is where tokens are got.
    pub(super) fn new(sink: SinkName, figures: Arc<Figures>, tokens: Option<Tokens>) -> Self {
        let runtime = Handle::current();
        let (trouble, troubled) = (Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Inner { sink, figures, tokens, runtime, trouble, troubled }))
    }

    pub(super) fn trouble(&self) -> Trouble {
        self.lock().clone()
    }

    /// To be changed.
    fn in_trouble(&self) -> MutexGuard<'_, Trouble> {
        let trouble = self.lock();
        self.0.troubled.store(true, Ordering::Relaxed);
        trouble
    }

    /// An error that a call came back with, and what was said beside it.
    pub(super) fn explain(&self, error: &KafkaError) -> String {
        let text = match error {
            KafkaError::Transaction(error) => error.string(),
            other => other.rdkafka_error_code().map_or_else(|| other.to_string(), |code| code.to_string()),
        };
        match self.trouble().last {
            Some(said) if !said.contains(&text) => format!("{text} ({said})"),
            Some(said) => said,
            None => text,
        }
    }

    /// The failure that such an error is, where nothing was sent.
    pub(super) fn failure(&self, what: &str, error: &KafkaError) -> DeliverError {
        let said = self.explain(error);
        if let Some(refused) = self.trouble().refused {
            return DeliverError::halt(format!("{what}: {refused}"));
        }
        match verdict(code_of(error)) {
            Verdict::Halt(advice) => DeliverError::halt(format!("{what}: {said}; {advice}")),
            _ if self.trouble().unreachable || code_of(error) == RDKafkaErrorCode::BrokerTransportFailure => {
                DeliverError::retry(format!(
                    "{what}: {said}; no broker can be reached: check bootstrap_servers, the network, and tls"
                ))
            }
            _ => DeliverError::retry(format!("{what}: {said}")),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Trouble> {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // It is of interest to whoever looks for a fault; what it means for deliveries is said by the sink.
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                warn!(sink = %self.0.sink, facility, "librdkafka: {message}");
            }
            // A connection that cannot be made is told again and again, and the sink says so when it matters.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning if facility != "FAIL" => {
                info!(sink = %self.0.sink, facility, "librdkafka: {message}");
            }
            _ => debug!(sink = %self.0.sink, facility, "librdkafka: {message}"),
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        if let Err(error) = self.0.figures.take(statistics) {
            debug!(sink = %self.0.sink, "librdkafka's statistics cannot be read: {error}");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = code_of(&error);
        debug!(sink = %self.0.sink, ?code, "librdkafka: {reason}");
        let mut trouble = self.in_trouble();
        match verdict(code) {
            Verdict::Halt(advice) => trouble.refused = Some(format!("{reason}; {advice}")),
            _ if code == RDKafkaErrorCode::AllBrokersDown => {
                trouble.unreachable = true;
                // What was said before tells why.
                trouble.last.get_or_insert_with(|| reason.to_owned());
                return;
            }
            _ => {}
        }
        trouble.last = Some(reason.to_owned());
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let Some(tokens) = &self.0.tokens else { return Err("there is no token to be had".into()) };
        // This is a thread of librdkafka's callbacks, never one of the runtime's.
        let token = self.0.runtime.block_on(async { tokio::time::timeout(TOKEN, tokens.token()).await });
        match token {
            Ok(Ok(token)) => Ok(token),
            Ok(Err(error)) => {
                let mut trouble = self.in_trouble();
                let text = format!("no access token: {error}");
                if error.needs_a_person() {
                    trouble.refused = Some(text.clone());
                }
                trouble.last = Some(text.clone());
                Err(text.into())
            }
            Err(_) => Err(format!("no access token came within {TOKEN:?}").into()),
        }
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Report>;

    fn delivery(&self, result: &DeliveryResult<'_>, report: Box<Report>) {
        let failure = result.as_ref().err().map(|(error, _)| code_of(error));
        if failure.is_none() && self.0.troubled.load(Ordering::Relaxed) {
            let mut trouble = self.lock();
            self.0.troubled.store(false, Ordering::Relaxed);
            *trouble = Trouble::default();
        }
        report.tally.report(report.index, failure);
    }
}
