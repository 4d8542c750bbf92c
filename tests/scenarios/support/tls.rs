//! An authority of one's own, and what it vouches for.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};

/// A certificate and its key, as PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// An authority, a receiver that it vouches for, and a client's certificate.
pub(crate) struct Tls {
    pub(crate) authority: String,
    pub(crate) client: Pair,
    pub(crate) server: Arc<ServerConfig>,
}

/// Makes one. The receiver is called `localhost`.
pub(crate) fn tls(asks_for_a_certificate: bool) -> Tls {
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // Called like what it vouches for, it would pass for that itself in the eyes of OpenSSL.
    authority.distinguished_name.push(DnType::CommonName, "the authority of mailtrail's scenarios");
    let authority =
        CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("an authority");
    let issue = |name: &str, purpose: ExtendedKeyUsagePurpose| {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
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
