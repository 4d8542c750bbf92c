//! JSON that outlives the process that wrote it, and may be read by another version of this program: states in the
//! ledger, progress at a broker.
//!
//! Its member `version` says of which format it is. Only that is read before it is known, because whatever else there
//! is may have another form.

use serde::{Deserialize, de::DeserializeOwned};

/// What was kept cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is of a newer format.
    #[error(
        "a newer version of mailtrail wrote it (format {found}, this one knows {known}): run that version"
    )]
    Newer {
        /// Its format.
        found: u32,
        /// The format that this version reads.
        known: u32,
    },
    /// It is not what was written, or was never of this kind.
    #[error("it is damaged, or of something else: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Reads what was written in the format `known`.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], known: u32) -> Result<T, Unreadable> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let found = serde_json::from_slice::<Versioned>(bytes)?.version;
    if found != known {
        return Err(Unreadable::Newer { found, known });
    }
    Ok(serde_json::from_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_format_is_told_from_what_is_damaged() {
        let decode = |text: &str| decode::<Vec<u8>>(text.as_bytes(), 1);
        assert!(matches!(decode(r#"{"version":2,"of":[]}"#), Err(Unreadable::Newer { found: 2, known: 1 })));
        assert!(matches!(decode(r#"{"version":1,"of":[]}"#), Err(Unreadable::Malformed(_))));
        assert!(matches!(decode("\0"), Err(Unreadable::Malformed(_))));
    }
}
