//! From a batch to the body of a request: a JSON array of rows, compressed. Pure.
//!
//! Log Analytics keeps 64 KB of a value and cuts the rest off without saying so, which leaves half a JSON document of a
//! dynamic column. Here such a value is cut before: a text ends with how long it was, a document stays one and names in
//! it what was cut, and the column `CutColumns` of the row names the columns.

use std::{borrow::Cow, fmt, io::Write as _};

use chrono::{DateTime, Datelike as _, SecondsFormat, Utc};
use flate2::{Compression, write::GzEncoder};
use schemas::RenderedRecord;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use super::config::{Form, SentinelConfig};
use crate::{
    shorten::{beginning, shorten},
    sink::Batch,
};

/// What Log Analytics keeps of a value, in bytes (Azure Monitor service limits, "Field size").
const LONGEST: usize = 64 * 1024;
/// What is left of a longer one. The difference pays for naming it in `CutColumns`, so that no row grows.
const KEPT: usize = 64_000;
/// The column that names the columns that were cut.
const CUT_COLUMNS: &str = "CutColumns";
/// How long a time is that is written by [`time`].
const TIME: usize = 24;
const RECORD_HEAD: [&str; 2] = ["{\"TimeGenerated\":\"", "\",\"Record\":"];

/// The body of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Body {
    /// As it is sent.
    pub(super) bytes: Vec<u8>,
    /// Its length before compression.
    pub(super) plain: usize,
    /// How many values were cut.
    pub(super) cut: usize,
}

/// Records that can never be sent: their indexes in the batch, each with the reason.
pub(super) type Unfit = Vec<(usize, String)>;

/// What a row takes beside the rendered record, the comma before it included.
pub(super) fn beside(form: Form) -> usize {
    match form {
        Form::Columns { .. } => 1,
        Form::Record => RECORD_HEAD.iter().map(|part| part.len()).sum::<usize>() + TIME + 2,
    }
}

/// Makes the body. `now` is the time of records that have none.
pub(super) fn encode(form: Form, batch: &Batch, now: DateTime<Utc>) -> Result<Body, Unfit> {
    let mut gzip = GzEncoder::new(Vec::with_capacity(batch.bytes() / 8), Compression::fast());
    // Writing into a vector cannot fail.
    let mut put = |bytes: &[u8]| gzip.write_all(bytes).expect("a vector takes everything");
    let (mut plain, mut cut, mut unfit) = (1, 0, Vec::new());
    let mut row = Vec::new();
    for (index, (_, record)) in batch.records().enumerate() {
        row.clear();
        match write_row(form, &record, now, &mut row) {
            Ok(cuts) if row.len() + 2 <= SentinelConfig::LARGEST => cut += cuts,
            Ok(_) => {
                let why = format!(
                    "too large for the Logs Ingestion API, which takes 1 MB: the record has {} bytes, and its row {} \
                     after every value was cut to 64 KB",
                    record.bytes.len(),
                    row.len()
                );
                unfit.push((index, why));
                continue;
            }
            Err(error) => {
                unfit.push((index, format!("no JSON object with columns: {error}")));
                continue;
            }
        }
        put(if plain == 1 { b"[" } else { b"," });
        put(&row);
        plain += row.len() + 1;
    }
    if !unfit.is_empty() {
        return Err(unfit);
    }
    if plain == 1 {
        put(b"[");
        plain += 1;
    }
    put(b"]");
    let bytes = gzip.finish().expect("a vector takes everything");
    Ok(Body { bytes, plain, cut })
}

/// Appends the row of a record. Gives how many of its values were cut.
fn write_row(
    form: Form,
    record: &RenderedRecord<'_>,
    now: DateTime<Utc>,
    out: &mut Vec<u8>,
) -> Result<usize, serde_json::Error> {
    match form {
        Form::Columns { without } => write_columns(record.bytes, without, out),
        Form::Record => {
            out.extend_from_slice(RECORD_HEAD[0].as_bytes());
            out.extend_from_slice(time(record.facts.time_ms, now).as_bytes());
            out.extend_from_slice(RECORD_HEAD[1].as_bytes());
            let cut = write_record(record.bytes, out)?;
            if cut {
                out.extend_from_slice(b",\"CutColumns\":\"Record\"");
            }
            out.push(b'}');
            Ok(usize::from(cut))
        }
    }
}

fn write_columns(row: &[u8], without: &[&str], out: &mut Vec<u8>) -> Result<usize, serde_json::Error> {
    // A row that is no longer than a value may be has none that is.
    if without.is_empty() && row.len() <= LONGEST {
        out.extend_from_slice(row);
        return Ok(0);
    }
    let Members(members) = serde_json::from_slice(row)?;
    let mut cut: Vec<&str> = Vec::new();
    out.push(b'{');
    for (name, value) in members.iter().filter(|(name, _)| !without.contains(&name.as_ref())) {
        if out.last() != Some(&b'{') {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, name)?;
        out.push(b':');
        match shortened(value.get()) {
            None => out.extend_from_slice(value.get().as_bytes()),
            Some(short) => {
                out.extend_from_slice(short.as_bytes());
                cut.push(name);
            }
        }
    }
    if !cut.is_empty() {
        out.push(b',');
        serde_json::to_writer(&mut *out, CUT_COLUMNS)?;
        out.push(b':');
        serde_json::to_writer(&mut *out, &cut.join(", "))?;
    }
    out.push(b'}');
    Ok(cut.len())
}

