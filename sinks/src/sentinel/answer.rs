//! What the Logs Ingestion API answers, and what that means. Pure.
//!
//! The service takes a request whole or not at all, and says that it took it with 204 and nothing else. What it does with
//! rows that do not fit the rule it does not say: see `docs/sentinel.md`.

use std::time::Duration;

use serde::Deserialize;

use crate::http_answer::excerpt;

/// The longest part of an answer that is shown.
const EXCERPT: usize = 300;

/// What the body says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// The service's code, such as `InvalidStream`.
    pub(super) code: String,
    /// Its message, or the beginning of what came instead.
    pub(super) text: String,
}

/// What an answer means for the rows of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// They were taken.
    Taken,
    /// The rule's limit is reached. None was taken.
    Throttled {
        /// How long it asked to wait.
        after: Option<Duration>,
    },
    /// It failed, and trying again can help. Nobody knows whether they were taken.
    Failed {
        /// How long it asked to wait.
        after: Option<Duration>,
    },
    /// The request is too large. None was taken.
    TooLarge,
    /// One of the rows cannot be read. None was taken.
    Unreadable,
    /// The token is not taken.
    BadToken,
    /// The application may not send to the rule, or not yet.
    NoRole,
    /// A person has to do something. None was taken.
    Refused {
        /// What.
        advice: &'static str,
    },
}

/// What to do when there is no such rule or stream.
const COMPARE: &str = "compare `endpoint`, `dcr_immutable_id` and `stream` with the rule: portal > Monitor > Data Collection \
    Rules > the rule > JSON View, or `az monitor data-collection rule show --name RULE --resource-group GROUP --query \
    '{id: immutableId, streams: streamDeclarations}'`; the endpoint is portal > Monitor > Data Collection Endpoints > \
    Overview > Logs ingestion";

impl Said {
    /// Reads the body as far as it is the service's: `{"error": {"code": …, "message": …}}`.
    pub(super) fn read(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Answer {
            error: Error,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Error {
            code: String,
            message: String,
        }
        match serde_json::from_slice(body) {
            Ok(Answer { error }) => {
                Self { code: excerpt(&error.code, EXCERPT), text: excerpt(&error.message, EXCERPT) }
            }
            Err(_) => Self { code: String::new(), text: excerpt(&String::from_utf8_lossy(body), EXCERPT) },
        }
    }

    /// Whether it is about the rule or its stream, and not about the rows.
    fn is_about_the_rule(&self) -> bool {
        let words = ["stream", "data collection", "immutable", "api-version", "api version"];
        let text = format!("{} {}", self.code, self.text).to_ascii_lowercase();
        words.iter().any(|word| text.contains(word))
    }
}

/// What an answer means for the rows of the request.
pub(super) fn meaning(http: u16, after: Option<Duration>, said: &Said) -> Meaning {
    match http {
        204 => Meaning::Taken,
        // A proxy's page says nothing about what became of the rows.
        200..=299 => Meaning::Failed { after: None },
        300..=399 => Meaning::Refused {
            advice: "it sends elsewhere, and the token must not follow: is `endpoint` the logs ingestion address, with \
                     https://, and what stands in between?",
        },
        400 if said.is_about_the_rule() => Meaning::Refused { advice: COMPARE },
        400 => Meaning::Unreadable,
        401 => Meaning::BadToken,
        403 => Meaning::NoRole,
        404 => Meaning::Refused { advice: COMPARE },
        407 => Meaning::Refused { advice: "the proxy wants a user and a password: see [network] proxy" },
        413 => Meaning::TooLarge,
        429 => Meaning::Throttled { after },
        408 | 500..=599 => Meaning::Failed { after },
        _ => Meaning::Refused {
            advice: "it is no answer of the Logs Ingestion API: what stands in between, and is `endpoint` its address?",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(http: u16, body: &str) -> Meaning {
        meaning(http, None, &Said::read(body.as_bytes()))
    }

    #[test]
    fn every_answer_of_the_table() {
        assert_eq!(of(204, ""), Meaning::Taken);
        for http in [200, 202, 206] {
            assert_eq!(of(http, "<html>"), Meaning::Failed { after: None }, "{http} is no receipt");
        }
        assert_eq!(
            of(400, r#"{"error":{"code":"InvalidPayload","message":"not JSON"}}"#),
            Meaning::Unreadable
        );
        let stream = r#"{"error":{"code":"InvalidStream","message":"Stream: Custom-X is not configured"}}"#;
        assert_eq!(of(400, stream), Meaning::Refused { advice: COMPARE });
        assert_eq!(of(404, ""), Meaning::Refused { advice: COMPARE });
        assert_eq!(of(401, ""), Meaning::BadToken);
        assert_eq!(of(403, ""), Meaning::NoRole);
        assert_eq!(of(413, ""), Meaning::TooLarge);
        let after = Some(Duration::from_secs(7));
        assert_eq!(meaning(429, after, &Said::default()), Meaning::Throttled { after });
        for http in [408, 500, 502, 503, 504] {
            assert_eq!(meaning(http, after, &Said::default()), Meaning::Failed { after });
        }
        for http in [301, 405, 407, 415, 418] {
            assert!(matches!(of(http, ""), Meaning::Refused { .. }), "{http}");
        }
    }

    #[test]
    fn bodies_are_read_leniently() {
        let said = Said::read(br#"{"error":{"code":"OperationFailed","message":"no access"}}"#);
        assert_eq!((said.code.as_str(), said.text.as_str()), ("OperationFailed", "no access"));
        assert_eq!(Said::read(br#"{"error":{}}"#), Said::default());
        assert_eq!(Said::read(b" \n"), Said::default());
        let page = Said::read("<html>\n".repeat(200).as_bytes());
        assert!(page.text.ends_with('…') && !page.text.contains('\n') && page.code.is_empty());
    }
}
