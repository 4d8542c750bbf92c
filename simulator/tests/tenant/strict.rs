//! Every rule of the API, and what its breach is answered and counted as.

use std::time::Duration;

use chrono::TimeDelta;
use simulator::{SimulatorConfig, TenantConfig, ThrottleAnswer};

use crate::client::{Client, Got, start, started};

const LIST: &str = "subscriptions/content?contentType=Audit.Exchange";

fn is(got: &Got, status: u16, code: &str) {
    assert_eq!(
        (got.status.as_u16(), got.code().as_str()),
        (status, code),
        "{:?}",
        got.body.as_deref().map(String::from_utf8_lossy)
    );
}

#[tokio::test]
async fn without_a_good_token_nothing_is_answered() {
    let (running, mut client) = started(SimulatorConfig::default()).await;
    let good = std::mem::take(&mut client.token);
    assert_eq!(client.get(LIST).await.status, 401);
    // A changed last letter may only touch bits that base64 leaves over, so one in the middle is changed.
    let middle = good.len() / 2;
    let other = if good.as_bytes()[middle] == b'A' { "B" } else { "A" };
    client.token = format!("{}{other}{}", &good[..middle], &good[middle + 1..]);
    assert_eq!(client.get(LIST).await.status, 401);
    let elsewhere =
        client.ask_token(&[("scope", "https://soc.servicebus.windows.net/.default")]).await.json();
    client.token = elsewhere["access_token"].as_str().unwrap().into();
    assert_eq!(client.get(LIST).await.status, 401);
    client.token = good;
    assert_eq!(client.get(LIST).await.status, 200);
    running.advance(Duration::from_secs(3600));
    assert_eq!(client.get(LIST).await.status, 401);
    let stats = running.stats();
    for name in ["no_token", "bad_token", "wrong_audience", "expired_token"] {
        assert_eq!(stats.violations_of(name), 1, "{name}");
    }
}

#[tokio::test]
async fn the_tenant_in_the_url_must_be_the_one_in_the_token() {
    let tenants = vec![TenantConfig::default(), TenantConfig::numbered(1)];
    let (running, mut client) = started(SimulatorConfig { tenants, ..SimulatorConfig::default() }).await;
    client.tenant = TenantConfig::numbered(1).tenant_id.to_string();
    is(&client.get(LIST).await, 400, "AF20010");
    client.tenant = "11111111-2222-4333-8444-555555555555".into();
    is(&client.get(LIST).await, 400, "AF20011");
    client.tenant = "contoso.onmicrosoft.com".into();
    is(&client.get(LIST).await, 400, "AF20013");
    assert_eq!(running.stats().violations_of("wrong_tenant"), 1);
}

#[tokio::test]
async fn without_its_role_an_application_reads_nothing_and_without_the_dlp_role_no_detail() {
    let tenant = |roles: &[&str]| {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        SimulatorConfig {
            tenants: vec![TenantConfig { roles, ..TenantConfig::default() }],
            content_types: vec![schemas::ContentType::DlpAll],
            ..SimulatorConfig::backlog(1, 20)
        }
    };
    let (_running, client) = started(tenant(&["ServiceHealth.Read"])).await;
    is(&client.get(LIST).await, 401, "AF10001");
    for (roles, detail) in
        [(&["ActivityFeed.Read"][..], false), (&["ActivityFeed.Read", "ActivityFeed.ReadDlp"][..], true)]
    {
        let (running, client) = started(tenant(roles)).await;
        let blobs = client.list("DLP.All", running.now() - TimeDelta::hours(23), running.now()).await;
        let records = client.records(blobs[0]["contentId"].as_str().unwrap(), false).await.unwrap();
        assert!(records.iter().all(|record| record["SensitiveInfoDetectionIsIncluded"] == detail));
        assert_eq!(records.iter().any(|record| record.to_string().contains("DetectedValues")), detail);
    }
}

