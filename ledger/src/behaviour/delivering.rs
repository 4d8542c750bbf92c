//! Leases, settlements and sinks.

use chrono::TimeDelta;

use crate::{DeadRecord, Deferral, LedgerError, Settlement, SinkSpec, StartFrom, Want, WorkId, testing::*};

#[test]
fn l5_a_work_is_leased_once_and_is_free_when_the_lease_is_dropped() {
    let bench = Bench::new();
    let (work, _) = bench.spool(feed(1), "x", &body(0..3));
    let lease = bench.lease("a", 10).pop().unwrap();
    assert_eq!(lease.work.id, work);
    assert!(bench.lease("a", 10).is_empty());
    let these = bench.ledger.lease_these(&sink("a"), &[work]).wait();
    assert!(matches!(these, Err(LedgerError::AlreadyLeased { .. })));
    assert_eq!(bench.lease("b", 10).len(), 1, "the other sink has its own");
    drop(lease);
    assert_eq!(bench.lease("a", 10).len(), 1);
}

#[test]
fn an_answer_that_nobody_waits_for_gives_its_leases_back() {
    let bench = Bench::new();
    bench.spool(feed(1), "x", &body(0..3));
    drop(bench.ledger.lease(&sink("a"), 1));
    // Behind it in the writer's queue, and behind the release.
    bench.ledger.idle_state().wait().unwrap();
    assert_eq!(bench.lease("a", 1).len(), 1);
}

#[test]
fn tenants_take_turns_each_in_the_order_of_its_numbers() {
    let bench = Bench::new();
    for number in 0..4 {
        bench.spool(feed(1), &format!("x{number}"), &body([number]));
    }
    bench.spool(feed(2), "y0", &body([1]));
    bench.spool(feed(2), "y1", &body([2]));
    let order = |leases: &[crate::Lease]| -> Vec<_> {
        leases.iter().map(|lease| lease.work.content_id.to_string()).collect()
    };
    let first = bench.lease("a", 3);
    assert_eq!(order(&first), ["x0", "y0", "x1"]);
    // The turn goes on where it ended.
    let second = bench.lease("a", 10);
    assert_eq!(order(&second), ["y1", "x2", "x3"]);
    // What was put back comes in its place again when its time has come.
    let later = bench.now() + TimeDelta::minutes(1);
    let work = first[0].work.id;
    let deferral = Deferral { work, not_before: Some(later), error: "busy".to_owned(), begun: 0 };
    bench.ledger.defer(&sink("a"), vec![deferral]).wait().unwrap();
    drop((first, second));
    assert_eq!(order(&bench.lease("a", 10)), ["y0", "x1", "y1", "x2", "x3"]);
    bench.clock.advance(TimeDelta::minutes(1));
    let leases = bench.lease("a", 1).into_iter().chain(bench.lease("a", 9)).collect::<Vec<_>>();
    let x0 = leases.iter().find(|lease| lease.work.id == work).unwrap();
    assert_eq!(x0.attempts, 1);
    let of_first: Vec<_> = order(&leases).into_iter().filter(|id| id.starts_with('x')).collect();
    assert_eq!(of_first[0], "x0");
}

#[test]
fn no_more_is_leased_than_is_wanted_and_the_turn_goes_on() {
    let bench = Bench::new();
    for number in 0..4 {
        bench.spool(feed(1), &format!("x{number}"), &body(number * 10..number * 10 + 5));
    }
    let order = |want: Want| -> Vec<_> {
        let leases = bench.ledger.lease(&sink("a"), want).wait().unwrap();
        leases.iter().map(|lease| lease.work.content_id.to_string()).collect()
    };
    let all = Want::from(10);
    assert_eq!(order(Want { records: 1, ..all }), ["x0"], "one at least");
    assert_eq!(order(Want { records: 6, ..all }), ["x0", "x1"], "what was dropped comes again");
    assert_eq!(order(Want { bytes: 1, ..all }), ["x0"]);
    let first = bench.ledger.lease(&sink("a"), Want { records: 5, ..all }).wait().unwrap();
    assert_eq!(first.len(), 1);
    // Another tenant's new blob is next, however much of the first one waits.
    bench.spool(feed(2), "y", &body([1]));
    assert_eq!(order(Want { records: 1, ..all }), ["y"]);
    assert_eq!(order(all), ["x1", "y", "x2", "x3"]);
}

