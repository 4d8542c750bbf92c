//! Azure Blob Storage, by Azurite and by a server that says what came.

use std::num::NonZeroU32;

use archive::{
    Hash, Source, Store, StoreError, Target,
    store::target::{Azure, AzureCredentials, Immutability, Network},
};
use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use object_store::{
    azure::{AzureAccessKey, AzureAuthorizer, AzureCredential},
    client::{HttpRequest, HttpRequestBody},
};

use crate::{
    fake::{Fake, reply},
    support::{Server, keeps_its_promises, noise, path, put, secret},
};

const AZURITE: &str = "azurite-3.35.0/node_modules/.bin/azurite-blob";
const ACCOUNT: &str = "devstoreaccount1";
/// Azurite's own, which its documentation publishes.
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

async fn azurite() -> Server {
    let arguments = [
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        "PORT",
        "--inMemoryPersistence",
        "--skipApiVersionCheck",
        "--disableTelemetry",
        "--silent",
    ];
    let server = Server::start(AZURITE, &arguments, &[]);
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.method_mut() = reqwest::Method::PUT;
    let url = format!("http://{}/{ACCOUNT}/audit?restype=container", server.address);
    *request.uri_mut() = url.parse().expect("an address");
    request.headers_mut().insert("content-length", 0.into());
    let key = AzureCredential::AccessKey(AzureAccessKey::try_new(KEY).expect("a key"));
    AzureAuthorizer::new(&key, ACCOUNT).try_authorize(&mut request).expect("a signature");
    let sent = reqwest::Client::new().put(url).headers(request.headers().clone()).send().await;
    let answer = sent.expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
    server
}

fn target(address: impl std::fmt::Display, credentials: AzureCredentials) -> Azure {
    Azure {
        account: ACCOUNT.to_owned(),
        container: "audit".to_owned(),
        prefix: Some(path("evidence")),
        endpoint: Some(format!("http://{address}/{ACCOUNT}").parse().expect("an address")),
        credentials,
        immutability: None,
        network: Network::default(),
    }
}

async fn open(target: Azure) -> Store {
    Store::open(&Target::Azure(target)).await.expect("usable settings")
}

/// A shared access signature of the account, as the documentation of the service says how.
fn signature(rights: &str) -> String {
    let (version, end) = ("2019-12-12", "2099-01-01T00:00:00Z");
    let text = format!("{ACCOUNT}\n{rights}\nb\nsco\n\n{end}\n\n\n{version}\n");
    let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64_STANDARD.decode(KEY).expect("base64"));
    let signature = BASE64_STANDARD.encode(hmac::sign(&key, text.as_bytes()));
    let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    format!("sv={version}&ss=b&srt=sco&sp={rights}&se={end}&sig={signature}")
}

#[tokio::test]
#[ignore = "needs Azurite: tests/servers/azurite"]
async fn real_azure_keeps_what_a_store_promises_with_an_account_key() {
    let server = azurite().await;
    let key = secret(server.directory.path(), "key", KEY);
    keeps_its_promises(&open(target(server.address, AzureCredentials::AccountKey(key))).await).await;
}

#[tokio::test]
#[ignore = "needs Azurite: tests/servers/azurite"]
async fn real_azure_keeps_what_a_store_promises_with_a_signature() {
    let server = azurite().await;
    let sas = secret(server.directory.path(), "sas", &signature("racwl"));
    keeps_its_promises(&open(target(server.address, AzureCredentials::Sas(sas))).await).await;
}

#[tokio::test]
#[ignore = "needs Azurite: tests/servers/azurite"]
async fn real_azure_says_what_is_in_the_way() {
    let mut server = azurite().await;
    let directory = server.directory.path().to_owned();
    let wrong = BASE64_STANDARD.encode("another key");
    for credentials in [
        AzureCredentials::AccountKey(secret(&directory, "wrong", &wrong)),
        AzureCredentials::Sas(secret(&directory, "weak", &signature("r"))),
    ] {
        let store = open(target(server.address, credentials)).await;
        let error = put(&store, "a", b"x").await.expect_err("it is denied");
        assert!(matches!(error, StoreError::Denied { .. }) && !error.retryable(), "{error}");
        assert!(!error.to_string().contains("sig="), "{error}");
    }
    let key = AzureCredentials::AccountKey(secret(&directory, "key", KEY));
    let mut none = target(server.address, key.clone());
    none.container = "none".to_owned();
    let error = put(&open(none).await, "a", b"x").await.expect_err("no container");
    assert!(matches!(error, StoreError::NoTarget { .. }), "{error}");

    let store = open(target(server.address, key)).await;
    server.kill();
    let error = put(&store, "a", b"x").await.expect_err("nobody listens");
    assert!(matches!(error, StoreError::Unavailable { .. }) && error.retryable(), "{error}");
}

/// What Azurite does not know: an immutability policy. And a secret never gets into an error.
#[tokio::test]
async fn a_policy_goes_with_every_blob_and_a_signature_into_no_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let fake = Fake::start(None, |request| {
        Some(if request.line.starts_with("PUT ") {
            reply(201, "etag: \"1\"\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n", "")
        } else if request.line.starts_with("HEAD ") {
            reply(404, "", "")
        } else {
            reply(500, "", "<Error><Code>InternalError</Code></Error>")
        })
    });
    let sas = secret(directory.path(), "sas", &signature("racwl"));
    let mut target = target(fake.address, AzureCredentials::Sas(sas));
    let days = NonZeroU32::new(365).expect("not zero");
    target.immutability = Some(Immutability { locked: true, days });
    let store = open(target).await;
    put(&store, "small", b"x").await.expect("it is taken");
    let bytes = noise(9 << 20);
    let file = directory.path().join("sealed");
    std::fs::write(&file, &bytes).expect("a file");
    store.put_new(&path("large"), Source::File(&file), &Hash::of(&bytes)).await.expect("it is taken");
    let mut policies = 0;
    for request in fake.requests().iter().filter(|request| request.line.starts_with("PUT ")) {
        let block = request.line.contains("comp=block&");
        let mode = request.header("x-ms-immutability-policy-mode");
        assert_eq!(mode, (!block).then_some("Locked"), "{}", request.line);
        if !block {
            policies += 1;
            assert_eq!(request.header("if-none-match"), Some("*"), "{}", request.line);
            let until = request.header("x-ms-immutability-policy-until-date").expect("a date");
            let until = chrono::DateTime::parse_from_rfc2822(until).expect("a date").to_utc();
            assert_eq!((until - chrono::Utc::now()).num_days(), 364);
        }
    }
    assert_eq!(policies, 2);
    let error = store.get(&path("small")).await.expect_err("it fails");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("sig="), "{error:?}");
    drop(fake);
    let error = store.get(&path("small")).await.expect_err("nobody listens");
    assert!(!format!("{error} {error:?}").contains("sig="), "{error:?}");
}

#[tokio::test]
async fn a_secret_that_is_none_is_named_and_not_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    for credentials in [
        AzureCredentials::AccountKey(secret(directory.path(), "key", "not base64!")),
        AzureCredentials::Sas(secret(directory.path(), "sas", "se=2099&sp=r")),
    ] {
        let store = open(target("127.0.0.1:1", credentials)).await;
        let error = put(&store, "a", b"x").await.expect_err("no credential");
        assert!(matches!(error, StoreError::Settings(_)), "{error:?}");
        let text = format!("{error} {error:?}");
        assert!(!text.contains("not base64!") && !text.contains("se=2099"), "{text}");
    }
}
