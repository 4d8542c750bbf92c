//! Client assertions: the signed statements by which an application with a certificate proves who it is (RFC 7523;
//! Microsoft identity platform, "application authentication certificate credentials").

use aws_lc_rs::{
    digest,
    signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use chrono::{DateTime, Utc};
use serde_json::Value;

/// An X.509 certificate, as far as an assertion needs it.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    der: Vec<u8>,
    public_key: Vec<u8>,
}

/// Why an assertion is not accepted, in the words of Entra ID.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: u32,
    pub(crate) text: String,
}

fn refused(code: u32, text: impl Into<String>) -> Refused {
    Refused { code, text: text.into() }
}

impl Certificate {
    /// Reads a certificate, DER or PEM.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let der = match std::str::from_utf8(bytes).ok().filter(|text| text.contains("-----BEGIN")) {
            Some(pem) => {
                let body = pem.split("-----BEGIN CERTIFICATE-----").nth(1)?.split("-----END").next()?;
                STANDARD.decode(body.split_whitespace().collect::<String>()).ok()?
            }
            None => bytes.to_vec(),
        };
        let public_key = subject_public_key_info(&der)?.to_vec();
        Some(Self { der, public_key })
    }

    /// Checks an assertion for this client, sent to one of these endpoints at this time.
    pub(crate) fn check(
        &self,
        assertion: &str,
        client_id: &str,
        endpoints: &[String],
        now: DateTime<Utc>,
    ) -> Result<(), Refused> {
        let malformed = || refused(50027, "JWT token is invalid or malformed.");
        let mut parts = assertion.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed());
        };
        let signed = format!("{header}.{claims}");
        let decode = |part: &str| {
            URL_SAFE_NO_PAD
                .decode(part)
                .ok()
                .and_then(|json| serde_json::from_slice::<Value>(&json).ok())
                .ok_or_else(malformed)
        };
        let (header, claims) = (decode(header)?, decode(claims)?);
        self.check_thumbprint(&header)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed())?;
        let scheme = match header["alg"].as_str() {
            Some("PS256") => &RSA_PSS_2048_8192_SHA256,
            Some("RS256") => &RSA_PKCS1_2048_8192_SHA256,
            _ => return Err(refused(700_027, "The assertion's algorithm must be PS256 or RS256.")),
        };
        UnparsedPublicKey::new(scheme, &self.public_key)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| refused(700_027, "Client assertion failed signature validation."))?;
        check_claims(&claims, client_id, endpoints, now)
    }

    /// The header names the certificate by its SHA-1 (`x5t`) or SHA-256 (`x5t#S256`).
    fn check_thumbprint(&self, header: &Value) -> Result<(), Refused> {
        let is = |name: &str, algorithm| {
            header[name]
                .as_str()
                .map(|text| text == URL_SAFE_NO_PAD.encode(digest::digest(algorithm, &self.der)))
        };
        match (is("x5t", &digest::SHA1_FOR_LEGACY_USE_ONLY), is("x5t#S256", &digest::SHA256)) {
            (None, None) => {
                Err(refused(700_027, "The assertion names no certificate: it needs x5t or x5t#S256."))
            }
            (Some(false), _) | (_, Some(false)) => Err(refused(
                700_027,
                "The certificate with the assertion's thumbprint is not registered on the application.",
            )),
            _ => Ok(()),
        }
    }
}

fn check_claims(
    claims: &Value,
    client_id: &str,
    endpoints: &[String],
    now: DateTime<Utc>,
) -> Result<(), Refused> {
    for name in ["iss", "sub"] {
        if claims[name].as_str() != Some(client_id) {
            return Err(refused(
                700_021,
                format!("Client assertion application identifier doesn't match 'client_id' ({name})."),
            ));
        }
    }
    if !claims["aud"].as_str().is_some_and(|audience| endpoints.iter().any(|endpoint| endpoint == audience)) {
        return Err(refused(
            700_023,
            format!("Client assertion audience claim does not match: expected {}.", endpoints.join(" or ")),
        ));
    }
    if claims["jti"].as_str().is_none_or(str::is_empty) {
        return Err(refused(50027, "The assertion has no jti claim."));
    }
    // Entra ID allows for clocks that are five minutes apart.
    let leeway = 300;
    let (now, end) = (now.timestamp(), claims["exp"].as_i64());
    let early = claims["nbf"].as_i64().is_some_and(|start| start > now + leeway);
    match end {
        Some(end) if end > now - leeway && !early => Ok(()),
        _ => Err(refused(700_024, "Client assertion is not within its valid time range.")),
    }
}

/// Finds the SubjectPublicKeyInfo in a certificate (RFC 5280, section 4.1).
fn subject_public_key_info(der: &[u8]) -> Option<&[u8]> {
    let certificate = element(der)?;
    let body = element(certificate.content)?;
    let mut rest = body.content;
    // The version is optional and the only element tagged [0].
    if let Some(version) = element(rest).filter(|first| first.tag == 0xA0) {
        rest = version.rest;
    }
    // Serial number, signature algorithm, issuer, validity, subject.
    for _ in 0..5 {
        rest = element(rest)?.rest;
    }
    let key = element(rest).filter(|key| key.tag == 0x30)?;
    Some(key.whole)
}

struct Element<'a> {
    tag: u8,
    whole: &'a [u8],
    content: &'a [u8],
    rest: &'a [u8],
}

/// Reads one DER element with a definite length.
fn element(der: &[u8]) -> Option<Element<'_>> {
    let (&tag, after) = der.split_first()?;
    let (&first, after) = after.split_first()?;
    let (length, head) = if first < 0x80 {
        (usize::from(first), 2)
    } else {
        let count = usize::from(first & 0x7F);
        let bytes = after.get(..count).filter(|_| (1..=4).contains(&count))?;
        (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), 2 + count)
    };
    let end = head + length;
    Some(Element { tag, whole: der.get(..end)?, content: der.get(head..end)?, rest: &der[end..] })
}
