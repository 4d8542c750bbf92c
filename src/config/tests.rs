mod archive;
mod azure;
mod documentation;
mod kafka;
mod sentinel;
mod wrong;

use std::{fs, num::NonZeroU32, path::Path, time::Duration};

use entra::{ClientId, Cloud, SecretSource};
use schemas::ContentType;
use sinks::{
    file::{Compression, FileConfig},
    splunk_hec::{Acknowledgement, EventForm, Tls},
};
use transform::options::{OcsfVersion, RawData, View};

use super::*;

const HEAD: &str = r#"[state]
directory = "/var/lib/mailtrail"
[tenants.contoso]
tenant_id = "41463f53-8812-40f4-890f-865bf6e35190"
client_id = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9"
client_secret = { env = "CONTOSO_SECRET" }
[sinks.archive]
type = "file"
directory = "/var/log/mailtrail"
"#;

fn parse(text: &str) -> Result<Config, InvalidConfig> {
    Config::parse(Path::new("m.toml"), text.as_bytes())
}

fn problems(text: &str) -> String {
    parse(text).expect_err("the configuration is wrong").to_string()
}

#[test]
fn the_shortest_configuration_has_the_documented_defaults() {
    let config = parse(HEAD).unwrap();
    assert_eq!(config.state.spool_max_bytes, 10 << 30);
    assert_eq!(config.state.dead_letter_max_bytes, 1 << 30);
    assert_eq!(config.state.dedupe_horizon, Duration::from_secs(8 * 86_400));
    assert_eq!(config.network.proxy, None);
    assert_eq!(config.network.connect_timeout, Duration::from_secs(10));
    let [tenant] = &config.tenants[..] else { panic!("one tenant") };
    assert_eq!(tenant.name, "contoso");
    assert_eq!(tenant.cloud, Cloud::Commercial);
    assert_eq!(tenant.content_types, [ContentType::Exchange]);
    assert_eq!(tenant.publisher_identifier, tenant.tenant_id);
    assert_eq!(tenant.poll_interval, Duration::from_secs(60));
    assert_eq!(tenant.requests_per_minute, NonZeroU32::new(2000).unwrap());
    assert!(tenant.dedupe);
    assert_eq!(tenant.max_blob_bytes, 256 << 20);
    assert_eq!(tenant.start, Duration::from_secs(167 * 3600 + 50 * 60));
    assert_eq!(tenant.overlap, Duration::from_secs(3600));
    assert_eq!(tenant.sweep_interval, Duration::from_secs(6 * 3600));
    assert_eq!(
        tenant.credentials,
        Credentials::ClientSecret {
            client_id: "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9".parse().unwrap(),
            secret: SecretSource::Env("CONTOSO_SECRET".to_owned()),
        }
    );
    let [sink] = &config.sinks[..] else { panic!("one sink") };
    assert_eq!(sink.name.as_str(), "archive");
    assert_eq!(sink.render.view, View::Ocsf);
    assert!(sink.required);
    assert_eq!(sink.start_from, StartFrom::Spooled);
    assert_eq!((sink.events_per_second, sink.bytes_per_second), (None, None));
    assert_eq!(sink.burst, Duration::from_secs(1));
    assert_eq!(sink.kind, SinkKind::File(FileConfig::new("/var/log/mailtrail".into())));
    let SinkKind::File(file) = &sink.kind else { panic!("a file sink") };
    assert_eq!((file.rotate_bytes, file.rotate_interval), (256 << 20, Duration::from_secs(3600)));
    assert_eq!((file.mode.bits(), file.compression, file.keep), (0o600, Compression::None, None));
    assert_eq!(file.file_name.as_str(), "mailtrail");
}

