//! What `mailtrail check` finds out.

use std::time::{Duration, Instant};

use super::{Setup, small};
use crate::support::sentinel::RULES;

#[test]
fn check_tries_login_address_rule_stream_and_role_without_a_row() {
    let setup = Setup::new(small(), "");
    let outcome = setup.world.mailtrail(&["check"]).ends_with(0);
    assert!(outcome.stdout.contains("sink soc"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("whether rows fit the rule: not tried"), "{}", outcome.stdout);
    assert_eq!(setup.service.count(), 0);
    assert!(setup.service.requests().is_empty(), "an empty list is no delivery");

    let fails = |lines: &str, what: &str| {
        setup.configure(lines);
        let outcome = setup.world.mailtrail(&["check"]).ends_with(1);
        assert!(outcome.stdout.contains(what), "{what}: {}", outcome.stdout);
    };
    fails("dcr_immutable_id = \"dcr-0000000000000000000000000000dead\"\n", "not found");
    fails("stream = \"Custom-Another_CL\"\n", "is not configured");
    setup.service.set(|behaviour| behaviour.role_from = Some(Instant::now() + Duration::from_secs(600)));
    fails(&format!("dcr_immutable_ids = {RULES:?}\n"), "Monitoring Metrics Publisher");
    setup.service.set(|behaviour| behaviour.role_from = None);
    std::fs::write(setup.world.path().join("wrong"), "nonsense").expect("written");
    setup.configure("");
    setup.world.edit(|text| {
        // The tenant's own login stays right.
        let (tenant, sink) = text.split_once("[sinks.soc]").expect("a sink");
        format!("{tenant}[sinks.soc]{}", sink.replace("secret-0", "wrong"))
    });
    let outcome = setup.world.mailtrail(&["check"]).ends_with(1);
    assert!(
        outcome.stdout.contains("AADSTS7000215") || outcome.stdout.contains("secret"),
        "{}",
        outcome.stdout
    );
    assert!(!outcome.stdout.contains("nonsense"), "{}", outcome.stdout);
}

#[test]
fn a_test_event_shows_whether_rows_fit() {
    let setup = Setup::new(small(), "");
    let outcome = setup.world.mailtrail(&["check", "--send-test-event"]).ends_with(0);
    assert!(outcome.stdout.contains("took a test event"), "{}", outcome.stdout);
    setup.service.lost_nothing();
    let rows = setup.service.rows();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].value["Operation"], "MailtrailTestEvent");
}
