//! What the ledger costs: taking in, reading back and settling 1,000 blobs of 100 records of about 2 KB for two sinks;
//! and what the compression of their bodies costs and gives.
//!
//! ```text
//! cargo bench -p ledger --bench intake [-- --dir DIRECTORY]
//! ```
//!
//! Without `--bench`, as `cargo test --benches` runs it, it does the same with few blobs.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::{error::Error, fmt::Write, path::PathBuf, time::Instant};

use chrono::{TimeDelta, Utc};
use ledger::{Ledger, ListedPage, Settings, Settlement, SinkSpec, StartFrom};
use schemas::{ContentId, ContentType, FeedKey, ListedBlob, SinkName, Splitter, TenantId};
use sha2::{Digest, Sha256};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const RECORDS: u64 = 100;
/// Blobs that are fetched at the same time.
const AT_ONCE: usize = 8;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let dir = arguments.iter().position(|argument| argument == "--dir").and_then(|at| arguments.get(at + 1));
    let place = dir.map_or_else(std::env::temp_dir, PathBuf::from);
    let blobs = if arguments.iter().any(|argument| argument == "--bench") { 1000 } else { 20 };
    let bodies: Vec<_> = (0..blobs).map(body).collect();
    let bytes: usize = bodies.iter().map(String::len).sum();
    println!("{blobs} blobs of {RECORDS} records, {bytes} bytes\n");
    println!("| | wall s | CPU-s |\n|---|---|---|");

    let clock = Clock::start()?;
    for body in &bodies {
        let mut splitter = Splitter::new();
        splitter.push(body.as_bytes(), &mut |_, _| {})?;
        splitter.finish()?;
    }
    clock.report("splitting alone")?;
    let clock = Clock::start()?;
    for body in &bodies {
        std::hint::black_box(Sha256::digest(body));
    }
    clock.report("SHA-256 alone")?;
    run(&place, &bodies)?;

    println!("\n| zstd level | ratio | compress CPU-s | decompress CPU-s |\n|---|---|---|---|");
    for level in [-7, -5, -3, -1, 1, 3] {
        compression(level, &bodies)?;
    }
    Ok(())
}

fn run(place: &std::path::Path, bodies: &[String]) -> Result<()> {
    let dir = tempfile::tempdir_in(place)?;
    let (ledger, _) = Ledger::open(dir.path(), Settings::default())?;
    let sinks: Vec<SinkName> = vec!["a".parse()?, "b".parse()?];
    let spec = |name: &SinkName| SinkSpec { name: name.clone(), required: true, start_from: StartFrom::Now };
    ledger.meet_sinks(sinks.iter().map(spec).collect()).wait()?;
    let tenant: TenantId = "41463f53-8812-40f4-890f-865bf6e35190".parse()?;
    let feed = FeedKey { tenant, content_type: ContentType::Exchange };

    let clock = Clock::start()?;
    for (page, some) in bodies.chunks(200).enumerate() {
        let listed = |number: usize| -> Result<ListedBlob> {
            Ok(ListedBlob {
                content_id: ContentId::try_from(format!("{}", page * 200 + number))?,
                created: Utc::now(),
                expires: Utc::now() + TimeDelta::days(7),
            })
        };
        let blobs = (0..some.len()).map(listed).collect::<Result<_>>()?;
        ledger.record_page(ListedPage { feed, blobs, completes: None }).wait()?;
    }
    clock.report("listing")?;

    let clock = Clock::start()?;
    std::thread::scope(|scope| {
        let fetch = || -> std::result::Result<(), String> {
            loop {
                let leases = ledger.claim_fetches(tenant, 1).wait().map_err(|error| error.to_string())?;
                let Some(lease) = leases.first() else { return Ok(()) };
                let number: usize = lease.blob.content_id.as_str().parse().map_err(|_| "a strange name")?;
                let mut writer = ledger.body_writer(lease.work, Utc::now());
                for chunk in bodies[number].as_bytes().chunks(32 << 10) {
                    writer.write(chunk).map_err(|error| error.to_string())?;
                }
                let finishing = writer.finish().map_err(|error| error.to_string())?;
                finishing.wait().map_err(|error| error.to_string())?;
            }
        };
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(fetch)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a panic".to_owned())?)
    })?;
    clock.report("taking in: split, hash, compress, decide, commit")?;

    for sink in &sinks {
        let clock = Clock::start()?;
        loop {
            let leases = ledger.lease(sink, 32).wait()?;
            if leases.is_empty() {
                break;
            }
            let mut settlements = Vec::new();
            for lease in &leases {
                let mut next = Some(0);
                let mut records = 0;
                while let Some(from) = next {
                    let piece = ledger.read_piece(lease.work.id, lease.work.body, from)?;
                    records += piece.len() as u32;
                    next = piece.next;
                }
                settlements.push(Settlement {
                    work: lease.work.id,
                    body: lease.work.body,
                    delivered: records,
                    filtered: 0,
                    dead: Vec::new(),
                    resent: 0,
                });
            }
            ledger.settle(sink, settlements, None).wait()?;
        }
        clock.report(&format!("leasing, reading, settling for sink {sink}"))?;
    }
    if !ledger.idle_state().wait()?.is_idle() {
        return Err("something was left over".into());
    }
    ledger.close();
    Ok(())
}