#[test]
fn exactly_what_is_asked_for_is_leased_whatever_its_wait() {
    let bench = Bench::new();
    let (x, _) = bench.spool(feed(1), "x", &body([1]));
    let (y, _) = bench.spool(feed(1), "y", &body([2]));
    let (z, _) = bench.spool(feed(1), "z", &body([3]));
    let leases = bench.lease("a", 2);
    bench.ledger.settle(&sink("a"), vec![delivered(&leases[0])], None).wait().unwrap();
    let later = Some(bench.now() + TimeDelta::hours(1));
    let deferral = Deferral { work: y, not_before: later, error: String::new(), begun: 1 };
    bench.ledger.defer(&sink("a"), vec![deferral]).wait().unwrap();
    drop(leases);
    let these = bench.ledger.lease_these(&sink("a"), &[z, x, y, z, WorkId(99)]).wait().unwrap();
    let works: Vec<_> = these.iter().map(|lease| lease.work.id).collect();
    assert_eq!(works, [z, y]);
}

#[test]
fn l6_and_l10_a_settlement_accounts_for_every_record_and_is_final() {
    let bench = Bench::new();
    let (work, _) = bench.spool(feed(1), "x", &body([1, 2, 3, 3, 4]));
    let lease = bench.lease("a", 1).pop().unwrap();
    let settle = |settlement: Settlement| bench.ledger.settle(&sink("a"), vec![settlement], None).wait();
    let whole = delivered(&lease);
    assert_eq!(whole.delivered, 4);
    let short = Settlement { delivered: 3, ..whole.clone() };
    assert!(matches!(settle(short), Err(LedgerError::SumMismatch { due: 4, given: 3, .. })));
    let dead = |position| Settlement {
        delivered: 3,
        dead: vec![DeadRecord { position, reason: "too old".to_owned() }],
        ..whole.clone()
    };
    for position in [3, 5] {
        // A duplicate, and behind the end.
        assert!(matches!(settle(dead(position)), Err(LedgerError::NoSuchRecord { .. })), "{position}");
    }
    let unknown = Settlement { work: WorkId(77), ..whole.clone() };
    assert!(matches!(settle(unknown), Err(LedgerError::UnknownDelivery { .. })));
    let foreign = bench.ledger.settle(&sink("b"), vec![whole.clone()], None).wait();
    assert!(matches!(foreign, Err(LedgerError::NotLeased { .. })));
    assert_eq!(bench.number("SELECT count(*) FROM dead_letter"), 0);

    settle(dead(4)).unwrap();
    assert!(matches!(settle(whole), Err(LedgerError::AlreadySettled { .. })));
    drop(lease);
    assert!(bench.lease("a", 1).is_empty());
    let (letter, bytes) = bench.ledger.inspector().dead_letter(1).unwrap().unwrap();
    assert_eq!(bytes.unwrap(), record(4, "").as_bytes());
    assert_eq!((letter.position, letter.reason.as_str(), letter.sink), (Some(4), "too old", Some(sink("a"))));
    // L4: the body stays until the other sink has it.
    assert_eq!(bench.read(work).len(), 4);
    assert_eq!(bench.deliver("b"), 1);
    assert!(bench.ledger.read_piece(work, None, 0).is_err());
    assert!(bench.reconcile().agrees());
}

