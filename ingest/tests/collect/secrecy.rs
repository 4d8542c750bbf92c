//! The token goes to the configured host and to nobody else.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Response};
use chrono::Utc;
use schemas::ContentType;

use crate::{
    harness::{collect_scripted, hours, until},
    scripted::{Scripted, entry, json, ordinary},
};

/// A server that only remembers, and answers as if all were well.
async fn elsewhere() -> Arc<Scripted> {
    Arc::new(Scripted::start(|_| json(200, "[]")).await)
}

fn with_header(mut response: Response<Body>, name: &'static str, value: &str) -> Response<Body> {
    response.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn no_redirect_is_followed() {
    for status in [301, 302, 303, 307, 308] {
        let other = elsewhere().await;
        let target = other.url();
        let server =
            Scripted::start(move |_| with_header(json(status, ""), "location", &format!("{target}/x"))).await;
        let collecting = collect_scripted(&server.url(), "secret");
        let listing = &collecting.handle.health().feeds[0].listing;
        until("an error", || listing.get().last_error.is_some()).await;
        let (_, trouble) = listing.get().last_error.unwrap();
        assert!(
            trouble.error.contains(&other.url()) && trouble.error.contains("redirect"),
            "{}",
            trouble.error
        );
        assert_eq!(other.seen().len(), 0, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_next_page_and_no_content_uri_leads_elsewhere() {
    let other = elsewhere().await;
    let now = Utc::now();
    let (created, expires) = ((now - hours(1)).to_rfc3339(), (now + hours(99)).to_rfc3339());
    let listing = format!(
        "[{}]",
        entry("a$1", &created, &expires).replace("http://localhost/x", &format!("{}/x", other.url()))
    );
    let target = other.url();
    let server = Scripted::start(move |seen| match ordinary(seen, &listing) {
        Some(page) if seen.target.contains("/content") => {
            with_header(page, "NEXTPAGEURI", &format!("{target}/next"))
        }
        Some(answer) => answer,
        None => json(200, "[{}]"),
    })
    .await;
    let collecting = collect_scripted(&server.url(), "secret");
    let listing = &collecting.handle.health().feeds[0].listing;
    until("the window is given up", || collecting.handle.health().troubles().len() == 1).await;
    let (_, trouble) = listing.get().last_error.unwrap();
    assert!(trouble.error.contains(&other.url()), "{}", trouble.error);
    assert_eq!(other.seen().len(), 0);
    assert!(collecting.ledger.lock().windows.is_empty(), "the window was not listed to its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_blob_is_fetched_from_the_configured_host_whatever_its_uri_says() {
    let now = Utc::now();
    let listing =
        format!("[{}]", entry("a/../$1?x", &(now - hours(1)).to_rfc3339(), &(now + hours(99)).to_rfc3339()));
    let server =
        Scripted::start(move |seen| ordinary(seen, &listing).unwrap_or_else(|| json(200, "[{},{}]"))).await;
    let collecting = collect_scripted(&server.url(), "secret");
    until("the blob", || collecting.ledger.fetched() == 1).await;
    let tenant = simulator::TenantConfig::default().tenant_id;
    let fetch = server.seen().into_iter().find(|seen| seen.target.contains("/audit/")).unwrap();
    assert_eq!(
        fetch.target,
        format!("/api/v1.0/{tenant}/activity/feed/audit/a%2F..%2F$1%3Fx?PublisherIdentifier={tenant}")
    );
    assert_eq!(fetch.headers["authorization"], "Bearer scripted-token-0123456789");
    assert_eq!(fetch.headers["accept-encoding"], "gzip");
    assert!(fetch.headers["user-agent"].to_str().unwrap().starts_with("mailtrail/"));
    let row = collecting.ledger.row(ContentType::Exchange, "a/../$1?x").unwrap();
    assert_eq!(row.records, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_an_answer_repeats_is_in_no_error() {
    let server = Scripted::start(|seen| {
        let token = seen.headers["authorization"].to_str().unwrap().to_owned();
        json(403, &format!("<html>blocked: {token}, scripted-token-0123456789</html>"))
    })
    .await;
    let collecting = collect_scripted(&server.url(), "secret");
    let listing = &collecting.handle.health().feeds[0].listing;
    until("an error", || listing.get().last_error.is_some()).await;
    let shown = format!("{:?}", listing.get());
    assert!(shown.contains("blocked") && !shown.contains("scripted-token"), "{shown}");
}
