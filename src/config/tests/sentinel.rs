//! `type = "sentinel"`.

use std::time::Duration;

use sinks::sentinel::{Form, SentinelConfig};
use transform::options::View;

use super::{super::SinkKind, HEAD, parse};

const SINK: &str =
    "[sinks.soc]\ntype = \"sentinel\"\nendpoint = \"https://m.westeurope-1.ingest.monitor.azure.com\"\n";
const RULE: &str = "dcr_immutable_id = \"dcr-00112233445566778899aabbccddeeff\"\n";

fn soc(lines: &str) -> (View, SentinelConfig) {
    let config = parse(&format!("{HEAD}{SINK}{RULE}{lines}")).unwrap_or_else(|error| panic!("{error}"));
    let sink = config.sinks.into_iter().find(|sink| sink.name.as_str() == "soc").unwrap();
    let SinkKind::Sentinel(sentinel) = sink.kind else { panic!("a sentinel sink") };
    (sink.render.view, sentinel.sentinel)
}

#[test]
fn four_lines_are_enough() {
    let (view, sentinel) = soc("managed_identity = true\n");
    assert_eq!(view, View::Asim);
    assert_eq!(sentinel.stream.as_str(), "Custom-MailtrailAsim_CL");
    assert_eq!(sentinel.form, Form::Columns { without: &["Type"] });
    assert_eq!((sentinel.batch_bytes, sentinel.connections), (1_000_000, 4));
    assert_eq!((sentinel.linger, sentinel.timeout), (Duration::from_secs(5), Duration::from_secs(60)));
    let (_, sentinel) = soc("managed_identity = true\nview = \"raw\"\n");
    assert_eq!((sentinel.stream.as_str(), sentinel.form), ("Custom-MailtrailRaw_CL", Form::Record));
    let (_, sentinel) =
        soc("managed_identity = true\nview = \"officeactivity\"\nstream = \"Custom-Mine_CL\"\n");
    assert_eq!((sentinel.stream.as_str(), sentinel.form), ("Custom-Mine_CL", Form::Columns { without: &[] }));
}

#[test]
fn each_cloud_has_an_authority_and_a_scope() {
    for (cloud, authority, scope) in [
        ("commercial", "https://login.microsoftonline.com", "https://monitor.azure.com/.default"),
        ("gcc", "https://login.microsoftonline.com", "https://monitor.azure.com/.default"),
        ("gcc-high", "https://login.microsoftonline.us", "https://monitor.azure.us/.default"),
        ("dod", "https://login.microsoftonline.us", "https://monitor.azure.us/.default"),
        ("china", "https://login.partner.microsoftonline.cn", "https://monitor.azure.cn/.default"),
    ] {
        let lines = format!("{HEAD}{SINK}{RULE}managed_identity = true\ncloud = \"{cloud}\"\n");
        let config = parse(&lines).unwrap_or_else(|error| panic!("{error}"));
        let SinkKind::Sentinel(sentinel) = &config.sinks[1].kind else { panic!("a sentinel sink") };
        let shown = format!("{sentinel:?}");
        assert!(shown.contains(authority) && shown.contains(scope), "{cloud}: {shown}");
    }
}

#[test]
fn what_is_wrong_is_told_with_where_to_look() {
    for (lines, what) in [
        ("managed_identity = true\n", "'sinks.soc.dcr_immutable_id' is missing; it is the `immutableId`"),
        (
            "dcr_immutable_id = \"mailtrail-asim\"\nmanaged_identity = true\n",
            "is no immutable id of a data collection rule",
        ),
        (
            "dcr_immutable_ids = [\"dcr-00112233445566778899aabbccddeeff\", \"dcr-00112233445566778899aabbccddeeff\"]\n",
            "names dcr-00112233445566778899aabbccddeeff twice",
        ),
        ("view = \"ocsf\"\n", "can be \"asim\", \"officeactivity\" or \"raw\" for a sentinel sink"),
        ("stream = \"MailtrailAsim_CL\"\n", "names no stream"),
        ("batch_bytes = \"2MB\"\n", "must be from 10KB to 1MB"),
        ("client_id = \"x\"\nclient_secret.env = \"S\"\n", "'sinks.soc.tenant_id' is missing"),
        ("cloud = \"custom\"\n", "'sinks.soc.scope' is missing; cloud = \"custom\" needs it"),
        ("authority = \"https://login.microsoftonline.us\"\n", "needs cloud = \"custom\""),
        ("", "needs exactly one of client_secret, certificate, managed_identity, workload_identity"),
        ("linger = \"2m\"\n", "can be at most 60s"),
        ("timeout = \"1s\"\n", "must be at least 5s"),
        ("endpoint = \"http://example.com\"\n", "would send secrets in the clear"),
    ] {
        let sink = if lines.contains("endpoint") {
            SINK.lines().take(2).collect::<Vec<_>>().join("\n") + "\n"
        } else {
            SINK.to_owned()
        };
        let error = parse(&format!("{HEAD}{sink}{lines}")).unwrap_err().to_string();
        assert!(error.contains(what), "{lines}: {error}");
    }
}
