//! From a batch to the body of a request: one envelope for each record, one after the other, compressed. Pure.
//!
//! ```json
//! {"time":1700000000.123,"host":"contoso","source":"…","sourcetype":"o365:management:activity","index":"o365","fields":{"o365_tenant":"contoso"},"event":"{\"CreationTime\":…}"}
//! ```
//!
//! `time` is the record's own, written from whole milliseconds; a record without one has none, and Splunk takes the
//! moment of its arrival. As text, the event is the record's bytes exactly.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use super::config::{EventForm, HecConfig};
use crate::{delivery_ledger::Work, sink::Batch};

/// How much is written at once.
const CHUNK: usize = 64 << 10;

/// The body of a request.
#[derive(Debug)]
pub(super) struct Body {
    /// What is sent.
    pub(super) bytes: Vec<u8>,
    /// How long it was before compression.
    pub(super) plain: usize,
}

/// Records that cannot stand in an envelope, by index, with the reason.
pub(super) type Unfit = Vec<(usize, String)>;

/// Makes the body for a batch.
///
/// # Errors
///
/// The records that cannot be sent.
pub(super) fn encode(config: &HecConfig, batch: &Batch) -> Result<Body, Unfit> {
    let mut out = Out::new(config.gzip);
    let mut unfit = Vec::new();
    let mut index = 0;
    for part in &batch.parts {
        let head = head(config, &part.work);
        for record in part.records() {
            match std::str::from_utf8(record.bytes) {
                Ok(event) => {
                    let buffer = &mut out.buffer;
                    time(buffer, record.facts.time_ms);
                    buffer.extend_from_slice(head.as_bytes());
                    match config.event {
                        EventForm::String => quote(buffer, event),
                        EventForm::Object => buffer.extend_from_slice(event.as_bytes()),
                    }
                    buffer.extend_from_slice(b"}\n");
                    out.flush_when_full();
                }
                Err(error) => unfit.push((index, format!("it is not UTF-8 text: {error}"))),
            }
            index += 1;
        }
    }
    if unfit.is_empty() { Ok(out.finish()) } else { Err(unfit) }
}

/// The indexes that the events of a batch are for, each once.
pub(super) fn indexes(config: &HecConfig, batch: &Batch) -> Vec<String> {
    let Some(template) = &config.index else { return Vec::new() };
    let mut indexes: Vec<String> = Vec::new();
    for part in &batch.parts {
        let index = template.expand(&part.work);
        if !indexes.contains(&index) {
            indexes.push(index);
        }
    }
    indexes
}

/// What stands between the time and the event: the same for all records of a work.
fn head(config: &HecConfig, work: &Work) -> String {
    let mut head = String::new();
    let member = |head: &mut String, key: &str, value: &str| {
        head.push_str(&json(key));
        head.push(':');
        head.push_str(&json(value));
        head.push(',');
    };
    member(&mut head, "host", &config.host.expand(work));
    member(&mut head, "source", &config.source.expand(work));
    member(&mut head, "sourcetype", &config.sourcetype.expand(work));
    if let Some(index) = &config.index {
        member(&mut head, "index", &index.expand(work));
    }
    if !config.fields.is_empty() {
        head.push_str("\"fields\":{");
        for (name, value) in &config.fields {
            member(&mut head, name, &value.expand(work));
        }
        head.pop();
        head.push_str("},");
    }
    head.push_str("\"event\":");
    head
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The beginning of an envelope, up to the comma behind the time.
fn time(out: &mut Vec<u8>, time_ms: Option<i64>) {
    out.push(b'{');
    if let Some(ms) = time_ms {
        let (sign, ms) = (if ms < 0 { "-" } else { "" }, ms.unsigned_abs());
        // Writing into memory cannot fail.
        let _ = write!(out, "\"time\":{sign}{}.{:03},", ms / 1000, ms % 1000);
    }
}

/// How each byte of a text stands in a JSON string: 0 as it is, `u` as a code, anything else behind a backslash.
const ESCAPES: [u8; 256] = {
    let mut escapes = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        escapes[byte] = b'u';
        byte += 1;
    }
    escapes[b'\n' as usize] = b'n';
    escapes[b'\r' as usize] = b'r';
    escapes[b'\t' as usize] = b't';
    escapes[b'"' as usize] = b'"';
    escapes[b'\\' as usize] = b'\\';
    escapes
};

