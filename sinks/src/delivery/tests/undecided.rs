//! A sink with a state of its own, and a batch that does not end well.

use super::*;

/// What ends the batch, and when the loop is stopped then.
struct Ending {
    works: Vec<usize>,
    replies: Vec<Reply>,
    stop: Duration,
}

/// L3: what of such a batch is there can only be known by the state that was durable before it. So that one stays, and what
/// else was complete by then is settled later.
#[tokio::test(start_paused = true)]
async fn the_state_before_a_batch_that_did_not_end_well_stays() {
    let unknown = || Reply::TakeAndFail(DeliverError::ambiguous("who knows"));
    let split = DeliverError { disposition: Disposition::Split, context: "too large".into() };
    let endings = [
        // Stopped in the pause before it is tried again.
        Ending { works: vec![4], replies: vec![unknown(); 9], stop: Duration::from_secs(5) },
        // Without an answer until the time to drain is over.
        Ending { works: vec![4], replies: vec![Reply::TakeAndHang], stop: Duration::from_secs(1) },
        Ending {
            works: vec![4],
            replies: vec![unknown(), Reply::Fail(DeliverError::halt("locked out"))],
            stop: Duration::from_secs(2),
        },
        // Before it is opened again.
        Ending { works: vec![4], replies: vec![unknown(), Reply::Panic], stop: Duration::from_millis(900) },
        // One half is there, and completes a work; of the other nobody knows.
        Ending {
            works: vec![2, 2],
            replies: [vec![Reply::Fail(split), Reply::Take], vec![unknown(); 9]].concat(),
            stop: Duration::from_secs(5),
        },
    ];
    for (case, Ending { works, replies, stop }) in endings.into_iter().enumerate() {
        let ledger = Arc::new(MemoryLedger::plain(works.clone()));
        ledger.render_as(Rendering { view: 0, keep: Arc::new(|work, _| work != 9) });
        let before = Arc::new(Mutex::new(None));
        let (in_script, before_in) = (Arc::clone(&ledger), Arc::clone(&before));
        let mut replies = replies.into_iter();
        let mut sink = Scripted::new(Limits { exactly_once: true, ..limits(4, 1) }, move |_| {
            let mut before = before_in.lock().unwrap();
            if before.is_none() {
                *before = in_script.state();
                // Nothing of it is to be sent: it is complete while the batch is under way.
                in_script.add(9, vec![Kind::Plain; 3]);
            }
            replies.next().unwrap()
        });
        sink.ledger = Some(Arc::clone(&ledger));
        let running = start(&Arc::new(sink), &ledger);
        tokio::time::sleep(stop).await;
        let health = Arc::clone(&running.health);
        running.stop().await.unwrap();
        assert!(before.lock().unwrap().is_some(), "{case}");
        assert_eq!(ledger.state(), *before.lock().unwrap(), "{case}");
        assert_eq!((ledger.settlements(), ledger.leased()), (vec![], 0), "{case}");
        let counters = health.report().counters;
        assert_eq!((counters.settled, counters.filtered), (0, 0), "{case}: counted when it is settled");

        let sink = Scripted::new(Limits { exactly_once: true, ..limits(4, 1) }, |_| Reply::Take);
        let report = deliver_all(&Arc::new(sink), &ledger).await;
        assert_eq!(
            (report.counters.settled, report.counters.filtered),
            (works.len() as u64 + 1, 3),
            "{case}"
        );
    }
}

/// It recognises what it has of a work, and not what it has of the one that this retries.
#[tokio::test(start_paused = true)]
async fn a_retry_of_what_was_tried_counts_as_sent_again_by_every_sink() {
    for exactly_once in [false, true] {
        let ledger = Arc::new(MemoryLedger::plain([5, 3]));
        ledger.retries_what_was_tried(0);
        let mut replies = vec![Reply::TakeAndFail(DeliverError::ambiguous("who knows")); 9].into_iter();
        let sink = Scripted::new(Limits { exactly_once, ..limits(3, 1) }, move |records| match records[0] {
            // That nobody knows of this one means more copies of it only where nobody recognises them.
            (1, _) if exactly_once => replies.next().unwrap_or(Reply::Take),
            _ => Reply::Take,
        });
        let report = deliver_all(&Arc::new(sink), &ledger).await;
        let resent: Vec<_> = ledger.settlements().iter().map(|settlement| settlement.resent).collect();
        assert_eq!((resent, report.counters.resent), (vec![5, 0], 5), "{exactly_once}");
    }
}
