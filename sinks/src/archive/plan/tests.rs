//! What goes where, and what is due.

use super::*;
use crate::test_ledger::MemoryLedger;

fn plan(object_bytes: u64, staging_bytes: u64, works: usize) -> Plan {
    let config = ArchiveConfig { object_bytes, staging_bytes, ..ArchiveConfig::default() };
    let mut plan = Plan::new(&config, BTreeMap::new(), Manifests::default());
    plan.bounds.works = works;
    plan
}

fn time(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn take(plan: &mut Plan, ledger: &MemoryLedger, works: &[(i64, std::ops::Range<u32>)], now: i64) {
    let batch = ledger.batch(works);
    for writing in plan.begin(&batch, time(now)) {
        plan.appended(&writing, &batch);
    }
}

fn complete(plan: &mut Plan, work: i64) -> bool {
    let settlement =
        Settlement { work: WorkId(work), body: None, delivered: 1, filtered: 0, dead: Vec::new(), resent: 0 };
    plan.complete(&settlement)
}

#[test]
fn a_work_stays_in_one_object_and_what_comes_twice_is_written_once() {
    let ledger = MemoryLedger::plain([40, 40]);
    let mut plan = plan(1000, 1 << 20, 100);
    take(&mut plan, &ledger, &[(0, 0..20)], 0);
    assert!(plan.spans[&1].end >= 1000, "it is full");
    // The same batch again, because nobody heard that it was written.
    let batch = ledger.batch(&[(0, 0..25)]);
    let writings = plan.begin(&batch, time(0));
    assert_eq!(writings[0].parts, [(0, 20)]);
    plan.appended(&writings[0], &batch);
    take(&mut plan, &ledger, &[(0, 25..40), (1, 0..40)], 0);
    assert!(plan.due(time(0)).is_empty(), "its work is not complete");
    assert!(complete(&mut plan, 0));
    let due = plan.due(time(0));
    assert_eq!((due.len(), due[0].span, due[0].whole.works), (1, 1, 1));
    assert_eq!(plan.spans.len(), 2, "the next work goes to the next object");
    assert!(!complete(&mut plan, 7), "nothing of it is held");
}

#[test]
fn age_and_a_flush_close_what_is_open() {
    let ledger = MemoryLedger::plain([2, 2]);
    let mut plan = plan(1 << 20, 4 << 20, 100);
    assert_eq!(plan.until_due(time(0)), None);
    take(&mut plan, &ledger, &[(0, 0..2)], 0);
    complete(&mut plan, 0);
    assert_eq!(plan.until_due(time(3599)), Some(Duration::from_secs(1)));
    assert!(plan.due(time(3599)).is_empty());
    assert_eq!(plan.due(time(3600)).len(), 1);
    take(&mut plan, &ledger, &[(1, 0..2)], 3601);
    complete(&mut plan, 1);
    assert_eq!(plan.due(time(3601)).len(), 1);
    plan.flush();
    assert_eq!(plan.due(time(3601)).len(), 2);
}

/// It would stay open, and its bodies in the spool, for as long as the clock was wrong.
#[test]
fn an_object_of_a_clock_that_was_ahead_is_closed_when_the_clock_is_right_again() {
    const YEAR: i64 = 365 * 86_400;
    let ledger = MemoryLedger::plain([2, 2]);
    let mut plan = plan(1 << 20, 4 << 20, 100);
    take(&mut plan, &ledger, &[(0, 0..2)], YEAR);
    complete(&mut plan, 0);
    assert!(plan.due(time(YEAR - 60)).is_empty(), "a clock that is kept right closes nothing");
    assert_eq!(plan.until_due(time(YEAR - 60)), Some(Duration::from_secs(3600)));
    assert_eq!(plan.until_due(time(0)), Some(Duration::ZERO));
    assert_eq!(plan.due(time(0)).len(), 1);
    take(&mut plan, &ledger, &[(1, 0..2)], 0);
    complete(&mut plan, 1);
    assert_eq!(plan.due(time(0)).len(), 1, "the next one begins by the right clock");
}

/// Sealed in between, it would be named as archived by the works of an object that does not hold it.
#[test]
fn l3_an_object_is_not_sealed_while_lines_are_on_their_way_to_it() {
    let ledger = MemoryLedger::plain([2, 2, 2]);
    let mut plan = plan(1 << 20, 4 << 20, 100);
    take(&mut plan, &ledger, &[(0, 0..2)], 0);
    complete(&mut plan, 0);
    let batch = ledger.batch(&[(1, 0..2)]);
    let writings = plan.begin(&batch, time(3599));
    assert!(plan.due(time(3600)).is_empty(), "it is old enough, and being written");
    plan.appended(&writings[0], &batch);
    assert!(plan.due(time(3600)).is_empty(), "not all of it is whole");
    complete(&mut plan, 1);
    let due = plan.due(time(3600));
    assert_eq!((due.len(), due[0].whole.works), (1, 2));
    // What could not be written goes elsewhere the next time, and holds nothing up.
    take(&mut plan, &ledger, &[(2, 0..1)], 3600);
    assert_eq!(plan.due(time(3600))[0].span, 1);
}

#[test]
fn what_comes_near_to_a_bound_is_closed_early_and_at_the_bound_nothing_more_comes() {
    let ledger = MemoryLedger::plain([20; 12]);
    let mut by_bytes = plan(1 << 20, 4000, 100);
    take(&mut by_bytes, &ledger, &[(0, 0..20)], 0);
    assert!(by_bytes.has_room());
    complete(&mut by_bytes, 0);
    take(&mut by_bytes, &ledger, &[(1, 0..20)], 0);
    complete(&mut by_bytes, 1);
    assert_eq!(by_bytes.due(time(0)).len(), 1, "half of what may be held is open");
    let taken = (2..12).take_while(|work| {
        let room = by_bytes.has_room();
        if room {
            take(&mut by_bytes, &ledger, &[(*work, 0..20)], 0);
        }
        room
    });
    let taken = taken.count();
    assert!((1..9).contains(&taken), "{taken} more were taken");
    let mut alone = plan(1, 2, 100);
    take(&mut alone, &ledger, &[(0, 0..20)], 0);
    assert!(alone.has_room(), "the work is not whole, and nothing else leaves");
    complete(&mut alone, 0);
    assert!(!alone.has_room());

    let mut by_works = plan(1 << 20, 1 << 30, 8);
    for work in 0..5 {
        take(&mut by_works, &ledger, &[(work, 0..2)], 0);
        complete(&mut by_works, work);
    }
    assert_eq!(by_works.due(time(0)).len(), 1);
    for work in 5..8 {
        assert!(by_works.has_room());
        take(&mut by_works, &ledger, &[(work, 0..2)], 0);
    }
    assert!(!by_works.has_room());
}
