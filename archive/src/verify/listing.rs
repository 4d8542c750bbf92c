//! What lies in the archive, and what of it no entry names.

use std::collections::{BTreeMap, HashMap};

use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use schemas::{Seq, TenantId};

use crate::{
    hash::Hash,
    names::{ChainFile, ChainKey, MANIFESTS, ObjectName},
    numbers::Numbers,
    reading::{chain_file, passed_by},
    store::{Store, StoreError},
};

/// What was there at the beginning.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Which entries each chain has.
    pub(super) chains: BTreeMap<ChainKey, Numbers>,
    pub(super) entries: u64,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// Names that were listed and not named yet, by a hash: 16 bytes each, whatever their length.
#[derive(Debug, Default)]
pub(super) struct Unnamed(HashMap<[u8; 16], bool>);

/// What no entry names.
pub(super) enum Found {
    /// It is newer than the last entry.
    NotYetCovered,
    /// It should not be there.
    Surplus(String),
}

/// What stands for a name in memory, whatever its length.
pub(crate) fn short(name: &str) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&Hash::of(name.as_bytes()).as_bytes()[..16]);
    short
}

impl Unnamed {
    /// An entry names it; `false` when one did before.
    pub(super) fn name(&mut self, name: &str) -> bool {
        // What was put after the listing is named without having been listed.
        !self.0.insert(short(name), true).unwrap_or(false)
    }

    /// Whether it was there at the beginning.
    pub(super) fn is_listed(&self, name: &str) -> bool {
        self.0.contains_key(&short(name))
    }

    fn is_unnamed(&self, name: &str) -> bool {
        self.0.get(&short(name)) == Some(&false)
    }
}

/// Lists the archive.
pub(super) async fn list(store: &Store) -> Result<(Listing, Unnamed), StoreError> {
    let (mut listing, mut unnamed) = (Listing::default(), Unnamed::default());
    let mut listed = store.list(None);
    while let Some(object) = listed.try_next().await? {
        if let Some((chain, ChainFile::Entry(number))) = chain_file(&object.name) {
            listing.chains.entry(chain).or_default().insert(number);
            listing.entries += 1;
            continue;
        }
        if !is_manifest(&object.name) {
            listing.files += 1;
            listing.bytes += object.head.bytes;
        }
        unnamed.0.insert(short(&object.name), false);
    }
    passed_by(store, &mut listing.chains).await?;
    Ok((listing, unnamed))
}

/// What of that no entry names, now that all were read. What came since is not looked at.
pub(super) fn unnamed<'a>(
    store: &Store,
    listing: &'a Listing,
    unnamed: &'a Unnamed,
    covered: &'a BTreeMap<ChainKey, Seq>,
) -> BoxStream<'a, Result<Found, StoreError>> {
    let listed = store.list(None);
    listed
        .try_filter_map(move |object| async move {
            let name = object.name;
            if !unnamed.is_unnamed(&name) {
                return Ok(None);
            }
            if is_manifest(&name) {
                let stamp = chain_file(&name).is_some_and(|(chain, file)| {
                    let last = listing.chains.get(&chain).map_or(0, Numbers::last);
                    matches!(file, ChainFile::Timestamp(number) if (1..=last).contains(&number))
                });
                return Ok((!stamp).then_some(Found::Surplus(name)));
            }
            Ok(Some(if is_newer(&name, covered) { Found::NotYetCovered } else { Found::Surplus(name) }))
        })
        .boxed()
}

fn is_manifest(name: &str) -> bool {
    name.split('/').next() == Some(MANIFESTS)
}

/// Whether a file's name says that it begins behind everything that its chain speaks for.
fn is_newer(name: &str, covered: &BTreeMap<ChainKey, Seq>) -> bool {
    let (folders, file) = name.rsplit_once('/').unwrap_or(("", name));
    let Ok(object) = file.parse::<ObjectName>() else { return false };
    let Some(tenant) = folders.split('/').find_map(tenant) else { return false };
    covered.get(&ChainKey { tenant, ledger: object.ledger }).is_none_or(|last| object.first_seq > *last)
}

/// The tenant that a folder is named after: `tenant=<guid>`, or `accountId=external_<guid>` in a security lake.
fn tenant(folder: &str) -> Option<TenantId> {
    let (_, value) = folder.split_once('=')?;
    value.strip_prefix("external_").unwrap_or(value).parse().ok()
}
