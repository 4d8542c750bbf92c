//! What the tests of this crate share: a ledger in a directory of its own, with a clock and faults of the test's.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use chrono::{DateTime, TimeDelta, Utc};
use schemas::{ContentId, ContentType, FeedKey, ListedBlob, SinkName, TenantId, TimeRange};

use crate::{
    BodyError, Clock, FetchLease, Lease, Ledger, ListedPage, Recovery, Settings, Settlement, SinkSpec,
    Spooled, StartFrom, WorkId, error::OpenError, faults::Faults,
};

/// A clock that stands still until it is moved.
#[derive(Clone)]
pub(crate) struct TestClock(Arc<AtomicI64>);

impl TestClock {
    pub(crate) fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0.load(Ordering::SeqCst)).unwrap()
    }

    pub(crate) fn advance(&self, by: TimeDelta) {
        self.0.fetch_add(by.num_microseconds().unwrap(), Ordering::SeqCst);
    }

    pub(crate) fn clock(&self) -> Clock {
        let clock = self.clone();
        Clock::new(move || clock.now())
    }
}

/// A ledger under test. It can be closed, or killed, and opened again.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) clock: TestClock,
    pub(crate) settings: Settings,
    pub(crate) faults: Faults,
    pub(crate) ledger: Ledger,
    pub(crate) recovery: Recovery,
}

pub(crate) fn start() -> DateTime<Utc> {
    "2026-03-02T10:20:30Z".parse().unwrap()
}

pub(crate) fn tenant(number: u8) -> TenantId {
    format!("41463f53-8812-40f4-890f-865bf6e351{number:02x}").parse().unwrap()
}

pub(crate) fn feed(number: u8) -> FeedKey {
    FeedKey { tenant: tenant(number), content_type: ContentType::Exchange }
}

pub(crate) fn sink(name: &str) -> SinkName {
    name.parse().unwrap()
}

pub(crate) fn spec(name: &str) -> SinkSpec {
    SinkSpec { name: sink(name), required: true, start_from: StartFrom::Spooled }
}

/// A record with a key.
pub(crate) fn record(number: u64, text: &str) -> String {
    format!(
        r#"{{"Id":"1c7412a6-858d-49ff-3f93-{number:012x}","CreationTime":"2026-03-02T09:00:00","Operation":"Send","UserId":"a@b.c","Text":"{text}"}}"#
    )
}

