//! Cuts the longest texts and lists of a JSON document until it fits, and says so within it. Pure.

use serde_json::{Value, json};

/// How long texts and lists may be, tried one after the other until the document fits.
const LIMITS: [(usize, usize); 8] = [
    (65_536, usize::MAX),
    (16_384, usize::MAX),
    (4_096, usize::MAX),
    (4_096, 1_000),
    (1_024, 100),
    (256, 20),
    (64, 5),
    (16, 1),
];
/// So many places are named that were cut; the rest is counted.
const NAMED: usize = 20;
/// Where it is told.
const TOLD: &str = "mailtrail_truncated";

/// Cuts the longest texts and lists of a JSON object or list until it has at most `room` bytes. What was cut is told in
/// a member `mailtrail_truncated`, of a list in its last item. `None` when that does not help.
pub(crate) fn shorten(bytes: &[u8], room: usize) -> Option<Vec<u8>> {
    let whole: Value =
        serde_json::from_slice(bytes).ok().filter(|value: &Value| value.is_object() || value.is_array())?;
    for (texts, lists) in LIMITS {
        let mut value = whole.clone();
        let mut cuts = Vec::new();
        cut(&mut value, String::new(), (texts, lists), &mut cuts);
        let others = cuts.len().saturating_sub(NAMED);
        cuts.truncate(NAMED);
        let told = json!({ "original_bytes": bytes.len(), "cut": cuts, "further_cuts": others });
        match &mut value {
            Value::Array(items) => items.push(json!({ TOLD: told })),
            object => object[TOLD] = told,
        }
        let bytes = serde_json::to_vec(&value).ok()?;
        if bytes.len() <= room {
            return Some(bytes);
        }
    }
    None
}

/// The beginning of a text, at most so many bytes, whole characters only.
pub(crate) fn beginning(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

fn cut(value: &mut Value, path: String, limits: (usize, usize), cuts: &mut Vec<String>) {
    let (texts, lists) = limits;
    match value {
        Value::String(text) if text.len() > texts => {
            cuts.push(format!("{path}: a text of {} bytes", text.len()));
            let end = beginning(text, texts).len();
            text.truncate(end);
        }
        Value::Array(items) => {
            if items.len() > lists {
                cuts.push(format!("{path}: a list of {} items", items.len()));
                items.truncate(lists);
            }
            for (index, item) in items.iter_mut().enumerate() {
                cut(item, format!("{path}/{index}"), limits, cuts);
            }
        }
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                cut(member, format!("{path}/{name}"), limits, cuts);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_tells_it_in_its_last_item() {
        let list = json!(["ä".repeat(5_000), 1, "short"]).to_string();
        let cut: Value = serde_json::from_slice(&shorten(list.as_bytes(), 6_000).unwrap()).unwrap();
        assert_eq!(cut[2], "short");
        assert_eq!(cut[3][TOLD]["cut"][0], "/0: a text of 10000 bytes");
        assert!(shorten(b"17", 10).is_none(), "nothing can be cut of a number");
    }

    #[test]
    fn a_beginning_has_whole_characters() {
        assert_eq!(beginning("aäö", 2), "a");
        assert_eq!(beginning("aäö", 3), "aä");
        assert_eq!(beginning("aäö", 99), "aäö");
    }

    proptest! {
        #[test]
        fn what_is_cut_fits_and_is_json(
            texts in proptest::collection::vec("\\PC{0,400}", 1..40),
            room in 300usize..6000,
        ) {
            let value = json!({ "list": texts, "nested": { "again": texts } });
            let bytes = serde_json::to_vec(&value).unwrap();
            if let Some(cut) = shorten(&bytes, room) {
                prop_assert!(cut.len() <= room);
                let cut: Value = serde_json::from_slice(&cut).unwrap();
                prop_assert!(cut[TOLD]["original_bytes"] == bytes.len());
            } else {
                prop_assert!(room < 4000, "{} bytes into {room}", bytes.len());
            }
        }
    }
}
