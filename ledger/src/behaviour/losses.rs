//! Gaps, damage, quarantine and dead letters.

use std::os::unix::fs::FileExt;

use chrono::TimeDelta;
use schemas::{GapReason, Seq, SplitError};

use super::opening::noise;
use crate::{
    BodyError, DeadRecord, FetchLease, FindingId, Lease, LedgerError, LetterFilter, OVERDUE, RetryRefused,
    Settlement, Unreadable,
    faults::{Point, in_tests::Fault},
    testing::*,
};

/// Changes a byte in the middle of the only segment's bodies.
fn damage(bench: &Bench) {
    damage_at(bench, |length| 64 + (length - 64) / 2);
}

pub(super) fn damage_at(bench: &Bench, at: impl Fn(u64) -> u64) {
    let path = bench.segments().pop().unwrap();
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let at = at(file.metadata().unwrap().len());
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn dead(lease: &crate::Lease, positions: &[u32]) -> Settlement {
    Settlement {
        delivered: delivered(lease).delivered - positions.len() as u32,
        dead: positions
            .iter()
            .map(|position| DeadRecord { position: *position, reason: format!("refused {position}") })
            .collect(),
        ..delivered(lease)
    }
}

#[test]
fn a_gap_is_recorded_shown_and_acknowledged() {
    let bench = Bench::new();
    bench.list(feed(1), &["x"]);
    let lease = bench.claim(tenant(1)).unwrap();
    bench.ledger.gap(lease.work, GapReason::Expired).wait().unwrap();
    drop(lease);
    assert!(bench.claim(tenant(1)).is_none());
    assert_eq!(bench.list(feed(1), &["x"]), 0, "a sweep does not bring it back");
    let report = bench.reconcile();
    assert!(report.agrees() && !report.is_clean());
    let id: FindingId = "gap-1".parse().unwrap();
    assert_eq!((report.findings[0].id, report.findings[0].reason.as_str()), (id, "expired"));
    let wrong = bench.ledger.acknowledge(vec![id, "gap-2".parse().unwrap()], "r".into(), "n".into()).wait();
    assert!(matches!(wrong, Err(LedgerError::UnknownFinding(_))));
    assert!(!bench.reconcile().is_clean(), "all or none");
    bench.ledger.acknowledge(vec![id], "known outage".into(), "kim".into()).wait().unwrap();
    bench.clock.advance(TimeDelta::hours(1));
    bench.ledger.acknowledge(vec![id], "another".into(), "lee".into()).wait().unwrap();
    let report = bench.reconcile();
    assert!(report.is_clean());
    let given = report.findings[0].acknowledged.clone().unwrap();
    assert_eq!((given.reason.as_str(), given.name.as_str(), given.at), ("known outage", "kim", start()));
}

#[test]
fn a_damaged_body_is_fetched_again_and_keeps_its_decision() {
    let mut bench = Bench::new();
    bench.spool(feed(1), "x", &body(0..3));
    bench.deliver("a");
    bench.deliver("b");
    let (work, spooled) = bench.spool(feed(1), "y", &body(0..6));
    assert_eq!(spooled.duplicates, 3);
    bench.deliver("a");
    bench.ledger.maintain(bench.now()).wait().unwrap();
    bench.reopen();
    damage(&bench);
    let lease = bench.lease("b", 1).pop().unwrap();
    let error = bench.ledger.read_piece(work, None, 0).unwrap_err();
    let LedgerError::Body(Unreadable::Corrupt { fetched_again: true, .. }) = error else { panic!("{error}") };
    assert_eq!(bench.ledger.corrupt_pieces(), 1);
    // Who has it can only give it back, and it stays away until it was fetched.
    assert!(matches!(
        bench.ledger.read_piece(work, None, 0),
        Err(LedgerError::Body(Unreadable::NotSpooled { .. }))
    ));
    let now = Some(bench.now());
    let deferral = crate::Deferral { work, not_before: now, error: "damaged".into(), begun: 0 };
    bench.ledger.defer(&sink("b"), vec![deferral]).wait().unwrap();
    drop(lease);
    assert!(bench.lease("b", 1).is_empty());
    assert_eq!(bench.ledger.idle_state().wait().unwrap().deliveries[0].held, 1);
    let fetch = bench.claim(tenant(1)).unwrap();
    assert_eq!(fetch.work, work);
    let again = bench.take(work, body(0..6).as_bytes()).unwrap();
    assert_eq!((again.seq, again.duplicates), (Seq(3), 3), "a number of its own, the same decision");
    drop(fetch);
    assert_eq!(bench.read(work), [record(3, ""), record(4, ""), record(5, "")]);
    assert!(bench.lease("a", 1).is_empty(), "what was delivered is final");
    let lease = bench.lease("b", 1).pop().unwrap();
    assert_eq!(lease.work.seq, Seq(3));
    bench.ledger.settle(&sink("b"), vec![delivered(&lease)], None).wait().unwrap();
    assert!(bench.reconcile().is_clean());
}

/// A blob that one sink has and the other one has read, when its body is lost.
fn lost_when_it_was_read(bench: &Bench) -> Lease {
    let (work, _) = bench.spool(feed(1), "x", &body(0..3));
    bench.deliver("a");
    let lease = bench.lease("b", 1).pop().unwrap();
    bench.read(work);
    damage(bench);
    bench.ledger.read_piece(work, None, 0).unwrap_err();
    lease
}

/// A blob that is delivered to both sinks while its body, which was lost meanwhile, is being fetched again.
fn delivered_while_it_is_fetched_again(bench: &Bench) -> FetchLease {
    let lease = lost_when_it_was_read(bench);
    let fetch = bench.claim(tenant(1)).unwrap();
    bench.ledger.settle(&sink("b"), vec![delivered(&lease)], None).wait().unwrap();
    fetch
}

#[test]
fn what_is_delivered_while_its_body_is_fetched_again_does_not_stay_in_the_spool() {
    let bench = Bench::new();
    let fetch = delivered_while_it_is_fetched_again(&bench);
    bench.take(fetch.work, body(0..3).as_bytes()).unwrap();
    drop(fetch);
    assert_eq!(bench.number("SELECT count(*) FROM blob WHERE segment IS NOT NULL"), 0);
    assert!(bench.reconcile().is_clean());
}

fn is_delivered_and_no_loss(bench: &Bench) {
    assert!(bench.claim(tenant(1)).is_none());
    let report = bench.reconcile();
    assert!(report.is_clean(), "{report:?}");
    let hour = &report.hours[0];
    assert_eq!((hour.fetched, hour.waiting, hour.gaps, hour.quarantined), (1, 0, 0, 0));
    assert_eq!(hour.sinks[&sink("b")].blobs.delivered, 3);
}

#[test]
fn a_delivered_blob_that_can_only_not_be_fetched_again_is_no_gap() {
    let bench = Bench::new();
    let fetch = delivered_while_it_is_fetched_again(&bench);
    assert_eq!(bench.ledger.gap(fetch.work, GapReason::Expired).wait().unwrap(), None);
    drop(fetch);
    is_delivered_and_no_loss(&bench);

    // Nor when nobody says that it is gone.
    let bench = Bench::new();
    drop(delivered_while_it_is_fetched_again(&bench));
    bench.clock.advance(TimeDelta::days(7) + OVERDUE * 2);
    assert_eq!(bench.maintain().gaps, 0);
    is_delivered_and_no_loss(&bench);
}

#[test]
fn a_blob_that_is_delivered_before_its_body_is_fetched_again_is_done_at_once() {
    let bench = Bench::new();
    let lease = lost_when_it_was_read(&bench);
    bench.ledger.settle(&sink("b"), vec![delivered(&lease)], None).wait().unwrap();
    is_delivered_and_no_loss(&bench);
}

#[test]
fn a_delivered_blob_that_comes_broken_the_second_time_is_not_quarantined() {
    let bench = Bench::new();
    let fetch = delivered_while_it_is_fetched_again(&bench);
    for _ in 0..3 {
        assert!(matches!(bench.take(fetch.work, b"[{}}]"), Err(BodyError::Split(_))));
    }
    drop(fetch);
    is_delivered_and_no_loss(&bench);
    assert!(bench.letters().is_empty());

    let bench = Bench::new();
    let fetch = delivered_while_it_is_fetched_again(&bench);
    for _ in 0..3 {
        assert!(!bench.ledger.panicked(fetch.work, "a bug".into()).wait().unwrap());
    }
    drop(fetch);
    is_delivered_and_no_loss(&bench);
}

#[test]
fn what_one_sink_still_needs_of_a_body_that_cannot_be_fetched_again_is_a_gap() {
    let bench = Bench::new();
    let (work, _) = bench.spool(feed(1), "x", &body(0..3));
    bench.deliver("a");
    damage(&bench);
    bench.ledger.read_piece(work, None, 0).unwrap_err();
    let fetch = bench.claim(tenant(1)).unwrap();
    assert_eq!(bench.ledger.gap(work, GapReason::Expired).wait().unwrap(), Some(Seq(1)));
    drop(fetch);
    let report = bench.reconcile();
    assert!(report.agrees());
    assert_eq!(report.open_findings().map(|found| found.id.to_string()).collect::<Vec<_>>(), ["gap-1"]);
    let sums = &report.hours[0].sinks;
    assert_eq!((sums[&sink("a")].blobs.delivered, sums[&sink("b")].blobs.dead), (3, 3));
}

#[test]
fn another_body_under_the_same_name_is_decided_anew_and_never_against_itself() {
    let bench = Bench::new();
    bench.spool(feed(1), "x", &body(0..3));
    bench.deliver("a");
    bench.deliver("b");
    bench.maintain();
    let (work, first) = bench.spool(feed(1), "y", &body(2..6));
    assert_eq!(first.duplicates, 1);
    bench.deliver("a");
    damage(&bench);
    bench.ledger.read_piece(work, None, 0).unwrap_err();
    let fetch = bench.claim(tenant(1)).unwrap();
    let again = bench.take(fetch.work, body(1..8).as_bytes()).unwrap();
    // 1 and 2 are x's; 3, 4 and 5 are its own from the first time.
    assert_eq!((again.records, again.duplicates), (7, 2));
    drop(fetch);
    assert_eq!(bench.read(work), (3..8).map(|number| record(number, "")).collect::<Vec<_>>());
    assert_eq!((bench.deliver("a"), bench.deliver("b")), (0, 1));
    let report = bench.reconcile();
    assert!(report.agrees());
    let sums = &report.hours[0].sinks;
    assert_eq!((sums[&sink("a")].blobs.delivered, sums[&sink("b")].blobs.delivered), (6, 8));
}

/// What was delivered of the first body is final as if it had been a moment earlier, and nothing is read of two bodies.
#[test]
fn a_delivery_of_a_body_that_was_replaced_meanwhile_is_settled_as_it_was_leased() {
    let bench = Bench::new();
    let (work, _) = bench.spool(feed(1), "x", &body(0..5));
    let (of_a, of_b) = (bench.lease("a", 1).remove(0), bench.lease("b", 1).remove(0));
    damage(&bench);
    bench.ledger.read_piece(work, of_a.work.body, 0).unwrap_err();
    let fetch = bench.claim(tenant(1)).unwrap();
    assert_eq!(bench.take(fetch.work, body(0..8).as_bytes()).unwrap().records, 8);
    drop(fetch);
    let error = bench.ledger.read_piece(work, of_a.work.body, 3).unwrap_err();
    assert!(matches!(error, LedgerError::Body(Unreadable::Replaced { .. })) && error.passing(), "{error}");
    assert_eq!(bench.read(work).len(), 8);

    bench.ledger.settle(&sink("a"), vec![delivered(&of_a)], None).wait().unwrap();
    // The bytes of a refused record are gone with its body.
    bench.ledger.settle(&sink("b"), vec![dead(&of_b, &[4])], None).wait().unwrap();
    let letters = bench.letters();
    assert_eq!((letters.len(), letters[0].position, letters[0].size), (1, Some(4), 0));
    let retried = bench.ledger.retry_dead_letters(vec![1]).wait().unwrap();
    assert_eq!(retried.refused, [(1, RetryRefused::BytesGivenUp)]);
    drop((of_a, of_b));
    assert!(bench.lease("a", 1).is_empty() && bench.lease("b", 1).is_empty());
    let report = bench.reconcile();
    assert!(report.agrees());
    let sums = &report.hours[0].sinks;
    assert_eq!((sums[&sink("a")].blobs.due, sums[&sink("b")].blobs.due), (5, 5));

    // A settlement that does not add up is a mistake whatever body it is of.
    bench.spool(feed(1), "y", &body(20..25));
    let lease = bench.lease("a", 1).remove(0);
    let short = Settlement { delivered: 4, ..delivered(&lease) };
    let error = bench.ledger.settle(&sink("a"), vec![short], None).wait().unwrap_err();
    assert!(matches!(error, LedgerError::SumMismatch { due: 5, given: 4, .. }), "{error}");
}

#[test]
fn a_lease_that_is_asked_for_tells_whether_its_body_is_there() {
    let bench = Bench::new();
    let (x, _) = bench.spool(feed(1), "x", &body(0..3));
    let (y, _) = bench.spool(feed(1), "y", &body(3..6));
    damage(&bench);
    let lost = if bench.ledger.read_piece(x, None, 0).is_err() { x } else { y };
    bench.ledger.read_piece(lost, None, 0).unwrap_err();
    let these = bench.ledger.lease_these(&sink("a"), &[x, y]).wait().unwrap();
    let awaits: Vec<_> = these.iter().map(|lease| (lease.work.id, lease.awaits_body)).collect();
    assert_eq!(awaits, [(x, x == lost), (y, y == lost)]);
    drop(these);
    assert_eq!(bench.lease("a", 9).len(), 1, "nobody else is given what waits");
}

#[test]
fn a_damaged_body_that_has_expired_is_quarantined_with_what_can_be_read() {
    let bench = Bench::new();
    // Three pieces, the last of them damaged.
    let records: Vec<_> = (0..600).map(|number| record(number, &format!("{number:0>1000}"))).collect();
    let (work, _) = bench.spool(feed(1), "x", &format!("[{}]", records.join(",")));
    let first_piece = bench.ledger.read_piece(work, None, 0).unwrap().next.unwrap();
    damage_at(&bench, |length| length - 100);
    bench.clock.advance(TimeDelta::days(8));
    let mut from = Some(0);
    let error = loop {
        match bench.ledger.read_piece(work, None, from.unwrap()) {
            Ok(piece) => from = piece.next,
            Err(error) => break error,
        }
    };
    let LedgerError::Body(Unreadable::Corrupt { fetched_again: false, .. }) = error else {
        panic!("{error}")
    };
    let letters = bench.ledger.inspector().dead_letters(&LetterFilter::default()).unwrap();
    assert_eq!(letters.iter().map(|letter| letter.records).sum::<u32>(), 600);
    assert!(letters.len() as u32 > first_piece && letters.last().unwrap().position.is_none());
    let report = bench.reconcile();
    assert!(report.agrees());
    assert_eq!(report.hours[0].sinks[&sink("a")].blobs.dead, 600);
    assert_eq!(
        report.open_findings().map(|found| found.id.to_string()).collect::<Vec<_>>(),
        ["quarantine-1"]
    );
    assert!(bench.lease("a", 1).is_empty());
}

/// Lets the disk fail to read a part of a segment, once, after it has read some.
fn unreadable(bench: &Bench, after: u32) {
    bench.faults.plan(Point::ReadSegment, after, Fault::Unreadable);
}

#[test]
fn what_the_disk_cannot_read_is_fetched_again_like_what_is_damaged() {
    // The head of a frame, and the rest of it.
    for after in 0..2 {
        let bench = Bench::new();
        let (work, _) = bench.spool(feed(1), "x", &body(0..3));
        unreadable(&bench, after);
        let error = bench.ledger.read_piece(work, None, 0).unwrap_err();
        let LedgerError::Body(Unreadable::Corrupt { fetched_again: true, what, .. }) = error else {
            panic!("{error}")
        };
        assert_eq!(what, "the disk cannot read it");
        let fetch = bench.claim(tenant(1)).unwrap();
        bench.take(fetch.work, body(0..3).as_bytes()).unwrap();
        assert_eq!((bench.deliver("a"), bench.deliver("b")), (1, 1));
        assert_eq!(open_findings(&bench), [""; 0]);
    }
}

#[test]
fn what_the_disk_cannot_read_stops_no_settlement_and_no_quarantine() {
    let bench = Bench::new();
    let (work, _) = bench.spool(feed(1), "x", &body(0..3));
    let lease = bench.lease("a", 1).pop().unwrap();
    unreadable(&bench, 0);
    // The bytes of a refused record: they come again with the body.
    let error = bench.ledger.settle(&sink("a"), vec![dead(&lease, &[1])], None).wait().unwrap_err();
    assert!(matches!(error, LedgerError::Body(Unreadable::NotSpooled { .. })), "{error}");
    drop(lease);
    let fetch = bench.claim(tenant(1)).unwrap();
    bench.take(fetch.work, body(0..3).as_bytes()).unwrap();
    drop(fetch);
    unreadable(&bench, 0);
    for _ in 0..3 {
        bench.ledger.panicked(work, "a bug".into()).wait().unwrap();
    }
    assert_eq!(open_findings(&bench), ["quarantine-1"]);
    let letters = bench.letters();
    assert_eq!((letters.len(), letters[0].position, letters[0].records), (1, None, 3));
}

#[test]
fn a_body_that_the_disk_cannot_read_does_not_stop_what_moves_it() {
    let bench = Bench::with(|settings| settings.segment_bytes = 4096);
    for number in 0..6 {
        bench.spool(feed(1), &format!("x{number}"), &format!("[{}]", record(number, &noise(1000))));
    }
    let kept = bench.lease("a", 1).pop().unwrap();
    bench.deliver("a");
    bench.deliver("b");
    unreadable(&bench, 0);
    assert_eq!(bench.maintain().moved, 0);
    assert!(bench.faults.clear(), "it was to be moved");
    assert_eq!(bench.claim(tenant(1)).unwrap().work, kept.work.id, "it is fetched again");
    assert_eq!(bench.number("SELECT coalesce(sum(live_bytes), 0) FROM segment"), 0);
}

#[test]
fn l11_three_panics_while_it_is_fetched_quarantine_a_blob() {
    let mut bench = Bench::new();
    bench.list(feed(1), &["x"]);
    let work = bench.claim(tenant(1)).unwrap().work;
    for _ in 0..2 {
        assert!(!bench.ledger.panicked(work, "out of bounds".into()).wait().unwrap());
        bench.reopen();
        assert!(bench.claim(tenant(1)).is_some());
    }
    assert!(bench.ledger.panicked(work, "out of bounds".into()).wait().unwrap());
    assert!(bench.claim(tenant(1)).is_none());
    let report = bench.reconcile();
    assert!(report.agrees());
    let findings: Vec<_> = report.open_findings().map(|found| found.id.to_string()).collect();
    assert_eq!(findings, ["quarantine-1"]);
}

#[test]
fn l11_three_panics_quarantine_a_blob_over_restarts() {
    let mut bench = Bench::new();
    let (work, _) = bench.spool(feed(1), "x", &body([1, 1, 2]));
    bench.spool(feed(1), "y", &body([3]));
    bench.deliver("a");
    for _ in 0..2 {
        assert!(!bench.ledger.panicked(work, "index out of bounds".into()).wait().unwrap());
        bench.reopen();
    }
    let lease = bench.lease("b", 1).pop().unwrap();
    assert!(bench.ledger.panicked(work, "index out of bounds".into()).wait().unwrap());
    // Whoever is delivering it at that moment has done nothing wrong, and changes nothing any more.
    bench.ledger.settle(&sink("b"), vec![delivered(&lease)], None).wait().unwrap();
    let settlement = delivered(&lease);
    drop(lease);
    let settled = bench.ledger.settle(&sink("b"), vec![settlement], None).wait();
    assert!(matches!(settled, Err(LedgerError::AlreadySettled { .. })));
    let report = bench.reconcile();
    assert!(report.agrees());
    let sums = &report.hours[0].sinks;
    assert_eq!((sums[&sink("a")].blobs.delivered, sums[&sink("b")].blobs.dead), (3, 2));
    let finding = report.open_findings().next().unwrap();
    assert_eq!((finding.id.to_string().as_str(), finding.records), ("quarantine-1", 2));
    // The next blob goes on.
    assert_eq!(bench.deliver("b"), 1);
    // A retry goes to those that did not get it.
    let ids: Vec<_> = bench.letters().iter().map(|letter| letter.id).collect();
    let retried = bench.ledger.retry_dead_letters(ids).wait().unwrap();
    assert_eq!((retried.works.len(), retried.records), (1, 2));
    assert!(bench.lease("a", 1).is_empty());
    assert_eq!(bench.read(retried.works[0]), [record(1, ""), record(2, "")]);
    assert_eq!(bench.deliver("b"), 1);
    bench
        .ledger
        .acknowledge(vec!["quarantine-1".parse().unwrap()], "fixed".into(), "kim".into())
        .wait()
        .unwrap();
    assert!(bench.reconcile().is_clean());
}

#[test]
fn a_retry_that_panics_too_leaves_its_letters_as_they_were() {
    let bench = Bench::new();
    bench.spool(feed(1), "x", &body([1, 2]));
    let lease = bench.lease("a", 1).pop().unwrap();
    bench.ledger.settle(&sink("a"), vec![dead(&lease, &[1])], None).wait().unwrap();
    drop(lease);
    let bytes = bench.number("SELECT value FROM meta WHERE key = 'dead_letter_bytes'");
    let retry = bench.ledger.retry_dead_letters(vec![1]).wait().unwrap().works[0];
    for _ in 0..3 {
        bench.ledger.panicked(retry, "again".into()).wait().unwrap();
    }
    let letters = bench.letters();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].is_open());
    assert_eq!(bench.number("SELECT value FROM meta WHERE key = 'dead_letter_bytes'"), bytes);
    assert_eq!(bench.ledger.retry_dead_letters(vec![1]).wait().unwrap().works.len(), 1);
}

