//! The index as the ledger uses it, and what a file system can do to it short of a crash.

use std::collections::BTreeSet;
use std::fs;

use schemas::RecordKey;
use tempfile::TempDir;

use super::disk::faults;
use super::slot::Horizon;
use super::*;

const SECRET: [u8; 16] = [42; 16];
const FEED: FeedNumber = FeedNumber(1);
const TODAY: Day = Day(20_000);

fn key(number: u64) -> RecordKey {
    RecordKey {
        hour: 480_000 + (number % 5) as i32,
        digest: (u128::from(number) * 0x9e37_79b9).to_be_bytes(),
    }
}

/// An index that moves its ids to the tables when it has 50, and keeps two files open.
fn open(dir: &TempDir, committed: Checkpoint, today: Day) -> DuplicateIndex {
    try_open(dir, committed, today).unwrap()
}

fn try_open(dir: &TempDir, committed: Checkpoint, today: Day) -> Result<DuplicateIndex, IdsError> {
    DuplicateIndex::open_with(&dir.path().join("ids"), SECRET, committed, Horizon { days: 8, today }, 50, 2)
}

fn stage(index: &mut DuplicateIndex, numbers: std::ops::Range<u64>, owner: i64, today: Day) {
    numbers.for_each(|number| index.stage(FEED, &key(number), Owner(owner), today));
}

fn commit(index: &mut DuplicateIndex) -> Checkpoint {
    let checkpoint = index.sync().unwrap();
    index.committed().unwrap();
    checkpoint
}

fn owner(index: &mut DuplicateIndex, number: u64, today: Day) -> Option<i64> {
    index.owner_of(FEED, &key(number), today).unwrap().map(|owner| owner.0)
}

fn names(dir: &TempDir) -> BTreeSet<String> {
    fs::read_dir(dir.path().join("ids"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn an_id_is_found_staged_committed_in_tables_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir, Checkpoint::default(), TODAY);
    assert_eq!(owner(&mut index, 0, TODAY), None);
    let mut last = Checkpoint::default();
    for group in 0..40 {
        let numbers = group * 20..group * 20 + 20;
        stage(&mut index, numbers.clone(), group as i64, TODAY);
        assert!(numbers.clone().all(|number| owner(&mut index, number, TODAY) == Some(group as i64)));
        last = commit(&mut index);
        assert!(numbers.clone().all(|number| owner(&mut index, number, TODAY) == Some(group as i64)));
    }
    assert_eq!(index.owner_of(FeedNumber(2), &key(0), TODAY).unwrap(), None);
    let stats = index.stats();
    assert_eq!((stats.in_tables + stats.recent, stats.tables, stats.open_files), (800, 5, 2));
    assert!(stats.recent < 100 && stats.bytes > 800 * 16);
    drop(index);
    let mut index = open(&dir, last, TODAY);
    assert!((0..800).all(|number| owner(&mut index, number, TODAY) == Some(number as i64 / 20)));
    assert_eq!(owner(&mut index, 800, TODAY), None);
}

#[test]
fn what_was_not_committed_is_forgotten_by_a_roll_back_and_by_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir, Checkpoint::default(), TODAY);
    stage(&mut index, 0..10, 1, TODAY);
    let first = commit(&mut index);
    for synced in [false, true] {
        stage(&mut index, 10..30, 2, TODAY);
        if synced {
            index.sync().unwrap();
        }
        index.roll_back();
        assert_eq!((owner(&mut index, 9, TODAY), owner(&mut index, 10, TODAY)), (Some(1), None));
    }
    stage(&mut index, 10..30, 3, TODAY);
    index.sync().unwrap();
    drop(index);
    let mut index = open(&dir, first, TODAY);
    assert_eq!((owner(&mut index, 9, TODAY), owner(&mut index, 10, TODAY)), (Some(1), None));
    stage(&mut index, 10..11, 4, TODAY);
    let second = commit(&mut index);
    drop(index);
    assert_eq!(owner(&mut open(&dir, second, TODAY), 10, TODAY), Some(4));
}

#[test]
fn the_old_journal_goes_when_the_ledger_has_committed_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir, Checkpoint::default(), TODAY);
    stage(&mut index, 0..60, 1, TODAY);
    let flushed = commit(&mut index);
    assert_eq!(index.sync().unwrap(), flushed, "nothing new, nothing to record");
    stage(&mut index, 60..61, 2, TODAY);
    let next = index.sync().unwrap();
    assert!(next.journal > flushed.journal);
    assert!(names(&dir).is_superset(&["journal-0000000001".into(), "journal-0000000002".into()].into()));
    index.committed().unwrap();
    assert!(!names(&dir).contains("journal-0000000001"));
    drop(index);
    let mut index = open(&dir, next, TODAY);
    assert_eq!((owner(&mut index, 0, TODAY), owner(&mut index, 60, TODAY)), (Some(1), Some(2)));
}