#[test]
fn a_failed_settlement_in_a_group_spoils_nothing_for_the_others() {
    let bench = Bench::new();
    for number in 0..3 {
        bench.spool(feed(1), &format!("x{number}"), &body([number]));
    }
    let leases = bench.lease("a", 3);
    let answers: Vec<_> = leases
        .iter()
        .enumerate()
        .map(|(number, lease)| {
            let filtered = u32::from(number == 1);
            let settlement = Settlement { filtered, ..delivered(lease) };
            bench.ledger.settle(&sink("a"), vec![settlement], Some(vec![number as u8]))
        })
        .collect();
    let results: Vec<_> = answers.into_iter().map(|answer| answer.wait().is_ok()).collect();
    assert_eq!(results, [true, false, true]);
    assert_eq!(bench.ledger.sink_state(&sink("a")).wait().unwrap(), Some(vec![2]));
    assert_eq!(bench.number("SELECT count(*) FROM delivery WHERE state = 'delivered'"), 2);
}

#[test]
fn what_was_begun_is_known_after_a_restart_until_it_is_put_back_as_not_begun() {
    let mut bench = Bench::new();
    bench.spool(feed(1), "x", &body([1]));
    let lease = bench.lease("a", 1).pop().unwrap();
    assert_eq!(lease.begun, 0);
    bench.ledger.begin(&sink("a"), vec![(lease.work.id, 2)]).wait().unwrap();
    bench.ledger.begin(&sink("a"), vec![(lease.work.id, 1)]).wait().unwrap();
    bench.faults.plan(crate::faults::Point::Commit, 0, crate::faults::in_tests::Fault::Crash);
    assert!(bench.ledger.settle(&sink("a"), vec![delivered(&lease)], None).wait().is_err());
    drop(lease);
    bench.ledger.close();
    bench.open().unwrap();
    assert!(bench.recovery.unclean);
    assert_eq!((bench.recovery.begun, bench.recovery.pending), (1, 2));
    let lease = bench.lease("a", 1).pop().unwrap();
    assert_eq!(lease.begun, 2);
    let deferral = Deferral { work: lease.work.id, not_before: None, error: String::new(), begun: 0 };
    bench.ledger.defer(&sink("a"), vec![deferral]).wait().unwrap();
    drop(lease);
    let lease = bench.lease("a", 1).pop().unwrap();
    assert_eq!((lease.begun, lease.attempts), (0, 0));
}

#[test]
fn a_new_sink_starts_with_what_is_spooled_or_with_what_comes() {
    let bench = Bench::new();
    bench.spool(feed(1), "x", &body([1]));
    let late = SinkSpec { name: sink("late"), required: true, start_from: StartFrom::Now };
    let all = SinkSpec { name: sink("all"), required: true, start_from: StartFrom::Spooled };
    let met = bench.ledger.meet_sinks(vec![spec("a"), spec("b"), late.clone(), all]).wait().unwrap();
    assert_eq!(
        met.iter().map(|met| (met.new, met.pending)).collect::<Vec<_>>(),
        [(false, 1), (false, 1), (true, 0), (true, 1)]
    );
    // It is decided once.
    let again = SinkSpec { start_from: StartFrom::Spooled, ..late };
    assert_eq!(bench.ledger.add_sink(again).wait().unwrap().pending, 0);
    bench.spool(feed(1), "y", &body([2]));
    assert_eq!((bench.deliver("late"), bench.deliver("all")), (1, 2));
    assert!(bench.reconcile().is_clean());
}

