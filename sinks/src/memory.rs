//! Memory is reserved in bytes before it is used (L8).
//!
//! One [`MemoryBudget`] is for all sinks together. Each takes a [`MemoryShare`] of it that nobody else can use up, so
//! that a sink whose destination hangs holds its own share and stops no other (L11). Within a share, who asks first
//! is served first; what is larger than what there is is served when nothing else of the share is held: it runs alone.
//!
//! Shares are dealt anew whenever one is taken or dropped, also while others are in use. What was reserved before
//! stays reserved, and a new share grows into its part as the others give back, so that all of them together hold no
//! more than the budget, except for what runs alone.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use schemas::Rendered;
use tokio::sync::oneshot;

/// Bytes that all sinks together may hold.
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<Whole>);

/// One user's part of a [`MemoryBudget`], by weight.
#[derive(Debug, Clone)]
pub struct MemoryShare(Arc<Owner>);

#[derive(Debug)]
struct Whole {
    bytes: usize,
    dealt: Mutex<Dealt>,
}

/// How the budget is dealt, and who holds and waits for what.
#[derive(Debug, Default)]
struct Dealt {
    next_part: u64,
    /// The weights of all parts together.
    weights: usize,
    /// What all parts together hold.
    held: usize,
    parts: BTreeMap<u64, Part>,
}

/// One share. It lives as long as its owner or anything that is reserved from it.
#[derive(Debug)]
struct Part {
    weight: usize,
    owned: bool,
    bytes: usize,
    waiting: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    bytes: usize,
    turn: oneshot::Sender<Reservation>,
}

#[derive(Debug)]
struct Owner {
    whole: Arc<Whole>,
    number: u64,
}

/// Bytes that are reserved until this is dropped.
#[derive(Debug)]
#[must_use = "a reservation that is dropped reserves nothing"]
pub struct Reservation {
    /// `None` for memory that no budget counts.
    whole: Option<Arc<Whole>>,
    /// Which part of it.
    number: u64,
    bytes: usize,
}

impl MemoryBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Whole { bytes, dealt: Mutex::default() }))
    }

    /// A share of it. The others shrink when a share is taken and grow when one is dropped.
    #[must_use]
    pub fn share(&self, weight: usize) -> MemoryShare {
        let mut dealt = self.0.lock();
        let number = dealt.next_part;
        dealt.next_part += 1;
        dealt.weights += weight;
        dealt.parts.insert(number, Part { weight, owned: true, bytes: 0, waiting: VecDeque::new() });
        MemoryShare(Arc::new(Owner { whole: Arc::clone(&self.0), number }))
    }

    /// How many bytes are reserved by all shares together.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.lock().held
    }
}

impl MemoryShare {
    /// Waits until so many bytes are free, in the order of asking.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        let turn = {
            let mut dealt = self.0.whole.lock();
            if let Some(reservation) = self.0.take_if_free(&mut dealt, bytes) {
                return reservation;
            }
            let (sender, receiver) = oneshot::channel();
            let part = dealt.parts.get_mut(&self.0.number).expect("a part lives as long as its owner");
            part.waiting.push_back(Waiter { bytes, turn: sender });
            receiver
        };
        turn.await.expect("the share outlives whoever waits for it and answers every waiter")
    }

    /// The bytes, if they are free and nobody waits.
    #[must_use]
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        self.0.take_if_free(&mut self.0.whole.lock(), bytes)
    }

    /// How many bytes are reserved.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.whole.lock().parts.get(&self.0.number).map_or(0, |part| part.bytes)
    }

    /// How many bytes it may hold.
    #[must_use]
    pub fn limit(&self) -> usize {
        let dealt = self.0.whole.lock();
        dealt.parts.get(&self.0.number).map_or(0, |part| self.0.whole.limit(&dealt, part))
    }
}

