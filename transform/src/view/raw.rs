//! `raw`: the record's own bytes, on one line.

/// Copies the record, whose line breaks were taken out before.
pub(crate) fn write(line: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(line.as_bytes());
}
