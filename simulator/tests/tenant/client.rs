//! A small collector: polite, patient and without mercy for what is not as it should be.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    sync::LazyLock,
};

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Method, Response, StatusCode, header::HeaderMap};
use serde_json::Value;
use simulator::{Running, Simulator, SimulatorConfig, TenantConfig};

pub(crate) struct Client {
    pub(crate) http: reqwest::Client,
    pub(crate) base: String,
    pub(crate) tenant: String,
    pub(crate) token: String,
    pub(crate) publisher: bool,
}

/// An answer, read to its end if it has one.
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// None: the connection was cut.
    pub(crate) body: Option<Vec<u8>>,
}

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(self.body.as_deref().unwrap_or_default()).unwrap_or_default()
    }

    /// `error.code`.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

pub(crate) async fn start(config: SimulatorConfig) -> Running {
    Simulator::start(config, ([127, 0, 0, 1], 0).into()).await.unwrap()
}

/// A simulation whose subscriptions are enabled, and a client with a token.
pub(crate) async fn started(config: SimulatorConfig) -> (Running, Client) {
    let running = start(SimulatorConfig { subscribed: true, ..config }).await;
    let client = Client::new(&running).await;
    (running, client)
}

async fn read(response: Response) -> Got {
    let (status, headers) = (response.status(), response.headers().clone());
    Got { status, headers, body: response.bytes().await.ok().map(|body| body.to_vec()) }
}

impl Client {
    pub(crate) fn without_token(running: &Running) -> Self {
        // One for all tests, because making one is slow; without idle connections, because each test has a runtime of
        // its own, with which they would die.
        static HTTP: LazyLock<reqwest::Client> = LazyLock::new(|| {
            let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
            builder.pool_max_idle_per_host(0).build().unwrap()
        });
        let http = HTTP.clone();
        let tenant = TenantConfig::default().tenant_id.to_string();
        Self { http, base: running.base_url(), tenant, token: String::new(), publisher: true }
    }

    pub(crate) async fn new(running: &Running) -> Self {
        let mut client = Self::without_token(running);
        client.log_in().await;
        client
    }

    pub(crate) async fn log_in(&mut self) {
        for _ in 0..10 {
            let got = self.ask_token(&[]).await;
            if got.status == StatusCode::OK {
                self.token = got.json()["access_token"].as_str().unwrap().to_owned();
                return;
            }
        }
        panic!("no token after ten attempts");
    }

    /// Asks for a token with the default secret; `change` replaces or (with an empty value) removes fields.
    pub(crate) async fn ask_token(&self, change: &[(&str, &str)]) -> Got {
        let config = TenantConfig::default();
        let scope = format!("{}/.default", self.base);
        let mut form = BTreeMap::from([
            ("grant_type", "client_credentials"),
            ("client_id", &config.client_id),
            ("client_secret", config.client_secret.as_deref().unwrap()),
            ("scope", &scope),
        ]);
        form.extend(change.iter().copied());
        form.retain(|_, value| !value.is_empty());
        let url = format!("{}/{}/oauth2/v2.0/token", self.base, self.tenant);
        read(self.http.post(url).form(&form).send().await.unwrap()).await
    }

    pub(crate) async fn request(&self, method: Method, url: &str, headers: &[(&str, &str)]) -> Got {
        let mut url = url.to_owned();
        if self.publisher {
            url += if url.contains('?') { "&" } else { "?" };
            url += &format!("PublisherIdentifier={}", self.tenant);
        }
        let mut request = self.http.request(method.clone(), url);
        if method == Method::POST {
            request = request.header("content-length", "0");
        }
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match request.send().await {
            Ok(response) => read(response).await,
            Err(_) => Got { status: StatusCode::IM_A_TEAPOT, headers: HeaderMap::new(), body: None },
        }
    }

    pub(crate) fn feed(&self, path: &str) -> String {
        format!("{}/api/v1.0/{}/activity/feed/{path}", self.base, self.tenant)
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        self.request(Method::GET, &self.feed(path), &[]).await
    }

