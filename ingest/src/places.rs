//! Places for the bodies that are being taken in, of all tenants together: their memory is bounded (L8).
//!
//! An ordinary body has a place for as long as it comes, which is as many bytes as it can hold at most, and keeps of it
//! what it still holds until it is durable. Who has fewest places gets the next one, and the last few are for tenants
//! that have none, so that nobody who catches up, or whose bodies come slowly, stops the others (L11).
//!
//! A body that outgrows its place, because of one long record or of very many, goes on only when no other such body is
//! being taken in in the whole process. Otherwise it is given up and fetched again when its turn has come: waiting with
//! an open connection would hold its place, and few servers wait that long. Tenants take turns here too.
//!
//! Whoever waits here holds nothing that another one waits for, so that nobody waits forever.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// What all ordinary bodies together may hold.
const ALL: usize = 24 << 20;

/// The part of it that only tenants get who hold nothing.
const FOR_NEWCOMERS: usize = 6 << 20;

/// What an ordinary body holds at most while it comes: [`WRITER`], what is handed over to its writer, and what a piece is
/// packed into.
const PLACE: usize = 2 << 20;

/// What the writer of an ordinary body holds at most. Pieces and frames take some 0.8 MiB of it at most, and the rest is
/// for a record that is not complete and for what is kept of each record until the end.
pub(crate) const WRITER: usize = 1280 << 10;

/// All places.
#[derive(Debug, Clone)]
pub struct Places(Arc<Whole>);

#[derive(Debug)]
struct Whole {
    dealt: Mutex<Dealt>,
    /// The one body that may be larger.
    large: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Dealt {
    held: usize,
    next_tenant: u64,
    next_ticket: u64,
    /// Tenants that hold or wait for something.
    tenants: BTreeMap<u64, Tenant>,
}

#[derive(Debug, Default)]
struct Tenant {
    held: usize,
    /// With the number by which the first of several tenants is known.
    waiting: VecDeque<(u64, oneshot::Sender<Place>)>,
}

/// One tenant's way to places.
#[derive(Debug, Clone)]
pub(crate) struct TenantPlaces {
    whole: Arc<Whole>,
    number: u64,
    /// Only one of its bodies stands in line for the large place.
    line: Arc<Semaphore>,
}

/// A body's place, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Place {
    whole: Arc<Whole>,
    tenant: u64,
    bytes: usize,
    large: Option<Large>,
}

/// The place of the one large body, and of its tenant in the line for it.
#[derive(Debug)]
pub(crate) struct Large {
    _only: OwnedSemaphorePermit,
    _line: Option<OwnedSemaphorePermit>,
}

impl Default for Places {
    fn default() -> Self {
        Self::new()
    }
}

impl Places {
    /// Places of which none is taken.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Whole { dealt: Mutex::default(), large: Arc::new(Semaphore::new(1)) }))
    }

    pub(crate) fn of_a_tenant(&self) -> TenantPlaces {
        let mut dealt = self.0.lock();
        dealt.next_tenant += 1;
        TenantPlaces {
            whole: Arc::clone(&self.0),
            number: dealt.next_tenant,
            line: Arc::new(Semaphore::new(1)),
        }
    }
}

impl TenantPlaces {
    /// Waits for a place, in which a body may hold what [`WRITER`] says.
    pub(crate) async fn ordinary(&self) -> Place {
        let turn = {
            let mut dealt = self.whole.lock();
            let (sender, receiver) = oneshot::channel();
            dealt.next_ticket += 1;
            let ticket = dealt.next_ticket;
            dealt.tenants.entry(self.number).or_default().waiting.push_back((ticket, sender));
            self.whole.serve(&mut dealt);
            receiver
        };
        turn.await.expect("every waiter is answered")
    }

    /// Waits until no large body is being taken in.
    pub(crate) async fn large(&self) -> Large {
        const OPEN: &str = "it is never closed";
        let line = Arc::clone(&self.line).acquire_owned().await.expect(OPEN);
        let only = Arc::clone(&self.whole.large).acquire_owned().await.expect(OPEN);
        Large { _only: only, _line: Some(line) }
    }

    /// A place for a body that is known to be large.
    pub(crate) fn for_large(&self, large: Large) -> Place {
        Place { whole: Arc::clone(&self.whole), tenant: self.number, bytes: 0, large: Some(large) }
    }
}

impl Place {
    /// Makes it the place of a large body, unless there is one.
    pub(crate) fn grow(&mut self) -> bool {
        if self.large.is_none() {
            let only = Arc::clone(&self.whole.large).try_acquire_owned().ok();
            self.large = only.map(|only| Large { _only: only, _line: None });
        }
        self.large.is_some()
    }

    /// The body holds so much from now on, and no more.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.whole.give_back(self.tenant, self.bytes - bytes);
        self.bytes = bytes;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.whole.give_back(self.tenant, self.bytes);
    }
}

impl Whole {
    fn lock(&self) -> MutexGuard<'_, Dealt> {
        // Nothing here leaves its numbers half changed, so a panic elsewhere is no reason to stop.
        self.dealt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(self: &Arc<Self>, tenant: u64, bytes: usize) {
        if bytes > 0 {
            let mut dealt = self.lock();
            dealt.remove(tenant, bytes);
            self.serve(&mut dealt);
        }
    }

    /// Gives out what places are free.
    fn serve(self: &Arc<Self>, dealt: &mut Dealt) {
        while let Some((tenant, turn)) = dealt.next() {
            dealt.add(tenant, PLACE);
            let place = Place { whole: Arc::clone(self), tenant, bytes: PLACE, large: None };
            if let Err(mut unclaimed) = turn.send(place) {
                // Its drop would want the lock that is held here.
                unclaimed.bytes = 0;
                dealt.remove(tenant, PLACE);
            }
        }
    }
}

