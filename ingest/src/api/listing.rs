//! Pages of listings: which blobs there are.
//!
//! One odd entry never costs the rest of the page, nor itself if it can be helped: a blob whose times cannot be read
//! is kept with times that are certain to be late enough.

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use schemas::{ContentId, ContentType, ListedBlob, TimeRange, time::parse_utc};
use serde_json::{Value, value::RawValue};

use super::{
    ActivityApi, Call,
    error::{ApiError, LISTING},
    urls::PageUri,
};
use crate::plan;

/// The largest page that is read: some 30,000 blobs.
const PAGE_BYTES: u64 = 16 << 20;

/// How long the API keeps content (Office 365 Management Activity API reference, `contentExpiration`).
pub const KEPT: TimeDelta = TimeDelta::days(7);

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its blobs.
    pub blobs: Vec<ListedBlob>,
    /// Entries that name no blob.
    pub unusable: usize,
    /// The time of those, as far as it is known: from the first to the last, or the whole window.
    pub nameless: Option<TimeRange>,
    /// The next page; `None` when this is the window's last.
    pub next: Option<PageUri>,
    /// The window that was asked for. Its beginning may be later than what was wanted, if that had grown too old.
    pub window: TimeRange,
    /// The server's time when it answered.
    pub server_time: Option<DateTime<Utc>>,
}

impl ActivityApi {
    /// Lists a window of at most 24 hours: its first page, or a later one.
    ///
    /// # Errors
    ///
    /// Any [`ApiError`] of a call, of reading the page, or of a next page elsewhere.
    pub async fn list(
        &self,
        content_type: ContentType,
        window: TimeRange,
        page: Option<&PageUri>,
    ) -> Result<Page, ApiError> {
        let address = || match page {
            Some(page) => Ok((page.url().clone(), window)),
            None => {
                // Cut when it is sent: it may have waited for its turn.
                let listable = plan::clamp(window, self.clock.now()).window.ok_or(ApiError::WindowTooOld)?;
                let url = self.address.content(content_type, listable);
                Ok((url.ok_or(ApiError::UnreadablePage)?, listable))
            }
        };
        let answer = self.send(Call::List, Method::GET, address).await?;
        let next = self.address.next_page(answer.response.headers());
        let (window, server_time) = (answer.made, answer.server_time);
        let understand =
            |body: &[u8]| read_page(super::without_bom(body), window).ok_or_else(|| super::no_list(body));
        let read = self.read(answer.response, answer.sent, (LISTING, PAGE_BYTES), understand);
        let (blobs, unusable, nameless) = read.await?;
        if unusable > 0 {
            tracing::error!(%content_type, unusable, "a listing names blobs without a usable contentId");
        }
        Ok(Page { blobs, unusable, nameless, next: next?, window, server_time })
    }
}

/// How far beside its window an entry's time is believed: the servers' clocks differ.
const BESIDE: TimeDelta = TimeDelta::hours(1);

/// Reads a page: its blobs, how many entries name none, and of what time those are.
fn read_page(body: &[u8], window: TimeRange) -> Option<(Vec<ListedBlob>, usize, Option<TimeRange>)> {
    let entries: Vec<&RawValue> = serde_json::from_slice(body).ok()?;
    let mut blobs = Vec::new();
    let mut nameless: Option<TimeRange> = None;
    for entry in &entries {
        match read_entry(entry.get(), window) {
            Ok(blob) => blobs.push(blob),
            Err(created) => {
                let span = created.map_or(window, second_of);
                let (start, end) = nameless.map_or((span.start, span.end), |all| (all.start, all.end));
                nameless = Some(TimeRange { start: start.min(span.start), end: end.max(span.end) });
            }
        }
    }
    let unusable = entries.len() - blobs.len();
    Some((blobs, unusable, nameless))
}

fn second_of(time: DateTime<Utc>) -> TimeRange {
    let start = plan::whole_second(time);
    TimeRange { start, end: start + TimeDelta::seconds(1) }
}