/// A body of these records.
pub(crate) fn body(numbers: impl IntoIterator<Item = u64>) -> String {
    let records: Vec<_> = numbers.into_iter().map(|number| record(number, "")).collect();
    format!("[{}]", records.join(","))
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// A ledger that knows the required sinks `a` and `b`.
    pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::in_directory(tempfile::tempdir().unwrap(), change)
    }

    pub(crate) fn in_directory(dir: tempfile::TempDir, change: impl FnOnce(&mut Settings)) -> Self {
        let clock = TestClock(Arc::new(AtomicI64::new(start().timestamp_micros())));
        let mut settings = Settings { clock: clock.clock(), ..Settings::default() };
        change(&mut settings);
        let faults = Faults::none();
        let (ledger, recovery) = Ledger::open_with(dir.path(), settings.clone(), faults.clone()).unwrap();
        let bench = Self { dir, clock, settings, faults, ledger, recovery };
        bench.ledger.meet_sinks(vec![spec("a"), spec("b")]).wait().unwrap();
        bench
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Closes the ledger and opens it again.
    pub(crate) fn reopen(&mut self) {
        self.ledger.close();
        self.open().unwrap();
    }

    /// Opens the ledger again, after it was closed or died.
    pub(crate) fn open(&mut self) -> Result<(), OpenError> {
        self.faults = Faults::none();
        // A child process that another test starts holds this process's locks between its fork and its exec.
        let mut tries = 0..1000;
        let (ledger, recovery) = loop {
            match Ledger::open_with(self.dir.path(), self.settings.clone(), self.faults.clone()) {
                Err(OpenError::Locked { .. }) if tries.next().is_some() => std::thread::yield_now(),
                result => break result?,
            }
        };
        (self.ledger, self.recovery) = (ledger, recovery);
        Ok(())
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// A blob that was made available now.
    pub(crate) fn listed(&self, id: &str) -> ListedBlob {
        ListedBlob {
            content_id: ContentId::try_from(id).unwrap(),
            created: self.now(),
            expires: self.now() + TimeDelta::days(7),
        }
    }

    /// Lists blobs; gives how many were new.
    pub(crate) fn list(&self, feed: FeedKey, ids: &[&str]) -> usize {
        let blobs = ids.iter().map(|id| self.listed(id)).collect();
        self.ledger.record_page(ListedPage { feed, blobs, completes: None }).wait().unwrap()
    }

    pub(crate) fn claim(&self, tenant: TenantId) -> Option<FetchLease> {
        self.ledger.claim_fetches(tenant, 1).wait().unwrap().pop()
    }

    pub(crate) fn take(&self, work: WorkId, body: &[u8]) -> Result<Spooled, BodyError> {
        self.take_at(work, self.now(), body)
    }

    /// Takes a body when the service says that it is `now`.
    pub(crate) fn take_at(
        &self,
        work: WorkId,
        now: DateTime<Utc>,
        body: &[u8],
    ) -> Result<Spooled, BodyError> {
        let mut writer = self.ledger.body_writer(work, now);
        for chunk in body.chunks(1000) {
            writer.write(chunk)?;
        }
        writer.finish()?.wait()
    }

    /// Lists a blob and spools its body.
    pub(crate) fn spool(&self, feed: FeedKey, id: &str, body: &str) -> (WorkId, Spooled) {
        assert_eq!(self.list(feed, &[id]), 1);
        let lease = self.claim(feed.tenant).unwrap();
        assert_eq!(lease.blob.content_id.as_str(), id);
        (lease.work, self.take(lease.work, body.as_bytes()).unwrap())
    }

    pub(crate) fn lease(&self, name: &str, want: usize) -> Vec<Lease> {
        self.ledger.lease(&sink(name), want).wait().unwrap()
    }

    /// Delivers everything that is due for a sink; gives how many works that were.
    pub(crate) fn deliver(&self, name: &str) -> usize {
        let mut count = 0;
        loop {
            let leases = self.lease(name, 100);
            if leases.is_empty() {
                return count;
            }
            count += leases.len();
            let settlements = leases.iter().map(delivered).collect();
            self.ledger.settle(&sink(name), settlements, None).wait().unwrap();
        }
    }

    /// Every record of a body that is no duplicate, as text.
    pub(crate) fn read(&self, work: WorkId) -> Vec<String> {
        let mut records = Vec::new();
        let mut next = Some(0);
        while let Some(from) = next {
            let piece = self.ledger.read_piece(work, None, from).unwrap();
            records.extend(piece.records().map(|(_, bytes)| String::from_utf8(bytes.to_vec()).unwrap()));
            next = piece.next;
        }
        records
    }

    /// The segment files.
    pub(crate) fn segments(&self) -> Vec<std::path::PathBuf> {
        let mut files: Vec<_> = std::fs::read_dir(self.path().join("spool"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
            .collect();
        files.sort();
        files
    }

    pub(crate) fn reconcile(&self) -> crate::Reconciliation {
        let range =
            TimeRange { start: start() - TimeDelta::days(3000), end: self.now() + TimeDelta::days(1) };
        self.ledger.inspector().reconcile(range).unwrap()
    }

    /// Maintains the ledger, and waits for what follows the commit.
    pub(crate) fn maintain(&self) -> crate::Maintained {
        let done = self.ledger.maintain(self.now()).wait().unwrap();
        self.ledger.idle_state().wait().unwrap();
        done
    }

    /// A number from the database.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        self.ledger.inspector().db().query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

/// The settlement of a work that was delivered whole.
pub(crate) fn delivered(lease: &Lease) -> Settlement {
    Settlement {
        work: lease.work.id,
        body: lease.work.body,
        delivered: lease.work.records - lease.work.duplicates,
        filtered: 0,
        dead: Vec::new(),
        resent: 0,
    }
}
