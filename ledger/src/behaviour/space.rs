//! The spool's bound, space that comes back, and full disks.

use super::opening::noise;
use crate::{
    BodyError, Deferral, LedgerError, SPOOL_FULL, SinkSpec, StartFrom,
    faults::{Point, in_tests::Fault},
    testing::*,
};

/// A body of about so many bytes in the spool.
fn bulky(number: u64, bytes: usize) -> String {
    // What zstd makes of it is a little more than half.
    format!("[{}]", record(number, &noise(bytes)))
}

fn used(bench: &Bench) -> u64 {
    bench.segments().iter().map(|path| path.metadata().unwrap().len()).sum()
}

/// Lists blobs and fetches them until fetching pauses; gives how many were taken.
fn fill(bench: &Bench, tenant_number: u8, count: u64) -> u64 {
    for number in 0..count {
        bench
            .list(feed(tenant_number), &[&format!("{}-{number}", bench.number("SELECT count(*) FROM blob"))]);
    }
    drain(bench, tenant_number, count)
}

fn drain(bench: &Bench, tenant_number: u8, count: u64) -> u64 {
    // A claim that finds no room makes the writer look for some.
    let claim = || (0..3).find_map(|_| bench.claim(tenant(tenant_number)));
    (0..count)
        .find(|number| {
            let Some(lease) = claim() else { return true };
            let text =
                bulky(1000 * u64::from(tenant_number) + lease.work.0 as u64 + number * 100_000, 50_000);
            bench.take(lease.work, text.as_bytes()).unwrap();
            false
        })
        .unwrap_or(count)
}

#[test]
fn a_full_spool_pauses_fetching_until_the_sinks_have_caught_up() {
    let bench = Bench::with(|settings| settings.spool_max_bytes = 1_000_000);
    let paused = bench.ledger.spool_paused();
    let taken = fill(&bench, 1, 60);
    assert!((10..40).contains(&taken), "{taken}");
    assert!(*paused.borrow());
    assert!(used(&bench) < 1_100_000);
    bench.deliver("a");
    assert!(bench.claim(tenant(1)).is_none(), "one sink alone does not free anything");
    assert_eq!(bench.deliver("b"), taken as usize);
    bench.maintain();
    assert!(used(&bench) < 100_000, "{}", used(&bench));
    assert!(drain(&bench, 1, 60) > 5);
}

#[test]
fn bodies_are_compressed_once_they_pile_up() {
    let bench = Bench::with(|settings| settings.spool_max_bytes = 8_000_000);
    let text = |number| format!("[{}]", record(number, &"x".repeat(150_000)));
    let stored = |number: u64| {
        let before = used(&bench);
        let (work, _) = bench.spool(feed(1), &format!("{number}"), &text(number));
        assert_eq!(format!("[{}]", bench.read(work).join(",")), text(number));
        used(&bench) - before
    };
    assert!(stored(1) > 150_000, "nearly empty");
    let sizes: Vec<_> = (2..10).map(stored).collect();
    assert!(sizes[7] < 10_000, "{sizes:?}");
    bench.deliver("a");
    bench.deliver("b");
    bench.maintain();
    bench.claim(tenant(1));
    assert!(stored(10) > 150_000, "nearly empty again");
}

#[test]
fn l11_each_tenant_keeps_half_of_its_equal_share() {
    let bench = Bench::with(|settings| settings.spool_max_bytes = 4_000_000);
    bench.list(feed(2), &["first"]);
    let greedy = fill(&bench, 1, 200);
    let modest = fill(&bench, 2, 200);
    assert!(bench.claim(tenant(1)).is_none() && bench.claim(tenant(2)).is_none());
    // Half of an equal share of two is a quarter.
    assert!(greedy > 2 * modest && 4 * modest + 8 >= greedy + modest, "{greedy} {modest}");
    assert!(used(&bench) < 4_200_000);
    let report = bench.ledger.inspector().status().unwrap();
    assert!(report.spool_bytes >= 3_700_000, "{}", report.spool_bytes);
}

