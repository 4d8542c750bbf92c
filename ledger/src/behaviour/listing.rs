//! Pages, watermarks, holes and claims.

use chrono::TimeDelta;
use schemas::{ContentType, FeedKey, GapReason, HoleReason, TimeRange};

use crate::{CompletedWindow, FeedState, LedgerError, ListedPage, testing::*};

#[test]
fn l1_a_window_moves_the_watermark_in_the_commit_of_its_last_page() {
    let mut bench = Bench::new();
    let window = TimeRange { start: start() - TimeDelta::hours(1), end: start() };
    let completes = CompletedWindow { window, watermark: Some(window.end), swept_at: None };
    let page = |ids: &[&str], completes| ListedPage {
        feed: feed(1),
        blobs: ids.iter().map(|id| bench.listed(id)).collect(),
        completes,
    };
    let (first, last) = (page(&["x", "y"], None), page(&["y", "z"], Some(completes)));
    assert_eq!(bench.ledger.record_page(first).wait().unwrap(), 2);
    assert_eq!(bench.ledger.feed_state(feed(1)).wait().unwrap(), FeedState::default());
    // The last page does not get through: neither its blobs nor the watermark are there.
    bench.faults.plan(crate::faults::Point::Commit, 0, crate::faults::in_tests::Fault::Crash);
    assert!(matches!(bench.ledger.record_page(last.clone()).wait(), Err(LedgerError::Closed)));
    bench.ledger.close();
    bench.open().unwrap();
    assert_eq!(bench.ledger.feed_state(feed(1)).wait().unwrap(), FeedState::default());
    assert_eq!(bench.number("SELECT count(*) FROM blob"), 2);
    // Listed again, only what is new counts.
    assert_eq!(bench.ledger.record_page(last).wait().unwrap(), 1);
    assert_eq!(bench.ledger.feed_state(feed(1)).wait().unwrap().watermark, Some(window.end));
    // It never moves back, and other feeds have their own.
    let earlier = CompletedWindow { watermark: Some(window.start), swept_at: Some(start()), ..completes };
    let page = ListedPage { feed: feed(1), blobs: Vec::new(), completes: Some(earlier) };
    bench.ledger.record_page(page).wait().unwrap();
    bench.reopen();
    let state = bench.ledger.feed_state(feed(1)).wait().unwrap();
    let expected = FeedState {
        watermark: Some(window.end),
        swept_at: Some(start()),
        listed_from: Some(window.start),
        unsubscribed: false,
        started_at: None,
    };
    assert_eq!(state, expected);
    let other = FeedKey { content_type: ContentType::General, ..feed(1) };
    assert_eq!(bench.ledger.feed_state(other).wait().unwrap(), FeedState::default());
}

#[test]
fn l9_a_hole_moves_the_watermark_and_is_recovered_only_when_all_of_it_was_listed() {
    let bench = Bench::new();
    let hole = TimeRange { start: start() - TimeDelta::hours(30), end: start() - TimeDelta::hours(26) };
    bench.ledger.record_hole(feed(1), hole, HoleReason::TooOld).wait().unwrap();
    assert_eq!(bench.ledger.feed_state(feed(1)).wait().unwrap().watermark, Some(hole.end));
    let report = bench.reconcile();
    assert_eq!(
        report.hours.iter().map(|line| line.holes).sum::<u64>(),
        5,
        "10:20 to 14:20 touches five hours"
    );
    assert_eq!(report.findings[0].id.to_string(), "hole-1");
    let list = |feed, window| {
        let completes = Some(CompletedWindow { window, watermark: None, swept_at: None });
        bench.ledger.record_page(ListedPage { feed, blobs: Vec::new(), completes }).wait().unwrap();
        bench.reconcile().findings.len()
    };
    let minutes = |from, to| TimeRange {
        start: hole.start + TimeDelta::minutes(from),
        end: hole.start + TimeDelta::minutes(to),
    };
    assert_eq!(list(feed(2), hole), 1, "another feed's window");
    assert_eq!(list(feed(1), minutes(60, 120)), 1, "neither end of it");
    assert_eq!(list(feed(1), minutes(-100, 60)), 1, "its beginning");
    assert_eq!(list(feed(1), minutes(180, 400)), 1, "its end");
    assert_eq!(list(feed(1), minutes(61, 180)), 1, "a minute is left");
    assert_eq!(list(feed(1), minutes(60, 61)), 0);
    assert!(bench.reconcile().is_clean());
    // At once, and over windows that follow each other.
    bench.ledger.record_hole(feed(1), hole, HoleReason::TooOld).wait().unwrap();
    assert_eq!(list(feed(1), hole), 0);
    bench.ledger.record_hole(feed(1), hole, HoleReason::TooOld).wait().unwrap();
    assert_eq!(list(feed(1), minutes(-9, 100)), 1);
    assert_eq!(list(feed(1), minutes(100, 1540)), 0);
    // What was not kept is not there, whoever lists that time.
    bench.ledger.record_hole(feed(1), hole, HoleReason::SubscriptionDisabled).wait().unwrap();
    assert_eq!(list(feed(1), hole), 1);
}

