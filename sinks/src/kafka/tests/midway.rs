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
