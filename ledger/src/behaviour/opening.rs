//! Opening: the lock, what a crash leaves behind, and looking from outside.

use std::os::unix::fs::PermissionsExt;

use crate::{
    Inspector, Ledger, LedgerError, OpenError, Settings, SpoolRecovery,
    faults::{Point, in_tests::Fault},
    testing::*,
};

#[test]
fn one_process_at_a_time_and_the_other_is_named() {
    let mut bench = Bench::new();
    let error = Ledger::open(bench.path(), Settings::default()).unwrap_err();
    let OpenError::Locked { pid, .. } = &error else { panic!("{error}") };
    assert_eq!(*pid, Some(std::process::id()));
    assert!(error.to_string().contains("in use by the process"), "{error}");
    bench.reopen();
    assert!(!bench.recovery.unclean && !bench.recovery.new);
}

#[test]
fn nobody_else_may_read_it() {
    let bench = Bench::new();
    bench.spool(feed(1), "x", &body([1]));
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    for name in ["ledger.sqlite", "ledger.sqlite-wal", "lock"] {
        assert_eq!(mode(&bench.path().join(name)), 0o600, "{name}");
    }
    assert_eq!(mode(&bench.path().join("spool")), 0o700);
    assert_eq!(mode(&bench.segments()[0]), 0o600);
}

#[test]
fn a_closed_ledger_answers_that_it_is_closed() {
    let bench = Bench::new();
    bench.ledger.close();
    assert!(matches!(bench.ledger.feed_state(feed(1)).wait(), Err(LedgerError::Closed)));
}

