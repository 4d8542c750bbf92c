//! `/metrics`: everything that is counted, as one page.
//!
//! Labels are names of the configuration (`tenant`, `sink`), content types, and words of a few each (`state`, `call`,
//! `outcome`), so that the number of series grows with the configuration and with nothing else.

use chrono::{DateTime, Utc};
use ingest::{
    TenantHealth,
    health::{Condition, FeedHealth},
};
use ledger::{FeedStatus, SinkStatus, Status};
use sinks::{
    age::AGE_BOUNDS,
    health::{LATENCY_BOUNDS, State},
    measure::{Measure, Reading},
};

use super::{
    catalogue::*,
    exposition::{Kind, Page},
    figures::Snapshot,
};
use crate::{
    live::Live,
    pipeline::{MEMORY, RunningSink, RunningTenant},
};

const SOURCE_STATES: [&str; 5] = ["starting", "ok", "waiting", "failing", "halted"];
const SINK_STATES: [&str; 6] = ["starting", "ok", "retrying", "deferred", "halted", "stopped"];

/// The page as it is now.
pub(super) fn page(live: &Live, snapshot: &Snapshot) -> String {
    let now = Utc::now();
    let mut page = Page::default();
    let pipeline = live.pipeline();
    let config = live.reloads().state();
    BUILD_INFO.put(&mut page, &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    START_TIME.put(&mut page, &[], seconds_of(live.started()));
    CONFIG_ACCEPTED.put(&mut page, &[], truth(config.refused.is_none()));
    CONFIG_TIME.put(&mut page, &[], seconds_of(config.applied));
    MEMORY_RESERVED.put(&mut page, &[], pipeline.memory_held() as f64);
    MEMORY_LIMIT.put(&mut page, &[], MEMORY as f64);

    LEDGER_READABLE.put(&mut page, &[], truth(snapshot.status.is_some()));
    SPOOL_FULL.put(&mut page, &[], truth(*pipeline.ledger().spool_paused().borrow()));
    SPOOL_LIMIT.put(&mut page, &[], pipeline.spool_max_bytes() as f64);
    DAMAGED_PIECES.count(&mut page, &[], pipeline.ledger().corrupt_pieces());
    let status = snapshot.status.as_ref().as_ref();
    if let Some(status) = status {
        ledger(&mut page, status);
    }

    for tenant in pipeline.tenants() {
        match tenant {
            RunningTenant::Unstarted { name, .. } => TENANT_STARTED.put(&mut page, &[("tenant", &name)], 0.0),
            RunningTenant::Collected { health, requests_per_minute, .. } => {
                TENANT_STARTED.put(&mut page, &[("tenant", &health.name)], 1.0);
                BUDGET_LIMIT.put(&mut page, &[("tenant", &health.name)], f64::from(requests_per_minute));
                tenant_page(&mut page, &health);
                for feed in &health.feeds {
                    feed_page(&mut page, &health.name, feed);
                    let known = status.and_then(|status| status.feeds.iter().find(|of| of.feed == feed.feed));
                    if let Some(known) = known {
                        feed_in_ledger(&mut page, &health.name, known, now);
                    }
                }
                if let Some(end) = snapshot.certificates.tenants.get(&health.name) {
                    CERTIFICATE.put(&mut page, &[("tenant", &health.name)], seconds(*end - now));
                }
            }
        }
    }
    for sink in pipeline.sinks() {
        sink_page(&mut page, &sink);
        if let Some(end) = snapshot.certificates.sinks.get(sink.name.as_str()) {
            SINK_CERTIFICATE.put(&mut page, &[("sink", sink.name.as_str())], seconds(*end - now));
        }
    }
    for sink in status.into_iter().flat_map(|status| &status.sinks) {
        sink_in_ledger(&mut page, sink, now);
    }
    page.finish()
}

fn ledger(page: &mut Page, status: &Status) {
    SPOOL.count(page, &[], status.spool_bytes);
    SPOOL_WANTED.count(page, &[], status.spool_live_bytes);
    DEAD_LETTERS.count(page, &[], status.open_dead_letters);
    DEAD_LETTER_BYTES.count(page, &[], status.dead_letter_bytes);
    QUARANTINED.count(page, &[], status.open_quarantined);
}

fn tenant_page(page: &mut Page, health: &TenantHealth) {
    let labels = [("tenant", health.name.as_str())];
    let fetcher = &health.fetcher;
    TENANT_STATE.state(page, &labels, source_state(&fetcher.status.get().condition), &SOURCE_STATES);
    FETCHED.count(page, &labels, fetcher.fetched.get());
    RECORDS.count(page, &labels, fetcher.records.get());
    DUPLICATES.count(page, &labels, fetcher.duplicates.get());
    FETCHED_BYTES.count(page, &labels, fetcher.bytes.get());
    WIRE_BYTES.count(page, &labels, fetcher.wire_bytes.get());
    FETCH_FAILED.count(page, &labels, fetcher.failed.get());
    GAPS.count(page, &labels, fetcher.gaps.get());
    QUARANTINES.count(page, &labels, fetcher.quarantined.get());
    FETCH_PANICS.count(page, &labels, fetcher.panics.get());
    FETCHING.count(page, &labels, fetcher.in_flight());
    BUDGET.put(page, &labels, f64::from(health.requests_per_minute()));
    THROTTLED.count(page, &labels, health.requests.throttled.get());
    THROTTLED_FOR.put(page, &labels, health.requests.throttled_ms.get() as f64 / 1000.0);
    PAUSED.put(page, &labels, health.paused_for().map_or(0.0, |left| left.as_secs_f64()));
    if let Some(skew) = health.skew() {
        SKEW.put(page, &labels, seconds(skew));
    }
    for (call, outcome, number) in health.requests.counts() {
        let labels = [("tenant", health.name.as_str()), ("call", call), ("outcome", outcome)];
        REQUESTS.count(page, &labels, number);
    }
}

fn feed_page(page: &mut Page, tenant: &str, feed: &FeedHealth) {
    let labels = [("tenant", tenant), ("content_type", feed.feed.content_type.as_str())];
    FEED_STATE.state(page, &labels, source_state(&feed.status().condition), &SOURCE_STATES);
    FEED_PASSES.count(page, &labels, feed.passes.get());
    FEED_SWEEPS.count(page, &labels, feed.sweeps.get());
    FEED_NEW.count(page, &labels, feed.new_blobs.get());
    FEED_UNUSABLE.count(page, &labels, feed.unusable.get());
    FEED_STARTS.count(page, &labels, feed.starts.get());
    FEED_PANICS.count(page, &labels, feed.panics.get());
}

fn feed_in_ledger(page: &mut Page, tenant: &str, feed: &FeedStatus, now: DateTime<Utc>) {
    let labels = [("tenant", tenant), ("content_type", feed.feed.content_type.as_str())];
    FEED_TO_FETCH.count(page, &labels, feed.to_fetch);
    FEED_GAPS.count(page, &labels, feed.open_gaps);
    FEED_HOLES.count(page, &labels, feed.open_holes);
    let figures = [
        (&FEED_LAG, feed.watermark.map(|until| now - until)),
        (&FEED_SILENT, feed.newest.map(|newest| now - newest)),
        (&FEED_EXPIRY, feed.first_expiry.map(|expiry| expiry - now)),
    ];
    for (metric, span) in figures {
        if let Some(span) = span {
            metric.put(page, &labels, seconds(span));
        }
    }
}

fn sink_page(page: &mut Page, sink: &RunningSink) {
    let name = sink.name.as_str();
    let labels = [("sink", name)];
    let report = sink.health.report();
    let counters = &report.counters;
    SINK_STATE.state(page, &labels, sink_state(&report.state), &SINK_STATES);
    SINK_BATCHES.count(page, &labels, counters.batches);
    SINK_RECORDS.count(page, &labels, counters.records);
    SINK_RESTORED.count(page, &labels, counters.restored);
    SINK_BYTES.count(page, &labels, counters.bytes);
    SINK_SETTLED.count(page, &labels, counters.settled);
    SINK_FILTERED.count(page, &labels, counters.filtered);
    SINK_DEAD.count(page, &labels, counters.dead);
    SINK_RESENT.count(page, &labels, counters.resent);
    SINK_RETRIES.count(page, &labels, counters.retries);
    SINK_DEFERRED.count(page, &labels, counters.deferred);
    SINK_PANICS.count(page, &labels, counters.panics);
    SINK_IN_FLIGHT.count(page, &labels, counters.in_flight);
    SINK_LEASED.count(page, &labels, counters.leased);
    if let Some(last) = report.last_delivery {
        SINK_LAST.put(page, &labels, seconds_of(last));
    }
    let delivery = (&LATENCY_BOUNDS[..], &counters.latency[..], counters.latency_seconds);
    SINK_DELIVERY.histogram(page, &labels, delivery);
    SINK_AGE.histogram(page, &labels, (&AGE_BOUNDS, &counters.age, counters.age_seconds));
    for measure in sink.sink.measures() {
        own_measure(page, name, &measure);
    }
}

fn sink_in_ledger(page: &mut Page, sink: &SinkStatus, now: DateTime<Utc>) {
    let labels = [("sink", sink.name.as_str())];
    SINK_CONFIGURED.put(page, &labels, truth(sink.configured));
    SINK_REQUIRED.put(page, &labels, truth(sink.required));
    SINK_LAG_BLOBS.count(page, &labels, sink.pending);
    SINK_LAG_RECORDS.count(page, &labels, sink.pending_records);
    SINK_LAG_RESTORED.count(page, &labels, sink.pending_restored);
    SINK_WAITING.count(page, &labels, sink.waiting);
    let oldest = sink.oldest_pending.map_or(0.0, |oldest| seconds(now - oldest));
    SINK_LAG.put(page, &labels, oldest);
}

/// A figure of a sink's own kind.
fn own_measure(page: &mut Page, sink: &str, measure: &Measure) {
    let name = format!("mailtrail_{}", measure.name);
    let own = measure.labels.iter().map(|(label, value)| (*label, value.as_str()));
    let labels: Vec<_> = [("sink", sink)].into_iter().chain(own).collect();
    match &measure.reading {
        Reading::Counter(value) => page.sample(&name, measure.help, Kind::Counter, &labels, *value as f64),
        Reading::Gauge(value) => page.sample(&name, measure.help, Kind::Gauge, &labels, *value),
        Reading::Histogram { bounds, counts, sum } => {
            page.histogram(&name, measure.help, &labels, (*bounds, counts, *sum));
        }
    }
}

fn source_state(condition: &Condition) -> &'static str {
    match condition {
        Condition::Starting => "starting",
        Condition::Ok => "ok",
        Condition::WaitingForFirstContent => "waiting",
        Condition::Failing(_) => "failing",
        Condition::Halted(_) => "halted",
    }
}

