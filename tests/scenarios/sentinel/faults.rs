//! What passes by itself: throttling, a role that is not known yet, tokens that end, failures, cut connections.

use std::time::{Duration, Instant};

use chrono::Utc;
use simulator::SimulatorConfig;

use super::{Setup, small};
use crate::support::{
    sentinel::{Act, RULES},
    terminate,
};

fn fails(http: u16, take: bool) -> Act {
    Act::Say { http, body: "<html><h1>Bad Gateway</h1></html>".to_owned(), retry_after: None, take }
}

#[test]
fn a_storm_of_throttling_is_waited_out_and_doubles_nothing() {
    let config = SimulatorConfig { blobs: 60, records_per_blob: 20, ..SimulatorConfig::default() };
    let setup = Setup::new(config, "batch_bytes = \"50KB\"\n");
    setup.service.set(|behaviour| behaviour.script = (0..12).map(|_| Act::throttle(1)).collect());
    let start = Instant::now();
    setup.world.collect();
    assert!(start.elapsed() >= Duration::from_secs(3), "it came back before the time");
    assert_eq!(setup.judge(), (0, 0), "429 means that nothing was taken");
    let throttled = setup.service.requests().iter().filter(|request| request.http == 429).count();
    assert_eq!(throttled, 12);
}

#[test]
fn of_several_rules_one_that_is_throttled_rests_and_the_others_go_on() {
    let lines = format!("dcr_immutable_ids = {RULES:?}\nbatch_bytes = \"20KB\"\n");
    let setup = Setup::new(small(), &lines);
    setup.world.collect();
    assert_eq!(setup.judge(), (0, 0));
    for rule in RULES {
        let rows = setup.service.rows().iter().filter(|row| row.rule == rule).count();
        assert!(rows > 30, "{rule} got {rows}");
    }
    let setup = Setup::new(small(), &lines);
    setup.service.set(|behaviour| behaviour.rule = Some((RULES[0], Act::throttle(300))));
    let start = Instant::now();
    setup.world.collect();
    assert!(start.elapsed() < Duration::from_secs(60), "the other one takes everything");
    assert_eq!(setup.judge(), (0, 0));
    assert!(setup.service.rows().iter().all(|row| row.rule == RULES[1]));
    let refused = setup.service.requests().iter().filter(|request| request.http == 429).count();
    assert!((1..=4).contains(&refused), "{refused} requests to a rule that asked for time");
}

#[test]
fn a_role_that_is_not_known_yet_is_waited_for_and_it_says_so() {
    let setup = Setup::new(small(), "");
    setup.service.set(|behaviour| behaviour.role_from = Some(Instant::now() + Duration::from_secs(12)));
    let running = setup.world.start(&["run"]);
    let error = setup.world.until_sink_is("soc", "retrying");
    for what in
        ["answered 403", "up to 30 minutes", "Monitoring Metrics Publisher", "az role assignment create"]
    {
        assert!(error.contains(what), "{what}: {error}");
    }
    let all = setup.world.simulator().truth().count() as usize;
    setup.world.until("everything arrived", || setup.service.count() >= all);
    setup.world.until("everything is settled", || setup.sums("pending") == 0);
    terminate(&running);
    running.wait().ends_with(0);
    assert_eq!(setup.judge(), (0, 0), "nothing was taken before");
    assert_eq!(setup.sums("dead"), 0);
}

#[test]
fn tokens_that_end_or_are_revoked_are_replaced() {
    let config = SimulatorConfig {
        blobs: 100,
        records_per_blob: 20,
        token_lifetime: Duration::from_secs(8),
        ..SimulatorConfig::default()
    };
    let setup = Setup::new(config, "batch_bytes = \"50KB\"\nevents_per_second = 100\n");
    let running = setup.world.start(&["run"]);
    setup.world.until("some arrived", || setup.service.count() > 200);
    setup.service.set(|behaviour| behaviour.tokens_from = Some(Utc::now()));
    let all = setup.world.simulator().truth().count() as usize;
    setup.world.until("everything arrived", || setup.service.count() >= all);
    setup.world.until("everything is settled", || setup.sums("pending") == 0);
    terminate(&running);
    running.wait().ends_with(0);
    assert_eq!(setup.judge(), (0, 0), "a token that is refused takes nothing");
    assert!(setup.service.tokens() >= 3, "{} tokens", setup.service.tokens());
}

#[test]
fn failures_and_cut_connections_are_tried_again_and_counted() {
    let setup = Setup::new(small(), "batch_bytes = \"20KB\"\nconnections = 1\ntimeout = \"5s\"\n");
    setup.service.set(|behaviour| {
        behaviour.script = [
            fails(500, false),
            fails(502, true),
            fails(503, false),
            // One that goes well in between: whoever runs until idle gives up when nothing does for long.
            Act::take(),
            Act::Cut,
            Act::TakeAndCut,
            Act::take(),
            fails(504, true),
            // A login page in between is no receipt.
            fails(200, false),
            Act::take(),
            Act::Say { http: 503, body: String::new(), retry_after: Some(2), take: true },
            Act::TakeAndStall(Duration::from_secs(20)),
        ]
        .into();
    });
    setup.world.collect();
    setup.world.mailtrail(&["reconcile"]).ends_with(0);
    let (twice, resent) = setup.judge();
    assert!(twice > 0 && resent >= twice, "{twice} twice, {resent} counted");
}
