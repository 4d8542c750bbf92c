//! A sink that answers by a script.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use schemas::SinkName;

use crate::{
    delivery_ledger::WorkId,
    sink::{Batch, BoxFuture, DeliverError, Durability, Limits, Receipt, Sink, Unfinished},
    test_ledger::{MemoryLedger, sink_name},
};

/// What a scripted sink does with a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Take,
    TakeAfter(Duration),
    Fail(DeliverError),
    /// The records arrive, but the answer says that nobody knows.
    TakeAndFail(DeliverError),
    /// The records arrive, and no answer comes.
    TakeAndHang,
    Panic,
    /// The receipt is for another batch.
    WrongReceipt,
}

type Script = dyn FnMut(&[(i64, u32)]) -> Reply + Send;

/// A sink that answers by a script.
pub(super) struct Scripted {
    name: SinkName,
    limits: Limits,
    script: Mutex<Box<Script>>,
    /// What arrived, in order.
    arrived: Mutex<Vec<(i64, u32)>>,
    /// The sizes of the batches that were tried.
    tried: Mutex<Vec<usize>>,
    under_way: AtomicUsize,
    pub(super) most_under_way: AtomicUsize,
    pub(super) probes: Mutex<Vec<Result<(), DeliverError>>>,
    pub(super) opened: AtomicUsize,
    /// What it announced last, for one with a state, and the ledger that has to have it.
    announced: Mutex<Vec<u8>>,
    pub(super) ledger: Option<Arc<MemoryLedger>>,
    /// Whether it gives up the bytes and waits before it answers, as one with late acknowledgements does.
    pub(super) gives_up_bytes: bool,
    /// What an earlier run left unfinished, and whether anything may overtake it.
    pub(super) unfinished: Vec<Unfinished>,
    pub(super) may_be_overtaken: bool,
}

pub(super) fn limits(max_records: usize, in_flight: usize) -> Limits {
    Limits {
        max_records,
        max_bytes: 1 << 20,
        beside: 0,
        linger: Duration::from_millis(50),
        in_flight,
        ordered: in_flight == 1,
        timeout: Duration::from_secs(20),
        exactly_once: false,
        whole_works: false,
    }
}

impl Scripted {
    pub(super) fn new(limits: Limits, script: impl FnMut(&[(i64, u32)]) -> Reply + Send + 'static) -> Self {
        Self {
            name: sink_name(),
            limits,
            script: Mutex::new(Box::new(script)),
            arrived: Mutex::default(),
            tried: Mutex::default(),
            under_way: AtomicUsize::new(0),
            most_under_way: AtomicUsize::new(0),
            probes: Mutex::default(),
            opened: AtomicUsize::new(0),
            announced: Mutex::default(),
            ledger: None,
            gives_up_bytes: false,
            unfinished: Vec::new(),
            may_be_overtaken: false,
        }
    }

    pub(super) fn arrived(&self) -> Vec<(i64, u32)> {
        self.arrived.lock().unwrap().clone()
    }

    pub(super) fn tried(&self) -> Vec<usize> {
        self.tried.lock().unwrap().clone()
    }
}

impl Sink for Scripted {
    fn name(&self) -> &SinkName {
        &self.name
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn open(&self) -> BoxFuture<'_, Result<Vec<Unfinished>, DeliverError>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(self.unfinished.clone()) })
    }

    fn may_overtake_unfinished(&self) -> bool {
        self.may_be_overtaken
    }

    fn state(&self, finished: &[WorkId], next: Option<&Batch>) -> Option<Vec<u8>> {
        let next = next.map(|batch| batch.records().map(|(work, _)| work.id.0).collect::<BTreeSet<_>>());
        let state = format!("{finished:?} {next:?}").into_bytes();
        *self.announced.lock().unwrap() = state.clone();
        Some(state)
    }

    fn deliver(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, DeliverError>> {
        if let Some(ledger) = &self.ledger {
            assert_eq!(ledger.state().as_deref(), Some(self.announced.lock().unwrap().as_slice()));
        }
        Box::pin(async move {
            struct Leave<'a>(&'a AtomicUsize);
            impl Drop for Leave<'_> {
                fn drop(&mut self) {
                    self.0.fetch_sub(1, Ordering::Relaxed);
                }
            }
            let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_under_way.fetch_max(now, Ordering::Relaxed);
            let _leave = Leave(&self.under_way);
            let coverage = batch.coverage();
            let records: Vec<_> =
                batch.records().map(|(work, record)| (work.id.0, record.position)).collect();
            self.tried.lock().unwrap().push(records.len());
            let reply = (self.script.lock().unwrap())(&records);
            let held = (!self.gives_up_bytes).then_some(batch);
            let take = || self.arrived.lock().unwrap().extend(&records);
            let receipt = Receipt::confirmed(coverage, Durability::Accepted);
            match reply {
                Reply::Take => take(),
                Reply::TakeAfter(wait) => {
                    tokio::time::sleep(wait).await;
                    take();
                }
                Reply::Fail(error) => return Err(error),
                Reply::TakeAndFail(error) => {
                    take();
                    return Err(error);
                }
                Reply::TakeAndHang => {
                    take();
                    std::future::pending::<()>().await;
                }
                Reply::Panic => panic!("as the script says"),
                Reply::WrongReceipt => {
                    return Ok(Receipt::confirmed(Batch::default().coverage(), Durability::Accepted));
                }
            }
            drop(held);
            Ok(receipt)
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), DeliverError>> {
        let result = self.probes.lock().unwrap().pop().unwrap_or(Ok(()));
        Box::pin(async move { result })
    }
}
