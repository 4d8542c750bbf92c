//! The token endpoint and the managed identity endpoint.

use aws_lc_rs::{
    digest,
    rand::SystemRandom,
    signature::{RSA_PSS_SHA256, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::{Value, json};
use simulator::{SimulatorConfig, TenantConfig};

use crate::client::{Client, start};

fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_token_says_what_a_real_one_says() {
    let running = start(SimulatorConfig::default()).await;
    let client = Client::new(&running).await;
    let config = TenantConfig::default();
    let claims = claims(&client.token);
    assert_eq!(claims["tid"], config.tenant_id.to_string());
    assert_eq!(claims["aud"], running.base_url());
    assert_eq!(claims["appid"], config.client_id);
    assert_eq!(claims["roles"], json!(config.roles));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3599);
    assert_eq!(client.ask_token(&[]).await.json()["expires_in"], 3599);
    for scope in [
        "https://manage.office.com/.default",
        "https://manage.office365.us/.default",
        "https://soc.servicebus.windows.net/.default",
    ] {
        assert_eq!(client.ask_token(&[("scope", scope)]).await.status, 200, "{scope}");
    }
}

#[tokio::test]
async fn every_wrong_request_has_its_own_error() {
    let running = start(SimulatorConfig::default()).await;
    let mut client = Client::without_token(&running);
    for (change, status, code, error) in [
        (("grant_type", ""), 400, 900_144, "invalid_request"),
        (("grant_type", "password"), 400, 70003, "unsupported_grant_type"),
        (("client_id", ""), 400, 900_144, "invalid_request"),
        (("client_id", "5150a11e-0000-4000-8000-000000000000"), 400, 700_016, "unauthorized_client"),
        (("scope", ""), 400, 900_144, "invalid_request"),
        (("scope", "https://manage.office.com"), 400, 1_002_012, "invalid_scope"),
        (("scope", "https://unknown.example/.default"), 400, 500_011, "invalid_resource"),
        (("client_secret", "wrong"), 401, 7_000_215, "invalid_client"),
        (("client_secret", ""), 401, 7_000_216, "invalid_client"),
    ] {
        let got = client.ask_token(&[change]).await;
        let body = got.json();
        assert_eq!(
            (got.status.as_u16(), &body["error_codes"], &body["error"]),
            (status, &json!([code]), &json!(error)),
            "{change:?}"
        );
        assert!(body["error_description"].as_str().unwrap().starts_with(&format!("AADSTS{code}: ")));
    }
    client.tenant = "5150a11e-0000-4000-8000-000000000000".into();
    assert_eq!(client.ask_token(&[]).await.json()["error_codes"], json!([90002]));
}

#[tokio::test]
async fn version_one_writes_its_numbers_as_texts() {
    let running = start(SimulatorConfig::default()).await;
    let config = TenantConfig::default();
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", &config.client_id),
        ("client_secret", "simulated-secret"),
        ("resource", "https://manage.office.com"),
    ];
    let url = format!("{}/{}/oauth2/token", running.base_url(), config.tenant_id);
    let got: Value = serde_json::from_slice(
        &reqwest::Client::new().post(url).form(&form).send().await.unwrap().bytes().await.unwrap(),
    )
    .unwrap();
    assert_eq!(got["expires_in"], "3599");
    assert_eq!(claims(got["access_token"].as_str().unwrap())["aud"], "https://manage.office.com");
}

/// A key, its certificate, and what an assertion signed by it looks like.
struct Application {
    key: RsaKeyPair,
    certificate: Vec<u8>,
}

impl Application {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["collector.example".into()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        Self {
            key: RsaKeyPair::from_pkcs8(key.serialized_der()).unwrap(),
            certificate: certificate.der().to_vec(),
        }
    }

    fn assertion(&self, header: &Value, claims: &Value) -> String {
        let body = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), body.as_bytes(), &mut signature).unwrap();
        format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

