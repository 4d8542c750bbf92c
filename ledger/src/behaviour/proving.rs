//! Reconciling, folding and forgetting.

use chrono::TimeDelta;
use schemas::{GapReason, TimeRange};

use crate::{Settlement, testing::*};

#[test]
fn an_hour_tells_what_became_of_everything() {
    let bench = Bench::new();
    bench.spool(feed(1), "x", &body([1, 2, 3, 3]));
    bench.list(feed(1), &["y", "z"]);
    let lease = bench.claim(tenant(1)).unwrap();
    bench.ledger.gap(lease.work, GapReason::Gone).wait().unwrap();
    let lease = bench.lease("a", 1).pop().unwrap();
    let settlement = Settlement { delivered: 2, filtered: 1, resent: 2, ..delivered(&lease) };
    bench.ledger.settle(&sink("a"), vec![settlement], None).wait().unwrap();
    bench.clock.advance(TimeDelta::hours(1));
    bench.spool(feed(1), "later", &body([1, 4]));
    let report = bench.reconcile();
    assert!(report.agrees());
    let line = &report.hours[0];
    assert_eq!(line.hour, "2026-03-02T10:00:00Z".parse::<chrono::DateTime<chrono::Utc>>().unwrap());
    assert_eq!((line.listed, line.waiting, line.fetched, line.gaps), (3, 1, 1, 1));
    assert_eq!((line.records, line.duplicates), (4, 1));
    let sums = line.sinks[&sink("a")].blobs;
    assert_eq!((sums.due, sums.delivered, sums.filtered, sums.resent, sums.pending), (3, 2, 1, 2, 0));
    assert_eq!(line.sinks[&sink("b")].blobs.pending, 3);
    assert_eq!((report.hours[1].records, report.hours[1].duplicates), (2, 1));
    // Only the hours that are asked for.
    let range = TimeRange { start: bench.now(), end: bench.now() + TimeDelta::minutes(1) };
    assert_eq!(bench.ledger.inspector().reconcile(range).unwrap().hours, report.hours[1..]);
}

#[test]
fn what_vanishes_is_noticed() {
    let tamper = |sql: &str| {
        let mut bench = Bench::new();
        bench.spool(feed(1), "x", &body([1, 2]));
        bench.spool(feed(1), "y", &body([3, 4]));
        bench.deliver("a");
        assert!(bench.reconcile().is_clean());
        bench.ledger.close();
        let db = rusqlite::Connection::open(bench.path().join("ledger.sqlite")).unwrap();
        db.execute_batch(&format!("PRAGMA foreign_keys = OFF; {sql}")).unwrap();
        drop(db);
        bench.open().unwrap();
        let report = bench.reconcile();
        (
            report.hours.iter().all(crate::HourReport::agrees),
            report.numbers.iter().all(crate::SeqReport::agrees),
        )
    };
    assert_eq!(tamper(""), (true, true));
    assert_eq!(
        tamper("DELETE FROM delivery WHERE work = 1; DELETE FROM blob WHERE work = 1"),
        (false, false)
    );
    assert_eq!(tamper("UPDATE delivery SET delivered = 1 WHERE work = 1 AND sink = 1"), (false, true));
    assert_eq!(tamper("UPDATE tenant SET next_seq = 9"), (true, false));
}

#[test]
fn old_rows_fold_into_sums_and_nobody_brings_them_back() {
    let mut bench = Bench::new();
    let old = bench.listed("x");
    bench.spool(feed(1), "x", &body([1, 2, 2]));
    bench.list(feed(1), &["lost"]);
    let lease = bench.claim(tenant(1)).unwrap();
    bench.ledger.gap(lease.work, GapReason::Gone).wait().unwrap();
    drop(lease);
    bench.spool(feed(1), "stuck", &body([5]));
    let stuck = bench.lease("b", 10).pop().unwrap();
    assert_eq!(stuck.work.content_id.as_str(), "stuck");
    bench.deliver("a");
    drop(stuck);
    let lease = bench.lease("b", 1).pop().unwrap();
    assert_eq!(lease.work.content_id.as_str(), "x");
    bench.ledger.settle(&sink("b"), vec![delivered(&lease)], None).wait().unwrap();
    drop(lease);
    let before = bench.reconcile();

    bench.clock.advance(TimeDelta::days(9) - TimeDelta::minutes(1));
    assert_eq!(bench.ledger.maintain(bench.now()).wait().unwrap().folded, 0);
    bench.clock.advance(TimeDelta::minutes(2));
    let done = bench.ledger.maintain(bench.now()).wait().unwrap();
    assert_eq!(done.folded, 1, "the gap waits for somebody, the other for a sink");
    assert_eq!(bench.reconcile(), before);
    // A listing that names it late does not bring it back.
    let page = crate::ListedPage { feed: feed(1), blobs: vec![old], completes: None };
    assert_eq!(bench.ledger.record_page(page).wait().unwrap(), 0);
    bench.reopen();
    assert_eq!(bench.deliver("b"), 1);
    bench.ledger.acknowledge(vec!["gap-2".parse().unwrap()], "known".into(), "kim".into()).wait().unwrap();
    bench.clock.advance(TimeDelta::days(3));
    assert_eq!(bench.ledger.maintain(bench.now()).wait().unwrap().folded, 2);
    assert_eq!(bench.number("SELECT count(*) FROM blob") + bench.number("SELECT count(*) FROM delivery"), 0);
    let report = bench.reconcile();
    assert!(report.is_clean());
    let line = &report.hours[0];
    assert_eq!((line.listed, line.fetched, line.gaps, line.records, line.duplicates), (3, 2, 1, 4, 1));
    assert_eq!(line.sinks[&sink("b")].blobs.delivered, 3);
    assert_eq!(report.numbers[0].given, 3);
    bench.clock.advance(TimeDelta::days(400));
    bench.ledger.maintain(bench.now()).wait().unwrap();
    assert!(bench.reconcile().hours.is_empty());
}

