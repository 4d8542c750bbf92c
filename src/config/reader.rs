//! Reads a TOML document section by section, and collects everything that is wrong with it.
//!
//! A section's keys are declared by asking for them: whatever is in the file and was never asked for is an unknown
//! key. So there is no second list of keys that could disagree with the code, and a problem always has the line, the
//! full path of the key, and what would be right.

use std::{cell::RefCell, fmt};

use entra::SecretSource;
use toml::de::{DeTable, DeValue};

use super::value::{FromToml, Keyword, Misfit};

/// One thing that is wrong in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The line, from 1; `None` when it concerns the file as a whole.
    pub(crate) line: Option<usize>,
    /// What is wrong and what would be right.
    pub(crate) message: String,
}

/// A parsed document and what was found wrong with it so far.
pub(super) struct Document<'a> {
    text: &'a str,
    problems: RefCell<Vec<Problem>>,
    /// Every secret that the file refers to, with the path of its key.
    secrets: RefCell<Vec<(String, SecretSource)>>,
    /// Every key that was asked for, with `NAME` for names: what the documentation has to list.
    #[cfg(test)]
    pub(super) asked: RefCell<std::collections::BTreeSet<String>>,
}

/// One table of the document. An absent table reads like an empty one, so that defaults are in one place.
#[must_use = "unknown keys are found by `finish`"]
pub(super) struct Section<'a> {
    document: &'a Document<'a>,
    table: Option<&'a DeTable<'a>>,
    line: Option<usize>,
    path: String,
    /// The path with `NAME` in place of names.
    pattern: String,
    asked: Vec<&'static str>,
}

impl<'a> Document<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            problems: RefCell::default(),
            secrets: RefCell::default(),
            #[cfg(test)]
            asked: RefCell::default(),
        }
    }

    /// The outermost table.
    pub(super) fn root(&'a self, table: &'a DeTable<'a>) -> Section<'a> {
        Section {
            document: self,
            table: Some(table),
            line: None,
            path: String::new(),
            pattern: String::new(),
            asked: Vec::new(),
        }
    }

    /// The line of a byte of the text.
    pub(super) fn line_of(&self, byte: usize) -> usize {
        let before = self.text.as_bytes().get(..byte).unwrap_or(self.text.as_bytes());
        1 + before.iter().filter(|b| **b == b'\n').count()
    }

    pub(super) fn report(&self, line: Option<usize>, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { line, message: message.into() });
    }

    /// The secrets that the file refers to, in the order of reading.
    pub(super) fn secrets(&self) -> Vec<(String, SecretSource)> {
        self.secrets.borrow().clone()
    }

    /// What was found, in the order of the file.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line);
        problems.dedup();
        problems
    }
}

impl<'a> Section<'a> {
    /// The full path of a key of this section.
    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Whether the key is there. It does not count as asked for.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// The line of a key, or else of the section.
    pub(super) fn line_of(&self, key: &str) -> Option<usize> {
        let found = self.table.and_then(|table| table.get_key_value(key));
        found.map(|(key, _)| self.document.line_of(key.span().start)).or(self.line)
    }

    /// Says that a key's value is wrong: `'path' …`.
    pub(super) fn wrong(&self, key: &str, what: impl fmt::Display) {
        self.document.report(self.line_of(key), format!("'{}' {what}", self.path_of(key)));
    }

    /// Says that the section as a whole is wrong: `'path' …`.
    pub(super) fn wrong_section(&self, what: impl fmt::Display) {
        self.document.report(self.line, format!("'{}' {what}", self.path));
    }

    /// Says that a key is missing; `hint` finishes "'path' is missing; …".
    pub(super) fn missing(&self, key: &str, hint: &str) {
        self.document.report(self.line, format!("'{}' is missing; {hint}", self.path_of(key)));
    }

    /// Takes note of a secret that the key refers to.
    pub(super) fn refers_to(&self, key: &str, secret: &SecretSource) {
        self.document.secrets.borrow_mut().push((self.path_of(key), secret.clone()));
    }

    /// Declares a key without reading it.
    pub(super) fn asked_for(&mut self, key: &'static str) {
        self.asked.push(key);
    }

    fn ask(&mut self, key: &'static str) -> Option<&'a DeValue<'a>> {
        self.asked_for(key);
        self.table.and_then(|table| table.get(key)).map(|value| value.get_ref())
    }

    /// The key's value. `None` when it is absent, and when it is wrong, which is then reported.
    pub(super) fn get<T: FromToml>(&mut self, key: &'static str) -> Option<T> {
        let value = self.ask(key)?;
        match T::from_toml(value) {
            Ok(value) => Some(value),
            Err(misfit) => {
                self.wrong(key, misfit.explain(value, T::EXPECTED));
                None
            }
        }
    }

    /// The key's value, or `default`.
    pub(super) fn get_or<T: FromToml>(&mut self, key: &'static str, default: T) -> T {
        self.get(key).unwrap_or(default)
    }

    /// The key's value, which must be there; `hint` finishes "'path' is missing; …".
    pub(super) fn require<T: FromToml>(&mut self, key: &'static str, hint: &str) -> Option<T> {
        if !self.has(key) {
            self.missing(key, hint);
        }
        self.get(key)
    }

