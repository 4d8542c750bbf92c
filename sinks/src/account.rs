//! What became of a work's records, until every one of them is accounted for (L3, L10).

use std::collections::BTreeSet;

use crate::{
    batching::Slice,
    delivery_ledger::{DeadRecord, Settlement, Work},
    partial::Partial,
    positions::Positions,
};

/// The sums of one work for one sink.
#[derive(Debug)]
pub(crate) struct Account {
    /// Records of the body that are no duplicates: what has to be accounted for.
    due: u32,
    delivered: u32,
    /// Of these, what an earlier turn delivered.
    already: u32,
    filtered: u32,
    dead: Vec<DeadRecord>,
    resent: u32,
    /// Rendered and not yet accounted for.
    open: u32,
    /// Whether the body was read to its end.
    read: bool,
    /// How many records were chosen by an earlier turn, perhaps by another filter, and are not sent again when the
    /// body is read.
    chosen: u32,
    /// How many of these were met when the body was read. The filter took out the others now, and counted them.
    met: u32,
    /// What receipts cover, for a work that is given back before it is complete.
    covered: Vec<Positions>,
    /// Whether records may have reached the destination without a receipt, and its sink will not recognise them.
    pub(crate) ambiguous: bool,
}

/// The sums of a work do not agree: a bug.
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
    /// Opens an account. `partial` is what an earlier turn did, `chosen` how many records it chose to send.
    pub(crate) fn new(work: &Work, partial: &Partial, chosen: usize) -> Self {
        let already = &partial.delivered;
        Self {
            due: work.records.saturating_sub(work.duplicates),
            delivered: count(already.len()),
            already: count(already.len()),
            filtered: 0,
            dead: Vec::new(),
            resent: partial.resent,
            open: 0,
            read: false,
            chosen: count(chosen),
            met: 0,
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

    /// So many records were met that an earlier turn chose.
    pub(crate) fn met(&mut self, records: usize) {
        self.met += count(records);
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

    /// Whether nothing of it is ready or under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.open == 0
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_complete(&self) -> bool {
        self.read && self.open == 0
    }

    /// What is to be remembered when it is given back before it is complete. For `begun_before` see
    /// [`Account::settle`].
    pub(crate) fn partial(&self, work: &Work, begun_before: u32) -> Partial {
        let all: BTreeSet<u32> = self.covered.iter().flat_map(Positions::iter).collect();
        Partial {
            body: work.body,
            delivered: all.into_iter().collect(),
            resent: self.all_resent(begun_before),
        }
    }

    fn all_resent(&self, begun_before: u32) -> u32 {
        self.resent.saturating_add(begun_before.saturating_mul(self.delivered - self.already))
    }

    /// Closes the account. `begun_before`: how often earlier turns had begun it, so that all that was sent now may be
    /// there as often beside.
    pub(crate) fn settle(self, work: &Work, begun_before: u32) -> Result<Settlement, Imbalance> {
        debug_assert!(self.is_complete(), "only what is complete is settled");
        let resent = self.all_resent(begun_before);
        let dead = count(self.dead.len());
        let imbalance = Imbalance { due: self.due, delivered: self.delivered, filtered: self.filtered, dead };
        let filtered = self.chosen.checked_sub(self.met).and_then(|taken| self.filtered.checked_sub(taken));
        let filtered = filtered.ok_or(imbalance)?;
        let accounted = u64::from(self.delivered) + u64::from(dead) + u64::from(filtered);
        if accounted != u64::from(self.due) {
            return Err(imbalance);
        }
        let Self { delivered, dead, .. } = self;
        Ok(Settlement { work: work.id, body: work.body, delivered, filtered, dead, resent })
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
        let mut account = Account::new(&work, &Partial::default(), 0);
        account.filtered(4);
        account.read();
        let imbalance = account.settle(&work, 0).unwrap_err();
        assert_eq!(imbalance.due, 5);
        assert_eq!(imbalance.filtered, 4);
    }

    #[test]
    fn what_an_earlier_turn_delivered_counts_once() {
        let work = work(1, 5);
        let already = Partial { body: None, delivered: [0, 1, 2].into_iter().collect(), resent: 7 };
        let mut account = Account::new(&work, &already, 3);
        account.unrenderable(DeadRecord { position: 3, reason: "broken".into() });
        // The filter takes out one of the three now, and one that was never sent.
        account.met(2);
        account.filtered(2);
        account.read();
        assert_eq!(account.partial(&work, 1), already);
        let settlement = account.settle(&work, 1).unwrap();
        assert_eq!((settlement.delivered, settlement.filtered, settlement.dead.len()), (3, 1, 1));
        assert_eq!(settlement.resent, 7, "nothing was sent in this turn");
    }
}
