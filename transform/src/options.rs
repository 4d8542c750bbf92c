//! How a sink wants its events.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The shape of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum View {
    /// OCSF, the canonical shape.
    #[default]
    Ocsf,
    /// The record's own bytes, on one line.
    Raw,
    /// Elastic Common Schema, as Elastic's `o365` integration writes it.
    Ecs,
    /// Microsoft's Advanced Security Information Model: AuditEvent, or Authentication for a mailbox logon.
    Asim,
    /// The record's own fields with those of Splunk's Common Information Model beside them.
    Splunk,
    /// The columns of Sentinel's `OfficeActivity` table.
    OfficeActivity,
}

/// The text names no view.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown view `{text}`; use ocsf, raw, ecs, asim, splunk or officeactivity")]
pub struct UnknownView {
    /// What was given instead.
    pub text: String,
}

impl View {
    /// Every view.
    pub const ALL: [Self; 6] =
        [Self::Ocsf, Self::Raw, Self::Ecs, Self::Asim, Self::Splunk, Self::OfficeActivity];

    /// The name as the configuration spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ocsf => "ocsf",
            Self::Raw => "raw",
            Self::Ecs => "ecs",
            Self::Asim => "asim",
            Self::Splunk => "splunk",
            Self::OfficeActivity => "officeactivity",
        }
    }
}

impl FromStr for View {
    type Err = UnknownView;

    fn from_str(text: &str) -> Result<Self, UnknownView> {
        let found = Self::ALL.into_iter().find(|view| view.as_str() == text);
        found.ok_or_else(|| UnknownView { text: text.to_owned() })
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The release of OCSF that events are valid against. What an older one lacks stays under `unmapped`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum OcsfVersion {
    /// 1.5.0, the newest that some data lakes read.
    #[serde(rename = "1.5.0")]
    V1_5,
    /// 1.6.0.
    #[serde(rename = "1.6.0")]
    V1_6,
    /// 1.7.0.
    #[serde(rename = "1.7.0")]
    V1_7,
    /// 1.8.0.
    #[default]
    #[serde(rename = "1.8.0")]
    V1_8,
}

impl OcsfVersion {
    /// Every release that events can be written for.
    pub const ALL: [Self; 4] = [Self::V1_5, Self::V1_6, Self::V1_7, Self::V1_8];

    /// The release as `metadata.version` has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1_5 => "1.5.0",
            Self::V1_6 => "1.6.0",
            Self::V1_7 => "1.7.0",
            Self::V1_8 => "1.8.0",
        }
    }
}

/// Which OCSF classes are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassPolicy {
    /// Each operation has the class that fits it best.
    #[default]
    Rich,
    /// Every event is an API Activity (6003), for destinations with one table per class.
    ApiOnly,
}

/// What of the record's own bytes goes into an OCSF event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawData {
    /// Nothing; every value of the record is in the event anyway.
    #[default]
    None,
    /// The SHA-256 and length of the record's bytes as the API gave them; nothing before OCSF 1.6.
    Hash,
    /// The record as text, and its length.
    Full,
}

/// Which of [`schemas::RecordFacts`] a sink asks for. What it does not ask for may be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Facts {
    /// All of them.
    #[default]
    All,
    /// Those that stand in the record as they are: id, time, operation, user and record type. Without a filter, the raw
    /// view then need not understand a record, only check it.
    Plain,
    /// These, and the mailbox. A record that names the mailbox's owner then need not be understood either.
    Mailbox,
}

/// How to render records for one sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderOptions {
    /// The shape.
    pub view: View,
    /// What the sink asks of each record beside its bytes.
    pub facts: Facts,
    /// For OCSF: the release.
    pub ocsf_version: OcsfVersion,
    /// For OCSF: the classes.
    pub class_policy: ClassPolicy,
    /// For OCSF: the record itself.
    pub raw_data: RawData,
    /// For OCSF: whether `observables` are listed.
    pub observables: bool,
    /// For OCSF: whether the captions of numbers are written (`activity_name` beside `activity_id`).
    pub captions: bool,
    /// Whether events are tagged. `exo.audit.disabled` is always given: it says that records will be missing.
    pub tags: bool,
    /// The organisation's own mail domains; an address in any other is external. When there is none, the domains of the
    /// organisation, the mailbox owner and the actor of each record are taken for its own.
    pub accepted_domains: Vec<String>,
    /// Ids of applications whose mailbox access is expected, beside Microsoft's own.
    pub first_party_apps: Vec<String>,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self {
            view: View::default(),
            facts: Facts::default(),
            ocsf_version: OcsfVersion::default(),
            class_policy: ClassPolicy::default(),
            raw_data: RawData::default(),
            observables: true,
            captions: true,
            tags: true,
            accepted_domains: Vec::new(),
            first_party_apps: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_have_one_name_in_text_and_in_configuration() {
        for view in View::ALL {
            assert_eq!(view.to_string().parse(), Ok(view));
            assert_eq!(serde_json::to_value(view).unwrap(), view.as_str());
        }
        assert!("OCSF".parse::<View>().is_err());
        for version in OcsfVersion::ALL {
            assert_eq!(serde_json::to_value(version).unwrap(), version.as_str());
        }
    }
}
