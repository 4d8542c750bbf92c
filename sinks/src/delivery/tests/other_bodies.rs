//! Bodies that were damaged in the spool: being fetched again, and back as another one.

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

/// However many bodies are damaged, each is met once, and no pause grows with them.
#[tokio::test(start_paused = true)]
async fn many_damaged_bodies_are_met_without_a_pause_between_them() {
    for exactly_once in [false, true] {
        let ledger = Arc::new(MemoryLedger::plain([3; 60]));
        let loses = Arc::clone(&ledger);
        // All that is not on its way is lost when the first batch arrives.
        let sink = Arc::new(Scripted::new(Limits { exactly_once, ..limits(6, 1) }, move |records| {
            if records[0].0 == 0 {
                (1..60).for_each(|work| loses.lose_when_read(work));
            }
            Reply::Take
        }));
        let start_time = Instant::now();
        let running = start(&sink, &ledger);
        tokio::time::timeout(Duration::from_secs(3600), async {
            while ledger.lost() < 50 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await
        .expect("they are met");
        assert!(start_time.elapsed() < Duration::from_secs(30), "{:?}", start_time.elapsed());
        (0..60).for_each(|work| ledger.lose(work, false));
        tokio::time::timeout(Duration::from_secs(60), ledger.all_settled())
            .await
            .expect("they are there again");
        running.stop().await.unwrap();
        let mut arrived = sink.arrived();
        arrived.sort_unstable();
        assert_eq!(arrived, all(&[3; 60]));
    }
}

fn half_of_the_first(may_be_overtaken: bool) -> Arc<Scripted> {
    let limits = Limits { exactly_once: true, whole_works: true, ..limits(100, 1) };
    let mut sink = Scripted::new(limits, |_| Reply::Take);
    let sent = (0..2).collect();
    sink.unfinished = vec![Unfinished { work: WorkId(0), body: None, sent, resent: 0 }];
    sink.may_be_overtaken = may_be_overtaken;
    Arc::new(sink)
}

/// L11: nobody knows how long it takes until a body is there again.
#[tokio::test(start_paused = true)]
async fn l11_a_work_that_waits_for_its_body_after_a_restart_holds_up_no_other() {
    let ledger = Arc::new(MemoryLedger::plain([4, 3, 2]));
    ledger.lose(0, true);
    let sink = half_of_the_first(true);
    let running = start(&sink, &ledger);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((ledger.settlements().len(), ledger.leased()), (2, 0), "the others are delivered");
    assert_eq!(running.health.report().state, State::Ok);
    ledger.lose(0, false);
    tokio::time::timeout(Duration::from_secs(60), ledger.all_settled()).await.expect("it is there again");
    running.stop().await.unwrap();
    let mut arrived = sink.arrived();
    assert_eq!(arrived[5..], [(0, 0), (0, 1), (0, 2), (0, 3)], "what was chosen comes first");
    arrived.sort_unstable();
    assert_eq!(arrived, all(&[4, 3, 2]));
}

/// Where the next record has its place behind it, that has to wait, and says so.
#[tokio::test(start_paused = true)]
async fn where_nothing_may_overtake_it_the_sink_waits_for_the_body_and_says_why() {
    let ledger = Arc::new(MemoryLedger::plain([4, 3]));
    ledger.lose(0, true);
    let sink = half_of_the_first(false);
    let running = start(&sink, &ledger);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!((sink.arrived(), ledger.leased()), (vec![], 0));
    let report = running.health.report();
    let State::Retrying { error, .. } = report.state else { panic!("{report:?}") };
    assert!(error.contains("blob0 of contoso") && error.contains("is being fetched again"), "{error}");
    assert!(report.only_failing_since.is_some(), "a run until idle does not wait for it for ever");
    assert_eq!((report.counters.retries, sink.opened.load(std::sync::atomic::Ordering::Relaxed)), (0, 1));
    ledger.lose(0, false);
    tokio::time::timeout(Duration::from_secs(60), ledger.all_settled()).await.expect("it is there again");
    assert_eq!(sink.arrived(), all(&[4, 3]));
    assert_eq!(running.health.report().state, State::Ok);
    running.stop().await.unwrap();

    // A body that never comes back makes its work dead, and the others need not wait for it any more.
    let ledger = Arc::new(MemoryLedger::plain([4, 3]));
    ledger.lose(0, true);
    let sink = half_of_the_first(false);
    let running = start(&sink, &ledger);
    tokio::time::sleep(Duration::from_secs(100)).await;
    ledger.forget(0);
    tokio::time::timeout(Duration::from_secs(60), ledger.all_settled())
        .await
        .expect("the other is delivered");
    assert_eq!(sink.arrived(), [(1, 0), (1, 1), (1, 2)]);
    assert_eq!(running.health.report().state, State::Ok);
    running.stop().await.unwrap();
}
