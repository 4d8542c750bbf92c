//! Which blobs exist, when they are listed, and what is in them.
//!
//! A feed's blobs are numbered: first the backlog, spread evenly over the span before the anchor, then the steady
//! flow after it. A number decides everything about a blob, so nothing is stored. Its `contentCreated` never
//! decreases with the number, so a window is a range of numbers. Given blobs stand beside them.

use std::{
    ops::Range,
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use bytes::Bytes;
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use schemas::{ContentType, TenantId};

use crate::{
    Blob, FaultKind, Faults, SimulatorConfig,
    cast::Cast,
    config::delta,
    dice::{Dice, hash, hash_text},
    records::{QUIRKS, Quirk, Record, Scene, kinds, kinds_of, pad},
    respond::compress,
};

/// A blob within its feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum BlobNumber {
    Generated(u64),
    Given(usize),
}

impl BlobNumber {
    /// The number by which faults choose it.
    pub(crate) fn item(self) -> u64 {
        match self {
            Self::Generated(number) => number,
            Self::Given(number) => number as u64,
        }
    }
}

/// One content type of one tenant.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) content_type: ContentType,
    /// The feed's share of the seed.
    pub(crate) seed: u64,
    anchor: DateTime<Utc>,
    span: TimeDelta,
    backlog: u64,
    /// Milliseconds between two blobs of the steady flow; 0 for no flow.
    flow_ms: f64,
    flow_blobs: u64,
    records_per_blob: u64,
    record_bytes: Option<usize>,
    quirks: Vec<&'static Quirk>,
    retention: TimeDelta,
    /// The faults that decide what the feed holds, as they were at the start.
    structure: Faults,
    dlp_detail: bool,
    total_weight: u64,
    given: RwLock<Vec<Arc<GivenBlob>>>,
    prerendered: OnceLock<Vec<Ready>>,
}

/// A body that was rendered ahead.
#[derive(Debug)]
struct Ready {
    plain: Bytes,
    gzip: Option<Bytes>,
}

#[derive(Debug)]
pub(crate) struct GivenBlob {
    pub(crate) content_id: String,
    pub(crate) created: DateTime<Utc>,
    pub(crate) available: DateTime<Utc>,
    pub(crate) expires: DateTime<Utc>,
    pub(crate) body: Bytes,
}

impl Feed {
    pub(crate) fn new(
        config: &SimulatorConfig,
        tenant: TenantId,
        content_type: ContentType,
        anchor: DateTime<Utc>,
        dlp_detail: bool,
    ) -> Self {
        let active = config.content_types.contains(&content_type);
        let quirks = if config.quirks && active {
            let here = |quirk: &&Quirk| {
                kinds().iter().any(|kind| {
                    (kind.operation, kind.variant) == quirk.on && kind.content_type == content_type
                })
            };
            QUIRKS.iter().filter(here).collect()
        } else {
            Vec::new()
        };
        Self {
            content_type,
            seed: hash(&[config.seed, hash_text(&tenant.to_string()), hash_text(content_type.as_str())]),
            anchor,
            span: delta(config.backlog_span),
            backlog: if active { config.blobs } else { 0 },
            flow_ms: if active && config.rate > 0.0 {
                config.records_per_blob as f64 * 1000.0 / config.rate
            } else {
                0.0
            },
            flow_blobs: config.flow_blobs.unwrap_or(u64::MAX),
            records_per_blob: config.records_per_blob,
            record_bytes: config.record_bytes,
            quirks,
            retention: delta(config.retention),
            structure: config.faults.clone(),
            dlp_detail,
            total_weight: kinds_of(content_type).iter().map(|kind| kind.weight).sum(),
            given: RwLock::default(),
            prerendered: OnceLock::new(),
        }
    }

    /// How many blobs were generated until then.
    pub(crate) fn generated(&self, now: DateTime<Utc>) -> u64 {
        let passed = (now - self.anchor).num_milliseconds();
        let flow = if self.flow_ms > 0.0 && passed > 0 { (passed as f64 / self.flow_ms) as u64 } else { 0 };
        self.backlog + flow.min(self.flow_blobs)
    }

