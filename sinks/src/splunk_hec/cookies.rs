//! The cookies of one channel, by which a load balancer finds the same indexer again.
//!
//! A channel has one receiver, so neither domain nor path matter; what a receiver sets is sent back to it as it is.

use std::{collections::BTreeMap, fmt::Write as _};

/// So many are kept at most; a load balancer sets one or two.
const MOST: usize = 20;
/// Longer ones are not kept.
const LONGEST: usize = 4096;

/// Names and values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cookies(BTreeMap<String, String>);

impl Cookies {
    /// Takes a `Set-Cookie`.
    pub(super) fn set(&mut self, header: &str) {
        let mut parts = header.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { return };
        let (name, value) = (name.trim(), value.trim());
        let gone = parts.filter_map(|part| part.split_once('=')).any(|(key, value)| {
            key.trim().eq_ignore_ascii_case("max-age")
                && value.trim().parse::<i64>().is_ok_and(|age| age <= 0)
        });
        if gone {
            self.0.remove(name);
        } else if !name.is_empty()
            && header.len() <= LONGEST
            && (self.0.len() < MOST || self.0.contains_key(name))
        {
            self.0.insert(name.to_owned(), value.to_owned());
        }
    }

    /// The `Cookie` to send; `None` when there are none.
    pub(super) fn header(&self) -> Option<String> {
        let mut header = String::new();
        for (name, value) in &self.0 {
            let separator = if header.is_empty() { "" } else { "; " };
            // Writing into a text cannot fail.
            let _ = write!(header, "{separator}{name}={value}");
        }
        (!header.is_empty()).then_some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_sent_back() {
        let mut cookies = Cookies::default();
        assert_eq!(cookies.header(), None);
        cookies.set("AWSALB=abc=; Expires=Fri, 02 Jan 2026 03:04:35 GMT; Path=/");
        cookies.set("indexer=2; HttpOnly; Secure");
        assert_eq!(cookies.header().unwrap(), "AWSALB=abc=; indexer=2");
        cookies.set("indexer=3");
        cookies.set("AWSALB=; Max-Age=0");
        assert_eq!(cookies.header().unwrap(), "indexer=3");
    }

    #[test]
    fn nonsense_is_passed_over_and_the_number_is_bounded() {
        let mut cookies = Cookies::default();
        for header in ["", ";", "=x", "novalue", &format!("long={}", "x".repeat(5000))] {
            cookies.set(header);
        }
        assert_eq!(cookies, Cookies::default());
        for number in 0..100 {
            cookies.set(&format!("c{number}=1"));
        }
        assert_eq!(cookies.0.len(), MOST);
    }
}
