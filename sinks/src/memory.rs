//! Memory is reserved in bytes before it is used (L8).
//!
//! One [`MemoryBudget`] is for all sinks together. Each takes a [`MemoryShare`] of it that nobody else can use up, so
//! that a sink whose destination hangs holds its own share and stops no other (L11). Within a share, who asks first
//! is served first; what is larger than the whole share is served when nothing else is held: it runs alone.

use std::{
    collections::VecDeque,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use schemas::Rendered;
use tokio::sync::oneshot;

/// Bytes that all sinks together may hold.
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<Whole>);

#[derive(Debug)]
struct Whole {
    bytes: usize,
    /// The weights of all shares together.
    weights: Mutex<usize>,
}

/// One user's part of a [`MemoryBudget`], by weight.
#[derive(Debug, Clone)]
pub struct MemoryShare(Arc<Part>);

#[derive(Debug)]
struct Part {
    whole: Arc<Whole>,
    weight: usize,
    holdings: Mutex<Holdings>,
}

#[derive(Debug, Default)]
struct Holdings {
    bytes: usize,
    waiting: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    bytes: usize,
    turn: oneshot::Sender<Reservation>,
}

/// Bytes that are reserved until this is dropped.
#[derive(Debug)]
#[must_use = "a reservation that is dropped reserves nothing"]
pub struct Reservation {
    /// `None` for memory that no budget counts.
    part: Option<Arc<Part>>,
    bytes: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here leaves its numbers half changed, so a panic elsewhere is no reason to stop.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Whole { bytes, weights: Mutex::new(0) }))
    }

    /// A share of it. The others shrink when a share is taken and grow when one is dropped.
    #[must_use]
    pub fn share(&self, weight: usize) -> MemoryShare {
        *lock(&self.0.weights) += weight;
        MemoryShare(Arc::new(Part { whole: Arc::clone(&self.0), weight, holdings: Mutex::default() }))
    }
}

impl MemoryShare {
    /// Waits until so many bytes are free, in the order of asking.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        let turn = {
            let mut holdings = lock(&self.0.holdings);
            if holdings.waiting.is_empty() && self.0.fits(&holdings, bytes) {
                return self.0.take(&mut holdings, bytes);
            }
            let (sender, receiver) = oneshot::channel();
            holdings.waiting.push_back(Waiter { bytes, turn: sender });
            receiver
        };
        turn.await.expect("the share outlives whoever waits for it and answers every waiter")
    }

    /// The bytes, if they are free and nobody waits.
    #[must_use]
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let mut holdings = lock(&self.0.holdings);
        let free = holdings.waiting.is_empty() && self.0.fits(&holdings, bytes);
        free.then(|| self.0.take(&mut holdings, bytes))
    }

    /// How many bytes are reserved.
    #[must_use]
    pub fn held(&self) -> usize {
        lock(&self.0.holdings).bytes
    }

    /// How many bytes it may hold.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.0.limit()
    }
}

impl Part {
    fn limit(&self) -> usize {
        let weights = (*lock(&self.whole.weights)).max(self.weight).max(1);
        self.whole.bytes / weights * self.weight
    }

    fn fits(&self, holdings: &Holdings, bytes: usize) -> bool {
        holdings.bytes == 0 || holdings.bytes.saturating_add(bytes) <= self.limit()
    }

    fn take(self: &Arc<Self>, holdings: &mut Holdings, bytes: usize) -> Reservation {
        holdings.bytes += bytes;
        Reservation { part: Some(Arc::clone(self)), bytes }
    }

    fn give_back(self: &Arc<Self>, bytes: usize) {
        let mut holdings = lock(&self.holdings);
        holdings.bytes -= bytes;
        loop {
            while holdings.waiting.front().is_some_and(|waiter| waiter.turn.is_closed()) {
                holdings.waiting.pop_front();
            }
            match holdings.waiting.front() {
                Some(waiter) if self.fits(&holdings, waiter.bytes) => {}
                _ => return,
            }
            let Some(waiter) = holdings.waiting.pop_front() else { return };
            let reservation = self.take(&mut holdings, waiter.bytes);
            if let Err(mut unclaimed) = waiter.turn.send(reservation) {
                // Its drop would want the lock that is held here.
                unclaimed.part = None;
                holdings.bytes -= waiter.bytes;
            }
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        *lock(&self.whole.weights) -= self.weight;
    }
}

impl Reservation {
    /// Memory that no budget counts: for sinks that are tried outside a delivery loop.
    pub fn uncounted() -> Self {
        Self { part: None, bytes: 0 }
    }

