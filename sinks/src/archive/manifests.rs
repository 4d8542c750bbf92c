//! The chains of signed entries, as the ledger keeps them: one for each tenant. Pure.
//!
//! | member | meaning |
//! |---|---|
//! | `target` | where the entries go. A chain belongs to one target: in another one each tenant's begins anew and names the old head |
//! | `chains` | how far each tenant's chain is |
//! | `put` | objects that are in the archive and in no entry yet |
//! | `entries` | entries that are signed and whether they are put is not certain: these bytes are put under that name and no others. `taken`: other bytes were found there |
//!
//! An entry is made in one commit that takes its objects from `put`, moves its chain on and keeps its bytes. What becomes of
//! the chains when the target is another one, or there is no key any more, is in `moving.rs`.

mod moving;

use std::{collections::BTreeMap, time::Duration};

use archive::{
    Begins, ChainKey, Draft, Entry, Envelope, Head, Link, ObjectPath, OldHead, SealedObject, SignedEntry,
};
use chrono::{DateTime, Utc};
use schemas::{LedgerId, Seq, TenantId};
use serde::{Deserialize, Serialize};

pub(super) use self::moving::Left;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Manifests {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    chains: BTreeMap<TenantId, Chain>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    put: Vec<Unnamed>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    entries: Vec<Unput>,
}

/// How far a chain is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chain {
    /// When the archive began for the tenant.
    since: DateTime<Utc>,
    /// Behind which `Seq`.
    after: Seq,
    /// The head of its chain in the target before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    old_head: Option<OldHead>,
    /// The last entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<Link>,
}

/// An object that no entry names yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Unnamed {
    tenant: TenantId,
    object: SealedObject,
}

/// An entry that may not be put yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unput {
    pub(super) tenant: TenantId,
    pub(super) path: ObjectPath,
    pub(super) envelope: Envelope,
    /// Other bytes were found under its name, so it may never be put.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    taken: bool,
}

impl Unput {
    fn entry(&self) -> Option<Entry> {
        Entry::parse(self.envelope.payload()).ok()
    }
}

impl Chain {
    /// What the next entry begins behind.
    pub(super) fn reaches(&self) -> Seq {
        self.link.as_ref().map_or(self.after, |link| link.last_seq)
    }

    /// When the next entry's span begins.
    pub(super) fn from(&self) -> DateTime<Utc> {
        self.link.as_ref().map_or(self.since, |link| link.to)
    }

    pub(super) fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }

    /// How long it is until the next entry is due, when none was made in this process for so long.
    fn left(&self, now: DateTime<Utc>, interval: Duration, quiet: Duration) -> Duration {
        let passed = (now - self.from()).to_std().unwrap_or_default();
        interval.saturating_sub(passed.max(quiet))
    }

    fn begins(&self) -> Begins {
        match &self.link {
            Some(link) => Begins::After(link.clone()),
            None => Begins::Chain { after_seq: self.after, from: self.since, old_head: self.old_head },
        }
    }
}

impl Manifests {
    /// Takes note of tenants that are new, which begin behind what is settled already.
    pub(super) fn met(&mut self, settled: &BTreeMap<TenantId, Seq>, now: DateTime<Utc>) {
        for (&tenant, &seq) in settled {
            let named = self.put.iter().any(|unnamed| unnamed.tenant == tenant);
            self.chains.entry(tenant).or_insert_with(|| Chain {
                since: now,
                after: if named { Seq(0) } else { seq },
                old_head: None,
                link: None,
            });
        }
    }

    /// Takes note of a tenant that came while the sink ran: the archive has everything of it.
    pub(super) fn met_later(&mut self, tenant: TenantId, now: DateTime<Utc>) {
        let chain = Chain { since: now, after: Seq(0), old_head: None, link: None };
        self.chains.entry(tenant).or_insert(chain);
    }

    /// The object, which was begun then, is in the archive.
    pub(super) fn put(&mut self, tenant: TenantId, object: SealedObject, begun: DateTime<Utc>) {
        self.met_later(tenant, begun);
        self.put.push(Unnamed { tenant, object });
    }

    pub(super) fn chains(&self) -> &BTreeMap<TenantId, Chain> {
        &self.chains
    }

    /// Entries that are to be put.
    pub(super) fn entries(&self) -> &[Unput] {
        &self.entries
    }

