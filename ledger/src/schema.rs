//! The database file: that it is ours, and of which version.
//!
//! `application_id` tells a ledger from any other SQLite file, `user_version` is the format's version. An older format
//! is brought up to date in one transaction, a newer one is refused: what an older program does not understand it
//! could only damage.

use std::{
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig, params};

use crate::error::OpenError;

/// The format that this version writes.
pub const FORMAT_VERSION: i64 = 6;

/// How long a statement of the writer waits for whoever has the database locked.
pub(crate) const BUSY: Duration = Duration::from_secs(10);

/// "mtra", as SQLite's `application_id`.
const APPLICATION_ID: i64 = 0x6d74_7261;

/// The database's name in the state directory.
pub(crate) const FILE_NAME: &str = "ledger.sqlite";

/// Step `n` brings format `n` to format `n + 1`; the first step makes format 1 out of nothing. A step that was released
/// is never changed.
const STEPS: [&str; FORMAT_VERSION as usize] = [
    include_str!("schema.sql"),
    include_str!("schema-2.sql"),
    include_str!("schema-3.sql"),
    include_str!("schema-4.sql"),
    include_str!("schema-5.sql"),
    include_str!("schema-6.sql"),
];

/// Opens the database for writing, makes it or brings it up to date.
pub(crate) fn open(path: &Path) -> Result<Connection, OpenError> {
    open_with(path, &STEPS)
}

fn open_with(path: &Path, steps: &[&str]) -> Result<Connection, OpenError> {
    let failed = |source| database_error(path, source);
    // The file holds audit records and destinations: nobody else's business. SQLite gives its mode to the files that it
    // makes beside it, so that it has to be right from the beginning.
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .and_then(|file| file.set_permissions(std::fs::Permissions::from_mode(0o600)))
        .map_err(|source| OpenError::Io { what: "opening", path: path.to_owned(), source })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags).map_err(failed)?;
    db.busy_timeout(BUSY).map_err(failed)?;
    let found = version(&db, path)?;
    let known = steps.len() as i64;
    if found > known {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
         PRAGMA cache_size = -4096; PRAGMA temp_store = MEMORY;",
    )
    .map_err(failed)?;
    db.set_prepared_statement_cache_capacity(256);
    // Otherwise statements are planned anew for each new parameter that might make another index better.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(failed)?;
    if found < known {
        let transaction = db.transaction().map_err(failed)?;
        let from = usize::try_from(found).unwrap_or(0);
        for step in &steps[from..] {
            transaction.execute_batch(step).map_err(failed)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
        transaction.pragma_update(None, "user_version", known).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        if found > 0 {
            tracing::info!(from = found, to = known, "the ledger's format was brought up to date");
        }
    }
    Ok(db)
}

/// Opens the database for reading only, beside a running process or alone.
pub(crate) fn open_read_only(path: &Path) -> Result<Connection, OpenError> {
    let failed = |source| database_error(path, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let beside = Connection::open_with_flags(path, flags).and_then(|db| {
        db.busy_timeout(Duration::from_secs(5))?;
        // The first read is what needs the files beside the database.
        db.query_row("SELECT count(*) FROM sqlite_schema", params![], |_| Ok(()))?;
        Ok(db)
    });
    let db = match beside {
        Ok(db) => db,
        // Without the right to write, SQLite cannot make the index of the write-ahead log. When there is no log,
        // nobody runs and the file alone is the whole ledger.
        Err(error) if !beside_exists(path, "-wal") => {
            let encoded = encode_path(path).ok_or_else(|| failed(error))?;
            let uri = format!("file:{encoded}?immutable=1");
            Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI).map_err(failed)?
        }
        Err(error) => return Err(failed(error)),
    };
    let found = version(&db, path)?;
    if found > FORMAT_VERSION {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: FORMAT_VERSION });
    }
    if found < FORMAT_VERSION {
        return Err(OpenError::Older { path: path.to_owned(), found, known: FORMAT_VERSION });
    }
    db.execute_batch("PRAGMA cache_size = -1024; PRAGMA query_only = ON;").map_err(failed)?;
    db.set_prepared_statement_cache_capacity(32);
    Ok(db)
}