#[test]
fn a_sink_that_is_gone_and_has_pending_deliveries_stops_the_start() {
    let mut bench = Bench::new();
    let (work, _) = bench.spool(feed(1), "x", &body([1, 2]));
    bench.deliver("a");
    bench.reopen();
    let error = bench.ledger.meet_sinks(vec![spec("a")]).wait().unwrap_err();
    assert!(error.to_string().contains("b (1 pending)"), "{error}");
    assert!(error.to_string().contains("sinks forget"), "{error}");
    // Nothing was changed: b is still served, and cannot be forgotten while it is.
    assert!(matches!(bench.ledger.forget_sink(&sink("b")), Err(LedgerError::SinkInUse { .. })));
    bench.ledger.set_sink_state(&sink("b"), b"mark".to_vec()).wait().unwrap();
    assert_eq!(bench.ledger.remove_sink(&sink("b")).wait().unwrap(), 1);
    bench.spool(feed(1), "y", &body([3]));
    assert_eq!(bench.ledger.forget_sink(&sink("b")).unwrap(), 1);
    assert!(bench.ledger.read_piece(work, None, 0).is_err(), "nobody wants it any more");
    let report = bench.reconcile();
    assert_eq!(report.hours[0].sinks[&sink("b")].blobs.dead, 2);
    assert!(report.is_clean(), "it was an operator's will");
    bench.ledger.meet_sinks(vec![spec("a")]).wait().unwrap();
    // A sink of the same name is another one.
    let met = bench.ledger.add_sink(spec("b")).wait().unwrap();
    assert_eq!((met.incarnation, met.new, met.pending), (2, true, 1));
    assert_eq!(bench.ledger.sink_state(&sink("b")).wait().unwrap(), None);
}

#[test]
fn waiting_ends_when_there_is_work() {
    let bench = Bench::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(wait_for_work(&bench));
}

async fn wait_for_work(bench: &Bench) {
    let hour = std::time::Duration::from_secs(3600);
    let name = sink("a");
    assert!(bench.ledger.lease(&name, 1).await.unwrap().is_empty());
    assert!(bench.ledger.claim_fetches(tenant(1), 1).await.unwrap().is_empty());
    // What one tenant has seen says nothing about another.
    bench.ledger.fetches_may_be_due(tenant(2), hour).await;
    let work = async {
        let page = crate::ListedPage { feed: feed(1), blobs: vec![bench.listed("x")], completes: None };
        bench.ledger.record_page(page).await.unwrap();
        bench.ledger.fetches_may_be_due(tenant(1), hour).await;
        let lease = bench.ledger.claim_fetches(tenant(1), 1).await.unwrap().pop().unwrap();
        let mut writer = bench.ledger.body_writer(lease.work, bench.now());
        tokio::task::spawn_blocking(move || {
            writer.write(body([1]).as_bytes()).unwrap();
            writer.finish().unwrap()
        })
        .await
        .unwrap()
        .await
        .unwrap();
    };
    tokio::join!(bench.ledger.work_may_be_due(&name, hour), work);
    let leases = bench.ledger.lease(&name, 5).await.unwrap();
    assert_eq!(leases.len(), 1);
    // A dropped lease is work again.
    tokio::join!(bench.ledger.work_may_be_due(&name, hour), async { drop(leases) });
}

#[test]
fn idle_is_when_everything_that_is_listed_is_settled() {
    let bench = Bench::new();
    assert!(bench.ledger.idle_state().wait().unwrap().is_idle());
    bench.list(feed(1), &["x"]);
    let idle = bench.ledger.idle_state().wait().unwrap();
    assert_eq!((idle.fetches[0].due, idle.fetches[0].claimed, idle.deliveries.len()), (1, 0, 0));
    let lease = bench.claim(tenant(1)).unwrap();
    assert_eq!(bench.ledger.idle_state().wait().unwrap().fetches[0].claimed, 1);
    bench.take(lease.work, body([1]).as_bytes()).unwrap();
    drop(lease);
    let leases = bench.lease("a", 1);
    let idle = bench.ledger.idle_state().wait().unwrap();
    assert!(idle.fetches.is_empty());
    assert_eq!((idle.deliveries[0].due, idle.deliveries[0].leased), (1, 1));
    drop(leases);
    bench.deliver("a");
    assert!(!bench.ledger.idle_state().wait().unwrap().is_idle());
    bench.deliver("b");
    assert!(bench.ledger.idle_state().wait().unwrap().is_idle());
}
