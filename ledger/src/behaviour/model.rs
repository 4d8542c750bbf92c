//! Random operations, with a crash or a full disk at any step of any commit, against a model of what the ledger
//! promises: after every operation and every restart the ledger holds exactly what the model holds, every body can be
//! read, and every sum agrees (L1, L2, L4, L5, L6, L10, dense numbers, duplicates decided once).
//!
//! A crash keeps what was made durable, and of what was not a random part, or garbage.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use schemas::{ContentId, GapReason, HoleReason, ListedBlob, TimeRange};

use super::opening::noise;
use crate::{
    CompletedWindow, DeadRecord, Deferral, Lease, LedgerError, ListedPage, PANICS, Settlement, WorkId,
    faults::{Point, in_tests::Fault},
    testing::*,
};

#[derive(Debug, Clone)]
enum Op {
    List { tenant: u8, names: Vec<u8>, completes: bool },
    Hole { tenant: u8 },
    Spool { tenant: u8 },
    FailFetch { tenant: u8, minutes: i64 },
    Gap { tenant: u8 },
    Settle { sink: char, want: usize, dead: u8, filtered: bool },
    Defer { sink: char, minutes: i64 },
    Hold { sink: char },
    SettleHeld,
    DropHeld,
    Panic { sink: char },
    Retry,
    Forget,
    Maintain,
    Advance { hours: i64 },
    Restart,
}

/// What goes wrong during an operation.
#[derive(Debug, Clone, Copy)]
struct Mishap {
    point: Point,
    fault: Fault,
    /// Chooses what the disk keeps of what was not durable.
    seed: u64,
}

fn op() -> impl Strategy<Value = Op> {
    let tenant = || 1u8..3;
    let sink = || prop_oneof![Just('a'), Just('b')];
    prop_oneof![
        4 => (tenant(), prop::collection::vec(0u8..30, 1..5), any::<bool>())
            .prop_map(|(tenant, names, completes)| Op::List { tenant, names, completes }),
        1 => tenant().prop_map(|tenant| Op::Hole { tenant }),
        10 => tenant().prop_map(|tenant| Op::Spool { tenant }),
        1 => (tenant(), 0i64..200).prop_map(|(tenant, minutes)| Op::FailFetch { tenant, minutes }),
        1 => tenant().prop_map(|tenant| Op::Gap { tenant }),
        8 => (sink(), 1usize..4, prop_oneof![3 => Just(0u8), 1 => any::<u8>()], any::<bool>())
            .prop_map(|(sink, want, dead, filtered)| Op::Settle { sink, want, dead, filtered }),
        2 => (sink(), 0i64..200).prop_map(|(sink, minutes)| Op::Defer { sink, minutes }),
        2 => sink().prop_map(|sink| Op::Hold { sink }),
        2 => Just(Op::SettleHeld),
        1 => Just(Op::DropHeld),
        2 => sink().prop_map(|sink| Op::Panic { sink }),
        2 => Just(Op::Retry),
        1 => Just(Op::Forget),
        3 => Just(Op::Maintain),
        3 => (1i64..60).prop_map(|hours| Op::Advance { hours }),
        2 => Just(Op::Restart),
    ]
}

fn mishap() -> impl Strategy<Value = Option<Mishap>> {
    let point = prop_oneof![
        Just((Point::MakeSegment, Fault::Crash)),
        any::<u8>().prop_map(|share| (Point::Append, Fault::CutAppend(share))),
        Just((Point::Append, Fault::Crash)),
        Just((Point::SyncSegments, Fault::Crash)),
        Just((Point::SyncIds, Fault::Crash)),
        Just((Point::Commit, Fault::Crash)),
        Just((Point::Committed, Fault::Crash)),
        Just((Point::RemoveSegment, Fault::Crash)),
        Just((Point::Append, Fault::Full)),
        Just((Point::SyncSegments, Fault::Broken)),
        Just((Point::SyncIds, Fault::Full)),
        Just((Point::Commit, Fault::Full)),
    ];
    prop_oneof![
        2 => Just(None),
        1 => (point, any::<u64>())
            .prop_map(|((point, fault), seed)| Some(Mishap { point, fault, seed })),
    ]
}

