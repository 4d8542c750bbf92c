//! Trying a sink: with no record at all, or with one that is marked as a test.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use archive::parquet::{Row, Understand};
use chrono::{DateTime, Utc};
use ledger::Inspector;
use schemas::{ContentId, FeedKey, Rendered, Seq, SinkName, TenantId};
use sinks::{
    delivery_ledger::{LedgerFailure, SinkIdentity, SinkStates, Statement, Work, WorkId},
    memory::{Piece, Reservation},
    rate::Rate,
    sink::{Batch, BatchPart, BoxFuture, Sink},
    turn::Turns,
};
use transform::{Filter, Origin, Renderer};
use uuid::Uuid;

use super::{StartError, http_client, make_sink};
use crate::config::{Config, SinkConfig, SinkKind, TenantConfig};

/// How long a destination may take to confirm the test records.
const PATIENCE: Duration = Duration::from_secs(60);

/// What trying a sink came to.
pub(crate) enum Found {
    /// It can be delivered to.
    Works,
    /// It can, as far as is known without a record; this can only be found out with one.
    Untried(&'static str),
    /// It took so many test records.
    Took(usize),
}

/// Tries a sink. With `send`, one test record for each feed is delivered to a sink that can only so be tried whole.
pub(crate) async fn probe(
    config: &Config,
    sink: &SinkConfig,
    ledger: Option<Inspector>,
    send: bool,
) -> Result<Found, String> {
    let rate = Arc::new(Rate::new(None, None));
    let http = http_client(&config.network).await.map_err(|error| error.to_string())?;
    let probing = Arc::new(Probing(ledger));
    let made = make_sink(config, sink, &http, probing.clone(), probing, rate);
    let made = made.map_err(|error| match error {
        StartError::Sink { what, .. } => what,
        error => error.to_string(),
    })?;
    made.probe().await.map_err(|error| error.to_string())?;
    // A sink does without its authority, so it does not try it by itself.
    if let SinkKind::Archive(archive) = &sink.kind
        && let Some(authority) = archive.timestamp_authority(&http)
    {
        let tried = authority.ask(archive::Hash::of(Uuid::new_v4().as_bytes())).await;
        tried.map_err(|error| format!("its objects can be put, but there are no time-stamps: {error}"))?;
    }
    match made.untried() {
        None => Ok(Found::Works),
        Some(what) if !send => Ok(Found::Untried(what)),
        Some(_) => {
            let tried = tokio::time::timeout(PATIENCE, send_tests(config, sink, made.as_ref())).await;
            made.close().await;
            tried.unwrap_or_else(|_| Err(format!("it did not confirm the test event within {PATIENCE:.0?}")))
        }
    }
}

async fn send_tests(config: &Config, sink: &SinkConfig, made: &dyn Sink) -> Result<Found, String> {
    let mut sent = 0;
    for tenant in &config.tenants {
        for content_type in &tenant.content_types {
            let feed = FeedKey { tenant: tenant.tenant_id, content_type: *content_type };
            let batch = test_batch(sink, tenant, feed)?;
            if let Err(error) = made.deliver(batch).await {
                return Err(format!(
                    "the test event of {} {content_type} was not taken: {error}",
                    tenant.name
                ));
            }
            sent += 1;
        }
    }
    Ok(Found::Took(sent))
}

/// A record of its own kind, in the sink's view: nobody takes it for something that happened.
fn test_batch(sink: &SinkConfig, tenant: &TenantConfig, feed: FeedKey) -> Result<Batch, String> {
    let id = Uuid::new_v4();
    let record = serde_json::json!({
        "CreationTime": Utc::now().format("%Y-%m-%dT%H:%M:%S").to_string(),
        "Id": id,
        "Operation": "MailtrailTestEvent",
        "OrganizationId": tenant.tenant_id,
        "RecordType": 1,
        "ResultStatus": "Test",
        "UserId": "mailtrail",
        "UserType": 4,
        "Workload": "mailtrail",
        "Comment": "sent by `mailtrail check --send-test-event`; nothing happened",
    });
    let content_id = format!("mailtrail-test-{id}");
    let origin = Origin {
        tenant: feed.tenant,
        tenant_name: &tenant.name,
        content_type: feed.content_type,
        content_id: &content_id,
    };
    let mut rendered = Rendered::default();
    let renderer = Renderer::new(sink.render_options(tenant));
    renderer.render(record.to_string().as_bytes(), 0, &origin, &Filter::default(), &mut rendered);
    if let Some(failed) = rendered.unrenderable.first() {
        return Err(format!("the test event cannot be rendered: {}", failed.reason));
    }
    let work = Work {
        id: WorkId(0),
        seq: Seq(0),
        body: None,
        feed,
        tenant_name: tenant.name.as_str().into(),
        content_id: ContentId::try_from(content_id).map_err(|error| error.to_string())?,
        restored: false,
        records: 1,
        duplicates: 0,
        bytes: rendered.total_bytes() as u64,
    };
    let part = BatchPart {
        work: Arc::new(work),
        indexes: 0..rendered.len(),
        piece: Arc::new(Piece::new(Arc::new(rendered), Arc::new(Reservation::uncounted()))),
        first: true,
        last: true,
    };
    Ok(Batch { parts: vec![part] })
}

/// Nobody waits while a sink is only tried.
fn failure(why: impl ToString) -> LedgerFailure {
    LedgerFailure { message: why.to_string(), passing: false }
}

/// A ledger that is looked at, if there is one.
struct Probing(Option<Inspector>);

impl Understand for Probing {
    /// It is never asked: a probe seals nothing.
    fn tell(&self, _: FeedKey, _: &[u8], told: &mut dyn FnMut(&Row<'_>)) {
        told(&Row::default());
    }
}

impl SinkStates for Probing {
    /// Nobody was before it: it is made anew for each probe, which writes to no file that counts.
    fn turns(&self, _: &SinkName) -> Turns {
        Turns::default()
    }

    fn identity<'a>(
        &'a self,
        sink: &'a SinkName,
    ) -> BoxFuture<'a, Result<Option<SinkIdentity>, LedgerFailure>> {
        Box::pin(async move {
            let Some(ledger) = &self.0 else { return Ok(None) };
            let identity = ledger.ledger_id().and_then(|id| Ok((id, ledger.incarnation(sink)?)));
            let (id, incarnation) = identity.map_err(failure)?;
            Ok(incarnation.map(|incarnation| SinkIdentity { ledger: id.to_string(), incarnation }))
        })
    }

    fn sink_state<'a>(&'a self, sink: &'a SinkName) -> BoxFuture<'a, Result<Option<Vec<u8>>, LedgerFailure>> {
        Box::pin(async move {
            let Some(ledger) = &self.0 else { return Ok(None) };
            ledger.sink_state(sink).map_err(failure)
        })
    }

    fn set_sink_state<'a>(&'a self, _: &'a SinkName, _: Vec<u8>) -> BoxFuture<'a, Result<(), LedgerFailure>> {
        Box::pin(async { Err(failure("a sink that is only tried keeps nothing")) })
    }

    fn settled_through<'a>(
        &'a self,
        _: &'a SinkName,
    ) -> BoxFuture<'a, Result<BTreeMap<TenantId, Seq>, LedgerFailure>> {
        Box::pin(async { Err(failure("a sink that is only tried is owed nothing")) })
    }

    fn statement<'a>(
        &'a self,
        _: &'a SinkName,
        _: TenantId,
        _: Seq,
        _: Seq,
        _: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<Statement, LedgerFailure>> {
        Box::pin(async { Err(failure("a sink that is only tried is owed nothing")) })
    }
}