#[test]
fn one_stuck_blob_pins_no_more_than_itself() {
    let bench = Bench::with(|settings| settings.spool_max_bytes = 2_000_000);
    let mut stuck = Vec::new();
    for round in 0..6 {
        let taken = fill(&bench, 1, 8);
        assert_eq!(taken, 8, "round {round}");
        // The first of each round stays.
        stuck.push(bench.lease("a", 1).pop().unwrap());
        bench.deliver("a");
        bench.deliver("b");
        bench.maintain();
    }
    for _ in 0..20 {
        bench.maintain();
    }
    let status = bench.ledger.inspector().status().unwrap();
    assert!(status.spool_bytes <= 2 * status.spool_live_bytes + 300_000, "{status:?}");
    assert_eq!(used(&bench), status.spool_bytes);
    for lease in &stuck {
        assert_eq!(bench.read(lease.work.id).len(), 1);
    }
    assert!(bench.reconcile().agrees());
}

#[test]
fn an_optional_sink_makes_room_and_is_fetched_for_again() {
    let bench = Bench::with(|settings| settings.spool_max_bytes = 1_000_000);
    let optional = |name| SinkSpec { name: sink(name), required: false, start_from: StartFrom::Spooled };
    bench.ledger.meet_sinks(vec![spec("a"), optional("b")]).wait().unwrap();
    let taken = fill(&bench, 1, 60);
    assert!(taken < 40);
    assert_eq!(bench.lease("b", 100).len() as u64, taken, "what the required sink wants is not given up");
    // While b holds some of them.
    let held = bench.lease("b", 2);
    bench.deliver("a");
    assert!(drain(&bench, 1, 60) > 2, "room was made");
    for lease in &held {
        assert_eq!(bench.read(lease.work.id).len(), 1, "a live lease keeps its body");
    }
    let report = bench.reconcile();
    let dead = report.hours[0].sinks[&sink("b")].blobs.dead;
    let letters = bench.ledger.inspector().dead_letters(&crate::LetterFilter::default()).unwrap();
    assert!(dead > 0 && dead == letters.len() as u64);
    assert!(letters.iter().all(|letter| letter.reason == SPOOL_FULL && letter.size == 0));
    assert!(report.agrees());
    // A retry fetches the blob again, for this sink only, and nothing in it is a repetition of itself.
    drop(held);
    bench.deliver("a");
    bench.deliver("b");
    let first = &letters[0];
    let retried = bench.ledger.retry_dead_letters(vec![first.id]).wait().unwrap();
    let leases = bench.ledger.claim_fetches(tenant(1), 100).wait().unwrap();
    let lease = leases.iter().find(|lease| lease.work == retried.works[0]).unwrap();
    assert_eq!(lease.blob.content_id, first.content_id);
    let number = first.work.0 as u64;
    let spooled = bench.take(lease.work, bulky(1000 + number + (number - 1) * 100_000, 50_000).as_bytes());
    assert_eq!(spooled.unwrap().duplicates, 0);
    assert!(bench.lease("a", 1).is_empty());
    assert_eq!(bench.deliver("b"), 1);
    // When the sink is forgotten, what it was to be fetched again for is not fetched.
    let retried = bench.ledger.retry_dead_letters(vec![letters[2].id]).wait().unwrap();
    assert_eq!(retried.works.len(), 1);
    drop(leases);
    bench.ledger.remove_sink(&sink("b")).wait().unwrap();
    bench.ledger.forget_sink(&sink("b")).unwrap();
    assert_eq!(bench.number("SELECT count(*) FROM blob WHERE kind = 'retry' AND state = 'listed'"), 0);
    bench.ledger.add_sink(optional("b")).wait().unwrap();
    let gone = bench.ledger.retry_dead_letters(vec![letters[1].id]).wait().unwrap();
    assert_eq!(gone.refused, [(letters[1].id, crate::RetryRefused::NoSink)]);
    // Later the service has forgotten it.
    bench.clock.advance(chrono::TimeDelta::days(8));
    let late = bench.ledger.retry_dead_letters(vec![letters[1].id]).wait().unwrap();
    assert_eq!(late.refused, [(letters[1].id, crate::RetryRefused::Expired)]);
}

