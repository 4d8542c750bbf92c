//! Every fault happens, and every one that is not for good passes.

use std::time::Duration;

use chrono::TimeDelta;
use reqwest::{Method, StatusCode};
use simulator::{FAULTS, Fate, FaultKind, SimulatorConfig};

use crate::client::{Client, Got, start, started};

fn with(faults: &str, blobs: u64) -> SimulatorConfig {
    SimulatorConfig {
        faults: faults.parse().unwrap(),
        requests_per_minute: None,
        ..SimulatorConfig::backlog(blobs, 20)
    }
}

/// The first and the second answer to a fetch of the first blob.
async fn twice(faults: &str) -> (Got, Got) {
    let (running, client) = started(with(faults, 3)).await;
    let id = running.truth().blobs().next().unwrap().content_id;
    let gzip = [("accept-encoding", "gzip")];
    let url = client.feed(&format!("audit/{id}"));
    (client.request(Method::GET, &url, &gzip).await, client.request(Method::GET, &url, &gzip).await)
}

fn good(got: &Got) -> bool {
    got.status == 200
        && got.header("content-encoding") == Some("gzip")
        && got.body.as_ref().is_some_and(|body| {
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&**body), &mut plain).is_ok()
                && serde_json::from_slice::<Vec<serde_json::Value>>(&plain)
                    .is_ok_and(|records| records.len() == 20)
        })
}

#[tokio::test]
async fn every_fault_of_a_fetch_is_what_it_says_and_passes() {
    for (faults, status, code, body_ends) in [
        ("throttle403=1", 403, "AF429", true),
        ("throttle429=1@3s", 429, "AF429", true),
        ("throttle200=1", 200, "AF429", true),
        ("internal_error=1", 503, "AF50005", true),
        ("request_timeout=1", 408, "", true),
        ("server_error=1", 500, "AF50000", true),
        ("unavailable=1", 503, "", true),
        ("unauthorized=1", 401, "", true),
        ("redirect=1", 302, "", true),
        ("bare_404=1", 404, "", true),
        ("wrong_blob_id=1", 400, "AF20052", true),
        ("error_in_200=1", 200, "AF50000", true),
        ("empty_200=1", 200, "", true),
        ("html_200=1", 200, "", true),
        ("cut200=1", 200, "", true),
        ("cut_gzip=1", 200, "", true),
        ("cut_body=1", 200, "", false),
        ("cut_chunked=1", 200, "", false),
        ("stall=1@40ms", 200, "", false),
        ("blob_next_page=1", 200, "", true),
    ] {
        let (first, second) = twice(faults).await;
        assert_eq!((first.status.as_u16(), first.body.is_some()), (status, body_ends), "{faults}");
        if !code.is_empty() {
            assert_eq!(first.code(), code, "{faults}");
        }
        assert_eq!(first.header("retry-after"), (faults == "throttle429=1@3s").then_some("3"), "{faults}");
        assert_eq!(first.header("NextPageUri").is_some(), faults == "blob_next_page=1", "{faults}");
        assert!(!good(&first) && good(&second), "{faults}: {} {:?}", second.status, second.headers);
    }
}

#[tokio::test]
async fn a_cut_json_is_whole_on_every_layer_below() {
    let (first, _) = twice("cut200=1").await;
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*first.body.unwrap()), &mut plain).unwrap();
    assert!(plain.starts_with(b"[{") && !plain.ends_with(b"]"));
}

#[tokio::test]
async fn a_cut_body_gives_a_part_before_it_ends() {
    for faults in ["cut_body=1", "cut_chunked=1", "stall=1@40ms"] {
        let (running, client) = started(with(faults, 1)).await;
        let id = running.truth().blobs().next().unwrap().content_id;
        let mut answer = client
            .http
            .get(client.feed(&format!("audit/{id}?PublisherIdentifier={}", client.tenant)))
            .bearer_auth(&client.token)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.content_length().is_some(), faults != "cut_chunked=1", "{faults}");
        let mut bytes = 0;
        let end = loop {
            match answer.chunk().await {
                Ok(Some(chunk)) => bytes += chunk.len(),
                end => break end,
            }
        };
        assert!(end.is_err() && bytes > 1000, "{faults}: {bytes}");
    }
}

