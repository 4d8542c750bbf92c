//! The scanner against what JSON is.

use proptest::prelude::*;

use super::*;

/// The fields of the top level, and of the elements of a list that is called `pairs`.
#[derive(Default)]
struct Found<'a> {
    top: Vec<(&'a str, &'a str)>,
    elements: Vec<String>,
}

impl<'a> Fields<'a> for Found<'a> {
    /// The records of these tests have it or not, and both have to come to the same.
    fn expected(&self) -> Option<&'static Key> {
        static KEY: Key = Key::new("\"a\":");
        Some(&KEY)
    }

    fn field(&mut self, name: Name<'a>, value: Json<'a>, escaped: bool) {
        assert_eq!(escaped, value.text().is_some_and(|text| text.raw().contains('\\')));
        self.top.push((name.text().raw(), value.raw()));
    }

    fn wants_elements(&self, name: Name<'a>) -> bool {
        name.bytes() == b"pairs"
    }

    fn list(&mut self) {
        self.elements.clear();
    }

    fn pair(&mut self, name: Text<'a>, value: Json<'a>) {
        let strings = [format!("Name={}", name.json()), format!("Value={}", value.raw())];
        self.elements.push("object".to_owned());
        self.elements.extend(strings);
    }

    fn element(&mut self, object: bool) {
        self.elements.push(if object { "object" } else { "other" }.to_owned());
    }

    fn element_field(&mut self, name: ElementName, value: Json<'a>, escaped: bool) {
        assert_eq!(escaped, value.text().is_some_and(|text| text.raw().contains('\\')));
        self.elements.push(format!("{name:?}={}", value.raw()));
    }
}

fn fields(text: &str) -> Result<Vec<(&str, &str)>, Fault> {
    let mut found = Found::default();
    scan_object(text, has_controls(text.as_bytes()), &mut found)?;
    Ok(found.top)
}

#[test]
fn the_elements_of_a_list_are_found_on_the_way() {
    let text = r#"{"pairs":[1],"pairs": [ {"Name" : 1,"b":[{}]} ,2,{ }, [{"c":1}],{"Value":"]\u0041", "Name":2} ],"x":[{"y":1}]}"#;
    let mut found = Found::default();
    scan_object(text, has_controls(text.as_bytes()), &mut found).unwrap();
    assert_eq!(
        found.elements,
        [
            "object",
            "Name=1",
            "Other=[{}]",
            "other",
            "object",
            "other",
            "object",
            "Value=\"]\\u0041\"",
            "Name=2"
        ]
    );
    assert_eq!(found.top.len(), 3);
    for broken in [r#"{"pairs":[{"a":1]}"#, r#"{"pairs":[{"a"}]}"#, r#"{"pairs":[1 2]}"#, r#"{"pairs":[{}"#] {
        assert!(
            scan_object(broken, has_controls(broken.as_bytes()), &mut Found::default()).is_err(),
            "{broken}"
        );
    }
    let deep = format!("{{\"pairs\":[{{\"a\":{}{}}}]}}", "[".repeat(98), "]".repeat(98));
    assert_eq!(fields(&deep), Err(Fault::TooDeep { at: 112 }));
}

#[test]
fn the_top_level_is_found_and_nothing_below_it() {
    let text =
        "\n { \"a\" : [ {\"b\":1} , \"}\\\"\" ] ,\"c\":\"\\u00e9\\\\\", \"a\":-1.5e+3,\"d\":{}, \"\":null } ";
    let expected = [
        ("a", "[ {\"b\":1} , \"}\\\"\" ]"),
        ("c", "\"\\u00e9\\\\\""),
        ("a", "-1.5e+3"),
        ("d", "{}"),
        ("", "null"),
    ];
    assert_eq!(fields(text).unwrap(), expected);
    assert_eq!(fields("{}").unwrap(), []);
}

#[test]
fn faults_are_named() {
    for (text, fault) in [
        ("", Fault::NotAnObject { first: None }),
        ("[]", Fault::NotAnObject { first: Some(b'[') }),
        ("{", Fault::Syntax { at: 1, expected: "a name" }),
        ("{\"a\"}", Fault::Syntax { at: 4, expected: "`:`" }),
        ("{\"a\":1,}", Fault::Syntax { at: 7, expected: "a name" }),
        ("{\"a\":01}", Fault::Syntax { at: 6, expected: "`,` or `}`" }),
        ("{\"a\":[1}", Fault::Syntax { at: 7, expected: "`,` or `]`" }),
        ("{\"a\":nul}", Fault::Syntax { at: 5, expected: "a value" }),
        ("{\"a\":\"\\x\"}", Fault::Syntax { at: 6, expected: "an escape" }),
        ("{} x", Fault::Syntax { at: 3, expected: "the end" }),
        ("{\"a\":\"\n\"}", Fault::ControlCharacter { at: 6 }),
        ("{\"a\":\"\\ud800x\"}", Fault::LoneSurrogate { at: 6 }),
        ("{\"a\":\"\\udc00\"}", Fault::LoneSurrogate { at: 6 }),
    ] {
        assert_eq!(fields(text), Err(fault), "{text}");
    }
}

#[test]
fn the_depth_is_bounded_and_no_stack_is_used() {
    let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
    assert!(fields(&nested(MAX_DEPTH as usize)).is_ok());
    assert_eq!(fields(&nested(MAX_DEPTH as usize + 1)), Err(Fault::TooDeep { at: MAX_DEPTH as usize + 4 }));
    assert!(matches!(fields(&nested(1_000_000)), Err(Fault::TooDeep { .. })));
}

proptest! {
    /// The scanner and serde_json agree on what JSON is.
    #[test]
    fn what_serde_json_reads_is_read_and_nothing_else(text in "\\{\"[ab\\\\\"]{0,2}\":[-0-9.eE\\[\\]{}\",: tnu\\\\]{0,12}\\}") {
        let ours = fields(&text).is_ok();
        let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        prop_assert_eq!(ours, theirs, "{}", text);
    }
}