impl Dealt {
    /// Takes off who is to have the next place, if there is one for anybody.
    fn next(&mut self) -> Option<(u64, oneshot::Sender<Place>)> {
        self.tenants.retain(|_, tenant| {
            tenant.waiting.retain(|(_, turn)| !turn.is_closed());
            tenant.held > 0 || !tenant.waiting.is_empty()
        });
        let free = ALL - self.held;
        let waiting = self.tenants.iter_mut().filter(|(_, tenant)| {
            let kept = if tenant.held == 0 { 0 } else { FOR_NEWCOMERS };
            !tenant.waiting.is_empty() && free >= PLACE + kept
        });
        let (number, tenant) = waiting
            .min_by_key(|(_, tenant)| (tenant.held, tenant.waiting.front().map(|(ticket, _)| *ticket)))?;
        Some((*number, tenant.waiting.pop_front()?.1))
    }

    fn add(&mut self, tenant: u64, bytes: usize) {
        self.tenants.entry(tenant).or_default().held += bytes;
        self.held += bytes;
    }

    fn remove(&mut self, tenant: u64, bytes: usize) {
        if let Some(tenant) = self.tenants.get_mut(&tenant) {
            tenant.held -= bytes;
            self.held -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn held(places: &Places) -> usize {
        places.0.lock().held
    }

    /// As many places as there are for the asking.
    fn all_of(tenant: &TenantPlaces) -> Vec<Place> {
        std::iter::from_fn(|| tenant.ordinary().now_or_never()).collect()
    }

    #[test]
    fn l11_whoever_holds_nothing_gets_a_place_from_those_who_hold_many() {
        let places = Places::new();
        let (one, other) = (places.of_a_tenant(), places.of_a_tenant());
        let taken = all_of(&one);
        assert_eq!(taken.len() * PLACE, ALL - FOR_NEWCOMERS);
        let first = other.ordinary().now_or_never().expect("some are for it");
        let mut second = Box::pin(other.ordinary());
        assert!(second.as_mut().now_or_never().is_none());
        let mut newcomers: Vec<_> =
            (0..FOR_NEWCOMERS / PLACE - 1).map(|_| all_of(&places.of_a_tenant())).collect();
        assert!(newcomers.iter().all(|places| places.len() == 1));
        assert_eq!(held(&places), ALL);
        let mut late = Box::pin(async { places.of_a_tenant().ordinary().await });
        assert!(late.as_mut().now_or_never().is_none());
        newcomers.pop();
        assert!(late.as_mut().now_or_never().is_some(), "it holds fewest");
        drop((taken, first, newcomers, late));
        assert!(second.as_mut().now_or_never().is_some());
        drop(second);
        assert_eq!(held(&places), 0);
    }

    #[test]
    fn what_is_free_goes_to_whoever_holds_fewest_and_then_to_the_first() {
        let places = Places::new();
        let (many, few) = (places.of_a_tenant(), places.of_a_tenant());
        let mut taken = all_of(&many);
        let mut waits = Box::pin(many.ordinary());
        assert!(waits.as_mut().now_or_never().is_none());
        let _one = few.ordinary().now_or_never().unwrap();
        let (mut first, mut second) = (Box::pin(few.ordinary()), Box::pin(few.ordinary()));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        taken.truncate(taken.len() - 2);
        assert!(first.as_mut().now_or_never().is_some() && waits.as_mut().now_or_never().is_none());
        // That one was dropped at once.
        assert!(second.as_mut().now_or_never().is_some());
        assert!(waits.as_mut().now_or_never().is_some());
    }

    #[test]
    fn what_a_body_no_longer_holds_is_for_others_and_who_stops_waiting_takes_nothing() {
        let places = Places::new();
        let tenant = places.of_a_tenant();
        let mut taken = all_of(&tenant);
        let mut gone = Box::pin(tenant.ordinary());
        assert!(gone.as_mut().now_or_never().is_none());
        drop(gone);
        taken.iter_mut().for_each(|place| place.shrink(PLACE / 2));
        assert_eq!(held(&places), taken.len() * PLACE / 2);
        taken[0].shrink(PLACE);
        assert_eq!(held(&places), taken.len() * PLACE / 2, "it does not grow");
        assert!(!all_of(&tenant).is_empty());
        drop(taken);
        assert_eq!(held(&places), 0);
    }

    #[test]
    fn l8_one_body_is_large_and_tenants_take_turns() {
        let places = Places::new();
        let (one, other) = (places.of_a_tenant(), places.of_a_tenant());
        let mut grown = one.ordinary().now_or_never().unwrap();
        assert!(grown.grow() && grown.grow());
        assert!(!other.ordinary().now_or_never().unwrap().grow());
        let (mut first, mut second) = (Box::pin(one.large()), Box::pin(one.large()));
        let mut of_other = Box::pin(other.large());
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        assert!(of_other.as_mut().now_or_never().is_none());
        drop(grown);
        let taken = one.for_large(first.as_mut().now_or_never().expect("the first in line"));
        assert!(of_other.as_mut().now_or_never().is_none());
        assert!(!one.ordinary().now_or_never().unwrap().grow(), "others are in line");
        drop(taken);
        assert!(second.as_mut().now_or_never().is_none(), "the other tenant comes first");
        assert!(of_other.as_mut().now_or_never().is_some());
        assert!(second.as_mut().now_or_never().is_some());
    }
}