#[test]
fn the_same_malformed_body_three_times_is_quarantined_with_its_bytes() {
    let mut bench = Bench::new();
    bench.list(feed(1), &["x"]);
    let fetch = |bench: &Bench, text: &str| {
        let lease = bench.claim(tenant(1)).unwrap();
        let result = bench.take(lease.work, text.as_bytes());
        bench.ledger.fetch_failed(lease.work, bench.now(), "broken".into()).wait().unwrap();
        result.unwrap_err()
    };
    let broken = format!("[{}}} {} ]", record(1, ""), "x".repeat(600_000));
    for _ in 0..2 {
        assert!(matches!(fetch(&bench, &broken), BodyError::Split(SplitError::Malformed { .. })));
        // A cut one does not count, and does not interrupt the count.
        assert!(matches!(fetch(&bench, "[{}"), BodyError::Split(SplitError::Truncated { .. })));
    }
    // Another broken one does.
    assert!(matches!(fetch(&bench, "<html>"), BodyError::Split(SplitError::NotAnArray { .. })));
    for _ in 0..2 {
        assert!(matches!(fetch(&bench, &broken), BodyError::Split(_)));
        bench.reopen();
    }
    let error = fetch(&bench, &broken);
    assert!(
        matches!(error, BodyError::Quarantined { times: 3, cause: SplitError::Malformed { .. } }),
        "{error}"
    );
    assert!(bench.claim(tenant(1)).is_none());
    let mut bytes = Vec::new();
    let mut take = |_: &crate::DeadLetter, part: &[u8]| {
        bytes.extend_from_slice(part);
        Ok(())
    };
    bench.ledger.inspector().export_dead_letters(&LetterFilter::default(), &mut take).unwrap();
    assert!(bytes == broken.as_bytes());
    let report = bench.reconcile();
    assert!(report.agrees());
    assert_eq!(
        report.open_findings().map(|found| found.id.to_string()).collect::<Vec<_>>(),
        ["quarantine-1"]
    );
    // A retry fetches it again, for every sink.
    let ids: Vec<_> = bench.letters().iter().map(|letter| letter.id).collect();
    assert!(ids.len() > 1);
    let retried = bench.ledger.retry_dead_letters(ids).wait().unwrap();
    assert_eq!(retried.works.len(), 1);
    let lease = bench.claim(tenant(1)).unwrap();
    bench.take(lease.work, body([1]).as_bytes()).unwrap();
    assert_eq!((bench.deliver("a"), bench.deliver("b")), (1, 1));
}

