//! Opening a ledger: the lock, the format, and putting right what a crash left behind.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::{Arc, mpsc},
};

use chrono::TimeDelta;
use schemas::{LedgerId, TenantId};
use uuid::Uuid;

use crate::{
    clock::{Clock, micros},
    error::{LedgerError, OpenError},
    faults::Faults,
    handle::{Ledger, Shared},
    ids::{Checkpoint, Day, DuplicateIndex},
    inspect::Inspector,
    leases::Leases,
    lock::Lock,
    schema,
    spool::{Spool, SpoolRecovery},
    writer::{After, Writer, all, first},
};

/// How a ledger is to behave.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes of segment files at which fetching pauses. Bodies that are on their way then are still taken.
    pub spool_max_bytes: u64,
    /// Bytes of dead letters at which settling with more of them is refused.
    pub dead_letter_max_bytes: u64,
    /// How long a record is remembered, so that its repetitions are dropped, since it was spooled.
    pub horizon: TimeDelta,
    /// Bytes at which a segment file is full. It is at most an eighth of `spool_max_bytes`, so that space comes back
    /// in small steps.
    pub segment_bytes: u64,
    /// Tenants with `dedupe = false`.
    pub keep_duplicates: Vec<TenantId>,
    /// The program that opens it, for people who look into a ledger: name and version.
    pub opened_by: String,
    /// Where the time comes from.
    pub clock: Clock,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            spool_max_bytes: 10 << 30,
            dead_letter_max_bytes: 1 << 30,
            horizon: TimeDelta::days(8),
            segment_bytes: 64 << 20,
            keep_duplicates: Vec::new(),
            opened_by: concat!("mailtrail ", env!("CARGO_PKG_VERSION")).to_owned(),
            clock: Clock::system(),
        }
    }
}

/// What opening found and put right, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Whether the ledger was made just now.
    pub new: bool,
    /// Whether the last run ended without closing the ledger.
    pub unclean: bool,
    /// What was found in the spool.
    pub spool: SpoolRecovery,
    /// Deliveries that an earlier run had begun and that are pending: their records may be there already.
    pub begun: u64,
    /// Blobs that are listed and not yet fetched.
    pub to_fetch: u64,
    /// Deliveries that are pending.
    pub pending: u64,
}

impl Ledger {
    /// Opens the ledger in a state directory, which is made if it is not there. Blocks.
    ///
    /// # Errors
    ///
    /// When another process has it, when it is of a newer format or no ledger at all, and when the disk fails.
    pub fn open(dir: &Path, settings: Settings) -> Result<(Self, Recovery), OpenError> {
        Self::open_with(dir, settings, Faults::none())
    }

    pub(crate) fn open_with(
        dir: &Path,
        settings: Settings,
        faults: Faults,
    ) -> Result<(Self, Recovery), OpenError> {
        make_directory(dir)?;
        let lock = Lock::take(dir)?;
        let spool_dir = dir.join("spool");
        make_directory(&spool_dir)?;
        let path = dir.join(schema::FILE_NAME);
        let db = schema::open(&path)?;
        let failed = |source| OpenError::Database { path: path.clone(), source };
        let now = settings.clock.now();

        let new = first(&db, "SELECT 1 FROM meta WHERE key = 'ledger_id'", [], |_| Ok(()))?.is_none();
        let unclean = !new
            && first(&db, "SELECT value FROM meta WHERE key = 'open'", [], |row| row.get::<_, i64>(0))?
                == Some(1);
        if new {
            let set = "INSERT INTO meta (key, value) VALUES (?1, ?2)";
            let transaction = db.unchecked_transaction().map_err(failed)?;
            transaction.execute(set, ("ledger_id", Uuid::new_v4().to_string())).map_err(failed)?;
            transaction.execute(set, ("secret", Uuid::new_v4().as_bytes().as_slice())).map_err(failed)?;
            transaction.execute(set, ("created_by", &settings.opened_by)).map_err(failed)?;
            transaction.execute(set, ("created_at", micros(now))).map_err(failed)?;
            transaction.commit().map_err(failed)?;
        }
        let set = "INSERT INTO meta (key, value) VALUES (?1, ?2) \
                   ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        let number = |key: &str| {
            first(&db, "SELECT value FROM meta WHERE key = ?1", [key], |row| row.get::<_, i64>(0))
                .map(|value| value.unwrap_or(0))
        };
        let run = number("run")? + 1;
        db.execute(set, ("run", run)).map_err(failed)?;
        db.execute(set, ("open", 1)).map_err(failed)?;
        db.execute(set, ("opened_by", &settings.opened_by)).map_err(failed)?;