#[test]
fn a_sink_that_keeps_up_gives_up_nothing_for_one_that_is_stuck() {
    let bench = Bench::with(|settings| settings.spool_max_bytes = 1_000_000);
    let optional = |name| SinkSpec { name: sink(name), required: false, start_from: StartFrom::Spooled };
    bench.ledger.meet_sinks(vec![spec("a"), optional("b"), optional("c")]).wait().unwrap();
    let taken = fill(&bench, 1, 60) as usize;
    bench.deliver("a");
    // All but the newest three.
    let leases = bench.lease("b", taken - 3);
    bench.ledger.settle(&sink("b"), leases.iter().map(delivered).collect(), None).wait().unwrap();
    drop(leases);
    assert_eq!(drain(&bench, 1, 1), 1, "room was made");
    let letters = || bench.ledger.inspector().dead_letters(&crate::LetterFilter::default()).unwrap();
    let of = |name| letters().iter().filter(|letter| letter.sink == Some(sink(name))).count();
    assert!(of("b") == 0 && of("c") > 0);
    assert!(bench.reconcile().agrees());
}

#[test]
fn what_several_optional_sinks_want_is_given_up_for_all_of_them_and_only_when_that_makes_room() {
    let bench = Bench::with(|settings| settings.spool_max_bytes = 1_000_000);
    let optional = |name| SinkSpec { name: sink(name), required: false, start_from: StartFrom::Spooled };
    bench.ledger.meet_sinks(vec![spec("a"), optional("b"), optional("c")]).wait().unwrap();
    let taken = fill(&bench, 1, 60) as usize;
    bench.deliver("a");
    let held = bench.lease("c", 2);
    assert_eq!(drain(&bench, 1, 1), 1, "room was made");
    let letters = bench.ledger.inspector().dead_letters(&crate::LetterFilter::default()).unwrap();
    let of = |name| -> Vec<_> {
        let of_sink = letters.iter().filter(|letter| letter.sink == Some(sink(name)));
        of_sink.map(|letter| letter.work).collect()
    };
    assert_eq!(of("b"), of("c"));
    assert!(!of("b").is_empty() && of("b").len() < taken / 2, "the oldest, as many as were needed");
    assert!(held.iter().all(|lease| !of("b").contains(&lease.work.id)), "that would make no room");
}