#[test]
fn a_sink_takes_filters_limits_and_options() {
    let config = parse(&format!(
        r#"{HEAD}
view = "ocsf"
ocsf_version = "1.6.0"
raw_data = "hash"
tags = false
required = false
start_from = "now"
events_per_second = 5_000
bytes_per_second = "10MB"
burst = "250ms"
mode = "0640"
group = "splunk"
compression = "zstd"
keep = 72
file_name = "audit"
[sinks.archive.filter]
tenants = ["contoso"]
operations = ["MailItemsAccessed", "Send*"]
record_types = [2, 50]
[sinks.archive.exclude]
users = ["*@bots.contoso.com"]
"#
    ))
    .unwrap();
    let sink = &config.sinks[0];
    assert_eq!(sink.render.ocsf_version, OcsfVersion::V1_6);
    assert_eq!(sink.render.raw_data, RawData::Hash);
    assert!(!sink.render.tags);
    assert!(!sink.required);
    assert_eq!(sink.start_from, StartFrom::Now);
    assert_eq!(sink.events_per_second, NonZeroU32::new(5000));
    assert_eq!(sink.bytes_per_second.map(u64::from), Some(10_000_000));
    assert_eq!(sink.burst, Duration::from_millis(250));
    assert_eq!(sink.filter.tenants, ["contoso"]);
    assert_eq!(sink.filter.operations, ["MailItemsAccessed", "Send*"]);
    assert_eq!(sink.filter.record_types, [2, 50]);
    assert_eq!(sink.filter.exclude.users, ["*@bots.contoso.com"]);
    let SinkKind::File(file) = &sink.kind else { panic!("a file sink") };
    assert_eq!(
        (file.mode.bits(), file.group.as_deref(), file.compression),
        (0o640, Some("splunk"), Compression::Zstd)
    );
    assert_eq!((file.file_name.as_str(), file.keep), ("audit", NonZeroU32::new(72)));
}

#[test]
fn a_splunk_sink_expects_what_is_there_for_splunk() {
    let config = parse(&format!(
        "{HEAD}[sinks.soc]\ntype = \"splunk_hec\"\nurl = \"https://splunk:8088/services/collector\"\n\
         token = {{ env = \"HEC_TOKEN\" }}\nacknowledgement = \"indexer\"\n"
    ))
    .unwrap();
    let sink = &config.sinks[1];
    assert_eq!(sink.render.view, View::Raw);
    let SinkKind::SplunkHec(hec) = &sink.kind else { panic!("a Splunk sink") };
    assert_eq!(hec.urls, ["https://splunk:8088".parse().unwrap()]);
    assert_eq!(hec.token, SecretSource::Env("HEC_TOKEN".to_owned()));
    assert_eq!((hec.acknowledgement, hec.ack_timeout), (Acknowledgement::Indexer, Duration::from_secs(300)));
    assert_eq!((hec.event, hec.gzip, hec.index.clone()), (EventForm::String, true, None));
    assert_eq!((hec.batch_bytes, hec.batch_events, hec.linger), (768 << 10, 1000, Duration::from_secs(1)));
    assert_eq!((hec.connections, hec.timeout), (4, Duration::from_secs(60)));
    assert_eq!(hec.tls, Tls::default());
    assert_eq!(hec.sourcetype.to_string(), "o365:management:activity");
    assert_eq!(hec.host.to_string(), "{tenant}");
    assert_eq!(
        hec.source.to_string(),
        "https://manage.office.com/api/v1.0/{tenant_id}/activity/feed/audit/{content_id}"
    );
    let config = parse(&format!(
        "{HEAD}[sinks.soc]\ntype = \"splunk_hec\"\nurls = [\"https://a\", \"https://b\"]\nview = \"ocsf\"\nverify = false\n\
         token = {{ file = \"/t\" }}\nacknowledgement = \"accept\"\nfields = {{}}\ncompression = \"none\"\n\
         client_certificate = \"/c.pem\"\nclient_key = {{ file = \"/k.pem\" }}\n"
    ))
    .unwrap();
    let SinkKind::SplunkHec(hec) = &config.sinks[1].kind else { panic!("a Splunk sink") };
    assert_eq!((hec.event, hec.gzip, hec.urls.len()), (EventForm::Object, false, 2));
    assert_eq!((hec.sourcetype.to_string().as_str(), hec.fields.len()), ("mailtrail:ocsf", 0));
    let client = Some(("/c.pem".into(), SecretSource::File("/k.pem".into())));
    assert_eq!(hec.tls, Tls { ca_file: None, client, unverified: true });
    assert_eq!(config.sinks[1].client_certificate(), Some(Path::new("/c.pem")));
    assert_eq!(config.sinks[0].client_certificate(), None);
}

