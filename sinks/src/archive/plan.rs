//! Which objects there are on this machine, what goes into which, and what is due. Pure: no clock, no I/O.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use archive::SealedObject;
use chrono::{DateTime, TimeDelta, Utc};
use schemas::FeedKey;

use super::{
    config::{ArchiveConfig, Formats},
    manifests::Manifests,
    span::{Appended, Span, Stage, Whole},
    state::{OnDisk, SealedOnDisk, State},
};
use crate::{
    delivery_ledger::{Settlement, WorkId},
    sink::Batch,
};

/// By how much a clock is set back while it is only kept right.
const KEPT_RIGHT: TimeDelta = TimeDelta::minutes(1);

/// So many works are held at most. Each costs about 150 bytes: its settlement and its claim.
const MOST_WORKS: usize = 65_536;

/// When objects are closed.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    object_bytes: u64,
    object_age: Duration,
    staging_bytes: u64,
    works: usize,
}

/// What is on this machine.
#[derive(Debug)]
pub(super) struct Plan {
    bounds: Bounds,
    /// What new objects begin with.
    formats: Formats,
    next: u64,
    spans: BTreeMap<u64, Span>,
    /// Where new works of a feed go.
    current: HashMap<FeedKey, u64>,
    begun_in: HashMap<WorkId, u64>,
    manifests: Manifests,
    /// Whether objects that are put are to be named by a manifest.
    signs: bool,
    /// What is to be committed; it counts when that is known to have happened.
    offer: Option<Offer>,
    held: Totals,
}

/// How much there is of what is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    pub(super) works: usize,
    /// Of files in the staging folder: records while an object is open, the object once it is sealed.
    pub(super) bytes: u64,
}

/// A step of some objects.
#[derive(Debug, Clone)]
pub(super) enum Offer {
    /// They have a name.
    Sealed(Vec<(u64, SealedObject)>),
    /// They are in the archive.
    Put(Vec<u64>),
    /// Entries were made or put.
    Manifests(Box<Manifests>),
}

/// Lines of a batch that go to one file.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) span: u64,
    /// How long the file is before.
    pub(super) at: u64,
    /// The parts of the batch, by index, each with how many of its records are in the file already.
    pub(super) parts: Vec<(usize, usize)>,
}

/// What is to be sealed.
#[derive(Debug, Clone)]
pub(super) struct Due {
    pub(super) span: u64,
    pub(super) feed: FeedKey,
    pub(super) began: DateTime<Utc>,
    pub(super) formats: Formats,
    pub(super) whole: Whole,
}

impl Due {
    /// Whether this is what it should have in its file, else what it has instead.
    pub(super) fn has(&self, records: u64, bytes: u64) -> Result<(), String> {
        let Whole { bytes: all_bytes, records: all_records, .. } = self.whole;
        if (records, bytes) == (all_records, all_bytes) {
            return Ok(());
        }
        Err(format!("{records} records of {bytes} bytes, and {all_records} of {all_bytes} were expected"))
    }
}

/// How many objects there are, for people.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Levels {
    pub(super) open: usize,
    pub(super) open_bytes: u64,
    pub(super) sealed: usize,
    pub(super) sealed_bytes: u64,
    pub(super) works: usize,
    /// When the oldest that is open began.
    pub(super) oldest: Option<DateTime<Utc>>,
}

impl Plan {
    /// Goes on with these, in the order of their numbers.
    pub(super) fn new(config: &ArchiveConfig, spans: BTreeMap<u64, Span>, manifests: Manifests) -> Self {
        let bounds = Bounds {
            object_bytes: config.object_bytes,
            object_age: config.object_age,
            staging_bytes: config.staging_bytes,
            works: MOST_WORKS,
        };
        let mut plan = Self {
            bounds,
            formats: config.formats.clone(),
            next: spans.keys().next_back().map_or(1, |last| last + 1),
            spans,
            current: HashMap::new(),
            begun_in: HashMap::new(),
            manifests,
            signs: config.signing.is_some(),
            offer: None,
            held: Totals::default(),
        };
        let mut older = Vec::new();
        for (&number, span) in &plan.spans {
            if matches!(span.stage, Stage::Open { .. }) {
                older.extend(plan.current.insert(span.feed, number));
            }
        }
        for number in older {
            plan.close(number);
        }
        plan.held = plan.totals();
        plan
    }

