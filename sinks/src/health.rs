//! What can be seen of a sink from outside: counters for metrics, and how it is doing.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::age::{AGE_BOUNDS, Ages};

/// Upper bounds of [`Counters::latency`], in seconds; the last bucket has none.
pub const LATENCY_BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0];

/// How a sink is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// It was not opened yet.
    Starting,
    /// The last delivery succeeded, or none was due.
    Ok,
    /// Deliveries fail and are tried again, in memory.
    Retrying {
        /// When they began to fail.
        since: DateTime<Utc>,
        /// What happened last.
        error: String,
    },
    /// Deliveries fail and were put back into the ledger until later.
    Deferred {
        /// When they began to fail.
        since: DateTime<Utc>,
        /// When they are tried again.
        until: DateTime<Utc>,
        /// What happened last.
        error: String,
    },
    /// A person has to do something; it is probed slowly for ever.
    Halted {
        /// Since when.
        since: DateTime<Utc>,
        /// What is wrong and what to do.
        error: String,
    },
    /// It was told to stop and has.
    Stopped,
}

/// What a sink has done since it was started. Only ever growing, except for what is marked as a level.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Counters {
    /// Batches that were confirmed.
    pub batches: u64,
    /// Records that receipts cover, without those that were restored.
    pub records: u64,
    /// Records that were restored from an archive and that receipts cover.
    pub restored: u64,
    /// The bytes of both as rendered.
    pub bytes: u64,
    /// Records that were sent again after an ambiguous outcome; an upper bound of duplicates.
    pub resent: u64,
    /// Records that became dead letters.
    pub dead: u64,
    /// Records that the filter took out.
    pub filtered: u64,
    /// Works that were settled.
    pub settled: u64,
    /// Works that were put back into the ledger after a failure.
    pub deferred: u64,
    /// Deliveries that failed and were tried again.
    pub retries: u64,
    /// Panics that were caught.
    pub panics: u64,
    /// Confirmed batches by how long the delivery took, by [`LATENCY_BOUNDS`]; not cumulative.
    pub latency: [u64; LATENCY_BOUNDS.len() + 1],
    /// The sum of those times, in seconds.
    pub latency_seconds: f64,
    /// Delivered records by their age then, from their `CreationTime` to the receipt, by [`AGE_BOUNDS`]; not
    /// cumulative. Records without that time are not among them.
    pub age: [u64; AGE_BOUNDS.len() + 1],
    /// The sum of those ages, in seconds.
    pub age_seconds: f64,
    /// Level: batches under way.
    pub in_flight: u64,
    /// Level: works that are leased.
    pub leased: u64,
}

/// A sink at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HealthReport {
    /// How it is doing.
    #[serde(flatten)]
    pub state: State,
    /// Since when there were only failures that waiting does not explain: a time that the destination asked for
    /// (`Retry-After`, a quota) does not count. `run --until-idle` gives up after 30 s of it.
    pub only_failing_since: Option<DateTime<Utc>>,
    /// What is wrong with the ledger, while it is.
    pub ledger_error: Option<String>,
    /// The last error, kept after things went well again.
    pub last_error: Option<String>,
    /// When a batch was last confirmed.
    pub last_delivery: Option<DateTime<Utc>>,
    /// What it has done.
    pub counters: Counters,
}

impl HealthReport {
    /// Whether deliveries are possible as far as is known; `/readyz` asks this.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !matches!(self.state, State::Halted { .. })
    }
}

/// The health of one sink, written by its delivery loop.
#[derive(Debug)]
pub struct Health(Mutex<HealthReport>);

impl Default for Health {
    fn default() -> Self {
        Self(Mutex::new(HealthReport {
            state: State::Starting,
            only_failing_since: None,
            ledger_error: None,
            last_error: None,
            last_delivery: None,
            counters: Counters::default(),
        }))
    }
}

