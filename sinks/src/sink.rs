//! What a destination is: it takes batches and proves that it did.
//!
//! Everything else (leases, retries, order, pace, shutdown, dead letters) is the delivery loop's.

use std::{fmt, future::Future, ops::Range, pin::Pin, sync::Arc, time::Duration};

use schemas::{RenderedRecord, SinkName};

use crate::{
    archive::ArchiveReport,
    delivery_ledger::{BodyId, SinkStates, Work, WorkId},
    holding::Holding,
    measure::Measure,
    memory::{Piece, Reservation},
    positions::Positions,
    rate::Rate,
};

/// A boxed future, because sinks are trait objects. It costs one allocation per batch of hundreds of records.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A destination for records.
pub trait Sink: Send + Sync + 'static {
    /// Its name in the configuration.
    fn name(&self) -> &SinkName;

    /// What a batch for it may hold, and how many may be under way. It does not change while the sink lives.
    fn limits(&self) -> Limits;

    /// Prepares the sink before its first batch, and again after a halt or when its order was broken off: looks at
    /// what an earlier run left behind. Returns what must be delivered before anything else, in this order (nothing
    /// for most sinks). These works are settled together, when all of each is accounted for.
    fn open(&self) -> BoxFuture<'_, Result<Vec<Unfinished>, DeliverError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// The state that has to be durable before `next` is given to [`Sink::deliver`]. It is kept in the commit that
    /// settles `finished`, so that a steady stream costs one commit per batch. (Works that somebody else settled while
    /// they were unfinished are among these.) `None` keeps nothing.
    ///
    /// Asked only of sinks whose [`Limits::exactly_once`] is set, once per batch and while none is under way. What
    /// is left of a batch after a split or after refused records is covered by the state of the whole.
    fn state(&self, _finished: &[WorkId], _next: Option<&Batch>) -> Option<Vec<u8>> {
        None
    }

    /// Whether other works may be delivered while one that [`Sink::open`] has named cannot, because its body is being
    /// fetched again. Not where what was sent of it has yet to be proved at the very place where the next record goes.
    fn may_overtake_unfinished(&self) -> bool {
        false
    }

    /// For a sink that takes records long before they are where they must be: what is asked of it beyond the rest. Then
    /// a receipt of [`Sink::deliver`] does not settle anything.
    fn holding(&self) -> Option<&dyn Holding> {
        None
    }

    /// Delivers a batch. It resolves to a receipt only when the destination has taken every record as durably as the
    /// configuration promises (L3). Dropping the future is always safe and never counts as delivery (L7).
    ///
    /// The batch is given away, so that a sink that waits long for an acknowledgement need not hold its bytes: after
    /// an error the delivery loop reads the records again.
    ///
    /// A sink that is [ordered](Limits::ordered) and has several batches under way gets them in the order in which this
    /// is called. When one of them fails, no record of those that came after it may arrive before one
    /// of its own that it must not overtake; and until all that are under way have resolved or were dropped, it takes
    /// no other. The delivery loop then sends what is left one batch at a time.
    fn deliver(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, DeliverError>>;

    /// Tries the destination without sending a record; for `check` and for a halted sink.
    fn probe(&self) -> BoxFuture<'_, Result<(), DeliverError>>;

    /// What [`Sink::probe`] cannot find out, because it takes a record to do so. `check --send-test-event` then delivers
    /// one that is marked as a test.
    fn untried(&self) -> Option<&'static str> {
        None
    }

    /// Does what time asks for while nothing is to be delivered (closing a file that is old enough). Returns after
    /// how long it wants to be asked again; `None` is never.
    fn upkeep(&self) -> BoxFuture<'_, Result<Option<Duration>, DeliverError>> {
        Box::pin(async { Ok(None) })
    }

    /// What it counts beyond what all sinks do.
    fn measures(&self) -> Vec<Measure> {
        Vec::new()
    }

    /// What an archive has on this machine, and how far its chains are, once it was opened.
    fn archive(&self) -> Option<ArchiveReport> {
        None
    }

    /// Lets go of the destination. What was not confirmed stays pending.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// What a batch may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most records of a batch.
    pub max_records: usize,
    /// Most bytes of a batch, as rendered and with `beside`; a single record beyond it goes alone.
    pub max_bytes: usize,
    /// What every record takes of these bytes beside its own: a separator, an envelope of a fixed length.
    pub beside: usize,
    /// How long a batch waits for more records once it has one.
    pub linger: Duration,
    /// How many batches may be under way at once.
    pub in_flight: usize,
    /// Whether records keep their order whatever fails: after a failure nothing overtakes. With more than one batch under
    /// way the sink has its part in that, see [`Sink::deliver`].
    pub ordered: bool,
    /// The longest that a delivery may take. Then it is dropped, and the outcome is ambiguous.
    pub timeout: Duration,
    /// Whether a delivery after a crash is recognised by the sink itself; otherwise `begun` is committed before a
    /// blob's first batch leaves, so that what may have arrived twice is counted as `resent`. Such a sink has the
    /// durable state for itself, is ordered, and has one batch under way.
    pub exactly_once: bool,
    /// Whether batches begin and end with whole blobs wherever these fit.
    pub whole_works: bool,
}

