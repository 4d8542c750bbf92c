//! A receiver that speaks Splunk's HTTP Event Collector and does on demand what no real one does: every code, lost
//! acknowledgements, several indexers behind one address, answers that never come.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio_rustls::rustls::ServerConfig;

use super::wire::{Reply, Request, Server};

/// The token that is let in.
pub(crate) const TOKEN: &str = "11111111-2222-3333-4444-555555555555";

/// What happens to one request with events.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// It is answered with a status and a body, and its events are taken or not.
    Say { http: u16, body: String, retry_after: Option<u32>, take: bool },
    /// Its events are taken, and the connection is closed without an answer.
    TakeAndCut,
    /// The connection is closed without an answer.
    Cut,
    /// Its events are taken, and no answer comes.
    TakeAndStall(Duration),
}

impl Act {
    /// A refusal by code, with nothing taken.
    pub(crate) fn code(http: u16, code: u64) -> Act {
        let body = json!({ "text": format!("as code {code} says"), "code": code }).to_string();
        Act::Say { http, body, retry_after: None, take: false }
    }

    /// Success by another code than 0.
    pub(crate) fn success(code: u64) -> Act {
        Act::Say {
            http: 200,
            body: json!({ "text": "pressed", "code": code }).to_string(),
            retry_after: None,
            take: true,
        }
    }
}

/// How acknowledgements are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acks {
    /// The token has none.
    Off,
    /// When they are asked for, everything is indexed.
    Prompt,
    /// So many queries come to nothing: what they told is forgotten, as with a lost answer.
    LoseReplies(u32),
    /// `false` for ever.
    Never,
}

/// How it behaves.
#[derive(Debug, Clone)]
pub(crate) struct Behaviour {
    pub(crate) acks: Acks,
    /// How it says that it is: a status and a code.
    pub(crate) health: (u16, u64),
    /// Whether ids are given, when there are acknowledgements.
    pub(crate) gives_ids: bool,
    /// How many indexers there are; a cookie keeps a client at one.
    pub(crate) indexers: usize,
    /// What happens to the next requests with events.
    pub(crate) script: VecDeque<Act>,
    /// What happens to all of them afterwards, if not the usual.
    pub(crate) always: Option<Act>,
    /// An event that holds this is refused with the code.
    pub(crate) poison: Option<(String, u64)>,
    /// From what the number of a refused event is counted; `None` says no number.
    pub(crate) counts_from: Option<usize>,
    /// Whether the events before a refused one are taken.
    pub(crate) takes_prefix: bool,
    /// Longer bodies are answered with 413.
    pub(crate) max_body: usize,
    /// The only index that the token may write to.
    pub(crate) index: Option<String>,
}

/// An event that was taken.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) at: Instant,
    pub(crate) envelope: Value,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    requests: Vec<Seen>,
    /// By indexer and channel: ids, and whether each was told as indexed.
    channels: HashMap<(usize, String), Vec<bool>>,
    acked_elsewhere: u32,
}

/// A request with events, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) channel: Option<String>,
    pub(crate) gzip: bool,
    pub(crate) sent: usize,
    pub(crate) plain: usize,
    pub(crate) agent: String,
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    state: Mutex<State>,
    next_indexer: AtomicUsize,
}

/// A receiver.
pub(crate) struct Hec {
    shared: Arc<Shared>,
    tls: Option<Arc<ServerConfig>>,
    server: Option<Server>,
    port: u16,
}

impl Hec {
    /// One that takes everything.
    pub(crate) fn start(acks: Acks) -> Hec {
        Hec::start_with(acks, None)
    }

    /// One that speaks TLS.
    pub(crate) fn start_with(acks: Acks, tls: Option<Arc<ServerConfig>>) -> Hec {
        let behaviour = Behaviour {
            acks,
            health: (200, 17),
            gives_ids: true,
            indexers: 1,
            script: VecDeque::new(),
            always: None,
            poison: None,
            counts_from: Some(0),
            takes_prefix: false,
            max_body: usize::MAX,
            index: None,
        };
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(behaviour),
            state: Mutex::default(),
            next_indexer: AtomicUsize::new(0),
        });
        let mut hec = Hec { shared, tls, server: None, port: 0 };
        hec.resume();
        hec
    }

    /// Changes how it behaves.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.behaviour.lock().expect("behaviour"));
    }

    /// Goes away: the port is closed, connections are cut, channels are forgotten.
    pub(crate) fn stop(&mut self) {
        self.server = None;
        self.state().channels.clear();
    }

    /// Listens again, at the same port.
    pub(crate) fn resume(&mut self) {
        let address = (self.port != 0).then(|| ([127, 0, 0, 1], self.port).into());
        let shared = Arc::clone(&self.shared);
        let server = Server::start(address, self.tls.clone(), move |request| shared.handle(request));
        self.port = server.address.port();
        self.server = Some(server);
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        let (scheme, host) = if self.tls.is_some() { ("https", "localhost") } else { ("http", "127.0.0.1") };
        format!("{scheme}://{host}:{}", self.port)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("state")
    }

    /// What was taken.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.state().events.clone()
    }

    /// How many events were taken.
    pub(crate) fn count(&self) -> usize {
        self.state().events.len()
    }

    /// The requests with events.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.state().requests.clone()
    }

    /// How often an indexer was asked about what another one had.
    pub(crate) fn asked_elsewhere(&self) -> u32 {
        self.state().acked_elsewhere
    }

    /// Forgets what was taken.
    pub(crate) fn clear(&self) {
        *self.state() = State::default();
    }

    /// The record ids with how often each came.
    pub(crate) fn ids(&self) -> BTreeMap<String, usize> {
        let mut ids = BTreeMap::new();
        for event in &self.state().events {
            *ids.entry(record_id(&event.envelope["event"])).or_insert(0) += 1;
        }
        ids
    }
}

