//! What the tests of this sink share, and its verdicts that take time.

use std::{sync::Arc, time::Duration};

use entra::{ManagedIdentity, Scope, TokenSource};
use reqwest::Client;

use super::{
    PROPAGATION, SentinelSink,
    config::{Form, SentinelConfig},
};
use crate::{
    rate::Rate,
    sink::{Disposition, SinkContext},
    test_ledger::{MemoryLedger, sink_name},
};

/// A configuration with one rule.
pub(super) fn config() -> SentinelConfig {
    SentinelConfig {
        endpoint: "https://mailtrail-abcd.westeurope-1.ingest.monitor.azure.com".parse().unwrap(),
        rules: vec!["dcr-00112233445566778899aabbccddeeff".parse().unwrap()],
        stream: "Custom-MailtrailAsim_CL".parse().unwrap(),
        form: Form::Columns { without: &["Type"] },
        batch_bytes: SentinelConfig::LARGEST,
        linger: Duration::from_secs(5),
        connections: 4,
        timeout: Duration::from_secs(60),
    }
}

/// A sink that is never asked to send.
fn sink() -> SentinelSink {
    let identity = ManagedIdentity::from_variables(None, |_| None).unwrap();
    let scope = Scope::of_resource("https://monitor.azure.com").unwrap();
    let tokens = TokenSource::managed_identity(identity, scope);
    let ledger = Arc::new(MemoryLedger::new([]));
    let context = SinkContext { name: sink_name(), ledger, rate: Arc::new(Rate::new(None, None)) };
    SentinelSink::new(config(), tokens, Client::new(), context)
}

#[tokio::test(start_paused = true)]
async fn a_role_that_is_missing_for_longer_than_it_takes_to_be_known_halts() {
    let sink = sink();
    let rule = &sink.inner.rules.all()[0];
    let refused = || sink.inner.no_role(rule, "answered 403").unwrap_err();
    let waits = |disposition| matches!(disposition, Disposition::Retry { ambiguous: false, .. });
    assert!(waits(refused().disposition));
    tokio::time::sleep(PROPAGATION - Duration::from_secs(1)).await;
    assert!(waits(refused().disposition));
    // The assignment is known for a moment, and then it is taken away.
    rule.took();
    tokio::time::sleep(PROPAGATION).await;
    assert!(waits(refused().disposition), "it counts from the first refusal");
    tokio::time::sleep(PROPAGATION).await;
    let last = refused();
    assert!(matches!(last.disposition, Disposition::Halt), "{last:?}");
    assert!(last.context.contains("az role assignment create"), "{last:?}");
}
