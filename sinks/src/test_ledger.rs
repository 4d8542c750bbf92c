//! A ledger in memory for the tests: works, leases, states, failures on demand, and crashes at any commit.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use schemas::{
    ContentId, ContentType, FeedKey, RecordFacts, Rendered, Seq, SinkName, TenantId, Unrenderable,
};
use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;

use crate::{
    delivery_ledger::{
        BodyGone, BodyId, Deferral, DeliveryLedger, Lease, LedgerFailure, RenderedPiece, Settlement,
        SinkIdentity, SinkStates, Statement, Want, Work, WorkId,
    },
    memory::{Piece, Reservation},
    sink::{Batch, BatchPart, BoxFuture},
    turn::Turns,
};

/// A work of so many records and no duplicates.
pub(crate) fn work(id: i64, records: usize) -> Arc<Work> {
    Arc::new(Work {
        id: WorkId(id),
        seq: Seq(id as u64 + 1),
        body: None,
        feed: FeedKey { tenant: TenantId::new(Uuid::from_u128(1)), content_type: ContentType::Exchange },
        tenant_name: "contoso".into(),
        content_id: ContentId::try_from(format!("blob{id}")).unwrap(),
        restored: false,
        records: records as u32,
        duplicates: 0,
        bytes: records as u64 * 100,
    })
}

pub(crate) fn sink_name() -> SinkName {
    "test".parse().unwrap()
}

/// The `Id` of a record.
pub(crate) fn record_id(work: i64, position: u32) -> String {
    Uuid::from_u128(((work as u128 + 1) << 64) | u128::from(position)).to_string()
}

/// What a record is to the normaliser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Duplicate,
    /// It cannot be rendered.
    Broken,
    /// Reading it panics.
    Explosive,
}

/// How records are rendered and which of them are kept.
#[derive(Clone)]
pub(crate) struct Rendering {
    pub(crate) view: u8,
    pub(crate) keep: Arc<dyn Fn(i64, u32) -> bool + Send + Sync>,
}

impl Rendering {
    pub(crate) fn all() -> Self {
        Self { view: 0, keep: Arc::new(|_, _| true) }
    }
}

