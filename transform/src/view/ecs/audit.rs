//! `o365.audit`: the record under its own names, with the types that Elastic's integration gives its fields, so that one
//! index takes the documents of both.
//!
//! - Numbers of enumerations are strings.
//! - `Parameters` and `ExtendedProperties` are objects of names and values, `ModifiedProperties` one of names with `NewValue` and
//!   `OldValue`. Where one of them, or `Data`, is text in the record, it stands under `_raw`.
//! - `ExternalAccess` is a truth value; text for `ExceptionInfo` stands under `Reason`, and a `Sender` of several fields is
//!   called `SenderEntity`.
//!
//! What does not fit into its type ([`super::types`]) is not forced into it, which would make Elasticsearch refuse the whole
//! document: it stands in `mailtrail.rest`, which is text that holds JSON, an object of the fields' names with their values.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use super::types::Type;
use crate::{
    json::{Json, Kind, Text, Writer, scan::scan_value, write::key},
    parameters::write_fields,
    reading::Reading,
    record::{Field, FieldSet, has_repeats},
};

/// Writes the object. Returns what did not fit.
pub(super) fn write(w: &mut Writer<'_>, reading: &Reading<'_>) -> Option<String> {
    let mut audit = Audit { w, rest: Vec::new() };
    let object = audit.w.object(key!("audit"));
    let record = reading.record;
    for (field, value) in record.unused(FieldSet::default()) {
        let fits = match field {
            Field::RecordType
            | Field::UserType
            | Field::Version
            | Field::LogonType
            | Field::InternalLogonType => audit.keyword(field.key(), value),
            Field::Parameters => audit.parameters(reading, value),
            Field::ModifiedProperties => audit.modified(field.key(), value),
            Field::ExternalAccess => audit.truth(field.key(), value),
            Field::OperationCount => audit.typed(Type::Long, field.key(), value),
            Field::OperationProperties | Field::AppAccessContext | Field::Item => {
                audit.typed(Type::Object, field.key(), value)
            }
            // The others hold text, which takes any value that has no fields.
            _ => {
                let plain = !matches!(value.kind(), Kind::Object | Kind::Array);
                let fits = plain || Type::of(field.name()).is_none_or(|kind| kind.takes(value));
                if fits {
                    audit.w.json(field.key(), value);
                }
                fits
            }
        };
        if !fits {
            audit.rest.push((Cow::Borrowed(field.name()), value));
        }
    }
    let others = record.others();
    let mut seen = HashSet::new();
    for (name, value) in others {
        let plain = name.unescape();
        let repeated =
            record.has_repeats() && (Field::named(plain.as_bytes()).is_some() || !seen.insert(plain.clone()));
        let fits = !repeated
            && is_field_name(&plain)
            && match (plain.as_ref(), value.kind()) {
                ("Sender", Kind::Object) if !others.iter().any(|(name, _)| name.equals("SenderEntity")) => {
                    audit.w.json(key!("SenderEntity"), *value);
                    true
                }
                _ => audit.other(&plain, *name, *value),
            };
        if !fits {
            audit.rest.push((plain, *value));
        }
    }
    audit.w.close(object);
    audit.rest()
}

const EXTENDED: &str = key!("ExtendedProperties");

struct Audit<'e, 'w, 'a> {
    w: &'e mut Writer<'w>,
    rest: Vec<(Cow<'a, str>, Json<'a>)>,
}

impl<'a> Audit<'_, '_, 'a> {
    /// A field that the mapping does not know. Whether it could be written.
    fn other(&mut self, plain: &str, name: Text<'a>, value: Json<'a>) -> bool {
        match plain {
            "AzureActiveDirectoryEventType" => self.keyword(key!("AzureActiveDirectoryEventType"), value),
            "ActorYammerUserId" => self.keyword(key!("ActorYammerUserId"), value),
            "YammerNetworkId" => self.keyword(key!("YammerNetworkId"), value),
            "ListBaseType" => self.keyword(key!("ListBaseType"), value),
            "ExtendedProperties" => self.pairs(EXTENDED, value),
            "Data" if value.kind() == Kind::String => self.raw_text(key!("Data"), value),
            // Its fields have types of their own, which nobody has checked.
            "Data" if value.kind() != Kind::Null => false,
            "ExceptionInfo" if value.kind() == Kind::String => {
                let object = self.w.object(key!("ExceptionInfo"));
                self.w.json(key!("Reason"), value);
                self.w.close(object);
                true
            }
            _ => {
                let fits = Type::of(plain).is_none_or(|kind| kind.takes(value));
                if fits {
                    self.w.field(name, value);
                }
                fits
            }
        }
    }