#[tokio::test]
async fn through_any_transient_fault_everything_is_collected_without_a_duplicate() {
    let transient = FAULTS.iter().filter(|help| {
        help.value.starts_with("SHARE") && !["expired", "gone", "gzip_bomb"].contains(&help.name)
    });
    let quick = |name: &str| match name {
        "slow_first_byte" | "slow_body" | "stall" => "@5ms",
        "late" => "@50ms",
        "throttle429" => "@0s",
        _ => "",
    };
    let mut all = Vec::new();
    for help in transient {
        let fault = format!("{}=1/2{}", help.name, quick(help.name));
        collect_and_judge(&fault).await;
        all.push(format!("{}=0.3{}", help.name, quick(help.name)));
    }
    collect_and_judge(&all.join(",")).await;
}

async fn collect_and_judge(faults: &str) {
    let (running, client) = started(SimulatorConfig { page_size: 5, ..with(faults, 24) }).await;
    running.advance(Duration::from_secs(1));
    let collected = client.collect(&running, faults.contains("gzip")).await;
    let mut truth: Vec<_> =
        running.truth().records().map(|(_, _, id)| format!("\"{}\"", id.unwrap())).collect();
    truth.sort();
    assert_eq!(collected.ids, truth, "{faults}");
    assert_eq!(truth.len(), 24 * 20, "{faults}");
    let duplicates: u64 = running.truth().blobs().map(|blob| blob.duplicates).sum();
    assert_eq!(collected.raw as u64, truth.len() as u64 + duplicates, "{faults}");
    let name = faults.split('=').next().unwrap();
    // These are seen in what is listed and served, not counted as they happen.
    let silent = ["late", "same_created", "duplicate_records", "token_error", "other_body"].contains(&name);
    let stats = running.stats();
    assert!(silent || stats.faults.get(name).is_some_and(|times| *times > 0), "{faults}: {:?}", stats.faults);
    assert_eq!(stats.tokens_leaked, 0);
}

#[tokio::test]
async fn expired_and_gone_blobs_are_gaps_and_the_truth_knows_it() {
    for (fault, code) in [("expired", "AF20051"), ("gone", "AF20050")] {
        // A record whose original is lost is there once more when a copy of it can be had.
        let (running, client) = started(with(&format!("{fault}=1/3,duplicate_records=1"), 30)).await;
        let lost = running.truth().blobs().find(|blob| blob.records == 0).unwrap();
        for _ in 0..3 {
            assert_eq!(client.fetch(&lost.content_id).await.code(), code);
        }
        let collected = client.collect(&running, false).await;
        assert_eq!(collected.gaps, 10);
        let mut truth: Vec<_> =
            running.truth().records().map(|(_, _, id)| format!("\"{}\"", id.unwrap())).collect();
        truth.sort();
        assert!(truth.len() > 20 * 20);
        assert_eq!(collected.ids, truth);
    }
}

#[tokio::test]
async fn a_late_blob_is_listed_late_in_its_own_place_of_time() {
    let (running, client) = started(with("late=1/4@10m", 40)).await;
    let list = async || client.day(&running).await;
    let before = list().await.len();
    assert_eq!((before, running.truth().count()), (30, 30 * 20));
    running.advance(Duration::from_secs(600));
    let after = list().await;
    // The window moved on by ten minutes and may have lost the oldest blob.
    assert!(after.len() >= 39, "{}", after.len());
    assert!(!after.is_sorted_by_key(|entry| entry["contentCreated"].to_string()));
}

