//! The contract of the delivery loop, with sinks that answer by a script.

mod chaos;
mod in_line;
mod other_bodies;
mod scripted;
mod undecided;

use std::{
    collections::BTreeSet,
    num::NonZeroU32,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::task::JoinHandle;

use self::scripted::{Reply, Scripted, limits};
use super::*;
use crate::{
    health::State,
    sink::Limits,
    test_ledger::{Kind, MemoryLedger, Rendering},
};

struct Running {
    stop: CancellationToken,
    health: Arc<Health>,
    task: JoinHandle<Result<(), LedgerFailure>>,
}

fn start(sink: &Arc<Scripted>, ledger: &Arc<MemoryLedger>) -> Running {
    start_with(sink, ledger, Rate::new(None, None), &MemoryBudget::new(64 << 20))
}

fn start_with(
    sink: &Arc<Scripted>,
    ledger: &Arc<MemoryLedger>,
    rate: Rate,
    budget: &MemoryBudget,
) -> Running {
    let delivery = DeliveryLoop::new(
        Arc::clone(sink) as Arc<dyn Sink>,
        Arc::clone(ledger) as Arc<dyn DeliveryLedger>,
        Arc::new(rate),
        budget,
    );
    let (health, stop) = (delivery.health(), CancellationToken::new());
    let task = tokio::spawn(delivery.run(stop.clone()));
    Running { stop, health, task }
}

impl Running {
    async fn stop(self) -> Result<(), LedgerFailure> {
        self.stop.cancel();
        self.task.await.expect("the loop does not panic")
    }
}

/// Delivers everything and stops; returns the health at the end.
async fn deliver_all(sink: &Arc<Scripted>, ledger: &Arc<MemoryLedger>) -> crate::health::HealthReport {
    let running = start(sink, ledger);
    tokio::time::timeout(Duration::from_secs(86_400), ledger.all_settled())
        .await
        .expect("all is settled in a day");
    let report = running.health.report();
    running.stop().await.unwrap();
    assert_eq!(ledger.leased(), 0, "every lease was let go");
    report
}

fn all(works: &[usize]) -> Vec<(i64, u32)> {
    let records =
        |(id, count): (usize, &usize)| (0..*count as u32).map(move |position| (id as i64, position));
    works.iter().enumerate().flat_map(records).collect()
}

fn busy(after: Option<Duration>) -> DeliverError {
    DeliverError { disposition: Disposition::Retry { after, ambiguous: false }, context: "busy".into() }
}

#[tokio::test(start_paused = true)]
async fn every_record_arrives_once_in_order_and_is_settled() {
    let works = [3, 0, 12, 1, 40];
    let ledger = Arc::new(MemoryLedger::plain(works));
    let sink = Arc::new(Scripted::new(limits(5, 1), |_| Reply::Take));
    let report = deliver_all(&sink, &ledger).await;
    assert_eq!(sink.arrived(), all(&works));
    assert!(sink.tried().iter().all(|size| *size <= 5));
    assert_eq!(report.counters.records, 56);
    assert_eq!(report.counters.settled, 5);
    assert_eq!(report.counters.resent, 0);
    assert_eq!(report.state, State::Ok);
    for (settlement, records) in ledger.settlements().iter().zip(works) {
        assert_eq!((settlement.delivered as usize, settlement.resent), (records, 0));
    }
}

/// L10: what is filtered, a duplicate or broken is accounted for, and never reaches the sink.
#[tokio::test(start_paused = true)]
async fn sums_agree_with_filter_duplicates_and_broken_records() {
    use Kind::{Broken, Duplicate, Plain};
    let ledger = Arc::new(MemoryLedger::new([
        vec![Plain, Duplicate, Broken, Plain, Plain],
        vec![Duplicate; 9],
        vec![Broken; 9],
        vec![Plain; 30],
    ]));
    ledger.render_as(Rendering { view: 0, keep: Arc::new(|work, position| work != 3 && position != 0) });
    let sink = Arc::new(Scripted::new(limits(100, 1), |_| Reply::Take));
    let report = deliver_all(&sink, &ledger).await;
    assert_eq!(sink.arrived(), [(0, 3), (0, 4)]);
    let sums: Vec<_> = ledger.settlements().iter().map(|s| (s.delivered, s.filtered, s.dead.len())).collect();
    assert_eq!(sums, [(2, 1, 1), (0, 0, 0), (0, 0, 9), (0, 30, 0)]);
    assert_eq!((report.counters.filtered, report.counters.dead), (31, 10));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_too_large_is_halved_until_it_fits_and_a_single_one_is_dead() {
    let ledger = Arc::new(MemoryLedger::plain([16]));
    let sink = Arc::new(Scripted::new(limits(100, 1), |records| {
        let too_large = records.len() > 3 || records.contains(&(0, 5));
        let error = DeliverError { disposition: Disposition::Split, context: "413 too large".into() };
        if too_large { Reply::Fail(error) } else { Reply::Take }
    }));
    deliver_all(&sink, &ledger).await;
    assert_eq!(sink.arrived(), (0..16).filter(|p| *p != 5).map(|p| (0, p)).collect::<Vec<_>>());
    let settlement = &ledger.settlements()[0];
    assert_eq!((settlement.delivered, settlement.dead.len()), (15, 1));
    assert_eq!((settlement.dead[0].position, settlement.dead[0].reason.as_str()), (5, "413 too large"));
}

#[tokio::test(start_paused = true)]
async fn refused_records_are_dead_and_the_others_are_sent_again() {
    let ledger = Arc::new(MemoryLedger::plain([4, 4]));
    let sink = Arc::new(Scripted::new(limits(100, 1), |records| {
        let refused: Vec<_> = records
            .iter()
            .enumerate()
            .filter(|(_, (work, position))| *work == 0 && *position != 2 || (*work, *position) == (1, 0))
            .map(|(index, _)| (index, "code 6".to_owned()))
            .collect();
        if refused.is_empty() {
            Reply::Take
        } else {
            let disposition = Disposition::Reject { records: refused };
            Reply::Fail(DeliverError { disposition, context: "invalid".into() })
        }
    }));
    deliver_all(&sink, &ledger).await;
    assert_eq!(sink.arrived(), [(0, 2), (1, 1), (1, 2), (1, 3)]);
    let dead: Vec<Vec<u32>> =
        ledger.settlements().iter().map(|s| s.dead.iter().map(|d| d.position).collect()).collect();
    assert_eq!(dead, [vec![0, 1, 3], vec![0]]);
}

#[tokio::test(start_paused = true)]
async fn the_smallest_batches_there_can_be_are_enough() {
    let ledger = Arc::new(MemoryLedger::plain([3; 20]));
    let smallest = Limits { max_bytes: 1, ..limits(1, 1) };
    let sink = Arc::new(Scripted::new(smallest, |_| Reply::Take));
    deliver_all(&sink, &ledger).await;
    assert_eq!(sink.arrived(), all(&[3; 20]));
}

/// L11: behind one tenant's 10,000 waiting blobs, another's new blob waits for two batches at most, and for the blob
/// that is being read, if that is larger than a batch.
#[tokio::test(start_paused = true)]
async fn l11_a_tenants_new_blob_waits_for_two_batches_at_most_behind_anothers_ten_thousand() {
    for (records_of_a_blob, max_records, in_flight, exactly_once) in [
        (10, 100, 1, false),
        (10, 100, 1, true),
        (10, 100, 8, false),
        (1, 500, 4, false),
        (40, 100, 1, false),
    ] {
        let ledger = Arc::new(MemoryLedger::plain(std::iter::repeat_n(records_of_a_blob, 10_000)));
        let (added, arrival) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
        let (mut batches, adding) = (0, Arc::clone(&ledger));
        let (added_in, arrival_in) = (Arc::clone(&added), Arc::clone(&arrival));
        let limits = Limits { exactly_once, ..limits(max_records, in_flight) };
        let sink = Arc::new(Scripted::new(limits, move |records| {
            batches += 1;
            if batches == 15 {
                adding.add_of(2, 1_000_000, vec![Kind::Plain; 5]);
                *added_in.lock().unwrap() = Some(batches);
            }
            if records.iter().any(|(work, _)| *work == 1_000_000) {
                arrival_in.lock().unwrap().get_or_insert(batches);
            }
            Reply::TakeAfter(Duration::from_millis(20))
        }));
        let running = start(&sink, &ledger);
        while arrival.lock().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(sink.tried().len() < 100, "it waits for ever");
        }
        running.stop().await.unwrap();
        let (added, arrival) = (added.lock().unwrap().unwrap(), arrival.lock().unwrap().unwrap());
        // The batches that had left are not waited for; the two that go before it are.
        assert!(
            arrival - added <= 3,
            "{records_of_a_blob} records a blob, {max_records} a batch, {in_flight} under way: it came {} batches later",
            arrival - added
        );
    }
}

/// Destinations count from 0, from 1, or say nothing, and some are wrong. Only what is refused alone is dead.
#[tokio::test(start_paused = true)]
async fn a_record_that_stops_the_destination_is_found_whatever_it_says_about_it() {
    let hints: [fn(usize) -> Option<usize>; 5] =
        [Some, |index| Some(index + 1), |_| None, |_| Some(0), |_| Some(usize::MAX)];
    for (number, hint) in hints.into_iter().enumerate() {
        let ledger = Arc::new(MemoryLedger::plain([12, 5]));
        let sink = Arc::new(Scripted::new(limits(100, 1), move |records| {
            match records.iter().position(|record| [(0, 7), (1, 4)].contains(record)) {
                Some(index) => {
                    let disposition = Disposition::Isolate { suspect: hint(index) };
                    Reply::Fail(DeliverError { disposition, context: "code 6".into() })
                }
                None => Reply::Take,
            }
        }));
        let report = deliver_all(&sink, &ledger).await;
        let mut arrived = sink.arrived();
        arrived.sort_unstable();
        let good: Vec<_> = all(&[12, 5]).into_iter().filter(|r| ![(0, 7), (1, 4)].contains(r)).collect();
        assert_eq!(arrived, good, "hint {number}");
        let dead: Vec<Vec<u32>> =
            ledger.settlements().iter().map(|s| s.dead.iter().map(|d| d.position).collect()).collect();
        assert_eq!(dead, [vec![7], vec![4]], "hint {number}");
        // What stood before it may be there.
        assert!(report.counters.resent >= 11 || number == 3, "hint {number}: {}", report.counters.resent);
    }
}

/// A sink that refuses records which are not in the batch must not make the loop spin or drop anything.
#[tokio::test(start_paused = true)]
async fn a_refusal_of_nothing_is_a_retry() {
    let ledger = Arc::new(MemoryLedger::plain([4]));
    let mut calls = 0;
    let sink = Arc::new(Scripted::new(limits(100, 1), move |_| {
        calls += 1;
        if calls > 3 {
            return Reply::Take;
        }
        let disposition = Disposition::Reject { records: vec![(17, "what?".into())] };
        Reply::Fail(DeliverError { disposition, context: "confused".into() })
    }));
    let report = deliver_all(&sink, &ledger).await;
    assert_eq!(sink.arrived(), all(&[4]));
    assert_eq!(report.counters.retries, 3);
}

/// L3: nothing else than a receipt for the batch acknowledges. Vector's mistakes: drop, timeout, unclear answers.
#[tokio::test(start_paused = true)]
async fn wrong_receipts_hangs_and_panics_never_acknowledge() {
    for wrong in [Reply::WrongReceipt, Reply::TakeAndHang, Reply::Panic] {
        let ledger = Arc::new(MemoryLedger::plain([4]));
        let (mut calls, reply) = (0, wrong.clone());
        let sink = Arc::new(Scripted::new(limits(100, 4), move |_| {
            calls += 1;
            if calls == 1 { reply.clone() } else { Reply::Take }
        }));
        let running = start(&sink, &ledger);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(ledger.pending(), 1, "{wrong:?} settled something");
        ledger.all_settled().await;
        running.stop().await.unwrap();
        let settlement = &ledger.settlements()[0];
        assert_eq!((settlement.delivered, settlement.resent), (4, 4), "{wrong:?} is ambiguous");
    }
}

#[tokio::test(start_paused = true)]
async fn short_retries_are_in_memory_and_only_ambiguous_ones_count_as_resent() {
    for (ambiguous, resent) in [(false, 0), (true, 12)] {
        let ledger = Arc::new(MemoryLedger::plain([4]));
        let mut calls = 0;
        let sink = Arc::new(Scripted::new(limits(100, 1), move |_| {
            calls += 1;
            let error = busy(None);
            match (calls, ambiguous) {
                (4.., _) => Reply::Take,
                (_, false) => Reply::Fail(error),
                (_, true) => Reply::TakeAndFail(DeliverError::ambiguous("timeout")),
            }
        }));
        let report = deliver_all(&sink, &ledger).await;
        assert_eq!(report.counters.deferred, 0);
        assert_eq!(report.counters.resent, resent);
        assert_eq!(u64::from(ledger.settlements()[0].resent), resent);
        assert_eq!(sink.arrived().len() as u64, 4 + resent, "it is an upper bound, and exact here");
    }
}

/// The loop never gives up and never drops, however long the destination is down.
#[tokio::test(start_paused = true)]
async fn a_long_outage_goes_through_the_ledger_and_ends_without_loss_or_duplicate() {
    let works = [3, 9, 30, 1];
    for in_flight in [1, 4] {
        let ledger = Arc::new(MemoryLedger::plain(works));
        let start_time = Instant::now();
        let sink = Arc::new(Scripted::new(limits(8, in_flight), move |records| {
            // One batch passes first, so that a work is delivered in part before the outage.
            let passes = records[0].1 == 0 && records[0].0 == 0;
            let over = start_time.elapsed() > Duration::from_secs(4000);
            if passes || over { Reply::Take } else { Reply::Fail(busy(None)) }
        }));
        let running = start(&sink, &ledger);
        tokio::time::sleep(Duration::from_secs(3000)).await;
        let report = running.health.report();
        assert!(report.counters.deferred > 4, "{report:?}");
        assert!(report.only_failing_since.is_some());
        assert!(matches!(report.state, State::Retrying { .. } | State::Deferred { .. }), "{report:?}");
        ledger.all_settled().await;
        assert!(start_time.elapsed() < Duration::from_secs(4000 + 700), "it noticed the end of the outage");
        let resent: u64 = ledger.settlements().iter().map(|s| u64::from(s.resent)).sum();
        running.stop().await.unwrap();
        let mut arrived = sink.arrived();
        arrived.sort_unstable();
        assert_eq!(arrived, all(&works), "in_flight {in_flight}: a definite failure doubles nothing");
        assert_eq!(resent, 0);
    }
}

/// A destination that names the time is waited for, and such a wait is no failure that ends `--until-idle`.
#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured() {
    let ledger = Arc::new(MemoryLedger::plain([2]));
    let start_time = Instant::now();
    let times = Arc::new(Mutex::new(Vec::new()));
    let (seen, mut calls) = (Arc::clone(&times), 0);
    let sink = Arc::new(Scripted::new(limits(8, 1), move |_| {
        seen.lock().unwrap().push(start_time.elapsed().as_secs());
        calls += 1;
        match calls {
            1 => Reply::Fail(busy(Some(Duration::from_secs(30)))),
            2 => Reply::Fail(busy(Some(Duration::from_secs(900)))),
            _ => Reply::Take,
        }
    }));
    let running = start(&sink, &ledger);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(running.health.report().only_failing_since, None);
    ledger.all_settled().await;
    running.stop().await.unwrap();
    let times = times.lock().unwrap().clone();
    assert_eq!(times[0], 0);
    assert!((30..40).contains(&times[1]), "{times:?}");
    assert!(times[2] >= times[1] + 900 && times[2] < times[1] + 1300, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_halted_sink_keeps_everything_probes_slowly_and_opens_anew() {
    let ledger = Arc::new(MemoryLedger::plain([2, 2]));
    let start_time = Instant::now();
    let recovered = Duration::from_secs(2500);
    let sink = Arc::new(Scripted::new(limits(2, 2), move |_| {
        if start_time.elapsed() < recovered {
            Reply::Fail(DeliverError::halt("invalid token"))
        } else {
            Reply::Take
        }
    }));
    *sink.probes.lock().unwrap() = vec![Err(DeliverError::halt("still an invalid token")); 12];
    let running = start(&sink, &ledger);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let report = running.health.report();
    assert!(matches!(&report.state, State::Halted { .. }), "{report:?}");
    assert!(!report.is_ready());
    assert_eq!(ledger.pending(), 2);
    assert_eq!(ledger.leased(), 0, "a halted sink holds no lease");
    assert_eq!(ledger.begun(), 0, "it is certain that nothing was taken");
    let tried = sink.tried().len();
    tokio::time::sleep(Duration::from_secs(1800)).await;
    assert_eq!(sink.tried().len(), tried, "a halted sink sends nothing");
    ledger.all_settled().await;
    assert!(start_time.elapsed() < recovered + Duration::from_secs(1000));
    assert!(running.health.report().is_ready());
    running.stop().await.unwrap();
    assert_eq!(sink.opened.load(Ordering::Relaxed), 2);
    let mut arrived = sink.arrived();
    arrived.sort_unstable();
    assert_eq!(arrived, all(&[2, 2]));
    assert!(ledger.settlements().iter().all(|settlement| settlement.resent == 0));
}

/// L11: one work whose handling panics is found, counted three times and quarantined; its neighbours arrive.
#[tokio::test(start_paused = true)]
async fn the_work_that_panics_is_found_among_its_batch() {
    for in_flight in [1, 3] {
        let ledger = Arc::new(MemoryLedger::plain([2, 2, 2]));
        let sink = Arc::new(Scripted::new(limits(100, in_flight), |records| {
            if records.iter().any(|(work, _)| *work == 1) { Reply::Panic } else { Reply::Take }
        }));
        let report = deliver_all(&sink, &ledger).await;
        assert_eq!(ledger.quarantined(), [1]);
        assert_eq!(ledger.settlements().len(), 2);
        let arrived: BTreeSet<_> = sink.arrived().into_iter().collect();
        assert_eq!(arrived, BTreeSet::from([(0, 0), (0, 1), (2, 0), (2, 1)]));
        assert!(report.counters.panics >= 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_work_whose_reading_panics_stops_no_other() {
    let mut explosive = vec![Kind::Plain; 20];
    explosive[15] = Kind::Explosive;
    let ledger = Arc::new(MemoryLedger::new([vec![Kind::Plain; 3], explosive, vec![Kind::Plain; 3]]));
    let sink = Arc::new(Scripted::new(limits(4, 2), |_| Reply::Take));
    deliver_all(&sink, &ledger).await;
    assert_eq!(ledger.quarantined(), [1]);
    assert_eq!(ledger.settlements().len(), 2);
}

/// L11: a body that is damaged in the spool is fetched again, for as long as that takes; the works behind it do not wait.
#[tokio::test(start_paused = true)]
async fn l11_a_work_whose_body_is_lost_is_given_back_and_stops_no_other() {
    for in_flight in [1, 3] {
        let ledger = Arc::new(MemoryLedger::plain([3, 20, 5]));
        let (lose, mut sent) = (Arc::clone(&ledger), false);
        let sink = Arc::new(Scripted::new(limits(4, in_flight), move |records| {
            // When a part of it was sent.
            if records.iter().any(|(work, _)| *work == 1) && !std::mem::replace(&mut sent, true) {
                lose.lose(1, true);
            }
            Reply::Take
        }));
        let running = start(&sink, &ledger);
        tokio::time::timeout(Duration::from_secs(3600), async {
            while ledger.settlements().len() < 2 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        })
        .await
        .expect("the others are delivered meanwhile");
        assert_eq!((ledger.pending(), ledger.leased()), (1, 0), "{in_flight}");
        ledger.lose(1, false);
        tokio::time::timeout(Duration::from_secs(3600), ledger.all_settled())
            .await
            .expect("it is there again");
        running.stop().await.unwrap();
        let mut arrived = sink.arrived();
        arrived.sort_unstable();
        assert_eq!(arrived, all(&[3, 20, 5]), "{in_flight}: what receipts cover is not sent again");
    }
}

/// A work that another sink quarantines while this one delivers it is dead for this one, too; nothing else happens.
#[tokio::test(start_paused = true)]
async fn l11_a_work_that_becomes_dead_under_way_stops_neither_the_sink_nor_another_work() {
    for in_flight in [1, 3] {
        let ledger = Arc::new(MemoryLedger::plain([3, 20, 5, 4]));
        let dead = Arc::clone(&ledger);
        let sink = Arc::new(Scripted::new(limits(8, in_flight), move |records| {
            // One is still being read, the other is complete by this batch.
            for work in [1, 3].iter().filter(|dead| records.iter().any(|(work, _)| work == *dead)) {
                dead.forget(*work);
            }
            Reply::Take
        }));
        deliver_all(&sink, &ledger).await;
        assert_eq!(ledger.quarantined(), [1, 3], "{in_flight}");
        assert_eq!(ledger.settlements().len(), 2, "{in_flight}");
    }
}

/// L7: what is under way may end; what does not end in time is dropped and stays pending, marked as begun.
#[tokio::test(start_paused = true)]
async fn a_stop_drains_within_ten_seconds_and_acknowledges_nothing_else() {
    let works = [4; 40];
    let ledger = Arc::new(MemoryLedger::plain(works));
    let sink = Arc::new(Scripted::new(limits(4, 3), |records| match records[0].0 {
        0 => Reply::TakeAfter(Duration::from_secs(3)),
        _ => Reply::TakeAndHang,
    }));
    let running = start(&sink, &ledger);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = Instant::now();
    running.stop().await.unwrap();
    assert!(asked.elapsed() <= Duration::from_secs(10), "{:?}", asked.elapsed());
    assert_eq!(ledger.settlements().len(), 1, "the one that was answered in time");
    assert_eq!(ledger.pending(), 39);
    assert_eq!(ledger.leased(), 0);
    assert_eq!(ledger.begun(), 2, "only what left may be there already");
}

/// What a clean stop interrupts in the middle of a work is not sent again.
#[tokio::test(start_paused = true)]
async fn a_clean_stop_doubles_nothing() {
    let works = [50, 50, 50];
    let ledger = Arc::new(MemoryLedger::plain(works));
    let mut arrived = Vec::new();
    for _ in 0..200 {
        let sink = Arc::new(Scripted::new(limits(4, 2), |_| Reply::TakeAfter(Duration::from_millis(100))));
        let running = start(&sink, &ledger);
        tokio::time::sleep(Duration::from_millis(230)).await;
        running.stop().await.unwrap();
        arrived.extend(sink.arrived());
        if ledger.pending() == 0 {
            break;
        }
    }
    arrived.sort_unstable();
    assert_eq!(arrived, all(&works));
    assert!(ledger.settlements().iter().all(|settlement| settlement.resent == 0));
}

/// A drop at any moment is safe: nothing is settled that did not arrive.
#[tokio::test(start_paused = true)]
async fn a_dropped_loop_leaves_everything_pending_and_resent_is_an_upper_bound() {
    let works = [30, 2, 30];
    for millis in (0..900).step_by(37) {
        let ledger = Arc::new(MemoryLedger::plain(works));
        let sink = Arc::new(Scripted::new(limits(4, 2), |_| Reply::TakeAfter(Duration::from_millis(100))));
        let running = start(&sink, &ledger);
        tokio::time::sleep(Duration::from_millis(millis)).await;
        running.task.abort();
        assert!(running.task.await.is_err() || ledger.pending() == 0);
        assert_eq!(ledger.leased(), 0);
        let first = sink.arrived().len();
        deliver_all(&sink, &ledger).await;
        let arrived = sink.arrived();
        let distinct: BTreeSet<_> = arrived.iter().copied().collect();
        assert_eq!(distinct.into_iter().collect::<Vec<_>>(), all(&works), "nothing is lost");
        let doubled = arrived.len() - all(&works).len();
        let resent: u32 = ledger.settlements().iter().map(|settlement| settlement.resent).sum();
        assert!(doubled <= resent as usize, "{doubled} doubled, {resent} counted, {first} before");
    }
}

/// `begun` is committed before the first batch of a work leaves, for a sink that is not exactly once.
#[tokio::test(start_paused = true)]
async fn begun_is_durable_before_anything_leaves() {
    let ledger = Arc::new(MemoryLedger::plain([9, 9]));
    let watch = Arc::clone(&ledger);
    let sink = Arc::new(Scripted::new(limits(4, 3), move |_| {
        assert!(watch.begun() > 0, "it leaves before its mark");
        Reply::Take
    }));
    let report = deliver_all(&sink, &ledger).await;
    assert_eq!(report.counters.panics, 0);
    assert_eq!(ledger.log()[0], "begin 1");
}

/// One that is exactly once recognises what is there, unless it is given up before.
#[tokio::test(start_paused = true)]
async fn that_a_work_was_tried_is_durable_before_anything_of_it_leaves_whoever_it_is_for() {
    let ledger = Arc::new(MemoryLedger::plain([9, 9]));
    let watch = Arc::clone(&ledger);
    let limits = Limits { exactly_once: true, ..limits(4, 1) };
    let sink = Arc::new(Scripted::new(limits, move |records| {
        let tried = watch.tried();
        assert!(records.iter().all(|(work, _)| tried.contains(work)), "it leaves before its mark");
        assert_eq!(watch.begun(), 0, "and nothing of it counts as sent again");
        Reply::Take
    }));
    let report = deliver_all(&sink, &ledger).await;
    assert_eq!((report.counters.panics, report.counters.resent), (0, 0));
    let marks = ledger.log().iter().filter(|entry| entry.starts_with("begin")).count();
    assert!(marks <= 2, "each of them once");
}

#[tokio::test(start_paused = true)]
async fn at_most_so_many_are_under_way_and_one_keeps_the_order() {
    let works = [5; 30];
    for in_flight in [1, 4] {
        let ledger = Arc::new(MemoryLedger::plain(works));
        let mut calls = 0;
        let sink = Arc::new(Scripted::new(limits(3, in_flight), move |_| {
            calls += 1;
            if calls % 5 == 0 {
                Reply::Fail(busy(None))
            } else {
                Reply::TakeAfter(Duration::from_millis(10 + calls % 7))
            }
        }));
        deliver_all(&sink, &ledger).await;
        assert_eq!(sink.most_under_way.load(Ordering::Relaxed), in_flight);
        if in_flight == 1 {
            assert_eq!(sink.arrived(), all(&works));
        }
    }
}

/// L8: thousands of unacknowledged batches keep ranges, not bytes; a hanging sink takes no other's memory.
#[tokio::test(start_paused = true)]
async fn unacknowledged_batches_hold_no_bytes_and_a_slow_sink_stops_no_other() {
    let works = [50; 100];
    let budget = MemoryBudget::new(200 << 10);
    let slow_ledger = Arc::new(MemoryLedger::plain(works));
    let mut slow = Scripted::new(limits(5, 2000), |_| Reply::TakeAfter(Duration::from_secs(15)));
    slow.gives_up_bytes = true;
    let slow = Arc::new(slow);
    let stuck_ledger = Arc::new(MemoryLedger::plain(works));
    let stuck = Arc::new(Scripted::new(limits(5, 2000), |_| Reply::TakeAndHang));
    let running = start_with(&stuck, &stuck_ledger, Rate::new(None, None), &budget);
    let other = start_with(&slow, &slow_ledger, Rate::new(None, None), &budget);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(slow.most_under_way.load(Ordering::Relaxed), 1000, "all batches wait for their answer");
    assert!(stuck.most_under_way.load(Ordering::Relaxed) < 100, "its share of the memory is its bound");
    slow_ledger.all_settled().await;
    other.stop().await.unwrap();
    running.stop().await.unwrap();
}

/// A batch that is never full, because its share of the memory is too small, does not wait for company.
#[tokio::test(start_paused = true)]
async fn unacknowledged_batches_keep_nobody_waiting_for_memory_that_they_do_not_have() {
    let ledger = Arc::new(MemoryLedger::plain([50; 100]));
    let limits = Limits { linger: Duration::from_secs(60), ..limits(10_000, 2000) };
    let mut sink = Scripted::new(limits, |_| Reply::TakeAfter(Duration::from_secs(1000)));
    sink.gives_up_bytes = true;
    let sink = Arc::new(sink);
    let running = start_with(&sink, &ledger, Rate::new(None, None), &MemoryBudget::new(32 << 10));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(sink.tried().len() > 10, "{:?}", sink.tried());
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_kept_over_many_batches() {
    let ledger = Arc::new(MemoryLedger::plain([100; 10]));
    let sink = Arc::new(Scripted::new(limits(500, 4), |_| Reply::Take));
    let begin = Instant::now();
    let rate = Rate::new(NonZeroU32::new(50), None);
    let running = start_with(&sink, &ledger, rate, &MemoryBudget::new(1 << 20));
    ledger.all_settled().await;
    let seconds = begin.elapsed().as_secs_f64();
    assert!((18.5..21.5).contains(&seconds), "1000 records at 50 a second took {seconds}");
    assert!(sink.tried().iter().all(|size| *size <= 50));
    running.stop().await.unwrap();
}

/// A full disk under the ledger is waited for; any other failure of the ledger ends the loop and says so.
#[tokio::test(start_paused = true)]
async fn the_ledger_is_waited_for_when_that_can_help() {
    for call in ["lease", "read", "begin", "settle"] {
        let ledger = Arc::new(MemoryLedger::plain([3]));
        (0..3).for_each(|_| ledger.fail(call, true));
        let sink = Arc::new(Scripted::new(limits(4, 1), |_| Reply::Take));
        let report = deliver_all(&sink, &ledger).await;
        assert_eq!(sink.arrived(), all(&[3]), "{call}");
        assert_eq!(report.ledger_error, None, "{call}");

        let ledger = Arc::new(MemoryLedger::plain([3]));
        ledger.fail(call, false);
        let running = start(&sink, &ledger);
        let failure = running.task.await.unwrap().unwrap_err();
        assert_eq!(failure.message, format!("{call} fails"));
        assert_eq!(ledger.pending(), 1);
        assert_eq!(ledger.leased(), 0);
    }
}

/// Records that are read again are the same ones, or nothing is sent.
#[tokio::test(start_paused = true)]
async fn a_piece_that_changed_between_two_readings_is_not_sent_in_its_place() {
    let ledger = Arc::new(MemoryLedger::plain([6]));
    let change = Arc::clone(&ledger);
    let mut calls = 0;
    let sink = Arc::new(Scripted::new(limits(10, 1), move |_| {
        calls += 1;
        if calls == 1 {
            change.render_as(Rendering { view: 0, keep: Arc::new(|_, position| position > 2) });
            return Reply::Fail(busy(None));
        }
        Reply::Take
    }));
    let report = deliver_all(&sink, &ledger).await;
    assert_eq!(report.counters.panics, 1);
    assert_eq!(sink.arrived(), [(0, 3), (0, 4), (0, 5)], "the work began anew");
    assert_eq!(ledger.settlements()[0].filtered, 3);
}

/// The state of a sink that is exactly once is durable before each batch leaves, and a steady stream costs one commit
/// per batch.
#[tokio::test(start_paused = true)]
async fn the_state_travels_with_the_settlements() {
    let mut ledger = MemoryLedger::plain([30; 40]);
    ledger.piece_records = 30;
    let ledger = Arc::new(ledger);
    let limits = Limits { exactly_once: true, whole_works: true, ..limits(100, 1) };
    let mut sink = Scripted::new(limits, |_| Reply::TakeAfter(Duration::from_millis(200)));
    sink.ledger = Some(Arc::clone(&ledger));
    let sink = Arc::new(sink);
    let report = deliver_all(&sink, &ledger).await;
    assert_eq!(sink.arrived(), all(&[30; 40]));
    assert_eq!(report.counters.batches, 14, "three works of 30 go into 100");
    assert_eq!(report.counters.panics, 0);
    // The mark of what is tried goes with the settlement that follows it.
    let (marks, log): (Vec<_>, Vec<_>) =
        ledger.log().into_iter().partition(|entry| entry.starts_with("begin"));
    assert_eq!(marks.len() as u64, report.counters.batches, "{marks:?}");
    assert_eq!(log.len() as u64, report.counters.batches + 1, "{log:?}");
    assert_eq!((log[0].as_str(), log[1].as_str()), ("settle 0", "settle 3"), "{log:?}");
}

/// The pieces that a batch is made of are let go with it.
#[tokio::test(start_paused = true)]
async fn memory_is_given_back() {
    let ledger = Arc::new(MemoryLedger::plain([100; 20]));
    let budget = MemoryBudget::new(50_000);
    let mut calls = 0;
    let sink = Arc::new(Scripted::new(limits(20, 3), move |_| {
        calls += 1;
        if calls % 3 == 0 { Reply::Fail(busy(None)) } else { Reply::Take }
    }));
    let running = start_with(&sink, &ledger, Rate::new(None, None), &budget);
    ledger.all_settled().await;
    running.stop().await.unwrap();
    assert_eq!(budget.share(1).limit(), 50_000, "no share and no reservation is left");
}
