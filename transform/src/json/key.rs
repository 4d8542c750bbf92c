//! A name that probably comes next in a record, compared many bytes at a time.

/// A name with its quotes and its colon, without escapes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    text: &'static str,
    /// Its first 16 bytes, those that it has not are 0, and its last 16 bytes if it has so many.
    first: u128,
    last: u128,
    mask: u128,
}

impl Key {
    pub(crate) const fn new(text: &'static str) -> Self {
        let bytes = text.as_bytes();
        let (mut first, mut last, mut index) = (0u128, 0u128, 0);
        while index < bytes.len() && index < 16 {
            first |= (bytes[index] as u128) << (8 * index);
            if bytes.len() >= 16 {
                last |= (bytes[bytes.len() - 16 + index] as u128) << (8 * index);
            }
            index += 1;
        }
        Self { text, first, last, mask: if index == 16 { u128::MAX } else { (1 << (8 * index)) - 1 } }
    }

    pub(crate) const fn text(&self) -> &'static str {
        self.text
    }

    /// Where it ends, when it stands at `start`.
    #[inline(always)]
    pub(super) fn end_in(&self, bytes: &[u8], start: usize) -> Option<usize> {
        let length = self.text.len();
        let there = match (word(bytes, start), length) {
            (Some(first), 0..=16) => first & self.mask == self.first,
            (Some(first), 17..=32) => {
                first == self.first && word(bytes, start + length - 16) == Some(self.last)
            }
            _ => bytes.get(start..).is_some_and(|rest| rest.starts_with(self.text.as_bytes())),
        };
        there.then(|| start + length)
    }
}

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> Option<u128> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map(|bytes| u128::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_any_length_are_told_from_others() {
        for text in [
            r#""Id":"#,
            r#""CreationTime":"#,
            r#""ClientAppId12":"#,
            r#""ClientAppId123":"#,
            r#""ExternalAccess1":"#,
            r#""SendOnBehalfOfUserMailboxGuid":"#,
            r#""DestMailboxOwnerMasterAccountSid":"#,
        ] {
            let key = Key::new(text);
            for room in [0, 1, 40] {
                let there = format!("{{{text}{}", " ".repeat(room));
                assert_eq!(key.end_in(there.as_bytes(), 1), Some(text.len() + 1), "{there}");
                assert_eq!(key.end_in(there.as_bytes(), 0), None);
                for change in 1..=text.len() {
                    let mut other = there.clone().into_bytes();
                    other[change] ^= 1;
                    assert_eq!(key.end_in(&other, 1), None, "{change} of {there}");
                }
            }
            assert_eq!(key.end_in(&text.as_bytes()[..text.len() - 1], 0), None);
            assert_eq!(key.end_in(b"", 1), None);
        }
    }
}
