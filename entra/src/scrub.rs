//! Makes what others say fit for logs: one line, bounded, without anything that was sent to them.

use url::form_urlencoded;

/// What stands for something that must not be shown.
const HIDDEN: &str = "[hidden]";

/// The first line of a text, without control characters, without the `sent` secrets as they are or as a form encodes
/// them, without anything that looks like a signed token, and with at most `limit` characters.
pub(crate) fn scrub(text: &str, sent: &[&str], limit: usize) -> String {
    let mut line = text.trim_start().lines().next().unwrap_or_default().to_owned();
    for secret in sent.iter().filter(|secret| !secret.is_empty()) {
        line = line.replace(secret, HIDDEN);
        let encoded: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        line = line.replace(&encoded, HIDDEN);
    }
    let mut clean = String::with_capacity(line.len());
    for word in line.split_inclusive(|c: char| !is_token_char(c)) {
        // A signed token begins with the base64 of `{"`.
        let (token, end) = word.split_at(word.trim_end_matches(|c: char| !is_token_char(c)).len());
        clean.push_str(if token.starts_with("eyJ") && token.len() > 20 { HIDDEN } else { token });
        clean.extend(end.chars().map(|c| if c.is_control() { ' ' } else { c }));
    }
    if clean.chars().count() > limit {
        clean = clean.chars().take(limit).chain(['…']).collect();
    }
    clean.trim().to_owned()
}

const fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_sent_and_what_looks_like_a_token_is_hidden() {
        let text = "got 'a~b c' and a%7Eb+c, \"eyJhbGciOiJSUzI1NiJ9.eyJhIjoxfQ.c2ln\"\u{7}!\nsecond line";
        assert_eq!(scrub(text, &["a~b c", ""], 300), "got '[hidden]' and [hidden], \"[hidden]\" !");
        assert_eq!(scrub("\r\n one\r\ntwo", &[], 300), "one");
        assert_eq!(scrub("abcdef", &[], 3), "abc…");
        assert_eq!(scrub("eyJ is how tokens begin", &[], 300), "eyJ is how tokens begin");
    }

    proptest! {
        #[test]
        fn a_secret_never_comes_through(before in ".{0,20}", secret in "[!-~]{8,40}", after in ".{0,20}") {
            let clean = scrub(&format!("{before}{secret}{after}"), &[&secret], 300);
            prop_assert!(!clean.contains(&secret) || HIDDEN.contains(&secret));
            prop_assert!(!clean.chars().any(char::is_control));
        }
    }
}
