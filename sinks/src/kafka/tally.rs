//! What became of the messages of a batch, as the delivery reports come in.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::types::RDKafkaErrorCode;

/// The reports of a batch. It lives until the last of them has come.
#[derive(Debug)]
pub(super) struct Tally {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Debug)]
struct Counts {
    waited_for: usize,
    failed: Vec<(u32, RDKafkaErrorCode)>,
    /// Whether a report has come since somebody looked.
    heard: bool,
    /// When somebody looked and a report had come, or else when the first message was sent. The time of each report would
    /// cost more than the rest of it.
    last: Instant,
    cancelled: bool,
}

/// One message's place in a tally, given along with it.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) tally: Arc<Tally>,
    /// The record's index in its batch; [`Report::BESIDE`] for what is none of its records.
    pub(super) index: u32,
}

impl Report {
    /// The index of a message that is no record.
    pub(super) const BESIDE: u32 = u32::MAX;
}

/// How a batch stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    /// How many reports are yet to come.
    pub(super) waited_for: usize,
    /// How many messages failed.
    pub(super) failed: usize,
    /// How long no report has come.
    pub(super) silent: Duration,
    /// Whether nobody waits for the batch any more.
    pub(super) cancelled: bool,
}

impl Tally {
    pub(super) fn new() -> Arc<Self> {
        let counts = Counts {
            waited_for: 0,
            failed: Vec::new(),
            heard: false,
            last: Instant::now(),
            cancelled: false,
        };
        Arc::new(Self { counts: Mutex::new(counts), changed: Condvar::new() })
    }

    /// A message is about to be sent.
    pub(super) fn expect(&self) {
        self.counts().waited_for += 1;
    }

    /// It was not sent after all.
    pub(super) fn unexpect(&self) {
        self.counts().waited_for -= 1;
    }

    /// A report has come. Whoever waits is told of the last one, and of each failure.
    pub(super) fn report(&self, index: u32, failure: Option<RDKafkaErrorCode>) {
        let mut counts = self.counts();
        counts.waited_for -= 1;
        counts.heard = true;
        let tells = counts.waited_for == 0 || failure.is_some();
        counts.failed.extend(failure.map(|code| (index, code)));
        drop(counts);
        if tells {
            self.changed.notify_all();
        }
    }

    /// Nobody waits for the batch any more.
    pub(super) fn cancel(&self) {
        self.counts().cancelled = true;
        self.changed.notify_all();
    }

    /// How the batch stands after the last report has come, or a failure, or `at_most`.
    pub(super) fn wait(&self, at_most: Duration) -> Standing {
        let mut counts = self.counts();
        if counts.waited_for > 0 {
            let waited = self.changed.wait_timeout(counts, at_most);
            (counts, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        counts.standing()
    }

    /// How the batch stands.
    pub(super) fn standing(&self) -> Standing {
        self.counts().standing()
    }

    /// What failed so far, by index.
    pub(super) fn failed(&self) -> Vec<(u32, RDKafkaErrorCode)> {
        self.counts().failed.clone()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn standing(&mut self) -> Standing {
        if std::mem::take(&mut self.heard) {
            self.last = Instant::now();
        }
        Standing {
            waited_for: self.waited_for,
            failed: self.failed.len(),
            silent: self.last.elapsed(),
            cancelled: self.cancelled,
        }
    }
}

/// Says that nobody waits any more when it is dropped.
pub(super) struct CancelOnDrop(pub(super) Arc<Tally>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