/// What an earlier run had begun to send. The same work may come more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// The work.
    pub work: WorkId,
    /// Of which body they are. When the work has another by now, all of that one is sent, and what was sent counts as
    /// sent again.
    pub body: Option<BodyId>,
    /// The positions that were chosen to be sent, in the order of sending. They are rendered again whatever the
    /// filter says now, and given to the sink before the rest of any work.
    pub sent: Positions,
    /// How many records of the work were sent of bodies that it had before.
    pub resent: u32,
}

/// Ranges of one or several blobs that go to a destination in one request.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The ranges, in order. None is empty.
    pub parts: Vec<BatchPart>,
}

/// A range of one blob's rendered records.
#[derive(Debug, Clone)]
pub struct BatchPart {
    /// What the records are from.
    pub work: Arc<Work>,
    /// The records, among others, and the room in memory that they take.
    pub piece: Arc<Piece>,
    /// Which of them, as indexes.
    pub indexes: Range<usize>,
    /// Whether nothing of its work was sent before.
    pub first: bool,
    /// Whether nothing of its work will come after. Not every work has such a part: when this is sent it may be
    /// unknown that the filter takes out all that follows.
    pub last: bool,
}

impl BatchPart {
    /// Its records.
    pub fn records(&self) -> impl ExactSizeIterator<Item = RenderedRecord<'_>> {
        self.indexes.clone().map(|index| self.piece.get(index))
    }

    /// The positions of its records.
    pub fn positions(&self) -> impl ExactSizeIterator<Item = u32> {
        self.indexes.clone().map(|index| self.piece.position(index))
    }

    /// Its records from the `skip`th on as lines, each with a line break behind it.
    #[must_use]
    pub fn lines(&self, skip: usize) -> &[u8] {
        self.piece.lines_of(self.indexes.start + skip..self.indexes.end)
    }

    /// Their length in bytes, without separators.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.piece.bytes_of(self.indexes.clone())
    }
}

impl Batch {
    /// How many records it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.indexes.len()).sum()
    }

    /// How many of them were restored from an archive.
    #[must_use]
    pub fn restored(&self) -> usize {
        self.parts.iter().filter(|part| part.work.restored).map(|part| part.indexes.len()).sum()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The length of its records in bytes, without separators.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(BatchPart::bytes).sum()
    }

    /// Every record with the work that it is from.
    pub fn records(&self) -> impl Iterator<Item = (&Work, RenderedRecord<'_>)> {
        self.parts.iter().flat_map(|part| part.records().map(move |record| (part.work.as_ref(), record)))
    }

    /// Gives up the bytes, and keeps the room that is reserved for them: for a sink that has copied them.
    #[must_use]
    pub fn into_room(self) -> Room {
        Room { _pieces: self.parts.iter().map(|part| part.piece.room()).collect() }
    }

    /// What a receipt for this batch will cover, to be kept when the bytes are given up.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        Coverage { records: self.len() }
    }
}

/// The room in memory that is reserved for a batch, as long as this is kept.
#[derive(Debug)]
pub struct Room {
    _pieces: Vec<Arc<Reservation>>,
}

/// How much a batch held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coverage {
    records: usize,
}

