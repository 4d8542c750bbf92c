//! A service that speaks the Logs Ingestion API of Azure Monitor, with its limits, and does on demand what the real one
//! does on bad days: throttles, refuses a role that is not known yet, forgets tokens, fails, cuts.
//!
//! Like the real one it takes a request whole or not at all, and then drops, without saying so, each row that does not
//! fit what the stream declares. Unlike the real one it counts those.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio_rustls::rustls::ServerConfig;

use super::wire::{Reply, Request, Server};

/// The rules that there are.
pub(crate) const RULES: [&str; 2] =
    ["dcr-00112233445566778899aabbccddeeff", "dcr-ffeeddccbbaa99887766554433221100"];
/// What tokens have to be for.
const AUDIENCE: &str = "https://monitor.azure.com";
/// 1 MB, before and after compression.
const LARGEST: usize = 1 << 20;
/// What is kept of a value.
const LONGEST_VALUE: usize = 64 << 10;

/// What happens to one request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// It is answered with a status, and its rows are taken or not.
    Say { http: u16, body: String, retry_after: Option<u32>, take: bool },
    /// Its rows are taken, and the connection is closed without an answer.
    TakeAndCut,
    /// The connection is closed without an answer.
    Cut,
    /// Its rows are taken, and no answer comes.
    TakeAndStall(Duration),
}

impl Act {
    /// The usual.
    pub(crate) fn take() -> Act {
        Act::Say { http: 204, body: String::new(), retry_after: None, take: true }
    }

    /// A refusal with the service's own body.
    pub(crate) fn refuse(http: u16, code: &str, message: &str) -> Act {
        Act::Say { http, body: error(code, message), retry_after: None, take: false }
    }

    /// 429 with a time to wait.
    pub(crate) fn throttle(seconds: u32) -> Act {
        let body = error("TooManyRequests", "The rate limit of the rule is reached");
        Act::Say { http: 429, body, retry_after: Some(seconds), take: false }
    }
}

fn error(code: &str, message: &str) -> String {
    json!({ "error": { "code": code, "message": message } }).to_string()
}

/// How it behaves.
#[derive(Debug, Clone)]
pub(crate) struct Behaviour {
    /// What happens to the next requests with rows.
    pub(crate) script: VecDeque<Act>,
    /// What happens to all of them afterwards, if not the usual.
    pub(crate) always: Option<Act>,
    /// What happens to all of one rule.
    pub(crate) rule: Option<(&'static str, Act)>,
    /// From when on the role of the application is known.
    pub(crate) role_from: Option<Instant>,
    /// Tokens that were issued before are not taken.
    pub(crate) tokens_from: Option<DateTime<Utc>>,
    /// A request with a row that holds this is refused.
    pub(crate) poison: Option<String>,
    /// Larger requests are refused.
    pub(crate) largest: usize,
}

/// A row that was taken.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) rule: String,
    pub(crate) value: Value,
}

/// A request that was let in, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) rule: String,
    pub(crate) stream: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) sent: usize,
    pub(crate) plain: usize,
    pub(crate) rows: usize,
    pub(crate) http: u16,
}

#[derive(Default)]
struct State {
    rows: Vec<Row>,
    requests: Vec<Seen>,
    /// Rows that did not fit, with the reason.
    dropped: Vec<String>,
    /// Columns that the stream does not declare.
    ignored: BTreeSet<String>,
    /// Values that were cut without a word.
    truncated: usize,
    tokens: BTreeSet<String>,
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    state: Mutex<State>,
    /// What the stream declares, by name.
    columns: BTreeMap<String, String>,
    stream: String,
}

/// A service.
pub(crate) struct Sentinel {
    shared: Arc<Shared>,
    server: Server,
    scheme: &'static str,
}

impl Sentinel {
    /// One with the stream that this ARM template declares.
    pub(crate) fn start(template: &str) -> Sentinel {
        Sentinel::start_with(template, None)
    }