    pub(crate) fn given(&self) -> Vec<Arc<GivenBlob>> {
        self.given.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds a given blob and says how it is called.
    pub(crate) fn add(&self, blob: Blob, now: DateTime<Utc>) -> String {
        let mut given = self.given.write().unwrap_or_else(PoisonError::into_inner);
        let number = given.len() as u64;
        // What is added now was not there before: a listing that began earlier must not grow.
        let available = blob.available.unwrap_or(blob.created).max(now);
        let content_id =
            blob.content_id.unwrap_or_else(|| self.content_id_of(blob.created, 900_000_000_000 + number));
        given.push(Arc::new(GivenBlob {
            content_id: content_id.clone(),
            created: blob.created,
            available,
            expires: blob.expires.unwrap_or(blob.available.unwrap_or(blob.created) + self.retention),
            body: blob.body,
        }));
        content_id
    }

    fn raw_created(&self, number: u64) -> DateTime<Utc> {
        if number < self.backlog {
            let span = i128::from(self.span.num_milliseconds());
            let back = span - span * (2 * i128::from(number) + 1) / (2 * i128::from(self.backlog));
            return self.anchor - TimeDelta::milliseconds(back as i64);
        }
        self.anchor
            + TimeDelta::milliseconds(((number - self.backlog + 1) as f64 * self.flow_ms).ceil() as i64)
    }

    /// `contentCreated` of a generated blob.
    fn generated_created(&self, number: u64) -> DateTime<Utc> {
        let shared =
            !number.is_multiple_of(2) && self.structure.has(FaultKind::SameCreated, self.seed, number);
        self.raw_created(if shared { number - 1 } else { number })
    }

    /// `contentCreated`.
    pub(crate) fn created(&self, blob: BlobNumber) -> Option<DateTime<Utc>> {
        match blob {
            BlobNumber::Generated(number) => Some(self.generated_created(number)),
            BlobNumber::Given(number) => self.given_blob(number).map(|given| given.created),
        }
    }

    fn given_blob(&self, number: usize) -> Option<Arc<GivenBlob>> {
        self.given.read().unwrap_or_else(PoisonError::into_inner).get(number).cloned()
    }

    /// When the blob begins to be listed.
    pub(crate) fn available(&self, blob: BlobNumber) -> Option<DateTime<Utc>> {
        match blob {
            BlobNumber::Given(number) => self.given_blob(number).map(|given| given.available),
            BlobNumber::Generated(number) => {
                let created = self.generated_created(number);
                let late = self
                    .structure
                    .rule(FaultKind::Late)
                    .filter(|_| self.structure.has(FaultKind::Late, self.seed, number));
                Some(late.map_or(created, |rule| created.max(self.anchor) + delta(rule.delay)))
            }
        }
    }

    /// `contentExpiration`.
    pub(crate) fn expires(&self, blob: BlobNumber) -> Option<DateTime<Utc>> {
        match blob {
            BlobNumber::Given(number) => self.given_blob(number).map(|given| given.expires),
            BlobNumber::Generated(_) => self.available(blob).map(|available| available + self.retention),
        }
    }

    /// The blobs with a `contentCreated` in the window that can be listed at that time, in the order in which they
    /// became available.
    pub(crate) fn listed(&self, window: Range<DateTime<Utc>>, at: DateTime<Utc>) -> Vec<BlobNumber> {
        let count = self.generated(at);
        let first = partition(count, |number| self.generated_created(number) < window.start);
        let end = partition(count, |number| self.generated_created(number) < window.end);
        let mut blobs: Vec<_> = (first..end).map(BlobNumber::Generated).collect();
        let given = self.given();
        blobs.extend((0..given.len()).filter(|n| window.contains(&given[*n].created)).map(BlobNumber::Given));
        if !given.is_empty() || self.structure.rule(FaultKind::Late).is_some() {
            blobs.retain(|blob| self.available(*blob).is_some_and(|available| available <= at));
            blobs.sort_by_cached_key(|blob| (self.available(*blob), *blob));
        }
        blobs
    }

    /// How the blob is called.
    pub(crate) fn content_id(&self, blob: BlobNumber) -> Option<String> {
        match blob {
            BlobNumber::Given(number) => self.given_blob(number).map(|given| given.content_id.clone()),
            BlobNumber::Generated(number) => Some(self.content_id_of(self.generated_created(number), number)),
        }
    }

    /// The observed form `<stamp>$<stamp>$audit_exchange$Audit_Exchange$<shard>`. A stamp is a time in milliseconds and
    /// six more digits; the number is in those.
    fn content_id_of(&self, created: DateTime<Utc>, number: u64) -> String {
        let stamp =
            |time: DateTime<Utc>, digits: u64| format!("{}{digits:06}", time.format("%Y%m%d%H%M%S%3f"));
        let begun = created - TimeDelta::seconds(79);
        let name = self.content_type.as_str().replace('.', "_");
        format!(
            "{}${}${}${name}$emea{:04}",
            stamp(begun, number / 1_000_000),
            stamp(created, number % 1_000_000),
            name.to_lowercase(),
            self.seed % 60
        )
    }

    /// The blob of that name, whether it can be listed or not.
    pub(crate) fn find(&self, content_id: &str) -> Option<BlobNumber> {
        if let Some(number) = self.given().iter().position(|given| given.content_id == content_id) {
            return Some(BlobNumber::Given(number));
        }
        let mut stamps = content_id.split('$');
        let mut digits = || stamps.next()?.get(17..23)?.parse::<u64>().ok();
        let number = digits()? * 1_000_000 + digits()?;
        (self.content_id_of(self.checked_created(number)?, number) == content_id)
            .then_some(BlobNumber::Generated(number))
    }

    /// `contentCreated` of a number that anyone may have made up.
    fn checked_created(&self, number: u64) -> Option<DateTime<Utc>> {
        (number < self.backlog || self.flow_ms > 0.0 && number < 900_000_000_000)
            .then(|| self.generated_created(number))
    }

    /// The records of an earlier blob and of its own that this one repeats: (blob, position).
    pub(crate) fn repeats(&self, number: u64) -> Vec<(u64, u64)> {
        if number == 0 || !self.structure.has(FaultKind::DuplicateRecords, self.seed, number) {
            return Vec::new();
        }
        let mut dice = Dice::new(&[self.seed, 21, number]);
        let earlier = (number - 1 - dice.below(number.min(8)), dice.below(self.records_per_blob));
        let own = (number, dice.below(self.records_per_blob));
        [earlier, own].into_iter().filter(|(blob, position)| self.quirk(*blob, *position).is_none()).collect()
    }

    fn quirk(&self, number: u64, position: u64) -> Option<&'static Quirk> {
        let turn = number * self.records_per_blob + position;
        if self.quirks.is_empty() || turn % 5 != 2 {
            return None;
        }
        Some(self.quirks[(turn / 5 % self.quirks.len() as u64) as usize])
    }

