//! `type = "kafka"`: defaults, the ways to log in, and what is refused.

use std::path::Path;

use sinks::kafka::{Compression, Key, Login, Mechanism, Oversize, Preset, Timestamp, Transactions};
use transform::options::View;

use super::{
    super::{Config, SinkKind},
    HEAD, parse, problems,
};

const STREAM: &str = "[sinks.stream]\ntype = \"kafka\"\nbootstrap_servers = [\"kafka-1:9092\"]\n";

fn config(lines: &str) -> Config {
    parse(&format!("{HEAD}{STREAM}{lines}")).unwrap_or_else(|error| panic!("{lines}\n{error}"))
}

fn kafka(lines: &str) -> sinks::kafka::KafkaConfig {
    match &config(lines).sinks[1].kind {
        SinkKind::Kafka(kafka) => kafka.kafka.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_shortest_section_has_the_documented_defaults() {
    let whole = config("");
    assert_eq!(whole.sinks[1].render.view, View::Ocsf);
    assert!(!whole.sinks[1].uses_network());
    let kafka = kafka("");
    assert_eq!(kafka.topic.to_string(), "o365.{content_type}");
    assert_eq!((kafka.key, kafka.timestamp), (Key::Mailbox, Timestamp::CreationTime));
    assert_eq!((kafka.compression, kafka.oversize), (Compression::Zstd, Oversize::DeadLetter));
    assert_eq!((kafka.max_message_bytes.get(), kafka.queue_bytes), (1_000_000, 16 << 20));
    assert_eq!((kafka.delivery_timeout.as_secs(), kafka.preset), (300, Preset::Kafka));
    assert_eq!((kafka.schema.as_str(), kafka.headers), ("ocsf/1.8.0", true));
    assert_eq!((kafka.transactions, kafka.tls, kafka.login), (None, None, None));
}

#[test]
fn transactions_take_the_sinks_name_and_wait_less() {
    let kafka = kafka("transactions = true\nview = \"raw\"");
    let usual = Transactions {
        progress_topic: "mailtrail.progress".to_owned(),
        transactional_id: "mailtrail-stream".to_owned(),
    };
    assert_eq!((kafka.transactions, kafka.delivery_timeout.as_secs()), (Some(usual), 60));
    assert_eq!(kafka.schema, "o365-management-activity/1");
}

#[test]
fn every_way_to_log_in_is_taken() {
    let scram = kafka(
        "[sinks.stream.sasl]\nmechanism = \"SCRAM-SHA-256\"\nusername = \"u\"\npassword = { env = \"P\" }",
    );
    assert!(matches!(
        scram.login,
        Some(Login::Password { mechanism: Mechanism::ScramSha256, username, .. }) if username == "u"
    ));
    let plain = kafka(
        "tls = true\n[sinks.stream.sasl]\nmechanism = \"PLAIN\"\nusername = \"$ConnectionString\"\n\
         password = { env = \"P\" }",
    );
    assert!(plain.tls.is_some() && plain.login.is_some());
    for tokens in [
        "entra = { managed_identity = true }",
        "entra = { tenant_id = \"41463f53-8812-40f4-890f-865bf6e35190\", client_id = \"0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9\", client_secret = { env = \"S\" } }",
        "oidc = { token_url = \"https://login/token\", client_id = \"m\", client_secret = { env = \"S\" } }",
    ] {
        let lines = format!(
            "preset = \"event_hubs\"\ntls = true\n[sinks.stream.sasl]\nmechanism = \"OAUTHBEARER\"\n{tokens}"
        );
        let whole = config(&lines);
        assert!(whole.sinks[1].uses_network(), "{tokens}");
        assert_eq!(kafka(&lines).login, Some(Login::Token));
        assert_eq!(kafka(&lines).compression, Compression::Gzip);
    }
    let certificate = "tls = { certificate_file = \"/c.pem\", key = { file = \"/k.pem\" } }";
    assert!(kafka(certificate).tls.is_some_and(|tls| tls.client.is_some()));
    assert_eq!(config(certificate).sinks[1].client_certificate(), Some(Path::new("/c.pem")));
    assert_eq!(config("tls = true").sinks[1].client_certificate(), None);
}

/// Lines of a section, and what is said about them.
const WRONG: &[(&str, &str)] = &[
    ("topic = \"{content_id}\"", "'sinks.stream.topic' cannot hold {content_id}"),
    ("topic = \"a b\"", "'sinks.stream.topic' can only hold letters"),
    ("topic = \"{tennant}\"", "there is no {tennant}"),
    ("compression = \"lz5\"", "did you mean \"lz4\"?"),
    ("preset = \"event_hubs\"\ncompression = \"zstd\"", "can only be \"gzip\" or \"none\""),
    ("preset = \"event_hubs\"\nmax_message_bytes = \"2MB\"", "must be from 1000 to 1046000 bytes"),
    ("queue_bytes = \"1MiB\"", "twice as much as max_message_bytes"),
    ("delivery_timeout = \"1s\"", "must be from 5s to 15m"),
    ("transactional_id = \"x\"", "has no meaning without transactions = true"),
    ("transactions = true\nprogress_topic = \"a/b\"", "must be the name of a topic"),
    ("transactions = true\ntransactional_id = \"a/b\"", "no `/`"),
    ("tls = { key = { env = \"K\" } }", "'sinks.stream.tls.key' needs `certificate_file` beside it"),
    ("librdkafka = { \"enable.idempotence\" = false }", "cannot set \"enable.idempotence\""),
    ("librdkafka = { \"sasl.password\" = \"x\" }", "set sasl"),
    ("sasl = { mechanism = \"PLAIN\", username = \"u\", password = { env = \"P\" } }", "set tls = true"),
    ("sasl = { mechanism = \"SCRAM-SHA-512\" }", "'sinks.stream.sasl.password' is missing"),
    ("sasl = { mechanism = \"OAUTHBEARER\" }", "needs either `entra` (Event Hubs) or `oidc`"),
    ("sasl = { mechanism = \"KERBEROS\" }", "it must be one of \"PLAIN\""),
    (
        "sasl = { mechanism = \"OAUTHBEARER\", oidc = { token_url = \"http://x/y\", client_id = \"c\", client_secret = { env = \"S\" } } }",
        "must begin with https://",
    ),
    (
        "sasl = { mechanism = \"OAUTHBEARER\", entra = { client_id = \"0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9\", client_secret = { env = \"S\" } } }",
        "'sinks.stream.sasl.entra.tenant_id' is missing",
    ),
];

#[test]
fn what_is_wrong_is_told() {
    for (lines, said) in WRONG {
        let told = problems(&format!("{HEAD}{STREAM}{lines}"));
        assert!(told.contains(said), "{lines}: {told}");
    }
    for servers in ["[]", "[\"kafka\"]", "[\"kafka:9092,b:1\"]", "[\":1\"]"] {
        let told =
            problems(&format!("{HEAD}[sinks.stream]\ntype = \"kafka\"\nbootstrap_servers = {servers}"));
        assert!(told.contains("'sinks.stream.bootstrap_servers"), "{servers}: {told}");
    }
    let told = problems(&format!("{HEAD}[sinks.stream]\ntype = \"kafka\""));
    assert!(told.contains("'sinks.stream.bootstrap_servers' is missing"), "{told}");
}
