//! `archive restore`: what a sink has lost comes back from the archive, to that sink only, with the same events.

use std::{collections::BTreeSet, fs, path::Path, thread, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use simulator::{SimulatorConfig, TenantConfig};

use crate::{
    archive::{arrived_in, arrived_of, is_accounted_for, make_key, objects_below, stores},
    columns::LAKE,
    support::{
        Arrived, Outcome, World,
        bucket::Bucket,
        gate::{Gate, Mode},
        kill_hard, terminate,
    },
};

/// An archive of small objects, a file sink `soc` with events, and one that is not concerned.
fn world(config: SimulatorConfig, state: &str) -> World {
    let world = World::new(config);
    let (target, key) = (world.path().join("archive"), make_key(&world));
    let (soc, files) = (world.out("soc"), world.out("files"));
    let sinks = format!(
        "[sinks.evidence]\ntype = \"archive\"\ntarget = \"directory\"\ndirectory = {target:?}\n\
         signing_key = {{ file = {key:?} }}\nobject_bytes = \"64KiB\"\n\
         [sinks.soc]\ntype = \"file\"\ndirectory = {soc:?}\n\
         [sinks.files]\ntype = \"file\"\ndirectory = {files:?}\nview = \"raw\"\n"
    );
    world.configure_sinks(state, "", &sinks);
    world.collect();
    world
}

fn small() -> SimulatorConfig {
    SimulatorConfig { blobs: 20, records_per_blob: 30, ..SimulatorConfig::default() }
}

fn soc(world: &World) -> Arrived {
    Arrived::read(&world.out("soc"))
}

/// What the receiver had is gone.
fn lose(world: &World) {
    fs::remove_dir_all(world.out("soc")).expect("it was there");
}

fn restore(world: &World, more: &[&str]) -> Outcome {
    world.mailtrail(&[&["archive", "restore", "--sink", "soc"], more].concat())
}

const ALL: [&str; 4] = ["--since", "2000-01-01", "--until", "2100-01-01"];

/// Every record as it came.
fn records(world: &World) -> Vec<Value> {
    Arrived::read(&world.out("files")).events().collect()
}

fn text<'a>(record: &'a Value, field: &str) -> &'a str {
    record[field].as_str().unwrap_or_default()
}

fn ids<'a>(records: impl IntoIterator<Item = &'a Value>) -> BTreeSet<String> {
    records.into_iter().map(|record| text(record, "Id").to_owned()).collect()
}

fn arrived_ids(arrived: &Arrived) -> BTreeSet<String> {
    let ids = arrived.ids();
    assert!(ids.values().all(|times| *times == 1), "something came more than once");
    ids.into_keys().collect()
}

fn name(object: &Path) -> &str {
    object.file_name().and_then(|name| name.to_str()).expect("a name")
}

#[test]
fn a_lost_time_comes_back_to_one_sink_with_the_same_events() {
    let world = world(small(), "");
    let before: BTreeSet<_> = soc(&world).lines().to_vec().into_iter().collect();
    let (files, archived) =
        (Arrived::read(&world.out("files")).len(), objects_below(&world.path().join("archive")));
    let mut times: Vec<_> =
        records(&world).iter().map(|record| text(record, "CreationTime").to_owned()).collect();
    times.sort();
    let (since, until) = (times[times.len() / 4].clone(), times[times.len() * 3 / 4].clone());
    let all = records(&world);
    let due =
        all.iter().filter(|record| (since.as_str()..until.as_str()).contains(&text(record, "CreationTime")));
    let due = ids(due);
    assert!(!due.is_empty() && due.len() < all.len());
    lose(&world);
    let span = ["--since", &since, "--until", &until];
    // Counting changes nothing.
    let counted = restore(&world, &[&span[..], &["--dry-run"]].concat()).ends_with(0);
    assert!(
        counted.stdout.starts_with(&format!("{} records would be restored to sink soc", due.len())),
        "{}",
        counted.stdout
    );
    world.collect();
    assert!(!world.out("soc").exists() || soc(&world).len() == 0);
    let restored = restore(&world, &span).ends_with(0);
    assert!(
        restored.stdout.starts_with(&format!("{} records are due for sink soc (restore 1)", due.len())),
        "{}",
        restored.stdout
    );
    assert!(restored.stdout.contains("the next `mailtrail run` delivers them"), "{}", restored.stdout);
    let status = world.mailtrail(&["status"]).ends_with(0).stdout;
    assert!(status.contains("from the archive") && status.contains("complete"), "{status}");
    let summary = world.collect().stdout;
    assert!(summary.contains("soc (restored)"), "{summary}");
    assert_eq!(arrived_ids(&soc(&world)), due);
    assert!(
        soc(&world).lines().iter().all(|line| before.contains(line)),
        "an event differs from what it was"
    );
    assert_eq!(Arrived::read(&world.out("files")).len(), files, "nobody else gets anything");
    assert_eq!(objects_below(&world.path().join("archive")), archived);
    let reconciled = world.mailtrail(&["reconcile", "--by", "feed"]).ends_with(0).stdout;
    assert!(reconciled.contains("soc (restored)") && reconciled.contains("the sums agree"), "{reconciled}");
    // The chain of manifests goes on over the numbers that were taken.
    let verify = ["archive", "verify", "--sink", "evidence", "--public-key", "archive.pub"];
    world.mailtrail(&verify).ends_with(0);
    // Asked again when it is complete, it is done again.
    let again = restore(&world, &span).ends_with(0);
    assert!(again.stdout.contains("(restore 2)"), "{}", again.stdout);
}

