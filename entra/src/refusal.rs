//! What Entra's refusals mean, and what an administrator has to do about each.
//!
//! Codes: Microsoft Entra "authentication and authorization error codes" (AADSTS).

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use crate::{error::Service, scrub::scrub};

/// How much is kept of the line with which Entra explains itself.
const DESCRIPTION_CHARS: usize = 300;
/// How much is kept of the name of an error.
const ERROR_CHARS: usize = 64;

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// AADSTS7000215: the client secret is wrong.
    WrongSecret,
    /// AADSTS7000222: the client secret's time is over.
    ExpiredSecret,
    /// AADSTS700016 and its like: the tenant does not know the application.
    UnknownApplication,
    /// AADSTS7000112: an administrator switched the application off.
    DisabledApplication,
    /// AADSTS90002 and its like: there is no such tenant in this cloud.
    UnknownTenant,
    /// AADSTS700027: the certificate is not registered, or its signature does not fit.
    UnknownCertificate,
    /// AADSTS700024: the assertion is too early or too late.
    WrongClock,
    /// AADSTS7000218 and its like: the application must prove who it is in another way.
    WrongCredential,
    /// AADSTS50034: the account does not exist in the tenant.
    UnknownAccount,
    /// AADSTS53003: a Conditional Access policy forbids it.
    ConditionalAccess,
    /// AADSTS500011 and its like: the tenant does not have the API that the token is for.
    UnknownResource,
    /// AADSTS70021, AADSTS700211 to AADSTS700213: no federated credential fits to the token of the workload.
    FederatedMismatch,
    /// The host has no such managed identity.
    UnknownManagedIdentity,
    /// Anything else.
    Other,
}

impl Reason {
    fn of(service: Service, code: Option<u32>, error: &str, description: &str) -> Self {
        match code {
            Some(7_000_215) => Self::WrongSecret,
            Some(7_000_222) => Self::ExpiredSecret,
            Some(700_016 | 7_000_229) => Self::UnknownApplication,
            Some(7_000_112) => Self::DisabledApplication,
            Some(90_002 | 900_021 | 900_023) => Self::UnknownTenant,
            Some(700_027) => Self::UnknownCertificate,
            Some(700_024) => Self::WrongClock,
            Some(7_000_214 | 7_000_216 | 7_000_218) => Self::WrongCredential,
            Some(50_034) => Self::UnknownAccount,
            Some(53_003) => Self::ConditionalAccess,
            Some(500_011 | 500_014 | 650_052 | 650_057 | 70_011 | 1_002_012) => Self::UnknownResource,
            Some(70_021 | 700_211..=700_213) => Self::FederatedMismatch,
            None if service == Service::ManagedIdentity
                && (error == "identity_not_found" || description.contains("Identity not found")) =>
            {
                Self::UnknownManagedIdentity
            }
            _ => Self::Other,
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::WrongSecret => {
                "put the secret's Value, not its Secret ID, where the configuration points; a new one is made in \
                 Entra admin center > App registrations > the application > Certificates & secrets"
            }
            Self::ExpiredSecret => {
                "make a new client secret in Entra admin center > App registrations > the application > Certificates \
                 & secrets, and put its Value where the configuration points"
            }
            Self::UnknownApplication => {
                "compare `client_id` and `tenant_id` with Entra admin center > App registrations > the application > \
                 Overview; an application of another tenant needs consent under Enterprise applications; also check \
                 `cloud`"
            }
            Self::DisabledApplication => {
                "enable it in Entra admin center > Enterprise applications > the application > Properties > Enabled \
                 for users to sign in"
            }
            Self::UnknownTenant => {
                "compare `tenant_id` with Entra admin center > Overview > Tenant ID, and check that `cloud` is the \
                 tenant's cloud"
            }
            Self::UnknownCertificate => {
                "upload the public part of this very certificate in Entra admin center > App registrations > the \
                 application > Certificates & secrets > Certificates"
            }
            Self::WrongClock => "set this machine's clock: it differs from Entra's by more than 5 minutes",
            Self::WrongCredential => {
                "configure a client secret or a certificate that stands in Entra admin center > App registrations > \
                 the application > Certificates & secrets"
            }
            Self::UnknownAccount => {
                "compare `tenant_id` with Entra admin center > Overview > Tenant ID: the account is not in this tenant"
            }
            Self::ConditionalAccess => {
                "let the application through in Entra admin center > Protection > Conditional Access > Policies \
                 (workload identities); Sign-in logs > Service principal sign-ins names the policy"
            }
            Self::UnknownResource => {
                "check that `cloud` is the tenant's cloud, and that the API stands in Entra admin center > App \
                 registrations > the application > API permissions, with admin consent"
            }
            Self::FederatedMismatch => {
                "compare issuer, subject and audience with Entra admin center > App registrations > the application > \
                 Certificates & secrets > Federated credentials"
            }
            Self::UnknownManagedIdentity => {
                "assign a managed identity to this host in the Azure portal > the resource > Identity, or correct its \
                 client id in the configuration"
            }
            Self::Other => {
                "look the code up at https://login.microsoftonline.com/error, and the refused sign-in up in Entra admin \
                 center > Sign-in logs > Service principal sign-ins"
            }
        }
    }
}

