//! The token endpoint of Entra ID, and the managed identity endpoint of Azure's machines.
//!
//! Tokens have the form and the claims of real ones. They are signed with the simulation's own key, which only the
//! simulated API knows, so that a token that anyone made up or changed is refused.

use aws_lc_rs::hmac;
use axum::http::{HeaderMap, StatusCode};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

use crate::{
    FaultKind, TenantConfig,
    assertion::{Certificate, Refused},
    config::delta,
    dice::{Dice, hash_text},
    respond::{Answer, json_answer, retry_after},
    state::State,
};

/// The resources of the Management Activity API in the four clouds.
const API_RESOURCES: [&str; 4] = [
    "https://manage.office.com",
    "https://manage-gcc.office.com",
    "https://manage.office365.us",
    "https://manage.protection.apps.mil",
];

/// What a token says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) aud: String,
    iss: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    pub(crate) appid: String,
    idtyp: String,
    oid: String,
    sub: String,
    pub(crate) tid: String,
    pub(crate) roles: Vec<String>,
    uti: String,
    ver: String,
    /// When it was issued, in milliseconds: what revocation goes by.
    xms_issued: i64,
}

/// Why a token is no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadToken {
    Missing,
    Invalid,
    Expired,
}

/// Signs tokens and knows its own again.
#[derive(Debug)]
pub(crate) struct Mint(hmac::Key);

impl Mint {
    pub(crate) fn new(seed: u64) -> Self {
        let key: [u8; 32] = Dice::new(&[seed, hash_text("token key")]).bytes();
        Self(hmac::Key::new(hmac::HMAC_SHA256, &key))
    }

    fn sign(&self, claims: &Claims) -> String {
        let header = json!({ "typ": "JWT", "alg": "RS256", "kid": "simulated", "x5t": "simulated" });
        let claims = serde_json::to_vec(claims).expect("claims are written as JSON without fail");
        let body =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims));
        let signature = hmac::sign(&self.0, body.as_bytes());
        format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Reads the bearer token of a request.
    pub(crate) fn check(
        &self,
        headers: &HeaderMap,
        now: DateTime<Utc>,
        revoked_before: i64,
    ) -> Result<Claims, BadToken> {
        let header =
            headers.get("authorization").and_then(|value| value.to_str().ok()).ok_or(BadToken::Missing)?;
        let (scheme, token) = header.split_once(' ').ok_or(BadToken::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(BadToken::Missing);
        }
        let (body, signature) = token.rsplit_once('.').ok_or(BadToken::Invalid)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| BadToken::Invalid)?;
        hmac::verify(&self.0, body.as_bytes(), &signature).map_err(|_| BadToken::Invalid)?;
        let claims = body
            .split_once('.')
            .and_then(|(_, claims)| URL_SAFE_NO_PAD.decode(claims).ok())
            .ok_or(BadToken::Invalid)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| BadToken::Invalid)?;
        if claims.xms_issued < revoked_before {
            return Err(BadToken::Invalid);
        }
        if now.timestamp_millis() >= claims.exp * 1000 {
            return Err(BadToken::Expired);
        }
        Ok(claims)
    }
}

/// Whether a token for this audience opens the API that the client knows by this host.
pub(crate) fn is_api_audience(state: &State, audience: &str, host: &str) -> bool {
    let audience = audience.trim_end_matches('/');
    API_RESOURCES.contains(&audience)
        || audience == state.origin(host)
        || authority(audience).as_deref() == Some(host)
}

