//! The shapes of an event beside OCSF.

pub(crate) mod raw;
