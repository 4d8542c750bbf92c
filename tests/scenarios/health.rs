//! `/metrics`, `/healthz`, `/readyz`, and `status --alive`.

use std::{collections::BTreeSet, fs, net::SocketAddr};

use simulator::{SimulatorConfig, TenantConfig};

use crate::support::{Binary, World, free_address, get, hang_up, sample, terminate};

fn small() -> SimulatorConfig {
    SimulatorConfig { blobs: 10, records_per_blob: 10, ..SimulatorConfig::default() }
}

/// A world of which everything is delivered while the figures are served.
fn served() -> (World, SocketAddr, Binary) {
    let world = World::new(small());
    let address = free_address();
    world.configure_all(&format!("[http]\nlisten = \"{address}\"\n"), "", &[("files", "")]);
    let running = world.start(&["run"]);
    world.until("everything is delivered", || {
        sample(address, "mailtrail_sink_settled_blobs_total{sink=\"files\"}") == Some(10.0)
    });
    (world, address, running)
}

#[test]
fn the_figures_are_those_of_the_run() {
    let (world, address, running) = served();
    // The ledger's figures are kept for a few seconds.
    world.until("the ledger's figures show it too", || {
        sample(address, "mailtrail_sink_lag_blobs{sink=\"files\"}") == Some(0.0)
            && sample(
                address,
                "mailtrail_feed_blobs_to_fetch{tenant=\"tenant0\",content_type=\"Audit.Exchange\"}",
            ) == Some(0.0)
    });
    let feed = "{tenant=\"tenant0\",content_type=\"Audit.Exchange\"";
    let is = |series: &str, value: f64| assert_eq!(sample(address, series), Some(value), "{series}");
    is("mailtrail_ledger_readable", 1.0);
    is("mailtrail_sink_records_total{sink=\"files\"}", 100.0);
    is("mailtrail_sink_record_age_seconds_count{sink=\"files\"}", 100.0);
    is("mailtrail_sink_state{sink=\"files\",state=\"ok\"}", 1.0);
    is("mailtrail_sink_state{sink=\"files\",state=\"halted\"}", 0.0);
    is("mailtrail_tenant_records_total{tenant=\"tenant0\"}", 100.0);
    is("mailtrail_tenant_request_budget{tenant=\"tenant0\"}", 2000.0);
    is("mailtrail_tenant_requests_total{tenant=\"tenant0\",call=\"fetch\",outcome=\"ok\"}", 10.0);
    is(&format!("mailtrail_feed_state{feed},state=\"ok\"}}"), 1.0);
    is(&format!("mailtrail_feed_new_blobs_total{feed}}}"), 10.0);
    let batches = sample(address, "mailtrail_sink_delivery_seconds_count{sink=\"files\"}").expect("batches");
    assert!(batches >= 1.0);
    for series in ["mailtrail_feed_silent_seconds", "mailtrail_feed_listing_lag_seconds"] {
        let seconds = sample(address, &format!("{series}{feed}}}")).expect(series);
        assert!((0.0..8.0 * 86_400.0).contains(&seconds), "{series} {seconds}");
    }
    assert_eq!(get(address, "/healthz"), Some((200, "alive\n".to_owned())));
    assert_eq!(get(address, "/other").expect("an answer").0, 404);
    let (status, page) = get(address, "/readyz").expect("an answer");
    let ready: serde_json::Value = serde_json::from_str(&page).expect("JSON");
    assert_eq!((status, &ready["ready"]), (200, &true.into()), "{page}");
    assert_eq!(ready["sinks"][0]["level"], "ok", "{page}");
    terminate(&running);
    running.wait().ends_with(0);
    assert_eq!(get(address, "/healthz"), None);
}

#[test]
fn every_metric_that_is_shown_is_documented() {
    let (_world, address, running) = served();
    let (_, page) = get(address, "/metrics").expect("an answer");
    terminate(&running);
    running.wait().ends_with(0);
    let shown: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(shown.len() > 50, "{shown:?}");
    let documentation = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let documentation = fs::read_to_string(documentation).expect("docs/operations.md is there");
    for name in shown {
        assert!(documentation.contains(&format!("| `{name}` |")), "{name} is not in docs/operations.md");
    }
}

#[test]
fn what_is_required_and_halted_makes_it_unready_and_it_stays_alive() {
    let mut config = small();
    config.tenants = (0..2).map(TenantConfig::numbered).collect();
    let world = World::new(config);
    let address = free_address();
    let http = format!("[http]\nlisten = \"{address}\"\n");
    world.configure_all(&http, "", &[("files", "view = \"raw\""), ("other", "required = false")]);
    world.mailtrail(&["status", "--alive"]).ends_with(1);
    fs::create_dir_all(world.out("other")).expect("a directory");
    fs::write(world.out("other").join("mailtrail.ndjson"), "somebody else's\n").expect("a file");
    let running = world.start(&["run"]);
    let ready = || get(address, "/readyz").map(|(status, page)| (status, page.contains("halted")));
    world.until("an optional sink is halted, which is shown and no more", || ready() == Some((200, true)));
    world.configure_all(&http, "", &[("files", "view = \"raw\""), ("other", "")]);
    hang_up(&running);
    world.until("it is required now", || ready() == Some((503, true)));
    let (_, page) = get(address, "/readyz").expect("an answer");
    let page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
    let reason = page["reasons"][0].as_str().expect("a reason");
    assert!(reason.starts_with("sink other is halted: ") && reason.contains("did not write"), "{reason}");
    assert_eq!(get(address, "/healthz").expect("an answer").0, 200);
    let alive = world.mailtrail(&["status", "--alive"]).ends_with(0);
    assert_eq!(alive.text().trim(), "");
    world.mailtrail(&["status"]).ends_with(1);
    terminate(&running);
    running.wait().ends_with(0);
    world.mailtrail(&["status", "--alive"]).ends_with(1);
}
