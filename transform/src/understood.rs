//! What a record says, for whoever keeps it as columns.

use std::borrow::Cow;

use schemas::RecordFacts;

use crate::{
    RenderOptions,
    ocsf::{class::Shape, exchange::user_type},
    reading::Reading,
    record::Field,
    tags,
};

/// What a record says. Texts are empty when it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Understood<'a> {
    /// What sinks know of records.
    pub facts: RecordFacts<'a>,
    /// `UserType`, as a number.
    pub user_type: Option<i64>,
    /// `UserKey`.
    pub user_key: &'a str,
    /// `ObjectId`.
    pub object: &'a str,
    /// `ResultStatus`.
    pub result_status: &'a str,
    /// The class of its event in OCSF; `None` when it cannot be understood at all.
    pub class_uid: Option<u32>,
}

pub(crate) fn tell<'a>(
    reading: &Reading<'a>,
    options: &'a RenderOptions,
    told: &mut dyn FnMut(&Understood<'_>),
) {
    let text = |field| reading.record.unescaped(field);
    let (facts, tags) = (reading.facts(), tags::of_record(reading, options));
    let [user_key, object, result_status]: [Cow<'_, str>; 3] =
        [Field::UserKey, Field::ObjectId, Field::ResultStatus].map(text);
    told(&Understood {
        facts: facts.borrow(tags),
        user_type: reading.record.get(Field::UserType).and_then(user_type),
        user_key: &user_key,
        object: &object,
        result_status: &result_status,
        class_uid: Some(Shape::choose(reading, options).class().names().uid),
    });
}
