//! The keys that sign an archive: Ed25519 (RFC 8032), as PEM files that OpenSSL and every language's libraries read.
//!
//! | key | file |
//! |---|---|
//! | private | PKCS#8 version 1 (RFC 5208), `-----BEGIN PRIVATE KEY-----`, as `openssl genpkey -algorithm ed25519` makes it |
//! | public | SubjectPublicKeyInfo (RFC 8410), `-----BEGIN PUBLIC KEY-----`, as `openssl pkey -pubout` makes it |
//!
//! A private key is never printed: its `Debug` shows the id of its public key only.

use std::{fmt, str::FromStr};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use serde::{Deserialize, Serialize};

use crate::hash::{Hash, hex, unhex};

/// What stands before the 32 bytes of a public key in its SubjectPublicKeyInfo.
const SPKI_PREFIX: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

const PUBLIC: &str = "PUBLIC KEY";
const PRIVATE: &str = "PRIVATE KEY";

/// The text holds no key that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no such block.
    #[error("no `-----BEGIN {wanted}-----` is in it{}", found.as_deref().map(|found| format!(", but a {found}")).unwrap_or_default())]
    NoBlock {
        /// What was looked for.
        wanted: &'static str,
        /// What is there instead.
        found: Option<String>,
    },
    /// The block does not end, or holds something else than base64.
    #[error("the block {label} is damaged")]
    Damaged {
        /// Which block.
        label: &'static str,
    },
    /// It is a key of another kind.
    #[error(
        "it is no Ed25519 key (`mailtrail archive keygen` makes one, or `openssl genpkey -algorithm ed25519`)"
    )]
    NotEd25519,
    /// The random numbers of the operating system are not to be had.
    #[error("the operating system gives no random numbers")]
    NoRandom,
}

/// A public key's short name: the first 16 hexadecimal digits of the SHA-256 of its 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, std::hash::Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId([u8; 8]);

/// The text is no key id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no key id (expected 16 lower-case hexadecimal digits)")]
pub struct NotAKeyId {
    /// What was given instead.
    pub text: String,
}

impl FromStr for KeyId {
    type Err = NotAKeyId;

    fn from_str(text: &str) -> Result<Self, NotAKeyId> {
        unhex(text).map(Self).ok_or_else(|| NotAKeyId { text: text.to_owned() })
    }
}

impl TryFrom<String> for KeyId {
    type Error = NotAKeyId;

    fn try_from(text: String) -> Result<Self, NotAKeyId> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// What checks signatures. In JSON it is the base64 of its 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads the first public key of a PEM text.
    ///
    /// # Errors
    ///
    /// When there is none, or not of Ed25519.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = block(text, PUBLIC)?;
        let key = der.expose_secret().strip_prefix(&SPKI_PREFIX).ok_or(KeyError::NotEd25519)?;
        key.try_into().map(Self).map_err(|_| KeyError::NotEd25519)
    }

    /// The key as PEM, with a line break at its end.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem(PUBLIC, &[&SPKI_PREFIX[..], &self.0].concat())
    }

    /// Its short name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let mut id = [0; 8];
        id.copy_from_slice(&Hash::of(&self.0).as_bytes()[..8]);
        KeyId(id)
    }

    /// Whether the signature over the message is that of this key.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| KeyError::Damaged { label: PUBLIC })?;
        bytes.try_into().map(Self).map_err(|_| KeyError::NotEd25519)
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        BASE64_STANDARD.encode(key.0)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

/// What signs.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// Makes a new one.
    ///
    /// # Errors
    ///
    /// When the operating system gives no random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        Ed25519KeyPair::generate().map_err(|_| KeyError::NoRandom).and_then(Self::new)
    }

    /// Reads the first private key of a PEM text.
    ///
    /// # Errors
    ///
    /// When there is none, or not of Ed25519.
    pub fn from_pem(text: &SecretString) -> Result<Self, KeyError> {
        let der = block(text.expose_secret(), PRIVATE)?;
        Ed25519KeyPair::from_pkcs8(der.expose_secret()).map_err(|_| KeyError::NotEd25519).and_then(Self::new)
    }

    fn new(pair: Ed25519KeyPair) -> Result<Self, KeyError> {
        let public =
            pair.public_key().as_ref().try_into().map(PublicKey).map_err(|_| KeyError::NotEd25519)?;
        Ok(Self { pair, public })
    }

    /// The key as PEM, with a line break at its end.
    ///
    /// # Errors
    ///
    /// When the library cannot write it down.
    pub fn to_pem(&self) -> Result<SecretString, KeyError> {
        let der = self.pair.to_pkcs8v1().map_err(|_| KeyError::Damaged { label: PRIVATE })?;
        Ok(pem(PRIVATE, der.as_ref()).into())
    }

    /// The public key that checks its signatures.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The signature of the message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public.id())
    }
}

