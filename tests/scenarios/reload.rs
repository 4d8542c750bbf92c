//! SIGHUP: the configuration changes while everything runs.

use std::{fs, net::SocketAddr};

use simulator::{Blob, SimulatorConfig, TenantConfig};

use crate::support::{Arrived, Binary, World, free_address, get, hang_up, sample, terminate};

fn small() -> SimulatorConfig {
    SimulatorConfig { blobs: 10, records_per_blob: 10, ..SimulatorConfig::default() }
}

/// Lines of `[http]`, to be put behind `[state]`.
fn served_at(address: SocketAddr) -> String {
    format!("[http]\nlisten = \"{address}\"\n")
}

/// The configuration is read again; waits until that is done.
fn reload(world: &World, running: &Binary, address: SocketAddr) {
    let applied = || sample(address, "mailtrail_config_applied_timestamp_seconds");
    let before = applied();
    hang_up(running);
    world.until("the configuration is applied", || applied().is_some() && applied() != before);
    assert_eq!(sample(address, "mailtrail_config_accepted"), Some(1.0));
}

fn delivered(address: SocketAddr, sink: &str) -> Option<f64> {
    sample(address, &format!("mailtrail_sink_records_total{{sink=\"{sink}\"}}"))
}

fn add_record(world: &World, number: u32) {
    let record = format!(
        r#"{{"Id":"00000000-0000-4000-8000-{number:012}","CreationTime":"2026-03-02T09:00:00","Operation":"Update","UserId":"a@b.c"}}"#
    );
    let created = world.simulator().now() - chrono::TimeDelta::minutes(1);
    let blob = Blob::from_records(schemas::ContentType::Exchange, created, &[record.as_bytes()]);
    assert!(world.simulator().add_blob(blob).is_some());
}

#[test]
fn sinks_come_change_and_go_while_the_others_run_on() {
    let world = World::new(small());
    let address = free_address();
    let (http, poll) = (served_at(address), "poll_interval = \"1s\"\n");
    let raw = "view = \"raw\"";
    world.configure_all(&http, poll, &[("files", raw), ("gone", raw), ("other", raw)]);
    let running = world.start(&["run"]);
    world.until("everything is delivered", || {
        ["files", "gone", "other"].iter().all(|sink| delivered(address, sink) == Some(100.0))
    });
    let passes =
        || sample(address, "mailtrail_feed_passes_total{tenant=\"tenant0\",content_type=\"Audit.Exchange\"}");
    let passed = passes().expect("it lists");
    assert!(passed >= 1.0);

    world.configure_all(&http, poll, &[("files", raw), ("other", ""), ("late", "start_from = \"now\"")]);
    reload(&world, &running, address);
    assert_eq!(delivered(address, "files"), Some(100.0), "a sink that is as before was not started anew");
    assert!(passes() >= Some(passed), "nor was the tenant");
    assert_eq!(delivered(address, "other"), Some(0.0), "one that changed was");
    assert_eq!(delivered(address, "gone"), None);
    assert_eq!(sample(address, "mailtrail_sink_configured{sink=\"gone\"}"), Some(0.0));

    add_record(&world, 1);
    world.until("the new record is everywhere", || {
        ["files", "other", "late"].map(|sink| delivered(address, sink)) == [Some(101.0), Some(1.0), Some(1.0)]
    });
    terminate(&running);
    let log = running.wait().ends_with(0).stderr;
    assert!(log.contains("sink late added, sink other changed, sink gone removed"), "{log}");
    assert_eq!(Arrived::read(&world.out("gone")).len(), 100);
    assert_eq!(Arrived::read(&world.out("late")).len(), 1);
    let other = Arrived::read(&world.out("other"));
    assert_eq!(other.len(), 101, "what it had is neither lost nor repeated");
    assert!(other.events().last().expect("a record").get("class_uid").is_some(), "and it has its new view");
    world.is_complete();
}

