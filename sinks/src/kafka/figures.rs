//! What this sink counts: librdkafka's statistics, and transactions.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::statistics::Statistics;

use crate::measure::{Measure, Reading};

/// What this sink counts.
#[derive(Debug, Default)]
pub(super) struct Figures(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Of clients that are gone.
    before: Totals,
    /// Of the client that told last.
    now: Totals,
    client: String,
    queue_messages: u64,
    queue_bytes: u64,
    connected: u64,
    rtt_seconds: f64,
    throttle_seconds: f64,
    committed: u64,
    aborted: u64,
    uncertain: u64,
    truncated: u64,
}

/// What only grows while a client lives.
#[derive(Debug, Default, Clone, Copy)]
struct Totals {
    requests: u64,
    bytes: u64,
    messages: u64,
    errors: u64,
    retries: u64,
    timeouts: u64,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Committed,
    Aborted,
    Uncertain,
}

impl Figures {
    /// Takes librdkafka's statistics of a producer.
    pub(super) fn take(&self, json: &[u8]) -> Result<(), serde_json::Error> {
        let statistics: Statistics = serde_json::from_slice(json)?;
        if statistics.client_type != "producer" {
            return Ok(());
        }
        let brokers = || statistics.brokers.values();
        let of = |number: i64| u64::try_from(number).unwrap_or_default();
        let now = Totals {
            requests: of(statistics.tx),
            bytes: of(statistics.tx_bytes),
            messages: of(statistics.txmsgs),
            errors: brokers().map(|broker| broker.txerrs + broker.rxerrs).sum(),
            retries: brokers().map(|broker| broker.txretries).sum(),
            timeouts: brokers().map(|broker| broker.req_timeouts).sum(),
        };
        // The windows are in microseconds and milliseconds.
        let p99 = |window: Option<i64>, unit: f64| window.map_or(0.0, |value| value as f64 * unit);
        let rtt = brokers().map(|broker| p99(broker.rtt.as_ref().map(|window| window.p99), 1e-6));
        let throttle = brokers().map(|broker| p99(broker.throttle.as_ref().map(|window| window.p99), 1e-3));
        let mut inner = self.lock();
        if inner.client != statistics.name {
            inner.before = inner.before.plus(inner.now);
            inner.client.clone_from(&statistics.name);
        }
        inner.now = now;
        inner.queue_messages = statistics.msg_cnt;
        inner.queue_bytes = statistics.msg_size;
        inner.connected = brokers().filter(|broker| broker.state == "UP").count() as u64;
        inner.rtt_seconds = rtt.fold(0.0, f64::max);
        inner.throttle_seconds = throttle.fold(0.0, f64::max);
        Ok(())
    }

    pub(super) fn transaction(&self, ending: Ending) {
        let mut inner = self.lock();
        match ending {
            Ending::Committed => inner.committed += 1,
            Ending::Aborted => inner.aborted += 1,
            Ending::Uncertain => inner.uncertain += 1,
        }
    }

    pub(super) fn truncated(&self, records: u64) {
        self.lock().truncated += records;
    }

    pub(super) fn measures(&self, transactions: bool) -> Vec<Measure> {
        let inner = self.lock();
        let totals = inner.before.plus(inner.now);
        let (counter, gauge) = (Measure::counter, Measure::gauge);
        let mut all = vec![
            gauge(
                "kafka_queue_messages",
                "Messages that wait within the producer.",
                inner.queue_messages as f64,
            ),
            gauge("kafka_queue_bytes", "Bytes that wait within the producer.", inner.queue_bytes as f64),
            gauge(
                "kafka_brokers_connected",
                "Brokers that the producer is connected to.",
                inner.connected as f64,
            ),
            gauge(
                "kafka_round_trip_seconds",
                "The 99th percentile of the round trip to the slowest broker.",
                inner.rtt_seconds,
            ),
            gauge(
                "kafka_throttle_seconds",
                "The 99th percentile of how long a broker asked to wait, because of a quota.",
                inner.throttle_seconds,
            ),
            counter("kafka_requests_total", "Requests that were sent to brokers.", totals.requests),
            counter("kafka_sent_bytes_total", "Bytes that were sent to brokers, compressed.", totals.bytes),
            counter(
                "kafka_messages_total",
                "Messages that were sent to brokers, repetitions included.",
                totals.messages,
            ),
            counter("kafka_request_errors_total", "Requests that failed.", totals.errors),
            counter("kafka_request_retries_total", "Requests that were sent again.", totals.retries),
            counter(
                "kafka_request_timeouts_total",
                "Requests that were not answered in time.",
                totals.timeouts,
            ),
            counter(
                "kafka_truncated_records_total",
                "Records that were cut to fit into a message.",
                inner.truncated,
            ),
        ];
        if transactions {
            let endings =
                [("committed", inner.committed), ("aborted", inner.aborted), ("uncertain", inner.uncertain)];
            all.extend(endings.map(|(outcome, count)| Measure {
                name: "kafka_transactions_total",
                help: "Transactions by how they ended; an uncertain one is looked up in the progress topic.",
                labels: vec![("outcome", outcome.to_owned())],
                reading: Reading::Counter(count),
            }));
        }
        all
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Totals {
    fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            bytes: self.bytes + other.bytes,
            messages: self.messages + other.messages,
            errors: self.errors + other.errors,
            retries: self.retries + other.retries,
            timeouts: self.timeouts + other.timeouts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str, tx: i64, queue: u64) -> Vec<u8> {
        let statistics = Statistics {
            name: name.to_owned(),
            client_type: "producer".to_owned(),
            tx,
            msg_cnt: queue,
            ..Statistics::default()
        };
        serde_json::to_vec(&statistics).unwrap()
    }

    #[test]
    fn counters_go_on_over_a_new_producer_and_levels_are_the_last_ones() {
        let figures = Figures::default();
        let reading = |name: &str| {
            let all = figures.measures(true);
            all.into_iter().find(|measure| measure.name == name).unwrap().reading
        };
        figures.take(&told("one", 5, 7)).unwrap();
        figures.take(&told("one", 9, 6)).unwrap();
        figures.take(&told("two", 3, 2)).unwrap();
        assert_eq!(reading("kafka_requests_total"), Reading::Counter(12));
        assert_eq!(reading("kafka_queue_messages"), Reading::Gauge(2.0));
        assert!(figures.take(b"nonsense").is_err());
        figures.transaction(Ending::Aborted);
        let aborted = figures.measures(true).into_iter().filter(|measure| {
            measure.labels.contains(&("outcome", "aborted".to_owned()))
                && measure.reading == Reading::Counter(1)
        });
        assert_eq!(aborted.count(), 1);
        assert!(figures.measures(false).iter().all(|measure| measure.name != "kafka_transactions_total"));
        assert!(figures.measures(true).iter().all(|measure| measure.name.starts_with("kafka_")));
    }
}
