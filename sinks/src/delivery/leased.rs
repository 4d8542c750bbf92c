//! One leased work: how far it is read, and its account.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Range,
    sync::Arc,
};

use chrono::{DateTime, Utc};

use crate::{
    account::Account,
    batching::{Ready, Slice},
    delivery_ledger::{DeadRecord, Deferral, Lease, RenderedPiece},
    memory::{Piece, Reservation},
    partial::Partial,
    positions::Positions,
};

/// A piece of a body as the spool cuts it; a single larger record is a piece of its own.
const PIECE: u64 = 256 * 1024;
/// How much larger than the body's bytes a rendered piece is taken to be until it is there.
pub(super) const GROWTH: u64 = 2;

/// One leased work.
pub(super) struct Leased {
    pub(super) lease: Lease,
    pub(super) account: Account,
    cursor: Cursor,
    /// Whether something of it was made ready before.
    started: bool,
    /// Whether [`crate::delivery_ledger::DeliveryLedger::begin`] was asked for it, and whether it is committed.
    pub(super) begin_asked: bool,
    pub(super) begin_committed: bool,
    /// Whether the ledger was told that the state of its sink speaks of it.
    pub(super) tried: bool,
    pub(super) giving_up: Option<GiveUp>,
}

/// Why and until when a work goes back into the ledger.
#[derive(Debug, Clone)]
pub(super) enum GiveUp {
    /// It is deferred.
    Until { not_before: Option<DateTime<Utc>>, error: String },
    /// It panicked; the ledger says whether it may be tried again.
    Panicked { message: String },
}

/// Where to read on.
struct Cursor {
    /// What an earlier run chose, in the order of its sending: parts that others came between, each of passes over
    /// the body.
    parts: VecDeque<VecDeque<Arc<BTreeSet<u32>>>>,
    from: u32,
    /// What is not to be sent again when the passes are over.
    except: BTreeSet<u32>,
}

impl Leased {
    /// `partial` is what an earlier turn did; `sent` was chosen to be sent by an earlier run, in several parts that
    /// others came between.
    pub(super) fn new(lease: Lease, partial: &Partial, sent: &[Positions]) -> Self {
        let already = &partial.delivered;
        let passes = sent.iter().map(|part| part.passes().into_iter().map(Arc::new).collect());
        let cursor = Cursor {
            parts: passes.filter(|passes: &VecDeque<_>| !passes.is_empty()).collect(),
            from: 0,
            except: sent.iter().flat_map(Positions::iter).chain(already.iter()).collect(),
        };
        let account = Account::new(&lease.work, partial, cursor.except.len());
        Self {
            lease,
            account,
            cursor,
            started: !already.is_empty(),
            begin_asked: false,
            begin_committed: false,
            tried: false,
            giving_up: None,
        }
    }

    /// What is to be read next, and how much memory that will take, about.
    pub(super) fn next_read(&self) -> (u32, Option<Arc<BTreeSet<u32>>>, usize) {
        let work = &self.lease.work;
        let largest = PIECE.min(work.bytes).max(work.bytes / u64::from(work.records.max(1)));
        let memory = usize::try_from(largest * GROWTH).unwrap_or(usize::MAX).max(1);
        match self.cursor.pass() {
            Some(only) => {
                let from = only.range(self.cursor.from..).next().copied().unwrap_or(self.cursor.from);
                (from, Some(Arc::clone(only)), memory)
            }
            None => (self.cursor.from, None, memory),
        }
    }

    /// What is still to be read, about: records, and bytes of the body.
    pub(super) fn unread(&self) -> (u64, u64) {
        let work = &self.lease.work;
        let records = u64::from(work.records.max(1));
        let left = records.saturating_sub(u64::from(if self.cursor.pass().is_none() {
            self.cursor.from
        } else {
            0
        }));
        (left.saturating_sub(u64::from(work.duplicates)).max(1), work.bytes / records * left)
    }

