//! The faults of a running simulation: which request suffers which, and what may still change.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError, RwLock},
};

use crate::{BadFault, FaultKind, Faults, dice::hash, faults::Rule};

/// The faults of a running simulation and how often each item suffered which.
#[derive(Debug)]
pub(crate) struct FaultDesk {
    seed: u64,
    faults: RwLock<Faults>,
    /// How often a blob suffered a fault, by fault and blob (a hash of both).
    blobs: Mutex<HashMap<(FaultKind, u64), u32>>,
    /// The turn at which each queue of requests is.
    turns: Mutex<HashMap<u64, Turn>>,
}

/// A request of a queue, with all of its failed attempts.
#[derive(Debug, Default)]
struct Turn {
    number: u64,
    failed: HashMap<FaultKind, u32>,
}

impl FaultDesk {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        Self { seed, faults: RwLock::new(faults), blobs: Mutex::default(), turns: Mutex::default() }
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&Faults) -> T) -> T {
        look(&self.faults.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the faults of the running simulation.
    pub(crate) fn change(
        &self,
        change: impl FnOnce(&mut Faults) -> Result<(), BadFault>,
    ) -> Result<(), BadFault> {
        let mut faults = self.faults.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = faults.clone();
        change(&mut changed)?;
        for kind in FaultKind::ALL.iter().copied().filter(|kind| kind.is_structural()) {
            if changed.rule(kind) != faults.rule(kind) {
                return Err(BadFault::StartOnly { name: kind.name() });
            }
        }
        if changed.clock_skew != faults.clock_skew {
            return Err(BadFault::StartOnly { name: "clock_skew" });
        }
        *faults = changed;
        Ok(())
    }

    /// Takes every fault away that can be taken away while the simulation runs.
    pub(crate) fn clear(&self) {
        let mut faults = self.faults.write().unwrap_or_else(PoisonError::into_inner);
        faults.rules.retain(|kind, _| kind.is_structural());
        let (rules, clock_skew) = (std::mem::take(&mut faults.rules), faults.clock_skew);
        *faults = Faults { rules, clock_skew, ..Faults::default() };
    }

    /// The fault that this fetch of a blob suffers, if any. `feed` and `number` tell which blob.
    pub(crate) fn on_blob(&self, feed: u64, number: u64) -> Option<(FaultKind, Rule)> {
        let seed = hash(&[self.seed, feed]);
        FaultKind::FETCH.iter().copied().find_map(|kind| {
            let rule = self.read(|faults| faults.rule(kind))?;
            if !rule.share.takes(kind, seed, number) {
                return None;
            }
            let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
            let suffered = blobs.entry((kind, hash(&[feed, number]))).or_default();
            (*suffered < rule.times).then(|| {
                *suffered += 1;
                (kind, rule)
            })
        })
    }

    /// The fault that the next request of a queue suffers, if any of these. A turn suffers each of the faults that it
    /// is afflicted with, one after the other, and then succeeds, whatever the number of faults.
    pub(crate) fn on_turn(&self, queue: u64, kinds: &[FaultKind]) -> Option<(FaultKind, Rule)> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = turns.entry(queue).or_default();
        let suffers = kinds.iter().copied().find_map(|kind| {
            let rule = self.read(|faults| faults.rule(kind))?;
            let failed = turn.failed.get(&kind).copied().unwrap_or_default();
            let due = failed < rule.times && rule.share.takes(kind, hash(&[self.seed, queue]), turn.number);
            due.then_some((kind, rule))
        });
        match suffers {
            Some((kind, _)) => *turn.failed.entry(kind).or_default() += 1,
            None => *turn = Turn { number: turn.number + 1, failed: HashMap::new() },
        }
        suffers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_suffers_each_fault_that_often_and_then_never_again() {
        let desk = FaultDesk::new(1, "cut_body=1x2,server_error=1/1".parse().unwrap());
        let suffered: Vec<_> = (0..6).map(|_| desk.on_blob(1, 7).map(|(kind, _)| kind)).collect();
        assert_eq!(
            suffered,
            [
                Some(FaultKind::ServerError),
                Some(FaultKind::CutBody),
                Some(FaultKind::CutBody),
                None,
                None,
                None
            ]
        );
    }

    #[test]
    fn a_queue_of_requests_always_moves_on() {
        let desk = FaultDesk::new(1, "server_error=1x2".parse().unwrap());
        let failed: Vec<_> = (0..6).map(|_| desk.on_turn(1, FaultKind::LIST).is_some()).collect();
        assert_eq!(failed, [true, true, false, true, true, false]);
        let all =
            FaultKind::LIST.iter().map(|kind| format!("{}=1", kind.name())).collect::<Vec<_>>().join(",");
        let desk = FaultDesk::new(1, all.parse().unwrap());
        let failed = (0..2 * (FaultKind::LIST.len() + 1))
            .filter(|_| desk.on_turn(1, FaultKind::LIST).is_some())
            .count();
        assert_eq!(failed, 2 * FaultKind::LIST.len(), "each fault once, then it works");
    }

    #[test]
    fn what_the_tenant_holds_does_not_change_while_it_runs() {
        let desk = FaultDesk::new(1, "late=0.1".parse().unwrap());
        assert_eq!(
            desk.change(|faults| faults.set("same_created=1")),
            Err(BadFault::StartOnly { name: "same_created" })
        );
        assert_eq!(desk.change(|faults| faults.set("late=0")), Err(BadFault::StartOnly { name: "late" }));
        desk.change(|faults| faults.set("gone=1")).unwrap();
        desk.clear();
        assert_eq!(desk.read(Clone::clone), "late=0.1".parse().unwrap());
    }
}
