//! An open sink at work: leases, reads, forms batches, accounts, settles, gives back.
//!
//! One task owns all of it. What takes time is a future that it holds, and each ends in an [`Event`]; after each event
//! whatever can be started is started.
//!
//! | file | what it holds |
//! |---|---|
//! | `serve.rs` | the events, and what is started when |
//! | `serve/supply.rs` | leases, pieces, batches |
//! | `serve/landing.rs` | what became of batches and works |
//! | `serve/held.rs` | works that the sink has taken and is not done with |
//! | `serve/commit.rs` | what goes into the ledger, one commit at a time |

mod commit;
mod held;
mod landing;
mod supply;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::pending,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::time::Instant;
use tracing::{info, warn};

use self::{
    commit::GivenBack,
    held::Held,
    supply::{Read, Reading},
};
use super::{
    DRAIN,
    attempt::Outcome,
    leased::Leased,
    shared::{Shared, insist, panic_text},
};
use crate::{
    batching::{Outgoing, Queue},
    delivery_ledger::{BodyId, Lease, LedgerFailure, Settlement, WorkId},
    holding::{Advance, Holding},
    line::Line,
    partial::{Partial, Partials},
    sink::{BoxFuture, DeliverError, Disposition, Unfinished},
};

/// How long after a failed upkeep it is tried again.
const UPKEEP_AGAIN: Duration = Duration::from_secs(30);
/// How often it is looked whether a body that nothing may overtake is there.
const BODY_AGAIN: Duration = Duration::from_secs(1);
/// How long the last commit may take after the time to drain is over.
const LAST_COMMIT: Duration = Duration::from_secs(1);

/// Keeps a work leased until it is dropped.
type Claim = Box<dyn Send + Sync>;

/// Why serving ended.
pub(super) enum Exit {
    Stopped,
    Halted(DeliverError),
    /// The line of batches was broken: what is left is to be sent one batch at a time, by the sink as it is.
    Again,
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
    /// What was sent of works that an earlier run began, and whose bodies are being fetched again. They are leased as any
    /// others when these are there.
    awaited: HashMap<WorkId, Vec<Unfinished>>,
    ready: Queue,
    /// Since when something is ready that was not taken.
    ready_since: Option<Instant>,
    /// A batch that waits for the commit of its state.
    prepared: Option<Outgoing>,
    partials: Partials,
    /// What is complete, with its claim, which is let go when that is durable.
    to_settle: Vec<(Settlement, Claim)>,
    to_give_back: Vec<(GivenBack, Lease)>,
    held: Held,

    under_way: FuturesUnordered<BoxFuture<'static, Outcome>>,
    leasing: Option<BoxFuture<'static, Result<Vec<Lease>, LedgerFailure>>>,
    reading: Option<Reading>,
    committing: Option<BoxFuture<'static, Result<(), LedgerFailure>>>,
    upkeeping: Option<BoxFuture<'static, Result<Option<Duration>, DeliverError>>>,

    /// Whether the last lease found nothing.
    drained: bool,
    /// Whether it was said that nothing more is coming.
    finishing: bool,
    /// Whether the last batch was given up, or with a sink that is ordered none has arrived yet: then only one is under
    /// way at a time.
    failing: bool,
    line: Line,
    /// Whether a batch did not end well. A sink's own state says what of it may be there, and stays as it is.
    undecided: bool,
    upkeep_at: Option<Instant>,
    ending: Option<Exit>,
    released: bool,
    /// When waiting for what is under way ends.
    deadline: Option<Instant>,
}