/// Reads an entry; of one that names no blob, when it was created, if that can be believed.
fn read_entry(entry: &str, window: TimeRange) -> Result<ListedBlob, Option<DateTime<Utc>>> {
    let entry: Value = serde_json::from_str(entry).map_err(|_| None)?;
    let text = |name: &str| entry.get(name).and_then(Value::as_str);
    let created = text("contentCreated").and_then(parse_utc);
    let Some(content_id) = text("contentId").and_then(|id| ContentId::try_from(id).ok()) else {
        return Err(created.filter(|at| (window.start - BESIDE..window.end + BESIDE).contains(at)));
    };
    let expires = text("contentExpiration").and_then(parse_utc);
    if created.is_none() || expires.is_none() {
        tracing::warn!(
            %content_id,
            created = text("contentCreated"),
            expires = text("contentExpiration"),
            "a listed blob's times cannot be read; it is kept with the window's end and 7 days"
        );
    }
    let created = created.unwrap_or(window.end);
    let expires = expires.filter(|expires| *expires > created).unwrap_or(created + KEPT);
    Ok(ListedBlob { content_id, created, expires })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window() -> TimeRange {
        let end: DateTime<Utc> = "2026-03-02T00:00:00Z".parse().unwrap();
        TimeRange { start: end - TimeDelta::hours(24), end }
    }

    fn read(body: &str) -> Option<(Vec<ListedBlob>, usize)> {
        read_page(body.as_bytes(), window()).map(|(blobs, unusable, _)| (blobs, unusable))
    }

    #[test]
    fn the_time_of_what_names_no_blob_is_its_second_or_the_window() {
        let at = |text: &str| format!(r#"{{"contentCreated":"2026-03-01T{text}"}}"#);
        let nameless = |entries: &[String]| {
            let page = format!("[{}]", entries.join(","));
            read_page(page.as_bytes(), window()).unwrap().2.map(|span| span.to_string())
        };
        assert_eq!(nameless(&[r#"{"contentId":"a"}"#.to_owned()]), None);
        let second = "2026-03-01T11:30:05Z..2026-03-01T11:30:06Z";
        assert_eq!(nameless(&[at("11:30:05.9Z")]).unwrap(), second);
        let both = "2026-03-01T11:30:05Z..2026-03-01T12:00:31Z";
        assert_eq!(nameless(&[at("12:00:30Z"), at("11:30:05Z")]).unwrap(), both);
        for unknown in ["{}", "7", r#"{"contentCreated":"0001-01-01T00:00:00Z"}"#] {
            assert_eq!(
                nameless(&[at("11:30:05Z"), unknown.to_owned()]),
                Some(window().to_string()),
                "{unknown}"
            );
        }
    }

    #[test]
    fn a_page_is_read_with_whatever_else_it_holds() {
        let (blobs, unusable) = read(
            r#"[{"contentType":"Audit.Exchange","contentId":"a$1","contentUri":"http://localhost/x/a$1",
                 "contentCreated":"2026-03-01T10:00:00.123Z","contentExpiration":"2026-03-08T10:00:00.123Z","new":{}}]"#,
        )
        .unwrap();
        assert_eq!(unusable, 0);
        assert_eq!(blobs[0].content_id.as_str(), "a$1");
        assert_eq!(blobs[0].created, "2026-03-01T10:00:00.123Z".parse::<DateTime<Utc>>().unwrap());
        assert_eq!(blobs[0].expires, "2026-03-08T10:00:00.123Z".parse::<DateTime<Utc>>().unwrap());
        assert_eq!(read("[]"), Some((Vec::new(), 0)));
    }

    #[test]
    fn an_odd_entry_is_kept_if_it_has_an_id_and_never_costs_the_others() {
        let (blobs, unusable) = read(
            r#"[{"contentId":"a"}, {"contentId":"b","contentCreated":"soon","contentExpiration":null},
                {"contentId":"c","contentCreated":"2026-03-01T10:00:00","contentExpiration":"0001-01-01T00:00:00"},
                {"contentId":""}, {"contentId":7}, {}, null, "d", {"contentId":"e"}]"#,
        )
        .unwrap();
        let ids: Vec<_> = blobs.iter().map(|blob| blob.content_id.as_str()).collect();
        assert_eq!((ids, unusable), (vec!["a", "b", "c", "e"], 5));
        assert!(blobs.iter().all(|blob| blob.expires == blob.created + KEPT));
        assert_eq!(blobs[0].created, window().end);
    }

    #[test]
    fn what_is_no_list_is_not_an_empty_list() {
        for body in ["", "null", "{}", "[{}", "<html>", r#"{"error":{"code":"AF20022"}}"#] {
            assert_eq!(read(body), None, "{body}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_without_a_panic(body in "[\\[\\]{}\",:a-z0-9 ]{0,80}") {
            let _ = read(&body);
        }
    }
}
