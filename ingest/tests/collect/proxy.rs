//! A proxy carries logins and API calls alike, and nothing that is for this machine.

use std::{
    io::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use ingest::HttpSettings;
use schemas::ContentType;
use simulator::{RequestKind, Running, SimulatorConfig};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::{
    harness::{collect_from, collect_with, simulation, start, tenant, tenant_at},
    memory_ledger::MemoryLedger,
    tls::acceptor,
};

/// What only the proxy knows where to find.
const HOST: &str = "api.mailtrail.example";

/// The heads of the requests that came to a proxy.
type Seen = Arc<Mutex<Vec<String>>>;

/// A proxy that wants a password and remembers what it was asked for. Every tunnel leads to `behind`; what comes without
/// one is answered with an empty list.
async fn proxy(behind: SocketAddr) -> (String, Seen) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let memory = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(carry(stream, behind, Arc::clone(&memory)));
        }
    });
    (format!("http://user:hunter2@{address}"), seen)
}

/// The same to whom one speaks TLS. Gives its authority's certificate, too.
async fn proxy_over_tls(behind: SocketAddr) -> (String, Seen, String) {
    let (acceptor, authority) = acceptor("localhost");
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Seen::default();
    let memory = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, memory) = (acceptor.clone(), Arc::clone(&memory));
            tokio::spawn(async move {
                // Who does not trust it goes away in the midst of the handshake.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                carry(stream, behind, memory).await;
            });
        }
    });
    (format!("https://user:hunter2@localhost:{port}"), seen, authority)
}

async fn carry(mut client: impl AsyncRead + AsyncWrite + Unpin, behind: SocketAddr, seen: Seen) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let (tunnel, welcome) = (head.starts_with("CONNECT "), head.contains("Basic dXNlcjpodW50ZXIy\r\n"));
    seen.lock().unwrap().push(head);
    let answer: &[u8] = match (welcome, tunnel) {
        (false, _) => b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n",
        (true, true) => b"HTTP/1.1 200 Connected\r\n\r\n",
        (true, false) => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]",
    };
    client.write_all(answer).await.unwrap();
    if welcome && tunnel {
        let mut server = TcpStream::connect(behind).await.unwrap();
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}

/// Speaks TLS as [`HOST`] before a server that does not. Gives its authority's certificate.
async fn tls_before(server: SocketAddr) -> (SocketAddr, String) {
    let (acceptor, authority) = acceptor(HOST);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = TcpStream::connect(server).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (address, authority)
}

/// A simulation that calls itself [`HOST`], what speaks TLS before it, and its authority's certificate.
async fn behind_the_proxy() -> (Running, SocketAddr, String) {
    let public_url = Some(format!("https://{HOST}"));
    let simulator = start(SimulatorConfig { public_url, page_size: 4, ..simulation(10, "") }).await;
    let (front, authority) = tls_before(simulator.addr()).await;
    (simulator, front, authority)
}