/// Appends a record as the value of a dynamic column, and says whether it was cut. One that is not quite JSON (a bare
/// control character, half a surrogate pair) would spoil the request: it stands there as text.
fn write_record(record: &[u8], out: &mut Vec<u8>) -> Result<bool, serde_json::Error> {
    let text = String::from_utf8_lossy(record);
    if is_sound(&text) {
        let short = shortened(&text);
        out.extend_from_slice(short.as_deref().unwrap_or(&text).as_bytes());
        return Ok(short.is_some());
    }
    let quoted = serde_json::to_string(&text)?;
    let short = shortened(&quoted);
    out.extend_from_slice(short.as_deref().unwrap_or(&quoted).as_bytes());
    Ok(short.is_some())
}

/// Whether every parser takes it for JSON.
fn is_sound(json: &str) -> bool {
    if json.contains("\\ud") || json.contains("\\uD") {
        // Only reading the texts tells whether the halves of pairs go together.
        return serde_json::from_str::<Value>(json).is_ok();
    }
    serde_json::from_str::<IgnoredAny>(json).is_ok()
}

/// What is left of a value that is longer than Log Analytics keeps; `None` when it is not.
fn shortened(json: &str) -> Option<String> {
    if json.len() <= LONGEST {
        return None;
    }
    let (text, bytes) = match serde_json::from_str::<Value>(json) {
        Ok(Value::String(text)) if text.len() <= LONGEST => return None,
        Ok(Value::String(text)) => {
            let bytes = text.len();
            (text, bytes)
        }
        _ => {
            if let Some(short) =
                shorten(json.as_bytes(), KEPT).and_then(|short| String::from_utf8(short).ok())
            {
                return Some(short);
            }
            (json.to_owned(), json.len())
        }
    };
    let told = format!(" … [cut by mailtrail: {bytes} bytes]");
    let short = format!("{}{told}", beginning(&text, KEPT - told.len()));
    Some(Value::String(short).to_string())
}

