//! Running again, running twice, and running for several tenants.

use std::{fs, io::Read, os::unix::net::UnixStream, time::Duration};

use schemas::ContentType;
use simulator::{Faults, RequestKind, SimulatorConfig, TenantConfig};

use crate::support::{Arrived, Binary, World, files, interrupt, terminate};

fn small() -> SimulatorConfig {
    SimulatorConfig { blobs: 10, records_per_blob: 10, ..SimulatorConfig::default() }
}

#[test]
fn a_second_run_fetches_nothing_and_writes_nothing() {
    let world = World::new(small());
    world.configure().collect();
    world.is_complete();
    let fetched = world.simulator().stats().requests_of(RequestKind::FetchBlob);
    let before: Vec<_> =
        files(&world.out("files")).iter().map(|file| fs::read(file).expect("a file")).collect();
    world.collect();
    assert_eq!(world.simulator().stats().requests_of(RequestKind::FetchBlob), fetched);
    let after: Vec<_> =
        files(&world.out("files")).iter().map(|file| fs::read(file).expect("a file")).collect();
    assert!(before == after);
    world.is_complete();
}

#[test]
fn a_second_process_is_refused() {
    let world = World::new(small());
    world.configure();
    let running = world.start(&["run"]);
    world.until("it runs", || world.path().join("state/control.sock").exists());
    let refused = world.mailtrail(&["run", "--until-idle"]).ends_with(1);
    assert!(refused.stderr.contains(&running.pid().to_string()), "it names the other: {}", refused.stderr);
    // Commands that read work beside it.
    world.mailtrail(&["status"]).ends_with(0);
    terminate(&running);
    running.wait().ends_with(0);
}

#[test]
fn clients_of_the_control_socket_that_say_nothing_hold_nobody_up() {
    let world = World::new(small());
    world.configure();
    let running = world.start(&["run"]);
    let socket = world.path().join("state/control.sock");
    world.until("it runs", || UnixStream::connect(&socket).is_ok());
    let connect = || UnixStream::connect(&socket).expect("it listens");
    // One more would have to wait for all of them, were they not cut off; a few are answered beside.
    let mut silent: Vec<_> = (0..3).map(|_| connect()).collect();
    world.mailtrail(&["dead-letters", "retry", "--all"]).ends_with(0);
    silent.extend((0..30).map(|_| connect()));
    world.mailtrail(&["dead-letters", "retry", "--all"]).ends_with(0);
    for stream in &mut silent {
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        assert_eq!(stream.read(&mut [0; 8]).expect("it is cut off"), 0);
    }
    terminate(&running);
    running.wait().ends_with(0);
}

#[test]
fn sigterm_leaves_whole_lines_and_the_next_run_goes_on() {
    leaves_whole_lines(terminate);
}

#[test]
fn sigint_leaves_whole_lines_and_the_next_run_goes_on() {
    leaves_whole_lines(interrupt);
}

fn leaves_whole_lines(signal: fn(&Binary)) {
    let world =
        World::new(SimulatorConfig { blobs: 300, records_per_blob: 50, ..SimulatorConfig::default() });
    world.configure();
    let running = world.start(&["run"]);
    world.until("something arrived", || {
        files(&world.out("files")).iter().any(|file| file.metadata().is_ok_and(|m| m.len() > 0))
    });
    signal(&running);
    let log = running.wait().ends_with(0).stderr;
    assert!(log.contains("what is under way is finished first"), "{log}");
    let part = Arrived::read(&world.out("files")).len();
    assert!(part > 0);
    world.collect();
    world.is_complete();
}

#[test]
fn one_tenants_failure_does_not_touch_the_others() {
    let mut config = small();
    config.tenants = (0..3).map(TenantConfig::numbered).collect();
    let world = World::new(config);
    world.configure();
    // The second tenant's secret is wrong.
    fs::write(world.path().join("secret-1"), "wrong").expect("a secret");
    let outcome = world.mailtrail(&["run", "--until-idle"]).ends_with(1);
    assert!(outcome.text().contains("tenant1"), "it names the tenant: {}", outcome.text());
    assert!(!outcome.text().contains("wrong\n"), "and never the secret");
    let arrived = world.arrived();
    assert_eq!(arrived.len(), 200, "two of three tenants are complete");
    // Put right, the rest comes.
    world.configure().collect();
    world.is_complete();
}

