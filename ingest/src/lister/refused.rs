//! Times that the service refuses to list again and again, although they should not be too old.
//!
//! Such a time must not keep what is behind it from being listed. Where the service begins to list is sought; what is before
//! that is a hole.

use chrono::{DateTime, TimeDelta, Utc};
use schemas::TimeRange;

use super::{Leg, Lister, Stop};
use crate::{
    api::{AfCode, ApiError, Refusal},
    feed_ledger::FeedState,
    plan,
};

/// How precisely the beginning of what is listed is found, and how far behind it listing goes on.
const STEP: TimeDelta = TimeDelta::minutes(5);

/// Whether the service refused the times that it was asked for. A shorter window would be no help.
pub(super) fn is_of_times(error: &ApiError) -> bool {
    let ApiError::Refused(Refusal { code: Some(code), .. }) = error else { return false };
    matches!(code, AfCode::InvalidTimeRange | AfCode::TimeRangeTooWide)
}

impl Lister {
    /// Where listing can go on when the service refuses times from `refused` on: a little behind where it begins to list.
    ///
    /// # Errors
    ///
    /// With `error` when nothing up to a day ago is listed: that is no matter of age, and there is nothing to go on with.
    pub(super) async fn behind_refused(
        &self,
        mut refused: DateTime<Utc>,
        leg: Leg,
        error: ApiError,
    ) -> Result<DateTime<Utc>, ApiError> {
        let latest = leg.span.end.min(plan::whole_second(self.clock.now()) - plan::LONGEST_WINDOW);
        let mut step = STEP;
        let mut listable = None;
        loop {
            let next = match listable {
                None => refused + step,
                // Where it begins moves on with the time.
                Some(listable) if listable - refused <= STEP => return Ok(leg.span.end.min(listable + STEP)),
                Some(listable) => refused + (listable - refused) / 2,
            };
            let Some(window) = plan::next_window(next, leg.span.end, 0).filter(|_| next < latest) else {
                return Err(error);
            };
            match self.page(window, None).await {
                Ok(_) => listable = Some(next),
                Err(again) if is_of_times(&again) => {
                    refused = next;
                    step = step * 2;
                }
                Err(other) => return Err(other),
            }
        }
    }

    /// Goes on behind what is refused. What of it nobody listed before is a hole, recorded before anything behind it; a sweep
    /// that can list it after all takes it back.
    pub(super) async fn skip_refused(
        &self,
        span: TimeRange,
        leg: Leg,
        state: &mut FeedState,
    ) -> Result<(), Stop> {
        tracing::warn!(tenant = %self.tenant.name, content_type = %self.feed.content_type, %span, "the service refuses to list this time; what is behind it is listed");
        // A new feed was to begin here.
        state.watermark = state.watermark.or(leg.moves_watermark.then_some(span.start));
        self.skip_too_old(span, leg, state).await
    }
}
