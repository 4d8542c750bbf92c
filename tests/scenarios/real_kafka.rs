//! Against a real Apache Kafka: every record is there exactly once for a reader of what is committed, whatever is killed.
//!
//! These need what `tests/servers/kafka` installs, and minutes, so they are run on demand:
//! `cargo test --test scenarios -- --ignored real_`.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use nix::sys::signal::{Signal, kill};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use simulator::SimulatorConfig;

use crate::support::{
    Arrived, Binary, Outcome, World,
    kafka::{Broker, STRANGER, WRITER, Way, copy, missing_and_surplus, sink, until_it_grows},
    kill_hard, terminate,
};

const EXACTLY_ONCE: &str = "transactions = true\n";

fn world(blobs: usize, records: usize) -> World {
    World::new(SimulatorConfig {
        blobs: blobs as _,
        records_per_blob: records as _,
        page_size: 37,
        backlog_span: Duration::from_secs(5 * 24 * 3600),
        ..SimulatorConfig::default()
    })
}

fn configure(world: &World, broker: &Broker, lines: &str) {
    world.configure_sinks("", "", &sink(&broker.address(), lines));
}

/// What is committed, as an independent reader sees it.
fn arrived(broker: &Broker, world: &World) -> Arrived {
    Arrived::of_lines(broker.read("audit", world.simulator().truth().count() as usize))
}

/// Waits for a line of the log, which `status` shows too.
fn until_halted(world: &World, running: &mut Binary) -> String {
    let deadline = Instant::now() + Duration::from_secs(120);
    while Instant::now() < deadline {
        assert!(!running.has_ended(), "it ended by itself");
        let text = world.mailtrail(&["status", "--json"]).text();
        if text.contains("halted") {
            return text;
        }
        thread::sleep(Duration::from_millis(300));
    }
    panic!("it does not halt:\n{}", world.mailtrail(&["status"]).text());
}

#[test]
#[ignore = "needs Apache Kafka: tests/servers/kafka"]
fn real_kafka_has_every_record_exactly_once() {
    let broker = Broker::start();
    broker.create_usual();
    let world = world(200, 40);
    configure(&world, &broker, EXACTLY_ONCE);
    world.mailtrail(&["check"]).ends_with(0);
    world.collect();
    arrived(&broker, &world).is_exactly(&world.simulator().truth());
    world.mailtrail(&["reconcile"]).ends_with(0);
    // A second run has nothing to send.
    world.collect();
    arrived(&broker, &world).is_exactly(&world.simulator().truth());
}

#[test]
#[ignore = "needs Apache Kafka: tests/servers/kafka"]
fn real_kafka_twenty_kills_lose_and_double_nothing() {
    let broker = Broker::start();
    broker.create_usual();
    let world = world(1500, 40);
    // Small batches, so that many transactions are there to be hit.
    configure(&world, &broker, "transactions = true\nevents_per_second = 4000\n");
    let mut random = StdRng::seed_from_u64(11);
    let mut hit = 0;
    for round in 0..20 {
        let before = broker.size("audit");
        let mut running = world.start(&["run"]);
        // Some are killed anywhere in their beginning, most in the midst of transactions.
        if round % 4 == 0 {
            thread::sleep(Duration::from_micros(random.random_range(0..2_500_000)));
        } else {
            until_it_grows(&broker, "audit", Duration::from_secs(30));
            thread::sleep(Duration::from_micros(random.random_range(0..400_000)));
        }
        assert!(!running.has_ended(), "it ended by itself: {}", running.wait().text());
        kill_hard(&running);
        running.wait();
        hit += usize::from(broker.size("audit") > before);
    }
    assert!(hit >= 10, "only {hit} of 20 kills came while records were sent");
    configure(&world, &broker, EXACTLY_ONCE);
    world.collect();
    arrived(&broker, &world).is_exactly(&world.simulator().truth());
    world.mailtrail(&["reconcile"]).ends_with(0);
}

