//! A local clock that is wrong loses nothing: the simulated server's clock is ahead or behind instead.

use chrono::{DateTime, TimeDelta, Utc};
use ingest::HttpSettings;
use schemas::ContentType;

use crate::harness::{collect, collect_with, simulation, start, tenant, until};

async fn loses_nothing(skew: &str, seconds: i64) {
    let mut config = simulation(30, &format!("clock_skew={skew}"));
    config.backlog_span = std::time::Duration::from_secs(6 * 24 * 3600);
    config.rate = 60.0;
    config.flow_blobs = Some(20);
    let collecting = collect(config).await;
    until("what came after the start is listed as well", || {
        collecting.ledger.fetched() == 50 && collecting.simulator.truth().blobs().count() == 50
    })
    .await;
    let measured = collecting.handle.health().skew().unwrap();
    assert!((measured - TimeDelta::seconds(seconds)).abs() <= TimeDelta::seconds(2), "{measured}");
    let feed = schemas::FeedKey {
        tenant: simulator::TenantConfig::default().tenant_id,
        content_type: ContentType::Exchange,
    };
    let watermark: DateTime<Utc> = collecting.ledger.lock().feeds[&feed].watermark.unwrap();
    assert!(watermark <= Utc::now() + TimeDelta::seconds(seconds), "the watermark is ahead of the server");
    assert!(collecting.ledger.lock().holes.is_empty());
    collecting.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_minutes_ahead() {
    loses_nothing("-10m", -600).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_minutes_behind() {
    loses_nothing("10m", 600).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hours_ahead() {
    loses_nothing("-3h", -3 * 3600).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hours_behind() {
    loses_nothing("3h", 3 * 3600).await;
}

/// The configured start is counted back from the server's time: by a local clock that is days ahead it would lie in the
/// future, and nothing would be listed until then.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_counted_back_by_the_servers_clock() {
    for skew in ["-96h", "96h"] {
        let mut config = simulation(40, &format!("clock_skew={skew}"));
        config.backlog_span = std::time::Duration::from_secs(4 * 3600);
        let simulator = start(config).await;
        let mut tenant = tenant(&simulator, &[ContentType::Exchange]);
        tenant.policy.start = Some(TimeDelta::hours(2));
        let collecting = collect_with(simulator, tenant, &HttpSettings::default());
        until("a pass", || collecting.handle.health().feeds[0].passes.get() > 0).await;
        let listed = collecting.ledger.count(|_| true);
        assert!((15..=25).contains(&listed), "the last 2 of 4 hours, of 40 blobs: {listed}, {skew}");
        collecting.cancel.cancel();
        collecting.handle.join().await.unwrap();
    }
}
