//! Time-stamps of entries (RFC 3161): what an authority is asked, and what its answer says.
//!
//! A time-stamp says that the hash of an entry's payload existed at a time. Each entry holds the hash of the one before, so
//! that of the head speaks for the whole chain. What is stored beside the entry is the authority's whole answer.
//!
//! Read here is which hash it is for, and when it was made. Who made it, that is the signature and its certificates, is
//! for whoever trusts that authority to check: `openssl ts -verify` does.

use chrono::{DateTime, NaiveDateTime, Utc};
use der::{
    Decode, Encode, Reader as _, Sequence, SliceReader, Tag, TagNumber, Tagged as _,
    asn1::{AnyRef, Null, ObjectIdentifier, OctetString},
};

use crate::hash::Hash;

/// The largest answer that is read. With the certificates of its chain one has some 10 KB.
pub const ANSWER_BYTES: usize = 64 << 10;

/// SHA-256 (RFC 5754).
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
/// Signed data (RFC 5652).
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
/// What is signed is a time-stamp (RFC 3161).
const TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");

/// What an authority is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampQuery {
    /// The hash that it is to see.
    pub imprint: Hash,
    /// A number that its answer has to repeat, so that it is not an old one.
    pub nonce: u64,
}

/// An authority's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timestamp {
    /// The hash that it saw.
    pub imprint: Hash,
    /// When, by its clock.
    pub time: DateTime<Utc>,
    /// The number that it was asked to repeat, without leading zeros.
    nonce: Option<Vec<u8>>,
}

/// An answer that is no time-stamp of what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// The authority does not want to.
    #[error("the authority refuses, with status {status}{}", .text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused {
        /// Its status (RFC 3161, section 2.4.2).
        status: u8,
        /// What it says about that.
        text: Option<String>,
    },
    /// It cannot be read.
    #[error("it is no time-stamp: {0}")]
    Malformed(der::Error),
    /// It holds something else.
    #[error("it is no time-stamp: {0}")]
    Else(&'static str),
    /// It is about something else.
    #[error("it is for another hash, {found}")]
    OtherImprint {
        /// Which.
        found: Hash,
    },
    /// It answers another question.
    #[error("it answers another question: its nonce is not ours")]
    OtherNonce,
}

impl From<der::Error> for TimestampError {
    fn from(error: der::Error) -> Self {
        Self::Malformed(error)
    }
}

#[derive(Sequence)]
struct Algorithm {
    algorithm: ObjectIdentifier,
    /// Some authorities want them to be there.
    parameters: Null,
}

#[derive(Sequence)]
struct Imprint {
    algorithm: Algorithm,
    hash: OctetString,
}

#[derive(Sequence)]
struct Query {
    version: u8,
    imprint: Imprint,
    nonce: u64,
    /// Whether the answer is to hold the certificate, without which it could not be checked in ten years.
    certificates: bool,
}

impl TimestampQuery {
    /// As it is sent.
    #[must_use]
    pub fn to_der(&self) -> Vec<u8> {
        let hash = OctetString::new(self.imprint.as_bytes().as_slice()).expect("a hash is short");
        let algorithm = Algorithm { algorithm: SHA256, parameters: Null };
        let imprint = Imprint { algorithm, hash };
        let query = Query { version: 1, imprint, nonce: self.nonce, certificates: true };
        query.to_der().expect("a query is short")
    }

    /// Whether this is the answer to it.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn check(&self, answer: &[u8]) -> Result<Timestamp, TimestampError> {
        let timestamp = Timestamp::parse(answer)?;
        timestamp.is_of(&self.imprint)?;
        let ours = self.nonce.to_be_bytes();
        let zeros = ours.iter().take_while(|byte| **byte == 0).count();
        match &timestamp.nonce {
            Some(nonce) if nonce.as_slice() == &ours[zeros..] => Ok(timestamp),
            _ => Err(TimestampError::OtherNonce),
        }
    }
}

impl Timestamp {
    /// Reads an answer.
    ///
    /// # Errors
    ///
    /// When it is none, or a refusal.
    pub fn parse(answer: &[u8]) -> Result<Self, TimestampError> {
        let mut response = inside(&mut SliceReader::new(answer)?, Tag::Sequence)?;
        let mut status = inside(&mut response, Tag::Sequence)?;
        let granted = u8::decode(&mut status)?;
        // 1 is granted with modifications.
        if granted > 1 {
            return Err(TimestampError::Refused { status: granted, text: first_text(&mut status) });
        }
        let mut token = inside(&mut response, Tag::Sequence)?;
        expect(&mut token, SIGNED_DATA, "it is not signed")?;
        let mut signed = inside(&mut inside(&mut token, context(0))?, Tag::Sequence)?;
        let _version = AnyRef::decode(&mut signed)?;
        let _digests = AnyRef::decode(&mut signed)?;
        let mut content = inside(&mut signed, Tag::Sequence)?;
        expect(&mut content, TST_INFO, "something else was signed")?;
        let mut content = inside(&mut content, context(0))?;
        let mut info = inside(&mut inside(&mut content, Tag::OctetString)?, Tag::Sequence)?;
        let _version = AnyRef::decode(&mut info)?;
        let _policy = AnyRef::decode(&mut info)?;
        let mut imprint = inside(&mut info, Tag::Sequence)?;
        expect(&mut inside(&mut imprint, Tag::Sequence)?, SHA256, "its hash is no SHA-256")?;
        let hash = value(&mut imprint, Tag::OctetString)?;
        let hash: [u8; 32] = hash.try_into().map_err(|_| TimestampError::Else("its hash is no SHA-256"))?;
        let _serial = AnyRef::decode(&mut info)?;
        let time = time(value(&mut info, Tag::GeneralizedTime)?)?;
        let mut nonce = None;
        while nonce.is_none() && !info.is_finished() {
            let next = AnyRef::decode(&mut info)?;
            nonce = (next.tag() == Tag::Integer).then(|| {
                let zeros = next.value().iter().take_while(|byte| **byte == 0).count();
                next.value()[zeros..].to_vec()
            });
        }
        Ok(Self { imprint: Hash::from_bytes(hash), time, nonce })
    }