#[test]
fn a_sink_that_is_gone_keeps_what_is_pending_until_it_is_forgotten() {
    let world = World::new(small());
    let address = free_address();
    let http = served_at(address);
    world.configure_all(&http, "", &[("files", "view = \"raw\""), ("other", "")]);
    // The other sink's live file is a stranger's: it is never appended to, and the sink halts.
    fs::create_dir_all(world.out("other")).expect("a directory");
    fs::write(world.out("other").join("mailtrail.ndjson"), "somebody else's\n").expect("a file");
    let running = world.start(&["run"]);
    world.until("all but the halted sink have everything", || {
        delivered(address, "files") == Some(100.0)
            && sample(address, "mailtrail_sink_lag_records{sink=\"other\"}") == Some(100.0)
            && sample(address, "mailtrail_sink_state{sink=\"other\",state=\"halted\"}") == Some(1.0)
    });
    let refused = world.mailtrail(&["sinks", "forget", "other"]).ends_with(1);
    assert!(refused.stderr.contains("configured"), "{}", refused.stderr);

    world.configure_all(&http, "", &[("files", "view = \"raw\"")]);
    reload(&world, &running, address);
    world.until("the figures show it", || {
        sample(address, "mailtrail_sink_configured{sink=\"other\"}") == Some(0.0)
    });
    assert_eq!(
        sample(address, "mailtrail_sink_lag_blobs{sink=\"other\"}"),
        Some(10.0),
        "nothing is given up"
    );
    assert!(sample(address, "mailtrail_spool_wanted_bytes") > Some(0.0));
    world.mailtrail(&["sinks", "forget", "other"]).ends_with(0);
    world.until("the spool lets go of it", || {
        sample(address, "mailtrail_spool_wanted_bytes") == Some(0.0)
            && sample(address, "mailtrail_sink_configured{sink=\"other\"}").is_none()
    });
    terminate(&running);
    let log = running.wait().ends_with(0).stderr;
    assert!(log.contains("mailtrail sinks forget other"), "it says what to do: {log}");
    world.is_complete();
}

#[test]
fn a_sink_that_comes_back_goes_on_where_it_was() {
    let world = World::new(SimulatorConfig { blobs: 40, records_per_blob: 10, ..SimulatorConfig::default() });
    let address = free_address();
    let http = served_at(address);
    let slow = ("slow", "view = \"raw\"\nevents_per_second = 40");
    world.configure_all(&http, "", &[("files", "view = \"raw\""), slow]);
    let running = world.start(&["run"]);
    world.until("the slow sink has begun", || {
        delivered(address, "files") == Some(400.0) && delivered(address, "slow") > Some(0.0)
    });
    world.configure_all(&http, "", &[("files", "view = \"raw\"")]);
    reload(&world, &running, address);
    assert_eq!(delivered(address, "slow"), None);
    world.configure_all(&http, "", &[("files", "view = \"raw\""), ("slow", "view = \"raw\"")]);
    reload(&world, &running, address);
    world.until("it has everything", || {
        sample(address, "mailtrail_sink_lag_blobs{sink=\"slow\"}") == Some(0.0)
    });
    terminate(&running);
    running.wait().ends_with(0);
    Arrived::read(&world.out("slow")).is_exactly(&world.simulator().truth());
    world.is_complete();
}

