//! `check` finds what is wrong, says what to do, and collects nothing.

use std::fs;

use schemas::ContentType;
use serde_json::Value;
use simulator::{RequestKind, SimulatorConfig, TenantConfig};

use crate::support::{World, terminate};

fn world(change: impl FnOnce(&mut SimulatorConfig)) -> World {
    let mut config = SimulatorConfig { blobs: 2, records_per_blob: 3, ..SimulatorConfig::default() };
    change(&mut config);
    let world = World::new(config);
    world.configure();
    world
}

#[test]
fn everything_works_and_nothing_is_collected() {
    let world = world(|_| {});
    let outcome = world.mailtrail(&["check"]).ends_with(0);
    assert!(outcome.stdout.contains("ActivityFeed.Read"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("there is no subscription yet"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("everything works"), "{}", outcome.stdout);
    assert_eq!(world.simulator().stats().requests_of(RequestKind::StartSubscription), 0);
    assert!(!world.path().join("state").exists(), "no ledger is made");
    assert!(world.arrived().lines().is_empty());
    world.collect();
    let outcome = world.mailtrail(&["check"]).ends_with(0);
    assert!(outcome.stdout.contains("the subscription is enabled"), "{}", outcome.stdout);
}

#[test]
fn a_wrong_secret_is_named_and_never_shown() {
    let world = world(|_| {});
    fs::write(world.path().join("secret-0"), "an-old-secret").expect("a secret");
    let outcome = world.mailtrail(&["--log-level", "trace", "check"]).ends_with(1);
    assert!(outcome.stdout.contains("AADSTS7000215"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("Certificates & secrets"), "it says where to look: {}", outcome.stdout);
    assert!(!outcome.text().contains("an-old-secret"), "the secret is shown");
    fs::remove_file(world.path().join("secret-0")).expect("it is there");
    let outcome = world.mailtrail(&["check", "--offline"]).ends_with(1);
    assert!(outcome.stdout.contains("secret-0"), "it names the file: {}", outcome.stdout);
    assert!(outcome.stdout.contains("FAIL  tenants."), "it names the key: {}", outcome.stdout);
}

#[test]
fn a_missing_permission_is_named() {
    let outcome = world(|config| {
        config.tenants = vec![TenantConfig { roles: Vec::new(), ..TenantConfig::default() }];
    })
    .mailtrail(&["check"])
    .ends_with(1);
    assert!(outcome.stdout.contains("lacks the permission ActivityFeed.Read,"), "{}", outcome.stdout);
    let outcome = world(|config| {
        config.content_types = vec![ContentType::Exchange, ContentType::DlpAll];
        config.tenants =
            vec![TenantConfig { roles: vec!["ActivityFeed.Read".to_owned()], ..TenantConfig::default() }];
    })
    .mailtrail(&["check"])
    .ends_with(1);
    assert!(outcome.stdout.contains("lacks the permission ActivityFeed.ReadDlp"), "{}", outcome.stdout);
}

/// Microsoft refuses what only `run` asks for: the start of a subscription.
#[test]
fn that_auditing_is_off_shows_when_a_subscription_is_started() {
    let world = world(|config| config.faults.set("auditing_off=on").expect("a fault"));
    let outcome = world.mailtrail(&["check"]).ends_with(0);
    assert!(outcome.stdout.contains("If auditing is off in the tenant"), "{}", outcome.stdout);
    let told = "turn auditing on: Microsoft Purview portal";
    assert!(!outcome.stdout.contains(told), "{}", outcome.stdout);
    let running = world.start(&["run"]);
    world.until("status says so", || world.mailtrail(&["status"]).stdout.contains(told));
    terminate(&running);
    let log = running.wait().ends_with(0).stderr;
    assert!(log.contains(told), "{log}");
    // Who had a subscription sees it before.
    let world = self::world(|config| config.subscribed = true);
    world.simulator().change_faults(|faults| faults.set("auditing_off=on")).expect("at any time");
    let outcome = world.mailtrail(&["check"]).ends_with(1);
    assert!(outcome.stdout.contains("auditing was turned off"), "{}", outcome.stdout);
}

/// Nothing fails without it, and what was detected is missing for good.
#[test]
fn a_permission_that_nothing_fails_without_is_told_while_it_runs() {
    let world = world(|config| {
        config.content_types = vec![ContentType::Exchange, ContentType::DlpAll];
        config.tenants =
            vec![TenantConfig { roles: vec!["ActivityFeed.Read".to_owned()], ..TenantConfig::default() }];
    });
    let running = world.start(&["run"]);
    let mut missing = Value::Null;
    world.until("status says so", || {
        let status = world.mailtrail(&["status", "--json"]);
        let status: Value = serde_json::from_str(&status.stdout).unwrap_or_default();
        let sources = status["running"]["sources"].as_array().cloned().unwrap_or_default();
        missing = sources.into_iter().find(|of| of["state"] == "permission missing").unwrap_or_default();
        missing.is_object()
    });
    let what = "lacks the permission ActivityFeed.ReadDlp";
    let click = "Application permissions > ActivityFeed.ReadDlp, then Grant admin consent";
    assert_eq!(missing["name"], "tenant0");
    let error = missing["error"].as_str().expect("an error");
    assert!(error.contains(what) && error.contains(click), "{error}");
    world.until("everything arrived", || world.arrived().len() == 12);
    let shown = world.mailtrail(&["status"]).ends_with(1).stdout;
    assert!(shown.contains(what) && shown.contains(click), "{shown}");
    terminate(&running);
    let log = running.wait().ends_with(0).stderr;
    assert_eq!(log.matches(what).count(), 1, "{log}");
    assert!(log.contains(click), "{log}");
}

#[test]
fn a_sink_that_cannot_be_delivered_to_is_named() {
    let world = world(|_| {});
    fs::create_dir_all(world.path().join("out")).expect("a directory");
    fs::write(world.out("files"), "a file where the directory should be").expect("a file");
    let outcome = world.mailtrail(&["check"]).ends_with(1);
    assert!(outcome.stdout.contains("FAIL  sink files"), "{}", outcome.stdout);
}

#[test]
fn a_state_directory_that_cannot_be_used_is_named() {
    let world = world(|_| {});
    fs::write(world.path().join("state"), "a file where the directory should be").expect("a file");
    let outcome = world.mailtrail(&["check", "--offline"]).ends_with(1);
    assert!(outcome.stdout.contains("FAIL  state"), "{}", outcome.stdout);
}

#[test]
fn a_wrong_configuration_names_line_key_and_the_nearest_key() {
    let world = world(|_| {});
    let path = world.path().join("mailtrail.toml");
    let text = fs::read_to_string(&path).expect("it is there");
    fs::write(&path, text.replace("view =", "veiw =")).expect("written");
    let outcome = world.mailtrail(&["check"]).ends_with(2);
    assert!(outcome.stderr.contains("sinks.files.veiw"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("view"), "{}", outcome.stderr);
}

#[test]
fn a_ledger_of_an_older_version_is_noted_and_brought_up_to_date_by_the_next_run() {
    let world = world(|_| {});
    let state = world.path().join("state");
    fs::create_dir(&state).expect("a directory");
    let ledger = rusqlite::Connection::open(state.join("ledger.sqlite")).expect("a database");
    ledger.execute_batch(include_str!("../../ledger/src/schema.sql")).expect("the first format");
    ledger.execute_batch("PRAGMA application_id = 0x6d747261; PRAGMA user_version = 1;").expect("a ledger");
    drop(ledger);
    let outcome = world.mailtrail(&["check"]).ends_with(0);
    assert!(outcome.stdout.contains("note  state: "), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("brings it up to date"), "{}", outcome.stdout);
    world.collect();
    world.is_complete();
    let outcome = world.mailtrail(&["check"]).ends_with(0);
    assert!(outcome.stdout.contains("ok    state: "), "{}", outcome.stdout);
}
