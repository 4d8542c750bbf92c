//! Any bytes as a blob's body, in any chunks.

#![no_main]

#[path = "../src/split.rs"]
mod split;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| split::check(bytes));
