//! The process dies at any step, the power is cut, the configuration changes: every due record is in the files exactly
//! once, and whoever tails them has seen each line once.

use std::{collections::BTreeSet, num::NonZeroU32, sync::Arc, time::Duration};

use proptest::prelude::*;

use super::{
    super::{FileConfig, closed::ClosedName},
    Running, config, record_of, records_of,
    sim::{Platter, SimDisk},
    start_at,
};
use crate::{
    rate::Rate,
    test_ledger::{Fuse, Kind, MemoryLedger, Rendering},
};

const DIRECTORIES: [&str; 2] = ["/logs", "/other"];
const LIVE: [&str; 2] = ["/logs/mailtrail.ndjson", "/other/mailtrail.ndjson"];

/// One process, from its start to its end.
#[derive(Debug, Clone)]
struct Life {
    /// After so many steps it dies.
    steps: u32,
    /// How much is lost when the power goes with it: nothing, some, all that can be.
    power: u8,
    settings: Settings,
    failing_syncs: u32,
    /// How many bytes fit beside what is there.
    room: Option<usize>,
}

#[derive(Debug, Clone)]
struct Settings {
    view: u8,
    /// A record is kept when its position is no multiple of this.
    filter: u32,
    rotate_bytes: u64,
    rotates_at_once: bool,
    directory: usize,
    /// Most records of a batch.
    batch: u32,
}

impl Settings {
    /// Everything goes to one file that is never full, in batches of whole works.
    fn one_file() -> Self {
        Self { view: 0, filter: 0, rotate_bytes: 1 << 20, rotates_at_once: false, directory: 0, batch: 100 }
    }

    fn keeps(&self, position: u32) -> bool {
        self.filter < 2 || !position.is_multiple_of(self.filter)
    }

    fn config(&self) -> FileConfig {
        let interval = Duration::from_millis(if self.rotates_at_once { 1 } else { 3_600_000 });
        FileConfig {
            rotate_bytes: self.rotate_bytes,
            rotate_interval: interval,
            ..config(DIRECTORIES[self.directory])
        }
    }

    fn rendering(&self) -> Rendering {
        let settings = self.clone();
        Rendering { view: self.view, keep: Arc::new(move |_, position| settings.keeps(position)) }
    }
}

fn settings() -> impl Strategy<Value = Settings> {
    let directory = prop_oneof![9 => Just(0usize), 1 => Just(1)];
    (0u8..3, 0u32..4, 200u64..4000, any::<bool>(), directory, 1u32..60).prop_map(
        |(view, filter, rotate_bytes, rotates_at_once, directory, batch)| Settings {
            view,
            filter,
            rotate_bytes,
            rotates_at_once,
            directory,
            batch,
        },
    )
}

fn life(power: bool) -> impl Strategy<Value = Life> {
    let power = if power { 3 } else { 1 };
    (
        0u32..120,
        0u8..power,
        settings(),
        prop_oneof![4 => Just(0u32), 1 => 1u32..4],
        proptest::option::weighted(0.15, 0usize..3000),
    )
        .prop_map(|(steps, power, settings, failing_syncs, room)| Life {
            steps,
            power,
            settings,
            failing_syncs,
            room,
        })
}

/// The lives of processes one after the other, and what is on disk in the end.
struct World {
    ledger: Arc<MemoryLedger>,
    platter: Arc<std::sync::Mutex<Platter>>,
}

impl World {
    fn new(works: &[usize], chance: u64) -> Self {
        let kinds = works.iter().map(|records| {
            (0..*records).map(|n| if n % 11 == 10 { Kind::Broken } else { Kind::Plain }).collect()
        });
        Self { ledger: Arc::new(MemoryLedger::new(kinds)), platter: Platter::new(&LIVE, chance) }
    }

    fn start(&self, settings: &Settings, fuse: Arc<Fuse>) -> Running {
        self.ledger.restart(Some(Arc::clone(&fuse)));
        self.ledger.render_as(settings.rendering());
        let disk = SimDisk { platter: Arc::clone(&self.platter), fuse };
        let rate = Rate::new(NonZeroU32::new(settings.batch), None);
        start_at(rate, Arc::new(disk), settings.config(), &self.ledger)
    }