    /// How many bytes are reserved.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Corrects an estimate. More is taken without waiting, because it is in use already; others wait the longer.
    pub fn correct(&mut self, bytes: usize) {
        if let Some(part) = &self.part {
            if bytes >= self.bytes {
                lock(&part.holdings).bytes += bytes - self.bytes;
            } else {
                part.give_back(self.bytes - bytes);
            }
            self.bytes = bytes;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            part.give_back(self.bytes);
        }
    }
}

/// Rendered records and the room in memory that is reserved for them.
#[derive(Debug, Clone)]
pub struct Piece {
    rendered: Arc<Rendered>,
    /// Held for as long as the piece is.
    _room: Arc<Reservation>,
}

impl Piece {
    /// Joins records with the room that was reserved for them, alone or with others.
    #[must_use]
    pub fn new(rendered: Arc<Rendered>, room: Arc<Reservation>) -> Self {
        Self { rendered, _room: room }
    }
}

impl Deref for Piece {
    type Target = Rendered;

    fn deref(&self) -> &Rendered {
        &self.rendered
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use futures_util::{FutureExt, future::join_all};
    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn who_asks_first_is_served_first_and_the_oversized_runs_alone() {
        let share = MemoryBudget::new(100).share(1);
        let held = share.reserve(60).await;
        let mut large = Box::pin(share.reserve(500));
        let mut small = Box::pin(share.reserve(1));
        assert!(large.as_mut().now_or_never().is_none());
        assert!(small.as_mut().now_or_never().is_none(), "the large one came first");
        assert!(share.try_reserve(1).is_none());
        drop(held);
        let large = large.as_mut().now_or_never().expect("nothing else is held");
        assert!(small.as_mut().now_or_never().is_none());
        drop(large);
        assert!(small.as_mut().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_share_is_not_used_up_by_another() {
        let budget = MemoryBudget::new(100);
        let (one, other) = (budget.share(3), budget.share(1));
        let _all = one.reserve(75).await;
        assert!(one.try_reserve(1).is_none());
        let _rest = other.try_reserve(25).expect("its own share");
        assert!(other.try_reserve(1).is_none());
        drop(other);
        assert_eq!(one.limit(), 75, "a share lives as long as what is reserved from it");
        drop(_rest);
        assert_eq!(one.limit(), 99);
    }

    #[tokio::test]
    async fn who_stops_waiting_takes_nothing() {
        let share = MemoryBudget::new(100).share(1);
        let held = share.reserve(100).await;
        let mut gone = Box::pin(share.reserve(50));
        assert!(gone.as_mut().now_or_never().is_none());
        drop(gone);
        let mut next = Box::pin(share.reserve(100));
        assert!(next.as_mut().now_or_never().is_none());
        drop(held);
        assert!(next.as_mut().now_or_never().is_some());
        drop(next);
        assert_eq!(share.held(), 0);
    }

    proptest! {
        /// L8: what is held is never more than the share, except for one that is alone.
        #[test]
        fn the_budget_is_never_exceeded(sizes in proptest::collection::vec(1usize..150, 1..30)) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let share = MemoryBudget::new(100).share(1);
                let (bytes, count) = (AtomicUsize::new(0), AtomicUsize::new(0));
                join_all(sizes.iter().map(|&size| {
                    let (share, bytes, count) = (&share, &bytes, &count);
                    async move {
                        let _room = share.reserve(size).await;
                        let now = bytes.fetch_add(size, Ordering::Relaxed) + size;
                        let others = count.fetch_add(1, Ordering::Relaxed);
                        assert!(now <= 100 || others == 0, "{now} bytes held by {}", others + 1);
                        tokio::time::sleep(Duration::from_millis(size as u64)).await;
                        bytes.fetch_sub(size, Ordering::Relaxed);
                        count.fetch_sub(1, Ordering::Relaxed);
                    }
                })).await;
                assert_eq!(share.held(), 0);
            });
        }
    }
}
