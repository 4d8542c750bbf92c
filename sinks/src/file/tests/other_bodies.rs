//! Lines of a body that was damaged in the spool and came back as another one.

use std::{sync::Arc, time::Duration};

use super::{
    super::disk::Disk,
    config, records_of,
    sim::{Platter, SimDisk},
    sink, start,
};
use crate::test_ledger::{Fuse, MemoryLedger};

/// What stands in the file of the first body stays as far as it is what is due in its place, and the rest is cut: every
/// record is there once.
#[tokio::test]
async fn each_record_of_another_body_is_there_once_whatever_stood_there_of_the_first() {
    const LIVE: &str = "/logs/mailtrail.ndjson";
    for (records, reversed) in [(5, false), (5, true), (7, false), (3, true), (2, false)] {
        let platter = Platter::new(&[LIVE], 1);
        let disk: Arc<dyn Disk> = Arc::new(SimDisk { platter: Arc::clone(&platter), fuse: Fuse::new(None) });
        let ledger = Arc::new(MemoryLedger::plain([5, 4]));
        ledger.replace_body(0, 1, 5, false);
        ledger.replace_body(1, 1, 4, false);
        let first = sink(Arc::clone(&disk), config("/logs"), &ledger);
        assert_eq!(first.open().await.unwrap(), []);
        let batch = ledger.batch(&[(0, 0..5), (1, 0..2)]);
        ledger.set_state(first.state(&[], Some(&batch)));
        let _ = first.deliver(batch).await.unwrap();
        // It is killed before that is settled.
        drop(first);
        ledger.restart(None);
        ledger.replace_body(0, 2, records, reversed);
        let running = start(disk, config("/logs"), &ledger);
        let settled = tokio::time::timeout(Duration::from_secs(60), ledger.all_settled()).await;
        assert!(settled.is_ok(), "{records} {reversed}: {:?}", running.health.report());
        running.stop().await;

        let mut lines = records_of(&platter.lock().unwrap().files()[LIVE]);
        lines.sort_unstable();
        let of = |work: i64, records: usize| (0..records as u32).map(move |position| (work, position));
        assert_eq!(lines, of(0, records).chain(of(1, 4)).collect::<Vec<_>>(), "{records} {reversed}");
        let resent: Vec<_> = ledger.settlements().iter().map(|settlement| settlement.resent).collect();
        assert_eq!(resent, [5, 0], "whoever tails the file may have seen them twice");
        if (records, reversed) == (5, false) {
            let tailer = platter.lock().unwrap().tailer.take().expect("nobody cut the power");
            assert_eq!((tailer.seen.len(), tailer.complaints), (9, vec![]), "the same records stay");
        }
    }
}

/// Its lines are ours though they are not due; but behind them stand others that are.
#[tokio::test]
async fn nor_when_another_blob_was_given_up_meanwhile() {
    const LIVE: &str = "/logs/mailtrail.ndjson";
    for (records, reversed) in [(5, false), (5, true), (7, false), (2, false)] {
        let platter = Platter::new(&[LIVE], 1);
        let disk: Arc<dyn Disk> = Arc::new(SimDisk { platter: Arc::clone(&platter), fuse: Fuse::new(None) });
        let ledger = Arc::new(MemoryLedger::plain([3, 5, 4]));
        for (work, count) in [(0, 3), (1, 5), (2, 4)] {
            ledger.replace_body(work, 1, count, false);
        }
        let first = sink(Arc::clone(&disk), config("/logs"), &ledger);
        assert_eq!(first.open().await.unwrap(), []);
        let batch = ledger.batch(&[(0, 0..3), (1, 0..5), (2, 0..4)]);
        ledger.set_state(first.state(&[], Some(&batch)));
        let _ = first.deliver(batch).await.unwrap();
        drop(first);
        ledger.restart(None);
        ledger.forget(0);
        ledger.replace_body(1, 2, records, reversed);
        let running = start(disk, config("/logs"), &ledger);
        let settled = tokio::time::timeout(Duration::from_secs(60), ledger.all_settled()).await;
        assert!(settled.is_ok(), "{records} {reversed}: {:?}", running.health.report());
        running.stop().await;

        let mut lines = records_of(&platter.lock().unwrap().files()[LIVE]);
        lines.retain(|(work, _)| *work != 0);
        lines.sort_unstable();
        let of = |work: i64, records: usize| (0..records as u32).map(move |position| (work, position));
        assert_eq!(lines, of(1, records).chain(of(2, 4)).collect::<Vec<_>>(), "{records} {reversed}");
    }
}
