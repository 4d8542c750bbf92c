//! How long to wait before trying again: doubling, bounded, and spread by chance so that failures that came together
//! do not come back together.

use std::time::Duration;

use rand::RngExt;

/// A growing wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Backoff {
    /// The wait after `failures` failures in a row (the first is 1): between three quarters and five quarters of
    /// the doubled wait, and never more than the longest.
    #[must_use]
    pub fn after(&self, failures: u32) -> Duration {
        let doubled = self.first.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1).min(30)));
        doubled.min(self.longest).mul_f64(rand::rng().random_range(0.75..1.25)).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_the_longest() {
        let backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };
        for (failures, expected) in [(0, 1.0), (1, 1.0), (2, 2.0), (5, 16.0)] {
            let wait = backoff.after(failures).as_secs_f64();
            assert!((expected * 0.75..expected * 1.25).contains(&wait), "{failures}: {wait}");
        }
        for failures in [7, 40, u32::MAX] {
            let wait = backoff.after(failures);
            assert!((Duration::from_secs(45)..=Duration::from_secs(60)).contains(&wait), "{wait:?}");
        }
    }
}
