//! The keys of `[sinks.NAME]` with `type = "file"`, beside those that every sink has.

use std::{fmt, num::NonZeroU32, path::PathBuf, time::Duration};

/// Configuration of a `file` sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileConfig {
    /// Where the files are. It is made when it is missing. No two sinks may share a directory and a `file_name`.
    pub directory: PathBuf,
    /// What the files' names begin with: `NAME.ndjson` and `NAME-<UTC time>-<n>.ndjson`.
    pub file_name: FileName,
    /// The live file is closed when it has at least this many bytes.
    pub rotate_bytes: u64,
    /// The live file is closed when its first record was written this long ago.
    pub rotate_interval: Duration,
    /// Permissions of the files, whatever the umask.
    pub mode: Mode,
    /// The group of the files, for agents that read them; with a mode such as `0640`.
    pub group: Option<String>,
    /// Compression of closed files. An agent that reads them should be given `none`.
    pub compression: Compression,
    /// How many closed files are kept; older ones are deleted. `None`: all.
    pub keep: Option<NonZeroU32>,
}

impl FileConfig {
    /// What a sink has that is only told its directory.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            file_name: FileName::default(),
            rotate_bytes: 256 << 20,
            rotate_interval: Duration::from_secs(3600),
            mode: Mode::default(),
            group: None,
            compression: Compression::default(),
            keep: None,
        }
    }
}

/// Compression of closed files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// They stay as they are.
    #[default]
    None,
    /// `.ndjson.gz`
    Gzip,
    /// `.ndjson.zst`
    Zstd,
}

impl Compression {
    /// What is added to a file's name.
    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }
}

/// What the files' names begin with, `mailtrail` by default: 1 to 64 of `a-z A-Z 0-9 . _ -`, not beginning with `.` or `-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName(String);

/// A text that cannot begin a file's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` cannot name a file: use 1 to 64 letters, digits, `.`, `_` or `-`, and begin with a letter or digit"
)]
pub struct BadFileName {
    /// What was given.
    pub text: String,
}

impl Default for FileName {
    fn default() -> Self {
        Self("mailtrail".to_owned())
    }
}

impl TryFrom<String> for FileName {
    type Error = BadFileName;

    fn try_from(text: String) -> Result<Self, BadFileName> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            && text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if fits { Ok(Self(text)) } else { Err(BadFileName { text }) }
    }
}

impl FileName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Permissions in octal, as in `"0640"`; `"0600"` by default. The owner can always read and write, and nobody can execute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(u32);

/// A text that is no permission for a file of records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no mode for a file: use an octal number from \"0600\" to \"0666\", such as \"0640\"")]
pub struct BadMode {
    /// What was given.
    pub text: String,
}

impl Default for Mode {
    fn default() -> Self {
        Self(0o600)
    }
}

impl Mode {
    /// The permission bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl TryFrom<String> for Mode {
    type Error = BadMode;

    fn try_from(text: String) -> Result<Self, BadMode> {
        let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        match u32::from_str_radix(&text, 8) {
            Ok(bits) if octal && bits & 0o600 == 0o600 && bits & !0o666 == 0 => Ok(Self(bits)),
            _ => Err(BadMode { text }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_modes_that_could_do_harm_are_refused() {
        assert_eq!(FileName::default().as_str(), "mailtrail");
        assert_eq!(Mode::default().bits(), 0o600);
        assert_eq!(Mode::try_from("0640".to_owned()).map(Mode::bits), Ok(0o640));
        for name in ["", "../x", ".hidden", "-x", "a/b", "a b"] {
            assert!(FileName::try_from(name.to_owned()).is_err(), "{name}");
        }
        for mode in ["", "0700", "0400", "999", "0o600", "00600"] {
            assert!(Mode::try_from(mode.to_owned()).is_err(), "{mode}");
        }
    }
}
