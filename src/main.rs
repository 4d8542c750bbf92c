//! mailtrail
fn main() {}
