//! A sink that keeps order with several batches under way.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use proptest::prelude::*;
use tokio::sync::watch;

use super::*;
use crate::sink::{Batch, BoxFuture, Durability, Receipt, Unfinished};

/// What becomes of a batch.
#[derive(Debug, Clone)]
enum Fate {
    /// It arrives, and the answer comes so many milliseconds later.
    Take(u64),
    /// So many of its records arrive, and then it fails so many milliseconds later.
    Fail(usize, u64, DeliverError),
    /// It arrives, and no answer comes.
    Hang,
    Panic,
}

type Script = dyn FnMut(&[(i64, u32)]) -> Fate + Send;

/// A destination that takes batches one after the other, and none behind one that has failed, as a partition of Kafka does.
struct Lined {
    limits: Limits,
    script: Mutex<Box<Script>>,
    standing: Mutex<Standing>,
    /// How many batches were looked at, so that each waits for those before it.
    looked_at: watch::Sender<u64>,
    opened: AtomicUsize,
}

#[derive(Default)]
struct Standing {
    next: u64,
    under_way: usize,
    most_under_way: usize,
    failed: bool,
    arrived: Vec<(i64, u32)>,
    /// How many batches were refused because one before them had failed.
    refused: usize,
}

/// A batch's presence. One that is dropped has failed.
struct Present<'a>(&'a Lined, bool);

impl Present<'_> {
    fn taken(mut self) {
        self.1 = true;
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        let mut standing = self.0.standing.lock().unwrap();
        standing.under_way -= 1;
        standing.failed |= !self.1;
    }
}

impl Lined {
    fn new(max_records: usize, script: impl FnMut(&[(i64, u32)]) -> Fate + Send + 'static) -> Self {
        Self {
            limits: Limits { ordered: true, ..limits(max_records, 3) },
            script: Mutex::new(Box::new(script)),
            standing: Mutex::default(),
            looked_at: watch::Sender::default(),
            opened: AtomicUsize::new(0),
        }
    }

    /// Fails the batch of this number, the first being 0, and takes all others.
    fn failing_at(number: u64, fate: Fate) -> Self {
        let mut calls = 0;
        Self::new(5, move |_| {
            calls += 1;
            if calls == number + 1 { fate.clone() } else { Fate::Take(30 + 7 * (calls % 5)) }
        })
    }

    fn arrived(&self) -> Vec<(i64, u32)> {
        self.standing.lock().unwrap().arrived.clone()
    }

    fn most_under_way(&self) -> usize {
        self.standing.lock().unwrap().most_under_way
    }

    /// The batch arrives, in its turn: what becomes of it.
    fn arrive(&self, records: &[(i64, u32)]) -> Fate {
        let mut standing = self.standing.lock().unwrap();
        if standing.failed {
            standing.refused += 1;
            return Fate::Fail(0, 1, DeliverError::retry("a batch before it failed"));
        }
        let fate = (self.script.lock().unwrap())(records);
        let count = match &fate {
            Fate::Take(_) | Fate::Hang => records.len(),
            Fate::Fail(count, ..) => *count.min(&records.len()),
            Fate::Panic => 0,
        };
        standing.arrived.extend(&records[..count]);
        standing.failed |= matches!(fate, Fate::Fail(..) | Fate::Panic);
        fate
    }
}

impl Sink for Lined {
    fn name(&self) -> &schemas::SinkName {
        static NAME: std::sync::OnceLock<schemas::SinkName> = std::sync::OnceLock::new();
        NAME.get_or_init(crate::test_ledger::sink_name)
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn open(&self) -> BoxFuture<'_, Result<Vec<Unfinished>, DeliverError>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(Vec::new()) })
    }