        let text: String = db
            .query_row("SELECT value FROM meta WHERE key = 'ledger_id'", [], |row| row.get(0))
            .map_err(failed)?;
        let id: LedgerId =
            text.parse().map_err(|_| LedgerError::damaged(format!("the ledger id `{text}`")))?;
        let secret: Vec<u8> = db
            .query_row("SELECT value FROM meta WHERE key = 'secret'", [], |row| row.get(0))
            .map_err(failed)?;
        let secret: [u8; 16] =
            secret.try_into().map_err(|_| LedgerError::damaged("a secret of another length"))?;

        let committed = all(&db, "SELECT number, length FROM segment", [], |row| {
            Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
        })?;
        let largest = (settings.spool_max_bytes / 8).max(64 << 10);
        let (spool, report) = Spool::open(
            &spool_dir,
            id,
            settings.segment_bytes.clamp(4 << 10, largest),
            committed.into_iter().collect(),
            faults.clone(),
        )?;
        let checkpoint =
            Checkpoint { journal: number("ids_journal")? as u64, length: number("ids_length")? as u64 };
        let horizon = settings.horizon.num_days().clamp(1, 400) as u16;
        // By opening nothing is forgotten: the local clock may be ahead, and whoever spools and maintains says what day it is.
        let ids = DuplicateIndex::open(&dir.join("ids"), secret, checkpoint, horizon, Day::UNKNOWN)
            .map_err(LedgerError::from)?;

        let count = |sql: &str| {
            first(&db, sql, [], |row| row.get::<_, i64>(0)).map(|count| count.unwrap_or(0) as u64)
        };
        let recovery = Recovery {
            new,
            unclean,
            spool: report,
            begun: count("SELECT count(*) FROM delivery WHERE state = 'pending' AND begun > 0")?,
            to_fetch: count("SELECT count(*) FROM blob WHERE state = 'listed'")?,
            pending: count(
                "SELECT (SELECT count(*) FROM delivery WHERE state = 'pending' AND not_before = 0) + \
                 (SELECT count(*) FROM delivery WHERE state = 'pending' AND not_before > 0)",
            )?,
        };

        let inspector = Inspector::open(dir)?;
        let bodies = schema::open_read_only(&path)?;
        let (sender, messages) = mpsc::channel();
        let shared = Arc::new(Shared::new(dir.to_owned(), id, settings, bodies, faults.clone()));
        let writer = Writer {
            db,
            spool,
            ids,
            leases: Leases::new(sender.clone()),
            after: After::default(),
            shared: Arc::clone(&shared),
            faults,
            paused: std::collections::HashSet::new(),
            usual_body: 64 << 10,
            turns: std::collections::HashMap::new(),
            damaged: Vec::new(),
            wants_room: false,
            checkpoint,
            broken: None,
            _lock: lock,
        };
        let ledger = Self::start(shared, inspector, writer, sender, messages).map_err(|source| {
            OpenError::Io { what: "starting the ledger's thread for", path: dir.to_owned(), source }
        })?;
        Ok((ledger, recovery))
    }
}

fn make_directory(dir: &Path) -> Result<(), OpenError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| OpenError::Io {
        what: "making",
        path: dir.to_owned(),
        source,
    })
}
