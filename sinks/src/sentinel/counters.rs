//! What a `sentinel` sink counts beyond what all sinks do.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::measure::{Measure, Reading};

/// What happened since the sink was made.
#[derive(Debug, Default)]
pub(super) struct Counters(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    /// By HTTP status, `none` for what did not come.
    requests: BTreeMap<String, u64>,
    plain_bytes: u64,
    sent_bytes: u64,
    cut_values: u64,
}

impl Counters {
    /// A request with rows was answered, or was not.
    pub(super) fn request(&self, http: Option<u16>) {
        let http = http.map_or_else(|| "none".to_owned(), |http| http.to_string());
        *self.lock().requests.entry(http).or_default() += 1;
    }

    /// The body of a request was made.
    pub(super) fn body(&self, plain: usize, sent: usize, cut: usize) {
        let mut counted = self.lock();
        counted.plain_bytes += plain as u64;
        counted.sent_bytes += sent as u64;
        counted.cut_values += cut as u64;
    }

    /// All of it, for `/metrics`.
    pub(super) fn measures(&self, rules: usize, paused: usize) -> Vec<Measure> {
        let counted = self.lock();
        let mut measures: Vec<Measure> = counted
            .requests
            .iter()
            .map(|(http, count)| Measure {
                name: "sentinel_requests_total",
                help: "Requests with rows, by HTTP status; none is an answer that did not come.",
                labels: vec![("http", http.clone())],
                reading: Reading::Counter(*count),
            })
            .collect();
        measures.extend([
            Measure::counter(
                "sentinel_request_bytes_total",
                "Bytes of requests with rows before compression.",
                counted.plain_bytes,
            ),
            Measure::counter(
                "sentinel_request_compressed_bytes_total",
                "Bytes of requests with rows as they were sent.",
                counted.sent_bytes,
            ),
            Measure::counter(
                "sentinel_cut_values_total",
                "Values that were cut because Log Analytics keeps 64 KB of each.",
                counted.cut_values,
            ),
            Measure::gauge("sentinel_rules", "Configured data collection rules.", rules as f64),
            Measure::gauge(
                "sentinel_rules_resting",
                "Data collection rules that are left alone for a while, because they are throttled or fail.",
                paused as f64,
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
    fn what_was_counted_is_shown() {
        let counters = Counters::default();
        counters.request(Some(204));
        counters.request(Some(204));
        counters.request(None);
        counters.body(1000, 100, 2);
        let measures = counters.measures(3, 1);
        let requests: Vec<_> = measures
            .iter()
            .filter(|measure| measure.name == "sentinel_requests_total")
            .map(|measure| (measure.labels[0].1.as_str(), measure.reading.clone()))
            .collect();
        assert_eq!(requests, [("204", Reading::Counter(2)), ("none", Reading::Counter(1))]);
        let of = |name: &str| &measures.iter().find(|measure| measure.name == name).unwrap().reading;
        assert_eq!(*of("sentinel_request_bytes_total"), Reading::Counter(1000));
        assert_eq!(*of("sentinel_request_compressed_bytes_total"), Reading::Counter(100));
        assert_eq!(*of("sentinel_cut_values_total"), Reading::Counter(2));
        assert_eq!(*of("sentinel_rules"), Reading::Gauge(3.0));
        assert_eq!(*of("sentinel_rules_resting"), Reading::Gauge(1.0));
    }
}
