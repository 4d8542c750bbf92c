//! Places in the network that an archive lies in: moto for S3, Azurite for Azure Blob Storage, and one in memory, which
//! speaks as much of S3 as mailtrail does.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    ops::Range,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::{
    World, install, lasting_port,
    wire::{Reply, Request, Server},
};

const BUCKET: &str = "audit";
/// Where archives lie in it, unless they have to be at its top.
pub(crate) const PREFIX: &str = "evidence";
/// A signature that nobody here looks at, but moto wants one.
const SOMEBODY: &str =
    "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
/// Azurite's own account, which its documentation publishes; and a signature that its key has made.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const SIGNATURE: &str = "sv=2019-12-12&ss=b&srt=sco&sp=racwdl&se=2099-01-01T00:00:00Z\
                         &sig=2pkJXCObn046UQDi3dRf2pHrCO318lxmZvl898hsqAc%3D";

/// A bucket, or a container. Dropping it ends its server.
pub(crate) struct Bucket {
    /// Where its server listens.
    pub(crate) address: SocketAddr,
    place: Place,
}

enum Place {
    Moto(Child),
    /// The process, and where its data is.
    Azurite(Option<Child>, TempDir),
    /// The server, and the objects.
    Memory(Option<Server>, Objects),
}

type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

impl Bucket {
    /// One of S3, by moto. It forgets everything when it ends.
    pub(crate) fn moto() -> Self {
        let address = free();
        let process = start("moto", address, &["-H", "127.0.0.1", "-p", "PORT"]);
        let bucket = Self { address, place: Place::Moto(process) };
        bucket.ask("PUT", &format!("/{BUCKET}"));
        bucket
    }

