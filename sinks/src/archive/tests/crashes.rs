//! The process dies at any step: every due record is in exactly one object.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;

use super::World;
use crate::test_ledger::Fuse;

/// One process, from its start to its end.
#[derive(Debug, Clone)]
pub(super) struct Life {
    /// After so many steps it dies.
    pub(super) steps: u32,
    pub(super) object_bytes: u64,
    /// Whether it hears that nothing more is coming.
    pub(super) flushes: bool,
    /// Whether it is stopped in peace, after so many milliseconds, if it lives that long.
    pub(super) stops_after: Option<u64>,
}

fn life() -> impl Strategy<Value = Life> {
    (0u32..90, 200u64..4000, any::<bool>(), proptest::option::of(0u64..400)).prop_map(
        |(steps, object_bytes, flushes, stops_after)| Life { steps, object_bytes, flushes, stops_after },
    )
}

impl World {
    pub(super) async fn live(&mut self, life: &Life) {
        self.config.object_bytes = life.object_bytes;
        let fuse = Fuse::new(Some(life.steps));
        let running = self.start_with(Some(Arc::clone(&fuse)));
        if life.flushes {
            running.finish.cancel();
        }
        let stop = async {
            match life.stops_after {
                Some(after) => tokio::time::sleep(Duration::from_millis(after)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = fuse.blown.notified() => {}
            () = self.ledger.all_settled() => {}
            () = stop => {
                running.stop.cancel();
                // It may die while it stops.
                tokio::time::sleep(Duration::from_secs(20)).await;
            }
            () = tokio::time::sleep(Duration::from_secs(30)) => {}
        }
        fuse.blow();
        running.task.abort();
        let _ = running.task.await;
    }

    async fn end(&mut self, works: &[usize]) {
        self.start().finish(&self.ledger).await;
        self.is_complete(works);
        assert!(super::files(&self.staging()).is_empty(), "{:?}", super::files(&self.staging()));
    }
}

pub(super) fn alone<T>(future: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

/// Every step of a process that fills and puts several objects is its last one.
#[test]
fn a_crash_at_every_step() {
    let works = [3, 12, 1, 40, 7, 16];
    let mut survived = 0;
    for steps in 0..400 {
        alone(async {
            let mut world = World::new(&works);
            let life = Life { steps, object_bytes: 900, flushes: true, stops_after: None };
            world.live(&life).await;
            survived += u32::from(world.ledger.pending() == 0);
            world.end(&works).await;
        });
        if survived > 3 {
            return;
        }
    }
    panic!("a process that takes more than 400 steps has lost its way");
}

/// What a process leaves sealed is damaged before the next one starts: what is in the archive counts, the rest is made
/// anew.
#[test]
fn a_sealed_object_that_is_damaged_here_is_made_anew_unless_it_is_put() {
    let works = [12, 40];
    let (mut put, mut not_put, mut survived) = (0, 0, 0);
    for steps in 0..400 {
        alone(async {
            let mut world = World::new(&works);
            let life = Life { steps, object_bytes: 1 << 20, flushes: true, stops_after: None };
            world.live(&life).await;
            survived += u32::from(world.ledger.pending() == 0);
            let sealed = super::files(&world.staging()).into_iter().filter(|path| path.ends_with(".object"));
            let sealed: Vec<_> = sealed.collect();
            if !sealed.is_empty() && world.ledger.pending() > 0 {
                if world.objects() > 0 { put += 1 } else { not_put += 1 }
            }
            sealed.iter().for_each(|path| std::fs::write(path, "garbage").unwrap());
            world.end(&works).await;
        });
        if survived > 3 {
            break;
        }
    }
    assert!(put > 0 && not_put > 0, "{put} were put, {not_put} were not");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Several crashes and stops, each with another size of object.
    #[test]
    fn crashes_and_stops_in_a_row(
        works in proptest::collection::vec(0usize..30, 1..9),
        lives in proptest::collection::vec(life(), 1..6),
    ) {
        alone(async {
            let mut world = World::new(&works);
            for life in &lives {
                world.live(life).await;
            }
            world.end(&works).await;
        });
    }
}
