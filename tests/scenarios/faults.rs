//! Whatever the service does wrong, every record arrives exactly once.

use std::time::Duration;

use schemas::ContentType;
use serde_json::Value;
use simulator::{FaultKind, Faults, RequestKind, SimulatorConfig};

use crate::support::World;

fn config(faults: &[&str]) -> SimulatorConfig {
    let mut set = Faults::default();
    for fault in faults {
        set.set(fault).expect("a fault");
    }
    SimulatorConfig {
        blobs: 12,
        records_per_blob: 15,
        page_size: 5,
        backlog_span: Duration::from_secs(20 * 3600),
        faults: set,
        ..SimulatorConfig::default()
    }
}

/// Collects under these faults and judges; gives back how often each of them was suffered.
fn complete_under(faults: &[&str]) -> World {
    let world = World::new(config(faults));
    world.configure().collect();
    world.is_complete();
    let stats = world.simulator().stats();
    for fault in faults {
        let name = fault.split('=').next().expect("a name");
        // What is built into the blobs does not happen at one moment.
        let built_in = ["same_created", "duplicate_records"].contains(&name);
        let counted = !built_in && FaultKind::ALL.iter().any(|kind| kind.name() == name);
        assert!(
            !counted || stats.faults.get(name).is_some_and(|times| *times > 0),
            "{name} never happened: {stats:?}"
        );
    }
    assert_eq!(stats.tokens_leaked, 0, "no other host ever sees a token");
    assert_eq!(stats.without_publisher_identifier, 0);
    assert!(stats.violations.is_empty(), "{:?}", stats.violations);
    world
}

#[test]
fn nothing_wrong() {
    complete_under(&[]);
}

#[test]
fn throttling_in_every_form() {
    complete_under(&["throttle403=1/4"]);
    complete_under(&["throttle429=1/4@1s"]);
    complete_under(&["throttle200=1/4"]);
}

#[test]
fn errors_of_the_service() {
    complete_under(&["server_error=1/3"]);
    complete_under(&["unavailable=1/3"]);
    complete_under(&["internal_error=1/3"]);
    complete_under(&["request_timeout=1/3"]);
    complete_under(&["token_error=1"]);
}

/// Longer than failures may be all that is left.
#[test]
fn a_wait_that_whoever_gives_tokens_asked_for_is_no_failure() {
    complete_under(&["token_error=1/1@33s"]);
}

#[test]
fn bodies_that_are_cut() {
    complete_under(&["cut_body=1/3"]);
    complete_under(&["cut_chunked=1/3"]);
    complete_under(&["cut200=1/3"]);
    complete_under(&["cut_gzip=1/3"]);
}

#[test]
fn answers_that_are_no_answers() {
    complete_under(&["error_in_200=1/3"]);
    complete_under(&["empty_200=1/3"]);
    complete_under(&["html_200=1/3"]);
    complete_under(&["bare_404=1/3"]);
    complete_under(&["wrong_blob_id=1/12"]);
    complete_under(&["blob_next_page=1/3"]);
}

#[test]
fn slow_answers() {
    complete_under(&["slow_first_byte=1/4@700ms"]);
}

/// Longer than failures may be all that is left: a feed that fails says nothing of a body that is still coming.
#[test]
fn a_slow_body_is_waited_for_beside_a_feed_that_fails() {
    let mut simulated = config(&["permission_denied=DLP.All", "slow_body=1@34s"]);
    simulated.content_types = vec![ContentType::Exchange, ContentType::DlpAll];
    simulated.blobs = 1;
    let world = World::new(simulated);
    let outcome = world.configure().mailtrail(&["run", "--until-idle"]).ends_with(1);
    assert!(outcome.stderr.contains("DLP.All: AF10001"), "only the other feed is left: {}", outcome.stderr);
    assert!(!outcome.stderr.contains("cannot be fetched"), "{}", outcome.stderr);
    assert_eq!(world.arrived().len(), 15);
    world.mailtrail(&["reconcile"]).ends_with(0);
}

#[test]
fn other_hosts() {
    complete_under(&["redirect=1/4"]);
    complete_under(&["next_page_other_host=1/2"]);
    complete_under(&["broken_content_uri=1"]);
}

#[test]
fn odd_but_right_bodies() {
    complete_under(&["bom=1/2"]);
    complete_under(&["pretty_printed=1/2"]);
}

#[test]
fn odd_listings() {
    complete_under(&["same_created=1"]);
    complete_under(&["duplicate_listing=1/2"]);
    complete_under(&["stale_next_page=1/2"]);
    complete_under(&["lost_publisher_id=off"]);
}

/// What is asked for in one piece has no more than a day.
#[test]
fn a_service_that_cuts_windows_in_silence_cuts_none() {
    let mut simulated = config(&["partial_listing=on"]);
    simulated.backlog_span = Duration::from_secs(5 * 24 * 3600);
    let world = World::new(simulated);
    world.configure().collect();
    world.is_complete();
}

