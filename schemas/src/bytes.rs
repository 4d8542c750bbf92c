//! Finding the end of a JSON string, many bytes at a time.

// Every x86-64 processor has SSE2. Nearly every string ends within the first vectors, so that choosing a wider one at run
// time, as `memchr2` does, would cost more than the search.
#[cfg(target_arch = "x86_64")]
use memchr::arch::x86_64::sse2::memchr::Two as Quotes;

/// The first quote or backslash at or after `at`; the length when there is none.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[must_use]
pub fn find_quote(bytes: &[u8], mut at: usize) -> usize {
    // Step by step, because a search over all that is left would prepare for a long way, and most strings are short.
    while let Some(window) = bytes.get(at..).and_then(<[u8]>::first_chunk::<16>) {
        match Quotes::new(b'"', b'\\').and_then(|quotes| quotes.find(window)) {
            Some(length) => return at + length,
            None => at += 16,
        }
    }
    find_any_quote(bytes, at)
}

/// The first quote or backslash at or after `at`; the length when there is none.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
#[must_use]
pub fn find_quote(bytes: &[u8], at: usize) -> usize {
    find_any_quote(bytes, at)
}

/// [`find_quote`] where less than a step is left, and on processors that no step is known for.
#[inline(never)]
fn find_any_quote(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    // The search of a library would first have to find out what the processor can do.
    let near = |rest: &[u8]| rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
    let found = if rest.len() < 32 { near(rest) } else { memchr::memchr2(b'"', b'\\', rest) };
    found.map_or(bytes.len(), |length| at + length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn quotes_are_found_where_they_are(
            bytes in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'"'), Just(b'\\'), any::<u8>()], 0..80),
            from in 0usize..80,
        ) {
            let from = from.min(bytes.len());
            let slow = bytes[from..].iter().position(|b| matches!(b, b'"' | b'\\'));
            prop_assert_eq!(find_quote(&bytes, from), slow.map_or(bytes.len(), |at| from + at));
        }
    }
}
