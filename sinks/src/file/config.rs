//! The keys of `[sinks.NAME]` with `type = "file"`, beside those that every sink has.

use std::{fmt, num::NonZeroU32, path::PathBuf, time::Duration};

use serde::Deserialize;

use crate::units::{ByteSize, Span};

/// Configuration of a `file` sink.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// Where the files are. It is made when it is missing. No two sinks may share a directory and a `file_name`.
    pub directory: PathBuf,
    /// What the files' names begin with: `NAME.ndjson` and `NAME-<UTC time>-<n>.ndjson`. Default `mailtrail`.
    #[serde(default)]
    pub file_name: FileName,
    /// The live file is closed when it is at least this long. Default 256 MiB.
    #[serde(default = "default_rotate_bytes")]
    pub rotate_bytes: ByteSize,
    /// The live file is closed when its first record was written this long ago. Default 1 hour.
    #[serde(default = "default_rotate_interval")]
    pub rotate_interval: Span,
    /// Permissions of the files, whatever the umask. Default `0600`.
    #[serde(default)]
    pub mode: Mode,
    /// The group of the files, for agents that read them; with a mode such as `0640`.
    #[serde(default)]
    pub group: Option<String>,
    /// Compression of closed files. An agent that reads them should be given `none`, the default.
    #[serde(default)]
    pub compression: Compression,
    /// How many closed files are kept; older ones are deleted. Default: all.
    #[serde(default)]
    pub keep: Option<NonZeroU32>,
}

impl FileConfig {
    /// The names of its keys.
    pub const KEYS: [&'static str; 8] =
        ["directory", "file_name", "rotate_bytes", "rotate_interval", "mode", "group", "compression", "keep"];
}

const fn default_rotate_bytes() -> ByteSize {
    ByteSize(256 << 20)
}

const fn default_rotate_interval() -> Span {
    Span(Duration::from_secs(3600))
}

/// Compression of closed files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
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

/// What the files' names begin with: 1 to 64 of `a-z A-Z 0-9 . _ -`, not beginning with `.` or `-`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
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

/// Permissions in octal, as in `"0640"`. The owner can always read and write, and nobody can execute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
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
    fn only_the_directory_is_needed() {
        let config: FileConfig = serde_json::from_str(r#"{"directory":"/var/log/mailtrail"}"#).unwrap();
        assert_eq!(config.file_name.as_str(), "mailtrail");
        assert_eq!(config.rotate_bytes, ByteSize(256 << 20));
        assert_eq!(config.rotate_interval, Span(Duration::from_secs(3600)));
        assert_eq!(config.mode.bits(), 0o600);
        assert_eq!((config.compression, config.keep, config.group), (Compression::None, None, None));
    }

    #[test]
    fn every_key_is_named_and_no_other_is_taken() {
        let full = r#"{"directory":"/x","file_name":"audit","rotate_bytes":"1MiB","rotate_interval":"5m",
            "mode":"0640","group":"splunk","compression":"zstd","keep":7}"#;
        assert!(serde_json::from_str::<FileConfig>(full).is_ok());
        let keys: serde_json::Map<String, serde_json::Value> = serde_json::from_str(full).unwrap();
        assert!(FileConfig::KEYS.iter().all(|key| keys.contains_key(*key)));
        assert_eq!(keys.len(), FileConfig::KEYS.len());
        for (key, value) in [
            ("rotate_byte", "1"),
            ("mode", "\"0700\""),
            ("mode", "\"0400\""),
            ("mode", "\"999\""),
            ("keep", "0"),
            ("file_name", "\"../x\""),
            ("file_name", "\".hidden\""),
            ("compression", "\"lz4\""),
        ] {
            let text = format!(r#"{{"directory":"/x","{key}":{value}}}"#);
            assert!(serde_json::from_str::<FileConfig>(&text).is_err(), "{text}");
        }
    }
}
