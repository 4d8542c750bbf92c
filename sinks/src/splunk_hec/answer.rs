//! What a receiver answers, and what that means: the table of HEC's codes. Pure.
//!
//! A load balancer or proxy in between answers too, without HEC's JSON. So the HTTP status decides first whether the
//! events were taken, and the code, where there is one, what to do otherwise.
//!
//! Where sources disagree about how much of a refused request was taken, it counts as ambiguous: what may have arrived
//! is counted as sent again, and nothing is left out.

use std::time::Duration;

use serde_json::Value;

use crate::http_answer::excerpt;

/// How much of a body that is no HEC answer is shown.
const EXCERPT: usize = 160;

/// HEC's code of a receiver that is well, which is an answer to a question about its health alone.
const HEALTHY: u64 = 17;

/// What the body says, as far as it is HEC's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// HEC's code.
    pub(super) code: Option<u64>,
    /// HEC's text, or the beginning of what came instead.
    pub(super) text: String,
    /// What to ask the indexer about.
    pub(super) ack_id: Option<u64>,
    /// The event at which it stopped to read the request.
    pub(super) invalid_event: Option<usize>,
    /// Whether the body is not HEC's, which always holds a code and a text.
    pub(super) foreign: bool,
}

/// What an answer means for the events of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// They were taken.
    Taken {
        /// What to ask the indexer about.
        ack_id: Option<u64>,
        /// Whether it soon cannot take more.
        pressed: bool,
    },
    /// Not now: it is overloaded or stops.
    Busy {
        /// How long it asked to wait.
        after: Option<Duration>,
        /// Whether some may have been taken.
        ambiguous: bool,
        /// Whether it waits for its acknowledgements to be asked for.
        acks_full: bool,
    },
    /// It failed, and trying again can help.
    Failed {
        /// How long it asked to wait.
        after: Option<Duration>,
        /// Whether some may have been taken.
        ambiguous: bool,
    },
    /// The request is too large.
    TooLarge,
    /// It will never take one of the events. What stands before that one may have been taken.
    Poisoned {
        /// The event at which it stopped.
        suspect: Option<usize>,
    },
    /// The token may not write to an index of the request.
    WrongIndex {
        /// The event at which it stopped.
        suspect: Option<usize>,
    },
    /// A person has to do something.
    Refused {
        /// What.
        advice: &'static str,
    },
}

/// What to do about a code that needs a person.
fn advice(code: u64) -> Option<&'static str> {
    Some(match code {
        1 | 22 => {
            "the token is disabled: enable it under Settings > Data inputs > HTTP Event Collector, and look there at \
             Global Settings > All Tokens too"
        }
        2 => "the token did not get there: does a proxy or load balancer take out the Authorization header?",
        3 => "the token is not one: it is the GUID under Settings > Data inputs > HTTP Event Collector",
        4 | 21 => {
            "Splunk does not know the token: compare it with the one under Settings > Data inputs > HTTP Event Collector \
             of this receiver"
        }
        5 => {
            "it found no event in the request, which is a fault of mailtrail or of what is in between: please report it"
        }
        10 => {
            "the token has indexer acknowledgement on: set acknowledgement = \"indexer\", or turn it off for the token"
        }
        11 => {
            "it refuses the channel, which is a fault of mailtrail or of what is in between: please report it"
        }
        14 => ACKNOWLEDGEMENT_OFF,
        16 => "something in between moves the token into the URL, which the receiver does not take",
        _ => return None,
    })
}

/// What to do when the receiver does not acknowledge although the configuration asks for it.
pub(super) const ACKNOWLEDGEMENT_OFF: &str = "the token has no indexer acknowledgement: turn it on for the token \
    (Enable indexer acknowledgement), or set acknowledgement = \"accept\", with which a crash of the indexer can lose \
    what it had taken";

/// What an answer is that says success as no HEC does.
pub(super) const NO_ANSWER: &str = "that is no answer of an HTTP Event Collector, so nothing counts as delivered: what \
    stands in between?";

/// What to do when somebody else answers.
const NO_COLLECTOR: &str = "there is no HTTP Event Collector at this address, only something else that speaks HTTP: \
    `url` is the collector's scheme, host and port";

