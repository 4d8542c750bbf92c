//! A certificate with its key: a proof of who an application is that never leaves this machine.
//!
//! A PEM text holds both, in any order, with or without a chain; the certificate that belongs to the key is taken.
//! Keys are RSA, PKCS#8 or PKCS#1, and not encrypted. What goes to Entra is an assertion: a JWT signed with PS256 that
//! names the certificate by its thumbprints and is good for ten minutes (Microsoft identity platform, "Application
//! authentication certificate credentials").

use std::fmt;

use aws_lc_rs::{
    digest,
    rand::SystemRandom,
    rsa::KeyPair,
    signature::{KeyPair as _, RSA_PSS_SHA256},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde::Serialize;
use uuid::Uuid;
use x509_cert::der::{Decode, asn1::ObjectIdentifier};
use zeroize::Zeroizing;

use crate::credential::ClientId;

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// How long an assertion is good for.
const ASSERTION_LIFE: TimeDelta = TimeDelta::minutes(10);
/// Entra's clock may be behind ours by this much.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(1);

/// An RSA key and its certificate.
pub struct Certificate {
    key: KeyPair,
    sha1_thumbprint: String,
    sha256_thumbprint: String,
    validity: Validity,
}

#[derive(Clone, Copy)]
struct Validity {
    not_before: DateTime<Utc>,
    not_after: DateTime<Utc>,
}

/// A certificate that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The text is no PEM.
    #[error("it is not a PEM text")]
    NotPem,
    /// There is no certificate in it.
    #[error("there is no certificate in it, only a key; it must also contain -----BEGIN CERTIFICATE-----")]
    NoCertificate,
    /// There is no key in it.
    #[error("there is no private key in it; it must also contain -----BEGIN PRIVATE KEY-----")]
    NoKey,
    /// There are several keys in it.
    #[error("there is more than one private key in it")]
    SeveralKeys,
    /// The key is encrypted.
    #[error("its private key is encrypted")]
    EncryptedKey,
    /// The key is of another kind than RSA.
    #[error("its private key is not an RSA key; Microsoft Entra ID takes RSA only")]
    NotRsa,
    /// The key is damaged, shorter than 2048 bits or longer than 8192.
    #[error("its private key cannot be used: {reason}")]
    BadKey {
        /// What the cryptographic library says; nothing of the key.
        reason: String,
    },
    /// A certificate is damaged.
    #[error("its certificate cannot be read")]
    BadCertificate,
    /// No certificate belongs to the key.
    #[error("its certificate does not belong to its private key")]
    Mismatch,
    /// The certificate's time is over.
    #[error("its certificate expired at {not_after}")]
    Expired {
        /// When.
        not_after: DateTime<Utc>,
    },
    /// The certificate's time has not come.
    #[error("its certificate is not valid before {not_before}")]
    NotYetValid {
        /// When it will be.
        not_before: DateTime<Utc>,
    },
    /// Signing failed.
    #[error("its private key does not sign")]
    Signing,
}

impl CertificateError {
    /// What to do about it.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::Expired { .. } => {
                "make a new certificate, upload its public part in Entra admin center > App registrations > the \
                 application > Certificates & secrets > Certificates, and put it with its key where the configuration \
                 points; if it is not expired, set this machine's clock"
            }
            Self::NotYetValid { .. } => "set this machine's clock, or wait until the certificate is valid",
            Self::EncryptedKey => {
                "decrypt the key with `openssl pkey -in encrypted.pem -out key.pem`, mode 0600"
            }
            Self::NotRsa => "make a certificate with an RSA key of 2048 bits or more",
            Self::NotPem => {
                "convert it to PEM; a .pfx file with `openssl pkcs12 -in file.pfx -nodes -out file.pem`, mode 0600"
            }
            Self::NoCertificate
            | Self::NoKey
            | Self::SeveralKeys
            | Self::BadKey { .. }
            | Self::BadCertificate
            | Self::Mismatch
            | Self::Signing => {
                "put one RSA private key and its certificate, both as PEM, into that one place"
            }
        }
    }
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    typ: &'a str,
    x5t: &'a str,
    #[serde(rename = "x5t#S256")]
    x5t_s256: &'a str,
}

#[derive(Serialize)]
struct AssertionClaims<'a> {
    aud: &'a str,
    iss: &'a str,
    sub: &'a str,
    jti: Uuid,
    nbf: i64,
    iat: i64,
    exp: i64,
}