/// Appends a text as a JSON string.
fn quote(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + bytes.len() / 4 + 2);
    out.push(b'"');
    let mut copied = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escape = ESCAPES[usize::from(*byte)];
        if escape == 0 {
            continue;
        }
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + 1;
        if escape == b'u' {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.extend_from_slice(&[b'\\', escape]);
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

/// What is written goes through a small buffer into the compression, so that only its result is held.
struct Out {
    buffer: Vec<u8>,
    gzip: Option<GzEncoder<Vec<u8>>>,
    plain: usize,
}

impl Out {
    fn new(gzip: bool) -> Self {
        // Audit records repeat themselves so much that the fastest level already takes off nine tenths.
        let gzip = gzip.then(|| GzEncoder::new(Vec::with_capacity(CHUNK), Compression::fast()));
        Self { buffer: Vec::with_capacity(CHUNK), gzip, plain: 0 }
    }

    fn flush_when_full(&mut self) {
        if self.buffer.len() >= CHUNK {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if let Some(gzip) = &mut self.gzip {
            gzip.write_all(&self.buffer).expect("compressing into memory cannot fail");
            self.plain += self.buffer.len();
            self.buffer.clear();
        }
    }

    fn finish(mut self) -> Body {
        self.flush();
        match self.gzip {
            Some(gzip) => {
                Body { bytes: gzip.finish().expect("compressing into memory cannot fail"), plain: self.plain }
            }
            None => Body { plain: self.buffer.len(), bytes: self.buffer },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::{super::tests::config, *};
    use crate::testing::batch;

    fn decode(body: &Body) -> Vec<Value> {
        let mut plain = Vec::new();
        if body.bytes.starts_with(&[0x1f, 0x8b]) {
            flate2::read::GzDecoder::new(&body.bytes[..]).read_to_end(&mut plain).unwrap();
        } else {
            plain.clone_from(&body.bytes);
        }
        assert_eq!(plain.len(), body.plain);
        serde_json::Deserializer::from_slice(&plain).into_iter().map(Result::unwrap).collect()
    }

    #[test]
    fn an_envelope_has_what_is_configured() {
        let mut config = config();
        config.index = Some("o365-{tenant}".parse().unwrap());
        config.fields = vec![
            ("o365_tenant".to_owned(), "{tenant}".parse().unwrap()),
            ("a \"b\"".to_owned(), "c\\{content_type}".parse().unwrap()),
        ];
        let batch = batch(&[(br#"{"Id":"x"}"#, Some(1_700_000_000_123))]);
        let body = encode(&config, &batch).unwrap();
        let work = &batch.parts[0].work;
        assert_eq!(
            String::from_utf8(body.bytes).unwrap(),
            format!(
                "{{\"time\":1700000000.123,\"host\":\"{}\",\"source\":\"src/{}\",\"sourcetype\":\"st\",\"index\":\"o365-{}\",\
                 \"fields\":{{\"o365_tenant\":\"{}\",\"a \\\"b\\\"\":\"c\\\\{}\"}},\"event\":\"{{\\\"Id\\\":\\\"x\\\"}}\"}}\n",
                work.tenant_name,
                work.content_id.as_str(),
                work.tenant_name,
                work.tenant_name,
                work.feed.content_type
            )
        );
        assert_eq!(indexes(&config, &batch), [format!("o365-{}", work.tenant_name)]);
    }

    #[test]
    fn without_fields_and_index_there_are_none_and_an_object_stands_as_it_is() {
        let mut config = config();
        config.event = EventForm::Object;
        config.gzip = true;
        let batch = batch(&[(br#"{"n":1234567890123456789012}"#, None)]);
        let body = encode(&config, &batch).unwrap();
        let mut plain = String::new();
        flate2::read::GzDecoder::new(&body.bytes[..]).read_to_string(&mut plain).unwrap();
        assert!(plain.starts_with("{\"host\":"), "{plain}");
        assert!(plain.ends_with("\"event\":{\"n\":1234567890123456789012}}\n"), "{plain}");
        assert!(
            !plain.contains("fields") && !plain.contains("\"index\"") && !plain.contains("time\""),
            "{plain}"
        );
        assert!(indexes(&config, &batch).is_empty());
    }

    #[test]
    fn times_are_decimal_text() {
        for (ms, text) in [
            (0, "0.000"),
            (1, "0.001"),
            (1_700_000_000_000, "1700000000.000"),
            (-1, "-0.001"),
            (-1_500, "-1.500"),
            (i64::MAX, "9223372036854775.807"),
            (i64::MIN, "-9223372036854775.808"),
        ] {
            let mut out = Vec::new();
            time(&mut out, Some(ms));
            assert_eq!(String::from_utf8(out).unwrap(), format!("{{\"time\":{text},"));
        }
    }

    #[test]
    fn what_is_no_text_is_refused_alone() {
        let batch = batch(&[(b"{}", None), (b"{\"a\":\"\xff\"}", None), (b"{}", None)]);
        let unfit = encode(&config(), &batch).unwrap_err();
        assert_eq!(unfit.len(), 1);
        assert_eq!(unfit[0].0, 1);
        assert!(unfit[0].1.contains("UTF-8"));
    }

    proptest! {
        #[test]
        fn the_event_is_the_record_byte_for_byte(
            records in proptest::collection::vec((".*|[\u{0}-\u{7f}]*", any::<Option<i64>>()), 1..40),
            gzip: bool,
        ) {
            let given: Vec<(&[u8], Option<i64>)> =
                records.iter().map(|(text, time)| (text.as_bytes(), *time)).collect();
            let mut config = config();
            config.gzip = gzip;
            let envelopes = decode(&encode(&config, &batch(&given)).unwrap());
            prop_assert_eq!(envelopes.len(), records.len());
            for (envelope, (text, time)) in envelopes.iter().zip(&records) {
                prop_assert_eq!(envelope["event"].as_str(), Some(text.as_str()));
                prop_assert_eq!(envelope.get("time").is_some(), time.is_some());
            }
        }
    }
}
