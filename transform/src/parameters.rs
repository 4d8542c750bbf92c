//! `Parameters` and `OperationProperties`: what a cmdlet or an operation was called with.
//!
//! On the wire they are a list of `{Name, Value}`; an object, from other collectors; a PowerShell command line; JSON in a
//! string; or strings of the form `@{Name=…; Value=…}`. All become pairs in the order in which they came. The value may
//! be missing, and a name may come twice.

use std::borrow::Cow;

use crate::{
    json::{
        Json, Kind, Text, Writer, has_controls,
        repair::{Repair, repair},
        same_word,
        scan::scan_value,
    },
    names::Seen,
    powershell,
    record::{Field, Record},
};

/// A name with its value, which may be missing.
type Pair<'a> = (Text<'a>, Option<Json<'a>>);

/// The pairs, and which of the two fields they say everything of.
#[derive(Debug, Default)]
pub(crate) struct Parameters<'a> {
    pairs: Cow<'a, [Pair<'a>]>,
    /// Whether the pairs hold all that `Parameters` held.
    pub(crate) parameters_exact: bool,
    /// Whether the pairs hold all that `OperationProperties` held.
    pub(crate) properties_exact: bool,
    /// `Identity`, what a cmdlet was about: several rules ask for it.
    pub(crate) identity: Option<Text<'a>>,
    repeats: bool,
    /// Most names that are asked for are not there, and this tells it at once.
    seen: Seen,
    /// Whether a name may have escapes.
    escaped: bool,
}

/// The two fields as JSON where they came as text of another kind. It must outlive the pairs.
#[derive(Debug, Default)]
pub(crate) struct Rewritten {
    parameters: Option<String>,
    properties: Option<String>,
}

impl Rewritten {
    pub(crate) fn new(record: &Record<'_>) -> Self {
        let of = |field| {
            // A list that holds pairs is no list of texts.
            let pairs = record.pairs(field).is_some_and(|list| !list.pairs.is_empty());
            if pairs { None } else { record.get(field).and_then(rewrite) }
        };
        Self { parameters: of(Field::Parameters), properties: of(Field::OperationProperties) }
    }
}

/// JSON for a value that is text, or a list of texts.
fn rewrite(value: Json<'_>) -> Option<String> {
    match value.kind() {
        Kind::String => {
            let text = value.text()?.unescape();
            let trimmed = text.trim();
            if trimmed.starts_with(['[', '{']) {
                // JSON in a string is checked when it is read. Its values are copied as they are into an event that is one line,
                // so it is put on one, too.
                let controls = has_controls(trimmed.as_bytes());
                Some(if controls { repair(trimmed, Repair::Everything) } else { trimmed.to_owned() })
            } else {
                powershell::to_json(trimmed)
            }
        }
        Kind::Array => {
            let first = value.items().next()?.text()?.unescape();
            first.trim_start().starts_with("@{").then(|| {
                let pairs: Vec<String> = value
                    .items()
                    .filter_map(|item| powershell::to_json(item.text()?.unescape().trim()))
                    .collect();
                format!("[{}]", pairs.join(","))
            })
        }
        _ => None,
    }
}

impl<'a> Parameters<'a> {
    pub(crate) fn read(record: &'a Record<'a>, rewritten: &'a Rewritten) -> Self {
        let mut all = Self::default();
        all.parameters_exact = all.add(record, Field::Parameters, rewritten.parameters.as_deref());
        all.properties_exact = all.add(record, Field::OperationProperties, rewritten.properties.as_deref());
        if all.pairs.is_empty() {
            return all;
        }
        all.repeats = all.seen.repeats(&all.pairs, all.escaped);
        all.identity = all.text("Identity");
        all
    }