    /// The heads of the chains whose entries are all in the archive.
    pub(super) fn heads(&self, ledger: LedgerId) -> impl Iterator<Item = (ChainKey, Head)> {
        let is_put = |tenant: &TenantId| self.entries.iter().all(|entry| entry.tenant != *tenant);
        let chains = self.chains.iter().filter(move |(tenant, _)| is_put(tenant));
        chains.filter_map(move |(&tenant, chain)| {
            Some((ChainKey { tenant, ledger }, chain.link.as_ref()?.head()))
        })
    }

    /// The last entry of a tenant's chain that is in the archive, and when it was made.
    pub(super) fn last_put(&self, tenant: TenantId) -> Option<(Head, DateTime<Utc>)> {
        let Some(unput) = self.entries.iter().find(|entry| entry.tenant == tenant) else {
            return self.chains.get(&tenant)?.link.as_ref().map(|link| (link.head(), link.to));
        };
        let next = unput.entry()?;
        Some((Head { number: next.number.checked_sub(1)?, sha256: next.previous? }, next.from))
    }

    /// How many objects are in no entry yet.
    pub(super) fn unnamed(&self) -> usize {
        self.put.len()
    }

    /// How many of a tenant's are.
    pub(super) fn unnamed_of(&self, tenant: TenantId) -> usize {
        self.put.iter().filter(|unnamed| unnamed.tenant == tenant).count()
    }

    /// The tenants whose next entry is due: by the clock, or because this process has made none for as long (`quiet`). The
    /// second counts when the clock was ahead when the last one was made, and is right now.
    pub(super) fn due(
        &self,
        now: DateTime<Utc>,
        interval: Duration,
        quiet: impl Fn(TenantId) -> Duration,
    ) -> Vec<TenantId> {
        let left = |(tenant, chain): &(&TenantId, &Chain)| chain.left(now, interval, quiet(**tenant));
        self.chains.iter().filter(|chain| left(chain).is_zero()).map(|(tenant, _)| *tenant).collect()
    }

    /// After how long an entry will be due.
    pub(super) fn until_due(
        &self,
        now: DateTime<Utc>,
        interval: Duration,
        quiet: impl Fn(TenantId) -> Duration,
    ) -> Option<Duration> {
        let left = |(tenant, chain): (&TenantId, &Chain)| chain.left(now, interval, quiet(*tenant));
        self.chains.iter().map(left).min()
    }

    /// An entry of a tenant up to this `Seq`, without its accounts.
    pub(super) fn draft(
        &self,
        tenant: TenantId,
        ledger: LedgerId,
        settled: Seq,
        now: DateTime<Utc>,
    ) -> Option<Draft> {
        let chain = self.chains.get(&tenant)?;
        let last_seq = settled.max(chain.reaches());
        let ours = |unnamed: &&Unnamed| unnamed.tenant == tenant && unnamed.object.first_seq <= last_seq;
        Some(Draft {
            chain: ChainKey { tenant, ledger },
            begins: chain.begins(),
            last_seq,
            to: now.max(chain.from()),
            objects: self.put.iter().filter(ours).map(|unnamed| unnamed.object.clone()).collect(),
            accounts: BTreeMap::new(),
            other_seqs: 0,
            incomplete_through: None,
            next_key: None,
        })
    }

    /// The entry is signed: its objects are named, and its chain goes on from it.
    pub(super) fn signed(&mut self, tenant: TenantId, entry: SignedEntry) {
        let SignedEntry { path, envelope, link } = entry;
        self.put.retain(|unnamed| unnamed.tenant != tenant || unnamed.object.first_seq > link.last_seq);
        if let Some(chain) = self.chains.get_mut(&tenant) {
            chain.link = Some(link);
            chain.old_head = None;
        }
        self.entries.push(Unput { tenant, path, envelope, taken: false });
    }

    /// Other bytes are where the entry should be.
    pub(super) fn is_taken(&mut self, path: &ObjectPath) {
        let of = self.entries.iter_mut().filter(|entry| entry.path == *path);
        of.for_each(|entry| entry.taken = true);
    }

