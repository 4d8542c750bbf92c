//! Retries of retries: the same blob comes again, once, for whom it was, and is never taken for somebody else's.

use super::losses::damage_at;
use crate::{SinkSpec, StartFrom, testing::*};

/// A ledger of which `a` is required and `b` is not.
fn with_optional_b() -> Bench {
    let bench = Bench::new();
    let optional = SinkSpec { name: sink("b"), required: false, start_from: StartFrom::Spooled };
    bench.ledger.meet_sinks(vec![spec("a"), optional]).wait().unwrap();
    bench
}

/// Gives up everything that can be, as if the spool were full.
fn give_up(bench: &Bench) -> usize {
    bench.ledger.change(|writer| writer.give_up_optional()).wait().unwrap()
}

/// Retries every open dead letter; gives how many works that made.
fn retry_all(bench: &Bench) -> usize {
    let open = bench.letters().into_iter().filter(|letter| letter.is_open()).map(|letter| letter.id);
    bench.ledger.retry_dead_letters(open.collect()).wait().unwrap().works.len()
}

#[test]
fn a_retry_of_a_retry_is_not_decided_against_its_own_blob() {
    let bench = with_optional_b();
    bench.spool(feed(1), "x", &body(0..5));
    bench.deliver("a");
    assert_eq!((give_up(&bench), retry_all(&bench)), (1, 1));
    let fetch = bench.claim(tenant(1)).unwrap();
    assert_eq!(bench.take(fetch.work, body(0..5).as_bytes()).unwrap().duplicates, 0);
    drop(fetch);
    assert_eq!((give_up(&bench), retry_all(&bench)), (1, 1));
    // The same records, and other bytes.
    let fetch = bench.claim(tenant(1)).unwrap();
    assert_eq!(bench.take(fetch.work, body((0..5).rev()).as_bytes()).unwrap().duplicates, 0);
    let lease = bench.lease("b", 1).remove(0);
    assert_eq!((lease.work.id, bench.read(fetch.work).len()), (fetch.work, 5));
    bench.ledger.settle(&sink("b"), vec![delivered(&lease)], None).wait().unwrap();
    assert!(bench.letters().iter().all(|letter| letter.done_at.is_some()));
    // They are known by it as they were before.
    assert_eq!(bench.spool(feed(1), "y", &body(0..6)).1.duplicates, 5);
    assert!(bench.reconcile().agrees());
}

/// Claims what is to be fetched; it comes malformed three times.
fn comes_malformed(bench: &Bench) {
    for _ in 0..3 {
        let fetch = bench.claim(tenant(1)).unwrap();
        bench.take(fetch.work, b"[{}}]").unwrap_err();
    }
}

#[test]
fn a_retry_that_comes_malformed_leaves_one_set_of_letters() {
    let bench = Bench::new();
    bench.list(feed(1), &["x"]);
    comes_malformed(&bench);
    for _ in 0..3 {
        assert_eq!(retry_all(&bench), 1);
        comes_malformed(&bench);
    }
    assert_eq!(retry_all(&bench), 1);
    let fetch = bench.claim(tenant(1)).unwrap();
    bench.take(fetch.work, b"[{}]").unwrap();
    assert!(bench.claim(tenant(1)).is_none());
    assert_eq!((bench.deliver("a"), bench.deliver("b")), (1, 1));
    assert!(bench.letters().iter().all(|letter| letter.done_at.is_some()));
}

#[test]
fn what_comes_malformed_when_it_is_retried_for_one_sink_goes_on_for_that_one() {
    let bench = with_optional_b();
    bench.spool(feed(1), "x", &body(0..5));
    bench.deliver("a");
    // A part of it may be there, which its sink would recognise.
    let lease = bench.lease("b", 1).remove(0);
    bench.ledger.begin(&sink("b"), vec![(lease.work.id, 0)]).wait().unwrap();
    drop(lease);
    assert_eq!((give_up(&bench), retry_all(&bench)), (1, 1));
    comes_malformed(&bench);
    assert_eq!(retry_all(&bench), 1);
    let fetch = bench.claim(tenant(1)).unwrap();
    bench.take(fetch.work, body(0..5).as_bytes()).unwrap();
    assert!(bench.lease("a", 1).is_empty(), "it has them");
    assert_eq!(bench.lease("b", 1).remove(0).begun, 1, "what is sent now may be sent again");
}

#[test]
fn what_could_be_kept_of_a_body_comes_with_the_rest_of_it() {
    let bench = Bench::new();
    // Three pieces, of which the disk cannot read the last when the body is to be kept.
    let records: Vec<_> = (0..12).map(|number| record(number, &format!("{number:0>60000}"))).collect();
    let text = format!("[{}]", records.join(","));
    let (work, _) = bench.spool(feed(1), "x", &text);
    damage_at(&bench, |length| length - 100);
    for _ in 0..3 {
        bench.ledger.panicked(work, "a bug".into()).wait().unwrap();
    }
    let letters = bench.letters();
    assert!(letters.len() > 1 && letters.last().unwrap().position.is_none());
    assert_eq!(retry_all(&bench), 1);
    let fetch = bench.claim(tenant(1)).unwrap();
    bench.take(fetch.work, text.as_bytes()).unwrap();
    drop(fetch);
    // It panics once more: then there are its own letters, and no others.
    let retry = bench.lease("a", 1).remove(0).work.id;
    for _ in 0..3 {
        bench.ledger.panicked(retry, "a bug".into()).wait().unwrap();
    }
    assert_eq!(bench.letters().iter().filter(|letter| letter.is_open()).count(), 12);
    assert_eq!(retry_all(&bench), 1);
    assert_eq!((bench.deliver("a"), bench.deliver("b")), (1, 1));
    assert!(bench.letters().iter().all(|letter| letter.done_at.is_some()));
}