fn compression(level: i32, bodies: &[String]) -> Result<()> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    let mut decompressor = zstd::bulk::Decompressor::new()?;
    let pieces: Vec<_> = bodies.iter().flat_map(|body| body.as_bytes().chunks(256 << 10)).collect();
    let raw: usize = pieces.iter().map(|piece| piece.len()).sum();
    let start = cpu()?;
    let packed =
        pieces.iter().map(|piece| compressor.compress(piece)).collect::<std::io::Result<Vec<_>>>()?;
    let middle = cpu()?;
    for (piece, packed) in pieces.iter().zip(&packed) {
        std::hint::black_box(decompressor.decompress(packed, piece.len())?);
    }
    let size: usize = packed.iter().map(Vec::len).sum();
    let ratio = raw as f64 / size as f64;
    println!("| {level} | {ratio:.1} | {:.2} | {:.2} |", middle - start, cpu()? - middle);
    Ok(())
}

/// A body of mailbox audit records as they look in the service: the same names, mostly the same values, and ids that
/// differ.
fn body(blob: u64) -> String {
    let mut random = Random(blob + 1);
    let mut text = "[".to_owned();
    for number in 0..RECORDS {
        if number > 0 {
            text.push(',');
        }
        let (id, session, mailbox) = (random.guid(), random.guid(), random.guid());
        let user = random.next() % 400;
        let second = random.next() % 3600;
        let _ = write!(
            text,
            r#"{{"AppAccessContext":{{"AADSessionId":"{session}","IssuedAtTime":"2026-03-02T09:00:00","UniqueTokenId":"{}"}},"CreationTime":"2026-03-02T09:{:02}:{:02}","Id":"{id}","Operation":"MailItemsAccessed","OrganizationId":"41463f53-8812-40f4-890f-865bf6e35190","RecordType":50,"ResultStatus":"Succeeded","UserKey":"1003200{:09x}","UserType":0,"Version":1,"Workload":"Exchange","UserId":"user{user}@contoso.onmicrosoft.com","AppId":"{}","ClientAppId":"00000003-0000-0000-c000-000000000000","ClientIPAddress":"2603:10a6:{:x}:{:x}::{:x}","ClientInfoString":"Client=REST;Client=RESTSystem;;","ExternalAccess":false,"InternalLogonType":0,"LogonType":0,"LogonUserSid":"S-1-5-21-{}-{}-{}-{}","MailboxGuid":"{mailbox}","MailboxOwnerSid":"S-1-5-21-1234567890-{}-{}-{user}","MailboxOwnerUPN":"user{user}@contoso.onmicrosoft.com","OperationProperties":[{{"Name":"MailAccessType","Value":"Bind"}},{{"Name":"IsThrottled","Value":"False"}}],"OrganizationName":"contoso.onmicrosoft.com","OriginatingServer":"AM0PR04MB{:04} (15.20.4200.000)","SessionId":"{session}","Folders":["#,
            random.guid(),
            second / 60,
            second % 60,
            user * 7919,
            random.guid(),
            random.next() % 4096,
            random.next() % 65536,
            random.next() % 65536,
            random.next() % 1_000_000_000,
            random.next() % 1_000_000_000,
            random.next() % 1_000_000_000,
            random.next() % 100_000,
            random.next() % 1_000_000_000,
            random.next() % 1_000_000_000,
            random.next() % 10_000,
        );
        let _ = write!(text, r#"{{"FolderItems":["#);
        for item in 0..3 {
            if item > 0 {
                text.push(',');
            }
            let _ = write!(
                text,
                r#"{{"InternetMessageId":"<AM0PR04MB{:016X}{:08X}@AM0PR04MB4242.eurprd04.prod.outlook.com>","SizeInBytes":{}}}"#,
                random.next(),
                random.next() as u32,
                random.next() % 200_000
            );
        }
        let _ = write!(
            text,
            r#"],"Id":"LgAAAAB{:016x}{:016x}{:016x}AQAAAAEMAAAB","Path":"\\Inbox"}}],"OperationCount":3}}"#,
            random.next(),
            random.next(),
            random.next()
        );
    }
    text.push(']');
    text
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn guid(&mut self) -> String {
        let (a, b) = (self.next(), self.next());
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xffff,
            b >> 48,
            b & 0xffff_ffff_ffff
        )
    }
}

/// Time by the clock, and time of all threads.
struct Clock {
    wall: Instant,
    cpu: f64,
}

impl Clock {
    fn start() -> Result<Self> {
        Ok(Self { wall: Instant::now(), cpu: cpu()? })
    }

    fn report(&self, what: &str) -> Result<()> {
        println!("| {what} | {:.2} | {:.2} |", self.wall.elapsed().as_secs_f64(), cpu()? - self.cpu);
        Ok(())
    }
}

/// CPU seconds of this process, of all its threads, those that ended included.
fn cpu() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().ok_or("no fields")?.split_whitespace().collect::<Vec<_>>();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    // Linux counts them in hundredths whatever its own clock does.
    Ok(ticks as f64 / 100.0)
}