/// A delivery as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Delivery {
    state: &'static str,
    seq: u64,
    due: u32,
    delivered: u32,
    filtered: u32,
    dead: u32,
    not_before: i64,
}

/// A row as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    tenant: u8,
    name: String,
    retry: bool,
    expires: i64,
    state: &'static str,
    not_before: i64,
    seq: Option<u64>,
    /// The body's record numbers, and which positions are duplicates.
    records: Vec<u64>,
    dropped: Vec<u32>,
    ended: Option<i64>,
    panics: u32,
    deliveries: BTreeMap<i64, Delivery>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Letter {
    /// The row's place among all rows that ever were.
    row: usize,
    sink: Option<i64>,
    number: u64,
    /// The row that retries it, and whether that is settled.
    retry: Option<usize>,
    done: bool,
}

#[derive(Debug, Clone)]
struct Model {
    /// Every row in the order of its making; `None` when it was folded.
    rows: Vec<Option<Row>>,
    /// The tenant, the name and the expiry of every row, folded ones included.
    origins: Vec<(u8, String, i64)>,
    letters: Vec<Letter>,
    holes: u64,
    seqs: BTreeMap<u8, u64>,
    watermarks: BTreeMap<u8, i64>,
    created: BTreeMap<(u8, u8), i64>,
    /// Who had a record first, and on which day.
    owners: HashMap<(u8, u64), (usize, i64)>,
    folded_through: i64,
    /// The number of the sink `b`.
    b: i64,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            origins: Vec::new(),
            letters: Vec::new(),
            holes: 0,
            seqs: BTreeMap::new(),
            watermarks: BTreeMap::new(),
            created: BTreeMap::new(),
            owners: HashMap::new(),
            folded_through: 0,
            b: 2,
        }
    }
}

/// The records of the blob with this name: blobs overlap, and some repeat a record of their own.
fn numbers(name: u8) -> Vec<u64> {
    let first = u64::from(name) * 2;
    match name % 5 {
        0 => Vec::new(),
        1 => vec![first, first + 1, first, first + 2],
        _ => (first..first + 4).collect(),
    }
}

fn text(numbers: &[u64]) -> String {
    let records: Vec<_> = numbers.iter().map(|number| record(*number, &noise(600))).collect();
    format!("[{}]", records.join(","))
}

fn day(micros: i64) -> i64 {
    micros.div_euclid(86_400_000_000)
}

impl Model {
    fn row(&mut self, index: usize) -> &mut Row {
        self.rows[index].as_mut().unwrap()
    }

    fn push(&mut self, row: Row) {
        self.origins.push((row.tenant, row.name.clone(), row.expires));
        self.rows.push(Some(row));
    }

    fn take_seq(&mut self, tenant: u8) -> u64 {
        let seq = self.seqs.entry(tenant).or_default();
        *seq += 1;
        *seq
    }

    fn sink(&self, name: char) -> i64 {
        if name == 'a' { 1 } else { self.b }
    }

    fn list(&mut self, tenant: u8, name: u8, now: i64) {
        let created = *self.created.entry((tenant, name)).or_insert(now);
        let expires = created + 7 * DAY;
        let known = self
            .rows
            .iter()
            .flatten()
            .any(|row| !row.retry && row.tenant == tenant && row.name == name.to_string());
        if expires >= self.folded_through && !known {
            self.push(Row {
                tenant,
                name: name.to_string(),
                retry: false,
                expires,
                state: "listed",
                not_before: 0,
                seq: None,
                records: Vec::new(),
                dropped: Vec::new(),
                ended: None,
                panics: 0,
                deliveries: BTreeMap::new(),
            });
        }
    }

    fn spool(&mut self, index: usize, now: i64) {
        let (tenant, name) = (self.row(index).tenant, self.row(index).name.parse().unwrap());
        let records = numbers(name);
        let mut own = BTreeSet::new();
        let mut dropped = Vec::new();
        for (position, number) in records.iter().enumerate() {
            let elsewhere = self
                .owners
                .get(&(tenant, *number))
                .is_some_and(|(owner, seen)| *owner != index && day(now) <= seen + 8);
            if elsewhere || !own.insert(*number) {
                dropped.push(position as u32);
            }
        }
        for number in &records {
            let owner = self.owners.entry((tenant, *number)).or_insert((index, day(now)));
            if day(now) > owner.1 + 8 {
                *owner = (index, day(now));
            }
        }
        let seq = self.take_seq(tenant);
        let due = (records.len() - dropped.len()) as u32;
        let sinks = [1, self.b];
        let row = self.row(index);
        (row.state, row.seq, row.not_before) = ("spooled", Some(seq), 0);
        (row.records, row.dropped) = (records, dropped);
        let state = if due == 0 { "delivered" } else { "pending" };
        let fresh = Delivery { state, seq, due, delivered: 0, filtered: 0, dead: 0, not_before: 0 };
        row.deliveries = sinks.into_iter().map(|sink| (sink, fresh.clone())).collect();
        self.end_if_done(index, now);
    }

