//! PowerShell that stands where JSON should: command lines and printed objects.
//!
//! `-Identity "x y" -QuarantineTypes ("Bulk","Spam") -Force` is what some workloads write into `Parameters`, and
//! `@{Name=Identity; Value=x}` is what a list of pairs becomes when PowerShell prints it. Both are read leniently, since the
//! text itself stays in the event.

use crate::json::{Writer, write::key};

/// The text as a JSON object of names and values; `None` when it is neither form.
pub(crate) fn to_json(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    if let Some(object) = text.strip_prefix("@{") {
        printed_object(object.strip_suffix('}').unwrap_or(object), &mut writer)?;
    } else if text.starts_with('-') {
        command_line(text, &mut writer);
    } else {
        return None;
    }
    writer.finish();
    String::from_utf8(out).ok()
}

/// `Name=…; Value=…`. The value may hold anything, so it ends where the text ends.
fn printed_object(text: &str, w: &mut Writer<'_>) -> Option<()> {
    let pair = w.object("");
    if let Some((name, value)) = text.strip_prefix("Name=").and_then(|rest| rest.split_once("; Value=")) {
        w.str(key!("Name"), name);
        w.str(key!("Value"), value);
    } else {
        let mut fields = text.split(';').filter_map(|field| field.trim().split_once('='));
        let (name, value) = fields.next()?;
        for (name, value) in std::iter::once((name, value)).chain(fields) {
            write_name(w, name.trim());
            w.str("", value.trim().trim_matches('"'));
        }
    }
    w.close(pair);
    Some(())
}

fn write_name(w: &mut Writer<'_>, name: &str) {
    w.raw("\"");
    w.escaped(name);
    w.raw("\":");
}

/// A list of pairs, since a command line can name a parameter twice.
fn command_line(text: &str, w: &mut Writer<'_>) {
    let list = w.array("");
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let Some(named) = rest.strip_prefix('-') else {
            // A value that follows another one belongs to no parameter that could be named. What is no token either,
            // such as a stray bracket, is passed so that the text comes to an end.
            let after = next_token(rest).1;
            rest = if after.len() < rest.len() { after } else { &rest[1..] }.trim_start();
            continue;
        };
        let length = named.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(named.len());
        let (name, after) = named.split_at(length);
        let after = after.strip_prefix(':').unwrap_or(after).trim_start();
        let pair = w.object("");
        w.str(key!("Name"), name);
        if after.is_empty() || begins_parameter(after) {
            w.str(key!("Value"), "True");
            rest = after;
        } else {
            rest = value(after, w).trim_start();
        }
        w.close(pair);
    }
    w.close(list);
}

fn begins_parameter(text: &str) -> bool {
    text.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_alphabetic()))
}

/// Writes the value that `text` begins with and gives what follows it.
fn value<'t>(text: &'t str, w: &mut Writer<'_>) -> &'t str {
    let Some(inner) = text.strip_prefix('(').or_else(|| text.strip_prefix("@(")) else {
        let bare = !text.starts_with(['"', '\'']);
        let (mut token, mut rest) = next_token(text);
        if !rest.starts_with(',') {
            if bare && token.eq_ignore_ascii_case("$null") {
                w.raw("\"Value\":null,");
            } else {
                w.str(key!("Value"), &token);
            }
            return rest;
        }
        let list = w.array(key!("Value"));
        loop {
            w.str("", &token);
            let Some(more) = rest.strip_prefix(',') else { break };
            (token, rest) = next_token(more.trim_start());
        }
        w.close(list);
        return rest;
    };
    let list = w.array(key!("Value"));
    let mut rest = inner.trim_start();
    let after = loop {
        if let Some(after) = rest.strip_prefix(')') {
            break after;
        }
        if rest.is_empty() {
            break rest;
        }
        let (token, more) = next_token(rest);
        if more.len() < rest.len() {
            w.str("", &token);
        }
        let more = more.trim_start();
        rest = more.strip_prefix(',').unwrap_or(more).trim_start();
    };
    w.close(list);
    after
}

/// A word, or a text in quotes with `""` and `` `" `` for a quote in it, and what follows it.
fn next_token(text: &str) -> (String, &str) {
    let Some(quote @ ('"' | '\'')) = text.chars().next() else {
        let end = text.find(|c: char| c.is_whitespace() || matches!(c, ',' | ')')).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut token = String::new();
    let mut characters = text[1..].char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        if character == '`' && quote == '"' {
            token.extend(characters.next().map(|(_, escaped)| escaped));
        } else if character != quote {
            token.push(character);
        } else if characters.peek().is_some_and(|(_, next)| *next == quote) {
            token.push(quote);
            characters.next();
        } else {
            return (token, &text[at + 2..]);
        }
    }
    (token, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn command_lines_are_taken_apart() {
        for (text, expected) in [
            (
                r#"-Identity "a ""b"" `"c`"" -Types ("Bulk","Spam") -Force -Page 1"#,
                r#"[{"Name":"Identity","Value":"a \"b\" \"c\""},{"Name":"Types","Value":["Bulk","Spam"]},{"Name":"Force","Value":"True"},{"Name":"Page","Value":"1"}]"#,
            ),
            (
                "-Users a@b.c,'d e' -Confirm:$false",
                r#"[{"Name":"Users","Value":["a@b.c","d e"]},{"Name":"Confirm","Value":"$false"}]"#,
            ),
            (r#"-Age -5 -Name "#, r#"[{"Name":"Age","Value":"-5"},{"Name":"Name","Value":"True"}]"#),
            (r#"-Comment "cut off[...]"#, r#"[{"Name":"Comment","Value":"cut off[...]"}]"#),
            (
                r#"-Forward $null -Name "$null" -To $Null"#,
                r#"[{"Name":"Forward","Value":null},{"Name":"Name","Value":"$null"},{"Name":"To","Value":null}]"#,
            ),
            ("-A () x -B @('y')", r#"[{"Name":"A","Value":[]},{"Name":"B","Value":["y"]}]"#),
        ] {
            assert_eq!(to_json(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(to_json("Identity x"), None);
    }

    #[test]
    fn printed_objects_are_taken_apart() {
        for (text, expected) in [
            ("@{Name=Identity; Value=x; y=z}", r#"{"Name":"Identity","Value":"x; y=z"}"#),
            (r#"@{Add="SearchQueryInitiated"; Remove=x}"#, r#"{"Add":"SearchQueryInitiated","Remove":"x"}"#),
        ] {
            assert_eq!(to_json(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(to_json("@{}"), None);
    }

    proptest! {
        #[test]
        fn any_text_comes_to_an_end_as_json(text in "-[-a \"'`,()@:é]{0,40}|@\\{[a=; \"}é]{0,20}|-\\PC{0,30}") {
            if let Some(json) = to_json(&text) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{}", json);
            }
        }
    }
}
