//! Tests of the whole crate from outside: every event is valid, and nothing of a record is lost on the way.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

mod checks;
mod elastic;
mod events;
mod fuzz_corpus;
mod lossless;
mod plain;
mod published;
mod records;
mod schema_page;
mod view_schemas;
mod views;
