//! One object while it grows: the records of one feed that came in one span of time. Pure.
//!
//! It is made of whole works. A work whose records are not all accounted for is **begun**: its lines are in the file
//! already, behind those of the whole works, and are cut off when the sink is opened anew before it is complete. What a
//! whole work came to is an [`Entry`] of the journal beside the file, so that neither memory nor the ledger has to hold
//! it, and the next process need not read the records again.

use std::collections::VecDeque;

use archive::SealedObject;
use chrono::{DateTime, Utc};
use schemas::{FeedKey, Seq};
use serde::{Deserialize, Serialize};

use super::config::Formats;
use crate::delivery_ledger::{BodyId, DeadRecord, Settlement, WorkId};

/// A work that is whole in the file: a line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    work: WorkId,
    seq: Seq,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<BodyId>,
    /// Where its lines end.
    end: u64,
    delivered: u32,
    filtered: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dead: Vec<(u32, String)>,
    #[serde(default, skip_serializing_if = "is_zero")]
    resent: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    times: Option<(i64, i64)>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Entry {
    pub(super) fn work(&self) -> WorkId {
        self.work
    }

    pub(super) fn settlement(&self) -> Settlement {
        let dead = self
            .dead
            .iter()
            .map(|(position, reason)| DeadRecord { position: *position, reason: reason.clone() });
        Settlement {
            work: self.work,
            body: self.body,
            delivered: self.delivered,
            filtered: self.filtered,
            dead: dead.collect(),
            resent: self.resent,
        }
    }

    fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("numbers and texts are always JSON");
        line.push(b'\n');
        line
    }
}

/// The whole works of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Whole {
    /// How far they reach in the file.
    pub(super) bytes: u64,
    /// How long their journal is.
    pub(super) journal: u64,
    pub(super) works: usize,
    pub(super) records: u64,
    /// The first and the last `Seq`.
    pub(super) seqs: Option<(Seq, Seq)>,
    /// The first and the last `CreationTime`, in milliseconds since 1970.
    pub(super) times: Option<(i64, i64)>,
}

/// A journal that does not belong to its file.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadJournal {
    #[error("line {line} is no entry: {source}")]
    Malformed { line: usize, source: serde_json::Error },
    #[error("line {line} ends at byte {end}, before the one above it")]
    OutOfOrder { line: usize, end: u64 },
    #[error("it accounts for {found} bytes of {expected}")]
    OtherLength { expected: u64, found: u64 },
}

impl Whole {
    fn add(&mut self, entry: &Entry, line: u64) {
        self.bytes = entry.end;
        self.journal += line;
        self.works += 1;
        self.records += u64::from(entry.delivered);
        self.seqs = join(self.seqs, Some((entry.seq, entry.seq)));
        self.times = join(self.times, entry.times);
    }

    /// The works of a journal, which is for so many bytes of the file.
    pub(super) fn of(journal: &[u8], bytes: u64) -> Result<(Self, Vec<Entry>), BadJournal> {
        let mut whole = Self::default();
        let mut entries = Vec::new();
        for (at, line) in journal.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let entry: Entry = serde_json::from_slice(line)
                .map_err(|source| BadJournal::Malformed { line: at + 1, source })?;
            if entry.end < whole.bytes {
                return Err(BadJournal::OutOfOrder { line: at + 1, end: entry.end });
            }
            whole.add(&entry, line.len() as u64);
            entries.push(entry);
        }
        if whole.bytes == bytes {
            Ok((whole, entries))
        } else {
            Err(BadJournal::OtherLength { expected: bytes, found: whole.bytes })
        }
    }
}

fn join<T: Ord + Copy>(one: Option<(T, T)>, other: Option<(T, T)>) -> Option<(T, T)> {
    match (one, other) {
        (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
        (one, other) => one.or(other),
    }
}

/// A work of which some records are in the file.
#[derive(Debug, Clone)]
struct Begun {
    work: WorkId,
    seq: Seq,
    /// The last position that is in the file.
    last: u32,
    end: u64,
    times: Option<(i64, i64)>,
    settlement: Option<Settlement>,
}

/// What is appended for a work at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Appended {
    pub(super) work: WorkId,
    pub(super) seq: Seq,
    /// The last position among them.
    pub(super) last: u32,
    pub(super) bytes: u64,
    pub(super) times: Option<(i64, i64)>,
}

/// How far an object has come.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    /// It takes records, and once it is due only those of works that it has begun.
    Open { due: bool },
    /// The ledger knows its name and hash.
    Sealed(Box<SealedObject>),
}

/// One object while it is on this machine.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) feed: FeedKey,
    pub(super) began: DateTime<Utc>,
    pub(super) formats: Formats,
    pub(super) whole: Whole,
    /// Where the next lines begin.
    pub(super) end: u64,
    pub(super) stage: Stage,
    /// Whether lines are on their way to the file, which [`Span::appended`] is told of when they are there. Whoever sealed
    /// it meanwhile would leave them out, and name their work as archived.
    pub(super) being_written: bool,
    begun: VecDeque<Begun>,
    /// Lines of the journal that are not in its file yet.
    unwritten: Vec<u8>,
}

impl Span {
    pub(super) fn new(feed: FeedKey, began: DateTime<Utc>, formats: Formats) -> Self {
        Self::again(feed, began, formats, Whole::default(), Stage::Open { due: false })
    }

    pub(super) fn again(
        feed: FeedKey,
        began: DateTime<Utc>,
        formats: Formats,
        whole: Whole,
        stage: Stage,
    ) -> Self {
        let end = whole.bytes;
        Self {
            feed,
            began,
            formats,
            whole,
            end,
            stage,
            being_written: false,
            begun: VecDeque::new(),
            unwritten: Vec::new(),
        }
    }

