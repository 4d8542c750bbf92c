//! Statements on spans of numbers.

use chrono::TimeDelta;
use schemas::{ContentType, FeedKey, GapReason, HoleReason, Seq, TimeRange};

use crate::{ContentStatement, DeadRecord, LedgerError, SeqSpan, Settled, Settlement, Statement, testing::*};

const EXCHANGE: ContentType = ContentType::Exchange;

fn state(bench: &Bench, name: &str, after: u64, last: u64) -> Statement {
    let span = SeqSpan { after: Seq(after), last: Seq(last) };
    bench.ledger.inspector().statement(&sink(name), tenant(1), span, start()).unwrap()
}

fn through(bench: &Bench, name: &str) -> u64 {
    bench.ledger.inspector().settled_through(&sink(name)).unwrap()[&tenant(1)].0
}

#[test]
fn a_span_is_settled_up_to_the_first_number_that_is_not() {
    let bench = Bench::new();
    assert!(bench.ledger.inspector().settled_through(&sink("a")).unwrap().is_empty(), "no tenant yet");
    for (id, number) in [("x", 1), ("y", 2), ("z", 3)] {
        bench.spool(feed(1), id, &body([number]));
    }
    bench.spool(feed(2), "other", &body([4]));
    assert_eq!(through(&bench, "a"), 0);
    let mut leases = bench.lease("a", 10);
    leases.retain(|lease| lease.work.feed == feed(1));
    assert_eq!(leases.len(), 3);
    let settle = |lease: &crate::Lease| {
        bench.ledger.settle(&sink("a"), vec![delivered(lease)], None).wait().unwrap();
    };
    settle(&leases[1]);
    assert_eq!(through(&bench, "a"), 0, "a later number does not count before the earlier one");
    settle(&leases[0]);
    assert_eq!((through(&bench, "a"), through(&bench, "b")), (2, 0));
    // A wait does not count as settled either.
    let not_before = Some(bench.now() + TimeDelta::hours(1));
    let deferral = crate::Deferral { work: leases[2].work.id, not_before, error: "later".into(), begun: 0 };
    bench.ledger.defer(&sink("a"), vec![deferral]).wait().unwrap();
    assert_eq!(through(&bench, "a"), 2);
    settle(&leases[2]);
    assert_eq!(through(&bench, "a"), 3);
    let hole = TimeRange { start: start() - TimeDelta::hours(30), end: start() - TimeDelta::hours(26) };
    bench.ledger.record_hole(feed(1), hole, HoleReason::TooOld).wait().unwrap();
    assert_eq!(through(&bench, "a"), 4, "a hole waits for nobody");
    let unknown = bench.ledger.inspector().settled_through(&sink("nobody"));
    assert!(matches!(unknown, Err(LedgerError::UnknownSink { .. })));
}