#[tokio::test]
async fn listings_and_bodies_are_bent_as_they_say() {
    let (running, client) = started(SimulatorConfig {
        page_size: 10,
        ..with("same_created=1,duplicate_listing=1,broken_content_uri=1,bom=1", 20)
    })
    .await;
    let entries = client.day(&running).await;
    assert_eq!(entries.len(), 40);
    let mut times: Vec<_> = entries.iter().map(|entry| entry["contentCreated"].to_string()).collect();
    times.sort();
    times.dedup();
    assert_eq!(times.len(), 10, "two blobs each share a time");
    assert!(
        entries.iter().all(|entry| entry["contentUri"].as_str().unwrap().starts_with("http://localhost/"))
    );
    let id = entries[0]["contentId"].as_str().unwrap();
    assert!(client.fetch(id).await.body.unwrap().starts_with(b"\xEF\xBB\xBF["));

    let (running, client) = started(with("pretty_printed=1", 1)).await;
    let body = client.fetch(&running.truth().blobs().next().unwrap().content_id).await.body.unwrap();
    assert!(body.iter().filter(|byte| **byte == b'\n').count() > 20 * 10);
}

#[tokio::test]
async fn a_body_that_is_fetched_again_is_another_one_with_the_same_records() {
    let (running, client) = started(with("other_body=1/2", 2)).await;
    let mut others = 0;
    for blob in running.truth().blobs() {
        let mut bodies = Vec::new();
        for _ in 0..3 {
            bodies.push(client.fetch(&blob.content_id).await.body.unwrap());
        }
        assert_eq!(bodies[1], bodies[2]);
        others += usize::from(bodies[0] != bodies[1]);
        let mut records: Vec<Vec<serde_json::Value>> =
            bodies.iter().map(|body| serde_json::from_slice(body).unwrap()).collect();
        if bodies[0] != bodies[1] {
            records[1].reverse();
        }
        assert_eq!(records[0], records[1]);
    }
    assert_eq!(others, 1, "it is a fault of one of the two");
    assert_eq!(running.stats().faults.get("other_body"), Some(&2));
}

