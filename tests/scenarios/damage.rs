//! Bodies that change on disk before every sink has them: it is noticed, they are fetched again, and what arrives is whole.

use std::{fs, net::SocketAddr, os::unix::fs::FileExt};

use simulator::SimulatorConfig;

use crate::support::{
    Arrived, World, free_address, hang_up,
    hec::{Acks, Act, Hec, TOKEN},
    kill_hard, sample, terminate,
};

/// Changes bytes of every piece in the spool, whoever has it open; gives how many.
fn damage(world: &World) -> usize {
    const HEADER: u64 = 64;
    const EVERY: usize = 1024;
    let mut changed = 0;
    for entry in fs::read_dir(world.path().join("state/spool")).expect("a spool") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        // One that everybody is done with may go at any moment.
        let Ok(file) = fs::File::options().read(true).write(true).open(&path) else { continue };
        for at in (HEADER..file.metadata().expect("metadata").len()).step_by(EVERY) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("a byte");
            file.write_all_at(&[!byte[0]], at).expect("written");
            changed += 1;
        }
    }
    changed
}

/// Two file sinks, of which one is slow, and a receiver that takes nothing for now.
fn lagging(world: &World, hec: &Hec, address: SocketAddr) {
    let token = world.path().join("hec-token");
    fs::write(&token, TOKEN).expect("a token");
    let file = |name: &str| {
        let out = world.out(name);
        format!("[sinks.{name}]\ntype = \"file\"\ndirectory = {out:?}\nview = \"raw\"\n")
    };
    let sinks = format!(
        "{}{}events_per_second = 50\n[sinks.soc]\ntype = \"splunk_hec\"\nurl = {:?}\ntoken = {{ file = {token:?} }}\n\
         acknowledgement = \"accept\"\nlinger = \"50ms\"\n",
        file("files"),
        file("slow"),
        hec.url()
    );
    world.configure_sinks(&format!("[http]\nlisten = \"{address}\"\n"), "", &sinks);
    hec.set(|behaviour| behaviour.always = Some(Act::code(503, 23)));
}

#[test]
fn bodies_that_are_damaged_under_a_running_process_are_fetched_again_and_arrive_once() {
    // More than the pieces that are kept in memory.
    let world =
        World::new(SimulatorConfig { blobs: 100, records_per_blob: 100, ..SimulatorConfig::default() });
    let (hec, address) = (Hec::start(Acks::Off), free_address());
    lagging(&world, &hec, address);
    let running = world.start(&["run"]);
    let delivered = |sink: &str| sample(address, &format!("mailtrail_sink_records_total{{sink=\"{sink}\"}}"));
    world.until("one sink has everything", || delivered("files") == Some(10_000.0));
    assert!(delivered("slow") < Some(9_000.0), "the other lags behind");
    assert_eq!(hec.count(), 0);
    let damaged = || sample(address, "mailtrail_damaged_pieces_total").expect("it is counted");
    assert_eq!(damaged(), 0.0);
    assert!(damage(&world) > 1000);

    hec.set(|behaviour| behaviour.always = None);
    world.until("the slow one has met it", || damaged() > 0.0);
    // From here on it may be as fast as it can.
    world.edit(|text| text.replace("events_per_second = 50\n", ""));
    hang_up(&running);
    let left = || sample(address, "mailtrail_sink_lag_records{sink=\"slow\"}");
    world.until("the slow one has everything", || left() == Some(0.0));
    world.until("and the receiver", || hec.count() >= 10_000);
    world.until("all is settled", || sample(address, "mailtrail_spool_wanted_bytes") == Some(0.0));
    assert!(damaged() > 0.0);
    assert!(world.simulator().stats().blobs_served_again > 0);
    terminate(&running);
    let log = running.wait().ends_with(0).stderr;
    assert!(log.contains("a body is damaged in the spool; the blob is fetched again"), "{log}");
    Arrived::read(&world.out("slow")).is_exactly(&world.simulator().truth());
    assert_eq!(world.came_at_least_once(&hec.ids(), "soc"), (0, 0), "the same body goes on where it was");
    world.is_complete();
}

/// What comes again is not what was delivered in part: its records have other positions.
fn gives_other_bodies(world: &World) {
    assert!(damage(world) > 0);
    world.simulator().change_faults(|faults| faults.set("other_body=1")).expect("it can be set at any time");
}

#[test]
fn a_body_that_comes_back_as_another_is_delivered_whole_and_what_comes_twice_is_counted() {
    let world = World::new(SimulatorConfig { blobs: 12, records_per_blob: 15, ..SimulatorConfig::default() });
    let (hec, address) = (Hec::start(Acks::Off), free_address());
    lagging(&world, &hec, address);
    world.edit(|text| text + "batch_events = 10\nconnections = 1\n");
    hec.set(|behaviour| behaviour.script = [Act::success(24)].into());
    let running = world.start(&["run"]);
    world.until("a part of a blob is delivered", || hec.count() == 10);
    terminate(&running);
    running.wait().ends_with(0);

    gives_other_bodies(&world);
    hec.set(|behaviour| behaviour.always = None);
    let log = world.collect().stderr;
    assert!(log.contains("came back as another body"), "{log}");
    let (twice, resent) = world.came_at_least_once(&hec.ids(), "soc");
    assert_eq!((twice, resent), (10, 10));
    world.is_complete();
}

#[test]
fn a_file_that_was_killed_over_a_body_that_comes_back_as_another_has_every_record_once() {
    let world = World::new(SimulatorConfig { blobs: 6, records_per_blob: 60, ..SimulatorConfig::default() });
    world.configure_with("", &[("files", "view = \"raw\"\nevents_per_second = 40")]);
    let running = world.start(&["run"]);
    let live = world.out("files").join("mailtrail.ndjson");
    let lines = || fs::read(&live).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count());
    world.until("a part of a blob is written", || lines() > 60 && lines() % 60 != 0);
    kill_hard(&running);
    running.wait();

    gives_other_bodies(&world);
    world.configure();
    let log = world.collect().stderr;
    assert!(log.contains("came back as another body"), "{log}");
    world.is_complete();
}
