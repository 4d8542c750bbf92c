//! A proxy carries logins and API calls alike.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, Response, StatusCode},
};
use ingest::HttpSettings;
use schemas::ContentType;
use simulator::RequestKind;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::harness::{collect_with, simulation, start, tenant};

/// A proxy for `http://` that remembers what it was asked for, and by whom.
async fn proxy() -> (String, Arc<Mutex<Vec<(String, HeaderMap)>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen: Arc<Mutex<Vec<(String, HeaderMap)>>> = Arc::default();
    let memory = Arc::clone(&seen);
    let onward = reqwest::Client::builder().no_proxy().build().unwrap();
    let app = Router::new().fallback(move |request: Request| {
        let (onward, memory) = (onward.clone(), Arc::clone(&memory));
        async move {
            let (head, body) = request.into_parts();
            memory.lock().unwrap().push((head.uri.to_string(), head.headers.clone()));
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let mut headers = head.headers;
            headers.remove("proxy-authorization");
            let sent =
                onward.request(head.method, head.uri.to_string()).headers(headers).body(body).send().await;
            let Ok(answer) = sent else {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                return response;
            };
            let (status, headers) = (answer.status(), answer.headers().clone());
            let mut response = Response::new(Body::from(answer.bytes().await.unwrap()));
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            response
        }
    });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (format!("http://user:hunter2@{address}"), seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_and_calls_go_through_the_proxy() {
    let (proxy, seen) = proxy().await;
    let simulator = start(simulation(10, "")).await;
    let base = simulator.base_url();
    let settings = HttpSettings { proxy: Some(proxy.parse().unwrap()), ..HttpSettings::default() };
    let config = tenant(&simulator, &[ContentType::Exchange]);
    let collecting = collect_with(simulator, config, &settings);
    collecting.until_settled().await;
    let stats = collecting.finish().await;
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|(uri, headers)| {
        uri.starts_with(&base) && headers["proxy-authorization"] == "Basic dXNlcjpodW50ZXIy"
    }));
    let through = |part: &str| seen.iter().filter(|(uri, _)| uri.contains(part)).count() as u64;
    assert_eq!(through("/oauth2/v2.0/token"), stats.requests_of(RequestKind::Token));
    assert_eq!(through("/audit/"), stats.requests_of(RequestKind::FetchBlob));
    assert_eq!(stats.requests_of(RequestKind::FetchBlob), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn exceptions_are_reached_without_the_proxy() {
    let (proxy, seen) = proxy().await;
    let settings = HttpSettings {
        proxy: Some(proxy.parse().unwrap()),
        no_proxy: Some("127.0.0.0/8".to_owned()),
        ..HttpSettings::default()
    };
    let simulator = start(simulation(5, "")).await;
    let config = tenant(&simulator, &[ContentType::Exchange]);
    let collecting = collect_with(simulator, config, &settings);
    collecting.until_settled().await;
    collecting.finish().await;
    assert_eq!(seen.lock().unwrap().len(), 0);
}

/// Runs the next test in a process of its own, whose environment names a proxy.
#[tokio::test(flavor = "multi_thread")]
async fn the_environment_names_the_proxy() {
    let (proxy, seen) = proxy().await;
    let simulator = start(simulation(1, "")).await;
    for (no_proxy, expected) in [("example.com", 1), ("127.0.0.1", 0)] {
        seen.lock().unwrap().clear();
        let child = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "proxy::asks_by_the_environment"])
            .env("HTTP_PROXY", &proxy)
            .env("NO_PROXY", no_proxy)
            .env("ASKED", simulator.base_url())
            .output()
            .await
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        assert_eq!(seen.lock().unwrap().len(), expected, "NO_PROXY={no_proxy}");
    }
}

#[tokio::test]
#[ignore = "run by the_environment_names_the_proxy"]
async fn asks_by_the_environment() {
    let asked = std::env::var("ASKED").unwrap();
    HttpSettings::default().client().unwrap().get(asked).send().await.unwrap();
}

/// What is encrypted is tunnelled: the proxy learns the host's name and not the token.
#[tokio::test(flavor = "multi_thread")]
async fn https_is_tunnelled() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream
            .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        String::from_utf8(head).unwrap()
    });
    let settings = HttpSettings { proxy: Some(proxy.parse().unwrap()), ..HttpSettings::default() };
    let request = settings.client().unwrap().get("https://manage.office.com/x").bearer_auth("secret-token");
    assert!(request.send().await.is_err());
    let head = heard.await.unwrap();
    assert!(head.starts_with("CONNECT manage.office.com:443 HTTP/1.1\r\n"), "{head}");
    assert!(!head.contains("secret-token"), "{head}");
}
