//! Bodies and pages without end: they cost bounded memory, stop nobody, and what cannot be had is named.

use std::{fs, thread, time::Duration};

use chrono::{TimeDelta, Utc};
use schemas::{ContentType, TenantId};
use simulator::{Blob, Fate, Faults, RequestKind, SimulatorConfig, TenantConfig};

use crate::support::{Arrived, Binary, World, terminate};

/// What mailtrail takes of memory at most, whatever the service sends.
const MOST: u64 = 128 << 20;

/// The most anonymous memory that a process has until it ends, in bytes.
fn watch(running: &Binary) -> thread::JoinHandle<u64> {
    let status = format!("/proc/{}/status", running.pid());
    thread::spawn(move || {
        let mut most = 0;
        while let Some(now) = anonymous(&fs::read_to_string(&status).unwrap_or_default()) {
            most = most.max(now);
            thread::sleep(Duration::from_millis(5));
        }
        most
    })
}

fn anonymous(status: &str) -> Option<u64> {
    let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    kib.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

fn config(faults: &str) -> SimulatorConfig {
    SimulatorConfig {
        records_per_blob: 10,
        faults: faults.parse::<Faults>().expect("faults"),
        ..SimulatorConfig::default()
    }
}

#[test]
fn gzip_bombs_become_gaps_when_they_expire_and_the_other_blobs_arrive() {
    let mut simulated = config("gzip_bomb=1/4");
    // They are listed at once, and soon expire.
    simulated.blobs = 12;
    simulated.backlog_span = Duration::from_secs(1);
    simulated.retention = Duration::from_secs(30);
    let world = World::new(simulated);
    let truth: Vec<_> = world.simulator().truth().blobs().collect();
    let bombs: Vec<_> = truth.iter().filter(|blob| blob.fate == Fate::Oversized).collect();
    assert_eq!(bombs.len(), 3);
    world.configure_with(
        "max_blob_bytes = \"16MiB\"\npoll_interval = \"1s\"\n",
        &[("files", "view = \"raw\"")],
    );
    let running = world.start(&["run"]);
    let memory = watch(&running);
    let mut report = String::new();
    world.until("the bombs are gaps", || {
        report = world.mailtrail(&["reconcile"]).stdout;
        report.matches("gap-").count() == bombs.len()
    });
    terminate(&running);
    let outcome = running.wait().ends_with(0);
    let most = memory.join().expect("no panic");
    assert!(0 < most && most < MOST, "{most} bytes");

    // Whoever reads the log knows what to do before they expire.
    assert!(outcome.stderr.contains("raise max_blob_bytes"), "{}", outcome.stderr);
    for bomb in &bombs {
        assert!(outcome.stderr.contains(&bomb.content_id) && report.contains(&bomb.content_id), "{report}");
    }
    assert!(report.contains("the sums agree; 3 losses are not acknowledged"), "{report}");
    world.mailtrail(&["reconcile"]).ends_with(1);
    let due: Vec<_> = truth.iter().flat_map(|blob| &blob.ids).collect();
    let arrived = Arrived::read(&world.out("files")).ids();
    assert_eq!((arrived.len(), due.len()), (90, 90));
    assert!(due.iter().all(|id| arrived.get(*id) == Some(&1)));
}

/// The largest page that is read has 16 MiB. What is larger is asked for in shorter windows.
#[test]
fn pages_of_any_length_are_listed() {
    for (padding, fits) in [(55_000, true), (60_000, false), (120_000, false)] {
        let mut simulated = config(&format!("padded_entries={padding}"));
        simulated.blobs = 300;
        simulated.records_per_blob = 1;
        simulated.page_size = 1000;
        simulated.backlog_span = Duration::from_secs(20 * 3600);
        let world = World::new(simulated);
        let running = world.configure().start(&["run", "--until-idle"]);
        let memory = watch(&running);
        let outcome = running.wait().ends_with(0);
        let most = memory.join().expect("no panic");
        assert!(0 < most && most < MOST, "{most} bytes");
        let asked_again = outcome.stderr.matches("window begun anew").count();
        assert_eq!(asked_again == 0, fits, "{padding}: {}", outcome.stderr);
        world.is_complete();
    }
}

/// Each is taken in alone. What takes most is its delivery, which reads it, renders it and writes it, and what the allocator
/// keeps of that for the threads that did it.
#[test]
fn records_far_larger_than_a_piece_are_taken_in_one_at_a_time() {
    const LARGE: usize = 16 << 20;
    let mut simulated = config("");
    simulated.gzip = false;
    let text = "x".repeat(LARGE);
    for number in 0..12 {
        let record = format!(
            r#"{{"Id":"large-{number}","CreationTime":"2026-01-01T00:00:00","Operation":"Send","UserId":"a@b","Item":"{text}"}}"#
        );
        let created = Utc::now() - TimeDelta::hours(1);
        simulated.given.push(Blob::from_records(ContentType::Exchange, created, &[record]));
    }
    let world = World::new(simulated);
    let running = world.configure().start(&["run", "--until-idle"]);
    let memory = watch(&running);
    running.wait().ends_with(0);
    let most = memory.join().expect("no panic");
    assert!((LARGE as u64..MOST + 6 * LARGE as u64).contains(&most), "{most} bytes");
    world.is_complete();
}

/// Twenty tenants whose bodies all come, and none of which comes to its end.
#[test]
fn bodies_of_many_tenants_come_into_bounded_memory() {
    const TENANTS: u128 = 20;
    const BODIES: u64 = 8;
    let mut simulated = config("stall=1/1x1000");
    (simulated.blobs, simulated.gzip) = (0, false);
    let tenant = |number: u128| TenantConfig {
        tenant_id: TenantId::new(uuid::Uuid::from_u128(0x5150_a11e_c0de_4000_8000_0000_0000_0100 + number)),
        client_id: format!("5150a11e-c0de-4000-8000-{number:012}"),
        ..TenantConfig::default()
    };
    simulated.tenants = (0..TENANTS).map(tenant).collect();
    // Nothing makes them smaller.
    let text: String = (0..250_000).map(|_| char::from(rand::random_range(b'a'..=b'z'))).collect();
    let records = vec![format!("\"{text}\""); 8];
    let body = Blob::from_records(ContentType::Exchange, Utc::now() - TimeDelta::hours(1), &records);
    for tenant in &simulated.tenants {
        simulated.given.extend((0..BODIES).map(|_| body.clone().of_tenant(tenant.tenant_id)));
    }
    let world = World::new(simulated);
    let running = world.configure().start(&["run"]);
    let memory = watch(&running);
    let asked_for = || world.simulator().stats().requests_of(RequestKind::FetchBlob);
    world.until("all are asked for", || asked_for() >= TENANTS as u64 * BODIES);
    // As much comes as is taken.
    thread::sleep(Duration::from_secs(2));
    drop(running);
    let most = memory.join().expect("no panic");
    assert!(0 < most && most < MOST, "{most} bytes");
}
