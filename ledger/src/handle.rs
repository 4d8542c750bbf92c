//! The handle through which everybody uses an open ledger.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize},
        mpsc::{Receiver, Sender},
    },
    task::{Context, Poll},
    thread::JoinHandle,
};

use rusqlite::Connection;
use schemas::{LedgerId, SinkName, TenantId};
use tokio::sync::{oneshot, watch};

use crate::{
    clock::Clock,
    error::{LedgerError, Result},
    faults::Faults,
    inspect::Inspector,
    open::Settings,
    spool::{codec::Codecs, reader::SpoolReader},
    wake::Waker,
    writer::{Held, Job, Kind, Message, Writer},
};

/// What the writer and every handle share.
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) id: LedgerId,
    pub(crate) clock: Clock,
    pub(crate) settings: Settings,
    pub(crate) spool: SpoolReader,
    pub(crate) codecs: Arc<Codecs>,
    /// A connection of the readers of bodies.
    pub(crate) bodies: Mutex<Connection>,
    fetches: Mutex<HashMap<TenantId, Arc<Waker>>>,
    sinks: Mutex<HashMap<SinkName, Arc<Waker>>>,
    sink_numbers: Mutex<HashMap<i64, SinkName>>,
    pub(crate) paused: watch::Sender<bool>,
    /// Tenants whose repetitions are kept.
    pub(crate) keep_duplicates: Mutex<HashSet<TenantId>>,
    pub(crate) corrupt_pieces: AtomicU64,
    /// Bodies that are being taken in.
    pub(crate) arriving: AtomicUsize,
}

impl Shared {
    pub(crate) fn new(
        dir: PathBuf,
        id: LedgerId,
        settings: Settings,
        bodies: Connection,
        faults: Faults,
    ) -> Self {
        let codecs = Arc::new(Codecs::default());
        Self {
            id,
            clock: settings.clock.clone(),
            spool: SpoolReader::new(&dir.join("spool"), id, Arc::clone(&codecs), faults),
            codecs,
            bodies: Mutex::new(bodies),
            fetches: Mutex::default(),
            sinks: Mutex::default(),
            sink_numbers: Mutex::default(),
            paused: watch::Sender::new(false),
            keep_duplicates: Mutex::new(settings.keep_duplicates.iter().copied().collect()),
            corrupt_pieces: AtomicU64::new(0),
            arriving: AtomicUsize::new(0),
            dir,
            settings,
        }
    }

    /// The waker of a tenant's fetches.
    pub(crate) fn fetches(&self, tenant: TenantId) -> Arc<Waker> {
        Arc::clone(lock(&self.fetches).entry(tenant).or_default())
    }

    pub(crate) fn wake_fetches(&self) {
        for waker in lock(&self.fetches).values() {
            waker.wake();
        }
    }

    /// The waker of a sink.
    pub(crate) fn sink(&self, name: &SinkName) -> Arc<Waker> {
        Arc::clone(lock(&self.sinks).entry(name.clone()).or_default())
    }

    /// Notes the number under which the database knows a sink.
    pub(crate) fn number_sink(&self, number: i64, name: &SinkName) {
        lock(&self.sink_numbers).entry(number).or_insert_with(|| name.clone());
    }

    pub(crate) fn wake_sink(&self, number: i64) {
        let name = lock(&self.sink_numbers).get(&number).cloned();
        if let Some(name) = name {
            self.sink(&name).wake();
        }
    }

    pub(crate) fn wake_all_sinks(&self) {
        for waker in lock(&self.sinks).values() {
            waker.wake();
        }
    }
}

/// Locks what no panic can leave half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An open ledger. Clones are the same ledger. When the last one is dropped the ledger closes, after a while; to know
/// when it has, call [`Ledger::close`].
#[derive(Clone)]
pub struct Ledger {
    pub(crate) shared: Arc<Shared>,
    writer: Arc<WriterHandle>,
    inspector: Arc<Inspector>,
}

