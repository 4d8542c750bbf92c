//! Which records of a body are duplicates. The decision is made once, when the body is spooled, and kept in its row.

use schemas::RecordKey;

use crate::{
    WorkId,
    error::Result,
    ids::{Day, FeedNumber, Owner},
    writer::Writer,
};

/// What is known of the ids of a body: the key and the position of each record that has one. 24 bytes a record.
pub(crate) type Keys = Vec<(RecordKey, u32)>;

/// Brings keys into the order in which [`Writer::find_duplicates`] wants them: the same ones together, by position, and
/// those of an hour together.
pub(crate) fn sort(keys: &mut Keys) {
    keys.sort_unstable_by_key(|(key, position)| (key.hour, key.digest, *position));
}

impl Writer {
    /// The positions of the duplicates in a body, in rising order. `own` are the works whose ids are the body's own: it
    /// is never decided against itself.
    pub(crate) fn find_duplicates(
        &mut self,
        feed: i64,
        own: &[WorkId],
        keys: &Keys,
        today: Day,
    ) -> Result<Vec<u32>> {
        let mut duplicates = Vec::new();
        for same in keys.chunk_by(|a, b| a.0 == b.0) {
            let owner = self.ids.owner_of(FeedNumber(feed), &same[0].0, today)?;
            let elsewhere = owner.is_some_and(|owner| !own.contains(&WorkId(owner.0)));
            let kept = usize::from(!elsewhere);
            duplicates.extend(same[kept..].iter().map(|(_, position)| *position));
        }
        duplicates.sort_unstable();
        Ok(duplicates)
    }

    /// Notes the ids of a body. They count for the bodies that follow in the same group, and for good after its commit.
    pub(crate) fn stage_ids(&mut self, feed: i64, owner: WorkId, keys: &Keys, today: Day) {
        for same in keys.chunk_by(|a, b| a.0 == b.0) {
            self.ids.stage(FeedNumber(feed), &same[0].0, Owner(owner.0), today);
        }
    }
}