    fn deliver(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, DeliverError>> {
        let number = {
            let mut standing = self.standing.lock().unwrap();
            if standing.under_way == 0 {
                standing.failed = false;
                // Some may have been dropped before they were looked at.
                self.looked_at.send_replace(standing.next);
            } else if standing.failed {
                return Box::pin(async { Err(DeliverError::retry("a batch before it failed")) });
            }
            standing.under_way += 1;
            standing.most_under_way = standing.most_under_way.max(standing.under_way);
            standing.next += 1;
            standing.next - 1
        };
        let present = Present(self, false);
        Box::pin(async move {
            self.looked_at.subscribe().wait_for(|at| *at >= number).await.unwrap();
            let records: Vec<_> =
                batch.records().map(|(work, record)| (work.id.0, record.position)).collect();
            let coverage = batch.coverage();
            drop(batch.into_room());
            let fate = self.arrive(&records);
            self.looked_at.send_modify(|at| *at = number + 1);
            match fate {
                Fate::Take(after) => tokio::time::sleep(Duration::from_millis(after)).await,
                Fate::Fail(_, after, error) => {
                    tokio::time::sleep(Duration::from_millis(after)).await;
                    return Err(error);
                }
                Fate::Hang => std::future::pending().await,
                Fate::Panic => panic!("as the script says"),
            }
            present.taken();
            Ok(Receipt::confirmed(coverage, Durability::Replicated))
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), DeliverError>> {
        Box::pin(async { Ok(()) })
    }
}

fn run(sink: &Arc<Lined>, ledger: &Arc<MemoryLedger>, budget: usize) -> Running {
    let delivery = DeliveryLoop::new(
        Arc::clone(sink) as Arc<dyn Sink>,
        Arc::clone(ledger) as Arc<dyn DeliveryLedger>,
        Arc::new(Rate::new(None, None)),
        &MemoryBudget::new(budget),
    );
    let (health, stop) = (delivery.health(), CancellationToken::new());
    let task = tokio::spawn(delivery.run(stop.clone()));
    Running { stop, health, task }
}

async fn run_to_the_end(sink: &Arc<Lined>, ledger: &Arc<MemoryLedger>) -> crate::health::HealthReport {
    let running = run(sink, ledger, 64 << 20);
    tokio::time::timeout(Duration::from_secs(86_400), ledger.all_settled()).await.expect("all is settled");
    let report = running.health.report();
    running.stop().await.unwrap();
    assert_eq!(ledger.leased(), 0, "every lease was let go");
    report
}

fn settled(ledger: &MemoryLedger) -> Vec<i64> {
    ledger.settlements().iter().map(|settlement| settlement.work.0).collect()
}

const WORKS: [usize; 12] = [5; 12];

/// Answers come in any order; what they acknowledge is in order all the same.
#[tokio::test(start_paused = true)]
async fn several_are_under_way_and_acknowledged_in_order() {
    let ledger = Arc::new(MemoryLedger::plain(WORKS));
    let mut calls = 0;
    let sink = Arc::new(Lined::new(5, move |_| {
        calls += 1;
        Fate::Take([90, 60, 30][calls % 3])
    }));
    let report = run_to_the_end(&sink, &ledger).await;
    assert_eq!(sink.arrived(), all(&WORKS));
    assert_eq!(settled(&ledger), (0..12).collect::<Vec<_>>());
    assert_eq!(sink.most_under_way(), 3);
    assert_eq!((report.counters.batches, report.counters.resent), (12, 0));
}

/// Whichever of those under way fails: nothing overtakes, and what did not leave is not counted as sent again.
#[tokio::test(start_paused = true)]
async fn after_a_failure_each_goes_alone_until_one_has_arrived() {
    // The first goes alone; then 1, 2 and 3 are in line.
    for number in 1..=6 {
        let ledger = Arc::new(MemoryLedger::plain(WORKS));
        let sink = Arc::new(Lined::failing_at(number, Fate::Fail(0, 10, busy(None))));
        let report = run_to_the_end(&sink, &ledger).await;
        assert_eq!(sink.arrived(), all(&WORKS), "{number}");
        assert_eq!(settled(&ledger), (0..12).collect::<Vec<_>>());
        assert_eq!((report.counters.retries, report.counters.resent), (1, 0), "{number}");
        assert_eq!(sink.opened.load(Ordering::Relaxed), 1, "the sink stays open");
        let put_off = ledger.put_off();
        let by_no_clock = put_off.iter().all(|until| *until == chrono::DateTime::UNIX_EPOCH);
        assert!(!put_off.is_empty() && by_no_clock, "what others may not overtake: {put_off:?}");
    }
}

/// Of a batch that may have arrived, what did comes twice at most and is counted; the order of what comes first holds.
#[tokio::test(start_paused = true)]
async fn what_may_have_arrived_is_counted_and_in_order() {
    for (number, came) in [(1, 5), (2, 3), (3, 0)] {
        let ledger = Arc::new(MemoryLedger::plain(WORKS));
        let fate = Fate::Fail(came, 10, DeliverError::ambiguous("who knows"));
        let sink = Arc::new(Lined::failing_at(number, fate));
        run_to_the_end(&sink, &ledger).await;
        let arrived = sink.arrived();
        assert_eq!(arrived.len(), 60 + came);
        let mut seen = BTreeSet::new();
        let first: Vec<_> = arrived.into_iter().filter(|record| seen.insert(*record)).collect();
        assert_eq!(first, all(&WORKS));
        let resent: u32 = ledger.settlements().iter().map(|settlement| settlement.resent).sum();
        assert_eq!(resent, 5, "the records of that batch, and of none behind it");
    }
}

/// A record that is refused while others are under way becomes a dead letter alone.
#[tokio::test(start_paused = true)]
async fn a_refused_record_in_line_is_dead_alone() {
    for split in [false, true] {
        let ledger = Arc::new(MemoryLedger::plain(WORKS));
        let sink = Arc::new(Lined::new(5, move |records| {
            let Some(index) = records.iter().position(|record| *record == (7, 2)) else {
                return Fate::Take(20);
            };
            let disposition = if split {
                Disposition::Split
            } else {
                Disposition::Reject { records: vec![(index, "poison".to_owned())] }
            };
            Fate::Fail(0, 5, DeliverError { disposition, context: "poison".to_owned() })
        }));
        let report = run_to_the_end(&sink, &ledger).await;
        let mut due = all(&WORKS);
        due.retain(|record| *record != (7, 2));
        assert_eq!(sink.arrived(), due);
        assert_eq!(ledger.settlements()[7].dead[0].position, 2);
        assert_eq!((report.counters.dead, report.counters.resent), (1, 0));
    }
}

/// What needs a person halts it, with others under way too; then it goes on where it was.
#[tokio::test(start_paused = true)]
async fn a_halt_in_line_keeps_everything_in_order() {
    let ledger = Arc::new(MemoryLedger::plain(WORKS));
    let sink = Arc::new(Lined::failing_at(4, Fate::Fail(0, 10, DeliverError::halt("locked out"))));
    run_to_the_end(&sink, &ledger).await;
    assert_eq!(sink.arrived(), all(&WORKS));
    assert_eq!(sink.opened.load(Ordering::Relaxed), 2);
}

/// A stop at any moment: what is under way ends or stays pending, and what comes after a start is behind it.
#[tokio::test(start_paused = true)]
async fn a_stop_in_the_middle_doubles_and_overtakes_nothing() {
    for millis in (0..400).step_by(13) {
        let ledger = Arc::new(MemoryLedger::plain([50, 50, 50]));
        let sink = Arc::new(Lined::new(4, |_| Fate::Take(40)));
        let running = run(&sink, &ledger, 64 << 20);
        tokio::time::sleep(Duration::from_millis(millis)).await;
        running.stop().await.unwrap();
        run_to_the_end(&sink, &ledger).await;
        assert_eq!(sink.arrived(), all(&[50, 50, 50]), "stopped after {millis} ms");
    }
}

/// One that never answers is given up when its time is over, and so are those that wait behind it.
#[tokio::test(start_paused = true)]
async fn a_batch_without_an_answer_holds_up_its_line_and_no_longer() {
    let ledger = Arc::new(MemoryLedger::plain(WORKS));
    let sink = Arc::new(Lined::failing_at(2, Fate::Hang));
    run_to_the_end(&sink, &ledger).await;
    let mut seen = BTreeSet::new();
    let first: Vec<_> = sink.arrived().into_iter().filter(|record| seen.insert(*record)).collect();
    assert_eq!(first, all(&WORKS));
    assert!(ledger.settlements()[2].resent >= 5, "it may have arrived");
}

/// A sink is never given a batch between a failure and the end of its line, however answers and failures come together.
fn fate() -> impl Strategy<Value = Fate> {
    let fails = |error: fn() -> DeliverError| {
        (0usize..4, 0u64..300).prop_map(move |(came, after)| Fate::Fail(came, after, error()))
    };
    let none_came =
        |error: fn() -> DeliverError| (0u64..300).prop_map(move |after| Fate::Fail(0, after, error()));
    let split = || DeliverError { disposition: Disposition::Split, context: "large".into() };
    prop_oneof![
        20 => (0u64..300).prop_map(Fate::Take),
        3 => none_came(|| busy(None)),
        1 => none_came(|| busy(Some(Duration::from_secs(3)))),
        3 => fails(|| DeliverError::ambiguous("who knows")),
        2 => none_came(split),
        1 => none_came(|| DeliverError::halt("locked out")),
        1 => Just(Fate::Hang),
        1 => Just(Fate::Panic),
    ]
}

proptest! {
    /// Whatever fails in line and when: nothing is lost, nothing doubled that is not counted, and what arrives first is
    /// in order, over stops too.
    #[test]
    fn order_holds_whatever_fails(
        works in proptest::collection::vec(0usize..30, 1..10),
        fates in proptest::collection::vec(fate(), 0..40),
        max_records in 1usize..20,
        piece_records in 1usize..12,
        budget in 100usize..100_000,
        stops in proptest::collection::vec(1u64..3_000, 0..3),
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let mut ledger = MemoryLedger::plain(works.clone());
            ledger.piece_records = piece_records;
            let ledger = Arc::new(ledger);
            let mut fates = fates.into_iter();
            let sink = Arc::new(Lined::new(max_records, move |records| match fates.next() {
                // A record that is too large alone would be a dead letter.
                Some(Fate::Fail(_, _, error)) if error.disposition == Disposition::Split && records.len() == 1 => {
                    Fate::Take(1)
                }
                fate => fate.unwrap_or(Fate::Take(50)),
            }));
            for after in stops {
                let running = run(&sink, &ledger, budget);
                tokio::time::sleep(Duration::from_millis(after)).await;
                running.stop().await.unwrap();
            }
            let running = run(&sink, &ledger, budget);
            tokio::time::timeout(Duration::from_secs(864_000), ledger.all_settled()).await.expect("all is settled");
            running.stop().await.unwrap();
            assert_eq!(ledger.leased(), 0);

            let quarantined: BTreeSet<i64> = ledger.quarantined().into_iter().collect();
            let arrived = sink.arrived();
            let mut times: BTreeMap<(i64, u32), u32> = BTreeMap::new();
            for record in &arrived {
                *times.entry(*record).or_default() += 1;
            }
            let mut first = BTreeSet::new();
            let first: Vec<_> = arrived
                .into_iter()
                .filter(|record| !quarantined.contains(&record.0) && first.insert(*record))
                .collect();
            let mut due = all(&works);
            due.retain(|record| !quarantined.contains(&record.0));
            assert_eq!(first, due, "each has arrived, and in order");
            let doubled: u32 = times
                .iter()
                .filter(|(record, _)| !quarantined.contains(&record.0))
                .map(|(_, count)| count - 1)
                .sum();
            let resent: u32 = ledger.settlements().iter().map(|settlement| settlement.resent).sum();
            assert!(doubled <= resent, "{doubled} doubled, {resent} counted");
            assert_eq!(ledger.settlements().len() + quarantined.len(), works.len());
        });
    }
}