    /// Lives until it dies, or until all is done.
    async fn live(&self, life: &Life) {
        {
            let mut platter = self.platter.lock().unwrap();
            platter.failing_syncs = life.failing_syncs;
            let used: usize = platter.files().values().map(Vec::len).sum();
            platter.room = life.room.map(|room| used + room);
        }
        let fuse = Fuse::new(Some(life.steps));
        let running = self.start(&life.settings, Arc::clone(&fuse));
        tokio::select! {
            () = fuse.blown.notified() => {}
            () = self.ledger.all_settled() => {}
            // With a full disk nothing more happens.
            () = tokio::time::sleep(Duration::from_secs(300)) => {
                assert!(life.room.is_some(), "stuck: {:?}", running.health.report());
            }
        }
        fuse.blow();
        running.task.abort();
        let _ = running.task.await;
        let mut platter = self.platter.lock().unwrap();
        platter.room = None;
        platter.failing_syncs = 0;
        if life.power > 0 {
            platter.cut_power(life.power == 2);
        }
    }

    /// Lives to the end of all work.
    async fn finish(&self, settings: &Settings) {
        self.start(settings, Fuse::new(None)).finish(&self.ledger).await;
    }

    /// The lines of all files in the order of writing.
    fn lines(&self) -> Vec<(i64, u32)> {
        let files = self.platter.lock().unwrap().files();
        let mut closed = Vec::new();
        let mut live = Vec::new();
        for (path, data) in files {
            let name = path.rsplit('/').next().unwrap();
            match ClosedName::parse("mailtrail", name) {
                Some((closed_name, "")) => closed.push((closed_name.number, data)),
                _ => {
                    assert!(LIVE.contains(&path.as_str()), "{path} should not be there");
                    live.push(data);
                }
            }
        }
        closed.sort();
        let numbers: BTreeSet<_> = closed.iter().map(|(number, _)| number).collect();
        assert_eq!(numbers.len(), closed.len(), "every closed file has its own number");
        let mut lines: Vec<_> = closed.iter().flat_map(|(_, data)| records_of(data)).collect();
        live.retain(|data| !data.is_empty());
        assert!(live.len() <= 1, "only one file is live");
        lines.extend(live.iter().flat_map(|data| records_of(data)));
        lines
    }

