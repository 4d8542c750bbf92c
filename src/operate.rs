//! Changes to the ledger that an operator asks for. The same code serves the control socket of a running process and
//! a command that has taken the ledger itself.

use std::collections::BTreeSet;

use ledger::{Ledger, LedgerError, LetterFilter};
use schemas::SinkName;
use serde::{Deserialize, Serialize};

/// A change that an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Change {
    /// Gives up what a sink that is no longer configured has not got yet.
    ForgetSink {
        /// Which sink.
        name: SinkName,
    },
    /// Lets a sink go on, whatever another ledger has left at its destination.
    AdoptSink {
        /// Which sink.
        name: SinkName,
    },
    /// Takes note of losses, so that they no longer make `reconcile` fail.
    Acknowledge {
        /// As `reconcile` names them.
        findings: Vec<String>,
        /// Why they are all right.
        reason: String,
        /// Who says so.
        name: String,
    },
    /// Delivers dead letters again.
    RetryDeadLetters {
        /// Which of them.
        which: WhichDeadLetters,
    },
}

/// Which dead letters are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WhichDeadLetters {
    /// These.
    Ids(Vec<u64>),
    /// All of a sink.
    Sink(SinkName),
    /// All.
    All,
}

/// A change was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperateError {
    /// The ledger refused.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The text names nothing that can be acknowledged.
    #[error("`{text}` names no finding; `mailtrail reconcile` lists them, such as gap-17 or hole-3")]
    NoFinding {
        /// What was given.
        text: String,
    },
    /// The machinery failed.
    #[error("the change could not be made: {0}")]
    Failed(String),
}

/// Dead letters that are retried in one commit.
const RETRIED_AT_ONCE: usize = 500;

/// Makes a change; gives what to tell about it.
pub(crate) async fn apply(ledger: &Ledger, change: Change) -> Result<String, OperateError> {
    match change {
        Change::ForgetSink { name } => forget(ledger, name).await,
        Change::AdoptSink { name } => adopt(ledger, name).await,
        Change::Acknowledge { findings, reason, name } => {
            let ids = findings
                .iter()
                .map(|text| text.parse().map_err(|_| OperateError::NoFinding { text: text.clone() }))
                .collect::<Result<Vec<_>, _>>()?;
            ledger.acknowledge(ids, reason, name.clone()).await?;
            Ok(format!("acknowledged by {name}: {}", findings.join(", ")))
        }
        Change::RetryDeadLetters { which } => retry(ledger, which).await,
    }
}

async fn forget(ledger: &Ledger, name: SinkName) -> Result<String, OperateError> {
    let (ledger, sink) = (ledger.clone(), name.clone());
    let forgotten = tokio::task::spawn_blocking(move || ledger.forget_sink(&sink)).await;
    let count = forgotten.map_err(|error| OperateError::Failed(error.to_string()))??;
    Ok(match count {
        0 => format!("forgot sink {name}: nothing was pending for it"),
        1 => format!("forgot sink {name}: 1 pending delivery was given up; `mailtrail reconcile` shows it"),
        _ => format!(
            "forgot sink {name}: {count} pending deliveries were given up; `mailtrail reconcile` shows them"
        ),
    })
}

async fn adopt(ledger: &Ledger, name: SinkName) -> Result<String, OperateError> {
    ledger.change_sink_state(&name, crate::pipeline::adopted).await?;
    Ok(format!(
        "sink {name} goes on with this ledger: at the next start, or within 5 minutes when it is halted now; what another \
         one has delivered may come again"
    ))
}

async fn retry(ledger: &Ledger, which: WhichDeadLetters) -> Result<String, OperateError> {
    let ids = match which {
        WhichDeadLetters::Ids(ids) => {
            ids.into_iter().map(|id| i64::try_from(id).unwrap_or(i64::MAX)).collect()
        }
        WhichDeadLetters::Sink(sink) => unsent(ledger, Some(sink)).await?,
        WhichDeadLetters::All => unsent(ledger, None).await?,
    };
    let (mut works, mut records, mut refused) = (0, 0, Vec::new());
    let mut along = BTreeSet::new();
    for some in ids.chunks(RETRIED_AT_ONCE) {
        let some = some.iter().copied().filter(|id| !along.contains(id)).collect();
        let retried = ledger.retry_dead_letters(some).await?;
        along.extend(retried.along);
        works += retried.works.len();
        records += retried.records;
        refused.extend(retried.refused);
    }
    // Nobody knows how many records a malformed body was to have.
    let mut text = match (records, works) {
        (0, 1..) => format!("blobs that are fetched again: {works}"),
        _ => format!("{records} records are due again"),
    };
    for (id, why) in &refused {
        text.push_str(&format!("\ndead letter {id} is not retried: {why}"));
    }
    if works == 0 && !refused.is_empty() { Err(OperateError::Failed(text)) } else { Ok(text) }
}

/// The numbers of those dead letters that nobody has dealt with.
async fn unsent(ledger: &Ledger, sink: Option<SinkName>) -> Result<Vec<i64>, OperateError> {
    let ledger = ledger.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut ids = Vec::new();
        loop {
            let after = ids.last().copied().unwrap_or(0);
            let filter = LetterFilter { sink: sink.clone(), open: true, after, ..LetterFilter::default() };
            let letters = ledger.inspector().dead_letters(&filter)?;
            if letters.is_empty() {
                return Ok::<_, LedgerError>(ids);
            }
            ids.extend(letters.iter().map(|letter| letter.id));
        }
    });
    Ok(read.await.map_err(|error| OperateError::Failed(error.to_string()))??)
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, Utc};
    use ledger::{ListedPage, Settings, SinkSpec, StartFrom};
    use schemas::{ContentId, ContentType, FeedKey, ListedBlob, TenantId};

    use super::*;

    #[tokio::test]
    async fn a_retry_of_what_has_no_known_records_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(dir.path(), Settings::default()).unwrap();
        let sink = SinkSpec { name: "a".parse().unwrap(), required: true, start_from: StartFrom::Spooled };
        ledger.meet_sinks(vec![sink]).await.unwrap();
        let tenant: TenantId = "41463f53-8812-40f4-890f-865bf6e35101".parse().unwrap();
        let now = Utc::now();
        let content_id = ContentId::try_from("x").unwrap();
        let blobs = vec![ListedBlob { content_id, created: now, expires: now + TimeDelta::days(7) }];
        let feed = FeedKey { tenant, content_type: ContentType::Exchange };
        ledger.record_page(ListedPage { feed, blobs, completes: None }).await.unwrap();
        for _ in 0..3 {
            let lease = ledger.claim_fetches(tenant, 1).await.unwrap().remove(0);
            let mut body = ledger.body_writer(lease.work, now);
            body.write(b"[{}}]").unwrap();
            body.finish().unwrap().await.unwrap_err();
        }
        let retry = async |ids: &[u64]| {
            apply(&ledger, Change::RetryDeadLetters { which: WhichDeadLetters::Ids(ids.to_vec()) }).await
        };
        assert_eq!(
            retry(&[1, 999]).await.unwrap(),
            "blobs that are fetched again: 1\ndead letter 999 is not retried: there is no such dead letter"
        );
        assert!(retry(&[1]).await.is_err(), "it was retried already");
    }
}
