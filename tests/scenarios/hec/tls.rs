//! TLS with an authority of one's own, a client certificate, and without verification.

use std::{fs, sync::Arc};

use super::{Setup, small};
use crate::support::{
    free_address,
    hec::{Acks, Hec},
    sample, terminate,
    tls::{Tls, tls},
};

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
fn how_long_a_client_certificate_is_valid_is_shown() {
    let setup = setup(&tls(true));
    let address = free_address();
    let own =
        "ca_file = \"ca.pem\"\nclient_certificate = \"client.pem\"\nclient_key = { file = \"client.key\" }\n";
    let others = format!(
        "[sinks.files]\ntype = \"file\"\ndirectory = {:?}\n[http]\nlisten = \"{address}\"\n",
        setup.world.out("files")
    );
    setup.configure("indexer", own, &others);
    let running = setup.world.start(&["run"]);
    let left = |sink: &str| {
        sample(address, &format!("mailtrail_sink_certificate_remaining_seconds{{sink=\"{sink}\"}}"))
    };
    setup.world.until("it is shown", || left("soc").is_some());
    assert!(left("soc").is_some_and(|left| left > 86_400.0), "{:?}", left("soc"));
    assert_eq!(left("files"), None, "it shows none to anybody");
    terminate(&running);
    running.wait().ends_with(0);
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
