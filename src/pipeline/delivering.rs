//! Joins the ledger and the normaliser to what the delivery loops and the sinks need of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use ledger::{Inspector, Ledger, LedgerError};
use schemas::{FeedKey, Rendered, Seq, SinkName, TenantId};
use sinks::{
    delivery_ledger::{
        BodyGone, Deferral, DeliveryLedger, Lease, LedgerFailure, RenderedPiece, Settlement, SinkIdentity,
        SinkStates, Statement, Want, Work, WorkId,
    },
    sink::BoxFuture,
    turn::Turns,
};
use transform::{Filter, Origin, Renderer, Understood};

use super::{failure, pieces::Pieces, stating};
use crate::config::{SinkConfig, TenantConfig};

/// Room beyond what was needed lately, so that a piece that grows a little more than the last one need not move.
const SLACK: usize = 16 << 10;

/// The hundredths of a piece's bytes for which room is made at least and at most.
const GROWTH: (usize, usize) = (10, 400);

/// How one sink wants its records.
struct SinkView {
    filter: Filter,
    /// By tenant, because a tenant's own domains decide what is external.
    renderers: HashMap<TenantId, Renderer>,
    /// For tenants whose records are still in the spool but that are no longer configured.
    otherwise: Renderer,
    /// To how many hundredths of their bytes records grew lately, so that room is made for them at once.
    growth: AtomicUsize,
}

/// What the configuration says of tenants and sinks: replaced as a whole when it changes.
#[derive(Default)]
struct Shown {
    names: HashMap<TenantId, Arc<str>>,
    views: HashMap<SinkName, Arc<SinkView>>,
}

/// The ledger and the normaliser as `sinks` sees them.
pub(crate) struct Delivering {
    ledger: Ledger,
    shown: RwLock<Arc<Shown>>,
    pieces: Arc<Pieces>,
    /// Of every name that was ever in use: what a sink has under way may outlive its configuration.
    turns: Mutex<HashMap<SinkName, Turns>>,
}

impl Delivering {
    /// It knows no sink until it is shown one.
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self { ledger, shown: RwLock::default(), pieces: Arc::default(), turns: Mutex::default() }
    }

    /// Takes over what the configuration says. A sink whose own section differs must not be running: what it reads
    /// again has to be what it read before. A tenant's name stays with what was leased under it.
    pub(crate) fn show(&self, tenants: &[TenantConfig], sinks: &[SinkConfig]) {
        let names =
            tenants.iter().map(|tenant| (tenant.tenant_id, Arc::from(tenant.name.as_str()))).collect();
        let views =
            sinks.iter().map(|sink| (sink.name.clone(), Arc::new(SinkView::new(sink, tenants)))).collect();
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Shown { names, views });
    }

    fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn work(&self, work: &ledger::Work) -> Arc<Work> {
        let tenant = work.feed.tenant;
        let name = self.shown().names.get(&tenant).cloned().unwrap_or_else(|| tenant.to_string().into());
        Arc::new(Work {
            id: work.id,
            seq: work.seq,
            body: work.body,
            feed: work.feed,
            tenant_name: name,
            content_id: work.content_id.clone(),
            restored: work.restored,
            records: work.records,
            duplicates: work.duplicates,
            bytes: work.bytes,
        })
    }

    fn lease(&self, lease: ledger::Lease) -> Lease {
        Lease {
            work: self.work(&lease.work),
            attempts: lease.attempts,
            begun: lease.begun,
            awaits_body: lease.awaits_body,
            claim: Box::new(lease.claim),
        }
    }

    /// Looks into the ledger on a thread that may wait.
    async fn inspect<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Inspector) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerFailure> {
        let ledger = self.ledger.clone();
        match tokio::task::spawn_blocking(move || look(ledger.inspector()).map_err(failure)).await {
            Ok(looked) => looked,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => Err(LedgerFailure { message: error.to_string(), passing: true }),
        }
    }

    /// Tells once what a record says to this sink; nothing when there is no such sink.
    pub(super) fn understand(
        &self,
        sink: &SinkName,
        feed: FeedKey,
        record: &[u8],
        told: &mut dyn FnMut(&Understood<'_>),
    ) {
        let Ok(view) = self.view(sink) else { return };
        let FeedKey { tenant, content_type } = feed;
        let origin = Origin { tenant, tenant_name: "", content_type, content_id: "" };
        view.renderer(tenant).understand(record, &origin, told);
    }

    fn view(&self, sink: &SinkName) -> Result<Arc<SinkView>, LedgerFailure> {
        self.shown().views.get(sink).cloned().ok_or_else(|| LedgerFailure {
            message: format!("sink {sink} is not configured"),
            passing: false,
        })
    }
}

