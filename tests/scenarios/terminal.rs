//! What a person, or a program that reads the log, sees of a run.

use std::{
    fs::File,
    io::Read as _,
    process::{Command, Stdio},
    thread,
};

use nix::pty::{Winsize, openpty};
use serde_json::Value;
use simulator::SimulatorConfig;

use crate::support::World;

fn small() -> SimulatorConfig {
    SimulatorConfig { blobs: 4, records_per_blob: 10, ..SimulatorConfig::default() }
}

#[test]
fn every_line_of_a_json_log_is_an_object() {
    let mut config = small();
    config.faults = "server_error=1/2,clock_skew=10m".parse().expect("faults");
    let world = World::new(config);
    world.configure();
    let log = world.mailtrail(&["--log-format", "json", "run", "--until-idle"]).ends_with(0).stderr;
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    for line in &lines {
        let time = line["timestamp"].as_str().expect("a time");
        time.parse::<chrono::DateTime<chrono::Utc>>().expect("a time of RFC 3339");
        assert!(["ERROR", "WARN", "INFO"].contains(&line["level"].as_str().expect("a level")), "{line}");
        assert!(line["message"].is_string() && line["target"].is_string(), "{line}");
    }
    // Fields stand beside the message.
    let warned = lines.iter().find(|line| line["level"] == "WARN" && line["seconds"].is_number());
    let seconds = warned.and_then(|line| line["seconds"].as_i64());
    assert!(seconds.is_some_and(|seconds| (-600..=-590).contains(&seconds)), "{log}");
    assert!(lines.iter().any(|line| line["message"] == "listing" && line["tenant"] == "tenant0"), "{log}");
}

/// Runs until idle with a terminal for its log, and gives what came there.
fn on_a_terminal(world: &World, arguments: &[&str]) -> String {
    let size = Winsize { ws_row: 24, ws_col: 160, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).expect("a terminal");
    let mut screen = File::from(terminal.master);
    let mut child = Command::new(env!("CARGO_BIN_EXE_mailtrail"))
        .args(arguments)
        .current_dir(world.path())
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .env_remove("MAILTRAIL_LOG")
        .env_remove("MAILTRAIL_CONFIG")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(terminal.slave))
        .spawn()
        .expect("mailtrail starts");
    // It ends with an error when nobody has the other side open any more.
    let reading = thread::spawn(move || {
        let mut shown = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = screen.read(&mut chunk) {
            shown.extend_from_slice(&chunk[..count]);
        }
        String::from_utf8_lossy(&shown).into_owned()
    });
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    reading.join().expect("what it showed")
}

/// The text without what moves the cursor and colours it.
fn plain(shown: &str) -> String {
    let mut plain = String::new();
    let mut rest = shown;
    while let Some((before, sequence)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        let end = sequence.find(|c: char| c.is_ascii_alphabetic()).expect("a whole sequence");
        rest = &sequence[end + 1..];
    }
    plain + rest
}

#[test]
fn a_terminal_shows_progress_below_the_log_and_takes_it_away_at_the_end() {
    let mut config = small();
    config.faults = "slow_body=1@1500ms".parse().expect("a fault");
    let world = World::new(config);
    world.configure();
    let shown = on_a_terminal(&world, &["run", "--until-idle"]);
    let text = plain(&shown);
    assert!(
        text.contains("0 blobs, 0 records in (0/s), 0 records out; left: 4 blobs to fetch, 0 to deliver"),
        "{text}"
    );
    // A log line is whole, on a line of its own, whatever is drawn around it.
    let line = text.lines().find(|line| line.contains("starting the subscription")).expect("a log line");
    let line = line.rsplit('\r').next().expect("what was written last");
    assert!(line.contains("content_type=Audit.Exchange") && !line.contains("records out"), "{line}");
    let last_drawn = shown.rfind("records out").expect("it was drawn");
    assert!(shown[last_drawn..].contains("\u{1b}[2K"), "the line is taken away: {:?}", &shown[last_drawn..]);
    world.is_complete();

    let world = World::new(small());
    let log = world.configure().collect().stderr;
    assert!(!log.contains("records out") && !log.contains('\u{1b}'), "a file gets none of it: {log}");
}