/// A refusal, without anything that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Who refused.
    pub service: Service,
    /// The HTTP status.
    pub status: u16,
    /// The name of the error, e.g. `invalid_client`.
    pub error: String,
    /// The number after `AADSTS`.
    pub code: Option<u32>,
    /// The first line of the explanation.
    pub description: String,
    /// What it means.
    pub reason: Reason,
}

#[derive(Deserialize)]
struct RawRefusal {
    error: Value,
    error_description: Option<Value>,
    error_codes: Option<Value>,
    message: Option<Value>,
}

impl Refusal {
    /// Reads the body of an answer that is no success; `sent` are the secrets that the request held. `None` when the
    /// answer does not come from a token endpoint.
    pub(crate) fn read(service: Service, status: u16, body: &[u8], sent: &[&str]) -> Option<Self> {
        let raw: RawRefusal = serde_json::from_slice(body).ok()?;
        // App Service and Azure Arc sometimes put the error's parts into an object.
        let (error, message) = match raw.error {
            Value::String(error) => (error, raw.message),
            Value::Object(mut parts) => match parts.remove("code") {
                Some(Value::String(error)) => (error, parts.remove("message")),
                _ => return None,
            },
            _ => return None,
        };
        let error = scrub(&error, sent, ERROR_CHARS);
        let description = raw.error_description.as_ref().or(message.as_ref()).and_then(Value::as_str);
        let description = description.unwrap_or_default();
        // The code may be in the text only, and the text repeats it.
        let numbered = description.trim_start().strip_prefix("AADSTS").map(|rest| {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, rest) = rest.split_at(digits);
            (number.parse::<u32>().ok(), rest.trim_start_matches([':', ' ']))
        });
        let listed = raw.error_codes.as_ref().and_then(|codes| codes.get(0)).and_then(Value::as_u64);
        let code = listed
            .and_then(|code| u32::try_from(code).ok())
            .or_else(|| numbered.and_then(|(number, _)| number));
        let explanation = numbered.map_or(description, |(_, rest)| rest);
        // What follows are ids and a time that change with each request.
        let explanation = explanation.split(" Trace ID:").next().unwrap_or_default();
        let description = scrub(explanation, sent, DESCRIPTION_CHARS);
        let reason = Reason::of(service, code, &error, &description);
        Some(Self { service, status, error, code, description, reason })
    }

    /// Whether Entra says that it is a matter of time.
    pub(crate) fn is_transient(&self) -> bool {
        // 90033: temporarily unavailable; 90055: too many requests; 50196: a loop of requests, slowed down.
        matches!(self.code, Some(90_033 | 90_055 | 50_196))
            || matches!(self.error.as_str(), "temporarily_unavailable" | "server_error")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} refused a token: ", self.service)?;
        if let Some(code) = self.code {
            write!(f, "AADSTS{code} ")?;
        }
        write!(f, "{} (HTTP {})", self.error, self.status)?;
        if !self.description.is_empty() {
            write!(f, ": {}", self.description.trim_end_matches('.'))?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(body: &str) -> Option<Refusal> {
        Refusal::read(Service::Entra, 401, body.as_bytes(), &["s3cr3t~value"])
    }

    #[test]
    fn a_refusal_keeps_error_code_and_one_line() {
        let refusal = read(
            r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided. Trace ID: 9a Correlation ID: 8b Timestamp: 2026-01-01 00:00:00Z","error_codes":[7000215],"trace_id":"9a"}"#,
        )
        .unwrap();
        assert_eq!(refusal.reason, Reason::WrongSecret);
        assert_eq!(
            refusal.to_string(),
            "Microsoft Entra ID refused a token: AADSTS7000215 invalid_client (HTTP 401): Invalid client secret provided"
        );
    }

    #[test]
    fn the_code_is_found_in_the_text_too() {
        let refusal =
            read(r#"{"error":"x","error_description":"AADSTS90002: Tenant 'a' not found.\r\nTrace ID: b"}"#);
        let refusal = refusal.unwrap();
        assert_eq!((refusal.code, refusal.reason), (Some(90_002), Reason::UnknownTenant));
        assert_eq!(refusal.description, "Tenant 'a' not found.");
    }

    #[test]
    fn what_was_sent_is_hidden() {
        let refusal =
            read(r#"{"error":"s3cr3t~value","error_description":"secret s3cr3t~value or s3cr3t%7Evalue is wrong"}"#)
                .unwrap();
        assert!(!format!("{refusal} {refusal:?}").contains("s3cr3t"), "{refusal:?}");
    }

    #[test]
    fn each_code_has_its_reason_and_its_advice() {
        for (code, reason, advice) in [
            (7_000_215, Reason::WrongSecret, "not its Secret ID"),
            (7_000_222, Reason::ExpiredSecret, "Certificates & secrets"),
            (700_016, Reason::UnknownApplication, "`client_id`"),
            (7_000_112, Reason::DisabledApplication, "Enterprise applications"),
            (90_002, Reason::UnknownTenant, "`tenant_id`"),
            (700_027, Reason::UnknownCertificate, "upload"),
            (700_024, Reason::WrongClock, "clock"),
            (7_000_218, Reason::WrongCredential, "Certificates & secrets"),
            (50_034, Reason::UnknownAccount, "Tenant ID"),
            (53_003, Reason::ConditionalAccess, "Conditional Access"),
            (500_011, Reason::UnknownResource, "`cloud`"),
            (700_212, Reason::FederatedMismatch, "Federated credentials"),
            (70_021, Reason::FederatedMismatch, "audience"),
            (999_999, Reason::Other, "Sign-in logs"),
        ] {
            let refusal = read(&format!(r#"{{"error":"e","error_codes":[{code}]}}"#)).unwrap();
            assert_eq!(refusal.reason, reason, "{code}");
            assert!(reason.advice().contains(advice), "{code}: {}", reason.advice());
        }
    }

    #[test]
    fn what_is_not_from_a_token_endpoint_is_no_refusal() {
        for body in ["", "<html>", "[]", "{}", r#"{"error":7}"#, r#"{"error":{"code":1}}"#] {
            assert_eq!(read(body), None, "{body}");
        }
        let nested = read(r#"{"error":{"code":"NoIdentity","message":"none here"}}"#).unwrap();
        assert_eq!((nested.error.as_str(), nested.description.as_str()), ("NoIdentity", "none here"));
    }

    proptest! {
        #[test]
        fn no_answer_breaks_the_reader(body in proptest::collection::vec(any::<u8>(), 0..64), text in ".{0,60}") {
            let _ = Refusal::read(Service::Entra, 400, &body, &["x"]);
            let json = serde_json::json!({"error": text, "error_description": format!("AADSTS{text}")});
            let refusal = Refusal::read(Service::Entra, 400, json.to_string().as_bytes(), &[]).unwrap();
            prop_assert!(!refusal.to_string().contains('\n'));
        }
    }
}
