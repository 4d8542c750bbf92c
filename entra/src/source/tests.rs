//! The flows of an application against a simulated token endpoint.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, PublicKeyData};
use reqwest::redirect;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::*;
use crate::{
    refusal::Reason,
    secret::SecretSource,
    testing::{Fake, Log, Reply, SCOPE, Seen},
    workload_identity::WorkloadIdentity,
};

const TENANT: &str = "41463f53-8812-40f4-890f-865bf6e35190";
const CLIENT: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
const SECRET: &str = "p8Q~s3cr3t+value/with=odd&bytes";

fn http() -> Client {
    Client::builder().redirect(redirect::Policy::none()).build().unwrap()
}

fn source(fake: &Fake, credential: Credential) -> TokenSource {
    let endpoint = Endpoint::new(&fake.url().as_str().parse().unwrap(), TENANT).unwrap();
    TokenSource::new(http(), endpoint, CLIENT.parse().unwrap(), credential, SCOPE.parse().unwrap())
}

fn secret_file(directory: &Path, content: &str) -> Credential {
    let path = directory.join("credential");
    fs::write(&path, content).unwrap();
    Credential::ClientSecret(SecretSource::File(path))
}

fn granted(number: usize) -> Reply {
    let answer = json!({
        "token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": format!("granted-{number}")
    });
    Reply::ok(&answer.to_string()).header("content-type", "application/json; charset=utf-8")
}

fn refused(code: u32, text: &str) -> Reply {
    let answer = json!({
        "error": "invalid_client",
        "error_description": format!("AADSTS{code}: {text} Trace ID: 1 Correlation ID: 2 Timestamp: 3"),
        "error_codes": [code],
    });
    Reply::new(401, &answer.to_string())
}

