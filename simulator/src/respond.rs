//! Answers, and how they are damaged on their way.

use std::{convert::Infallible, io::Write, sync::LazyLock, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json, value::RawValue};
use tokio::sync::mpsc;

use crate::{FaultKind, faults::Rule, state::State};

/// An answer of one of the servers.
pub(crate) type Answer = Response<Body>;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

pub(crate) fn answer(status: StatusCode, kind: HeaderValue, body: impl Into<Body>) -> Answer {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

pub(crate) fn json_answer(status: StatusCode, body: &Value) -> Answer {
    answer(status, JSON, body.to_string())
}

pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}

/// `{"error":{"code":…,"message":…}}` (Activity API reference, "Errors").
pub(crate) fn api_error(status: StatusCode, code: &str, message: &str) -> Answer {
    json_answer(status, &json!({ "error": { "code": code, "message": message } }))
}

pub(crate) fn unauthorized(message: &str) -> Answer {
    let mut answer = json_answer(StatusCode::UNAUTHORIZED, &json!({ "Message": message }));
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    answer
}

/// AF429 as the API words it; a wait goes into Retry-After.
pub(crate) fn throttled(status: StatusCode, method: &str, publisher: &str, wait: Option<Duration>) -> Answer {
    let mut answer =
        api_error(status, "AF429", &format!("Too many requests. Method={method}, PublisherId={publisher}"));
    if let Some(wait) = wait {
        retry_after(&mut answer, wait);
    }
    answer
}

/// Asks whoever gets the answer to wait, in whole seconds.
pub(crate) fn retry_after(answer: &mut Answer, wait: Duration) {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
}

/// The answer of a fault that does not touch a body, if it is such a fault.
pub(crate) fn instead(
    state: &State,
    (kind, rule): (FaultKind, Rule),
    method: &str,
    path: &str,
) -> Option<Answer> {
    let nobody = "00000000-0000-0000-0000-000000000000";
    Some(match kind {
        FaultKind::Throttle403 => throttled(StatusCode::FORBIDDEN, method, nobody, None),
        FaultKind::Throttle429 => throttled(StatusCode::TOO_MANY_REQUESTS, method, nobody, Some(rule.delay)),
        FaultKind::Throttle200 => throttled(StatusCode::OK, method, nobody, None),
        FaultKind::Unauthorized => unauthorized("Authorization has been denied for this request."),
        FaultKind::ServerError => api_error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "AF50000",
            "An internal error occurred. Retry the request.",
        ),
        FaultKind::Unavailable => answer(
            StatusCode::SERVICE_UNAVAILABLE,
            HTML,
            "<html><head><title>503</title></head><body>The service is unavailable.</body></html>",
        ),
        FaultKind::InternalError => api_error(
            StatusCode::SERVICE_UNAVAILABLE,
            "AF50005",
            "An internal error occurred. Retry the request.",
        ),
        FaultKind::RequestTimeout => empty(StatusCode::REQUEST_TIMEOUT),
        FaultKind::Redirect => {
            let mut answer = empty(StatusCode::FOUND);
            let location = HeaderValue::from_str(&format!("{}{path}", state.other_origin)).ok()?;
            answer.headers_mut().insert(header::LOCATION, location);
            answer
        }
        FaultKind::Bare404 => empty(StatusCode::NOT_FOUND),
        FaultKind::WrongBlobId => api_error(StatusCode::BAD_REQUEST, "AF20052", "Blob key is invalid."),
        FaultKind::ErrorIn200 => {
            api_error(StatusCode::OK, "AF50000", "An internal error occurred. Retry the request.")
        }
        FaultKind::Empty200 => empty(StatusCode::OK),
        FaultKind::Html200 => answer(
            StatusCode::OK,
            HTML,
            "<!DOCTYPE html><html><body>Please sign in to the network.</body></html>",
        ),
        _ => return None,
    })
}

/// Whether the client takes gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|one| {
            let mut parts = one.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            name.eq_ignore_ascii_case("gzip") && !parts.any(|weight| weight == "q=0" || weight == "q=0.0")
        })
    })
}

pub(crate) fn compress(body: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(body)
        .and_then(|()| encoder.finish())
        .expect("compressing into memory does not fail")
        .into()
}

