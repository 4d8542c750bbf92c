//! The archive sink with a bucket of S3 as its target, as moto serves it: every record is in exactly one object, whatever
//! is killed and however the server behaves.
//!
//! These need what `tests/servers/moto` installs, so they are run on demand:
//! `cargo test --test scenarios -- --ignored real_`.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use simulator::SimulatorConfig;
use tokio::runtime::Runtime;

use crate::{
    archive::{arrived_in, make_key},
    support::{World, free_address, installed, kill_hard},
};

const BUCKET: &str = "audit";
/// A signature that moto does not look at, but it wants one.
const SOMEBODY: &str =
    "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

/// A server that speaks S3. Dropping it ends it.
struct Moto {
    process: Child,
    address: SocketAddr,
    runtime: Runtime,
    http: reqwest::Client,
}

impl Moto {
    fn start() -> Self {
        let program = installed("moto-5.2.5/bin/moto_server", "tests/servers/moto");
        let address = free_address();
        let process = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let runtime = Runtime::new().expect("a runtime");
        let moto = Self { process, address, runtime, http: reqwest::Client::new() };
        let deadline = Instant::now() + Duration::from_secs(240);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "moto does not listen");
            thread::sleep(Duration::from_millis(100));
        }
        moto.ask(reqwest::Method::PUT, BUCKET);
        moto
    }

    fn ask(&self, method: reqwest::Method, path: &str) -> Vec<u8> {
        let request = self.http.request(method, format!("http://{}/{path}", self.address));
        self.runtime.block_on(async {
            let answer = request.header("authorization", SOMEBODY).send().await.expect("an answer");
            assert!(answer.status().is_success(), "{path}: {}", answer.status());
            answer.bytes().await.expect("a body").to_vec()
        })
    }

    /// The names of all objects.
    fn names(&self) -> Vec<String> {
        let page = self.ask(reqwest::Method::GET, &format!("{BUCKET}?list-type=2"));
        let page = String::from_utf8(page).expect("XML");
        assert!(!page.contains("<IsTruncated>true"), "one page holds all of this test's objects");
        let names = page.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        names.map(str::to_owned).collect()
    }

    /// Copies the archive into a folder, as somebody does who downloads it.
    fn download(&self, world: &World) -> PathBuf {
        let folder = world.path().join("copy");
        let _ = fs::remove_dir_all(&folder);
        for name in self.names() {
            let file = folder.join(name.strip_prefix("evidence/").expect("it is below the prefix"));
            fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            fs::write(file, self.ask(reqwest::Method::GET, &format!("{BUCKET}/{name}"))).expect("a file");
        }
        folder
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).expect("a process id"));
        kill(pid, signal).expect("it runs");
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configure(world: &World, moto: &Moto, lines: &str) {
    let (key, secret) = (make_key(world), world.path().join("s3-secret"));
    fs::write(&secret, "secret").expect("a secret");
    let sink = format!(
        "[sinks.evidence]\ntype = \"archive\"\ntarget = \"s3\"\nsigning_key = {{ file = {key:?} }}\n{lines}\n\
         [sinks.evidence.s3]\nbucket = \"{BUCKET}\"\nprefix = \"evidence\"\nendpoint = \"http://{}\"\n\
         access_key_id = \"somebody\"\nsecret_access_key = {{ file = {secret:?} }}\n",
        moto.address
    );
    world.configure_sinks("", "", &sink);
}

fn is_complete(world: &World, moto: &Moto) {
    let copy = moto.download(world);
    arrived_in(&copy).is_exactly(&world.simulator().truth());
    world.mailtrail(&["reconcile"]).ends_with(0);
    // The bucket itself, and what was downloaded of it.
    for place in [["--sink", "evidence"], ["--directory", "copy"]] {
        let arguments = ["archive", "verify", place[0], place[1], "--public-key", "archive.pub"];
        world.mailtrail(&arguments).ends_with(0);
    }
}

fn world(blobs: usize) -> World {
    World::new(SimulatorConfig {
        blobs: blobs as _,
        records_per_blob: 40,
        page_size: 37,
        backlog_span: Duration::from_secs(5 * 24 * 3600),
        ..SimulatorConfig::default()
    })
}

#[test]
#[ignore = "needs moto: tests/servers/moto"]
fn real_s3_has_every_record_in_one_object() {
    let moto = Moto::start();
    let world = world(200);
    configure(&world, &moto, "");
    world.mailtrail(&["check"]).ends_with(0);
    world.collect();
    is_complete(&world, &moto);
    let before = moto.names();
    world.collect();
    assert_eq!(moto.names(), before, "a run with nothing new puts nothing");
}

#[test]
#[ignore = "needs moto: tests/servers/moto"]
fn real_s3_twenty_kills_lose_and_double_nothing() {
    let moto = Moto::start();
    let world = world(600);
    configure(&world, &moto, "object_bytes = \"256KiB\"\nobject_age = \"300ms\"");
    let mut random = StdRng::seed_from_u64(5);
    for round in 0..20 {
        let before = moto.names().len();
        let running = world.start(&["run"]);
        for _ in 0..200 {
            if round % 2 == 0 || moto.names().len() > before {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(Duration::from_micros(random.random_range(0..400_000)));
        kill_hard(&running);
        running.wait();
    }
    world.collect();
    is_complete(&world, &moto);
}

#[test]
#[ignore = "needs moto: tests/servers/moto"]
fn real_s3_that_stands_still_for_a_while_is_waited_for() {
    let moto = Moto::start();
    let world = world(300);
    configure(&world, &moto, "object_bytes = \"256KiB\"");
    let running = world.start(&["run", "--until-idle"]);
    world.until("something is put", || !moto.names().is_empty());
    moto.signal(Signal::SIGSTOP);
    thread::sleep(Duration::from_secs(5));
    moto.signal(Signal::SIGCONT);
    running.wait().ends_with(0);
    is_complete(&world, &moto);
}
