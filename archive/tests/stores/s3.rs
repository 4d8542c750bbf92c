//! S3, by moto and by a server that fails.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use archive::{
    Hash, Put, Source, Store, StoreError, Target,
    store::target::{LockMode, Network, ObjectLock, S3, S3Credentials},
};

use crate::{
    fake::{Fake, Request, reply},
    support::{Server, keeps_its_promises, names, noise, path, put, secret},
};

const MOTO: &str = "moto-5.2.5/bin/moto_server";
const ARGUMENTS: [&str; 4] = ["-H", "127.0.0.1", "-p", "PORT"];

/// A signature that moto does not look at, but it wants one.
const SOMEBODY: &str =
    "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

async fn moto() -> Server {
    let server = Server::start(MOTO, &ARGUMENTS, &[]);
    bucket(&server, "audit", false).await;
    server
}

/// Makes a bucket; moto believes whoever comes.
async fn bucket(server: &Server, name: &str, locks: bool) {
    let url = format!("http://{}/{name}", server.address);
    let mut request = reqwest::Client::new().put(url).header("authorization", SOMEBODY);
    if locks {
        request = request.header("x-amz-bucket-object-lock-enabled", "true");
    }
    let answer = request.send().await.expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
}

fn target(address: impl std::fmt::Display, directory: &std::path::Path, bucket: &str) -> S3 {
    S3 {
        bucket: bucket.to_owned(),
        prefix: Some(path("evidence/2026")),
        region: "us-east-1".to_owned(),
        endpoint: Some(format!("http://{address}").parse().expect("an address")),
        path_style: true,
        ca_file: None,
        credentials: S3Credentials::Static {
            access_key_id: "AKIATEST".to_owned(),
            secret_access_key: secret(directory, "key", "very-secret"),
            session_token: None,
        },
        object_lock: None,
        network: Network::default(),
    }
}

async fn open(target: S3) -> Store {
    Store::open(&Target::S3(target)).await.expect("usable settings")
}

#[tokio::test]
#[ignore = "needs moto: tests/servers/moto"]
async fn real_s3_keeps_what_a_store_promises() {
    let server = moto().await;
    keeps_its_promises(&open(target(server.address, server.directory.path(), "audit")).await).await;
}

#[tokio::test]
#[ignore = "needs moto: tests/servers/moto"]
async fn real_s3_lists_more_keys_than_a_page_holds() {
    let server = moto().await;
    let store = open(target(server.address, server.directory.path(), "audit")).await;
    for number in 0..1_050 {
        put(&store, &format!("many/{number:05}"), b"x").await.expect("it is new");
    }
    assert_eq!(names(&store, None).await.len(), 1_050);
}

#[tokio::test]
#[ignore = "needs moto: tests/servers/moto"]
async fn real_s3_objects_are_locked() {
    let server = moto().await;
    bucket(&server, "locked", true).await;
    let days = NonZeroU32::new(30).expect("not zero");
    let lock = Some(ObjectLock { mode: LockMode::Compliance, days });
    let mut target = target(server.address, server.directory.path(), "locked");
    target.object_lock = lock;
    let store = open(target.clone()).await;
    store.probe().await.expect("it can be used");
    put(&store, "a", b"x").await.expect("it is new");
    // It forgets the lock of an upload in parts; what is asked of S3 there is in a test below.
    let url = format!("http://{}/locked/evidence/2026/a", server.address);
    let answer = reqwest::Client::new().head(url).header("authorization", SOMEBODY).send().await;
    let answer = answer.expect("an answer");
    let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
    assert_eq!(header("x-amz-object-lock-mode"), Some("COMPLIANCE"), "{}", answer.status());
    let until = header("x-amz-object-lock-retain-until-date").expect("a date");
    let until = chrono::DateTime::parse_from_rfc3339(until).expect("a date").to_utc();
    assert_eq!((until - chrono::Utc::now()).num_days(), 29);

    let mut unlocked = target;
    unlocked.bucket = "audit".to_owned();
    let error = put(&open(unlocked).await, "a", b"x").await.expect_err("a bucket without locks");
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("made with it"), "{error}");
}

#[tokio::test]
#[ignore = "needs moto: tests/servers/moto"]
async fn real_s3_says_what_is_in_the_way() {
    let mut server = moto().await;
    let directory = server.directory.path().to_owned();
    let store = open(target(server.address, &directory, "none")).await;
    for error in
        [store.probe().await.expect_err("no bucket"), put(&store, "a", b"x").await.expect_err("no bucket")]
    {
        assert!(matches!(error, StoreError::NoTarget { .. }) && !error.retryable(), "{error}");
    }

    let store = open(target(server.address, &directory, "audit")).await;
    server.kill();
    let error = put(&store, "a", b"x").await.expect_err("nobody listens");
    assert!(matches!(error, StoreError::Unavailable { .. }) && error.retryable(), "{error}");
    server.up();
    bucket(&server, "audit", false).await;
    assert_eq!(put(&store, "a", b"x").await.expect("it goes on"), Put::Created);

    // One action is free, after that moto looks at who comes.
    let server = Server::start(MOTO, &ARGUMENTS, &[("INITIAL_NO_AUTH_ACTION_COUNT", "1")]);
    bucket(&server, "audit", false).await;
    let store = open(target(server.address, &directory, "audit")).await;
    let error = put(&store, "a", b"x").await.expect_err("a key that nobody knows");
    assert!(matches!(error, StoreError::Denied { .. }) && !error.retryable(), "{error}");
    let text = error.to_string();
    assert!(text.contains("access_key_id") && !text.contains("very-secret"), "{text}");
}