#[test]
#[ignore = "needs Apache Kafka: tests/servers/kafka"]
fn real_kafka_a_broker_that_is_killed_and_comes_back() {
    for lines in [EXACTLY_ONCE, ""] {
        let mut broker = Broker::start();
        broker.create_usual();
        let world = world(1000, 40);
        configure(&world, &broker, &format!("{lines}events_per_second = 4000\n"));
        let mut running = world.start(&["run"]);
        for pause in [1, 6] {
            assert!(until_it_grows(&broker, "audit", Duration::from_secs(120)), "nothing is sent");
            broker.kill();
            thread::sleep(Duration::from_secs(pause));
            broker.up();
        }
        assert!(until_it_grows(&broker, "audit", Duration::from_secs(120)), "it does not go on");
        assert!(!running.has_ended(), "it ended by itself: {}", running.wait().text());
        terminate(&running);
        running.wait().ends_with(0);
        world.collect();
        let arrived = arrived(&broker, &world);
        if lines.is_empty() {
            let (missing, surplus) = missing_and_surplus(&arrived, &world);
            assert_eq!(missing, 0);
            assert!(surplus as u64 <= resent(&world), "{surplus} doubled, {} counted", resent(&world));
        } else {
            nothing_is_missing(&arrived, &broker, &world);
            arrived.is_exactly(&world.simulator().truth());
        }
        world.mailtrail(&["reconcile"]).ends_with(0);
    }
}

/// The broker takes a transaction's records, and its answers get lost, for so long that the transaction is aborted. What is
/// sent then are the same records; were they numbered as before, the broker would take them for what it has already.
#[test]
#[ignore = "needs Apache Kafka: tests/servers/kafka"]
fn real_kafka_what_was_taken_without_an_answer_and_aborted_is_sent_again() {
    let (way, broker) = Way::to_a_broker();
    broker.create_usual();
    let world = world(10, 40);
    configure(&world, &broker, EXACTLY_ONCE);
    way.loses_the_answers_to_writes();
    let running = world.start(&["run", "--until-idle"]);
    assert!(until_it_grows(&broker, "audit", Duration::from_secs(60)), "nothing is sent");
    // The other partitions are written to as well.
    thread::sleep(Duration::from_secs(1));
    way.shuts();
    // For longer than the sink has patience.
    thread::sleep(Duration::from_secs(20));
    way.opens();
    running.wait().ends_with(0);
    let arrived = arrived(&broker, &world);
    nothing_is_missing(&arrived, &broker, &world);
    arrived.is_exactly(&world.simulator().truth());
    world.mailtrail(&["reconcile"]).ends_with(0);
    // There was something to lose.
    let all = world.simulator().truth().count() as usize;
    assert!(
        broker.read_uncommitted("audit", all + 1).len() > all,
        "no transaction was aborted that had written"
    );
}

/// The broker takes requests of two records at most: what it refuses is cut until it fits, and what it had taken of the
/// same transactions is aborted.
#[test]
#[ignore = "needs Apache Kafka: tests/servers/kafka"]
fn real_kafka_what_is_refused_is_cut_until_it_fits() {
    let broker = Broker::start();
    broker.create("audit", 3, &["max.message.bytes=6000"]);
    broker.create("mailtrail.progress", 1, &["cleanup.policy=compact"]);
    let world = World::new(SimulatorConfig {
        blobs: 1,
        records_per_blob: 30,
        record_bytes: Some(2000),
        ..SimulatorConfig::default()
    });
    configure(&world, &broker, "transactions = true\ncompression = \"none\"\n");
    world.collect();
    let arrived = arrived(&broker, &world);
    nothing_is_missing(&arrived, &broker, &world);
    arrived.is_exactly(&world.simulator().truth());
    world.mailtrail(&["reconcile"]).ends_with(0);
    let all = world.simulator().truth().count() as usize;
    assert!(broker.read_uncommitted("audit", all + 1).len() > all, "no transaction was refused in part");
}

/// When a reader misses something, says whether that is in the log, behind or within a transaction that was not committed.
fn nothing_is_missing(arrived: &Arrived, broker: &Broker, world: &World) {
    let (missing, _) = missing_and_surplus(arrived, world);
    if missing > 0 {
        let written = broker.read_uncommitted("audit", usize::MAX);
        let (nowhere, _) = missing_and_surplus(&Arrived::of_lines(written), world);
        let accounts = world.mailtrail(&["reconcile", "--by", "feed"]).text();
        panic!("a reader misses {missing} records, of which {nowhere} are not in the log at all\n{accounts}");
    }
}

