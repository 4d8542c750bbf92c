//! Joins the normaliser to the columns of an archive's Parquet files.

use std::sync::Arc;

use archive::parquet::{Row, Understand};
use schemas::{FeedKey, SinkName};
use transform::{Understood, tags};

use super::delivering::Delivering;

/// Understands records as one sink's configuration says, and as it says later when it changes.
pub(super) struct Understanding {
    deliveries: Arc<Delivering>,
    sink: SinkName,
}

impl Understanding {
    pub(super) fn new(deliveries: Arc<Delivering>, sink: SinkName) -> Self {
        Self { deliveries, sink }
    }
}

impl Understand for Understanding {
    fn tell(&self, feed: FeedKey, record: &[u8], told: &mut dyn FnMut(&Row<'_>)) {
        self.deliveries.understand(&self.sink, feed, record, &mut |said| tell(said, told));
    }
}

fn tell(said: &Understood<'_>, told: &mut dyn FnMut(&Row<'_>)) {
    let number = |number: Option<i64>| number.and_then(|number| i32::try_from(number).ok());
    let tags: Vec<&str> = tags::names(said.facts.tags).collect();
    told(&Row {
        id: said.facts.id,
        time_ms: said.facts.time_ms,
        record_type: number(said.facts.record_type),
        operation: said.facts.operation,
        workload: said.facts.workload,
        user: said.facts.user,
        user_type: number(said.user_type),
        user_key: said.user_key,
        mailbox: said.facts.mailbox,
        client_ip: said.facts.client_ip,
        object: said.object,
        result_status: said.result_status,
        class_uid: said.class_uid.and_then(|uid| i32::try_from(uid).ok()),
        tags: &tags,
    });
}
