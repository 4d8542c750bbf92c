//! Indexer acknowledgement: nothing counts before the indexer says so.

use std::{collections::BTreeSet, thread, time::Duration};

use simulator::SimulatorConfig;

use super::{Setup, small};
use crate::support::{
    hec::{Acks, Act, Hec},
    kill_hard, terminate,
};

#[test]
fn what_is_acknowledged_is_delivered_once() {
    let setup = Setup::acknowledging(Acks::Prompt, "batch_events = 10\n");
    setup.world.collect();
    setup.world.mailtrail(&["reconcile"]).ends_with(0);
    assert_eq!(setup.judge(), (0, 0));
    let channels: BTreeSet<_> =
        setup.hec.requests().into_iter().map(|request| request.channel.expect("a channel")).collect();
    assert_eq!(channels.len(), 1, "one channel for a receiver and a process");
    // The next process has another one: what the first one's ids meant is nobody's business.
    let first = channels.into_iter().next();
    let again = Setup::new(small(), Hec::start(Acks::Prompt), "indexer", "");
    again.world.collect();
    assert_ne!(again.hec.requests()[0].channel, first);
}

#[test]
fn nothing_is_delivered_while_the_indexer_says_no() {
    let setup = Setup::acknowledging(Acks::Never, "");
    let running = setup.world.start(&["run"]);
    let expected = setup.world.simulator().truth().count() as usize;
    setup.world.until("everything arrived", || setup.hec.count() >= expected);
    thread::sleep(Duration::from_secs(3));
    kill_hard(&running);
    running.wait();
    assert_eq!(setup.sums("delivered"), 0);
    assert_eq!(setup.sums("pending"), expected);
    // The next process does not believe the one before either: it sends again, and counts.
    setup.hec.set(|behaviour| behaviour.acks = Acks::Prompt);
    setup.world.collect();
    assert_eq!(setup.judge(), (expected, expected));
}

#[test]
fn what_is_not_acknowledged_in_time_is_sent_again_on_another_channel() {
    let setup = Setup::acknowledging(Acks::Never, "ack_timeout = \"3s\"\n");
    let running = setup.world.start(&["run"]);
    let expected = setup.world.simulator().truth().count() as usize;
    setup.world.until("everything came twice", || setup.hec.count() >= 2 * expected);
    setup.hec.set(|behaviour| behaviour.acks = Acks::Prompt);
    setup.world.until("it is well", || setup.sums("pending") == 0);
    terminate(&running);
    running.wait().ends_with(0);
    let (twice, resent) = setup.judge();
    assert!(twice >= expected && resent >= twice);
    let channels: BTreeSet<_> = setup.hec.requests().into_iter().map(|request| request.channel).collect();
    assert!(channels.len() > 1, "a lost acknowledgement ends its channel");
}

#[test]
fn an_acknowledgement_that_is_lost_on_its_way_is_no_acknowledgement() {
    let setup = Setup::acknowledging(Acks::LoseReplies(2), "ack_timeout = \"5s\"\n");
    setup.world.collect();
    setup.world.mailtrail(&["reconcile"]).ends_with(0);
    let (twice, _) = setup.judge();
    assert!(twice > 0, "what was told in the lost answers was forgotten, and had to be sent again");
}

#[test]
fn behind_a_load_balancer_the_same_indexer_is_asked_that_was_told() {
    let config = SimulatorConfig { blobs: 60, records_per_blob: 10, ..SimulatorConfig::default() };
    let setup =
        Setup::new(config, Hec::start(Acks::Prompt), "indexer", "batch_events = 10\nack_timeout = \"30s\"\n");
    setup.hec.set(|behaviour| behaviour.indexers = 2);
    setup.world.collect();
    assert_eq!(setup.judge(), (0, 0));
    assert_eq!(setup.hec.asked_elsewhere(), 0);
    assert!(setup.hec.requests().len() >= 60);
}

#[test]
fn a_token_without_acknowledgement_halts_the_sink_before_anything_is_sent() {
    let setup = Setup::acknowledging(Acks::Off, "");
    let running = setup.world.start(&["run"]);
    let error = setup.world.until_sink_is("soc", "halted");
    assert!(error.contains("Enable indexer acknowledgement"), "{error}");
    assert!(error.contains("acknowledgement = \"accept\""), "{error}");
    terminate(&running);
    running.wait().ends_with(0);
    assert_eq!(setup.hec.count(), 0);
    // Nothing counts as delivered by that: with acknowledgement all of it comes.
    setup.hec.set(|behaviour| behaviour.acks = Acks::Prompt);
    setup.world.collect();
    assert_eq!(setup.judge(), (0, 0));
}

#[test]
fn an_answer_without_an_id_halts_the_sink_and_is_no_delivery() {
    let setup = Setup::acknowledging(Acks::Prompt, "connections = 1\nbatch_events = 10\n");
    setup.hec.set(|behaviour| behaviour.gives_ids = false);
    let running = setup.world.start(&["run"]);
    let error = setup.world.until_sink_is("soc", "halted");
    assert!(error.contains("without an acknowledgement id"), "{error}");
    terminate(&running);
    running.wait().ends_with(0);
    let taken = setup.hec.count();
    assert!(taken > 0 && taken <= 10, "{taken} were taken");
    assert_eq!(setup.sums("delivered"), 0);
    // What was taken comes again, and is counted.
    setup.hec.set(|behaviour| behaviour.gives_ids = true);
    setup.world.collect();
    let (twice, resent) = setup.judge();
    assert!(twice == taken && resent >= taken, "{twice} twice, {resent} counted, {taken} taken before");
}

#[test]
fn acknowledgement_that_is_turned_off_while_it_runs_is_never_taken_for_one() {
    let setup = Setup::acknowledging(Acks::Never, "");
    let running = setup.world.start(&["run"]);
    let expected = setup.world.simulator().truth().count() as usize;
    setup.world.until("everything arrived", || setup.hec.count() >= expected);
    setup.hec.set(|behaviour| behaviour.acks = Acks::Off);
    let error = setup.world.until_sink_is("soc", "halted");
    assert!(error.contains("no indexer acknowledgement"), "{error}");
    assert_eq!(setup.sums("delivered"), 0);
    terminate(&running);
    running.wait().ends_with(0);
    // Nobody knows what became of what was taken: it comes again, and is counted.
    setup.hec.set(|behaviour| behaviour.acks = Acks::Prompt);
    setup.world.collect();
    setup.world.mailtrail(&["reconcile"]).ends_with(0);
    let (twice, resent) = setup.judge();
    assert!(
        twice == expected && resent >= expected,
        "{twice} twice, {resent} counted, {expected} taken before"
    );
}

#[test]
fn an_id_that_comes_again_proves_nothing() {
    let setup = Setup::acknowledging(Acks::Prompt, "batch_events = 10\nconnections = 1\n");
    // Every answer has the same id, as when requests of a channel reach several indexers.
    let same = Act::Say {
        http: 200,
        body: "{\"text\":\"Success\",\"code\":0,\"ackId\":0}".to_owned(),
        retry_after: None,
        take: false,
    };
    setup.hec.set(|behaviour| behaviour.script = vec![same; 6].into());
    setup.world.collect();
    // Nothing of what was only promised is missing: the receiver took none of it.
    setup.judge();
}