/// The way to the writer, and its end.
struct WriterHandle {
    sender: Sender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for WriterHandle {
    fn drop(&mut self) {
        // Live claims hold the channel open, so that its end alone would not tell the writer.
        let _ = self.sender.send(Message::Close);
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("dir", &self.shared.dir).field("id", &self.shared.id).finish()
    }
}

/// An answer of the writer that is under way. What was asked for happens whether or not anybody waits for the answer.
#[derive(Debug)]
#[must_use = "without the answer it is unknown whether it was done"]
pub struct Answer<T>(oneshot::Receiver<Result<T>>);

impl<T> Answer<T> {
    /// Waits for it. Not to be called on a thread of an async runtime.
    ///
    /// # Errors
    ///
    /// What was asked for was not done.
    pub fn wait(self) -> Result<T> {
        self.0.blocking_recv().unwrap_or(Err(LedgerError::Closed))
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(LedgerError::Closed)))
    }
}

impl Ledger {
    /// Starts the writer.
    pub(crate) fn start(
        shared: Arc<Shared>,
        inspector: Inspector,
        writer: Writer,
        sender: Sender<Message>,
        messages: Receiver<Message>,
    ) -> std::io::Result<Self> {
        let thread =
            std::thread::Builder::new().name("ledger".to_owned()).spawn(move || writer.run(&messages))?;
        Ok(Self {
            shared,
            writer: Arc::new(WriterHandle { sender, thread: Mutex::new(Some(thread)) }),
            inspector: Arc::new(inspector),
        })
    }

    /// The ledger's id, which marks of this installation carry at destinations.
    #[must_use]
    pub fn id(&self) -> LedgerId {
        self.shared.id
    }

    /// Its view for reports: what is committed, read beside the writer. Its methods block for milliseconds.
    #[must_use]
    pub fn inspector(&self) -> &Inspector {
        &self.inspector
    }

    /// Finishes what was asked for and closes the files. Leases that are still held are worth nothing afterwards, and
    /// every later call fails with [`LedgerError::Closed`]. Blocks.
    pub fn close(&self) {
        let _ = self.writer.sender.send(Message::Close);
        let thread = lock(&self.writer.thread).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the ledger's writer panicked; what was committed before is safe");
        }
    }

    /// Whether fetching pauses because the spool is full.
    #[must_use]
    pub fn spool_paused(&self) -> watch::Receiver<bool> {
        self.shared.paused.subscribe()
    }

    /// Resolves when the writer has dealt with what was asked of it before: whether it still does.
    pub fn answers(&self) -> Answer<()> {
        self.look(|_| Ok(()))
    }

    /// Turns the removal of repeated records on or off for a tenant, from the next body on.
    pub fn set_dedupe(&self, tenant: TenantId, dedupe: bool) {
        let mut kept = lock(&self.shared.keep_duplicates);
        if dedupe {
            kept.remove(&tenant);
        } else {
            kept.insert(tenant);
        }
    }

    /// Asks for a change; the answer comes when it is durable.
    pub(crate) fn change<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer) -> Result<T> + Send + 'static,
    ) -> Answer<T> {
        send(&self.writer.sender, Kind::Change, job)
    }

    /// Asks for something that changes nothing durable.
    pub(crate) fn look<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer) -> Result<T> + Send + 'static,
    ) -> Answer<T> {
        send(&self.writer.sender, Kind::Look, job)
    }

    /// A way to the writer for those that outlive a borrow of the handle.
    pub(crate) fn writer(&self) -> Sender<Message> {
        self.writer.sender.clone()
    }
}

/// Sends a job to the writer. The channel is unbounded: whoever sends waits for the answer, so that it holds no more
/// than there are callers.
pub(crate) fn send<T: Send + 'static>(
    writer: &Sender<Message>,
    kind: Kind,
    job: impl FnOnce(&mut Writer) -> Result<T> + Send + 'static,
) -> Answer<T> {
    let (answer, receiver) = oneshot::channel();
    let run = move |writer: Result<&mut Writer>| {
        let result = writer.and_then(job);
        let error = result.as_ref().err().cloned();
        let answer = Box::new(move |failure: Option<&LedgerError>| {
            let result = match failure {
                Some(failure) if result.is_ok() => Err(failure.clone()),
                _ => result,
            };
            // Nobody may wait any more; a lease in the answer is released by being dropped.
            let _ = answer.send(result);
        });
        Held { error, answer }
    };
    // A closed channel drops the job, and with it the sender of the answer.
    let _ = writer.send(Message::Job(Job { kind, run: Box::new(run) }));
    Answer(receiver)
}
