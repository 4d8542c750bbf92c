//! The ledger: the durable memory of mailtrail. It knows which blobs were listed, keeps their bodies until every sink
//! has them, decides once which records are repetitions, and proves that nothing is missing.
//!
//! ```text
//! let (ledger, recovery) = Ledger::open(dir, Settings::default())?;
//! ledger.meet_sinks(specs).await?;
//! ledger.record_page(page).await?;                               // lister
//! for lease in ledger.claim_fetches(tenant, 8).await? { … }      // fetcher: body_writer, gap or fetch_failed
//! for lease in ledger.lease(&sink, 16).await? { … }              // delivery loop: read_piece, settle or defer
//! ```
//!
//! # On disk
//!
//! ```text
//! lock                        held while a process has the ledger open; names the process
//! ledger.sqlite (-wal, -shm)  every fact: schema.sql
//! spool/NNNNNNNNNN.seg        bodies: spool/segment.rs, spool/frame.rs
//! spool/incoming-*.part       bodies on their way
//! ids/                        which record was seen in which blob: ids.rs
//! ```
//!
//! The directory is readable for its owner only. The database says how long each segment is and how far the journal of
//! the ids goes: what lies behind was never committed.
//!
//! # The life of a blob
//!
//! ```text
//!            record_page        body_writer … finish           last settle
//!  (unknown) ──────────▶ listed ─────────────────▶ spooled ───────────────▶ settled ──▶ folded into sums
//!                          │ ▲                        │
//!        expired or gone   │ └── its body is damaged ─┤ three panics
//!                          ▼                          ▼
//!                         gap                     quarantined
//! ```
//!
//! A blob that is listed once more, because its body is damaged, is settled without a fetch when its deliveries are settled
//! meanwhile: what cannot be had then is no gap.
//!
//! A tenant's dense number, its Seq, is given when a blob is spooled or becomes a gap, to a hole, to a retry, and to
//! each part of a restore.
//!
//! # Recovery
//!
//! Recovery is opening the ledger. A group of changes is made durable in this order: segments, the journal of the ids,
//! the commit of the database, removal of segments that no row names.
//!
//! | crash after | on disk | at the next start | duplicates |
//! |---|---|---|---|
//! | a page was listed, not committed | the old watermark | the window is listed again | none: blobs are known by their ids |
//! | a body came in part | a part file | the file is removed, the blob fetched again | none |
//! | a body was appended in part or whole | bytes behind the segment's committed length, or a segment without a row | cut off, removed; the blob is fetched again | none |
//! | segments are durable, not the ids | the same | the same | none |
//! | the ids are durable, not the commit | ids behind the journal's committed length | cut off, so that the blob is not taken for a repetition of itself | none |
//! | the commit | all of it | sinks find it pending | none |
//! | a sink has taken records, not settled | a pending delivery, begun if the sink says so | leased again, marked as begun | those records, unless the sink recognises them; counted as resent |
//! | the last settlement, its segment not removed | a segment without a row | removed | none |
//! | a full disk, at any step | nothing of the group | – it goes on when there is room | none |
//!
//! Leases live in memory only, so that a crash, a dropped future or a panic gives everything back (L5, L7).

mod bodies;
mod clock;
mod dead_letters;
mod dedupe;
mod deliveries;
mod error;
mod faults;
mod feeds;
mod fetches;
mod findings;
mod giving_up;
mod handle;
pub mod ids;
mod inspect;
mod leases;
mod lock;
mod maintain;
mod open;
mod pieces;
mod positions;
mod quarantine;
mod reconcile;
mod restores;
mod room;
mod schema;
mod sinks;
mod spool;
mod statement;
mod status;
mod wake;
mod work;
mod writer;

#[cfg(test)]
mod behaviour;
#[cfg(test)]
mod testing;

pub use bodies::{BROKEN_BODIES, BodyWriter, Finishing};
pub use clock::Clock;
pub use dead_letters::{Retried, RetryRefused};
pub use deliveries::{Lease, PANICS, QUARANTINED};
pub use error::{BodyError, LedgerError, LeftOverSink, OpenError, Unreadable};
pub use fetches::FetchLease;
pub use findings::{Acknowledgement, FindingId, FindingKind, NotAFinding};
pub use giving_up::SPOOL_FULL;
pub use handle::{Answer, Ledger};
pub use inspect::{DeadLetter, Inspector, LetterFilter};
pub use leases::Claim;
pub use maintain::{Maintained, OVERDUE, ROWS_KEPT, SUMS_KEPT};
pub use open::{Recovery, Settings};
pub use pieces::{DAMAGED, Piece};
pub use reconcile::{Finding, HourReport, Reconciliation, SeqReport, SinkSums, Sums};
pub use restores::{BegunRestore, RestoreAsk, RestoreId, RestorePosition, RestoreStatus, RestoreStep};
pub use schema::FORMAT_VERSION;
pub use sinks::{FORGOTTEN, MetSink, SinkSpec, StartFrom};
pub use spool::SpoolRecovery;
pub use statement::{ContentStatement, SeqSpan, Settled, Statement};
pub use status::{FeedStatus, IdleState, SinkDeliveries, SinkStatus, Status, TenantFetches};
pub use work::Work;

// What is told across its border is shared with those who tell it.
pub use schemas::{
    BodyId, CompletedWindow, DeadRecord, Deferral, FeedState, ListedPage, Settlement, Spooled, Want, WorkId,
};