/// A time as the service reads it, [`TIME`] bytes long.
fn time(ms: Option<i64>, now: DateTime<Utc>) -> String {
    let known = ms.and_then(DateTime::from_timestamp_millis).filter(|time| (1..=9999).contains(&time.year()));
    known.unwrap_or(now).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The members of a JSON object, in order.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                #[derive(Deserialize)]
                struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
                let mut members = Vec::with_capacity(64);
                while let Some(Name(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::batch;

    const ASIM: Form = Form::Columns { without: &["Type"] };
    const PLAIN: Form = Form::Columns { without: &[] };

    fn now() -> DateTime<Utc> {
        "2026-01-02T03:04:05.678Z".parse().unwrap()
    }

    fn unpacked(body: &Body) -> String {
        let mut text = String::new();
        flate2::read::GzDecoder::new(&body.bytes[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text.len(), body.plain);
        text
    }

    fn rows(form: Form, records: &[&str]) -> (Vec<Value>, usize) {
        let records: Vec<_> = records.iter().map(|record| (record.as_bytes(), None)).collect();
        let body = encode(form, &batch(&records), now()).unwrap();
        (serde_json::from_str(&unpacked(&body)).unwrap(), body.cut)
    }

    #[test]
    fn rows_are_an_array_and_reserved_names_are_left_out() {
        let records = [r#"{"A":"1","Type":"x","B":[{"Type":2}]}"#, r#"{"Type":"x"}"#];
        let (rows_of, cut) = rows(ASIM, &records);
        assert_eq!(rows_of, [json!({"A": "1", "B": [{"Type": 2}]}), json!({})]);
        assert_eq!(cut, 0);
        let (whole, _) = rows(PLAIN, &records);
        assert_eq!(whole[0]["Type"], "x");
        let body = encode(PLAIN, &batch(&[(b"{\"A\": 1}", None)]), now()).unwrap();
        assert_eq!(unpacked(&body), "[{\"A\": 1}]", "a row without anything to change is not touched");
        assert_eq!(unpacked(&encode(PLAIN, &batch(&[]), now()).unwrap()), "[]");
    }

    #[test]
    fn a_record_stands_whole_beside_its_time() {
        let record = r#"{"CreationTime":"2026-01-01T00:00:00","Big":12345678901234567890}"#;
        let body = encode(
            Form::Record,
            &batch(&[(record.as_bytes(), Some(1_767_225_600_000)), (b"{}", None), (b"{}", Some(i64::MAX))]),
            now(),
        );
        assert_eq!(
            unpacked(&body.unwrap()),
            format!(
                "[{{\"TimeGenerated\":\"2026-01-01T00:00:00.000Z\",\"Record\":{record}}},\
                 {{\"TimeGenerated\":\"2026-01-02T03:04:05.678Z\",\"Record\":{{}}}},\
                 {{\"TimeGenerated\":\"2026-01-02T03:04:05.678Z\",\"Record\":{{}}}}]"
            )
        );
    }

    #[test]
    fn what_is_not_quite_json_goes_as_text() {
        for odd in ["{\"a\":\"b\u{1}c\"}", r#"{"a":"\ud800"}"#, r#"{"a":"\uD800\u0041"}"#] {
            let (rows, _) = rows(Form::Record, &[odd]);
            assert_eq!(rows[0]["Record"], odd);
        }
        let (rows, _) = rows(Form::Record, &[r#"{"a":"\ud83d\ude00"}"#]);
        assert_eq!(rows[0]["Record"]["a"], "😀");
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let long = json!({
            "Text": "ä".repeat(40_000),
            "Fits": "x".repeat(LONGEST),
            "Escaped": "\n".repeat(LONGEST),
            "Document": {"a": "y".repeat(90_000), "b": 7},
            "List": ["z".repeat(90_000), 7],
        });
        let (rows, cut) = rows(PLAIN, &[&long.to_string()]);
        let row = &rows[0];
        assert_eq!(cut, 3);
        assert_eq!(row["CutColumns"], "Document, List, Text");
        assert_eq!((&row["Fits"], &row["Escaped"]), (&long["Fits"], &long["Escaped"]));
        let text = row["Text"].as_str().unwrap();
        assert!(text.len() <= KEPT && text.starts_with("ää"), "{}", text.len());
        assert!(text.ends_with(" … [cut by mailtrail: 80000 bytes]"), "{}", &text[text.len() - 60..]);
        assert_eq!(row["Document"]["b"], 7);
        assert_eq!(row["Document"]["mailtrail_truncated"]["cut"][0], "/a: a text of 90000 bytes");
        assert_eq!(row["List"][2]["mailtrail_truncated"]["cut"][0], "/0: a text of 90000 bytes");
    }

    #[test]
    fn a_record_of_megabytes_is_cut_into_its_row() {
        let many: Vec<Value> = (0..5_000).map(|n| json!({"Name": n, "Value": "x".repeat(200)})).collect();
        let record = json!({"Id": "an-id", "Data": many}).to_string();
        assert!(record.len() > 1_000_000);
        let (rows_of, cut) = rows(Form::Record, &[&record]);
        assert_eq!((cut, rows_of[0]["CutColumns"].as_str()), (1, Some("Record")));
        assert_eq!(rows_of[0]["Record"]["Id"], "an-id");
        assert_eq!(rows_of[0]["Record"]["mailtrail_truncated"]["original_bytes"], record.len());
        // Of many small members nothing can be left out: then it is the beginning, as text.
        let flat: String = (0..20_000).map(|n| format!(r#""k{n}":{n},"#)).collect();
        let (rows_of, _) = rows(Form::Record, &[&format!("{{{flat}\"end\":1}}")]);
        assert!(rows_of[0]["Record"].as_str().unwrap().starts_with("{\"k0\":0,"));
    }

    #[test]
    fn a_row_that_is_too_large_even_so_is_refused_with_its_size() {
        let wide: serde_json::Map<String, Value> =
            (0..20).map(|n| (format!("C{n}"), "x".repeat(60_000).into())).collect();
        let wide = Value::from(wide).to_string();
        let unfit = encode(PLAIN, &batch(&[(b"{}", None), (wide.as_bytes(), None)]), now()).unwrap_err();
        assert_eq!(unfit.len(), 1);
        assert_eq!(unfit[0].0, 1);
        assert!(unfit[0].1.contains(&wide.len().to_string()), "{}", unfit[0].1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// The loop counts a record as its bytes and what stands beside them: no row is longer, whatever is in it.
        #[test]
        fn a_row_is_never_longer_than_it_was_counted(
            texts in proptest::collection::vec("\\PC{0,60}", 0..6),
            long in proptest::option::of((60_000usize..140_000, "[a\"\\\\ä\u{1f600}\n]")),
            form in prop_oneof![Just(ASIM), Just(PLAIN), Just(Form::Record)],
        ) {
            let mut row = json!({ "Texts": texts, "Type": "x" });
            if let Some((length, what)) = long {
                row["Long"] = what.repeat(length / what.len()).into();
                row["Deep"] = json!({ "in": row["Long"] });
            }
            let row = row.to_string();
            let body = encode(form, &batch(&[(row.as_bytes(), Some(0)), (row.as_bytes(), None)]), now()).unwrap();
            prop_assert!(body.plain <= 2 * (row.len() + beside(form)) + 1);
            let rows: Vec<Value> = serde_json::from_str(&unpacked(&body)).unwrap();
            prop_assert_eq!(rows.len(), 2);
            for row in rows {
                for (name, value) in row.as_object().unwrap() {
                    let length = value.as_str().map_or_else(|| value.to_string().len(), str::len);
                    prop_assert!(length <= LONGEST, "{} has {} bytes", name, length);
                    let named = row["CutColumns"].as_str().unwrap_or_default().contains(name.as_str());
                    prop_assert!(!named || length <= KEPT);
                }
            }
        }
    }
}