#[test]
fn users_operations_and_mailboxes_choose() {
    let world = world(small(), "");
    let all = records(&world);
    let user = text(&all[0], "UserId");
    let by_user = all.iter().filter(|record| text(record, "UserId").eq_ignore_ascii_case(user));
    let expected = ids(by_user.clone());
    lose(&world);
    restore(&world, &[&ALL[..], &["--users", &format!("nobody@x.y,{user}")]].concat()).ends_with(0);
    world.collect();
    assert_eq!(arrived_ids(&soc(&world)), expected);
    let operation = text(&all[0], "Operation");
    let expected = ids(by_user.filter(|record| text(record, "Operation") == operation));
    lose(&world);
    restore(&world, &[&ALL[..], &["--users", user, "--operations", operation]].concat()).ends_with(0);
    world.collect();
    assert_eq!(arrived_ids(&soc(&world)), expected);
    let owned = all.iter().filter(|record| !text(record, "MailboxOwnerUPN").is_empty());
    let owner =
        owned.clone().map(|record| text(record, "MailboxOwnerUPN")).next().expect("a mailbox's record");
    let dry = restore(&world, &[&ALL[..], &["--mailboxes", owner, "--dry-run"]].concat()).ends_with(0);
    let count = owned.filter(|record| text(record, "MailboxOwnerUPN") == owner).count();
    let found: usize = dry.stdout.split(' ').next().and_then(|count| count.parse().ok()).expect("a count");
    assert!(found >= count, "{}", dry.stdout);
    let nothing = restore(&world, &["--since", "2001-01-01", "--until", "2002-01-01"]).ends_with(0);
    assert!(nothing.stdout.contains("nothing is restored"), "{}", nothing.stdout);
}

#[test]
fn a_running_mailtrail_takes_the_records_and_delivers_them() {
    let world = world(small(), "");
    let expected = ids(&records(&world));
    lose(&world);
    let running = world.start(&["run"]);
    world.until("it answers", || world.mailtrail(&["status", "--alive"]).status.success());
    let restored = restore(&world, &ALL).ends_with(0);
    assert!(restored.stdout.contains("The running mailtrail delivers them"), "{}", restored.stdout);
    world.until("they are there", || world.out("soc").exists() && soc(&world).len() == expected.len());
    terminate(&running);
    running.wait().ends_with(0);
    assert_eq!(arrived_ids(&soc(&world)), expected);
    world.mailtrail(&["reconcile"]).ends_with(0);
}

#[test]
fn killed_and_full_it_goes_on_and_nothing_comes_twice() {
    let config = SimulatorConfig { blobs: 60, records_per_blob: 100, ..SimulatorConfig::default() };
    let world = world(config, "spool_max_bytes = \"8MiB\"");
    let expected = ids(&records(&world));
    lose(&world);
    let mut random = StdRng::seed_from_u64(5);
    let arguments = [&["archive", "restore", "--sink", "soc"], &ALL[..]].concat();
    let (mut killed, mut full, mut rounds) = (0, 0, 0);
    loop {
        rounds += 1;
        assert!(rounds < 60, "it does not come to an end");
        let restoring = world.start(&arguments);
        if rounds % 4 != 0 {
            thread::sleep(Duration::from_millis(random.random_range(20..1500)));
            kill_hard(&restoring);
        }
        let outcome = restoring.wait();
        match outcome.status.code() {
            Some(0) => break,
            Some(1) => {
                assert!(outcome.text().contains("start `mailtrail run`"), "{}", outcome.text());
                full += 1;
                world.collect();
            }
            None => killed += 1,
            Some(other) => panic!("exit status {other}: {}", outcome.text()),
        }
    }
    println!("killed {killed} times, stopped by a full spool {full} times");
    assert!(killed > 0);
    world.collect();
    assert_eq!(arrived_ids(&soc(&world)), expected);
    world.mailtrail(&["reconcile"]).ends_with(0);
}

