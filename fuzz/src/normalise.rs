//! What holds for any bytes that are taken for a record: they yield one event or one dead letter in every view, and the event
//! is one line of JSON that its published schema takes. Panics with what does not hold.

use std::sync::LazyLock;

use jsonschema::Validator;
use schemas::{ContentType, Rendered};
use serde_json::Value;
use transform::{
    ClassPolicy, Facts, Filter, OcsfVersion, Origin, RawData, RenderOptions, Renderer, View, published,
    tables,
};

static SCHEMAS: LazyLock<Vec<(View, Validator)>> = LazyLock::new(|| {
    let validator = |view| {
        let options = jsonschema::options().should_validate_formats(true);
        options.build(&published::json_schema(view)).expect("the published schema is a schema")
    };
    View::ALL.map(|view| (view, validator(view))).into_iter().collect()
});

/// The ways of writing an OCSF event; the length of the input chooses among them, so that the same input is always the
/// same case.
fn options(view: View, length: usize) -> RenderOptions {
    let way = |of: usize| length % of;
    RenderOptions {
        view,
        facts: [Facts::All, Facts::Plain, Facts::Mailbox][way(3)],
        ocsf_version: OcsfVersion::ALL[way(4)],
        class_policy: if way(3) == 0 { ClassPolicy::ApiOnly } else { ClassPolicy::Rich },
        raw_data: [RawData::None, RawData::Hash, RawData::Full, RawData::None, RawData::None][way(5)],
        observables: way(7) != 0,
        captions: way(11) != 0,
        tags: way(2) == 0,
        accepted_domains: if way(2) == 0 { vec!["contoso.com".into()] } else { Vec::new() },
        first_party_apps: Vec::new(),
    }
}

/// Renders the bytes in every view and judges what came of it.
pub(crate) fn check(bytes: &[u8]) {
    let origin = Origin {
        tenant: "11111111-2222-3333-4444-555555555555".parse().expect("it is a tenant's id"),
        tenant_name: "contoso",
        content_type: ContentType::Exchange,
        content_id: "20260601100233000000000$20260601101500123000000$audit_exchange$Audit_Exchange$emea0036",
    };
    let mut dead = Vec::new();
    for (view, schema) in SCHEMAS.iter() {
        let renderer = Renderer::new(options(*view, bytes.len()));
        let mut out = Rendered::default();
        renderer.render(bytes, 7, &origin, &Filter::default(), &mut out);
        dead.push(out.unrenderable.len());
        match (out.len(), out.unrenderable.len()) {
            (1, 0) => judge(*view, schema, bytes, out.get(0).bytes),
            (0, 1) => {}
            (events, letters) => panic!("{view}: {events} events and {letters} dead letters of one record"),
        }
    }
    assert!(dead.iter().all(|letters| *letters == dead[0]), "a record is a record in every view");
}

fn judge(view: View, schema: &Validator, record: &[u8], line: &[u8]) {
    assert!(!line.contains(&b'\n') && !line.contains(&b'\r'), "{view}: more than one line");
    let event: Value = match serde_json::from_slice(line) {
        Ok(event) => event,
        // A repaired record may have halves of surrogate pairs in the raw view, and numbers may be beyond any float.
        Err(error) => {
            let excused = view == View::Raw || error.to_string().starts_with("number out of range");
            assert!(excused, "{view}: {error}: {}", String::from_utf8_lossy(line));
            return;
        }
    };
    // Where the record's own fields come first, one that is called like a column may hold anything.
    let native = tables(view).iter().any(|table| table.native == Some(""));
    let own: Option<Value> = serde_json::from_slice(record).ok().filter(|_| native);
    let is_own = |path: &str| {
        let name = path.split('/').nth(1).unwrap_or("");
        native && own.as_ref().is_none_or(|own| own.get(name).is_some())
    };
    for error in schema.iter_errors(&event) {
        let path = error.instance_path().to_string();
        assert!(is_own(&path), "{view} {path}: {error}\n{event}");
    }
    if view == View::Ocsf {
        meaning(&event);
    }
}

/// What no JSON Schema can say of an OCSF event.
fn meaning(event: &Value) {
    let number = |name: &str| event[name].as_u64().expect("the schema requires it");
    assert_eq!(number("type_uid"), number("class_uid") * 100 + number("activity_id"), "{event}");
    assert_eq!(number("category_uid"), number("class_uid") / 1000, "{event}");
    for observable in event["observables"].as_array().into_iter().flatten() {
        let path = observable["name"].as_str().expect("the schema requires it");
        let found = path.split('.').try_fold(event, |value, step| match step.split_once('[') {
            Some((name, index)) => value.get(name)?.get(index.trim_end_matches(']').parse::<usize>().ok()?),
            None => value.get(step),
        });
        assert_eq!(found, Some(&observable["value"]), "observable {path}: {event}");
    }
}
