//! The manifests: every object is named by one signed entry, whatever crashed and when, and `archive verify` agrees.

use std::{fs, sync::Arc, time::Duration};

use archive::{PublicKey, SigningKey, Store, Target, Verified, Verify, verify::Step};
use entra::SecretSource;
use schemas::Seq;
use secrecy::ExposeSecret as _;

use super::{
    super::{Signing, manifests::Manifests, state},
    World,
};
use crate::{
    holding::Holding as _,
    test_ledger::{Fuse, Kind},
};

impl World {
    /// Makes a key in a file of this name, and signs with it.
    pub(super) fn sign_with(&mut self, name: &str) -> PublicKey {
        let path = self.directory.path().join(name);
        let key = SigningKey::generate().unwrap();
        fs::write(&path, key.to_pem().unwrap().expose_secret()).unwrap();
        let previous_key = self.config.signing.take().map(|signing| signing.key);
        let signing =
            Signing { key: SecretSource::File(path), previous_key, interval: Duration::from_secs(3600) };
        self.config.signing = Some(signing);
        *key.public()
    }

    /// Runs until everything is put and named.
    pub(super) async fn run_to_the_end(&self) {
        let running = self.start();
        running.finish.cancel();
        let finished = async {
            while self.ledger.pending() > 0 || !running.sink.is_finished() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let finished = tokio::time::timeout(Duration::from_secs(86_400), finished).await;
        assert!(finished.is_ok(), "stuck: {:?}", running.health.report());
        running.stop().await;
    }

    /// Runs until it halts, and says why.
    pub(super) async fn run_until_it_halts(&self) -> String {
        let running = self.start();
        running.finish.cancel();
        let halted = async {
            while running.health.report().is_ready() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(600), halted).await.expect("it halts");
        let error = running.health.report().last_error.unwrap();
        running.stop().await;
        error
    }

    pub(super) async fn verify(&self, keys: &[PublicKey]) -> Verified {
        let store = Store::open(&Target::Directory(self.target())).await.unwrap();
        let verify = Verify { keys: keys.to_vec(), heads: Vec::new(), jobs: 2 };
        let mut found = Vec::new();
        let verified = verify
            .run(&store, &mut |step| {
                if let Step::Finding(finding) = step {
                    found.push(format!("{}: {}", finding.subject(), finding.meaning()));
                }
            })
            .await
            .unwrap();
        assert_eq!(found, Vec::<String>::new());
        verified
    }

    pub(super) fn manifests(&self) -> Manifests {
        state::State::decode(&self.ledger.state().unwrap()).unwrap().manifests
    }
}

#[tokio::test(start_paused = true)]
async fn every_object_is_named_and_verified() {
    let works = [30, 0, 20, 7];
    let mut world = World::new(&works);
    world.config.object_bytes = 900;
    let key = world.sign_with("key");
    world.run_to_the_end().await;
    world.is_complete(&works);
    let verified = world.verify(&[key]).await;
    assert_eq!((verified.chains.len(), verified.not_yet_covered), (1, 0));
    assert_eq!((verified.records, verified.chains[0].last_seq), (world.archived().len() as u64, Seq(4)));
    assert_eq!((world.manifests().unnamed(), world.manifests().entries().len()), (0, 0));
    // What comes later is in the next entry, and a run with nothing new adds none.
    world.ledger.add(4, vec![Kind::Plain; 5]);
    world.run_to_the_end().await;
    world.run_to_the_end().await;
    let verified = world.verify(&[key]).await;
    assert_eq!((verified.chains[0].entries, verified.chains[0].last_seq), (2, Seq(5)));
}

#[tokio::test(start_paused = true)]
async fn silence_is_recorded() {
    let mut world = World::new(&[3]);
    let key = world.sign_with("key");
    world.run_to_the_end().await;
    let signing = world.config.signing.as_mut().unwrap();
    signing.interval = Duration::from_millis(20);
    let running = world.start();
    for _ in 0..2000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if super::files(&world.target().join("manifests")).len() >= 3 {
            break;
        }
    }
    running.stop().await;
    world.run_to_the_end().await;
    let verified = world.verify(&[key]).await;
    assert!(verified.chains[0].entries >= 3);
    assert_eq!(verified.records, 3);
}

