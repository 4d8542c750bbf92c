//! Whose progress it is, for one who looks while another delivers, and for one who was told to go on.

use super::*;

/// `mailtrail check` reads the state, and then the topic, while the process that delivers goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_looks_while_another_delivers_sees_no_stranger() {
    let cluster = cluster(1);
    let config = with_transactions(&cluster);
    let ledger = Arc::new(MemoryLedger::plain([5]));
    deliver_all(config.clone(), &ledger).await;
    let before = State::decode(&ledger.state().unwrap()).unwrap();
    ledger.add(1, vec![crate::test_ledger::Kind::Plain; 5]);
    deliver_all(config.clone(), &ledger).await;

    let sink = sink(config.clone(), &ledger);
    let settings = client::with_secrets(&config, &sink.settings).await.unwrap();
    let identity = sink.identity().await.unwrap();
    sink.look(&settings, Some(&before), identity.as_ref()).await.unwrap();
    sink.look(&settings, None, None).await.unwrap();
    // What is so when it is read again is told.
    ledger.set_state(Some(before.encode()));
    let error = sink.look(&settings, Some(&before), identity.as_ref()).await.unwrap_err();
    assert!(error.context.contains("is ahead of the ledger"), "{error}");
    *ledger.id.lock().unwrap() = "another-ledger".to_owned();
    let error = sink.look(&settings, Some(&before), identity.as_ref()).await.unwrap_err();
    assert!(error.context.contains("this mailtrail has ledger another-ledger"), "{error}");
}

/// An operator may ask for it when there is nobody to overrule: this ledger's own progress is believed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adopting_in_vain_sends_nothing_again() {
    let cluster = cluster(1);
    let ledger = Arc::new(MemoryLedger::plain([30, 20]));
    let config = with_transactions(&cluster);
    // The state is durable, the batch is committed, and nobody hears of it.
    let first = sink(config.clone(), &ledger);
    first.open().await.unwrap();
    let batch = ledger.batch(&[(0, 0..30), (1, 0..5)]);
    ledger.set_state(first.state(&[], Some(&batch)));
    assert_eq!(first.deliver(batch).await.unwrap().records(), 35);
    first.close().await;
    ledger.set_state(Some(adopt(ledger.state().as_deref()).unwrap()));
    // Opened, and killed before the next batch.
    let second = sink(config.clone(), &ledger);
    second.open().await.unwrap();
    assert!(!State::decode(&ledger.state().unwrap()).unwrap().adopt, "it is asked for once");
    second.close().await;

    deliver_all(config, &ledger).await;
    is_exactly_once(&cluster, 1, &[30, 20]);
    let sums: Vec<_> = ledger.settlements().iter().map(|s| (s.delivered, s.resent)).collect();
    assert_eq!(sums, [(30, 0), (20, 0)]);
}
