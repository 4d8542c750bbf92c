//! Bodies on their way in, and what is a duplicate.

use chrono::TimeDelta;
use schemas::{Seq, SplitError};

use crate::{BodyError, LedgerError, testing::*};

#[test]
fn records_come_back_byte_for_byte_in_pieces() {
    let bench = Bench::new();
    // Incompressible and larger than what waits in memory, with one record larger than a piece.
    let mut state = 1u64;
    let mut noise = |length: usize| -> String {
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                char::from(b'!' + (state >> 58) as u8 % 60).to_string().replace(['"', '\\'], "x")
            })
            .collect()
    };
    let mut records: Vec<_> = (0..1500).map(|number| record(number, &noise(1200))).collect();
    records[700] = record(700, &noise(400_000));
    let (work, spooled) = bench.spool(feed(1), "x", &format!("[ {} ]", records.join(" ,\n")));
    assert_eq!((spooled.seq, spooled.records, spooled.duplicates), (Seq(1), 1500, 0));
    assert_eq!(bench.read(work), records);
    // From any position, forwards and backwards, at most a piece and at least a record at a time.
    for from in [1499, 700, 701, 3, 0] {
        let piece = bench.ledger.read_piece(work, None, from).unwrap();
        let (position, bytes) = piece.records().next().unwrap();
        assert_eq!((position, bytes), (from, records[from as usize].as_bytes()));
        assert!(piece.len() < 300);
    }
    assert!(bench.ledger.read_piece(work, None, 1500).unwrap().is_empty());
    // Nothing is left of the body's way in.
    assert_eq!(std::fs::read_dir(bench.path().join("spool")).unwrap().count(), 1);
}

#[test]
fn a_body_that_is_not_finished_leaves_no_trace() {
    let bench = Bench::new();
    bench.list(feed(1), &["x"]);
    let lease = bench.claim(tenant(1)).unwrap();
    let text = body(0..100);
    let mut writer = bench.ledger.body_writer(lease.work, bench.now());
    writer.write(text.as_bytes()).unwrap();
    drop(writer);
    let cut = bench.take(lease.work, &text.as_bytes()[..text.len() - 1]);
    assert!(matches!(cut, Err(BodyError::Split(SplitError::Truncated { .. }))));
    drop(lease);
    assert!(bench.segments().is_empty());
    // Its ids were not noted either.
    let lease = bench.claim(tenant(1)).unwrap();
    assert_eq!(bench.take(lease.work, text.as_bytes()).unwrap().duplicates, 0);
}

#[test]
fn a_body_needs_a_claim() {
    let bench = Bench::new();
    let (work, _) = bench.spool(feed(1), "x", &body(0..3));
    let error = bench.take(work, body(0..3).as_bytes()).unwrap_err();
    assert!(matches!(error, BodyError::Ledger(LedgerError::NotClaimed { .. })), "{error}");
}

#[test]
fn repetitions_are_found_in_other_blobs_and_in_the_same_one() {
    let mut bench = Bench::new();
    let (first, spooled) = bench.spool(feed(1), "x", &body([1, 2, 2, 3]));
    assert_eq!(spooled.duplicates, 1);
    assert_eq!(bench.read(first).len(), 3);
    bench.reopen();
    let (second, spooled) = bench.spool(feed(1), "y", &body([3, 4, 1, 4]));
    assert_eq!((spooled.records, spooled.duplicates), (4, 3));
    assert_eq!(bench.read(second), [record(4, "")]);
    // Another tenant's records are others.
    assert_eq!(bench.spool(feed(2), "x", &body([1, 2, 3])).1.duplicates, 0);
    // What has no id is never a duplicate.
    assert_eq!(bench.spool(feed(1), "z", "[{},{},{}]").1.duplicates, 0);
    // Nor is anything when it is turned off.
    bench.ledger.set_dedupe(tenant(1), false);
    assert_eq!(bench.spool(feed(1), "off", &body([1, 1])).1.duplicates, 0);
    bench.ledger.set_dedupe(tenant(1), true);
    assert_eq!(bench.spool(feed(1), "on", &body([1, 1])).1.duplicates, 2);
    // And not after the horizon.
    bench.clock.advance(TimeDelta::days(10));
    assert_eq!(bench.spool(feed(1), "later", &body([1])).1.duplicates, 0);
}

#[test]
fn a_repetition_is_one_while_any_blob_that_holds_it_is_within_the_horizon() {
    let mut bench = Bench::new();
    for (name, days, dropped) in [("x", 0, 0), ("y", 5, 1), ("z", 5, 1), ("late", 8, 1), ("too late", 9, 0)] {
        bench.clock.advance(TimeDelta::days(days));
        assert_eq!(bench.spool(feed(1), name, &body([1])).1.duplicates, dropped, "{name}");
        bench.reopen();
    }
}

#[test]
fn repetitions_are_found_however_wrong_the_local_clock_is() {
    let mut bench = Bench::new();
    bench.spool(feed(1), "x", &body([1, 2]));
    let days = TimeDelta::days(30);
    for (name, wrong) in [("ahead", days), ("behind", -days)] {
        bench.clock.advance(wrong);
        // It is wrong at a start, while the ledger is tidied, and when a body comes.
        bench.reopen();
        let heard = bench.now() - wrong;
        bench.ledger.maintain(heard.min(bench.now())).wait().unwrap();
        bench.list(feed(1), &[name]);
        let lease = bench.claim(tenant(1)).unwrap();
        assert_eq!(
            bench.take_at(lease.work, heard, body([1, 2]).as_bytes()).unwrap().duplicates,
            2,
            "{name}"
        );
        drop(lease);
        bench.clock.advance(-wrong);
        assert_eq!(bench.spool(feed(1), &format!("after {name}"), &body([1, 2])).1.duplicates, 2, "{name}");
    }
    // It is forgotten in time all the same.
    bench.clock.advance(TimeDelta::days(9));
    assert_eq!(bench.spool(feed(1), "later", &body([1, 2])).1.duplicates, 0);
}

#[test]
fn a_body_of_repetitions_or_of_nothing_is_settled_at_once() {
    let bench = Bench::new();
    bench.spool(feed(1), "x", &body(0..5));
    let (_, again) = bench.spool(feed(1), "y", &body(0..5));
    assert_eq!((again.seq, again.duplicates), (Seq(2), 5));
    assert_eq!(bench.spool(feed(1), "z", " [ ] ").1.records, 0);
    assert_eq!(bench.lease("a", 10).len(), 1);
    assert_eq!(bench.number("SELECT count(*) FROM blob WHERE state = 'settled'"), 2);
    assert!(bench.reconcile().is_clean());
}

#[test]
fn seq_is_dense_whatever_comes_between() {
    let bench = Bench::new();
    bench.spool(feed(1), "x", &body([1]));
    bench.list(feed(1), &["gone"]);
    let lease = bench.claim(tenant(1)).unwrap();
    assert_eq!(bench.ledger.gap(lease.work, schemas::GapReason::Gone).wait().unwrap(), Some(Seq(2)));
    drop(lease);
    let span = schemas::TimeRange { start: start() - TimeDelta::days(9), end: start() - TimeDelta::days(7) };
    bench.ledger.record_hole(feed(1), span, schemas::HoleReason::TooOld).wait().unwrap();
    assert_eq!(bench.spool(feed(1), "y", &body([2])).1.seq, Seq(4));
    assert_eq!(bench.spool(feed(2), "y", &body([2])).1.seq, Seq(1), "each tenant has its own");
    assert!(bench.reconcile().agrees());
}