    /// A value as it is. Whether the index takes it.
    fn typed(&mut self, kind: Type, key: &str, value: Json<'a>) -> bool {
        let fits = kind.takes(value);
        if fits {
            self.w.json(key, value);
        }
        fits
    }

    /// A truth value, which some senders write as text. Whether it says all that the text said.
    fn truth(&mut self, key: &str, value: Json<'a>) -> bool {
        match value.bool() {
            Some(truth) if value.kind() == Kind::String => {
                self.w.bool(key, truth);
                Type::Boolean.takes(value)
            }
            _ => self.typed(Type::Boolean, key, value),
        }
    }

    /// A number or truth value as a string.
    fn keyword(&mut self, key: &str, value: Json<'a>) -> bool {
        match value.kind() {
            Kind::Object | Kind::Array => return false,
            Kind::String | Kind::Null => self.w.json(key, value),
            Kind::Number | Kind::Bool => self.w.fragment(key, value.raw()),
        }
        true
    }

    /// Text where an object is expected.
    fn raw_text(&mut self, key: &str, value: Json<'a>) -> bool {
        let object = self.w.object(key);
        self.w.json(key!("_raw"), value);
        self.w.close(object);
        true
    }

    fn parameters(&mut self, reading: &Reading<'a>, value: Json<'a>) -> bool {
        match value.kind() {
            Kind::Array => self.pairs(Field::Parameters.key(), value),
            Kind::String => {
                let object = self.w.object(Field::Parameters.key());
                self.w.json(key!("_raw"), value);
                let pairs: Vec<_> =
                    reading.parameters.iter().filter_map(|(name, value)| Some((name, value?))).collect();
                self.values(&pairs);
                self.w.close(object);
                true
            }
            Kind::Object => {
                let pairs: Vec<_> = value.entries().collect();
                self.object_of(Field::Parameters.key(), &pairs)
            }
            Kind::Number | Kind::Bool | Kind::Null => false,
        }
    }

    /// A list of `{Name, Value}` as an object. Whether it was that and nothing else.
    fn pairs(&mut self, key: &str, value: Json<'a>) -> bool {
        match value.kind() {
            Kind::String => return self.raw_text(key, value),
            Kind::Array if value.items().next().is_none() => return self.empty(key, value),
            Kind::Array => {}
            _ => return false,
        }
        let (mut pairs, mut exact, mut placed) = (Vec::new(), true, false);
        for item in value.items() {
            let (mut name, mut inner) = (None, None);
            for (field, value) in item.entries() {
                match field.raw() {
                    "Name" if name.is_none() => name = value.text(),
                    "Value" if inner.is_none() => inner = Some(value),
                    _ => exact = false,
                }
            }
            match (name, inner) {
                (Some(name), Some(inner))
                    if name.equals("additionalDetails")
                        && key == EXTENDED
                        && inner.kind() == Kind::String =>
                {
                    // The index has fields there.
                    self.rest.push((Cow::Borrowed("ExtendedProperties"), item));
                    placed = true;
                }
                (Some(name), Some(inner)) => pairs.push((name, inner)),
                // A name without a value is a field without one.
                (Some(name), None) => pairs.extend(null().map(|null| (name, null))),
                (None, _) => exact = false,
            }
        }
        exact &= placed || !pairs.is_empty();
        self.object_of(key, &pairs) && exact
    }

    /// A list of nothing, which stands for nothing, whatever the index has there.
    fn empty(&mut self, key: &str, value: Json<'a>) -> bool {
        self.w.json(key, value);
        true
    }

    /// Writes the pairs whose names can be those of fields. Whether those were all.
    fn object_of(&mut self, key: &str, pairs: &[(Text<'a>, Json<'a>)]) -> bool {
        let object = self.w.object(key);
        let good = |name: Text<'_>| is_field_name(&name.unescape());
        let exact = pairs.iter().all(|(name, _)| good(*name));
        if exact {
            self.values(pairs);
        } else {
            let kept: Vec<_> = pairs.iter().copied().filter(|(name, _)| good(*name)).collect();
            self.values(&kept);
        }
        self.w.close(object);
        exact
    }

