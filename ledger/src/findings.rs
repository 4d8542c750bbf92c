//! What somebody has to look at: gaps, holes, quarantined blobs, unsent dead letters. Each has an id that stays the
//! same, and is acknowledged with a reason and a name.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};

use crate::{
    error::{LedgerError, Result},
    handle::{Answer, Ledger},
    writer::Writer,
};

/// What kind of thing a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// A blob that can no longer be had.
    Gap,
    /// A span of time that could not be listed.
    Hole,
    /// A blob that nobody could handle.
    Quarantine,
    /// A record, or a whole delivery, that a sink did not get.
    Dead,
}

impl FindingKind {
    const ALL: [Self; 4] = [Self::Gap, Self::Hole, Self::Quarantine, Self::Dead];

    /// The word in its id.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Hole => "hole",
            Self::Quarantine => "quarantine",
            Self::Dead => "dead",
        }
    }
}

/// The id of a finding, such as `gap-12`, `hole-3`, `quarantine-7` or `dead-99`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FindingId {
    /// What it is.
    pub kind: FindingKind,
    /// Its number among those of its kind.
    pub number: i64,
}

impl fmt::Display for FindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.kind.as_str(), self.number)
    }
}

/// The text is no id of a finding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id; ids look like gap-12, hole-3, quarantine-7 or dead-99")]
pub struct NotAFinding {
    /// What was given instead.
    pub text: String,
}

impl FromStr for FindingId {
    type Err = NotAFinding;

    fn from_str(text: &str) -> Result<Self, NotAFinding> {
        let wrong = || NotAFinding { text: text.to_owned() };
        let (word, digits) = text.split_once('-').ok_or_else(wrong)?;
        let kind = FindingKind::ALL.into_iter().find(|kind| kind.as_str() == word).ok_or_else(wrong)?;
        // Only the form that is printed: it is the key under which an acknowledgement is found.
        let number = digits.parse().ok().filter(|number: &i64| *number > 0).ok_or_else(wrong)?;
        let id = Self { kind, number };
        if id.to_string() == text { Ok(id) } else { Err(wrong()) }
    }
}

/// That somebody has looked at a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Why it is all right.
    pub reason: String,
    /// Who says so.
    pub name: String,
    /// When.
    pub at: DateTime<Utc>,
}

impl Ledger {
    /// Acknowledges findings, all of them or none. One that was acknowledged before keeps its first reason.
    pub fn acknowledge(&self, findings: Vec<FindingId>, reason: String, name: String) -> Answer<()> {
        self.change(move |writer| {
            for finding in findings {
                writer.acknowledge(finding, &reason, &name)?;
            }
            Ok(())
        })
    }
}

impl Writer {
    fn acknowledge(&self, finding: FindingId, reason: &str, name: &str) -> Result<()> {
        let id = finding.to_string();
        let sql = match finding.kind {
            FindingKind::Gap => "SELECT EXISTS (SELECT 1 FROM blob WHERE work = ?1 AND state = 'gap')",
            FindingKind::Hole => "SELECT EXISTS (SELECT 1 FROM hole WHERE id = ?1)",
            FindingKind::Quarantine => {
                "SELECT EXISTS (SELECT 1 FROM blob WHERE work = ?1 AND state = 'quarantined')"
            }
            FindingKind::Dead => "SELECT EXISTS (SELECT 1 FROM dead_letter WHERE id = ?1)",
        };
        let known = "SELECT EXISTS (SELECT 1 FROM acknowledgement WHERE finding = ?1)";
        if self.number(sql, [finding.number])? == 0 && self.number(known, [&id])? == 0 {
            return Err(LedgerError::UnknownFinding(finding));
        }
        let sql = "INSERT INTO acknowledgement (finding, reason, name, at) VALUES (?1, ?2, ?3, ?4) \
                   ON CONFLICT DO NOTHING";
        self.exec(sql, (&id, reason, name, self.now_micros()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_printed_and_not_otherwise() {
        for text in ["gap-12", "hole-3", "quarantine-7", "dead-99"] {
            assert_eq!(text.parse::<FindingId>().unwrap().to_string(), text);
        }
        for bad in ["", "gap", "gap-", "gap-0", "gap--1", "gap-012", "gap-+1", "letter-1", "Gap-1"] {
            assert!(bad.parse::<FindingId>().is_err(), "{bad}");
        }
    }
}
