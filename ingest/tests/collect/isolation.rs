//! L11: what fails in one place costs nothing in another, and says what to do.

use ingest::{HttpSettings, health::Condition};
use schemas::ContentType;
use simulator::{BadFault, Faults, RequestKind, SimulatorConfig};

use crate::{
    harness::{collect_scripted, collect_with, simulation, start, tenant, until},
    memory_ledger::State,
    scripted::{Scripted, error, json},
};

fn clear(faults: &mut Faults) -> Result<(), BadFault> {
    *faults = Faults::default();
    Ok(())
}

fn two_feeds(blobs: u64, faults: &str) -> SimulatorConfig {
    SimulatorConfig {
        content_types: vec![ContentType::Exchange, ContentType::General],
        ..simulation(blobs, faults)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l11_a_feed_without_permission_halts_alone_and_recovers_when_it_is_given() {
    let simulator = start(two_feeds(20, "permission_denied=Audit.General")).await;
    let config = tenant(&simulator, &[ContentType::Exchange, ContentType::General]);
    let collecting = collect_with(simulator, config, &HttpSettings::default());
    until("Exchange is complete", || collecting.ledger.fetched() == 20).await;
    let mut advice = String::new();
    until("General is halted", || match collecting.condition(ContentType::General) {
        Condition::Halted(trouble) => {
            advice = trouble.advice;
            true
        }
        _ => false,
    })
    .await;
    assert!(advice.contains("ActivityFeed.Read") && advice.contains("admin consent"), "{advice}");
    assert_eq!(collecting.condition(ContentType::Exchange), Condition::Ok);
    collecting.simulator.change_faults(clear).unwrap();
    collecting.until_settled().await;
    until("General is well", || collecting.condition(ContentType::General) == Condition::Ok).await;
    let stats = collecting.finish().await;
    // A permission is in new tokens only.
    assert!(stats.tokens_issued > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_halts_the_tenant_and_says_so() {
    let simulator = start(simulation(3, "")).await;
    let collecting = collect_scripted(&simulator.base_url(), "not the secret");
    let mut said = String::new();
    until("halted", || match collecting.handle.health().feeds[0].status().condition {
        Condition::Halted(trouble) => {
            said = format!("{} {}", trouble.error, trouble.advice);
            true
        }
        _ => false,
    })
    .await;
    assert!(said.contains("secret"), "{said}");
    assert!(!said.contains("not the secret"), "{said}");
    assert_eq!(simulator.stats().requests_of(RequestKind::ListContent), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn auditing_that_is_off_says_how_to_turn_it_on() {
    let server = Scripted::start(|seen| {
        if seen.target.contains("/subscriptions/list") {
            json(200, "[]")
        } else {
            json(400, "Microsoft.Office.Compliance.Audit.DataServiceException: Tenant 1 does not exist.")
        }
    })
    .await;
    let collecting = collect_scripted(&server.url(), "secret");
    let mut advice = String::new();
    until("halted", || match collecting.handle.health().feeds[0].status().condition {
        Condition::Halted(trouble) => {
            advice = trouble.advice;
            true
        }
        _ => false,
    })
    .await;
    assert!(advice.contains("Purview") && advice.contains("60 minutes"), "{advice}");
    // 15 minutes pass between two starts.
    until("some more attempts", || server.seen_at("/subscriptions/list") >= 3).await;
    assert_eq!(server.seen_at("/subscriptions/start"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enabled_subscription_is_a_success_of_a_start() {
    let server = Scripted::start(|seen| {
        if seen.target.contains("/subscriptions/list") {
            json(200, "[]")
        } else if seen.target.contains("/subscriptions/start") {
            assert_eq!(seen.method, "POST");
            assert_eq!(
                seen.headers.get("content-length").map(|length| length.as_bytes()),
                Some(b"0".as_slice())
            );
            error(400, "AF20024")
        } else {
            json(200, "[]")
        }
    })
    .await;
    let collecting = collect_scripted(&server.url(), "secret");
    let mut passes = collecting.handle.passes();
    passes.wait_for(|passes| passes.each_passed()).await.unwrap();
    assert_eq!(server.seen_at("/subscriptions/start"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_cannot_go_on_ends_the_collector() {
    let simulator = start(simulation(30, "")).await;
    let config = tenant(&simulator, &[ContentType::Exchange]);
    let collecting = collect_with(simulator, config, &HttpSettings::default());
    until("some blobs", || collecting.ledger.fetched() > 0).await;
    collecting.ledger.broken.store(true, std::sync::atomic::Ordering::SeqCst);
    let ended = tokio::time::timeout(crate::harness::PATIENCE, collecting.handle.join()).await.unwrap();
    assert!(ended.unwrap_err().message.contains("the disk is gone"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_away_is_waited_for() {
    let simulator = start(simulation(30, "")).await;
    let config = tenant(&simulator, &[ContentType::Exchange]);
    let collecting = collect_with(simulator, config, &HttpSettings::default());
    collecting.simulator.change_faults(|faults| faults.set("unavailable=1/1x1000000")).unwrap();
    until("it fails", || !collecting.handle.health().troubles().is_empty()).await;
    collecting.simulator.change_faults(clear).unwrap();
    collecting.until_settled().await;
    until("it is well", || collecting.handle.health().troubles().is_empty()).await;
    assert_eq!(collecting.ledger.count(|state| matches!(state, State::Gap(_))), 0);
    collecting.finish().await;
}
