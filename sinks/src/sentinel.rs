//! The `sentinel` sink: a table of a Log Analytics workspace, by the Logs Ingestion API of Azure Monitor.
//!
//! | file | what it holds |
//! |---|---|
//! | `sentinel.rs` | [`SentinelSink`]: the sink, and what becomes of one batch |
//! | `sentinel/config.rs` | [`SentinelConfig`]: how it is configured |
//! | `sentinel/rows.rs` | from a batch to the body of a request; pure |
//! | `sentinel/answer.rs` | what the service's answers mean; pure |
//! | `sentinel/rules.rs` | the data collection rules: balance, limits, which is left alone |
//! | `sentinel/counters.rs` | what it counts |
//!
//! # What it promises
//!
//! * Every record at least once, as far as the service says: 204 is the receipt. A record comes twice only after an
//!   outcome that nobody knows (a cut connection, a time that ran out, a 5xx, a process that was killed), and then it is
//!   counted as resent.
//! * No request is larger than the service takes, before and after compression, and no rule gets more in a minute than
//!   it takes.
//! * No value is longer than Log Analytics keeps: a longer one is cut before, and its row says so.
//! * One record that the service will never take becomes a dead letter, alone; a rule that takes nothing at all makes
//!   none.

mod answer;
mod config;
mod counters;
mod rows;
mod rules;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use entra::{TokenError, TokenSource, error::causes};
use reqwest::{
    Client,
    header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE},
};
use schemas::SinkName;
use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

pub use self::config::{BadRuleId, BadStream, Form, RuleId, SentinelConfig, StreamName};
use self::{
    answer::{Meaning, Said, meaning},
    counters::Counters,
    rows::{Body, Unfit},
    rules::{Pause, Rule, Rules},
};
use crate::{
    blocking::blocking,
    http_answer::{self, retry_after},
    measure::Measure,
    sink::{
        Batch, BoxFuture, DeliverError, Disposition, Durability, Limits, Receipt, Sink, SinkContext,
        Unfinished,
    },
};

/// A row takes at least 200 bytes, so that this bounds memory and not requests.
const BATCH_ROWS: usize = 5_000;
/// What a delivery may take beyond the times that it is made of.
const SLACK: Duration = Duration::from_secs(60);
/// How long a new role assignment takes at most to be known everywhere (Azure Monitor, "Logs Ingestion API").
const PROPAGATION: Duration = Duration::from_secs(30 * 60);
/// How long a rule that fails is left alone while there are others.
const REST: Duration = Duration::from_secs(30);
/// The longest time that is waited because a rule asked for it.
const LONGEST_REST: Duration = Duration::from_secs(600);
/// No answer of the service is longer.
const LONGEST_ANSWER: usize = 64 << 10;
/// A request without a row.
const NOTHING: &[u8] = b"[]";

/// A sink that sends to a table of a Log Analytics workspace.
pub struct SentinelSink {
    inner: Arc<Inner>,
}

struct Inner {
    context: SinkContext,
    config: SentinelConfig,
    rules: Rules,
    tokens: TokenSource,
    http: Client,
    counters: Counters,
}

/// What came back.
struct Answered {
    http: u16,
    after: Option<Duration>,
    said: Said,
    /// What Microsoft finds the request by.
    request: Uuid,
}

impl SentinelSink {
    /// A sink for these rules. It asks nobody before it is opened. It has to be made within a runtime, whose clock it
    /// uses.
    ///
    /// `http` brings proxy, certificate authorities and the bound on connecting. It must not follow redirects, because
    /// they would take the token elsewhere.
    #[must_use]
    pub fn new(config: SentinelConfig, tokens: TokenSource, http: Client, context: SinkContext) -> Self {
        let rules = Rules::new(&config);
        let inner = Inner { context, config, rules, tokens, http, counters: Counters::default() };
        Self { inner: Arc::new(inner) }
    }
}

impl Sink for SentinelSink {
    fn name(&self) -> &SinkName {
        &self.inner.context.name
    }

