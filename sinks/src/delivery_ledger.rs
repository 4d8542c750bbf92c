//! What the delivery loop and the sinks need of the ledger, and of whoever renders its records.
//!
//! The ledger and the normaliser are joined to this in the binary, so that no crate knows another; the tests here use
//! a ledger in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use archive::Accounts;
use chrono::{DateTime, Utc};
pub use schemas::{BodyId, DeadRecord, Deferral, LedgerFailure, Settlement, Want, WorkId};
use schemas::{ContentId, ContentType, FeedKey, Rendered, Seq, SinkName, TenantId};

use crate::{sink::BoxFuture, turn::Turns};

/// What is to be delivered: a blob, or a retry or restore of some of its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The ledger's number of it.
    pub id: WorkId,
    /// The tenant's number of it.
    pub seq: Seq,
    /// Which body it has. What is remembered of a work is worth nothing when this differs.
    pub body: Option<BodyId>,
    /// The feed that it is from.
    pub feed: FeedKey,
    /// The tenant's label in the configuration, for templates; its id when the tenant is no longer configured.
    pub tenant_name: Arc<str>,
    /// The blob's name; that of the archive's object for restored records.
    pub content_id: ContentId,
    /// Whether its records were restored from an archive: they are counted apart.
    pub restored: bool,
    /// Records in the body.
    pub records: u32,
    /// How many of them were dropped as duplicates.
    pub duplicates: u32,
    /// Bytes of the body.
    pub bytes: u64,
}

/// One sink's turn at one piece of work (L5). Dropping it makes the work pending again (L7).
pub struct Lease {
    /// What is to be delivered.
    pub work: Arc<Work>,
    /// How often it was tried before.
    pub attempts: u32,
    /// How often its records may be there already, as [`DeliveryLedger::begin`] or the last deferral said.
    pub begun: u32,
    /// Whether its body is being fetched again, so that nothing of it can be read now. Only
    /// [`DeliveryLedger::lease_these`] gives such a lease.
    pub awaits_body: bool,
    /// Releases the claim when dropped.
    pub claim: Box<dyn Send + Sync>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("work", &self.work)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

/// The body of a leased work is not in the spool any more: it was damaged and is being fetched again, or came back as
/// another, or the work is dead.
/// Waiting for it would hold up everything behind it. The lease can only be given back; the ledger leases the work again
/// when its body is there again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct BodyGone {
    /// What happened, for people.
    pub why: String,
}

/// Records of a piece of work, rendered, and where the next ones begin.
#[derive(Debug, Clone)]
pub struct RenderedPiece {
    /// The rendered records of the piece; duplicates are not among them.
    pub rendered: Arc<Rendered>,
    /// Where to read on; `None` behind the last record.
    pub next: Option<u32>,
}