#[test]
fn each_way_to_log_in() {
    let with = |keys: &str| {
        let text = HEAD.replace("client_secret = { env = \"CONTOSO_SECRET\" }", keys);
        parse(&text).map(|config| config.tenants[0].credentials.clone()).map_err(|error| error.to_string())
    };
    let client_id: ClientId = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9".parse().unwrap();
    assert_eq!(
        with("client_secret = { file = \"/run/secrets/contoso\" }").unwrap(),
        Credentials::ClientSecret {
            client_id: client_id.clone(),
            secret: SecretSource::File("/run/secrets/contoso".into())
        }
    );
    assert_eq!(
        with("certificate = { file = \"/etc/mailtrail/contoso.pem\" }").unwrap(),
        Credentials::Certificate {
            client_id: client_id.clone(),
            pem: SecretSource::File("/etc/mailtrail/contoso.pem".into())
        }
    );
    assert_eq!(
        with("managed_identity = true").unwrap(),
        Credentials::ManagedIdentity { client_id: Some(client_id.clone()) }
    );
    assert_eq!(
        with("workload_identity = true").unwrap(),
        Credentials::WorkloadIdentity { client_id: client_id.clone(), token_file: None }
    );
    assert_eq!(
        with("workload_identity = { token_file = \"/var/run/token\" }").unwrap(),
        Credentials::WorkloadIdentity { client_id, token_file: Some("/var/run/token".into()) }
    );
    let system_assigned = HEAD
        .replace("client_id = \"0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9\"", "managed_identity = true")
        .replace("client_secret = { env = \"CONTOSO_SECRET\" }", "");
    assert_eq!(
        parse(&system_assigned).unwrap().tenants[0].credentials,
        Credentials::ManagedIdentity { client_id: None }
    );
}

#[tokio::test]
async fn a_token_source_shows_what_is_configured() {
    let with = |cloud: &str| {
        let text = HEAD.replace("[sinks.archive]", &format!("{cloud}\n[sinks.archive]"));
        let tenant = parse(&text).unwrap().tenants.remove(0);
        tenant.token_source(ingest::HttpSettings::default().client().unwrap()).unwrap()
    };
    assert_eq!(with("").scope().as_str(), "https://manage.office.com/.default");
    let custom = with("cloud = \"custom\"\nauthority = \"http://127.0.0.1:1\"\napi = \"http://127.0.0.1:2\"");
    assert_eq!(custom.scope().as_str(), "http://127.0.0.1:2/.default");
    // The secret is read when a token is asked for, and the error says which is missing.
    let error = custom.token().await.unwrap_err().to_string();
    assert!(error.contains("CONTOSO_SECRET"), "{error}");
}

#[test]
fn a_custom_cloud_may_be_plain_http_on_this_machine_only() {
    let with = |authority: &str| {
        let cloud = format!(
            "cloud = \"custom\"\nauthority = \"{authority}\"\napi = \"https://api.example\"\n[sinks.archive]"
        );
        parse(&HEAD.replace("[sinks.archive]", &cloud)).map_err(|error| error.to_string())
    };
    for good in
        ["http://127.0.0.1:9400", "http://[::1]:9400", "http://localhost:9400", "https://login.example/path"]
    {
        let config = with(good).unwrap();
        assert!(matches!(config.tenants[0].cloud, Cloud::Custom { .. }), "{good}");
    }
    for (bad, why) in [
        (
            "http://10.0.0.1",
            "http:// to `10.0.0.1` would send secrets in the clear; use https, http is for 127.0.0.1, ::1 and localhost only",
        ),
        (
            "https://user:pw@login.example",
            "it must be scheme, host, port and path only, without user, query or fragment",
        ),
        ("ftp://login.example", "its scheme is `ftp`; use https"),
        ("login.example", "it is not a URL; expected the form https://host"),
    ] {
        assert_eq!(
            with(bad).unwrap_err(),
            format!(
                "m.toml:8: 'tenants.contoso.authority' must be a URL such as \"https://manage.office.com\"; {why}"
            ),
            "{bad}"
        );
    }
}

