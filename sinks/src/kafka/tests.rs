//! The sink against librdkafka's own mock of a cluster, through the delivery loop. What the mock does not do (isolation of
//! aborted records, fencing, permissions) is tested against a real broker, in the scenarios of the binary.

mod midway;
mod whose;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::Headers as _,
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{testing::config, *};
use crate::{
    delivery::DeliveryLoop,
    delivery_ledger::{DeliveryLedger, LedgerFailure},
    health::Health,
    memory::MemoryBudget,
    rate::Rate,
    test_ledger::{MemoryLedger, sink_name},
};

const TOPIC: &str = "audit";
const PROGRESS: &str = "progress";

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster(partitions: i32) -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, partitions, 1).unwrap();
    cluster.create_topic(PROGRESS, 1, 1).unwrap();
    cluster
}

fn config_for(cluster: &Cluster) -> KafkaConfig {
    KafkaConfig { bootstrap_servers: vec![cluster.bootstrap_servers()], ..config() }
}

fn with_transactions(cluster: &Cluster) -> KafkaConfig {
    let transactions =
        Transactions { progress_topic: PROGRESS.to_owned(), transactional_id: "mailtrail-test".to_owned() };
    // The mock knows nothing of how topics are configured.
    KafkaConfig { transactions: Some(transactions), preset: Preset::EventHubs, ..config_for(cluster) }
}

fn sink(config: KafkaConfig, ledger: &Arc<MemoryLedger>) -> KafkaSink {
    let context = SinkContext {
        name: sink_name(),
        ledger: Arc::clone(ledger) as _,
        rate: Arc::new(Rate::new(None, None)),
    };
    KafkaSink::new(config, None, vec![TOPIC.to_owned()], context).unwrap()
}

struct Running {
    stop: CancellationToken,
    health: Arc<Health>,
    task: JoinHandle<Result<(), LedgerFailure>>,
}

fn start(config: KafkaConfig, ledger: &Arc<MemoryLedger>) -> Running {
    start_sink(Arc::new(sink(config, ledger)), ledger)
}

fn start_sink(sink: Arc<dyn Sink>, ledger: &Arc<MemoryLedger>) -> Running {
    let delivery = DeliveryLoop::new(
        sink,
        Arc::clone(ledger) as Arc<dyn DeliveryLedger>,
        Arc::new(Rate::new(None, None)),
        &MemoryBudget::new(64 << 20),
    );
    let (health, stop) = (delivery.health(), CancellationToken::new());
    let task = tokio::spawn(delivery.run(stop.clone()));
    Running { stop, health, task }
}

impl Running {
    async fn all_settled(&self, ledger: &MemoryLedger) {
        let settled = tokio::time::timeout(Duration::from_secs(100), ledger.all_settled()).await;
        assert!(settled.is_ok(), "{:?}", self.health.report());
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    async fn until_halted(&self) -> String {
        for _ in 0..600 {
            if let crate::health::State::Halted { error, .. } = self.health.report().state {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it does not halt: {:?}", self.health.report());
    }
}

async fn deliver_all(config: KafkaConfig, ledger: &Arc<MemoryLedger>) -> crate::health::HealthReport {
    let running = start(config, ledger);
    running.all_settled(ledger).await;
    let report = running.health.report();
    running.stop().await;
    report
}

/// A message as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Read {
    partition: i32,
    key: Option<String>,
    value: String,
    time: Option<i64>,
    headers: usize,
}

fn read(cluster: &Cluster, topic: &str, partitions: i32) -> Vec<Read> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "reader")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()
        .unwrap();
    let mut from = TopicPartitionList::new();
    for partition in 0..partitions {
        from.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&from).unwrap();
    let (mut all, mut ended) = (Vec::new(), 0);
    while ended < partitions {
        match consumer.poll(Duration::from_secs(10)).expect("the mock answers") {
            Ok(message) => all.push(Read {
                partition: message.partition(),
                key: message.key().map(|key| String::from_utf8_lossy(key).into_owned()),
                value: String::from_utf8(message.payload().unwrap().to_vec()).unwrap(),
                time: message.timestamp().to_millis(),
                headers: message.headers().map_or(0, |headers| headers.count()),
            }),
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => ended += 1,
            Err(error) => panic!("{error}"),
        }
    }
    all
}

