//! The control plane, as a test uses it that drives a collector from outside.

use reqwest::{Method, StatusCode};
use serde_json::Value;
use simulator::{SimulatorConfig, TenantConfig};

use crate::client::{Client, Got, started};

async fn control(client: &Client, method: Method, path: &str, body: &'static str) -> Got {
    let response = client
        .http
        .request(method, format!("{}/_simulator/{path}", client.base))
        .body(body)
        .send()
        .await
        .unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    Got { status, headers, body: Some(response.bytes().await.unwrap().to_vec()) }
}

#[tokio::test]
async fn the_truth_is_told_a_blob_a_line() {
    let (running, client) = started(SimulatorConfig::backlog(100, 10)).await;
    let got = control(&client, Method::GET, "truth", "").await;
    let text = String::from_utf8(got.body.unwrap()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: Vec<_> = lines
        .iter()
        .flat_map(|line| line["ids"].as_array().unwrap())
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    assert_eq!((lines.len(), ids.len()), (100, 1000));
    assert_eq!(ids, running.truth().records().map(|(_, _, id)| id.unwrap()).collect::<Vec<_>>());
    assert_eq!(lines[0]["fate"], "deliverable");
    let summary = control(&client, Method::GET, "truth/summary", "").await.json();
    assert_eq!((&summary["records"], &summary["blobs"]["deliverable"]), (&1000.into(), &100.into()));
}

#[tokio::test]
async fn stats_are_shown_and_reset() {
    let (_running, client) = started(SimulatorConfig::default()).await;
    client.get("subscriptions/list").await;
    let stats = control(&client, Method::GET, "stats", "").await.json();
    assert_eq!(stats["requests"]["list_subscriptions"]["200"], 1);
    control(&client, Method::DELETE, "stats", "").await;
    assert_eq!(control(&client, Method::GET, "stats", "").await.json()["requests"], serde_json::json!({}));
}

#[tokio::test]
async fn a_blob_is_added_with_its_very_bytes() {
    let (running, client) = started(SimulatorConfig::backlog(0, 1)).await;
    let body = "[ {\"Id\":\"x\"} ]";
    let path = "blobs?contentType=Audit.Exchange&contentId=mine$1&expires=2099-01-01T00:00:00Z";
    assert_eq!(control(&client, Method::POST, path, body).await.json()["contentId"], "mine$1");
    assert_eq!(client.fetch("mine$1").await.body.unwrap(), body.as_bytes());
    assert_eq!(running.truth().count(), 1);
    let unknown = format!("blobs?contentType=Audit.Exchange&tenant={}", TenantConfig::numbered(7).tenant_id);
    for path in [
        "blobs",
        "blobs?contentType=Mail",
        "blobs?contentType=DLP.All&created=soon",
        "blobs?contentType=DLP.All&tenant=me",
        &unknown,
    ] {
        let got = control(&client, Method::POST, path, body).await;
        assert_eq!(got.status, StatusCode::BAD_REQUEST, "{path}");
        assert!(got.json()["problem"].is_string());
    }
}

#[tokio::test]
async fn faults_clock_and_tokens_are_steered() {
    let (_running, client) = started(SimulatorConfig::backlog(1, 1)).await;
    let list = async || client.get("subscriptions/content?contentType=Audit.Exchange").await;
    assert_eq!(control(&client, Method::PUT, "faults", "server_error=1x100\nbom=0.5\n").await.status, 200);
    assert!(
        String::from_utf8(control(&client, Method::GET, "faults", "").await.body.unwrap())
            .unwrap()
            .starts_with("server_error=1x100\n")
    );
    assert_eq!(list().await.status, 500);
    for bad in ["late=1", "nonsense=1", "bom"] {
        let got = control(&client, Method::PUT, "faults", bad).await;
        assert_eq!(got.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    control(&client, Method::DELETE, "faults", "").await;
    assert_eq!(list().await.status, 200);
    control(&client, Method::POST, "tokens/revoke", "").await;
    assert_eq!(list().await.status, 401);
    let before = list().await.header("date").unwrap().to_owned();
    assert_eq!(control(&client, Method::POST, "clock?advance=86400", "").await.status, 200);
    assert_ne!(list().await.header("date").unwrap(), before);
    assert_eq!(control(&client, Method::POST, "clock?advance=-1", "").await.status, 400);
    assert_eq!(control(&client, Method::GET, "nothing", "").await.status, 404);
}