#[test]
fn an_id_is_forgotten_when_its_horizon_has_passed_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir, Checkpoint::default(), TODAY);
    stage(&mut index, 0..60, 1, TODAY);
    commit(&mut index);
    stage(&mut index, 60..70, 1, TODAY);
    let committed = commit(&mut index);
    for restarted in [false, true] {
        if restarted {
            drop(index);
            index = open(&dir, committed, TODAY);
        }
        for number in [0, 60] {
            assert_eq!(owner(&mut index, number, Day(TODAY.0 + 8)), Some(1));
            assert_eq!(owner(&mut index, number, Day(TODAY.0 + 9)), None);
            assert_eq!(owner(&mut index, number, Day(TODAY.0 - 3)), Some(1), "the clock went back");
        }
    }
    stage(&mut index, 0..1, 2, Day(TODAY.0 + 9));
    stage(&mut index, 60..61, 2, Day(TODAY.0 + 9));
    for number in [0, 60] {
        assert_eq!(owner(&mut index, number, Day(TODAY.0 + 9)), Some(2));
    }
    index.maintain(Day(TODAY.0 + 8)).unwrap();
    assert_eq!(index.stats().tables, 5);
    index.maintain(Day(TODAY.0 + 9)).unwrap();
    assert_eq!((index.stats().tables, index.stats().open_files), (0, 0));
    assert!(names(&dir).iter().all(|name| name.starts_with("journal-")));
    assert_eq!(owner(&mut index, 0, Day(TODAY.0 + 9)), Some(2));
}

#[test]
fn tables_that_expired_while_mailtrail_was_down_go_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir, Checkpoint::default(), TODAY);
    stage(&mut index, 0..60, 1, TODAY);
    let committed = commit(&mut index);
    drop(index);
    let index = open(&dir, committed, Day(TODAY.0 + 30));
    assert_eq!(
        index.stats(),
        IdsStats { in_tables: 0, recent: 0, tables: 0, open_files: 0, bytes: committed.length }
    );
}

#[test]
fn a_known_id_keeps_its_first_owner() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir, Checkpoint::default(), TODAY);
    for round in 1..=3 {
        stage(&mut index, 0..60, round, TODAY);
        commit(&mut index);
        assert!((0..60).all(|number| owner(&mut index, number, TODAY) == Some(1)), "round {round}");
    }
    let stats = index.stats();
    assert_eq!(stats.in_tables, 60, "the repetitions went into the tables once: {stats:?}");
}

#[test]
fn a_repetition_is_remembered_from_when_it_came_wherever_the_id_is() {
    let later = |days| Day(TODAY.0 + days);
    for (first, others) in [(0..60, 0..0), (0..10, 0..0), (0..10, 100..150), (0..60, 100..150)] {
        let dir = tempfile::tempdir().unwrap();
        let mut index = open(&dir, Checkpoint::default(), TODAY);
        stage(&mut index, first.clone(), 1, TODAY);
        let mut committed = commit(&mut index);
        for day in [5, 12] {
            // What is rolled back has not come.
            stage(&mut index, first.clone(), 2, later(8));
            index.sync().unwrap();
            index.roll_back();
            stage(&mut index, first.clone(), 2, later(day));
            // So many more that all of it moves to the tables.
            stage(&mut index, others.clone(), 3, later(day));
            committed = commit(&mut index);
        }
        for restarted in [false, true] {
            if restarted {
                drop(index);
                index = open(&dir, committed, later(20));
            }
            let mut all =
                |day| first.clone().map(|number| owner(&mut index, number, day)).collect::<BTreeSet<_>>();
            assert_eq!(all(later(20)), [Some(1)].into(), "{first:?} {others:?} {restarted}");
            assert_eq!(all(later(21)), [None].into(), "{first:?} {others:?} {restarted}");
        }
        index.maintain(later(20)).unwrap();
        assert!(first.clone().all(|number| owner(&mut index, number, later(20)) == Some(1)));
    }
}

#[test]
fn a_group_that_is_larger_than_the_memory_is_taken_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir, Checkpoint::default(), TODAY);
    stage(&mut index, 0..5000, 1, TODAY);
    let committed = commit(&mut index);
    assert_eq!((index.stats().in_tables, index.stats().recent), (5000, 0));
    drop(index);
    let mut index = open(&dir, committed, TODAY);
    assert!((0..5000).all(|number| owner(&mut index, number, TODAY) == Some(1)));
}