    /// Takes what was read; returns what is ready to be sent, and whether it is the next work's turn to be read.
    /// `None` when reading did not get on.
    pub(super) fn take(&mut self, read: RenderedPiece, mut room: Reservation) -> Option<(Vec<Ready>, bool)> {
        let (from, only, _) = self.next_read();
        if read.next.is_some_and(|next| next <= from) {
            return None;
        }
        let rendered = read.rendered;
        let mut met = 0;
        for record in &rendered.unrenderable {
            if only.is_none() && self.cursor.except.contains(&record.position) {
                met += 1;
            } else {
                let reason = record.reason.clone();
                self.account.unrenderable(DeadRecord { position: record.position, reason });
            }
        }
        room.correct(rendered.memory());
        let piece = Arc::new(Piece::new(rendered, Arc::new(room)));
        let over = self.cursor.advance(read.next);
        let ranges = if only.is_some() || self.cursor.except.is_empty() {
            Vec::from_iter((!piece.is_empty()).then_some(0..piece.len()))
        } else {
            ranges_without(&piece, &self.cursor.except)
        };
        if only.is_none() {
            self.account.filtered(piece.filtered);
            self.account.met(met + piece.len() - ranges.iter().map(Range::len).sum::<usize>());
        }
        let mut ready: Vec<Ready> = Vec::with_capacity(ranges.len());
        for indexes in ranges {
            self.account.rendered(indexes.len());
            let slice = Slice {
                work: Arc::clone(&self.lease.work),
                from,
                only: only.clone(),
                positions: indexes.clone().map(|index| piece.position(index)).collect(),
                indexes,
                memory: piece.memory(),
                first: !std::mem::replace(&mut self.started, true),
                last: false,
            };
            ready.push(Ready { slice, piece: Arc::clone(&piece) });
        }
        if over && only.is_none() {
            self.account.read();
            if let Some(last) = ready.last_mut() {
                last.slice.last = true;
            }
        }
        Some((ready, over))
    }

    /// Whether something of it was made ready or sent, in this turn or an earlier one.
    pub(super) fn is_begun(&self) -> bool {
        self.started || !self.cursor.except.is_empty()
    }

    /// What is to be remembered of it when it goes back into the ledger.
    pub(super) fn partial(&self) -> Partial {
        self.account.partial(&self.lease.work, self.lease.begun)
    }

    /// The lease as it goes back into the ledger.
    pub(super) fn deferral(&self, not_before: Option<DateTime<Utc>>, error: String) -> Deferral {
        let begun = self.lease.begun + u32::from(self.account.ambiguous);
        Deferral { work: self.lease.work.id, not_before, error, begun }
    }
}

impl Cursor {
    fn pass(&self) -> Option<&Arc<BTreeSet<u32>>> {
        self.parts.front().and_then(VecDeque::front)
    }

    /// Whether a part ended with the pass that did.
    fn next_pass(&mut self) -> bool {
        let Some(part) = self.parts.front_mut() else { return false };
        part.pop_front();
        let ended = part.is_empty();
        if ended {
            self.parts.pop_front();
        }
        ended
    }

    /// Reading came as far as `next`; whether the turn is over: a part of what an earlier run chose, or the body.
    fn advance(&mut self, next: Option<u32>) -> bool {
        match self.pass() {
            Some(only) => {
                match next.filter(|&next| only.range(next..).next().is_some()) {
                    Some(next) => self.from = next,
                    None => {
                        self.from = 0;
                        return self.next_pass();
                    }
                }
                false
            }
            None => {
                self.from = next.unwrap_or(self.from);
                next.is_none()
            }
        }
    }
}

/// The runs of records whose positions are not in `except`.
fn ranges_without(piece: &Piece, except: &BTreeSet<u32>) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for index in 0..piece.len() {
        if except.contains(&piece.position(index)) {
            continue;
        }
        match ranges.last_mut() {
            Some(range) if range.end == index => range.end += 1,
            _ => ranges.push(index..index + 1),
        }
    }
    ranges
}