/// The bytes of the first block with this label.
fn block(text: &str, label: &'static str) -> Result<SecretSlice<u8>, KeyError> {
    let begin = format!("-----BEGIN {label}-----");
    let Some((_, rest)) = text.split_once(&begin) else {
        let found = text.split_once("-----BEGIN ").and_then(|(_, rest)| rest.split_once("-----"));
        // A label is short; anything else is not worth showing, and might be a secret.
        let found = found.map(|(found, _)| found.to_owned()).filter(|found| found.len() <= 40);
        return Err(KeyError::NoBlock { wanted: label, found });
    };
    let damaged = KeyError::Damaged { label };
    let Some((body, _)) = rest.split_once("-----END ") else { return Err(damaged) };
    let body: SecretString = body.split_whitespace().collect::<String>().into();
    BASE64_STANDARD.decode(body.expose_secret()).map(SecretSlice::from).map_err(|_| damaged)
}

/// A block that is short enough for one line, as those of Ed25519 keys are (RFC 7468: at most 64 characters).
fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8410, section 10.1 and 10.3.
    const PUBLIC_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    const PRIVATE_PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";

    #[test]
    fn the_keys_of_the_standard_are_read_and_written_as_they_are() {
        let public = PublicKey::from_pem(PUBLIC_PEM).unwrap();
        let private = SigningKey::from_pem(&PRIVATE_PEM.into()).unwrap();
        assert_eq!(private.public(), &public);
        assert_eq!(public.to_pem(), PUBLIC_PEM);
        assert_eq!(private.to_pem().unwrap().expose_secret(), PRIVATE_PEM);
        assert_eq!(public.id().to_string(), Hash::of(&public.0).short());
        assert_eq!(PublicKey::try_from(String::from(public)), Ok(public));
    }

    #[test]
    fn text_around_a_key_and_other_line_breaks_do_no_harm() {
        let text = format!("# the archive's key\r\n{}", PUBLIC_PEM.replace('\n', "\r\n"));
        assert_eq!(PublicKey::from_pem(&text), PublicKey::from_pem(PUBLIC_PEM));
    }

    #[test]
    fn a_message_says_what_was_given_instead_of_a_key() {
        let said = |text: &str| SigningKey::from_pem(&text.into()).unwrap_err().to_string();
        assert_eq!(said(PUBLIC_PEM), "no `-----BEGIN PRIVATE KEY-----` is in it, but a PUBLIC KEY");
        assert_eq!(said(""), "no `-----BEGIN PRIVATE KEY-----` is in it");
        assert_eq!(said(&PRIVATE_PEM[..40]), "the block PRIVATE KEY is damaged");
        assert_eq!(said(&PRIVATE_PEM.replace("MC4", "???")), "the block PRIVATE KEY is damaged");
        assert!(said(&PRIVATE_PEM.replace("K2Vw", "K2Vu")).starts_with("it is no Ed25519 key"), "X25519");
        assert!(PublicKey::from_pem(&PUBLIC_PEM.replace("K2Vw", "K2Vu")).is_err(), "X25519");
    }

    #[test]
    fn only_the_signing_key_s_signature_is_verified_and_its_secret_is_never_shown() {
        let key = SigningKey::generate().unwrap();
        let again = SigningKey::from_pem(&key.to_pem().unwrap()).unwrap();
        let signature = again.sign(b"message");
        assert!(key.public().verifies(b"message", &signature));
        assert!(!key.public().verifies(b"massage", &signature));
        assert!(!SigningKey::generate().unwrap().public().verifies(b"message", &signature));
        assert!(!key.public().verifies(b"message", &signature[1..]));
        assert_eq!(format!("{key:?}"), format!("SigningKey({})", key.public().id()));
    }
}