    /// A record of a generated blob.
    fn record(&self, cast: &Cast, number: u64, position: u64) -> Record {
        let kinds = kinds_of(self.content_type);
        let turn = number * self.records_per_blob + position;
        let mut dice = Dice::new(&[self.seed, 11, number, position]);
        let id = dice.guid();
        let quirk = self.quirk(number, position);
        // Every seventh record takes the kinds in turn, so that each kind is there even in a short run, and a grant is
        // followed by its removal within the same episode. The others are as frequent as in life.
        let mut episode = turn;
        let kind = if let Some(kind) =
            quirk.and_then(|quirk| kinds.iter().find(|kind| (kind.operation, kind.variant) == quirk.on))
        {
            kind
        } else if turn % 7 == 3 {
            episode = turn / 7 / kinds.len() as u64;
            kinds[(turn / 7 % kinds.len() as u64) as usize]
        } else {
            let mut left = dice.below(self.total_weight);
            kinds
                .iter()
                .find(|kind| {
                    let here = left < kind.weight;
                    left = left.saturating_sub(kind.weight);
                    here
                })
                .unwrap_or(&kinds[0])
        };
        let created = self.generated_created(number);
        let at = created - TimeDelta::seconds(120 + dice.below(5400) as i64);
        let mut scene = Scene {
            cast,
            dice,
            episode: Dice::new(&[self.seed, 12, episode]),
            id,
            at,
            dlp_detail: self.dlp_detail,
        };
        let mut record = kind.record(&mut scene);
        if let Some(quirk) = quirk {
            (quirk.bend)(&mut record);
        } else if let Some(bytes) = self.record_bytes {
            pad(&mut record, bytes, &mut scene);
        }
        record
    }

