//! Tests of the whole crate from outside: every event is valid, and nothing of a record is lost on the way.

mod checks;
mod events;
mod lossless;
mod records;