/// Sends a JSON body, whole or as the fault has it. The body may have been compressed already.
pub(crate) async fn send(
    state: &State,
    fault: Option<(FaultKind, Rule)>,
    body: Bytes,
    gzip: bool,
    compressed: Option<Bytes>,
) -> Answer {
    let mut body = body;
    if let Some((FaultKind::SlowFirstByte, rule)) = fault {
        pause(state, rule.delay).await;
    }
    // A text that stops midway is cut before it is compressed: every layer below the JSON is whole.
    let cut = matches!(fault, Some((FaultKind::Cut200, _)));
    if cut {
        body.truncate(body.len() / 2);
    }
    let mut encoding = None;
    if gzip && state.config.gzip {
        body = compressed.filter(|_| !cut).unwrap_or_else(|| compress(&body));
        encoding = Some(HeaderValue::from_static("gzip"));
    }
    let length = body.len();
    let half = body.slice(..length / 2);
    let mut answer = match fault {
        Some((FaultKind::CutGzip, _)) => answer(StatusCode::OK, JSON, half),
        Some((FaultKind::CutBody, _)) => {
            promise(half, Some(length), Cut::after(state, Duration::from_millis(30)))
        }
        Some((FaultKind::CutChunked, _)) => promise(half, None, Cut::after(state, Duration::from_millis(30))),
        Some((FaultKind::SlowBody, rule)) => little_by_little(state, body, rule.delay),
        Some((FaultKind::Stall, rule)) => promise(half, Some(length), Cut::after(state, rule.delay)),
        _ => answer(StatusCode::OK, JSON, body),
    };
    if let Some(encoding) = encoding {
        answer.headers_mut().insert(header::CONTENT_ENCODING, encoding);
    }
    answer
}

/// How many MiB of blanks a bomb has.
const BOMB_MIB: usize = 1024;