    /// What was open in this process and is not sealed by what the ledger says; what is not whole of it is forgotten.
    pub(super) fn cut_to_open(&mut self, state: &State) -> Vec<u64> {
        let sealed = |number: &u64| state.sealed.iter().any(|of| of.span.span == *number);
        let open = |span: &Span| matches!(span.stage, Stage::Open { .. });
        self.spans.retain(|number, span| open(span) && !sealed(number));
        self.spans.values_mut().for_each(Span::cut);
        self.spans.keys().copied().collect()
    }

    /// Throws an object away. Its works come again when the sink is opened anew.
    pub(super) fn forget(&mut self, number: u64) {
        if let Some(span) = self.spans.remove(&number) {
            self.begun_in.retain(|_, of| *of != number);
            if self.current.get(&span.feed) == Some(&number) {
                self.current.remove(&span.feed);
            }
            self.held = self.totals();
        }
    }

    /// Where the lines of a batch go. Nothing of that is sealed until they are there. One batch at a time is written.
    pub(super) fn begin(&mut self, batch: &Batch, now: DateTime<Utc>) -> Vec<Writing> {
        // One that could not be written may go elsewhere the next time.
        self.spans.values_mut().for_each(|span| span.being_written = false);
        let mut writings: Vec<Writing> = Vec::new();
        let mut fresh: HashMap<WorkId, u64> = HashMap::new();
        for (index, part) in batch.parts.iter().enumerate() {
            let work = part.work.id;
            let number = match self.begun_in.get(&work).or(fresh.get(&work)) {
                Some(number) => *number,
                None => self.current(part.work.feed, now),
            };
            fresh.insert(work, number);
            let Some(span) = self.spans.get_mut(&number) else { continue };
            let there = span.last_of(work);
            let skip =
                there.map_or(0, |last| part.records().take_while(|record| record.position <= last).count());
            match writings.iter_mut().find(|writing| writing.span == number) {
                Some(writing) => writing.parts.push((index, skip)),
                None => writings.push(Writing { span: number, at: span.end, parts: vec![(index, skip)] }),
            }
            span.being_written = true;
        }
        writings
    }

    /// The object that takes new works of the feed.
    fn current(&mut self, feed: FeedKey, now: DateTime<Utc>) -> u64 {
        if let Some(&number) = self.current.get(&feed) {
            if !self.spans.get(&number).is_none_or(|span| self.bounds.are_reached(span, now)) {
                return number;
            }
            self.close(number);
        }
        let number = self.next;
        self.next += 1;
        self.spans.insert(number, Span::new(feed, now, self.formats.clone()));
        self.current.insert(feed, number);
        number
    }

    /// The object takes no new works any more.
    fn close(&mut self, number: u64) {
        if let Some(span) = self.spans.get_mut(&number)
            && let Stage::Open { due } = &mut span.stage
        {
            *due = true;
            if self.current.get(&span.feed) == Some(&number) {
                self.current.remove(&span.feed);
            }
        }
    }

    /// The lines are in the file.
    pub(super) fn appended(&mut self, writing: &Writing, batch: &Batch) {
        let Some(span) = self.spans.get_mut(&writing.span) else { return };
        span.being_written = false;
        for &(index, skip) in &writing.parts {
            let part = &batch.parts[index];
            let new = || part.records().skip(skip);
            let Some(last) = new().map(|record| record.position).last() else { continue };
            let times = new().filter_map(|record| record.facts.time_ms);
            let times = times.fold(None, |times: Option<(i64, i64)>, time| {
                Some(times.map_or((time, time), |(first, last)| (first.min(time), last.max(time))))
            });
            let bytes = part.lines(skip).len() as u64;
            let work = part.work.id;
            span.appended(Appended { work, seq: part.work.seq, last, bytes, times });
            self.held.bytes += bytes;
            if self.begun_in.insert(work, writing.span).is_none() {
                self.held.works += 1;
            }
        }
        let is_full = span.end >= self.bounds.object_bytes;
        if is_full {
            self.close(writing.span);
        }
        self.relieve();
    }