#[test]
fn a_configuration_that_is_wrong_is_refused_as_a_whole() {
    let world = World::new(small());
    let address = free_address();
    let (http, poll) = (served_at(address), "poll_interval = \"1s\"\n");
    let right = |world: &World| {
        world.configure_all(&http, poll, &[("files", "view = \"raw\"")]);
    };
    right(&world);
    let running = world.start(&["run"]);
    world.until("everything is delivered", || delivered(address, "files") == Some(100.0));
    assert_eq!(get(address, "/readyz").expect("an answer").0, 200);

    // Wrong in two places, and with a sink that would be fine.
    world.configure_all(&http, poll, &[("files", "view = \"row\""), ("new", ""), ("third", "keep = 0")]);
    hang_up(&running);
    world.until("it is refused", || sample(address, "mailtrail_config_accepted") == Some(0.0));
    let status = world.mailtrail(&["status", "--config", &spare(&world, right)]).ends_with(1);
    for problem in ["'sinks.files.view' is \"row\"", "'sinks.third.keep'"] {
        assert!(status.stdout.contains(problem), "{}", status.stdout);
    }
    let status = world.mailtrail(&["status"]).ends_with(2).stderr;
    assert!(status.contains("'sinks.third.keep'") && status.contains("goes on with"), "{status}");
    world.mailtrail(&["status", "--alive"]).ends_with(0);
    let (_, ready) = get(address, "/readyz").expect("an answer");
    assert!(ready.contains("sinks.third.keep"), "{ready}");
    assert_eq!(delivered(address, "new"), None, "nothing of it is applied");
    add_record(&world, 1);
    world.until("the old one goes on", || delivered(address, "files") == Some(101.0));

    // What is settled when the ledger is opened cannot change, and neither does anything else then.
    let moved = fs::read_to_string(world.path().join("mailtrail.toml")).expect("a configuration");
    right(&world);
    let text = fs::read_to_string(world.path().join("mailtrail.toml")).expect("a configuration");
    assert_ne!(moved, text);
    let elsewhere = text.replacen("/state\"", "/elsewhere\"\nspool_max_bytes = \"1GiB\"", 1);
    fs::write(world.path().join("mailtrail.toml"), elsewhere).expect("a configuration");
    hang_up(&running);
    world.until("it is refused for that", || {
        get(address, "/readyz")
            .is_some_and(|(_, page)| page.contains("'state.directory' cannot change while"))
    });
    assert!(!world.path().join("elsewhere").exists());

    right(&world);
    reload(&world, &running, address);
    terminate(&running);
    let log = running.wait().ends_with(0).stderr;
    for loud in
        ["is refused", "'sinks.third.keep'", "'state.spool_max_bytes' cannot change", "nothing changed"]
    {
        assert!(log.contains(loud), "{loud} is not in {log}");
    }
    world.is_complete();
}

/// A configuration that is right, for the commands of an operator while the one in place is wrong.
fn spare(world: &World, right: impl Fn(&World)) -> String {
    let (place, spare) = (world.path().join("mailtrail.toml"), world.path().join("spare.toml"));
    let wrong = fs::read(&place).expect("a configuration");
    right(world);
    fs::rename(&place, &spare).expect("moved");
    fs::write(&place, wrong).expect("a configuration");
    spare.display().to_string()
}

#[test]
fn tenants_come_change_and_go_and_what_was_fetched_is_delivered() {
    let mut config = small();
    config.tenants = (0..3).map(TenantConfig::numbered).collect();
    let world = World::new(config);
    let address = free_address();
    let http = served_at(address);
    let configure = |tenant: &str, pace: &str, gone: &[&str]| {
        let slow = format!("view = \"raw\"\n{pace}");
        world.configure_all(&http, tenant, &[("files", "view = \"raw\""), ("slow", &slow)]);
        world.edit(|text| gone.iter().fold(text, |text, name| without_section(&text, name)));
    };
    let fetched = |tenant: &str| {
        sample(address, &format!("mailtrail_tenant_blobs_fetched_total{{tenant=\"{tenant}\"}}"))
    };
    let slowly = "events_per_second = 1";
    configure("", slowly, &["tenants.tenant1", "tenants.tenant2"]);
    let running = world.start(&["run"]);
    world.until("the first tenant is fetched", || delivered(address, "files") == Some(100.0));

    configure("", slowly, &["tenants.tenant2"]);
    reload(&world, &running, address);
    world.until("the second is too", || delivered(address, "files") == Some(200.0));
    assert_eq!(fetched("tenant0"), Some(10.0), "the first was not started anew");

    // The first goes while the slow sink still has most of it to get; the second changes; the third comes.
    assert!(sample(address, "mailtrail_sink_lag_records{sink=\"slow\"}") > Some(0.0));
    configure("poll_interval = \"2s\"\n", "", &["tenants.tenant0"]);
    reload(&world, &running, address);
    assert_eq!(fetched("tenant0"), None);
    world.until("the third is delivered", || delivered(address, "files") == Some(300.0));
    assert_eq!(fetched("tenant1"), Some(0.0), "one that changed starts anew, and knows what it has");
    world.until("the slow sink has everything", || {
        sample(address, "mailtrail_sink_lag_records{sink=\"slow\"}") == Some(0.0)
    });
    terminate(&running);
    let log = running.wait().ends_with(0).stderr;
    assert!(log.contains("tenant tenant2 added, tenant tenant1 changed, tenant tenant0 removed"), "{log}");
    Arrived::read(&world.out("slow")).is_exactly(&world.simulator().truth());
    world.is_complete();
}

