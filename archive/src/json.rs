//! JSON that everybody reads alike: no member twice, and no deeper than any reader goes.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// How deep it may be nested.
const LEVELS: usize = 100;

/// Refuses JSON that is read differently by different readers.
pub(crate) fn check(bytes: &[u8]) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    Plain { levels: LEVELS }.deserialize(&mut reader)?;
    reader.end()
}

/// A value with at most so many levels.
#[derive(Clone, Copy)]
struct Plain {
    levels: usize,
}

impl Plain {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        let levels = self.levels.checked_sub(1);
        levels.map(|levels| Self { levels }).ok_or_else(|| E::custom("it is nested too deep"))
    }
}

impl<'de> DeserializeSeed<'de> for Plain {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Plain {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while list.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let (inner, mut names) = (self.inner()?, HashSet::new());
        while let Some(name) = object.next_key::<Cow<'de, str>>()? {
            if !names.insert(name.into_owned()) {
                return Err(A::Error::custom("a member is there twice"));
            }
            object.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_readers_may_take_differently_is_refused() {
        let good = |text: &str| check(text.as_bytes()).is_ok();
        assert!(good(r#"{"a":[{"a":1},{"a":null,"b":-1.5e3}],"b":"a\n","c":true}"#));
        for bad in [r#"{"a":1,"a":1}"#, r#"{"x":[{"a":1,"\u0061":2}]}"#, "{} {}", "", "{"] {
            assert!(!good(bad), "{bad}");
        }
        let nested = |levels| "[".repeat(levels) + &"]".repeat(levels);
        assert!(good(&nested(LEVELS)) && !good(&nested(LEVELS + 1)) && !good(&nested(1_000_000)));
    }
}