impl Said {
    /// Reads the body as far as it is HEC's.
    pub(super) fn read(body: &[u8]) -> Self {
        let whole = String::from_utf8_lossy(body);
        let Ok(Value::Object(body)) = serde_json::from_slice(body) else {
            return Self { text: excerpt(&whole, EXCERPT), foreign: true, ..Self::default() };
        };
        let number = |key: &str| match body.get(key) {
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => text.parse().ok(),
            _ => None,
        };
        let (code, text) = (number("code"), body.get("text").and_then(Value::as_str));
        Self {
            code,
            text: excerpt(text.unwrap_or(&whole), EXCERPT),
            ack_id: number("ackId"),
            invalid_event: number("invalid-event-number").and_then(|number| usize::try_from(number).ok()),
            // Many a gateway answers in JSON of its own.
            foreign: code.is_none() || text.is_none(),
        }
    }
}

/// What an answer means for the events of the request.
pub(super) fn meaning(http: u16, after: Option<Duration>, said: &Said) -> Meaning {
    let suspect = said.invalid_event;
    if (200..300).contains(&http) {
        // A proxy's page or a gateway's JSON says nothing about what became of the events, and neither does HEC's word
        // that it is well.
        if said.foreign || said.code == Some(HEALTHY) {
            return Meaning::Failed { after: None, ambiguous: true };
        }
        return Meaning::Taken { ack_id: said.ack_id, pressed: matches!(said.code, Some(24 | 25)) };
    }
    match said.code {
        Some(6 | 12 | 13 | 15) => return Meaning::Poisoned { suspect },
        Some(7) => return Meaning::WrongIndex { suspect },
        Some(8) => return Meaning::Failed { after, ambiguous: true },
        Some(9 | 18 | 19 | 20) => {
            return Meaning::Busy {
                after,
                ambiguous: suspect.is_some_and(|read| read > 0),
                acks_full: false,
            };
        }
        Some(23) => return Meaning::Failed { after, ambiguous: false },
        Some(26) => return Meaning::Busy { after, ambiguous: false, acks_full: false },
        Some(27) => return Meaning::Busy { after, ambiguous: false, acks_full: true },
        Some(code) => {
            if let Some(advice) = advice(code) {
                return Meaning::Refused { advice };
            }
        }
        None => {}
    }
    match http {
        413 => Meaning::TooLarge,
        // Whoever does not know the path or the method has taken nothing. 501 is how a plain web server says that of POST,
        // and no passing trouble like its neighbours.
        404 | 405 | 501 => Meaning::Refused { advice: NO_COLLECTOR },
        429 => Meaning::Busy { after, ambiguous: false, acks_full: false },
        503 => Meaning::Busy { after, ambiguous: true, acks_full: false },
        408 | 500..=599 => Meaning::Failed { after, ambiguous: true },
        300..=399 => Meaning::Refused {
            advice: "it sends elsewhere: write the address that it names into `url` (https:// for http://?)",
        },
        401 | 403 => Meaning::Refused {
            advice: "the token is not taken: compare it with the one under Settings > Data inputs > HTTP Event Collector",
        },
        407 => Meaning::Refused { advice: "the proxy wants a user and a password: see [network] proxy" },
        415 => Meaning::Refused { advice: "it does not take gzip: set compression = \"none\"" },
        _ => {
            Meaning::Refused { advice: "it is no answer of an HTTP Event Collector: what stands in between?" }
        }
    }
}

