//! One event that the receiver will never take.

use super::{Setup, small};
use crate::support::hec::{Acks, Hec, record_id};

/// With the id of one record in the midst of the others.
fn poisoned(code: u64, counts_from: Option<usize>, takes_prefix: bool) -> (Setup, String) {
    let setup = Setup::new(small(), Hec::start(Acks::Prompt), "indexer", "");
    let ids: Vec<String> = setup.world.simulator().truth().records().filter_map(|(_, _, id)| id).collect();
    let poison = ids[ids.len() / 2].clone();
    setup.hec.set(|behaviour| {
        behaviour.poison = Some((poison.clone(), code));
        behaviour.counts_from = counts_from;
        behaviour.takes_prefix = takes_prefix;
    });
    setup.world.collect();
    (setup, poison)
}

#[test]
fn it_becomes_one_dead_letter_however_it_is_counted() {
    for (code, counts_from, takes_prefix) in
        [(6, Some(0), true), (6, Some(1), true), (12, None, false), (13, Some(7), false), (15, None, true)]
    {
        let (setup, poison) = poisoned(code, counts_from, takes_prefix);
        let ids = setup.hec.ids();
        let expected = setup.world.simulator().truth().count() as usize;
        assert_eq!(ids.len(), expected - 1, "code {code}");
        assert!(!ids.contains_key(&poison));
        assert_eq!((setup.sums("delivered"), setup.sums("dead")), (expected - 1, 1), "code {code}");
        let twice: usize = ids.values().map(|times| times - 1).sum();
        let resent = setup.sums("resent");
        assert!(twice <= resent, "code {code}: {twice} came again, {resent} are counted");
        assert!(takes_prefix || twice == 0, "code {code}: {twice} came again");
        let listed = setup.world.mailtrail(&["dead-letters", "list"]).ends_with(0);
        assert!(listed.stdout.contains(&format!("code {code}")), "{}", listed.stdout);
        // `reconcile` does not let it pass, until somebody has repaired the receiver and tried it again.
        setup.world.mailtrail(&["reconcile"]).ends_with(1);
        setup.hec.set(|behaviour| behaviour.poison = None);
        setup.world.mailtrail(&["dead-letters", "retry", "--all"]).ends_with(0);
        setup.world.collect();
        let last = setup.hec.events().pop().expect("events");
        assert_eq!(record_id(&last.envelope["event"]), poison);
        setup.world.mailtrail(&["reconcile"]).ends_with(0);
    }
}