fn beside_exists(path: &Path, suffix: &str) -> bool {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    Path::new(&name).metadata().is_ok_and(|file| file.len() > 0)
}

fn encode_path(path: &Path) -> Option<String> {
    let mut encoded = String::new();
    for byte in std::path::absolute(path).ok()?.to_str()?.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => encoded.push(byte as char),
            _ => encoded.push_str(&format!("%{byte:02x}")),
        }
    }
    Some(encoded)
}

/// The format of a database; 0 for a new one. Anything that is not a ledger is refused.
fn version(db: &Connection, path: &Path) -> Result<i64, OpenError> {
    let number = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let read = || {
        let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((number("application_id")?, number("user_version")?, tables))
    };
    match read() {
        Ok((APPLICATION_ID, version, _)) if version > 0 => Ok(version),
        Ok((0, 0, 0)) => Ok(0),
        Ok(_) => Err(OpenError::NotALedger { path: path.to_owned() }),
        Err(source) => Err(database_error(path, source)),
    }
}

fn database_error(path: &Path, source: rusqlite::Error) -> OpenError {
    match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => OpenError::NotALedger { path: path.to_owned() },
        _ => OpenError::Database { path: path.to_owned(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        (dir, path)
    }

    #[test]
    fn a_newer_format_is_refused_and_left_alone() {
        let (_dir, path) = file();
        let db = open(&path).unwrap();
        db.pragma_update(None, "user_version", FORMAT_VERSION + 1).unwrap();
        drop(db);
        let error = open(&path).unwrap_err();
        assert!(matches!(error, OpenError::Newer { found, known, .. } if found == known + 1), "{error}");
        assert!(error.to_string().contains("upgrade mailtrail"), "{error}");
        assert!(matches!(open_read_only(&path), Err(OpenError::Newer { .. })));
    }

    #[test]
    fn what_is_no_ledger_is_refused() {
        let (_dir, path) = file();
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE mine (x)").unwrap();
        assert!(matches!(open(&path), Err(OpenError::NotALedger { .. })));
        std::fs::write(&path, "a text that is long enough to be no empty file ".repeat(200)).unwrap();
        assert!(matches!(open(&path), Err(OpenError::NotALedger { .. })));
    }

    #[test]
    fn opening_the_present_format_changes_nothing() {
        let (_dir, path) = file();
        let schema = |db: &Connection| -> (i64, String) {
            db.query_row("SELECT count(*), group_concat(sql) FROM sqlite_schema", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap()
        };
        let first = schema(&open(&path).unwrap());
        assert_eq!(first, schema(&open(&path).unwrap()));
        assert!(first.0 > 10);
    }

    #[test]
    fn an_older_format_is_brought_up_to_date_in_one_commit() {
        let (_dir, path) = file();
        drop(open(&path).unwrap());
        let step = "ALTER TABLE sink ADD COLUMN colour TEXT; INSERT INTO meta VALUES ('step', 2);";
        // A step that fails in the middle leaves everything as it was.
        let after = |step: &str| open_with(&path, &[&STEPS[..], &[step]].concat());
        assert!(after(&format!("{step} CREATE TABLE sink (x);")).is_err());
        let db = open(&path).unwrap();
        assert_eq!(db.query_row("SELECT count(*) FROM meta", [], |row| row.get::<_, i64>(0)).unwrap(), 0);
        drop(db);
        let db = after(step).unwrap();
        assert_eq!(version(&db, &path).unwrap(), FORMAT_VERSION + 1);
        assert_eq!(
            db.query_row("SELECT count(colour) FROM sink", [], |row| row.get::<_, i64>(0)).unwrap(),
            0
        );
        drop(db);
        // A step is taken once.
        drop(after(step).unwrap());
        assert!(matches!(open(&path), Err(OpenError::Newer { .. })));
    }

    #[test]
    fn a_hole_of_the_first_format_is_as_open_as_it_was() {
        let (_dir, path) = file();
        let db = open_with(&path, &STEPS[..1]).unwrap();
        let hole = "INSERT INTO tenant (id, guid) VALUES (1, 't');
            INSERT INTO feed (id, tenant, content_type) VALUES (1, 1, 'Audit.Exchange');
            INSERT INTO hole (feed, tenant, seq, starts, ends, reason, recorded_at) VALUES (1, 1, 1, 5, 9, 'x', 10);";
        db.execute_batch(hole).unwrap();
        drop(db);
        let db = open(&path).unwrap();
        let left =
            db.query_row("SELECT left_from, left_to FROM hole", [], |row| Ok((row.get(0)?, row.get(1)?)));
        assert_eq!(left.unwrap(), (5i64, 9i64));
    }

    #[test]
    fn nothing_of_the_third_format_was_restored() {
        let (_dir, path) = file();
        let db = open_with(&path, &STEPS[..3]).unwrap();
        let rows = "INSERT INTO tenant (id, guid) VALUES (1, 't');
            INSERT INTO feed (id, tenant, content_type) VALUES (1, 1, 'Audit.Exchange');
            INSERT INTO blob (tenant, feed, kind, content_id, created, expires, listed_at, state, seq)
            VALUES (1, 1, 'blob', 'x', 1, 2, 3, 'settled', 1), (1, 1, 'retry', 'x', 1, 2, 3, 'settled', 2);";
        db.execute_batch(rows).unwrap();
        drop(db);
        // Who only looks changes nothing, and says so.
        assert!(matches!(open_read_only(&path), Err(OpenError::Older { found: 3, .. })));
        let db = open(&path).unwrap();
        assert_eq!(version(&db, &path).unwrap(), FORMAT_VERSION);
        let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(count("SELECT count(*) FROM blob WHERE restore IS NULL"), 2);
        assert_eq!(count("SELECT count(*) FROM restore"), 0);
        // Numbers of works go on where they were.
        let next = "INSERT INTO blob (tenant, feed, kind, content_id, created, expires, listed_at, state) \
                    VALUES (1, 1, 'blob', 'y', 1, 2, 3, 'listed') RETURNING work";
        assert_eq!(count(next), 3);
    }

    #[test]
    fn a_feed_of_the_fourth_format_began_with_its_first_blob() {
        let (_dir, path) = file();
        let db = open_with(&path, &STEPS[..4]).unwrap();
        let rows = "INSERT INTO tenant (id, guid) VALUES (1, 't');
            INSERT INTO feed (id, tenant, content_type, watermark)
            VALUES (1, 1, 'a', 7200000009), (2, 1, 'b', 7200000009), (3, 1, 'c', NULL);
            INSERT INTO hour (feed, hour, listed) VALUES (1, 2, 1), (1, 1, 1);";
        db.execute_batch(rows).unwrap();
        drop(db);
        let db = open(&path).unwrap();
        let mut query = db.prepare("SELECT listed_from, unsubscribed FROM feed ORDER BY id").unwrap();
        let feeds = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let feeds: Vec<(Option<i64>, bool)> = feeds.collect::<Result<_, _>>().unwrap();
        assert_eq!(feeds, [(Some(3_600_000_000), false), (Some(7_200_000_009), false), (None, false)]);
    }

    #[test]
    fn a_subscription_of_the_fifth_format_may_be_started() {
        let (_dir, path) = file();
        let db = open_with(&path, &STEPS[..5]).unwrap();
        let rows = "INSERT INTO tenant (id, guid) VALUES (1, 't');
            INSERT INTO feed (tenant, content_type, watermark, unsubscribed) VALUES (1, 'a', 7, 1);";
        db.execute_batch(rows).unwrap();
        drop(db);
        let db = open(&path).unwrap();
        let feed = db.query_row("SELECT watermark, unsubscribed, started_at FROM feed", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        });
        assert_eq!(feed.unwrap(), (7i64, true, None::<i64>));
    }
}
