//! Keys in a bucket that `object_store` cannot hold. It refuses a whole page of a listing for one key such as `a//b`, and takes `/a`,
//! `a/` and `a` for the same. Anybody who can write to the bucket can put such keys there, and while they are locked nobody can take
//! them away.
//!
//! So on its way to the library such a key becomes a name that it can hold, and on its way from there the key again.

use std::fmt::Write as _;

use object_store::path::Path;

/// What a key begins with that stands for another; a key that really begins so is written in the same way.
const MARK: &str = "~key~";

/// A listing in which every key is one that the library holds as it is. `None` when they all are already. `element` is the
/// element of XML that keys stand in.
pub(super) fn held(listing: &str, element: &str) -> Option<String> {
    let (begin, end) = (format!("<{element}>"), format!("</{element}>"));
    let (mut text, mut rest, mut changed) = (String::new(), listing, false);
    while let Some((before, behind)) = rest.split_once(&begin) {
        let Some((written, behind)) = behind.split_once(&end) else { break };
        text.push_str(before);
        text.push_str(&begin);
        match unescaped(written).filter(|key| !is_held(key)) {
            Some(key) => {
                text.push_str(&marked(&key));
                changed = true;
            }
            None => text.push_str(written),
        }
        text.push_str(&end);
        rest = behind;
    }
    text.push_str(rest);
    changed.then_some(text)
}

/// The key that a name stands for, when it is another.
pub(super) fn key_of(name: &str) -> Option<String> {
    let bytes = name.strip_prefix(MARK)?.as_bytes();
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    let mut key = Vec::new();
    for at in (0..bytes.len()).step_by(2) {
        key.push(u8::try_from(digit(at)? << 4 | digit(at + 1)?).ok()?);
    }
    String::from_utf8(key).ok()
}

fn is_held(key: &str) -> bool {
    !key.starts_with(MARK) && Path::parse(key).is_ok_and(|path| path.as_ref() == key)
}

fn marked(key: &str) -> String {
    key.bytes().fold(MARK.to_owned(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// A text of XML without its references. `None` when one is unknown, which is left to the library.
fn unescaped(text: &str) -> Option<String> {
    let mut parts = text.split('&');
    let mut key = parts.next()?.to_owned();
    for part in parts {
        let (name, behind) = part.split_once(';')?;
        key.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            number => {
                let number = number.strip_prefix('#')?;
                let number = match number.strip_prefix('x') {
                    Some(digits) => u32::from_str_radix(digits, 16),
                    None => number.parse(),
                };
                char::from_u32(number.ok()?)?
            }
        });
        key.push_str(behind);
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_cannot_be_held_comes_back_as_it_was() {
        for key in ["a//b", "/a", "a/", "/", "a/../b", "a\u{1}b", "~key~61", "ä//&<\"'>"] {
            let escaped = key.replace('&', "&amp;").replace('<', "&lt;").replace('\u{1}', "&#x1;");
            let listing = format!("<R><Key>a b</Key><Size>1</Size><Key>{escaped}</Key></R>");
            let held = held(&listing, "Key").unwrap();
            let name = held.rsplit_once("<Key>").unwrap().1.split_once('<').unwrap().0;
            assert_eq!(Path::parse(name).unwrap().as_ref(), name);
            assert_eq!(key_of(name).as_deref(), Some(key));
            assert!(held.starts_with("<R><Key>a b</Key><Size>1</Size><Key>~key~"), "{held}");
            assert!(held.ends_with("</Key></R>"), "{held}");
        }
    }

    #[test]
    fn a_listing_that_can_be_held_stays() {
        let listing = "<R><Name>//</Name><Key>a=b/c&amp;d.json</Key><Key>&unknown;//</Key></R>";
        assert_eq!((held(listing, "Key"), key_of("a/b"), key_of("~key~6")), (None, None, None));
        assert!(held(listing, "Name").is_some());
    }
}