fn authority(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let host = url.host_str()?;
    Some(url.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// Whether the directory knows the resource: the API, or one of the services to which the same application may speak.
fn is_known_resource(state: &State, resource: &str, host: &str) -> bool {
    let known = |name: &str| {
        name == "eventhubs.azure.net"
            || name == "monitor.azure.com"
            || name == "storage.azure.com"
            || name == "management.azure.com"
            || name.ends_with(".servicebus.windows.net")
    };
    is_api_audience(state, resource, host)
        || Url::parse(resource).is_ok_and(|url| url.host_str().is_some_and(known))
}

fn issue(state: &State, tenant: &TenantConfig, resource: &str) -> (String, i64, i64) {
    let now = state.clock.now();
    let lifetime =
        state.faults.read(|faults| faults.token_expiry).unwrap_or_else(|| delta(state.config.token_lifetime));
    let lifetime = lifetime.num_seconds().clamp(0, 24 * 3600);
    let issued = state.stats.snapshot().tokens_issued;
    let mut dice = Dice::new(&[state.config.seed, hash_text(&tenant.client_id), issued]);
    let object = Dice::new(&[hash_text(&tenant.client_id)]).guid().to_string();
    let token = state.mint.sign(&Claims {
        aud: resource.trim_end_matches('/').to_owned(),
        iss: format!("https://sts.windows.net/{}/", tenant.tenant_id),
        iat: now.timestamp(),
        nbf: now.timestamp(),
        exp: now.timestamp() + lifetime,
        appid: tenant.client_id.clone(),
        idtyp: "app".into(),
        oid: object.clone(),
        sub: object,
        tid: tenant.tenant_id.to_string(),
        roles: tenant.roles.clone(),
        uti: dice.guid().simple().to_string(),
        ver: "1.0".into(),
        xms_issued: now.timestamp_millis(),
    });
    state.stats.change(|stats| stats.tokens_issued += 1);
    (token, now.timestamp(), lifetime)
}

/// `POST /{tenant}/oauth2/v2.0/token`, and v1 without `/v2.0`.
pub(crate) fn token_endpoint(
    state: &State,
    host: &str,
    tenant: &str,
    v1: bool,
    headers: &HeaderMap,
    body: &[u8],
) -> Answer {
    if let Some((kind, rule)) = state.faults.on_turn(hash_text(tenant), &[FaultKind::TokenError]) {
        state.stats.fault(kind.name());
        let mut answer = error(
            state,
            StatusCode::SERVICE_UNAVAILABLE,
            "temporarily_unavailable",
            90033,
            "A transient error has occurred. Please try again.",
        );
        if !rule.delay.is_zero() {
            retry_after(&mut answer, rule.delay);
        }
        return answer;
    }
    let is_form = headers
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"));
    if !is_form {
        return error(
            state,
            StatusCode::BAD_REQUEST,
            "invalid_request",
            900_144,
            "The request body must be a form.",
        );
    }
    match grant(state, host, tenant, v1, body) {
        Ok((tenant, resource)) => {
            let (token, now, lifetime) = issue(state, tenant, &resource);
            json_answer(
                StatusCode::OK,
                &if v1 {
                    // v1 writes its numbers as texts.
                    json!({ "token_type": "Bearer", "expires_in": lifetime.to_string(), "ext_expires_in": lifetime.to_string(),
                        "expires_on": (now + lifetime).to_string(), "not_before": now.to_string(), "resource": resource, "access_token": token })
                } else {
                    json!({ "token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime, "access_token": token })
                },
            )
        }
        Err(denied) => error(state, denied.status, denied.error, denied.reason.code, &denied.reason.text),
    }
}

struct Denied {
    status: StatusCode,
    error: &'static str,
    reason: Refused,
}

fn denied(status: u16, error: &'static str, code: u32, text: impl Into<String>) -> Denied {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    Denied { status, error, reason: Refused { code, text: text.into() } }
}

/// Checks a request for a token; gives the tenant and the resource.
fn grant<'s>(
    state: &'s State,
    host: &str,
    tenant: &str,
    v1: bool,
    body: &[u8],
) -> Result<(&'s TenantConfig, String), Denied> {
    let form: Vec<_> = url::form_urlencoded::parse(body).into_owned().collect();
    let field = |name: &'static str| {
        form.iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
            .ok_or_else(|| {
                denied(
                    400,
                    "invalid_request",
                    900_144,
                    format!("The request body must contain the following parameter: '{name}'."),
                )
            })
    };
    let known = |config: &&TenantConfig| {
        config.tenant_id.to_string() == tenant.to_lowercase() || config.domain == tenant
    };
    let config = state
        .tenants
        .iter()
        .map(|tenant| &tenant.config)
        .find(known)
        .ok_or_else(|| denied(400, "invalid_request", 90002, format!("Tenant '{tenant}' not found.")))?;
    if field("grant_type")? != "client_credentials" {
        return Err(denied(
            400,
            "unsupported_grant_type",
            70003,
            "The app requested an unsupported grant type.",
        ));
    }
    let client = field("client_id")?;
    if !client.eq_ignore_ascii_case(&config.client_id) {
        let text = format!(
            "Application with identifier '{client}' was not found in the directory '{}'.",
            config.domain
        );
        return Err(denied(400, "unauthorized_client", 700_016, text));
    }
    let resource = if v1 {
        field("resource")?.to_owned()
    } else {
        let scope = field("scope")?;
        // The resource may itself end with a slash, which makes two of them.
        let resource = scope.strip_suffix("/.default").ok_or_else(|| {
            denied(
                400,
                "invalid_scope",
                1_002_012,
                format!("The provided value for scope {scope} is not valid: it must end with /.default."),
            )
        })?;
        resource.to_owned()
    };
    if !is_known_resource(state, &resource, host) {
        let text = format!(
            "The resource principal named {resource} was not found in the tenant named {}.",
            config.domain
        );
        return Err(denied(400, "invalid_resource", 500_011, text));
    }
    check_credential(state, host, tenant, config, &form)?;
    Ok((config, resource))
}

fn check_credential(
    state: &State,
    host: &str,
    tenant: &str,
    config: &TenantConfig,
    form: &[(String, String)],
) -> Result<(), Denied> {
    let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    match (field("client_secret"), field("client_assertion")) {
        (Some(_), Some(_)) => Err(denied(
            400,
            "invalid_request",
            90023,
            "client_secret and client_assertion exclude each other.",
        )),
        (Some(secret), None) if Some(secret) == config.client_secret.as_deref() => Ok(()),
        (Some(_), None) => Err(denied(401, "invalid_client", 7_000_215, "Invalid client secret provided.")),
        (None, Some(assertion)) => {
            if field("client_assertion_type")
                != Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
            {
                return Err(denied(
                    400,
                    "invalid_request",
                    900_144,
                    "The request body must contain the parameter: 'client_assertion_type'.",
                ));
            }
            if config.federated_assertion.as_deref() == Some(assertion) {
                return Ok(());
            }
            let Some(certificate) = config.certificate.as_deref().and_then(Certificate::read) else {
                return Err(denied(
                    401,
                    "invalid_client",
                    700_027,
                    "The application has no certificate or federated credential that matches.",
                ));
            };
            let origin = state.origin(host);
            let endpoints =
                ["oauth2/v2.0/token", "oauth2/token"].map(|path| format!("{origin}/{tenant}/{path}"));
            certificate.check(assertion, &config.client_id, &endpoints, state.clock.now()).map_err(|reason| {
                Denied { status: StatusCode::UNAUTHORIZED, error: "invalid_client", reason }
            })
        }
        (None, None) => Err(denied(
            401,
            "invalid_client",
            7_000_216,
            "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type.",
        )),
    }
}

/// The form of an error of Entra ID.
fn error(state: &State, status: StatusCode, error: &str, code: u32, text: &str) -> Answer {
    let now = state.clock.now();
    let mut dice = Dice::new(&[now.timestamp_millis() as u64]);
    let (trace, correlation) = (dice.guid(), dice.guid());
    let time = now.format("%Y-%m-%d %H:%M:%SZ");
    let description =
        format!("AADSTS{code}: {text} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {time}");
    json_answer(
        status,
        &json!({ "error": error, "error_description": description, "error_codes": [code], "timestamp": time.to_string(),
                 "trace_id": trace.to_string(), "correlation_id": correlation.to_string(),
                 "error_uri": format!("https://login.microsoftonline.com/error?code={code}") }),
    )
}

/// `GET /metadata/identity/oauth2/token` (Azure Instance Metadata Service, "Get a token using HTTP").
pub(crate) fn managed_identity(
    state: &State,
    host: &str,
    query: &[(String, String)],
    headers: &HeaderMap,
) -> Answer {
    let bad = |text: &str| {
        json_answer(
            StatusCode::BAD_REQUEST,
            &json!({ "error": "invalid_request", "error_description": text }),
        )
    };
    if !headers.get("metadata").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true")) {
        return bad("Required metadata header not specified");
    }
    if headers.contains_key("x-forwarded-for") {
        return bad("Requests that were forwarded are refused");
    }
    let field = |name: &str| {
        query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    };
    if field("api-version").is_none() {
        return bad("Required query variable 'api-version' is missing");
    }
    let Some(resource) = field("resource") else {
        return bad("Required audience parameter not specified");
    };
    let wanted = field("client_id");
    let identity = state.tenants.iter().map(|tenant| &tenant.config).find(|config| {
        config.managed_identity && wanted.is_none_or(|client| client.eq_ignore_ascii_case(&config.client_id))
    });
    let Some(config) = identity else {
        return bad("Identity not found");
    };
    if !is_known_resource(state, resource, host) {
        return json_answer(
            StatusCode::BAD_REQUEST,
            &json!({ "error": "invalid_resource", "error_description": format!("AADSTS500011: The resource principal named {resource} was not found.") }),
        );
    }
    let (token, now, lifetime) = issue(state, config, resource);
    json_answer(
        StatusCode::OK,
        &json!({ "access_token": token, "client_id": config.client_id, "expires_in": lifetime.to_string(), "expires_on": (now + lifetime).to_string(),
                 "ext_expires_in": lifetime.to_string(), "not_before": now.to_string(), "resource": resource, "token_type": "Bearer" }),
    )
}
