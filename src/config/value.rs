//! What a key's value may be, and how a wrong one is explained.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use entra::{ClientId, ServiceUrl};
use schemas::{ContentType, TenantId};
use sinks::{
    file::{FileName, Mode},
    template::{BadTemplate, Template},
};
use toml::de::DeValue;
use url::Url;

use crate::units;

/// A value that can be read from TOML.
pub(super) trait FromToml: Sized {
    /// What is accepted, to finish "'key' must be …".
    const EXPECTED: &'static str;

    /// Reads it.
    fn from_toml(value: &DeValue<'_>) -> Result<Self, Misfit>;
}

/// A type whose values are a few words.
pub(super) trait Keyword: Copy + 'static {
    /// Every word and its meaning.
    const WORDS: &'static [(&'static str, Self)];
}

/// Why a value does not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Misfit {
    /// It is not of the right kind.
    Kind,
    /// It is of the right kind, but not right: what is wrong with it.
    Value(String),
}

impl Misfit {
    /// What is wrong with `value`, to be read after the key's path. Strings are shown: secrets never come here.
    pub(super) fn explain(&self, value: &DeValue<'_>, expected: &str) -> String {
        match self {
            Self::Kind => format!("must be {expected}, not {}", kind_of(value)),
            Self::Value(why) => format!("must be {expected}; {why}"),
        }
    }
}

/// What the value is, in words.
pub(super) fn kind_of(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.len() <= 60 => format!("the text {text:?}"),
        DeValue::String(_) => "a text".to_owned(),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(time) => format!("the time {time}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a section".to_owned(),
    }
}

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bytes(pub(super) u64);

/// The text that the value is.
pub(super) fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, Misfit> {
    match value.as_str() {
        Some(text) if text.trim().is_empty() => Err(Misfit::Value("it is empty".to_owned())),
        Some(text) => Ok(text),
        None => Err(Misfit::Kind),
    }
}

fn whole_number(value: &DeValue<'_>) -> Result<i128, Misfit> {
    let number = value.as_integer().ok_or(Misfit::Kind)?;
    let parsed = i128::from_str_radix(number.as_str(), number.radix());
    parsed.map_err(|_| Misfit::Value(format!("{number} is too large")))
}

impl FromToml for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Misfit> {
        value.as_bool().ok_or(Misfit::Kind)
    }
}

impl FromToml for String {
    const EXPECTED: &'static str = "a text in quotes";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Misfit> {
        text(value).map(str::to_owned)
    }
}

impl FromToml for PathBuf {
    const EXPECTED: &'static str = "a path in quotes";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Misfit> {
        text(value).map(Self::from)
    }
}

impl FromToml for NonZeroU32 {
    const EXPECTED: &'static str = "a whole number from 1 to 4294967295";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Misfit> {
        let number = whole_number(value)?;
        u32::try_from(number)
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| Misfit::Value(format!("{number} is out of range")))
    }
}

impl FromToml for i64 {
    const EXPECTED: &'static str = "a whole number";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Misfit> {
        let number = whole_number(value)?;
        Self::try_from(number).map_err(|_| Misfit::Value(format!("{number} is out of range")))
    }
}

impl FromToml for Bytes {
    const EXPECTED: &'static str = "a size such as \"256MiB\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Misfit> {
        if value.is_integer() {
            let number = whole_number(value)?;
            let bytes = u64::try_from(number).ok().filter(|bytes| *bytes > 0);
            return bytes.map(Self).ok_or_else(|| Misfit::Value(format!("{number} is out of range")));
        }
        let text = text(value)?;
        match units::parse_bytes(text) {
            Ok(0) => Err(Misfit::Value("nothing fits into 0 bytes".to_owned())),
            Ok(bytes) => Ok(Self(bytes)),
            Err(error) => Err(Misfit::Value(format!("\"{text}\" is none: {error}"))),
        }
    }
}

impl FromToml for Duration {
    const EXPECTED: &'static str = "a duration such as \"60s\" or \"1h30m\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Misfit> {
        let text = text(value)?;
        match units::parse_duration(text) {
            Ok(Self::ZERO) => Err(Misfit::Value("it must be longer than nothing".to_owned())),
            Ok(duration) => Ok(duration),
            Err(error) => Err(Misfit::Value(format!("\"{text}\" is none: {error}"))),
        }
    }
}

impl FromToml for TenantId {
    const EXPECTED: &'static str = "the directory (tenant) id of the organisation";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Misfit> {
        text(value)?.parse().map_err(|error: schemas::tenant::NotAGuid| Misfit::Value(error.to_string()))
    }
}

impl FromToml for ContentType {
    const EXPECTED: &'static str = "a content type such as \"Audit.Exchange\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Misfit> {
        let text = text(value)?;
        text.parse().map_err(|error: schemas::content_type::UnknownContentType| {
            let near = super::reader::nearest(text, Self::ALL.iter().map(|kind| kind.as_str()));
            let hint = near.map(|near| format!("; did you mean \"{near}\"?"));
            Misfit::Value(format!("{error}{}", hint.unwrap_or_default()))
        })
    }
}

impl FromToml for Mode {
    const EXPECTED: &'static str = "a file mode in octal digits and quotes, such as \"0640\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Misfit> {
        Self::try_from(text(value)?.to_owned()).map_err(|error| Misfit::Value(error.to_string()))
    }
}

impl FromToml for FileName {
    const EXPECTED: &'static str = "a name for files, such as \"mailtrail\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Misfit> {
        Self::try_from(text(value)?.to_owned()).map_err(|error| Misfit::Value(error.to_string()))
    }
}

impl FromToml for Template {
    const EXPECTED: &'static str =
        "a text, which may hold {tenant}, {tenant_id}, {content_type} and {content_id}";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Misfit> {
        let text = text(value)?;
        text.parse().map_err(|error: BadTemplate| Misfit::Value(format!("in \"{text}\" {error}")))
    }
}

impl FromToml for Url {
    const EXPECTED: &'static str = "a URL such as \"http://proxy.example.com:3128\"";

    // What is wrong is not shown: a URL may hold a password.
    fn from_toml(value: &DeValue<'_>) -> Result<Self, Misfit> {
        let url =
            Self::parse(text(value)?).map_err(|error| Misfit::Value(format!("this is none: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(Misfit::Value("it must begin with http:// or https://".to_owned()));
        }
        Ok(url)
    }
}

impl FromToml for SocketAddr {
    const EXPECTED: &'static str = "an address and a port, such as \"127.0.0.1:9184\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Misfit> {
        let text = text(value)?;
        text.parse().map_err(|_| Misfit::Value(format!("\"{text}\" is none; a name does not do")))
    }
}

impl FromToml for ServiceUrl {
    const EXPECTED: &'static str = "a URL such as \"https://manage.office.com\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Misfit> {
        text(value)?.parse().map_err(|error: entra::BadUrl| Misfit::Value(error.to_string()))
    }
}

impl FromToml for ClientId {
    const EXPECTED: &'static str = "the application (client) id, as the Entra admin center shows it";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Misfit> {
        text(value)?.parse().map_err(|error: entra::BadClientId| Misfit::Value(error.to_string()))
    }
}
