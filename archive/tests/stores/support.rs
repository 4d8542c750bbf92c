//! Real servers, and what every kind of store must do alike.

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use archive::{Hash, ObjectPath, Put, Source, Store, StoreError};
use entra::SecretSource;
use futures_util::TryStreamExt as _;
use tempfile::TempDir;

use crate::installed::installed;

/// How long a server may take to start.
const START: Duration = Duration::from_secs(240);

/// A server of another project. Dropping it ends it.
pub(crate) struct Server {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    pub(crate) address: SocketAddr,
    process: Option<Child>,
    pub(crate) directory: TempDir,
}

impl Server {
    /// Starts a program from the cache that `tests/servers/` fills. `PORT` in its arguments is where it listens.
    pub(crate) fn start(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let program = installed(program, "the scripts in tests/servers");
        let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = held.local_addr().expect("an address");
        drop(held);
        let directory = tempfile::tempdir().expect("a directory");
        let port = address.port().to_string();
        let arguments = arguments.iter().map(|text| text.replace("PORT", &port)).collect();
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut server = Self { program, arguments, environment, address, process: None, directory };
        server.up();
        server
    }

    /// Starts it again after [`Server::kill`].
    pub(crate) fn up(&mut self) {
        let log = self.directory.path().join("log");
        let output = fs::File::create(&log).expect("a log");
        let process = Command::new(&self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a log"))
            .stderr(output)
            .spawn()
            .expect("it starts");
        let process = self.process.insert(process);
        let deadline = Instant::now() + START;
        while TcpStream::connect(self.address).is_err() {
            let ended = process.try_wait().expect("it can be waited for");
            let text = fs::read_to_string(&log).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "the server does not start:\n{text}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it can be killed");
            process.wait().expect("it can be waited for");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A secret in a file.
pub(crate) fn secret(directory: &Path, name: &str, text: &str) -> SecretSource {
    let path = directory.join(name);
    fs::write(&path, text).expect("a file");
    SecretSource::File(path)
}

pub(crate) fn path(text: &str) -> ObjectPath {
    text.parse().expect("a path")
}

pub(crate) async fn put(store: &Store, name: &str, bytes: &[u8]) -> Result<Put, StoreError> {
    store.put_new(&path(name), Source::Bytes(bytes.to_vec().into()), &Hash::of(bytes)).await
}

pub(crate) async fn names(store: &Store, below: Option<&str>) -> BTreeSet<String> {
    let below = below.map(path);
    store.list(below.as_ref()).map_ok(|listed| listed.name).try_collect().await.expect("a listing")
}

/// Bytes that no compression makes smaller.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

/// What every store promises.
pub(crate) async fn keeps_its_promises(store: &Store) {
    store.probe().await.expect("it can be used");
    assert_eq!(names(store, None).await, BTreeSet::new(), "a probe leaves nothing");

    assert_eq!(put(store, "a/b=c/one.json", b"one").await.expect("it is new"), Put::Created);
    assert_eq!(put(store, "a/b=c/one.json", b"one").await.expect("it is the same"), Put::AlreadyThere);
    let error = put(store, "a/b=c/one.json", b"two").await.expect_err("it is another");
    assert!(matches!(error, StoreError::OtherBytes { .. }), "{error}");
    assert_eq!(store.get_whole(&path("a/b=c/one.json"), 100).await.expect("it is there"), "one");

    let none = path("a/none");
    assert!(matches!(store.get(&none).await, Err(StoreError::NotFound { .. })));
    assert_eq!(store.head(&none).await.expect("that is no error"), None);

    large(store).await;
    for number in 0..30 {
        put(store, &format!("many/{number:04}"), b"x").await.expect("it is new");
    }
    assert_eq!(names(store, Some("many")).await.len(), 30);
    assert_eq!(names(store, Some("a")).await, BTreeSet::from(["a/b=c/one.json".to_owned()]));
    assert_eq!(names(store, None).await.len(), 32);
}

/// An object of 40 MB goes in parts, and only when its name is free and its bytes are what they were.
async fn large(store: &Store) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("sealed");
    let bytes = noise(40 << 20);
    fs::write(&file, &bytes).expect("a file");
    let (name, hash) = (path("large/object.zst"), Hash::of(&bytes));

    let wrong = store.put_new(&name, Source::File(&file), &Hash::of(b"else")).await;
    assert!(matches!(wrong, Err(StoreError::SourceChanged { .. })), "{wrong:?}");
    assert_eq!(store.head(&name).await.expect("no error"), None);

    let put = async || store.put_new(&name, Source::File(&file), &hash).await;
    assert_eq!(put().await.expect("it is new"), Put::Created);
    assert_eq!(put().await.expect("it is the same"), Put::AlreadyThere);
    assert_eq!(store.head(&name).await.expect("it is there").expect("it is there").bytes, 40 << 20);
    let pieces: Vec<bytes::Bytes> =
        store.get(&name).await.expect("it is there").pieces.try_collect().await.expect("all of it");
    assert!(pieces.concat() == bytes);

    fs::write(&file, noise((40 << 20) + 1)).expect("a file");
    let other = Hash::of(&noise((40 << 20) + 1));
    let error = store.put_new(&name, Source::File(&file), &other).await.expect_err("it is another");
    assert!(matches!(error, StoreError::OtherBytes { .. }), "{error}");
}
