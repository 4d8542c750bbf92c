//! Listing: pages, watermarks and holes.

use chrono::{DateTime, Utc};
use rusqlite::params;
use schemas::{FeedKey, FeedState, HoleReason, ListedPage, TimeRange};

use crate::{
    clock::{hour, micros, time},
    error::Result,
    handle::{Answer, Ledger},
    writer::Writer,
};

/// A feed's numbers in the database.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FeedRow {
    pub(crate) feed: i64,
    pub(crate) tenant: i64,
}

impl Ledger {
    /// Where the feed's listing stands.
    pub fn feed_state(&self, feed: FeedKey) -> Answer<FeedState> {
        self.look(move |writer| writer.feed_state(feed))
    }

    /// Records a page and, with its last one, the window, in one commit (L1). Gives how many blobs were new.
    pub fn record_page(&self, page: ListedPage) -> Answer<usize> {
        self.change(move |writer| writer.record_page(&page))
    }

    /// Takes note that the API says that there is no subscription.
    pub fn unsubscribed(&self, feed: FeedKey) -> Answer<()> {
        self.change(move |writer| writer.set_unsubscribed(feed, true))
    }

    /// Takes note that the subscription is about to be asked to start.
    pub fn starting(&self, feed: FeedKey, at: DateTime<Utc>) -> Answer<()> {
        self.change(move |writer| {
            let row = writer.feed_row(feed)?;
            writer.exec("UPDATE feed SET started_at = ?2 WHERE id = ?1", (row.feed, micros(at)))?;
            Ok(())
        })
    }

    /// Takes note that there is one again, and records what was lost meanwhile as a hole, in one commit (L9).
    pub fn subscribed_again(&self, feed: FeedKey, lost: Option<TimeRange>) -> Answer<()> {
        self.change(move |writer| {
            if let Some(span) = lost {
                writer.record_hole(feed, span, HoleReason::SubscriptionDisabled)?;
            }
            writer.set_unsubscribed(feed, false)
        })
    }

    /// Records that a listing of this span named content without an id, as far as that is not known of it. The watermark
    /// stays. Gives whether there is a new hole.
    ///
    /// What is `timeless` is somewhere in a window, and the windows of the passes that list it again adjoin: their hole
    /// grows until somebody acknowledges it.
    pub fn record_nameless(&self, feed: FeedKey, span: TimeRange, timeless: bool) -> Answer<bool> {
        self.change(move |writer| writer.record_nameless(feed, span, timeless))
    }

    /// Records a hole and moves the watermark to its end, in one commit (L9). An empty one only moves the watermark.
    pub fn record_hole(&self, feed: FeedKey, span: TimeRange, reason: HoleReason) -> Answer<()> {
        self.change(move |writer| writer.record_hole(feed, span, reason))
    }
}

impl Writer {
    fn feed_state(&self, feed: FeedKey) -> Result<FeedState> {
        let sql = "SELECT watermark, swept_at, listed_from, unsubscribed, started_at FROM feed \
                   JOIN tenant ON tenant.id = feed.tenant WHERE guid = ?1 AND content_type = ?2";
        let state = self.first(sql, (feed.tenant.to_string(), feed.content_type.as_str()), |row| {
            Ok(FeedState {
                watermark: row.get::<_, Option<i64>>(0)?.map(time),
                swept_at: row.get::<_, Option<i64>>(1)?.map(time),
                listed_from: row.get::<_, Option<i64>>(2)?.map(time),
                unsubscribed: row.get(3)?,
                started_at: row.get::<_, Option<i64>>(4)?.map(time),
            })
        })?;
        Ok(state.unwrap_or_default())
    }

    /// The numbers of a feed, which is made known if it is not.
    pub(crate) fn feed_row(&self, feed: FeedKey) -> Result<FeedRow> {
        let guid = feed.tenant.to_string();
        let find = "SELECT feed.id, tenant FROM feed JOIN tenant ON tenant.id = feed.tenant \
                    WHERE guid = ?1 AND content_type = ?2";
        let read = |row: &rusqlite::Row<'_>| Ok(FeedRow { feed: row.get(0)?, tenant: row.get(1)? });
        let key = (&guid, feed.content_type.as_str());
        if let Some(found) = self.first(find, key, read)? {
            return Ok(found);
        }
        self.exec("INSERT INTO tenant (guid) VALUES (?1) ON CONFLICT DO NOTHING", [&guid])?;
        let tenant = self.number("SELECT id FROM tenant WHERE guid = ?1", [&guid])?;
        let sql = "INSERT INTO feed (tenant, content_type) VALUES (?1, ?2) RETURNING id";
        let feed = self.number(sql, (tenant, feed.content_type.as_str()))?;
        Ok(FeedRow { feed, tenant })
    }

