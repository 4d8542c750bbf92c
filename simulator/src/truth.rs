//! What a perfect collector delivers.
//!
//! The truth is computed from the same numbers as the blobs, not from what was served, so it can be asked before,
//! during and after a run. It speaks of the blobs that could be listed at the instant at which it was asked.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use schemas::{ContentType, RecordKey, TenantId};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    FaultKind,
    feed::{BlobNumber, Feed},
    state::{State, Tenant},
};

/// What becomes of a blob in the hands of a perfect collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It can be fetched, if need be after some failures.
    Deliverable,
    /// AF20051: a gap.
    Expired,
    /// AF20050: a gap.
    Gone,
    /// Its body unpacks to more than a collector should take, whatever its bound: a gap when it expires.
    Oversized,
    /// Its given body is not a JSON array.
    Unreadable,
}

/// What is in one blob.
#[derive(Debug, Clone, Serialize)]
pub struct TruthBlob {
    /// Whose.
    pub tenant: TenantId,
    /// Which content type.
    pub content_type: ContentType,
    /// `contentId`.
    pub content_id: String,
    /// `contentCreated`.
    pub created: DateTime<Utc>,
    /// What becomes of it.
    pub fate: Fate,
    /// Records to be delivered: without what another blob, or the same one, already has.
    pub records: u64,
    /// Records that repeat others.
    pub duplicates: u64,
    /// The `Id`s of the records to be delivered, as far as they have one. When two blobs share a record, the one that
    /// comes first in [`Truth::blobs`] counts it; a collector may meet them the other way round.
    pub ids: Vec<String>,
}

/// What a perfect collector delivers.
#[derive(Debug, Clone)]
pub struct Truth {
    state: Arc<State>,
    at: DateTime<Utc>,
}

impl Truth {
    pub(crate) fn new(state: Arc<State>) -> Self {
        let at = state.clock.now();
        Self { state, at }
    }

    /// Every blob, by tenant, content type and number.
    pub fn blobs(&self) -> impl Iterator<Item = TruthBlob> + '_ {
        let mut seen = Seen::default();
        self.state
            .tenants
            .iter()
            .flat_map(|tenant| tenant.feeds().map(move |feed| (tenant, feed)))
            .flat_map(|(tenant, feed)| {
                let generated = (0..feed.generated(self.at)).map(BlobNumber::Generated);
                let given = (0..feed.given().len()).map(BlobNumber::Given);
                generated.chain(given).map(move |blob| (tenant, feed, blob))
            })
            .filter_map(move |(tenant, feed, blob)| self.blob(tenant, feed, blob, &mut seen))
    }

    /// The records that a perfect collector delivers: content type, `contentId` and `Id` (if it has one) of each.
    pub fn records(&self) -> impl Iterator<Item = (ContentType, String, Option<String>)> + '_ {
        self.blobs().flat_map(|blob| {
            let without = (blob.records as usize).saturating_sub(blob.ids.len());
            let ids: Vec<_> = blob.ids.into_iter().map(Some).chain((0..without).map(|_| None)).collect();
            ids.into_iter().map(move |id| (blob.content_type, blob.content_id.clone(), id))
        })
    }

    /// How many records a perfect collector delivers.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.blobs().map(|blob| blob.records).sum()
    }

    /// Sums over all blobs.
    #[must_use]
    pub fn summary(&self) -> TruthSummary {
        let mut sum = TruthSummary::default();
        for blob in self.blobs() {
            *sum.blobs.entry(blob.fate_name()).or_default() += 1;
            sum.records += blob.records;
            sum.duplicates += blob.duplicates;
            *sum.records_by_content_type.entry(blob.content_type.as_str()).or_default() += blob.records;
        }
        sum
    }

    fn fate(&self, feed: &Feed, blob: BlobNumber) -> Option<Fate> {
        let chosen = |kind| self.state.faults.read(|faults| faults.has(kind, feed.seed, blob.item()));
        Some(if feed.expires(blob)? <= self.at || chosen(FaultKind::Expired) {
            Fate::Expired
        } else if chosen(FaultKind::Gone) {
            Fate::Gone
        } else if chosen(FaultKind::GzipBomb) {
            Fate::Oversized
        } else {
            Fate::Deliverable
        })
    }

    fn blob(&self, tenant: &Tenant, feed: &Feed, number: BlobNumber, seen: &mut Seen) -> Option<TruthBlob> {
        if feed.available(number)? > self.at {
            return None;
        }
        let mut blob = TruthBlob {
            tenant: tenant.config.tenant_id,
            content_type: feed.content_type,
            content_id: feed.content_id(number)?,
            created: feed.created(number)?,
            fate: self.fate(feed, number)?,
            records: 0,
            duplicates: 0,
            ids: Vec::new(),
        };
        if blob.fate != Fate::Deliverable {
            return Some(blob);
        }
        match number {
            BlobNumber::Generated(number) => self.count_generated(tenant, feed, number, &mut blob, seen),
            BlobNumber::Given(_) => {
                let again = !seen.given.insert((feed.seed, blob.content_id.clone()));
                let body = feed.body(&tenant.cast, number)?;
                match read_records(&body) {
                    // The same blob listed again is no new blob.
                    Some(_) if again => return None,
                    Some(records) => count_given(feed, &records, &mut blob, seen),
                    None => blob.fate = Fate::Unreadable,
                }
            }
        }
        Some(blob)
    }

    fn count_generated(
        &self,
        tenant: &Tenant,
        feed: &Feed,
        number: u64,
        blob: &mut TruthBlob,
        seen: &mut Seen,
    ) {
        for position in 0..feed.records_per_blob() {
            blob.records += 1;
            blob.ids.extend(feed.record_id(&tenant.cast, number, position));
        }
        for (from, position) in feed.repeats(number) {
            let original = BlobNumber::Generated(from);
            let lost = from != number
                && (self.fate(feed, original) != Some(Fate::Deliverable)
                    || feed.available(original).is_some_and(|available| available > self.at));
            // When the original is lost, the first copy is the record.
            let id = feed.record_id(&tenant.cast, from, position).filter(|_| lost);
            match id.filter(|id| seen.copies.insert((feed.seed, id.clone()))) {
                Some(id) => {
                    blob.records += 1;
                    blob.ids.push(id);
                }
                None => blob.duplicates += 1,
            }
        }
    }
}