    fn end_if_done(&mut self, index: usize, now: i64) {
        let row = self.row(index);
        if row.deliveries.values().all(|delivery| delivery.state != "pending") {
            (row.state, row.ended) = ("settled", Some(now));
            for letter in self.letters.iter_mut().filter(|letter| letter.retry == Some(index)) {
                letter.done = true;
            }
        }
    }

    fn settle(&mut self, index: usize, sink: i64, dead: &[u32], filtered: u32, now: i64) {
        for position in dead {
            let number = self.row(index).records[*position as usize];
            self.letters.push(Letter { row: index, sink: Some(sink), number, retry: None, done: false });
        }
        let delivery = self.row(index).deliveries.get_mut(&sink).unwrap();
        assert_eq!(delivery.state, "pending");
        (delivery.state, delivery.not_before) = ("delivered", 0);
        (delivery.filtered, delivery.dead) = (filtered, dead.len() as u32);
        delivery.delivered = delivery.due - filtered - delivery.dead;
        self.end_if_done(index, now);
    }

    fn kill(&mut self, index: usize, sink: Option<i64>) {
        for (number, delivery) in &mut self.row(index).deliveries {
            if delivery.state == "pending" && sink.is_none_or(|sink| sink == *number) {
                (delivery.state, delivery.not_before) = ("dead", 0);
                delivery.dead = delivery.due;
            }
        }
    }

    fn panic(&mut self, index: usize, now: i64) {
        let row = self.row(index);
        row.panics += 1;
        if row.panics < PANICS || row.state != "spooled" {
            return;
        }
        (row.state, row.ended) = ("quarantined", Some(now));
        let row = row.clone();
        self.kill(index, None);
        let mut was_retry = false;
        for letter in self.letters.iter_mut().filter(|letter| letter.retry == Some(index) && !letter.done) {
            (letter.retry, was_retry) = (None, true);
        }
        if !was_retry {
            let kept = row.records.iter().enumerate().filter(|(at, _)| !row.dropped.contains(&(*at as u32)));
            self.letters.extend(kept.map(|(_, number)| Letter {
                row: index,
                sink: None,
                number: *number,
                retry: None,
                done: false,
            }));
        }
    }

    /// Retries every letter that was not; gives which are refused because their sink is gone.
    fn retry(&mut self) -> Vec<i64> {
        let mut groups: BTreeMap<(usize, Option<i64>), Vec<usize>> = BTreeMap::new();
        for (at, letter) in self.letters.iter().enumerate().filter(|(_, letter)| letter.retry.is_none()) {
            groups.entry((letter.row, letter.sink)).or_default().push(at);
        }
        let mut refused = Vec::new();
        for ((index, sink), letters) in groups {
            let configured = [1, self.b];
            let targets: Vec<i64> = match (sink, &self.rows[index]) {
                (Some(sink), _) => vec![sink],
                (None, Some(row)) => row
                    .deliveries
                    .iter()
                    .filter(|(_, it)| it.state == "dead")
                    .map(|(sink, _)| *sink)
                    .collect(),
                (None, None) => configured.to_vec(),
            };
            let targets: Vec<_> = targets.into_iter().filter(|sink| configured.contains(sink)).collect();
            if targets.is_empty() {
                refused.extend(letters.iter().map(|at| *at as i64 + 1));
                continue;
            }
            let (tenant, name, expires) = self.origins[index].clone();
            let seq = self.take_seq(tenant);
            let records: Vec<_> = letters.iter().map(|at| self.letters[*at].number).collect();
            let due = records.len() as u32;
            let fresh =
                Delivery { state: "pending", seq, due, delivered: 0, filtered: 0, dead: 0, not_before: 0 };
            let made = self.rows.len();
            for at in letters {
                self.letters[at].retry = Some(made);
            }
            self.push(Row {
                tenant,
                name,
                retry: true,
                expires,
                state: "spooled",
                not_before: 0,
                seq: Some(seq),
                records,
                dropped: Vec::new(),
                ended: None,
                panics: 0,
                deliveries: targets.into_iter().map(|sink| (sink, fresh.clone())).collect(),
            });
        }
        refused
    }

