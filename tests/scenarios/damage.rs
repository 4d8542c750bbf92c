//! Bodies that change on disk before every sink has them: it is noticed, they are fetched again, and what arrives is whole.

use std::{fs, net::SocketAddr, os::unix::fs::FileExt};

use simulator::SimulatorConfig;

use crate::support::{
    World, free_address,
    hec::{Acks, Act, Hec, TOKEN},
    kill_hard, terminate,
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
        "{}{}events_per_second = 400\n[sinks.soc]\ntype = \"splunk_hec\"\nurl = {:?}\ntoken = {{ file = {token:?} }}\n\
         acknowledgement = \"accept\"\nlinger = \"50ms\"\n",
        file("files"),
        file("slow"),
        hec.url()
    );
    world.configure_sinks(&format!("[http]\nlisten = \"{address}\"\n"), "", &sinks);
    hec.set(|behaviour| behaviour.always = Some(Act::code(503, 23)));
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