/// Which of the ids an answer about acknowledgements says to be indexed; `None` when it is no such answer.
pub(super) fn indexed(body: &[u8]) -> Option<Vec<u64>> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let acks = body.get("acks")?.as_object()?;
    let indexed = acks.iter().filter(|(_, value)| **value == Value::Bool(true));
    Some(indexed.filter_map(|(id, _)| id.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hec(http: u16, code: u64, event: Option<usize>) -> Meaning {
        let event = event.map(|event| format!(",\"invalid-event-number\":{event}")).unwrap_or_default();
        let body = format!("{{\"text\":\"x\",\"code\":{code}{event}}}");
        meaning(http, None, &Said::read(body.as_bytes()))
    }

    fn foreign(http: u16) -> Meaning {
        meaning(http, None, &Said::read(b"<html>Bad Gateway</html>"))
    }

    #[test]
    fn every_code_of_the_table() {
        let busy = |ambiguous, acks_full| Meaning::Busy { after: None, ambiguous, acks_full };
        let taken = |pressed| Meaning::Taken { ack_id: None, pressed };
        assert_eq!(hec(200, 0, None), taken(false));
        assert_eq!(hec(200, 24, None), taken(true));
        assert_eq!(hec(200, 25, None), taken(true));
        for (http, code) in [
            (403, 1),
            (401, 2),
            (401, 3),
            (403, 4),
            (400, 5),
            (400, 10),
            (400, 11),
            (400, 14),
            (400, 16),
            (400, 21),
            (400, 22),
        ] {
            assert!(matches!(hec(http, code, None), Meaning::Refused { .. }), "{code}");
        }
        for code in [6, 12, 13, 15] {
            assert_eq!(hec(400, code, Some(3)), Meaning::Poisoned { suspect: Some(3) });
            assert_eq!(hec(400, code, None), Meaning::Poisoned { suspect: None });
        }
        assert_eq!(hec(400, 7, Some(1)), Meaning::WrongIndex { suspect: Some(1) });
        assert_eq!(hec(500, 8, None), Meaning::Failed { after: None, ambiguous: true });
        assert_eq!(hec(503, 9, None), busy(false, false));
        assert_eq!(hec(503, 9, Some(0)), busy(false, false));
        assert_eq!(hec(503, 9, Some(2)), busy(true, false));
        assert_eq!(hec(200, 17, None), Meaning::Failed { after: None, ambiguous: true });
        for code in [18, 19, 20] {
            assert_eq!(hec(503, code, None), busy(false, false), "{code}");
        }
        assert_eq!(hec(503, 23, None), Meaning::Failed { after: None, ambiguous: false });
        assert_eq!(hec(429, 26, None), busy(false, false));
        assert_eq!(hec(429, 27, None), busy(false, true));
        assert_eq!(hec(413, 99, None), Meaning::TooLarge);
    }

    #[test]
    fn what_no_receiver_said_is_decided_by_its_status() {
        assert_eq!(foreign(413), Meaning::TooLarge);
        assert_eq!(foreign(502), Meaning::Failed { after: None, ambiguous: true });
        assert_eq!(foreign(504), Meaning::Failed { after: None, ambiguous: true });
        assert_eq!(foreign(408), Meaning::Failed { after: None, ambiguous: true });
        assert_eq!(foreign(503), Meaning::Busy { after: None, ambiguous: true, acks_full: false });
        assert_eq!(foreign(429), Meaning::Busy { after: None, ambiguous: false, acks_full: false });
        for http in [302, 400, 401, 403, 404, 405, 407, 415, 418, 501] {
            assert!(matches!(foreign(http), Meaning::Refused { .. }), "{http}");
        }
        for http in [404, 405, 501] {
            assert_eq!(foreign(http), Meaning::Refused { advice: NO_COLLECTOR });
        }
        // What answers 200 to everything took nothing, as far as anybody knows.
        assert_eq!(foreign(200), Meaning::Failed { after: None, ambiguous: true });
        for body in [
            "",
            "{}",
            "\"OK\"",
            r#"{"error":"no such route"}"#,
            r#"{"code":0,"message":"ok"}"#,
            r#"{"text":"ok"}"#,
            r#"{"ackId":0}"#,
            r#"{"text":"HEC is healthy","code":17}"#,
        ] {
            let meaning = meaning(200, None, &Said::read(body.as_bytes()));
            assert_eq!(meaning, Meaning::Failed { after: None, ambiguous: true }, "{body}");
        }
    }

    #[test]
    fn bodies_are_read_leniently() {
        let said = Said::read(br#"{"text":"Success","code":0,"ackId":17}"#);
        assert_eq!((said.code, said.ack_id), (Some(0), Some(17)));
        let said = Said::read(br#"{"ackId":"3","code":"6","invalid-event-number":2}"#);
        assert_eq!((said.code, said.ack_id, said.invalid_event), (Some(6), Some(3), Some(2)));
        let said = Said::read("a\nb".repeat(200).as_bytes());
        assert!(said.foreign && said.text.ends_with('…') && !said.text.contains('\n'));
        assert!(Said::read(b"[1]").foreign && Said::read(&[0xff, 0xfe]).foreign);
        assert_eq!(Said::read(b" \n"), Said { foreign: true, ..Said::default() });
        let said = Said::read(br#"{"error":"no such route"}"#);
        assert!(said.foreign && said.text.contains("no such route"), "{said:?}");
    }

    #[test]
    fn acknowledgements_are_true_or_they_are_none() {
        assert_eq!(
            indexed(br#"{"acks":{"0":true,"1":false,"2":true,"x":true,"3":"true"}}"#),
            Some(vec![0, 2])
        );
        assert_eq!(indexed(br#"{"acks":{}}"#), Some(vec![]));
        for body in [&b"<html>"[..], b"{}", br#"{"acks":[0]}"#, br#"{"text":"ACK is disabled","code":14}"#] {
            assert_eq!(indexed(body), None);
        }
    }
}