#[test]
fn times_that_no_record_should_have_are_as_good_as_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir, Checkpoint::default(), TODAY);
    let hours: Vec<i32> = [i32::MIN, i32::MIN + 1, -1, 0, 1, 480_000, 480_000 + 2048, i32::MAX]
        .into_iter()
        .chain(-3000..3000)
        .collect();
    for (owner, hour) in hours.iter().enumerate() {
        let key = RecordKey { hour: *hour, digest: [1; 16] };
        if index.owner_of(FEED, &key, TODAY).unwrap().is_none() {
            index.stage(FEED, &key, Owner(owner as i64), TODAY);
        }
        if owner % 400 == 0 {
            commit(&mut index);
        }
    }
    commit(&mut index);
    for hour in &hours {
        let key = RecordKey { hour: *hour, digest: [1; 16] };
        let first = hours.iter().position(|other| other == hour).map(|owner| Owner(owner as i64));
        assert_eq!(index.owner_of(FEED, &key, TODAY).unwrap(), first, "hour {hour}");
    }
    assert!(index.stats().tables <= 2048 && index.stats().open_files <= 2);
}

#[test]
fn a_million_strangers_are_all_strangers() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = DuplicateIndex::open_with(
        dir.path(),
        SECRET,
        Checkpoint::default(),
        Horizon { days: 8, today: TODAY },
        5000,
        8,
    )
    .unwrap();
    stage(&mut index, 0..20_000, 1, TODAY);
    commit(&mut index);
    stage(&mut index, 20_000..24_000, 1, TODAY);
    let strangers =
        (1 << 40..(1 << 40) + 1_000_000).filter(|number| owner(&mut index, *number, TODAY).is_some());
    assert_eq!(strangers.count(), 0);
}

#[test]
fn a_full_disk_is_survived_at_every_write() {
    for writes in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let mut index = open(&dir, Checkpoint::default(), TODAY);
        stage(&mut index, 0..40, 1, TODAY);
        let mut last = commit(&mut index);
        stage(&mut index, 40..60, 2, TODAY);
        faults::fill_disk_after(writes);
        let synced = index.sync();
        let flushed = match synced {
            Ok(checkpoint) => {
                last = checkpoint;
                index.committed()
            }
            Err(_) => Ok(()),
        };
        faults::heal();
        for failed in [synced.as_ref().err(), flushed.as_ref().err()].into_iter().flatten() {
            assert!(failed.is_disk_full(), "{failed}");
        }
        assert!((0..60).all(|number| owner(&mut index, number, TODAY) == Some(1 + i64::from(number >= 40))));
        if synced.is_err() && writes % 2 == 0 {
            index.roll_back();
            assert_eq!(owner(&mut index, 50, TODAY), None);
            stage(&mut index, 40..60, 2, TODAY);
        }
        stage(&mut index, 60..61, 3, TODAY);
        last = commit(&mut index).max(last);
        drop(index);
        let mut index = open(&dir, last, TODAY);
        assert!((0..60).all(|number| owner(&mut index, number, TODAY) == Some(1 + i64::from(number >= 40))));
        assert_eq!(owner(&mut index, 60, TODAY), Some(3));
        assert!(names(&dir).iter().all(|name| !name.ends_with(".new")));
    }
}

#[test]
fn after_a_failed_sync_nothing_more_is_trusted_to_that_file() {
    for syncs in 0..16 {
        let dir = tempfile::tempdir().unwrap();
        let mut index = open(&dir, Checkpoint::default(), TODAY);
        stage(&mut index, 0..60, 1, TODAY);
        let first = commit(&mut index);
        stage(&mut index, 60..90, 1, TODAY);
        let second = commit(&mut index);
        stage(&mut index, 90..130, 1, TODAY);
        faults::break_sync_after(syncs);
        let synced = index.sync();
        let flushed = synced.as_ref().map_or(Ok(()), |_| index.committed());
        faults::heal();
        stage(&mut index, 130..131, 1, TODAY);
        let last = commit(&mut index);
        if synced.is_err() {
            assert!(last.journal > second.journal && second.journal > first.journal);
            assert!(!names(&dir).contains(&format!("journal-{:010}", second.journal)));
        } else if let Err(error) = flushed {
            assert!(matches!(error, IdsError::Io { action: "sync", .. }));
        }
        drop(index);
        let mut index = open(&dir, last, TODAY);
        assert!((0..131).all(|number| owner(&mut index, number, TODAY) == Some(1)), "{syncs}");
    }
}