/// A topic by tenant: whether it is there, or may be written to, is asked for all topics that a sink knows, so it has to
/// know that of a tenant that comes. Nobody answers here, which is no reason not to.
#[test]
fn a_sink_with_a_topic_by_tenant_is_made_anew_when_a_tenant_comes() {
    let mut config = small();
    config.tenants = (0..2).map(TenantConfig::numbered).collect();
    let world = World::new(config);
    let address = free_address();
    let kafka = |name: &str, topic: &str| {
        format!(
            "[sinks.{name}]\ntype = \"kafka\"\nbootstrap_servers = [\"{}\"]\ntopic = \"{topic}\"\n",
            free_address()
        )
    };
    let sinks = kafka("apart", "audit.{tenant}") + &kafka("together", "audit");
    let configure = || world.configure_sinks(&served_at(address), "", &sinks);
    configure();
    world.edit(|text| without_section(&text, "tenants.tenant1"));
    let running = world.start(&["run"]);
    world.until("the first tenant is fetched", || {
        sample(address, "mailtrail_tenant_blobs_fetched_total{tenant=\"tenant0\"}") == Some(10.0)
    });
    configure();
    reload(&world, &running, address);
    terminate(&running);
    let log = running.wait().ends_with(0).stderr;
    assert!(log.contains("is applied: sink apart changed, tenant tenant1 added"), "{log}");
}

/// The text without one section.
fn without_section(text: &str, name: &str) -> String {
    let start = text.find(&format!("[{name}]")).unwrap_or_else(|| panic!("no [{name}] in {text}"));
    let end = text[start + 1..].find("\n[").map_or(text.len(), |at| start + 1 + at + 1);
    format!("{}{}", &text[..start], &text[end..])
}

#[test]
fn metrics_move_to_another_address_and_a_taken_one_is_refused() {
    let world = World::new(small());
    let (first, second, taken) = (free_address(), free_address(), free_address());
    let configure = |address| {
        world.configure_all(&served_at(address), "", &[("files", "view = \"raw\"")]);
    };
    configure(first);
    let running = world.start(&["run"]);
    world.until("it is served", || get(first, "/healthz").is_some_and(|(status, _)| status == 200));
    let _owner = std::net::TcpListener::bind(taken).expect("nobody has it");
    configure(taken);
    hang_up(&running);
    world.until("it is refused", || sample(first, "mailtrail_config_accepted") == Some(0.0));
    configure(second);
    hang_up(&running);
    world.until("it has moved", || get(second, "/healthz").is_some_and(|(status, _)| status == 200));
    world.until("the first is free", || get(first, "/healthz").is_none());
    assert_eq!(sample(second, "mailtrail_config_accepted"), Some(1.0));
    terminate(&running);
    running.wait().ends_with(0);
}

#[test]
fn a_run_until_idle_takes_a_new_configuration_and_still_ends() {
    let world = World::new(SimulatorConfig { blobs: 40, records_per_blob: 10, ..SimulatorConfig::default() });
    let address = free_address();
    let slow = ("slow", "view = \"raw\"\nevents_per_second = 5");
    world.configure_all(&served_at(address), "", &[("files", "view = \"raw\""), slow]);
    let running = world.start(&["run", "--until-idle"]);
    world.until("it is at work", || delivered(address, "slow") > Some(0.0));
    world.configure_all(
        &served_at(address),
        "",
        &[("files", "view = \"raw\""), ("slow", "view = \"raw\""), ("late", "")],
    );
    reload(&world, &running, address);
    let outcome = running.wait().ends_with(0);
    assert!(outcome.stderr.contains("sink late added"), "{}", outcome.stderr);
    Arrived::read(&world.out("slow")).is_exactly(&world.simulator().truth());
    world.is_complete();
}
