//! Finding single bytes in text, many at a time.

pub(super) use schemas::bytes::find_quote;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Whether a byte is a control character. Without an early end, so that the compiler can look at many bytes at once.
pub(crate) fn has_controls(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<64>();
    let mut least = [u8::MAX; 64];
    for chunk in chunks {
        for (least, byte) in least.iter_mut().zip(chunk) {
            *least = (*least).min(*byte);
        }
    }
    let least_of = |bytes: &[u8]| bytes.iter().fold(u8::MAX, |least, byte| least.min(*byte));
    least_of(&least).min(least_of(rest)) < 0x20
}

/// The first quote, backslash or control character at or after `at`; the length when there is none.
#[inline]
pub(super) fn find_special(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..at + 8).and_then(|chunk| <[u8; 8]>::try_from(chunk).ok()) {
        let word = u64::from_le_bytes(chunk);
        let quote = word ^ (ONES * b'"' as u64);
        let backslash = word ^ (ONES * b'\\' as u64);
        // A byte's high bit is set when the byte is below the subtrahend; a borrow can only flag bytes after a true hit.
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let hits =
            (control | (quote.wrapping_sub(ONES) & !quote) | (backslash.wrapping_sub(ONES) & !backslash))
                & HIGH;
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while at < bytes.len() && !matches!(bytes[at], b'"' | b'\\' | 0..0x20) {
        at += 1;
    }
    at
}

/// The number in the escape `\uXXXX` at `at`.
pub(super) fn utf16_unit(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at + 2..at + 6)?;
    digits.iter().try_fold(0, |sum, &digit| Some(sum * 16 + char::from(digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn special_bytes_are_found_where_they_are(bytes in proptest::collection::vec(any::<u8>(), 0..40), from in 0usize..40) {
            let from = from.min(bytes.len());
            let slow = bytes[from..].iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20));
            prop_assert_eq!(find_special(&bytes, from), slow.map_or(bytes.len(), |at| from + at));
            prop_assert_eq!(has_controls(&bytes), bytes.iter().any(|b| *b < 0x20));
        }
    }
}