    /// One that speaks TLS.
    pub(crate) fn start_with(template: &str, tls: Option<Arc<ServerConfig>>) -> Sentinel {
        let template: Value = serde_json::from_str(template).expect("a template is JSON");
        let resources = template["resources"].as_array().expect("resources");
        let rule = resources
            .iter()
            .find(|resource| resource["type"] == "Microsoft.Insights/dataCollectionRules")
            .expect("a rule");
        let streams = rule["properties"]["streamDeclarations"].as_object().expect("streams");
        let (stream, declared) = streams.iter().next().expect("a stream");
        let columns = declared["columns"].as_array().expect("columns").iter().map(|column| {
            let text = |key: &str| column[key].as_str().expect("text").to_owned();
            (text("name"), text("type"))
        });
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(Behaviour {
                script: VecDeque::new(),
                always: None,
                rule: None,
                role_from: None,
                tokens_from: None,
                poison: None,
                largest: LARGEST,
            }),
            state: Mutex::default(),
            columns: columns.collect(),
            stream: stream.clone(),
        });
        let handler = Arc::clone(&shared);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let server = Server::start(None, tls, move |request| handler.handle(request));
        Sentinel { shared, server, scheme }
    }

    /// Changes how it behaves.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.behaviour.lock().expect("behaviour"));
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        let host = if self.scheme == "https" { "localhost" } else { "127.0.0.1" };
        format!("{}://{host}:{}", self.scheme, self.server.address.port())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("state")
    }

    /// What was taken and fits.
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.state().rows.clone()
    }

    /// How many rows that is.
    pub(crate) fn count(&self) -> usize {
        self.state().rows.len()
    }

    /// Requests with rows that were let in.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.state().requests.clone()
    }

    /// How many different tokens were shown.
    pub(crate) fn tokens(&self) -> usize {
        self.state().tokens.len()
    }

    /// Nothing was dropped, ignored or cut without a word.
    pub(crate) fn lost_nothing(&self) {
        let state = self.state();
        let few: Vec<_> = state.dropped.iter().take(5).collect();
        assert!(few.is_empty(), "{} rows were dropped: {few:?}", state.dropped.len());
        assert!(state.ignored.is_empty(), "columns that are not declared: {:?}", state.ignored);
        assert_eq!(state.truncated, 0, "values were cut without a word");
    }

    /// The record ids with how often each came.
    pub(crate) fn ids(&self) -> BTreeMap<String, usize> {
        let mut ids = BTreeMap::new();
        for row in &self.state().rows {
            let id = ["EventUid", "OfficeId"].iter().find_map(|column| row.value[*column].as_str());
            let id = id.or(row.value["Record"]["Id"].as_str()).expect("an id");
            *ids.entry(id.to_owned()).or_insert(0) += 1;
        }
        ids
    }
}

fn say(http: u16, body: String) -> Reply {
    Reply::Answer { http, headers: Vec::new(), body }
}

/// Why a token is not taken.
fn bad_token(request: &Request, tokens_from: Option<DateTime<Utc>>) -> Option<&'static str> {
    let header = request.headers.get("authorization")?;
    let Some(token) = header.strip_prefix("Bearer ") else { return Some("no bearer token") };
    let claims = token.split('.').nth(1).and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok());
    let claims: Value = claims.and_then(|claims| serde_json::from_slice(&claims).ok()).unwrap_or_default();
    if claims["aud"] != AUDIENCE {
        return Some("the token is for something else");
    }
    if claims["exp"].as_i64().is_none_or(|end| end <= Utc::now().timestamp()) {
        return Some("the token is expired");
    }
    let issued = claims["xms_issued"].as_i64().unwrap_or_default();
    tokens_from.is_some_and(|from| issued < from.timestamp_millis()).then_some("the token was revoked")
}

impl Shared {
    fn handle(&self, request: &Request) -> Reply {
        let behaviour = self.behaviour.lock().expect("behaviour").clone();
        if !request.headers.contains_key("authorization") {
            return say(401, error("MissingToken", "no Authorization header"));
        }
        if let Some(why) = bad_token(request, behaviour.tokens_from) {
            return say(401, error("InvalidToken", why));
        }
        self.state.lock().expect("state").tokens.insert(request.headers["authorization"].clone());
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        if query != "api-version=2023-01-01" {
            return say(400, error("InvalidApiVersion", "the api-version is missing or unknown"));
        }
        let parts: Vec<&str> = path.split('/').collect();
        let ["", "dataCollectionRules", rule, "streams", stream] = parts[..] else {
            return say(404, error("NotFound", "no such address"));
        };
        if request.method != "POST" || !RULES.contains(&rule) {
            return say(
                404,
                error("NotFound", &format!("Data collection rule with immutable Id '{rule}' not found.")),
            );
        }
        if stream != self.stream {
            return say(
                400,
                error("InvalidStream", &format!("Stream: {stream} is not configured for the rule")),
            );
        }
        if behaviour.role_from.is_some_and(|from| Instant::now() < from) {
            let message = format!(
                "The authentication token provided does not have access to ingest data for the data collection rule with \
                 immutable Id '{rule}'."
            );
            return say(403, error("OperationFailed", &message));
        }
        if !request.headers.get("content-type").is_some_and(|kind| kind.starts_with("application/json")) {
            return say(415, error("UnsupportedMediaType", "send application/json"));
        }
        let mut seen = Seen {
            rule: rule.to_owned(),
            stream: stream.to_owned(),
            headers: request.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            sent: request.sent,
            plain: request.body.len(),
            rows: 0,
            http: 204,
        };
        let (reply, http, rows) = self.decide(request, &behaviour, rule);
        // Asking with nothing is no delivery.
        if request.body != b"[]" {
            (seen.http, seen.rows) = (http, rows);
            self.state.lock().expect("state").requests.push(seen);
        }
        reply
    }