#[test]
fn memory_stays_bounded_when_the_tables_refuse_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir, Checkpoint::default(), TODAY);
    let mut refused = 0;
    for group in 0..30 {
        stage(&mut index, group * 10..group * 10 + 10, 1, TODAY);
        // The journal's write succeeds and every write after it fails.
        faults::fill_disk_after(if group == 0 { 2 } else { 1 });
        match index.sync() {
            Ok(_) => drop(index.committed()),
            Err(error) => {
                assert!(error.is_disk_full());
                index.roll_back();
                refused += 1;
            }
        }
        faults::heal();
        assert!(index.stats().recent <= 2 * 50 + 10);
    }
    assert!(refused > 10);
    stage(&mut index, 1000..1001, 1, TODAY);
    commit(&mut index);
    assert!(index.stats().recent < 50);
    assert_eq!((owner(&mut index, 0, TODAY), owner(&mut index, 1000, TODAY)), (Some(1), Some(1)));
}

#[test]
fn files_of_another_ledger_or_a_later_state_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir, Checkpoint::default(), TODAY);
    stage(&mut index, 0..40, 1, TODAY);
    let early = commit(&mut index);
    stage(&mut index, 40..60, 1, TODAY);
    let late = commit(&mut index);
    drop(index);
    let before = names(&dir);
    let ids = dir.path().join("ids");
    let other = DuplicateIndex::open(&ids, [1; 16], late, 8, TODAY).err().unwrap();
    assert!(matches!(other, IdsError::Foreign { .. }), "{other}");
    let error = try_open(&dir, early, TODAY).err().unwrap();
    assert!(matches!(error, IdsError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains(&format!("delete the directory {}", ids.display())), "{error}");
    let error = try_open(&dir, Checkpoint { length: late.length + 1, ..late }, TODAY).err().unwrap();
    assert!(matches!(error, IdsError::Damaged { .. }), "{error}");
    let error = try_open(&dir, Checkpoint { journal: 7, ..late }, TODAY).err().unwrap();
    assert!(matches!(error, IdsError::Damaged { what: "it is missing", .. }), "{error}");
    assert_eq!(names(&dir), before);
    let mut index = open(&dir, late, TODAY);
    assert_eq!(owner(&mut index, 59, TODAY), Some(1));
}

#[test]
fn a_table_that_grew_in_place_shows_that_the_ledger_is_older() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir, Checkpoint::default(), TODAY);
    stage(&mut index, 0..60, 1, TODAY);
    let early = commit(&mut index);
    let bytes = index.stats().bytes;
    stage(&mut index, 60..110, 1, TODAY);
    let late = commit(&mut index);
    assert_eq!((index.stats().in_tables, index.stats().bytes), (110, bytes));
    drop(index);
    let error = try_open(&dir, early, TODAY).err().unwrap();
    assert!(matches!(error, IdsError::Foreign { .. }), "{error}");
    assert_eq!(owner(&mut open(&dir, late, TODAY), 109, TODAY), Some(1));
}

#[test]
fn a_table_lives_as_long_as_its_newest_id() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir, Checkpoint::default(), TODAY);
    stage(&mut index, 0..60, 1, TODAY);
    commit(&mut index);
    let later = Day(TODAY.0 + 5);
    stage(&mut index, 60..110, 2, later);
    commit(&mut index);
    // The next journal does not hold them any more.
    stage(&mut index, 1000..1001, 3, later);
    let committed = commit(&mut index);
    let today = Day(TODAY.0 + 10);
    index.maintain(today).unwrap();
    for mut index in [index, open(&dir, committed, today)] {
        assert_eq!((owner(&mut index, 0, today), owner(&mut index, 60, today)), (None, Some(2)));
    }
}

#[test]
fn a_table_whose_sync_failed_is_written_to_a_new_file() {
    use std::os::unix::fs::MetadataExt;
    let key = |number: u64| RecordKey { hour: 480_000, digest: u128::from(number).to_be_bytes() };
    for directory in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join(format!("ids/hours-{:04}.table", 480_000 % 2048));
        let failing = if directory { dir.path().join("ids") } else { table.clone() };
        let mut index = open(&dir, Checkpoint::default(), TODAY);
        (0..3000).for_each(|number| index.stage(FEED, &key(number), Owner(1), TODAY));
        commit(&mut index);
        (3000..3050).for_each(|number| index.stage(FEED, &key(number), Owner(1), TODAY));
        index.sync().unwrap();
        let before = fs::File::open(&table).unwrap();
        // A flush in place syncs the table; the next try writes a new file and syncs that and the directory.
        for syncs in 0..5 {
            faults::break_sync_after(syncs);
            let error = index.committed().unwrap_err();
            if matches!(&error, IdsError::Io { path, .. } if *path == failing) {
                break;
            }
            assert!(syncs < 4, "{error}");
        }
        faults::heal();
        let suspect = fs::File::open(&table).unwrap();
        index.committed().unwrap();
        let after = fs::metadata(&table).unwrap().ino();
        assert!([before, suspect].iter().all(|file| file.metadata().unwrap().ino() != after));
        assert!((0..3050).all(|number| index.owner_of(FEED, &key(number), TODAY).unwrap().is_some()));
    }
}

