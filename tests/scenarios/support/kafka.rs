//! What the scenarios with a real Apache Kafka need.

mod broker;
mod way;

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

pub(crate) use self::{
    broker::{Broker, STRANGER, WRITER},
    way::Way,
};
use super::{Arrived, World, installed};

/// The section of a sink `stream` that writes to the topic `audit`, with further lines.
pub(crate) fn sink(address: &str, lines: &str) -> String {
    let mut text = String::new();
    writeln!(
        text,
        "[sinks.stream]\ntype = \"kafka\"\nbootstrap_servers = [\"{address}\"]\ntopic = \"audit\"\nview = \"raw\"\n{lines}"
    )
    .expect("text");
    text
}

/// Waits until the topic grows, or the time is over.
pub(crate) fn until_it_grows(broker: &Broker, topic: &str, at_most: Duration) -> bool {
    let (before, deadline) = (broker.size(topic), Instant::now() + at_most);
    while Instant::now() < deadline {
        if broker.size(topic) > before {
            return true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    false
}

/// Copies a directory with everything in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else if kind.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
        }
    }
}

/// The ids that are missing, and those that came more than once, with how many times too often all together.
pub(crate) fn missing_and_surplus(arrived: &Arrived, world: &World) -> (usize, usize) {
    let ids = arrived.ids();
    let missing = world.due().iter().filter(|id| !ids.contains_key(*id)).count();
    (missing, ids.values().map(|times| times - 1).sum())
}