impl Health {
    /// How the sink is now.
    #[must_use]
    pub fn report(&self) -> HealthReport {
        self.lock().clone()
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.lock().counters);
    }

    pub(crate) fn opened(&self) {
        let mut report = self.lock();
        // An open sink has proved nothing yet: what failed before it was opened anew goes on failing.
        if matches!(report.state, State::Starting | State::Halted { .. }) {
            report.state = State::Ok;
            report.only_failing_since = None;
        }
    }

    /// A batch was confirmed that took so long. Of its records, so many were restored.
    pub(crate) fn delivered(
        &self,
        (records, restored): (usize, usize),
        bytes: usize,
        ages: &Ages,
        took: Duration,
    ) {
        let now = Utc::now();
        let mut report = self.lock();
        report.state = State::Ok;
        report.only_failing_since = None;
        report.last_delivery = Some(now);
        let counters = &mut report.counters;
        ages.observe(now, &mut counters.age, &mut counters.age_seconds);
        counters.batches += 1;
        counters.records += (records - restored) as u64;
        counters.restored += restored as u64;
        counters.bytes += bytes as u64;
        let seconds = took.as_secs_f64();
        counters.latency_seconds += seconds;
        counters.latency[LATENCY_BOUNDS.partition_point(|bound| *bound < seconds)] += 1;
    }

    /// Something that a sink held has arrived, and these works with it.
    pub(crate) fn arrived(&self, works: usize, records: u64, bytes: u64) {
        let mut report = self.lock();
        report.state = State::Ok;
        report.only_failing_since = None;
        report.last_delivery = Some(Utc::now());
        report.counters.batches += 1;
        report.counters.settled += works as u64;
        report.counters.records += records;
        report.counters.bytes += bytes;
    }

    /// A delivery failed and is tried again; `asked` says that the destination named the time.
    pub(crate) fn retrying(&self, error: &str, asked: bool) {
        let mut report = self.lock();
        let since = report.failing(error, asked);
        if !matches!(report.state, State::Halted { .. }) {
            report.state = State::Retrying { since, error: error.to_owned() };
        }
        report.counters.retries += 1;
    }

    pub(crate) fn deferred(&self, works: usize, until: DateTime<Utc>, error: &str, asked: bool) {
        let mut report = self.lock();
        let since = report.failing(error, asked);
        if !matches!(report.state, State::Halted { .. }) {
            report.state = State::Deferred { since, until, error: error.to_owned() };
        }
        report.counters.deferred += works as u64;
    }

    /// The wait of what was deferred is known better.
    pub(crate) fn deferred_until(&self, time: DateTime<Utc>) {
        if let State::Deferred { until, .. } = &mut self.lock().state {
            *until = time;
        }
    }

    /// Nothing can be delivered before something else has happened, or that is over. Nothing was tried, so it is no retry.
    pub(crate) fn waits(&self, why: Option<&str>) {
        let mut report = self.lock();
        match why {
            Some(why) => {
                let since = report.failing(why, false);
                report.state = State::Retrying { since, error: why.to_owned() };
            }
            None => {
                report.state = State::Ok;
                report.only_failing_since = None;
            }
        }
    }

    pub(crate) fn halted(&self, error: &str) {
        let mut report = self.lock();
        let since = match report.state {
            State::Halted { since, .. } => since,
            _ => Utc::now(),
        };
        report.failing(error, false);
        report.state = State::Halted { since, error: error.to_owned() };
    }

    pub(crate) fn stopped(&self) {
        self.lock().state = State::Stopped;
    }

    pub(crate) fn ledger(&self, error: Option<&str>) {
        self.lock().ledger_error = error.map(str::to_owned);
    }

    fn lock(&self) -> MutexGuard<'_, HealthReport> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HealthReport {
    /// Notes a failure; returns since when there is nothing else.
    fn failing(&mut self, error: &str, asked: bool) -> DateTime<Utc> {
        let now = Utc::now();
        self.last_error = Some(error.to_owned());
        self.only_failing_since = if asked { None } else { self.only_failing_since.or(Some(now)) };
        match self.state {
            State::Retrying { since, .. } | State::Deferred { since, .. } => since,
            _ => now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_was_asked_for_is_no_failure_that_ends_a_run() {
        let health = Health::default();
        health.opened();
        health.retrying("no route", false);
        let since = health.report().only_failing_since.expect("it fails");
        health.deferred(1, Utc::now(), "no route", false);
        assert_eq!(health.report().only_failing_since, Some(since));
        health.retrying("busy, come back later", true);
        assert_eq!(health.report().only_failing_since, None);
        health.halted("the token is wrong");
        assert!(!health.report().is_ready());
        assert!(health.report().only_failing_since.is_some());
        health.retrying("late news", false);
        assert!(
            matches!(health.report().state, State::Halted { .. }),
            "a halt is not talked away by a retry"
        );
        health.delivered((3, 1), 300, &Ages::default(), Duration::from_millis(7));
        let report = health.report();
        assert_eq!(report.state, State::Ok);
        assert_eq!(report.only_failing_since, None);
        assert_eq!(report.last_error.as_deref(), Some("late news"));
        assert_eq!(
            (report.counters.records, report.counters.restored, report.counters.latency[1]),
            (2, 1, 1)
        );
    }
}
