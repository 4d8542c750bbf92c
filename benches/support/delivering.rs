//! What the benchmarks of delivery share: counting what arrives, and a backlog that was collected while the sink was away.

use std::{
    collections::HashMap,
    fs,
    io::{Read, Seek, SeekFrom},
    net::TcpListener,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Child,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use memchr::memmem;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{Measured, Outcome, Simulated, Taken};

/// How long anything may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(1200);

/// Counts what has arrived.
pub(crate) trait Counts {
    /// How many there are by now.
    fn now(&mut self) -> Outcome<u64>;

    /// Waits until there are as many, and gives when that was.
    fn reaches(&mut self, count: u64, sender: &mut Child) -> Outcome<Instant> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let there = self.now()?;
            if there >= count {
                return Ok(Instant::now());
            }
            if Instant::now() > deadline {
                return Err(format!("only {there} of {count} arrived").into());
            }
            if let Some(status) = sender.try_wait()?.filter(|status| !status.success()) {
                return Err(
                    format!("the sender ended with {status} when {there} of {count} had arrived").into()
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Counts what appears in the growing files of a directory, reading every byte once.
pub(crate) struct Tally {
    directory: PathBuf,
    needle: &'static [u8],
    /// How far each file is read, by inode, because files are renamed when they are closed.
    read: HashMap<u64, u64>,
    count: u64,
}

impl Tally {
    pub(crate) fn new(directory: &Path, needle: &'static [u8]) -> Self {
        Self { directory: directory.to_owned(), needle, read: HashMap::new(), count: 0 }
    }
}

impl Counts for Tally {
    fn now(&mut self) -> Outcome<u64> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Ok(0) };
        for entry in entries {
            // A file that was renamed since the listing is read next time.
            let Ok(mut file) = fs::File::open(entry?.path()) else { continue };
            let read = self.read.entry(file.metadata()?.ino()).or_insert(0);
            file.seek(SeekFrom::Start(*read))?;
            let mut new = Vec::new();
            file.take(64 << 20).read_to_end(&mut new)?;
            // What stands across the end is counted when the rest of it is there.
            let mut counted = new.len().saturating_sub(self.needle.len() - 1);
            for found in memmem::find_iter(&new, self.needle) {
                self.count += 1;
                counted = counted.max(found + self.needle.len());
            }
            *read += counted as u64;
        }
        Ok(self.count)
    }
}

/// A port that nobody has now. Below what the system gives to whoever asks for any.
pub(crate) fn free_port() -> Outcome<u16> {
    (20_000..30_000)
        .map(|port| 20_000 + (port + std::process::id() as u16 % 10_000) % 10_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| "no port is free".into())
}

/// User and system time of a running process.
fn cpu_so_far(process: &Child) -> Outcome<Duration> {
    /// What `/proc` counts in on every Linux, whatever the kernel's own tick is.
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id()))?;
    // The name may hold spaces, but ends at the last parenthesis; user and system time are the 14th and 15th field.
    let rest = stat.rsplit_once(')').ok_or("no name in stat")?.1;
    let ticks: Vec<u64> =
        rest.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(Duration::from_secs_f64(ticks.iter().sum::<u64>() as f64 / TICKS_A_SECOND))
}

/// mailtrail with everything collected while the sink that is to be measured is away.
pub(crate) struct Backlog {
    pub(crate) running: Measured,
    /// What it took so far.
    cpu: Duration,
    all: u64,
}

impl Backlog {
    /// Collects it, for the sinks of `sinks`, and into files in `out` below `directory`. Also gives what that took.
    pub(crate) fn collect(
        simulated: &Simulated,
        all: u64,
        directory: &Path,
        sinks: &str,
    ) -> Outcome<(Self, Taken)> {
        let out = directory.join("out");
        let files = format!("[sinks.files]\ntype = \"file\"\ndirectory = {out:?}\nview = \"raw\"\n");
        let mut command = simulated.mailtrail(directory, &format!("{sinks}{files}"))?;
        // It would say again and again that the sink is away.
        command.args(["--log-level", "off"]);
        let mut running = Measured::start(&mut command)?;
        let wall = Tally::new(&out, b"\n").reaches(all, &mut running.process)? - running.started;
        // What is settled in the background after the last record belongs to collecting it.
        thread::sleep(Duration::from_secs(1));
        let cpu = cpu_so_far(&running.process)?;
        let peak_anon_kib = running.peak_anon_kib.swap(0, Ordering::Relaxed);
        Ok((Self { running, cpu, all }, Taken { wall, cpu, peak_anon_kib }))
    }

    /// Measures how it is delivered to the sink, which is there by now. Gives records a second.
    pub(crate) fn deliver(mut self, what: &str, arrived: &mut impl Counts) -> Outcome<f64> {
        // When it notices depends on how long it has tried in vain, not on how fast it is.
        let began = arrived.reaches(1, &mut self.running.process)?;
        let before = arrived.now()?;
        let wall = arrived.reaches(self.all, &mut self.running.process)? - began;
        let taken = stop(self.running)?;
        let records = self.all - before;
        show(what, records, &Taken { wall, cpu: taken.cpu - self.cpu, ..taken });
        Ok(records as f64 / wall.as_secs_f64())
    }
}

pub(crate) fn signal(measured: &Measured, signal: Signal) -> Outcome<()> {
    Ok(kill(Pid::from_raw(measured.process.id().try_into()?), signal)?)
}

pub(crate) fn stop(measured: Measured) -> Outcome<Taken> {
    signal(&measured, Signal::SIGTERM)?;
    measured.until_end()
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
pub(crate) fn show(what: &str, records: u64, taken: &Taken) {
    println!("{}", taken.line(what, records));
}