enum Event {
    Stop,
    Deadline,
    Landed(Outcome),
    Committed(Result<(), LedgerFailure>),
    Leased(Result<Vec<Lease>, LedgerFailure>),
    Read(WorkId, Read),
    Upkept(Result<Option<Duration>, DeliverError>),
    Advanced(Result<Advance, DeliverError>),
    Finish,
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
            awaited: HashMap::new(),
            ready: Queue::default(),
            ready_since: None,
            prepared: None,
            partials: Partials::default(),
            to_settle: Vec::new(),
            to_give_back: Vec::new(),
            held: Held::again(shared).await?,
            under_way: FuturesUnordered::new(),
            leasing: None,
            reading: None,
            committing: None,
            upkeeping: None,
            drained: false,
            finishing: false,
            failing: shared.limits.ordered,
            line: Line::new(),
            undecided: false,
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
                        "its state in the ledger cannot be read: {error}"
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
        let mut sent: HashMap<WorkId, Vec<Unfinished>> = HashMap::new();
        let mut turns = VecDeque::new();
        for part in unfinished {
            let work = part.work;
            if !works.contains(&work) {
                works.push(work);
            }
            if !part.sent.is_empty() {
                turns.push_back(work);
                sent.entry(work).or_default().push(part);
            }
        }
        for lease in lease_what_can_go_on(&shared, &works).await? {
            let id = lease.work.id;
            let parts = sent.remove(&id).unwrap_or_default();
            if lease.awaits_body {
                // The ledger leases it again when its body is there.
                self.awaited.insert(id, parts);
                continue;
            }
            self.resumed.insert(id);
            let was_sent = !parts.is_empty();
            if self.add(lease, parts) == 0 && was_sent {
                // It begins anew: in one turn, in the place of the first part, and none behind the others.
                let mut is_first = true;
                turns.retain(|work| *work != id || std::mem::take(&mut is_first));
                self.unread.retain(|work| *work != id);
            }
        }
        let is_gone = |work: &WorkId| !self.resumed.contains(work) && !self.awaited.contains_key(work);
        self.vanished = works.into_iter().filter(is_gone).collect();
        // First everything that was sent, in the order in which it was, then the rests.
        turns.retain(|work| self.resumed.contains(work));
        turns.append(&mut self.unread);
        self.unread = turns;
        info!(
            sink = %shared.name,
            "goes on with {} works that were begun; {} were settled meanwhile, and {} wait for their bodies",
            self.resumed.len(),
            self.vanished.len(),
            self.awaited.len()
        );
        Ok(())
    }

    /// Serves until something ends it. What is under way then is waited for.
    pub(super) async fn run(mut self) -> Result<Exit, LedgerFailure> {
        let shared = Arc::clone(&self.shared);
        loop {
            self.start_what_can_be_started();
            self.flush_when_drained();
            if let Some(exit) = self.exit_when_over() {
                self.shared.health.count(|counters| (counters.in_flight, counters.leased) = (0, 0));
                return Ok(exit);
            }
            let levels = (self.under_way.len() as u64, (self.leased.len() + self.held.len()) as u64);
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
                    self.undecided = true;
                    for leased in self.leased.values_mut().filter(|leased| !leased.account.is_quiet()) {
                        leased.account.ambiguous |= !shared.limits.exactly_once;
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
                        let id = lease.work.id;
                        let sent = self.awaited.remove(&id).unwrap_or_default();
                        let parts = self.add(lease, sent);
                        self.unread.extend(std::iter::repeat_n(id, parts));
                    }
                }
                Event::Read(work, read) => self.read(work, read)?,
                Event::Upkept(result) => self.upkept(result),
                Event::Advanced(result) => self.advanced(result),
                Event::Finish => {
                    self.finishing = true;
                    // What was found before it was said may not have been all.
                    self.drained = false;
                    self.leasing = None;
                }
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
            result = finished(&mut self.held.advancing) => {
                self.held.advancing = None;
                Event::Advanced(result)
            }
            () = self.shared.finish.cancelled(), if !self.finishing => Event::Finish,
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
        [linger, upkeep, self.held.again_at].into_iter().flatten().min()
    }

    /// Takes a lease, with a turn to be read. `sent` was chosen to be sent by an earlier run, and is worth nothing when it
    /// was of another body. Gives how many parts are to be sent again before that turn, each in one of its own.
    fn add(&mut self, lease: Lease, mut sent: Vec<Unfinished>) -> usize {
        let work = Arc::clone(&lease.work);
        let (partial, again) = if sent.is_empty() {
            let (partial, again) = self.partials.get(&work);
            (partial.cloned().unwrap_or_default(), again)
        } else {
            let others = sent.iter().filter(|part| BodyId::differ(part.body, work.body));
            let again: usize = others.map(|part| part.sent.len()).sum();
            let again = u32::try_from(again).unwrap_or(u32::MAX);
            let resent = sent.iter().fold(again, |resent, part| resent.saturating_add(part.resent));
            if again > 0 {
                sent.clear();
            }
            (Partial { resent, ..Partial::default() }, again)
        };
        if again > 0 {
            warn!(
                sink = %self.shared.name,
                "{} came back as another body than the one of which {again} records were delivered: all of it is \
                 delivered, and these count as sent again",
                work.id
            );
            self.shared.health.count(|counters| counters.resent += u64::from(again));
        }
        let sent: Vec<_> = sent.into_iter().map(|part| part.sent).collect();
        let twice = self.leased.insert(work.id, Leased::new(lease, &partial, &sent));
        debug_assert!(twice.is_none(), "L5: {:?} is leased twice", work.id);
        self.unread.push_back(work.id);
        sent.len()
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
        self.held.advancing = None;
    }

    fn exit_when_over(&mut self) -> Option<Exit> {
        if self.ending.is_none() || !self.under_way.is_empty() || self.committing.is_some() {
            return None;
        }
        if !std::mem::replace(&mut self.released, true) {
            self.release();
            self.start_committing(Vec::new(), None, Vec::new());
        }
        if self.committing.is_some() { None } else { self.ending.take() }
    }

    fn is_idle(&self) -> bool {
        self.leased.is_empty() && self.committing.is_none() && self.upkeeping.is_none()
    }

    fn has_free_place(&self) -> bool {
        let places = if self.failing { 1 } else { self.shared.limits.in_flight };
        let has_room = self.shared.sink.holding().is_none_or(Holding::has_room);
        has_room && self.prepared.is_none() && self.upkeeping.is_none() && self.under_way.len() < places
    }

    fn start_what_can_be_started(&mut self) {
        if self.ending.is_none() {
            self.start_leasing();
            self.start_reading();
        }
        if self.shared.limits.exactly_once {
            if !self.start_advancing() {
                self.start_next_with_state();
            }
        } else {
            while self.ending.is_none() && self.has_free_place() && self.batch_is_due() {
                let Some(outgoing) = self.take_batch() else { break };
                self.dispatch(outgoing);
            }
        }
        if self.ending.is_none() {
            // What was taken made room.
            self.start_leasing();
            self.start_reading();
        }
        if !self.shared.limits.exactly_once && self.committing.is_none() {
            let settlements = self.take_settlements();
            self.start_committing(settlements, None, Vec::new());
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

/// Leases what an earlier run began. Where nothing may overtake it, it waits for what cannot be read now.
async fn lease_what_can_go_on(shared: &Shared, works: &[WorkId]) -> Result<Vec<Lease>, LedgerFailure> {
    let mut has_waited = false;
    loop {
        let leases = insist(shared, || shared.ledger.lease_these(&shared.name, works)).await?;
        let mut awaited = leases.iter().filter(|lease| lease.awaits_body);
        let first = awaited.next().filter(|_| !shared.sink.may_overtake_unfinished());
        let Some(first) = first else {
            if has_waited {
                shared.health.waits(None);
            }
            return Ok(leases);
        };
        let why = format!(
            "of {} blobs that were delivered in part the body was damaged in the spool and is being fetched again, the \
             first is {} of {} {}; what was delivered of it can only be completed with that, and nothing may be \
             delivered behind it before",
            1 + awaited.count(),
            first.work.content_id,
            first.work.tenant_name,
            first.work.feed.content_type
        );
        if !std::mem::replace(&mut has_waited, true) {
            warn!(sink = %shared.name, "waits: {why}");
        }
        shared.health.waits(Some(&why));
        drop(leases);
        tokio::time::sleep(BODY_AGAIN).await;
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