/// Nobody but the proxy can resolve the host's name, so what arrives went through it.
async fn collects_through(simulator: Running, proxy: &str, seen: &Seen, authorities: &str) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(authorities.as_bytes()).unwrap();
    let settings = HttpSettings {
        proxy: Some(proxy.parse().unwrap()),
        ca_files: vec![file.path().to_owned()],
        ..HttpSettings::default()
    };
    let origin = format!("https://{HOST}");
    let config = tenant_at(&origin, &[ContentType::Exchange]);
    let collecting = collect_from(simulator, &origin, config, &settings, Arc::new(MemoryLedger::default()));
    collecting.until_settled().await;
    let stats = collecting.finish().await;
    assert_eq!(stats.requests_of(RequestKind::Token), 1);
    assert_eq!(stats.requests_of(RequestKind::FetchBlob), 10);
    let seen = seen.lock().unwrap();
    assert!(!seen.is_empty());
    for head in seen.iter() {
        assert!(head.starts_with(&format!("CONNECT {HOST}:443 HTTP/1.1\r\n")), "{head}");
        assert!(!head.contains("eyJ") && !head.contains("Bearer"), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_and_calls_go_through_the_proxy_and_it_hears_the_hosts_name_alone() {
    let (simulator, front, authority) = behind_the_proxy().await;
    let (proxy, seen) = proxy(front).await;
    collects_through(simulator, &proxy, &seen, &authority).await;
}

/// So that not even the host's name and the proxy's password can be heard on the way to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_spoken_to_over_tls_when_its_address_says_so() {
    let (simulator, front, authority) = behind_the_proxy().await;
    let (proxy, seen, of_the_proxy) = proxy_over_tls(front).await;
    // It has to be trusted like any server.
    let stranger = HttpSettings { proxy: Some(proxy.parse().unwrap()), ..HttpSettings::default() };
    let error = stranger.client().unwrap().get(format!("https://{HOST}/")).send().await.unwrap_err();
    assert!(entra::error::causes(error).contains("certificate"));
    assert!(seen.lock().unwrap().is_empty());
    collects_through(simulator, &proxy, &seen, &format!("{authority}{of_the_proxy}")).await;
}

/// What `http://` is allowed for is on this machine: through a proxy the token would leave it in the clear.
#[tokio::test(flavor = "multi_thread")]
async fn this_machine_is_reached_without_the_proxy() {
    let simulator = start(simulation(5, "")).await;
    let (proxy, seen) = proxy(simulator.addr()).await;
    let settings = HttpSettings { proxy: Some(proxy.parse().unwrap()), ..HttpSettings::default() };
    let client = settings.client().unwrap();
    let port = start(simulation(0, "")).await.addr().port();
    for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "[::1]", "[::ffff:127.0.0.1]"] {
        // Whether anybody listens there is not the question.
        let _ = client.get(format!("http://{host}:{port}/")).send().await;
        assert_eq!(seen.lock().unwrap().len(), 0, "{host}");
    }
    let config = tenant(&simulator, &[ContentType::Exchange]);
    let collecting = collect_with(simulator, config, &settings);
    collecting.until_settled().await;
    collecting.finish().await;
    assert_eq!(seen.lock().unwrap().len(), 0);
    // Names that only look like it are somebody else's.
    for (number, host) in ["localhost.example", "127.0.0.1.example", "128.0.0.1"].into_iter().enumerate() {
        assert!(client.get(format!("http://{host}/")).send().await.unwrap().status().is_success(), "{host}");
        assert_eq!(seen.lock().unwrap().len(), number + 1, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exceptions_are_reached_without_the_proxy() {
    let simulator = start(simulation(0, "")).await;
    let (proxy, seen) = proxy(simulator.addr()).await;
    for (exceptions, asked, through) in [
        (None, format!("http://{HOST}/"), 1),
        (Some(format!("10.0.0.0/8,{HOST}")), format!("http://{HOST}/"), 0),
        (Some(".mailtrail.example".to_owned()), format!("http://{HOST}/"), 0),
        // Other exceptions take nothing away from this machine.
        (Some("10.0.0.0/8".to_owned()), simulator.base_url(), 0),
    ] {
        seen.lock().unwrap().clear();
        let settings = HttpSettings {
            proxy: Some(proxy.parse().unwrap()),
            no_proxy: exceptions.clone(),
            ..HttpSettings::default()
        };
        let _ = settings.client().unwrap().get(&asked).send().await;
        assert_eq!(seen.lock().unwrap().len(), through, "{exceptions:?} {asked}");
    }
}

/// Runs the next test in a process of its own, whose environment names a proxy.
#[tokio::test(flavor = "multi_thread")]
async fn the_environment_names_the_proxy_and_never_for_this_machine() {
    let simulator = start(simulation(1, "")).await;
    let (proxy, seen) = proxy(simulator.addr()).await;
    let (elsewhere, here) = (format!("http://{HOST}/"), simulator.base_url());
    let without_scheme = proxy.strip_prefix("http://").unwrap();
    for (variable, address, no_proxy, asked, through) in [
        ("HTTP_PROXY", &*proxy, "example.com", &elsewhere, "GET "),
        ("http_proxy", without_scheme, "example.com", &elsewhere, "GET "),
        ("ALL_PROXY", &*proxy, "example.com", &elsewhere, "GET "),
        ("HTTPS_PROXY", &*proxy, "example.com", &elsewhere.replace("http:", "https:"), "CONNECT "),
        ("HTTPS_PROXY", &*proxy, "example.com", &elsewhere, ""),
        ("HTTP_PROXY", &*proxy, HOST, &elsewhere, ""),
        ("HTTP_PROXY", "", "", &elsewhere, ""),
        ("HTTP_PROXY", "http://[no address", "", &elsewhere, ""),
        ("HTTP_PROXY", &*proxy, "example.com", &here, ""),
        ("ALL_PROXY", &*proxy, "", &here, ""),
    ] {
        seen.lock().unwrap().clear();
        let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            child.env_remove(name).env_remove(name.to_ascii_uppercase());
        }
        let child = child
            .args(["--ignored", "--exact", "proxy::asks_by_the_environment"])
            .env(variable, address)
            .env("NO_PROXY", no_proxy)
            .env("ASKED", asked)
            .output()
            .await
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        let seen = seen.lock().unwrap();
        let first = seen.first().map_or("", |head| head.as_str());
        let what = format!("{variable}={address} NO_PROXY={no_proxy} {asked}: {first}");
        assert_eq!(seen.is_empty(), through.is_empty(), "{what}");
        assert!(first.starts_with(through), "{what}");
        assert!(through.is_empty() || first.contains("Basic dXNlcjpodW50ZXIy\r\n"), "{what}");
    }
}

#[tokio::test]
#[ignore = "run by the_environment_names_the_proxy_and_never_for_this_machine"]
async fn asks_by_the_environment() {
    let asked = std::env::var("ASKED").unwrap();
    // Only the proxy knows where the host is.
    let _ = HttpSettings::default().client().unwrap().get(asked).send().await;
}

/// A proxy that refuses is told nothing but the host's name.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_learns_no_token() {
    let (proxy, seen) = proxy(SocketAddr::from(([127, 0, 0, 1], 9))).await;
    let nobody = proxy.replace("user:hunter2@", "");
    let settings = HttpSettings { proxy: Some(nobody.parse().unwrap()), ..HttpSettings::default() };
    let request = settings.client().unwrap().get("https://manage.office.com/x").bearer_auth("secret-token");
    assert!(request.send().await.is_err());
    let seen = seen.lock().unwrap();
    assert!(seen[0].starts_with("CONNECT manage.office.com:443 HTTP/1.1\r\n"), "{seen:?}");
    assert!(!seen.iter().any(|head| head.contains("secret-token")), "{seen:?}");
}
