//! A server that answers as a test says, gives out tokens, and remembers what it was asked.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, Response, StatusCode},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
}

pub(crate) struct Scripted {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    server: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Scripted {
    pub(crate) async fn start(script: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (script, memory) = (Arc::new(script), Arc::clone(&seen));
        let app = Router::new().fallback(move |request: Request| {
            let seen = Seen {
                method: request.method().to_string(),
                target: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
                headers: request.headers().clone(),
            };
            memory.lock().unwrap().push(seen.clone());
            let answer = if seen.target.ends_with("/oauth2/v2.0/token") {
                json(
                    200,
                    r#"{"token_type":"Bearer","expires_in":3599,"access_token":"scripted-token-0123456789"}"#,
                )
            } else {
                script(&seen)
            };
            std::future::ready(answer)
        });
        let server = tokio::spawn(async move {
            axum::serve(listener, app).await.unwrap();
        });
        Self { address, seen, server }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn seen_at(&self, part: &str) -> usize {
        self.seen().iter().filter(|seen| seen.target.contains(part)).count()
    }
}

pub(crate) fn json(status: u16, body: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

pub(crate) fn error(status: u16, code: &str) -> Response<Body> {
    json(status, &format!(r#"{{"error":{{"code":"{code}","message":"scripted"}}}}"#))
}

/// Answers of a tenant with an enabled subscription; `None` for what is neither about subscriptions nor a listing.
pub(crate) fn ordinary(seen: &Seen, listing: &str) -> Option<Response<Body>> {
    if seen.target.contains("/subscriptions/list") {
        return Some(json(200, r#"[{"contentType":"Audit.Exchange","status":"enabled","webhook":null}]"#));
    }
    seen.target.contains("/subscriptions/content").then(|| json(200, listing))
}

/// One entry of a listing.
pub(crate) fn entry(id: &str, created: &str, expires: &str) -> String {
    format!(
        r#"{{"contentType":"Audit.Exchange","contentId":"{id}","contentUri":"http://localhost/x","contentCreated":"{created}","contentExpiration":"{expires}"}}"#
    )
}
