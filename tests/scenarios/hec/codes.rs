//! Every code of HEC's table, and the answers of what stands in between.

use std::time::Duration;

use super::Setup;
use crate::support::{
    hec::{Acks, Act, Hec},
    terminate,
    wire::{Reply, Server},
};

fn page(http: u16) -> Act {
    Act::Say { http, body: "<html><h1>Bad Gateway</h1></html>".to_owned(), retry_after: None, take: false }
}

#[test]
fn what_can_pass_is_tried_again() {
    let setup = Setup::accepting("batch_events = 10\nconnections = 1\n");
    setup.hec.set(|behaviour| {
        behaviour.script = [
            Act::code(500, 8),
            Act::code(503, 9),
            Act::code(503, 23),
            Act::success(24),
            Act::success(25),
            Act::code(429, 26),
            Act::code(429, 27),
            page(502),
            page(504),
            page(503),
            page(408),
            Act::Say { http: 429, body: String::new(), retry_after: Some(1), take: false },
            // Some servers take the events and fail then.
            Act::Say {
                http: 500,
                body: "{\"text\":\"x\",\"code\":8}".to_owned(),
                retry_after: None,
                take: true,
            },
            // A login page in between is no success.
            page(200),
        ]
        .into();
    });
    setup.world.collect();
    setup.world.mailtrail(&["reconcile"]).ends_with(0);
    let (twice, resent) = setup.judge();
    assert!(twice > 0 && resent < 12 * 15, "{twice} twice, {resent} counted");
    // Two of them were successes.
    assert!(setup.hec.requests().len() >= 12 + 12 * 15 / 10, "each was tried again");
}

#[test]
fn what_needs_a_person_halts_the_sink_and_says_what_to_do() {
    let setup = Setup::accepting("index = \"o365\"\n");
    for (http, code, advice) in [
        (403, 1, "the token is disabled"),
        (401, 2, "Authorization header"),
        (401, 3, "GUID"),
        (403, 4, "does not know the token"),
        (400, 5, "please report it"),
        (400, 7, "index `o365` does not exist or is not allowed"),
        (400, 10, "set acknowledgement = \"indexer\""),
        (400, 11, "please report it"),
        (400, 14, "no indexer acknowledgement"),
        (400, 16, "into the URL"),
        (400, 21, "does not know the token"),
        (400, 22, "the token is disabled"),
        (404, 404, "no HTTP Event Collector at this address"),
    ] {
        setup.hec.set(|behaviour| behaviour.always = Some(Act::code(http, code)));
        let running = setup.world.start(&["run"]);
        let error = setup.world.until_sink_is("soc", "halted");
        assert!(error.contains(advice), "code {code}: {error}");
        assert!(error.contains(&format!("answered {http}")), "code {code}: {error}");
        terminate(&running);
        running.wait().ends_with(0);
        assert_eq!(setup.hec.count(), 0);
    }
    // Nothing was lost by any of that.
    setup.hec.set(|behaviour| {
        behaviour.always = None;
        behaviour.index = Some("o365".to_owned());
    });
    setup.world.collect();
    assert_eq!(setup.judge(), (0, 0));
}

/// As one that serves files: it knows no POST, and no path of a collector.
#[test]
fn a_web_server_that_is_no_collector_halts_the_sink_and_nothing_counts_as_sent() {
    for http in [501, 405] {
        let web_server = Server::start(None, None, move |request| {
            let http = if request.method == "POST" { http } else { 404 };
            let body = "<html><title>Error response</title></html>".to_owned();
            Reply::Answer { http, headers: Vec::new(), body }
        });
        for (acknowledgement, acks) in [("accept", Acks::Off), ("indexer", Acks::Prompt)] {
            let lines = format!("urls = [\"http://{}\"]\n", web_server.address);
            let setup = Setup::new(super::small(), Hec::start(acks), acknowledgement, &lines);
            let running = setup.world.start(&["run"]);
            let error = setup.world.until_sink_is("soc", "halted");
            assert!(error.contains("no HTTP Event Collector at this address"), "{error}");
            assert!(error.contains(&format!("answered {http}")), "{error}");
            terminate(&running);
            running.wait().ends_with(0);
            // The right address is all that was missing.
            setup.configure(acknowledgement, "", "");
            setup.world.collect();
            assert_eq!(setup.judge(), (0, 0), "nobody has taken anything before");
        }
    }
}

