//! The archive sink with a container of Azure Blob Storage as its target, as Azurite serves it.
//!
//! These need what `tests/servers/azurite` installs, so they are run on demand:
//! `cargo test --test scenarios -- --ignored real_`.

use crate::{
    archive::stores::{
        a_server_that_is_asked_too_often_is_asked_again, a_server_that_is_stopped_and_started_is_waited_for,
        configure, is_complete, kills_lose_and_double_nothing, world,
    },
    support::bucket::Bucket,
};

#[test]
#[ignore = "needs Azurite: tests/servers/azurite"]
fn real_azure_has_every_record_in_one_object() {
    let bucket = Bucket::azurite();
    let world = world(60);
    configure(&world, &bucket, bucket.address, "", "");
    world.mailtrail(&["check"]).ends_with(0);
    assert!(bucket.names().is_empty(), "it leaves nothing behind");
    world.collect();
    is_complete(&world, &bucket);
    let before = bucket.names();
    world.collect();
    assert_eq!(bucket.names(), before, "a run with nothing new puts nothing");
}

#[test]
#[ignore = "needs Azurite: tests/servers/azurite"]
fn real_azure_a_kill_in_each_phase_loses_and_doubles_nothing() {
    kills_lose_and_double_nothing(&Bucket::azurite(), 1);
}

#[test]
#[ignore = "needs Azurite: tests/servers/azurite"]
fn real_azure_that_is_asked_too_often_is_asked_again() {
    a_server_that_is_asked_too_often_is_asked_again(&Bucket::azurite());
}

#[test]
#[ignore = "needs Azurite: tests/servers/azurite"]
fn real_azure_that_is_stopped_and_started_is_waited_for() {
    a_server_that_is_stopped_and_started_is_waited_for(&mut Bucket::azurite());
}
