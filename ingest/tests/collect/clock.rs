//! A local clock that is wrong loses nothing: the simulated server's clock is ahead or behind instead.

use chrono::{DateTime, TimeDelta, Utc};
use schemas::ContentType;

use crate::harness::{collect, simulation, until};

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