    /// Whether it is of this hash.
    ///
    /// # Errors
    ///
    /// When it is of another one.
    pub fn is_of(&self, hash: &Hash) -> Result<(), TimestampError> {
        if self.imprint == *hash { Ok(()) } else { Err(TimestampError::OtherImprint { found: self.imprint }) }
    }
}

const fn context(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: true, number: TagNumber(number) }
}

/// The content of the next value, which has this tag.
fn value<'a>(reader: &mut SliceReader<'a>, tag: Tag) -> Result<&'a [u8], der::Error> {
    let next = AnyRef::decode(reader)?;
    next.tag().assert_eq(tag)?;
    Ok(next.value())
}

/// What is inside the next value, which has this tag.
fn inside<'a>(reader: &mut SliceReader<'a>, tag: Tag) -> Result<SliceReader<'a>, der::Error> {
    SliceReader::new(value(reader, tag)?)
}

fn expect(
    reader: &mut SliceReader<'_>,
    what: ObjectIdentifier,
    or: &'static str,
) -> Result<(), TimestampError> {
    if ObjectIdentifier::decode(reader)? == what { Ok(()) } else { Err(TimestampError::Else(or)) }
}

/// The first line that a refusal says, without what could confuse a terminal.
fn first_text(status: &mut SliceReader<'_>) -> Option<String> {
    let mut texts = inside(status, Tag::Sequence).ok()?;
    let text = String::from_utf8_lossy(value(&mut texts, Tag::Utf8String).ok()?).into_owned();
    Some(text.lines().next()?.chars().filter(|letter| !letter.is_control()).take(300).collect())
}

/// A time in UTC, which may have a fraction (RFC 3161, section 2.4.2).
fn time(text: &[u8]) -> Result<DateTime<Utc>, TimestampError> {
    let text = std::str::from_utf8(text).ok().and_then(|text| text.strip_suffix('Z'));
    let time = text.and_then(|text| NaiveDateTime::parse_from_str(text, "%Y%m%d%H%M%S%.f").ok());
    time.map(|time| time.and_utc()).ok_or(TimestampError::Else("its time cannot be read"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `openssl ts -reply` answered to the query below, with certificates.
    const ANSWER: &[u8] = include_bytes!("timestamp/answer.tsr");
    /// What it answers when it does not want to.
    const REFUSAL: &[u8] =
        b"\x30\x37\x30\x35\x02\x01\x02\x30\x2c\x0c\x2aMessage digest algorithm is not supported.\x03\x02\x07\x80";

    fn query() -> TimestampQuery {
        TimestampQuery { imprint: Hash::of(b"an entry"), nonce: 0x9a0b_0c0d_0e0f_1011 }
    }

    #[test]
    fn an_answer_says_what_was_seen_and_when() {
        let timestamp = query().check(ANSWER).unwrap();
        assert_eq!(timestamp.imprint, Hash::of(b"an entry"));
        assert_eq!(timestamp.time, "2026-11-21T22:53:40Z".parse::<DateTime<Utc>>().unwrap());
        let other = TimestampQuery { imprint: Hash::of(b"another"), ..query() };
        assert_eq!(other.check(ANSWER), Err(TimestampError::OtherImprint { found: Hash::of(b"an entry") }));
        let later = TimestampQuery { nonce: 7, ..query() };
        assert_eq!(later.check(ANSWER), Err(TimestampError::OtherNonce), "an old answer is none");
    }

    #[test]
    fn a_query_is_what_openssl_asks() {
        let der = query().to_der();
        let imprint = Hash::of(b"an entry");
        let parts: [&[u8]; 4] = [
            b"\x30\x44\x02\x01\x01\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
            imprint.as_bytes(),
            b"\x02\x09\x00\x9a\x0b\x0c\x0d\x0e\x0f\x10\x11",
            b"\x01\x01\xff",
        ];
        assert_eq!(der, parts.concat());
    }

    #[test]
    fn a_refusal_says_why() {
        let error = query().check(REFUSAL).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the authority refuses, with status 2 (Message digest algorithm is not supported.)"
        );
        assert!(matches!(query().check(b"<html>"), Err(TimestampError::Malformed(_))));
    }

    #[test]
    fn a_time_may_have_a_fraction() {
        let at = |text: &str| time(text.as_bytes()).map(|time| time.to_rfc3339());
        assert_eq!(at("20261121225340Z").unwrap(), "2026-11-21T22:53:40+00:00");
        assert_eq!(at("20261121225340.25Z").unwrap(), "2026-11-21T22:53:40.250+00:00");
        for bad in ["20261121225340", "Z", "20261321225340Z", "\u{e9}Z"] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whatever_an_authority_answers_is_no_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            at in 0..ANSWER.len(),
            to: u8,
        ) {
            let _ = Timestamp::parse(&bytes);
            let mut changed = ANSWER.to_vec();
            changed[at] = to;
            if let Ok(timestamp) = query().check(&changed) {
                // Nothing that is read has changed without being noticed.
                prop_assert_eq!(timestamp.imprint, query().imprint);
            }
            let _ = Timestamp::parse(&ANSWER[..at]);
        }
    }
}