    /// The entry is in the archive.
    pub(super) fn entered(&mut self, path: &ObjectPath) {
        self.entries.retain(|entry| entry.path != *path);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use archive::{Hash, SigningKey};
    use schemas::ContentType;
    use uuid::Uuid;

    use super::*;

    pub(super) const LEDGER: &str = "0f1e2d3c-4b5a-4988-8776-655443322110";

    pub(super) fn tenant(number: u128) -> TenantId {
        TenantId::new(Uuid::from_u128(number))
    }

    pub(super) fn time(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    pub(super) fn object(first: u64, last: u64) -> SealedObject {
        SealedObject {
            content_type: ContentType::Exchange,
            first_seq: Seq(first),
            last_seq: Seq(last),
            records: 1,
            first_creation_time: None,
            last_creation_time: None,
            merkle_root: Hash::of(b"x"),
            files: Vec::new(),
        }
    }

    pub(super) fn sign(
        manifests: &mut Manifests,
        settled: u64,
        now: i64,
        key: &SigningKey,
    ) -> archive::Entry {
        let ledger = LEDGER.parse().unwrap();
        let draft = manifests.draft(tenant(1), ledger, Seq(settled), time(now)).unwrap();
        let signed = draft.sign(key).unwrap();
        let entry = archive::Entry::parse(signed.envelope.payload()).unwrap();
        manifests.signed(tenant(1), signed);
        entry
    }

    #[test]
    fn entries_adjoin_and_each_object_is_named_by_the_one_that_has_its_first_seq() {
        let key = SigningKey::generate().unwrap();
        let hour = Duration::from_secs(3600);
        let mut manifests = Manifests::default();
        manifests.met(&BTreeMap::from([(tenant(1), Seq(0))]), time(0));
        let no_time = |_| Duration::ZERO;
        assert!(manifests.due(time(3599), hour, no_time).is_empty());
        assert_eq!(manifests.until_due(time(3599), hour, no_time), Some(Duration::from_secs(1)));
        assert_eq!(manifests.due(time(3600), hour, no_time), [tenant(1)]);
        for (first, last) in [(1, 4), (2, 9), (7, 8)] {
            manifests.put(tenant(1), object(first, last), time(0));
        }
        manifests.put(tenant(2), object(1, 1), time(0));
        assert_eq!(manifests.chains()[&tenant(2)].from(), time(0), "a tenant is met by its first object");
        let one = sign(&mut manifests, 5, 3600, &key);
        assert_eq!((one.number, one.after_seq, one.last_seq, one.objects.len()), (1, Seq(0), Seq(5), 2));
        assert_eq!(manifests.unnamed(), 2);
        let silent = sign(&mut manifests, 5, 7200, &key);
        assert_eq!((silent.number, silent.after_seq, silent.objects.len()), (2, Seq(5), 0));
        let two = sign(&mut manifests, 9, 10_800, &key);
        assert_eq!((two.after_seq, two.last_seq, two.objects[0].first_seq), (Seq(5), Seq(9), Seq(7)));
        assert_eq!((manifests.unnamed(), manifests.entries().len()), (1, 3));
        let again: Manifests = serde_json::from_slice(&serde_json::to_vec(&manifests).unwrap()).unwrap();
        assert_eq!(again, manifests);
        let path = manifests.entries()[0].path.clone();
        manifests.entered(&path);
        assert_eq!(manifests.entries().len(), 2);
    }

    #[test]
    fn an_entry_of_a_clock_that_was_ahead_keeps_none_from_being_made() {
        let hour = Duration::from_secs(3600);
        let mut manifests = Manifests::default();
        manifests.met(&BTreeMap::from([(tenant(1), Seq(0))]), time(365 * 86_400));
        assert!(manifests.due(time(7200), hour, |_| Duration::from_secs(3599)).is_empty());
        let left = manifests.until_due(time(7200), hour, |_| Duration::from_secs(3599));
        assert_eq!(left, Some(Duration::from_secs(1)));
        assert_eq!(manifests.due(time(7200), hour, |_| hour), [tenant(1)]);
        let key = SigningKey::generate().unwrap();
        let entry = sign(&mut manifests, 0, 7200, &key);
        assert_eq!((entry.from, entry.to), (time(365 * 86_400), time(365 * 86_400)), "times never go back");
    }

    /// Whoever keeps the head of an entry that is not in the archive is told that the tail was cut off.
    #[test]
    fn the_head_that_is_shown_is_in_the_archive() {
        use super::super::figures;
        let key = SigningKey::generate().unwrap();
        let mut manifests = Manifests::default();
        manifests.met(&BTreeMap::from([(tenant(1), Seq(0))]), time(0));
        let shown = |manifests: &Manifests| {
            let measures = figures::chains(manifests);
            let mut labels = measures.into_iter().flat_map(|measure| measure.labels);
            labels.find(|(name, _)| *name == "head").map(|(_, head)| head)
        };
        sign(&mut manifests, 1, 10, &key);
        assert_eq!(shown(&manifests), None);
        let path = manifests.entries()[0].path.clone();
        manifests.entered(&path);
        let first = manifests.chains()[&tenant(1)].link().unwrap().head().to_string();
        assert_eq!(shown(&manifests), Some(first.clone()));
        sign(&mut manifests, 2, 20, &key);
        assert_eq!(shown(&manifests), Some(first));
    }
}