#[tokio::test]
async fn repeated_records_come_with_another_order_of_keys() {
    let (running, client) = started(with("duplicate_records=1", 10)).await;
    let blobs: Vec<_> = running.truth().blobs().collect();
    assert_eq!(blobs.iter().map(|blob| blob.duplicates).collect::<Vec<_>>(), [0, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
    let mut texts = std::collections::HashMap::<String, Vec<String>>::new();
    for blob in &blobs {
        let body = client.fetch(&blob.content_id).await.body.unwrap();
        let records: Vec<Box<serde_json::value::RawValue>> = serde_json::from_slice(&body).unwrap();
        for record in records {
            let id = serde_json::from_str::<serde_json::Value>(record.get()).unwrap()["Id"].to_string();
            texts.entry(id).or_default().push(record.get().to_owned());
        }
    }
    let repeated: Vec<_> = texts.values().filter(|texts| texts.len() > 1).collect();
    assert!(repeated.len() >= 9);
    let read = |text: &String| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert!(repeated.iter().all(|texts| read(&texts[0]) == read(&texts[1])));
    assert!(repeated.iter().any(|texts| texts[0] != texts[1]));
}

#[tokio::test]
async fn whoever_follows_to_another_origin_is_seen() {
    for faults in ["redirect=1", "next_page_other_host=1"] {
        let (running, client) = started(SimulatorConfig { page_size: 2, ..with(faults, 5) }).await;
        let url = client.feed(&Client::window(
            "Audit.Exchange",
            running.now() - TimeDelta::hours(24),
            running.now(),
        ));
        let mut got = client.request(Method::GET, &url, &[]).await;
        let elsewhere = loop {
            let link = got.header("location").or(got.header("NextPageUri")).unwrap().to_owned();
            if link.starts_with(running.other_origin()) {
                break link;
            }
            got = client.request(Method::GET, &link, &[]).await;
        };
        assert_eq!(client.request(Method::GET, &elsewhere, &[]).await.body.unwrap(), b"[]");
        let stats = running.stats();
        assert_eq!((stats.other_origin_requests, stats.tokens_leaked), (1, 1), "{faults}");
    }
}

#[tokio::test]
async fn tokens_expire_and_the_token_endpoint_fails_when_told_to() {
    let (running, mut client) = started(with("token_expiry=30s,token_error=1x2", 1)).await;
    assert_eq!(client.get("subscriptions/list").await.status, 200);
    running.advance(Duration::from_secs(31));
    assert_eq!(client.get("subscriptions/list").await.status, 401);
    let failed = client.ask_token(&[]).await;
    assert_eq!(
        (failed.status, failed.json()["error_codes"][0].as_u64()),
        (StatusCode::SERVICE_UNAVAILABLE, Some(90033))
    );
    client.log_in().await;
    assert_eq!(client.get("subscriptions/list").await.status, 200);
    assert_eq!(running.stats().faults["token_error"], 4);
}

#[tokio::test]
async fn one_content_type_may_be_denied_or_disabled_and_the_others_go_on() {
    let (running, client) =
        started(with("permission_denied=Audit.SharePoint,subscription_disabled=Audit.General", 1)).await;
    let list = async |kind: &str| client.get(&format!("subscriptions/content?contentType={kind}")).await;
    assert_eq!(list("Audit.SharePoint").await.code(), "AF10001");
    assert_eq!(list("Audit.General").await.code(), "AF20023");
    assert_eq!(list("Audit.Exchange").await.status, 200);
    assert_eq!(client.post("subscriptions/start?contentType=Audit.General").await.status, 200);
    assert_eq!(list("Audit.General").await.status, 200);
    running.change_faults(|faults| faults.set("subscription_disabled=Audit.General")).unwrap();
    assert_eq!(list("Audit.General").await.code(), "AF20023");
}

#[tokio::test]
async fn a_bomb_is_small_on_the_wire_and_has_no_end() {
    let (running, client) = started(with("gzip_bomb=1", 2)).await;
    let blobs: Vec<_> = running.truth().blobs().collect();
    assert!(blobs.iter().all(|blob| (blob.fate, blob.records) == (Fate::Oversized, 0)));
    let url = client.feed(&format!("audit/{}", blobs[0].content_id));
    for _ in 0..2 {
        let got = client.request(Method::GET, &url, &[("accept-encoding", "gzip")]).await;
        assert_eq!((got.status.as_u16(), got.header("content-encoding")), (200, Some("gzip")));
        let packed = got.body.unwrap();
        assert!(packed.len() < 16 << 20, "{}", packed.len());
        let mut plain = Vec::new();
        let decoder = flate2::read::MultiGzDecoder::new(&*packed);
        std::io::Read::read_to_end(&mut std::io::Read::take(decoder, 4 << 20), &mut plain).unwrap();
        assert!(plain.starts_with(b"[{") && plain.ends_with(&[b' '; 1 << 20]) && plain.len() == 4 << 20);
    }
}

#[tokio::test]
async fn entries_are_as_long_as_they_are_told_to_be() {
    let (running, client) = started(with("padded_entries=10000", 5)).await;
    let now = running.now();
    let got = client.get(&Client::window("Audit.Exchange", now - TimeDelta::hours(24), now)).await;
    assert_eq!(got.json().as_array().unwrap().len(), 5);
    assert!(got.body.unwrap().len() > 50_000);
}

#[tokio::test]
async fn without_auditing_nothing_can_be_started_and_what_was_is_disabled() {
    let content = "subscriptions/content?contentType=Audit.Exchange";
    let running =
        start(SimulatorConfig { start_spacing: Duration::ZERO, ..with("auditing_off=on", 1) }).await;
    let client = Client::new(&running).await;
    assert_eq!(client.get("subscriptions/list").await.json(), serde_json::json!([]));
    assert_eq!(client.get(content).await.code(), "AF20022");
    let refused = client.post("subscriptions/start?contentType=Audit.Exchange").await;
    let text = String::from_utf8(refused.body.unwrap()).unwrap();
    assert!(refused.status == 400 && text.contains("DataServiceException: Tenant"), "{text}");
    running.change_faults(|faults| faults.set("auditing_off=off")).unwrap();
    assert_eq!(client.post("subscriptions/start?contentType=Audit.Exchange").await.status, 200);
    running.change_faults(|faults| faults.set("auditing_off=on")).unwrap();
    assert_eq!(client.get(content).await.code(), "AF20023");
    assert_eq!(client.get("subscriptions/list").await.json()[0]["status"], "disabled");
    running.change_faults(|faults| faults.set("tenant_misconfigured=on")).unwrap();
    assert_eq!(client.get("subscriptions/list").await.code(), "AF20012");
}

#[tokio::test]
async fn a_subscription_in_limbo_is_started_and_not_there() {
    let (running, client) = started(with("subscription_limbo=Audit.Exchange", 1)).await;
    let listed = client.get("subscriptions/list").await.json();
    assert!(
        listed.as_array().unwrap().iter().all(|entry| entry["contentType"] != "Audit.Exchange"),
        "{listed}"
    );
    assert_eq!(client.post("subscriptions/start?contentType=Audit.Exchange").await.code(), "AF20024");
    assert_eq!(client.get("subscriptions/content?contentType=Audit.Exchange").await.code(), "AF20023");
    assert!(running.stats().violations.is_empty());
}

#[tokio::test]
async fn a_start_that_is_refused_was_one_all_the_same() {
    for fault in ["auditing_off=on", "subscription_limbo=Audit.Exchange"] {
        let running = start(with(fault, 1)).await;
        let client = Client::new(&running).await;
        let start = "subscriptions/start?contentType=Audit.Exchange";
        assert_eq!(client.post(start).await.status, 400, "{fault}");
        assert!(running.stats().violations.is_empty(), "{fault}");
        assert_eq!(client.post(start).await.code(), "AF429", "{fault}");
        assert_eq!(running.stats().violations["started_too_soon"], 1, "{fault}");
    }
}

#[tokio::test]
async fn a_long_window_is_answered_in_part_and_the_publisher_is_kept_when_told_to() {
    let (running, client) =
        started(SimulatorConfig { page_size: 5, ..with("partial_listing=on,lost_publisher_id=off", 24) })
            .await;
    let got = client
        .get(&Client::window("Audit.Exchange", running.now() - TimeDelta::hours(36), running.now()))
        .await;
    assert_eq!(got.status, 200);
    let next = got.header("NextPageUri").unwrap();
    assert!(next.ends_with(&format!("&PublisherIdentifier={}", client.tenant)), "{next}");
    let all = client.list("Audit.Exchange", running.now() - TimeDelta::hours(36), running.now()).await;
    assert!((11..=13).contains(&all.len()), "half of the day and a half: {}", all.len());
}

#[tokio::test]
async fn a_stalled_answer_does_not_hold_up_the_end() {
    let (running, client) = started(with("stall=1@1h", 1)).await;
    let id = running.truth().blobs().next().unwrap().content_id;
    let url = client.feed(&format!("audit/{id}"));
    let stalled = tokio::spawn(async move { client.request(Method::GET, &url, &[]).await.body.is_none() });
    while running.stats().faults.is_empty() {
        tokio::task::yield_now().await;
    }
    running.shutdown().await;
    assert!(stalled.await.unwrap(), "the answer was cut");
}

#[test]
fn every_fault_is_named_once() {
    let mut names: Vec<_> = FAULTS.iter().map(|help| help.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), FAULTS.len());
    assert_eq!(names.len(), FaultKind::ALL.len() + 10);
}

#[tokio::test]
async fn the_manual_names_every_fault() {
    let manual = include_str!("../../../docs/simulator.md");
    for help in FAULTS {
        assert!(
            manual.contains(&format!("| `{}` |", help.name)),
            "docs/simulator.md does not explain {}",
            help.name
        );
    }
    drop(start(SimulatorConfig::default()).await);
}