/// A quote too many turns all that follows inside out, so that the closing bracket stands in a text.
#[test]
fn l11_the_same_body_with_an_unclosed_record_three_times_is_quarantined_with_its_bytes() {
    let bench = Bench::new();
    let good = record(1, "");
    for (index, bad) in [r#"{"Subject":"C:\"}"#, r#"{"Subject":"5" screen"}"#].into_iter().enumerate() {
        bench.list(feed(1), &[&index.to_string()]);
        let fetch = |text: &str| {
            let lease = bench.claim(tenant(1)).unwrap();
            let result = bench.take(lease.work, text.as_bytes());
            bench.ledger.fetch_failed(lease.work, bench.now(), "broken".into()).wait().unwrap();
            result.unwrap_err()
        };
        let broken = format!("[{bad},{good}] \n");
        // One that was cut behind a bracket looks like it, and comes with other bytes the next time.
        let cut = r#"[{"Folders":[1]"#;
        for text in [broken.as_str(), cut, &broken, &broken] {
            let error = fetch(text);
            assert!(matches!(error, BodyError::Split(SplitError::Unclosed { .. })), "{error}");
        }
        let error = fetch(&broken);
        let BodyError::Quarantined { times: 3, cause: SplitError::Unclosed { bytes } } = error else {
            panic!("{error}")
        };
        assert_eq!(bytes, broken.len() as u64);
        assert!(bench.claim(tenant(1)).is_none());
        let mut bytes = Vec::new();
        let mut take = |_: &crate::DeadLetter, part: &[u8]| {
            bytes.extend_from_slice(part);
            Ok(())
        };
        bench.ledger.inspector().export_dead_letters(&LetterFilter::default(), &mut take).unwrap();
        assert!(bytes.ends_with(broken.as_bytes()));
    }
    assert_eq!(open_findings(&bench), ["quarantine-1", "quarantine-2"]);
}