impl Certificate {
    /// Reads a key and its certificate. A certificate that is not valid now can be read, but not used.
    ///
    /// # Errors
    ///
    /// When the text does not hold exactly one usable key and its certificate.
    pub fn from_pem(pem: &str) -> Result<Self, CertificateError> {
        let mut keys = Vec::new();
        let mut certificates = Vec::new();
        if pem.contains("BEGIN ENCRYPTED PRIVATE KEY") || pem.contains("4,ENCRYPTED") {
            return Err(CertificateError::EncryptedKey);
        }
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()) {
            // The reason is dropped because it may quote the text.
            let (kind, der) = section.map_err(|_| CertificateError::NotPem)?;
            match kind {
                SectionKind::Certificate => certificates.push(der),
                SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                    keys.push((kind, Zeroizing::new(der)));
                }
                _ => {}
            }
        }
        let (kind, key) = match keys.as_slice() {
            [(kind, key)] => (*kind, key),
            [] if certificates.is_empty() => return Err(CertificateError::NotPem),
            [] => return Err(CertificateError::NoKey),
            _ => return Err(CertificateError::SeveralKeys),
        };
        let key = read_key(kind, key)?;
        if certificates.is_empty() {
            return Err(CertificateError::NoCertificate);
        }
        for der in &certificates {
            if let Some(validity) = validity_if_of(der, key.public_key().as_ref())? {
                let thumbprint =
                    |algorithm| BASE64_URL_SAFE_NO_PAD.encode(digest::digest(algorithm, der).as_ref());
                return Ok(Self {
                    key,
                    sha1_thumbprint: thumbprint(&digest::SHA1_FOR_LEGACY_USE_ONLY),
                    sha256_thumbprint: thumbprint(&digest::SHA256),
                    validity,
                });
            }
        }
        Err(CertificateError::Mismatch)
    }

    /// The last moment at which the certificate is valid.
    #[must_use]
    pub const fn not_after(&self) -> DateTime<Utc> {
        self.validity.not_after
    }

    /// The SHA-1 thumbprint as Entra admin center shows it, in base64url.
    #[must_use]
    pub fn sha1_thumbprint(&self) -> &str {
        &self.sha1_thumbprint
    }

    /// Says to `audience`, the token endpoint, that we are `client`.
    pub(crate) fn assertion(
        &self,
        audience: &str,
        client: &ClientId,
        now: DateTime<Utc>,
    ) -> Result<Zeroizing<String>, CertificateError> {
        if now > self.validity.not_after {
            return Err(CertificateError::Expired { not_after: self.validity.not_after });
        }
        if now + CLOCK_TOLERANCE < self.validity.not_before {
            return Err(CertificateError::NotYetValid { not_before: self.validity.not_before });
        }
        let header = Header {
            alg: "PS256",
            typ: "JWT",
            x5t: &self.sha1_thumbprint,
            x5t_s256: &self.sha256_thumbprint,
        };
        let claims = AssertionClaims {
            aud: audience,
            iss: client.as_str(),
            sub: client.as_str(),
            jti: Uuid::new_v4(),
            nbf: (now - CLOCK_TOLERANCE).timestamp(),
            iat: now.timestamp(),
            exp: (now + ASSERTION_LIFE).timestamp(),
        };
        let encode = |json: serde_json::Result<Vec<u8>>| {
            BASE64_URL_SAFE_NO_PAD.encode(json.expect("texts and numbers can always be written as JSON"))
        };
        let mut assertion = Zeroizing::new(String::with_capacity(2048));
        assertion.push_str(&encode(serde_json::to_vec(&header)));
        assertion.push('.');
        assertion.push_str(&encode(serde_json::to_vec(&claims)));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(&RSA_PSS_SHA256, &SystemRandom::new(), assertion.as_bytes(), &mut signature)
            .map_err(|_| CertificateError::Signing)?;
        assertion.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(&signature, &mut assertion);
        Ok(assertion)
    }
}

fn read_key(kind: SectionKind, der: &[u8]) -> Result<KeyPair, CertificateError> {
    let rejected = |reason: aws_lc_rs::error::KeyRejected| match reason.to_string() {
        wrong if wrong == "WrongAlgorithm" => CertificateError::NotRsa,
        reason => CertificateError::BadKey { reason },
    };
    match kind {
        SectionKind::EcPrivateKey => Err(CertificateError::NotRsa),
        SectionKind::RsaPrivateKey => KeyPair::from_der(der).map_err(rejected),
        _ => KeyPair::from_pkcs8(der).map_err(rejected),
    }
}

/// The last moment at which the first certificate of a PEM text is valid: the one that a TLS client shows as its own.
/// Its key may be of any kind, and need not be there.
///
/// # Errors
///
/// When the text holds no certificate, or one that cannot be read.
pub fn first_ends(pem: &[u8]) -> Result<DateTime<Utc>, CertificateError> {
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        // The reason is dropped because it may quote the text.
        let (kind, der) = section.map_err(|_| CertificateError::NotPem)?;
        if kind == SectionKind::Certificate {
            let certificate =
                x509_cert::Certificate::from_der(&der).map_err(|_| CertificateError::BadCertificate)?;
            return Ok(Validity::of(&certificate)?.not_after);
        }
    }
    Err(CertificateError::NoCertificate)
}

