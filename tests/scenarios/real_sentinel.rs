//! Microsoft's own client of the Logs Ingestion API, for Python, against the same service that mailtrail's scenarios use:
//! the service takes what the real client sends, and mailtrail's requests are like the real client's.
//!
//! `tests/servers/logs-ingestion-client` installs it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use simulator::SimulatorConfig;

use crate::{
    sentinel::{sink, template},
    support::{
        World, installed,
        sentinel::{RULES, Seen, Sentinel},
        tls::tls,
    },
};

/// Logs in at the simulated Entra ID and uploads rows, as the client's own documentation shows.
const UPLOAD: &str = r#"
import json, sys, time, urllib.parse, urllib.request
from azure.core.credentials import AccessToken
from azure.monitor.ingestion import LogsIngestionClient

authority, tenant, client, secret, endpoint, authorities, rule, stream, rows = sys.argv[1:]

class Login:
    def get_token(self, *scopes, **_):
        form = {"grant_type": "client_credentials", "client_id": client, "client_secret": secret, "scope": scopes[0]}
        url = f"{authority}/{tenant}/oauth2/v2.0/token"
        answer = json.load(urllib.request.urlopen(url, urllib.parse.urlencode(form).encode()))
        return AccessToken(answer["access_token"], int(time.time()) + answer["expires_in"])

client_of_logs = LogsIngestionClient(endpoint=endpoint, credential=Login(), connection_verify=authorities)
client_of_logs.upload(rule_id=rule, stream_name=stream, logs=json.load(open(rows)))
"#;

/// Where `tests/servers/logs-ingestion-client` has put it.
fn python() -> PathBuf {
    installed("logs-ingestion-client-1.1.0/bin/python", "tests/servers/logs-ingestion-client")
}

fn upload(world: &World, service: &Sentinel, authorities: &Path, rows: &Path) {
    let tenant = simulator::TenantConfig::default();
    let outcome = Command::new(python())
        .args(["-c", UPLOAD])
        .args([&world.simulator().base_url(), &tenant.tenant_id.to_string(), &tenant.client_id])
        .args([tenant.client_secret.as_deref().unwrap_or_default(), &service.url()])
        .arg(authorities)
        .args([RULES[0], "Custom-MailtrailAsim_CL"])
        .arg(rows)
        .env_remove("HTTPS_PROXY")
        .env_remove("https_proxy")
        .env("NO_PROXY", "*")
        .output()
        .expect("Python starts");
    assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
}

/// What has to be the same of any two requests: where to, and the headers by which the service reads it. What identifies
/// a request or a client only has to be there.
fn likeness(request: &Seen) -> Value {
    let header = |name: &str| request.headers.get(name).cloned();
    let is_there = |name: &str| header(name).is_some_and(|value| !value.is_empty());
    serde_json::json!({
        "rule": request.rule,
        "stream": request.stream,
        "answer": request.http,
        "content-type": header("content-type"),
        "content-encoding": header("content-encoding"),
        "accept": header("accept"),
        "authorization": header("authorization").map(|value| value.starts_with("Bearer ")),
        "x-ms-client-request-id": header("x-ms-client-request-id").map(|id| id.len()),
        "content-length": is_there("content-length"),
        "user-agent": is_there("user-agent"),
    })
}

#[test]
#[ignore = "needs Microsoft's client for Python: tests/servers/logs-ingestion-client"]
fn real_client_for_python_sends_what_mailtrail_sends() {
    // Less than one request: the client does not count the commas of a request that it fills, which the service does.
    let world = World::new(SimulatorConfig { blobs: 8, records_per_blob: 20, ..SimulatorConfig::default() });
    let tls = tls(false);
    let authorities = world.path().join("ca.pem");
    fs::write(&authorities, &tls.authority).expect("written");
    let start = || Sentinel::start_with(&template("asim"), Some(tls.server.clone()));
    let ours = start();
    let network = format!("[network]\nca_files = [{authorities:?}]\n");
    let soc = sink(&world, &ours.url(), "linger = \"2s\"\n");
    world.configure_sinks("", "", &format!("{soc}{network}"));
    world.mailtrail(&["check"]).ends_with(0);
    world.collect();
    ours.lost_nothing();
    let rows: Vec<Value> = ours.rows().into_iter().map(|row| row.value).collect();
    assert_eq!(rows.len(), 160);

    let theirs = start();
    let file = world.path().join("rows.json");
    fs::write(&file, Value::from(rows.clone()).to_string()).expect("written");
    upload(&world, &theirs, &authorities, &file);
    theirs.lost_nothing();
    let sort = |rows: Vec<Value>| {
        let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
        rows.sort();
        rows
    };
    let their_rows = theirs.rows().into_iter().map(|row| row.value).collect();
    assert!(sort(rows) == sort(their_rows), "the same rows came by both ways");
    let (our_requests, their_requests) = (ours.requests(), theirs.requests());
    assert!(!our_requests.is_empty() && !their_requests.is_empty());
    let expected = likeness(&their_requests[0]);
    assert_eq!(expected["content-encoding"], "gzip");
    for request in our_requests.iter().chain(&their_requests) {
        assert_eq!(likeness(request), expected, "{request:?}");
    }
}
