//! Sockets, routing, start and stop.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State as Shared},
    http::{HeaderValue, Method, StatusCode, header},
    serve::ListenerExt,
};
use bytes::Bytes;
use chrono::{DateTime, SubsecRound, Utc};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    BadFault, Blob, ConfigError, Faults, SimulatorConfig, StatsSnapshot, Truth,
    activity_api::{self, ApiRequest},
    clock::Clock,
    control,
    fault_desk::FaultDesk,
    respond::{Answer, answer, empty},
    state::{State, Tenant},
    stats::{RequestKind, Stats},
    token::{self, Mint},
};

/// The largest body of a request: a given blob.
const MAX_BODY: usize = 256 << 20;

/// Starts simulations.
#[derive(Debug)]
pub struct Simulator;

/// A simulation that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// The configuration does not hold together.
    #[error("the simulation is not configured well: {0}")]
    Config(#[from] ConfigError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// A running simulation. Dropping it stops it at once; [`Running::shutdown`] stops it in an orderly way.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    state: Arc<State>,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
}

impl Simulator {
    /// Starts a simulation on an address; with port 0 the system chooses one, which [`Running::addr`] tells. A second
    /// listener on the same interface, on a port of the system's choice, is the other origin that redirects and broken
    /// next pages name.
    ///
    /// # Errors
    /// When the configuration does not hold together or the address cannot be listened on.
    pub async fn start(config: SimulatorConfig, addr: SocketAddr) -> Result<Running, SimulatorError> {
        config.validate()?;
        let listen = async |address: SocketAddr| {
            TcpListener::bind(address).await.map_err(|source| SimulatorError::Listen { address, source })
        };
        let local = |listener: &TcpListener| {
            listener.local_addr().map_err(|source| SimulatorError::Listen { address: addr, source })
        };
        let listener = listen(addr).await?;
        let other = listen(SocketAddr::new(addr.ip(), 0)).await?;
        let (address, other_address) = (local(&listener)?, local(&other)?);
        let (stop, stopped) = watch::channel(false);
        let mut state = State::new(config, reachable(other_address), stopped.clone());
        for blob in std::mem::take(&mut state.config.given) {
            // Validated: every given blob's tenant exists.
            let added = state.add(blob);
            debug_assert!(added.is_some());
        }
        let state = Arc::new(state);
        if state.config.prerender {
            let state = Arc::clone(&state);
            let rendered = tokio::task::spawn_blocking(move || state.prerender()).await;
            debug_assert!(rendered.is_ok(), "rendering does not panic");
        }
        let serve = |listener: TcpListener, app: Router, mut stopped: watch::Receiver<bool>| {
            let listener = listener.tap_io(|stream| {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot switch Nagle's algorithm off");
                }
            });
            tokio::spawn(async move {
                let until = async move {
                    // An error means that the simulation was dropped, which stops it too.
                    let _ = stopped.wait_for(|stop| *stop).await;
                };
                if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(until).await {
                    tracing::error!(%error, "a simulated server failed");
                }
            })
        };
        let servers = vec![
            serve(listener, Router::new().fallback(handle).with_state(Arc::clone(&state)), stopped.clone()),
            serve(other, Router::new().fallback(handle_other).with_state(Arc::clone(&state)), stopped),
        ];
        Ok(Running { address, state, stop, servers })
    }
}

/// The origin of a listener, by an address that a client on the same machine can reach.
fn reachable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        format!("http://127.0.0.1:{}", address.port())
    } else {
        format!("http://{address}")
    }
}

impl State {
    fn new(config: SimulatorConfig, other_origin: String, stop: watch::Receiver<bool>) -> Self {
        let clock = Clock::new(config.faults.clock_skew);
        // Whole milliseconds, as every time that the API writes.
        let anchor = config.anchor.unwrap_or_else(|| clock.now()).trunc_subsecs(3);
        Self {
            clock,
            tenants: config
                .tenants
                .iter()
                .map(|tenant| Tenant::new(&config, tenant.clone(), anchor))
                .collect(),
            faults: FaultDesk::new(config.seed, config.faults.clone()),
            stats: Stats::default(),
            mint: Mint::new(config.seed),
            revoked_before: AtomicI64::new(0),
            other_origin,
            stop,
            config,
        }
    }

    /// Adds a given blob; none when its tenant does not exist.
    pub(crate) fn add(&self, blob: Blob) -> Option<String> {
        let tenant = match blob.tenant {
            Some(id) => self.tenant(id)?,
            None => self.tenants.first()?,
        };
        Some(tenant.live(blob.content_type).feed.add(blob, self.clock.now()))
    }

    fn prerender(&self) {
        std::thread::scope(|scope| {
            for tenant in &self.tenants {
                for feed in tenant.feeds() {
                    scope.spawn(|| feed.prerender(&tenant.cast, self.config.gzip));
                }
            }
        });
    }
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Its origin, `http://127.0.0.1:9400`: both the authority and the API host.
    #[must_use]
    pub fn base_url(&self) -> String {
        reachable(self.address)
    }

    /// The origin that redirects and broken next pages name, and that no token should ever reach.
    #[must_use]
    pub fn other_origin(&self) -> &str {
        &self.state.other_origin
    }

