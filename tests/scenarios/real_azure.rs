//! The archive sink with a container of Azure Blob Storage as its target, as Azurite serves it.
//!
//! These need what `tests/servers/azurite` installs, so they are run on demand:
//! `cargo test --test scenarios -- --ignored real_`.

use crate::{
    archive::{
        kills::kills_lose_and_double_nothing,
        stores::{
            a_server_that_is_asked_too_often_is_asked_again,
            a_server_that_is_stopped_and_started_is_waited_for, every_record_is_in_one_object,
        },
    },
    columns::{BOTH, columns_arrive_in},
    restoring::what_was_lost_comes_back_from,
    support::bucket::Bucket,
};

#[test]
#[ignore = "needs Azurite: tests/servers/azurite"]
fn real_azure_has_every_record_in_one_object() {
    every_record_is_in_one_object(&Bucket::azurite());
}

#[test]
#[ignore = "needs Azurite: tests/servers/azurite"]
fn real_azure_twenty_kills_in_every_phase_lose_and_double_nothing() {
    kills_lose_and_double_nothing(&Bucket::azurite());
}

#[test]
#[ignore = "needs Azurite: tests/servers/azurite"]
fn real_azure_gives_back_what_a_sink_has_lost() {
    for lines in ["", "formats = [\"parquet\"]"] {
        what_was_lost_comes_back_from(&Bucket::azurite(), lines);
    }
}

#[test]
#[ignore = "needs Azurite: tests/servers/azurite"]
fn real_azure_takes_columns() {
    columns_arrive_in(&Bucket::azurite(), BOTH);
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