/// The id of the record in an envelope, whatever its form.
pub(crate) fn record_id(event: &Value) -> String {
    let parsed: Value = match event {
        Value::String(text) => serde_json::from_str(text).expect("an event is JSON"),
        other => other.clone(),
    };
    parsed["Id"].as_str().or(parsed["metadata"]["uid"].as_str()).expect("an id").to_owned()
}

fn say(http: u16, body: &Value) -> Reply {
    Reply::Answer { http, headers: Vec::new(), body: body.to_string() }
}

fn code(http: u16, code: u64, text: &str) -> Reply {
    say(http, &json!({ "text": text, "code": code }))
}

impl Shared {
    fn handle(&self, request: &Request) -> Reply {
        if request.path.starts_with("/services/collector/health") {
            let (http, number) = self.behaviour.lock().expect("behaviour").health;
            let text = if number == 17 { "HEC is healthy" } else { "HEC is unhealthy" };
            return code(http, number, text);
        }
        match request.headers.get("authorization").map(String::as_str) {
            None => return code(401, 2, "Token is required"),
            Some(given) => match given.strip_prefix("Splunk ") {
                None => return code(401, 3, "Invalid authorization"),
                Some(token) if token != TOKEN => return code(403, 4, "Invalid token"),
                Some(_) => {}
            },
        }
        // A load balancer that knows the client by a cookie, and otherwise takes turns.
        let behaviour = self.behaviour.lock().expect("behaviour").clone();
        let cookie = request.headers.get("cookie").and_then(|cookies| {
            cookies.split("; ").find_map(|cookie| cookie.strip_prefix("indexer=")?.parse::<usize>().ok())
        });
        let indexer =
            cookie.unwrap_or_else(|| self.next_indexer.fetch_add(1, Ordering::Relaxed) % behaviour.indexers);
        let reply = match request.path.as_str() {
            "/services/collector/event" => self.take(request, &behaviour, indexer),
            "/services/collector/ack" => self.tell(request, &behaviour, indexer),
            _ => Reply::Answer { http: 404, headers: Vec::new(), body: "not here".to_owned() },
        };
        match reply {
            Reply::Answer { http, mut headers, body } if behaviour.indexers > 1 && cookie.is_none() => {
                headers.push(("set-cookie".to_owned(), format!("indexer={indexer}; Path=/; HttpOnly")));
                Reply::Answer { http, headers, body }
            }
            reply => reply,
        }
    }

