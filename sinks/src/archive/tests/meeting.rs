//! Targets that are changed, moved and changed back, and keys that are taken away: no entry says what is not so, and there is
//! always a way on.

use std::fs;

use archive::{ChainKey, Entry, Envelope};
use schemas::Seq;

use super::World;
use crate::{sink::Sink as _, test_ledger::Kind};

impl World {
    fn add(&self, work: i64) {
        self.ledger.add(work, vec![Kind::Plain; 5]);
    }

    fn chain(&self) -> ChainKey {
        let tenant = *self.manifests().chains().keys().next().expect("a chain");
        ChainKey { tenant, ledger: self.ledger.id.lock().unwrap().parse().unwrap() }
    }

    pub(super) fn entry(&self, number: u64) -> Entry {
        let path = self.target().join(self.chain().entry(number).as_str());
        Entry::parse(Envelope::parse(&fs::read(path).unwrap()).unwrap().payload()).unwrap()
    }
}

/// Objects that no entry names would be counted as archived by the next one, and nobody could tell when they are gone.
#[tokio::test(start_paused = true)]
async fn a_signed_archive_is_signed_to_its_end() {
    let mut world = World::new(&[3]);
    let key = world.sign_with("key");
    world.run_to_the_end().await;
    let signing = world.config.signing.take();
    world.add(1);
    let error = world.run_until_it_halts().await;
    assert!(error.contains("signing_key") && error.contains("another target"), "{error}");
    let running = world.start();
    let probed = running.sink.probe().await.unwrap_err();
    assert_eq!(probed.context, error, "whoever only checks is told as well");
    running.stop().await;
    assert_eq!((world.ledger.pending(), world.objects()), (1, 1));
    // Elsewhere nothing has to be signed, and what is signed there later speaks for what comes then.
    world.place = "unsigned";
    world.run_to_the_end().await;
    assert_eq!((world.ledger.pending(), world.objects(), world.manifests().chains().len()), (0, 1, 0));
    world.config.signing = signing;
    world.add(2);
    world.run_to_the_end().await;
    let first = world.entry(1);
    assert_eq!((first.number, first.after_seq, first.last_seq), (1, Seq(2), Seq(3)));
    assert_eq!(first.objects.iter().map(|object| object.records).sum::<u64>(), 5);
    world.place = "target";
    assert_eq!(world.verify(&[key]).await.records, 3);
}

/// Nothing was signed yet, so nothing ends.
#[tokio::test(start_paused = true)]
async fn a_key_that_has_signed_nothing_may_go() {
    let mut world = World::new(&[3]);
    world.sign_with("key");
    let running = world.start();
    world.all_taken().await;
    running.stop().await;
    world.config.signing = None;
    world.run_to_the_end().await;
    world.is_complete(&[3]);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_the_chains_have_left_is_refused_before_anything_is_signed() {
    let mut world = World::new(&[3]);
    let key = world.sign_with("key");
    world.run_to_the_end().await;
    world.place = "second";
    world.add(1);
    world.run_to_the_end().await;
    let head = world.manifests().last_put(world.chain().tenant).unwrap().0;
    world.place = "target";
    world.add(2);
    let error = world.run_until_it_halts().await;
    assert!(error.contains("0000000001.json is there already"), "{error}");
    assert_eq!((world.manifests().entries().len(), world.objects()), (0, 1));
    world.place = "third";
    world.run_to_the_end().await;
    let first = world.entry(1);
    assert_eq!(first.old_head.map(|old| (old.number, old.sha256)), Some((head.number, head.sha256)));
    for (place, records) in [("target", 3), ("second", 5), ("third", 5)] {
        world.place = place;
        assert_eq!(world.verify(&[key]).await.records, records, "{place}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_archive_that_was_moved_goes_on() {
    let mut world = World::new(&[3]);
    let key = world.sign_with("key");
    world.run_to_the_end().await;
    let before = world.target();
    world.place = "moved";
    fs::rename(before, world.target()).unwrap();
    world.add(1);
    world.run_to_the_end().await;
    let verified = world.verify(&[key]).await;
    assert_eq!((verified.chains[0].entries, verified.records), (2, 8));
}

/// An older copy of the state directory, a sink that was forgotten, or somebody who wrote the next entry.
#[tokio::test(start_paused = true)]
async fn an_entry_whose_name_is_taken_keeps_nobody_there() {
    let mut world = World::new(&[3]);
    let key = world.sign_with("key");
    world.run_to_the_end().await;
    let planted = world.target().join(world.chain().entry(2).as_str());
    fs::write(&planted, "planted").unwrap();
    world.add(1);
    for _ in 0..2 {
        let error = world.run_until_it_halts().await;
        assert!(error.contains("other bytes") && error.contains("begin anew"), "{error}");
    }
    assert_eq!(fs::read(&planted).unwrap(), b"planted");
    // Either way on: it is taken away after all, or the target is left.
    let state = world.ledger.state();
    fs::remove_file(&planted).unwrap();
    world.run_to_the_end().await;
    assert_eq!(world.verify(&[key]).await.records, 8);
    world.ledger.set_state(state);
    fs::write(&planted, "planted").unwrap();
    world.place = "second";
    world.add(2);
    world.run_to_the_end().await;
    let first = world.entry(1);
    assert_eq!((first.after_seq, first.last_seq), (Seq(2), Seq(3)));
    assert_eq!(first.old_head.map(|old| old.number), Some(1));
    assert_eq!(world.verify(&[key]).await.records, 5);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_was_forgotten_takes_another_target() {
    let mut world = World::new(&[3]);
    let key = world.sign_with("key");
    world.run_to_the_end().await;
    world.ledger.set_state(None);
    world.add(1);
    let error = world.run_until_it_halts().await;
    assert!(error.contains("0000000001.json is there already"), "{error}");
    world.place = "second";
    world.run_to_the_end().await;
    assert_eq!(world.verify(&[key]).await.records, 5);
}