/// What is wrong with one feed is told and stops no other; when it is over, nothing is missing.
#[test]
fn a_feed_that_cannot_be_read_for_a_while_is_made_up_for() {
    for (fault, told) in [("subscription_limbo", "AF20023"), ("permission_denied", "ActivityFeed.Read")] {
        let mut simulated = config(&[&format!("{fault}=Audit.General")]);
        simulated.content_types = vec![ContentType::Exchange, ContentType::General];
        simulated.subscribed = true;
        let world = World::new(simulated);
        world.configure();
        let running = world.start(&["run"]);
        world.until("it is told", || {
            let outcome = world.mailtrail(&["status", "--json"]);
            let status: Value = serde_json::from_str(&outcome.stdout).unwrap_or_default();
            let sources = status["running"]["sources"].as_array().cloned().unwrap_or_default();
            let of = |part: &str| {
                sources.iter().find(|source| source["part"] == part).cloned().unwrap_or_default()
            };
            of("Audit.Exchange")["state"] == "ok"
                && of("Audit.General")["error"].as_str().is_some_and(|error| error.contains(told))
        });
        crate::support::terminate(&running);
        running.wait().ends_with(0);
        assert!(world.simulator().stats().faults.contains_key(fault));
        let over = |faults: &mut Faults| {
            *faults = Faults::default();
            Ok(())
        };
        world.simulator().change_faults(over).expect("at any time");
        world.collect();
        world.is_complete();
    }
}

/// Cron, or a restart: the service asks for 15 minutes between two starts, and pauses the whole tenant otherwise.
#[test]
fn a_subscription_is_not_started_twice_in_a_quarter_of_an_hour_by_two_runs() {
    let mut simulated = config(&["subscription_limbo=Audit.General"]);
    simulated.content_types = vec![ContentType::General];
    let world = World::new(simulated);
    world.configure();
    for told in ["AF20023", "was started less than 15 minutes ago"] {
        let running = world.start(&["run"]);
        world.until("it is told", || {
            let outcome = world.mailtrail(&["status", "--json"]);
            let status: Value = serde_json::from_str(&outcome.stdout).unwrap_or_default();
            let error = &status["running"]["sources"][0]["error"];
            error.as_str().is_some_and(|error| error.contains(told))
        });
        crate::support::terminate(&running);
        running.wait().ends_with(0);
        let stats = world.simulator().stats();
        assert!(stats.violations.is_empty(), "{:?}", stats.violations);
        assert_eq!(stats.requests_of(RequestKind::StartSubscription), 1);
    }
}

/// A fault that the simulator learns must be tried with the real binary as well.
#[test]
fn no_fault_is_forgotten() {
    let sources =
        [include_str!("faults.rs"), include_str!("oversized.rs"), include_str!("damage.rs")].concat();
    for fault in simulator::FAULTS {
        let (set, named) = (format!("\"{}=", fault.name), format!("(\"{}\", ", fault.name));
        assert!(sources.contains(&set) || sources.contains(&named), "{} has no scenario", fault.name);
    }
}

#[test]
fn tokens_that_expire_or_are_refused() {
    complete_under(&["unauthorized=1/4"]);
    complete_under(&["token_expiry=2s", "slow_first_byte=1/3@900ms"]);
}

#[test]
fn clocks_that_differ() {
    complete_under(&["clock_skew=10m"]);
    complete_under(&["clock_skew=-10m"]);
}

/// A local clock that is off by more than 5 minutes is told once for each tenant, and one that is not is not.
#[test]
fn a_clock_that_is_far_off_is_told() {
    for (skew, told) in [("6m", 1), ("-6m", 1), ("4m", 0)] {
        let world = World::new(config(&[&format!("clock_skew={skew}")]));
        let log = world.configure().collect().stderr;
        let warnings = log.lines().filter(|line| line.contains("the local clock differs from the API's"));
        assert_eq!(warnings.filter(|line| line.contains("WARN")).count(), told, "{skew}: {log}");
    }
}

#[test]
fn repeated_records_are_dropped_once_for_all() {
    let world = complete_under(&["duplicate_records=1/2"]);
    let duplicates: u64 = world.simulator().truth().blobs().map(|blob| blob.duplicates).sum();
    assert!(duplicates > 0);
    let report = world.mailtrail(&["reconcile", "--json"]).ends_with(0);
    let report: serde_json::Value = serde_json::from_str(&report.stdout).expect("JSON");
    assert_eq!(report["total"]["duplicates"].as_u64(), Some(duplicates), "{report}");
}