#[test]
fn a_collector_is_told_what_the_section_says() {
    let config = parse(HEAD).unwrap().tenants[0].collector_config(ingest::Listing::Once);
    let usual = ingest::TenantConfig::new(
        "contoso",
        "41463f53-8812-40f4-890f-865bf6e35190".parse().unwrap(),
        "https://manage.office.com".parse().unwrap(),
        vec![ContentType::Exchange],
    );
    // The defaults of the configuration are those of the collector.
    assert_eq!((config.api, config.publisher, config.name), (usual.api, usual.publisher, usual.name));
    assert_eq!((config.poll_interval, config.policy), (usual.poll_interval, usual.policy));
    assert_eq!(config.requests_per_minute, usual.requests_per_minute);
    assert_eq!(config.blob_max_bytes, usual.blob_max_bytes);
    assert_eq!(config.listing, ingest::Listing::Once);

    let text = HEAD
        .replace("[sinks.archive]", "start = \"1h\"\noverlap = \"30m\"\ncloud = \"gcc\"\n[sinks.archive]");
    let config = parse(&text).unwrap().tenants[0].collector_config(ingest::Listing::Forever);
    assert_eq!(config.policy.start, Some(chrono::TimeDelta::hours(1)));
    assert_eq!(config.policy.overlap, chrono::TimeDelta::minutes(30));
    assert_eq!(config.api.as_str(), "https://manage-gcc.office.com/");
}

#[test]
fn a_secret_in_the_file_is_refused_and_never_repeated() {
    for (written, key) in [
        ("client_secret = \"hunter2\"", "client_secret"),
        ("client_secret = 4711", "client_secret"),
        ("certificate = \"hunter2\"", "certificate"),
    ] {
        let text = HEAD.replace("client_secret = { env = \"CONTOSO_SECRET\" }", written);
        assert_eq!(
            problems(&text),
            format!(
                "m.toml:6: 'tenants.contoso.{key}' must not be written into the file; write {{ env = \"NAME\" }} to take it \
                 from an environment variable, or {{ file = \"/path\" }} to read it from a file"
            )
        );
    }
    for (written, message) in [
        ("client_secret = {}", "must name one place: { env = \"NAME\" } or { file = \"/path\" }"),
        (
            "client_secret = { env = \"A\", file = \"/b\" }",
            "must name one place: { env = \"NAME\" } or { file = \"/path\" }",
        ),
    ] {
        let text = HEAD.replace("client_secret = { env = \"CONTOSO_SECRET\" }", written);
        assert_eq!(problems(&text), format!("m.toml:6: 'tenants.contoso.client_secret' {message}"));
    }
    let text = HEAD.replace("env = \"CONTOSO_SECRET\"", "value = \"hunter2\"");
    assert!(
        problems(&text).contains("unknown key 'tenants.contoso.client_secret.value'"),
        "{}",
        problems(&text)
    );
    assert!(!problems(&text).contains("hunter2"));
}

