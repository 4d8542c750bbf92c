//! An open sink at work: leases, reads, forms batches, accounts, settles, gives back.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    future::pending,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{
    DRAIN,
    attempt::{End, Outcome, carry},
    leased::{GiveUp, Leased},
    not_before,
    shared::{Shared, insist, panic_text},
};
use crate::{
    batching::{Outgoing, Queue},
    delivery_ledger::{Deferral, Lease, LedgerFailure, RenderedPiece, Settlement, WorkId},
    memory::Reservation,
    partial::Partials,
    positions::Positions,
    sink::{BoxFuture, DeliverError, Disposition, Unfinished},
};

/// Under so many leased works that are not read yet, more are leased.
const FEW_UNREAD: usize = 8;
/// So many at once.
const LEASE_AT_ONCE: usize = 32;
/// So many works are leased at most.
const MOST_LEASED: usize = 8192;
/// How long the ledger may be silent about new work before it is asked again.
const LEASE_AGAIN: Duration = Duration::from_secs(2);
/// How long after a failed upkeep it is tried again.
const UPKEEP_AGAIN: Duration = Duration::from_secs(30);
/// How long the last commit may take after the time to drain is over.
const LAST_COMMIT: Duration = Duration::from_secs(1);

/// Why serving ended.
pub(super) enum Exit {
    Stopped,
    Halted(DeliverError),
    /// The order was broken off: what comes first is to be asked anew.
    Reopen {
        /// What the destination asked for.
        after: Option<Duration>,
        at_once: bool,
    },
}

/// An open sink at work.
pub(super) struct Serve<'a> {
    shared: Arc<Shared>,
    /// Works that were in a batch which panicked: each travels alone until it is known which one it was.
    suspects: &'a mut HashSet<WorkId>,
    leased: HashMap<WorkId, Leased>,
    /// Whose turn it is to be read. A work that an earlier run began comes once for each part that it had sent, and
    /// once more for the rest.
    unread: VecDeque<WorkId>,
    /// Works that an earlier run began and that are not complete. Their lines may lie between each other, so they are
    /// settled together, and nothing is settled before.
    resumed: HashSet<WorkId>,
    /// Works that an earlier run began and that somebody else settled.
    vanished: Vec<WorkId>,
    ready: Queue,
    /// Since when something is ready that was not taken.
    ready_since: Option<Instant>,
    /// A batch that waits for the commit of its state.
    prepared: Option<Outgoing>,
    partials: Partials,
    /// What is complete, with its lease, which is let go when that is durable.
    to_settle: Vec<(Settlement, Lease)>,
    to_give_back: Vec<(GivenBack, Lease)>,

    under_way: FuturesUnordered<BoxFuture<'static, Outcome>>,
    leasing: Option<BoxFuture<'static, Result<Vec<Lease>, LedgerFailure>>>,
    reading: Option<Reading>,
    committing: Option<BoxFuture<'static, Result<(), LedgerFailure>>>,
    upkeeping: Option<BoxFuture<'static, Result<Option<Duration>, DeliverError>>>,

    /// Whether the last lease found nothing.
    drained: bool,
    /// Whether the last batch was given up: then only one is under way at a time.
    failing: bool,
    upkeep_at: Option<Instant>,
    ending: Option<Exit>,
    released: bool,
    /// When waiting for what is under way ends.
    deadline: Option<Instant>,
}

/// A lease on its way back into the ledger.
enum GivenBack {
    Deferred(Deferral),
    /// The ledger counts the panic, and defers the work unless it was the last one.
    Panicked {
        message: String,
        otherwise: Deferral,
    },
}

struct Reading {
    work: WorkId,
    /// Whether it waited for memory when it began.
    starved: bool,
    piece: BoxFuture<'static, Read>,
}

enum Read {
    Piece(RenderedPiece, Reservation),
    Failed(LedgerFailure),
    Panicked(String),
}

