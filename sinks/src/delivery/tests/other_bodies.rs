//! Bodies that were damaged in the spool and came back as another one.

use super::*;
use crate::{delivery_ledger::WorkId, sink::Unfinished, test_ledger::body};

/// Everything of the new body arrives, and what was delivered of the old one counts as sent again: nothing is skipped because
/// a record of the old body was at its position.
#[tokio::test(start_paused = true)]
async fn another_body_is_delivered_whole_and_what_was_delivered_of_the_first_counts_as_resent() {
    for in_flight in [1, 3] {
        for records in [4, 20, 30] {
            let ledger = Arc::new(MemoryLedger::plain([20]));
            ledger.replace_body(0, 1, 20, false);
            let start_time = Instant::now();
            let sink = Arc::new(Scripted::new(limits(7, in_flight), move |records| {
                let over = start_time.elapsed() > Duration::from_secs(600);
                if records[0].1 == 0 || over { Reply::Take } else { Reply::Fail(busy(None)) }
            }));
            let running = start(&sink, &ledger);
            tokio::time::sleep(Duration::from_secs(500)).await;
            assert_eq!(sink.arrived().len(), 7, "a part of it is delivered");
            ledger.replace_body(0, 2, records, true);
            tokio::time::timeout(Duration::from_secs(3600), ledger.all_settled())
                .await
                .expect("it is settled");
            let report = running.health.report();
            running.stop().await.unwrap();
            let settlement = ledger.settlements().remove(0);
            assert_eq!((settlement.delivered as usize, settlement.body), (records, body(2)));
            assert_eq!((settlement.resent, report.counters.resent), (7, 7), "counted once");
            assert!(ledger.quarantined().is_empty() && report.counters.panics == 0);
            let mut arrived = sink.arrived();
            let mut of_second = arrived.split_off(7);
            of_second.sort_unstable();
            assert_eq!(of_second, all(&[records]), "{in_flight}, {records}");
        }
    }
}

/// The same over a restart, for a sink with a state of its own.
#[tokio::test(start_paused = true)]
async fn what_was_chosen_of_another_body_is_not_chosen_of_this_one() {
    let exactly_once = Limits { exactly_once: true, whole_works: true, ..limits(7, 1) };
    let sent = |positions: std::ops::Range<u32>, number, resent| Unfinished {
        work: WorkId(0),
        body: body(number),
        sent: positions.collect(),
        resent,
    };
    for (unfinished, resent) in [
        (vec![sent(0..5, 2, 0)], 0),
        (vec![sent(0..5, 2, 3)], 3),
        (vec![sent(0..5, 1, 0)], 5),
        // More than there is in it now, and in parts that others came between.
        (vec![sent(0..25, 1, 3), sent(30..40, 1, 0)], 38),
    ] {
        let ledger = Arc::new(MemoryLedger::plain([20, 3]));
        ledger.replace_body(0, 2, 20, true);
        let mut sink = Scripted::new(exactly_once, |_| Reply::Take);
        sink.unfinished = unfinished;
        let sink = Arc::new(sink);
        let report = deliver_all(&sink, &ledger).await;
        assert_eq!(sink.arrived(), all(&[20, 3]), "each record once, that work first");
        let settlements = ledger.settlements();
        assert_eq!((settlements[0].delivered, settlements[0].resent), (20, resent));
        assert_eq!(report.counters.panics, 0);
    }
}

/// A work that is whole when its body is replaced has been delivered.
#[tokio::test(start_paused = true)]
async fn what_was_delivered_when_another_body_came_is_settled_as_it_was_leased() {
    let ledger = Arc::new(MemoryLedger::plain([5, 3]));
    ledger.replace_body(0, 1, 5, false);
    let replaces = Arc::clone(&ledger);
    let sink = Arc::new(Scripted::new(limits(100, 1), move |records| {
        if records[0].0 == 0 {
            replaces.replace_body(0, 2, 9, true);
        }
        Reply::Take
    }));
    deliver_all(&sink, &ledger).await;
    assert_eq!(sink.arrived(), all(&[5, 3]));
    let settlement = &ledger.settlements()[0];
    assert_eq!((settlement.delivered, settlement.body), (5, body(1)));
}
