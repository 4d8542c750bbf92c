//! Whose turn it is at files that only one sink may write to.
//!
//! Work that blocks goes on when nobody waits for it any more: a write to a disk that hangs outlives its sink when that
//! is stopped, because the configuration was read again. The sink of the same name that comes next has the same state
//! in the ledger and the same files. So it begins only when nothing of the one before is under way, and from then on
//! nothing of the one before begins.

use std::sync::{
    Arc, PoisonError, RwLock, RwLockReadGuard, TryLockError,
    atomic::{AtomicU64, Ordering},
};

use crate::sink::DeliverError;

/// The turns of all sinks of one name in this process, one after the other. Whoever keeps the sink's state keeps it.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<All>);

#[derive(Debug, Default)]
struct All {
    /// How many have joined.
    joined: AtomicU64,
    /// Whose turn it is: nobody's (0) before the first begins. Everything that is under way holds it for reading.
    present: RwLock<u64>,
}

/// One sink's turn, which comes behind those of all that joined before it.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    all: Arc<All>,
    number: u64,
}

/// Why nothing may be done with the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotNow {
    /// Something that was begun earlier has not ended.
    #[error(
        "a write that was begun before it was started has not ended; it waits for that, so that nothing is written twice"
    )]
    UnderWay,
    /// A sink that joined later has begun.
    #[error("the sink was started anew meanwhile")]
    Over,
}

/// Something is under way as long as this is kept.
#[derive(Debug)]
pub(crate) struct UnderWay<'a> {
    _present: RwLockReadGuard<'a, u64>,
}

impl NotNow {
    /// As the delivery loop is to see it.
    pub(crate) fn retried(self) -> DeliverError {
        DeliverError::retry(self.to_string())
    }
}

impl Turns {
    pub(crate) fn join(&self) -> Turn {
        let number = self.0.joined.fetch_add(1, Ordering::Relaxed) + 1;
        Turn { all: Arc::clone(&self.0), number }
    }
}

impl Turn {
    /// Begins the turn when nothing of another is under way. From then on those that joined earlier can do nothing. It
    /// never waits for them.
    pub(crate) fn begin(&self) -> Result<(), NotNow> {
        if self.enter().is_ok() {
            return Ok(());
        }
        let mut present = match self.all.present.try_write() {
            Ok(present) => present,
            // A number is whole, whatever panicked.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(NotNow::UnderWay),
        };
        if *present > self.number {
            return Err(NotNow::Over);
        }
        *present = self.number;
        Ok(())
    }

    /// Something is about to be done, in this turn.
    pub(crate) fn enter(&self) -> Result<UnderWay<'_>, NotNow> {
        let present = self.all.present.read().unwrap_or_else(PoisonError::into_inner);
        if *present == self.number { Ok(UnderWay { _present: present }) } else { Err(NotNow::Over) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_follow_each_other_and_none_begins_while_something_is_under_way() {
        let turns = Turns::default();
        let (first, second) = (turns.join(), turns.join());
        assert_eq!(first.enter().unwrap_err(), NotNow::Over, "nobody has begun");
        first.begin().unwrap();
        let (one, other) = (first.enter().unwrap(), first.enter().unwrap());
        assert_eq!(second.begin(), Err(NotNow::UnderWay));
        drop(one);
        assert_eq!(second.begin(), Err(NotNow::UnderWay));
        drop(other);
        second.begin().unwrap();
        let own = second.enter().unwrap();
        second.begin().expect("what is its own does not keep it waiting");
        drop(own);
        assert_eq!(first.enter().unwrap_err(), NotNow::Over);
        assert_eq!(first.begin(), Err(NotNow::Over), "it does not come back");
        assert!(second.enter().is_ok());
        assert!(Turns::default().join().begin().is_ok(), "other names are not concerned");
    }

    #[test]
    fn a_panic_under_way_ends_it() {
        let turns = Turns::default();
        let (first, second) = (turns.join(), turns.join());
        first.begin().unwrap();
        let of_thread = first.clone();
        let panicked = std::thread::spawn(move || {
            let _under_way = of_thread.enter().unwrap();
            panic!("a fault");
        });
        assert!(panicked.join().is_err());
        second.begin().unwrap();
        assert!(second.enter().is_ok());
    }
}
