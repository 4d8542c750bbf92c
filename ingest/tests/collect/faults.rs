//! Every fault that a simulated tenant knows, alone and all together.

use std::{sync::Arc, time::Duration};

use chrono::{TimeDelta, Utc};
use schemas::ContentType;
use simulator::{FaultKind, RequestKind};

use crate::harness::{collect, collect_with, simulation, start, tenant, until};

/// Collects 24 blobs with these faults; at the end every blob is there exactly once.
async fn survives(faults: &str) -> simulator::StatsSnapshot {
    let mut config = simulation(24, faults);
    config.page_size = 5;
    let simulator = start(config).await;
    let mut config = tenant(&simulator, &[ContentType::Exchange]);
    config.timeouts.stall = Duration::from_millis(300);
    config.timeouts.first_byte = Duration::from_secs(5);
    let collecting = collect_with(simulator, config, &ingest::HttpSettings::default());
    collecting.until_settled().await;
    let stats = collecting.finish().await;
    // What the tenant holds is no fault that strikes.
    let structural = ["same_created", "duplicate_records"];
    for name in faults.split(',').filter_map(|fault| fault.split('=').next()) {
        if structural.contains(&name) {
            continue;
        }
        assert!(
            stats.faults.get(name).is_some_and(|times| *times > 0),
            "{name} never struck: {:?}",
            stats.faults
        );
    }
    stats
}

macro_rules! survives {
    ($($name:ident: $fault:literal;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                survives($fault).await;
            }
        )+
    };
}

