//! Random operations, with a crash or a full disk at any step of any commit, against a model of what the ledger
//! promises: after every operation and every restart the ledger holds exactly what the model holds, every body can be
//! read, and every sum agrees (L1, L2, L4, L5, L6, L10, dense numbers, duplicates decided once).
//!
//! A crash keeps what was made durable, and of what was not a random part, or garbage.

mod expected;
mod world;

use proptest::prelude::*;

use self::world::World;
use crate::faults::{Point, in_tests::Fault};

#[derive(Debug, Clone)]
enum Op {
    List { tenant: u8, names: Vec<u8>, completes: bool },
    Hole { tenant: u8 },
    Spool { tenant: u8 },
    FailFetch { tenant: u8, minutes: i64 },
    Gap { tenant: u8 },
    Settle { sink: char, want: usize, dead: u8, filtered: bool },
    Defer { sink: char, minutes: i64 },
    Hold { sink: char },
    SettleHeld,
    DropHeld,
    Panic { sink: char },
    Retry,
    BeginRestore { sink: char, anew: bool },
    Restore { tenant: u8, sink: char, records: u8 },
    Forget,
    Maintain,
    Advance { hours: i64 },
    Restart,
}

/// What goes wrong during an operation.
#[derive(Debug, Clone, Copy)]
struct Mishap {
    point: Point,
    fault: Fault,
    /// Chooses what the disk keeps of what was not durable.
    seed: u64,
}

fn op() -> impl Strategy<Value = Op> {
    let tenant = || 1u8..3;
    let sink = || prop_oneof![Just('a'), Just('b')];
    prop_oneof![
        4 => (tenant(), prop::collection::vec(0u8..30, 1..5), any::<bool>())
            .prop_map(|(tenant, names, completes)| Op::List { tenant, names, completes }),
        1 => tenant().prop_map(|tenant| Op::Hole { tenant }),
        10 => tenant().prop_map(|tenant| Op::Spool { tenant }),
        1 => (tenant(), 0i64..200).prop_map(|(tenant, minutes)| Op::FailFetch { tenant, minutes }),
        1 => tenant().prop_map(|tenant| Op::Gap { tenant }),
        8 => (sink(), 1usize..4, prop_oneof![3 => Just(0u8), 1 => any::<u8>()], any::<bool>())
            .prop_map(|(sink, want, dead, filtered)| Op::Settle { sink, want, dead, filtered }),
        2 => (sink(), 0i64..200).prop_map(|(sink, minutes)| Op::Defer { sink, minutes }),
        2 => sink().prop_map(|sink| Op::Hold { sink }),
        2 => Just(Op::SettleHeld),
        1 => Just(Op::DropHeld),
        2 => sink().prop_map(|sink| Op::Panic { sink }),
        2 => Just(Op::Retry),
        2 => (sink(), any::<bool>()).prop_map(|(sink, anew)| Op::BeginRestore { sink, anew }),
        3 => (tenant(), sink(), 0u8..6).prop_map(|(tenant, sink, records)| Op::Restore { tenant, sink, records }),
        1 => Just(Op::Forget),
        3 => Just(Op::Maintain),
        3 => (1i64..60).prop_map(|hours| Op::Advance { hours }),
        2 => Just(Op::Restart),
    ]
}

fn mishap() -> impl Strategy<Value = Option<Mishap>> {
    let point = prop_oneof![
        Just((Point::MakeSegment, Fault::Crash)),
        any::<u8>().prop_map(|share| (Point::Append, Fault::CutAppend(share))),
        Just((Point::Append, Fault::Crash)),
        Just((Point::SyncSegments, Fault::Crash)),
        Just((Point::SyncIds, Fault::Crash)),
        Just((Point::Commit, Fault::Crash)),
        Just((Point::Committed, Fault::Crash)),
        Just((Point::RemoveSegment, Fault::Crash)),
        Just((Point::Append, Fault::Full)),
        Just((Point::SyncSegments, Fault::Broken)),
        Just((Point::SyncIds, Fault::Full)),
        Just((Point::Commit, Fault::Full)),
    ];
    prop_oneof![
        2 => Just(None),
        1 => (point, any::<u64>())
            .prop_map(|((point, fault), seed)| Some(Mishap { point, fault, seed })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(20),
        max_shrink_iters: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_ledger_keeps_what_it_promises(steps in prop::collection::vec((op(), mishap()), 1..60)) {
        let mut world = World::new();
        for (op, mishap) in &steps {
            world.step(op, *mishap);
        }
    }
}
