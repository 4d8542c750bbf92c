//! What the lister tells the ledger: pages, and how far a feed is listed.

use chrono::{DateTime, Utc};

use crate::{FeedKey, ListedBlob, TimeRange};

/// Where a feed's listing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FeedState {
    /// Everything before this was listed or is a recorded hole; `None` before the first window.
    pub watermark: Option<DateTime<Utc>>,
    /// When the last sweep over the whole retained week ended.
    pub swept_at: Option<DateTime<Utc>>,
    /// The earliest time that was ever listed. Sweeps go back to it as long as the API does.
    pub listed_from: Option<DateTime<Utc>>,
    /// The API said that there is no subscription, and what was lost since the watermark is no hole yet.
    pub unsubscribed: bool,
    /// When its subscription was last asked to start, by the API's clock.
    pub started_at: Option<DateTime<Utc>>,
}

/// One page of a listing, to be recorded in one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPage {
    /// Whose page.
    pub feed: FeedKey,
    /// Its blobs; those that the ledger knows already change nothing.
    pub blobs: Vec<ListedBlob>,
    /// Set on the last page of a window only (L1).
    pub completes: Option<CompletedWindow>,
}

/// A window whose last page was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompletedWindow {
    /// The span that was listed whole; holes that lie within it are recovered (L9), but for those of a disabled subscription.
    pub window: TimeRange,
    /// The feed's new watermark. It never moves back: an earlier one is ignored.
    pub watermark: Option<DateTime<Utc>>,
    /// Set when this window was the last of a sweep: its time.
    pub swept_at: Option<DateTime<Utc>>,
}