/// Lists a blob whose body is no array of records three times, and so quarantines it.
fn quarantine_malformed(bench: &Bench, body: &str) {
    bench.list(feed(1), &["x"]);
    for _ in 0..3 {
        let lease = bench.claim(tenant(1)).unwrap();
        bench.take(lease.work, body.as_bytes()).unwrap_err();
    }
}

fn open_findings(bench: &Bench) -> Vec<String> {
    let report = bench.reconcile();
    assert!(report.agrees(), "{report:?}");
    report.open_findings().map(|found| found.id.to_string()).collect()
}

#[test]
fn a_malformed_body_that_is_retried_in_two_goes_comes_once() {
    let bench = Bench::new();
    quarantine_malformed(&bench, &format!("[{{}}}} {} ]", "x".repeat(600_000)));
    let ids: Vec<_> = bench.letters().iter().map(|letter| letter.id).collect();
    assert!(ids.len() > 2);
    let first = bench.ledger.retry_dead_letters(vec![ids[1]]).wait().unwrap();
    assert_eq!((first.works.len(), first.refused), (1, Vec::new()));
    let others = bench.letters().into_iter().map(|letter| letter.id).filter(|id| *id != ids[1]);
    assert_eq!(first.along, others.collect::<Vec<_>>());
    let second = bench.ledger.retry_dead_letters(ids.clone()).wait().unwrap();
    assert!(second.works.is_empty() && second.along.is_empty());
    assert!(second.refused.iter().all(|(_, why)| *why == RetryRefused::AlreadyRetried));
    let lease = bench.claim(tenant(1)).unwrap();
    bench.take(lease.work, body([1]).as_bytes()).unwrap();
    drop(lease);
    assert!(bench.claim(tenant(1)).is_none());
    assert_eq!((bench.deliver("a"), bench.deliver("b")), (1, 1));
    assert!(bench.letters().iter().all(|letter| letter.done_at.is_some()));
}