#[test]
fn everything_is_told_at_once_in_the_order_of_the_file() {
    let text = "[tenants.a]\ntenant_id = 1\ncloud = \"x\"\n[sinks.s]\ntype = \"file\"\nmode = 1\nmodes = 2\n";
    assert_eq!(
        problems(text),
        "m.toml: 'state.directory' is missing; it is where mailtrail keeps what it has collected, such as \
         \"/var/lib/mailtrail\"\n\
         m.toml:1: 'tenants.a' needs exactly one of client_secret, certificate, managed_identity, workload_identity; it has \
         none\n\
         m.toml:2: 'tenants.a.tenant_id' must be the directory (tenant) id of the organisation, not the number 1\n\
         m.toml:3: 'tenants.a.cloud' is \"x\"; it must be one of \"commercial\", \"gcc\", \"gcc-high\", \"dod\", \"custom\"\n\
         m.toml:4: 'sinks.s.directory' is missing; it is where the files go, such as \"/var/log/mailtrail\"\n\
         m.toml:6: 'sinks.s.mode' must be a file mode in octal digits and quotes, such as \"0640\", not the number 1\n\
         m.toml:7: unknown key 'sinks.s.modes'; did you mean 'mode'?"
    );
    assert_eq!(
        problems(""),
        "m.toml: 'state.directory' is missing; it is where mailtrail keeps what it has collected, such as \
         \"/var/lib/mailtrail\"\n\
         m.toml: there is no tenant; add a section [tenants.NAME]\n\
         m.toml: there is no sink; add a section [sinks.NAME]"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.toml");
    let message = |error: ConfigError| error.to_string().replace(path.to_str().unwrap(), "FILE");
    assert_eq!(
        message(load(Some(&path)).unwrap_err()),
        "cannot read the configuration FILE: No such file or directory (os error 2)"
    );
    fs::write(&path, b"[state]\ndirectory = \"\xff\"\n").unwrap();
    assert_eq!(message(load(Some(&path)).unwrap_err()), "FILE:2: the file is not UTF-8 text");
    fs::write(&path, HEAD).unwrap();
    assert_eq!(load(Some(&path)).unwrap().path, path);
}

#[test]
fn where_the_ledger_is_can_be_read_from_a_file_that_is_wrong_otherwise() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.toml");
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        load_state_directory(Some(&path)).map_err(|error| error.to_string())
    };
    let state = Ok(PathBuf::from("/var/lib/mailtrail"));
    assert_eq!(read(HEAD), state);
    assert_eq!(read(&format!("{HEAD}keep = \"many\"\n")), state);
    assert_eq!(read(&format!("{HEAD}[[[\n")), state);
    assert!(read("[state]\n").unwrap_err().contains("'state.directory' is missing"));
    assert!(read("").unwrap_err().contains("'state.directory' is missing"));
}

#[test]
fn every_secret_that_the_file_refers_to_is_known_by_its_key() {
    let text = "[sinks.soc]\ntype = \"splunk_hec\"\nurl = \"https://splunk:8088\"\nacknowledgement = \"accept\"\n\
                token = { file = \"/run/secrets/hec\" }\n";
    let config = parse(&format!("{HEAD}{text}")).unwrap();
    let expected = [
        ("tenants.contoso.client_secret".to_owned(), SecretSource::Env("CONTOSO_SECRET".to_owned())),
        ("sinks.soc.token".to_owned(), SecretSource::File("/run/secrets/hec".into())),
    ];
    assert_eq!(config.secrets, expected);
}

#[test]
fn a_link_does_not_hide_that_two_directories_are_one() {
    let root = tempfile::tempdir().unwrap();
    let real = root.path().join("real");
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, root.path().join("link")).unwrap();
    let text = HEAD
        .replace("/var/lib/mailtrail", real.to_str().unwrap())
        .replace("/var/log/mailtrail", root.path().join("link/out").to_str().unwrap());
    assert!(problems(&text).contains("is in the state directory"), "{}", problems(&text));
}

#[tokio::test]
async fn a_proxy_with_a_password_comes_from_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy");
    let config =
        parse(&format!("{HEAD}[network]\nproxy = {{ file = {path:?} }}\nno_proxy = [\"a\", \"b\"]\n"))
            .unwrap();
    fs::write(&path, "http://me:hunter2@proxy:3128\n").unwrap();
    let settings = config.network.http_settings().await.unwrap();
    assert_eq!(settings.proxy.and_then(|url| url.password().map(str::to_owned)).as_deref(), Some("hunter2"));
    assert_eq!(settings.no_proxy.as_deref(), Some("a,b"));
    fs::write(&path, "me:hunter2\n").unwrap();
    let error = config.network.http_settings().await.unwrap_err().to_string();
    assert!(error.starts_with("network.proxy: the file ") && !error.contains("hunter2"), "{error}");
    fs::remove_file(&path).unwrap();
    assert!(
        config.network.http_settings().await.unwrap_err().to_string().contains("cannot read the secret file")
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}", key in "[a-z_.]{1,20}", value in "\\PC{0,20}") {
        let _ = parse(&text);
        let _ = parse(&format!("{HEAD}{key} = {value}\n"));
        let _ = parse(&format!("{HEAD}{key} = {value:?}\n"));
    }
}