#[test]
fn an_hour_is_kept_for_as_long_as_a_loss_in_it_was_not_acknowledged() {
    let bench = Bench::new();
    bench.spool(feed(1), "x", &body([1, 2]));
    bench.deliver("a");
    bench.deliver("b");
    bench.list(feed(1), &["lost"]);
    let lease = bench.claim(tenant(1)).unwrap();
    bench.ledger.gap(lease.work, GapReason::Gone).wait().unwrap();
    drop(lease);
    // An hour with a hole in it, and one that nobody needs.
    bench.clock.advance(TimeDelta::hours(5));
    bench.spool(feed(1), "y", &body([3]));
    let span = TimeRange { start: bench.now() - TimeDelta::hours(1), end: bench.now() + TimeDelta::hours(1) };
    bench.ledger.record_hole(feed(1), span, schemas::HoleReason::SubscriptionDisabled).wait().unwrap();
    bench.clock.advance(TimeDelta::hours(5));
    bench.spool(feed(1), "z", &body([4]));
    bench.deliver("a");
    bench.deliver("b");
    let before = bench.reconcile();

    bench.clock.advance(TimeDelta::days(420));
    assert_eq!(bench.maintain().folded, 3);
    let report = bench.reconcile();
    assert!(report.agrees(), "{report:?}");
    let kept: Vec<_> = before.hours.iter().filter(|hour| hour.gaps + hour.holes > 0).cloned().collect();
    assert_eq!((report.hours, kept.len()), (kept, 4));
    let findings = vec!["gap-2".parse().unwrap(), "hole-1".parse().unwrap()];
    bench.ledger.acknowledge(findings, "known".into(), "kim".into()).wait().unwrap();
    assert_eq!(bench.maintain().folded, 1);
    let report = bench.reconcile();
    assert!(report.is_clean());
    assert!(
        report.hours.iter().all(|hour| hour.listed + hour.gaps + hour.sinks.len() as u64 == 0),
        "{report:?}"
    );
}

#[test]
fn a_clock_that_was_far_ahead_once_makes_no_new_blob_look_forgotten() {
    let bench = Bench::new();
    bench.spool(feed(1), "x", &body([1]));
    bench.deliver("a");
    bench.deliver("b");
    let ahead = bench.now() + TimeDelta::days(30);
    assert_eq!(bench.ledger.maintain(ahead).wait().unwrap().folded, 1);
    assert_eq!(bench.list(feed(1), &["x"]), 0, "it was folded");
    bench.clock.advance(TimeDelta::minutes(1));
    assert_eq!(bench.list(feed(1), &["new"]), 1);
}

#[test]
fn the_time_of_the_last_maintenance_is_known_after_a_restart() {
    let mut bench = Bench::new();
    let known = |bench: &Bench| bench.ledger.last_maintained().wait().unwrap();
    assert_eq!(known(&bench), None);
    bench.ledger.maintain(chrono::DateTime::UNIX_EPOCH).wait().unwrap();
    assert_eq!(known(&bench), None, "that was no time");
    bench.maintain();
    bench.ledger.maintain(chrono::DateTime::UNIX_EPOCH).wait().unwrap();
    bench.reopen();
    assert_eq!(known(&bench), Some(bench.now()));
}

#[test]
fn a_wait_that_began_while_the_clock_was_ahead_ends_when_it_is_right() {
    let bench = Bench::new();
    bench.spool(feed(1), "x", &body([1]));
    bench.list(feed(1), &["y"]);
    bench.clock.advance(TimeDelta::days(30));
    let until = bench.now() + TimeDelta::minutes(1);
    let fetch = bench.claim(tenant(1)).unwrap();
    bench.ledger.fetch_failed(fetch.work, until, "503".into()).wait().unwrap();
    let lease = bench.lease("a", 1).pop().unwrap();
    let deferral =
        crate::Deferral { work: lease.work.id, not_before: Some(until), error: "503".into(), begun: 0 };
    bench.ledger.defer(&sink("a"), vec![deferral]).wait().unwrap();
    drop((fetch, lease));
    bench.clock.advance(TimeDelta::days(-30));
    assert!(bench.claim(tenant(1)).is_none() && bench.lease("a", 1).is_empty());
    bench.maintain();
    assert!(bench.claim(tenant(1)).is_some() && bench.lease("a", 1).len() == 1);
    // A wait of a day is none of those.
    let fetch = bench.claim(tenant(1)).unwrap();
    let day = bench.now() + TimeDelta::days(1);
    bench.ledger.fetch_failed(fetch.work, day, "too large".into()).wait().unwrap();
    drop(fetch);
    bench.maintain();
    assert!(bench.claim(tenant(1)).is_none());
}

