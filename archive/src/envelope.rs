//! The signed envelope of an entry: DSSE (Dead Simple Signing Envelope, version 1), which any language opens in ten lines.
//!
//! The payload is signed as the bytes that it is, not as what they mean: nobody has to agree on how JSON is written to check a
//! signature. On disk an envelope is one line of JSON with a line break at its end:
//!
//! ```json
//! {"payloadType":"application/vnd.mailtrail.archive-entry+json","payload":"<base64>","signatures":[{"keyid":"…","sig":"<base64>"}]}
//! ```

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    hash::Hash,
    json,
    key::{KeyId, PublicKey, SigningKey},
};

/// What a payload is.
pub const PAYLOAD_TYPE: &str = "application/vnd.mailtrail.archive-entry+json";

/// A payload and its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Envelope {
    payload: Vec<u8>,
    keyid: KeyId,
    signature: Vec<u8>,
}

/// The bytes are no envelope of an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// They are no JSON of this form.
    #[error("it is no signed envelope: {why}")]
    Form {
        /// What the parser says.
        why: String,
    },
    /// It holds something else.
    #[error("its payload is a `{found}`, not a `{PAYLOAD_TYPE}`")]
    PayloadType {
        /// What it says.
        found: String,
    },
    /// A member is no base64, or not the only way to write these bytes.
    #[error("its {member} is not base64 (RFC 4648, section 4, with padding)")]
    Base64 {
        /// Which.
        member: &'static str,
    },
    /// There must be one.
    #[error("it has {found} signatures, not one")]
    Signatures {
        /// How many there are.
        found: usize,
    },
}

/// An envelope as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(rename = "payloadType")]
    payload_type: String,
    payload: String,
    signatures: Vec<WrittenSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSignature {
    keyid: KeyId,
    sig: String,
}

impl Envelope {
    /// Signs a payload.
    #[must_use]
    pub fn seal(payload: Vec<u8>, key: &SigningKey) -> Self {
        let signature = key.sign(&to_sign(&payload));
        Self { payload, keyid: key.public().id(), signature }
    }

    /// Reads an envelope. Its signature is checked by [`Envelope::is_signed_by`] only.
    ///
    /// # Errors
    ///
    /// When the bytes are none.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let form = |error: serde_json::Error| EnvelopeError::Form { why: error.to_string() };
        json::check(bytes).map_err(form)?;
        let written: Written = serde_json::from_slice(bytes).map_err(form)?;
        written.try_into()
    }

    /// The envelope as it lies in the archive.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("strings are always written");
        bytes.push(b'\n');
        bytes
    }

    /// The signed bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The hash of the signed bytes, by which the next entry and a head name this one.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of(&self.payload)
    }

    /// The key that is said to have signed; a hint only.
    #[must_use]
    pub fn keyid(&self) -> KeyId {
        self.keyid
    }

    /// Whether this key signed it.
    #[must_use]
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        self.keyid == key.id() && key.verifies(&to_sign(&self.payload), &self.signature)
    }
}

/// DSSE's "pre-authentication encoding": what the signature is over.
fn to_sign(payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

impl TryFrom<Written> for Envelope {
    type Error = EnvelopeError;

    fn try_from(written: Written) -> Result<Self, EnvelopeError> {
        if written.payload_type != PAYLOAD_TYPE {
            return Err(EnvelopeError::PayloadType { found: written.payload_type });
        }
        let [signature] = <[WrittenSignature; 1]>::try_from(written.signatures)
            .map_err(|several| EnvelopeError::Signatures { found: several.len() })?;
        let bytes =
            |text: &str, member| BASE64_STANDARD.decode(text).map_err(|_| EnvelopeError::Base64 { member });
        Ok(Self {
            payload: bytes(&written.payload, "payload")?,
            keyid: signature.keyid,
            signature: bytes(&signature.sig, "signature")?,
        })
    }
}

impl From<Envelope> for Written {
    fn from(envelope: Envelope) -> Self {
        let sig = BASE64_STANDARD.encode(&envelope.signature);
        Self {
            payload_type: PAYLOAD_TYPE.to_owned(),
            payload: BASE64_STANDARD.encode(&envelope.payload),
            signatures: vec![WrittenSignature { keyid: envelope.keyid, sig }],
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_signed_is_the_encoding_of_the_standard() {
        // The example of DSSE's protocol page has the type http://example.com/HelloWorld; ours is another, the form is the same.
        let text = String::from_utf8(to_sign(b"hello world")).unwrap();
        assert_eq!(text, "DSSEv1 44 application/vnd.mailtrail.archive-entry+json 11 hello world");
    }

    #[test]
    fn an_envelope_is_one_line_and_comes_back() {
        let key = SigningKey::generate().unwrap();
        let envelope = Envelope::seal(b"{}".to_vec(), &key);
        let bytes = envelope.to_bytes();
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert!(bytes.ends_with(b"]}\n"));
        let again = Envelope::parse(&bytes).unwrap();
        assert_eq!(again, envelope);
        assert!(again.is_signed_by(key.public()));
        assert!(!again.is_signed_by(SigningKey::generate().unwrap().public()));
        assert_eq!((again.payload(), again.hash()), (&b"{}"[..], Hash::of(b"{}")));
    }

    #[test]
    fn what_is_not_an_envelope_is_said() {
        let key = SigningKey::generate().unwrap();
        let text = String::from_utf8(Envelope::seal(b"{}".to_vec(), &key).to_bytes()).unwrap();
        let said = |text: &str| Envelope::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(said("").starts_with("it is no signed envelope: EOF"));
        assert!(
            said(&text.replace("archive-entry", "archive-entrance"))
                .contains("archive-entrance+json`, not a")
        );
        assert!(said(&text.replace("e30=", "e30")).contains("payload is not base64"));
        assert!(
            said(&text.replace("e30=", "e31=")).contains("payload is not base64"),
            "bits that stand for nothing"
        );
        let signature = &text[text.find("[{").unwrap() + 1..text.find("}]").unwrap() + 1];
        assert!(said(&text.replace(signature, "")).contains("has 0 signatures"));
        let two = format!("{signature},{signature}");
        assert!(said(&text.replace(signature, &two)).contains("has 2 signatures"));
        assert!(
            said(&text.replace("\"payload\"", "\"note\":1,\"payload\"")).contains("unknown field `note`")
        );
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_refused(payload in proptest::collection::vec(any::<u8>(), 0..200), at in any::<proptest::sample::Index>()) {
            let key = SigningKey::from_pem(
                &"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                  -----END PRIVATE KEY-----".into(),
            )
            .unwrap();
            let mut bytes = Envelope::seal(payload, &key).to_bytes();
            let bit = at.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let refused = !Envelope::parse(&bytes).is_ok_and(|envelope| envelope.is_signed_by(key.public()));
            prop_assert!(refused, "bit {} of {}", bit, String::from_utf8_lossy(&bytes));
        }
    }
}