    /// Values under their names. An object among them stands as text, because the index has text there.
    fn values(&mut self, pairs: &[(Text<'a>, Json<'a>)]) {
        if pairs.iter().any(|(_, value)| has_object(*value)) {
            let quoted: Vec<String> = pairs.iter().map(|(_, value)| flat(*value)).collect();
            let pairs: Vec<_> =
                pairs.iter().zip(&quoted).map(|((name, _), value)| (*name, value.as_str())).collect();
            let repeats = has_repeats(&pairs);
            write_fields(self.w, &pairs, repeats, |value| value);
        } else {
            write_fields(self.w, pairs, has_repeats(pairs), Json::raw);
        }
    }

    /// `ModifiedProperties`: a list of `{Name, NewValue, OldValue}`, or of names alone, by names in which `_` stands for blanks
    /// and dots, as in the integration; where that changed a name, it is there too. Whether all could be written.
    fn modified(&mut self, key: &str, value: Json<'a>) -> bool {
        match value.kind() {
            Kind::String => return self.raw_text(key, value),
            Kind::Array if value.items().next().is_none() => return self.empty(key, value),
            Kind::Array => {}
            _ => return false,
        }
        let mut changes: Vec<(String, Vec<(Text<'a>, Json<'a>)>)> = Vec::new();
        let mut seen = HashSet::new();
        let mut exact = true;
        for item in value.items() {
            let property = item.text().or_else(|| item.get("Name")?.text());
            let Some(property) = property.map(Text::unescape).filter(|name| !name.trim().is_empty()) else {
                exact = false;
                continue;
            };
            let name = property.replace([' ', '.'], "_");
            let own = item.entries().filter(|(field, _)| !field.equals("Name") || name != property).collect();
            exact &= item.kind() == Kind::Object || name == property;
            match seen.insert(name.clone()) {
                true => changes.push((name, own)),
                false => exact = false,
            }
        }
        let object = self.w.object(key);
        for (name, fields) in &changes {
            self.w.raw("\"");
            self.w.escaped(name);
            self.w.raw("\":");
            let change = self.w.object("");
            self.values(fields);
            self.w.close(change);
        }
        self.w.close_or_undo(object);
        exact && !changes.is_empty()
    }

    /// What did not fit, as JSON.
    fn rest(self) -> Option<String> {
        if self.rest.is_empty() {
            return None;
        }
        let mut out = Vec::new();
        let mut w = Writer::new(&mut out);
        let whole = w.object("");
        let mut fields: Vec<(&str, Vec<Json<'_>>)> = Vec::new();
        let mut places = HashMap::new();
        for (name, value) in &self.rest {
            let place = *places.entry(name.as_ref()).or_insert(fields.len());
            match fields.get_mut(place) {
                Some((_, same)) => same.push(*value),
                None => fields.push((name, vec![*value])),
            }
        }
        for (name, same) in fields {
            w.raw("\"");
            w.escaped(name);
            w.raw("\":");
            if let [value] = same[..] {
                w.json("", value);
            } else {
                let list = w.array("");
                for value in same {
                    w.json("", value);
                }
                w.close(list);
            }
        }
        w.close(whole);
        w.finish();
        Some(String::from_utf8_lossy(&out).into_owned())
    }
}

/// What a name without a value holds.
fn null<'a>() -> Option<Json<'a>> {
    scan_value("null").ok()
}

/// Whether Elasticsearch takes a name for that of a field: it cuts names at dots, and no piece may be empty.
fn is_field_name(name: &str) -> bool {
    name.split('.').all(|piece| !piece.trim().is_empty())
}

fn has_object(value: Json<'_>) -> bool {
    value.each().any(|item| matches!(item.kind(), Kind::Object | Kind::Array))
}

/// A value that holds an object as a string of JSON; any other as it is.
fn flat(value: Json<'_>) -> String {
    if !has_object(value) {
        return value.raw().to_owned();
    }
    let mut out = Vec::new();
    let mut w = Writer::new(&mut out);
    w.str("", value.raw());
    w.finish();
    String::from_utf8_lossy(&out).into_owned()
}
