//! Which entries of a chain are there.

use std::collections::BTreeSet;

/// The numbers of a chain's entries that are there. Anybody who can write to the archive chooses names, so nothing ever counts
/// through what lies between two of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers(BTreeSet<u64>);

/// What is in a chain, from its beginning on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The entry with this number.
    Entry(u64),
    /// No entries from this one up to that one, and one behind them.
    Missing {
        /// The first that is not there.
        first: u64,
        /// The last.
        last: u64,
    },
}

impl Numbers {
    pub(crate) fn insert(&mut self, number: u64) {
        self.0.insert(number);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// The highest.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.0.last().copied().unwrap_or_default()
    }

    /// What is there and what is not, in the order of the numbers.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        let mut next = 1;
        self.0.iter().flat_map(move |&number| {
            let missing = (next < number).then(|| Place::Missing { first: next, last: number - 1 });
            next = number + 1;
            missing.into_iter().chain([Place::Entry(number)])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_once_however_much_it_is() {
        let numbers = Numbers(BTreeSet::from([1, 2, 5, 9_999_999_999]));
        let places: Vec<_> = numbers.places().collect();
        assert_eq!(
            places,
            [
                Place::Entry(1),
                Place::Entry(2),
                Place::Missing { first: 3, last: 4 },
                Place::Entry(5),
                Place::Missing { first: 6, last: 9_999_999_998 },
                Place::Entry(9_999_999_999),
            ]
        );
        assert_eq!((numbers.count(), numbers.last()), (4, 9_999_999_999));
        assert_eq!(Numbers::default().places().count(), 0);
    }
}