#[test]
fn either_side_of_the_socket_may_be_killed() {
    let config = SimulatorConfig { blobs: 60, records_per_blob: 100, ..SimulatorConfig::default() };
    let world = world(config, "");
    let expected = ids(&records(&world));
    lose(&world);
    let mut random = StdRng::seed_from_u64(7);
    let arguments = [&["archive", "restore", "--sink", "soc"], &ALL[..]].concat();
    let (mut interrupted, mut begun, mut complete) = (0, false, false);
    for round in 0..8 {
        let running = world.start(&["run"]);
        world.until("it answers", || world.mailtrail(&["status", "--alive"]).status.success());
        let restoring = world.start(&arguments);
        thread::sleep(Duration::from_millis(random.random_range(5..400)));
        kill_hard(if round % 2 == 0 { &running } else { &restoring });
        let outcome = restoring.wait();
        if round % 2 == 0 && outcome.status.code() == Some(1) {
            let told = ["ask for the same again", "ended before it answered; ask again"];
            assert!(told.iter().any(|told| outcome.stderr.contains(told)), "{}", outcome.text());
        }
        interrupted += usize::from(outcome.status.code() != Some(0));
        drop(running);
        // One that was complete before the kill must not be asked for again: that would be another restore.
        let unfinished = world.mailtrail(&["status"]).stdout.contains("unfinished");
        if outcome.status.success() || (begun && !unfinished) {
            complete = true;
            break;
        }
        begun |= unfinished;
    }
    println!("interrupted {interrupted} times");
    if !complete {
        restore(&world, &ALL).ends_with(0);
    }
    world.collect();
    assert_eq!(arrived_ids(&soc(&world)), expected);
    world.mailtrail(&["reconcile"]).ends_with(0);
}

#[test]
fn a_damaged_object_is_named_and_nothing_of_it_is_restored() {
    // How much goes into an object depends on how it comes: few objects would sometimes be too few.
    let world = world(SimulatorConfig { blobs: 80, ..small() }, "");
    let archive = world.path().join("archive");
    let expected = ids(&records(&world));
    let all = objects_below(&archive);
    let [damaged, missing, rest @ ..] = &all[..] else { panic!("there are too few objects: {all:?}") };
    assert!(!rest.is_empty());
    let whole: Vec<_> = [damaged, missing].map(|object| fs::read(object).expect("an object")).into();
    let mut bytes = whole[0].clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(damaged).expect("it was there");
    fs::write(damaged, bytes).expect("written");
    fs::remove_file(missing).expect("it was there");
    // A file that no entry names is nobody's evidence.
    let planted = damaged.with_file_name(name(missing).replace(".zst", ".gz"));
    fs::write(&planted, b"{}").expect("written");
    lose(&world);
    let outcome = restore(&world, &ALL).ends_with(1);
    for (object, why) in
        [(damaged, "its SHA-256 is"), (missing, "is not there"), (&planted, "no entry names it")]
    {
        let line =
            outcome.stderr.lines().find(|line| line.starts_with("mailtrail:") && line.contains(name(object)));
        assert!(line.is_some_and(|line| line.contains(why)), "{}", outcome.text());
    }
    assert!(world.mailtrail(&["status"]).stdout.contains("unfinished"));
    world.collect();
    let whole_objects = arrived_ids(&arrived_of(rest));
    assert_eq!(arrived_ids(&soc(&world)), whole_objects, "the others are not concerned");
    assert!(whole_objects.len() < expected.len());
    fs::remove_file(&planted).expect("it was there");
    for (object, bytes) in [damaged, missing].into_iter().zip(whole) {
        fs::write(object, bytes).expect("written");
    }
    let outcome = restore(&world, &ALL).ends_with(0);
    assert!(outcome.stdout.starts_with("Restore 1 goes on"), "{}", outcome.stdout);
    world.collect();
    assert_eq!(arrived_ids(&soc(&world)), expected, "each record came once");
    assert_eq!(arrived_ids(&arrived_in(&archive)), expected);
}

