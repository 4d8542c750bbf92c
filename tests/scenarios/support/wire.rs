//! A small HTTP/1.1 server over threads, which can do what no good server does: answer nothing, cut, stall.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    thread,
    time::Duration,
};

use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A request, unpacked.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// The length of the body as it came.
    pub(crate) sent: usize,
}

/// What is done about a request.
pub(crate) enum Reply {
    Answer {
        http: u16,
        headers: Vec<(String, String)>,
        body: String,
    },
    /// A whole answer, head and all; the connection is closed after it.
    Raw(Vec<u8>),
    /// The connection is closed without an answer.
    Cut,
    /// Nothing happens for so long, then the connection is closed.
    Stall(Duration),
}

/// A port that stays free while nobody listens on it: the system gives none of this range to whoever asks for any port.
pub(crate) fn lasting_port() -> u16 {
    const RANGE: u16 = 10_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % u32::from(RANGE)) as u16;
    loop {
        let port = 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed) % RANGE) % RANGE;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A server that listens until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    accepting: Option<thread::JoinHandle<()>>,
}

trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

impl Server {
    /// Listens; `None` is any port.
    pub(crate) fn start(
        address: Option<SocketAddr>,
        tls: Option<Arc<ServerConfig>>,
        handle: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let address = address.unwrap_or_else(|| ([127, 0, 0, 1], lasting_port()).into());
        let listener = TcpListener::bind(address).expect("the port is free");
        let address = listener.local_addr().expect("an address");
        let (stop, streams) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let handle: Arc<dyn Fn(&Request) -> Reply + Send + Sync> = Arc::new(handle);
        let accepting = {
            let (stop, streams) = (Arc::clone(&stop), Arc::clone(&streams));
            thread::spawn(move || {
                for stream in listener.incoming().filter_map(Result::ok) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    streams.lock().expect("streams").push(stream.try_clone().expect("a second handle"));
                    let whole = stream.try_clone().expect("a third handle");
                    let (handle, tls) = (Arc::clone(&handle), tls.clone());
                    thread::spawn(move || {
                        // Whatever ends a connection ends it.
                        let _ = match tls {
                            None => serve(stream, handle.as_ref()),
                            Some(config) => ServerConnection::new(config)
                                .map_err(io::Error::other)
                                .and_then(|tls| serve(StreamOwned::new(tls, stream), handle.as_ref())),
                        };
                        // The other handles would keep it open.
                        let _ = whole.shutdown(Shutdown::Both);
                    });
                }
            })
        };
        Server { address, stop, streams, accepting: Some(accepting) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            accepting.join().expect("the listener is fine");
        }
        for stream in self.streams.lock().expect("streams").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn serve(mut wire: impl Wire, handle: &dyn Fn(&Request) -> Reply) -> io::Result<()> {
    while let Some(request) = read(&mut wire)? {
        match handle(&request) {
            Reply::Answer { http, headers, body } => {
                let mut answer = format!("HTTP/1.1 {http} Said\r\ncontent-length: {}\r\n", body.len());
                for (name, value) in headers {
                    answer.push_str(&format!("{name}: {value}\r\n"));
                }
                answer.push_str("\r\n");
                answer.push_str(&body);
                wire.write_all(answer.as_bytes())?;
                wire.flush()?;
            }
            Reply::Raw(answer) => {
                wire.write_all(&answer)?;
                return wire.flush();
            }
            Reply::Cut => return Ok(()),
            Reply::Stall(time) => {
                thread::sleep(time);
                return Ok(());
            }
        }
        if request.headers.get("connection").is_some_and(|value| value == "close") {
            return Ok(());
        }
    }
    Ok(())
}

fn read(wire: &mut impl Wire) -> io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 << 10];
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        match wire.read(&mut chunk)? {
            0 => return Ok(None),
            count => bytes.extend_from_slice(&chunk[..count]),
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut lines = text.lines();
    let mut first = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = bytes.split_off(head);
    while body.len() < length {
        match wire.read(&mut chunk)? {
            0 => return Ok(None),
            count => body.extend_from_slice(&chunk[..count]),
        }
    }
    let sent = body.len();
    if headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain)?;
        body = plain;
    }
    Ok(Some(Request { method, path, headers, body, sent }))
}
