//! Batches that end midway.

use super::*;
use crate::{line::Line, sink::Disposition, test_ledger::record_id};

fn producer(config: &KafkaConfig, sink: &KafkaSink) -> Producer {
    let settings = client::producer_settings(config, &sink.settings);
    Producer::connect(config, &settings, sink.client.clone(), Arc::clone(&sink.figures), None).unwrap()
}

/// No report ever says of a record that was not given to librdkafka that it failed: it has not arrived all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_enqueued_has_not_arrived() {
    let cluster = cluster(1);
    let mut config = config_for(&cluster);
    // Enqueueing has to wait for what was enqueued before.
    config.queue_bytes = 8 << 10;
    cluster.broker_round_trip_time(1, Duration::from_millis(200)).unwrap();
    let ledger = Arc::new(MemoryLedger::plain([3000]));
    let sink = sink(config.clone(), &ledger);
    let deliver = |producer: &Producer, tally: &Arc<Tally>| {
        let batch = ledger.batch(&[(0, 0..3000)]);
        producer.deliver(batch, &Plan::default(), &sink.shaping, tally, Line::new().join())
    };
    let nobody_wonders = |attempt: &Attempt| {
        let error = attempt.result.as_ref().unwrap_err();
        matches!(error.disposition, Disposition::Retry { ambiguous: false, .. })
    };

    // The batch before it had failed already.
    let closed = producer(&config, &sink);
    closed.close();
    let attempt = deliver(&closed, &Tally::new());
    assert!(attempt.arrived.is_empty(), "{:?}", attempt.arrived);
    assert!(!attempt.usable && nobody_wonders(&attempt), "{:?}", attempt.result);

    // It fails when some of this one has arrived, some is on its way, and some was not enqueued.
    let (open, tally) = (producer(&config, &sink), Tally::new());
    let attempt = std::thread::scope(|scope| {
        let delivering = scope.spawn(|| deliver(&open, &tally));
        let mut most = 0;
        // One that finds no room is counted for a moment.
        while tally.standing().waited_for + 1 >= most {
            most = most.max(tally.standing().waited_for);
            std::thread::sleep(Duration::from_millis(2));
        }
        open.close();
        delivering.join().unwrap()
    });
    assert!(attempt.result.is_err());
    let there: BTreeSet<String> = counts(&cluster, 1).into_keys().collect();
    let arrived: BTreeSet<String> = attempt.arrived.iter().map(|&position| record_id(0, position)).collect();
    assert!(!there.is_empty() && there.len() < 3000, "{}", there.len());
    assert_eq!(arrived, there);
}

/// A sink that never hears what became of its transactions: another one with the same memory commits them in its place.
struct Unheard {
    sink: KafkaSink,
    config: KafkaConfig,
    ledger: Arc<MemoryLedger>,
    asked: AtomicUsize,
}

impl Sink for Unheard {
    fn name(&self) -> &SinkName {
        self.sink.name()
    }

    fn limits(&self) -> Limits {
        self.sink.limits()
    }

    fn open(&self) -> BoxFuture<'_, Result<Vec<Unfinished>, DeliverError>> {
        self.sink.open()
    }

    fn may_overtake_unfinished(&self) -> bool {
        self.sink.may_overtake_unfinished()
    }

    fn state(&self, finished: &[WorkId], next: Option<&Batch>) -> Option<Vec<u8>> {
        self.sink.state(finished, next)
    }

    fn deliver(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, DeliverError>> {
        Box::pin(async move {
            if self.asked.fetch_add(1, Ordering::Relaxed) == 0 {
                // Nothing of it is to be sent, so it is complete while this batch is under way.
                self.ledger.add(9, vec![crate::test_ledger::Kind::Plain; 5]);
            }
            let other = sink(self.config.clone(), &self.ledger);
            other.open().await?;
            let receipt = other.deliver(batch).await?;
            other.close().await;
            Err(DeliverError::ambiguous(format!("nobody hears of {} records", receipt.records())))
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), DeliverError>> {
        self.sink.probe()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.sink.close()
    }
}

/// The transaction was committed, nobody has heard of it, and it was given up; meanwhile another blob was done with. What
/// was committed is known from the topic all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_unheard_is_not_sent_again_though_other_blobs_were_done_meanwhile() {
    let cluster = cluster(1);
    let ledger = Arc::new(MemoryLedger::plain([30]));
    ledger.render_as(crate::test_ledger::Rendering { view: 0, keep: Arc::new(|work, _| work != 9) });
    let config = with_transactions(&cluster);
    let unheard = Arc::new(Unheard {
        sink: sink(config.clone(), &ledger),
        config: config.clone(),
        ledger: Arc::clone(&ledger),
        asked: AtomicUsize::new(0),
    });
    let running = start_sink(Arc::clone(&unheard) as _, &ledger);
    while running.health.report().counters.retries < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.stop().await;
    assert_eq!(counts(&cluster, 1).len(), 30, "it was committed");
    assert_eq!(ledger.pending(), 2);

    deliver_all(config, &ledger).await;
    is_exactly_once(&cluster, 1, &[30]);
    let sums: Vec<_> = ledger.settlements().iter().map(|s| (s.delivered, s.filtered, s.resent)).collect();
    assert_eq!(sums, [(30, 0, 0), (0, 5, 0)]);
}
