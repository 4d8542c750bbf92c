//! How old records are when a destination has them: from `CreationTime` to the receipt.
//!
//! A batch is given away before its receipt comes, and what waits for an acknowledgement must not hold much. So the
//! times of its records are taken before, in steps that are fine enough for [`AGE_BOUNDS`], and counted when the
//! receipt is there. The sum is exact. Records that were restored from an archive are left out: their age says nothing about how
//! quickly anything arrives.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::sink::Batch;

/// Upper bounds of the ages of records, in seconds: 1 minute to 7 days. Microsoft itself takes 60 to 90 minutes for most
/// records. The last bucket has no bound.
pub const AGE_BOUNDS: [f64; 12] =
    [60.0, 300.0, 900.0, 1800.0, 3600.0, 5400.0, 7200.0, 14_400.0, 28_800.0, 86_400.0, 259_200.0, 604_800.0];

/// Times are counted in steps of so many milliseconds.
const STEP_MS: i64 = 15_000;

/// The times of a batch's records.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Ages {
    /// How many records there are of each step.
    steps: BTreeMap<i64, u64>,
    /// All times together, in seconds since 1970.
    sum: f64,
    count: u64,
}

impl Ages {
    pub(crate) fn of(batch: &Batch) -> Self {
        let mut ages = Self::default();
        for part in batch.parts.iter().filter(|part| !part.work.restored) {
            for index in part.indexes.clone() {
                if let Some(time) = part.piece.time_ms(index) {
                    ages.add(time);
                }
            }
        }
        ages
    }

    fn add(&mut self, time_ms: i64) {
        *self.steps.entry(time_ms.div_euclid(STEP_MS)).or_default() += 1;
        self.sum += time_ms as f64 / 1000.0;
        self.count += 1;
    }

    /// Counts the records as delivered now.
    pub(crate) fn observe(&self, now: DateTime<Utc>, counts: &mut [u64], sum: &mut f64) {
        let now_ms = now.timestamp_millis();
        for (step, count) in &self.steps {
            let age = now_ms.saturating_sub(step.saturating_mul(STEP_MS)) as f64 / 1000.0;
            let bucket = AGE_BOUNDS.partition_point(|bound| *bound < age).min(counts.len() - 1);
            counts[bucket] += count;
        }
        *sum += (now_ms as f64 / 1000.0 * self.count as f64 - self.sum).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_by_their_age_at_the_receipt() {
        let now: DateTime<Utc> = "2026-03-02T12:00:00Z".parse().unwrap();
        let mut ages = Ages::default();
        for seconds in [30, 40, 4000, 4001, 700_000, -900] {
            ages.add(now.timestamp_millis() - seconds * 1000);
        }
        let (mut counts, mut sum) = ([0; AGE_BOUNDS.len() + 1], 0.0);
        ages.observe(now, &mut counts, &mut sum);
        assert_eq!(counts, [3, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1]);
        assert!((sum - 707_171.0).abs() < 0.01, "{sum}");
        Ages::default().observe(now, &mut counts, &mut sum);
        assert_eq!(counts.iter().sum::<u64>(), 6);
    }

    #[test]
    fn a_batch_of_an_hour_holds_little() {
        let mut ages = Ages::default();
        for record in 0..100_000 {
            ages.add(1_700_000_000_000 + record * 36);
        }
        assert!(ages.steps.len() <= 241, "{}", ages.steps.len());
    }
}
