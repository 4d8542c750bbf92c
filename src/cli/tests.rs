use std::time::Duration;

use chrono::Utc;
use clap::{Command as Clap, CommandFactory, error::ErrorKind};

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(words(line))
}

/// The error as it is printed, without the usage that follows.
fn error(line: &str) -> String {
    let error = parse(line).expect_err("the line is wrong");
    assert_eq!(error.exit_code(), 2, "{line}");
    let text = error.to_string();
    text.split("\n\nUsage:").next().unwrap_or(&text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A line as a shell would split it: blanks, single quotes, comments; up to a pipe or another place for the output.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            '#' | '|' | '>' if !quoted => break,
            c => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn each_command(command: &Clap, path: &str, visit: &mut impl FnMut(&Clap, &str)) {
    visit(command, path);
    for child in command.get_subcommands() {
        each_command(child, &format!("{path} {}", child.get_name()), visit);
    }
}

#[test]
fn every_command_has_help_with_examples_that_are_right() {
    Cli::command().debug_assert();
    let mut commands = 0;
    each_command(&Cli::command(), "mailtrail", &mut |command, path| {
        commands += 1;
        let help = command.clone().render_long_help().to_string();
        let examples: Vec<&str> = help
            .lines()
            .filter_map(|line| line.strip_prefix("  "))
            .filter(|line| line.starts_with("mailtrail "))
            .collect();
        assert!(
            examples.iter().any(|line| line.starts_with(path)),
            "{path} shows no example of itself:\n{help}"
        );
        for example in examples {
            if let Err(error) = parse(example) {
                panic!("{path} shows `{example}`: {error}");
            }
        }
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(!about.is_empty() && !about.contains('`'), "{path} is about {about:?}");
    });
    assert_eq!(commands, 24, "a command was added: cover it here");
}

#[test]
fn every_main_command_tells_its_exit_status() {
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        let help = command.clone().render_long_help().to_string();
        assert!(help.contains("Exit status: 0 ") && help.contains("2 wrong usage"), "{name}:\n{help}");
    }
}

#[test]
fn the_first_help_says_what_there_is() {
    let help = parse("mailtrail").unwrap_err();
    assert_eq!(help.kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    let help = help.to_string();
    let commands: Vec<(&str, &str)> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.trim().split_once("  "))
        .map(|(name, about)| (name, about.trim()))
        .collect();
    assert_eq!(
        commands,
        [
            ("demo", "Collect a simulated tenant on this machine, and prove the sums"),
            ("run", "Collect and deliver"),
            ("check", "Check the configuration, then try each credential, subscription and sink"),
            ("status", "Show how far each feed and each sink is"),
            ("reconcile", "Prove that everything listed was fetched and delivered, or show what was not"),
            ("dead-letters", "Look at what a sink refused for good, and try it again"),
            ("sinks", "Tell the ledger about sinks"),
            ("sentinel", "Set up a table of Microsoft Sentinel"),
            ("archive", "Make keys for archives, verify them, prove what they hold, put records back"),
            ("simulate", "Serve a simulated tenant: token endpoint and Management Activity API"),
        ]
    );
    let first =
        help.split("\n\n").next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(first, ABOUT);
    assert!(
        help.ends_with("Exit status: 0 ok, 1 found a problem, 2 wrong usage or configuration.\n"),
        "{help}"
    );
}

#[test]
fn wrong_lines_are_told_what_would_be_right() {
    for (line, message) in [
        (
            "mailtrail statsu",
            "error: unrecognized subcommand 'statsu' tip: a similar subcommand exists: 'status'",
        ),
        (
            "mailtrail run --until-idel",
            "error: unexpected argument '--until-idel' found tip: a similar argument exists: '--until-idle'",
        ),
        (
            "mailtrail run --log-format xml",
            "error: invalid value 'xml' for '--log-format <FORMAT>' [possible values: text, json] For more information, try \
             '--help'.",
        ),
        (
            "mailtrail reconcile --since yesterday",
            "error: invalid value 'yesterday' for '--since <TIME>': use a day (2026-11-20), a time in UTC \
             (2026-11-20T10:00:00Z), or how long ago (24h, 7d) For more information, try '--help'.",
        ),
        (
            "mailtrail reconcile acknowledge gap-1",
            "error: the following required arguments were not provided: --reason <TEXT>",
        ),
        (
            "mailtrail reconcile acknowledge gap-1 --reason ' '",
            "error: invalid value ' ' for '--reason <TEXT>': say something For more information, try '--help'.",
        ),
        (
            "mailtrail dead-letters retry",
            "error: the following required arguments were not provided: <ID|--sink <NAME>|--all>",
        ),
        ("mailtrail dead-letters retry 1 --all", "error: the argument '[ID]...' cannot be used with '--all'"),
        (
            "mailtrail dead-letters show x",
            "error: invalid value 'x' for '<ID>': invalid digit found in string For more information, try '--help'.",
        ),
        (
            "mailtrail sinks forget a.b",
            "error: invalid value 'a.b' for '<NAME>': `a.b` cannot name a sink: use 1 to 64 letters, digits, `_` or `-` For \
             more information, try '--help'.",
        ),
        (
            "mailtrail simulate --token-lifetime 60",
            "error: invalid value '60' for '--token-lifetime <DURATION>': `60` has no unit: use ms, s, m, h or d, as in 60s \
             For more information, try '--help'.",
        ),
        (
            "mailtrail demo --fault cut_body",
            "error: invalid value 'cut_body' for '--fault <NAME=VALUE>': `cut_body` is not of the form NAME=VALUE For more \
             information, try '--help'.",
        ),
        (
            "mailtrail demo --users 0",
            "error: invalid value '0' for '--users <N>': number would be zero for non-zero type For more information, try \
             '--help'.",
        ),
    ] {
        assert_eq!(error(line), message, "{line}");
    }
}

#[test]
fn global_options_are_taken_at_any_place() {
    for line in [
        "mailtrail --log-format json dead-letters list --config m.toml",
        "mailtrail dead-letters --config m.toml list --log-format json",
    ] {
        let cli = parse(line).unwrap();
        assert_eq!(cli.log.log_format, LogFormat::Json, "{line}");
        let Command::DeadLetters(args) = cli.command else { panic!("{line}") };
        assert_eq!(args.config.config.as_deref(), Some(std::path::Path::new("m.toml")), "{line}");
    }
    let Command::Reconcile(args) =
        parse("mailtrail reconcile acknowledge gap-1 --reason ok -c m.toml").unwrap().command
    else {
        panic!("reconcile")
    };
    assert_eq!(args.config.config.as_deref(), Some(std::path::Path::new("m.toml")));
}

#[test]
fn a_simulation_is_what_the_options_say() {
    let Command::Simulate(args) = parse("mailtrail simulate").unwrap().command else { panic!("simulate") };
    let usual = args.simulator_config(Utc::now());
    let default = simulator::SimulatorConfig::default();
    assert_eq!(usual.users, default.users);
    assert_eq!(usual.tenants.len(), 1);
    assert_eq!(usual.content_types, default.content_types);
    assert_eq!(usual.token_lifetime, default.token_lifetime);
    assert_eq!(usual.requests_per_minute, default.requests_per_minute);
    assert_eq!(usual.page_size, default.page_size);
    assert_eq!(usual.start_spacing, default.start_spacing);
    assert_eq!(usual.backlog_span, default.backlog_span);
    assert_eq!(usual.faults, default.faults);
    assert!(usual.gzip && !usual.prerender && !usual.quirks && !usual.subscribed);

    let line = "mailtrail simulate --tenants 3 --content-type Audit.General --content-type DLP.All --record-bytes 2KiB \
                --rate 12.5 --requests-per-minute 0 --no-gzip --fault cut_body=1/50x2 --fault clock_skew=-5m --anchor \
                2026-11-20";
    let Command::Simulate(args) = parse(line).unwrap().command else { panic!("simulate") };
    let simulation = args.simulator_config(Utc::now());
    assert_eq!(simulation.tenants.len(), 3);
    assert_ne!(simulation.tenants[0].tenant_id, simulation.tenants[2].tenant_id);
    assert_eq!(simulation.content_types.len(), 2);
    assert_eq!(simulation.record_bytes, Some(2048));
    assert_eq!(simulation.rate, 12.5);
    assert_eq!(simulation.requests_per_minute, None);
    assert_eq!(
        simulation.anchor.map(|anchor| anchor.to_rfc3339()).as_deref(),
        Some("2026-11-20T00:00:00+00:00")
    );
    assert!(!simulation.gzip);
    let faults = simulation.faults.to_string();
    assert!(faults.contains("cut_body=1/50x2") && faults.contains("clock_skew=-300000ms"), "{faults}");
}

#[test]
fn the_simulations_help_lists_every_fault() {
    let help = simulation::simulate_help();
    for fault in simulator::FAULTS {
        assert!(help.contains(fault.name) && help.contains(fault.what), "{}", fault.name);
    }
    assert_eq!(
        parse("mailtrail demo --backlog-span 36h")
            .map(|cli| match cli.command {
                Command::Demo(args) => args.traffic.backlog_span,
                _ => Duration::ZERO,
            })
            .unwrap(),
        Duration::from_secs(36 * 3600)
    );
}