    fn forget_b(&mut self, now: i64) {
        let b = self.b;
        for index in 0..self.rows.len() {
            let pending = self.rows[index]
                .as_ref()
                .is_some_and(|row| row.deliveries.get(&b).is_some_and(|it| it.state == "pending"));
            if pending {
                self.kill(index, Some(b));
                self.end_if_done(index, now);
            }
        }
        self.b = b.max(2) + 1;
        let b = self.b;
        for row in self.rows.iter_mut().flatten().filter(|row| row.state == "spooled" && !row.retry) {
            let due = (row.records.len() - row.dropped.len()) as u32;
            let seq = row.seq.unwrap();
            let fresh =
                Delivery { state: "pending", seq, due, delivered: 0, filtered: 0, dead: 0, not_before: 0 };
            row.deliveries.insert(b, fresh);
        }
    }

    fn maintain(&mut self, now: i64) {
        let overdue = self.rows.iter().enumerate().filter_map(|(index, row)| {
            let row = row.as_ref().filter(|row| row.state == "listed" && row.expires < now - DAY / 24)?;
            Some((row.expires, index))
        });
        for (_, index) in overdue.collect::<BTreeSet<_>>() {
            self.gap(index, now);
        }
        let cut = now - 2 * DAY;
        let mut folded = false;
        for place in &mut self.rows {
            let Some(row) = place else { continue };
            let over = row.ended.is_some_and(|ended| ended < cut) && row.expires < cut;
            // Nobody acknowledges anything here.
            if over && (row.state == "settled" || row.retry) {
                *place = None;
                folded = true;
            }
        }
        if folded {
            self.folded_through = self.folded_through.max(cut);
        }
    }

    fn gap(&mut self, index: usize, now: i64) {
        let tenant = self.row(index).tenant;
        let seq = self.take_seq(tenant);
        let row = self.row(index);
        (row.state, row.seq, row.ended, row.not_before) = ("gap", Some(seq), Some(now), 0);
    }
}

const DAY: i64 = 86_400_000_000;

/// A ledger and its model.
struct World {
    bench: Bench,
    model: Model,
    /// The number of each of the model's rows.
    works: Vec<i64>,
    held: Vec<(Lease, i64)>,
    texts: HashMap<u64, String>,
}

impl World {
    fn new() -> Self {
        let bench = Bench::with(|settings| settings.segment_bytes = 4096);
        Self { bench, model: Model::default(), works: Vec::new(), held: Vec::new(), texts: HashMap::new() }
    }

    fn now(&self) -> i64 {
        self.bench.now().timestamp_micros()
    }

    fn index(&self, work: WorkId) -> usize {
        self.works.iter().position(|known| *known == work.0).unwrap()
    }

    fn name(&self, sink: i64) -> char {
        if sink == 1 { 'a' } else { 'b' }
    }

    /// Leases for a sink; the model knows whether there is anything.
    fn lease(&self, name: char, want: usize) -> Vec<Lease> {
        let number = self.model.sink(name);
        let leases = self.bench.lease(&name.to_string(), want);
        let due = self.model.rows.iter().enumerate().filter(|(index, row)| {
            let Some(delivery) = row.as_ref().and_then(|row| row.deliveries.get(&number)) else {
                return false;
            };
            let held = self
                .held
                .iter()
                .any(|(lease, sink)| *sink == number && lease.work.id.0 == self.works[*index]);
            delivery.state == "pending" && delivery.not_before <= self.now() && !held
        });
        assert_eq!(leases.len(), due.count().min(want), "leases of {name}");
        leases
    }

    fn claim(&self, number: u8) -> Option<crate::FetchLease> {
        let claim = self.bench.claim(tenant(number));
        let due = self
            .model
            .rows
            .iter()
            .flatten()
            .any(|row| row.tenant == number && row.state == "listed" && row.not_before <= self.now());
        assert_eq!(claim.is_some(), due, "a claim of tenant {number}");
        claim
    }

