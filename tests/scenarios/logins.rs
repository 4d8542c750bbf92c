//! Every way to log in, with the real binary; and what it logs of it, which is nothing.

use std::fs;

use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};
use simulator::{SimulatorConfig, TenantConfig};

use crate::support::World;

fn world(tenant: TenantConfig) -> World {
    World::new(SimulatorConfig {
        blobs: 4,
        records_per_blob: 5,
        tenants: vec![tenant],
        ..SimulatorConfig::default()
    })
}

/// Collects a tenant that has no secret with these lines of configuration instead, and these variables.
fn logs_in(world: &World, login: &str, variables: &[(&str, &str)]) {
    world.configure();
    world.edit(|text| {
        let lines = text.lines().map(|line| if line.starts_with("client_secret = ") { login } else { line });
        lines.collect::<Vec<_>>().join("\n")
    });
    let outcome = world.mailtrail_with(&["check"], variables).ends_with(0);
    assert!(outcome.stdout.contains("with the role ActivityFeed.Read"), "{}", outcome.stdout);
    world.mailtrail_with(&["run", "--until-idle"], variables).ends_with(0);
    world.is_complete();
}

#[test]
fn with_a_certificate() {
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("a key");
    let certificate = CertificateParams::new(vec!["mailtrail".to_owned()])
        .expect("a name")
        .self_signed(&key)
        .expect("signed");
    let world = world(TenantConfig {
        client_secret: None,
        certificate: Some(certificate.der().to_vec()),
        ..TenantConfig::default()
    });
    let pem = world.path().join("application.pem");
    fs::write(&pem, format!("{}{}", certificate.pem(), key.serialize_pem())).expect("written");
    logs_in(&world, &format!("certificate = {{ file = {pem:?} }}"), &[]);
}

#[test]
fn with_the_identity_of_the_machine() {
    let world = world(TenantConfig { client_secret: None, ..TenantConfig::default() });
    let host = world.simulator().base_url();
    let nobody = [("IDENTITY_ENDPOINT", ""), ("IDENTITY_HEADER", ""), ("IMDS_ENDPOINT", "")];
    let variables = [&nobody[..], &[("AZURE_POD_IDENTITY_AUTHORITY_HOST", &*host)]].concat();
    logs_in(&world, "managed_identity = true", &variables);
}

#[test]
fn with_the_identity_of_a_workload() {
    let tenant = || TenantConfig {
        client_secret: None,
        managed_identity: false,
        federated_assertion: Some("header.claims.signature".to_owned()),
        ..TenantConfig::default()
    };
    let world_of_file = world(tenant());
    let token = world_of_file.path().join("federated-token");
    fs::write(&token, "header.claims.signature\n").expect("written");
    logs_in(&world_of_file, &format!("workload_identity = {{ token_file = {token:?} }}"), &[]);
    let world_of_variable = world(tenant());
    let token = token.to_str().expect("text");
    logs_in(&world_of_variable, "workload_identity = true", &[("AZURE_FEDERATED_TOKEN_FILE", token)]);
}

/// Whatever is asked of the log, of any library on the way.
#[test]
fn neither_the_secret_nor_a_token_is_logged_at_any_level() {
    const EVERYTHING: &str =
        "trace,hyper=trace,hyper_util=trace,h2=trace,reqwest=trace,rustls=trace,entra=trace";
    // Refusals, tokens that are taken back and answers that are cut are logged, too.
    let tenant = TenantConfig::default();
    let secret = tenant.client_secret.clone().expect("it has one");
    for format in ["text", "json"] {
        let world = World::new(SimulatorConfig {
            blobs: 8,
            records_per_blob: 5,
            page_size: 3,
            tenants: vec![tenant.clone()],
            faults: "unauthorized=1/3,token_error=1/2,server_error=1/4,redirect=1/4".parse().expect("faults"),
            ..SimulatorConfig::default()
        });
        world.configure();
        let outcome = world
            .mailtrail(&["--log-format", format, "--log-level", EVERYTHING, "run", "--until-idle"])
            .ends_with(0);
        let text = outcome.text();
        for library in ["hyper_util", "ingest"] {
            assert!(text.contains(&format!("{library}::")), "nothing of {library} is logged");
        }
        let leak = text.lines().find(|line| {
            line.contains(&secret)
                || line.contains("eyJ")
                || line.contains("Bearer ")
                || line.contains("client_secret=")
        });
        assert_eq!(leak, None, "in the log as {format}");
        world.is_complete();
    }
}
