//! An API behind a private certificate authority is trusted when its certificate is configured, and only then.

use std::{io::Write, sync::Arc, time::Duration};

use ingest::{HttpSettings, TenantConfig, api::ApiError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use schemas::ContentType;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer},
    },
};

use crate::harness::{PATIENCE, simulation, start, tenant_at, tokens};

/// What speaks TLS as this host, and its authority's certificate.
pub(crate) fn acceptor(host: &str) -> (TlsAcceptor, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(certificate.der().to_vec())],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), authority.pem())
}

/// An API that has one enabled subscription and speaks HTTPS. Returns its address and its authority's certificate.
async fn api() -> (String, String) {
    let (acceptor, authority) = acceptor("localhost");
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust us goes away in the midst of the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let body = r#"[{"contentType":"Audit.Exchange","status":"enabled"}]"#;
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (address, authority)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_when_it_is_configured_and_only_then() {
    let (address, authority) = api().await;
    let login = start(simulation(0, "")).await;
    let secret = simulator::TenantConfig::default().client_secret.unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(authority.as_bytes()).unwrap();
    for trusted in [false, true] {
        let ca_files = if trusted { vec![file.path().to_owned()] } else { Vec::new() };
        let http = HttpSettings { ca_files, ..HttpSettings::default() }.client().unwrap();
        let (tokens, _secret) = tokens(&login.base_url(), &http, &secret);
        let config: TenantConfig = tenant_at(&address, &[ContentType::Exchange]);
        let answer = config.api(tokens, http).unwrap().subscriptions().await;
        match answer {
            Ok(subscriptions) => {
                assert!(trusted);
                let found = subscriptions.of(ContentType::Exchange);
                assert_eq!(found, ingest::api::subscriptions::Subscription::Enabled);
            }
            Err(error) => {
                assert!(!trusted, "{error}");
                assert!(error.to_string().contains("certificate"), "{error}");
                assert!(error.advice().contains("certificate authorities"), "{}", error.advice());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_takes_a_connection_and_never_speaks_tls_is_given_up() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        let mut silent = Vec::new();
        loop {
            silent.push(listener.accept().await.unwrap());
        }
    });
    let login = start(simulation(0, "")).await;
    let secret = simulator::TenantConfig::default().client_secret.unwrap();
    let settings = HttpSettings { connect_timeout: Duration::from_millis(500), ..HttpSettings::default() };
    let http = settings.client().unwrap();
    let (tokens, _secret) = tokens(&login.base_url(), &http, &secret);
    let api = tenant_at(&address, &[ContentType::Exchange]).api(tokens, http).unwrap();
    // Without a bound on connecting, the bound on the answer's beginning would end it otherwise.
    let answer = tokio::time::timeout(PATIENCE * 2, api.subscriptions()).await.unwrap();
    let Err(ApiError::Unreachable { cause }) = answer else { panic!("{answer:?}") };
    assert!(cause.contains("localhost") && cause.contains("timed out"), "{cause}");
}