impl Owner {
    fn take_if_free(&self, dealt: &mut Dealt, bytes: usize) -> Option<Reservation> {
        let part = dealt.parts.get(&self.number)?;
        let free = part.waiting.is_empty() && self.whole.fits(dealt, part, bytes);
        free.then(|| self.whole.take(dealt, self.number, bytes))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut dealt = self.whole.lock();
        if let Some(part) = dealt.parts.get_mut(&self.number) {
            part.owned = false;
        }
        dealt.bury(self.number);
        self.whole.serve(&mut dealt);
    }
}

impl Whole {
    fn lock(&self) -> MutexGuard<'_, Dealt> {
        // Nothing here leaves its numbers half changed, so a panic elsewhere is no reason to stop.
        self.dealt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limit(&self, dealt: &Dealt, part: &Part) -> usize {
        self.bytes / dealt.weights.max(1) * part.weight
    }

    /// Whether a part may take so much more. One that holds nothing always may: that is how what is too large runs
    /// alone, and how a new share gets on while the others have yet to give back what it is to have.
    fn fits(&self, dealt: &Dealt, part: &Part, bytes: usize) -> bool {
        part.bytes == 0
            || (part.bytes.saturating_add(bytes) <= self.limit(dealt, part)
                && dealt.held.saturating_add(bytes) <= self.bytes)
    }

    fn take(self: &Arc<Self>, dealt: &mut Dealt, number: u64, bytes: usize) -> Reservation {
        dealt.add(number, bytes);
        Reservation { whole: Some(Arc::clone(self)), number, bytes }
    }

    fn give_back(self: &Arc<Self>, number: u64, bytes: usize) {
        let mut dealt = self.lock();
        dealt.remove(number, bytes);
        dealt.bury(number);
        self.serve(&mut dealt);
    }

    /// Serves everybody who waits for what is free now.
    fn serve(self: &Arc<Self>, dealt: &mut Dealt) {
        let waited_for: Vec<u64> =
            dealt.parts.iter().filter(|(_, part)| !part.waiting.is_empty()).map(|(n, _)| *n).collect();
        for number in waited_for {
            while let Some(waiter) = self.next_to_serve(dealt, number) {
                let reservation = self.take(dealt, number, waiter.bytes);
                if let Err(mut unclaimed) = waiter.turn.send(reservation) {
                    // Its drop would want the lock that is held here.
                    unclaimed.whole = None;
                    dealt.remove(number, waiter.bytes);
                }
            }
        }
    }

    /// Takes the first of a part's waiters off, if its turn has come.
    fn next_to_serve(&self, dealt: &mut Dealt, number: u64) -> Option<Waiter> {
        let waiting = &mut dealt.parts.get_mut(&number)?.waiting;
        while waiting.front().is_some_and(|waiter| waiter.turn.is_closed()) {
            waiting.pop_front();
        }
        let part = dealt.parts.get(&number)?;
        let fits = self.fits(dealt, part, part.waiting.front()?.bytes);
        if fits { dealt.parts.get_mut(&number)?.waiting.pop_front() } else { None }
    }
}

impl Dealt {
    fn add(&mut self, number: u64, bytes: usize) {
        if let Some(part) = self.parts.get_mut(&number) {
            part.bytes += bytes;
            self.held += bytes;
        }
    }

    fn remove(&mut self, number: u64, bytes: usize) {
        if let Some(part) = self.parts.get_mut(&number) {
            part.bytes -= bytes;
            self.held -= bytes;
        }
    }

    /// Ends a part that nobody uses any more.
    fn bury(&mut self, number: u64) {
        if let Some(part) = self.parts.get(&number).filter(|part| !part.owned && part.bytes == 0) {
            self.weights -= part.weight;
            self.parts.remove(&number);
        }
    }
}

impl Reservation {
    /// Memory that no budget counts: for sinks that are tried outside a delivery loop.
    pub fn uncounted() -> Self {
        Self { whole: None, number: 0, bytes: 0 }
    }