    /// What a perfect collector delivers of what can be listed by now.
    #[must_use]
    pub fn truth(&self) -> Truth {
        Truth::new(Arc::clone(&self.state))
    }

    /// What was seen so far.
    #[must_use]
    pub fn stats(&self) -> StatsSnapshot {
        self.state.stats.snapshot()
    }

    /// The servers' time.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.state.clock.now()
    }

    /// Moves the servers' clock forward: late blobs become available, tokens and content expire.
    pub fn advance(&self, by: Duration) {
        self.state.clock.advance(crate::config::delta(by));
    }

    /// Adds a blob. Gives its `contentId`, or nothing when its tenant is not simulated.
    #[must_use]
    pub fn add_blob(&self, blob: Blob) -> Option<String> {
        self.state.add(blob)
    }

    /// Changes the faults; `late`, `same_created`, `duplicate_records` and `clock_skew` are fixed at the start.
    ///
    /// # Errors
    /// When the change touches one of those, or is refused by itself; nothing is changed then.
    pub fn change_faults(
        &self,
        change: impl FnOnce(&mut Faults) -> Result<(), BadFault>,
    ) -> Result<(), BadFault> {
        self.state.faults.change(change)
    }

    /// Stops: no new requests, those under way are answered, stalled ones are cut. What is not done after two seconds
    /// is dropped.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        for server in &mut self.servers {
            if tokio::time::timeout(Duration::from_secs(2), &mut *server).await.is_err() {
                server.abort();
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for server in &self.servers {
            server.abort();
        }
    }
}

/// The other origin: whoever comes here followed a link that no collector should follow.
async fn handle_other(Shared(state): Shared<Arc<State>>, request: Request) -> Answer {
    let leaked = request.headers().contains_key(header::AUTHORIZATION);
    state.stats.change(|stats| {
        stats.other_origin_requests += 1;
        stats.tokens_leaked += u64::from(leaked);
    });
    answer(StatusCode::OK, HeaderValue::from_static("application/json"), "[]")
}

async fn handle(Shared(state): Shared<Arc<State>>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return empty(StatusCode::PAYLOAD_TOO_LARGE);
    };
    let (kind, mut answer) = route(&state, &parts, &body).await;
    if let Some(kind) = kind {
        state.stats.request(kind, answer.status());
    }
    let date = state.clock.now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    if let Ok(date) = HeaderValue::from_str(&date) {
        answer.headers_mut().insert(header::DATE, date);
    }
    answer
}

async fn route(
    state: &Arc<State>,
    parts: &axum::http::request::Parts,
    body: &Bytes,
) -> (Option<RequestKind>, Answer) {
    let path = parts.uri.path();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let host = parts.headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or("localhost");
    match (&parts.method, segments.as_slice()) {
        (method, ["_simulator", rest @ ..]) => (None, control::handle(state, method, rest, &query, body)),
        (&Method::GET, ["metadata", "identity", "oauth2", "token"]) => {
            (Some(RequestKind::ManagedIdentity), token::managed_identity(state, host, &query, &parts.headers))
        }
        (&Method::POST, [tenant, "oauth2", "v2.0", "token"]) => (
            Some(RequestKind::Token),
            token::token_endpoint(state, host, tenant, false, &parts.headers, body),
        ),
        (&Method::POST, [tenant, "oauth2", "token"]) => {
            (Some(RequestKind::Token), token::token_endpoint(state, host, tenant, true, &parts.headers, body))
        }
        (method, ["api", "v1.0" | "v1", tenant, "activity", "feed", rest @ ..]) => {
            let Some(kind) = kind_of(method, rest, &query) else {
                state.stats.violation("unknown_request");
                return (Some(RequestKind::Other), empty(StatusCode::NOT_FOUND));
            };
            let request = ApiRequest {
                kind,
                tenant,
                host,
                path_and_query: parts.uri.path_and_query().map_or(path, |both| both.as_str()),
                query: &query,
                headers: &parts.headers,
                body,
                content_id: rest.last().copied().unwrap_or_default(),
            };
            (Some(kind), activity_api::handle(state, request).await)
        }
        _ => {
            state.stats.violation("unknown_request");
            (Some(RequestKind::Other), empty(StatusCode::NOT_FOUND))
        }
    }
}

fn kind_of(method: &Method, path: &[&str], query: &[(String, String)]) -> Option<RequestKind> {
    Some(match (method.as_str(), path) {
        ("POST", ["subscriptions", "start"]) => RequestKind::StartSubscription,
        ("POST", ["subscriptions", "stop"]) => RequestKind::StopSubscription,
        ("GET", ["subscriptions", "list"]) => RequestKind::ListSubscriptions,
        ("GET", ["subscriptions", "content"])
            if query.iter().any(|(key, _)| key.eq_ignore_ascii_case("nextPage")) =>
        {
            RequestKind::NextPage
        }
        ("GET", ["subscriptions", "content"]) => RequestKind::ListContent,
        ("GET", ["audit", _]) => RequestKind::FetchBlob,
        ("GET", ["resources", "dlpSensitiveTypes"]) => RequestKind::FriendlyNames,
        _ => return None,
    })
}