#[test]
fn l9_content_without_an_id_is_one_hole_however_often_it_is_listed() {
    let bench = Bench::new();
    let window = |from: i64, to: i64| TimeRange {
        start: start() + TimeDelta::hours(from),
        end: start() + TimeDelta::hours(to),
    };
    let nameless = |window| bench.ledger.record_nameless(feed(1), window, true).wait().unwrap();
    let holes = || {
        let sql =
            |column| format!("SELECT group_concat({column} / 3600000000 - ?1, ' ') FROM hole ORDER BY id");
        let hour = start().timestamp() / 3600;
        let db = rusqlite::Connection::open(bench.path().join("ledger.sqlite")).unwrap();
        let read = |column| db.query_row(&sql(column), [hour], |row| row.get::<_, String>(0)).unwrap();
        (read("starts"), read("ends"))
    };
    assert!(nameless(window(-3, -2)));
    assert_eq!(
        bench.ledger.feed_state(feed(1)).wait().unwrap().watermark,
        None,
        "it was listed or it was not"
    );
    // The pass that found it ends, and others list it again. Nobody knows where in the windows it is.
    for (listed, known) in
        [(window(-3, -2), ("-3", "-2")), (window(-3, -1), ("-3", "-1")), (window(-5, -2), ("-5", "-1"))]
    {
        let completes = Some(CompletedWindow { window: listed, watermark: Some(listed.end), swept_at: None });
        bench.ledger.record_page(ListedPage { feed: feed(1), blobs: Vec::new(), completes }).wait().unwrap();
        assert!(!nameless(listed));
        assert_eq!(holes(), (known.0.to_owned(), known.1.to_owned()));
    }
    assert_eq!(bench.reconcile().findings.len(), 1);
    assert!(bench.ledger.record_nameless(feed(2), window(-3, -2), true).wait().unwrap());
    assert_eq!(bench.reconcile().findings.len(), 2);
}

/// What somebody has acknowledged must not hide what comes later, although both are listed by one window.
#[test]
fn l9_later_content_without_an_id_is_not_hidden_by_an_earlier_hole() {
    let bench = Bench::new();
    let minutes = |from: i64, to: i64| TimeRange {
        start: start() + TimeDelta::minutes(from),
        end: start() + TimeDelta::minutes(to),
    };
    let nameless = |window| bench.ledger.record_nameless(feed(1), window, true).wait().unwrap();
    let open = || bench.reconcile().findings.iter().filter(|finding| finding.acknowledged.is_none()).count();
    let acknowledge = |id: &str| {
        bench.ledger.acknowledge(vec![id.parse().unwrap()], "known".into(), "kim".into()).wait().unwrap();
    };
    assert!(nameless(minutes(-61, 0)));
    acknowledge("hole-1");
    assert!(!nameless(minutes(-60, 0)), "the same");
    assert_eq!(open(), 0);
    assert!(nameless(minutes(-60, 1)));
    assert!(!nameless(minutes(-59, 2)));
    assert_eq!(open(), 1, "one hole that grows until somebody acknowledges it");
    acknowledge("hole-2");
    // On both sides of what is known.
    assert!(nameless(minutes(-120, 30)));
    assert_eq!((open(), bench.reconcile().findings.len()), (2, 4));
    assert!(!nameless(minutes(-120, 30)));
    // What has a time is a hole of its own.
    assert!(bench.ledger.record_nameless(feed(1), minutes(29, 31), false).wait().unwrap());
    assert_eq!(open(), 3);
}

#[test]
fn where_a_feed_began_only_ever_moves_back() {
    let mut bench = Bench::new();
    let list = |bench: &Bench, from: i64, to: i64| {
        let window =
            TimeRange { start: start() + TimeDelta::hours(from), end: start() + TimeDelta::hours(to) };
        let completes = Some(CompletedWindow { window, watermark: Some(window.end), swept_at: None });
        let page = ListedPage { feed: feed(1), blobs: Vec::new(), completes };
        bench.ledger.record_page(page).wait().unwrap();
    };
    list(&bench, -2, -1);
    list(&bench, -1, 0);
    // Nothing was listed by this.
    list(&bench, -9, -9);
    bench.reopen();
    let began = |bench: &Bench| bench.ledger.feed_state(feed(1)).wait().unwrap().listed_from;
    assert_eq!(began(&bench), Some(start() - TimeDelta::hours(2)));
    list(&bench, -5, -3);
    assert_eq!(began(&bench), Some(start() - TimeDelta::hours(5)));
}