/// What a sink has lost comes back from a bucket, when the command was killed and its requests were refused. `lines` are of
/// the archive sink.
pub(crate) fn what_was_lost_comes_back_from(bucket: &Bucket, lines: &str) {
    let world = World::new(SimulatorConfig { blobs: 60, ..small() });
    let gate = Gate::before(bucket.address, "GET");
    let lines = format!("object_bytes = \"256KiB\"\n{lines}");
    stores::configure(&world, bucket, gate.address(), "", &lines);
    let out = world.out("soc");
    world.edit(|text| format!("{text}\n[sinks.soc]\ntype = \"file\"\ndirectory = {out:?}\n"));
    world.collect();
    let (due, archived) = (world.due(), bucket.objects());
    assert_eq!(arrived_ids(&soc(&world)), due);
    assert!(archived.len() > 1, "several objects are to be read: {archived:?}");
    lose(&world);

    gate.set(Mode::Before);
    let restoring = world.start(&[&["archive", "restore", "--sink", "soc"], &ALL[..]].concat());
    world.until("it waits for an object", || gate.seen() > 0);
    kill_hard(&restoring);
    restoring.wait();
    gate.set(Mode::Busy(2));
    let restored = restore(&world, &ALL).ends_with(0);
    assert!(restored.stdout.starts_with("Restore 1 goes on"), "{}", restored.stdout);
    assert_eq!(gate.seen(), 2, "it was refused that often");
    world.collect();
    assert_eq!(arrived_ids(&soc(&world)), due);
    assert_eq!(bucket.objects(), archived, "what is restored is not archived again");
    bucket.download(&world);
    is_accounted_for(&world, "copy");
}

#[test]
fn s3_gives_back_what_a_sink_has_lost() {
    what_was_lost_comes_back_from(&Bucket::memory(), "");
}

#[test]
fn s3_gives_back_what_a_sink_has_lost_from_columns_alone() {
    what_was_lost_comes_back_from(&Bucket::memory(), LAKE);
}

#[test]
fn what_cannot_be_restored_is_refused_with_the_reason() {
    let config = SimulatorConfig {
        tenants: (0..2).map(TenantConfig::numbered).collect(),
        blobs: 4,
        records_per_blob: 5,
        ..SimulatorConfig::default()
    };
    let world = world(config, "");
    let refused = |arguments: &[&str], code: i32, words: &str| {
        let arguments = [&["archive", "restore"], arguments].concat();
        let outcome = world.mailtrail(&arguments).ends_with(code);
        assert!(outcome.stderr.contains(words), "{arguments:?}: {}", outcome.stderr);
    };
    let sink = |name| [&["--sink", name], &ALL[..]].concat();
    refused(&sink("splunk"), 2, "there is no sink splunk in");
    refused(&sink("evidence"), 2, "sink evidence is an archive");
    refused(
        &["--sink", "soc", "--since", "2026-01-02", "--until", "2026-01-02"],
        2,
        "--since must be before --until",
    );
    refused(&[&sink("soc")[..], &["--from", "files"]].concat(), 2, "sink files is no archive");
    refused(&[&sink("soc")[..], &["--directory", "nowhere"]].concat(), 2, "nowhere is no folder");
    refused(&[&sink("soc")[..], &["--tenant", "fabrikam"]].concat(), 2, "no tenant `fabrikam`");
    // A tenant that is no longer configured is left out only when that is said.
    world.edit(|text| {
        let second = text.find("[tenants.tenant1]").expect("there are two");
        let end = text.find("[sinks.").expect("there are sinks");
        format!("{}{}", &text[..second], &text[end..])
    });
    refused(&sink("soc"), 2, "tenants that are not in");
    restore(&world, &[&ALL[..], &["--tenant", "tenant0"]].concat()).ends_with(0);
    // Without a ledger there is nothing to restore through, and none is made.
    fs::rename(world.path().join("state"), world.path().join("old")).expect("renamed");
    refused(&[&sink("soc")[..], &["--tenant", "tenant0"]].concat(), 1, "there is no ledger in");
    assert!(!world.path().join("state").exists());
}