/// A certificate's validity, if `public_key` is what it certifies.
fn validity_if_of(der: &[u8], public_key: &[u8]) -> Result<Option<Validity>, CertificateError> {
    let certificate = x509_cert::Certificate::from_der(der).map_err(|_| CertificateError::BadCertificate)?;
    let certified = certificate.tbs_certificate().subject_public_key_info();
    if certified.algorithm.oid != RSA_ENCRYPTION || certified.subject_public_key.raw_bytes() != public_key {
        return Ok(None);
    }
    Validity::of(&certificate).map(Some)
}

impl Validity {
    fn of(certificate: &x509_cert::Certificate) -> Result<Self, CertificateError> {
        let validity = certificate.tbs_certificate().validity();
        let time = |time: x509_cert::time::Time| {
            let seconds = i64::try_from(time.to_unix_duration().as_secs()).ok();
            seconds
                .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
                .ok_or(CertificateError::BadCertificate)
        };
        Ok(Self { not_before: time(validity.not_before)?, not_after: time(validity.not_after)? })
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("thumbprint", &self.sha1_thumbprint)
            .field("not_after", &self.validity.not_after)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
    use base64::prelude::BASE64_STANDARD;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, date_time_ymd};
    use serde_json::Value;

    use super::*;

    const AUDIENCE: &str = "https://login.example.com/t/oauth2/v2.0/token";

    // Making an RSA key takes a while, so all tests share two.
    static KEY: LazyLock<rcgen::KeyPair> =
        LazyLock::new(|| rcgen::KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap());
    static OTHER_KEY: LazyLock<rcgen::KeyPair> =
        LazyLock::new(|| rcgen::KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap());

