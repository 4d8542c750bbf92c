//! What a record says, for whoever keeps it as columns.

use std::borrow::Cow;

use schemas::RecordFacts;

use crate::{
    RenderOptions,
    ocsf::{class::Shape, exchange::USER_TYPES},
    reading::Reading,
    record::{Field, Record},
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
        user_type: user_type(reading.record),
        user_key: &user_key,
        object: &object,
        result_status: &result_status,
        class_uid: Some(Shape::choose(reading, options).class().names().uid),
    });
}

/// `UserType` stands there as a number or by its name.
fn user_type(record: &Record<'_>) -> Option<i64> {
    let value = record.get(Field::UserType)?;
    value.int().or_else(|| {
        let text = value.text()?;
        let number = USER_TYPES.into_iter().position(|name| text.is(name))?;
        i64::try_from(number).ok()
    })
}
