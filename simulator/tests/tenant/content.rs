//! What is in the feeds: the same for the same seed, and what the truth says.

use std::{collections::BTreeSet, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use schemas::ContentType;
use serde_json::Value;
use simulator::{Blob, Fate, RequestKind, SimulatorConfig, TenantConfig};

use crate::client::{Client, start, started};

async fn everything(config: SimulatorConfig) -> Vec<(String, Vec<u8>)> {
    let (running, client) = started(config).await;
    let mut all = Vec::new();
    for entry in client.day(&running).await {
        let id = entry["contentId"].as_str().unwrap().to_owned();
        let body = client.fetch(&id).await.body.unwrap();
        all.push((id, body));
    }
    all
}

#[tokio::test]
async fn with_an_anchor_every_byte_is_the_same_in_every_run() {
    let anchor = Some(Utc::now());
    let config =
        SimulatorConfig { anchor, quirks: true, record_bytes: Some(1500), ..SimulatorConfig::backlog(8, 30) };
    let first = everything(config.clone()).await;
    assert_eq!(first.len(), 8);
    assert_eq!(first, everything(config.clone()).await);
    assert_eq!(first, everything(SimulatorConfig { prerender: true, ..config.clone() }).await);
    assert_ne!(first, everything(SimulatorConfig { seed: 2, ..config }).await);
}

#[tokio::test]
async fn the_truth_is_what_is_served() {
    for quirks in [false, true] {
        let content_types = ContentType::ALL.to_vec();
        let (running, client) =
            started(SimulatorConfig { quirks, content_types, ..SimulatorConfig::backlog(6, 80) }).await;
        let mut blobs = 0;
        for truth in running.truth().blobs() {
            let records = client.records(&truth.content_id, false).await.unwrap();
            assert_eq!((truth.fate, truth.records, truth.duplicates), (Fate::Deliverable, 80, 0));
            assert_eq!(records.len(), 80);
            let served: Vec<_> = records.iter().filter_map(|record| record["Id"].as_str()).collect();
            assert_eq!(truth.ids, served, "{quirks}");
            blobs += 1;
        }
        assert_eq!(blobs, 30);
        assert_eq!(running.truth().count(), 30 * 80);
        assert_eq!(running.truth().records().count(), 30 * 80);
        assert_eq!(running.stats().blobs_served, 30);
    }
}

#[tokio::test]
async fn what_was_compressed_ahead_is_the_same_blob() {
    let (running, client) =
        started(SimulatorConfig { prerender: true, ..SimulatorConfig::backlog(2, 5) }).await;
    for blob in running.truth().blobs() {
        let plain = client.records(&blob.content_id, false).await.unwrap();
        assert_eq!(plain, client.records(&blob.content_id, true).await.unwrap());
    }
}

#[tokio::test]
async fn a_short_run_has_every_kind_of_record() {
    let (running, client) = started(SimulatorConfig::backlog(30, 60)).await;
    let mut seen = BTreeSet::new();
    for blob in running.truth().blobs() {
        for record in client.records(&blob.content_id, false).await.unwrap() {
            seen.insert(record["Operation"].as_str().unwrap().to_owned());
        }
    }
    let expected: BTreeSet<_> = simulator::catalogue()
        .iter()
        .filter(|one| one.content_type == ContentType::Exchange)
        .map(|one| one.operation.to_owned())
        .collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn given_blobs_are_served_byte_for_byte_and_listed_when_they_are_available() {
    let (running, client) = started(SimulatorConfig::backlog(0, 1)).await;
    let created = running.now() - TimeDelta::hours(2);
    let records = [&br#"{"Id":"1c7412a6-858d-49ff-3f93-08d7ac0f45bf","CreationTime":"2026-01-01T00:00:00","Operation":"Send","UserId":"a"}"#[..], b"{ \"Odd\" :1 }"];
    let id = running.add_blob(Blob::from_records(ContentType::Exchange, created, &records)).unwrap();
    let body = client.fetch(&id).await.body.unwrap();
    assert_eq!(body, [b"[", records[0], b",", records[1], b"]"].concat());
    assert_eq!(running.truth().count(), 2);

    // The same record again, its keys in another order; then something that is no JSON.
    let again = [br#"{"UserId":"a","Operation":"Send","CreationTime":"2026-01-01T00:00:00Z","Id":"1C7412A6-858D-49FF-3F93-08D7AC0F45BF"}"#];
    running.add_blob(Blob::from_records(ContentType::Exchange, created, &again)).unwrap();
    let broken = running
        .add_blob(Blob::from_body(ContentType::Exchange, created, &b"[{"[..]).called("broken$1"))
        .unwrap();
    assert_eq!(broken, "broken$1");
    assert_eq!(client.fetch("broken$1").await.body.unwrap(), b"[{");
    let truth: Vec<_> =
        running.truth().blobs().map(|blob| (blob.fate, blob.records, blob.duplicates)).collect();
    assert_eq!(truth, [(Fate::Deliverable, 2, 0), (Fate::Deliverable, 0, 1), (Fate::Unreadable, 0, 0)]);

    let late = Blob::from_body(ContentType::Exchange, created, &b"[]"[..])
        .available_at(running.now() + TimeDelta::minutes(10))
        .called("late$1");
    running.add_blob(late).unwrap();
    let list =
        async || client.list("Audit.Exchange", running.now() - TimeDelta::hours(3), running.now()).await;
    assert_eq!(list().await.len(), 3);
    assert_eq!(client.fetch("late$1").await.code(), "AF20050");
    running.advance(Duration::from_secs(600));
    let listed = list().await;
    assert_eq!(listed.last().unwrap()["contentId"], "late$1", "in the order of availability");
    assert_eq!(listed.last().unwrap()["contentCreated"], listed[0]["contentCreated"]);

    let short = Blob::from_body(ContentType::Exchange, created, &b"[]"[..])
        .expires_at(running.now())
        .called("short$1");
    running.add_blob(short).unwrap();
    assert_eq!(client.fetch("short$1").await.code(), "AF20051");
    assert!(
        running
            .add_blob(
                Blob::from_body(ContentType::Exchange, created, &b""[..])
                    .of_tenant(TenantConfig::numbered(9).tenant_id)
            )
            .is_none()
    );
}

#[tokio::test]
async fn the_steady_flow_adds_whole_blobs_until_its_end() {
    let config = SimulatorConfig {
        rate: 10.0,
        flow_blobs: Some(5),
        token_lifetime: Duration::from_secs(7200),
        anchor: Some(Utc::now() + TimeDelta::hours(1)),
        ..SimulatorConfig::backlog(2, 10)
    };
    let (running, client) = started(config).await;
    let count = async || {
        let now = running.now();
        client.list("Audit.Exchange", now - TimeDelta::hours(23), now + TimeDelta::hours(1)).await.len()
    };
    assert_eq!(count().await, 2, "the flow begins at the anchor");
    running.advance(Duration::from_secs(3600 - 60));
    assert_eq!(count().await, 2);
    running.advance(Duration::from_secs(120));
    assert_eq!(count().await, 7, "a blob a second, but five at most");
    assert_eq!(running.truth().count(), 70);
}

#[tokio::test]
async fn each_tenant_has_its_own_records_and_credentials() {
    let tenants = vec![TenantConfig::default(), TenantConfig::numbered(1)];
    let running =
        start(SimulatorConfig { tenants, subscribed: true, ..SimulatorConfig::backlog(3, 5) }).await;
    let mut ids = BTreeSet::new();
    for blob in running.truth().blobs() {
        ids.extend(blob.ids);
    }
    assert_eq!(ids.len(), 30);
    let mut second = Client::without_token(&running);
    second.tenant = TenantConfig::numbered(1).tenant_id.to_string();
    assert_eq!(second.ask_token(&[]).await.status, 400, "the first tenant's application is unknown there");
    let config = TenantConfig::numbered(1);
    let got = second
        .ask_token(&[
            ("client_id", &config.client_id),
            ("client_secret", config.client_secret.as_deref().unwrap()),
        ])
        .await;
    second.token = got.json()["access_token"].as_str().unwrap().to_owned();
    let entries = second.day(&running).await;
    let records = second.records(entries[0]["contentId"].as_str().unwrap(), false).await.unwrap();
    assert!(records.iter().all(|record| record["OrganizationId"] == second.tenant.as_str()));
}

#[tokio::test]
async fn the_servers_say_their_own_time() {
    let faults = "clock_skew=-2h".parse().unwrap();
    let (running, client) = started(SimulatorConfig { faults, ..SimulatorConfig::default() }).await;
    let got = client.get("subscriptions/list").await;
    let date = DateTime::parse_from_rfc2822(got.header("date").unwrap()).unwrap();
    assert!((running.now() - date.to_utc()).num_seconds().abs() <= 60);
    assert!((Utc::now() - date.to_utc()).num_minutes() >= 119);
}

#[tokio::test]
async fn what_a_client_did_is_counted() {
    let (running, client) = started(SimulatorConfig { page_size: 2, ..SimulatorConfig::backlog(4, 5) }).await;
    let entries = client.day(&running).await;
    let id = entries[0]["contentId"].as_str().unwrap();
    let plain = client.fetch(id).await.body.unwrap();
    let zipped = client
        .request(reqwest::Method::GET, &client.feed(&format!("audit/{id}")), &[("accept-encoding", "gzip")])
        .await;
    let zipped = zipped.body.unwrap();
    assert!(zipped.len() < plain.len());
    let stats = running.stats();
    assert_eq!(stats.requests_of(RequestKind::ListContent), 1);
    assert_eq!(stats.requests_of(RequestKind::NextPage), 1);
    assert_eq!(stats.requests_of(RequestKind::FetchBlob), 2);
    assert_eq!(stats.requests_of(RequestKind::Token), 1);
    assert_eq!((stats.blobs_served, stats.blobs_served_again), (1, 1));
    assert_eq!(stats.blob_bytes, (plain.len() + zipped.len()) as u64);
    assert!(stats.violations.is_empty(), "{:?}", stats.violations);
    assert!(serde_json::from_slice::<Value>(&plain).unwrap().is_array());
}

#[tokio::test]
async fn a_configuration_that_does_not_hold_together_is_refused() {
    let twice = SimulatorConfig { tenants: vec![TenantConfig::default(); 2], ..SimulatorConfig::default() };
    let certificate =
        TenantConfig { certificate: Some(b"no certificate".to_vec()), ..TenantConfig::default() };
    for config in [
        twice,
        SimulatorConfig { tenants: vec![], ..SimulatorConfig::default() },
        SimulatorConfig { tenants: vec![certificate], ..SimulatorConfig::default() },
        SimulatorConfig { page_size: 0, ..SimulatorConfig::default() },
        SimulatorConfig { records_per_blob: 0, ..SimulatorConfig::default() },
        SimulatorConfig { rate: f64::NAN, ..SimulatorConfig::default() },
        SimulatorConfig { backlog_span: Duration::from_secs(8 * 24 * 3600), ..SimulatorConfig::default() },
    ] {
        let started = simulator::Simulator::start(config.clone(), ([127, 0, 0, 1], 0).into()).await;
        assert!(matches!(started, Err(simulator::SimulatorError::Config(_))), "{config:?}");
    }
}
