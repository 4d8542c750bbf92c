//! Making the entries of the manifests, and putting them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use archive::{SigningKey, Source, Store, StoreError};
use bytes::Bytes;
use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use schemas::{LedgerId, Seq, TenantId};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    ArchiveSink,
    config::Signing,
    manifests::{Manifests, Unput},
    plan::Offer,
    staging::StagingError,
};
use crate::{holding::Advance, sink::DeliverError};

/// So many entries are made in one commit.
const ENTRIES_AT_ONCE: usize = 64;

/// For how long each tenant has had no entry in this process, by a clock that nobody sets.
#[derive(Debug, Default)]
pub(super) struct Quiet(Mutex<BTreeMap<TenantId, Instant>>);

impl Quiet {
    /// It begins when it is asked for the first time.
    pub(super) fn of(&self, tenant: TenantId) -> Duration {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.entry(tenant).or_insert_with(Instant::now).elapsed()
    }

    /// They have an entry.
    fn ends(&self, tenants: &[TenantId]) {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.extend(tenants.iter().map(|tenant| (*tenant, Instant::now())));
    }
}

/// The keys as they are now.
struct Keys {
    current: SigningKey,
    previous: Option<SigningKey>,
}

impl Keys {
    async fn read(signing: &Signing) -> Result<Self, DeliverError> {
        let current = read_key("signing_key", &signing.key).await?;
        let previous = match &signing.previous_key {
            Some(source) => Some(read_key("previous_signing_key", source).await?),
            None => None,
        };
        Ok(Self { current, previous })
    }
}

async fn read_key(name: &str, source: &entra::SecretSource) -> Result<SigningKey, DeliverError> {
    let text = source.read().await.map_err(|error| DeliverError::halt(format!("`{name}`: {error}")))?;
    SigningKey::from_pem(&text).map_err(|error| DeliverError::halt(format!("`{name}`: {error}")))
}

impl ArchiveSink {
    /// Whether the keys can be read.
    pub(super) async fn probe_keys(&self) -> Result<(), DeliverError> {
        match &self.config.signing {
            Some(signing) => Keys::read(signing).await.map(drop),
            None => Ok(()),
        }
    }

    pub(super) async fn settled_through(&self) -> Result<BTreeMap<TenantId, Seq>, DeliverError> {
        let settled = self.context.ledger.settled_through(&self.context.name).await;
        settled.map_err(|failure| DeliverError::retry(failure.message))
    }

    /// Makes entries that are due: all that are by time, and when it is to finish all that have something to say.
    /// `None` when there is none.
    pub(super) async fn make_entries(&self, finish: bool) -> Result<Option<Advance>, DeliverError> {
        let Some(signing) = &self.config.signing else { return Ok(None) };
        let now = Utc::now();
        let mut due = self.desk.plan().manifests().due(now, signing.interval, |tenant| self.quiet.of(tenant));
        if due.is_empty() && !finish {
            return Ok(None);
        }
        let mut manifests = self.desk.plan().manifests().clone();
        let (ledger, settled) = (self.ledger().await?, self.settled_through().await?);
        settled.keys().for_each(|tenant| manifests.met_later(*tenant, now));
        if finish {
            let news = |(tenant, chain): (&TenantId, &super::manifests::Chain)| {
                let settled = settled.get(tenant).copied().unwrap_or(Seq(0));
                (settled > chain.reaches()).then_some(*tenant)
            };
            due.extend(manifests.chains().iter().filter_map(news));
            due.sort_unstable();
            due.dedup();
        }
        if due.is_empty() {
            return Ok(None);
        }
        let keys = Keys::read(signing).await?;
        due.truncate(ENTRIES_AT_ONCE);
        for &tenant in &due {
            let settled = settled.get(&tenant).copied().unwrap_or(Seq(0));
            self.make_entry(&mut manifests, tenant, (ledger, settled), &keys, now).await?;
        }
        self.quiet.ends(&due);
        let state = self.desk.plan().offer(Offer::Manifests(Box::new(manifests))).encode();
        Ok(Some(Advance { state, arrived: Vec::new(), bytes: 0, reached: false }))
    }

