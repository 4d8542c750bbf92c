//! `check` finds what is wrong with a receiver, without sending an event unless it is asked to.

use super::Setup;
use crate::support::hec::{Acks, Act, Hec};

#[test]
fn a_good_receiver_gets_no_event_and_the_index_is_not_tried() {
    let setup = Setup::acknowledging(Acks::Prompt, "index = \"o365\"\n");
    let outcome = setup.world.mailtrail(&["check"]).ends_with(0);
    assert!(outcome.stdout.contains("ok    sink soc: can be delivered to"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("note  sink soc: index: not tried"), "{}", outcome.stdout);
    assert_eq!(setup.hec.count(), 0);
}

#[test]
fn what_is_wrong_is_named_with_what_to_do() {
    let mut setup = Setup::acknowledging(Acks::Off, "");
    let outcome = setup.world.mailtrail(&["check"]).ends_with(1);
    assert!(outcome.stdout.contains("Enable indexer acknowledgement"), "{}", outcome.stdout);
    std::fs::write(setup.world.path().join("hec-token"), "wrong-one").expect("written");
    let outcome = setup.world.mailtrail(&["--log-level", "trace", "check"]).ends_with(1);
    assert!(outcome.stdout.contains("does not know the token"), "{}", outcome.stdout);
    assert!(!outcome.text().contains("wrong-one"), "the token is shown");
    std::fs::remove_file(setup.world.path().join("hec-token")).expect("it is there");
    let outcome = setup.world.mailtrail(&["check"]).ends_with(1);
    assert!(outcome.stdout.contains("hec-token"), "{}", outcome.stdout);
    std::fs::write(setup.world.path().join("hec-token"), crate::support::hec::TOKEN).expect("written");
    setup.hec.stop();
    let outcome = setup.world.mailtrail(&["check"]).ends_with(1);
    assert!(outcome.stdout.contains(&setup.hec.url()), "{}", outcome.stdout);
    assert_eq!(setup.hec.count(), 0);
}

#[test]
fn a_receiver_that_says_it_is_unwell_is_believed_and_others_know_nothing_of_it() {
    let setup = Setup::acknowledging(Acks::Prompt, "");
    for number in [18, 19, 20, 23] {
        setup.hec.set(|behaviour| behaviour.health = (503, number));
        let outcome = setup.world.mailtrail(&["check"]).ends_with(1);
        assert!(outcome.stdout.contains(&format!("answered 503, code {number}")), "{}", outcome.stdout);
    }
    // A token is not needed to ask, and whoever keeps the path for itself says nothing about the receiver.
    for (http, number) in [(200, 17), (400, 21), (400, 22), (404, 404)] {
        setup.hec.set(|behaviour| behaviour.health = (http, number));
        let outcome = setup.world.mailtrail(&["check"]).ends_with(0);
        assert!(outcome.stdout.contains("ok    sink soc: can be delivered to"), "{}", outcome.stdout);
    }
    // One of two is enough.
    let unwell = Hec::start(Acks::Prompt);
    unwell.set(|behaviour| behaviour.health = (503, 18));
    let urls = format!("urls = [{:?}, {:?}]\n", setup.hec.url(), unwell.url());
    setup.configure("indexer", &urls, "");
    let outcome = setup.world.mailtrail(&["check"]).ends_with(0);
    assert!(outcome.text().contains("one of the receivers is out of order"), "{}", outcome.text());
    assert_eq!(setup.hec.count() + unwell.count(), 0);
}

#[test]
fn a_test_event_finds_an_index_that_is_not_allowed() {
    let setup = Setup::acknowledging(Acks::Prompt, "index = \"o356\"\n");
    setup.hec.set(|behaviour| behaviour.index = Some("o365".to_owned()));
    let outcome = setup.world.mailtrail(&["check", "--send-test-event"]).ends_with(1);
    assert!(outcome.stdout.contains("index `o356` does not exist or is not allowed"), "{}", outcome.stdout);
    setup.configure("indexer", "index = \"o365\"\n", "");
    let outcome = setup.world.mailtrail(&["check", "--send-test-event"]).ends_with(0);
    assert!(outcome.stdout.contains("took a test event"), "{}", outcome.stdout);
    let events = setup.hec.events();
    assert_eq!(events.len(), 1);
    let event = events[0].envelope["event"].as_str().expect("text").to_owned();
    assert!(event.contains("MailtrailTestEvent"), "{event}");
    // What is refused otherwise is told too.
    setup.hec.set(|behaviour| behaviour.always = Some(Act::code(400, 6)));
    let outcome = setup.world.mailtrail(&["check", "--send-test-event"]).ends_with(1);
    assert!(outcome.stdout.contains("code 6"), "{}", outcome.stdout);
}