/// What the delivery loop and the sinks need of the ledger and of the normaliser.
pub trait DeliveryLedger: SinkStates {
    /// Leases pending work of the sink, as much as is wanted, tenants in turn, each in the order of `Seq`. Work that is
    /// leased or that has a `not_before` in the future is passed over.
    fn lease<'a>(
        &'a self,
        sink: &'a SinkName,
        want: Want,
    ) -> BoxFuture<'a, Result<Vec<Lease>, LedgerFailure>>;

    /// Leases exactly this work, in this order, whatever its `not_before`; what is settled already is left out. Also work
    /// whose body is being fetched again: it can be settled by whoever has sent all of it.
    fn lease_these<'a>(
        &'a self,
        sink: &'a SinkName,
        work: &'a [WorkId],
    ) -> BoxFuture<'a, Result<Vec<Lease>, LedgerFailure>>;

    /// Resolves when [`DeliveryLedger::lease`] may have something, at the latest after `at_most`.
    fn work_may_be_due<'a>(&'a self, sink: &'a SinkName, at_most: Duration) -> BoxFuture<'a, ()>;

    /// Reads and renders records for the sink, from a position on: at least one record and at most one piece of the
    /// body. With `only`, just these positions are rendered, whatever the filter says, and [`Rendered::filtered`]
    /// means nothing. Reading the same again gives the same records.
    fn read<'a>(
        &'a self,
        sink: &'a SinkName,
        work: &'a Arc<Work>,
        from: u32,
        only: Option<&'a BTreeSet<u32>>,
    ) -> BoxFuture<'a, Result<Result<RenderedPiece, BodyGone>, LedgerFailure>>;

    /// Commits how often the records of these deliveries may be there, before they leave. It never becomes less by this. Not
    /// once, when their sink recognises what it has of them; then this only says that there may be something.
    fn begin<'a>(
        &'a self,
        sink: &'a SinkName,
        work: Vec<(WorkId, u32)>,
    ) -> BoxFuture<'a, Result<(), LedgerFailure>>;

    /// Settles deliveries (none is fine), together with the sink's own state if there is one, in one commit (L3, L6).
    /// A work that became dead while it was leased, because another sink could not handle it, stays dead. One whose body was
    /// fetched again meanwhile, and came back as another, is settled as it was leased. The leases may be dropped when it
    /// resolves.
    fn settle<'a>(
        &'a self,
        sink: &'a SinkName,
        settlements: Vec<Settlement>,
        state: Option<Vec<u8>>,
    ) -> BoxFuture<'a, Result<(), LedgerFailure>>;

    /// Gives leases back, each with the reason. They may be dropped when it resolves.
    fn defer<'a>(
        &'a self,
        sink: &'a SinkName,
        deferrals: Vec<Deferral>,
    ) -> BoxFuture<'a, Result<(), LedgerFailure>>;

    /// Counts a panic while the work was handled; the third one quarantines it, which settles all of its deliveries
    /// as dead (L11). Returns whether it did.
    fn panicked<'a>(&'a self, work: WorkId, message: String) -> BoxFuture<'a, Result<bool, LedgerFailure>>;
}

/// Whose deliveries a sink makes, for a destination that remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkIdentity {
    /// The ledger's id. A state directory that was made anew has another.
    pub ledger: String,
    /// Which sink of that name: 1, and one more after each time that it was forgotten.
    pub incarnation: u64,
}

/// What became of a span of a tenant's numbers, for one sink.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statement {
    /// By content type; those without a number in the span are left out.
    pub accounts: BTreeMap<ContentType, Accounts>,
    /// Numbers of the span that stand for nothing of this sink: retries for other sinks, and blobs that were fetched again under
    /// a later number.
    pub other_seqs: u64,
    /// The ledger has forgotten some of the span: of the numbers up to this one, `other_seqs` may have some that stood for something.
    pub incomplete_through: Option<Seq>,
}

/// What a sink itself needs of the ledger: who it is, its own durable state, and what became of what it was due.
pub trait SinkStates: Send + Sync + 'static {
    /// The turns of the sinks of this name: the same ones whenever it is asked, as the state is the same.
    fn turns(&self, sink: &SinkName) -> Turns;

    /// Whose deliveries the sink makes; `None` when there is no ledger yet or it has not met the sink.
    fn identity<'a>(
        &'a self,
        sink: &'a SinkName,
    ) -> BoxFuture<'a, Result<Option<SinkIdentity>, LedgerFailure>>;

    /// The sink's own durable state.
    fn sink_state<'a>(&'a self, sink: &'a SinkName) -> BoxFuture<'a, Result<Option<Vec<u8>>, LedgerFailure>>;

    /// Commits the sink's own durable state.
    fn set_sink_state<'a>(
        &'a self,
        sink: &'a SinkName,
        state: Vec<u8>,
    ) -> BoxFuture<'a, Result<(), LedgerFailure>>;

    /// For each tenant, the last number up to which everything is settled for the sink.
    fn settled_through<'a>(
        &'a self,
        sink: &'a SinkName,
    ) -> BoxFuture<'a, Result<BTreeMap<TenantId, Seq>, LedgerFailure>>;

    /// What became of the tenant's numbers behind `after` up to `last` for the sink. Blobs that were made available before
    /// `late_before` are named as late, by their hours. It stays the same once everything up to `last` is settled.
    fn statement<'a>(
        &'a self,
        sink: &'a SinkName,
        tenant: TenantId,
        after: Seq,
        last: Seq,
        late_before: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<Statement, LedgerFailure>>;
}
