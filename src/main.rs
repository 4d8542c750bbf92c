//! mailtrail

mod cli;
mod config;
mod logging;
mod table;
mod units;

fn main() {}
