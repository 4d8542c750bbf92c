//! Makes a record that is nearly JSON into JSON on one line.
//!
//! Blobs can be pretty-printed, and some senders put bare control characters or half of a surrogate pair into a string.
//! None of that is worth losing a record for. This is the slow way and is taken only by records that need it.

use super::bytes::utf16_unit;

/// What to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repair {
    /// Take out the line breaks between tokens and nothing else, except that a control character in a string, which may be
    /// a line break too and is not JSON in any case, is escaped.
    Lines,
    /// Take out every blank between tokens, escape control characters in strings, and write U+FFFD for half of a surrogate
    /// pair, which no text in UTF-8 can hold.
    Everything,
}

impl Repair {
    fn takes_out(self, byte: u8) -> bool {
        match byte {
            b'\r' | b'\n' => true,
            b' ' | b'\t' => self == Self::Everything,
            _ => false,
        }
    }
}

/// The repaired text. Whether it is JSON must still be checked.
pub(crate) fn repair(text: &str, what: Repair) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let (mut at, mut copied, mut in_string) = (0, 0, false);
    while at < bytes.len() {
        let (skip, instead) = match bytes[at] {
            b'"' => {
                in_string = !in_string;
                (0, None)
            }
            b'\\' if in_string => match lone_surrogate(bytes, at) {
                Some(true) if what == Repair::Everything => (6, Some("\\ufffd")),
                Some(false) => {
                    at += 12;
                    continue;
                }
                _ => {
                    at += 2;
                    continue;
                }
            },
            control @ 0..0x20 if in_string => (1, Some(ESCAPES[usize::from(control)])),
            blank if !in_string && what.takes_out(blank) => {
                let length = bytes[at..].iter().take_while(|byte| what.takes_out(**byte)).count();
                let joins = at > 0
                    && is_of_word(bytes[at - 1])
                    && bytes.get(at + length).copied().is_some_and(is_of_word);
                // Two numbers must not become another one: what is no JSON stays none.
                (length, Some(if joins { " " } else { "" }))
            }
            _ => (0, None),
        };
        if let Some(instead) = instead {
            out.push_str(&text[copied..at]);
            out.push_str(instead);
            at += skip;
            copied = at;
        } else {
            at += 1;
        }
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    out
}

/// Whether a byte can stand in a number or a word.
fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

/// Whether the escape at `at` is half of a surrogate pair; `None` when it is no surrogate at all.
fn lone_surrogate(bytes: &[u8], at: usize) -> Option<bool> {
    if bytes.get(at + 1) != Some(&b'u') {
        return None;
    }
    match utf16_unit(bytes, at)? {
        0xd800..=0xdbff => {
            let low = bytes.get(at + 6..at + 8) == Some(b"\\u")
                && utf16_unit(bytes, at + 6).is_some_and(|unit| (0xdc00..=0xdfff).contains(&unit));
            Some(!low)
        }
        0xdc00..=0xdfff => Some(true),
        _ => None,
    }
}

const ESCAPES: [&str; 32] = [
    "\\u0000", "\\u0001", "\\u0002", "\\u0003", "\\u0004", "\\u0005", "\\u0006", "\\u0007", "\\b", "\\t",
    "\\n", "\\u000b", "\\f", "\\r", "\\u000e", "\\u000f", "\\u0010", "\\u0011", "\\u0012", "\\u0013",
    "\\u0014", "\\u0015", "\\u0016", "\\u0017", "\\u0018", "\\u0019", "\\u001a", "\\u001b", "\\u001c",
    "\\u001d", "\\u001e", "\\u001f",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_wrong_is_put_right() {
        let text = "{\r\n  \"a\" : \"x\ty \\ud800 \\\\\" ,\n\"b\": \"\\ud83d\\ude00\\udc00\" }";
        assert_eq!(
            repair(text, Repair::Lines),
            "{  \"a\" : \"x\\ty \\ud800 \\\\\" ,\"b\": \"\\ud83d\\ude00\\udc00\" }"
        );
        assert_eq!(
            repair(text, Repair::Everything),
            "{\"a\":\"x\\ty \\ufffd \\\\\",\"b\":\"\\ud83d\\ude00\\ufffd\"}"
        );
    }

    #[test]
    fn words_are_not_joined() {
        for (text, lines, everything) in [
            ("[1\r\n\r\n2]", "[1 2]", "[1 2]"),
            ("[1 \n\t2, -\n1]", "[1 \t2, - 1]", "[1 2,- 1]"),
            ("[tru\ne,1\n.5,1e\n+5]", "[tru e,1 .5,1e +5]", "[tru e,1 .5,1e +5]"),
            ("\n1\n,\n2\n", "1,2", "1,2"),
        ] {
            assert_eq!(repair(text, Repair::Lines), lines, "{text:?}");
            assert_eq!(repair(text, Repair::Everything), everything, "{text:?}");
        }
    }

    proptest! {
        /// Pretty-printed JSON means what it meant before, and anything at all is survived.
        #[test]
        fn good_json_keeps_its_meaning(text in "[ -~éß😀\\n\\t]{0,30}", any in "\\PC{0,40}") {
            let value = serde_json::json!({ "a": [text, { "b": any }] });
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            for what in [Repair::Lines, Repair::Everything] {
                let line = repair(&pretty, what);
                prop_assert!(!line.contains('\n'));
                prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&line).unwrap(), &value);
                repair(&any, what);
            }
            prop_assert_eq!(repair(&pretty, Repair::Everything), value.to_string());
        }
    }
}