#[test]
fn one_content_types_failure_does_not_touch_the_others() {
    let mut faults = Faults::default();
    faults.set("permission_denied=DLP.All").expect("a fault");
    let config = SimulatorConfig {
        content_types: vec![ContentType::Exchange, ContentType::General, ContentType::DlpAll],
        faults,
        ..small()
    };
    let world = World::new(config);
    let outcome = world.configure().mailtrail(&["run", "--until-idle"]).ends_with(1);
    assert!(outcome.text().contains("ActivityFeed.ReadDlp"), "it says what to click: {}", outcome.text());
    assert_eq!(world.arrived().len(), 200, "two of three content types are complete");
    let report = world.mailtrail(&["reconcile", "--by", "feed"]).ends_with(0);
    assert!(!report.stdout.contains("DLP.All"), "nothing of it was listed: {}", report.stdout);
    world
        .simulator()
        .change_faults(|faults| {
            *faults = Faults::default();
            Ok(())
        })
        .expect("at any time");
    world.collect();
    world.is_complete();
}

#[test]
fn several_content_types_and_sinks_each_at_its_own_pace() {
    let config = SimulatorConfig {
        content_types: ContentType::ALL.to_vec(),
        quirks: true,
        records_per_blob: 30,
        ..SimulatorConfig::default()
    };
    let world = World::new(config);
    world.configure_with(
        "",
        &[
            ("files", "view = \"raw\"\nrotate_bytes = \"64KiB\"\ncompression = \"gzip\""),
            ("events", "events_per_second = 4000\ncompression = \"zstd\"\nrotate_bytes = \"100KiB\""),
            (
                "mail",
                "[sinks.mail.filter]\ncontent_types = [\"Audit.Exchange\"]\noperations = [\"MailItems*\"]",
            ),
        ],
    );
    world.collect();
    let expected = world.simulator().truth().count() as usize;
    assert_eq!(world.arrived().len(), expected);
    assert_eq!(Arrived::read(&world.out("events")).len(), expected);
    let mail = Arrived::read(&world.out("mail"));
    assert!(mail.len() > 0 && mail.len() < expected);
    assert!(
        mail.events()
            .all(|event| event["api"]["operation"].as_str().is_some_and(|o| o.starts_with("MailItems")))
    );
    world.mailtrail(&["reconcile"]).ends_with(0);
}

#[test]
fn a_sink_that_is_taken_out_of_the_configuration_must_be_forgotten() {
    let world = World::new(small());
    world.configure_with("", &[("files", "view = \"raw\""), ("other", "")]);
    // The other sink's live file is a stranger's: it is never appended to, and the sink halts.
    fs::create_dir_all(world.out("other")).expect("a directory");
    fs::write(world.out("other").join("mailtrail.ndjson"), "somebody else's\n").expect("a file");
    let outcome = world.mailtrail(&["run", "--until-idle"]).ends_with(1);
    assert!(outcome.text().contains("other"), "{}", outcome.text());
    assert_eq!(fs::read(world.out("other").join("mailtrail.ndjson")).expect("a file"), b"somebody else's\n");
    assert_eq!(world.arrived().len(), 100, "its neighbour has everything");

    world.configure();
    let refused = world.mailtrail(&["run", "--until-idle"]);
    assert!(refused.stderr.contains("mailtrail sinks forget"), "{}", refused.stderr);
    assert_ne!(refused.status.code(), Some(0));
    world.mailtrail(&["sinks", "forget", "other"]).ends_with(0);
    world.collect();
    world.is_complete();
}

#[test]
fn a_full_spool_pauses_fetching_and_nothing_is_lost() {
    let world = World::new(SimulatorConfig {
        blobs: 120,
        records_per_blob: 200,
        record_bytes: Some(2000),
        ..SimulatorConfig::default()
    });
    world.configure_all(
        "spool_max_bytes = \"1MiB\"\n",
        "",
        &[("files", "view = \"raw\"\nevents_per_second = 8000")],
    );
    let outcome = world.collect();
    assert!(outcome.stderr.contains("fetching pauses"), "it says so: {}", outcome.stderr);
    world.is_complete();
}