/// How often each record came, by work and position.
fn counts(cluster: &Cluster, partitions: i32) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for read in read(cluster, TOPIC, partitions) {
        let value: serde_json::Value = serde_json::from_str(&read.value).unwrap();
        *counts.entry(value["Id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

fn is_exactly_once(cluster: &Cluster, partitions: i32, works: &[usize]) {
    let counts = counts(cluster, partitions);
    assert_eq!(counts.len(), works.iter().sum::<usize>(), "nothing is missing");
    assert!(counts.values().all(|count| *count == 1), "nothing is doubled");
}

fn errors(cluster: &Cluster, key: RDKafkaApiKey, error: RDKafkaRespErr, times: usize) {
    cluster.request_errors(key, &vec![error; times]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_become_messages_in_order() {
    let cluster = cluster(3);
    let works = [30, 1, 0, 200];
    let ledger = Arc::new(MemoryLedger::plain(works));
    let report = deliver_all(config_for(&cluster), &ledger).await;
    is_exactly_once(&cluster, 3, &works);
    assert_eq!(report.counters.resent, 0);
    let messages = read(&cluster, TOPIC, 3);
    let tenant = uuid::Uuid::from_u128(1).to_string();
    assert!(messages.iter().all(|read| read.key.as_deref() == Some(tenant.as_str())), "{:?}", messages[0]);
    assert!(messages.iter().all(|read| read.partition == messages[0].partition), "one key, one partition");
    assert!(messages.iter().all(|read| read.headers == 6), "{:?}", messages[0]);
    let last: serde_json::Value = serde_json::from_str(&messages[230].value).unwrap();
    assert_eq!(last["n"], 199);
}

/// What librdkafka sends again after an error of the broker is there once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passing_errors_of_the_broker_are_nobodys_business() {
    let cluster = cluster(1);
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS as TOO_FEW,
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION as MOVED, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT as SLOW,
    };
    cluster.request_errors(RDKafkaApiKey::Produce, &[MOVED, SLOW, TOO_FEW, MOVED]);
    let works = [100, 100];
    let ledger = Arc::new(MemoryLedger::plain(works));
    let report = deliver_all(config_for(&cluster), &ledger).await;
    is_exactly_once(&cluster, 1, &works);
    assert_eq!((report.counters.resent, report.counters.retries), (0, 0));
}

/// The broker refuses one batch as too large: it is cut until a single record is to blame, and the rest arrives once. With
/// transactions the mock cannot tell, because it shows everybody what was aborted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_refuses_is_found_and_nothing_else_is_sent_twice() {
    let cluster = cluster(1);
    // Enough for a batch of 20, then 10, 5, 2 and 1 to be refused, in as many requests as each may take.
    errors(&cluster, RDKafkaApiKey::Produce, RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, 12);
    let ledger = Arc::new(MemoryLedger::plain([20]));
    deliver_all(config_for(&cluster), &ledger).await;
    let settlement = ledger.settlements().remove(0);
    let dead = settlement.dead.len();
    assert!((1..=12).contains(&dead), "{settlement:?}");
    assert_eq!((settlement.delivered as usize + dead, settlement.resent), (20, 0));
    for dead in &settlement.dead {
        let size = ledger.batch(&[(0, dead.position..dead.position + 1)]).bytes();
        let is_told = dead.reason.contains("refuses") && dead.reason.contains(&format!(" {size} bytes"));
        assert!(is_told, "{dead:?}");
    }
    let counts = counts(&cluster, 1);
    assert!(counts.len() == 20 - dead && counts.values().all(|count| *count == 1), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_too_large_is_a_dead_letter_with_its_size_before_anything_is_sent() {
    for transactions in [false, true] {
        let cluster = cluster(1);
        let ledger = Arc::new(MemoryLedger::plain([20]));
        // The key and the headers take most of it, and some records have more padding than others.
        let mut config = if transactions { with_transactions(&cluster) } else { config_for(&cluster) };
        config.max_message_bytes = NonZeroU32::new(1000).unwrap();
        config.headers = false;
        ledger.render_as(crate::test_ledger::Rendering { view: 0, keep: Arc::new(|_, _| true) });
        ledger.pad(7, 2000);
        let report = deliver_all(config, &ledger).await;
        let settlement = ledger.settlements().remove(0);
        assert_eq!((settlement.delivered, settlement.dead.len()), (19, 1));
        assert_eq!(settlement.dead[0].position, 7);
        assert!(settlement.dead[0].reason.contains("max_message_bytes is 1000"), "{:?}", settlement.dead);
        assert_eq!(report.counters.resent, 0);
        assert_eq!(counts(&cluster, 1).len(), 19);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_not_there_or_denied_halts_with_advice() {
    let cluster = cluster(1);
    cluster.topic_error(TOPIC, RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED).unwrap();
    let ledger = Arc::new(MemoryLedger::plain([3]));
    let running = start(config_for(&cluster), &ledger);
    let error = running.until_halted().await;
    assert!(error.contains("ACLs Describe and Write"), "{error}");
    assert_eq!(ledger.pending(), 1);
    running.stop().await;
    cluster.topic_error(TOPIC, RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
    let running = start(config_for(&cluster), &ledger);
    let error = running.until_halted().await;
    assert!(error.contains("kafka-topics.sh --create --topic audit"), "{error}");
    running.stop().await;
}

/// Without a broker everything stays pending; when it is back it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_waited_out() {
    for transactions in [false, true] {
        let cluster = cluster(1);
        let ledger = Arc::new(MemoryLedger::plain([50]));
        let config = if transactions { with_transactions(&cluster) } else { config_for(&cluster) };
        let running = start(config, &ledger);
        running.all_settled(&ledger).await;
        cluster.broker_down(1).unwrap();
        ledger.add(1, vec![crate::test_ledger::Kind::Plain; 50]);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(ledger.pending(), 1);
        cluster.broker_up(1).unwrap();
        running.all_settled(&ledger).await;
        running.stop().await;
        is_exactly_once(&cluster, 1, &[50, 50]);
    }
}

/// An outage that lasts longer than the sink's patience is told, and what may have arrived before it is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_outage_is_told() {
    let cluster = cluster(1);
    let ledger = Arc::new(MemoryLedger::plain([50]));
    let config = config_for(&cluster);
    let running = start(config, &ledger);
    running.all_settled(&ledger).await;
    cluster.broker_down(1).unwrap();
    ledger.add(1, vec![crate::test_ledger::Kind::Plain; 50]);
    let mut told = false;
    for _ in 0..300 {
        told = running.health.report().last_error.is_some_and(|error| error.contains("broker"));
        if told {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(told, "{:?}", running.health.report());
    cluster.broker_up(1).unwrap();
    running.all_settled(&ledger).await;
    // librdkafka does not say whether a message that it gave back had left once: all of them may have.
    assert!(running.health.report().counters.resent >= 50, "{:?}", running.health.report());
    running.stop().await;
    is_exactly_once(&cluster, 1, &[50, 50]);
}

/// A sink with small batches, so that several are under way, which counts how many.
struct Small {
    sink: KafkaSink,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl Sink for Small {
    fn name(&self) -> &SinkName {
        self.sink.name()
    }

    fn limits(&self) -> Limits {
        Limits { max_records: 10, ..self.sink.limits() }
    }

    fn open(&self) -> BoxFuture<'_, Result<Vec<Unfinished>, DeliverError>> {
        self.sink.open()
    }

    fn deliver(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, DeliverError>> {
        let delivery = self.sink.deliver(batch);
        let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        Box::pin(async move {
            let result = delivery.await;
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            result
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), DeliverError>> {
        self.sink.probe()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.sink.close()
    }
}

/// Whatever the broker refuses, loses or is too busy for while several batches are under way: nothing overtakes a record
/// of its key, nothing is lost, and no more is doubled than is counted. With a small queue, that happens while one of them
/// is being enqueued.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_several_batches_under_way_nothing_overtakes() {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR_INVALID_RECORD as REFUSED, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE as LARGE,
        RD_KAFKA_RESP_ERR_NO_ERROR as FINE, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS as TOO_FEW,
        RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT as SLOW, RD_KAFKA_RESP_ERR_UNKNOWN as WHO_KNOWS,
    };
    let large = 16 << 20;
    for (queue_bytes, failures) in [
        (large, vec![FINE; 20]),
        (large, vec![FINE, FINE, LARGE, FINE, FINE, FINE, LARGE]),
        (large, vec![FINE, FINE, FINE, TOO_FEW, SLOW, FINE, WHO_KNOWS, FINE, REFUSED]),
        (large, vec![WHO_KNOWS, LARGE, FINE, FINE, WHO_KNOWS, FINE, LARGE, SLOW, LARGE]),
        (1 << 10, vec![FINE, FINE, FINE, FINE, LARGE, FINE, FINE, LARGE]),
    ] {
        let cluster = cluster(1);
        cluster.broker_round_trip_time(1, Duration::from_millis(40)).unwrap();
        cluster.request_errors(RDKafkaApiKey::Produce, &failures);
        let works = [40; 12];
        let ledger = Arc::new(MemoryLedger::plain(works));
        let config = KafkaConfig { queue_bytes, ..config_for(&cluster) };
        let small = Small { sink: sink(config, &ledger), under_way: 0.into(), most: 0.into() };
        let small = Arc::new(small);
        let running = start_sink(Arc::clone(&small) as _, &ledger);
        running.all_settled(&ledger).await;
        running.stop().await;
        assert_eq!(small.most.load(Ordering::Relaxed), BATCHES, "several are under way");
        let dead: BTreeSet<(i64, u32)> = ledger
            .settlements()
            .iter()
            .flat_map(|settlement| settlement.dead.iter().map(|dead| (settlement.work.0, dead.position)))
            .collect();
        let due: Vec<String> = (0..12)
            .flat_map(|work| (0..40).map(move |position| (work, position)))
            .filter(|record| !dead.contains(record))
            .map(|(work, position)| crate::test_ledger::record_id(work, position))
            .collect();
        let mut seen = BTreeSet::new();
        let messages = read(&cluster, TOPIC, 1);
        let first: Vec<String> = messages
            .iter()
            .map(|read| {
                let value: serde_json::Value = serde_json::from_str(&read.value).unwrap();
                value["Id"].as_str().unwrap().to_owned()
            })
            .filter(|id| seen.insert(id.clone()))
            .collect();
        assert_eq!(first, due, "{failures:?}");
        let resent: u32 = ledger.settlements().iter().map(|settlement| settlement.resent).sum();
        assert!(messages.len() - due.len() <= resent as usize, "{failures:?}: {resent} counted");
    }
}

/// A small queue within the producer is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_waited_for() {
    let cluster = cluster(1);
    let works = [400, 400];
    let ledger = Arc::new(MemoryLedger::plain(works));
    let mut config = config_for(&cluster);
    config.queue_bytes = 8 << 10;
    deliver_all(config, &ledger).await;
    is_exactly_once(&cluster, 1, &works);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_transaction_carries_the_progress_of_its_tenants() {
    let cluster = cluster(2);
    let works = [3, 12];
    let ledger = Arc::new(MemoryLedger::plain(works));
    deliver_all(with_transactions(&cluster), &ledger).await;
    is_exactly_once(&cluster, 2, &works);
    let progress = read(&cluster, PROGRESS, 1);
    let last = progress.last().unwrap();
    let tenant = uuid::Uuid::from_u128(1);
    assert_eq!(last.key.as_deref(), Some(format!("mailtrail-test/{tenant}").as_str()));
    let value: serde_json::Value = serde_json::from_str(&last.value).unwrap();
    assert_eq!(value["ledger"], "a-ledger");
    assert_eq!((&value["seq"], &value["records"]), (&2.into(), &12.into()));
}

/// A crash after the commit of the transaction, before the ledger knows: the topic tells, and nothing is sent twice. A
/// changed filter and view change nothing about that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_before_a_crash_is_settled_without_being_sent() {
    let cluster = cluster(1);
    let works = [30, 20];
    let ledger = Arc::new(MemoryLedger::plain(works));
    let before = ledger.state();
    let config = with_transactions(&cluster);
    // One batch by hand: the state is durable, the batch is committed, and nobody hears of it.
    let first = sink(config.clone(), &ledger);
    assert!(first.open().await.unwrap().is_empty());
    let batch = ledger.batch(&[(0, 0..30), (1, 0..5)]);
    ledger.set_state(first.state(&[], Some(&batch)));
    let receipt = first.deliver(batch).await.unwrap();
    assert_eq!(receipt.records(), 35);
    first.close().await;
    assert!(before.is_none() && ledger.pending() == 2);

    ledger.render_as(crate::test_ledger::Rendering {
        view: 0,
        keep: Arc::new(|_, position| position % 2 == 1),
    });
    let report = deliver_all(config, &ledger).await;
    let counts = counts(&cluster, 1);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    // 35 were there; of the others the new filter keeps those at odd positions.
    assert_eq!(counts.len(), 35 + 8);
    let sums: Vec<_> = ledger.settlements().iter().map(|s| (s.delivered, s.filtered, s.resent)).collect();
    assert_eq!(sums, [(30, 0, 0), (5 + 8, 7, 0)]);
    assert_eq!(report.counters.resent, 0);
}

/// A body that comes back as another after a crash is sent whole: what was committed of the first says nothing about it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_of_another_body_is_sent_again_and_counted() {
    let cluster = cluster(1);
    let ledger = Arc::new(MemoryLedger::plain([30, 20]));
    ledger.replace_body(0, 1, 30, false);
    ledger.replace_body(1, 1, 20, false);
    let config = with_transactions(&cluster);
    let first = sink(config.clone(), &ledger);
    assert!(first.open().await.unwrap().is_empty());
    let batch = ledger.batch(&[(0, 0..10), (1, 0..5)]);
    ledger.set_state(first.state(&[], Some(&batch)));
    assert_eq!(first.deliver(batch).await.unwrap().records(), 15);
    first.close().await;

    // The other way round: at the positions that were committed stand other records now.
    ledger.replace_body(0, 2, 30, true);
    let report = deliver_all(config, &ledger).await;
    let counts = counts(&cluster, 1);
    assert_eq!(counts.len(), 50, "nothing is missing");
    assert_eq!(counts.values().filter(|count| **count == 2).count(), 10);
    assert_eq!(
        counts.values().sum::<usize>(),
        60,
        "only what was committed of the first body is there twice"
    );
    let sums: Vec<_> = ledger.settlements().iter().map(|s| (s.delivered, s.resent)).collect();
    assert_eq!((sums, report.counters.resent), (vec![(30, 10), (20, 0)], 10));
}

/// L10: a refused record before the crash is a dead letter after it, though the tenant's progress is beyond it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_before_a_crash_is_one_after_it() {
    let cluster = cluster(1);
    let ledger = Arc::new(MemoryLedger::plain([20]));
    ledger.pad(7, 2000);
    let mut config = with_transactions(&cluster);
    config.headers = false;
    config.max_message_bytes = NonZeroU32::new(1000).unwrap();
    let first = sink(config.clone(), &ledger);
    first.open().await.unwrap();
    let whole = ledger.batch(&[(0, 0..20)]);
    ledger.set_state(first.state(&[], Some(&whole)));
    let error = first.deliver(whole).await.unwrap_err();
    assert!(matches!(&error.disposition, crate::sink::Disposition::Reject { records } if records[0].0 == 7));
    let rest = first.deliver(ledger.batch(&[(0, 0..7), (0, 8..20)])).await.unwrap();
    assert_eq!(rest.records(), 19);
    first.close().await;
    deliver_all(config, &ledger).await;
    let settlement = ledger.settlements().remove(0);
    assert_eq!((settlement.delivered, settlement.dead.len()), (19, 1));
    let counts = counts(&cluster, 1);
    assert!(counts.len() == 19 && counts.values().all(|count| *count == 1), "{counts:?}");
}

/// A state directory that was lost and made anew has another ledger: the sink halts until an operator adopts it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_ledger_halts_the_sink_until_it_is_adopted() {
    let cluster = cluster(1);
    let config = with_transactions(&cluster);
    let ledger = Arc::new(MemoryLedger::plain([5]));
    deliver_all(config.clone(), &ledger).await;

    let other = Arc::new(MemoryLedger::plain([5, 5]));
    *other.id.lock().unwrap() = "another-ledger".to_owned();
    let running = start(config.clone(), &other);
    let error = running.until_halted().await;
    assert!(error.contains("a-ledger") && error.contains("mailtrail sinks adopt test"), "{error}");
    running.stop().await;
    assert_eq!(counts(&cluster, 1).len(), 5);

    other.set_state(Some(adopt(other.state().as_deref()).unwrap()));
    deliver_all(config.clone(), &other).await;
    let state = State::decode(&other.state().unwrap()).unwrap();
    assert!(!state.adopt, "it is asked for once");
    // Now the first one is the other.
    ledger.add(9, vec![crate::test_ledger::Kind::Plain; 2]);
    let running = start(config, &ledger);
    let error = running.until_halted().await;
    assert!(error.contains("another-ledger"), "{error}");
    running.stop().await;
}

/// An older copy of the state directory does not know what was delivered since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_the_ledger_halts_the_sink() {
    let cluster = cluster(1);
    let config = with_transactions(&cluster);
    let ledger = Arc::new(MemoryLedger::plain([5]));
    deliver_all(config.clone(), &ledger).await;
    let old = ledger.state();
    ledger.add(1, vec![crate::test_ledger::Kind::Plain; 5]);
    deliver_all(config.clone(), &ledger).await;
    ledger.add(2, vec![crate::test_ledger::Kind::Plain; 5]);
    ledger.set_state(old);
    let running = start(config, &ledger);
    let error = running.until_halted().await;
    assert!(error.contains("older copy"), "{error}");
    running.stop().await;
}

/// Transactions can be turned off and on again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_are_turned_off_and_on() {
    let cluster = cluster(1);
    let ledger = Arc::new(MemoryLedger::plain([5]));
    for (turn, transactions) in [true, false, true].into_iter().enumerate() {
        ledger.add(turn as i64 + 1, vec![crate::test_ledger::Kind::Plain; 5]);
        let config = if transactions { with_transactions(&cluster) } else { config_for(&cluster) };
        deliver_all(config, &ledger).await;
    }
    is_exactly_once(&cluster, 1, &[5; 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_says_what_is_missing() {
    let ledger = Arc::new(MemoryLedger::plain([]));
    let nobody = KafkaConfig { delivery_timeout: Duration::from_secs(1), ..config() };
    let error = sink(nobody, &ledger).probe().await.unwrap_err();
    assert!(error.context.contains("no broker can be reached"), "{error}");
    let cluster = cluster(1);
    let sink = |config: KafkaConfig| sink(config, &ledger);
    sink(with_transactions(&cluster)).probe().await.unwrap();
    cluster.topic_error(PROGRESS, RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
    let error = sink(with_transactions(&cluster)).probe().await.unwrap_err();
    assert!(error.context.contains("cleanup.policy=compact"), "{error}");
}

#[tokio::test]
async fn settings_that_do_not_work_are_refused_at_once() {
    let ledger = Arc::new(MemoryLedger::plain([]));
    let context =
        SinkContext { name: sink_name(), ledger: ledger as _, rate: Arc::new(Rate::new(None, None)) };
    let mut config = config();
    config.librdkafka.insert("no.such.thing".to_owned(), "1".to_owned());
    let error = KafkaSink::new(config, None, Vec::new(), context).err().unwrap();
    assert!(error.to_string().contains("no.such.thing"), "{error}");
}