    fn decide(&self, request: &Request, behaviour: &Behaviour, rule: &str) -> (Reply, u16, usize) {
        let refuse = |http, code: &str, message: &str| (say(http, error(code, message)), http, 0);
        if request.sent.max(request.body.len()) > behaviour.largest {
            return refuse(
                413,
                "ContentLengthLimitExceeded",
                "Maximum allowed content length: 1048576 bytes",
            );
        }
        let Ok(Value::Array(rows)) = serde_json::from_slice(&request.body) else {
            return refuse(400, "InvalidPayload", "the body is no JSON array");
        };
        let count = rows.len();
        if count == 0 {
            return (say(204, String::new()), 204, 0);
        }
        let act = {
            let mut behaviour = self.behaviour.lock().expect("behaviour");
            let scripted = behaviour.script.pop_front();
            let of_rule = behaviour.rule.clone().filter(|(id, _)| *id == rule).map(|(_, act)| act);
            scripted.or(of_rule).or_else(|| behaviour.always.clone())
        };
        match act {
            None => {}
            Some(Act::Say { http, body, retry_after, take }) => {
                if take {
                    self.take(rule, rows);
                }
                let after = retry_after.map(|after| ("retry-after".to_owned(), after.to_string()));
                return (Reply::Answer { http, headers: after.into_iter().collect(), body }, http, count);
            }
            Some(Act::TakeAndCut) => {
                self.take(rule, rows);
                return (Reply::Cut, 0, count);
            }
            Some(Act::Cut) => return (Reply::Cut, 0, count),
            Some(Act::TakeAndStall(time)) => {
                self.take(rule, rows);
                return (Reply::Stall(time), 0, count);
            }
        }
        if let Some(poison) = &behaviour.poison
            && rows.iter().any(|row| row.to_string().contains(poison.as_str()))
        {
            return refuse(400, "InvalidPayload", "the payload cannot be read");
        }
        self.take(rule, rows);
        (say(204, String::new()), 204, count)
    }

    fn take(&self, rule: &str, rows: Vec<Value>) {
        let mut state = self.state.lock().expect("state");
        for value in rows {
            match self.fits(&value, &mut state) {
                Ok(()) => state.rows.push(Row { rule: rule.to_owned(), value }),
                Err(why) => state.dropped.push(why),
            }
        }
    }

    fn fits(&self, row: &Value, state: &mut State) -> Result<(), String> {
        let members = row.as_object().ok_or("no object")?;
        if !row["TimeGenerated"].is_string() {
            return Err("no TimeGenerated".to_owned());
        }
        for (name, value) in members {
            let Some(kind) = self.columns.get(name) else {
                state.ignored.insert(name.clone());
                continue;
            };
            let is = match kind.as_str() {
                "string" => value.is_string(),
                "int" => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
                "long" => value.is_i64(),
                "boolean" => value.is_boolean(),
                "datetime" => value.as_str().is_some_and(|time| DateTime::parse_from_rfc3339(time).is_ok()),
                "dynamic" => true,
                other => panic!("no such type: {other}"),
            };
            if !is && !value.is_null() {
                return Err(format!(
                    "{name} is no {kind}: {}",
                    value.to_string().chars().take(80).collect::<String>()
                ));
            }
            let length = value.as_str().map_or_else(|| value.to_string().len(), str::len);
            state.truncated += usize::from(length > LONGEST_VALUE);
        }
        Ok(())
    }
}