#[test]
fn l9_a_missing_subscription_is_remembered_until_its_hole_is_recorded() {
    let mut bench = Bench::new();
    let unsubscribed = |bench: &Bench| bench.ledger.feed_state(feed(1)).wait().unwrap().unsubscribed;
    bench.ledger.unsubscribed(feed(1)).wait().unwrap();
    bench.reopen();
    assert!(unsubscribed(&bench));
    // A hole that is recorded while it is still missing ends nothing.
    let hole = TimeRange { start: start() - TimeDelta::hours(8), end: start() - TimeDelta::hours(2) };
    bench.ledger.record_hole(feed(1), hole, HoleReason::SubscriptionDisabled).wait().unwrap();
    assert!(unsubscribed(&bench));
    // The note goes in the commit of the hole, or not at all.
    let lost = TimeRange { start: hole.end, end: start() };
    bench.faults.plan(crate::faults::Point::Commit, 0, crate::faults::in_tests::Fault::Crash);
    assert!(bench.ledger.subscribed_again(feed(1), Some(lost)).wait().is_err());
    bench.ledger.close();
    bench.open().unwrap();
    assert!(unsubscribed(&bench));
    assert_eq!(bench.reconcile().findings.len(), 1);
    bench.ledger.subscribed_again(feed(1), Some(lost)).wait().unwrap();
    assert!(!unsubscribed(&bench));
    assert_eq!(bench.reconcile().findings.len(), 2);
    assert_eq!(bench.ledger.feed_state(feed(1)).wait().unwrap().watermark, Some(lost.end));
}

#[test]
fn when_a_subscription_was_asked_to_start_is_remembered() {
    let mut bench = Bench::new();
    let started = |bench: &Bench| bench.ledger.feed_state(feed(1)).wait().unwrap().started_at;
    for later in [0, 900] {
        let at = start() + TimeDelta::seconds(later);
        bench.ledger.starting(feed(1), at).wait().unwrap();
        bench.ledger.subscribed_again(feed(1), None).wait().unwrap();
        bench.reopen();
        assert_eq!(started(&bench), Some(at));
    }
    let state = bench.ledger.feed_state(feed(1)).wait().unwrap();
    assert_eq!((state.watermark, state.unsubscribed), (None, false));
}

#[test]
fn claims_take_fresh_blobs_and_those_that_expire_first_in_turn() {
    let bench = Bench::new();
    for id in ["oldest", "old", "newer", "newest"] {
        bench.list(feed(1), &[id]);
        bench.clock.advance(TimeDelta::minutes(1));
    }
    bench.list(feed(2), &["of another tenant"]);
    let leases = bench.ledger.claim_fetches(tenant(1), 3).wait().unwrap();
    let names: Vec<_> = leases.iter().map(|lease| lease.blob.content_id.as_str()).collect();
    assert_eq!(names, ["newest", "oldest", "newer"]);
    // Each is claimed once.
    let rest = bench.ledger.claim_fetches(tenant(1), 10).wait().unwrap();
    assert_eq!(rest.len(), 1);
    assert!(bench.claim(tenant(1)).is_none());
    // A dropped claim is free again, a kept one is not.
    drop(rest);
    assert_eq!(bench.claim(tenant(1)).unwrap().blob.content_id.as_str(), "old");
}

#[test]
fn a_failed_fetch_waits_for_its_time_and_counts() {
    let mut bench = Bench::new();
    bench.list(feed(1), &["x"]);
    let lease = bench.claim(tenant(1)).unwrap();
    let later = bench.now() + TimeDelta::minutes(5);
    bench.ledger.fetch_failed(lease.work, later, "é".repeat(3000)).wait().unwrap();
    drop(lease);
    assert!(bench.claim(tenant(1)).is_none());
    bench.reopen();
    let idle = bench.ledger.idle_state().wait().unwrap();
    assert_eq!((idle.fetches[0].due, idle.fetches[0].waiting), (0, 1));
    assert_eq!(idle.fetches[0].next_due, Some(later));
    bench.clock.advance(TimeDelta::minutes(5));
    let lease = bench.claim(tenant(1)).unwrap();
    assert_eq!(lease.attempts, 1);
    let work = lease.work;
    drop(lease);
    // Without the claim nobody ends the fetch.
    let error = bench.ledger.fetch_failed(work, later, String::new()).wait().unwrap_err();
    assert!(matches!(error, LedgerError::NotClaimed { .. }), "{error}");
    assert!(bench.ledger.gap(work, GapReason::Gone).wait().is_err());
}

#[test]
fn nothing_is_fetched_while_there_is_no_sink() {
    let bench = Bench::new();
    bench.ledger.meet_sinks(Vec::new()).wait().unwrap();
    bench.list(feed(1), &["x"]);
    assert!(bench.claim(tenant(1)).is_none());
    bench.ledger.add_sink(spec("c")).wait().unwrap();
    assert!(bench.claim(tenant(1)).is_some());
}