    /// How many bytes are reserved.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Corrects an estimate. More is taken without waiting, because it is in use already; others wait the longer.
    pub fn correct(&mut self, bytes: usize) {
        if let Some(whole) = &self.whole {
            if bytes >= self.bytes {
                whole.lock().add(self.number, bytes - self.bytes);
            } else {
                whole.give_back(self.number, self.bytes - bytes);
            }
            self.bytes = bytes;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(whole) = &self.whole {
            whole.give_back(self.number, self.bytes);
        }
    }
}

/// Rendered records and the room in memory that is reserved for them.
#[derive(Debug, Clone)]
pub struct Piece {
    rendered: Arc<Rendered>,
    /// Held for as long as the piece is.
    room: Arc<Reservation>,
}

impl Piece {
    /// Joins records with the room that was reserved for them, alone or with others.
    #[must_use]
    pub fn new(rendered: Arc<Rendered>, room: Arc<Reservation>) -> Self {
        Self { rendered, room }
    }

    /// The room alone.
    pub(crate) fn room(&self) -> Arc<Reservation> {
        Arc::clone(&self.room)
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

    #[tokio::test]
    async fn a_new_share_grows_into_its_part_as_the_others_give_back() {
        let budget = MemoryBudget::new(100);
        let old = budget.share(1);
        let mut held: Vec<_> = Vec::new();
        for _ in 0..10 {
            held.push(old.reserve(10).await);
        }
        let new = budget.share(1);
        assert_eq!((old.limit(), new.limit()), (50, 50));
        // The old one hangs with all of it: the new one gets on, one reservation at a time.
        let first = new.try_reserve(20).expect("it holds nothing");
        let second = {
            let mut second = Box::pin(new.reserve(20));
            assert!(second.as_mut().now_or_never().is_none());
            assert!(old.try_reserve(1).is_none());
            held.truncate(7);
            assert!(second.as_mut().now_or_never().is_none(), "90 are held");
            held.truncate(6);
            second.as_mut().now_or_never().expect("what the other gave back is its own")
        };
        assert!(old.try_reserve(1).is_none(), "the old one is above its part");
        assert_eq!(budget.held(), 100);
        drop((first, second, new));
        held.clear();
        assert_eq!((budget.held(), old.limit()), (0, 100));
    }

    #[tokio::test]
    async fn who_waits_is_served_when_another_share_ends() {
        let budget = MemoryBudget::new(100);
        let (one, other) = (budget.share(1), budget.share(1));
        let _held = one.reserve(50).await;
        let mut more = Box::pin(one.reserve(40));
        assert!(more.as_mut().now_or_never().is_none());
        drop(other);
        assert!(more.as_mut().now_or_never().is_some());
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

        /// L8 while sinks come and go: no more than the budget is held, except by those that run alone.
        #[test]
        fn the_budget_is_never_exceeded_while_shares_come_and_go(
            steps in proptest::collection::vec((0usize..4, 0usize..6, 1usize..60), 1..120)
        ) {
            let budget = MemoryBudget::new(100);
            let mut shares: Vec<MemoryShare> = vec![budget.share(1)];
            let mut held: Vec<Reservation> = Vec::new();
            for (what, which, bytes) in steps {
                match what {
                    0 => shares.push(budget.share(1 + which)),
                    1 if shares.len() > 1 => drop(shares.remove(which % shares.len())),
                    2 if !held.is_empty() => drop(held.remove(which % held.len())),
                    _ => {
                        let share = &shares[which % shares.len()];
                        let alone = share.held() == 0;
                        let before = budget.held();
                        if let Some(reservation) = share.try_reserve(bytes) {
                            prop_assert!(alone || (before + bytes <= 100 && share.held() <= share.limit()));
                            held.push(reservation);
                        }
                    }
                }
                prop_assert_eq!(budget.held(), held.iter().map(Reservation::bytes).sum::<usize>());
            }
            held.clear();
            prop_assert_eq!(budget.held(), 0);
            prop_assert!(shares.iter().map(MemoryShare::limit).sum::<usize>() <= 100);
        }
    }
}