#[test]
fn a_steady_flow_arrives_while_it_runs() {
    let config = SimulatorConfig {
        rate: 200.0,
        flow_blobs: Some(20),
        records_per_blob: 40,
        blobs: 2,
        ..SimulatorConfig::default()
    };
    let world = World::new(config);
    world.configure_with("poll_interval = \"1s\"\n", &[("files", "view = \"raw\"")]);
    let running = world.start(&["run"]);
    world.until("the flow has ended", || world.simulator().truth().blobs().count() == 22);
    std::thread::sleep(Duration::from_secs(3));
    terminate(&running);
    running.wait().ends_with(0);
    world.collect();
    world.is_complete();
}

#[test]
fn a_live_file_that_was_taken_away_is_started_anew_once() {
    let world = World::new(small());
    world.configure().collect();
    fs::rename(world.out("files").join("mailtrail.ndjson"), world.path().join("taken.ndjson"))
        .expect("moved");
    // Nothing is due: the new file stays empty, and is the live file from now on.
    world.collect();
    world.collect();
    assert_eq!(world.arrived().len(), 0);
    let blob = simulator::Blob::from_records(
        ContentType::Exchange,
        world.simulator().now() - chrono::TimeDelta::minutes(1),
        &[br#"{"Id":"00000000-0000-4000-8000-000000000001","Operation":"Update"}"#],
    );
    assert!(world.simulator().add_blob(blob).is_some());
    world.collect();
    assert_eq!(world.arrived().len(), 1);
}

fn given(bodies: &[&str]) -> SimulatorConfig {
    let created = chrono::Utc::now() - chrono::TimeDelta::hours(2);
    let blob = |body: &&str| simulator::Blob::from_body(ContentType::Exchange, created, body.to_string());
    SimulatorConfig { blobs: 0, given: bodies.iter().map(blob).collect(), ..SimulatorConfig::default() }
}

#[test]
fn what_cannot_be_rendered_is_a_dead_letter_with_its_bytes() {
    let world = World::new(given(&[r#"[{"Operation":"Send"}, 17, "a text", {"Operation":"Update"}]"#]));
    world.configure().collect();
    assert_eq!(world.arrived().len(), 2, "its neighbours arrive");
    world.mailtrail(&["reconcile"]).ends_with(1);
    let list = world.mailtrail(&["dead-letters", "list", "--json"]).ends_with(0);
    let letters: serde_json::Value = serde_json::from_str(&list.stdout).expect("JSON");
    let letters = letters.as_array().expect("a list");
    assert_eq!(letters.len(), 2, "{letters:?}");
    let id = letters[1]["id"].to_string();
    let shown = world.mailtrail(&["dead-letters", "show", &id]).ends_with(0);
    assert!(shown.stdout.contains("a text"), "{}", shown.stdout);
    world.mailtrail(&["dead-letters", "show", "4711"]).ends_with(1);
    world.mailtrail(&["dead-letters", "export", "--out", "letters.ndjson"]).ends_with(0);
    let exported = fs::read_to_string(world.path().join("letters.ndjson")).expect("a file");
    assert_eq!(exported.lines().count(), 2, "{exported}");

    // A retry makes new work of them, which ends in the same way, and says so again.
    let retried = world.mailtrail(&["dead-letters", "retry", "--all"]).ends_with(0);
    assert!(retried.stdout.contains("2 records"), "{}", retried.stdout);
    world.collect();
    assert_eq!(world.arrived().len(), 2, "nothing comes twice");
    let report = world.mailtrail(&["reconcile"]).ends_with(1);
    let ids: Vec<_> = report.stdout.split_whitespace().filter(|word| word.starts_with("dead-")).collect();
    let arguments = [&["reconcile", "acknowledge"], ids.as_slice(), &["--reason", "test data"]].concat();
    world.mailtrail(&arguments).ends_with(0);
    world.mailtrail(&["reconcile"]).ends_with(0);
}