#[test]
fn what_was_quarantined_is_retried_for_those_that_lack_it_however_late() {
    let bench = Bench::new();
    let (work, _) = bench.spool(feed(1), "x", &body(0..3));
    bench.deliver("a");
    let panics = |work| {
        for _ in 0..3 {
            bench.ledger.panicked(work, "a bug".into()).wait().unwrap();
        }
    };
    let acknowledge = |finding: &str| {
        let ids = vec![finding.parse().unwrap()];
        bench.ledger.acknowledge(ids, "known".into(), "kim".into()).wait().unwrap();
    };
    panics(work);
    acknowledge("quarantine-1");
    let ids: Vec<_> = bench.letters().iter().map(|letter| letter.id).collect();
    // The second time the first retry has come to nothing.
    for _ in 0..2 {
        bench.clock.advance(TimeDelta::days(30));
        bench.maintain();
        let retry = bench.ledger.retry_dead_letters(ids.clone()).wait().unwrap().works[0];
        bench.clock.advance(TimeDelta::days(30));
        bench.maintain();
        assert!(bench.lease("a", 1).is_empty(), "it has them");
        assert_eq!(bench.lease("b", 1).len(), 1);
        panics(retry);
    }
    assert_eq!(bench.ledger.retry_dead_letters(ids).wait().unwrap().works.len(), 1);
    assert_eq!((bench.deliver("a"), bench.deliver("b")), (0, 1));
    bench.clock.advance(TimeDelta::days(3));
    bench.maintain();
    assert_eq!(bench.number("SELECT count(*) FROM blob"), 0, "nothing is left to be known of it");
    assert_eq!(open_findings(&bench), [""; 0]);
}

