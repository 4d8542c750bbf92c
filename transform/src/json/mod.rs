//! JSON as this crate reads and writes it: borrowed slices in, bytes out, nothing in between.
//!
//! A record is checked once, from its first byte to its last ([`scan`]), which yields the names and raw values of its top
//! level. Whatever is behind a value is walked only when somebody asks ([`value`]), over text that is known to be good.
//! Strings travel with their escapes and are copied as they are; they are resolved only to be compared or taken
//! apart. [`mod@write`] appends to a buffer and cannot fail. [`repair`] makes a record that is nearly JSON into JSON.

mod bytes;
mod key;
pub(crate) mod repair;
pub(crate) mod scan;
pub(crate) mod value;
pub(crate) mod write;

pub(crate) use bytes::has_controls;
pub(crate) use key::Key;
pub(crate) use scan::{ElementName, Fault, Fields, Name, scan_object};
pub(crate) use value::{Json, Kind, Text, same_word};
pub(crate) use write::Writer;