impl SinkView {
    fn new(sink: &SinkConfig, tenants: &[TenantConfig]) -> Self {
        let renderer = |tenant: &TenantConfig| (tenant.tenant_id, Renderer::new(sink.render_options(tenant)));
        Self {
            filter: sink.filter.clone(),
            renderers: tenants.iter().map(renderer).collect(),
            otherwise: Renderer::new(sink.render.clone()),
            growth: AtomicUsize::new(100),
        }
    }

    fn renderer(&self, tenant: TenantId) -> &Renderer {
        self.renderers.get(&tenant).unwrap_or(&self.otherwise)
    }

    fn render(
        &self,
        piece: &ledger::Piece,
        work: &Work,
        from: u32,
        only: Option<&BTreeSet<u32>>,
    ) -> Rendered {
        let renderer = self.renderer(work.feed.tenant);
        let everything = Filter::default();
        let filter = if only.is_some() { &everything } else { &self.filter };
        let origin = Origin {
            tenant: work.feed.tenant,
            tenant_name: &work.tenant_name,
            content_type: work.feed.content_type,
            content_id: work.content_id.as_str(),
        };
        let growth = self.growth.load(Ordering::Relaxed);
        let mut out = Rendered::with_capacity(piece.bytes() / 100 * growth + SLACK);
        for (position, record) in piece.records() {
            if position >= from && only.is_none_or(|only| only.contains(&position)) {
                renderer.render(record, position, &origin, filter, &mut out);
            }
        }
        if let Some(grown) = (out.total_bytes() * 100).checked_div(piece.bytes())
            && only.is_none()
        {
            self.growth.store(grown.clamp(GROWTH.0, GROWTH.1), Ordering::Relaxed);
        }
        out
    }
}