/// The form's fields, after all that every flow has in common was checked.
fn fields(seen: &Seen) -> BTreeMap<String, String> {
    assert_eq!(seen.method, "POST");
    assert_eq!(seen.target, format!("/{TENANT}/oauth2/v2.0/token"));
    assert_eq!(seen.headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(seen.headers["accept"], "application/json");
    assert!(!seen.headers.contains_key("authorization"));
    let form = seen.form();
    let mut fields: BTreeMap<_, _> = form.iter().cloned().collect();
    assert_eq!(fields.len(), form.len(), "no field comes twice");
    for (name, value) in [("client_id", CLIENT), ("scope", SCOPE), ("grant_type", "client_credentials")] {
        assert_eq!(fields.remove(name).as_deref(), Some(value));
    }
    fields
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[tokio::test]
async fn a_client_secret_is_posted_as_it_is_in_the_file_at_that_time() {
    let fake = Fake::start(|count, _| granted(count)).await;
    let directory = tempfile::tempdir().unwrap();
    let source = source(&fake, secret_file(directory.path(), &format!("{SECRET}\n")));
    let first = source.token().await.unwrap();
    assert_eq!(first.authorization_header(), "Bearer granted-0");
    assert_eq!(first.lifetime(), Duration::from_secs(3599));
    assert_eq!(source.certificate_ends().await.unwrap(), None);

    secret_file(directory.path(), "rotated");
    assert!(source.token().await.unwrap().is(&first), "a token that is good stays");
    source.invalidate(&first);
    assert_eq!(source.token().await.unwrap().expose(), "granted-1");

    let seen = fake.seen();
    assert_eq!(fields(&seen[0]), pairs([("client_secret", SECRET)]));
    assert_eq!(fields(&seen[1]), pairs([("client_secret", "rotated")]));
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn a_certificate_signs_an_assertion_that_the_endpoint_can_verify() {
    let fake = Fake::start(|count, _| granted(count)).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("certificate.pem");
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let mut params = CertificateParams::new(["collector.example.com".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2077, 7, 7);
    let certificate = params.self_signed(&key).unwrap();
    fs::write(&path, key.serialize_pem() + &certificate.pem()).unwrap();

    let source = source(&fake, Credential::Certificate(SecretSource::File(path.clone())));
    assert_eq!(source.token().await.unwrap().expose(), "granted-0");
    let ends = source.certificate_ends().await.unwrap().unwrap();
    assert_eq!(ends.to_rfc3339(), "2077-07-07T00:00:00+00:00");

    let mut fields = fields(&fake.seen()[0]);
    let assertion = fields.remove("client_assertion").unwrap();
    assert_eq!(
        fields,
        pairs([("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")])
    );
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
    UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key.der_bytes())
        .verify(signed.as_bytes(), &decode(signature))
        .unwrap();
    let claims: Value = serde_json::from_slice(&decode(signed.split_once('.').unwrap().1)).unwrap();
    assert_eq!(claims["aud"], format!("{}{TENANT}/oauth2/v2.0/token", fake.url()));
    assert_eq!(claims["iss"], CLIENT);

    // A file that is no certificate any more is told, with its name.
    fs::write(&path, key.serialize_pem()).unwrap();
    let error = source.certificate_ends().await.unwrap_err();
    assert!(matches!(error, TokenError::Certificate { .. }) && !error.retryable());
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn a_federated_token_is_read_for_every_request() {
    let fake = Fake::start(|count, _| granted(count)).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let source = source(&fake, Credential::WorkloadIdentity(WorkloadIdentity::new(path.clone())));
    for federated in ["eyJh.first.sig", "eyJh.second.sig"] {
        fs::write(&path, format!("{federated}\n")).unwrap();
        let token = source.token().await.unwrap();
        source.invalidate(&token);
        let expected = pairs([
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", federated),
        ]);
        assert_eq!(fields(fake.seen().last().unwrap()), expected);
    }
    fs::remove_file(&path).unwrap();
    let error = source.token().await.unwrap_err();
    assert!(matches!(error, TokenError::Secret(_)) && !error.retryable());
    assert_eq!(fake.seen().len(), 2, "nothing is asked without a proof");
}

#[tokio::test]
async fn many_callers_make_one_request() {
    let fake = Fake::start(|count, _| granted(count).after(Duration::from_millis(50))).await;
    let directory = tempfile::tempdir().unwrap();
    let source = source(&fake, secret_file(directory.path(), SECRET));
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let source = source.clone();
        callers.spawn(async move {
            let token = source.token().await.unwrap();
            // All of them are refused with a 401, at about the same time.
            source.invalidate(&token);
            (token, source.token().await.unwrap())
        });
    }
    for (first, second) in callers.join_all().await {
        assert!(!first.is(&second));
        assert_eq!(second.expose(), "granted-1");
    }
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn a_managed_identity_is_a_source_like_any_other() {
    let fake = Fake::start(|count, _| granted(count)).await;
    let url = fake.url().to_string();
    let identity = ManagedIdentity::from_variables(None, |name| {
        (name == "AZURE_POD_IDENTITY_AUTHORITY_HOST").then(|| url.clone())
    });
    let source = TokenSource::managed_identity(identity.unwrap(), SCOPE.parse().unwrap());
    let token = source.token().await.unwrap();
    assert!(source.token().await.unwrap().is(&token));
    assert_eq!(fake.seen().len(), 1);
    assert_eq!(source.certificate_ends().await.unwrap(), None);
}

#[tokio::test]
async fn failures_say_what_to_do_and_whether_to_wait() {
    type Case = (fn() -> Reply, bool, &'static str);
    let cases: [Case; 8] = [
        (|| refused(7_000_215, "Invalid client secret provided."), false, "not its Secret ID"),
        (|| refused(700_016, "Application not found."), false, "`client_id`"),
        (|| Reply::new(429, "{}").header("retry-after", "17"), true, "tried again"),
        (|| Reply::new(503, "<html>"), true, "tried again"),
        (|| Reply::new(403, "<html>blocked</html>"), false, "proxy"),
        (|| Reply::ok("<html>log in to the hotel</html>"), true, "proxy"),
        (|| Reply::ok(&"x".repeat(70_000)), true, "proxy"),
        (|| Reply::new(302, "").header("location", "/elsewhere"), false, "`authority`"),
    ];
    let directory = tempfile::tempdir().unwrap();
    for (reply, retryable, advice) in cases {
        let fake = Fake::start(move |_, _| reply()).await;
        let error = source(&fake, secret_file(directory.path(), SECRET)).token().await.unwrap_err();
        assert_eq!(error.retryable(), retryable, "{error}");
        assert!(error.advice().contains(advice), "{error}: {}", error.advice());
        assert_eq!(fake.seen().len(), 1, "one request, whatever comes");
        let throttled = matches!(error, TokenError::Unavailable { status: 429, .. });
        assert_eq!(error.retry_after(), throttled.then_some(Duration::from_secs(17)));
    }
}

#[tokio::test]
async fn no_connection_is_a_matter_of_time() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let directory = tempfile::tempdir().unwrap();
    let source = TokenSource::new(
        http(),
        Endpoint::new(&authority, TENANT).unwrap(),
        CLIENT.parse().unwrap(),
        secret_file(directory.path(), SECRET),
        SCOPE.parse().unwrap(),
    );
    let error = source.token().await.unwrap_err();
    assert!(matches!(error, TokenError::Unreachable { .. }) && error.retryable(), "{error}");
    assert!(error.advice().contains("firewall"));
    assert!(!error.to_string().contains(TENANT), "the address is left out: {error}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_given_up() {
    let fake = Fake::start(|count, _| granted(count).after(Duration::from_secs(60))).await;
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::new(&fake.url().as_str().parse().unwrap(), TENANT).unwrap();
    let credential = secret_file(directory.path(), SECRET);
    let (client, scope) = (CLIENT.parse().unwrap(), SCOPE.parse().unwrap());
    let error = endpoint
        .request(&http(), &client, &credential, &scope, Duration::from_millis(100))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "Microsoft Entra ID did not answer within 0.1 s");
    assert!(error.retryable());
}

#[tokio::test]
async fn a_client_that_follows_redirects_does_not_go_unnoticed() {
    let fake = Fake::start(|_, seen| {
        if seen.target == "/elsewhere" {
            granted(0)
        } else {
            Reply::new(303, "").header("location", "/elsewhere")
        }
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let source = TokenSource::new(
        Client::new(),
        Endpoint::new(&fake.url().as_str().parse().unwrap(), TENANT).unwrap(),
        CLIENT.parse().unwrap(),
        secret_file(directory.path(), SECRET),
        SCOPE.parse().unwrap(),
    );
    let error = source.token().await.unwrap_err();
    assert!(matches!(error, TokenError::Redirected { .. }), "{error}");
}

#[tokio::test]
async fn no_secret_and_no_token_is_shown_anywhere() {
    let log = Log::default();
    let _logging = log.capture();
    // The endpoint gives a token, and later refuses and repeats what it was sent.
    let fake = Fake::start(|count, seen| match count {
        0 => Reply::ok(r#"{"access_token":"gr4nted-t0ken","expires_in":3599}"#),
        _ => refused(7_000_215, &format!("You sent {} and {SECRET}.", seen.body)),
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let credential = secret_file(directory.path(), SECRET);
    let source = source(&fake, credential.clone());
    let token = source.token().await.unwrap();
    source.invalidate(&token);
    let error = source.token().await.unwrap_err();
    let TokenError::Refused(refusal) = &error else { panic!("{error}") };
    assert_eq!(refusal.reason, Reason::WrongSecret);

    let log = log.text();
    assert!(log.contains("got an access token"), "{log}");
    let shown = format!(
        "{source:?} {token:?} {:?} {credential:?} {error} {error:?} {error:#?} {} {log}",
        token.authorization_header(),
        error.advice()
    );
    let encoded: String = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
    for hidden in [SECRET, &encoded, "s3cr3t", "gr4nted"] {
        assert!(!shown.contains(hidden), "{hidden} is in {shown}");
    }
    assert!(shown.contains("[hidden] and [hidden]"), "{shown}");
}