/// A record as a view shows it.
pub(crate) fn render(view: u8, work: i64, position: u32) -> String {
    let id = record_id(work, position);
    let pad = "x".repeat((work as usize * 7 + position as usize * 13) % 40);
    match view {
        0 => format!(r#"{{"Id":"{id}","n":{position},"pad":"{pad}"}}"#),
        1 => format!(r#"{{"view":1,"metadata":{{"uid":"{id}"}},"pad":"{pad}{pad}"}}"#),
        _ => format!(r#"{{"v":{view},"uid":"{id}"}}"#),
    }
}

#[derive(Debug)]
struct Entry {
    work: Arc<Work>,
    kinds: Vec<Kind>,
    leased: bool,
    not_before: Option<Instant>,
    attempts: u32,
    begun: u32,
    /// Whether it was ever said that something of it may be there.
    tried: bool,
    panics: u32,
    settled: Option<Settlement>,
    quarantined: bool,
    /// Its body was damaged and is being fetched again.
    held: bool,
    /// Its body is damaged, which is noticed when it is read.
    damaged: bool,
    /// Whether its body has the records in the other order.
    reversed: bool,
}

/// The body of this number.
pub(crate) fn body(number: u8) -> Option<BodyId> {
    BodyId::of_sha256(&[number; 32])
}

#[derive(Default)]
struct Inner {
    works: BTreeMap<WorkId, Entry>,
    state: Option<Vec<u8>>,
    failures: HashMap<&'static str, Vec<LedgerFailure>>,
    last_served: Option<TenantId>,
    log: Vec<String>,
    /// Until when works were put off.
    put_off: Vec<DateTime<Utc>>,
}

/// A ledger in memory.
pub(crate) struct MemoryLedger {
    inner: Arc<Mutex<Inner>>,
    changed: Arc<Notify>,
    rendering: Mutex<Rendering>,
    pub(crate) piece_records: usize,
    /// Asked at every commit.
    fuse: Mutex<Option<Arc<Fuse>>>,
    broken_line: Mutex<Option<u32>>,
    padded: Mutex<Option<(u32, usize)>>,
    /// Its id.
    pub(crate) id: Mutex<String>,
    /// Up to where its statements are not complete.
    pub(crate) incomplete_through: Mutex<Option<Seq>>,
    turns: Mutex<Turns>,
}

/// Counts steps; at one of them everything stops, as if the process had been killed.
#[derive(Debug)]
pub(crate) struct Fuse {
    left: Mutex<Option<u32>>,
    pub(crate) blown: Notify,
}

/// What happens at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Go,
    /// The crash is in the midst of this step.
    Now,
    /// The process is dead already.
    Dead,
}

impl Fuse {
    pub(crate) fn new(steps: Option<u32>) -> Arc<Self> {
        Arc::new(Self { left: Mutex::new(steps.map(|steps| steps + 1)), blown: Notify::new() })
    }

    pub(crate) fn step(&self) -> Step {
        let mut left = self.left.lock().unwrap();
        match left.as_mut() {
            None => Step::Go,
            Some(0) => Step::Dead,
            Some(1) => {
                *left = Some(0);
                self.blown.notify_one();
                Step::Now
            }
            Some(steps) => {
                *steps -= 1;
                Step::Go
            }
        }
    }

    /// It is over after so many more steps.
    pub(crate) fn blow_after(&self, steps: u32) {
        *self.left.lock().unwrap() = Some(steps + 1);
    }

    /// Whatever happens, it is over now.
    pub(crate) fn blow(&self) {
        *self.left.lock().unwrap() = Some(0);
    }

    pub(crate) fn is_blown(&self) -> bool {
        *self.left.lock().unwrap() == Some(0)
    }
}

impl MemoryLedger {
    pub(crate) fn new(works: impl IntoIterator<Item = Vec<Kind>>) -> Self {
        let ledger = Self {
            inner: Arc::default(),
            changed: Arc::new(Notify::new()),
            rendering: Mutex::new(Rendering::all()),
            piece_records: 7,
            fuse: Mutex::default(),
            broken_line: Mutex::default(),
            padded: Mutex::default(),
            id: Mutex::new("a-ledger".to_owned()),
            incomplete_through: Mutex::default(),
            turns: Mutex::default(),
        };
        for (id, kinds) in works.into_iter().enumerate() {
            ledger.add(id as i64, kinds);
        }
        ledger
    }

    pub(crate) fn plain(works: impl IntoIterator<Item = usize>) -> Self {
        Self::new(works.into_iter().map(|records| vec![Kind::Plain; records]))
    }

    pub(crate) fn add(&self, id: i64, kinds: Vec<Kind>) {
        self.add_of(1, id, kinds);
    }

    /// Adds a work of this tenant.
    pub(crate) fn add_of(&self, tenant: u128, id: i64, kinds: Vec<Kind>) {
        let mut work = Arc::unwrap_or_clone(work(id, kinds.len()));
        work.feed.tenant = TenantId::new(Uuid::from_u128(tenant));
        work.duplicates = kinds.iter().filter(|kind| **kind == Kind::Duplicate).count() as u32;
        let entry = Entry {
            work: Arc::new(work),
            kinds,
            leased: false,
            not_before: None,
            attempts: 0,
            begun: 0,
            tried: false,
            panics: 0,
            settled: None,
            quarantined: false,
            held: false,
            damaged: false,
            reversed: false,
        };
        self.lock().works.insert(WorkId(id), entry);
        self.changed.notify_waiters();
    }

    pub(crate) fn render_as(&self, rendering: Rendering) {
        *self.rendering.lock().unwrap() = rendering;
    }

    /// The next call of this name fails.
    pub(crate) fn fail(&self, call: &'static str, passing: bool) {
        let failure = LedgerFailure { message: format!("{call} fails"), passing };
        self.lock().failures.entry(call).or_default().push(failure);
    }

    /// What a new process finds: nothing is leased, and nothing under way.
    pub(crate) fn restart(&self, fuse: Option<Arc<Fuse>>) {
        *self.turns.lock().unwrap() = Turns::default();
        for entry in self.lock().works.values_mut() {
            entry.leased = false;
            entry.not_before = None;
        }
        *self.fuse.lock().unwrap() = fuse;
    }

    /// A pending work retries one of which records may be there.
    pub(crate) fn retries_what_was_tried(&self, work: i64) {
        self.lock().works.get_mut(&WorkId(work)).unwrap().begun = 1;
    }

    /// Makes a pending work dead, as an operator or a full spool may.
    pub(crate) fn forget(&self, work: i64) {
        self.lock().works.get_mut(&WorkId(work)).unwrap().quarantined = true;
    }

    /// Takes that back.
    pub(crate) fn remember(&self, work: i64) {
        self.lock().works.get_mut(&WorkId(work)).unwrap().quarantined = false;
        self.changed.notify_waiters();
    }

    /// The body of a work is lost, until it was fetched again.
    pub(crate) fn lose(&self, work: i64, lost: bool) {
        let mut inner = self.lock();
        let entry = inner.works.get_mut(&WorkId(work)).unwrap();
        (entry.held, entry.damaged) = (lost, false);
        drop(inner);
        self.changed.notify_waiters();
    }

    /// The body of a work is lost as soon as it is read.
    pub(crate) fn lose_when_read(&self, work: i64) {
        self.lock().works.get_mut(&WorkId(work)).unwrap().damaged = true;
    }

    /// How many bodies are being fetched again.
    pub(crate) fn lost(&self) -> usize {
        self.lock().works.values().filter(|entry| entry.held).count()
    }

    /// The body of a work was fetched again, and has another name, so many records, and these perhaps in the other order.
    pub(crate) fn replace_body(&self, work: i64, number: u8, records: usize, reversed: bool) {
        let mut inner = self.lock();
        let entry = inner.works.get_mut(&WorkId(work)).unwrap();
        let mut work = Work::clone(&entry.work);
        work.seq = Seq(work.seq.0 + 1000);
        work.body = body(number);
        work.records = records as u32;
        entry.work = Arc::new(work);
        entry.kinds = vec![Kind::Plain; records];
        entry.reversed = reversed;
        drop(inner);
        self.changed.notify_waiters();
    }

    /// Records at this position are rendered with a line break in them.
    pub(crate) fn break_lines_of(&self, position: u32) {
        *self.broken_line.lock().unwrap() = Some(position);
    }

    /// Records at this position are so much longer.
    pub(crate) fn pad(&self, position: u32, bytes: usize) {
        *self.padded.lock().unwrap() = Some((position, bytes));
    }

    /// Which record stands at a position of a work's body as it is now.
    fn number(&self, work: i64, position: u32) -> u32 {
        let inner = self.lock();
        let entry = &inner.works[&WorkId(work)];
        if entry.reversed { entry.work.records - 1 - position } else { position }
    }

    fn record(&self, view: u8, work: i64, position: u32) -> String {
        let record = render(view, work, position);
        match *self.padded.lock().unwrap() {
            Some((padded, bytes)) if padded == position => {
                format!(r#"{},"more":"{}"}}"#, record.trim_end_matches('}'), "y".repeat(bytes))
            }
            _ => record,
        }
    }

    /// A batch of these records, whatever is leased.
    pub(crate) fn batch(&self, parts: &[(i64, std::ops::Range<u32>)]) -> Batch {
        let part = |(id, positions): &(i64, std::ops::Range<u32>)| {
            let work = Arc::clone(&self.lock().works[&WorkId(*id)].work);
            let mut rendered = Rendered::default();
            for position in positions.clone() {
                let number = self.number(*id, position);
                rendered.buffer().extend(self.record(0, *id, number).into_bytes());
                let record = record_id(*id, number);
                rendered.end_record(position, RecordFacts { id: &record, ..RecordFacts::default() });
            }
            let indexes = 0..rendered.len();
            let piece = Arc::new(Piece::new(Arc::new(rendered), Arc::new(Reservation::uncounted())));
            BatchPart { work, piece, indexes, first: true, last: false }
        };
        Batch { parts: parts.iter().map(part).collect() }
    }

    pub(crate) fn settlements(&self) -> Vec<Settlement> {
        self.lock().works.values().filter_map(|entry| entry.settled.clone()).collect()
    }

    pub(crate) fn quarantined(&self) -> Vec<i64> {
        self.lock().works.iter().filter(|(_, entry)| entry.quarantined).map(|(id, _)| id.0).collect()
    }

    pub(crate) fn leased(&self) -> usize {
        self.lock().works.values().filter(|entry| entry.leased).count()
    }

    pub(crate) fn pending(&self) -> usize {
        self.lock().works.values().filter(|entry| entry.is_pending()).count()
    }

    /// The works of which it was said that something may be there, settled ones too.
    pub(crate) fn tried(&self) -> Vec<i64> {
        self.lock().works.iter().filter(|(_, entry)| entry.tried).map(|(id, _)| id.0).collect()
    }

    pub(crate) fn begun(&self) -> usize {
        self.lock().works.values().filter(|entry| entry.is_pending() && entry.begun > 0).count()
    }

    pub(crate) fn state(&self) -> Option<Vec<u8>> {
        self.lock().state.clone()
    }

    pub(crate) fn set_state(&self, state: Option<Vec<u8>>) {
        self.lock().state = state;
    }

    /// The calls that changed something.
    pub(crate) fn log(&self) -> Vec<String> {
        self.lock().log.clone()
    }

    /// Until when works were put off, in the order in which they were.
    pub(crate) fn put_off(&self) -> Vec<DateTime<Utc>> {
        self.lock().put_off.clone()
    }

    /// Resolves when nothing is pending.
    pub(crate) async fn all_settled(&self) {
        loop {
            let changed = self.changed.notified();
            if self.pending() == 0 {
                return;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn fails(&self, call: &str) -> Option<LedgerFailure> {
        self.lock().failures.get_mut(call).and_then(Vec::pop)
    }

    /// A commit: it happens, or the process dies before or after it.
    fn commit<'a>(
        &'a self,
        call: &'static str,
        change: impl FnOnce(&mut Inner) -> Result<(), LedgerFailure> + Send + 'a,
    ) -> BoxFuture<'a, Result<(), LedgerFailure>> {
        async move {
            if let Some(failure) = self.fails(call) {
                return Err(failure);
            }
            let fuse = self.fuse.lock().unwrap().clone();
            let first = fuse.as_ref().map_or(Step::Go, |fuse| fuse.step());
            if first != Step::Go {
                return std::future::pending().await;
            }
            let result = change(&mut self.lock());
            self.changed.notify_waiters();
            let second = fuse.as_ref().map_or(Step::Go, |fuse| fuse.step());
            if second != Step::Go {
                return std::future::pending().await;
            }
            result
        }
        .boxed()
    }

    fn claim(&self, entry: &mut Entry) -> Lease {
        entry.leased = true;
        let (inner, changed) = (Arc::clone(&self.inner), Arc::clone(&self.changed));
        Lease {
            work: Arc::clone(&entry.work),
            attempts: entry.attempts,
            begun: entry.begun,
            awaits_body: entry.held,
            claim: Box::new(Claim { inner, changed, work: entry.work.id }),
        }
    }
}

impl Entry {
    fn is_pending(&self) -> bool {
        self.settled.is_none() && !self.quarantined
    }
}

struct Claim {
    inner: Arc<Mutex<Inner>>,
    changed: Arc<Notify>,
    work: WorkId,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(entry) = self.inner.lock().unwrap().works.get_mut(&self.work) {
            entry.leased = false;
        }
        self.changed.notify_waiters();
    }
}

impl DeliveryLedger for MemoryLedger {
    fn lease<'a>(&'a self, _: &'a SinkName, want: Want) -> BoxFuture<'a, Result<Vec<Lease>, LedgerFailure>> {
        async move {
            if let Some(failure) = self.fails("lease") {
                return Err(failure);
            }
            let now = Instant::now();
            let mut inner = self.lock();
            let mut free: BTreeMap<TenantId, VecDeque<WorkId>> = BTreeMap::new();
            for (id, entry) in &inner.works {
                if entry.is_pending()
                    && !entry.held
                    && !entry.leased
                    && entry.not_before.is_none_or(|at| at <= now)
                {
                    free.entry(entry.work.feed.tenant).or_default().push_back(*id);
                }
            }
            let (mut leases, mut records, mut bytes) = (Vec::new(), 0, 0);
            while leases.len() < want.works
                && (leases.is_empty() || (records < want.records && bytes < want.bytes))
            {
                // The tenant behind the one that was served last, or the first again.
                let last = inner.last_served;
                let next = free.keys().find(|tenant| last.is_none_or(|last| **tenant > last));
                let Some(tenant) = next.or(free.keys().next()).copied() else { break };
                inner.last_served = Some(tenant);
                let Some(id) = free.get_mut(&tenant).and_then(VecDeque::pop_front) else {
                    free.remove(&tenant);
                    continue;
                };
                let lease = self.claim(inner.works.get_mut(&id).unwrap());
                records += u64::from(lease.work.records - lease.work.duplicates);
                bytes += lease.work.bytes;
                leases.push(lease);
            }
            Ok(leases)
        }
        .boxed()
    }

    fn lease_these<'a>(
        &'a self,
        _: &'a SinkName,
        works: &'a [WorkId],
    ) -> BoxFuture<'a, Result<Vec<Lease>, LedgerFailure>> {
        async move {
            let mut inner = self.lock();
            let mut leases = Vec::new();
            for work in works {
                if let Some(entry) = inner.works.get_mut(work).filter(|entry| entry.is_pending()) {
                    assert!(!entry.leased, "L5: {work:?} is leased");
                    leases.push(self.claim(entry));
                }
            }
            Ok(leases)
        }
        .boxed()
    }

    fn work_may_be_due<'a>(&'a self, _: &'a SinkName, at_most: Duration) -> BoxFuture<'a, ()> {
        async move {
            let _ = tokio::time::timeout(at_most, self.changed.notified()).await;
        }
        .boxed()
    }

    fn read<'a>(
        &'a self,
        _: &'a SinkName,
        work: &'a Arc<Work>,
        from: u32,
        only: Option<&'a BTreeSet<u32>>,
    ) -> BoxFuture<'a, Result<Result<RenderedPiece, BodyGone>, LedgerFailure>> {
        async move {
            tokio::task::yield_now().await;
            if let Some(failure) = self.fails("read") {
                return Err(failure);
            }
            if let Some(entry) = self.lock().works.get_mut(&work.id) {
                entry.held |= std::mem::take(&mut entry.damaged);
            }
            let is_gone = |entry: &Entry| entry.held || entry.quarantined;
            if is_gone(&self.lock().works[&work.id]) {
                return Ok(Err(BodyGone { why: format!("the body of {:?} is not in the spool", work.id) }));
            }
            if BodyId::differ(work.body, self.lock().works[&work.id].work.body) {
                return Ok(Err(BodyGone { why: format!("the body of {:?} came back as another", work.id) }));
            }
            let kinds = self.lock().works[&work.id].kinds.clone();
            let Rendering { view, keep } = self.rendering.lock().unwrap().clone();
            // Pieces are cut at fixed places, as in a spool.
            let end = ((from as usize / self.piece_records + 1) * self.piece_records).min(kinds.len());
            assert!((from as usize) < end, "read from {from} of {}", kinds.len());
            let mut rendered = Rendered::default();
            for position in from..end as u32 {
                if only.is_some_and(|only| !only.contains(&position)) {
                    continue;
                }
                match kinds[position as usize] {
                    Kind::Duplicate => {}
                    Kind::Explosive => panic!("record {position} of {:?} explodes", work.id),
                    Kind::Broken => {
                        let reason = "it is broken".to_owned();
                        rendered.unrenderable.push(Unrenderable { position, reason });
                    }
                    Kind::Plain if only.is_none() && !keep(work.id.0, position) => rendered.filtered += 1,
                    Kind::Plain => {
                        let number = self.number(work.id.0, position);
                        rendered.buffer().extend(self.record(view, work.id.0, number).into_bytes());
                        if *self.broken_line.lock().unwrap() == Some(position) {
                            rendered.buffer().push(b'\n');
                        }
                        let id = record_id(work.id.0, number);
                        rendered.end_record(position, RecordFacts { id: &id, ..RecordFacts::default() });
                    }
                }
            }
            let next = (end < kinds.len()).then_some(end as u32);
            Ok(Ok(RenderedPiece { rendered: Arc::new(rendered), next }))
        }
        .boxed()
    }

    fn begin<'a>(
        &'a self,
        _: &'a SinkName,
        works: Vec<(WorkId, u32)>,
    ) -> BoxFuture<'a, Result<(), LedgerFailure>> {
        self.commit("begin", move |inner| {
            inner.log.push(format!("begin {}", works.len()));
            for (work, times) in works {
                let entry = inner.works.get_mut(&work).unwrap();
                entry.begun = entry.begun.max(times);
                entry.tried = true;
            }
            Ok(())
        })
    }

    fn settle<'a>(
        &'a self,
        _: &'a SinkName,
        settlements: Vec<Settlement>,
        state: Option<Vec<u8>>,
    ) -> BoxFuture<'a, Result<(), LedgerFailure>> {
        self.commit("settle", move |inner| {
            inner.log.push(format!("settle {}", settlements.len()));
            for settlement in settlements {
                let entry = inner.works.get_mut(&settlement.work).unwrap();
                if entry.quarantined && entry.leased {
                    continue;
                }
                assert!(entry.is_pending(), "L6: {:?} was final", settlement.work);
                assert!(entry.leased, "{:?} is settled without a lease", settlement.work);
                let accounted = settlement.delivered + settlement.filtered + settlement.dead.len() as u32;
                let replaced = BodyId::differ(settlement.body, entry.work.body);
                let due = entry.work.records - entry.work.duplicates;
                assert!(replaced || accounted == due, "L10: {settlement:?}");
                entry.settled = Some(settlement);
            }
            if state.is_some() {
                inner.state = state;
            }
            Ok(())
        })
    }

    fn defer<'a>(
        &'a self,
        _: &'a SinkName,
        deferrals: Vec<Deferral>,
    ) -> BoxFuture<'a, Result<(), LedgerFailure>> {
        self.commit("defer", move |inner| {
            inner.log.push(format!("defer {}", deferrals.len()));
            for deferral in deferrals {
                let entry = inner.works.get_mut(&deferral.work).unwrap();
                assert!(entry.leased, "{:?} is deferred without a lease", deferral.work);
                entry.begun = deferral.begun;
                entry.attempts += u32::from(deferral.not_before.is_some());
                inner.put_off.extend(deferral.not_before);
                entry.not_before = deferral
                    .not_before
                    .map(|at| Instant::now() + (at - Utc::now()).to_std().unwrap_or_default());
            }
            Ok(())
        })
    }

    fn panicked<'a>(&'a self, work: WorkId, _message: String) -> BoxFuture<'a, Result<bool, LedgerFailure>> {
        async move {
            let mut inner = self.lock();
            let entry = inner.works.get_mut(&work).unwrap();
            entry.panics += 1;
            entry.quarantined = entry.panics >= 3;
            let quarantined = entry.quarantined;
            drop(inner);
            self.changed.notify_waiters();
            Ok(quarantined)
        }
        .boxed()
    }
}