    fn certify(key: &rcgen::KeyPair, from: i32, to: i32) -> rcgen::Certificate {
        let mut params = CertificateParams::new(["collector.example.com".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        params.self_signed(key).unwrap()
    }

    fn pem(label: &str, der: &[u8]) -> String {
        let text = BASE64_STANDARD.encode(der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    fn pkcs8() -> String {
        KEY.serialize_pem()
    }

    /// The key inside of a PKCS#8 structure: after 26 bytes, for 2048 bits.
    fn pkcs1() -> String {
        pem("RSA PRIVATE KEY", &KEY.serialized_der()[26..])
    }

    fn client() -> ClientId {
        "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0".parse().unwrap()
    }

    #[test]
    fn an_assertion_is_signed_by_the_certificates_key_and_says_who_and_to_whom() {
        let issued = certify(&KEY, 2020, 2090);
        let chain = certify(&OTHER_KEY, 2020, 2090).pem();
        for text in [
            pkcs8() + &issued.pem(),
            issued.pem() + &pkcs1(),
            chain.clone() + &issued.pem() + &pkcs8(),
            format!("Bag Attributes\n    friendlyName: x\n{}{}{chain}", pkcs1(), issued.pem()),
        ] {
            let certificate = Certificate::from_pem(&text).unwrap();
            assert_eq!(certificate.not_after().to_rfc3339(), "2090-01-01T00:00:00+00:00");
            let now = Utc::now();
            let assertion = certificate.assertion(AUDIENCE, &client(), now).unwrap();

            let (signed, signature) = assertion.rsplit_once('.').unwrap();
            let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
            // The key is taken out of the certificate, as Entra does it.
            let certified = x509_cert::Certificate::from_der(issued.der()).unwrap();
            let public =
                certified.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes().to_vec();
            let verifier = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, public);
            verifier.verify(signed.as_bytes(), &signature).unwrap();
            assert!(verifier.verify(b"something else", &signature).is_err());

            let (header, claims) = signed.split_once('.').unwrap();
            let json = |part: &str| -> Value {
                serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
            };
            let print = |algorithm| BASE64_URL_SAFE_NO_PAD.encode(digest::digest(algorithm, issued.der()));
            assert_eq!(
                json(header),
                serde_json::json!({
                    "alg": "PS256",
                    "typ": "JWT",
                    "x5t": print(&digest::SHA1_FOR_LEGACY_USE_ONLY),
                    "x5t#S256": print(&digest::SHA256),
                })
            );
            let mut claims = json(claims);
            let jti = claims.as_object_mut().unwrap().remove("jti").unwrap();
            assert!(Uuid::try_parse(jti.as_str().unwrap()).is_ok());
            assert_eq!(
                claims,
                serde_json::json!({
                    "aud": AUDIENCE,
                    "iss": client().as_str(),
                    "sub": client().as_str(),
                    "nbf": now.timestamp() - 60,
                    "iat": now.timestamp(),
                    "exp": now.timestamp() + 600,
                })
            );
            let again = certificate.assertion(AUDIENCE, &client(), now).unwrap();
            assert_ne!(*again, *assertion, "an assertion is used once");
        }
    }

    #[test]
    fn a_certificate_outside_of_its_time_is_read_but_not_used() {
        let expired = Certificate::from_pem(&(pkcs8() + &certify(&KEY, 2001, 2002).pem())).unwrap();
        let error = expired.assertion(AUDIENCE, &client(), Utc::now()).unwrap_err();
        assert_eq!(error, CertificateError::Expired { not_after: expired.not_after() });
        assert_eq!(error.to_string(), "its certificate expired at 2002-01-01 00:00:00 UTC");
        assert!(error.advice().contains("Certificates & secrets"));
        let early = Certificate::from_pem(&(pkcs8() + &certify(&KEY, 2080, 2081).pem())).unwrap();
        let error = early.assertion(AUDIENCE, &client(), Utc::now()).unwrap_err();
        assert!(matches!(error, CertificateError::NotYetValid { .. }));
    }

    #[test]
    fn the_end_of_a_shown_certificate_is_that_of_the_first() {
        let ec_key = rcgen::KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let (own, authority) = (certify(&ec_key, 2020, 2030).pem(), certify(&KEY, 2020, 2090).pem());
        for text in [own.clone(), own.clone() + &authority, ec_key.serialize_pem() + &own + &authority] {
            let end = first_ends(text.as_bytes()).unwrap();
            assert_eq!(end.to_rfc3339(), "2030-01-01T00:00:00+00:00");
        }
        for (text, expected) in [
            (String::new(), CertificateError::NoCertificate),
            (pkcs8(), CertificateError::NoCertificate),
            (own.replace("-----END CERTIFICATE-----", ""), CertificateError::NotPem),
            (pem("CERTIFICATE", b"no certificate"), CertificateError::BadCertificate),
        ] {
            assert_eq!(first_ends(text.as_bytes()), Err(expected));
        }
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let issued = certify(&KEY, 2020, 2090).pem();
        let ec_key = rcgen::KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let ec = certify(&ec_key, 2020, 2090).pem();
        let damaged = pem("PRIVATE KEY", &KEY.serialized_der()[..500]);
        for (text, expected) in [
            (String::new(), CertificateError::NotPem),
            ("PFX bytes".to_owned(), CertificateError::NotPem),
            (issued.replace("-----END CERTIFICATE-----", ""), CertificateError::NotPem),
            (issued.clone(), CertificateError::NoKey),
            (pkcs8(), CertificateError::NoCertificate),
            (pkcs8() + &pkcs1() + &issued, CertificateError::SeveralKeys),
            (issued.clone() + &pem("ENCRYPTED PRIVATE KEY", b"x"), CertificateError::EncryptedKey),
            (
                issued.clone()
                    + "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
                CertificateError::EncryptedKey,
            ),
            (ec.clone() + &ec_key.serialize_pem(), CertificateError::NotRsa),
            (ec.clone() + &pem("EC PRIVATE KEY", b"x"), CertificateError::NotRsa),
            (pkcs8() + &ec, CertificateError::Mismatch),
            (OTHER_KEY.serialize_pem() + &issued, CertificateError::Mismatch),
            (pkcs8() + &pem("CERTIFICATE", b"nonsense"), CertificateError::BadCertificate),
        ] {
            assert_eq!(Certificate::from_pem(&text).unwrap_err(), expected);
            assert!(!expected.advice().is_empty());
        }
        assert!(matches!(Certificate::from_pem(&(damaged + &issued)), Err(CertificateError::BadKey { .. })));
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(
            text in ".{0,80}",
            label in "CERTIFICATE|PRIVATE KEY|RSA PRIVATE KEY",
            der in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assert!(Certificate::from_pem(&text).is_err());
            prop_assert!(Certificate::from_pem(&pem(&label, &der)).is_err());
            prop_assert!(Certificate::from_pem(&(pkcs8() + &pem("CERTIFICATE", &der))).is_err());
        }
    }

    #[test]
    fn the_key_is_in_no_message() {
        let key = pkcs8();
        let secret_line = key.lines().nth(5).unwrap();
        let certificate = Certificate::from_pem(&(key.clone() + &certify(&KEY, 2020, 2090).pem())).unwrap();
        let shown = format!("{certificate:?}");
        assert!(shown.contains("2090") && !shown.contains(secret_line));
        // A text that is cut in the midst, or has no line breaks.
        for broken in
            [key[..key.len() / 2].to_owned(), key.replace('\n', ""), key.replace("-----END", "--END")]
        {
            let error = Certificate::from_pem(&broken).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(&secret_line[..20]), "{error}");
        }
    }
}