/// As a gateway that has no route for the collector and says 200 to whatever comes.
#[test]
fn a_gateway_that_says_success_to_everything_is_not_believed() {
    for body in ["{}", r#"{"error":"no such route"}"#, ""] {
        let gateway = Server::start(None, None, move |_| Reply::Answer {
            http: 200,
            headers: Vec::new(),
            body: body.to_owned(),
        });
        let lines = format!("urls = [\"http://{}\"]\n", gateway.address);
        let setup = Setup::new(super::small(), Hec::start(Acks::Off), "accept", &lines);
        let outcome = setup.world.mailtrail(&["check"]).ends_with(1);
        assert!(outcome.stdout.contains("no answer of an HTTP Event Collector"), "{}", outcome.stdout);
        let running = setup.world.start(&["run"]);
        let error = setup.world.until_sink_is("soc", "retrying");
        assert!(error.contains("no answer of an HTTP Event Collector"), "{error}");
        terminate(&running);
        running.wait().ends_with(0);
        assert_eq!(setup.sums("delivered"), 0);
        setup.configure("accept", "", "");
        setup.world.collect();
        setup.judge();
    }
}

#[test]
fn a_wrong_token_halts_the_sink_and_a_right_one_brings_it_back() {
    let setup = Setup::acknowledging(Acks::Prompt, "");
    let token = setup.world.path().join("hec-token");
    std::fs::write(&token, "99999999-2222-3333-4444-555555555555").expect("written");
    let running = setup.world.start(&["run"]);
    let error = setup.world.until_sink_is("soc", "halted");
    assert!(error.contains("does not know the token"), "{error}");
    // The file is read again: no restart, no signal.
    std::fs::write(&token, crate::support::hec::TOKEN).expect("written");
    let expected = setup.world.simulator().truth().count() as usize;
    setup.world.until("everything arrived", || setup.hec.count() >= expected);
    setup.world.until_sink_is("soc", "ok");
    terminate(&running);
    let outcome = running.wait().ends_with(0);
    assert!(!outcome.stderr.contains("99999999-2222"), "the token is shown");
    setup.world.collect();
    assert_eq!(setup.judge(), (0, 0));
}

#[test]
fn a_large_request_is_cut_and_a_record_that_is_too_large_alone_is_a_dead_letter() {
    let setup = Setup::accepting("compression = \"none\"\n");
    let plain = {
        setup.world.collect();
        let largest =
            setup.hec.events().iter().map(|event| event.envelope.to_string().len()).max().expect("events");
        setup.hec.clear();
        largest
    };
    let other = Setup::accepting("compression = \"none\"\n");
    // All but a few fit alone; nothing fits with many others.
    other.hec.set(|behaviour| behaviour.max_body = plain - 1);
    other.world.collect();
    let dead = other.sums("dead");
    assert!((1..60).contains(&dead), "{dead} dead letters");
    assert_eq!(other.hec.count() + dead, 12 * 15);
    assert!(other.hec.ids().values().all(|times| *times == 1), "nothing came twice");
    let listed = other.world.mailtrail(&["dead-letters", "list"]).ends_with(0);
    assert!(listed.stdout.contains("too large"), "{}", listed.stdout);
}

#[test]
fn a_server_that_asks_for_time_is_given_it() {
    let setup = Setup::accepting("connections = 1\n");
    setup.hec.set(|behaviour| {
        behaviour.script =
            [Act::Say { http: 503, body: String::new(), retry_after: Some(3), take: false }].into();
    });
    let start = std::time::Instant::now();
    setup.world.collect();
    assert!(start.elapsed() >= Duration::from_secs(3), "it came back before the time");
    setup.judge();
}
