//! The keys of `type = "sentinel"`.

use std::{num::NonZeroU32, time::Duration};

use entra::{Scope, ServiceUrl, TokenSource};
use sinks::sentinel::{BadRuleId, BadStream, RuleId, SentinelConfig, StreamName};
use toml::de::DeValue;
use transform::options::View;

use super::{
    super::{
        reader::Section,
        value::{Bytes, FromToml, Misfit, text},
    },
    azure::{AzureCloud, EntraLogin},
};
use crate::sentinel::Target;

/// A `sentinel` sink as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SentinelSinkConfig {
    /// What the sink wants to know.
    pub(crate) sentinel: SentinelConfig,
    login: EntraLogin,
}

impl SentinelSinkConfig {
    /// What gives out access tokens. Nothing is asked for yet.
    ///
    /// # Errors
    ///
    /// When the platform does not offer the identity that is configured.
    pub(crate) fn tokens(&self, http: &reqwest::Client) -> Result<TokenSource, String> {
        self.login.tokens("sink", http)
    }
}

impl FromToml for RuleId {
    const EXPECTED: &'static str =
        "the immutable id of a data collection rule: dcr- and 32 hexadecimal digits";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Misfit> {
        text(value)?.parse().map_err(|error: BadRuleId| Misfit::Value(error.to_string()))
    }
}

impl FromToml for StreamName {
    const EXPECTED: &'static str = "the name of a stream such as \"Custom-MailtrailAsim_CL\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Misfit> {
        text(value)?.parse().map_err(|error: BadStream| Misfit::Value(error.to_string()))
    }
}

/// Shorter, a service that is merely slow would get everything twice.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Less would waste the requests that a rule takes in a minute.
const SMALLEST_BATCH: u64 = 10_000;

/// Reads the keys that only this kind of sink has. The view is the section's own, or the default of this kind.
pub(super) fn read(section: &mut Section<'_>, view: View) -> Option<SentinelSinkConfig> {
    let target = Target::of(view);
    if target.is_none() {
        section.wrong("view", "can be \"asim\", \"officeactivity\" or \"raw\" for a sentinel sink");
    }
    let endpoint: Option<ServiceUrl> = section.require(
        "endpoint",
        "it is the logs ingestion address: portal > Monitor > Data Collection Endpoints > Overview > Logs ingestion, such as \
         \"https://mailtrail-abcd.westeurope-1.ingest.monitor.azure.com\"",
    );
    let rules = read_rules(section);
    let stream: Option<StreamName> = section.get("stream");
    let (authority, scope) = read_cloud(section);
    let login = EntraLogin::read(section, true, authority, scope);
    let Bytes(batch_bytes) = section.get_or("batch_bytes", Bytes(SentinelConfig::LARGEST as u64));
    if !(SMALLEST_BATCH..=SentinelConfig::LARGEST as u64).contains(&batch_bytes) {
        section.wrong("batch_bytes", "must be from 10KB to 1MB, which is the most that the service takes");
    }
    let linger = section.get_or("linger", Duration::from_secs(5));
    if linger > Duration::from_secs(60) {
        section.wrong("linger", "can be at most 60s");
    }
    let connections: Option<NonZeroU32> = section.get("connections");
    let connections = connections.map_or(4, |number| number.get() as usize);
    if connections > 64 {
        section.wrong("connections", "can be at most 64");
    }
    let timeout = section.get_or("timeout", Duration::from_secs(60));
    if timeout < SHORTEST_TIMEOUT {
        section
            .wrong("timeout", "must be at least 5s: what takes longer is sent again, and may arrive twice");
    }
    let target = target?;
    Some(SentinelSinkConfig {
        sentinel: SentinelConfig {
            endpoint: endpoint?,
            rules: rules?,
            stream: stream.unwrap_or_else(|| target.stream()),
            form: target.form(),
            batch_bytes: usize::try_from(batch_bytes).unwrap_or(SentinelConfig::LARGEST),
            linger,
            connections,
            timeout,
        },
        login: login?,
    })
}

fn read_rules(section: &mut Section<'_>) -> Option<Vec<RuleId>> {
    let (one, several): (Option<RuleId>, Option<Vec<RuleId>>) =
        (section.get("dcr_immutable_id"), section.list("dcr_immutable_ids"));
    match (section.has("dcr_immutable_id"), section.has("dcr_immutable_ids")) {
        (true, true) => {
            section.wrong("dcr_immutable_ids", "stands beside `dcr_immutable_id`; write all of them into the list");
        }
        (false, false) => section.missing(
            "dcr_immutable_id",
            "it is the `immutableId` of the data collection rule, which the deployment prints: portal > Monitor > Data \
             Collection Rules > the rule > JSON View",
        ),
        _ => {}
    }
    if let Some(several) = &several
        && let Some(twice) =
            several.iter().enumerate().find_map(|(n, rule)| several[..n].contains(rule).then_some(rule))
    {
        section.wrong("dcr_immutable_ids", format!("names {twice} twice"));
    }
    several.or_else(|| one.map(|one| vec![one]))
}

/// Where tokens come from, and what they are for.
fn read_cloud(section: &mut Section<'_>) -> (Option<ServiceUrl>, Option<Scope>) {
    let cloud = AzureCloud::read(section);
    let authority: Option<ServiceUrl> = section.get("authority");
    let scope: Option<String> = section.get("scope");
    let resource = scope.as_deref().map(|scope| scope.parse::<Scope>());
    if let Some(Err(error)) = &resource {
        section.wrong("scope", format!("cannot be used: {error}"));
    }
    let Some(cloud) = cloud else { return (None, None) };
    match cloud.authority() {
        Some(authority) => {
            for key in ["authority", "scope"].into_iter().filter(|key| section.has(key)) {
                section.wrong(key, "needs cloud = \"custom\"; the other clouds have fixed addresses");
            }
            (Some(authority), cloud.monitor())
        }
        None => {
            for (key, example) in [
                ("authority", "https://login.microsoftonline.com"),
                ("scope", "https://monitor.azure.com/.default"),
            ] {
                if !section.has(key) {
                    section.missing(key, &format!("cloud = \"custom\" needs it, such as \"{example}\""));
                }
            }
            (authority, resource.and_then(Result::ok))
        }
    }
}
