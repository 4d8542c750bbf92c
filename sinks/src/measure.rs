//! What one kind of sink counts beyond what all of them do, for `/metrics`.
//!
//! A sink keeps its figures as it likes and gives a snapshot when it is asked ([`crate::sink::Sink::measures`]). Whoever
//! shows them adds the product's prefix and the sink's name as a label.

/// One figure at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// What it is, by Prometheus' conventions but without the product's prefix: `hec_requests_total`,
    /// `kafka_queue_bytes`, `hec_ack_seconds`.
    pub name: &'static str,
    /// What it means, in one sentence.
    pub help: &'static str,
    /// What tells it from others of its name, such as the answer's code. Few values only, and never a user's data.
    pub labels: Vec<(&'static str, String)>,
    /// The figure.
    pub reading: Reading,
}

impl Measure {
    /// A figure that is alone with its name.
    pub(crate) fn alone(name: &'static str, help: &'static str, reading: Reading) -> Self {
        Self { name, help, labels: Vec::new(), reading }
    }

    /// A counter that is alone with its name.
    pub(crate) fn counter(name: &'static str, help: &'static str, count: u64) -> Self {
        Self::alone(name, help, Reading::Counter(count))
    }

    /// A level that is alone with its name.
    pub(crate) fn gauge(name: &'static str, help: &'static str, level: f64) -> Self {
        Self::alone(name, help, Reading::Gauge(level))
    }
}

/// The kinds of figures.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// It only grows while the process lives.
    Counter(u64),
    /// A level.
    Gauge(f64),
    /// How many observations were at most each of `bounds`, the last count being of those beyond all; not cumulative.
    Histogram {
        /// The upper bounds, ascending.
        bounds: &'static [f64],
        /// One more than there are bounds.
        counts: Vec<u64>,
        /// The sum of all observations.
        sum: f64,
    },
}
