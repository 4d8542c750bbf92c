//! The rate limit, as the receiver sees it. This is the one scenario that has to measure time.

use std::time::Duration;

use simulator::SimulatorConfig;

use super::Setup;
use crate::support::{
    hec::{Acks, Hec},
    terminate,
};

/// Records a second.
const RATE: usize = 400;

#[test]
fn the_rate_is_the_configured_one_and_no_second_has_twice_as_much() {
    let config = SimulatorConfig { blobs: 400, records_per_blob: 40, ..SimulatorConfig::default() };
    let lines = format!("events_per_second = {RATE}\nbatch_events = 40\n");
    let setup = Setup::new(config, Hec::start(Acks::Off), "accept", &lines);
    let running = setup.world.start(&["run"]);
    setup.world.until("enough arrived", || setup.hec.count() > RATE * 35);
    terminate(&running);
    running.wait().ends_with(0);
    let times: Vec<_> = setup.hec.events().into_iter().map(|event| event.at).collect();
    let seconds = |from: usize, to: usize| {
        let (start, end) =
            (times[0] + Duration::from_secs(from as u64), times[0] + Duration::from_secs(to as u64));
        times.iter().filter(|at| start <= **at && **at < end).count()
    };
    // The first second may spend what was saved up.
    let measured = seconds(2, 32) as f64 / 30.0;
    let deviation = (measured / RATE as f64 - 1.0).abs();
    assert!(deviation < 0.05, "{measured} records a second instead of {RATE}");
    let most = (0..33).map(|second| seconds(second, second + 1)).max().expect("seconds");
    assert!(most <= 2 * RATE, "{most} records in one second");
}