    /// The `Id` of a record of a generated blob.
    pub(crate) fn record_id(&self, cast: &Cast, number: u64, position: u64) -> Option<String> {
        if self.quirk(number, position).is_none() {
            return Some(Dice::new(&[self.seed, 11, number, position]).guid().to_string());
        }
        self.record(cast, number, position).get_mut("Id").and_then(|id| id.as_str().map(str::to_owned))
    }

    pub(crate) fn records_per_blob(&self) -> u64 {
        self.records_per_blob
    }

    fn render(&self, cast: &Cast, number: u64) -> Bytes {
        let mut body = Vec::with_capacity(self.records_per_blob as usize * self.record_bytes.unwrap_or(1400));
        let mut write = |blob, position, turn: u64| {
            body.push(if body.is_empty() { b'[' } else { b',' });
            self.record(cast, blob, position)
                .write(hash(&[self.seed, blob, position]).wrapping_add(turn), &mut body);
        };
        let repeats = self.repeats(number);
        for &(blob, position) in repeats.iter().filter(|(blob, _)| *blob != number) {
            write(blob, position, 1);
        }
        for position in 0..self.records_per_blob {
            write(number, position, 0);
        }
        for &(blob, position) in repeats.iter().filter(|(blob, _)| *blob == number) {
            write(blob, position, 2);
        }
        body.push(b']');
        body.into()
    }

    /// The blob's body.
    pub(crate) fn body(&self, cast: &Cast, blob: BlobNumber) -> Option<Bytes> {
        match blob {
            BlobNumber::Given(number) => self.given_blob(number).map(|given| given.body.clone()),
            BlobNumber::Generated(number) => {
                let ready = self.ready(blob).map(|ready| ready.plain.clone());
                Some(ready.unwrap_or_else(|| self.render(cast, number)))
            }
        }
    }

    fn ready(&self, blob: BlobNumber) -> Option<&Ready> {
        let BlobNumber::Generated(number) = blob else { return None };
        self.prerendered.get()?.get(usize::try_from(number).ok()?)
    }

    /// The blob's body compressed, if that was done ahead.
    pub(crate) fn compressed(&self, blob: BlobNumber) -> Option<Bytes> {
        self.ready(blob)?.gzip.clone()
    }

    /// Renders the backlog and keeps it, compressed too if clients may want that.
    pub(crate) fn prerender(&self, cast: &Cast, gzip: bool) {
        self.prerendered.get_or_init(|| {
            let ready = |number| {
                let plain = self.render(cast, number);
                Ready { gzip: gzip.then(|| compress(&plain)), plain }
            };
            (0..self.backlog).map(ready).collect()
        });
    }
}