#[tokio::test]
async fn content_types_and_times_are_checked() {
    let (running, client) = started(SimulatorConfig::default()).await;
    let now = running.now();
    let window = |start, end| Client::window("Audit.Exchange", now + start, now + end);
    is(&client.get("subscriptions/content").await, 400, "AF20001");
    is(&client.get("subscriptions/content?contentType=Audit.Nothing").await, 400, "AF20020");
    is(&client.get(&format!("{LIST}&startTime=2026-01-01")).await, 400, "AF20030");
    is(&client.get(&format!("{LIST}&startTime=soon&endTime=later")).await, 400, "AF20002");
    is(&client.get(&window(TimeDelta::hours(-25), TimeDelta::zero())).await, 400, "AF20055");
    is(&client.get(&window(TimeDelta::hours(-1), TimeDelta::hours(-2))).await, 400, "AF20055");
    is(&client.get(&window(TimeDelta::hours(-170), TimeDelta::hours(-160))).await, 400, "AF20055");
    is(&client.get(&window(TimeDelta::hours(-168), TimeDelta::hours(-144))).await, 200, "");
    is(&client.get(&window(TimeDelta::hours(-1), TimeDelta::hours(1))).await, 200, "");
    is(&client.get(LIST).await, 200, "");
    let stats = running.stats();
    for name in [
        "missing_parameter",
        "unknown_content_type",
        "half_window",
        "bad_time",
        "window_too_long",
        "window_reversed",
        "window_too_old",
    ] {
        assert_eq!(stats.violations_of(name), 1, "{name}");
    }
}

#[tokio::test]
async fn a_subscription_is_started_once_and_content_comes_after_it() {
    let delay = Duration::from_secs(600);
    let running =
        start(SimulatorConfig { first_content_delay: delay, ..SimulatorConfig::backlog(3, 2) }).await;
    let client = Client::new(&running).await;
    is(&client.get(LIST).await, 400, "AF20022");
    assert_eq!(client.get("subscriptions/list").await.json(), serde_json::json!([]));
    let begun = client.post("subscriptions/start?contentType=Audit.Exchange").await;
    assert_eq!((begun.status.as_u16(), begun.json()["status"].as_str()), (200, Some("enabled")));
    assert_eq!(client.get("subscriptions/list").await.json()[0]["status"], "enabled");
    is(&client.post("subscriptions/start?contentType=Audit.Exchange").await, 403, "AF429");
    assert_eq!(client.get(LIST).await.json().as_array().unwrap().len(), 0, "nothing yet");
    running.advance(Duration::from_secs(15 * 60));
    is(&client.post("subscriptions/start?contentType=Audit.Exchange").await, 400, "AF20024");
    assert_eq!(client.get(LIST).await.json().as_array().unwrap().len(), 3);
    is(&client.post("subscriptions/start?contentType=Audit.SharePoint").await, 200, "");
    assert_eq!(client.post("subscriptions/stop?contentType=Audit.Exchange").await.status, 200);
    is(&client.get(LIST).await, 400, "AF20023");
    is(&client.post("subscriptions/stop?contentType=DLP.All").await, 400, "AF20022");
    let stats = running.stats();
    for name in ["not_subscribed", "started_too_soon", "started_twice"] {
        assert_eq!(stats.violations_of(name), 1, "{name}");
    }
}

#[tokio::test]
async fn a_webhook_is_never_validated() {
    let running = start(SimulatorConfig::default()).await;
    let client = Client::new(&running).await;
    let url = format!(
        "{}?contentType=Audit.Exchange&PublisherIdentifier={}",
        client.feed("subscriptions/start"),
        client.tenant
    );
    let body = r#"{"webhook":{"address":"https://hook.example"}}"#;
    let got = client.http.post(url).bearer_auth(&client.token).body(body).send().await.unwrap();
    assert!(got.text().await.unwrap().contains("AF20021"));
}