enum Event {
    Stop,
    Deadline,
    Landed(Outcome),
    Committed(Result<(), LedgerFailure>),
    Leased(Result<Vec<Lease>, LedgerFailure>),
    Read(WorkId, Read),
    Upkept(Result<Option<Duration>, DeliverError>),
    Tick,
}

impl<'a> Serve<'a> {
    /// Leases what an earlier run left unfinished.
    pub(super) async fn begin(
        shared: &Arc<Shared>,
        suspects: &'a mut HashSet<WorkId>,
        unfinished: Vec<Unfinished>,
    ) -> Result<Self, LedgerFailure> {
        let mut serve = Self {
            shared: Arc::clone(shared),
            suspects,
            leased: HashMap::new(),
            unread: VecDeque::new(),
            resumed: HashSet::new(),
            vanished: Vec::new(),
            ready: Queue::default(),
            ready_since: None,
            prepared: None,
            partials: Partials::default(),
            to_settle: Vec::new(),
            to_give_back: Vec::new(),
            under_way: FuturesUnordered::new(),
            leasing: None,
            reading: None,
            committing: None,
            upkeeping: None,
            drained: false,
            failing: false,
            upkeep_at: Some(Instant::now()),
            ending: None,
            released: false,
            deadline: None,
        };
        if !shared.limits.exactly_once {
            let state = insist(shared, || shared.ledger.sink_state(&shared.name)).await?;
            match Partials::decode(state.as_deref()) {
                Ok(partials) => serve.partials = partials,
                Err(error) => {
                    serve.ending = Some(Exit::Halted(DeliverError::halt(format!(
                        "its state in the ledger cannot be read: {error}; run the version that wrote it"
                    ))));
                }
            }
        }
        if !unfinished.is_empty() {
            serve.resume(unfinished).await?;
        }
        Ok(serve)
    }

    async fn resume(&mut self, unfinished: Vec<Unfinished>) -> Result<(), LedgerFailure> {
        let shared = Arc::clone(&self.shared);
        let mut works: Vec<WorkId> = Vec::new();
        let mut sent: HashMap<WorkId, Vec<Positions>> = HashMap::new();
        let mut turns = VecDeque::new();
        for Unfinished { work, sent: part } in unfinished {
            if !works.contains(&work) {
                works.push(work);
            }
            if !part.is_empty() {
                turns.push_back(work);
                sent.entry(work).or_default().push(part);
            }
        }
        let leases = insist(&shared, || shared.ledger.lease_these(&shared.name, &works)).await?;
        for lease in leases {
            let id = lease.work.id;
            self.resumed.insert(id);
            self.add(lease, &sent.remove(&id).unwrap_or_default());
        }
        self.vanished = works.into_iter().filter(|work| !self.resumed.contains(work)).collect();
        // First everything that was sent, in the order in which it was, then the rests.
        turns.retain(|work| self.resumed.contains(work));
        turns.append(&mut self.unread);
        self.unread = turns;
        info!(
            sink = %shared.name,
            "goes on with {} works that were begun; {} were settled meanwhile",
            self.resumed.len(),
            self.vanished.len()
        );
        Ok(())
    }

