//! A gate before a bucket: it lets requests through, refuses them as a service that is asked too often does, or keeps
//! the ones that put (or get) an object of records waiting, before they arrive or before they are answered.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Condvar, Mutex},
};

use super::wire::{Reply, Request, Server};

/// What happens to requests of the gate's method for objects of records. All others pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They pass.
    Open,
    /// So many are refused, then they pass.
    Busy(usize),
    /// They are kept waiting and never arrive.
    Before,
    /// They arrive, and the answer never does.
    After,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    /// Which one it is, counted.
    round: u64,
    /// How many came to what the mode means.
    seen: usize,
}

/// See the module. Dropping it closes it.
pub(crate) struct Gate {
    server: Server,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Gate {
    /// Before the server at this address, for requests of this method.
    pub(crate) fn before(upstream: SocketAddr, method: &'static str) -> Self {
        let state = Arc::new((Mutex::new(State { mode: Mode::Open, round: 0, seen: 0 }), Condvar::new()));
        let known = Arc::clone(&state);
        let server = Server::start(None, None, move |request| {
            let is_object = ["content_type", "eventDay"].iter().any(|folder| request.path.contains(folder));
            if request.method == method && is_object {
                pass(request, upstream, &known)
            } else {
                forward(request, upstream).map_or(Reply::Cut, Reply::Raw)
            }
        });
        Self { server, state }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// What it does from now on. Whatever waits is cut off.
    pub(crate) fn set(&self, mode: Mode) {
        let (state, changed) = &*self.state;
        let mut state = state.lock().expect("no panic");
        *state = State { mode, round: state.round + 1, seen: 0 };
        changed.notify_all();
    }

    /// To how many requests the mode has happened.
    pub(crate) fn seen(&self) -> usize {
        self.state.0.lock().expect("no panic").seen
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.set(Mode::Open);
    }
}

fn pass(request: &Request, upstream: SocketAddr, state: &(Mutex<State>, Condvar)) -> Reply {
    let (locked, changed) = state;
    let forward = || forward(request, upstream).map_or(Reply::Cut, Reply::Raw);
    let (mode, round) = {
        let mut state = locked.lock().expect("no panic");
        match &mut state.mode {
            Mode::Busy(0) => state.mode = Mode::Open,
            Mode::Busy(left) => {
                *left -= 1;
                state.seen += 1;
                return busy();
            }
            Mode::Open | Mode::Before | Mode::After => {}
        }
        (state.mode, state.round)
    };
    if mode == Mode::After {
        // It is there; the answer is lost.
        let _ = forward();
    }
    let mut state = locked.lock().expect("no panic");
    if mode == Mode::Open {
        drop(state);
        return forward();
    }
    if state.round == round {
        state.seen += 1;
    }
    drop(changed.wait_while(state, |state| state.round == round).expect("no panic"));
    Reply::Cut
}

/// As S3 says it, and with the header in which Azure does.
fn busy() -> Reply {
    let body = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
    let headers = [("retry-after", "1"), ("x-ms-error-code", "ServerBusy")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Reply::Answer { http: 503, headers: headers.into(), body: body.to_owned() }
}

fn forward(request: &Request, upstream: SocketAddr) -> io::Result<Vec<u8>> {
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.path);
    for (name, value) in request.headers.iter().filter(|(name, _)| *name != "connection") {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("connection: close\r\n\r\n");
    let mut stream = TcpStream::connect(upstream)?;
    stream.write_all(head.as_bytes())?;
    stream.write_all(&request.body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}