/// A JSON array with a GiB of blanks before its end. For clients that accept gzip it is some MB on the wire: gzip may
/// have several members (RFC 1952, section 2.2), and all but two are the same.
pub(crate) fn bomb(body: &Bytes, gzip: bool) -> Answer {
    static BLANKS: LazyLock<Bytes> = LazyLock::new(|| vec![b' '; 1 << 20].into());
    static PACKED: LazyLock<Bytes> = LazyLock::new(|| compress(&BLANKS));
    let records = body.strip_suffix(b"]").unwrap_or(&body[..]);
    let (first, blanks, last) = if gzip {
        (compress(records), &*PACKED, compress(b"]"))
    } else {
        (Bytes::copy_from_slice(records), &*BLANKS, Bytes::from_static(b"]"))
    };
    let blanks = stream::repeat(blanks.clone()).take(BOMB_MIB);
    let parts = stream::iter([first]).chain(blanks).chain(stream::iter([last]));
    let mut answer = answer(StatusCode::OK, JSON, Body::from_stream(parts.map(Ok::<_, Infallible>)));
    if gzip {
        answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answer
}

/// Waits, but not beyond the end of the simulation.
async fn pause(state: &State, time: Duration) {
    let mut stop = state.stop.clone();
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

/// When a connection is cut. The pause lets what was written reach the client, who is to see half of a body and not
/// none.
struct Cut {
    stop: tokio::sync::watch::Receiver<bool>,
    delay: Duration,
}

impl Cut {
    fn after(state: &State, delay: Duration) -> Self {
        Self { stop: state.stop.clone(), delay }
    }
}

/// Sends a part of what is promised, then cuts the connection.
fn promise(part: Bytes, length: Option<usize>, mut cut: Cut) -> Answer {
    let end = async move {
        tokio::select! {
            () = tokio::time::sleep(cut.delay) => {}
            _ = cut.stop.wait_for(|stop| *stop) => {}
        }
        Err(std::io::Error::other("cut by a simulated fault"))
    };
    let body = stream::once(async { Ok(part) }).chain(stream::once(end));
    let mut answer = answer(StatusCode::OK, JSON, Body::from_stream(body));
    if let Some(length) = length {
        answer.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    answer
}

/// In how many pieces a slow body comes.
const SLOW_PIECES: u32 = 50;

/// A whole body that takes its time.
fn little_by_little(state: &State, body: Bytes, time: Duration) -> Answer {
    let length = body.len();
    let piece = length.div_ceil(SLOW_PIECES as usize).max(1);
    let stop = state.stop.clone();
    let pieces = stream::unfold((body, stop), move |(mut left, mut stop)| async move {
        if left.is_empty() {
            return None;
        }
        tokio::select! {
            () = tokio::time::sleep(time / SLOW_PIECES) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        let part = left.split_to(piece.min(left.len()));
        Some((Ok::<_, Infallible>(part), (left, stop)))
    });
    let mut answer = answer(StatusCode::OK, JSON, Body::from_stream(pieces));
    answer.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    answer
}

/// A body that is made piece by piece.
pub(crate) fn pieces(kind: HeaderValue, pieces: mpsc::Receiver<String>) -> Answer {
    let body = stream::unfold(pieces, async |mut pieces| {
        pieces.recv().await.map(|piece| (Ok::<_, Infallible>(piece), pieces))
    });
    answer(StatusCode::OK, kind, Body::from_stream(body))
}

/// The same JSON on many lines; what is no JSON stays as it is.
pub(crate) fn pretty(body: &Bytes) -> Bytes {
    let Ok(records) = serde_json::from_slice::<Vec<Box<serde_json::value::RawValue>>>(body) else {
        return body.clone();
    };
    let mut out = b"[\r\n".to_vec();
    for (position, record) in records.iter().enumerate() {
        if position > 0 {
            out.extend_from_slice(b",\r\n");
        }
        indent(record.get(), &mut out);
    }
    out.extend_from_slice(b"\r\n]\r\n");
    out.into()
}

/// The first half of the records; what is no JSON stays as it is.
pub(crate) fn first_half(body: &Bytes) -> Bytes {
    with_records(body, |records| records.truncate(records.len() / 2))
}

/// The same records in the other order; what is no JSON stays as it is.
pub(crate) fn reversed(body: &Bytes) -> Bytes {
    with_records(body, |records| records.reverse())
}

/// A body of other records, each as it was.
fn with_records(body: &Bytes, change: impl FnOnce(&mut Vec<&RawValue>)) -> Bytes {
    let Ok(mut records) = serde_json::from_slice(body) else { return body.clone() };
    change(&mut records);
    let records: Vec<_> = records.into_iter().map(RawValue::get).collect();
    format!("[{}]", records.join(",")).into()
}

/// Breaks the lines of a record without touching its tokens, so that the record stays the same record.
fn indent(record: &str, out: &mut Vec<u8>) {
    let (mut in_text, mut escaped, mut depth) = (false, false, 1_usize);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.extend_from_slice(b"\r\n");
        out.resize(out.len() + 2 * depth, b' ');
    };
    out.extend_from_slice(b"  ");
    for byte in record.bytes() {
        if in_text {
            out.push(byte);
            in_text = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => {
                in_text = true;
                out.push(byte);
            }
            b'{' | b'[' => {
                depth += 1;
                out.push(byte);
                line(out, depth);
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pretty_printing_changes_nothing_but_the_space_between_tokens() {
        let body = Bytes::from_static(br#"[{"a":"x, \"{\\","b":[1,{"c":null}]},{"d":" : "}]"#);
        let pretty = pretty(&body);
        let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        assert_eq!(read(&pretty), read(&body));
        assert!(pretty.iter().filter(|byte| **byte == b'\n').count() > 8);
        assert_eq!(super::pretty(&Bytes::from_static(b"no json")), "no json");
    }

    #[test]
    fn records_in_the_other_order_are_the_same_records() {
        let body = Bytes::from_static(br#"[{"a": "]"}, {"b":[1,2]},{}]"#);
        assert_eq!(reversed(&body), &br#"[{},{"b":[1,2]},{"a": "]"}]"#[..]);
        assert_eq!(reversed(&Bytes::from_static(b"[]")), "[]");
        assert_eq!(reversed(&Bytes::from_static(b"no json")), "no json");
    }

    #[test]
    fn gzip_is_sent_to_whoever_takes_it() {
        let takes = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            accepts_gzip(&headers)
        };
        assert!(takes("gzip") && takes("deflate, GZIP;q=0.5"));
        assert!(!takes("br") && !takes("gzip;q=0") && !takes("identity") && !accepts_gzip(&HeaderMap::new()));
    }
}