    /// Closes an object early when all that are open together come near to what may be held.
    fn relieve(&mut self) {
        let open = || {
            let number = self.current.values();
            number.filter_map(|number| Some((*number, self.spans.get(number)?)))
        };
        let bytes: u64 = open().map(|(_, span)| span.end).sum();
        let works: usize = open().map(|(_, span)| span.works()).sum();
        let largest = if bytes > self.bounds.staging_bytes / 2 {
            open().max_by_key(|(_, span)| span.end)
        } else if works > self.bounds.works / 2 {
            open().max_by_key(|(_, span)| span.works())
        } else {
            None
        };
        if let Some((number, _)) = largest {
            self.close(number);
        }
    }

    /// The work is accounted for; whether some of it is held.
    pub(super) fn complete(&mut self, settlement: &Settlement) -> bool {
        let Some(number) = self.begun_in.remove(&settlement.work) else { return false };
        let Some(span) = self.spans.get_mut(&number) else { return false };
        span.complete(settlement);
        true
    }

    /// Closes everything that is open.
    pub(super) fn flush(&mut self) {
        for number in self.current.values().copied().collect::<Vec<_>>() {
            if self.spans.get(&number).is_some_and(|span| span.works() > 0) {
                self.close(number);
            }
        }
    }

    /// Whether another batch may come: there is room, or nothing is on its way that would make some (a single blob may be
    /// larger than all that may be held).
    pub(super) fn has_room(&self) -> bool {
        let within = self.held.bytes < self.bounds.staging_bytes && self.held.works < self.bounds.works;
        let leaves = |span: &Span| match span.stage {
            Stage::Open { due } => due && span.is_whole(),
            Stage::Sealed(_) => true,
        };
        within || !self.spans.values().any(leaves)
    }

    /// What is to be sealed now, the oldest first.
    pub(super) fn due(&mut self, now: DateTime<Utc>) -> Vec<Due> {
        for number in self.current.values().copied().collect::<Vec<_>>() {
            if self.spans.get(&number).is_some_and(|span| self.bounds.are_reached(span, now)) {
                self.close(number);
            }
        }
        let due = |(number, span): (&u64, &Span)| match span.stage {
            Stage::Open { due: true } if span.is_whole() => Some(Due {
                span: *number,
                feed: span.feed,
                began: span.began,
                formats: span.formats.clone(),
                whole: span.whole,
            }),
            _ => None,
        };
        self.spans.iter().filter_map(due).collect()
    }

    /// After how long something will be due by its age.
    pub(super) fn until_due(&self, now: DateTime<Utc>) -> Option<Duration> {
        let open = self.current.values().filter_map(|number| self.spans.get(number));
        let open = open.filter(|span| span.works() > 0);
        let left = open.map(|span| self.bounds.object_age.saturating_sub(self.bounds.age(span, now)));
        left.min()
    }

    /// What is to be put now.
    pub(super) fn sealed(&self) -> Vec<(u64, SealedObject)> {
        let sealed = |(number, span): (&u64, &Span)| match &span.stage {
            Stage::Sealed(sealed) => Some((*number, sealed.as_ref().clone())),
            Stage::Open { .. } => None,
        };
        self.spans.iter().filter_map(sealed).collect()
    }

    /// All of them, in the order in which they were begun.
    pub(super) fn spans(&self) -> impl Iterator<Item = &Span> {
        self.spans.values()
    }

