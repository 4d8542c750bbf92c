//! What tenants, blobs and records *are*: the vocabulary that every other crate shares.
//!
//! Pure data and pure functions: no I/O, no clock, no async runtime.
//!
//! | module | what it holds |
//! |---|---|
//! | [`tenant`] | [`TenantId`], [`LedgerId`]: who is collected, and by which installation |
//! | [`content_type`] | [`ContentType`]: the five content types of the Management Activity API |
//! | [`blob`] | [`FeedKey`], [`ContentId`], [`BlobKey`], [`ListedBlob`], [`TimeRange`], [`Seq`], [`Spooled`] |
//! | [`buffer`] | [`Buffer`]: memory for pieces of blobs, used again and again |
//! | [`bytes`] | finding the end of a JSON string |
//! | [`split`] | [`Splitter`]: cuts a blob body into records, byte for byte, as it arrives |
//! | [`ledger_failure`] | [`LedgerFailure`]: the ledger did not do what it was asked for |
//! | [`listing`] | [`ListedPage`], [`FeedState`]: what the lister tells the ledger |
//! | [`loss`] | [`GapReason`], [`HoleReason`]: what cannot be had any more, and why |
//! | [`record_key`] | [`RecordKey`]: what makes two records the same record |
//! | [`record_type`] | names of the record types |
//! | [`rendered`] | [`Rendered`]: records in the shape that a sink sends, and what it may know of them |
//! | [`sink_name`] | [`SinkName`]: the name of a destination in the configuration |
//! | [`time`] | how the API and its records write times |
//! | [`work`] | [`WorkId`], [`Want`], [`Settlement`], [`Deferral`]: works, and what a sink tells the ledger of them |

pub mod blob;
pub mod buffer;
pub mod bytes;
pub mod content_type;
pub mod ledger_failure;
pub mod listing;
pub mod loss;
pub mod record_key;
pub mod record_type;
pub mod rendered;
pub mod sink_name;
pub mod split;
pub mod tenant;
pub mod time;
pub mod work;

pub use blob::{BlobKey, ContentId, FeedKey, ListedBlob, Seq, Spooled, TimeRange};
pub use buffer::{Buffer, make_room};
pub use content_type::ContentType;
pub use ledger_failure::LedgerFailure;
pub use listing::{CompletedWindow, FeedState, ListedPage};
pub use loss::{GapReason, HoleReason};
pub use record_key::RecordKey;
pub use rendered::{RecordFacts, Rendered, RenderedRecord, Unrenderable};
pub use sink_name::SinkName;
pub use split::{SplitError, Splitter};
pub use tenant::{LedgerId, TenantId};
pub use work::{BadBodyId, BodyId, DeadRecord, Deferral, Settlement, Want, WorkId};
