//! The simulated tenant as a collector meets it: over HTTP.

mod catalogue;
mod client;
mod content;
mod control;
mod faults;
mod strict;
mod tokens;