    fn limits(&self) -> Limits {
        let config = &self.inner.config;
        let in_flight = config.connections * config.rules.len();
        Limits {
            max_records: BATCH_ROWS,
            // The array's brackets are one more byte than its commas.
            max_bytes: config.batch_bytes.saturating_sub(1),
            beside: rows::beside(config.form),
            linger: config.linger,
            in_flight,
            ordered: in_flight == 1,
            // Its turn, and the request, which a refused token makes two.
            timeout: config.timeout * 3 + SLACK,
            exactly_once: false,
            whole_works: false,
        }
    }

    fn open(&self) -> BoxFuture<'_, Result<Vec<Unfinished>, DeliverError>> {
        Box::pin(async move {
            info!(
                sink = %self.inner.context.name,
                "delivered means: taken by the Logs Ingestion API; what does not fit the rule it drops without saying so \
                 here (see the table DCRLogErrors)"
            );
            // What a person has to do is found out before a row is sent; what can pass is left to the first batch.
            match self.inner.tokens.token().await {
                Err(error) if !error.retryable() => Err(no_token(&error)),
                _ => Ok(Vec::new()),
            }
        })
    }

    fn deliver(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, DeliverError>> {
        Box::pin(self.inner.deliver(batch))
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), DeliverError>> {
        Box::pin(self.inner.probe())
    }

    fn untried(&self) -> Option<&'static str> {
        Some("whether rows fit the rule")
    }

    fn measures(&self) -> Vec<Measure> {
        let rules = &self.inner.rules;
        self.inner.counters.measures(rules.all().len(), rules.paused())
    }
}

impl Inner {
    async fn deliver(self: &Arc<Self>, batch: Batch) -> Result<Receipt, DeliverError> {
        let coverage = batch.coverage();
        let rule = self.rules.choose().map_err(|pause| self.resting(&pause))?;
        let (records, body) = self.encode(batch).await;
        let body = match body {
            Ok(body) if body.plain.max(body.bytes.len()) <= SentinelConfig::LARGEST => body,
            Ok(body) => {
                let (plain, sent) = (body.plain, body.bytes.len());
                return Err(too_large(format!(
                    "a request of {plain} bytes ({sent} compressed) would be too large"
                )));
            }
            Err(records) => {
                let context = "some records cannot be sent".to_owned();
                return Err(DeliverError { disposition: Disposition::Reject { records }, context });
            }
        };
        let permit = tokio::time::timeout(self.config.timeout, rule.turn(body.plain)).await;
        let _permit = permit
            .map_err(|_| DeliverError::retry(format!("rule {}: earlier requests take too long", rule.id)))?;
        self.counters.body(body.plain, body.bytes.len(), body.cut);
        let (plain, sent) = (body.plain, body.bytes.len());
        let answered = self.send(rule, body.bytes, true).await;
        let answered = match answered {
            Ok(answered) => {
                self.counters.request(Some(answered.http));
                answered
            }
            Err(error) => {
                self.counters.request(None);
                if self.rules.has_others() {
                    rule.rest(REST, false, &error.context);
                }
                return Err(error);
            }
        };
        self.conclude(rule, &answered, records, (plain, sent))?;
        rule.took();
        Ok(Receipt::confirmed(coverage, Durability::Accepted))
    }

    /// Makes the body off the reactor's threads. Gives back how many records it is of.
    async fn encode(self: &Arc<Self>, batch: Batch) -> (usize, Result<Body, Unfit>) {
        let form = self.config.form;
        blocking(move || (batch.len(), rows::encode(form, &batch, Utc::now()))).await
    }

    /// Sends a body. A token that is refused is replaced once: it may have been revoked.
    async fn send(&self, rule: &Rule, body: Vec<u8>, gzip: bool) -> Result<Answered, DeliverError> {
        let token = self.tokens.token().await.map_err(|error| no_token(&error))?;
        let answered = self.post(rule, token.expose(), body.clone(), gzip).await?;
        if answered.http != 401 {
            return Ok(answered);
        }
        self.tokens.invalidate(&token);
        let token = self.tokens.token().await.map_err(|error| no_token(&error))?;
        self.post(rule, token.expose(), body, gzip).await
    }

