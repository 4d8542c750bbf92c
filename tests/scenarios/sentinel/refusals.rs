//! What is refused: requests that are too large, records that cannot be read, and what needs a person.

use super::{Setup, small};
use crate::support::{sentinel::Act, terminate};

#[test]
fn what_needs_a_person_halts_the_sink_and_says_what_to_do() {
    let setup = Setup::new(small(), "");
    let stream = "Stream: Custom-MailtrailAsim_CL is not configured for the rule";
    for (act, advice) in [
        (
            Act::refuse(404, "NotFound", "Data collection rule not found"),
            "az monitor data-collection rule show",
        ),
        (Act::refuse(400, "InvalidStream", stream), "JSON View"),
        (Act::refuse(401, "InvalidToken", "no"), "az account show --query tenantId"),
        (Act::refuse(302, "", ""), "logs ingestion address"),
        (Act::refuse(405, "", ""), "no answer of the Logs Ingestion API"),
    ] {
        setup.service.set(|behaviour| behaviour.always = Some(act.clone()));
        let running = setup.world.start(&["run"]);
        let error = setup.world.until_sink_is("soc", "halted");
        assert!(error.contains(advice), "{act:?}: {error}");
        assert!(error.contains("[request "), "{error}");
        terminate(&running);
        running.wait().ends_with(0);
        assert_eq!(setup.service.count(), 0);
    }
    // Nothing was lost by any of that.
    setup.service.set(|behaviour| behaviour.always = None);
    setup.world.collect();
    assert_eq!(setup.judge(), (0, 0));
    assert_eq!(setup.sums("dead"), 0);
}

#[test]
fn a_request_that_is_too_large_is_cut_and_a_record_that_is_so_alone_is_a_dead_letter() {
    let setup = Setup::new(small(), "");
    setup.world.collect();
    let mut sizes: Vec<usize> = setup.service.rows().iter().map(|row| row.value.to_string().len()).collect();
    sizes.sort_unstable();
    let setup = Setup::new(small(), "");
    // All but a few fit alone; nothing fits with many others.
    let largest = sizes[sizes.len() - 6] + 2;
    setup.service.set(|behaviour| behaviour.largest = largest);
    setup.world.collect();
    let dead = setup.sums("dead");
    assert!((1..=6).contains(&dead), "{dead} dead letters");
    assert_eq!(setup.service.count() + dead, 12 * 15);
    assert!(setup.service.ids().values().all(|times| *times == 1), "nothing came twice");
    let listed = setup.world.mailtrail(&["dead-letters", "list"]).ends_with(0);
    assert!(listed.stdout.contains("bytes") && listed.stdout.contains("413"), "{}", listed.stdout);
}

#[test]
fn a_record_that_cannot_be_read_becomes_a_dead_letter_alone() {
    let setup = Setup::new(small(), "");
    let poison =
        setup.world.simulator().truth().records().nth(77).and_then(|(_, _, id)| id).expect("a record");
    setup.service.set(|behaviour| behaviour.poison = Some(poison.clone()));
    setup.world.collect();
    assert_eq!((setup.sums("dead"), setup.sums("resent")), (1, 0));
    assert_eq!(setup.service.count(), 12 * 15 - 1);
    assert!(!setup.service.ids().contains_key(&poison));
    let listed = setup.world.mailtrail(&["dead-letters", "list"]).ends_with(0);
    assert!(listed.stdout.contains("it is this record"), "{}", listed.stdout);
}

#[test]
fn a_rule_that_can_read_nothing_makes_no_dead_letters() {
    let setup = Setup::new(small(), "");
    setup.service.set(|behaviour| {
        behaviour.always = Some(Act::refuse(400, "InvalidPayload", "the payload cannot be read"));
    });
    let outcome = setup.world.mailtrail(&["run", "--until-idle"]).ends_with(1);
    assert!(outcome.stderr.contains("answered 400"), "{}", outcome.stderr);
    assert_eq!((setup.sums("dead"), setup.sums("pending")), (0, 12 * 15));
    setup.service.set(|behaviour| behaviour.always = None);
    setup.world.collect();
    // What it gave up was announced as begun, so that it counts; nothing of it was there.
    assert_eq!(setup.judge().0, 0);
}