impl TruthBlob {
    fn fate_name(&self) -> &'static str {
        match self.fate {
            Fate::Deliverable => "deliverable",
            Fate::Expired => "expired",
            Fate::Gone => "gone",
            Fate::Oversized => "oversized",
            Fate::Unreadable => "unreadable",
        }
    }
}

/// The truth in numbers.
#[derive(Debug, Default, Clone, Serialize)]
pub struct TruthSummary {
    /// Blobs by fate.
    pub blobs: BTreeMap<&'static str, u64>,
    /// Records to be delivered.
    pub records: u64,
    /// Records that repeat others.
    pub duplicates: u64,
    /// Records to be delivered, by content type.
    pub records_by_content_type: BTreeMap<&'static str, u64>,
}

#[derive(Default)]
struct Seen {
    /// Copies of records whose originals are lost.
    copies: HashSet<(u64, String)>,
    /// Content ids of given blobs.
    given: HashSet<(u64, String)>,
    /// Records of given blobs.
    records: HashSet<(u64, RecordKey)>,
}

fn read_records(body: &[u8]) -> Option<Vec<Box<RawValue>>> {
    serde_json::from_slice(body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)).ok()
}

fn count_given(feed: &Feed, records: &[Box<RawValue>], blob: &mut TruthBlob, seen: &mut Seen) {
    for record in records {
        let value: serde_json::Value = serde_json::from_str(record.get()).unwrap_or_default();
        let text = |name: &str| value.get(name).and_then(|value| value.as_str()).map(str::to_owned);
        let part = |name| text(name).unwrap_or_default();
        let key = text("UserId")
            .filter(|_| value.get("Operation").is_some_and(|operation| operation.is_string()))
            .and_then(|user| RecordKey::new(&part("Id"), &part("CreationTime"), &part("Operation"), &user));
        if key.is_some_and(|key| !seen.records.insert((feed.seed, key))) {
            blob.duplicates += 1;
        } else {
            blob.records += 1;
            blob.ids.extend(text("Id"));
        }
    }
}