#[test]
fn what_was_tried_makes_room_last_and_counts_as_sent_again_when_it_is_retried() {
    let bench = Bench::with(|settings| settings.spool_max_bytes = 1_000_000);
    let optional = |name| SinkSpec { name: sink(name), required: false, start_from: StartFrom::Spooled };
    bench.ledger.meet_sinks(vec![spec("a"), optional("b")]).wait().unwrap();
    fill(&bench, 1, 60);
    bench.deliver("a");
    // A part of the oldest one was acknowledged, of the next one perhaps, and then the sink stopped.
    let leases = bench.lease("b", 2);
    let tried = [leases[0].work.id, leases[1].work.id];
    let deferral = |work, begun| Deferral { work, not_before: None, error: "stopped".into(), begun };
    let deferrals = vec![deferral(tried[0], 0), deferral(tried[1], 1)];
    bench.ledger.defer(&sink("b"), deferrals).wait().unwrap();
    drop(leases);
    assert_eq!(drain(&bench, 1, 1), 1, "room was made");
    let letters = || bench.ledger.inspector().dead_letters(&crate::LetterFilter::default()).unwrap();
    assert!(!letters().is_empty() && letters().iter().all(|letter| !tried.contains(&letter.work)));

    // Now they are all that is left.
    let others = bench.lease("b", 100).into_iter().filter(|lease| !tried.contains(&lease.work.id));
    let others: Vec<_> = others.collect();
    bench.deliver("a");
    bench.list(feed(1), &["more"]);
    drain(&bench, 1, 60);
    let letters = letters();
    let of_tried = letters.iter().filter(|letter| tried.contains(&letter.work)).map(|letter| letter.id);
    let (of_tried, other) = (of_tried.collect::<Vec<_>>(), letters[0].id);
    assert_eq!(of_tried.len(), 2);
    drop(others);
    // Room for the retries, and nothing else to be fetched.
    while (bench.deliver("a"), bench.deliver("b"), drain(&bench, 1, 60)).2 > 0 {}
    for (letter, begun) in [(of_tried[0], 1), (of_tried[1], 1), (other, 0)] {
        let retry = bench.ledger.retry_dead_letters(vec![letter]).wait().unwrap().works[0];
        let claims = bench.ledger.claim_fetches(tenant(1), 100).wait().unwrap();
        let claim = claims.iter().find(|claim| claim.work == retry).unwrap();
        bench.take(claim.work, body([letter as u64]).as_bytes()).unwrap();
        let lease = bench.ledger.lease_these(&sink("b"), &[retry]).wait().unwrap().remove(0);
        assert_eq!(lease.begun, begun, "{letter}");
        bench.ledger.settle(&sink("b"), vec![delivered(&lease)], None).wait().unwrap();
    }
}

#[test]
fn a_full_disk_harms_nothing_and_everything_works_later() {
    for point in [Point::MakeSegment, Point::Append, Point::SyncSegments, Point::SyncIds, Point::Commit] {
        let mut bench = Bench::new();
        if point != Point::MakeSegment {
            bench.spool(feed(1), "w", &body([1]));
        }
        bench.list(feed(1), &["x"]);
        let lease = bench.claim(tenant(1)).unwrap();
        bench.faults.plan(point, 0, Fault::Full);
        let error = bench.take(lease.work, body([2, 3]).as_bytes()).unwrap_err();
        let BodyError::Ledger(error) = error else { panic!("{error}") };
        assert!(matches!(error, LedgerError::DiskFull { .. }) && error.passing(), "{point:?}: {error}");
        assert_eq!(bench.take(lease.work, body([2, 3]).as_bytes()).unwrap().duplicates, 0, "{point:?}");
        drop(lease);
        bench.reopen();
        assert_eq!(bench.recovery.spool, crate::SpoolRecovery::default(), "{point:?}");
        assert_eq!(bench.spool(feed(1), "y", &body([3, 4])).1.duplicates, 1, "{point:?}");
        assert!(bench.deliver("a") >= 2);
        assert!(bench.reconcile().agrees(), "{point:?}");
    }
}

#[test]
fn a_failed_sync_is_not_trusted() {
    let bench = Bench::new();
    bench.spool(feed(1), "w", &body([1]));
    bench.list(feed(1), &["x"]);
    let lease = bench.claim(tenant(1)).unwrap();
    bench.faults.plan(Point::SyncSegments, 0, Fault::Broken);
    assert!(bench.take(lease.work, body([2]).as_bytes()).is_err());
    bench.take(lease.work, body([2]).as_bytes()).unwrap();
    assert_eq!(bench.segments().len(), 2, "the file whose sync failed is not written to again");
    assert_eq!(bench.deliver("a"), 2);
}