    async fn post(
        &self,
        rule: &Rule,
        token: &str,
        body: Vec<u8>,
        gzip: bool,
    ) -> Result<Answered, DeliverError> {
        let request = Uuid::new_v4();
        let mut post = self
            .http
            .post(rule.url.clone())
            .timeout(self.config.timeout)
            .bearer_auth(token)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .header("x-ms-client-request-id", request.to_string());
        if gzip {
            post = post.header(CONTENT_ENCODING, "gzip");
        }
        let response = post.body(body).send().await.map_err(|error| {
            let not_sent = error.is_connect();
            let context = format!("{}: {}", self.config.endpoint, causes(error));
            if not_sent { DeliverError::retry(context) } else { DeliverError::ambiguous(context) }
        })?;
        let http = response.status().as_u16();
        let after = retry_after(&response);
        if http == 204 {
            return Ok(Answered { http, after, said: Said::default(), request });
        }
        let body = http_answer::body(response, LONGEST_ANSWER).await.map_err(|error| {
            DeliverError::ambiguous(format!("{}: {}", self.config.endpoint, causes(error)))
        })?;
        Ok(Answered { http, after, said: Said::read(&body), request })
    }

    /// What an answer to rows means: taken, or an error.
    fn conclude(
        &self,
        rule: &Rule,
        answered: &Answered,
        records: usize,
        (plain, sent): (usize, usize),
    ) -> Result<(), DeliverError> {
        let what = self.told(rule, answered);
        let retry = |after, ambiguous, context| {
            Err(DeliverError { disposition: Disposition::Retry { after, ambiguous }, context })
        };
        match meaning(answered.http, answered.after, &answered.said) {
            Meaning::Taken => Ok(()),
            Meaning::Throttled { after } => self.throttled(rule, after, what),
            Meaning::Failed { after } => {
                if self.rules.has_others() {
                    rule.rest(after.unwrap_or(REST).min(LONGEST_REST), after.is_some(), &what);
                    return retry(after.map(|_| Duration::ZERO), true, what);
                }
                self.context.rate.rest(after.unwrap_or_default().min(LONGEST_REST));
                retry(after, true, what)
            }
            Meaning::TooLarge => Err(too_large(format!(
                "{what}: {records} records in {plain} bytes ({sent} compressed) are too large for it"
            ))),
            Meaning::Unreadable if records > 1 => {
                Err(DeliverError { disposition: Disposition::Split, context: what })
            }
            Meaning::Unreadable if rule.vouches() => {
                let why = format!("{what}; it takes others, so it is this record that it cannot read");
                let records = vec![(0, why)];
                Err(DeliverError { disposition: Disposition::Reject { records }, context: what })
            }
            // Were it the rule that is wrong, every record would become a dead letter.
            Meaning::Unreadable => retry(
                None,
                false,
                format!(
                    "{what}; it has taken nothing else since, so it may be the rule that is at fault: compare its stream \
                     with what `mailtrail sentinel template` prints (portal > Monitor > Data Collection Rules > the rule \
                     > JSON View). Nothing becomes a dead letter before it takes something"
                ),
            ),
            Meaning::BadToken => Err(DeliverError::halt(format!("{what}; {BAD_TOKEN}"))),
            Meaning::NoRole => self.no_role(rule, &what),
            Meaning::Refused { advice } => Err(DeliverError::halt(format!("{what}; {advice}"))),
        }
    }