    pub(crate) async fn post(&self, path: &str) -> Got {
        self.request(Method::POST, &self.feed(path), &[]).await
    }

    pub(crate) async fn fetch(&self, content_id: &str) -> Got {
        self.get(&format!("audit/{content_id}")).await
    }

    pub(crate) fn window(content_type: &str, start: DateTime<Utc>, end: DateTime<Utc>) -> String {
        let form = "%Y-%m-%dT%H:%M:%S%.3fZ";
        format!(
            "subscriptions/content?contentType={content_type}&startTime={}&endTime={}",
            start.format(form),
            end.format(form)
        )
    }

    /// Every entry of a window, all pages, trying again until it works.
    pub(crate) async fn list(
        &self,
        content_type: &str,
        start: DateTime<Utc>,
        end: DateTime<Utc>,
    ) -> Vec<Value> {
        'window: for _ in 0..200 {
            let mut entries = Vec::new();
            let mut next = Some(self.feed(&Self::window(content_type, start, end)));
            let mut patience = 20;
            while let Some(url) = next.clone() {
                if !url.starts_with(&format!("{}/", self.base)) {
                    continue 'window;
                }
                let got = self.request(Method::GET, &url, &[]).await;
                match got.json() {
                    Value::Array(page) if got.status == StatusCode::OK => {
                        entries.extend(page);
                        next = got.header("NextPageUri").map(str::to_owned);
                    }
                    _ if got.code() == "AF20031" => continue 'window,
                    _ if patience > 0 => patience -= 1,
                    _ => panic!("a page never comes: {} {:?}", got.status, got.body),
                }
            }
            return entries;
        }
        panic!("the window was never listed to its end");
    }

    /// Every entry of the last 24 hours.
    pub(crate) async fn day(&self, running: &Running) -> Vec<Value> {
        let now = running.now();
        self.list("Audit.Exchange", now - TimeDelta::hours(24), now).await
    }

    /// A blob's records, trying again until they come; none for a gap.
    pub(crate) async fn records(&self, content_id: &str, gzip: bool) -> Option<Vec<Value>> {
        for _ in 0..30 {
            let accept: &[_] = if gzip { &[("accept-encoding", "gzip")] } else { &[] };
            let got = self.request(Method::GET, &self.feed(&format!("audit/{content_id}")), accept).await;
            if ["AF20050", "AF20051"].contains(&got.code().as_str()) {
                return None;
            }
            let complete = got.status == StatusCode::OK && got.header("NextPageUri").is_none();
            let Some(mut body) = got.body.filter(|_| complete) else { continue };
            if got.headers.get("content-encoding").is_some_and(|value| value == "gzip") {
                let mut plain = Vec::new();
                if flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain).is_err() {
                    continue;
                }
                body = plain;
            }
            let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&body);
            if let Ok(Value::Array(records)) = serde_json::from_slice(body) {
                return Some(records);
            }
        }
        panic!("{content_id} never came");
    }

    /// Collects a day and an hour of one content type: how many records there are without duplicates, their ids, and
    /// how many blobs are gaps.
    pub(crate) async fn collect(&self, running: &Running, gzip: bool) -> Collected {
        let mut collected = Collected::default();
        let now = running.now();
        let start = now - TimeDelta::hours(26);
        let mut blobs = BTreeSet::new();
        for (from, to) in [(start, start + TimeDelta::hours(13)), (start + TimeDelta::hours(13), now)] {
            for entry in self.list("Audit.Exchange", from, to).await {
                blobs.insert(entry["contentId"].as_str().unwrap().to_owned());
            }
        }
        for blob in &blobs {
            match self.records(blob, gzip).await {
                None => collected.gaps += 1,
                Some(records) => collected.ids.extend(records.iter().map(|record| record["Id"].to_string())),
            }
        }
        collected.raw = collected.ids.len();
        collected.ids.sort();
        collected.ids.dedup();
        collected
    }
}

#[derive(Default)]
pub(crate) struct Collected {
    /// Without duplicates.
    pub(crate) ids: Vec<String>,
    /// With them.
    pub(crate) raw: usize,
    pub(crate) gaps: usize,
}