impl SinkStates for MemoryLedger {
    fn turns(&self, _: &SinkName) -> Turns {
        self.turns.lock().unwrap().clone()
    }

    fn identity<'a>(&'a self, _: &'a SinkName) -> BoxFuture<'a, Result<Option<SinkIdentity>, LedgerFailure>> {
        let ledger = self.id.lock().unwrap().clone();
        Box::pin(async move { Ok(Some(SinkIdentity { ledger, incarnation: 1 })) })
    }

    fn sink_state<'a>(&'a self, _: &'a SinkName) -> BoxFuture<'a, Result<Option<Vec<u8>>, LedgerFailure>> {
        async move { Ok(self.state()) }.boxed()
    }

    fn set_sink_state<'a>(
        &'a self,
        _: &'a SinkName,
        state: Vec<u8>,
    ) -> BoxFuture<'a, Result<(), LedgerFailure>> {
        self.commit("set_sink_state", move |inner| {
            inner.log.push("set_sink_state".to_owned());
            inner.state = Some(state);
            Ok(())
        })
    }

    fn settled_through<'a>(
        &'a self,
        _: &'a SinkName,
    ) -> BoxFuture<'a, Result<BTreeMap<TenantId, Seq>, LedgerFailure>> {
        async {
            if let Some(failure) = self.fails("settled_through") {
                return Err(failure);
            }
            let mut through: BTreeMap<TenantId, (Seq, bool)> = BTreeMap::new();
            for entry in self.lock().works.values() {
                let (seq, pending) = through.entry(entry.work.feed.tenant).or_insert((Seq(0), false));
                *pending |= entry.is_pending();
                if !*pending {
                    *seq = (*seq).max(entry.work.seq);
                }
            }
            Ok(through.into_iter().map(|(tenant, (seq, _))| (tenant, seq)).collect())
        }
        .boxed()
    }

    fn statement<'a>(
        &'a self,
        _: &'a SinkName,
        tenant: TenantId,
        after: Seq,
        last: Seq,
        _: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<Statement, LedgerFailure>> {
        async move {
            if let Some(failure) = self.fails("statement") {
                return Err(failure);
            }
            let mut statement = Statement {
                other_seqs: last.0 - after.0,
                incomplete_through: *self.incomplete_through.lock().unwrap(),
                ..Statement::default()
            };
            for entry in self.lock().works.values() {
                let Work { seq, feed, records, duplicates, .. } = *entry.work;
                if feed.tenant != tenant || seq <= after || seq > last {
                    continue;
                }
                statement.other_seqs -= 1;
                let accounts = statement.accounts.entry(feed.content_type).or_default();
                accounts.listed += 1;
                accounts.fetched += 1;
                accounts.records += u64::from(records);
                accounts.duplicates += u64::from(duplicates);
                if let Some(settled) = &entry.settled {
                    accounts.archived += u64::from(settled.delivered);
                    accounts.filtered += u64::from(settled.filtered);
                    accounts.dead += settled.dead.len() as u64;
                }
            }
            Ok(statement)
        }
        .boxed()
    }
}
