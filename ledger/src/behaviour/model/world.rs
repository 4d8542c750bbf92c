//! A ledger and its model side by side: does an operation on both, kills the ledger, and compares.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use chrono::{DateTime, TimeDelta, Utc};
use schemas::{ContentId, GapReason, HoleReason, ListedBlob, TimeRange};

use super::{
    Mishap, Op,
    expected::{Delivery, Model, text},
};
use crate::{
    CompletedWindow, DeadRecord, Deferral, Lease, LedgerError, ListedPage, RestoreAsk, RestoreId,
    RestoreStep, Settlement, WorkId, behaviour::opening::noise, faults::Point, testing::*,
};

fn ask(name: char, anew: bool) -> RestoreAsk {
    let (since, until) = (start() - TimeDelta::days(30), start());
    RestoreAsk { sink: sink(&name.to_string()), asked: "all of it".into(), since, until, anew }
}

/// A ledger and its model.
pub(super) struct World {
    bench: Bench,
    model: Model,
    /// The number of each of the model's rows.
    works: Vec<i64>,
    held: Vec<(Lease, i64)>,
    texts: HashMap<u64, String>,
}

impl World {
    pub(super) fn new() -> Self {
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
                        body: lease.work.body,
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
                    if *minutes == 0 { 0 } else { until.timestamp_micros() };
                let deferral =
                    Deferral { work: lease.work.id, not_before: Some(until), error: "503".into(), begun: 1 };
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
                    Ok(())
                        | Err(LedgerError::AlreadySettled { .. }
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
            Op::BeginRestore { sink: name, anew } => {
                let number = self.model.sink(*name);
                self.model.begin_restore(number, *anew);
                let begun = self.bench.ledger.begin_restore(ask(*name, *anew)).wait()?;
                let at = self.model.open_restores[&number];
                assert_eq!(begun.id, RestoreId(at as i64 + 1));
                assert_eq!(begun.records, self.model.restores[at].2);
            }
            Op::Restore { tenant: number, sink: name, records } => {
                let sink = self.model.sink(*name);
                let Some(at) = self.model.open_restores.get(&sink).copied() else { return Ok(()) };
                let from = self.model.restores[at].1;
                // Some of them are what blobs have, too.
                let records: Vec<u64> = (0..u64::from(*records)).map(|number| number * 3).collect();
                let lines: String = records.iter().map(|at| record(*at, &noise(600)) + "\n").collect();
                self.model.restore(at, *number, records, now);
                let step = RestoreStep {
                    restore: RestoreId(at as i64 + 1),
                    feed: feed(*number),
                    object: ContentId::try_from("object").unwrap(),
                    from,
                    through: self.model.restores[at].1,
                    done: false,
                };
                let seq = self.bench.ledger.restore_records(step, lines.into_bytes()).wait()?;
                let made = self.model.rows.last().cloned().flatten().filter(|_| seq.is_some());
                assert_eq!(seq.map(|seq| seq.0), made.and_then(|row| row.seq));
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

    pub(super) fn step(&mut self, op: &Op, mishap: Option<Mishap>) {
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
                // One that settles what is final fails in any case.
                assert!(result.is_err() || matches!(op, Op::SettleHeld), "{op:?} got through");
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
                "SELECT state, not_before, seq, ended_at, panics, expires, dropped, kind, stored, segment, restore \
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
                    assert_eq!(found.get::<_, Option<i64>>(10)?.is_some(), row.restored, "{row:?}");
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
        let restores = "SELECT restore.sink, coalesce((SELECT lines FROM restore_object WHERE restore = restore.id), 0), \
                        records, ended_at IS NULL, id FROM restore ORDER BY id";
        let mut statement = db.prepare(restores).unwrap();
        let found = statement.query_map([], |row| {
            let open = row.get(3)?;
            let lines: i64 = row.get(1)?;
            Ok((
                (row.get::<_, i64>(0)?, lines as u64, row.get::<_, i64>(2)? as u64),
                open,
                row.get::<_, i64>(4)?,
            ))
        });
        let found: Vec<_> = found.unwrap().map(Result::unwrap).collect();
        for (at, (expected, (found, open, id))) in self.model.restores.iter().zip(&found).enumerate() {
            assert_eq!(*id, at as i64 + 1);
            assert_eq!(*open, self.model.open_restores.get(&expected.0) == Some(&at), "restore {id}");
            // How far it is in an object is forgotten when it has ended.
            let expected = if *open { *expected } else { (expected.0, 0, expected.2) };
            assert_eq!(*found, expected, "restore {id}");
        }
        assert_eq!(found.len(), self.model.restores.len(), "restores");
        drop(statement);
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
