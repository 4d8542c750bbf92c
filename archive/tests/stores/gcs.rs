//! Google Cloud Storage, by a server that says what came.

use std::collections::BTreeSet;
use std::sync::Mutex;

use archive::{
    Hash, Put, Source, Store, StoreError, Target,
    store::target::{Gcs, GcsCredentials, Network},
};

use crate::{
    fake::{Fake, reply},
    support::{noise, path, put, secret},
};

const META: &str = "etag: \"1\"\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n";

async fn open(fake: &Fake, directory: &std::path::Path) -> Store {
    // The form of key that emulators take: nobody asks for a token with it.
    let key = format!(
        r#"{{"private_key":"x","private_key_id":"x","client_email":"x","disable_oauth":true,"gcs_base_url":"http://{}"}}"#,
        fake.address
    );
    let target = Gcs {
        bucket: "audit".to_owned(),
        prefix: Some(path("evidence")),
        credentials: GcsCredentials::ServiceAccount(secret(directory, "key.json", &key)),
        network: Network::default(),
    };
    Store::open(&Target::Gcs(target)).await.expect("usable settings")
}

#[tokio::test]
async fn an_object_is_created_only_when_its_name_is_free() {
    let directory = tempfile::tempdir().expect("a directory");
    let there = Mutex::new(BTreeSet::new());
    let fake = Fake::start(None, move |request| {
        let (method, key) = request.line.split_once(' ')?;
        let mut there = there.lock().expect("no panic");
        let new = !there.contains(key);
        match method {
            "PUT" if new => there.insert(key.to_owned()),
            _ => false,
        };
        Some(match method {
            "PUT" if new => reply(200, META, ""),
            "PUT" => reply(412, "", "<Error><Code>PreconditionFailed</Code></Error>"),
            _ if new => reply(404, "", "<Error><Code>NoSuchKey</Code></Error>"),
            _ => reply(200, META, "one"),
        })
    });
    let store = open(&fake, directory.path()).await;
    assert_eq!(put(&store, "a", b"one").await.expect("it is new"), Put::Created);
    assert_eq!(put(&store, "a", b"one").await.expect("it is the same"), Put::AlreadyThere);
    assert!(matches!(put(&store, "a", b"two").await, Err(StoreError::OtherBytes { .. })));
    let request = &fake.requests()[0];
    assert_eq!(request.line, "PUT /audit/evidence%2Fa");
    assert_eq!(request.header("x-goog-if-generation-match"), Some("0"));
    assert!(matches!(store.get(&path("none")).await, Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn a_large_object_is_not_begun_when_its_name_is_taken() {
    let directory = tempfile::tempdir().expect("a directory");
    let bytes = noise(9 << 20);
    let file = directory.path().join("sealed");
    std::fs::write(&file, &bytes).expect("a file");
    let fake = Fake::start(None, |request| {
        let other = matches!(request.line.split(' ').next(), Some("HEAD" | "GET"));
        Some(if other { reply(200, META, "other") } else { reply(500, "", "") })
    });
    let store = open(&fake, directory.path()).await;
    let error = store.put_new(&path("large"), Source::File(&file), &Hash::of(&bytes)).await;
    assert!(matches!(error, Err(StoreError::OtherBytes { .. })), "{error:?}");
    let lines: Vec<String> = fake.requests().into_iter().map(|request| request.line).collect();
    assert_eq!(lines, ["HEAD /audit/evidence%2Flarge", "GET /audit/evidence%2Flarge"]);
}

#[tokio::test]
async fn what_is_denied_names_the_role() {
    let directory = tempfile::tempdir().expect("a directory");
    let fake = Fake::start(None, |_| Some(reply(403, "", "<Error><Code>AccessDenied</Code></Error>")));
    let store = open(&fake, directory.path()).await;
    let error = put(&store, "a", b"x").await.expect_err("it is denied");
    assert!(error.to_string().contains("roles/storage.objectCreator"), "{error}");
    let none = Fake::start(None, |_| Some(reply(404, "", "<Error><Code>NoSuchBucket</Code></Error>")));
    let error = put(&open(&none, directory.path()).await, "a", b"x").await.expect_err("no bucket");
    assert!(matches!(error, StoreError::NoTarget { .. }), "{error}");
}