    /// The last position of the work that is in the file.
    pub(super) fn last_of(&self, work: WorkId) -> Option<u32> {
        self.begun.iter().find(|begun| begun.work == work).map(|begun| begun.last)
    }

    /// These lines are in the file.
    pub(super) fn appended(&mut self, what: Appended) {
        self.end += what.bytes;
        match self.begun.back_mut().filter(|begun| begun.work == what.work) {
            Some(begun) => {
                begun.last = what.last;
                begun.end = self.end;
                begun.times = join(begun.times, what.times);
            }
            None => self.begun.push_back(Begun {
                work: what.work,
                seq: what.seq,
                last: what.last,
                end: self.end,
                times: what.times,
                settlement: None,
            }),
        }
    }

    /// The work is accounted for.
    pub(super) fn complete(&mut self, settlement: &Settlement) {
        if let Some(begun) = self.begun.iter_mut().find(|begun| begun.work == settlement.work) {
            begun.settlement = Some(settlement.clone());
        }
        while let Some(begun) = self.begun.pop_front() {
            let Some(settlement) = &begun.settlement else {
                self.begun.push_front(begun);
                break;
            };
            let dead = settlement.dead.iter().map(|dead| (dead.position, dead.reason.clone())).collect();
            let entry = Entry {
                work: begun.work,
                seq: begun.seq,
                body: settlement.body,
                end: begun.end,
                delivered: settlement.delivered,
                filtered: settlement.filtered,
                dead,
                resent: settlement.resent,
                times: begun.times,
            };
            let line = entry.line();
            self.whole.add(&entry, line.len() as u64);
            self.unwritten.extend(line);
        }
    }

    /// Whether it is made of whole works only, and of some.
    pub(super) fn is_whole(&self) -> bool {
        self.begun.is_empty() && self.whole.works > 0 && !self.being_written
    }

    /// How many works it has, whole or begun.
    pub(super) fn works(&self) -> usize {
        self.whole.works + self.begun.len()
    }

    /// Forgets what is begun.
    pub(super) fn cut(&mut self) {
        self.begun.clear();
        self.being_written = false;
        self.end = self.whole.bytes;
    }

    /// What is missing in the journal's file, and how long that is before.
    pub(super) fn unwritten(&self) -> (u64, &[u8]) {
        (self.whole.journal - self.unwritten.len() as u64, &self.unwritten)
    }

    /// The journal's file has all lines.
    pub(super) fn journal_written(&mut self) {
        self.unwritten = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use schemas::{ContentType, TenantId};
    use uuid::Uuid;

    use super::*;

    fn span() -> Span {
        let feed = FeedKey { tenant: TenantId::new(Uuid::from_u128(1)), content_type: ContentType::Exchange };
        Span::new(feed, DateTime::UNIX_EPOCH, Formats::default())
    }

    fn some(work: i64, last: u32, bytes: u64) -> Appended {
        let time = work * 10 + i64::from(last);
        Appended { work: WorkId(work), seq: Seq(work as u64), last, bytes, times: Some((time, time)) }
    }

    fn settled(work: i64, delivered: u32) -> Settlement {
        Settlement { work: WorkId(work), body: None, delivered, filtered: 1, dead: Vec::new(), resent: 0 }
    }

    #[test]
    fn only_whole_works_count_and_they_end_in_the_order_of_the_file() {
        let mut span = span();
        span.appended(some(7, 4, 50));
        span.appended(some(7, 9, 50));
        span.appended(some(8, 0, 10));
        assert_eq!((span.last_of(WorkId(7)), span.end, span.whole.bytes), (Some(9), 110, 0));
        span.complete(&settled(8, 1));
        assert_eq!(span.whole.works, 0, "what stands before it is not complete");
        span.complete(&settled(7, 10));
        assert!(span.is_whole());
        assert_eq!((span.whole.bytes, span.whole.works, span.whole.records), (110, 2, 11));
        assert_eq!((span.whole.seqs, span.whole.times), (Some((Seq(7), Seq(8))), Some((74, 80))));
        span.appended(some(9, 0, 5));
        assert!(!span.is_whole());
        span.cut();
        assert_eq!(span.end, 110);
    }

    #[test]
    fn the_journal_gives_back_what_was_settled_and_how_far_it_reaches() {
        let mut span = span();
        for work in 1..4 {
            span.appended(some(work, 2, 30));
            let dead = vec![DeadRecord { position: 5, reason: "broken \"quote\"".to_owned() }];
            span.complete(&Settlement { dead, resent: 2, ..settled(work, 3) });
        }
        let (at, journal) = span.unwritten();
        assert_eq!(at, 0);
        let (whole, entries) = Whole::of(journal, 90).unwrap();
        assert_eq!(whole, span.whole);
        assert_eq!(entries[1].settlement().dead[0].position, 5);
        assert_eq!(entries[2].settlement().resent, 2);
        assert!(matches!(Whole::of(journal, 91), Err(BadJournal::OtherLength { expected: 91, found: 90 })));
        assert!(matches!(Whole::of(b"{}\n", 0), Err(BadJournal::Malformed { line: 1, .. })));
        let turned: Vec<u8> = journal.split_inclusive(|b| *b == b'\n').rev().flatten().copied().collect();
        assert!(matches!(Whole::of(&turned, 30), Err(BadJournal::OutOfOrder { line: 2, .. })));
    }
}
