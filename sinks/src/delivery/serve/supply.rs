//! What comes in: leases, pieces, batches.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::warn;

use super::{
    super::{
        attempt::{Beginning, carry},
        leased::{GROWTH, Leased},
        shared::{insist, panic_text},
    },
    Exit, Serve,
};
use crate::{
    batching::Outgoing,
    delivery_ledger::{BodyGone, LedgerFailure, RenderedPiece, Want, WorkId},
    memory::Reservation,
    sink::BoxFuture,
};

/// Under so many leased works that are not read yet, more are leased.
const FEW_UNREAD: usize = 8;
/// So many at once.
const LEASE_AT_ONCE: usize = 32;
/// So many works are leased at most.
const MOST_LEASED: usize = 8192;
/// How long the ledger may be silent about new work before it is asked again.
const LEASE_AGAIN: Duration = Duration::from_secs(2);

/// A piece that is being read.
pub(super) struct Reading {
    pub(super) work: WorkId,
    /// Whether it waited for memory when it began.
    pub(super) starved: bool,
    pub(super) piece: BoxFuture<'static, Read>,
}

/// What reading a piece came to.
pub(super) enum Read {
    Piece(RenderedPiece, Reservation),
    Gone(BodyGone),
    Failed(LedgerFailure),
    Panicked(String),
}

impl Serve<'_> {
    pub(super) fn start_leasing(&mut self) {
        if self.leasing.is_some() || self.unread.len() >= FEW_UNREAD || self.leased.len() >= MOST_LEASED {
            return;
        }
        let most = self.most_ahead();
        let (records, bytes) = self.room_ahead(most);
        // Work by work would ask the ledger far more often than needed.
        let enough = records > most.0 / 2 && bytes > most.1 / 2;
        let starves = self.unread.is_empty() && (self.ready.is_empty() || (records > 0 && bytes > 0));
        if !(enough || starves) {
            return;
        }
        let (shared, wait) = (Arc::clone(&self.shared), self.drained);
        let works = LEASE_AT_ONCE.min(MOST_LEASED - self.leased.len());
        let want = Want { works, records, bytes };
        self.leasing = Some(Box::pin(async move {
            if wait {
                shared.ledger.work_may_be_due(&shared.name, LEASE_AGAIN).await;
            }
            insist(&shared, || shared.ledger.lease(&shared.name, want)).await
        }));
    }

    /// How many records and bytes of bodies may be leased ahead of what is sent: one and a half batches. What is leased
    /// has its place before everything that comes later, so that a tenant with much work would keep the others waiting
    /// for all of it.
    fn most_ahead(&self) -> (u64, u64) {
        let ahead = |limit: usize| limit as u64 + limit as u64 / 2;
        let limits = &self.shared.limits;
        (ahead(limits.max_records), ahead(limits.max_bytes) / GROWTH)
    }

    /// How much of that is not in use.
    fn room_ahead(&self, most: (u64, u64)) -> (u64, u64) {
        let (records, bytes) = self.ready.size();
        let room = (most.0.saturating_sub(records as u64), most.1.saturating_sub(bytes as u64 / GROWTH));
        let unread = self.unread.iter().filter_map(|id| self.leased.get(id)).map(Leased::unread);
        unread.fold(room, |(records, bytes), (of_records, of_bytes)| {
            (records.saturating_sub(of_records), bytes.saturating_sub(of_bytes))
        })
    }

    pub(super) fn start_reading(&mut self) {
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
                    Ok(Ok(Ok(piece))) => Read::Piece(piece, room),
                    Ok(Ok(Err(gone))) => Read::Gone(gone),
                    Ok(Err(failure)) => Read::Failed(failure),
                    Err(panic) => Read::Panicked(panic_text(panic.as_ref())),
                }
            });
            self.reading = Some(Reading { work: id, starved, piece });
        }
    }

    pub(super) fn read(&mut self, id: WorkId, read: Read) -> Result<(), LedgerFailure> {
        let (piece, room) = match read {
            Read::Piece(piece, room) => (piece, room),
            Read::Gone(gone) => {
                self.gone(id, &gone);
                return Ok(());
            }
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

    /// The ledger gives the work out again when its body is there, or never, when it is dead.
    fn gone(&mut self, id: WorkId, gone: &BodyGone) {
        warn!(sink = %self.shared.name, "{id:?} is given back: {gone}");
        // Where nothing of it was to be sent yet, nothing depends on it: the rest goes on.
        let depended = self.leased.get(&id).is_none_or(Leased::is_begun);
        self.give_up(id, None, gone.to_string());
        self.look_at(id);
        if self.shared.limits.ordered && depended {
            // A part of it may have been sent: what comes next is to be asked anew. At once, because there may be as many
            // damaged bodies as there are works, and each is met once.
            self.end(Exit::Reopen { after: None, at_once: true });
        }
    }

    pub(super) fn batch_is_due(&self) -> bool {
        let lingered = self.ready_since.is_some_and(|since| since.elapsed() >= self.shared.limits.linger);
        // While a batch under way has memory, whoever waits for some gets it when that has landed: what little is ready
        // would take a place from a batch that is full. One that only waits for its acknowledgement has none to give.
        let starved = || {
            self.reading.as_ref().is_some_and(|reading| reading.starved)
                && self.shared.ahead.held() <= self.ready.reserved()
        };
        !self.ready.is_empty() && (lingered || self.ready.is_full(&self.shared.limits) || starved())
    }

    pub(super) fn take_batch(&mut self) -> Option<Outgoing> {
        let outgoing = self.ready.take(&self.shared.limits, self.suspects);
        self.ready_since = (!self.ready.is_empty()).then(Instant::now);
        outgoing
    }

    pub(super) fn dispatch(&mut self, outgoing: Outgoing) {
        let mut works: Vec<Beginning> = Vec::new();
        if !self.shared.limits.exactly_once {
            for slice in &outgoing.slices {
                let id = slice.work.id;
                if let Some(leased) = self.leased.get_mut(&id)
                    && works.last().is_none_or(|last| last.work != id)
                {
                    leased.begin_asked = true;
                    works.push(Beginning {
                        work: id,
                        times: leased.lease.begun + 1,
                        committed: leased.begin_committed,
                    });
                }
            }
        }
        let in_line = self.shared.limits.ordered && self.shared.limits.in_flight > 1 && !self.failing;
        let place = in_line.then(|| self.line.join());
        self.under_way.push(Box::pin(carry(Arc::clone(&self.shared), outgoing, works, place)));
    }
}
