//! What the ledger states of a span of numbers, in the words of an archive's entry.

use archive::{Accounts, LateHour, Retries};
use ledger::ContentStatement;
use sinks::delivery_ledger::Statement;

/// The ledger's statement as a sink sees it.
pub(super) fn statement(stated: ledger::Statement) -> Statement {
    let accounts = stated.content_types.into_iter().map(|(kind, content)| (kind, accounts(content)));
    Statement {
        accounts: accounts.collect(),
        other_seqs: stated.other,
        incomplete_through: stated.incomplete_through,
    }
}

fn accounts(content: ContentStatement) -> Accounts {
    let ContentStatement { blobs, retries, .. } = content;
    Accounts {
        listed: content.listed,
        fetched: content.fetched,
        gaps: content.gaps,
        quarantined: content.quarantined,
        holes: content.holes,
        records: content.records,
        duplicates: content.duplicates,
        not_due: content.not_due,
        filtered: blobs.filtered,
        archived: blobs.delivered,
        dead: blobs.dead,
        retries: Retries {
            works: content.retried,
            records: retries.due,
            filtered: retries.filtered,
            archived: retries.delivered,
            dead: retries.dead,
        },
        late: content.late.into_iter().map(|(hour, blobs)| LateHour { hour, blobs }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use ledger::Settled;

    use super::*;

    #[test]
    fn what_adds_up_in_the_ledger_adds_up_in_the_entry() {
        let hour = "2026-03-02T08:00:00Z".parse().unwrap();
        let content = ContentStatement {
            listed: 4,
            fetched: 2,
            gaps: 1,
            quarantined: 1,
            holes: 1,
            records: 21,
            duplicates: 1,
            not_due: 2,
            blobs: Settled { due: 18, delivered: 11, filtered: 4, dead: 3 },
            retried: 2,
            retries: Settled { due: 6, delivered: 3, filtered: 2, dead: 1 },
            late: [(hour, 2)].into(),
        };
        let accounts = accounts(content.clone());
        assert!(accounts.agree(), "{accounts:?}");
        assert_eq!((accounts.archived, accounts.filtered, accounts.dead), (11, 4, 3));
        assert_eq!((accounts.retries.works, accounts.retries.archived), (2, 3));
        assert_eq!(accounts.late, [LateHour { hour, blobs: 2 }]);
        let pending = Settled { due: 19, ..content.blobs };
        assert!(!super::accounts(ContentStatement { blobs: pending, records: 22, ..content }).agree());
    }
}
