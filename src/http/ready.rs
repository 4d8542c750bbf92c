//! `/readyz`: whether everything that is required does its work, and what does not.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::live::{LiveReport, LiveState, RefusedConfig};

/// What fails for longer than this, though it is tried again all the time, is no longer a passing trouble.
const PASSING: TimeDelta = TimeDelta::minutes(5);

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Readiness {
    /// Whether every tenant and every required sink is `ok` or `degraded`, and the spool has room.
    pub(super) ready: bool,
    /// Why not.
    reasons: Vec<String>,
    spool_full: bool,
    refused_config: Option<RefusedConfig>,
    tenants: Vec<Thing>,
    sinks: Vec<Thing>,
}

/// A feed, a tenant as a whole, or a sink.
#[derive(Debug, Serialize)]
struct Thing {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    content_type: String,
    required: bool,
    level: Level,
    state: String,
    since: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

/// How well something does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    /// It works.
    Ok,
    /// It has yet to show whether it works.
    Starting,
    /// It fails since a short while and is tried again.
    Degraded,
    /// It needs somebody, or fails for long.
    Failed,
}

impl Readiness {
    pub(super) fn of(report: LiveReport, now: DateTime<Utc>) -> Self {
        let thing = |state: LiveState| {
            let level = level(&state, now);
            let LiveState { name, part, required, state, since, error, .. } = state;
            Thing { name, content_type: part, required, level, state, since, error }
        };
        let tenants: Vec<_> = report.sources.into_iter().map(thing).collect();
        let sinks: Vec<_> = report.sinks.into_iter().map(thing).collect();
        let mut reasons: Vec<_> = tenants
            .iter()
            .map(|tenant| ("tenant", tenant))
            .chain(sinks.iter().map(|sink| ("sink", sink)))
            .filter(|(_, thing)| thing.required && matches!(thing.level, Level::Starting | Level::Failed))
            .map(|(kind, thing)| {
                let part = if thing.content_type.is_empty() { "" } else { " " };
                let error = if thing.error.is_empty() { "" } else { ": " };
                let Thing { name, content_type, state, .. } = thing;
                format!("{kind} {name}{part}{content_type} is {state}{error}{}", thing.error)
            })
            .collect();
        if report.spool_full {
            reasons.push("the spool is full, so fetching pauses".to_owned());
        }
        Self {
            ready: reasons.is_empty(),
            reasons,
            spool_full: report.spool_full,
            refused_config: report.refused_config,
            tenants,
            sinks,
        }
    }
}

fn level(state: &LiveState, now: DateTime<Utc>) -> Level {
    match state.state.as_str() {
        "starting" | "stopped" if !state.bad => Level::Starting,
        "halted" | "not started" => Level::Failed,
        _ if !state.bad => Level::Ok,
        _ if state.since.is_some_and(|since| now - since <= PASSING) => Level::Degraded,
        _ => Level::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing(state: &str, bad: bool, required: bool, minutes: i64) -> LiveState {
        LiveState {
            name: "x".to_owned(),
            part: String::new(),
            state: state.to_owned(),
            bad,
            required,
            since: Some(
                "2026-03-02T12:00:00Z".parse::<DateTime<Utc>>().unwrap() - TimeDelta::minutes(minutes),
            ),
            error: if bad { "no route".to_owned() } else { String::new() },
        }
    }

    fn ready(sources: Vec<LiveState>, sinks: Vec<LiveState>, spool_full: bool) -> Readiness {
        let report = LiveReport { sources, sinks, spool_full, ..LiveReport::default() };
        Readiness::of(report, "2026-03-02T12:00:00Z".parse().unwrap())
    }

    #[test]
    fn what_is_required_and_does_not_work_is_a_reason() {
        for (state, bad, minutes, expected) in [
            ("ok", false, 99, true),
            ("waiting for first content", false, 99, true),
            ("failing", true, 4, true),
            ("failing", true, 6, false),
            ("waiting to retry", true, 4, true),
            ("halted", true, 0, false),
            ("not started", true, 0, false),
            ("starting", false, 0, false),
            ("stopped", false, 0, false),
        ] {
            let as_source = ready(vec![thing(state, bad, true, minutes)], vec![], false);
            assert_eq!(as_source.ready, expected, "{state}: {:?}", as_source.reasons);
            let as_sink = ready(vec![], vec![thing(state, bad, true, minutes)], false);
            assert_eq!(as_sink.ready, expected, "{state}: {:?}", as_sink.reasons);
            let optional = ready(vec![], vec![thing(state, bad, false, minutes)], false);
            assert!(optional.ready, "an optional sink makes nothing unready: {:?}", optional.reasons);
        }
        let full = ready(vec![], vec![], true);
        assert_eq!((full.ready, full.reasons.len()), (false, 1));
        let halted = ready(vec![], vec![thing("halted", true, true, 1)], false);
        assert_eq!(halted.reasons, ["sink x is halted: no route"]);
    }
}