    /// Serves until something ends it. What is under way then is waited for.
    pub(super) async fn run(mut self) -> Result<Exit, LedgerFailure> {
        let shared = Arc::clone(&self.shared);
        loop {
            self.start_what_can_be_started();
            if let Some(exit) = self.exit_when_over() {
                self.shared.health.count(|counters| (counters.in_flight, counters.leased) = (0, 0));
                return Ok(exit);
            }
            let levels = (self.under_way.len() as u64, self.leased.len() as u64);
            shared.health.count(|counters| (counters.in_flight, counters.leased) = levels);
            let event = self.next_event().await;
            match event {
                Event::Stop => {
                    self.deadline = Some(Instant::now() + DRAIN);
                    self.end(Exit::Stopped);
                }
                Event::Deadline if !self.under_way.is_empty() => {
                    warn!(sink = %shared.name, "{} batches did not end in time", self.under_way.len());
                    // Dropped futures never acknowledge (L7): their works stay pending, and marked as begun.
                    self.under_way.clear();
                    for leased in self.leased.values_mut().filter(|leased| !leased.account.is_quiet()) {
                        leased.account.ambiguous = true;
                    }
                    self.deadline = Some(Instant::now() + LAST_COMMIT);
                }
                Event::Deadline => return Ok(Exit::Stopped),
                Event::Landed(outcome) => self.landed(outcome)?,
                Event::Committed(result) => result?,
                Event::Leased(leases) => {
                    let leases = leases?;
                    self.drained = leases.is_empty();
                    for lease in leases {
                        self.add(lease, &[]);
                    }
                }
                Event::Read(work, read) => self.read(work, read)?,
                Event::Upkept(result) => self.upkept(result),
                Event::Tick => {}
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let wake = self.next_wake();
        let stopping = self.deadline.is_some();
        tokio::select! {
            biased;
            () = self.shared.stop.cancelled(), if !stopping => Event::Stop,
            () = at(self.deadline) => Event::Deadline,
            Some(outcome) = self.under_way.next() => Event::Landed(outcome),
            result = finished(&mut self.committing) => {
                self.committing = None;
                Event::Committed(result)
            }
            leases = finished(&mut self.leasing) => {
                self.leasing = None;
                Event::Leased(leases)
            }
            (work, read) = async {
                match &mut self.reading {
                    Some(reading) => (reading.work, (&mut reading.piece).await),
                    None => pending().await,
                }
            } => {
                self.reading = None;
                Event::Read(work, read)
            }
            result = finished(&mut self.upkeeping) => {
                self.upkeeping = None;
                Event::Upkept(result)
            }
            () = at(wake) => Event::Tick,
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        if self.ending.is_some() {
            return None;
        }
        let linger = self.ready_since.map(|since| since + self.shared.limits.linger);
        // What has waited long enough goes when a place is free: then another event comes.
        let commits_first = self.shared.limits.exactly_once && self.committing.is_some();
        let linger = linger.filter(|_| self.has_free_place() && !commits_first);
        let upkeep = self.upkeep_at.filter(|_| self.is_idle());
        [linger, upkeep].into_iter().flatten().min()
    }

    fn add(&mut self, lease: Lease, sent: &[Positions]) {
        let id = lease.work.id;
        let leased = Leased::new(lease, self.partials.get(id), sent);
        let twice = self.leased.insert(id, leased);
        debug_assert!(twice.is_none(), "L5: {id:?} is leased twice");
        self.unread.push_back(id);
    }

    fn end(&mut self, exit: Exit) {
        // The first reason stays, except that a stop goes before all.
        if self.ending.is_none() || matches!(exit, Exit::Stopped) {
            self.ending = Some(exit);
        }
        self.leasing = None;
        self.reading = None;
        self.unread.clear();
        self.ready.clear();
        self.ready_since = None;
        self.prepared = None;
    }

    fn exit_when_over(&mut self) -> Option<Exit> {
        if self.ending.is_none() || !self.under_way.is_empty() || self.committing.is_some() {
            return None;
        }
        if !std::mem::replace(&mut self.released, true) {
            self.release();
            self.start_committing(Vec::new(), None);
        }
        if self.committing.is_some() { None } else { self.ending.take() }
    }

    /// Gives back what is known not to have left, so that nobody takes it for sent.
    fn release(&mut self) {
        for (id, mut leased) in self.leased.drain() {
            leased.account.resent(self.shared.take_resent(id));
            if leased.begin_asked {
                self.partials.keep(id, leased.partial());
                if leased.begin_committed {
                    let deferral = leased.deferral(None, "stopped before it was complete".to_owned());
                    self.to_give_back.push((GivenBack::Deferred(deferral), leased.lease));
                }
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.leased.is_empty() && self.committing.is_none() && self.upkeeping.is_none()
    }

    fn has_free_place(&self) -> bool {
        let places = if self.failing { 1 } else { self.shared.limits.in_flight };
        self.prepared.is_none() && self.upkeeping.is_none() && self.under_way.len() < places
    }

    fn start_what_can_be_started(&mut self) {
        if self.ending.is_none() {
            self.start_leasing();
            self.start_reading();
        }
        if self.shared.limits.exactly_once {
            self.start_next_with_state();
        } else {
            while self.ending.is_none() && self.has_free_place() && self.batch_is_due() {
                let Some(outgoing) = self.take_batch() else { break };
                self.dispatch(outgoing);
            }
        }
        if self.ending.is_none() {
            // What was taken made room.
            self.start_reading();
        }
        if !self.shared.limits.exactly_once && self.committing.is_none() {
            let settlements = std::mem::take(&mut self.to_settle);
            self.start_committing(settlements, None);
        }
        if self.ending.is_none() && self.is_idle() && self.upkeep_at.is_some_and(|at| at <= Instant::now()) {
            let shared = Arc::clone(&self.shared);
            self.upkeep_at = None;
            self.upkeeping = Some(Box::pin(async move {
                let upkeep = AssertUnwindSafe(async { shared.sink.upkeep().await }).catch_unwind().await;
                upkeep.unwrap_or_else(|panic| Err(shared.panicked(&panic_text(panic.as_ref()))))
            }));
        }
    }

    fn start_leasing(&mut self) {
        if self.leasing.is_some() || self.unread.len() >= FEW_UNREAD || self.leased.len() >= MOST_LEASED {
            return;
        }
        let (shared, wait) = (Arc::clone(&self.shared), self.drained);
        let want = LEASE_AT_ONCE.min(MOST_LEASED - self.leased.len());
        self.leasing = Some(Box::pin(async move {
            if wait {
                shared.ledger.work_may_be_due(&shared.name, LEASE_AGAIN).await;
            }
            insist(&shared, || shared.ledger.lease(&shared.name, want)).await
        }));
    }

    fn start_reading(&mut self) {
        while self.reading.is_none() && !self.ready.is_full(&self.shared.limits) {
            let Some(&id) = self.unread.front() else { return };
            let Some(leased) = self.leased.get_mut(&id) else {
                self.unread.pop_front();
                continue;
            };
            let work = Arc::clone(&leased.lease.work);
            if work.records <= work.duplicates {
                // Nothing of it is due: an empty blob, or one of duplicates only.
                leased.account.read();
                self.unread.pop_front();
                self.look_at(id);
                continue;
            }
            let (from, only, memory) = leased.next_read();
            let room = self.shared.ahead.try_reserve(memory);
            let starved = room.is_none();
            let shared = Arc::clone(&self.shared);
            let piece = Box::pin(async move {
                let room = match room {
                    Some(room) => room,
                    None => shared.ahead.reserve(memory).await,
                };
                let read = insist(&shared, || shared.ledger.read(&shared.name, &work, from, only.as_deref()));
                match AssertUnwindSafe(read).catch_unwind().await {
                    Ok(Ok(piece)) => Read::Piece(piece, room),
                    Ok(Err(failure)) => Read::Failed(failure),
                    Err(panic) => Read::Panicked(panic_text(panic.as_ref())),
                }
            });
            self.reading = Some(Reading { work: id, starved, piece });
        }
    }

    fn read(&mut self, id: WorkId, read: Read) -> Result<(), LedgerFailure> {
        let (piece, room) = match read {
            Read::Piece(piece, room) => (piece, room),
            Read::Failed(failure) => return Err(failure),
            Read::Panicked(message) => {
                self.panicked(vec![id], message);
                return Ok(());
            }
        };
        let Some(leased) = self.leased.get_mut(&id) else { return Ok(()) };
        debug_assert!(leased.giving_up.is_none(), "the reading of what is given up is dropped");
        let Some((ready, over)) = leased.take(piece, room) else {
            self.panicked(vec![id], "reading it did not get on".to_owned());
            return Ok(());
        };
        if over {
            debug_assert_eq!(self.unread.front(), Some(&id), "what is read is first");
            self.unread.pop_front();
        }
        for ready in ready {
            self.ready.push(ready);
        }
        if !self.ready.is_empty() {
            self.ready_since.get_or_insert_with(Instant::now);
        }
        self.look_at(id);
        Ok(())
    }

    fn batch_is_due(&self) -> bool {
        let lingered = self.ready_since.is_some_and(|since| since.elapsed() >= self.shared.limits.linger);
        let starved = self.reading.as_ref().is_some_and(|reading| reading.starved);
        !self.ready.is_empty() && (lingered || starved || self.ready.is_full(&self.shared.limits))
    }

    fn take_batch(&mut self) -> Option<Outgoing> {
        let outgoing = self.ready.take(&self.shared.limits, self.suspects);
        self.ready_since = (!self.ready.is_empty()).then(Instant::now);
        outgoing
    }

    fn dispatch(&mut self, outgoing: Outgoing) {
        let mut begin = Vec::new();
        if !self.shared.limits.exactly_once {
            for slice in &outgoing.slices {
                let id = slice.work.id;
                if let Some(leased) = self.leased.get_mut(&id).filter(|leased| !leased.begin_committed) {
                    leased.begin_asked = true;
                    if !begin.contains(&id) {
                        begin.push(id);
                    }
                }
            }
        }
        self.under_way.push(Box::pin(carry(Arc::clone(&self.shared), outgoing, begin)));
    }

    /// For a sink with a state of its own: settles what the last batch completed in the same commit as the state
    /// that has to be durable before the next one leaves.
    fn start_next_with_state(&mut self) {
        if self.committing.is_some() || !self.under_way.is_empty() {
            return;
        }
        if let Some(outgoing) = self.prepared.take() {
            self.dispatch(outgoing);
            return;
        }
        let may_send = self.ending.is_none() && self.has_free_place();
        let may_settle = self.resumed.is_empty();
        let combines = may_settle && !self.to_settle.is_empty();
        let next = if may_send && (combines || self.batch_is_due()) { self.take_batch() } else { None };
        let settlements = if may_settle { std::mem::take(&mut self.to_settle) } else { Vec::new() };
        let mut finished = std::mem::take(&mut self.vanished);
        finished.extend(settlements.iter().map(|(settlement, _)| settlement.work));
        if next.is_none() && finished.is_empty() {
            self.start_committing(settlements, None);
            return;
        }
        let batch = next.as_ref().map(|outgoing| &outgoing.batch);
        let state = catch_unwind(AssertUnwindSafe(|| self.shared.sink.state(&finished, batch)));
        let Ok(state) = state.inspect_err(|panic| {
            self.shared.panicked(&panic_text(panic.as_ref()));
        }) else {
            // Nothing is settled: what was just delivered is leased again after opening, and recognised.
            self.end(Exit::Reopen { after: None, at_once: false });
            return;
        };
        self.start_committing(settlements, state);
        match next {
            Some(outgoing) if self.committing.is_some() => self.prepared = Some(outgoing),
            Some(outgoing) => self.dispatch(outgoing),
            None => {}
        }
    }

    /// Commits what is to be committed, one commit at a time.
    fn start_committing(&mut self, settlements: Vec<(Settlement, Lease)>, state: Option<Vec<u8>>) {
        let state = state.or_else(|| self.partials.changed_state());
        let given_back = std::mem::take(&mut self.to_give_back);
        if settlements.is_empty() && given_back.is_empty() && state.is_none() {
            return;
        }
        let (settlements, settled): (Vec<_>, Vec<_>) = settlements.into_iter().unzip();
        let shared = Arc::clone(&self.shared);
        self.committing = Some(Box::pin(async move {
            let (ledger, name) = (&shared.ledger, &shared.name);
            if !settlements.is_empty() || state.is_some() {
                insist(&shared, || ledger.settle(name, settlements.clone(), state.clone())).await?;
            }
            drop(settled);
            let mut deferrals = Vec::new();
            let mut leases = Vec::new();
            for (given_back, lease) in given_back {
                leases.push(lease);
                match given_back {
                    GivenBack::Deferred(deferral) => deferrals.push(deferral),
                    GivenBack::Panicked { message, otherwise } => {
                        let count = || ledger.panicked(otherwise.work, message.clone());
                        if insist(&shared, count).await? {
                            error!(sink = %name, "{:?} is quarantined: {message}", otherwise.work);
                        } else {
                            deferrals.push(otherwise);
                        }
                    }
                }
            }
            if !deferrals.is_empty() {
                insist(&shared, || ledger.defer(name, deferrals.clone())).await?;
            }
            drop(leases);
            Ok(())
        }));
    }

    fn landed(&mut self, outcome: Outcome) -> Result<(), LedgerFailure> {
        let mut touched = BTreeSet::new();
        for slice in &outcome.delivered {
            touched.insert(slice.work.id);
            if let Some(leased) = self.leased.get_mut(&slice.work.id) {
                leased.account.delivered(slice);
            }
        }
        for (id, record) in outcome.dead {
            touched.insert(id);
            if let Some(leased) = self.leased.get_mut(&id) {
                leased.account.refused(record);
            }
        }
        let mut left = BTreeSet::new();
        for slice in &outcome.left {
            left.insert(slice.work.id);
            if let Some(leased) = self.leased.get_mut(&slice.work.id) {
                leased.account.unsent(slice.len());
                leased.account.ambiguous |= outcome.ambiguous;
            }
        }
        for id in touched.iter().chain(&left) {
            if let Some(leased) = self.leased.get_mut(id) {
                leased.begin_committed |= leased.begin_asked;
            }
        }
        let strict = self.shared.limits.in_flight == 1;
        match outcome.end {
            End::Done => self.failing = false,
            End::GaveUp { .. } if self.shared.stop.is_cancelled() => {
                for &id in &left {
                    self.give_up(id, None, "stopped".to_owned());
                }
            }
            End::GaveUp { error, after } => {
                self.failing = true;
                let mut until: Option<DateTime<Utc>> = None;
                for &id in &left {
                    let attempts = self.leased.get(&id).map_or(0, |leased| leased.lease.attempts);
                    let due = self.not_before(attempts, after);
                    until = until.max(Some(due));
                    self.give_up(id, Some(due), error.clone());
                }
                let until = until.unwrap_or_else(Utc::now);
                warn!(sink = %self.shared.name, "{} works are put off: {error}", left.len());
                self.shared.health.deferred(left.len(), until, &error, after.is_some());
                if strict {
                    self.end(Exit::Reopen { after, at_once: false });
                }
            }
            End::Halted(error) => {
                for &id in &left {
                    self.give_up(id, None, error.context.clone());
                }
                self.end(Exit::Halted(error));
            }
            End::Panicked { works, message } => {
                for &id in left.iter().filter(|id| !works.contains(id)) {
                    self.give_up(id, None, "another work of its batch panicked".to_owned());
                }
                self.panicked(works, message);
            }
            End::Ledger(failure) => return Err(failure),
        }
        for id in touched.into_iter().chain(left) {
            self.look_at(id);
        }
        Ok(())
    }

    /// Handling these works panicked. One work is counted by the ledger; several are tried one by one.
    fn panicked(&mut self, works: Vec<WorkId>, message: String) {
        self.shared.panicked(&message);
        let strict = self.shared.limits.in_flight == 1;
        let single = works.len() == 1;
        for id in works {
            if single {
                if let Some(leased) = self.leased.get_mut(&id) {
                    leased.giving_up = Some(GiveUp::Panicked { message: message.clone() });
                }
                self.withdraw(id);
            } else {
                self.suspects.insert(id);
                self.give_up(id, None, "its batch panicked".to_owned());
            }
            self.look_at(id);
        }
        if strict {
            self.end(Exit::Reopen { after: None, at_once: !single });
        }
    }

    /// When a work is due again. With strict order nothing may overtake it: then it is the loop that waits.
    fn not_before(&self, attempts: u32, after: Option<Duration>) -> DateTime<Utc> {
        if self.shared.limits.in_flight == 1 { Utc::now() } else { not_before(attempts, after) }
    }

    fn give_up(&mut self, id: WorkId, not_before: Option<DateTime<Utc>>, error: String) {
        if let Some(leased) = self.leased.get_mut(&id) {
            leased.giving_up.get_or_insert(GiveUp::Until { not_before, error });
        }
        self.withdraw(id);
    }

    /// Takes a work that is given up out of what is to be read and sent.
    fn withdraw(&mut self, id: WorkId) {
        self.unread.retain(|other| *other != id);
        if self.reading.as_ref().is_some_and(|reading| reading.work == id) {
            // What it reads must not be taken for the next turn's.
            self.reading = None;
        }
        let purged = self.ready.purge(id);
        if let Some(leased) = self.leased.get_mut(&id) {
            leased.account.unsent(purged);
        }
        if self.ready.is_empty() {
            self.ready_since = None;
        }
    }

    /// Ends a work when nothing of it is under way and nothing is left to do, or when it is given up.
    fn look_at(&mut self, id: WorkId) {
        let Some(leased) = self.leased.get(&id) else { return };
        let over = leased.account.is_complete() || (leased.giving_up.is_some() && leased.account.is_quiet());
        if !over {
            return;
        }
        let Some(mut leased) = self.leased.remove(&id) else { return };
        self.resumed.remove(&id);
        leased.account.resent(self.shared.take_resent(id));
        if leased.account.is_complete() && leased.giving_up.is_none() {
            self.settle(leased);
            return;
        }
        if !self.shared.limits.exactly_once {
            self.partials.keep(id, leased.partial());
        }
        let given_back = match leased.giving_up.take() {
            Some(GiveUp::Panicked { message }) => {
                let due = self.not_before(leased.lease.attempts, None);
                GivenBack::Panicked { otherwise: leased.deferral(Some(due), message.clone()), message }
            }
            Some(GiveUp::Until { not_before, error }) => {
                GivenBack::Deferred(leased.deferral(not_before, error))
            }
            None => return,
        };
        self.to_give_back.push((given_back, leased.lease));
    }

    fn settle(&mut self, leased: Leased) {
        let Leased { lease, account, .. } = leased;
        let (id, counted) = (lease.work.id, account.resent_so_far());
        let otherwise = Deferral {
            work: id,
            not_before: Some(self.not_before(lease.attempts, None)),
            error: String::new(),
            begun: true,
        };
        match account.settle(&lease.work, lease.begun && !self.shared.limits.exactly_once) {
            Ok(settlement) => {
                self.shared.health.count(|counters| {
                    counters.settled += 1;
                    counters.filtered += u64::from(settlement.filtered);
                    counters.dead += settlement.dead.len() as u64;
                    counters.resent += u64::from(settlement.resent.saturating_sub(counted));
                });
                self.suspects.remove(&id);
                self.partials.forget(id);
                self.to_settle.push((settlement, lease));
            }
            Err(imbalance) => {
                let message = imbalance.to_string();
                error!(sink = %self.shared.name, "{id:?} is not settled: {message}");
                let otherwise = Deferral { error: message.clone(), ..otherwise };
                self.to_give_back.push((GivenBack::Panicked { message, otherwise }, lease));
            }
        }
    }

    fn upkept(&mut self, result: Result<Option<Duration>, DeliverError>) {
        match result {
            Ok(again) => self.upkeep_at = again.map(|wait| Instant::now() + wait),
            Err(error) if error.disposition == Disposition::Halt => self.end(Exit::Halted(error)),
            Err(error) => {
                warn!(sink = %self.shared.name, "upkeep failed, tried again later: {error}");
                self.upkeep_at = Some(Instant::now() + UPKEEP_AGAIN);
            }
        }
    }
}

/// Resolves with what the future does; never when there is none.
async fn finished<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => pending().await,
    }
}