#[test]
fn everything_at_once() {
    complete_under(&[
        "throttle429=1/9@1s",
        "server_error=1/7",
        "cut_body=1/5",
        "cut_gzip=1/6",
        "error_in_200=1/8",
        "bare_404=1/9",
        "duplicate_records=1/3",
        "same_created=1/3",
        "duplicate_listing=1/4",
        "pretty_printed=1/4",
        "broken_content_uri=1/2",
        "stale_next_page=1/4",
        "redirect=1/9",
    ]);
}

#[test]
fn blobs_that_are_gone_are_gaps_and_reconcile_says_so() {
    let world = World::new(config(&["gone=1/4", "expired=1/5"]));
    world.configure().collect();
    world.arrived().is_exactly(&world.simulator().truth());
    let lost = world.simulator().truth().blobs().filter(|blob| blob.records == 0).count();
    assert!(lost > 0);
    let report = world.mailtrail(&["reconcile"]).ends_with(1);
    assert_eq!(report.stdout.matches("gap-").count(), lost, "{}", report.stdout);

    // Each loss has to be acknowledged by somebody, with a reason, and is kept with both.
    for id in report.stdout.split_whitespace().filter(|word| word.starts_with("gap-")) {
        world.mailtrail(&["reconcile", "acknowledge", id, "--reason", "outage of the service"]).ends_with(0);
    }
    world.mailtrail(&["reconcile"]).ends_with(0);
    world.mailtrail(&["reconcile", "acknowledge", "gap-99999", "--reason", "typo"]).ends_with(1);
}

/// Microsoft keeps nothing for a disabled subscription: that all of the time can be listed afterwards proves nothing.
#[test]
fn a_subscription_that_was_disabled_leaves_a_hole_that_stays() {
    let mut simulated = config(&[]);
    simulated.subscribed = true;
    let world = World::new(simulated);
    world.configure().collect();
    world.mailtrail(&["reconcile"]).ends_with(0);
    world
        .simulator()
        .change_faults(|faults| faults.set("subscription_disabled=Audit.Exchange"))
        .expect("it can be set at any time");
    // The hole counts in whole seconds.
    std::thread::sleep(Duration::from_secs(2));
    world.collect();
    let report = world.mailtrail(&["reconcile"]).ends_with(1);
    assert!(
        report.stdout.contains("hole-1") && report.stdout.contains("subscription_disabled"),
        "{}",
        report.stdout
    );
    world.mailtrail(&["reconcile", "acknowledge", "hole-1", "--reason", "known"]).ends_with(0);
    world.mailtrail(&["reconcile"]).ends_with(0);
    world.is_complete();
}

/// Nobody can read out of the answer alone that auditing is off.
#[test]
fn a_tenant_whose_auditing_is_off_is_told_how_to_turn_it_on() {
    for (fault, advice) in [
        ("auditing_off", "Start recording user and admin activity"),
        ("tenant_misconfigured", "open a support request in the Microsoft 365 admin center"),
    ] {
        let mut simulated = config(&[&format!("{fault}=on")]);
        // It need not be started again afterwards, which would take 15 minutes.
        simulated.subscribed = true;
        let world = World::new(simulated);
        world.configure();
        let running = world.start(&["run"]);
        let mut told = Value::Null;
        world.until("it is halted", || {
            let outcome = world.mailtrail(&["status", "--json"]);
            let status: Value = serde_json::from_str(&outcome.stdout).unwrap_or_default();
            told = status["running"]["sources"][0].clone();
            told["state"] == "halted"
        });
        let error = told["error"].as_str().expect("an error");
        assert!(error.contains(advice), "{error}");
        crate::support::terminate(&running);
        let outcome = running.wait().ends_with(0);
        assert!(
            outcome.stderr.contains("listing halted") && outcome.stderr.contains(advice),
            "{}",
            outcome.stderr
        );
        assert!(world.simulator().stats().faults.contains_key(fault));

        world.simulator().change_faults(|faults| faults.set(&format!("{fault}=off"))).expect("at any time");
        world.collect();
        world.is_complete();
    }
}

#[test]
fn blobs_that_are_listed_late_are_found() {
    let mut simulated = config(&["late=1/3@6s"]);
    simulated.backlog_span = Duration::from_secs(1800);
    let world = World::new(simulated);
    world.configure_with("poll_interval = \"1s\"\n", &[("files", "view = \"raw\"")]);
    let running = world.start(&["run"]);
    let blobs = 12;
    world.until("all blobs are listed", || world.simulator().truth().blobs().count() == blobs);
    let expected = world.simulator().truth().count() as usize;
    world.until("they have arrived", || {
        super::support::files(&world.out("files"))
            .iter()
            .filter_map(|file| std::fs::read(file).ok())
            .map(|bytes| bytes.iter().filter(|byte| **byte == b'\n').count())
            .sum::<usize>()
            >= expected
    });
    crate::support::terminate(&running);
    running.wait().ends_with(0);
    world.is_complete();
}

#[test]
fn a_body_that_stalls_is_given_up_and_fetched_again() {
    complete_under(&["stall=1/12"]);
}
