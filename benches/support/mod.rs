//! What the benchmarks of the whole program share: the simulated tenant, and measuring a program from outside.

use std::{
    env,
    error::Error,
    fmt, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::resource::{Usage, UsageWho, getrusage};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// The simulator's tenant and application.
pub(crate) const TENANT: &str = "5150a11e-c0de-4000-8000-000000000001";
pub(crate) const CLIENT: &str = "5150a11e-c0de-4000-8000-0000000000c1";
const SECRET: &str = "simulated-secret";

/// What the simulated tenant holds.
pub(crate) struct Workload {
    pub(crate) blobs: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) gzip: bool,
    pub(crate) prerender: bool,
}

impl Workload {
    /// What the arguments of the program ask for. `also` takes an option that does not describe the workload, and says
    /// whether it was one.
    pub(crate) fn asked_for(
        mut also: impl FnMut(&str, &mut dyn Iterator<Item = String>) -> Outcome<bool>,
    ) -> Outcome<Self> {
        let mut workload = Self { blobs: 1_000, records: 100, bytes: 2_000, gzip: false, prerender: true };
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            if !also(&argument, &mut arguments)? && !workload.takes(&argument, &mut arguments)? {
                return Err(format!("unknown option {argument}").into());
            }
        }
        Ok(workload)
    }

    /// How many records there are in all.
    pub(crate) fn all(&self) -> u64 {
        self.blobs * self.records
    }

    fn takes(&mut self, argument: &str, arguments: &mut impl Iterator<Item = String>) -> Outcome<bool> {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument {
            "--bench" => {}
            "--blobs" => self.blobs = value()?.parse()?,
            "--records-per-blob" => self.records = value()?.parse()?,
            "--record-bytes" => self.bytes = value()?.parse()?,
            "--gzip" => self.gzip = true,
            // A backlog that does not fit into the simulator's memory; it then is slower than mailtrail.
            "--no-prerender" => self.prerender = false,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} blobs x {} records x about {} bytes", self.blobs, self.records, self.bytes)
    }
}

/// A simulated tenant in a process of its own, until it is dropped.
pub(crate) struct Simulated {
    process: Child,
    pub(crate) address: String,
}

impl Drop for Simulated {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Simulated {
    pub(crate) fn start(workload: &Workload) -> Outcome<Self> {
        let mut process = Command::new(env!("CARGO_BIN_EXE_mailtrail"))
            .args(["simulate", "--listen", "127.0.0.1:0", "--requests-per-minute", "0"])
            .args(workload.prerender.then_some("--prerender"))
            .args((!workload.gzip).then_some("--no-gzip"))
            .args(["--blobs", &workload.blobs.to_string()])
            .args(["--records-per-blob", &workload.records.to_string()])
            .args(["--record-bytes", &workload.bytes.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut lines = BufReader::new(process.stdout.take().ok_or("no standard output")?).lines();
        let address = loop {
            let line = lines.next().ok_or("the simulator ended at once")??;
            if let Some(start) = line.find("http://") {
                let rest = &line[start + "http://".len()..];
                let address = rest.split(|c: char| c.is_whitespace() || c == '/').next().unwrap_or(rest);
                break address.trim_end_matches('.').to_owned();
            }
        };
        thread::spawn(move || lines.for_each(drop));
        Ok(Self { process, address })
    }

    /// `mailtrail run` with this tenant and these sinks; all that it keeps is in `directory`.
    pub(crate) fn mailtrail(&self, directory: &Path, sinks: &str) -> Outcome<Command> {
        let path = self.configuration(directory, sinks)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailtrail"));
        command.arg("run").arg("--config").arg(&path).env("BENCH_SECRET", SECRET).stdout(Stdio::null());
        Ok(command)
    }

    fn configuration(&self, directory: &Path, sinks: &str) -> Outcome<PathBuf> {
        let config = format!(
            "[state]\ndirectory = {:?}\n[tenants.bench]\ntenant_id = \"{TENANT}\"\nclient_id = \"{CLIENT}\"\n\
             client_secret = {{ env = \"BENCH_SECRET\" }}\ncloud = \"custom\"\nauthority = \"http://{a}\"\n\
             api = \"http://{a}\"\nrequests_per_minute = 1000000\n{sinks}",
            directory.join("state"),
            a = self.address,
        );
        let path = directory.join("mailtrail.toml");
        fs::write(&path, config)?;
        Ok(path)
    }
}

/// What a program took, from its start to its end.
pub(crate) struct Taken {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    pub(crate) peak_anon_kib: u64,
}

impl Taken {
    /// A line that says it, for so many records.
    pub(crate) fn line(&self, what: &str, records: u64) -> String {
        format!(
            "{what:<44} {:>7.0} records/s  {:6.2} s  {:6.2} CPU-s  {:6.1} CPU-us/record  {:5.1} MiB peak RssAnon",
            records as f64 / self.wall.as_secs_f64(),
            self.wall.as_secs_f64(),
            self.cpu.as_secs_f64(),
            self.cpu.as_secs_f64() * 1e6 / records as f64,
            self.peak_anon_kib as f64 / 1024.0,
        )
    }
}

/// A program that is measured from outside. No other child may be waited for meanwhile: its CPU would count too.
pub(crate) struct Measured {
    pub(crate) process: Child,
    pub(crate) started: Instant,
    /// The most `RssAnon` seen so far, in KiB.
    pub(crate) peak_anon_kib: Arc<AtomicU64>,
    cpu_before: Duration,
    done: Arc<AtomicBool>,
}

impl Measured {
    pub(crate) fn start(command: &mut Command) -> Outcome<Self> {
        let cpu_before = cpu_of_children()?;
        let started = Instant::now();
        let process = command.spawn()?;
        let (peak, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let sampled = (peak.clone(), done.clone(), format!("/proc/{}/status", process.id()));
        thread::spawn(move || {
            let (peak, done, status) = sampled;
            while !done.load(Ordering::Relaxed) {
                if let Ok(text) = fs::read_to_string(&status) {
                    let anon = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
                    let kib =
                        anon.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
                    peak.fetch_max(kib, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        Ok(Self { process, started, peak_anon_kib: peak, cpu_before, done })
    }

    /// Waits until it ends, which it must with success.
    pub(crate) fn until_end(mut self) -> Outcome<Taken> {
        let status = self.process.wait()?;
        let wall = self.started.elapsed();
        let cpu = cpu_of_children()?.saturating_sub(self.cpu_before);
        if !status.success() {
            return Err(format!("the measured program ended with {status}").into());
        }
        Ok(Taken { wall, cpu, peak_anon_kib: self.peak_anon_kib.load(Ordering::Relaxed) })
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn cpu_of_children() -> Outcome<Duration> {
    Ok(cpu(&getrusage(UsageWho::RUSAGE_CHILDREN)?))
}

/// The CPU time of a usage, in user mode and in the kernel.
pub(crate) fn cpu(usage: &Usage) -> Duration {
    let of = |time: nix::sys::time::TimeVal| {
        Duration::from_micros((time.tv_sec() * 1_000_000 + time.tv_usec()).unsigned_abs())
    };
    of(usage.user_time()) + of(usage.system_time())
}
