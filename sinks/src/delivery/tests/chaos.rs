//! Any failures in any order, with any limits.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use proptest::prelude::*;

use super::*;
use crate::delivery_ledger::WorkId;

#[derive(Debug, Clone)]
enum Fate {
    Take,
    Slow(u16),
    Retry,
    Ambiguous,
    AmbiguousTaken,
    Split,
    Reject(u8),
    Halt,
    Hang,
    Panic,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        10 => Just(Fate::Take),
        3 => (1u16..2000).prop_map(Fate::Slow),
        3 => Just(Fate::Retry),
        1 => Just(Fate::Ambiguous),
        1 => Just(Fate::AmbiguousTaken),
        2 => Just(Fate::Split),
        2 => any::<u8>().prop_map(Fate::Reject),
        1 => Just(Fate::Halt),
        1 => Just(Fate::Hang),
        1 => Just(Fate::Panic),
    ]
}

proptest! {
    /// Whatever fails and however it is cut: every record is delivered or dead or filtered, none of the delivered
    /// ones more often than `resent` says, and with one batch under way the first arrivals are in order.
    #[test]
    fn nothing_is_lost_and_nothing_silently_doubled(
        works in proptest::collection::vec(0usize..30, 1..8),
        fates in proptest::collection::vec(fate(), 0..25),
        max_records in 1usize..20,
        in_flight in 1usize..5,
        whole_works: bool,
        piece_records in 1usize..12,
        filter in 0u32..4,
        budget in 100usize..100_000,
        stop_after in proptest::option::of(1u64..5_000),
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let kept = move |work: i64, position: u32| filter == 0 || !(work as u32 + position).is_multiple_of(filter + 1);
            let mut ledger = MemoryLedger::plain(works.clone());
            ledger.piece_records = piece_records;
            ledger.render_as(Rendering { view: 0, keep: Arc::new(kept) });
            let ledger = Arc::new(ledger);
            let limits = Limits { whole_works, ..limits(max_records, in_flight) };
            let mut fates = fates.into_iter();
            let refused = Arc::new(Mutex::new(BTreeSet::new()));
            let refuses = Arc::clone(&refused);
            let sink = Arc::new(Scripted::new(limits, move |records| {
                match fates.next().unwrap_or(Fate::Take) {
                    Fate::Take => Reply::Take,
                    Fate::Slow(ms) => Reply::TakeAfter(Duration::from_millis(ms.into())),
                    Fate::Retry => Reply::Fail(busy(None)),
                    Fate::Ambiguous => Reply::Fail(DeliverError::ambiguous("who knows")),
                    Fate::AmbiguousTaken => Reply::TakeAndFail(DeliverError::ambiguous("who knows")),
                    Fate::Split if records.len() > 1 => Reply::Fail(DeliverError {
                        disposition: Disposition::Split, context: "large".into() }),
                    Fate::Split => Reply::Take,
                    Fate::Reject(which) => {
                        let index = which as usize % records.len();
                        refuses.lock().unwrap().insert(records[index]);
                        let disposition = Disposition::Reject { records: vec![(index, "bad".into())] };
                        Reply::Fail(DeliverError { disposition, context: "bad".into() })
                    }
                    Fate::Halt => Reply::Fail(DeliverError::halt("locked out")),
                    Fate::Hang => Reply::TakeAndHang,
                    Fate::Panic => Reply::Panic,
                }
            }));
            let budget = MemoryBudget::new(budget);
            if let Some(after) = stop_after {
                let running = start_with(&sink, &ledger, Rate::new(None, None), &budget);
                tokio::time::sleep(Duration::from_millis(after)).await;
                running.stop().await.unwrap();
            }
            let running = start_with(&sink, &ledger, Rate::new(None, None), &budget);
            tokio::time::timeout(Duration::from_secs(864_000), ledger.all_settled()).await.expect("all is settled");
            running.stop().await.unwrap();
            assert_eq!(ledger.leased(), 0);

            let quarantined: BTreeSet<i64> = ledger.quarantined().into_iter().collect();
            let due: BTreeSet<_> = all(&works).into_iter().filter(|(work, position)| kept(*work, *position)).collect();
            let mut times: BTreeMap<(i64, u32), u32> = BTreeMap::new();
            let arrived = sink.arrived();
            for record in &arrived {
                assert!(due.contains(record), "{record:?} was not due");
                *times.entry(*record).or_default() += 1;
            }
            let mut doubled = 0;
            for settlement in ledger.settlements() {
                let WorkId(work) = settlement.work;
                let dead: BTreeSet<u32> = settlement.dead.iter().map(|dead| dead.position).collect();
                assert_eq!(dead.len(), settlement.dead.len(), "each is dead once");
                for &(_, position) in due.iter().filter(|record| record.0 == work) {
                    let count = times.get(&(work, position)).copied().unwrap_or(0);
                    if dead.contains(&position) {
                        assert!(refused.lock().unwrap().contains(&(work, position)));
                    } else {
                        assert!(count >= 1, "{work} {position} is settled and did not arrive");
                    }
                    doubled += count.saturating_sub(1);
                }
                let filtered = works[work as usize] as u32 - due.iter().filter(|record| record.0 == work).count() as u32;
                assert_eq!(settlement.filtered, filtered);
            }
            assert_eq!(ledger.settlements().len() + quarantined.len(), works.len());
            if quarantined.is_empty() {
                let resent: u32 = ledger.settlements().iter().map(|settlement| settlement.resent).sum();
                assert!(doubled <= resent, "{doubled} doubled, {resent} counted");
            }
            if in_flight == 1 && quarantined.is_empty() && stop_after.is_none() {
                // A refusal is not remembered over a halt: this sink may take another time what it refused once.
                let mut seen = refused.lock().unwrap().clone();
                let first: Vec<_> = arrived.iter().filter(|record| seen.insert(**record)).collect();
                assert!(first.is_sorted(), "{first:?}");
            }
        });
    }
}
