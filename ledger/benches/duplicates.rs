//! How fast the duplicate index is and how much memory it takes when it is large.
//!
//! ```text
//! cargo bench -p ledger --bench duplicates -- --ids 100000000 [--dir DIRECTORY]
//! ```
//!
//! It fills an index with ids of 192 hours in the order in which they would arrive: nine of ten belong to the latest
//! three hours, the others to any earlier one. Then it looks up ids, 99 of 100 of them unknown, with the same
//! locality and without any. Before and after, it does what the ledger does with 100,000 new records. Without `--bench`, as
//! `cargo test --benches` runs it, it does the same with a few ids and fails when the answers are wrong.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ledger::ids::{Checkpoint, Day, DuplicateIndex, FeedNumber, Owner};
use schemas::RecordKey;

const HOURS: u64 = 192;
const FIRST_HOUR: u64 = 480_000;
/// Ids that one commit makes durable.
const GROUP: u64 = 20_000;
const FEED: FeedNumber = FeedNumber(1);
const SECRET: [u8; 16] = *b"benchmark secret";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1))
    };
    let measured = arguments.iter().any(|argument| argument == "--bench");
    let ids = match value("--ids") {
        Some(ids) => ids.parse()?,
        None if measured => 10_000_000,
        None => 100_000,
    };
    let lookups = if measured { 4_000_000 } else { 40_000 };
    let place = value("--dir").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::Builder::new().prefix("mailtrail-ids-").tempdir_in(place)?;

    println!("{ids} ids over {HOURS} hours");
    let load = Load { ids };
    let idle = anonymous_memory()?;
    let empty = dir.path().join("empty");
    let mut index = DuplicateIndex::open(&empty, SECRET, Checkpoint::default(), 8, load.day(0))?;
    spool(&mut index, load.day(0), "look-up and insert, durable, empty index")?;
    drop(index);
    fs::remove_dir_all(empty)?;

    let mut index = DuplicateIndex::open(dir.path(), SECRET, Checkpoint::default(), 8, load.day(0))?;
    let mut peak = 0;
    let clock = Clock::start()?;
    let mut checkpoint = Checkpoint::default();
    for first in (0..ids).step_by(GROUP as usize) {
        let today = load.day(first);
        for number in first..ids.min(first + GROUP) {
            index.stage(FEED, &load.key(number), Owner((number / 100) as i64), today);
        }
        checkpoint = index.sync()?;
        index.committed()?;
        peak = peak.max(anonymous_memory()?);
    }
    clock.report("inserts, durable", ids)?;
    let today = load.day(ids - 1);

    drop(index);
    let clock = Clock::start()?;
    let mut index = DuplicateIndex::open(dir.path(), SECRET, checkpoint, 8, today)?;
    clock.report("restart, recent ids read back", index.stats().recent)?;

    for (name, local) in
        [("look-ups, 90 % in the latest 3 hours", true), ("look-ups, uniform over all hours", false)]
    {
        let mut random = Random(7);
        let mut wrong = 0;
        let clock = Clock::start()?;
        for _ in 0..lookups {
            let hit = random.below(100) == 0;
            let (key, expected) = if hit {
                // The last tenth of what arrived is mostly of the latest hours.
                let newest = if local { ids / 10 } else { ids };
                let number = ids - 1 - random.below(newest.max(1));
                (load.key(number), Some(Owner((number / 100) as i64)))
            } else {
                let hour = if local { local_hour(&mut random, HOURS - 1) } else { random.below(HOURS) };
                (key(hour, random.next(), random.next()), None)
            };
            wrong += u64::from(index.owner_of(FEED, &key, today)? != expected);
        }
        clock.report(name, lookups)?;
        peak = peak.max(anonymous_memory()?);
        if wrong > 0 {
            return Err(format!("{wrong} look-ups gave a wrong answer").into());
        }
    }

    spool(&mut index, today, "look-up and insert, durable, large index")?;
    peak = peak.max(anonymous_memory()?);

    let stats = index.stats();
    let on_disk =
        fs::read_dir(dir.path())?.try_fold(0, |sum, entry| entry?.metadata().map(|file| sum + file.len()))?;
    println!(
        "{:44} {:>8.1} MB for {} ids in {} tables",
        "on disk",
        mb(on_disk),
        stats.in_tables,
        stats.tables
    );
    println!("{:44} {:>8.1} MB at most, {:.1} MB before", "anonymous memory (RssAnon)", mb(peak), mb(idle));
    Ok(())
}

/// Does what the ledger does with 100,000 new records of the latest hour, 5,000 in a commit.
fn spool(index: &mut DuplicateIndex, today: Day, name: &str) -> Result<()> {
    let mut random = Random(8);
    let clock = Clock::start()?;
    for group in 0..20 {
        for number in 0..5_000 {
            let key = key(HOURS, random.next(), random.next());
            if index.owner_of(FEED, &key, today)?.is_none() {
                index.stage(FEED, &key, Owner(group * 50 + number / 100), today);
            }
        }
        index.sync()?;
        index.committed()?;
    }
    clock.report(name, 100_000)
}

/// What is put into the index: the numbered records, in the order in which they arrive.
struct Load {
    ids: u64,
}

impl Load {
    /// Hours since the first when a record arrives.
    fn arrival(&self, number: u64) -> u64 {
        number * HOURS / self.ids
    }

    fn day(&self, number: u64) -> Day {
        Day(((FIRST_HOUR + self.arrival(number)) / 24) as u16)
    }

    fn key(&self, number: u64) -> RecordKey {
        let mut random = Random(number.wrapping_mul(0xd134_2543_de82_ef95));
        let hour = local_hour(&mut random, self.arrival(number));
        key(hour, random.next(), number)
    }
}

/// The hour of a record that arrives now: nine of ten times one of the latest three.
fn local_hour(random: &mut Random, now: u64) -> u64 {
    if random.below(10) > 0 { now - random.below(3).min(now) } else { random.below(now + 1) }
}

fn key(hour: u64, first: u64, second: u64) -> RecordKey {
    let digest = (u128::from(first) << 64 | u128::from(second)).to_be_bytes();
    RecordKey { hour: (FIRST_HOUR + hour) as i32, digest }
}

/// SplitMix64: small, fast, and the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }
}

/// Elapsed and processor time.
struct Clock {
    start: Instant,
    cpu: Duration,
}

impl Clock {
    fn start() -> Result<Self> {
        Ok(Self { start: Instant::now(), cpu: cpu_time()? })
    }

    fn report(&self, what: &str, count: u64) -> Result<()> {
        let (elapsed, cpu) = (self.start.elapsed(), cpu_time()? - self.cpu);
        let rate = count as f64 / elapsed.as_secs_f64();
        println!(
            "{what:44} {rate:>12.0} /s   {:>8.3} s   {:>8.3} CPU-s",
            elapsed.as_secs_f64(),
            cpu.as_secs_f64()
        );
        Ok(())
    }
}

/// Time on the processor of the main thread, which is the only one.
fn cpu_time() -> Result<Duration> {
    let schedstat = fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds = schedstat.split_whitespace().next().ok_or("/proc/self/schedstat is empty")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

fn anonymous_memory() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon")?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim_end().parse()?;
    Ok(kibibytes * 1024)
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