#[tokio::test]
async fn pages_join_to_the_window_and_only_genuine_ones_are_given() {
    for next_page_v1 in [false, true] {
        let (running, client) =
            started(SimulatorConfig { page_size: 7, next_page_v1, ..SimulatorConfig::backlog(50, 1) }).await;
        let end = running.now();
        let start = end - TimeDelta::hours(24);
        let entries = client.list("Audit.Exchange", start, end).await;
        let mut ids: Vec<_> = entries.iter().map(|entry| entry["contentId"].as_str().unwrap()).collect();
        assert!(entries.is_sorted_by_key(|entry| entry["contentCreated"].as_str().unwrap().to_owned()));
        ids.dedup();
        assert_eq!(ids.len(), 50);

        let first = client.get(&Client::window("Audit.Exchange", start, end)).await;
        let next = first.header("NextPageUri").unwrap().to_owned();
        assert!(next.starts_with(&format!(
            "{}/api/v1{}/",
            running.base_url(),
            if next_page_v1 { "" } else { ".0" }
        )));
        assert!(!next.to_lowercase().contains("publisheridentifier"));
        let ask = async |url: String| client.request(reqwest::Method::GET, &url, &[]).await;
        is(&ask(format!("{next}0")).await, 400, "AF20031");
        is(&ask(next.replace("Audit.Exchange", "DLP.All")).await, 400, "AF20031");
        is(&ask(next.replace("nextPage=", "nextPage=1")).await, 400, "AF20031");
        assert_eq!(running.stats().violations_of("invalid_next_page"), 3);
    }
}

#[tokio::test]
async fn blobs_expire_and_made_up_ones_do_not_exist() {
    let (running, mut client) = started(SimulatorConfig::backlog(1, 3)).await;
    let entries = client.day(&running).await;
    let id = entries[0]["contentId"].as_str().unwrap();
    assert_eq!(entries[0]["contentUri"], client.feed(&format!("audit/{id}")));
    is(&client.fetch(id).await, 200, "");
    is(&client.fetch(&id.replace('$', "%24")).await, 200, "");
    is(&client.fetch(&id.replace("emea", "apac")).await, 404, "AF20050");
    is(&client.fetch("nonsense").await, 400, "AF20052");
    running.advance(Duration::from_secs(7 * 24 * 3600));
    client.log_in().await;
    is(&client.fetch(id).await, 400, "AF20051");
    assert_eq!(running.truth().count(), 0, "nobody can have it now");
}

#[tokio::test]
async fn each_publisher_has_its_quota_and_those_without_a_name_share_one() {
    let run = async |throttle| {
        let (running, mut client) =
            started(SimulatorConfig { requests_per_minute: Some(3), throttle, ..SimulatorConfig::default() })
                .await;
        for _ in 0..3 {
            is(&client.get(LIST).await, 200, "");
        }
        let refused = client.get(LIST).await;
        is(&refused, throttle.status, "AF429");
        client.publisher = false;
        is(&client.get(LIST).await, 200, "");
        let stats = running.stats();
        assert_eq!((stats.violations_of("over_quota"), stats.without_publisher_identifier), (1, 1));
        refused.header("retry-after").map(|text| text.parse::<u64>().unwrap())
    };
    assert_eq!(run(ThrottleAnswer { status: 403, retry_after: false }).await, None);
    let wait = run(ThrottleAnswer { status: 429, retry_after: true }).await.unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_publisher_identifier_is_a_guid_and_its_name_has_no_case() {
    let (running, mut client) = started(SimulatorConfig::default()).await;
    client.publisher = false;
    is(&client.get(&format!("{LIST}&publisherIDENTIFIER={}", client.tenant)).await, 200, "");
    is(&client.get(&format!("{LIST}&PublisherIdentifier=me")).await, 400, "AF20002");
    assert_eq!(running.stats().without_publisher_identifier, 0);
}

#[tokio::test]
async fn what_the_api_does_not_have_is_not_found() {
    let (running, client) = started(SimulatorConfig::default()).await;
    assert_eq!(client.get("subscriptions/nothing").await.status, 404);
    assert_eq!(client.get("resources/dlpSensitiveTypes").await.json()[0]["name"], "Credit Card Number");
    let two = [("accept-language", "en-US,de-DE")];
    is(
        &client.request(reqwest::Method::GET, &client.feed("resources/dlpSensitiveTypes"), &two).await,
        400,
        "AF20053",
    );
    assert_eq!(running.stats().violations_of("unknown_request"), 1);
}
