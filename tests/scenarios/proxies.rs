//! A proxy in the environment is not asked for what is on this machine: neither for a simulated tenant nor for a receiver.

use std::fs;

use simulator::SimulatorConfig;

use crate::support::{
    Binary, World, free_address,
    hec::{Acks, Hec, TOKEN},
};

/// The variables that name a proxy, in both spellings. Nobody listens there.
const VARIABLES: [&str; 6] =
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

#[test]
fn the_demonstration_works_behind_any_proxy() {
    let dead = format!("http://{}", free_address());
    let directory = tempfile::tempdir().expect("a directory");
    let arguments = ["demo", "--blobs", "5", "--records-per-blob", "4"];
    let outcome = Binary::start_with(directory.path(), &arguments, &VARIABLES.map(|name| (name, &*dead)))
        .wait()
        .ends_with(0);
    assert!(outcome.stdout.contains("0 missing, 0 doubled, 0 too many"), "{}", outcome.stdout);
}

#[test]
fn a_tenant_and_a_receiver_on_this_machine_are_reached_behind_any_proxy() {
    let dead = format!("http://{}", free_address());
    let world = World::new(SimulatorConfig { blobs: 3, records_per_blob: 4, ..SimulatorConfig::default() });
    let hec = Hec::start(Acks::Off);
    let token = world.path().join("hec-token");
    fs::write(&token, TOKEN).expect("a token");
    let sink = format!(
        "[sinks.soc]\ntype = \"splunk_hec\"\nurl = {:?}\ntoken = {{ file = {token:?} }}\nacknowledgement = \"accept\"\n",
        hec.url()
    );
    world.configure_sinks("", "", &sink);
    let by_environment = VARIABLES.map(|name| (name, &*dead));
    world.mailtrail_with(&["check"], &by_environment).ends_with(0);
    world.mailtrail_with(&["run", "--until-idle"], &by_environment).ends_with(0);
    assert_eq!(hec.count(), 12);

    // Nor behind one that is configured.
    world.edit(|text| format!("{text}[network]\nproxy = {dead:?}\n"));
    world.mailtrail(&["check"]).ends_with(0);
}