#[tokio::test]
#[ignore = "needs moto: tests/servers/moto"]
async fn real_s3_that_slows_down_is_asked_again_by_whoever_asked() {
    let server = moto().await;
    let failures = AtomicUsize::new(0);
    let fake = Fake::start(Some(server.address), move |request| {
        let slow = request.line.starts_with("PUT ") && failures.fetch_add(1, Ordering::SeqCst) < 3;
        slow.then(|| reply(503, "retry-after: 7\r\n", "<Error><Code>SlowDown</Code></Error>"))
    });
    let store = open(target(fake.address, server.directory.path(), "audit")).await;
    for _ in 0..3 {
        let error = put(&store, "a", b"x").await.expect_err("it slows down");
        assert!(matches!(error, StoreError::Throttled { .. }) && error.retryable(), "{error}");
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    }
    assert_eq!(fake.requests().len(), 3, "nobody asked again by himself");
    assert_eq!(put(&store, "a", b"x").await.expect("it goes on"), Put::Created);
}

/// A server that lost the answer to what it did: the object is there, and whoever put it does not know.
#[tokio::test]
#[ignore = "needs moto: tests/servers/moto"]
async fn real_s3_objects_whose_answer_was_lost_are_recognised() {
    let server = moto().await;
    let direct = open(target(server.address, server.directory.path(), "audit")).await;
    put(&direct, "a", b"x").await.expect("it is new");
    let lost = AtomicUsize::new(0);
    let fake = Fake::start(Some(server.address), move |request| {
        let first = request.line.starts_with("PUT ") && lost.fetch_add(1, Ordering::SeqCst) == 0;
        first.then(String::new)
    });
    let store = open(target(fake.address, server.directory.path(), "audit")).await;
    let error = put(&store, "a", b"x").await.expect_err("no answer");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert_eq!(put(&store, "a", b"x").await.expect("it is the same"), Put::AlreadyThere);
}

fn complete(request: &Request) -> bool {
    request.line.starts_with("POST ") && request.line.contains("uploadId=")
}

/// What of S3 no test server checks: the headers that make a large object, all of them signed, and what becomes of an
/// upload that fails.
#[tokio::test]
async fn a_large_upload_is_conditional_locked_signed_and_given_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let fake = Fake::start(None, |request| {
        Some(if request.line.contains("?uploads") {
            reply(
                200,
                "",
                "<InitiateMultipartUploadResult><UploadId>7</UploadId></InitiateMultipartUploadResult>",
            )
        } else if complete(request) {
            // S3 says 200 before it knows.
            reply(200, "", "<Error><Code>InternalError</Code><Message>We failed</Message></Error>")
        } else if request.line.starts_with("PUT ") {
            reply(200, "etag: \"1\"\r\n", "")
        } else if request.line.starts_with("DELETE ") {
            reply(204, "", "")
        } else {
            reply(404, "", "")
        })
    });
    let mut target = target(fake.address, directory.path(), "audit");
    let days = NonZeroU32::new(1).expect("not zero");
    target.object_lock = Some(ObjectLock { mode: LockMode::Governance, days });
    let store = open(target).await;
    let bytes = noise(17 << 20);
    let file = directory.path().join("sealed");
    std::fs::write(&file, &bytes).expect("a file");
    let error = store.put_new(&path("large"), Source::File(&file), &Hash::of(&bytes)).await;
    let error = error.expect_err("it fails at last");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("InternalError: We failed"), "{error}");

    let requests = fake.requests();
    let lines: Vec<&str> = requests.iter().map(|request| request.line.as_str()).collect();
    let key = "/audit/evidence/2026/large";
    assert_eq!(
        lines,
        [
            format!("HEAD {key}"),
            format!("POST {key}?uploads="),
            format!("PUT {key}?partNumber=1&uploadId=7"),
            format!("PUT {key}?partNumber=2&uploadId=7"),
            format!("PUT {key}?partNumber=3&uploadId=7"),
            format!("POST {key}?uploadId=7"),
            format!("DELETE {key}?uploadId=7"),
        ]
    );
    let signed = |request: &Request, name: &str| {
        request.header("authorization").is_some_and(|value| {
            let names = value.split("SignedHeaders=").nth(1).and_then(|rest| rest.split(',').next());
            names.is_some_and(|names| names.split(';').any(|signed| signed == name))
        })
    };
    assert_eq!(requests[1].header("x-amz-object-lock-mode"), Some("GOVERNANCE"));
    for name in ["x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"] {
        assert!(signed(&requests[1], name), "{name}");
    }
    assert_eq!(requests[5].header("if-none-match"), Some("*"));
    assert!(signed(&requests[5], "if-none-match"));
    for part in &requests[2..5] {
        assert!(signed(part, "x-amz-checksum-sha256") && part.header("x-amz-object-lock-mode").is_none());
        assert!(part.body.len() <= archive::store::PART_BYTES);
    }
    for request in &requests {
        let all = request.headers.iter().filter(|(name, _)| name == "authorization").count();
        assert_eq!(all, 1, "{}", request.line);
    }
}