    /// Adds what one field holds; whether that was all of it.
    fn add(&mut self, record: &'a Record<'a>, field: Field, rewritten: Option<&'a str>) -> bool {
        if let Some(text) = rewritten {
            // The text stays in the event beside the pairs, so whatever of it cannot be read is not lost.
            if let Ok(value) = scan_value(text) {
                self.escaped = true;
                self.add_value(value);
            }
            return false;
        }
        match (record.pairs(field), record.get(field)) {
            (Some(list), _) if self.pairs.is_empty() => {
                self.escaped |= list.escaped_name;
                self.pairs = Cow::Borrowed(&list.pairs);
                !list.inexact && !list.pairs.is_empty()
            }
            (Some(list), _) => {
                self.escaped |= list.escaped_name;
                self.pairs.to_mut().extend_from_slice(&list.pairs);
                !list.inexact && !list.pairs.is_empty()
            }
            (None, Some(value)) => {
                self.escaped = true;
                self.add_value(value)
            }
            (None, None) => false,
        }
    }

    /// Adds the pairs of a value that is no list on the record's top level; whether they hold all of it.
    fn add_value(&mut self, value: Json<'a>) -> bool {
        if value.kind() == Kind::Array {
            let mut exact = true;
            for item in value.items() {
                exact &= self.add_value(item);
            }
            return exact;
        }
        let (name, pair) = (value.get("Name").and_then(Json::text), value.get("Value"));
        let fields = value.entries().count();
        match name {
            // A pair, or an object of names and values that has a parameter called `Name`.
            Some(name) if fields == 1 + usize::from(pair.is_some()) => self.pairs.to_mut().push((name, pair)),
            _ => self.pairs.to_mut().extend(value.entries().map(|(name, value)| (name, Some(value)))),
        }
        fields > 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Text<'a>, Option<Json<'a>>)> + '_ {
        self.pairs.iter().copied()
    }

    /// The value of a parameter, by its name in any case, as PowerShell has it.
    #[inline]
    pub(crate) fn get(&self, name: &str) -> Option<Json<'a>> {
        if self.escaped || self.seen.may_have(name.as_bytes()) { self.find(name) } else { None }
    }

    #[inline(never)]
    fn find(&self, name: &str) -> Option<Json<'a>> {
        if self.escaped {
            return self.pairs.iter().find(|pair| pair.0.is(name)).and_then(|pair| pair.1);
        }
        // Nearly all names differ in their lengths already.
        let quoted = name.len() + 2;
        let of_name = |pair: &&Pair<'a>| pair.0.json().len() == quoted && same_word(pair.0.bytes(), name);
        self.pairs.iter().find(of_name).and_then(|pair| pair.1)
    }

    /// The value of a parameter when it is a text that is not empty.
    #[inline]
    pub(crate) fn text(&self, name: &str) -> Option<Text<'a>> {
        self.get(name)?.text().filter(|text| !text.is_empty())
    }

    /// Whether a switch is set or cleared: `True` and `False`, or `$true` and `$false` as command lines have them.
    pub(crate) fn truth(&self, name: &str) -> Option<bool> {
        let value = self.get(name)?;
        let on_command_line = || match value.text()? {
            text if text.is("$true") => Some(true),
            text if text.is("$false") => Some(false),
            _ => None,
        };
        value.bool().or_else(on_command_line)
    }

    /// Whether a switch is set.
    pub(crate) fn is_true(&self, name: &str) -> bool {
        self.truth(name) == Some(true)
    }

    /// Whether a switch is cleared.
    pub(crate) fn is_false(&self, name: &str) -> bool {
        self.truth(name) == Some(false)
    }

    /// Writes the pairs as fields. What comes twice becomes a list, and what has no value is null.
    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        write_fields(w, &self.pairs, self.repeats, |value| value.map_or("null", Json::raw));
    }
}

