//! How a command changes the ledger of a process that runs: over a socket in the state directory.
//!
//! Only one process may hold a ledger. A command that writes therefore asks the running one, over
//! `control.sock` (mode 0600, so that only the same user can ask); when none runs, it takes the ledger's lock and
//! does the same itself. One request is one line of JSON, and so is its answer; behind a request that brings records come their
//! bytes, as many as it says.
//!
//! Several clients are served at once, and one that says nothing is cut off soon: nobody can hold up the others. Records come
//! from one client at a time, because their bytes are in memory.

use std::{
    fs::{self, File, Permissions},
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::AsRawFd,
        unix::{fs::PermissionsExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    sync::Mutex,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    live::{Live, LiveReport},
    operate::{self, Change},
    restoring::{self, Ask},
};

const SOCKET: &str = "control.sock";
/// No request is longer; a client that sends more is cut off.
const MAX_REQUEST_BYTES: u64 = 1 << 20;
/// A change is one commit. A minute without an answer means a process that hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// So many clients are served at once; others wait to be accepted.
const CLIENTS: usize = 16;
/// A client has its request ready when it connects, and its records when it asks.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    /// To change the ledger.
    Change(Change),
    /// How the process is doing.
    Live,
    /// Whether it does anything at all.
    Alive,
    /// To take records of an archive.
    Restore(Ask),
}

/// What the running process answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It is done; the text says what changed.
    Done(String),
    /// It is not done; the text says why and what to do.
    Refused(String),
    /// How the process is doing.
    Live(LiveReport),
    /// What a restore asked for.
    Restore(restoring::Answer),
}

/// The running process could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// The socket is there but cannot be used.
    #[error("cannot use the control socket {path}: {source}", path = .path.display())]
    Socket {
        /// Which socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It was there, and is no longer.
    #[error("the running mailtrail ended before it answered; ask again")]
    Ended,
    /// What came back is no answer.
    #[error("the running mailtrail gave no usable answer ({found}); is it another version?")]
    Answer {
        /// What came back.
        found: String,
    },
}

/// Asks the process that holds the ledger in `state` for a change; `None` when none listens.
pub(crate) fn ask(state: &Path, change: &Change) -> Result<Option<Answer>, ControlError> {
    request(state, &Request::Change(change.clone()))
}

/// Asks the process that holds the ledger in `state` to take records of an archive; `None` when none listens.
pub(crate) fn ask_restore(
    state: &Path,
    ask: Ask,
    lines: &[u8],
) -> Result<Option<Result<restoring::Answer, String>>, ControlError> {
    match request_with(state, &Request::Restore(ask), lines)? {
        None => Ok(None),
        Some(Answer::Restore(answer)) => Ok(Some(Ok(answer))),
        Some(Answer::Refused(why)) => Ok(Some(Err(why))),
        Some(other) => Err(ControlError::Answer { found: format!("{other:?}") }),
    }
}

/// Asks the process that holds the ledger in `state` how it is doing; `None` when none listens.
pub(crate) fn ask_live(state: &Path) -> Result<Option<LiveReport>, ControlError> {
    match request(state, &Request::Live)? {
        None => Ok(None),
        Some(Answer::Live(report)) => Ok(Some(report)),
        Some(other) => Err(ControlError::Answer { found: format!("{other:?}") }),
    }
}

/// Asks the process that holds the ledger in `state` whether it does anything; `None` when none listens.
pub(crate) fn ask_alive(state: &Path) -> Result<Option<Result<(), String>>, ControlError> {
    match request(state, &Request::Alive)? {
        None => Ok(None),
        Some(Answer::Done(_)) => Ok(Some(Ok(()))),
        Some(Answer::Refused(why)) => Ok(Some(Err(why))),
        Some(other @ (Answer::Live(_) | Answer::Restore(_))) => {
            Err(ControlError::Answer { found: format!("{other:?}") })
        }
    }
}

fn request(state: &Path, request: &Request) -> Result<Option<Answer>, ControlError> {
    request_with(state, request, &[])
}