/// A copy of the state directory is started elsewhere while the first one is suspended, as after a failover that was not
/// complete. The first one is locked out and stays so.
#[test]
#[ignore = "needs Apache Kafka: tests/servers/kafka"]
fn real_kafka_of_two_with_one_id_the_older_is_fenced() {
    let broker = Broker::start();
    broker.create_usual();
    let world = world(600, 40);
    configure(&world, &broker, "transactions = true\nevents_per_second = 2000\n");
    let mut older = world.start(&["run"]);
    assert!(until_it_grows(&broker, "audit", Duration::from_secs(60)), "nothing is sent");
    kill(older.pid(), Signal::SIGSTOP).expect("it can be suspended");
    let elsewhere = world.path().join("elsewhere");
    copy(&world.path().join("state"), &elsewhere.join("state"));
    let text = fs::read_to_string(world.path().join("mailtrail.toml")).expect("a configuration");
    let (there, here) = (elsewhere.join("state"), world.path().join("state"));
    let text =
        text.replace(&format!("{here:?}"), &format!("{there:?}")).replace("events_per_second = 2000\n", "");
    fs::write(elsewhere.join("mailtrail.toml"), text).expect("a configuration");
    Binary::start(&elsewhere, &["run", "--until-idle"]).wait().ends_with(0);
    kill(older.pid(), Signal::SIGCONT).expect("it goes on");
    let status = until_halted(&world, &mut older);
    // Either its transaction is refused, or that was over already while it was suspended, and it looks before it begins
    // another.
    let refused = status.contains("taken over the transactional id mailtrail-stream");
    assert!(refused || status.contains("is ahead of the ledger"), "{status}");
    arrived(&broker, &world).is_exactly(&world.simulator().truth());
    kill_hard(&older);
    older.wait();
    // Started again, it finds that the other one is ahead, and leaves it alone.
    let outcome = world.mailtrail(&["run", "--until-idle"]).ends_with(1);
    assert!(outcome.text().contains("is ahead of the ledger"), "{}", outcome.text());
    arrived(&broker, &world).is_exactly(&world.simulator().truth());
}

#[test]
#[ignore = "needs Apache Kafka: tests/servers/kafka"]
fn real_kafka_a_state_directory_made_anew_halts_until_it_is_adopted() {
    let broker = Broker::start();
    broker.create_usual();
    let world = world(30, 10);
    configure(&world, &broker, EXACTLY_ONCE);
    world.collect();
    fs::remove_dir_all(world.path().join("state")).expect("it is there");
    let outcome = world.mailtrail(&["run", "--until-idle"]).ends_with(1);
    assert!(outcome.text().contains("mailtrail sinks adopt stream"), "{}", outcome.text());
    let check = world.mailtrail(&["check"]).ends_with(1);
    assert!(check.stdout.contains("says that ledger"), "{}", check.stdout);
    arrived(&broker, &world).is_exactly(&world.simulator().truth());

    world.mailtrail(&["sinks", "adopt", "nosuch"]).ends_with(1);
    world.mailtrail(&["sinks", "adopt", "stream"]).ends_with(0);
    world.collect();
    world.mailtrail(&["reconcile"]).ends_with(0);
    // What the lost ledger had delivered came again, once.
    let (missing, surplus) = missing_and_surplus(&arrived(&broker, &world), &world);
    assert_eq!((missing, surplus as u64), (0, world.simulator().truth().count()));
    // From then on it is exactly once again.
    world.collect();
    world.mailtrail(&["check"]).ends_with(0);
    assert_eq!(missing_and_surplus(&arrived(&broker, &world), &world).1, surplus);
}