    /// When an object that is open is old enough.
    pub(super) fn closes_at(&self, span: &Span) -> DateTime<Utc> {
        let age = TimeDelta::from_std(self.bounds.object_age).unwrap_or(TimeDelta::MAX);
        span.began.checked_add_signed(age).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    pub(super) fn span_mut(&mut self, number: u64) -> Option<&mut Span> {
        self.spans.get_mut(&number)
    }

    pub(super) fn span(&self, number: u64) -> Option<&Span> {
        self.spans.get(&number)
    }

    /// What is open, by number.
    pub(super) fn open(&self) -> Vec<u64> {
        let open =
            |(number, span): (&u64, &Span)| matches!(span.stage, Stage::Open { .. }).then_some(*number);
        self.spans.iter().filter_map(open).collect()
    }

    /// Offers a step; returns the state that makes it durable.
    pub(super) fn offer(&mut self, offer: Offer) -> State {
        let mut state = self.state();
        match &offer {
            Offer::Sealed(sealed) => {
                let on_disk = |(number, object): &(u64, SealedObject)| {
                    let records = self.spans.get(number).map(|span| span.whole.records);
                    debug_assert_eq!(records, Some(object.records), "what is sealed takes nothing more");
                    Some(SealedOnDisk { span: self.on_disk(*number)?, object: object.clone() })
                };
                state.sealed.extend(sealed.iter().filter_map(on_disk));
            }
            Offer::Put(put) => {
                state.sealed.retain(|sealed| !put.contains(&sealed.span.span));
                state.manifests = self.manifests_with(put);
            }
            Offer::Manifests(manifests) => state.manifests = manifests.as_ref().clone(),
        }
        self.offer = Some(offer);
        state
    }

    /// What was offered is durable. Returns it.
    pub(super) fn confirm(&mut self) -> Option<Offer> {
        let offer = self.offer.take()?;
        match &offer {
            Offer::Sealed(sealed) => {
                for (number, object) in sealed {
                    if let Some(span) = self.spans.get_mut(number) {
                        self.held.bytes = self.held.bytes.saturating_sub(span.end) + object.stored_bytes();
                        span.stage = Stage::Sealed(Box::new(object.clone()));
                    }
                }
            }
            Offer::Manifests(manifests) => self.manifests = manifests.as_ref().clone(),
            Offer::Put(put) => {
                self.manifests = self.manifests_with(put);
                for span in put.iter().filter_map(|number| self.spans.remove(number)) {
                    self.held.works -= span.works();
                    if let Stage::Sealed(object) = span.stage {
                        self.held.bytes = self.held.bytes.saturating_sub(object.stored_bytes());
                    }
                }
            }
        }
        debug_assert_eq!(self.held, self.totals());
        Some(offer)
    }

    /// The manifests when these objects are put.
    fn manifests_with(&self, put: &[u64]) -> Manifests {
        let mut manifests = self.manifests.clone();
        for span in put.iter().filter(|_| self.signs).filter_map(|number| self.spans.get(number)) {
            if let Stage::Sealed(object) = &span.stage {
                manifests.put(span.feed.tenant, object.as_ref().clone(), span.began);
            }
        }
        manifests
    }

    pub(super) fn manifests(&self) -> &Manifests {
        &self.manifests
    }

    /// Whether there is nothing on this machine.
    pub(super) fn is_empty(&self) -> bool {
        self.spans.values().all(|span| span.works() == 0)
    }

    /// What the ledger knows already.
    pub(super) fn state(&self) -> State {
        let sealed = self.sealed().into_iter();
        let sealed =
            sealed.filter_map(|(number, object)| Some(SealedOnDisk { span: self.on_disk(number)?, object }));
        State::new(Vec::new(), sealed.collect(), self.manifests.clone())
    }

    /// A span as the ledger is to know it.
    pub(super) fn on_disk(&self, number: u64) -> Option<OnDisk> {
        let span = self.spans.get(&number)?;
        let reach = (span.whole.bytes, span.whole.journal);
        Some(OnDisk::new(number, span.feed, span.began, span.formats.clone(), reach))
    }

    pub(super) fn levels(&self) -> Levels {
        let mut levels = Levels { works: self.held.works, ..Levels::default() };
        for span in self.spans.values() {
            match &span.stage {
                Stage::Open { .. } => {
                    levels.open += 1;
                    levels.open_bytes += span.end;
                    levels.oldest = levels.oldest.into_iter().chain([span.began]).min();
                }
                Stage::Sealed(object) => {
                    levels.sealed += 1;
                    levels.sealed_bytes += object.stored_bytes();
                }
            }
        }
        levels
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for span in self.spans.values() {
            totals.works += span.works();
            totals.bytes += match &span.stage {
                Stage::Open { .. } => span.end,
                Stage::Sealed(object) => object.stored_bytes(),
            };
        }
        totals
    }
}

impl Bounds {
    fn are_reached(&self, span: &Span, now: DateTime<Utc>) -> bool {
        span.works() > 0 && (span.end >= self.object_bytes || self.age(span, now) >= self.object_age)
    }

    /// How old an object is. One that was begun later than now was begun while the clock was ahead: nobody knows how old it
    /// is, and it must not stay open for as long as the clock was wrong, so it is old enough.
    fn age(&self, span: &Span, now: DateTime<Utc>) -> Duration {
        match (now - span.began).to_std() {
            Ok(age) => age,
            Err(_) if span.began - now > KEPT_RIGHT => self.object_age,
            Err(_) => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests;