    /// A key whose value is one of a few words.
    pub(super) fn keyword<T: Keyword>(&mut self, key: &'static str) -> Option<T> {
        let value = self.ask(key)?;
        let words = T::WORDS.iter().map(|(word, _)| *word);
        let Some(given) = value.as_str() else {
            self.wrong(key, Misfit::Kind.explain(value, &format!("one of {}", quoted(words))));
            return None;
        };
        let found = T::WORDS.iter().find(|(word, _)| *word == given).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let hint = nearest(given, words.clone()).map(|word| format!("; did you mean \"{word}\"?"));
            let hint = hint.unwrap_or_default();
            self.wrong(key, format!("is \"{given}\"; it must be one of {}{hint}", quoted(words)));
        }
        found
    }

    /// A key whose value is a list. An empty one is refused: leaving the key out is the way to say nothing.
    pub(super) fn list<T: FromToml>(&mut self, key: &'static str) -> Option<Vec<T>> {
        let value = self.ask(key)?;
        let Some(items) = value.as_array() else {
            self.wrong(
                key,
                Misfit::Kind.explain(value, &format!("a list in [ ], each item {}", T::EXPECTED)),
            );
            return None;
        };
        if items.is_empty() {
            self.wrong(key, "is an empty list; leave the key out or name something");
            return None;
        }
        let mut list = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match T::from_toml(item.get_ref()) {
                Ok(value) => list.push(value),
                Err(misfit) => self.document.report(
                    Some(self.document.line_of(item.span().start)),
                    format!(
                        "'{}[{index}]' {}",
                        self.path_of(key),
                        misfit.explain(item.get_ref(), T::EXPECTED)
                    ),
                ),
            }
        }
        (list.len() == items.len()).then_some(list)
    }

    /// A table within this one.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        let value = self.ask(key);
        let table = value.and_then(DeValue::as_table);
        if let (Some(value), None) = (value, table) {
            self.wrong(key, Misfit::Kind.explain(value, "a section"));
        }
        Section {
            document: self.document,
            table,
            line: self.line_of(key),
            path: self.path_of(key),
            pattern: join(&self.pattern, key),
            asked: Vec::new(),
        }
    }

    /// A table whose keys the operator chose, in the order of the file. It may be empty.
    pub(super) fn entries<T: FromToml>(&mut self, key: &'static str) -> Option<Vec<(String, T)>> {
        let value = self.ask(key)?;
        let Some(table) = value.as_table() else {
            self.wrong(key, Misfit::Kind.explain(value, "names and values in { }"));
            return None;
        };
        let mut entries = Vec::with_capacity(table.len());
        for (name, value) in table {
            let name_text = name.get_ref().as_ref();
            match T::from_toml(value.get_ref()) {
                Ok(value) => entries.push((name.span().start, name_text.to_owned(), value)),
                Err(misfit) => self.document.report(
                    Some(self.document.line_of(name.span().start)),
                    format!(
                        "'{}' {}",
                        join(&self.path_of(key), name_text),
                        misfit.explain(value.get_ref(), T::EXPECTED)
                    ),
                ),
            }
        }
        entries.sort_by_key(|(at, ..)| *at);
        let whole = entries.len() == table.len();
        whole.then(|| entries.into_iter().map(|(_, name, value)| (name, value)).collect())
    }

    /// Whether the key's value is a table; for keys that also take something else.
    pub(super) fn is_section(&self, key: &str) -> bool {
        self.table.and_then(|table| table.get(key)).is_some_and(|value| value.get_ref().is_table())
    }

    /// Tables whose names the operator chose, as in `[sinks.NAME]`, in the order of the file.
    pub(super) fn named_sections(&mut self, key: &'static str) -> Vec<(String, Section<'a>)> {
        let parent = self.section(key);
        let mut sections = Vec::new();
        for (name, value) in parent.table.into_iter().flatten() {
            let name_text = name.get_ref().as_ref();
            let Some(table) = value.get_ref().as_table() else {
                parent.wrong(
                    name_text,
                    format!("is not a section; begin one with [{}]", join(&parent.path, "NAME")),
                );
                continue;
            };
            let section = Section {
                document: self.document,
                table: Some(table),
                line: Some(self.document.line_of(name.span().start)),
                path: parent.path_of(name_text),
                pattern: join(&parent.pattern, "NAME"),
                asked: Vec::new(),
            };
            sections.push((name_text.to_owned(), section));
        }
        sections.sort_by_key(|(_, section)| section.line);
        sections
    }

    /// Reports every key that was never asked for.
    pub(super) fn finish(self) {
        #[cfg(test)]
        self.document.asked.borrow_mut().extend(self.asked.iter().map(|key| join(&self.pattern, key)));
        for (key, _) in self.table.into_iter().flatten() {
            let given = key.get_ref().as_ref();
            if self.asked.contains(&given) {
                continue;
            }
            let hint = match nearest(given, self.asked.iter().copied()) {
                Some(known) => format!("did you mean '{known}'?"),
                None if self.path.is_empty() => format!("the sections are {}", self.asked.join(", ")),
                None => format!("the keys of {} are {}", self.path, sorted(&self.asked).join(", ")),
            };
            let line = self.document.line_of(key.span().start);
            self.document.report(Some(line), format!("unknown key '{}'; {hint}", self.path_of(given)));
        }
    }
}

fn sorted<'k>(keys: &[&'k str]) -> Vec<&'k str> {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

fn quoted<'w>(words: impl Iterator<Item = &'w str>) -> String {
    words.map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

/// The known word that was probably meant.
pub(super) fn nearest<'w>(given: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let given = given.to_ascii_lowercase().replace('-', "_");
    known
        .map(|word| (strsim::damerau_levenshtein(&given, &word.to_ascii_lowercase().replace('-', "_")), word))
        .filter(|(distance, word)| *distance <= 1.max(word.len().min(given.len()) / 3))
        .min()
        .map(|(_, word)| word)
}