#[test]
fn a_span_tells_what_became_of_everything_in_it() {
    let bench = Bench::new();
    let general = FeedKey { tenant: tenant(1), content_type: ContentType::General };
    bench.spool(feed(1), "x", &body([1, 2, 3, 3])); // Seq 1
    bench.spool(feed(2), "another tenant's", &body([1]));
    bench.clock.advance(TimeDelta::hours(-2));
    bench.spool(feed(1), "late", &body([5])); // Seq 2
    bench.clock.advance(TimeDelta::hours(3));
    bench.list(feed(1), &["lost"]);
    let lease = bench.claim(tenant(1)).unwrap();
    bench.ledger.gap(lease.work, GapReason::Gone).wait().unwrap(); // Seq 3
    drop(lease);
    bench.spool(general, "y", &body([6, 7])); // Seq 4
    let hole = TimeRange { start: start() - TimeDelta::hours(30), end: start() - TimeDelta::hours(26) };
    bench.ledger.record_hole(general, hole, HoleReason::TooOld).wait().unwrap(); // Seq 5
    let lease = bench.lease("a", 1).pop().unwrap();
    assert_eq!(lease.work.seq, Seq(1));
    let dead = vec![DeadRecord { position: 0, reason: "no".into() }];
    let settlement = Settlement { delivered: 1, filtered: 1, dead, ..delivered(&lease) };
    bench.ledger.settle(&sink("a"), vec![settlement], None).wait().unwrap();
    drop(lease);
    bench.deliver("a");
    let whole = state(&bench, "a", 0, 5);
    let exchange = ContentStatement {
        listed: 3,
        fetched: 2,
        gaps: 1,
        records: 5,
        duplicates: 1,
        blobs: Settled { due: 4, delivered: 2, filtered: 1, dead: 1 },
        late: [("2026-03-02T08:00:00Z".parse().unwrap(), 1)].into(),
        ..ContentStatement::default()
    };
    assert_eq!(whole.content_types[&EXCHANGE], exchange);
    let general_line = ContentStatement {
        listed: 1,
        fetched: 1,
        holes: 1,
        records: 2,
        blobs: Settled { due: 2, delivered: 2, ..Settled::default() },
        ..ContentStatement::default()
    };
    assert_eq!(whole.content_types[&ContentType::General], general_line);
    assert_eq!((whole.content_types.len(), whole.other), (2, 0));

    // Two spans that adjoin say the same together.
    let (first, second) = (state(&bench, "a", 0, 2), state(&bench, "a", 2, 5));
    assert_eq!((first.content_types[&EXCHANGE].records, first.content_types[&EXCHANGE].gaps), (5, 0));
    assert_eq!((second.content_types[&EXCHANGE].records, second.content_types[&EXCHANGE].gaps), (0, 1));
    assert!(!first.content_types.contains_key(&ContentType::General));
    assert_eq!(state(&bench, "a", 5, 5), Statement::default());

    // A retry is a number of its own, and nothing to the other sink.
    bench.ledger.retry_dead_letters(vec![1]).wait().unwrap(); // Seq 6
    bench.deliver("a");
    bench.deliver("b");
    let retried = state(&bench, "a", 5, 6);
    let line = &retried.content_types[&EXCHANGE];
    assert_eq!((line.listed, line.retried, line.retries.delivered, retried.other), (0, 1, 1, 0));
    assert_eq!(state(&bench, "b", 5, 6), Statement { other: 1, ..Statement::default() });
    assert_eq!(state(&bench, "a", 0, 5), whole, "what was stated stays so");

    // A sink that came later was due nothing of it.
    let late = crate::SinkSpec { start_from: crate::StartFrom::Now, ..spec("c") };
    bench.ledger.meet_sinks(vec![spec("a"), spec("b"), late]).wait().unwrap();
    let line = &state(&bench, "c", 0, 5).content_types[&EXCHANGE];
    assert_eq!((line.records, line.duplicates, line.not_due, line.blobs), (5, 1, 4, Settled::default()));
}

#[test]
fn a_blob_that_was_fetched_again_is_stated_once_for_each_sink() {
    let mut bench = Bench::new();
    let (work, _) = bench.spool(feed(1), "x", &body(0..3)); // Seq 1
    bench.deliver("a");
    let before = state(&bench, "a", 0, 1);
    assert_eq!(before.content_types[&EXCHANGE].blobs.delivered, 3);
    bench.ledger.close();
    std::fs::remove_file(bench.segments().pop().unwrap()).unwrap();
    bench.open().unwrap();
    assert!(bench.ledger.read_piece(work, None, 0).is_err());
    assert_eq!(
        (through(&bench, "a"), through(&bench, "b")),
        (1, 0),
        "it is fetched again for the one that waits for it"
    );
    let lease = bench.claim(tenant(1)).unwrap();
    bench.take(lease.work, body(0..3).as_bytes()).unwrap(); // Seq 2 now
    drop(lease);
    bench.deliver("b");
    assert_eq!((through(&bench, "a"), through(&bench, "b")), (2, 2));
    assert_eq!(state(&bench, "a", 0, 1), before, "under the number under which it was delivered");
    assert_eq!(state(&bench, "a", 1, 2), Statement { other: 1, ..Statement::default() });
    assert_eq!(state(&bench, "b", 0, 1), Statement { other: 1, ..Statement::default() });
    assert_eq!(state(&bench, "b", 1, 2).content_types[&EXCHANGE].blobs.delivered, 3);
}

/// What a number stood for is not known any more when its row is folded, and nobody is told that it stood for nothing.
#[test]
fn a_statement_says_when_rows_of_its_span_are_folded() {
    let bench = Bench::new();
    for (id, number) in [("x", 1), ("y", 2), ("z", 3)] {
        bench.spool(feed(1), id, &body([number])); // Seq 1, 2, 3
    }
    bench.spool(feed(2), "other", &body([4]));
    for name in ["a", "b"] {
        bench.deliver(name);
    }
    bench.clock.advance(TimeDelta::days(8));
    bench.spool(feed(1), "late", &body([5])); // Seq 4
    assert_eq!(state(&bench, "a", 0, 3).incomplete_through, None);
    bench.clock.advance(TimeDelta::days(2));
    assert_eq!(bench.maintain().folded, 4);
    let late = state(&bench, "a", 1, 4);
    assert_eq!((late.other, late.incomplete_through), (2, Some(Seq(3))));
    assert_eq!(state(&bench, "a", 0, 2).incomplete_through, Some(Seq(2)));
    assert_eq!(state(&bench, "a", 3, 4).incomplete_through, None);
}