#[test]
fn a_checkpoint_that_was_given_stays_good_when_a_later_sync_fails() {
    for syncs in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let mut index = open(&dir, Checkpoint::default(), TODAY);
        stage(&mut index, 0..10, 1, TODAY);
        let given = index.sync().unwrap();
        stage(&mut index, 10..20, 2, TODAY);
        faults::break_sync_after(0);
        index.sync().unwrap_err();
        if syncs > 0 {
            // Again, in a new journal that fails in its turn.
            faults::break_sync_after(syncs - 1);
            index.sync().unwrap_err();
        }
        faults::heal();
        index.committed().unwrap();
        index.roll_back();
        assert_eq!((owner(&mut index, 9, TODAY), owner(&mut index, 10, TODAY)), (Some(1), None));
        drop(index);
        let mut index = open(&dir, given, TODAY);
        assert_eq!((owner(&mut index, 9, TODAY), owner(&mut index, 10, TODAY)), (Some(1), None));
        stage(&mut index, 10..20, 3, TODAY);
        let last = commit(&mut index);
        drop(index);
        assert_eq!(owner(&mut open(&dir, last, TODAY), 10, TODAY), Some(3));
    }
}

#[test]
fn a_damaged_table_is_named_and_deleting_the_directory_helps() {
    let dir = tempfile::tempdir().unwrap();
    let ids = dir.path().join("ids");
    let mut index = open(&dir, Checkpoint::default(), TODAY);
    stage(&mut index, 0..60, 1, TODAY);
    let committed = commit(&mut index);
    drop(index);
    let table = ids.join(names(&dir).into_iter().find(|name| name.ends_with(".table")).unwrap());
    let whole = fs::read(&table).unwrap();
    fs::write(&table, &whole[..whole.len() - 1]).unwrap();
    let error = try_open(&dir, committed, TODAY).err().unwrap();
    assert!(matches!(&error, IdsError::Damaged { path, .. } if *path == table), "{error}");
    fs::remove_dir_all(&ids).unwrap();
    let mut index = open(&dir, committed, TODAY);
    assert_eq!(owner(&mut index, 0, TODAY), None);
    assert_eq!(index.sync().unwrap(), committed);
    stage(&mut index, 0..10, 5, TODAY);
    index.sync().unwrap();
    // A crash before the ledger's commit.
    drop(index);
    let mut index = open(&dir, committed, TODAY);
    assert_eq!(owner(&mut index, 0, TODAY), None);
    stage(&mut index, 0..10, 6, TODAY);
    let next = commit(&mut index);
    assert!(next > committed);
    drop(index);
    assert_eq!(owner(&mut open(&dir, next, TODAY), 0, TODAY), Some(6));
}

#[test]
fn a_new_ledger_removes_what_an_earlier_one_left_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir, Checkpoint::default(), TODAY);
    stage(&mut index, 0..60, 1, TODAY);
    commit(&mut index);
    drop(index);
    fs::write(dir.path().join("ids/hours-0001.new"), "half a table").unwrap();
    fs::write(dir.path().join("ids/README"), "not ours").unwrap();
    let mut index = open(&dir, Checkpoint::default(), TODAY);
    assert_eq!(owner(&mut index, 0, TODAY), None);
    assert_eq!(names(&dir), ["README".to_owned()].into());
}

#[test]
fn the_directory_and_its_files_are_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir, Checkpoint::default(), TODAY);
    stage(&mut index, 0..60, 1, TODAY);
    commit(&mut index);
    let ids = dir.path().join("ids");
    assert_eq!(fs::metadata(&ids).unwrap().permissions().mode() & 0o777, 0o700);
    for name in names(&dir) {
        assert_eq!(fs::metadata(ids.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn days_are_counted_from_1970() {
    let day = |text: &str| Day::of(text.parse().unwrap());
    assert_eq!((day("1970-01-01T23:59:59Z"), day("1970-01-02T00:00:00Z")), (Day(0), Day(1)));
    assert_eq!((day("1901-01-01T00:00:00Z"), day("9999-01-01T00:00:00Z")), (Day(0), Day(u16::MAX)));
}
