//! TLS with an authority of one's own, a client certificate, and without verification.

use std::{fs, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};

use super::{Setup, small};
use crate::support::hec::{Acks, Hec};

/// A certificate and its key, as PEM.
struct Pair {
    certificate: String,
    key: String,
}

/// An authority, a receiver that it vouches for, and a client's certificate.
struct Tls {
    authority: String,
    client: Pair,
    server: Arc<ServerConfig>,
}

fn tls(asks_for_a_certificate: bool) -> Tls {
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("an authority");
    let issue = |name: &str, purpose: ExtendedKeyUsagePurpose| {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        params.extended_key_usages = vec![purpose];
        let certificate = params.signed_by(&key, &authority).expect("a certificate");
        (certificate, key)
    };
    let (certificate, key) = issue("localhost", ExtendedKeyUsagePurpose::ServerAuth);
    let builder = ServerConfig::builder();
    let builder = if asks_for_a_certificate {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(authority.der().to_vec())).expect("a root");
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("a verifier");
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let server = builder
        .with_single_cert(
            vec![CertificateDer::from(certificate.der().to_vec())],
            PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        )
        .expect("a configuration");
    let (certificate, key) = issue("mailtrail", ExtendedKeyUsagePurpose::ClientAuth);
    let client = Pair { certificate: certificate.pem(), key: key.serialize_pem() };
    Tls { authority: authority.pem(), client, server: Arc::new(server) }
}

fn setup(tls: &Tls) -> Setup {
    let hec = Hec::start_with(Acks::Prompt, Some(Arc::clone(&tls.server)));
    let setup = Setup::new(small(), hec, "indexer", "");
    for (name, text) in
        [("ca.pem", &tls.authority), ("client.pem", &tls.client.certificate), ("client.key", &tls.client.key)]
    {
        fs::write(setup.world.path().join(name), text).expect("written");
    }
    setup
}

#[test]
fn a_private_authority_is_trusted_when_it_is_named_and_only_then() {
    let setup = setup(&tls(false));
    let outcome = setup.world.mailtrail(&["check"]).ends_with(1);
    assert!(outcome.stdout.contains("certificate"), "{}", outcome.stdout);
    setup.configure("indexer", "ca_file = \"ca.pem\"\n", "");
    setup.world.mailtrail(&["check"]).ends_with(0);
    setup.world.collect();
    assert_eq!(setup.judge(), (0, 0));
}

#[test]
fn a_client_certificate_is_shown() {
    let setup = setup(&tls(true));
    setup.configure("indexer", "ca_file = \"ca.pem\"\n", "");
    setup.world.mailtrail(&["check"]).ends_with(1);
    let lines =
        "ca_file = \"ca.pem\"\nclient_certificate = \"client.pem\"\nclient_key = { file = \"client.key\" }\n";
    setup.configure("indexer", lines, "");
    setup.world.collect();
    assert_eq!(setup.judge(), (0, 0));
}

#[test]
fn without_verification_it_says_so_at_every_start() {
    let setup = setup(&tls(false));
    setup.configure("indexer", "verify = false\n", "");
    for _ in 0..2 {
        let outcome = setup.world.collect();
        assert!(outcome.stderr.contains("VERIFICATION IS OFF"), "{}", outcome.stderr);
    }
    assert_eq!(setup.judge(), (0, 0));
}
