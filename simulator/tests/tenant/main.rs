//! The simulated tenant as a collector meets it: over HTTP.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod catalogue;
mod client;
mod content;
mod control;
mod faults;
mod strict;
mod tokens;