#[tokio::test]
async fn an_assertion_must_be_signed_by_the_registered_certificate_for_this_endpoint_and_this_time() {
    let application = Application::new();
    let tenant = TenantConfig {
        client_secret: None,
        certificate: Some(application.certificate.clone()),
        ..TenantConfig::default()
    };
    let client_id = tenant.client_id.clone();
    let running = start(SimulatorConfig { tenants: vec![tenant], ..SimulatorConfig::default() }).await;
    let client = Client::without_token(&running);
    let thumbprint = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &application.certificate));
    let header = json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint });
    let now = running.now().timestamp();
    let claims = json!({
        "aud": format!("{}/{}/oauth2/v2.0/token", running.base_url(), client.tenant), "iss": client_id, "sub": client_id,
        "jti": "f00d", "nbf": now, "exp": now + 600,
    });
    let ask = async |assertion: String| {
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let got = client
            .ask_token(&[
                ("client_secret", ""),
                ("client_assertion_type", kind),
                ("client_assertion", &assertion),
            ])
            .await;
        (got.status.as_u16(), got.json()["error_codes"][0].as_u64().unwrap_or_default())
    };
    let with = |name: &str, value: Value| {
        let mut changed = claims.clone();
        changed[name] = value;
        application.assertion(&header, &changed)
    };
    assert_eq!(ask(application.assertion(&header, &claims)).await, (200, 0));
    assert_eq!(ask(with("aud", json!("https://elsewhere.example"))).await, (401, 700_023));
    assert_eq!(ask(with("iss", json!("someone"))).await, (401, 700_021));
    assert_eq!(ask(with("sub", json!("someone"))).await, (401, 700_021));
    assert_eq!(ask(with("jti", Value::Null)).await, (401, 50027));
    assert_eq!(ask(with("exp", json!(now - 301))).await, (401, 700_024));
    assert_eq!(ask(with("nbf", json!(now + 400))).await, (401, 700_024));
    assert_eq!(ask(Application::new().assertion(&header, &claims)).await, (401, 700_027), "another key");
    assert_eq!(
        ask(application.assertion(&json!({ "alg": "PS256" }), &claims)).await,
        (401, 700_027),
        "no thumbprint"
    );
    assert_eq!(
        ask(application.assertion(&json!({ "alg": "PS256", "x5t": "AAAA" }), &claims)).await,
        (401, 700_027),
        "another thumbprint"
    );
    assert_eq!(
        ask(application.assertion(&json!({ "alg": "none", "x5t#S256": thumbprint }), &claims)).await,
        (401, 700_027)
    );
    assert_eq!(ask("no.jwt".into()).await, (401, 50027));
    assert_eq!(client.ask_token(&[]).await.status, 401, "this application has no secret");
}

#[tokio::test]
async fn a_federated_credential_is_accepted_as_it_was_registered() {
    let tenant = TenantConfig { federated_assertion: Some("a.b.c".into()), ..TenantConfig::default() };
    let running = start(SimulatorConfig { tenants: vec![tenant], ..SimulatorConfig::default() }).await;
    let client = Client::without_token(&running);
    let kind = ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    assert_eq!(
        client.ask_token(&[("client_secret", ""), kind, ("client_assertion", "a.b.c")]).await.status,
        200
    );
    assert_eq!(
        client.ask_token(&[("client_secret", ""), kind, ("client_assertion", "a.b.d")]).await.status,
        401
    );
    assert_eq!(
        client.ask_token(&[("client_secret", ""), ("client_assertion", "a.b.c")]).await.status,
        400,
        "without its type"
    );
    assert_eq!(client.ask_token(&[kind, ("client_assertion", "a.b.c")]).await.status, 400, "beside a secret");
}

#[tokio::test]
async fn a_managed_identity_needs_the_metadata_header() {
    let running = start(SimulatorConfig { subscribed: true, ..SimulatorConfig::default() }).await;
    let mut client = Client::without_token(&running);
    client.publisher = false;
    let url = format!("{}/metadata/identity/oauth2/token", running.base_url());
    let query = format!("{url}?api-version=2018-02-01&resource=https://manage.office.com");
    let ask = async |url: String, headers: &[(&str, &str)]| client.request(Method::GET, &url, headers).await;
    assert_eq!(ask(query.clone(), &[]).await.status, 400);
    assert_eq!(ask(url.clone(), &[("metadata", "true")]).await.status, 400, "without version and resource");
    assert_eq!(
        ask(query.clone(), &[("metadata", "true"), ("x-forwarded-for", "192.0.2.1")]).await.status,
        400
    );
    assert_eq!(ask(format!("{query}&client_id=nobody"), &[("metadata", "true")]).await.status, 400);
    let got = ask(query, &[("metadata", "true")]).await.json();
    assert_eq!(got["expires_in"], "3599");
    let mut client = Client::without_token(&running);
    client.token = got["access_token"].as_str().unwrap().into();
    assert_eq!(client.get("subscriptions/list").await.status, 200);
}