    /// A container of Azure, by Azurite.
    pub(crate) fn azurite() -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let mut bucket = Self { address: free(), place: Place::Azurite(None, data) };
        bucket.start();
        bucket.ask("PUT", &format!("/{ACCOUNT}/{BUCKET}?restype=container"));
        bucket
    }

    /// One of S3, in memory.
    pub(crate) fn memory() -> Self {
        let mut bucket = Self { address: free(), place: Place::Memory(None, Objects::default()) };
        bucket.start();
        bucket
    }

    /// Starts its server, again after [`Bucket::stop`].
    pub(crate) fn start(&mut self) {
        let address = self.address;
        match &mut self.place {
            Place::Moto(_) => panic!("moto has forgotten everything"),
            Place::Azurite(process, data) => {
                let data = data.path().to_str().expect("a plain path");
                let arguments = [
                    ["--blobHost", "127.0.0.1"].as_slice(),
                    &["--blobPort", "PORT", "--location", data],
                    &["--skipApiVersionCheck", "--disableTelemetry", "--silent"],
                ];
                *process = Some(self::start("azurite", address, &arguments.concat()));
            }
            Place::Memory(server, objects) => {
                let objects = Arc::clone(objects);
                let answer = move |request: &Request| {
                    Reply::Raw(answer(request, &mut objects.lock().expect("no panic")))
                };
                *server = Some(Server::start(Some(address), None, answer));
            }
        }
    }

    /// Ends its server. It keeps what it has.
    pub(crate) fn stop(&mut self) {
        match &mut self.place {
            Place::Moto(_) => panic!("moto would forget everything"),
            Place::Azurite(process, _) => {
                if let Some(mut process) = process.take() {
                    signal(&process, Signal::SIGTERM);
                    process.wait().expect("it can be waited for");
                }
            }
            Place::Memory(server, _) => *server = None,
        }
    }

    /// Stops its process, and lets it go on.
    pub(crate) fn stand_still_for(&self, time: Duration) {
        if let Place::Moto(process) | Place::Azurite(Some(process), _) = &self.place {
            signal(process, Signal::SIGSTOP);
            thread::sleep(time);
            signal(process, Signal::SIGCONT);
        }
    }

    /// The keys of a sink whose target it is, when it is reached through this address. The last of them are in a table of its own.
    pub(crate) fn keys(&self, world: &World, address: SocketAddr) -> String {
        let secret = world.path().join("bucket-secret");
        let (text, keys) = match self.place {
            Place::Azurite(..) => (
                KEY,
                format!(
                    "[sinks.evidence.azure]\naccount = \"{ACCOUNT}\"\ncontainer = \"{BUCKET}\"\n\
                     endpoint = \"http://{address}/{ACCOUNT}\"\naccount_key = {{ file = {secret:?} }}\n"
                ),
            ),
            Place::Moto(_) | Place::Memory(..) => (
                "secret",
                format!(
                    "[sinks.evidence.s3]\nbucket = \"{BUCKET}\"\nendpoint = \"http://{address}\"\n\
                     access_key_id = \"somebody\"\nsecret_access_key = {{ file = {secret:?} }}\n"
                ),
            ),
        };
        fs::write(secret, text).expect("a secret");
        keys
    }

    /// The word that the configuration has for it.
    pub(crate) fn target(&self) -> &'static str {
        match self.place {
            Place::Azurite(..) => "azure",
            Place::Moto(_) | Place::Memory(..) => "s3",
        }
    }

    /// The names of all objects.
    pub(crate) fn names(&self) -> Vec<String> {
        let (list, tag) = match self.place {
            Place::Azurite(..) => (format!("/{ACCOUNT}/{BUCKET}?restype=container&comp=list"), "Name"),
            Place::Moto(_) | Place::Memory(..) => (format!("/{BUCKET}?list-type=2"), "Key"),
        };
        let page = String::from_utf8(self.ask("GET", &list)).expect("XML");
        let whole = !page.contains("<IsTruncated>true") && !page.contains("</NextMarker>");
        assert!(whole, "one page holds all of this test's objects");
        let tag = format!("<{tag}>");
        let names = page.split(tag.as_str()).skip(1);
        names.filter_map(|rest| rest.split("</").next()).map(str::to_owned).collect()
    }

    /// The names of the objects of records.
    pub(crate) fn objects(&self) -> Vec<String> {
        self.names().into_iter().filter(|name| !name.contains("manifests/")).collect()
    }

    /// Copies the archive into a folder, as somebody does who downloads it.
    pub(crate) fn download(&self, world: &World) -> PathBuf {
        let folder = world.path().join("copy");
        let _ = fs::remove_dir_all(&folder);
        for name in self.names() {
            let file =
                folder.join(name.strip_prefix(PREFIX).map_or(&*name, |name| name.trim_start_matches('/')));
            fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            let path = match self.place {
                Place::Azurite(..) => format!("/{ACCOUNT}/{BUCKET}/{name}"),
                Place::Moto(_) | Place::Memory(..) => format!("/{BUCKET}/{name}"),
            };
            fs::write(file, self.ask("GET", &path)).expect("a file");
        }
        folder
    }

    /// Asks its server, with the rights of its owner.
    fn ask(&self, method: &str, target: &str) -> Vec<u8> {
        let azure = matches!(self.place, Place::Azurite(..));
        let and = if target.contains('?') { '&' } else { '?' };
        let target = if azure { format!("{target}{and}{SIGNATURE}") } else { target.to_owned() };
        let head = format!(
            "{method} {target} HTTP/1.0\r\nhost: {}\r\nauthorization: {SOMEBODY}\r\ncontent-length: 0\r\n\r\n",
            self.address
        );
        let head = if azure { head.replace(&format!("authorization: {SOMEBODY}\r\n"), "") } else { head };
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.write_all(head.as_bytes()).expect("a request");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let body = answer.split_off(end);
        let head = String::from_utf8(answer).expect("text");
        let status = head.split(' ').nth(1).expect("a status");
        assert!(status.starts_with('2'), "{method} {target}: {head}{}", String::from_utf8_lossy(&body));
        body
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        if let Place::Moto(process) | Place::Azurite(Some(process), _) = &mut self.place {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn free() -> SocketAddr {
    ([127, 0, 0, 1], lasting_port()).into()
}

fn signal(process: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(process.id()).expect("a process id"));
    kill(pid, signal).expect("it runs");
}

/// Starts what a script of `tests/servers` has installed, and waits until it listens. `PORT` is where.
fn start(script: &str, address: SocketAddr, arguments: &[&str]) -> Child {
    let (program, port) = (install(script), address.port().to_string());
    let process = Command::new(&program)
        .args(arguments.iter().map(|text| text.replace("PORT", &port)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let deadline = Instant::now() + Duration::from_secs(240);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "{} does not listen", program.display());
        thread::sleep(Duration::from_millis(100));
    }
    process
}

/// What a bucket of S3 answers.
fn answer(request: &Request, objects: &mut BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let name = path.trim_start_matches(&format!("/{BUCKET}")).trim_start_matches('/').replace("%3D", "=");
    let parameter = |name: &str| {
        query.split('&').any(|pair| pair == name || pair.split_once('=').is_some_and(|(key, _)| key == name))
    };
    match request.method.as_str() {
        "GET" if parameter("list-type") => {
            let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap_or("");
            let prefix = prefix.replace("%2F", "/").replace("%3D", "=");
            let listed: String = objects
                .iter()
                .filter(|(name, _)| name.starts_with(&prefix))
                .map(|(name, bytes)| {
                    format!(
                        "<Contents><Key>{name}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                         <ETag>\"1\"</ETag><Size>{}</Size></Contents>",
                        bytes.len()
                    )
                })
                .collect();
            whole(
                200,
                &format!("<ListBucketResult><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>"),
            )
        }
        "GET" | "HEAD" => match objects.get(&name) {
            None => whole(404, "<Error><Code>NoSuchKey</Code></Error>"),
            Some(bytes) if request.method == "HEAD" => head_of(200, bytes.len()),
            Some(bytes) => match request.headers.get("range").and_then(|range| part(range, bytes.len())) {
                None => [head_of(200, bytes.len()).as_slice(), bytes].concat(),
                Some(part) => {
                    let (first, last) = (part.start, part.end - 1);
                    let head = head_with(206, part.len(), &format!("bytes {first}-{last}/{}", bytes.len()));
                    [head.as_slice(), &bytes[part]].concat()
                }
            },
        },
        "POST" if parameter("uploads") => whole(
            200,
            "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>",
        ),
        "DELETE" if parameter("uploadId") => whole(204, ""),
        "PUT" if parameter("partNumber") => whole(200, ""),
        "PUT" if !query.contains("uploadId") => {
            if request.headers.get("if-none-match").is_none_or(|value| value != "*") {
                return whole(
                    400,
                    "<Error><Code>InvalidRequest</Code><Message>it could overwrite</Message></Error>",
                );
            }
            if objects.contains_key(&name) {
                return whole(412, "<Error><Code>PreconditionFailed</Code></Error>");
            }
            objects.insert(name, request.body.clone());
            whole(200, "")
        }
        _ => whole(501, "<Error><Code>NotImplemented</Code></Error>"),
    }
}

/// The part of an object that is asked for.
fn part(range: &str, length: usize) -> Option<Range<usize>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && first < length).then(|| first..(last + 1).min(length))
}

fn head_of(status: u16, length: usize) -> Vec<u8> {
    head_with(status, length, "")
}

fn head_with(status: u16, length: usize, range: &str) -> Vec<u8> {
    let range = if range.is_empty() { String::new() } else { format!("content-range: {range}\r\n") };
    format!(
        "HTTP/1.1 {status} Said\r\nconnection: close\r\ncontent-length: {length}\r\netag: \"1\"\r\n\
         {range}last-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n"
    )
    .into_bytes()
}

fn whole(status: u16, body: &str) -> Vec<u8> {
    [&head_of(status, body.len()), body.as_bytes()].concat()
}