/// A process put it and was killed, and then its disk lost the file: nothing is left to do.
#[tokio::test]
async fn what_is_there_needs_no_file_any_more() {
    let directory = tempfile::tempdir().expect("a directory");
    let fake = Fake::start(None, |request| {
        let there = request.line.ends_with("/there") && !request.line.starts_with("PUT ");
        let headers = "last-modified: Sat, 21 Nov 2026 18:00:00 GMT\r\netag: \"x\"\r\n";
        Some(if there { reply(200, headers, "sealed") } else { reply(404, "", "") })
    });
    let store = open(target(fake.address, directory.path(), "audit")).await;
    let file = directory.path().join("1.object");
    let put = async |name: &str| store.put_new(&path(name), Source::File(&file), &Hash::of(b"sealed")).await;
    assert_eq!(put("there").await.expect("it is there"), Put::AlreadyThere);
    assert!(matches!(put("none").await, Err(StoreError::Io { .. })));
    std::fs::write(&file, "garbage").expect("a file");
    assert_eq!(put("there").await.expect("it is there"), Put::AlreadyThere);
    assert!(matches!(put("none").await, Err(StoreError::SourceChanged { .. })));
    let other = store.put_new(&path("there"), Source::File(&file), &Hash::of(b"other")).await;
    assert!(matches!(other, Err(StoreError::SourceChanged { .. })), "{other:?}");
}

/// Keys that the library refuses, or takes for others: the page that they are on is listed all the same, and each as it is.
#[tokio::test]
async fn a_key_that_no_path_has_is_listed_as_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let listed = ["x//y", "a.json", "a.json/", "/a.json", "..", "b&amp;c", "~key~61"];
    let contents: String = listed
        .iter()
        .map(|key| {
            format!(
                "<Contents><Key>evidence/2026/{key}</Key><LastModified>2026-03-04T05:00:00.000Z</LastModified>\
                 <Size>1</Size></Contents>"
            )
        })
        .collect();
    let page = format!("<ListBucketResult><Name>audit</Name>{contents}</ListBucketResult>");
    let fake =
        Fake::start(None, move |request| request.line.contains("list-type=2").then(|| reply(200, "", &page)));
    let store = open(target(fake.address, directory.path(), "audit")).await;
    let expected = listed.map(|key| key.replace("&amp;", "&"));
    assert_eq!(names(&store, None).await, expected.into_iter().collect());
}

#[tokio::test]
async fn each_answer_has_a_meaning() {
    let directory = tempfile::tempdir().expect("a directory");
    let error = async |status: u16, code: &str, message: &str| {
        let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
        let fake = Fake::start(None, move |_| Some(reply(status, "", &body)));
        let store = open(target(fake.address, directory.path(), "audit")).await;
        put(&store, "a", b"x").await.expect_err("it is refused")
    };
    assert!(matches!(error(429, "TooManyRequests", "").await, StoreError::Throttled { .. }));
    assert!(matches!(error(503, "ServiceUnavailable", "").await, StoreError::Throttled { .. }));
    assert!(matches!(error(500, "InternalError", "").await, StoreError::Unavailable { .. }));
    assert!(matches!(error(400, "RequestTimeout", "").await, StoreError::Unavailable { .. }));
    assert!(matches!(error(400, "ExpiredToken", "").await, StoreError::Denied { .. }));
    assert!(matches!(error(404, "NoSuchBucket", "").await, StoreError::NoTarget { .. }));
    let denied = error(403, "AccessDenied", "Access Denied").await;
    assert!(matches!(denied, StoreError::Denied { .. }), "{denied}");
    assert!(denied.to_string().contains("allow s3:PutObject"), "{denied}");
    let lock = error(400, "InvalidRequest", "Bucket is missing Object Lock Configuration").await;
    assert!(matches!(lock, StoreError::Refused { .. }), "{lock}");
    assert!(lock.to_string().contains("made with it"), "{lock}");
    let region = error(301, "PermanentRedirect", "").await;
    assert!(region.to_string().contains("set region"), "{region}");
    // Two wrote it at once: it is not there, and the next attempt will tell.
    let contended = Fake::start(None, |request| {
        Some(reply(if request.line.starts_with("PUT ") { 409 } else { 404 }, "", ""))
    });
    let store = open(target(contended.address, directory.path(), "audit")).await;
    let error = put(&store, "a", b"x").await.expect_err("it is contended");
    assert!(matches!(error, StoreError::Contended { .. }) && error.retryable(), "{error}");
}