/// The first of `0..count` for which `before` is false.
fn partition(count: u64, before: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// Reads the stamp at the head of a content id.
pub(crate) fn looks_like_content_id(text: &str) -> bool {
    text.get(..17).is_some_and(|stamp| NaiveDateTime::parse_from_str(stamp, "%Y%m%d%H%M%S%3f").is_ok())
        && text.contains('$')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TenantConfig;

    fn feed(config: &SimulatorConfig) -> (Feed, Cast) {
        let tenant = TenantConfig::default();
        let anchor = "2026-11-01T00:00:00Z".parse().unwrap();
        let cast = Cast::new(config.seed, tenant.tenant_id, &tenant.domain, config.users, 4, 3);
        (Feed::new(config, tenant.tenant_id, ContentType::Exchange, anchor, true), cast)
    }

    #[test]
    fn a_blob_is_the_same_bytes_whenever_it_is_made_and_another_seed_makes_another() {
        let config = SimulatorConfig::backlog(5, 20);
        let (first, cast) = feed(&config);
        let (second, _) = feed(&config);
        let blob = BlobNumber::Generated(3);
        assert_eq!(first.body(&cast, blob), second.body(&cast, blob));
        second.prerender(&cast, true);
        assert!(second.compressed(blob).is_some() && first.compressed(blob).is_none());
        assert_eq!(first.body(&cast, blob), second.body(&cast, blob));
        let (other, other_cast) = feed(&SimulatorConfig { seed: 2, ..config });
        assert_ne!(first.body(&cast, blob), other.body(&other_cast, blob));
    }

    #[test]
    fn a_blob_is_found_by_its_name_and_by_no_other() {
        let config = SimulatorConfig { rate: 10.0, ..SimulatorConfig::backlog(2_000_003, 10) };
        let (feed, _) = feed(&config);
        for number in [0, 1, 999_999, 1_000_000, 2_000_002, 2_000_500] {
            let id = feed.content_id(BlobNumber::Generated(number)).unwrap();
            assert_eq!(feed.find(&id), Some(BlobNumber::Generated(number)), "{id}");
            assert_eq!(feed.find(&id.replace("emea", "apac")), None);
            assert!(looks_like_content_id(&id), "{id}");
        }
        assert_eq!(feed.find("nonsense"), None);
        assert!(!looks_like_content_id("nonsense"));
    }

    #[test]
    fn windows_that_meet_list_every_blob_once() {
        let faults = "same_created=1/3,late=1/5@10s".parse().unwrap();
        let config = SimulatorConfig { rate: 10.0, faults, ..SimulatorConfig::backlog(500, 10) };
        let (feed, _) = feed(&config);
        let now = feed.anchor + TimeDelta::seconds(100);
        let (mut start, mut seen) = (feed.anchor - TimeDelta::hours(25), Vec::new());
        while start < now {
            seen.extend(feed.listed(start..start + TimeDelta::minutes(37), now));
            start += TimeDelta::minutes(37);
        }
        seen.sort();
        let expected: Vec<_> = (0..600)
            .map(BlobNumber::Generated)
            .filter(|blob| feed.available(*blob).unwrap() <= now)
            .collect();
        assert_eq!(seen, expected);
        assert!(expected.len() < 600, "some are late");
    }

    #[test]
    fn records_grow_to_about_the_size_that_was_asked_for() {
        let config = SimulatorConfig { record_bytes: Some(2048), ..SimulatorConfig::backlog(10, 100) };
        let (feed, cast) = feed(&config);
        let mean = feed.body(&cast, BlobNumber::Generated(4)).unwrap().len() / 100;
        assert!((1900..2400).contains(&mean), "{mean}");
    }

    #[test]
    fn an_event_happens_before_its_blob_is_made() {
        let (feed, cast) = feed(&SimulatorConfig::backlog(3, 40));
        for position in 0..40 {
            let mut record = feed.record(&cast, 1, position);
            let time =
                schemas::time::parse_utc(record.get_mut("CreationTime").unwrap().as_str().unwrap()).unwrap();
            let lag = feed.generated_created(1) - time;
            assert!(lag >= TimeDelta::minutes(2) && lag < TimeDelta::minutes(95), "{lag}");
        }
    }
}
