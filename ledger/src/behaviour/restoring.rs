//! Restores: for one sink, past the duplicate check, counted apart, and going on where they were.

use chrono::TimeDelta;
use schemas::{ContentId, FeedKey, Seq};

use crate::{
    BegunRestore, DeadRecord, LedgerError, RestoreAsk, RestorePosition, RestoreStep, RetryRefused,
    Settlement, Sums, testing::*,
};

fn ask(name: &str) -> RestoreAsk {
    RestoreAsk {
        sink: sink(name),
        asked: "March, from /srv/evidence".into(),
        since: start() - TimeDelta::days(400),
        until: start() - TimeDelta::days(370),
        anew: false,
    }
}

fn object(name: &str) -> ContentId {
    ContentId::try_from(name).unwrap()
}

fn begin(bench: &Bench, name: &str) -> BegunRestore {
    bench.ledger.begin_restore(ask(name)).wait().unwrap()
}

fn step(begun: &BegunRestore, feed: FeedKey, name: &str, from: u64, through: u64, done: bool) -> RestoreStep {
    RestoreStep { restore: begun.id, feed, object: object(name), from, through, done }
}

fn lines(numbers: impl IntoIterator<Item = u64>) -> Vec<u8> {
    numbers.into_iter().map(|number| record(number, "") + "\n").collect::<String>().into_bytes()
}

fn position(bench: &Bench, begun: &BegunRestore, name: &str) -> RestorePosition {
    bench.ledger.restore_position(begun.id, object(name)).wait().unwrap()
}

#[test]
fn restored_records_are_new_work_for_one_sink_past_the_duplicate_check() {
    let bench = Bench::new();
    bench.spool(feed(1), "x", &body(0..3));
    assert_eq!((bench.deliver("a"), bench.deliver("b")), (1, 1));
    let begun = begin(&bench, "a");
    let seq =
        bench.ledger.restore_records(step(&begun, feed(1), "o", 0, 9, true), lines(0..5)).wait().unwrap();
    assert_eq!(seq, Some(Seq(2)), "a number of its own");
    let lease = bench.lease("a", 9).pop().unwrap();
    assert!(lease.work.restored);
    assert_eq!(
        (lease.work.records, lease.work.duplicates, lease.work.content_id.as_str()),
        (5, 0, "o"),
        "what the sink has had is no duplicate"
    );
    assert_eq!(bench.read(lease.work.id), (0..5).map(|at| record(at, "")).collect::<Vec<_>>());
    assert!(bench.lease("b", 9).is_empty(), "nobody else gets it");
    drop(lease);
    assert_eq!(bench.deliver("a"), 1);
    // Nor does anything that comes count as a repetition of what was restored.
    let (_, spooled) = bench.spool(feed(1), "y", &body(3..5));
    assert_eq!(spooled.duplicates, 0);
    // A sink that is met later does not get it either.
    bench.ledger.restore_records(step(&begun, feed(1), "p", 0, 1, true), lines(7..8)).wait().unwrap();
    bench.ledger.add_sink(spec("c")).wait().unwrap();
    assert_eq!(bench.deliver("c"), 1, "the blob y");
}

