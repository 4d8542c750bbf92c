//! Windows that the service refuses, and pages that lead nowhere: windows are begun anew, and nothing is passed over.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use axum::{
    body::Body,
    http::{HeaderValue, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use ingest::{feed_ledger::FeedState, health::Condition};
use schemas::{ContentType, FeedKey, HoleReason, TimeRange, time::parse_utc};
use url::Url;

use crate::{
    harness::{Collecting, collect_scripted_into, hours, until},
    memory_ledger::MemoryLedger,
    scripted::{Scripted, Seen, entry, error, json, ordinary},
};

/// As far back as is ever asked for.
const OLDEST: TimeDelta = TimeDelta::minutes(167 * 60 + 50);

/// No test takes so long.
const SLOW: TimeDelta = TimeDelta::minutes(10);

fn exchange() -> FeedKey {
    FeedKey { tenant: simulator::TenantConfig::default().tenant_id, content_type: ContentType::Exchange }
}

/// The window that a listing asks for.
fn window(seen: &Seen) -> Option<TimeRange> {
    let url = Url::parse("http://localhost").unwrap().join(&seen.target).unwrap();
    let time =
        |name: &str| url.query_pairs().find(|(key, _)| key == name).and_then(|(_, text)| parse_utc(&text));
    Some(TimeRange { start: time("startTime")?, end: time("endTime")? })
}

fn ledger_in(state: FeedState) -> Arc<MemoryLedger> {
    let ledger = Arc::new(MemoryLedger::default());
    ledger.lock().feeds.insert(exchange(), state);
    ledger
}

async fn passed(collecting: &Collecting<()>) {
    until("a pass", || collecting.handle.health().feeds[0].passes.get() > 0).await;
}

async fn stop(collecting: Collecting<()>) -> Arc<MemoryLedger> {
    collecting.cancel.cancel();
    collecting.handle.join().await.unwrap();
    collecting.ledger
}

/// The windows that were listed and the holes, in the order of their beginnings, have no seam between them.
fn covered(ledger: &MemoryLedger) -> TimeRange {
    let inner = ledger.lock();
    let mut spans: Vec<_> = inner.windows.iter().map(|(_, window)| *window).collect();
    spans.extend(inner.holes.iter().map(|(_, span, _)| *span));
    spans.sort_unstable_by_key(|span| span.start);
    let mut all = spans[0];
    for span in spans {
        assert!(span.start <= all.end, "nothing between {} and {}", all.end, span.start);
        all.end = all.end.max(span.end);
    }
    all
}

fn holes(ledger: &MemoryLedger) -> Vec<TimeRange> {
    let inner = ledger.lock();
    assert!(inner.holes.iter().all(|(_, _, reason)| *reason == HoleReason::TooOld), "{:?}", inner.holes);
    inner.holes.iter().map(|(_, span, _)| *span).collect()
}

fn near(a: DateTime<Utc>, b: DateTime<Utc>, tolerance: TimeDelta) -> bool {
    (a - b).abs() <= tolerance
}

/// That the service's clock is two hours ahead is first heard of with a refusal.
#[tokio::test(flavor = "multi_thread")]
async fn l9_a_window_that_is_refused_is_asked_for_anew_by_the_refusals_clock() {
    for code in ["AF20055", "AF20030"] {
        let refused = Arc::new(AtomicU8::new(0));
        let times = Arc::clone(&refused);
        let server = Scripted::start(move |seen| {
            let mut answer = if seen.target.contains("/content") && times.fetch_add(1, Ordering::SeqCst) == 0
            {
                error(400, code)
            } else {
                ordinary(seen, "[]").unwrap_or_else(|| error(500, "AF50000"))
            };
            if seen.target.contains("/content") {
                let date = (Utc::now() + hours(2)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
                answer.headers_mut().insert("date", date.parse().unwrap());
            }
            answer
        })
        .await;
        let now = Utc::now();
        let watermark = now - hours(10 * 24);
        let ledger = ledger_in(FeedState { watermark: Some(watermark), ..FeedState::default() });
        let collecting = collect_scripted_into(&server.url(), "secret", ledger);
        passed(&collecting).await;
        let asked: Vec<_> = server.seen().iter().filter_map(window).map(|window| window.start).collect();
        let (first, second) = (now - OLDEST, now + hours(2) - OLDEST);
        assert!(near(asked[0], first, SLOW), "{code}: {asked:?}");
        assert!(near(asked[1], second, SLOW), "{code}: {asked:?}");
        let ledger = stop(collecting).await;
        // What grew too old by that clock is a hole as well.
        let holes = holes(&ledger);
        assert!(near(holes.last().unwrap().end, second, SLOW), "{code}: {holes:?}");
        let all = covered(&ledger);
        assert!(all.start == watermark && all.end > now - SLOW, "{code}: {all}");
    }
}

/// A service that lists nothing that began more than six days ago.
async fn six_days() -> Scripted {
    Scripted::start(|seen| match window(seen) {
        Some(window) if window.start < Utc::now() - hours(6 * 24) => error(400, "AF20055"),
        _ => ordinary(seen, "[]").unwrap_or_else(|| error(500, "AF50000")),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn l9_a_time_that_is_refused_for_good_is_a_hole_and_what_is_behind_it_is_listed() {
    let server = six_days().await;
    let now = Utc::now();
    let listed = Some(now - hours(24 * 30));
    for (watermark, from) in [(None, now - OLDEST), (Some(now - hours(155)), now - hours(155))] {
        let ledger = ledger_in(FeedState { watermark, listed_from: listed, ..FeedState::default() });
        let collecting = collect_scripted_into(&server.url(), "secret", ledger);
        passed(&collecting).await;
        let ledger = stop(collecting).await;
        let holes = holes(&ledger);
        let [hole] = holes[..] else { panic!("{watermark:?}: {holes:?}") };
        assert!(near(hole.start, from, SLOW), "{watermark:?}: {hole}");
        let needed = now - hours(6 * 24);
        assert!(hole.end >= needed && hole.end <= needed + SLOW * 2, "{watermark:?}: {hole}");
        let all = covered(&ledger);
        assert!(near(all.end, now, SLOW), "{watermark:?}: {all}");
        assert!(ledger.lock().windows.iter().all(|(_, window)| window.start >= needed));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_goes_on_behind_what_is_refused_and_makes_no_hole_of_what_was_listed() {
    let server = six_days().await;
    let now = Utc::now();
    let watermark = Some(now - TimeDelta::minutes(1));
    let ledger =
        ledger_in(FeedState { watermark, listed_from: Some(now - hours(24 * 30)), ..FeedState::default() });
    let collecting = collect_scripted_into(&server.url(), "secret", ledger);
    passed(&collecting).await;
    let ledger = stop(collecting).await;
    assert!(holes(&ledger).is_empty());
    let all = covered(&ledger);
    assert!(near(all.start, now - hours(6 * 24), SLOW * 2), "{all}");
    assert!(ledger.lock().feeds[&exchange()].swept_at.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_refuses_everything_makes_no_holes() {
    let server = Scripted::start(|seen| match window(seen) {
        Some(_) => error(400, "AF20055"),
        None => ordinary(seen, "[]").unwrap_or_else(|| error(500, "AF50000")),
    })
    .await;
    let collecting = collect_scripted_into(&server.url(), "secret", Arc::new(MemoryLedger::default()));
    until("it fails and says why", || {
        let condition = collecting.handle.health().feeds[0].status().condition;
        matches!(condition, Condition::Failing(trouble) if trouble.error.contains("AF20055"))
    })
    .await;
    let ledger = stop(collecting).await;
    assert!(holes(&ledger).is_empty());
    assert_eq!(ledger.lock().feeds.get(&exchange()).and_then(|state| state.watermark), None);
}

/// A page that names itself as the next one.
fn circle(seen: &Seen, listing: &str) -> Response<Body> {
    let mut page = json(200, listing);
    let host = seen.headers["host"].to_str().unwrap();
    let next = if seen.target.contains("nextPage=") { "" } else { "&nextPage=2026" };
    let next: HeaderValue = format!("http://{host}{}{next}", seen.target).parse().unwrap();
    page.headers_mut().insert("NextPageUri", next);
    page
}

#[tokio::test(flavor = "multi_thread")]
async fn l9_pages_that_lead_in_a_circle_are_got_round_by_shorter_windows() {
    let now = Utc::now();
    let (created, expires) = ((now - hours(30)).to_rfc3339(), (now + hours(100)).to_rfc3339());
    let listing = format!("[{}]", entry("a$1", &created, &expires));
    let server = Scripted::start(move |seen| match window(seen) {
        Some(window) if window.length() > hours(6) => circle(seen, &listing),
        Some(_) => json(200, &listing),
        None => ordinary(seen, "[]").unwrap_or_else(|| error(500, "AF50000")),
    })
    .await;
    let collecting = collect_scripted_into(&server.url(), "secret", Arc::new(MemoryLedger::default()));
    passed(&collecting).await;
    assert!(collecting.ledger.row(ContentType::Exchange, "a$1").is_some());
    let ledger = stop(collecting).await;
    assert!(holes(&ledger).is_empty());
    let all = covered(&ledger);
    assert!(near(all.start, now - OLDEST, SLOW) && near(all.end, now, SLOW), "{all}");
    assert!(ledger.lock().windows.iter().all(|(_, window)| window.length() <= hours(6)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circle_that_never_ends_is_told_and_passes_nothing_over() {
    let server = Scripted::start(|seen| match window(seen) {
        Some(_) => circle(seen, "[]"),
        None => ordinary(seen, "[]").unwrap_or_else(|| error(500, "AF50000")),
    })
    .await;
    let watermark = Some(Utc::now() - hours(3));
    let ledger = ledger_in(FeedState { watermark, listed_from: watermark, ..FeedState::default() });
    let collecting = collect_scripted_into(&server.url(), "secret", ledger);
    until("it fails and says why", || {
        let condition = collecting.handle.health().feeds[0].status().condition;
        matches!(condition, Condition::Failing(trouble) if trouble.error.contains("was listed before"))
    })
    .await;
    let ledger = stop(collecting).await;
    assert!(holes(&ledger).is_empty() && ledger.lock().windows.is_empty());
    assert_eq!(ledger.lock().feeds[&exchange()].watermark, watermark);
}