#[test]
fn the_letters_of_a_quarantined_retry_stay_a_finding() {
    let bench = Bench::new();
    quarantine_malformed(&bench, "[{}}]");
    bench
        .ledger
        .acknowledge(vec!["quarantine-1".parse().unwrap()], "known".into(), "kim".into())
        .wait()
        .unwrap();
    assert_eq!(open_findings(&bench), [""; 0]);
    let retry = bench.ledger.retry_dead_letters(vec![1]).wait().unwrap().works[0];
    let lease = bench.claim(tenant(1)).unwrap();
    bench.take(retry, body(0..3).as_bytes()).unwrap();
    drop(lease);
    for _ in 0..3 {
        bench.ledger.panicked(retry, "a bug".into()).wait().unwrap();
    }
    assert_eq!(open_findings(&bench), ["quarantine-2"]);
    bench.clock.advance(TimeDelta::days(30));
    bench.maintain();
    assert_eq!(open_findings(&bench), ["quarantine-2"], "its records reached nobody");
    let unsent = bench.letters().into_iter().filter(|letter| letter.is_open()).map(|letter| letter.id);
    bench.ledger.retry_dead_letters(unsent.collect()).wait().unwrap();
    assert_eq!((bench.deliver("a"), bench.deliver("b")), (1, 1));
    bench.clock.advance(TimeDelta::days(3));
    bench.maintain();
    assert_eq!(open_findings(&bench), [""; 0], "now they have");
}