/// The last entry was made while the clock was a year ahead: silence is recorded nevertheless.
#[tokio::test(start_paused = true)]
async fn a_clock_that_was_ahead_silences_no_chain() {
    let mut world = World::new(&[3]);
    world.sign_with("key");
    world.run_to_the_end().await;
    let mut state: serde_json::Value = serde_json::from_slice(&world.ledger.state().unwrap()).unwrap();
    let chain = state["chains"].as_object_mut().unwrap().values_mut().next().unwrap();
    let ahead = chrono::Utc::now() + chrono::TimeDelta::days(365);
    chain["link"]["to"] = serde_json::to_value(ahead).unwrap();
    world.ledger.set_state(Some(serde_json::to_vec(&state).unwrap()));
    let running = world.start();
    tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
    running.stop().await;
    let entries = super::files(&world.target().join("manifests")).len();
    assert!((3..=4).contains(&entries), "{entries}");
}

/// A sink that was halted for days states what it still can, and says that it is not all.
#[tokio::test(start_paused = true)]
async fn an_entry_says_what_the_ledger_has_forgotten() {
    let mut world = World::new(&[3, 4]);
    let key = world.sign_with("key");
    *world.ledger.incomplete_through.lock().unwrap() = Some(Seq(1));
    world.run_to_the_end().await;
    *world.ledger.incomplete_through.lock().unwrap() = None;
    world.ledger.add(2, vec![Kind::Plain; 5]);
    world.run_to_the_end().await;
    assert_eq!(world.entry(1).incomplete_through, Some(Seq(1)));
    assert_eq!(world.entry(2).incomplete_through, None);
    assert_eq!(world.verify(&[key]).await.records, 12);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_changed_by_the_one_before_it_and_by_nobody_else() {
    let mut world = World::new(&[3]);
    let old = world.sign_with("old");
    world.run_to_the_end().await;
    let new = world.sign_with("new");
    let previous = world.config.signing.as_mut().unwrap().previous_key.take();
    world.ledger.add(1, vec![Kind::Plain; 4]);
    let error = world.run_until_it_halts().await;
    assert!(error.contains("previous_signing_key") && error.contains(&old.id().to_string()), "{error}");
    world.config.signing.as_mut().unwrap().previous_key = previous;
    world.run_to_the_end().await;
    world.config.signing.as_mut().unwrap().previous_key = None;
    world.ledger.add(2, vec![Kind::Plain; 4]);
    world.run_to_the_end().await;
    let verified = world.verify(&[old]).await;
    assert_eq!(
        (verified.chains[0].entries, verified.records),
        (3, 11),
        "the old key leads to the new one {new:?}"
    );
}

/// Every step of a process that puts objects and names them is its last one.
#[test]
fn a_crash_at_every_step_breaks_no_chain() {
    let works = [12, 40, 7];
    let mut survived = 0;
    for steps in 0..400 {
        super::crashes::alone(async {
            let mut world = World::new(&works);
            world.config.object_bytes = 900;
            let key = world.sign_with("key");
            let fuse = Fuse::new(Some(steps));
            let running = world.start_with(Some(Arc::clone(&fuse)));
            running.finish.cancel();
            let finished = async {
                while world.ledger.pending() > 0 || !running.sink.is_finished() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::select! {
                () = fuse.blown.notified() => {}
                () = finished => survived += 1,
            }
            fuse.blow();
            running.task.abort();
            let _ = running.task.await;
            world.run_to_the_end().await;
            world.is_complete(&works);
            let verified = world.verify(&[key]).await;
            assert_eq!(verified.records, world.archived().len() as u64);
        });
        if survived > 3 {
            return;
        }
    }
    panic!("a process that takes more than 400 steps has lost its way");
}