/// Proof that a destination took a whole batch. Only [`Receipt::confirmed`] makes one.
#[derive(Debug)]
#[must_use = "a receipt that is not settled proves nothing"]
pub struct Receipt {
    coverage: Coverage,
    /// How durably it was taken.
    pub durability: Durability,
}

impl Receipt {
    /// The destination took everything that `coverage` covers.
    pub fn confirmed(coverage: Coverage, durability: Durability) -> Self {
        Self { coverage, durability }
    }

    /// How many records it covers.
    #[must_use]
    pub fn records(&self) -> usize {
        self.coverage.records
    }
}

/// How durably a destination took a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// It is on its way, on this machine; its works are held ([`Holding`]).
    Staged,
    /// The destination said that it has it.
    Accepted,
    /// Enough replicas have it.
    Replicated,
    /// The indexer has it.
    Indexed,
    /// It is on disk, fsynced.
    Fsynced,
}

/// A failed delivery: what to do about it, and what happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliverError {
    /// What the delivery loop is to do.
    pub disposition: Disposition,
    /// What happened and what a person can do about it: a lowercase fragment.
    pub context: String,
}

impl DeliverError {
    /// Nothing was taken, and trying again can help.
    pub fn retry(context: impl Into<String>) -> Self {
        let disposition = Disposition::Retry { after: None, ambiguous: false };
        Self { disposition, context: context.into() }
    }

    /// Nobody knows how much was taken, and trying again can help.
    pub fn ambiguous(context: impl Into<String>) -> Self {
        let disposition = Disposition::Retry { after: None, ambiguous: true };
        Self { disposition, context: context.into() }
    }

    /// A person has to do something first.
    pub fn halt(context: impl Into<String>) -> Self {
        Self { disposition: Disposition::Halt, context: context.into() }
    }
}

impl fmt::Display for DeliverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl std::error::Error for DeliverError {}

/// What to do about a failed delivery. The sink decides, the delivery loop obeys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// Not taken, or nobody knows: the same records again, after at least `after`.
    Retry {
        /// What the destination asked for (`Retry-After`); `None` leaves it to the back-off.
        after: Option<Duration>,
        /// Whether some of it may have arrived, so that sending it again may double records.
        ambiguous: bool,
    },
    /// Too large for the destination: again in halves. A single record that is still too large is a dead letter.
    Split,
    /// The destination will never take these records of the batch (indexes into it, from 0), each with the reason;
    /// none of the others was taken yet.
    Reject {
        /// The refused ones.
        records: Vec<(usize, String)>,
    },
    /// The destination refused the batch because of one record that it will never take, and stopped there: what stands
    /// before it may have been taken, and counts as resent when it is sent again. The record becomes a dead letter
    /// when it is refused alone.
    Isolate {
        /// The index of the record, as far as the destination says; `None` when it does not.
        suspect: Option<usize>,
    },
    /// The sink is misconfigured or locked out: stop it, keep everything pending, probe slowly for ever.
    Halt,
}

/// What a sink gets when it is made.
#[derive(Clone)]
pub struct SinkContext {
    /// Its name.
    pub name: SinkName,
    /// The ledger, for the sink's own durable state.
    pub ledger: Arc<dyn SinkStates>,
    /// Its pace, for sinks that are told to slow down.
    pub rate: Arc<Rate>,
}

impl SinkContext {
    /// The sink's own state as the ledger has it.
    pub(crate) async fn stored<S, E: fmt::Display>(
        &self,
        decode: impl FnOnce(&[u8]) -> Result<S, E>,
    ) -> Result<Option<S>, DeliverError> {
        let state = self.ledger.sink_state(&self.name).await;
        let state = state.map_err(|failure| DeliverError::retry(failure.message))?;
        let state = state.as_deref().map(decode).transpose();
        state.map_err(|error| DeliverError::halt(format!("its state in the ledger cannot be used: {error}")))
    }

    /// Commits the sink's own state by itself.
    pub(crate) async fn keep(&self, state: Vec<u8>) -> Result<(), DeliverError> {
        let kept = self.ledger.set_sink_state(&self.name, state).await;
        kept.map_err(|failure| DeliverError::retry(failure.message))
    }
}
