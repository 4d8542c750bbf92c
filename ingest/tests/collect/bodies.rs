//! Bodies: too large, never ending, panicking, broken, and what stopping in their midst leaves behind.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use axum::{body::Body, http::Response};
use chrono::{TimeDelta, Utc};
use ingest::{HttpSettings, health::Condition};
use schemas::{ContentType, GapReason};
use simulator::Blob;

use crate::{
    harness::{Collecting, collect, collect_scripted, collect_with, hours, simulation, start, tenant, until},
    memory_ledger::State,
    scripted::{Scripted, entry, error, json, ordinary},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_grows_beyond_the_bound_is_refused_and_left_alone_for_a_day() {
    let mut config = simulation(10, "");
    // 8 MiB that gzip makes 8 KB of.
    let mut bomb = vec![b' '; 8 << 20];
    bomb[0] = b'[';
    bomb.push(b']');
    let bombs = [("bomb", bomb.clone()), ("fine", bomb[..1 << 20].iter().copied().chain([b']']).collect())];
    for (id, body) in bombs {
        config.given.push(Blob::from_body(ContentType::Exchange, Utc::now() - hours(1), body).called(id));
    }
    let simulator = start(config).await;
    let mut config = tenant(&simulator, &[ContentType::Exchange]);
    config.blob_max_bytes = 4 << 20;
    let collecting = collect_with(simulator, config, &HttpSettings::default());
    until("everything else", || collecting.ledger.fetched() == 11).await;
    let row = || collecting.ledger.row(ContentType::Exchange, "bomb").unwrap();
    until("the refusal", || row().attempts > 0).await;
    assert_eq!((row().state, row().attempts), (State::Listed, 1));
    assert!(row().errors[0].contains("more than 4194304 bytes"), "{:?}", row().errors);
    assert!(row().not_before - Utc::now() > hours(23), "it is tried again once a day");
    let advice = collecting.handle.health().feeds[0].fetching.get().last_error.unwrap().1.advice;
    assert!(advice.contains("max_blob_bytes"), "{advice}");
    // L8: what it grew to came in small pieces.
    assert!(collecting.ledger.largest_piece.load(SeqCst) <= 64 << 10);
    collecting.cancel.cancel();
    collecting.handle.join().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn l8_bodies_that_outgrow_their_places_are_taken_in_one_at_a_time_and_none_has_failed() {
    const LARGE: usize = 8 << 20;
    let mut config = simulation(20, "");
    let record = format!("\"{}\"", "x".repeat(LARGE));
    for _ in 0..12 {
        config.given.push(Blob::from_records(ContentType::Exchange, Utc::now() - hours(1), &[&record]));
    }
    let collecting = collect(config).await;
    collecting.until_settled().await;
    // Seven ordinary ones, which may be about to outgrow theirs, and a large one.
    let most = collecting.ledger.most_memory.load(SeqCst);
    assert!((LARGE - (1 << 20)..3 * LARGE).contains(&most), "{most}");
    assert!(collecting.ledger.lock().blobs.values().all(|row| row.attempts == 0));
    let health = collecting.handle.health().clone();
    until("all are counted", || health.fetcher.fetched.get() == 32).await;
    assert_eq!((health.fetcher.failed.get(), health.troubles().len()), (0, 0));
    collecting.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_takes_too_long_as_a_whole_is_given_up() {
    let simulator = start(simulation(4, "stall=1/1x2@30s")).await;
    let mut config = tenant(&simulator, &[ContentType::Exchange]);
    config.timeouts.whole_body = Duration::from_millis(200);
    let collecting = collect_with(simulator, config, &HttpSettings::default());
    collecting.until_settled().await;
    let errors = collecting.ledger.lock().blobs.values().next().unwrap().errors.clone();
    assert!(errors[0].contains("not complete within 0.2 s"), "{errors:?}");
    collecting.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l7_a_panic_costs_one_attempt_and_nobody_else_anything() {
    let simulator = start(simulation(20, "")).await;
    let config = tenant(&simulator, &[ContentType::Exchange]);
    let collecting = collect_with(simulator, config, &HttpSettings::default());
    // With a third one, a blob that had them all would be quarantined.
    collecting.ledger.panics.store(2, SeqCst);
    collecting.until_settled().await;
    let panicked = collecting.ledger.lock().blobs.values().map(|row| row.errors.len()).sum::<usize>();
    let fetcher = &collecting.handle.health().fetcher;
    assert_eq!((fetcher.panics.get(), panicked), (2, 2));
    // It is counted after the ledger knows it.
    until("all are counted", || fetcher.fetched.get() == 20).await;
    collecting.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l11_three_panics_quarantine_the_blob() {
    let simulator = start(simulation(1, "")).await;
    let config = tenant(&simulator, &[ContentType::Exchange]);
    let collecting = collect_with(simulator, config, &HttpSettings::default());
    collecting.ledger.panics.store(3, SeqCst);
    collecting.until_settled().await;
    let fetcher = &collecting.handle.health().fetcher;
    assert_eq!((fetcher.panics.get(), fetcher.quarantined.get(), fetcher.fetched.get()), (3, 1, 0));
    assert_eq!(collecting.ledger.count(|state| *state == State::Quarantined), 1);
    collecting.cancel.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn l7_stopping_in_the_midst_of_bodies_leaves_no_trace() {
    let simulator = start(simulation(20, "stall=1/1x1@30s")).await;
    let mut config = tenant(&simulator, &[ContentType::Exchange]);
    config.pacing.grace = Duration::from_millis(50);
    let collecting = collect_with(simulator, config, &HttpSettings::default());
    let health = collecting.handle.health().clone();
    until("bodies under way", || health.fetcher.in_flight() == 8 && health.fetcher.wire_bytes.get() > 0)
        .await;
    collecting.cancel.cancel();
    collecting.handle.join().await.unwrap();
    let ledger = collecting.ledger.lock();
    assert!(ledger.blobs.values().all(|row| row.state == State::Listed && row.attempts == 0));
    assert_eq!(health.fetcher.in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_pauses_fetching_and_not_listing() {
    let simulator = start(simulation(20, "")).await;
    let config = tenant(&simulator, &[ContentType::Exchange]);
    let ledger = std::sync::Arc::new(crate::memory_ledger::MemoryLedger::default());
    ledger.set_full(true);
    let collecting = crate::harness::collect_into(simulator, config, &HttpSettings::default(), ledger);
    until("everything listed", || collecting.ledger.count(|_| true) == 20).await;
    assert_eq!(collecting.ledger.fetched(), 0);
    collecting.ledger.set_full(false);
    collecting.until_settled().await;
    collecting.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_fails_in_passing_costs_no_blob_an_attempt() {
    let simulator = start(simulation(20, "")).await;
    let config = tenant(&simulator, &[ContentType::Exchange]);
    let collecting = collect_with(simulator, config, &HttpSettings::default());
    collecting.ledger.refusals.store(12, SeqCst);
    collecting.until_settled().await;
    let (_, trouble) = collecting.handle.health().fetcher.status.get().last_error.unwrap();
    assert_eq!(trouble.error, "the disk is full");
    assert!(collecting.ledger.lock().blobs.values().all(|row| row.attempts == 0));
    collecting.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_body_is_fetched_again_and_others_go_on() {
    let mut config = simulation(5, "");
    let broken = Blob::from_body(ContentType::Exchange, Utc::now() - hours(1), "[{}}]").called("broken");
    config.given = vec![broken];
    let collecting = collect(config).await;
    let attempts = || collecting.ledger.row(ContentType::Exchange, "broken").map_or(0, |row| row.attempts);
    until("several attempts", || attempts() >= 3 && collecting.ledger.fetched() == 5).await;
    let row = collecting.ledger.row(ContentType::Exchange, "broken").unwrap();
    assert!(row.errors[0].contains("broken at byte"), "{:?}", row.errors);
    collecting.cancel.cancel();
    collecting.handle.join().await.unwrap();
}

/// One blob at a scripted tenant, which expires at this distance from now and is answered with this error.
async fn blob(expires: TimeDelta, status: u16, code: &'static str) -> (Scripted, Collecting<()>) {
    blob_answered(expires, move || match code {
        "" => json(status, ""),
        code => error(status, code),
    })
    .await
}

/// One blob at a scripted tenant, which expires at this distance from now and is answered like this.
async fn blob_answered(
    expires: TimeDelta,
    answer: impl Fn() -> Response<Body> + Send + Sync + 'static,
) -> (Scripted, Collecting<()>) {
    let now = Utc::now();
    let time = |time: chrono::DateTime<Utc>| time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
    let listing = format!("[{}]", entry("a$1", &time(now - hours(100)), &time(now + expires)));
    let server = Scripted::start(move |seen| ordinary(seen, &listing).unwrap_or_else(&answer)).await;
    let collecting = collect_scripted(&server.url(), "secret");
    (server, collecting)
}

fn state(collecting: &Collecting<()>) -> Option<State> {
    collecting.ledger.row(ContentType::Exchange, "a$1").map(|row| row.state)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_404_is_tried_until_the_blob_expires_and_only_then_a_gap() {
    let (server, collecting) = blob(TimeDelta::milliseconds(3500), 404, "").await;
    until("a gap", || state(&collecting) == Some(State::Gap(GapReason::ExpiryPassed))).await;
    assert!(server.seen_at("/audit/") > 2, "it was tried before");
    let gap = collecting.ledger.row(ContentType::Exchange, "a$1").unwrap();
    assert!(Utc::now() >= gap.expires - TimeDelta::seconds(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_expired_by_its_own_account_is_tried_all_the_same() {
    let (server, collecting) = blob(-hours(1), 404, "").await;
    until("a gap", || state(&collecting) == Some(State::Gap(GapReason::ExpiryPassed))).await;
    assert_eq!(server.seen_at("/audit/a$1"), 1);
}

/// Microsoft documents no pages of blobs. Were there any, one that is taken for the whole would lose the rest in silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_names_a_next_page_is_never_complete_and_in_the_end_a_gap() {
    for next in ["https://elsewhere.example/2", "/api/v1.0/2", "https://[no address"] {
        let paged = move || {
            let mut page = json(200, "[{}]");
            page.headers_mut().insert("NextPageUri", next.parse().unwrap());
            page
        };
        let (server, collecting) = blob_answered(hours(24), paged).await;
        until("several attempts", || server.seen_at("/audit/a$1") >= 3).await;
        let row = collecting.ledger.row(ContentType::Exchange, "a$1").unwrap();
        assert_eq!((row.state, row.records), (State::Listed, 0), "{next}");
        assert_eq!(row.errors[0], "the blob's answer names a next page, and blobs have none");
        let feed = &collecting.handle.health().feeds[0];
        let (_, trouble) = feed.fetching.get().last_error.unwrap();
        assert!(trouble.advice.contains("report it"), "{}", trouble.advice);

        let (_server, collecting) = blob_answered(-hours(1), paged).await;
        until("a gap", || state(&collecting) == Some(State::Gap(GapReason::ExpiryPassed))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_blob_that_nobody_answers_for_is_no_gap_yet() {
    for (status, code) in [(503, ""), (500, "AF50000"), (403, "AF10001"), (401, "")] {
        let (server, collecting) = blob(-hours(1), status, code).await;
        until("some attempts", || server.seen_at("/audit/") >= 2).await;
        assert_eq!(state(&collecting), Some(State::Listed), "{status} {code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_codes_for_gone_and_expired_are_gaps_at_once() {
    for (code, reason) in [("AF20050", GapReason::Gone), ("AF20051", GapReason::Expired)] {
        for status in [200, 400, 404] {
            let (server, collecting) = blob(hours(24), status, code).await;
            until("a gap", || state(&collecting) == Some(State::Gap(reason))).await;
            assert_eq!(server.seen_at("/audit/a$1"), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_content_ids_in_a_row_halt_the_content_type_and_say_why() {
    let now = Utc::now();
    let time = |time: chrono::DateTime<Utc>| time.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let entries: Vec<_> =
        (0..20).map(|n| entry(&format!("a${n}"), &time(now - hours(2)), &time(now + hours(100)))).collect();
    let listing = format!("[{}]", entries.join(","));
    let server =
        Scripted::start(move |seen| ordinary(seen, &listing).unwrap_or_else(|| error(400, "AF20052"))).await;
    let collecting = collect_scripted(&server.url(), "secret");
    let feed = collecting.handle.health().feeds[0].clone();
    let mut advice = String::new();
    until("halted", || match feed.status().condition {
        Condition::Halted(trouble) => {
            advice = trouble.advice;
            true
        }
        _ => false,
    })
    .await;
    assert!(advice.contains("cloud") && advice.contains("manage-gcc.office.com"), "{advice}");
    assert_eq!(collecting.ledger.count(|state| matches!(state, State::Gap(_))), 0, "nothing is given up");
}