#[test]
fn a_restore_goes_on_where_it_was_and_two_do_not_mix() {
    let mut bench = Bench::new();
    let begun = begin(&bench, "a");
    assert!(!begun.goes_on);
    assert_eq!(position(&bench, &begun, "o"), RestorePosition { lines: 0, done: false, room: true });
    bench.ledger.restore_records(step(&begun, feed(1), "o", 0, 40, false), lines(0..3)).wait().unwrap();
    // Lines of which none matches move the position and make no work.
    let none = bench.ledger.restore_records(step(&begun, feed(1), "o", 40, 70, false), Vec::new());
    assert_eq!(none.wait().unwrap(), None);
    bench.reopen();
    bench.clock.advance(TimeDelta::hours(1));
    let again = begin(&bench, "a");
    assert_eq!((again.id, again.records, again.goes_on), (begun.id, 3, true));
    assert_eq!(again.begun_at, start());
    assert_eq!(position(&bench, &again, "o").lines, 70);
    // Somebody who is behind, and one who is at an object that is done, changes nothing.
    let behind = bench.ledger.restore_records(step(&begun, feed(1), "o", 40, 90, false), lines(0..3));
    assert!(matches!(behind.wait(), Err(LedgerError::Restore { .. })));
    bench.ledger.restore_records(step(&begun, feed(1), "o", 70, 80, true), lines(3..4)).wait().unwrap();
    let behind = bench.ledger.restore_records(step(&begun, feed(1), "o", 80, 90, true), lines(0..3));
    assert!(matches!(behind.wait(), Err(LedgerError::Restore { .. })));
    assert!(position(&bench, &begun, "o").done);
    assert_eq!(bench.number("SELECT count(*) FROM blob"), 2);
    // For another sink it is another one; anew, the first one is given up.
    assert_ne!(begin(&bench, "b").id, begun.id);
    let anew = bench.ledger.begin_restore(RestoreAsk { anew: true, ..ask("a") }).wait().unwrap();
    assert!(anew.id != begun.id && anew.records == 0);
    assert_eq!(position(&bench, &anew, "o").lines, 0);
    let late = bench.ledger.restore_records(step(&begun, feed(1), "p", 0, 9, true), lines(0..3)).wait();
    assert!(late.unwrap_err().to_string().contains("restore 1 has ended"));
    // What has ended is begun again when it is asked for again.
    bench.ledger.end_restore(anew.id).wait().unwrap();
    assert!(matches!(bench.ledger.end_restore(anew.id).wait(), Err(LedgerError::Restore { .. })));
    assert!(!begin(&bench, "a").goes_on);
}

#[test]
fn what_was_restored_is_counted_apart_and_every_sum_agrees() {
    let bench = Bench::new();
    bench.spool(feed(1), "x", &body(0..3));
    bench.deliver("a");
    bench.deliver("b");
    bench.clock.advance(TimeDelta::hours(2));
    let begun = begin(&bench, "a");
    bench.ledger.restore_records(step(&begun, feed(1), "o", 0, 9, true), lines(0..5)).wait().unwrap();
    let status = bench.ledger.inspector().status().unwrap();
    let soc = status.sinks.iter().find(|status| status.name == sink("a")).unwrap();
    assert_eq!((soc.pending_records, soc.pending_restored), (5, 5));
    assert_eq!((status.restores[0].records, status.restores[0].pending), (5, 5));
    assert_eq!(status.feeds[0].newest, Some(start()), "nothing new came from Microsoft");
    bench.ledger.end_restore(begun.id).wait().unwrap();
    assert_eq!(bench.ledger.inspector().status().unwrap().restores.len(), 1, "something is still due");
    let lease = bench.lease("a", 1).pop().unwrap();
    let settlement = Settlement {
        delivered: 3,
        filtered: 1,
        dead: vec![DeadRecord { position: 2, reason: "too large".into() }],
        resent: 2,
        ..delivered(&lease)
    };
    bench.ledger.settle(&sink("a"), vec![settlement], None).wait().unwrap();
    assert!(bench.ledger.inspector().status().unwrap().restores.is_empty());
    let expected = Sums { due: 5, delivered: 3, filtered: 1, dead: 1, pending: 0, resent: 2 };
    for _ in 0..2 {
        let report = bench.reconcile();
        assert!(report.agrees(), "{report:?}");
        let [listed, restored] = &report.hours[..] else { panic!("{:?}", report.hours) };
        assert_eq!((listed.listed, listed.records), (1, 3));
        assert_eq!(listed.sinks[&sink("a")].restores, Sums::default());
        assert_eq!((restored.listed, restored.fetched, restored.records), (0, 0, 0));
        assert_eq!(restored.sinks[&sink("a")].restores, expected);
        assert_eq!(restored.sinks[&sink("a")].blobs, Sums::default());
        assert!(!restored.sinks.contains_key(&sink("b")));
        // The rows go, the sums stay.
        bench.clock.advance(TimeDelta::days(10));
        assert!(bench.maintain().folded <= 2);
    }
    assert_eq!(bench.number("SELECT count(*) FROM blob"), 0);
    bench.clock.advance(TimeDelta::days(400));
    bench.maintain();
    assert_eq!(bench.number("SELECT count(*) FROM restore"), 0);
}

