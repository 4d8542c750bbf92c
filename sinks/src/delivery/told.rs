//! What the log was told about failing deliveries: the beginning and the end of a time of failures, and not every
//! attempt. `status` and the metrics have the rest.

use std::time::Duration;

use tokio::time::Instant;

/// Between two beginnings that are told. A destination of several receivers, one of which is out of order, fails and
/// succeeds by turns.
const APART: Duration = Duration::from_secs(60);

/// Since when deliveries fail, as far as the log knows.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The beginning of the failures that were told and have not ended.
    since: Option<Instant>,
    last: Option<Instant>,
}

impl Told {
    /// A delivery failed; whether that is to be told.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        if self.since.is_some() || self.last.is_some_and(|last| now.duration_since(last) < APART) {
            return false;
        }
        self.since = Some(now);
        self.last = Some(now);
        true
    }

    /// A delivery succeeded; for how long they failed, if that was told.
    pub(super) fn succeeded(&mut self, now: Instant) -> Option<Duration> {
        self.since.take().map(|since| now.duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_failures_is_told_once_at_its_beginning_and_once_at_its_end() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut told = Told::default();
        assert_eq!(told.succeeded(at(0)), None, "nothing failed");
        assert!(told.failed(at(1)));
        assert!(!told.failed(at(2)));
        assert!(!told.failed(at(1000)), "it still fails");
        assert_eq!(told.succeeded(at(1001)), Some(Duration::from_secs(1000)));
        assert_eq!(told.succeeded(at(1002)), None);
        assert!(told.failed(at(1003)), "long after the beginning that was told before");
        assert!(told.succeeded(at(1004)).is_some());
        assert!(!told.failed(at(1005)), "by turns");
        assert_eq!(told.succeeded(at(1006)), None, "its beginning was not told");
        assert!(told.failed(at(1063)));
    }
}