/// Defers a work of the sink `a`.
fn defer(bench: &Bench, lease: &crate::Lease, until: chrono::DateTime<chrono::Utc>) {
    let deferral =
        crate::Deferral { work: lease.work.id, not_before: Some(until), error: "503".into(), begun: 0 };
    bench.ledger.defer(&sink("a"), vec![deferral]).wait().unwrap();
}

#[test]
fn a_clock_that_is_set_back_by_hours_lets_no_delivery_wait_for_them() {
    let bench = Bench::new();
    bench.spool(feed(1), "x", &body([1]));
    bench.spool(feed(1), "y", &body([2]));
    let leases = bench.lease("a", 2);
    defer(&bench, &leases[0], bench.now() + TimeDelta::minutes(5));
    // What a destination has asked for.
    defer(&bench, &leases[1], bench.now() - TimeDelta::hours(2));
    drop(leases);
    bench.clock.advance(TimeDelta::hours(-3));
    let lease = bench.lease("a", 2).pop().unwrap();
    defer(&bench, &lease, bench.now() + TimeDelta::hours(1));
    let asked = lease.work.id;
    drop(lease);
    bench.maintain();
    let due: Vec<_> = bench.lease("a", 2).iter().map(|lease| lease.work.id).collect();
    assert!(due.len() == 1 && due[0] != asked, "{due:?}");
}

#[test]
fn what_is_put_off_at_once_is_first_again_whatever_the_clock_does() {
    let bench = Bench::new();
    bench.spool(feed(1), "x", &body([1]));
    bench.spool(feed(1), "y", &body([2]));
    let first = bench.lease("a", 1).pop().unwrap();
    defer(&bench, &first, bench.now());
    let work = first.work.id;
    drop(first);
    bench.clock.advance(TimeDelta::minutes(-10));
    let lease = bench.lease("a", 1).pop().unwrap();
    assert_eq!((lease.work.id, lease.attempts), (work, 1));
}

#[test]
fn a_loss_that_nobody_has_seen_is_shown_however_many_were_acknowledged() {
    let mut bench = Bench::new();
    bench.spool(feed(1), "x", &body([1, 2]));
    let lease = bench.lease("a", 1).pop().unwrap();
    let dead = vec![crate::DeadRecord { position: 0, reason: "too large".into() }];
    let settlement = Settlement { delivered: 1, dead, ..delivered(&lease) };
    bench.ledger.settle(&sink("a"), vec![settlement], None).wait().unwrap();
    drop(lease);
    bench.ledger.close();
    let db = rusqlite::Connection::open(bench.path().join("ledger.sqlite")).unwrap();
    let columns = "work, feed, content_id, created, expires, sink, position, records, reason, at, size";
    // The letter that is there becomes the last of many.
    db.execute_batch(&format!(
        "WITH RECURSIVE many (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many WHERE n < 10000) \
         INSERT INTO dead_letter ({columns}) SELECT {columns} FROM dead_letter, many; \
         INSERT INTO acknowledgement (finding, reason, name, at) \
         SELECT 'dead-' || id, 'known', 'kim', 0 FROM dead_letter WHERE id <= 10000;"
    ))
    .unwrap();
    drop(db);
    bench.open().unwrap();
    let report = bench.reconcile();
    let open: Vec<_> = report.open_findings().map(|found| found.id.to_string()).collect();
    assert_eq!(open, ["dead-10001"]);
    assert!(!report.is_clean());
    assert!(report.findings.is_sorted_by_key(|found| found.id));
}

#[test]
fn a_retry_folds_apart_from_the_blobs() {
    let bench = Bench::new();
    bench.spool(feed(1), "x", &body([1, 2]));
    let lease = bench.lease("a", 1).pop().unwrap();
    let dead = vec![crate::DeadRecord { position: 0, reason: "no".into() }];
    let settlement = Settlement { delivered: 1, dead, ..delivered(&lease) };
    bench.ledger.settle(&sink("a"), vec![settlement], None).wait().unwrap();
    drop(lease);
    bench.ledger.retry_dead_letters(vec![1]).wait().unwrap();
    bench.deliver("a");
    bench.deliver("b");
    let before = bench.reconcile();
    assert!(before.is_clean());
    bench.clock.advance(TimeDelta::days(12));
    assert_eq!(bench.ledger.maintain(bench.now()).wait().unwrap().folded, 2);
    assert_eq!(bench.reconcile(), before);
    // The letter outlives the rows, and goes with the sums.
    assert_eq!(bench.number("SELECT count(*) FROM dead_letter"), 1);
    bench.clock.advance(TimeDelta::days(400));
    bench.ledger.maintain(bench.now()).wait().unwrap();
    assert_eq!(bench.number("SELECT count(*) FROM dead_letter"), 0);
}