#[test]
fn a_ledger_that_is_dropped_closes_though_a_lease_is_held() {
    let Bench { dir, settings, ledger, .. } = {
        let bench = Bench::new();
        bench.spool(feed(1), "x", &body([1]));
        bench
    };
    let lease = ledger.lease(&sink("a"), 1).wait().unwrap();
    let answer = ledger.idle_state();
    drop(ledger);
    answer.wait().unwrap();
    // The writer is on its way out; the lock tells when it is gone.
    let again = loop {
        match Ledger::open(dir.path(), settings.clone()) {
            Ok((again, recovery)) => {
                assert!(!recovery.unclean);
                break again;
            }
            Err(OpenError::Locked { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(again.lease(&sink("a"), 1).wait().unwrap().len(), 1);
    drop(lease);
}

#[test]
fn the_spool_is_cleaned_of_what_was_never_committed() {
    let mut bench = Bench::new();
    let (work, _) = bench.spool(feed(1), "x", &body(0..3));
    bench.ledger.close();
    let spool = bench.path().join("spool");
    let segment = bench.segments().pop().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let length = bytes.len();
    bytes.extend_from_slice(b"half a frame");
    std::fs::write(&segment, &bytes).unwrap();
    std::fs::write(spool.join("0000000008.seg"), &bytes[..40]).unwrap();
    std::fs::write(spool.join("incoming-7-1.part"), b"half a body").unwrap();
    std::fs::write(spool.join("notes.txt"), b"not ours").unwrap();
    // A segment of another ledger.
    let other = Bench::new();
    other.spool(feed(1), "x", &body(0..3));
    let foreign = std::fs::read(other.segments().pop().unwrap()).unwrap();
    std::fs::write(spool.join("0000000009.seg"), &foreign).unwrap();
    bench.open().unwrap();
    assert_eq!(
        bench.recovery.spool,
        SpoolRecovery { cut_bytes: 12, orphans: 1, parts: 1, foreign: 1, damaged: Vec::new() }
    );
    assert_eq!(segment.metadata().unwrap().len() as usize, length);
    assert!(spool.join("notes.txt").exists() && spool.join("0000000009.seg").exists());
    assert_eq!(bench.read(work).len(), 3);
    bench.spool(feed(1), "y", &body(3..6));
    // In the place of its own segment, another ledger's is damage: nothing of it is believed.
    bench.ledger.close();
    std::fs::write(&segment, foreign).unwrap();
    bench.open().unwrap();
    assert_eq!(bench.recovery.spool.damaged, [1]);
    assert!(bench.ledger.read_piece(work, None, 0).is_err());
    assert_eq!(bench.claim(tenant(1)).unwrap().work, work);
}

#[test]
fn a_missing_segment_is_fetched_again() {
    let mut bench = Bench::new();
    let (work, _) = bench.spool(feed(1), "x", &body(0..3));
    bench.ledger.close();
    std::fs::remove_file(bench.segments().pop().unwrap()).unwrap();
    bench.open().unwrap();
    assert_eq!(bench.recovery.spool.damaged, [1]);
    assert!(bench.ledger.read_piece(work, None, 0).is_err());
    let lease = bench.claim(tenant(1)).unwrap();
    assert_eq!(bench.take(lease.work, body(0..3).as_bytes()).unwrap().duplicates, 0);
    assert_eq!(bench.read(work).len(), 3);
}

#[test]
fn an_inspector_sees_what_is_committed_beside_the_writer_and_alone() {
    let bench = Bench::new();
    assert!(matches!(Inspector::open(&bench.path().join("spool")), Err(OpenError::Missing { .. })));
    let beside = Inspector::open(bench.path()).unwrap();
    bench.spool(feed(1), "x", &body(0..3));
    let status = beside.status().unwrap();
    assert_eq!((status.sinks[0].pending, status.sinks[0].pending_records), (1, 3));
    assert_eq!((status.feeds[0].feed, status.ledger), (feed(1), bench.ledger.id()));
    assert_eq!(status.sinks[0].oldest_pending, Some(start()));
    assert!(status.spool_live_bytes > 0 && status.spool_bytes > status.spool_live_bytes);
    drop(beside);
    bench.ledger.close();
    // Alone, and without the right to write.
    let set = |mode| {
        let file = bench.path().join("ledger.sqlite");
        std::fs::set_permissions(file, PermissionsExt::from_mode(mode & 0o444)).unwrap();
        std::fs::set_permissions(bench.path(), PermissionsExt::from_mode(mode)).unwrap();
    };
    set(0o555);
    let alone = Inspector::open(bench.path());
    set(0o777);
    assert_eq!(alone.unwrap().status().unwrap(), status);
}

#[test]
fn a_report_that_takes_its_time_holds_the_writer_up_for_nothing() {
    let bench = Bench::new();
    bench.spool(feed(1), "x", &body([1]));
    let reader = rusqlite::Connection::open(bench.path().join("ledger.sqlite")).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    let blobs = || reader.query_row("SELECT count(*) FROM blob", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(blobs(), 1);
    let begun = std::time::Instant::now();
    for id in ["y", "z"] {
        bench.list(feed(1), &[id]);
        bench.maintain();
        bench.ledger.answers().wait().unwrap();
    }
    assert!(begun.elapsed() < crate::schema::BUSY, "it waited for the reader");
    assert_eq!(blobs(), 1, "the reader sees what it saw");
}

#[test]
fn l2_what_a_crash_interrupts_is_either_there_or_not() {
    for (point, fault, there) in [
        (Point::MakeSegment, Fault::Crash, false),
        (Point::Append, Fault::CutAppend(0), false),
        (Point::Append, Fault::CutAppend(100), false),
        (Point::SyncSegments, Fault::Crash, false),
        (Point::SyncIds, Fault::Crash, false),
        (Point::Commit, Fault::Crash, false),
        (Point::Committed, Fault::Crash, true),
    ] {
        let mut bench = Bench::new();
        bench.list(feed(1), &["x"]);
        let lease = bench.claim(tenant(1)).unwrap();
        bench.faults.plan(point, 0, fault);
        assert!(bench.take(lease.work, body(0..3).as_bytes()).is_err(), "{point:?}");
        bench.ledger.close();
        bench.open().unwrap();
        assert_eq!(bench.lease("a", 1).len(), usize::from(there), "{point:?}");
        if let Some(lease) = bench.claim(tenant(1)) {
            assert!(!there);
            let spooled = bench.take(lease.work, body(0..3).as_bytes()).unwrap();
            assert_eq!(spooled.duplicates, 0, "{point:?}: never a repetition of itself");
        }
        assert_eq!(bench.lease("a", 1).len(), 1, "{point:?}");
        assert!(bench.reconcile().agrees(), "{point:?}");
    }
}

#[test]
fn l4_a_segment_goes_after_the_commit_and_not_before() {
    for (point, settled) in [(Point::Commit, false), (Point::RemoveSegment, true)] {
        let mut bench = Bench::with(|settings| settings.segment_bytes = 4096);
        let text = format!("[{}]", record(1, &noise(10_000)));
        let (work, _) = bench.spool(feed(1), "x", &text);
        bench.spool(feed(1), "y", &body([2]));
        assert_eq!(bench.segments().len(), 2);
        bench.deliver("b");
        let lease = bench.lease("a", 1).pop().unwrap();
        assert_eq!(lease.work.id, work);
        bench.faults.plan(point, 0, Fault::Crash);
        // The answer may come before the segment is removed.
        let _ = bench.ledger.settle(&sink("a"), vec![delivered(&lease)], None).wait();
        bench.ledger.close();
        assert_eq!(bench.segments().len(), 2);
        bench.open().unwrap();
        assert_eq!(bench.recovery.spool.orphans, u64::from(settled));
        assert_eq!(bench.segments().len(), 2 - usize::from(settled));
        assert_eq!(bench.ledger.read_piece(work, None, 0).is_ok(), !settled);
        assert!(bench.reconcile().agrees());
    }
}

/// A text that does not compress.
pub(super) fn noise(length: usize) -> String {
    let mut state = 7u64;
    let letters = (0..length).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + ((state >> 33) % 10) as u8 + if state >> 63 == 1 { 49 } else { 0 })
    });
    letters.collect()
}