fn sink_state(state: &State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Ok => "ok",
        State::Retrying { .. } => "retrying",
        State::Deferred { .. } => "deferred",
        State::Halted { .. } => "halted",
        State::Stopped => "stopped",
    }
}

fn truth(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn seconds(span: chrono::TimeDelta) -> f64 {
    span.num_milliseconds() as f64 / 1000.0
}

fn seconds_of(time: DateTime<Utc>) -> f64 {
    time.timestamp_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sinks_own_figures_carry_the_products_name_and_the_sinks() {
        let mut page = Page::default();
        let measure = |name, labels, reading| Measure { name, help: "What it is.", labels, reading };
        let requests = measure("hec_requests_total", vec![("code", "0".to_owned())], Reading::Counter(7));
        own_measure(&mut page, "soc", &requests);
        own_measure(&mut page, "soc", &measure("kafka_queue_bytes", vec![], Reading::Gauge(1.5)));
        let times = Reading::Histogram { bounds: &[1.0], counts: vec![1, 1], sum: 3.0 };
        own_measure(&mut page, "soc", &measure("hec_ack_seconds", vec![], times));
        let text = page.finish();
        for line in [
            "# HELP mailtrail_hec_requests_total What it is.",
            "# TYPE mailtrail_hec_requests_total counter",
            "mailtrail_hec_requests_total{sink=\"soc\",code=\"0\"} 7",
            "mailtrail_kafka_queue_bytes{sink=\"soc\"} 1.5",
            "mailtrail_hec_ack_seconds_bucket{sink=\"soc\",le=\"+Inf\"} 2",
            "mailtrail_hec_ack_seconds_count{sink=\"soc\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
