//! Which store the ledger should be built on: SQLite and redb, side by side.
//!
//! ```text
//! cargo bench -p ledger --bench stores [-- --dir DIRECTORY]
//! ```
//!
//! Both keep rows of 200 bytes under rising numbers, durably. Measured are rows a second with 1 and with 50 rows a
//! commit, and bytes on disk. Then a child process commits 50 rows at a time and reports each commit, is killed at a
//! random instant, and what it left is opened again: every reported commit must be there, whole, with nothing
//! between or behind that is not. Without `--bench`, as `cargo test --benches` runs it, it does less of the same.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::{
    error::Error,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use rusqlite::Connection;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

const GROUP: u64 = 50;
const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rows");

#[derive(Debug, Clone, Copy)]
enum Engine {
    Sqlite,
    Redb,
}

enum Store {
    Sqlite(Connection),
    Redb(redb::Database),
}

impl Engine {
    const ALL: [Self; 2] = [Self::Sqlite, Self::Redb];

    fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Redb => "redb",
        }
    }

    fn open(self, dir: &Path) -> Result<Store> {
        Ok(match self {
            Self::Sqlite => {
                let db = Connection::open(dir.join("rows.sqlite"))?;
                db.execute_batch(
                    "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                     CREATE TABLE IF NOT EXISTS row (number INTEGER PRIMARY KEY, bytes BLOB NOT NULL)",
                )?;
                Store::Sqlite(db)
            }
            Self::Redb => Store::Redb(redb::Database::create(dir.join("rows.redb"))?),
        })
    }
}

impl Store {
    /// Adds rows durably.
    fn add(&self, first: u64, count: u64) -> Result<()> {
        match self {
            Self::Sqlite(db) => {
                let transaction = db.unchecked_transaction()?;
                for number in first..first + count {
                    let mut statement =
                        transaction.prepare_cached("INSERT INTO row (number, bytes) VALUES (?1, ?2)")?;
                    statement.execute((number as i64, payload(number)))?;
                }
                transaction.commit()?;
            }
            Self::Redb(db) => {
                let transaction = db.begin_write()?;
                {
                    let mut rows = transaction.open_table(ROWS)?;
                    for number in first..first + count {
                        rows.insert(number, payload(number).as_slice())?;
                    }
                }
                transaction.commit()?;
            }
        }
        Ok(())
    }

    /// How many rows there are, if they are the first ones and whole.
    fn verify(&self) -> Result<u64> {
        let mut next = 0;
        let mut check = |number: u64, bytes: &[u8]| -> Result<()> {
            if number != next || bytes != payload(number) {
                return Err(format!("row {number} where row {next} should be").into());
            }
            next += 1;
            Ok(())
        };
        match self {
            Self::Sqlite(db) => {
                let mut statement = db.prepare("SELECT number, bytes FROM row ORDER BY number")?;
                let mut rows = statement.query([])?;
                while let Some(row) = rows.next()? {
                    check(row.get::<_, i64>(0)? as u64, &row.get::<_, Vec<u8>>(1)?)?;
                }
            }
            Self::Redb(db) => match db.begin_read()?.open_table(ROWS) {
                Ok(rows) => {
                    debug_assert!(rows.len().is_ok());
                    for row in rows.iter()? {
                        let (number, bytes) = row?;
                        check(number.value(), bytes.value())?;
                    }
                }
                // Killed before its first commit.
                Err(redb::TableError::TableDoesNotExist(_)) => {}
                Err(error) => return Err(error.into()),
            },
        }
        Ok(next)
    }
}

fn payload(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..25)
        .flat_map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_le_bytes()
        })
        .collect()
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1))
    };
    if let (Some(name), Some(dir)) = (value("--child"), value("--dir")) {
        let engine = Engine::ALL.into_iter().find(|engine| engine.name() == name).ok_or("no such engine")?;
        return child(engine, Path::new(dir));
    }
    let measured = arguments.iter().any(|argument| argument == "--bench");
    let place = value("--dir").map_or_else(std::env::temp_dir, PathBuf::from);
    let (commits, kills) = if measured { (1000, 40) } else { (20, 2) };
    println!(
        "| | rows/s, 1 a commit | rows/s, 50 a commit | bytes a row | opened again after kill -9 | slowest |"
    );
    println!("|---|---|---|---|---|---|");
    for engine in Engine::ALL {
        let (single, _) = throughput(engine, &place, commits, 1)?;
        let (grouped, size) = throughput(engine, &place, commits, GROUP)?;
        let (rows, slowest) = kill(engine, &place, kills)?;
        println!(
            "| {} | {single:.0} | {grouped:.0} | {size} | {kills} of {kills}, {rows} rows | {} ms |",
            engine.name(),
            slowest.as_millis()
        );
    }
    Ok(())
}

fn throughput(engine: Engine, place: &Path, commits: u64, group: u64) -> Result<(f64, u64)> {
    let dir = tempfile::tempdir_in(place)?;
    let store = engine.open(dir.path())?;
    let clock = Instant::now();
    for commit in 0..commits {
        store.add(commit * group, group)?;
    }
    let rate = (commits * group) as f64 / clock.elapsed().as_secs_f64();
    assert_eq!(store.verify()?, commits * group);
    drop(store);
    let size = dir
        .path()
        .read_dir()?
        .map(|file| Ok(file?.metadata()?.len()))
        .sum::<Result<u64, std::io::Error>>()?;
    Ok((rate, size / (commits * group)))
}

/// Commits for ever and says so.
fn child(engine: Engine, dir: &Path) -> Result<()> {
    let store = engine.open(dir)?;
    let mut next = store.verify()?;
    let mut out = std::io::stdout().lock();
    loop {
        store.add(next, GROUP)?;
        next += GROUP;
        writeln!(out, "{next}")?;
        out.flush()?;
    }
}

/// Kills a committing process again and again; gives how many rows it made, and how long the slowest opening took.
fn kill(engine: Engine, place: &Path, times: u64) -> Result<(u64, Duration)> {
    let dir = tempfile::tempdir_in(place)?;
    let (mut rows, mut slowest) = (0, Duration::ZERO);
    for round in 0..times {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--child", engine.name(), "--dir"])
            .arg(dir.path())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().ok_or("no output")?;
        let reader = std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(|line| line.ok()?.parse::<u64>().ok()).last()
        });
        std::thread::sleep(Duration::from_micros(20_000 + (round * 7_919_317) % 200_000));
        process.kill()?;
        process.wait()?;
        let reported = reader.join().map_err(|_| "the reader panicked")?.unwrap_or(rows);
        let clock = Instant::now();
        let store = engine.open(dir.path())?;
        slowest = slowest.max(clock.elapsed());
        let found = store.verify()?;
        if found < reported || found % GROUP != 0 || found > reported + GROUP {
            return Err(format!("{}: {reported} rows reported, {found} found", engine.name()).into());
        }
        rows = found;
    }
    Ok((rows, slowest))
}