    /// Does an operation on both; gives the ledger's error.
    fn apply(&mut self, op: &Op) -> Result<(), LedgerError> {
        let now = self.now();
        match op {
            Op::List { tenant: number, names, completes } => {
                let blobs = names
                    .iter()
                    .map(|name| {
                        let at = *self.model.created.get(&(*number, *name)).unwrap_or(&now);
                        let created = DateTime::<Utc>::from_timestamp_micros(at).unwrap();
                        ListedBlob {
                            content_id: ContentId::try_from(name.to_string()).unwrap(),
                            created,
                            expires: created + TimeDelta::days(7),
                        }
                    })
                    .collect();
                let end = self.bench.now();
                let window = TimeRange { start: end - TimeDelta::hours(1), end };
                let completes =
                    completes.then_some(CompletedWindow { window, watermark: Some(end), swept_at: None });
                for name in names {
                    self.model.list(*number, *name, now);
                }
                if completes.is_some() {
                    self.model.watermarks.insert(*number, now);
                }
                self.bench.ledger.record_page(ListedPage { feed: feed(*number), blobs, completes }).wait()?;
            }
            Op::Hole { tenant: number } => {
                let end = self.bench.now() - TimeDelta::hours(160);
                let span = TimeRange { start: end - TimeDelta::hours(2), end };
                self.model.take_seq(*number);
                self.model.holes += 1;
                let watermark = self.model.watermarks.entry(*number).or_insert(i64::MIN);
                *watermark = (*watermark).max(end.timestamp_micros());
                self.bench.ledger.record_hole(feed(*number), span, HoleReason::TooOld).wait()?;
            }
            Op::Spool { tenant } => {
                let Some(claim) = self.claim(*tenant) else { return Ok(()) };
                let index = self.index(claim.work);
                self.model.spool(index, now);
                let row = self.model.row(index).clone();
                match self.bench.take(claim.work, text(&row.records).as_bytes()) {
                    Ok(spooled) => assert_eq!(
                        (spooled.seq.0, spooled.duplicates as usize),
                        (row.seq.unwrap(), row.dropped.len())
                    ),
                    Err(crate::BodyError::Ledger(error)) => return Err(error),
                    Err(error) => panic!("{error}"),
                }
            }
            Op::FailFetch { tenant, minutes } => {
                let Some(claim) = self.claim(*tenant) else { return Ok(()) };
                let until = self.bench.now() + TimeDelta::minutes(*minutes);
                let index = self.index(claim.work);
                self.model.row(index).not_before = until.timestamp_micros();
                self.bench.ledger.fetch_failed(claim.work, until, "503".into()).wait()?;
            }
            Op::Gap { tenant } => {
                let Some(claim) = self.claim(*tenant) else { return Ok(()) };
                let index = self.index(claim.work);
                self.model.gap(index, now);
                self.bench.ledger.gap(claim.work, GapReason::Expired).wait()?;
            }
            Op::Settle { sink: name, want, dead, filtered } => {
                let leases = self.lease(*name, *want);
                let number = self.model.sink(*name);
                let mut settlements = Vec::new();
                for lease in &leases {
                    let index = self.index(lease.work.id);
                    let row = self.model.row(index).clone();
                    let due: Vec<u32> =
                        (0..row.records.len() as u32).filter(|at| !row.dropped.contains(at)).collect();
                    let dead: Vec<u32> = due.iter().copied().filter(|at| dead >> (at % 8) & 1 == 1).collect();
                    let filtered = u32::from(*filtered && dead.len() < due.len());
                    self.model.settle(index, number, &dead, filtered, now);
                    settlements.push(Settlement {
                        work: lease.work.id,
                        delivered: due.len() as u32 - dead.len() as u32 - filtered,
                        filtered,
                        dead: dead
                            .into_iter()
                            .map(|position| DeadRecord { position, reason: "no".into() })
                            .collect(),
                        resent: 0,
                    });
                }
                self.bench.ledger.settle(&sink(&name.to_string()), settlements, None).wait()?;
            }
            Op::Defer { sink: name, minutes } => {
                let Some(lease) = self.lease(*name, 1).pop() else { return Ok(()) };
                let until = self.bench.now() + TimeDelta::minutes(*minutes);
                let (index, number) = (self.index(lease.work.id), self.model.sink(*name));
                self.model.row(index).deliveries.get_mut(&number).unwrap().not_before =
                    until.timestamp_micros();
                let deferral = Deferral {
                    work: lease.work.id,
                    not_before: Some(until),
                    error: "503".into(),
                    begun: true,
                };
                self.bench.ledger.defer(&sink(&name.to_string()), vec![deferral]).wait()?;
            }
            Op::Hold { sink: name } => {
                let number = self.model.sink(*name);
                let leases = self.lease(*name, 1);
                self.held.extend(leases.into_iter().map(|lease| (lease, number)));
            }
            Op::SettleHeld => {
                if self.held.is_empty() {
                    return Ok(());
                }
                let (lease, number) = self.held.remove(0);
                let index = self.index(lease.work.id);
                let pending = self.model.rows[index].as_ref().is_some_and(|row| {
                    row.deliveries.get(&number).is_some_and(|delivery| delivery.state == "pending")
                });
                if pending {
                    self.model.settle(index, number, &[], 0, now);
                }
                let name = sink(&self.name(number).to_string());
                let settled = self.bench.ledger.settle(&name, vec![delivered(&lease)], None).wait();
                if pending {
                    return settled;
                }
                // Quarantined, or forgotten, meanwhile: final.
                assert!(matches!(
                    settled,
                    Err(LedgerError::AlreadySettled { .. }
                        | LedgerError::UnknownDelivery { .. }
                        | LedgerError::NotLeased { .. }
                        | LedgerError::Closed)
                ));
            }
            Op::DropHeld => self.held.clear(),
            Op::Panic { sink } => {
                let Some(lease) = self.lease(*sink, 1).pop() else { return Ok(()) };
                let index = self.index(lease.work.id);
                self.model.panic(index, now);
                self.bench.ledger.panicked(lease.work.id, "a bug".into()).wait()?;
            }
            Op::Retry => {
                let ids = (1..=self.model.letters.len() as i64)
                    .filter(|id| self.model.letters[*id as usize - 1].retry.is_none())
                    .collect();
                let refused = self.model.retry();
                let retried = self.bench.ledger.retry_dead_letters(ids).wait()?;
                let ids: Vec<_> = retried.refused.into_iter().map(|(id, _)| id).collect();
                assert_eq!(ids, refused);
            }
            Op::Forget => {
                let name = sink("b");
                self.bench.ledger.remove_sink(&name).wait()?;
                self.bench.ledger.forget_sink(&name)?;
                self.bench.ledger.add_sink(spec("b")).wait()?;
                self.model.forget_b(now);
            }
            Op::Maintain => {
                self.model.maintain(now);
                self.bench.ledger.maintain(self.bench.now()).wait()?;
            }
            Op::Advance { hours } => self.bench.clock.advance(TimeDelta::hours(*hours)),
            Op::Restart => {
                self.held.clear();
                self.bench.reopen();
                assert!(!self.bench.recovery.unclean);
                assert_eq!(self.bench.recovery.spool, crate::SpoolRecovery::default());
            }
        }
        Ok(())
    }

