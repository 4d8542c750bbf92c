//! The order of batches that are under way at the same time.
//!
//! A batch that has a [`Place`] is given on when those before it were, and never once one of them has failed. The delivery
//! loop keeps the order in which a sink gets batches with it, and a sink that of what it does with them.

use std::sync::Arc;

use tokio::sync::watch;

/// A line of batches. After a failure it takes a new one to go on.
#[derive(Debug)]
pub(crate) struct Line {
    standing: Arc<watch::Sender<Standing>>,
    next: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    /// How many were given on.
    given: u64,
    /// How many have ended.
    ended: u64,
    /// Whether one has failed.
    broken: bool,
}

/// A batch's place in a line. Whoever drops it before its batch was taken breaks the line.
#[derive(Debug)]
pub(crate) struct Place {
    standing: Arc<watch::Sender<Standing>>,
    number: u64,
    taken: bool,
}

impl Line {
    pub(crate) fn new() -> Self {
        Self { standing: Arc::new(watch::Sender::default()), next: 0 }
    }

    /// The place behind all others.
    pub(crate) fn join(&mut self) -> Place {
        let number = self.next;
        self.next += 1;
        Place { standing: Arc::clone(&self.standing), number, taken: false }
    }
}

impl Place {
    /// Waits until everything before it was given on; whether nothing has failed.
    pub(crate) async fn turn(&self) -> bool {
        self.until(|standing| standing.broken || standing.given == self.number).await;
        !self.is_broken()
    }

    /// Whether something in the line has failed.
    pub(crate) fn is_broken(&self) -> bool {
        self.standing.borrow().broken
    }

    /// The batch was given on: whoever is behind it may follow.
    pub(crate) fn given(&self) {
        self.standing.send_modify(|standing| {
            debug_assert_eq!(standing.given, self.number, "places are given in order");
            standing.given += 1;
        });
    }

    /// The destination has taken the batch.
    pub(crate) fn taken(&mut self) {
        self.taken = true;
    }

    /// The batch failed: nothing follows it.
    pub(crate) fn fail(&self) {
        self.standing.send_modify(|standing| standing.broken = true);
    }

    /// Waits until everything before it has ended, well or not.
    pub(crate) async fn those_before(&self) {
        self.until(|standing| standing.ended >= self.number).await;
    }

    async fn until(&self, reached: impl FnMut(&Standing) -> bool) {
        // The sender lives as long as the place does.
        let _ = self.standing.subscribe().wait_for(reached).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.standing.send_modify(|standing| {
            standing.ended = standing.ended.max(self.number + 1);
            standing.broken |= !self.taken;
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn each_waits_for_those_before_it() {
        let mut line = Line::new();
        let (mut first, second) = (line.join(), line.join());
        assert_eq!(second.turn().now_or_never(), None);
        assert_eq!(first.turn().now_or_never(), Some(true));
        first.given();
        assert_eq!(second.turn().now_or_never(), Some(true));
        assert_eq!(second.those_before().now_or_never(), None);
        first.taken();
        drop(first);
        assert_eq!(second.those_before().now_or_never(), Some(()));
        assert!(!second.is_broken());
    }

    #[tokio::test]
    async fn nothing_follows_what_failed_or_was_dropped() {
        for drops in [false, true] {
            let mut line = Line::new();
            let (first, second) = (line.join(), line.join());
            if drops {
                drop(first);
            } else {
                first.fail();
            }
            assert_eq!(second.turn().now_or_never(), Some(false));
            assert_eq!(
                line.join().turn().now_or_never(),
                Some(false),
                "whoever comes later is behind it too"
            );
        }
    }
}