/// What may come of a fetch of a blob that was ended meanwhile: nothing, and no mistake of whoever fetched it.
fn is_wanted_no_more(bench: &Bench, fetch: FetchLease) {
    let unwanted = |body: &str| {
        let taken = bench.take(fetch.work, body.as_bytes());
        assert!(matches!(taken, Err(BodyError::Unwanted)), "{taken:?}");
    };
    unwanted(&body(0..3));
    unwanted("[{}}]");
    assert_eq!(bench.ledger.gap(fetch.work, GapReason::Expired).wait().unwrap(), None);
    bench.ledger.fetch_failed(fetch.work, bench.now(), "gone".into()).wait().unwrap();
    drop(fetch);
    assert!(bench.claim(tenant(1)).is_none());
}

#[test]
fn a_retry_whose_sink_is_forgotten_while_it_is_fetched_is_wanted_no_more() {
    let bench = Bench::new();
    quarantine_malformed(&bench, "[{}}]");
    bench.ledger.remove_sink(&sink("a")).wait().unwrap();
    bench.ledger.retry_dead_letters(vec![1]).wait().unwrap();
    let fetch = bench.claim(tenant(1)).unwrap();
    bench.ledger.remove_sink(&sink("b")).wait().unwrap();
    bench.ledger.forget_sink(&sink("b")).unwrap();
    bench.ledger.add_sink(spec("a")).wait().unwrap();
    is_wanted_no_more(&bench, fetch);
    assert!(bench.letters()[0].done_at.is_some(), "it was given up with its sink");
}

#[test]
fn a_blob_that_a_sink_panics_on_while_it_is_fetched_again_is_wanted_no_more() {
    let bench = Bench::new();
    let lease = lost_when_it_was_read(&bench);
    let fetch = bench.claim(tenant(1)).unwrap();
    for times in 1..=3 {
        assert_eq!(bench.ledger.panicked(fetch.work, "a bug".into()).wait().unwrap(), times == 3);
    }
    drop(lease);
    is_wanted_no_more(&bench, fetch);
    assert_eq!(open_findings(&bench), ["quarantine-1"]);
}

#[test]
fn what_is_leased_of_a_body_that_comes_back_without_anything_due_is_settled_as_it_was_leased() {
    // Nothing at all, or what another blob has.
    for again in ["[]".to_owned(), body(10..13)] {
        let bench = Bench::new();
        bench.spool(feed(1), "w", &body(10..13));
        assert_eq!((bench.deliver("a"), bench.deliver("b")), (1, 1));
        bench.maintain();
        let (work, _) = bench.spool(feed(1), "x", &body(0..3));
        let (of_a, of_b) = (bench.lease("a", 1).remove(0), bench.lease("b", 1).remove(0));
        damage(&bench);
        bench.ledger.read_piece(work, of_a.work.body, 0).unwrap_err();
        let fetch = bench.claim(tenant(1)).unwrap();
        bench.take(fetch.work, again.as_bytes()).unwrap();
        drop(fetch);
        bench.ledger.settle(&sink("a"), vec![delivered(&of_a)], None).wait().unwrap();
        // Who had not read it gets what there is now.
        drop((of_a, of_b));
        let lease = bench.lease("b", 1).remove(0);
        assert_eq!((lease.work.id, lease.work.records - lease.work.duplicates), (work, 0));
        bench.ledger.settle(&sink("b"), vec![delivered(&lease)], None).wait().unwrap();
        assert_eq!(bench.number("SELECT count(*) FROM blob WHERE state <> 'settled'"), 0);
        assert_eq!(open_findings(&bench), [""; 0]);
        let sums = &bench.reconcile().hours[0].sinks;
        let of = |name| (sums[&sink(name)].blobs.due, sums[&sink(name)].blobs.delivered);
        assert_eq!((of("a"), of("b")), ((6, 6), (3, 3)));
    }
}

#[test]
fn a_retry_that_cannot_be_had_is_no_gap_in_any_report() {
    let bench = Bench::new();
    quarantine_malformed(&bench, "[{}}]");
    let retry = bench.ledger.retry_dead_letters(vec![1]).wait().unwrap().works[0];
    let lease = bench.claim(tenant(1)).unwrap();
    assert_eq!(lease.work, retry);
    bench.ledger.gap(retry, GapReason::Expired).wait().unwrap();
    drop(lease);
    assert_eq!(open_findings(&bench), ["quarantine-1"]);
    let feeds = bench.ledger.inspector().status().unwrap().feeds;
    assert_eq!((feeds[0].gaps, feeds[0].open_gaps), (0, 0));
    assert!(bench.letters()[0].is_open());
}