#[test]
fn a_full_database_ends_the_group_and_nothing_else() {
    let bench = Bench::new();
    let limit = |pages: i64| {
        bench
            .ledger
            .look(move |writer| Ok(writer.db.pragma_update(None, "max_page_count", pages)?))
            .wait()
            .unwrap();
    };
    let pages = bench.number("PRAGMA page_count");
    limit(pages + 2);
    let ids: Vec<_> = (0..2000).map(|number| format!("{number:0>100}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let page = crate::ListedPage {
        feed: feed(1),
        blobs: ids.iter().map(|id| bench.listed(id)).collect(),
        completes: None,
    };
    let error = bench.ledger.record_page(page).wait().unwrap_err();
    assert!(matches!(error, LedgerError::DiskFull { .. }), "{error}");
    assert_eq!(bench.number("SELECT count(*) FROM blob"), 0);
    limit(1_000_000);
    assert_eq!(bench.list(feed(1), &ids), 2000);
    assert!(bench.reconcile().agrees());
}

/// A file system of a few megabytes.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts it; `None` when that is not permitted.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(dir.path())
            .stderr(std::process::Stdio::null())
            .status();
        mount.is_ok_and(|status| status.success()).then(|| Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_disk_that_is_really_full_harms_nothing() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: mounting a small file system is not permitted here");
        return;
    };
    let mut bench = Bench::in_directory(tempfile::tempdir_in(disk.0.path()).unwrap(), |_| {});
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    let mut taken = 0;
    let error = loop {
        assert!(taken < 500, "the disk never was full");
        bench.list(feed(1), &[&format!("{taken}")]);
        let lease = bench.claim(tenant(1)).unwrap();
        match bench.take(lease.work, bulky(taken, 50_000).as_bytes()) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    let BodyError::Ledger(error) = error else { panic!("{error}") };
    assert!(matches!(error, LedgerError::DiskFull { .. }) && error.passing(), "{error}");
    std::fs::remove_file(ballast).unwrap();
    let lease = bench.claim(tenant(1)).unwrap();
    bench.take(lease.work, bulky(taken, 50_000).as_bytes()).unwrap();
    drop(lease);
    bench.reopen();
    assert_eq!(bench.recovery.spool, crate::SpoolRecovery::default());
    assert_eq!(bench.deliver("a"), taken as usize + 1);
    for lease in bench.lease("b", 1000) {
        assert_eq!(bench.read(lease.work.id).len(), 1);
    }
    assert!(bench.reconcile().agrees());
}

#[test]
fn claims_and_leases_do_not_read_what_is_done_or_waits() {
    let bench = Bench::new();
    let steps = || -> u64 {
        bench
            .ledger
            .look(|writer| {
                let count = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
                let seen = std::sync::Arc::clone(&count);
                writer.db.progress_handler(
                    1,
                    Some(move || {
                        seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        false
                    }),
                )?;
                writer.claim_fetches(tenant(2), 4)?;
                writer.lease(&sink("a"), 4.into())?;
                writer.db.progress_handler(0, None::<fn() -> bool>)?;
                Ok(count.load(std::sync::atomic::Ordering::Relaxed))
            })
            .wait()
            .unwrap()
    };
    bench.list(feed(2), &["x", "y", "z"]);
    bench.spool(feed(1), "w", &body([1]));
    let few = steps();
    // Ten thousand blobs of another tenant to fetch, and ten thousand deliveries that are settled.
    let ids: Vec<_> = (0..10_000).map(|number| number.to_string()).collect();
    bench.list(feed(1), &ids.iter().map(String::as_str).collect::<Vec<_>>());
    let fill = "INSERT INTO blob (tenant, feed, kind, content_id, created, expires, listed_at, state, seq) \
                SELECT tenant, feed, 'blob', 'old' || content_id, created, expires, listed_at, 'settled', work \
                FROM blob WHERE state = 'listed';
                INSERT INTO delivery (work, sink, tenant, seq, due, state) \
                SELECT work, 1, tenant, seq, 0, 'delivered' FROM blob WHERE state = 'settled'";
    bench.ledger.change(|writer| Ok(writer.db.execute_batch(fill)?)).wait().unwrap();
    let many = steps();
    assert!(few > 100 && many < 2 * few, "{few} steps, then {many}");
}