    fn record_page(&mut self, page: &ListedPage) -> Result<usize> {
        let row = self.feed_row(page.feed)?;
        let now = self.now_micros();
        // Rows of blobs that expired before this were folded into sums: a listing that still named one would bring it
        // back to life.
        let folded = self.meta("folded_through")?;
        let mut new = 0;
        let mut forgotten = 0;
        for blob in &page.blobs {
            let (created, expires) = (micros(blob.created), micros(blob.expires));
            if expires < folded {
                forgotten += 1;
                continue;
            }
            let sql = "INSERT INTO blob (tenant, feed, kind, content_id, created, expires, listed_at, state) \
                       VALUES (?1, ?2, 'blob', ?3, ?4, ?5, ?6, 'listed') ON CONFLICT DO NOTHING";
            let id = blob.content_id.as_str();
            if self.exec(sql, params![row.tenant, row.feed, id, created, expires, now])? == 1 {
                new += 1;
                let sql = "INSERT INTO hour (feed, hour, listed) VALUES (?1, ?2, 1) \
                           ON CONFLICT (feed, hour) DO UPDATE SET listed = listed + 1";
                self.exec(sql, (row.feed, hour(created)))?;
            }
        }
        if forgotten > 0 {
            tracing::warn!(feed = %page.feed, blobs = forgotten, "a listing names blobs that expired days ago; they are passed over");
        }
        if let Some(done) = &page.completes {
            let watermark = done.watermark.map(micros);
            let sql = "UPDATE feed SET watermark = max(coalesce(watermark, ?2), ?2) WHERE id = ?1";
            if let Some(watermark) = watermark {
                self.exec(sql, (row.feed, watermark))?;
            }
            if !done.window.is_empty() {
                let sql = "UPDATE feed SET listed_from = min(coalesce(listed_from, ?2), ?2) WHERE id = ?1";
                self.exec(sql, (row.feed, micros(done.window.start)))?;
            }
            if let Some(swept_at) = done.swept_at {
                self.exec("UPDATE feed SET swept_at = ?2 WHERE id = ?1", (row.feed, micros(swept_at)))?;
            }
            self.fill_holes(row.feed, done.window)?;
        }
        self.after.wake_fetches |= new > 0;
        Ok(new)
    }

    /// Takes a span that was listed whole off the feed's holes, at either end of what is left of them. A sweep lists
    /// windows in rising order, so that it fills a hole of any length. Only what nobody listed in time can be made up for:
    /// what a disabled subscription did not keep, or what has no id, no listing brings back.
    fn fill_holes(&mut self, feed: i64, window: TimeRange) -> Result<()> {
        let (start, end) = (micros(window.start), micros(window.end));
        let too_old = HoleReason::TooOld.as_str();
        let sql = "UPDATE hole SET left_from = ?3 \
                   WHERE feed = ?1 AND recovered_at IS NULL AND left_from >= ?2 AND left_from < ?3 AND reason = ?4";
        self.exec(sql, (feed, start, end, too_old))?;
        let sql = "UPDATE hole SET left_to = ?2 \
                   WHERE feed = ?1 AND recovered_at IS NULL AND left_to <= ?3 AND left_to > ?2 AND reason = ?4";
        self.exec(sql, (feed, start, end, too_old))?;
        let sql = "UPDATE hole SET recovered_at = ?2 \
                   WHERE feed = ?1 AND recovered_at IS NULL AND left_from >= left_to";
        self.exec(sql, (feed, self.now_micros()))?;
        Ok(())
    }

    fn set_unsubscribed(&mut self, feed: FeedKey, unsubscribed: bool) -> Result<()> {
        let row = self.feed_row(feed)?;
        self.exec("UPDATE feed SET unsubscribed = ?2 WHERE id = ?1", (row.feed, unsubscribed))?;
        Ok(())
    }

    fn record_nameless(&mut self, feed: FeedKey, span: TimeRange, timeless: bool) -> Result<bool> {
        let row = self.feed_row(feed)?;
        let reason = HoleReason::NamesNoBlob;
        // Every pass lists it again, acknowledged or not.
        let sql =
            "SELECT starts, ends FROM hole WHERE feed = ?1 AND reason = ?2 AND starts < ?4 AND ends > ?3";
        let (start, end) = (micros(span.start), micros(span.end));
        let known = self.all(sql, (row.feed, reason.as_str(), start, end), |row| {
            Ok(TimeRange { start: time(row.get(0)?), end: time(row.get(1)?) })
        })?;
        let mut is_new = false;
        for part in span.without(&known) {
            if !timeless || !self.grow_hole(row, part, reason)? {
                self.add_hole(row, part, reason)?;
                is_new = true;
            }
        }
        Ok(is_new)
    }

    /// Adds a span to a hole that it adjoins and that nobody has acknowledged. Gives whether there is one.
    fn grow_hole(&mut self, row: FeedRow, part: TimeRange, reason: HoleReason) -> Result<bool> {
        let sql = "UPDATE hole SET starts = min(starts, ?3), left_from = min(left_from, ?3), ends = max(ends, ?4), \
                   left_to = max(left_to, ?4) WHERE id = (SELECT id FROM hole WHERE feed = ?1 AND reason = ?2 \
                   AND (ends = ?3 OR starts = ?4) AND recovered_at IS NULL \
                   AND NOT EXISTS (SELECT 1 FROM acknowledgement WHERE finding = 'hole-' || hole.id) LIMIT 1)";
        let (start, end) = (micros(part.start), micros(part.end));
        Ok(self.exec(sql, (row.feed, reason.as_str(), start, end))? > 0)
    }

    fn record_hole(&mut self, feed: FeedKey, span: TimeRange, reason: HoleReason) -> Result<()> {
        let row = self.feed_row(feed)?;
        if !span.is_empty() {
            self.add_hole(row, span, reason)?;
        }
        let sql = "UPDATE feed SET watermark = max(coalesce(watermark, ?2), ?2) WHERE id = ?1";
        self.exec(sql, (row.feed, micros(span.end)))?;
        Ok(())
    }

    fn add_hole(&mut self, row: FeedRow, span: TimeRange, reason: HoleReason) -> Result<()> {
        let seq = self.take_seq(row.tenant)?;
        let sql = "INSERT INTO hole (feed, tenant, seq, starts, ends, left_from, left_to, reason, recorded_at) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?4, ?5, ?6, ?7)";
        let (start, end) = (micros(span.start), micros(span.end));
        self.exec(sql, params![row.feed, row.tenant, seq, start, end, reason.as_str(), self.now_micros()])?;
        Ok(())
    }
}