#[test]
fn what_is_dead_of_a_restore_goes_to_its_sink_only_when_it_is_retried() {
    let bench = Bench::new();
    let begun = begin(&bench, "a");
    bench.ledger.restore_records(step(&begun, feed(1), "o", 0, 9, true), lines(0..2)).wait().unwrap();
    for _ in 0..crate::PANICS {
        let lease = bench.lease("a", 1).pop().unwrap();
        bench.ledger.panicked(lease.work.id, "a bug".into()).wait().unwrap();
    }
    let report = bench.reconcile();
    assert!(report.agrees() && !report.is_clean(), "somebody has to look at it");
    // The row stays, however long, because it knows the sink.
    bench
        .ledger
        .acknowledge(vec!["quarantine-1".parse().unwrap()], "seen".into(), "kim".into())
        .wait()
        .unwrap();
    bench.clock.advance(TimeDelta::days(10));
    bench.maintain();
    let retried = bench.ledger.retry_dead_letters(vec![1, 2]).wait().unwrap();
    assert_eq!((retried.records, retried.refused.len()), (2, 0));
    assert_eq!((bench.deliver("a"), bench.deliver("b")), (1, 0));
}

#[test]
fn a_restore_takes_half_of_the_spool_and_gives_nothing_up() {
    let bench = Bench::with(|settings| {
        (settings.spool_max_bytes, settings.segment_bytes) = (64 << 10, 4 << 10);
    });
    let optional = crate::SinkSpec { required: false, ..spec("b") };
    bench.ledger.add_sink(optional).wait().unwrap();
    bench.spool(feed(1), "x", &body(0..30));
    bench.deliver("a");
    let begun = begin(&bench, "a");
    let mut from = 0;
    while position(&bench, &begun, "o").room {
        let step = step(&begun, feed(1), "o", from, from + 10, false);
        bench.ledger.restore_records(step, lines(from..from + 10)).wait().unwrap();
        from += 10;
        assert!(from < 1000, "it has no end");
    }
    assert!(bench.ledger.inspector().status().unwrap().spool_bytes < 40 << 10);
    assert_eq!(bench.number("SELECT count(*) FROM delivery WHERE state = 'dead'"), 0);
    bench.list(feed(1), &["y"]);
    assert!(bench.claim(tenant(1)).is_some(), "what Microsoft has only for a week is fetched");
    // As soon as the sink has it, there is room again.
    bench.deliver("a");
    assert!(position(&bench, &begun, "o").room);
}

#[test]
fn a_restore_needs_a_sink_that_is_there() {
    let bench = Bench::new();
    assert!(matches!(bench.ledger.begin_restore(ask("nobody")).wait(), Err(LedgerError::UnknownSink { .. })));
    let begun = begin(&bench, "b");
    bench.ledger.remove_sink(&sink("b")).wait().unwrap();
    let refused = bench.ledger.begin_restore(ask("b")).wait().unwrap_err().to_string();
    assert!(refused.contains("sink b is not configured"), "{refused}");
    let refused = bench.ledger.restore_records(step(&begun, feed(1), "o", 0, 1, true), lines(0..1)).wait();
    assert!(refused.unwrap_err().to_string().contains("no longer configured"));
    let ask = RestoreAsk { until: ask("a").since, ..ask("a") };
    assert!(matches!(bench.ledger.begin_restore(ask).wait(), Err(LedgerError::Restore { .. })));
}

#[test]
fn what_had_to_make_room_is_told_where_it_can_be_had_again() {
    let bench = Bench::new();
    let begun = begin(&bench, "b");
    bench.ledger.restore_records(step(&begun, feed(1), "o", 0, 1, true), lines(0..1)).wait().unwrap();
    bench.ledger.remove_sink(&sink("b")).wait().unwrap();
    bench.ledger.add_sink(crate::SinkSpec { required: false, ..spec("b") }).wait().unwrap();
    bench.ledger.change(|writer| writer.make_room()).wait().unwrap();
    let letters = bench.ledger.inspector().dead_letters(&crate::LetterFilter::default()).unwrap();
    assert_eq!(letters[0].reason, crate::SPOOL_FULL);
    let retried = bench.ledger.retry_dead_letters(vec![letters[0].id]).wait().unwrap();
    assert_eq!(retried.refused, [(letters[0].id, RetryRefused::Restored)]);
}