#[test]
#[ignore = "needs Apache Kafka: tests/servers/kafka"]
fn real_kafka_without_transactions_kills_double_no_more_than_is_counted() {
    let broker = Broker::start();
    broker.create_usual();
    let world = world(1000, 40);
    configure(&world, &broker, "events_per_second = 5000\n");
    let mut random = StdRng::seed_from_u64(5);
    for _ in 0..6 {
        let running = world.start(&["run"]);
        until_it_grows(&broker, "audit", Duration::from_secs(30));
        thread::sleep(Duration::from_micros(random.random_range(0..400_000)));
        kill_hard(&running);
        running.wait();
    }
    world.collect();
    let (missing, surplus) = missing_and_surplus(&arrived(&broker, &world), &world);
    let counted = resent(&world);
    assert_eq!(missing, 0);
    assert!(surplus as u64 <= counted, "{surplus} doubled, {counted} counted");
    world.mailtrail(&["reconcile"]).ends_with(0);
}

fn resent(world: &World) -> u64 {
    let json = world.mailtrail(&["reconcile", "--json", "--by", "feed"]).stdout;
    let report: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    fn sum(value: &serde_json::Value) -> u64 {
        match value {
            serde_json::Value::Object(members) => members
                .iter()
                .map(|(name, value)| if name == "resent" { value.as_u64().unwrap_or(0) } else { sum(value) })
                .sum(),
            serde_json::Value::Array(items) => items.iter().map(sum).sum(),
            _ => 0,
        }
    }
    sum(&report)
}

/// Runs `check`, which finds this.
fn check_finds(world: &World, sections: &str, found: &str) -> Outcome {
    world.configure_sinks("", "", sections);
    let outcome = world.mailtrail(&["check"]).ends_with(1);
    let line = outcome.stdout.lines().find(|line| line.starts_with("FAIL")).unwrap_or_default();
    assert!(line.contains(found), "{found:?} is not in {line:?}");
    outcome
}

#[test]
#[ignore = "needs Apache Kafka: tests/servers/kafka"]
fn real_kafka_check_finds_what_is_wrong_and_says_what_to_do() {
    let mut broker = Broker::start_with_login();
    broker.create_usual();
    broker.create("deleted", 1, &["cleanup.policy=delete"]);
    let world = world(2, 2);
    let login = |(user, password): (&str, &str), lines: &str| {
        let file = world.path().join(user);
        fs::write(&file, password).expect("a password");
        let sasl = format!(
            "{lines}[sinks.stream.sasl]\nmechanism = \"SCRAM-SHA-256\"\nusername = \"{user}\"\npassword = {{ file = {file:?} }}\n"
        );
        sink(&broker.login_address(), &sasl)
    };
    let open = |lines: &str| sink(&broker.address(), lines);
    check_finds(
        &world,
        &open("transactions = true\nprogress_topic = \"nowhere\"\n"),
        "cleanup.policy=compact",
    );
    check_finds(
        &world,
        &open("transactions = true\nprogress_topic = \"deleted\"\n"),
        "has cleanup.policy=delete",
    );
    check_finds(&world, &open("").replace("\"audit\"", "\"nowhere\""), "--create --topic nowhere");
    check_finds(&world, &login((WRITER.0, "wrong"), ""), "the broker refuses the login");
    check_finds(&world, &login(STRANGER, ""), "Describe");
    broker.allow(&["--operation", "Describe", "--topic", "audit"]);
    check_finds(&world, &login(WRITER, ""), "Write on the topic");
    broker.allow(&["--operation", "Write", "--topic", "audit"]);
    world.configure_sinks("", "", &login(WRITER, ""));
    world.mailtrail(&["check"]).ends_with(0);
    check_finds(&world, &login(WRITER, EXACTLY_ONCE), "progress topic");
    for operation in ["Describe", "Read", "Write"] {
        broker.allow(&["--operation", operation, "--topic", "mailtrail.progress"]);
    }
    world.configure_sinks("", "", &login(WRITER, EXACTLY_ONCE));
    world.mailtrail(&["check"]).ends_with(0);
    // Only a run needs the id itself.
    let outcome = world.mailtrail(&["run", "--until-idle"]).ends_with(1);
    assert!(outcome.text().contains("on the transactional id"), "{}", outcome.text());
    for operation in ["Describe", "Write"] {
        broker.allow(&["--operation", operation, "--transactional-id", "mailtrail-stream"]);
    }
    world.collect();
    arrived(&broker, &world).is_exactly(&world.simulator().truth());
    let open = sink(&broker.address(), "");
    broker.kill();
    check_finds(&world, &open, "no broker can be reached");
}
