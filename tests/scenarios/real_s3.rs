//! The archive sink with a bucket of S3 as its target, as moto serves it.
//!
//! These need what `tests/servers/moto` installs, so they are run on demand:
//! `cargo test --test scenarios -- --ignored real_`.

use std::time::Duration;

use crate::{
    archive::{
        kills::kills_lose_and_double_nothing,
        stores::{configure, every_record_is_in_one_object, is_complete, world},
    },
    columns::{BOTH, LAKE, columns_arrive_in},
    restoring::what_was_lost_comes_back_from,
    support::bucket::Bucket,
};

#[test]
#[ignore = "needs moto: tests/servers/moto"]
fn real_s3_has_every_record_in_one_object() {
    every_record_is_in_one_object(&Bucket::moto());
}

#[test]
#[ignore = "needs moto: tests/servers/moto"]
fn real_s3_twenty_kills_in_every_phase_lose_and_double_nothing() {
    kills_lose_and_double_nothing(&Bucket::moto());
}

#[test]
#[ignore = "needs moto: tests/servers/moto"]
fn real_s3_gives_back_what_a_sink_has_lost() {
    for lines in ["", LAKE] {
        what_was_lost_comes_back_from(&Bucket::moto(), lines);
    }
}

#[test]
#[ignore = "needs moto: tests/servers/moto"]
fn real_s3_takes_columns_and_a_security_lake() {
    for lines in [BOTH, LAKE] {
        columns_arrive_in(&Bucket::moto(), lines);
    }
}

#[test]
#[ignore = "needs moto: tests/servers/moto"]
fn real_s3_that_stands_still_for_a_while_is_waited_for() {
    let bucket = Bucket::moto();
    let world = world(300);
    configure(&world, &bucket, bucket.address, "", "object_bytes = \"1MiB\"");
    let running = world.start(&["run", "--until-idle"]);
    world.until("something is put", || !bucket.objects().is_empty());
    bucket.stand_still_for(Duration::from_secs(5));
    running.wait().ends_with(0);
    is_complete(&world, &bucket);
}
