//! What others may ask of a running process over HTTP: `/metrics`, `/healthz`, `/readyz`.
//!
//! It only looks. Nothing that is asked here changes anything, holds up the reactor, or keeps the ledger busy: the
//! ledger's figures are read beside its writer, by one reader at a time, and kept for a few seconds.

mod catalogue;
mod exposition;
mod figures;
mod metrics;
mod ready;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::{net::TcpListener, sync::Mutex, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use self::{figures::Figures, ready::Readiness};
use crate::live::Live;

/// How long answers that are under way may take when the server stops.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; change 'http.listen' or stop what uses the address")]
pub(crate) struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// An address that is listened on and not yet served.
pub(crate) struct Bound {
    address: SocketAddr,
    listener: TcpListener,
}

impl Bound {
    /// Takes the address, if there is one.
    pub(crate) async fn new(listen: Option<SocketAddr>) -> Result<Option<Self>, ListenError> {
        let Some(address) = listen else { return Ok(None) };
        match TcpListener::bind(address).await {
            Ok(listener) => Ok(Some(Self { address, listener })),
            Err(source) => Err(ListenError { address, source }),
        }
    }
}

/// What answers.
struct Asked {
    live: Live,
    figures: Figures,
}

/// Serves at the configured address, if there is one.
pub(crate) struct Server {
    asked: Arc<Asked>,
    serving: Mutex<Option<Serving>>,
}

struct Serving {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves at an address that was taken.
    pub(crate) fn start(live: Live, bound: Option<Bound>) -> Self {
        let asked = Arc::new(Asked { live, figures: Figures::default() });
        let serving = Mutex::new(bound.map(|bound| serve(&asked, bound)));
        Self { asked, serving }
    }

    /// Takes another address before the old one is given up; `None` when it stays as it is.
    pub(crate) async fn prepare(
        &self,
        listen: Option<SocketAddr>,
    ) -> Result<Option<Option<Bound>>, ListenError> {
        let current = self.serving.lock().await.as_ref().map(|serving| serving.address);
        if current == listen { Ok(None) } else { Bound::new(listen).await.map(Some) }
    }

    /// Serves at the other address from now on, or nowhere.
    pub(crate) async fn switch(&self, bound: Option<Bound>) {
        let next = bound.map(|bound| serve(&self.asked, bound));
        let old = std::mem::replace(&mut *self.serving.lock().await, next);
        if let Some(old) = old {
            old.end().await;
        }
    }

    /// Stops serving.
    pub(crate) async fn stop(&self) {
        self.switch(None).await;
    }
}

impl Serving {
    async fn end(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(LAST_ANSWERS, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

fn serve(asked: &Arc<Asked>, bound: Bound) -> Serving {
    let Bound { address, listener } = bound;
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Arc::clone(asked));
    match listener.local_addr() {
        Ok(address) => tracing::info!("serves /metrics, /healthz and /readyz at http://{address}"),
        Err(error) => tracing::warn!(%error, "serves /metrics, /healthz and /readyz"),
    }
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
            tracing::error!(%error, "metrics are no longer served");
        }
    });
    Serving { address, stop, task }
}

async fn metrics(State(asked): State<Arc<Asked>>) -> impl IntoResponse {
    let applied = asked.live.reloads().state().applied;
    let snapshot = asked.figures.snapshot(asked.live.pipeline(), applied).await;
    let page = metrics::page(&asked.live, &snapshot);
    ([(CONTENT_TYPE, exposition::CONTENT_TYPE)], page)
}

async fn healthz(State(asked): State<Arc<Asked>>) -> impl IntoResponse {
    match asked.live.pipeline().alive().await {
        Ok(()) => (StatusCode::OK, "alive\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn readyz(State(asked): State<Arc<Asked>>) -> impl IntoResponse {
    let readiness = Readiness::of(asked.live.report(), chrono::Utc::now());
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness))
}