impl DeliveryLedger for Delivering {
    fn lease<'a>(
        &'a self,
        sink: &'a SinkName,
        want: Want,
    ) -> BoxFuture<'a, Result<Vec<Lease>, LedgerFailure>> {
        Box::pin(async move {
            let leases = self.ledger.lease(sink, want).await.map_err(failure)?;
            Ok(leases.into_iter().map(|lease| self.lease(lease)).collect())
        })
    }

    fn lease_these<'a>(
        &'a self,
        sink: &'a SinkName,
        work: &'a [WorkId],
    ) -> BoxFuture<'a, Result<Vec<Lease>, LedgerFailure>> {
        Box::pin(async move {
            let leases = self.ledger.lease_these(sink, work).await.map_err(failure)?;
            Ok(leases.into_iter().map(|lease| self.lease(lease)).collect())
        })
    }

    fn work_may_be_due<'a>(&'a self, sink: &'a SinkName, at_most: Duration) -> BoxFuture<'a, ()> {
        Box::pin(self.ledger.work_may_be_due(sink, at_most))
    }

    fn read<'a>(
        &'a self,
        sink: &'a SinkName,
        work: &'a Arc<Work>,
        from: u32,
        only: Option<&'a BTreeSet<u32>>,
    ) -> BoxFuture<'a, Result<Result<RenderedPiece, BodyGone>, LedgerFailure>> {
        Box::pin(async move {
            let view = self.view(sink)?;
            let (ledger, pieces, work, only) =
                (self.ledger.clone(), Arc::clone(&self.pieces), Arc::clone(work), only.cloned());
            let read = move || {
                // A body that is fetched again has another number, and may be another one.
                let place = (work.id, work.seq, from);
                let piece = match pieces.get(place) {
                    Some(piece) => piece,
                    None => {
                        let piece = match ledger.read_piece(work.id, work.body, from) {
                            Err(LedgerError::Body(gone)) => {
                                return Ok(Err(BodyGone { why: gone.to_string() }));
                            }
                            read => Arc::new(read.map_err(failure)?),
                        };
                        pieces.put(place, &piece);
                        piece
                    }
                };
                let rendered = Arc::new(view.render(&piece, &work, from, only.as_ref()));
                Ok(Ok(RenderedPiece { rendered, next: piece.next }))
            };
            match tokio::task::spawn_blocking(read).await {
                Ok(read) => read,
                // The delivery loop catches it and counts it against the work.
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(error) => Err(LedgerFailure { message: error.to_string(), passing: true }),
            }
        })
    }

    fn begin<'a>(
        &'a self,
        sink: &'a SinkName,
        work: Vec<(WorkId, u32)>,
    ) -> BoxFuture<'a, Result<(), LedgerFailure>> {
        Box::pin(async move { self.ledger.begin(sink, work).await.map_err(failure) })
    }

    fn settle<'a>(
        &'a self,
        sink: &'a SinkName,
        settlements: Vec<Settlement>,
        state: Option<Vec<u8>>,
    ) -> BoxFuture<'a, Result<(), LedgerFailure>> {
        Box::pin(async move { self.ledger.settle(sink, settlements, state).await.map_err(failure) })
    }

    fn defer<'a>(
        &'a self,
        sink: &'a SinkName,
        deferrals: Vec<Deferral>,
    ) -> BoxFuture<'a, Result<(), LedgerFailure>> {
        Box::pin(async move { self.ledger.defer(sink, deferrals).await.map_err(failure) })
    }

    fn panicked<'a>(&'a self, work: WorkId, message: String) -> BoxFuture<'a, Result<bool, LedgerFailure>> {
        Box::pin(async move { self.ledger.panicked(work, message).await.map_err(failure) })
    }
}

impl SinkStates for Delivering {
    fn turns(&self, sink: &SinkName) -> Turns {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.entry(sink.clone()).or_default().clone()
    }

    fn identity<'a>(
        &'a self,
        sink: &'a SinkName,
    ) -> BoxFuture<'a, Result<Option<SinkIdentity>, LedgerFailure>> {
        Box::pin(async move {
            let incarnation = self.ledger.incarnation(sink).await.map_err(failure)?;
            Ok(Some(SinkIdentity { ledger: self.ledger.id().to_string(), incarnation }))
        })
    }

    fn sink_state<'a>(&'a self, sink: &'a SinkName) -> BoxFuture<'a, Result<Option<Vec<u8>>, LedgerFailure>> {
        Box::pin(async move { self.ledger.sink_state(sink).await.map_err(failure) })
    }

    fn set_sink_state<'a>(
        &'a self,
        sink: &'a SinkName,
        state: Vec<u8>,
    ) -> BoxFuture<'a, Result<(), LedgerFailure>> {
        Box::pin(async move { self.ledger.set_sink_state(sink, state).await.map_err(failure) })
    }

    fn settled_through<'a>(
        &'a self,
        sink: &'a SinkName,
    ) -> BoxFuture<'a, Result<BTreeMap<TenantId, Seq>, LedgerFailure>> {
        let sink = sink.clone();
        Box::pin(self.inspect(move |ledger| ledger.settled_through(&sink)))
    }

    fn statement<'a>(
        &'a self,
        sink: &'a SinkName,
        tenant: TenantId,
        after: Seq,
        last: Seq,
        late_before: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<Statement, LedgerFailure>> {
        let sink = sink.clone();
        let span = ledger::SeqSpan { after, last };
        Box::pin(self.inspect(move |ledger| {
            ledger.statement(&sink, tenant, span, late_before).map(stating::statement)
        }))
    }
}