/// Writes fields; the values of a name that comes more than once become a list under it.
pub(crate) fn write_fields<'a, V: Copy>(
    w: &mut Writer<'_>,
    fields: &[(Text<'a>, V)],
    repeats: bool,
    json: impl Fn(V) -> &'a str,
) {
    if !repeats {
        for (name, value) in fields {
            w.name(*name);
            w.raw(json(*value));
            w.raw(",");
        }
        return;
    }
    let mut groups: Vec<(Text<'a>, Vec<V>)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for (name, value) in fields {
        let place = *places.entry(name.unescape()).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, values)) => values.push(*value),
            None => groups.push((*name, vec![*value])),
        }
    }
    for (name, values) in groups {
        w.name(name);
        if let [value] = values[..] {
            w.raw(json(value));
            w.raw(",");
        } else {
            let list = w.array("");
            for value in values {
                w.raw(json(value));
                w.raw(",");
            }
            w.close(list);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(fields: &str) -> (String, bool, bool) {
        let record_text = format!("{{{fields}}}");
        let record = Record::read(&record_text).unwrap();
        let rewritten = Rewritten::new(&record);
        let parameters = Parameters::read(&record, &rewritten);
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        let object = writer.object("");
        parameters.write(&mut writer);
        writer.close(object);
        writer.finish();
        (String::from_utf8(out).unwrap(), parameters.parameters_exact, parameters.properties_exact)
    }

    #[test]
    fn each_form_becomes_pairs() {
        for (fields, expected, exact) in [
            (
                r#""Parameters":[{"Name":"A","Value":"1"},{"Name":"B","Value":""}]"#,
                r#"{"A":"1","B":""}"#,
                true,
            ),
            (
                r#""Parameters":[{"Value":["x",2],"Name":"A"},{"Name":"B"}]"#,
                r#"{"A":["x",2],"B":null}"#,
                true,
            ),
            (r#""Parameters":[{"Name":"A","Value":1,"More":2}]"#, r#"{"A":1}"#, false),
            (r#""Parameters":[{"Value":1}]"#, "{}", false),
            (r#""Parameters":[1,"x",null]"#, "{}", false),
            (r#""Parameters":{"Name":"A","Value":"1"}"#, r#"{"A":"1"}"#, true),
            (r#""Parameters":{"Identity":"x","Name":"y"}"#, r#"{"Identity":"x","Name":"y"}"#, true),
            (r#""Parameters":null"#, "{}", false),
            (r#""Parameters":[]"#, "{}", false),
            (r#""Parameters":"""#, "{}", false),
            (
                r#""Parameters":"-Identity \"x y\" -QuarantineTypes (\"Bulk\",\"Spam\") -Force""#,
                r#"{"Identity":"x y","QuarantineTypes":["Bulk","Spam"],"Force":"True"}"#,
                false,
            ),
            (r#""Parameters":"[{\"Name\":\"A\",\"Value\":\"1\"}]""#, r#"{"A":"1"}"#, false),
            (
                r#""Parameters":"[\r\n  {\"Name\":\"A\",\"Value\":[\n1,\t\"x\ty\"\n]}\n]""#,
                r#"{"A":[1,"x\ty"]}"#,
                false,
            ),
            (r#""Parameters":"[{\"Name\":\"A\",\"Value\":1\n2}]""#, "{}", false),
            (r#""Parameters":"[{\"Name\":\"A\"""#, "{}", false),
            (
                r#""Parameters":["@{Name=A; Value=x; y}","@{Name=B; Value=}"]"#,
                r#"{"A":"x; y","B":""}"#,
                false,
            ),
        ] {
            let (written, parameters_exact, _) = data(fields);
            assert_eq!((written.as_str(), parameters_exact), (expected, exact), "{fields}");
        }
    }

    #[test]
    fn names_that_come_twice_become_lists() {
        let (written, parameters, properties) = data(
            r#""Parameters":[{"Name":"A","Value":"1"},{"Name":"B","Value":2},{"Name":"\u0041","Value":null}],"OperationProperties":[{"Name":"A","Value":"3"}]"#,
        );
        assert_eq!(written, r#"{"A":["1",null,"3"],"B":2}"#);
        assert!(parameters && properties);
    }

    #[test]
    fn values_are_found_in_any_case() {
        let text =
            r#"{"Parameters":[{"Name":"deletemessage","Value":"True"},{"Name":"A","Value":"$false"}]}"#;
        let record = Record::read(text).unwrap();
        let rewritten = Rewritten::new(&record);
        let parameters = Parameters::read(&record, &rewritten);
        assert!(parameters.is_true("DeleteMessage") && !parameters.is_false("DeleteMessage"));
        assert!(parameters.is_false("a") && !parameters.is_true("a"));
        assert!(!parameters.is_true("B") && !parameters.is_false("B"));
    }
}