    /// The rule's limit is reached, by others who send to it or in spite of us.
    fn throttled(&self, rule: &Rule, after: Option<Duration>, what: String) -> Result<(), DeliverError> {
        let wait = after.unwrap_or(REST).min(LONGEST_REST);
        let after = if self.rules.has_others() {
            rule.rest(wait, true, &what);
            // Another one may take it now.
            Duration::ZERO
        } else {
            self.context.rate.rest(wait);
            wait
        };
        let disposition = Disposition::Retry { after: Some(after), ambiguous: false };
        Err(DeliverError { disposition, context: what })
    }

    fn no_role(&self, rule: &Rule, what: &str) -> Result<(), DeliverError> {
        let refusing = rule.refuses();
        if refusing >= PROPAGATION {
            return Err(DeliverError::halt(format!("{what}; {NO_ROLE}")));
        }
        let context = format!(
            "{what}; a new role assignment takes up to 30 minutes to be known, so it is tried again (for {} s until now). \
             If there is none: {NO_ROLE}",
            refusing.as_secs()
        );
        if self.rules.has_others() {
            rule.rest(REST, false, &context);
        }
        Err(DeliverError::retry(context))
    }

    /// Every rule rests.
    fn resting(&self, pause: &Pause) -> DeliverError {
        let wait = pause.until.saturating_duration_since(Instant::now());
        let after = pause.asked.then_some(wait);
        self.context.rate.rest(after.unwrap_or_default());
        let disposition = Disposition::Retry { after, ambiguous: false };
        DeliverError { disposition, context: format!("every rule rests, one because {}", pause.why) }
    }

    /// Whether rows could be delivered, as far as that can be told without one: an empty list is taken, or refused for
    /// being empty, from whoever is let in.
    async fn probe(&self) -> Result<(), DeliverError> {
        for rule in self.rules.all() {
            let answered = self.send(rule, NOTHING.to_vec(), false).await?;
            let what = self.told(rule, &answered);
            match meaning(answered.http, answered.after, &answered.said) {
                Meaning::Taken | Meaning::Unreadable | Meaning::TooLarge => {}
                Meaning::Throttled { .. } => {
                    warn!(sink = %self.context.name, "{what}; it is let in, so that passes");
                }
                Meaning::Failed { .. } => return Err(DeliverError::retry(what)),
                Meaning::BadToken => return Err(DeliverError::halt(format!("{what}; {BAD_TOKEN}"))),
                Meaning::NoRole => self.no_role(rule, &what)?,
                Meaning::Refused { advice } => return Err(DeliverError::halt(format!("{what}; {advice}"))),
            }
        }
        Ok(())
    }

    /// What the service answered, in words.
    fn told(&self, rule: &Rule, answered: &Answered) -> String {
        let Said { code, text } = &answered.said;
        let said = match (code.as_str(), text.as_str()) {
            ("", "") => String::new(),
            (code, "") => format!(" ({code})"),
            ("", text) => format!(": {text}"),
            (code, text) => format!(" ({code}): {text}"),
        };
        let Answered { http, request, .. } = answered;
        format!("rule {} answered {http}{said} [request {request}]", rule.id)
    }
}

const BAD_TOKEN: &str = "the token is not taken: are `cloud` and `tenant_id` those of the workspace's subscription (portal > \
    Subscriptions > the subscription > Parent management group and directory, or `az account show --query tenantId`)?";

const NO_ROLE: &str = "give the application (its Enterprise application, not the app registration) the role Monitoring \
    Metrics Publisher on the rule: portal > Monitor > Data Collection Rules > the rule > Access control (IAM) > Add role \
    assignment, or `az role assignment create --role \"Monitoring Metrics Publisher\" --assignee-object-id OBJECT_ID \
    --assignee-principal-type ServicePrincipal --scope RULE_RESOURCE_ID`";

fn too_large(context: String) -> DeliverError {
    DeliverError { disposition: Disposition::Split, context }
}

fn no_token(error: &TokenError) -> DeliverError {
    let context = format!("{error}; {}", error.advice());
    if error.retryable() {
        let disposition = Disposition::Retry { after: error.retry_after(), ambiguous: false };
        DeliverError { disposition, context }
    } else {
        DeliverError::halt(context)
    }
}
