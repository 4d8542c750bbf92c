//! Listing: pages, late blobs, subscriptions, holes, what a restart leaves behind.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use ingest::{HttpSettings, feed_ledger::FeedState, health::Condition};
use schemas::{ContentType, FeedKey, HoleReason};
use simulator::{Blob, RequestKind};

use crate::{
    harness::{
        collect, collect_into, collect_scripted_into, collect_with, hours, once, simulation, start, tenant,
        until,
    },
    memory_ledger::MemoryLedger,
    scripted::{Scripted, error, json, ordinary},
};

fn exchange() -> FeedKey {
    FeedKey { tenant: simulator::TenantConfig::default().tenant_id, content_type: ContentType::Exchange }
}

fn ledger_at(watermark: DateTime<Utc>, swept_at: Option<DateTime<Utc>>) -> Arc<MemoryLedger> {
    let ledger = Arc::new(MemoryLedger::default());
    ledger.lock().feeds.insert(exchange(), state(watermark, swept_at));
    ledger
}

/// A feed that was listed for a month.
fn state(watermark: DateTime<Utc>, swept_at: Option<DateTime<Utc>>) -> FeedState {
    let listed_from = Some(watermark - TimeDelta::days(30));
    FeedState { watermark: Some(watermark), swept_at, listed_from, ..FeedState::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_week_in_many_pages_is_listed_to_its_end() {
    for next_page_v1 in [false, true] {
        let mut config = simulation(200, "");
        config.backlog_span = Duration::from_secs(6 * 24 * 3600);
        (config.page_size, config.next_page_v1) = (7, next_page_v1);
        let collecting = collect(config).await;
        collecting.until_settled().await;
        let windows: Vec<_> = collecting.ledger.lock().windows.iter().map(|(_, window)| *window).collect();
        assert!(windows.len() >= 7);
        assert!(windows[..7].windows(2).all(|pair| pair[0].end == pair[1].start), "{windows:?}");
        let stats = collecting.finish().await;
        assert!(stats.requests_of(RequestKind::NextPage) >= 22);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l9_what_is_published_late_is_found_by_the_overlap() {
    let mut config = simulation(40, "late=1/4@2s");
    config.subscribed = true;
    config.backlog_span = Duration::from_secs(50 * 60);
    let collecting = collect(config).await;
    until("late blobs too", || {
        let blobs = collecting.simulator.truth().blobs().count();
        blobs == 40 && collecting.ledger.fetched() == 40
    })
    .await;
    collecting.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l9_what_is_published_later_than_the_overlap_is_found_by_the_sweep() {
    let now = Utc::now();
    let mut config = simulation(3, "");
    config.subscribed = true;
    config.given =
        vec![Blob::from_records(ContentType::Exchange, now - hours(100), &["{}"]).called("late$1")];
    let mut simulator = Some(start(config).await);
    // Everything was listed a minute ago, but for what was published since.
    for (swept_at, found) in [(now - hours(5), false), (now - hours(6) - TimeDelta::minutes(1), true)] {
        let ledger = ledger_at(now - TimeDelta::minutes(1), Some(swept_at));
        let running = simulator.take().expect("it is put back");
        let config = once(tenant(&running, &[ContentType::Exchange]));
        let collecting = collect_into(running, config, &HttpSettings::default(), ledger);
        let mut passes = collecting.handle.passes();
        passes.wait_for(|passes| passes.each_passed()).await.unwrap();
        let listed = collecting.ledger.row(ContentType::Exchange, "late$1").is_some();
        assert_eq!(listed, found, "swept at {swept_at}");
        let swept = collecting.ledger.lock().feeds[&exchange()].swept_at.unwrap();
        assert_eq!(swept > now - TimeDelta::minutes(1), found);
        collecting.cancel.cancel();
        collecting.handle.join().await.unwrap();
        simulator = Some(collecting.simulator);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watermark_older_than_a_week_leaves_a_hole_and_the_rest_is_listed() {
    let now = Utc::now();
    let mut config = simulation(30, "");
    config.subscribed = true;
    config.backlog_span = Duration::from_secs(6 * 24 * 3600);
    let simulator = start(config).await;
    let tenant = tenant(&simulator, &[ContentType::Exchange]);
    let ledger = ledger_at(now - hours(24 * 20), Some(now - hours(24 * 20)));
    let collecting = collect_into(simulator, tenant, &HttpSettings::default(), ledger);
    collecting.until_settled().await;
    let holes = collecting.ledger.lock().holes.clone();
    assert_eq!(holes.len(), 1, "{holes:?}");
    let (_, span, reason) = holes[0];
    assert_eq!(reason, HoleReason::TooOld);
    assert!((span.end - (now - TimeDelta::minutes(167 * 60 + 50))).abs() < TimeDelta::minutes(1), "{span}");
    collecting.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_enabled_is_left_alone() {
    let mut config = simulation(5, "");
    config.subscribed = true;
    let collecting = collect(config).await;
    collecting.until_settled().await;
    let stats = collecting.finish().await;
    assert_eq!(stats.requests_of(RequestKind::StartSubscription), 0);
    assert_eq!(stats.requests_of(RequestKind::StopSubscription), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_was_just_started_waits_for_its_first_content() {
    let mut config = simulation(5, "");
    config.first_content_delay = Duration::from_secs(2);
    let collecting = collect(config).await;
    until("waiting", || collecting.condition(ContentType::Exchange) == Condition::WaitingForFirstContent)
        .await;
    collecting.until_settled().await;
    until("ok", || collecting.condition(ContentType::Exchange) == Condition::Ok).await;
    collecting.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_subscription_is_started_once_and_its_time_is_a_hole() {
    let now = Utc::now();
    let simulator = start(simulation(20, "subscription_disabled=Audit.Exchange")).await;
    let tenant = tenant(&simulator, &[ContentType::Exchange]);
    let watermark = now - TimeDelta::minutes(90);
    let ledger = ledger_at(watermark, Some(now));
    let collecting = collect_into(simulator, tenant, &HttpSettings::default(), ledger);
    // Whatever can still be had of that time is listed at once, although the last sweep was just now.
    collecting.until_settled().await;
    let holes = collecting.ledger.lock().holes.clone();
    assert_eq!(holes.len(), 1, "{holes:?}");
    let (_, span, reason) = holes[0];
    assert_eq!(reason, HoleReason::SubscriptionDisabled);
    assert!(
        (span.start - watermark).abs() < TimeDelta::seconds(1) && span.end >= now - TimeDelta::seconds(2),
        "{span}"
    );
    let stats = collecting.finish().await;
    assert_eq!(stats.requests_of(RequestKind::StartSubscription), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_disabled_while_it_runs_is_started_again() {
    let mut config = simulation(20, "");
    config.subscribed = true;
    let simulator = start(config).await;
    let mut config = tenant(&simulator, &[ContentType::Exchange]);
    // Long enough for some whole seconds to pass that nobody listed.
    config.poll_interval = Duration::from_secs(4);
    let collecting = collect_with(simulator, config, &HttpSettings::default());
    collecting.until_settled().await;
    collecting.simulator.change_faults(|faults| faults.set("subscription_disabled=Audit.Exchange")).unwrap();
    until("a hole", || !collecting.ledger.lock().holes.is_empty()).await;
    let late = Blob::from_records(ContentType::Exchange, Utc::now() - hours(3), &["{}"]).called("late$1");
    collecting.simulator.add_blob(late).unwrap();
    let fresh = Blob::from_records(ContentType::Exchange, Utc::now(), &["{}"]).called("fresh$1");
    collecting.simulator.add_blob(fresh).unwrap();
    until("the fresh blob", || collecting.ledger.row(ContentType::Exchange, "fresh$1").is_some()).await;
    let holes = collecting.ledger.lock().holes.clone();
    assert_eq!(holes.len(), 1, "{holes:?}");
    assert_eq!(holes[0].2, HoleReason::SubscriptionDisabled);
    let stats = collecting.simulator.stats();
    assert_eq!(stats.requests_of(RequestKind::StartSubscription), 1);
    assert_eq!(stats.violations, Default::default());
}

/// The list of subscriptions alone proves nothing when the start says that it was enabled.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_was_enabled_all_the_time_leaves_no_hole() {
    let server = Scripted::start(|seen| match &seen.target {
        target if target.contains("/subscriptions/start") => error(400, "AF20024"),
        target if target.contains("/subscriptions/list") => json(200, "[]"),
        _ => ordinary(seen, "[]").unwrap_or_else(|| error(500, "AF50000")),
    })
    .await;
    let ledger = ledger_at(Utc::now() - TimeDelta::minutes(10), Some(Utc::now()));
    let collecting = collect_scripted_into(&server.url(), "secret", ledger);
    until("a pass", || collecting.handle.health().feeds[0].passes.get() > 0).await;
    assert_eq!(server.seen_at("/subscriptions/start"), 1);
    let is_clean = |ledger: &MemoryLedger| {
        let inner = ledger.lock();
        inner.holes.is_empty() && !inner.feeds[&exchange()].unsubscribed
    };
    assert!(is_clean(&collecting.ledger));
    collecting.cancel.cancel();
    collecting.handle.join().await.unwrap();
}

/// A collector is stopped, or killed, between its start of the subscription and the record of what was lost; or somebody
/// starts the subscription while nothing is collected.
#[tokio::test(flavor = "multi_thread")]
async fn l9_a_missing_subscription_leaves_its_hole_after_a_restart() {
    for started_by_us in [true, false] {
        let phase = Arc::new(AtomicU8::new(0));
        let now = Arc::clone(&phase);
        let server = Scripted::start(move |seen| {
            let target = &seen.target;
            match now.load(Ordering::SeqCst) {
                0 if target.contains("/subscriptions/list") => json(200, "[]"),
                0 if target.contains("/subscriptions/start") && started_by_us => {
                    json(200, r#"{"contentType":"Audit.Exchange","status":"enabled","webhook":null}"#)
                }
                0 if target.contains("/subscriptions/start") => error(400, "AF20012"),
                // It is enabled, and its content is refused for some time.
                0 if target.contains("/subscriptions/content") => error(400, "AF20023"),
                _ => ordinary(seen, "[]").unwrap_or_else(|| error(500, "AF50000")),
            }
        })
        .await;
        let watermark = Utc::now() - TimeDelta::minutes(10);
        let ledger = ledger_at(watermark, Some(Utc::now()));
        let collecting = collect_scripted_into(&server.url(), "secret", Arc::clone(&ledger));
        let what = if started_by_us { "/subscriptions/content" } else { "/subscriptions/start" };
        until("it was tried", || server.seen_at(what) > 0).await;
        collecting.cancel.cancel();
        collecting.handle.join().await.unwrap();
        assert!(ledger.lock().holes.is_empty());

        phase.store(1, Ordering::SeqCst);
        let collecting = collect_scripted_into(&server.url(), "secret", Arc::clone(&ledger));
        until("a pass", || collecting.handle.health().feeds[0].passes.get() > 0).await;
        collecting.cancel.cancel();
        collecting.handle.join().await.unwrap();
        let ledger = ledger.lock();
        let holes: Vec<_> = ledger.holes.iter().map(|(_, span, reason)| (span.start, *reason)).collect();
        assert_eq!(holes, [(watermark, HoleReason::SubscriptionDisabled)], "started by us: {started_by_us}");
        assert!(!ledger.feeds[&exchange()].unsubscribed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l9_an_entry_without_an_id_is_a_hole_once() {
    let now = Utc::now();
    let entry = |minutes| {
        let created = (now - TimeDelta::minutes(minutes)).to_rfc3339();
        format!(r#"{{"contentType":"Audit.Exchange","contentCreated":"{created}"}}"#)
    };
    let (first, both) = (format!("[{}]", entry(40)), format!("[{},{}]", entry(40), entry(7)));
    let later = Arc::new(AtomicU8::new(0));
    let phase = Arc::clone(&later);
    let server = Scripted::start(move |seen| {
        let listing = if phase.load(Ordering::SeqCst) == 0 { &first } else { &both };
        ordinary(seen, listing).unwrap_or_else(|| error(500, "AF50000"))
    })
    .await;
    let watermark = now - TimeDelta::minutes(10);
    let collecting = collect_scripted_into(&server.url(), "secret", ledger_at(watermark, Some(watermark)));
    let holes = || -> Vec<_> {
        let inner = collecting.ledger.lock();
        assert!(inner.holes.iter().all(|(_, _, reason)| *reason == HoleReason::NamesNoBlob));
        inner
            .holes
            .iter()
            .map(|(_, span, _)| ((now - span.start).num_minutes(), (now - span.end).num_minutes()))
            .collect()
    };
    let passes = || collecting.handle.health().feeds[0].passes.get();
    until("passes", || passes() > 2).await;
    assert_eq!(holes(), [(40, 39)]);
    // Another one, which every window lists together with the first.
    later.store(1, Ordering::SeqCst);
    let before = passes();
    until("passes", || passes() > before + 2).await;
    assert_eq!(holes(), [(40, 39), (39, 6)]);
    assert!(
        collecting.ledger.lock().feeds[&exchange()].watermark > Some(watermark),
        "what has an id goes on"
    );
    collecting.cancel.cancel();
    collecting.handle.join().await.unwrap();
}

/// Somebody stops the subscription, and starts it before anybody asks whether there is one.
#[tokio::test(flavor = "multi_thread")]
async fn l9_a_subscription_that_was_gone_for_a_moment_leaves_a_hole() {
    let refused = Arc::new(AtomicU8::new(0));
    let now = Arc::clone(&refused);
    let server = Scripted::start(move |seen| {
        if seen.target.contains("/subscriptions/content") && now.fetch_add(1, Ordering::SeqCst) == 0 {
            return error(400, "AF20022");
        }
        ordinary(seen, "[]").unwrap_or_else(|| error(500, "AF50000"))
    })
    .await;
    let watermark = Utc::now() - TimeDelta::minutes(10);
    let collecting = collect_scripted_into(&server.url(), "secret", ledger_at(watermark, Some(Utc::now())));
    until("a pass", || collecting.handle.health().feeds[0].passes.get() > 0).await;
    assert_eq!(server.seen_at("/subscriptions/start"), 0);
    let holes: Vec<_> = collecting.ledger.lock().holes.iter().map(|(_, span, _)| span.start).collect();
    assert_eq!(holes, [watermark]);
    collecting.cancel.cancel();
    collecting.handle.join().await.unwrap();
}

/// After a stop and a start at once, the service may say for long that there is no subscription and that it is enabled.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_in_limbo_is_asked_about_until_it_is_there() {
    let mut config = simulation(5, "subscription_limbo=Audit.Exchange");
    config.subscribed = true;
    let collecting = collect(config).await;
    until("it fails and says why", || {
        let condition = collecting.condition(ContentType::Exchange);
        matches!(condition, Condition::Failing(trouble) if trouble.error.contains("AF20023"))
    })
    .await;
    let lift = |faults: &mut simulator::Faults| {
        *faults = simulator::Faults::default();
        Ok(())
    };
    collecting.simulator.change_faults(lift).unwrap();
    collecting.until_settled().await;
    assert_eq!(collecting.handle.health().feeds[0].starts.get(), 1, "15 minutes must lie between two starts");
    assert!(collecting.ledger.lock().holes.is_empty());
    collecting.finish().await;
}

/// The rule of 15 minutes holds for whoever asks: another process (cron, a restart), or another collector of this one after
/// a reload.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_not_started_twice_in_a_quarter_of_an_hour_by_two_runs() {
    let ledger = Arc::new(MemoryLedger::default());
    let mut simulator = Some(start(simulation(5, "subscription_limbo=Audit.Exchange")).await);
    for (run, told) in [(1, "AF20023"), (2, "was started less than 15 minutes ago")] {
        let running = simulator.take().expect("it is put back");
        let config = tenant(&running, &[ContentType::Exchange]);
        let collecting = collect_into(running, config, &HttpSettings::default(), Arc::clone(&ledger));
        until("it fails and says why", || {
            let condition = collecting.condition(ContentType::Exchange);
            matches!(condition, Condition::Failing(trouble) if trouble.error.contains(told))
        })
        .await;
        collecting.cancel.cancel();
        collecting.handle.join().await.unwrap();
        let stats = collecting.simulator.stats();
        assert_eq!(stats.violations, Default::default(), "run {run}");
        assert_eq!(stats.requests_of(RequestKind::StartSubscription), 1, "run {run}");
        simulator = Some(collecting.simulator);
    }
    // When the time has passed, it is started again.
    let running = simulator.take().expect("it was put back");
    ledger.lock().feeds.get_mut(&exchange()).unwrap().started_at = Some(Utc::now() - TimeDelta::minutes(16));
    let config = tenant(&running, &[ContentType::Exchange]);
    let collecting = collect_into(running, config, &HttpSettings::default(), ledger);
    until("a start", || collecting.simulator.stats().requests_of(RequestKind::StartSubscription) == 2).await;
    collecting.cancel.cancel();
    collecting.handle.join().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn l1_a_pass_that_is_cut_off_anywhere_is_made_up_for() {
    let mut config = simulation(120, "slow_first_byte=1/1x1@2ms");
    config.backlog_span = Duration::from_secs(5 * 24 * 3600);
    config.page_size = 4;
    let ledger = Arc::new(MemoryLedger::default());
    let mut simulator = Some(start(config).await);
    for stop_after in [1, 2, 3, 5, 8, 13] {
        let running = simulator.take().expect("it is put back");
        let tenant = tenant(&running, &[ContentType::Exchange]);
        let collecting = collect_into(running, tenant, &HttpSettings::default(), Arc::clone(&ledger));
        until("some pages", || collecting.handle.health().feeds[0].pages.get() >= stop_after).await;
        collecting.cancel.cancel();
        collecting.handle.join().await.unwrap();
        simulator = Some(collecting.simulator);
    }
    let running = simulator.take().expect("it was put back");
    let tenant = tenant(&running, &[ContentType::Exchange]);
    let collecting = collect_into(running, tenant, &HttpSettings::default(), ledger);
    collecting.until_settled().await;
    collecting.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listing_once_ends_after_a_pass_and_fetching_goes_on() {
    let simulator = start(simulation(30, "server_error=1/3x2")).await;
    let config = once(tenant(&simulator, &[ContentType::Exchange, ContentType::General]));
    let collecting = collect_with(simulator, config, &HttpSettings::default());
    let mut passes = collecting.handle.passes();
    let passed = passes.wait_for(|passes| passes.each_passed()).await.unwrap().clone();
    assert_eq!((passed.of(ContentType::Exchange), passed.of(ContentType::General)), (1, 1));
    collecting.until_settled().await;
    assert_eq!(collecting.handle.passes().borrow().of(ContentType::Exchange), 1);
    collecting.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listing_is_a_small_part_of_the_requests_while_catching_up() {
    let mut config = simulation(2000, "");
    config.records_per_blob = 1;
    config.backlog_span = Duration::from_secs(6 * 24 * 3600);
    let collecting = collect(config).await;
    collecting.until_settled().await;
    let health = Arc::clone(collecting.handle.health());
    let stats = collecting.finish().await;
    let listing = stats.requests_of(RequestKind::ListContent) + stats.requests_of(RequestKind::NextPage);
    assert!(listing * 50 <= 2000, "{listing} requests to list 2000 blobs, {:?}", health.requests.counts());
}
