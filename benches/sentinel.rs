//! Delivery to a table of Microsoft Sentinel.
//!
//! `cargo bench --bench sentinel` has mailtrail collect a simulated tenant (1,000 blobs of 100 records of about 2 KB) while
//! there is no Logs Ingestion service, and deliver the records as rows of the view `asim` when there is one. The service
//! is a part of the benchmark: it unpacks each request, counts rows and bytes, and answers 204. It is not counted.

#[path = "support/delivering.rs"]
mod delivering;
mod support;

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use delivering::{Backlog, Counts, free_port};
use memchr::memmem;
use support::{Outcome, Simulated, Workload};

/// Every row has it once.
const COLUMN: &[u8] = b"\"EventUid\":";
/// What the service takes of one request, in bytes.
const LIMIT: f64 = 1_000_000.0;

/// What arrived.
#[derive(Default)]
struct Arrived {
    rows: AtomicU64,
    /// Of each request: before compression, and as it was sent.
    requests: Mutex<Vec<(usize, usize)>>,
}

/// Listens from now on.
fn serve(port: u16) -> Outcome<Arc<Arrived>> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let arrived = Arc::new(Arrived::default());
    let shared = Arc::clone(&arrived);
    thread::spawn(move || {
        for stream in listener.incoming().filter_map(Result::ok) {
            let arrived = Arc::clone(&shared);
            // Whatever ends a connection ends it.
            thread::spawn(move || drop(answer(stream, &arrived)));
        }
    });
    Ok(arrived)
}

fn answer(mut stream: TcpStream, arrived: &Arrived) -> io::Result<()> {
    let (mut bytes, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let head = loop {
            if let Some(end) = memmem::find(&bytes, b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read(&mut chunk)? {
                0 => return Ok(()),
                count => bytes.extend_from_slice(&chunk[..count]),
            }
        };
        let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
        let end = head + length.unwrap_or(0_usize);
        while bytes.len() < end {
            match stream.read(&mut chunk)? {
                0 => return Ok(()),
                count => bytes.extend_from_slice(&chunk[..count]),
            }
        }
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&bytes[head..end]).read_to_end(&mut plain)?;
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
        arrived.requests.lock().map_err(|_| io::ErrorKind::Other)?.push((plain.len(), end - head));
        arrived.rows.fetch_add(memmem::find_iter(&plain, COLUMN).count() as u64, Ordering::SeqCst);
        bytes.drain(..end);
    }
}

impl Counts for Arc<Arrived> {
    fn now(&mut self) -> Outcome<u64> {
        Ok(self.rows.load(Ordering::SeqCst))
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn main() -> Outcome<()> {
    let workload = Workload::asked_for(|_, _| Ok(false))?;
    let simulated = Simulated::start(&workload)?;
    let all = workload.all();
    println!("{workload}");
    let (directory, port) = (tempfile::tempdir()?, free_port()?);
    let sinks = format!(
        "[sinks.soc]\ntype = \"sentinel\"\nendpoint = \"http://127.0.0.1:{port}\"\n\
         dcr_immutable_id = \"dcr-00112233445566778899aabbccddeeff\"\ncloud = \"custom\"\n\
         authority = \"http://{}\"\nscope = \"https://monitor.azure.com/.default\"\ntenant_id = \"{}\"\n\
         client_id = \"{}\"\nclient_secret = {{ env = \"BENCH_SECRET\" }}\n",
        simulated.address,
        support::TENANT,
        support::CLIENT
    );
    let (backlog, _) = Backlog::collect(&simulated, all, directory.path(), &sinks)?;
    let mut arrived = serve(port)?;
    backlog.deliver("mailtrail, delivers what it kept", &mut arrived)?;
    let requests = arrived.requests.lock().map_err(|_| "a connection panicked")?;
    let (plain, sent) = requests.iter().fold((0, 0), |(a, b), (plain, sent)| (a + plain, b + sent));
    let full = requests.iter().filter(|(plain, _)| *plain as f64 > 0.9 * LIMIT).count();
    println!(
        "{} requests of {:.0} bytes on average ({:.1} % of the limit; {full} of them over 90 %), {:.0} bytes compressed; {} rows, {all} records",
        requests.len(),
        plain as f64 / requests.len() as f64,
        100.0 * plain as f64 / requests.len() as f64 / LIMIT,
        sent as f64 / requests.len() as f64,
        arrived.rows.load(Ordering::SeqCst),
    );
    Ok(())
}
