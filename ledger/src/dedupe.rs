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

/// Whose the ids of a body are that were seen before: by the number of the key among the different ones, in rising order.
pub(crate) type FirstOwners = Vec<(usize, WorkId)>;

/// Brings keys into the order in which [`Writer::first_owners`] wants them: the same ones together, by position, and
/// those of an hour together.
pub(crate) fn sort(keys: &mut Keys) {
    keys.sort_unstable_by_key(|(key, position)| (key.hour, key.digest, *position));
}

/// The positions of the duplicates in a body, in rising order. `own` are the works whose ids are the body's own: it is never
/// decided against itself.
pub(crate) fn duplicates(own: &[WorkId], keys: &Keys, first: &FirstOwners) -> Vec<u32> {
    let mut duplicates = Vec::new();
    for (same, owner) in owned(keys, first) {
        let elsewhere = owner.is_some_and(|owner| !own.contains(&owner));
        let kept = usize::from(!elsewhere);
        duplicates.extend(same[kept..].iter().map(|(_, position)| *position));
    }
    duplicates.sort_unstable();
    duplicates
}

/// The different keys with the records that have them, and whose each was first.
fn owned<'a>(
    keys: &'a Keys,
    first: &'a FirstOwners,
) -> impl Iterator<Item = (&'a [(RecordKey, u32)], Option<WorkId>)> {
    let mut first = first.iter().peekable();
    keys.chunk_by(|a, b| a.0 == b.0).enumerate().map(move |(number, same)| {
        (same, first.next_if(|(known, _)| *known == number).map(|(_, owner)| *owner))
    })
}

impl Writer {
    /// Whose the ids of a body are that were seen before.
    pub(crate) fn first_owners(&mut self, feed: i64, keys: &Keys, today: Day) -> Result<FirstOwners> {
        let mut first = FirstOwners::new();
        for (number, same) in keys.chunk_by(|a, b| a.0 == b.0).enumerate() {
            let owner = self.ids.owner_of(FeedNumber(feed), &same[0].0, today)?;
            first.extend(owner.map(|owner| (number, WorkId(owner.0))));
        }
        Ok(first)
    }

    /// Notes the ids of a body. They count for the bodies that follow in the same group, and for good after its commit. Those
    /// that were seen before stay whose they were, and count from today on.
    pub(crate) fn stage_ids(
        &mut self,
        feed: i64,
        work: WorkId,
        keys: &Keys,
        first: &FirstOwners,
        today: Day,
    ) {
        for (same, owner) in owned(keys, first) {
            self.ids.stage(FeedNumber(feed), &same[0].0, Owner(owner.unwrap_or(work).0), today);
        }
    }
}
