//! What becomes of the chains when the target is another one, or there is no key any more. Pure.
//!
//! | the target | with a key | without one |
//! |---|---|---|
//! | is the same | they go on | the sink halts: no entry would name what is put, and the next one would count it as archived |
//! | is the same under another name | they go on | as another |
//! | is another | each begins anew, and names its old head | they are at their end |
//! | is another, and the old one has objects or entries that are unfinished | the sink halts, unless the name of an entry is taken there | the same |
//!
//! A chain whose next name is taken can never go on where it is. So it keeps nobody there, and what it had not named yet
//! stays without a name.

use std::collections::BTreeMap;

use archive::OldHead;
use schemas::{LedgerId, Seq, TenantId};

use super::{Chain, Manifests};

/// Objects of another target that no entry there names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{objects} objects in {old} are in no manifest yet: bring that target back, and let `mailtrail run --until-idle` end \
     its manifests before it is changed"
)]
pub(in super::super) struct Unfinished {
    objects: usize,
    old: String,
}

/// What is left behind in the target before: objects that no entry names, because the name of an entry is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Left {
    pub(in super::super) objects: usize,
    pub(in super::super) old: String,
}

impl Manifests {
    /// Where the entries go.
    pub(in super::super) fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    /// Whether anything was ever signed.
    pub(in super::super) fn have_begun(&self) -> bool {
        !self.entries.is_empty() || self.chains.values().any(|chain| chain.link.is_some())
    }

    /// The entries go on there: it is where they went until now, by whatever name.
    pub(in super::super) fn stay(&mut self, target: &str) {
        self.target = Some(target.to_owned());
    }

    /// Each tenant's chain begins anew in another target, behind what the old one has.
    pub(in super::super) fn begin_anew(
        &mut self,
        target: &str,
        ledger: LedgerId,
        settled: &BTreeMap<TenantId, Seq>,
    ) -> Result<Option<Left>, Unfinished> {
        // Before the first target there is nothing to leave.
        let left = if self.target.is_some() { self.leave()? } else { None };
        let old_heads: Vec<_> = self.chains.keys().map(|tenant| self.old_head(*tenant, ledger)).collect();
        for ((tenant, chain), old_head) in self.chains.iter_mut().zip(old_heads) {
            let mut after = chain.reaches();
            if left.is_some() {
                // What was put and is named nowhere is not of the new target.
                after = after.max(settled.get(tenant).copied().unwrap_or(Seq(0)));
            }
            *chain = Chain { since: chain.from(), after, old_head, link: None };
        }
        if self.target.is_some() {
            self.put.clear();
            self.entries.clear();
        }
        self.target = Some(target.to_owned());
        Ok(left)
    }

    /// There is no key any more, and the target is another: the chains are at their end. What a later key signs begins anew.
    pub(in super::super) fn end(&mut self) -> Result<Option<Left>, Unfinished> {
        let left = self.leave()?;
        *self = Self::default();
        Ok(left)
    }

    /// Whether the target can be left.
    fn leave(&self) -> Result<Option<Left>, Unfinished> {
        let old = self.target.clone().unwrap_or_default();
        let objects = self.put.len() + self.entries.len();
        if objects == 0 {
            return Ok(None);
        }
        if !self.entries.iter().any(|entry| entry.taken) {
            return Err(Unfinished { objects, old });
        }
        let of_entries = self.entries.iter().filter_map(|entry| entry.entry());
        let signed: usize = of_entries.map(|entry| entry.objects.len()).sum();
        Ok(Some(Left { objects: self.put.len() + signed, old }))
    }

    /// What the first entry in another target names: the last one that is in this one, or what its chain went on from.
    fn old_head(&self, tenant: TenantId, ledger: LedgerId) -> Option<OldHead> {
        if let Some((head, _)) = self.last_put(tenant) {
            return Some(OldHead { ledger, number: head.number, sha256: head.sha256 });
        }
        let first = self.entries.iter().find(|entry| entry.tenant == tenant);
        let of_first = first.and_then(|first| first.entry()?.old_head);
        of_first.or(self.chains.get(&tenant)?.old_head)
    }
}

#[cfg(test)]
mod tests {
    use archive::{Hash, SigningKey};

    use super::{
        super::tests::{LEDGER, object, sign, tenant, time},
        *,
    };

