//! The control plane under `/_simulator/`: lets a test that drives a collector from outside judge and steer.
//!
//! It needs no token and is for loopback and private networks only, like the whole simulator.

use std::sync::{Arc, atomic::Ordering};

use axum::http::{HeaderValue, Method, StatusCode};
use bytes::Bytes;
use chrono::TimeDelta;
use schemas::{TenantId, time::parse_utc};
use serde_json::json;

use crate::{
    Blob, Truth,
    respond::{Answer, answer, json_answer, pieces},
    state::State,
};

fn problem(text: impl std::fmt::Display) -> Answer {
    json_answer(StatusCode::BAD_REQUEST, &json!({ "problem": text.to_string() }))
}

/// Answers a request to the control plane.
pub(crate) fn handle(
    state: &Arc<State>,
    method: &Method,
    path: &[&str],
    query: &[(String, String)],
    body: &Bytes,
) -> Answer {
    let parameter = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    match (method.as_str(), path) {
        ("GET", ["stats"]) => {
            let stats = serde_json::to_value(state.stats.snapshot()).unwrap_or_default();
            json_answer(StatusCode::OK, &stats)
        }
        ("DELETE", ["stats"]) => {
            state.stats.reset();
            json_answer(StatusCode::OK, &json!({}))
        }
        ("GET", ["truth"]) => truth(state),
        ("GET", ["truth", "summary"]) => {
            let summary = serde_json::to_value(Truth::new(Arc::clone(state)).summary()).unwrap_or_default();
            json_answer(StatusCode::OK, &summary)
        }
        ("POST", ["blobs"]) => add_blob(state, parameter, body),
        ("GET", ["faults"]) => answer(
            StatusCode::OK,
            HeaderValue::from_static("text/plain; charset=utf-8"),
            state.faults.read(ToString::to_string),
        ),
        ("PUT", ["faults"]) => set_faults(state, body),
        ("DELETE", ["faults"]) => {
            state.faults.clear();
            json_answer(StatusCode::OK, &json!({}))
        }
        ("POST", ["clock"]) => {
            let by = parameter("advance").and_then(|text| text.parse::<u32>().ok());
            let Some(seconds) = by else {
                return problem("`advance` must be a number of seconds");
            };
            state.clock.advance(TimeDelta::seconds(i64::from(seconds)));
            json_answer(StatusCode::OK, &json!({ "now": state.clock.now().to_rfc3339() }))
        }
        ("POST", ["tokens", "revoke"]) => {
            // A token issued in this very millisecond counts as issued before.
            state.revoked_before.store(state.clock.now().timestamp_millis() + 1, Ordering::Relaxed);
            json_answer(StatusCode::OK, &json!({}))
        }
        _ => json_answer(
            StatusCode::NOT_FOUND,
            &json!({ "problem": "the control plane has no such request; docs/simulator.md lists them" }),
        ),
    }
}

/// The truth, one blob a line. It is made while it is sent, in pieces, whatever the size of the backlog.
fn truth(state: &Arc<State>) -> Answer {
    let truth = Truth::new(Arc::clone(state));
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    // The iterator borrows the truth, so it lives on a thread of its own; when the client goes away, the channel closes
    // and the thread ends.
    tokio::task::spawn_blocking(move || {
        for blob in truth.blobs() {
            let Ok(mut line) = serde_json::to_string(&blob) else { continue };
            line.push('\n');
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    pieces(HeaderValue::from_static("application/x-ndjson"), receiver)
}

fn add_blob<'q>(state: &State, parameter: impl Fn(&str) -> Option<&'q str>, body: &Bytes) -> Answer {
    let now = state.clock.now();
    let Some(content_type) = parameter("contentType").and_then(|text| text.parse().ok()) else {
        return problem("`contentType` must be one of the five content types");
    };
    let time = |name: &str| match parameter(name) {
        None => Ok(None),
        Some(text) => parse_utc(text).map(Some).ok_or_else(|| format!("`{name}` is not a time: {text}")),
    };
    let (created, available, expires) = match (time("created"), time("available"), time("expires")) {
        (Ok(created), Ok(available), Ok(expires)) => (created, available, expires),
        (Err(bad), ..) | (_, Err(bad), _) | (.., Err(bad)) => return problem(bad),
    };
    let mut blob = Blob::from_body(content_type, created.unwrap_or(now), body.clone());
    (blob.available, blob.expires) = (available, expires);
    blob.content_id = parameter("contentId").map(str::to_owned);
    if let Some(text) = parameter("tenant") {
        match text.parse::<TenantId>() {
            Ok(tenant) => blob.tenant = Some(tenant),
            Err(bad) => return problem(bad),
        }
    }
    match state.add(blob) {
        Some(content_id) => json_answer(StatusCode::OK, &json!({ "contentId": content_id })),
        None => problem("`tenant` is not simulated"),
    }
}

fn set_faults(state: &State, body: &Bytes) -> Answer {
    let Ok(text) = std::str::from_utf8(body) else {
        return problem("the body must be lines of NAME=VALUE");
    };
    let set = state.faults.change(|faults| {
        text.lines().filter(|line| !line.trim().is_empty()).try_for_each(|line| faults.set(line))
    });
    match set {
        Ok(()) => json_answer(StatusCode::OK, &json!({})),
        Err(bad) => problem(bad),
    }
}