fn request_with(state: &Path, request: &Request, bytes: &[u8]) -> Result<Option<Answer>, ControlError> {
    let socket_error = |source: io::Error| match source.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ControlError::Ended,
        _ => ControlError::Socket { path: state.join(SOCKET), source },
    };
    let Ok(directory) = File::open(state) else { return Ok(None) };
    let mut stream = match UnixStream::connect(short_path(&directory)) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(socket_error(error)),
    };
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(socket_error)?;
    let mut line = serde_json::to_vec(request).expect("a request is plain data");
    line.push(b'\n');
    stream.write_all(&line).and_then(|()| stream.write_all(bytes)).map_err(socket_error)?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_REQUEST_BYTES)).read_line(&mut answer).map_err(socket_error)?;
    if answer.is_empty() {
        return Err(ControlError::Ended);
    }
    serde_json::from_str(&answer)
        .map(Some)
        .map_err(|_| ControlError::Answer { found: answer.trim().to_owned() })
}

/// Answers requests until cancelled.
pub(crate) async fn serve(state: PathBuf, live: Live, cancel: CancellationToken) -> Result<(), ControlError> {
    let path = state.join(SOCKET);
    let socket_error = |source| ControlError::Socket { path: path.clone(), source };
    // The lock on the ledger is held, so a socket that is there is a dead process's.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(socket_error(error)),
        _ => {}
    }
    let directory = File::open(&state).map_err(socket_error)?;
    let listener = tokio::net::UnixListener::bind(short_path(&directory)).map_err(socket_error)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(socket_error)?;
    let records = Arc::new(Mutex::new(()));
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            Some(ended) = clients.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "answering a client of the control socket ended badly");
                }
            }
            accepted = listener.accept(), if clients.len() < CLIENTS => match accepted {
                Ok((stream, _)) => {
                    let (live, records) = (live.clone(), Arc::clone(&records));
                    clients.spawn(async move { serve_client(stream, &live, &records).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the control socket");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
        }
    }
    clients.shutdown().await;
    let _ = fs::remove_file(&path);
    Ok(())
}

async fn serve_client(stream: tokio::net::UnixStream, live: &Live, records: &Mutex<()>) {
    match timeout(ANSWER_TIMEOUT, answer(stream, live, records)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "a request on the control socket failed"),
        Err(_) => tracing::warn!("a request on the control socket took too long"),
    }
}

/// Reads what a client sends, which it is not to make wait for.
async fn sent<T>(reading: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let silent = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "the client said nothing for too long"));
    timeout(REQUEST_TIMEOUT, reading).await.unwrap_or_else(silent)
}

async fn answer(mut stream: tokio::net::UnixStream, live: &Live, records: &Mutex<()>) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    let mut read = tokio::io::BufReader::new(read.take(MAX_REQUEST_BYTES));
    sent(read.read_line(&mut line)).await?;
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(Request::Live) => Answer::Live(live.report()),
        Ok(Request::Alive) => match live.pipeline().alive().await {
            Ok(()) => Answer::Done("alive".to_owned()),
            Err(why) => Answer::Refused(why),
        },
        Ok(Request::Change(change)) => match operate::apply(live.pipeline().ledger(), change).await {
            Ok(done) => Answer::Done(done),
            Err(error) => Answer::Refused(error.to_string()),
        },
        Ok(Request::Restore(ask)) if ask.bytes() > restoring::LARGEST => {
            Answer::Refused(format!("a record of {} bytes is too large to be restored", ask.bytes()))
        }
        Ok(Request::Restore(ask)) => {
            let bytes = ask.bytes();
            let _turn = records.lock().await;
            let mut lines = Vec::new();
            read.get_mut().set_limit(bytes);
            sent((&mut read).take(bytes).read_to_end(&mut lines)).await?;
            if lines.len() as u64 != bytes {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match restoring::serve(live.pipeline().ledger(), ask, lines).await {
                Ok(answer) => Answer::Restore(answer),
                Err(error) => Answer::Refused(error.to_string()),
            }
        }
        Err(error) => Answer::Refused(format!("not a request that this version knows: {error}")),
    };
    let mut bytes = serde_json::to_vec(&answer).expect("an answer is plain data");
    bytes.push(b'\n');
    write.write_all(&bytes).await
}

/// A socket's path may have 107 bytes only; a state directory's may have more. Through the open directory it is short.
fn short_path(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))
}