    fn take(&self, request: &Request, behaviour: &Behaviour, indexer: usize) -> Reply {
        let channel = request.headers.get("x-splunk-request-channel").cloned();
        if behaviour.acks != Acks::Off {
            match &channel {
                None => return code(400, 10, "Data channel is missing"),
                Some(channel) if channel.len() != 36 => return code(400, 11, "Invalid data channel"),
                Some(_) => {}
            }
        }
        if request.body.is_empty() {
            return code(400, 5, "No data");
        }
        if request.body.len() > behaviour.max_body {
            let body = "<html><h1>413 Request Entity Too Large</h1></html>".to_owned();
            return Reply::Answer { http: 413, headers: Vec::new(), body };
        }
        let mut envelopes = Vec::new();
        for envelope in serde_json::Deserializer::from_slice(&request.body).into_iter::<Value>() {
            match envelope {
                Ok(envelope) => envelopes.push(envelope),
                Err(_) => return code(400, 6, "Invalid data format"),
            }
        }
        {
            let mut state = self.state.lock().expect("state");
            state.requests.push(Seen {
                channel: channel.clone(),
                gzip: request.headers.contains_key("content-encoding"),
                sent: request.sent,
                plain: request.body.len(),
                agent: request.headers.get("user-agent").cloned().unwrap_or_default(),
            });
        }
        let act = {
            let mut behaviour = self.behaviour.lock().expect("behaviour");
            behaviour.script.pop_front().or_else(|| behaviour.always.clone())
        };
        match act {
            None => {}
            Some(Act::Say { http, body, retry_after, take }) => {
                let mut body = body;
                if take {
                    let id = self.index(envelopes, behaviour, indexer, channel.as_deref());
                    if let (Some(id), Ok(mut said)) = (id, serde_json::from_str::<Value>(&body)) {
                        said["ackId"] = id.into();
                        body = said.to_string();
                    }
                }
                let headers = retry_after
                    .map(|after| ("retry-after".to_owned(), after.to_string()))
                    .into_iter()
                    .collect();
                return Reply::Answer { http, headers, body };
            }
            Some(Act::TakeAndCut) => {
                self.index(envelopes, behaviour, indexer, channel.as_deref());
                return Reply::Cut;
            }
            Some(Act::Cut) => return Reply::Cut,
            Some(Act::TakeAndStall(time)) => {
                self.index(envelopes, behaviour, indexer, channel.as_deref());
                return Reply::Stall(time);
            }
        }
        if let Some(index) = &behaviour.index
            && let Some(number) =
                envelopes.iter().position(|envelope| envelope["index"].as_str() != Some(index))
        {
            let said = json!({ "text": "Incorrect index", "code": 7, "invalid-event-number": number });
            return say(400, &said);
        }
        if let Some((poison, number)) = &behaviour.poison
            && let Some(at) =
                envelopes.iter().position(|envelope| envelope["event"].to_string().contains(poison.as_str()))
        {
            if behaviour.takes_prefix {
                envelopes.truncate(at);
                self.index(envelopes, behaviour, indexer, channel.as_deref());
            }
            let mut said = json!({ "text": "Invalid data format", "code": number });
            if let Some(from) = behaviour.counts_from {
                said["invalid-event-number"] = (at + from).into();
            }
            return say(400, &said);
        }
        match self.index(envelopes, behaviour, indexer, channel.as_deref()) {
            Some(id) => say(200, &json!({ "text": "Success", "code": 0, "ackId": id })),
            None => code(200, 0, "Success"),
        }
    }

    /// Takes the events; gives the id of the request.
    fn index(
        &self,
        envelopes: Vec<Value>,
        behaviour: &Behaviour,
        indexer: usize,
        channel: Option<&str>,
    ) -> Option<usize> {
        let mut state = self.state.lock().expect("state");
        let at = Instant::now();
        state.events.extend(envelopes.into_iter().map(|envelope| Event { at, envelope }));
        if behaviour.acks == Acks::Off || !behaviour.gives_ids {
            return None;
        }
        let ids = state.channels.entry((indexer, channel.unwrap_or_default().to_owned())).or_default();
        ids.push(false);
        Some(ids.len() - 1)
    }

    fn tell(&self, request: &Request, behaviour: &Behaviour, indexer: usize) -> Reply {
        if behaviour.acks == Acks::Off {
            return code(400, 14, "ACK is disabled");
        }
        assert!(!request.headers.contains_key("content-encoding"), "a question is not compressed");
        let Some(channel) = request.headers.get("x-splunk-request-channel") else {
            return code(400, 10, "Data channel is missing");
        };
        let question: Value = serde_json::from_slice(&request.body).expect("a question is JSON");
        let asked: Vec<usize> = question["acks"]
            .as_array()
            .expect("a list of ids")
            .iter()
            .map(|id| id.as_u64().expect("a number") as usize)
            .collect();
        assert!(asked.len() <= 1000, "{} ids at once", asked.len());
        let mut state = self.state.lock().expect("state");
        let lost = {
            let mut behaviour = self.behaviour.lock().expect("behaviour");
            match &mut behaviour.acks {
                Acks::LoseReplies(left) if *left > 0 => {
                    *left -= 1;
                    true
                }
                _ => false,
            }
        };
        let elsewhere = (0..behaviour.indexers)
            .any(|other| other != indexer && state.channels.contains_key(&(other, channel.clone())));
        state.acked_elsewhere += u32::from(elsewhere);
        let ids = state.channels.get_mut(&(indexer, channel.clone()));
        let mut acks = serde_json::Map::new();
        let mut none = Vec::new();
        let ids = ids.unwrap_or(&mut none);
        for id in asked {
            // An id is told once, as Splunk does.
            let told = ids.get_mut(id).is_some_and(|told| !std::mem::replace(told, true));
            acks.insert(id.to_string(), Value::Bool(told && behaviour.acks != Acks::Never));
        }
        if lost { Reply::Cut } else { say(200, &json!({ "acks": acks })) }
    }
}