    fn step(&mut self, op: &Op, mishap: Option<Mishap>) {
        let mishap = mishap.filter(|_| !matches!(op, Op::Forget | Op::Restart | Op::Advance { .. }));
        let before = self.model.clone();
        let lengths = self.lengths();
        if let Some(mishap) = mishap {
            self.bench.faults.plan(mishap.point, 0, mishap.fault);
        }
        let result = self.apply(op);
        // What follows the commit, the removal of segments, may crash, too.
        let _ = self.bench.ledger.idle_state().wait();
        let happened = self.bench.faults.clear();
        match mishap.filter(|_| happened) {
            None => assert!(result.is_ok(), "{op:?}: {result:?}"),
            Some(mishap) if self.bench.faults.crashed() => {
                if !matches!(mishap.point, Point::Committed | Point::RemoveSegment) {
                    self.model = before;
                }
                self.held.clear();
                self.bench.ledger.close();
                self.tear(&lengths, mishap.seed);
                self.bench.open().unwrap();
                assert!(self.bench.recovery.unclean);
                assert!(self.bench.recovery.spool.damaged.is_empty());
            }
            Some(_) => {
                assert!(result.is_err(), "{op:?} got through");
                self.model = before;
            }
        }
        self.check();
    }

    /// The files that are only appended to, and how long they are.
    fn lengths(&self) -> HashMap<PathBuf, u64> {
        let list = |dir: &str| -> Vec<PathBuf> {
            fs::read_dir(self.bench.path().join(dir)).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        let files = list("spool").into_iter().chain(list("ids")).filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.ends_with(".seg") || name.starts_with("journal-")
        });
        files.map(|path| (path.clone(), path.metadata().unwrap().len())).collect()
    }

    /// Does to the files what a power failure may do to what was not made durable.
    fn tear(&self, before: &HashMap<PathBuf, u64>, seed: u64) {
        let durable = self.bench.faults.durable();
        let mut state = seed | 1;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below.max(1)
        };
        let kept = |path: &Path| before.get(path).max(durable.get(path)).copied();
        for (path, length) in self.lengths() {
            let Some(safe) = kept(&path) else {
                // Not even its directory entry is safe.
                if random(2) == 0 {
                    fs::remove_file(&path).unwrap();
                    continue;
                }
                fs::File::options().write(true).open(&path).unwrap().set_len(random(length + 1)).unwrap();
                continue;
            };
            let mut bytes = fs::read(&path).unwrap();
            if length > safe {
                match random(3) {
                    0 => bytes.truncate((safe + random(length - safe)) as usize),
                    1 => bytes[safe as usize..].iter_mut().for_each(|byte| *byte = random(256) as u8),
                    _ => bytes.extend((0..random(100)).map(|_| random(256) as u8)),
                }
                fs::write(&path, bytes).unwrap();
            }
        }
    }

    /// The ledger holds what the model holds.
    fn check(&mut self) {
        let inspector = self.bench.ledger.inspector();
        let db = inspector.db();
        let mut statement = db.prepare("SELECT work FROM blob ORDER BY work").unwrap();
        let works: Vec<i64> =
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        drop(statement);
        // Rows that are new have the highest numbers, in the model's order.
        self.works.truncate(self.model.rows.len());
        let last = self.works.last().copied().unwrap_or(0);
        self.works.extend(works.iter().copied().filter(|work| *work > last));
        assert_eq!(self.works.len(), self.model.rows.len(), "rows");
        let expected: Vec<_> = self
            .works
            .iter()
            .zip(&self.model.rows)
            .filter_map(|(work, row)| Some((*work, row.as_ref()?)))
            .collect();
        assert_eq!(works, expected.iter().map(|(work, _)| *work).collect::<Vec<_>>(), "folded rows");

        for (work, row) in &expected {
            let found = db.query_row(
                "SELECT state, not_before, seq, ended_at, panics, expires, dropped, kind, stored, segment \
                     FROM blob WHERE work = ?1",
                [work],
                |found| {
                    assert_eq!(found.get::<_, String>(0)?, row.state, "state of {row:?}");
                    assert_eq!(found.get::<_, i64>(1)?, row.not_before, "{row:?}");
                    assert_eq!(found.get::<_, Option<i64>>(2)?, row.seq.map(|seq| seq as i64), "{row:?}");
                    assert_eq!(found.get::<_, Option<i64>>(3)?, row.ended, "{row:?}");
                    assert_eq!(found.get::<_, u32>(4)?, row.panics, "{row:?}");
                    assert_eq!(found.get::<_, i64>(5)?, row.expires, "{row:?}");
                    let dropped = found.get::<_, Option<Vec<u8>>>(6)?.unwrap_or_default();
                    assert_eq!(dropped, crate::positions::encode(&row.dropped), "{row:?}");
                    assert_eq!(found.get::<_, String>(7)? == "retry", row.retry, "{row:?}");
                    // L4: the body is there exactly as long as a delivery is pending.
                    assert_eq!(found.get::<_, Option<i64>>(9)?.is_some(), row.state == "spooled", "{row:?}");
                    Ok(())
                },
            );
            found.unwrap();
            let mut statement = db
                .prepare(
                    "SELECT sink, state, seq, due, delivered, filtered, dead, not_before FROM delivery WHERE work = ?1",
                )
                .unwrap();
            let deliveries = statement.query_map([work], |found| {
                let delivery = Delivery {
                    state: ["pending", "delivered", "dead"]
                        .into_iter()
                        .find(|state| found.get::<_, String>(1).is_ok_and(|found| found == **state))
                        .unwrap(),
                    seq: found.get::<_, i64>(2)? as u64,
                    due: found.get(3)?,
                    delivered: found.get(4)?,
                    filtered: found.get(5)?,
                    dead: found.get(6)?,
                    not_before: found.get(7)?,
                };
                Ok((found.get::<_, i64>(0)?, delivery))
            });
            let deliveries: BTreeMap<_, _> = deliveries.unwrap().map(Result::unwrap).collect();
            assert_eq!(deliveries, row.deliveries, "{row:?}");
        }

        let mut statement = db
            .prepare("SELECT work, sink, retry, done_at IS NOT NULL, bytes FROM dead_letter ORDER BY id")
            .unwrap();
        let mut letters = statement.query([]).unwrap();
        for letter in &self.model.letters {
            let found = letters.next().unwrap().expect("a letter is missing");
            assert_eq!(found.get::<_, i64>(0).unwrap(), self.works[letter.row], "{letter:?}");
            assert_eq!(found.get::<_, Option<i64>>(1).unwrap(), letter.sink, "{letter:?}");
            assert_eq!(found.get::<_, Option<i64>>(2).unwrap(), letter.retry.map(|row| self.works[row]));
            assert_eq!(found.get::<_, bool>(3).unwrap(), letter.done, "{letter:?}");
            let text = (!letter.done).then(|| record(letter.number, &noise(600)).into_bytes());
            assert!(found.get::<_, Option<Vec<u8>>>(4).unwrap() == text, "{letter:?}");
        }
        assert!(letters.next().unwrap().is_none(), "a letter too many");
        drop(letters);
        drop(statement);

        // The spool is what the rows say, and nothing else.
        let sums: (i64, i64, i64) = db
            .query_row(
                "SELECT (SELECT coalesce(sum(live_bytes), 0) FROM segment), \
                 (SELECT coalesce(sum(stored), 0) FROM blob WHERE segment IS NOT NULL), \
                 (SELECT coalesce(sum(spooled_bytes), 0) FROM tenant)",
                [],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .unwrap();
        assert_eq!((sums.0, sums.2), (sums.1, sums.1), "live bytes");
        let holes: i64 = db.query_row("SELECT count(*) FROM hole", [], |row| row.get(0)).unwrap();
        assert_eq!(holes as u64, self.model.holes);
        let mut statement = db.prepare("SELECT number, length FROM segment ORDER BY number").unwrap();
        let segments: Vec<(String, i64)> = statement
            .query_map([], |row| Ok((format!("{:010}.seg", row.get::<_, i64>(0)?), row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        drop(statement);
        drop(db);
        let files: Vec<_> = self
            .bench
            .segments()
            .into_iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(files, segments.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());

        for (work, row) in expected.iter().filter(|(_, row)| row.state == "spooled") {
            let kept: Vec<_> = (0u32..)
                .zip(&row.records)
                .filter(|(at, _)| !row.dropped.contains(at))
                .map(|(_, number)| {
                    self.texts.entry(*number).or_insert_with(|| record(*number, &noise(600))).clone()
                })
                .collect();
            assert!(self.bench.read(WorkId(*work)) == kept, "the body of {row:?}");
        }
        for (number, watermark) in &self.model.watermarks {
            let state = self.bench.ledger.feed_state(feed(*number)).wait().unwrap();
            assert_eq!(state.watermark.map(|at| at.timestamp_micros()), Some(*watermark));
        }
        let report = self.bench.reconcile();
        assert!(report.agrees(), "{report:?}");
        for line in &report.numbers {
            let number = (1u8..3).find(|number| tenant(*number) == line.tenant).unwrap();
            assert_eq!(line.given, self.model.seqs.get(&number).copied().unwrap_or(0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(20),
        max_shrink_iters: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_ledger_keeps_what_it_promises(steps in prop::collection::vec((op(), mishap()), 1..60)) {
        let mut world = World::new();
        for (op, mishap) in &steps {
            world.step(op, *mishap);
        }
    }
}
