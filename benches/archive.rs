//! The archive: filling it, how small it is, and verifying it.
//!
//! `cargo bench --bench archive` has mailtrail collect a simulated tenant (1,000 blobs of 100 records of about 2 KB) into a
//! file and into an archive in a directory, compresses the same lines once more as `zstd -3` does, and verifies the
//! archive beside `sha256sum` of the same bytes. `--sink-lines LINES` adds keys to the archive sink.

mod support;

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use support::{Measured, Outcome, Simulated, Taken, Workload};

/// Every file below a folder.
fn below(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { all.extend(below(&path)?) } else { all.push(path) }
    }
    Ok(all)
}

fn size(files: &[PathBuf]) -> Outcome<u64> {
    files.iter().map(|file| Ok(fs::metadata(file)?.len())).sum()
}

/// Counts what is written.
#[derive(Default)]
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn show(what: &str, records: u64, bytes: u64, taken: &Taken) {
    let bytes = bytes as f64 / 1e6 / taken.cpu.as_secs_f64();
    println!("{}  {bytes:7.1} MB/CPU-s", taken.line(what, records));
}

fn run(command: &mut Command) -> Outcome<Taken> {
    Measured::start(command.stdout(Stdio::null()))?.until_end()
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn main() -> Outcome<()> {
    let mut lines = String::new();
    let workload = Workload::asked_for(|argument, arguments| {
        if argument == "--sink-lines" {
            lines = arguments.next().ok_or("--sink-lines needs a value")?.replace(';', "\n");
        }
        Ok(argument == "--sink-lines")
    })?;
    let simulated = Simulated::start(&workload)?;
    let all = workload.all();
    println!("{workload}");

    let plain = tempfile::tempdir()?;
    let out = plain.path().join("out");
    let file = format!("[sinks.files]\ntype = \"file\"\ndirectory = {out:?}\nview = \"raw\"\n");
    let mut command = simulated.mailtrail(plain.path(), &file)?;
    let taken = run(command.args(["--until-idle", "--log-level", "off"]))?;
    let written = size(&below(&out)?)?;
    show("a file, raw", all, written, &taken);

    let directory = tempfile::tempdir()?;
    let (archive, key) = (directory.path().join("archive"), directory.path().join("archive.key"));
    let mailtrail = || Command::new(env!("CARGO_BIN_EXE_mailtrail"));
    let public = mailtrail().args(["archive", "keygen", "--out"]).arg(&key).output()?;
    fs::write(directory.path().join("archive.pub"), public.stdout)?;
    let sink = format!(
        "[sinks.evidence]\ntype = \"archive\"\ntarget = \"directory\"\ndirectory = {archive:?}\n\
         signing_key = {{ file = {key:?} }}\n{lines}\n"
    );
    let mut command = simulated.mailtrail(directory.path(), &sink)?;
    let taken = run(command.args(["--until-idle", "--log-level", "off"]))?;
    show("an archive", all, written, &taken);
    drop(simulated);

    let files = below(&archive)?;
    let (objects, others): (Vec<PathBuf>, Vec<PathBuf>) =
        files.into_iter().partition(|path| path.to_string_lossy().contains(".ndjson."));
    let stored = size(&objects)?;
    let (mut count, ndjson) = (Count::default(), directory.path().join("all.ndjson"));
    let mut again = zstd::Encoder::new(&mut count, 3)?;
    let mut together = File::create(&ndjson)?;
    for object in &objects {
        // What is compressed with gzip is not compared.
        let bytes = zstd::decode_all(File::open(object)?)?;
        again.write_all(&bytes)?;
        together.write_all(&bytes)?;
    }
    again.finish()?;
    let parquet = size(
        &others
            .into_iter()
            .filter(|path| path.extension().is_some_and(|end| end == "parquet"))
            .collect::<Vec<_>>(),
    )?;
    println!(
        "{written} bytes of NDJSON are {stored} bytes in {} objects, {:.2} to 1; {} bytes as zstd -3 makes them; {parquet} bytes \
         of Parquet",
        objects.len(),
        written as f64 / stored as f64,
        count.0,
    );

    let mut verify = mailtrail();
    verify.args(["archive", "verify", "--directory"]).arg(&archive);
    verify.arg("--public-key").arg(directory.path().join("archive.pub"));
    show("archive verify", all, written + stored, &run(&mut verify)?);
    if objects.is_empty() {
        return Ok(());
    }
    // It hashes both of these, and unpacks between them.
    show("sha256sum of the objects", all, stored, &run(Command::new("sha256sum").args(&objects))?);
    show("sha256sum of their lines", all, written, &run(Command::new("sha256sum").arg(&ndjson))?);
    show(
        "openssl dgst of their lines",
        all,
        written,
        &run(Command::new("openssl").args(["dgst", "-sha256"]).arg(&ndjson))?,
    );
    Ok(())
}
