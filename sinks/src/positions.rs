//! Positions of records in a blob, kept as runs.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Positions of records in a blob, in the order in which they were pushed, kept as runs: a whole blob is one run,
/// whatever its size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u32, u32)>", into = "Vec<(u32, u32)>")]
pub struct Positions {
    /// First position and count of each run.
    runs: Vec<(u32, u32)>,
}

/// Runs that no blob can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a run of {count} positions from {first} is impossible")]
pub struct BadRun {
    /// Its first position.
    pub first: u32,
    /// Its length.
    pub count: u32,
}

impl Positions {
    /// Appends a position.
    pub fn push(&mut self, position: u32) {
        match self.runs.last_mut() {
            Some((first, count)) if first.checked_add(*count) == Some(position) => *count += 1,
            _ => self.runs.push((position, 1)),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.runs.iter().map(|&(_, count)| count as usize).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.runs.iter().flat_map(|&(first, count)| first..first + count)
    }

    /// The same positions, cut where the order goes back: each set can be read in one pass over the blob.
    #[must_use]
    pub fn passes(&self) -> Vec<BTreeSet<u32>> {
        let mut passes: Vec<BTreeSet<u32>> = Vec::new();
        for position in self.iter() {
            match passes.last_mut() {
                Some(pass) if pass.last().is_some_and(|&last| last < position) => {
                    pass.insert(position);
                }
                _ => passes.push(BTreeSet::from([position])),
            }
        }
        passes
    }

    /// Takes the positions from the `at`th on off.
    #[must_use]
    pub(crate) fn split_off(&mut self, at: usize) -> Self {
        let all = std::mem::take(self);
        let mut rest = Self::default();
        for (index, position) in all.iter().enumerate() {
            if index < at { self.push(position) } else { rest.push(position) }
        }
        rest
    }
}

impl Extend<u32> for Positions {
    fn extend<T: IntoIterator<Item = u32>>(&mut self, positions: T) {
        positions.into_iter().for_each(|position| self.push(position));
    }
}

impl FromIterator<u32> for Positions {
    fn from_iter<T: IntoIterator<Item = u32>>(positions: T) -> Self {
        let mut all = Self::default();
        all.extend(positions);
        all
    }
}

impl From<Positions> for Vec<(u32, u32)> {
    fn from(positions: Positions) -> Self {
        positions.runs
    }
}

impl TryFrom<Vec<(u32, u32)>> for Positions {
    type Error = BadRun;

    fn try_from(runs: Vec<(u32, u32)>) -> Result<Self, BadRun> {
        match runs.iter().find(|(first, count)| *count == 0 || first.checked_add(*count).is_none()) {
            Some(&(first, count)) => Err(BadRun { first, count }),
            None => Ok(Self { runs }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_whole_blob_is_one_run_and_a_step_back_a_new_pass() {
        let positions: Positions = (0..10_000).chain([3, 5, 6]).collect();
        assert_eq!(serde_json::to_string(&positions).unwrap(), "[[0,10000],[3,1],[5,2]]");
        let passes = positions.passes();
        assert_eq!(passes.len(), 2);
        assert_eq!(passes[1], BTreeSet::from([3, 5, 6]));
        assert!(serde_json::from_str::<Positions>("[[4294967295,2]]").is_err());
        assert!(serde_json::from_str::<Positions>("[[7,0]]").is_err());
    }

    proptest! {
        #[test]
        fn order_survives_runs_passes_cuts_and_the_codec(
            list in proptest::collection::vec(0u32..20, 0..30),
            at in 0usize..30,
        ) {
            let mut positions: Positions = list.iter().copied().collect();
            prop_assert_eq!(positions.len(), list.len());
            prop_assert_eq!(positions.iter().collect::<Vec<_>>(), list.clone());
            prop_assert_eq!(positions.passes().into_iter().flatten().collect::<Vec<_>>(), list.clone());
            let text = serde_json::to_string(&positions).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Positions>(&text).unwrap(), &positions);
            let rest = positions.split_off(at);
            prop_assert_eq!(positions.iter().chain(rest.iter()).collect::<Vec<_>>(), list.clone());
            prop_assert_eq!(positions.len(), at.min(list.len()));
        }
    }
}