#[test]
fn dead_letters_are_listed_retried_and_done() {
    let bench = Bench::new();
    bench.spool(feed(1), "x", &body(0..5));
    let lease = bench.lease("a", 1).pop().unwrap();
    bench.ledger.settle(&sink("a"), vec![dead(&lease, &[0, 2, 3])], None).wait().unwrap();
    drop(lease);
    bench.deliver("b");
    let list = |filter: LetterFilter| -> Vec<i64> {
        bench.ledger.inspector().dead_letters(&filter).unwrap().iter().map(|letter| letter.id).collect()
    };
    assert_eq!(list(LetterFilter::default()), [1, 2, 3]);
    assert_eq!(list(LetterFilter { after: 1, limit: 1, ..LetterFilter::default() }), [2]);
    assert_eq!(list(LetterFilter { reason: Some("refused 3".into()), ..LetterFilter::default() }), [3]);
    assert!(list(LetterFilter { sink: Some(sink("b")), ..LetterFilter::default() }).is_empty());
    assert!(list(LetterFilter { tenant: Some(tenant(2)), ..LetterFilter::default() }).is_empty());
    bench.ledger.acknowledge(vec!["dead-3".parse().unwrap()], "noise".into(), "kim".into()).wait().unwrap();
    let open = LetterFilter { open: true, ..LetterFilter::default() };
    assert_eq!(list(open.clone()), [1, 2]);

    let retried = bench.ledger.retry_dead_letters(vec![2, 1, 2, 9]).wait().unwrap();
    assert_eq!((retried.records, retried.refused), (2, vec![(9, RetryRefused::Unknown)]));
    let retry = retried.works[0];
    assert!(list(open.clone()).is_empty());
    let again = bench.ledger.retry_dead_letters(vec![1]).wait().unwrap();
    assert_eq!(again.refused, [(1, RetryRefused::AlreadyRetried)]);
    assert!(bench.lease("b", 1).is_empty(), "only the sink that refused them");
    let lease = bench.lease("a", 1).pop().unwrap();
    assert_eq!((lease.work.id, lease.work.records, lease.work.seq), (retry, 2, Seq(2)));
    assert_eq!(bench.read(retry), [record(2, ""), record(0, "")]);
    // One of them is refused again: a new letter, the old ones are done.
    bench.ledger.settle(&sink("a"), vec![dead(&lease, &[1])], None).wait().unwrap();
    assert_eq!(list(open), [4]);
    let letters = bench.letters();
    assert!(letters[0].done_at.is_some() && letters[0].size == 0 && letters[3].work == retry);
    let size = |id: usize| letters[id].size;
    let kept = bench.ledger.inspector().status().unwrap().dead_letter_bytes;
    assert_eq!(kept, size(2) + size(3));
    let report = bench.reconcile();
    let sums = report.hours[0].sinks[&sink("a")];
    assert_eq!((sums.blobs.delivered, sums.blobs.dead), (2, 3));
    assert_eq!((sums.retries.due, sums.retries.delivered, sums.retries.dead), (2, 1, 1));
    assert!(report.agrees());
}

#[test]
fn when_the_dead_letters_are_full_the_sink_pauses_until_some_are_acknowledged() {
    let bench = Bench::with(|settings| settings.dead_letter_max_bytes = 500);
    bench.spool(feed(1), "x", &body(0..6));
    bench.spool(feed(1), "y", &body(6..9));
    let leases = bench.lease("a", 2);
    let settle = |settlement| bench.ledger.settle(&sink("a"), vec![settlement], None).wait();
    settle(dead(&leases[1], &[0, 1])).unwrap();
    let error = settle(dead(&leases[0], &[0, 1, 2])).unwrap_err();
    assert!(matches!(error, LedgerError::DeadLettersFull { .. }) && error.passing(), "{error}");
    assert_eq!(bench.letters().len(), 2, "nothing of it was kept");
    let ids = vec!["dead-1".parse().unwrap(), "dead-2".parse().unwrap()];
    bench.ledger.acknowledge(ids, "exported".into(), "kim".into()).wait().unwrap();
    settle(dead(&leases[0], &[0, 1, 2])).unwrap();
    assert!(bench.ledger.inspector().status().unwrap().dead_letter_bytes <= 500);
    // To fetch the blob again for one record would bring the others twice.
    let retried = bench.ledger.retry_dead_letters(vec![1]).wait().unwrap();
    assert_eq!((retried.works.len(), retried.refused), (0, vec![(1, RetryRefused::BytesGivenUp)]));
    assert!(bench.reconcile().agrees());
}

#[test]
fn overdue_blobs_become_gaps_by_themselves() {
    let bench = Bench::new();
    bench.list(feed(1), &["x", "y"]);
    bench.clock.advance(TimeDelta::days(7) + OVERDUE);
    assert_eq!(bench.maintain().gaps, 0, "whoever fetches them still has time");
    bench.clock.advance(TimeDelta::seconds(1));
    let lease = bench.claim(tenant(1)).unwrap();
    let done = bench.ledger.maintain(bench.now()).wait().unwrap();
    assert_eq!(done.gaps, 1, "the other one is being tried");
    drop(lease);
    assert_eq!(bench.ledger.maintain(bench.now()).wait().unwrap().gaps, 1);
    assert_eq!(bench.reconcile().open_findings().count(), 2);
}

impl Bench {
    pub(super) fn letters(&self) -> Vec<crate::DeadLetter> {
        self.ledger.inspector().dead_letters(&LetterFilter::default()).unwrap()
    }
}
