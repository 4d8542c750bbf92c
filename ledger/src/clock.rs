//! Where the ledger takes the time from, and how it writes it down.

use std::{fmt, sync::Arc};

use chrono::{DateTime, Utc};

/// The one source of time: the system's clock, or a test's.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>);

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::new(Utc::now)
    }

    /// A clock of one's own.
    pub fn new(now: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// Microseconds since 1970; a finer time is rounded down, so that a watermark never moves past what was listed.
pub(crate) fn micros(time: DateTime<Utc>) -> i64 {
    time.timestamp_micros()
}

/// The time of a number that [`micros`] made. One that no time has, which only a damaged file holds, becomes 1970.
pub(crate) fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}

/// Hours since 1970, in which reports and sums are kept.
pub(crate) fn hour(micros: i64) -> i64 {
    micros.div_euclid(MICROS_PER_HOUR)
}

/// An hour in microseconds.
pub(crate) const MICROS_PER_HOUR: i64 = 3_600_000_000;