survives! {
    throttling_as_403: "throttle403=1/6x2";
    throttling_as_429_with_a_wait: "throttle429=1/6x1@1s";
    throttling_in_a_200: "throttle200=1/6x2";
    server_errors: "server_error=1/3x3";
    errors_that_are_undocumented: "internal_error=1/3x3";
    requests_that_time_out: "request_timeout=1/3x2";
    unavailable_with_html: "unavailable=1/3x2";
    tokens_that_are_refused: "unauthorized=1/4x1";
    tokens_that_are_refused_again: "unauthorized=1/4x3";
    a_token_endpoint_that_fails: "token_error=1/1x2";
    a_token_endpoint_that_asks_to_wait: "token_error=1/1x1@1s";
    answers_that_begin_late: "slow_first_byte=1/6x1@100ms";
    bodies_that_come_slowly: "slow_body=1/3x1@400ms";
    bodies_cut_before_their_length: "cut_body=1/3x2";
    bodies_cut_before_the_last_chunk: "cut_chunked=1/3x2";
    bodies_whose_json_is_cut: "cut200=1/3x2";
    bodies_whose_gzip_is_cut: "cut_gzip=1/3x2";
    errors_with_status_200: "error_in_200=1/3x2";
    empty_answers: "empty_200=1/3x2";
    a_proxys_page_with_status_200: "html_200=1/3x2";
    redirects: "redirect=1/3x2";
    blobs_in_several_pages: "blob_next_page=1/3x2";
    bare_404s: "bare_404=1/3x3";
    unknown_content_ids: "wrong_blob_id=1/8x1";
    expired_blobs: "expired=1/4";
    gone_blobs: "gone=1/4";
    equal_times_of_creation: "same_created=1/2";
    repeated_records: "duplicate_records=1/3";
    repeated_listings: "duplicate_listing=1/3";
    broken_addresses: "broken_content_uri=1/2";
    byte_order_marks: "bom=1/2";
    pretty_printed_bodies: "pretty_printed=1/2";
    stale_next_pages: "stale_next_page=1/3x1";
    next_pages_elsewhere: "next_page_other_host=1/3x1";
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_at_once() {
    survives(
        "throttle429=1/11@1s,server_error=1/7x2,unavailable=1/9,unauthorized=1/8,redirect=1/10,bare_404=1/9x2,\
         error_in_200=1/10,empty_200=1/11,html_200=1/12,cut200=1/9,cut_gzip=1/8,cut_body=1/10,cut_chunked=1/7,\
         stall=1/20,expired=1/12,gone=1/13,same_created=1/4,duplicate_listing=1/5,broken_content_uri=1/3,\
         bom=1/6,pretty_printed=1/5,stale_next_page=1/9,next_page_other_host=1/8",
    )
    .await;
}

/// Collects 8 blobs. Each of them suffers this once, for longer than a test waits: what is not given up soon never ends.
async fn is_given_up(
    fault: &str,
    said: &str,
    hurry: impl FnOnce(&mut ingest::api::Timeouts),
) -> Arc<ingest::TenantHealth> {
    let simulator = start(simulation(8, fault)).await;
    let mut config = tenant(&simulator, &[ContentType::Exchange]);
    hurry(&mut config.timeouts);
    let collecting = collect_with(simulator, config, &ingest::HttpSettings::default());
    collecting.until_settled().await;
    for row in collecting.ledger.lock().blobs.values() {
        assert!(row.errors.iter().any(|error| error == said), "{:?}", row.errors);
    }
    let health = Arc::clone(collecting.handle.health());
    collecting.finish().await;
    health
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_begin_is_given_up() {
    let health = is_given_up("slow_first_byte=1/1x1@10m", "no answer came within 0.2 s", |timeouts| {
        timeouts.first_byte = Duration::from_millis(200);
    })
    .await;
    let (_, trouble) = health.feeds[0].listing.get().last_error.unwrap();
    assert_eq!(trouble.error, "no answer came within 0.2 s");
    let counts = health.requests.counts();
    let timed_out = counts.iter().find(|(call, outcome, _)| (*call, *outcome) == ("fetch", "timed_out"));
    assert!(timed_out.is_some_and(|(_, _, number)| *number >= 8), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stalls_is_given_up() {
    is_given_up("stall=1/1x1@10m", "the body stopped coming within 0.2 s", |timeouts| {
        timeouts.stall = Duration::from_millis(200);
    })
    .await;
}

/// A fault that the simulator learns must be tried here as well.
#[test]
fn no_fault_is_forgotten() {
    let source = include_str!("faults.rs");
    // A body that differs needs a spool that loses the first: `tests/scenarios/damage.rs`.
    let elsewhere = [FaultKind::Late, FaultKind::OtherBody];
    for kind in FaultKind::ALL.iter().filter(|kind| !elsewhere.contains(kind)) {
        assert!(source.contains(&format!("\"{}=", kind.name())), "{} has no test", kind.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_fetched_twice_when_nothing_fails() {
    let collecting = collect(simulation(300, "")).await;
    collecting.until_settled().await;
    let stats = collecting.finish().await;
    assert_eq!(stats.requests_of(RequestKind::FetchBlob), 300);
    assert_eq!(stats.tokens_issued, 1);
    assert_eq!(stats.requests_of(RequestKind::StartSubscription), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_given_up_at_the_bound_and_stops_nobody() {
    let simulator = start(simulation(12, "gzip_bomb=1/4")).await;
    let mut config = tenant(&simulator, &[ContentType::Exchange]);
    config.blob_max_bytes = 4 << 20;
    let collecting = collect_with(simulator, config, &ingest::HttpSettings::default());
    let tried = || collecting.ledger.lock().blobs.values().filter(|row| !row.errors.is_empty()).count();
    until("the others are fetched and the bombs were tried", || {
        collecting.ledger.fetched() == 9 && tried() == 3
    })
    .await;
    {
        let inner = collecting.ledger.lock();
        for row in inner.blobs.values().filter(|row| !row.errors.is_empty()) {
            assert_eq!(row.errors, ["the blob has more than 4194304 bytes"]);
            assert!(row.not_before > Utc::now() + TimeDelta::hours(20), "it is not fetched in vain all day");
        }
    }
    collecting.finish().await;
}

/// The documents name two forms of throttling, and errors come in a 200 as well: each pauses the tenant and lowers its rate.
#[tokio::test(flavor = "multi_thread")]
async fn throttling_counts_in_whatever_form_it_comes() {
    for fault in ["throttle403=1x2", "throttle429=1x2@0s", "throttle200=1x2"] {
        let simulator = start(simulation(12, fault)).await;
        let config = tenant(&simulator, &[ContentType::Exchange]);
        let limit = config.requests_per_minute.get();
        let collecting = collect_with(simulator, config, &ingest::HttpSettings::default());
        collecting.until_settled().await;
        let health = Arc::clone(collecting.handle.health());
        collecting.finish().await;
        let counts = health.requests.counts();
        let of_fetches = |wanted: &str| {
            let found = counts.iter().find(|(call, outcome, _)| (*call, *outcome) == ("fetch", wanted));
            found.map(|(_, _, number)| *number)
        };
        assert_eq!((of_fetches("throttled"), of_fetches("ok")), (Some(24), Some(12)), "{fault}: {counts:?}");
        assert!(health.requests.throttled.get() >= 24);
        assert!(health.requests_per_minute() < limit, "{fault}: the rate is as it was");
    }
}
