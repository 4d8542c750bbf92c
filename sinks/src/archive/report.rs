//! What an archive sink has on this machine, and how far its chains are, for `mailtrail status`.

use std::fmt;

use archive::SealedObject;
use chrono::{DateTime, Utc};
use schemas::{ContentType, FeedKey, TenantId};
use serde::{Deserialize, Serialize};

use super::{plan::Plan, span::Stage, state::State};
use crate::versioned::Unreadable;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ArchiveReport {
    /// Objects that are not in the archive yet, in the order in which they were begun.
    pub objects: Vec<StagedObject>,
    /// Each tenant's chain of manifests.
    pub chains: Vec<ChainReport>,
}

/// An object that is not in the archive yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedObject {
    /// Whose records.
    pub tenant: TenantId,
    /// And which.
    pub content_type: ContentType,
    /// How far it has come.
    pub stage: ObjectStage,
    /// How many records it has. Of one that was open when the process stopped only the bytes are known.
    pub records: Option<u64>,
    /// Their size; that of the object's files once it is sealed.
    pub bytes: u64,
    /// When it was begun.
    pub since: DateTime<Utc>,
    /// When it is closed at the latest, while it is open and the sink runs.
    pub until: Option<DateTime<Utc>>,
    /// Where it will lie in the archive, once that is known.
    pub path: Option<String>,
}

/// How far an object has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectStage {
    /// It takes records.
    Open,
    /// It takes none any more, and has no name yet.
    Closed,
    /// It has its name and hash.
    Sealed,
}

/// A tenant's chain of manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainReport {
    /// Whose.
    pub tenant: TenantId,
    /// Number and hash of the last entry, as `archive verify --head` takes them; none before the first.
    pub head: Option<String>,
    /// When that was made.
    pub made: Option<DateTime<Utc>>,
    /// Whether it is made and not certainly in the archive yet.
    pub waits: bool,
    /// How many of the tenant's objects are in the archive and in no entry yet.
    pub unnamed: usize,
}

/// What the ledger keeps of a sink is not of an archive sink of this version.
#[derive(Debug, thiserror::Error)]
#[error("the archive's state in the ledger cannot be used: {0}")]
pub struct NotAState(String);

impl From<Unreadable> for NotAState {
    fn from(error: Unreadable) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for ObjectStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Sealed => "sealed",
        })
    }
}

impl ArchiveReport {
    /// What the ledger knows of a sink that does not run.
    ///
    /// # Errors
    ///
    /// When its state is not of an archive sink of this version.
    pub fn of_state(state: &[u8]) -> Result<Self, NotAState> {
        let state = State::decode(state)?;
        let open = state
            .open
            .iter()
            .map(|open| StagedObject { bytes: open.bytes, ..StagedObject::begun(open.feed(), open.began) });
        let sealed = state.sealed.iter();
        let sealed = sealed.map(|of| StagedObject::begun(of.span.feed(), of.span.began).sealed(&of.object));
        Ok(Self { objects: sealed.chain(open).collect(), chains: chains(&state) })
    }

    /// What a running sink knows.
    pub(super) fn of_plan(plan: &Plan) -> Self {
        let objects = plan.spans().filter(|span| span.end > 0).map(|span| {
            let begun = StagedObject::begun(span.feed, span.began);
            match &span.stage {
                Stage::Open { due } => StagedObject {
                    stage: if *due { ObjectStage::Closed } else { ObjectStage::Open },
                    records: Some(span.whole.records),
                    bytes: span.end,
                    until: (!due).then(|| plan.closes_at(span)),
                    ..begun
                },
                Stage::Sealed(object) => begun.sealed(object),
            }
        });
        Self { objects: objects.collect(), chains: chains(&plan.state()) }
    }
}

impl StagedObject {
    /// One that is open, and of which nothing more is known.
    fn begun(feed: FeedKey, since: DateTime<Utc>) -> Self {
        Self {
            tenant: feed.tenant,
            content_type: feed.content_type,
            stage: ObjectStage::Open,
            records: None,
            bytes: 0,
            since,
            until: None,
            path: None,
        }
    }

    fn sealed(self, object: &SealedObject) -> Self {
        Self {
            stage: ObjectStage::Sealed,
            records: Some(object.records),
            bytes: object.stored_bytes(),
            path: object.files.first().map(|file| file.path.to_string()),
            ..self
        }
    }
}

fn chains(state: &State) -> Vec<ChainReport> {
    let manifests = &state.manifests;
    let report = |(tenant, chain): (&TenantId, &super::manifests::Chain)| ChainReport {
        tenant: *tenant,
        head: chain.link().map(|link| link.head().to_string()),
        made: chain.link().map(|link| link.to),
        waits: manifests.entries().iter().any(|entry| entry.tenant == *tenant),
        unnamed: manifests.unnamed_of(*tenant),
    };
    manifests.chains().iter().map(report).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::state::tests::version_1, *};

    #[test]
    fn what_the_ledger_keeps_is_told() {
        let report = ArchiveReport::of_state(version_1().as_bytes()).unwrap();
        let [sealed, open] = &report.objects[..] else { panic!("{report:?}") };
        assert_eq!((sealed.stage, sealed.records, sealed.bytes), (ObjectStage::Sealed, Some(3), 77));
        assert_eq!(sealed.path.as_deref(), Some("tenant=x/a-1-40.ndjson.gz"));
        assert_eq!((open.stage, open.records, open.bytes), (ObjectStage::Open, None, 4096));
        assert_eq!((open.content_type, open.since.timestamp()), (ContentType::Exchange, 1_767_323_045));
        assert!(report.chains.is_empty());
        assert!(ArchiveReport::of_state(b"{}").unwrap_err().to_string().contains("cannot be used"));
    }
}
