//! How a `sentinel` sink is configured.

use std::{fmt, str::FromStr, time::Duration};

use entra::ServiceUrl;
use url::Url;

/// The version of the Logs Ingestion API.
const API_VERSION: &str = "2023-01-01";

/// The keys of a `sentinel` sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentinelConfig {
    /// The logs ingestion endpoint, of a data collection endpoint or of the rule itself.
    pub endpoint: ServiceUrl,
    /// The data collection rules that share the load; at least one.
    pub rules: Vec<RuleId>,
    /// The stream of these rules that the rows go to.
    pub stream: StreamName,
    /// What a row is made of.
    pub form: Form,
    /// The most bytes of a request, before compression; at most [`SentinelConfig::LARGEST`].
    pub batch_bytes: usize,
    /// How long a row waits for others to travel with it.
    pub linger: Duration,
    /// The most requests at once for each rule.
    pub connections: usize,
    /// How long a request may take.
    pub timeout: Duration,
}

impl SentinelConfig {
    /// The largest request. The service's limit is 1 MB, before and after compression (Azure Monitor service limits,
    /// "Logs Ingestion API"); whether that is 1,000,000 bytes or 1,048,576 it does not say, so it is the lower.
    pub const LARGEST: usize = 1_000_000;

    /// Where rows for this rule go.
    pub(super) fn url(&self, rule: &RuleId) -> Url {
        let mut url =
            self.endpoint.join(&["dataCollectionRules", rule.as_str(), "streams", self.stream.as_str()]);
        url.query_pairs_mut().append_pair("api-version", API_VERSION);
        url
    }
}

/// What a row is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The rendered record is a row already, whose members are columns.
    Columns {
        /// Members that are left out, because Log Analytics reserves their names for columns of its own.
        without: &'static [&'static str],
    },
    /// The rendered record is the record itself. It stands whole in the column `Record`, beside `TimeGenerated`.
    Record,
}

/// The immutable id of a data collection rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RuleId(String);

/// The text is no immutable id of a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no immutable id of a data collection rule, which is dcr- and 32 hexadecimal digits (not its name, nor its \
     resource id): portal > Monitor > Data Collection Rules > the rule > JSON View, or `az monitor data-collection rule \
     show --name RULE --resource-group GROUP --query immutableId`"
)]
pub struct BadRuleId {
    /// What was given instead.
    pub text: String,
}

impl RuleId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RuleId {
    type Err = BadRuleId;

    fn from_str(text: &str) -> Result<Self, BadRuleId> {
        let digits = text.strip_prefix("dcr-").filter(|digits| digits.len() == 32);
        if digits.is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit())) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadRuleId { text: text.to_owned() })
        }
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The name of a stream that a rule declares.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamName(String);

/// The text names no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} names no stream: for a table of your own it is Custom- and the table's name, such as \
     \"Custom-MailtrailAsim_CL\""
)]
pub struct BadStream {
    /// What was given instead.
    pub text: String,
}

impl StreamName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StreamName {
    type Err = BadStream;

    fn from_str(text: &str) -> Result<Self, BadStream> {
        let name = ["Custom-", "Microsoft-"].iter().find_map(|kind| text.strip_prefix(kind));
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_some_and(|name| (1..=100).contains(&name.len()) && name.bytes().all(known)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadStream { text: text.to_owned() })
        }
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::config, *};

    #[test]
    fn the_address_is_that_of_the_reference() {
        let config = config();
        assert_eq!(
            config.url(&config.rules[0]).as_str(),
            "https://mailtrail-abcd.westeurope-1.ingest.monitor.azure.com/dataCollectionRules/\
             dcr-00112233445566778899aabbccddeeff/streams/Custom-MailtrailAsim_CL?api-version=2023-01-01"
        );
    }

    #[test]
    fn names_and_resource_ids_are_no_immutable_ids() {
        for text in [
            "",
            "mailtrail-asim",
            "dcr-",
            "dcr-0011",
            "dcr-00112233445566778899aabbccddeefg",
            "/subscriptions/x/resourceGroups/y/providers/Microsoft.Insights/dataCollectionRules/z",
        ] {
            let error = text.parse::<RuleId>().unwrap_err().to_string();
            assert!(error.contains("immutableId"), "{error}");
        }
    }

    #[test]
    fn streams_say_of_which_kind_they_are() {
        for text in ["Custom-MailtrailAsim_CL", "Microsoft-ASimAuditEventLogs", "Custom-Text-x.y_CL"] {
            assert_eq!(text.parse::<StreamName>().unwrap().to_string(), text);
        }
        for text in ["", "MailtrailAsim_CL", "Custom-", "Custom-a/b", "custom-x", "Custom-a b"] {
            assert!(text.parse::<StreamName>().is_err(), "{text}");
        }
    }
}
