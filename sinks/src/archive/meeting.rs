//! What is settled before the sink takes anything: whether the chains go on in this target, and whether they may.
//!
//! A chain's next entry is signed and kept before it is put, so a target that cannot have it must be known before. In one that
//! the chains did not go to until now, the sink therefore looks first. Where the last entries are that it put, it is the same
//! archive, moved, or named in another way. Where there are entries of this ledger and not those, the chains were there before
//! and went on elsewhere, or the ledger is an older copy: they can neither go on there nor begin anew.

use std::collections::{BTreeMap, BTreeSet};

use archive::{ChainKey, Head, Store, StoreError, Unreadable, read_entry};
use chrono::Utc;
use schemas::{LedgerId, Seq, TenantId};
use tracing::{info, warn};

use super::{
    ArchiveSink,
    manifests::{Left, Manifests},
};
use crate::sink::DeliverError;

/// What lies in a target that the chains did not go to until now.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// Nothing of this ledger.
    Nothing,
    /// The last entries that were put.
    Heads,
    /// An entry of this ledger, and not the last ones.
    Others(String),
}

impl Found {
    /// Whether what was called by a name that did not tell services apart is this place: unless there is nothing where
    /// something was put.
    fn speaks_for_a_former_name(&self, nothing_put: bool) -> bool {
        nothing_put || *self != Self::Nothing
    }
}

impl ArchiveSink {
    /// Brings the chains in line with the target, the key, and the tenants that the ledger knows.
    pub(super) async fn meet(&self, store: &Store, manifests: &mut Manifests) -> Result<(), DeliverError> {
        if self.config.signing.is_none() {
            return self.meet_without_key(store, manifests);
        }
        let (ledger, settled) = (self.ledger().await?, self.settled_through().await?);
        self.meet_target(store, manifests, ledger, &settled).await?;
        manifests.met(&settled, Utc::now());
        Ok(())
    }

    /// Whether it could go on with these chains. Nothing is changed.
    pub(super) async fn probe_chains(
        &self,
        store: &Store,
        mut manifests: Manifests,
    ) -> Result<(), DeliverError> {
        if self.config.signing.is_none() {
            return self.meet_without_key(store, &mut manifests);
        }
        let ledger = self.ledger().await?;
        self.meet_target(store, &mut manifests, ledger, &BTreeMap::new()).await
    }

    /// What was signed in a target is signed to its end: objects that no entry names would be counted as archived by the next
    /// one, and nobody could tell when they are gone.
    fn meet_without_key(&self, store: &Store, manifests: &mut Manifests) -> Result<(), DeliverError> {
        if !manifests.have_begun() {
            *manifests = Manifests::default();
            return Ok(());
        }
        let place = store.place();
        if manifests.target().is_none_or(|target| target == place.name || target == place.former_name) {
            return Err(DeliverError::halt(format!(
                "the manifests in {} are signed, and there is no `signing_key` any more: bring it back, or take another \
                 target or prefix for what is not to be signed",
                place.name
            )));
        }
        let left = manifests.end().map_err(|error| DeliverError::halt(error.to_string()))?;
        self.tell(left);
        info!(sink = %self.context.name, "the manifests are at their end: nothing in {} is signed", place.name);
        Ok(())
    }

    async fn meet_target(
        &self,
        store: &Store,
        manifests: &mut Manifests,
        ledger: LedgerId,
        settled: &BTreeMap<TenantId, Seq>,
    ) -> Result<(), DeliverError> {
        let place = store.place();
        if manifests.target() == Some(&place.name) {
            return Ok(());
        }
        let found = self.look(store, manifests, ledger, settled).await?;
        let nothing_put = manifests.chains().keys().all(|tenant| manifests.last_put(*tenant).is_none());
        if manifests.target() == Some(&place.former_name) && found.speaks_for_a_former_name(nothing_put) {
            manifests.stay(&place.name);
            return Ok(());
        }
        match found {
            Found::Heads => {
                info!(sink = %self.context.name, "the archive in {} is the one that the manifests are of: they go on", place.name);
                manifests.stay(&place.name);
            }
            Found::Others(entry) => {
                return Err(DeliverError::halt(format!(
                    "{entry} is there already, and the last entry that this ledger made is not: its manifests have gone on \
                     elsewhere, or the state directory is an older copy; nothing was signed: take another target or prefix, \
                     where they begin anew"
                )));
            }
            Found::Nothing => {
                let left = manifests.begin_anew(&place.name, ledger, settled);
                self.tell(left.map_err(|error| DeliverError::halt(error.to_string()))?);
            }
        }
        Ok(())
    }

    fn tell(&self, left: Option<Left>) {
        if let Some(Left { objects, old }) = left {
            warn!(
                sink = %self.context.name,
                "{objects} objects in {old} are named by no entry, because the name of an entry is taken there: \
                 `archive verify` lists them as surplus"
            );
        }
    }

    async fn look(
        &self,
        store: &Store,
        manifests: &Manifests,
        ledger: LedgerId,
        settled: &BTreeMap<TenantId, Seq>,
    ) -> Result<Found, DeliverError> {
        let mut heads = 0;
        let mut missing = false;
        for &tenant in manifests.chains().keys() {
            let Some((head, _)) = manifests.last_put(tenant) else { continue };
            heads += 1;
            if !self.is_there(store, &ChainKey { tenant, ledger }, head).await? {
                missing = true;
                break;
            }
        }
        if heads > 0 && !missing {
            return Ok(Found::Heads);
        }
        let tenants: BTreeSet<TenantId> = manifests.chains().keys().chain(settled.keys()).copied().collect();
        for tenant in tenants {
            let first = ChainKey { tenant, ledger }.entry(1);
            if store.head(&first).await.map_err(|error| self.refused(&error))?.is_some() {
                return Ok(Found::Others(store.describe(&first)));
            }
        }
        Ok(Found::Nothing)
    }

    /// Whether this entry is in the archive.
    async fn is_there(&self, store: &Store, chain: &ChainKey, head: Head) -> Result<bool, DeliverError> {
        match read_entry(store, chain, head.number).await {
            Ok((envelope, _)) => Ok(envelope.hash() == head.sha256),
            Err(Unreadable::Store(StoreError::NotFound { .. } | StoreError::TooLarge { .. }))
            | Err(Unreadable::Envelope(_) | Unreadable::Entry(_)) => Ok(false),
            Err(Unreadable::Store(error)) => Err(self.refused(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_by_a_former_name_is_another_only_when_what_was_put_is_not_there() {
        let others = Found::Others("x".to_owned());
        for (found, nothing_put, same) in [
            (&Found::Heads, false, true),
            (&others, false, true),
            (&Found::Nothing, false, false),
            (&Found::Nothing, true, true),
        ] {
            assert_eq!(found.speaks_for_a_former_name(nothing_put), same, "{found:?} {nothing_put}");
        }
    }
}
