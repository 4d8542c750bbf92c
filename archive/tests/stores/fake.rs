//! A small HTTP server that answers as a test wants it to, or passes a request on to a real one.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Method and target, such as `PUT /bucket/key?uploadId=1`.
    pub(crate) line: String,
    /// Its headers, as they came, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    raw: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What a server does with a request: answers with these bytes, or passes it on.
type Answer = dyn Fn(&Request) -> Option<String> + Send + Sync;

/// The server. Dropping it ends it.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    over: Arc<AtomicBool>,
}

impl Fake {
    /// Starts one; requests that `answer` leaves go to `upstream`.
    pub(crate) fn start(
        upstream: Option<SocketAddr>,
        answer: impl Fn(&Request) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (requests, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (seen, ends) = (Arc::clone(&requests), Arc::clone(&over));
        let answer: Arc<Answer> = Arc::new(answer);
        thread::spawn(move || {
            for connection in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(connection) = connection else { continue };
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                thread::spawn(move || serve(connection, upstream, &seen, &*answer));
            }
        });
        Self { address, requests, over }
    }

    /// Every request so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic").clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // It waits for a connection.
        let _ = TcpStream::connect(self.address);
    }
}

/// One request a connection, which is simple and enough.
fn serve(
    mut connection: TcpStream,
    upstream: Option<SocketAddr>,
    seen: &Mutex<Vec<Request>>,
    answer: &Answer,
) -> Option<()> {
    let request = read(&mut connection)?;
    seen.lock().expect("no panic").push(request.clone());
    match (answer(&request), upstream) {
        (Some(text), _) => connection.write_all(text.as_bytes()).ok()?,
        (None, Some(upstream)) => {
            let mut to = TcpStream::connect(upstream).ok()?;
            let text = String::from_utf8_lossy(&request.raw[..request.raw.len() - request.body.len()]);
            let head = text.replacen("\r\n\r\n", "\r\nconnection: close\r\n\r\n", 1);
            to.write_all(head.as_bytes()).ok()?;
            to.write_all(&request.body).ok()?;
            let mut whole = Vec::new();
            to.read_to_end(&mut whole).ok()?;
            connection.write_all(&whole).ok()?;
        }
        (None, None) => connection.write_all(reply(404, "", "").as_bytes()).ok()?,
    }
    Some(())
}

fn read(connection: &mut TcpStream) -> Option<Request> {
    let (mut raw, mut chunk) = (Vec::new(), [0; 64 * 1024]);
    let end = loop {
        if let Some(at) = raw.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        let count = connection.read(&mut chunk).ok().filter(|count| *count > 0)?;
        raw.extend_from_slice(&chunk[..count]);
    };
    let head = String::from_utf8_lossy(&raw[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let line = lines.next()?.rsplit_once(' ')?.0.to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    while raw.len() < end + 4 + length {
        let count = connection.read(&mut chunk).ok().filter(|count| *count > 0)?;
        raw.extend_from_slice(&chunk[..count]);
    }
    Some(Request { line, headers, body: raw[end + 4..].to_vec(), raw })
}

/// A whole answer; `headers` end with a line break each.
pub(crate) fn reply(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
}