    async fn make_entry(
        &self,
        manifests: &mut Manifests,
        tenant: TenantId,
        (ledger, settled): (LedgerId, Seq),
        keys: &Keys,
        now: DateTime<Utc>,
    ) -> Result<(), DeliverError> {
        let Some(mut draft) = manifests.draft(tenant, ledger, settled, now) else { return Ok(()) };
        let Some(chain) = manifests.chains().get(&tenant) else { return Ok(()) };
        let key = match chain.link().map(|link| link.signer) {
            None => &keys.current,
            Some(signer) if signer == *keys.current.public() => &keys.current,
            Some(signer) => match &keys.previous {
                Some(previous) if signer == *previous.public() => {
                    draft.next_key = Some(*keys.current.public());
                    previous
                }
                _ => {
                    return Err(DeliverError::halt(format!(
                        "the manifest of tenant {tenant} goes on with the key {}, and `signing_key` is {}: name the old \
                         key as `previous_signing_key`, so that it can sign the change to the new one",
                        signer.id(),
                        keys.current.public().id()
                    )));
                }
            },
        };
        let (after, last) = (chain.reaches(), draft.last_seq);
        let hour = chain.from().duration_trunc(TimeDelta::hours(1)).unwrap_or(chain.from());
        let stated = self.context.ledger.statement(&self.context.name, tenant, after, last, hour).await;
        let stated = stated.map_err(|failure| DeliverError::retry(failure.message))?;
        (draft.accounts, draft.other_seqs) = (stated.accounts, stated.other_seqs);
        draft.incomplete_through = stated.incomplete_through;
        if let Some(seq) = draft.incomplete_through {
            warn!(
                sink = %self.context.name, %tenant,
                "the entry is made so late that the ledger has forgotten some of the Seqs behind {after} up to {seq}: what they \
                 stood for is not in its accounts, and it says so; objects are named as ever"
            );
        }
        let signed =
            draft.sign(key).map_err(|error| DeliverError::halt(format!("tenant {tenant}: {error}")))?;
        manifests.signed(tenant, signed);
        Ok(())
    }

    /// Puts entries that are signed.
    pub(super) async fn put_entries(&self, store: &Store) -> Result<Advance, DeliverError> {
        let before = self.desk.plan().manifests().clone();
        let (mut manifests, mut failed, mut entered) = (before.clone(), None, BTreeSet::new());
        for Unput { tenant, path, envelope, .. } in before.entries().to_vec() {
            let bytes = envelope.to_bytes();
            let sha256 = archive::Hash::of(&bytes);
            let staging = &self.desk.staging;
            staging.step().map_err(StagingError::retried)?;
            let put = store.put_new(&path, Source::Bytes(Bytes::from(bytes)), &sha256).await;
            staging.step().map_err(StagingError::retried)?;
            if let Err(error) = put {
                let mut told = self.refused(&error);
                if matches!(error, StoreError::OtherBytes { .. }) {
                    manifests.is_taken(&path);
                    told.context.push_str(
                        "; or, when that cannot be mended, take another target, where the manifests begin anew",
                    );
                }
                failed = Some(told);
                break;
            }
            manifests.entered(&path);
            entered.insert(tenant);
            if let Some(link) = manifests.chains().get(&tenant).and_then(super::manifests::Chain::link) {
                info!(sink = %self.context.name, %tenant, head = %link.head(), "put an entry of the manifest: keep its head");
            }
        }
        if let Some(stamping) = &self.stamping {
            // It looks by itself whether one has its time-stamp already.
            let ledger = self.ledger().await?;
            let heads = manifests.heads(ledger).filter(|(chain, _)| entered.contains(&chain.tenant));
            heads.for_each(|(chain, head)| stamping.add(chain, head));
        }
        match failed {
            Some(error) if manifests == before => Err(error),
            _ => {
                let state = self.desk.plan().offer(Offer::Manifests(Box::new(manifests))).encode();
                Ok(Advance { state, arrived: Vec::new(), bytes: 0, reached: true })
            }
        }
    }
}
