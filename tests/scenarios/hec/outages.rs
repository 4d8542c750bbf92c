//! Receivers that go away, hang and cut.

use std::time::Duration;

use simulator::SimulatorConfig;

use super::Setup;
use crate::support::{
    Arrived,
    hec::{Acks, Act, Hec},
    kafka::{self, Broker},
    terminate,
};

#[test]
fn answers_that_never_come_are_sent_again_and_counted() {
    let setup = Setup::accepting("timeout = \"5s\"\nbatch_events = 20\n");
    setup.hec.set(|behaviour| {
        behaviour.script = [
            Act::TakeAndStall(Duration::from_secs(20)),
            Act::TakeAndCut,
            Act::Cut,
            Act::TakeAndStall(Duration::from_secs(20)),
            Act::TakeAndCut,
        ]
        .into();
    });
    setup.world.collect();
    setup.world.mailtrail(&["reconcile"]).ends_with(0);
    let (twice, resent) = setup.judge();
    assert!(twice > 0 && resent >= twice && resent <= 5 * 20, "{twice} twice, {resent} counted");
}

#[test]
fn a_receiver_that_restarts_costs_nothing_but_time() {
    let config = SimulatorConfig { blobs: 300, records_per_blob: 20, ..SimulatorConfig::default() };
    let lines = "batch_events = 50\nack_timeout = \"5s\"\nevents_per_second = 1500\n";
    let mut setup = Setup::new(config, Hec::start(Acks::Prompt), "indexer", lines);
    let running = setup.world.start(&["run"]);
    for part in 1..4 {
        setup.world.until("a part arrived", || setup.hec.count() >= part * 1200);
        setup.hec.stop();
        std::thread::sleep(Duration::from_millis(700));
        setup.hec.resume();
    }
    setup.world.until("everything is delivered", || setup.sums("pending") == 0);
    terminate(&running);
    running.wait().ends_with(0);
    setup.world.collect();
    setup.world.mailtrail(&["reconcile"]).ends_with(0);
    setup.judge();
}

#[test]
fn a_receiver_that_is_down_stops_nobody_else_and_catches_up() {
    down_for_a_whole_run("", |_| {});
}

#[test]
#[ignore = "needs Apache Kafka: tests/servers/kafka"]
fn real_kafka_is_not_stopped_by_a_receiver_that_is_down() {
    let broker = Broker::start();
    broker.create_usual();
    let stream = kafka::sink(&broker.address(), "transactions = true\n");
    down_for_a_whole_run(&stream, |setup| {
        let truth = setup.world.simulator().truth();
        Arrived::of_lines(broker.read("audit", truth.count() as usize)).is_exactly(&truth);
    });
}

/// HEC is down for a whole run, in which the files and `others` get everything, and then it catches up.
fn down_for_a_whole_run(others: &str, have_everything: impl Fn(&Setup)) {
    let config = SimulatorConfig { blobs: 60, records_per_blob: 20, ..SimulatorConfig::default() };
    let mut setup = Setup::new(config, Hec::start(Acks::Prompt), "indexer", "");
    let files = format!(
        "[sinks.files]\ntype = \"file\"\ndirectory = {:?}\nview = \"raw\"\n{others}",
        setup.world.out("files")
    );
    setup.configure("indexer", "", &files);
    setup.hec.stop();
    let outcome = setup.world.mailtrail(&["run", "--until-idle"]).ends_with(1);
    assert!(outcome.stderr.contains("sink soc"), "it names what is left: {}", outcome.stderr);
    setup.world.arrived().is_exactly(&setup.world.simulator().truth());
    have_everything(&setup);
    assert_eq!(setup.hec.count(), 0);
    setup.hec.resume();
    setup.world.collect();
    setup.world.is_complete();
    have_everything(&setup);
    // Whoever was never reached has nothing twice.
    assert_eq!(setup.judge(), (0, 0));
}

#[test]
fn several_receivers_share_the_load_and_one_that_fails_is_left_out() {
    let config = SimulatorConfig { blobs: 120, records_per_blob: 10, ..SimulatorConfig::default() };
    let (first, second) = (Hec::start(Acks::Prompt), Hec::start(Acks::Prompt));
    // At full speed everything would be with the first before the second is tried again.
    let lines = format!(
        "urls = [{:?}, {:?}]\nbatch_events = 20\nevents_per_second = 200\n",
        first.url(),
        second.url()
    );
    let setup = Setup::new(config, first, "indexer", &lines);
    second.set(|behaviour| behaviour.script = vec![Act::code(503, 23); 2].into());
    setup.world.collect();
    setup.world.mailtrail(&["reconcile"]).ends_with(0);
    let (one, other) = (setup.hec.count(), second.count());
    assert_eq!(one + other, 1200, "nothing is missing and nothing came twice");
    assert!(one >= 200 && other >= 200, "{one} to one, {other} to the other");
    let mut ids = setup.hec.ids();
    ids.extend(second.ids());
    assert_eq!(ids.len(), 1200);
    assert_eq!(setup.sums("resent"), 0);
}

#[test]
fn one_receiver_that_asks_for_time_rests_alone() {
    for http in [503, 429] {
        let (first, second) = (Hec::start(Acks::Prompt), Hec::start(Acks::Prompt));
        let lines = format!("urls = [{:?}, {:?}]\nbatch_events = 10\n", first.url(), second.url());
        let setup = Setup::new(super::small(), first, "indexer", &lines);
        // Longer than a scenario may last: whoever waited for it would not come to an end.
        let busy = Act::Say { http, body: String::new(), retry_after: Some(3600), take: false };
        second.set(|behaviour| behaviour.always = Some(busy));
        setup.world.collect();
        setup.world.mailtrail(&["reconcile"]).ends_with(0);
        let (twice, _) = setup.judge();
        assert_eq!((twice, second.count()), (0, 0));
        assert!(!second.requests().is_empty(), "it was not asked");
    }
}
