//! What a `splunk_hec` sink counts beyond what all sinks do.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::measure::{Measure, Reading};

/// Upper bounds of the time from a request to its acknowledgement, in seconds.
const ACK_BOUNDS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0];

/// What happened since the sink was made.
#[derive(Debug, Default)]
pub(super) struct Counters(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    /// By HTTP status and HEC's code, `none` for what did not come.
    requests: BTreeMap<(String, String), u64>,
    plain_bytes: u64,
    sent_bytes: u64,
    polls: u64,
    acks_lost: u64,
    ack_counts: [u64; ACK_BOUNDS.len() + 1],
    ack_seconds: f64,
    channels: u64,
}

/// What is so at this moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Levels {
    /// Acknowledgements that are awaited.
    pub(super) acks_awaited: usize,
    /// Receivers.
    pub(super) endpoints: usize,
    /// Those of them whose last request was answered well.
    pub(super) healthy: usize,
}

impl Counters {
    /// A request with events was answered, or was not.
    pub(super) fn request(&self, http: Option<u16>, code: Option<u64>) {
        let text =
            |number: Option<u64>| number.map_or_else(|| "none".to_owned(), |number| number.to_string());
        // Whatever a receiver makes up, there are few labels.
        let code = code
            .map_or_else(|| text(None), |code| if code < 100 { text(Some(code)) } else { "other".into() });
        *self.lock().requests.entry((text(http.map(u64::from)), code)).or_default() += 1;
    }

    /// The body of a request was made.
    pub(super) fn body(&self, plain: usize, sent: usize) {
        let mut counted = self.lock();
        counted.plain_bytes += plain as u64;
        counted.sent_bytes += sent as u64;
    }

    /// Acknowledgements were asked for.
    pub(super) fn polled(&self) {
        self.lock().polls += 1;
    }

    /// An acknowledgement came after so long.
    pub(super) fn acknowledged(&self, after: Duration) {
        let mut counted = self.lock();
        let seconds = after.as_secs_f64();
        counted.ack_seconds += seconds;
        counted.ack_counts[ACK_BOUNDS.partition_point(|bound| *bound < seconds)] += 1;
    }

    /// An acknowledgement did not come.
    pub(super) fn ack_lost(&self) {
        self.lock().acks_lost += 1;
    }

    /// A channel was made.
    pub(super) fn channel(&self) {
        self.lock().channels += 1;
    }

    /// All of it, for `/metrics`.
    pub(super) fn measures(&self, levels: Levels) -> Vec<Measure> {
        let counted = self.lock();
        let mut measures: Vec<Measure> = counted
            .requests
            .iter()
            .map(|((http, code), count)| Measure {
                name: "hec_requests_total",
                help: "Requests with events, by HTTP status and HEC code; none is an answer that did not come or had no code.",
                labels: vec![("http", http.clone()), ("code", code.clone())],
                reading: Reading::Counter(*count),
            })
            .collect();
        measures.extend([
            Measure::counter(
                "hec_request_bytes_total",
                "Bytes of requests with events before compression.",
                counted.plain_bytes,
            ),
            Measure::counter(
                "hec_request_compressed_bytes_total",
                "Bytes of requests with events as they were sent.",
                counted.sent_bytes,
            ),
            Measure::counter(
                "hec_ack_queries_total",
                "Requests that asked for acknowledgements.",
                counted.polls,
            ),
            Measure::gauge(
                "hec_acks_pending",
                "Batches that were taken and that the indexer has not acknowledged.",
                levels.acks_awaited as f64,
            ),
            Measure::counter(
                "hec_acks_lost_total",
                "Batches whose acknowledgement did not come and that are sent again.",
                counted.acks_lost,
            ),
            Measure::alone(
                "hec_ack_seconds",
                "Time from the answer to a batch to its acknowledgement by the indexer.",
                Reading::Histogram {
                    bounds: &ACK_BOUNDS,
                    counts: counted.ack_counts.to_vec(),
                    sum: counted.ack_seconds,
                },
            ),
            Measure::counter(
                "hec_channels_total",
                "Channels that were begun: one for each receiver, and a new one after each failure and after 5 idle \
                 minutes.",
                counted.channels,
            ),
            Measure::gauge("hec_endpoints", "Configured receivers.", levels.endpoints as f64),
            Measure::gauge(
                "hec_endpoints_healthy",
                "Receivers whose last request was answered well.",
                levels.healthy as f64,
            ),
        ]);
        measures
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let counters = Counters::default();
        counters.request(Some(200), Some(0));
        counters.request(Some(200), Some(0));
        counters.request(Some(502), None);
        counters.request(None, None);
        counters.request(Some(400), Some(123_456));
        counters.body(1000, 100);
        counters.acknowledged(Duration::from_millis(1500));
        counters.acknowledged(Duration::from_secs(1000));
        let measures = counters.measures(Levels { acks_awaited: 3, endpoints: 2, healthy: 1 });
        let requests: Vec<_> = measures
            .iter()
            .filter(|measure| measure.name == "hec_requests_total")
            .map(|measure| (measure.labels[0].1.as_str(), measure.labels[1].1.as_str(), &measure.reading))
            .collect();
        assert_eq!(
            requests,
            [
                ("200", "0", &Reading::Counter(2)),
                ("400", "other", &Reading::Counter(1)),
                ("502", "none", &Reading::Counter(1)),
                ("none", "none", &Reading::Counter(1)),
            ]
        );
        let of = |name: &str| &measures.iter().find(|measure| measure.name == name).unwrap().reading;
        assert_eq!(*of("hec_request_compressed_bytes_total"), Reading::Counter(100));
        assert_eq!(*of("hec_acks_pending"), Reading::Gauge(3.0));
        assert_eq!(*of("hec_endpoints_healthy"), Reading::Gauge(1.0));
        let Reading::Histogram { bounds, counts, sum } = of("hec_ack_seconds") else { panic!("a histogram") };
        assert_eq!(counts.len(), bounds.len() + 1);
        assert_eq!((counts[1], counts[9], *sum), (1, 1, 1001.5));
    }
}