    fn check(&self, works: &[usize], used: &[&Settings]) {
        let lines = self.lines();
        let distinct: BTreeSet<_> = lines.iter().copied().collect();
        assert_eq!(distinct.len(), lines.len(), "no record is there twice: {lines:?}");
        for (work, records) in works.iter().enumerate() {
            for position in (0..*records as u32).filter(|position| position % 11 != 10) {
                let there = distinct.contains(&(work as i64, position));
                let by: BTreeSet<bool> = used.iter().map(|settings| settings.keeps(position)).collect();
                if by.len() == 1 {
                    assert_eq!(BTreeSet::from([there]), by, "{work} {position} in {lines:?}");
                }
            }
        }
        let filters: BTreeSet<u32> = used.iter().map(|settings| settings.filter.max(1)).collect();
        if filters.len() == 1 {
            assert!(lines.is_sorted(), "{lines:?}");
        }
        for settlement in self.ledger.settlements() {
            let count = lines.iter().filter(|(work, _)| *work == settlement.work.0).count();
            assert_eq!(settlement.delivered as usize, count, "{settlement:?}");
        }
        if let Some(tailer) = &self.platter.lock().unwrap().tailer {
            assert_eq!(tailer.complaints, Vec::<String>::new());
            let seen: Vec<_> = tailer.seen.iter().map(|line| record_of(line)).collect();
            assert_eq!(seen, lines, "the tailer has seen each line once");
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

fn run(works: &[usize], lives: &[Life], last: &Settings, chance: u64) {
    runtime().block_on(async {
        let world = World::new(works, chance);
        for life in lives {
            world.live(life).await;
        }
        world.finish(last).await;
        let used: Vec<_> = lives.iter().map(|life| &life.settings).chain([last]).collect();
        world.check(works, &used);
        // What is settled is fsynced: it survives the worst that a power cut can do.
        world.platter.lock().unwrap().cut_power(true);
        world.check(works, &used);
    });
}

proptest! {
    #[test]
    fn a_killed_process_loses_and_doubles_nothing(
        works in proptest::collection::vec(0usize..40, 1..8),
        settings in settings(),
        deaths in proptest::collection::vec((0u32..120, prop_oneof![4 => Just(0u32), 1 => 1u32..4]), 1..6),
        chance: u64,
    ) {
        let lives: Vec<_> = deaths.into_iter().map(|(steps, failing_syncs)| {
            Life { steps, power: 0, settings: settings.clone(), failing_syncs, room: None }
        }).collect();
        run(&works, &lives, &settings, chance);
    }

    #[test]
    fn nor_when_the_configuration_changes_and_the_disk_is_full(
        works in proptest::collection::vec(0usize..40, 1..8),
        lives in proptest::collection::vec(life(false), 1..7),
        last in settings(),
        chance: u64,
    ) {
        run(&works, &lives, &last, chance);
    }

    #[test]
    fn nor_when_the_power_is_cut(
        works in proptest::collection::vec(0usize..40, 1..8),
        lives in proptest::collection::vec(life(true), 1..7),
        last in settings(),
        chance: u64,
    ) {
        run(&works, &lives, &last, chance);
    }
}

/// Every single step of a run with rotations, one after the other.
#[test]
fn a_crash_at_each_step_is_made_good() {
    let settings =
        Settings { view: 0, filter: 3, rotate_bytes: 900, rotates_at_once: false, directory: 0, batch: 100 };
    let works = [9, 30, 2, 14, 25, 1];
    let mut steps = 0;
    loop {
        let whole = runtime().block_on(async {
            let world = World::new(&works, 7);
            let fuse = Fuse::new(Some(steps));
            let running = world.start(&settings, Arc::clone(&fuse));
            let whole = tokio::select! {
                biased;
                () = fuse.blown.notified() => false,
                () = world.ledger.all_settled() => true,
            };
            fuse.blow();
            running.task.abort();
            let _ = running.task.await;
            world.finish(&settings).await;
            world.check(&works, &[&settings]);
            whole
        });
        if whole {
            break;
        }
        steps += 1;
    }
    assert!(steps > 20, "a run has {steps} steps");
}

/// What a work that was given up meanwhile left half done is cut, its whole lines stay, and the next works are whole:
/// also when those are the first lines of the file.
#[test]
fn works_that_were_given_up_by_somebody_else_leave_whole_lines_and_hold_nobody_up() {
    let settings = Settings::one_file();
    for (steps, gone) in
        (0..40).flat_map(|steps| [vec![0], vec![1], vec![0, 1, 2, 3]].map(|gone| (steps, gone)))
    {
        runtime().block_on(async {
            let world = World::new(&[5, 5, 5, 5], 3);
            let life = Life { steps, power: 0, settings: settings.clone(), failing_syncs: 0, room: None };
            world.live(&life).await;
            let settled: BTreeSet<_> = world.ledger.settlements().iter().map(|s| s.work.0).collect();
            for work in gone.iter().filter(|work| !settled.contains(work)) {
                world.ledger.forget(*work);
            }
            // It is killed once more while it makes that good.
            world.live(&Life { steps: steps / 2, ..life }).await;
            world.finish(&settings).await;
            // And nothing of that is left to confuse the runs after.
            world.ledger.add(4, vec![Kind::Plain; 5]);
            world.finish(&settings).await;
            let lines = world.lines();
            let distinct: BTreeSet<_> = lines.iter().copied().collect();
            assert_eq!(distinct.len(), lines.len());
            let is_whole = |work: &i64| (0..5).all(|position| distinct.contains(&(*work, position)));
            let expected = (0..5).filter(|work| !gone.contains(work) || settled.contains(work));
            assert!(expected.into_iter().all(|work| is_whole(&work)), "{steps} {gone:?}: {lines:?}");
            let tailer = world.platter.lock().unwrap().tailer.take().expect("nobody cut the power");
            assert_eq!(tailer.complaints, Vec::<String>::new(), "{steps} {gone:?}");
            let seen: Vec<_> = tailer.seen.iter().map(|line| record_of(line)).collect();
            assert_eq!(seen, lines, "no line is taken back");
        });
    }
}

/// The disk is full for a while: it is told, whole lines stay for whoever tails the file, and it goes on.
#[test]
fn a_full_disk_is_waited_for() {
    let settings = Settings::one_file();
    for room in [0, 1, 100, 1000, 2000] {
        runtime().block_on(async {
            let world = World::new(&[9, 30, 2], 1);
            world.platter.lock().unwrap().room = Some(room);
            let running = world.start(&settings, Fuse::new(None));
            tokio::time::sleep(Duration::from_secs(1000)).await;
            let report = running.health.report();
            let error = report.last_error.expect("it fails");
            assert!(error.contains("no room"), "{error}");
            assert!(report.only_failing_since.is_some());
            assert!(world.ledger.pending() > 0);
            let whole = records_of_whole_lines(&world);
            world.platter.lock().unwrap().room = None;
            running.finish(&world.ledger).await;
            world.check(&[9, 30, 2], &[&settings]);
            assert!(world.lines().starts_with(&whole));
            world.platter.lock().unwrap().cut_power(true);
            world.check(&[9, 30, 2], &[&settings]);
        });
    }
}

fn records_of_whole_lines(world: &World) -> Vec<(i64, u32)> {
    let files = world.platter.lock().unwrap().files();
    files.get(LIVE[0]).map(|data| records_of(data)).unwrap_or_default()
}

/// The live file is taken away before or while the sink runs, and the process dies at any step after that.
#[test]
fn a_crash_while_a_file_is_started_anew_is_made_good() {
    let settings = Settings::one_file();
    for steps in 0..14 {
        for running_meanwhile in [false, true] {
            runtime().block_on(async {
                let world = World::new(&[20, 3], 5);
                world.platter.lock().unwrap().tailer = None;
                world.ledger.forget(1);
                let fuse = Fuse::new(None);
                let running = world.start(&settings, Arc::clone(&fuse));
                world.ledger.all_settled().await;
                if !running_meanwhile {
                    running.task.abort();
                    let _ = running.task.await;
                    world.platter.lock().unwrap().take_away(LIVE[0]);
                    world.ledger.remember(1);
                    let life =
                        Life { steps, power: 0, settings: settings.clone(), failing_syncs: 0, room: None };
                    world.live(&life).await;
                } else {
                    world.platter.lock().unwrap().take_away(LIVE[0]);
                    fuse.blow_after(steps);
                    world.ledger.remember(1);
                    tokio::select! {
                        biased;
                        () = fuse.blown.notified() => {}
                        () = world.ledger.all_settled() => {}
                    }
                    fuse.blow();
                    running.task.abort();
                    let _ = running.task.await;
                }
                world.finish(&settings).await;
                assert_eq!(world.lines(), [(1, 0), (1, 1), (1, 2)], "{steps} {running_meanwhile}");
            });
        }
    }
}

/// The filter keeps more after a crash: what the earlier run sent comes first, then the rests of its works, in many
/// batches, and the process dies again in the midst of them.
#[test]
fn a_crash_while_an_earlier_crash_is_made_good_is_made_good() {
    let some =
        Settings { view: 0, filter: 2, rotate_bytes: 400, rotates_at_once: false, directory: 0, batch: 100 };
    let all = Settings { filter: 0, batch: 4, ..some.clone() };
    let works = [6, 5, 7];
    for first in (6..24).step_by(3) {
        for second in 0..45 {
            let life = |steps, settings: &Settings| Life {
                steps,
                power: 0,
                settings: settings.clone(),
                failing_syncs: 0,
                room: None,
            };
            run(&works, &[life(first, &some), life(second, &all)], &all, 1);
        }
    }
}
