//! What became of a work's records, until every one of them is accounted for (L3, L10).

use std::collections::BTreeSet;

use crate::{
    batching::Slice,
    delivery_ledger::{DeadRecord, Settlement, Work},
    positions::Positions,
};

/// The sums of one work for one sink.
#[derive(Debug)]
pub(crate) struct Account {
    /// Records of the body that are no duplicates: what has to be accounted for.
    due: u32,
    delivered: u32,
    filtered: u32,
    dead: Vec<DeadRecord>,
    resent: u32,
    /// Rendered and not yet accounted for.
    open: u32,
    /// Whether the body was read to its end.
    read: bool,
    /// An earlier run chose some of the records, perhaps by another filter: what is neither delivered nor dead in
    /// the end was filtered by one of the two.
    resumed: bool,
    /// What receipts cover, for a work that is given back before it is complete.
    covered: Vec<Positions>,
    /// Whether records may have reached the destination without a receipt.
    pub(crate) ambiguous: bool,
}

/// The sums of a work do not agree: a bug, or a body that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "of {due} records {delivered} were delivered, {filtered} filtered and {dead} refused: the sums do not agree"
)]
pub(crate) struct Imbalance {
    due: u32,
    delivered: u32,
    filtered: u32,
    dead: u32,
}

impl Account {
    /// Opens an account. `already` was confirmed in an earlier turn.
    pub(crate) fn new(work: &Work, already: &Positions, resumed: bool) -> Self {
        Self {
            due: work.records.saturating_sub(work.duplicates),
            delivered: count(already.len()),
            filtered: 0,
            dead: Vec::new(),
            resent: 0,
            open: 0,
            read: false,
            resumed: resumed || !already.is_empty(),
            covered: if already.is_empty() { Vec::new() } else { vec![already.clone()] },
            ambiguous: false,
        }
    }

    pub(crate) fn rendered(&mut self, records: usize) {
        self.open += count(records);
    }

    pub(crate) fn filtered(&mut self, records: u32) {
        self.filtered += records;
    }

    /// A record that was never rendered is dead.
    pub(crate) fn unrenderable(&mut self, record: DeadRecord) {
        self.dead.push(record);
    }

    /// The body was read to its end.
    pub(crate) fn read(&mut self) {
        self.read = true;
    }

    /// A receipt covers these.
    pub(crate) fn delivered(&mut self, slice: &Slice) {
        self.open -= count(slice.len());
        self.delivered += count(slice.len());
        self.covered.push(slice.positions.clone());
    }

    /// The sink refused this one.
    pub(crate) fn refused(&mut self, record: DeadRecord) {
        self.open -= 1;
        self.dead.push(record);
    }

    /// These were not sent, and will not be in this turn.
    pub(crate) fn unsent(&mut self, records: usize) {
        self.open -= count(records);
    }

    pub(crate) fn resent(&mut self, records: usize) {
        self.resent += count(records);
    }

    pub(crate) fn resent_so_far(&self) -> u32 {
        self.resent
    }

    /// Whether the body was read to its end.
    pub(crate) fn is_read(&self) -> bool {
        self.read
    }

    /// Whether nothing of it is ready or under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.open == 0
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_complete(&self) -> bool {
        self.read && self.open == 0
    }

    /// What receipts cover so far.
    pub(crate) fn covered(&self) -> Positions {
        let all: BTreeSet<u32> = self.covered.iter().flat_map(Positions::iter).collect();
        all.into_iter().collect()
    }

    /// Closes the account. `begun_before`: an earlier run had begun it, so that all that was sent now may be there
    /// twice.
    pub(crate) fn settle(self, work: &Work, begun_before: bool) -> Result<Settlement, Imbalance> {
        debug_assert!(self.is_complete(), "only what is complete is settled");
        let dead = count(self.dead.len());
        let imbalance =
            Imbalance { due: self.due, delivered: self.delivered, filtered: self.filtered, dead };
        let accounted = self.delivered.checked_add(dead).ok_or(imbalance)?;
        let filtered = if self.resumed {
            self.due.checked_sub(accounted).ok_or(imbalance)?
        } else if accounted.checked_add(self.filtered) == Some(self.due) {
            self.filtered
        } else {
            return Err(imbalance);
        };
        debug_assert_eq!(u64::from(self.due), u64::from(accounted) + u64::from(filtered), "L10");
        Ok(Settlement {
            work: work.id,
            delivered: self.delivered,
            filtered,
            dead: self.dead,
            resent: if begun_before { self.resent.max(self.delivered) } else { self.resent },
        })
    }
}

fn count(records: usize) -> u32 {
    u32::try_from(records).expect("a blob has under 2^32 records, as its positions are u32")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_ledger::work;

    #[test]
    fn a_work_whose_sums_do_not_agree_is_not_settled() {
        let work = work(1, 5);
        let mut account = Account::new(&work, &Positions::default(), false);
        account.filtered(4);
        account.read();
        let imbalance = account.settle(&work, false).unwrap_err();
        assert_eq!(imbalance.due, 5);
        assert_eq!(imbalance.filtered, 4);
    }

    #[test]
    fn what_an_earlier_turn_delivered_counts_once() {
        let work = work(1, 5);
        let already: Positions = [0, 1, 2].into_iter().collect();
        let mut account = Account::new(&work, &already, false);
        account.unrenderable(DeadRecord { position: 3, reason: "broken".into() });
        account.read();
        assert_eq!(account.covered(), already);
        let settlement = account.settle(&work, false).unwrap();
        assert_eq!((settlement.delivered, settlement.filtered, settlement.dead.len()), (3, 1, 1));
    }
}