    fn begun(settled: &BTreeMap<TenantId, Seq>) -> Manifests {
        let mut manifests = Manifests::default();
        assert_eq!(manifests.begin_anew("/old", LEDGER.parse().unwrap(), settled), Ok(None));
        manifests.met(settled, time(0));
        manifests
    }

    #[test]
    fn a_new_target_begins_anew_and_names_the_old_head() {
        let key = SigningKey::generate().unwrap();
        let ledger = LEDGER.parse().unwrap();
        let settled = BTreeMap::from([(tenant(1), Seq(3))]);
        let mut manifests = begun(&settled);
        assert_eq!(manifests.chains()[&tenant(1)].reaches(), Seq(3), "what was settled before is not there");
        manifests.put(tenant(1), object(4, 4), time(0));
        assert_eq!(manifests.begin_anew("/new", ledger, &settled).unwrap_err().objects, 1);
        sign(&mut manifests, 4, 10, &key);
        let path = manifests.entries()[0].path.clone();
        manifests.entered(&path);
        let old = manifests.chains()[&tenant(1)].link().unwrap().head();
        assert_eq!(manifests.begin_anew("/new", ledger, &settled), Ok(None));
        manifests.met(&settled, time(20));
        let first = sign(&mut manifests, 6, 30, &key);
        assert_eq!((first.number, first.after_seq, first.from), (1, Seq(4), time(10)));
        let named = first.old_head.unwrap();
        assert_eq!((named.number, named.sha256), (old.number, old.sha256));
        manifests.met_later(tenant(9), time(40));
        assert_eq!(manifests.chains()[&tenant(9)].reaches(), Seq(0));
    }

    #[test]
    fn an_entry_whose_name_is_taken_keeps_nobody_and_is_no_head() {
        let key = SigningKey::generate().unwrap();
        let ledger = LEDGER.parse().unwrap();
        let settled = |seq| BTreeMap::from([(tenant(1), Seq(seq))]);
        let mut manifests = begun(&settled(0));
        manifests.put(tenant(1), object(1, 1), time(0));
        let one = sign(&mut manifests, 1, 10, &key);
        let path = manifests.entries()[0].path.clone();
        manifests.entered(&path);
        manifests.put(tenant(1), object(2, 2), time(10));
        sign(&mut manifests, 2, 20, &key);
        manifests.put(tenant(1), object(3, 3), time(20));
        let head = manifests.last_put(tenant(1)).unwrap();
        assert_eq!(head, (archive::Head { number: 1, sha256: Hash::of(&one.to_payload()) }, time(10)));
        assert!(manifests.clone().begin_anew("/new", ledger, &settled(3)).is_err());
        assert!(manifests.clone().end().is_err());
        let path = manifests.entries()[0].path.clone();
        manifests.is_taken(&path);
        let again: Manifests = serde_json::from_slice(&serde_json::to_vec(&manifests).unwrap()).unwrap();
        assert_eq!(again, manifests);
        let left = Some(Left { objects: 2, old: "/old".to_owned() });
        assert_eq!(manifests.clone().end(), Ok(left.clone()));
        assert_eq!(manifests.begin_anew("/new", ledger, &settled(3)), Ok(left));
        assert_eq!((manifests.entries().len(), manifests.unnamed()), (0, 0));
        let first = sign(&mut manifests, 5, 30, &key);
        assert_eq!((first.number, first.after_seq, first.objects.len()), (1, Seq(3), 0));
        assert_eq!(first.old_head.map(|old| (old.number, old.sha256)), Some((1, head.0.sha256)));
    }

    /// A first entry that cannot be put hands on what it named itself.
    #[test]
    fn the_old_head_outlives_a_target_that_took_no_entry() {
        let key = SigningKey::generate().unwrap();
        let ledger = LEDGER.parse().unwrap();
        let settled = BTreeMap::from([(tenant(1), Seq(0))]);
        let mut manifests = begun(&settled);
        sign(&mut manifests, 1, 10, &key);
        let path = manifests.entries()[0].path.clone();
        manifests.entered(&path);
        manifests.begin_anew("/taken", ledger, &settled).unwrap();
        let old = sign(&mut manifests, 2, 20, &key).old_head.unwrap();
        let path = manifests.entries()[0].path.clone();
        manifests.is_taken(&path);
        manifests.begin_anew("/new", ledger, &settled).unwrap();
        assert_eq!(sign(&mut manifests, 3, 30, &key).old_head, Some(old));
    }
}
