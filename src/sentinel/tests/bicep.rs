//! Reads as much of Bicep as the templates use, and makes of it what Bicep's own compiler would: an ARM template.
//!
//! It knows nothing of the model that both forms are written from, but for the texts themselves.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

/// An expression or literal.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Number(i64),
    Truth(bool),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
    Name(String),
    Call(String, Vec<Node>),
    Member(Box<Node>, String),
}

struct Resource {
    kind: String,
    api: String,
    condition: Option<String>,
    members: Vec<(String, Node)>,
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// Blanks and comments; line breaks too.
    fn skip(&mut self) {
        loop {
            self.at += self.rest().len() - self.rest().trim_start().len();
            if !self.rest().starts_with("//") {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn takes(&mut self, what: &str) -> bool {
        self.skip();
        let there = self.rest().starts_with(what);
        self.at += if there { what.len() } else { 0 };
        there
    }

    fn expect(&mut self, what: &str) {
        assert!(
            self.takes(what),
            "{what} is expected at {:?}",
            self.rest().chars().take(60).collect::<String>()
        );
    }

    fn word(&mut self) -> String {
        self.skip();
        let end =
            self.rest().find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(self.rest().len());
        assert!(end > 0, "a name is expected at {:?}", self.rest().chars().take(60).collect::<String>());
        let word = self.rest()[..end].to_owned();
        self.at += end;
        word
    }

    fn text(&mut self) -> String {
        self.expect("'");
        let mut text = String::new();
        let mut chars = self.rest().char_indices();
        loop {
            match chars.next().expect("a text ends") {
                (at, '\'') => {
                    self.at += at + 1;
                    return text;
                }
                (_, '\\') => text.push(match chars.next().expect("an escape").1 {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    c @ ('\'' | '\\' | '$') => c,
                    other => panic!("\\{other} is no escape"),
                }),
                (at, '$') => {
                    assert!(!self.rest()[at..].starts_with("${"), "no text has an expression in it");
                    text.push('$');
                }
                (_, '\n') => panic!("a text is on one line"),
                (_, c) => text.push(c),
            }
        }
    }

    fn node(&mut self) -> Node {
        self.skip();
        let first = self.rest().chars().next().expect("a value");
        match first {
            '\'' => Node::Text(self.text()),
            '[' => {
                self.expect("[");
                let mut items = Vec::new();
                while !self.takes("]") {
                    items.push(self.node());
                    self.takes(",");
                }
                Node::List(items)
            }
            '{' => {
                self.expect("{");
                let mut members = Vec::new();
                while !self.takes("}") {
                    self.skip();
                    let name = if self.rest().starts_with('\'') { self.text() } else { self.word() };
                    self.expect(":");
                    members.push((name, self.node()));
                }
                Node::Object(members)
            }
            '0'..='9' | '-' => {
                let end = self.rest()[1..]
                    .find(|c: char| !c.is_ascii_digit())
                    .map_or(self.rest().len(), |end| end + 1);
                let number = self.rest()[..end].parse().unwrap();
                self.at += end;
                Node::Number(number)
            }
            _ => {
                let word = self.word();
                let mut node = match word.as_str() {
                    "true" => return Node::Truth(true),
                    "false" => return Node::Truth(false),
                    _ if self.rest().starts_with('(') => {
                        self.expect("(");
                        let mut arguments = Vec::new();
                        while !self.takes(")") {
                            arguments.push(self.node());
                            self.takes(",");
                        }
                        Node::Call(word, arguments)
                    }
                    _ => Node::Name(word),
                };
                while self.rest().starts_with('.') {
                    self.at += 1;
                    node = Node::Member(Box::new(node), self.word());
                }
                node
            }
        }
    }
}

/// The ARM template of a Bicep file.
pub(super) fn as_arm(text: &str) -> Json {
    let mut reader = Reader { text, at: 0 };
    let mut parameters = Map::new();
    let mut outputs = Vec::new();
    let mut resources: Vec<(String, Resource)> = Vec::new();
    let mut declared = Map::new();
    loop {
        reader.skip();
        if reader.rest().is_empty() {
            break;
        }
        if reader.takes("@") {
            let decorator = reader.node();
            let Node::Call(name, arguments) = decorator else { panic!("{decorator:?} is no decorator") };
            match (name.as_str(), &arguments[..]) {
                ("description", [Node::Text(about)]) => {
                    drop(declared.insert("metadata".into(), json!({ "description": about })))
                }
                ("minValue", [Node::Number(least)]) => drop(declared.insert("minValue".into(), json!(least))),
                ("maxValue", [Node::Number(most)]) => drop(declared.insert("maxValue".into(), json!(most))),
                other => panic!("{other:?} is no decorator"),
            }
            continue;
        }
        match reader.word().as_str() {
            "param" => {
                let name = reader.word();
                declared.insert("type".into(), reader.word().into());
                if reader.takes("=") {
                    let node = reader.node();
                    declared.insert("defaultValue".into(), value(&node, &BTreeMap::new()));
                }
                parameters.insert(name, Json::Object(std::mem::take(&mut declared)));
            }
            "resource" => {
                let symbol = reader.word();
                let kind = reader.text();
                let (kind, api) = kind.split_once('@').expect("a version");
                reader.expect("=");
                let condition = reader.takes("if").then(|| {
                    reader.expect("(");
                    let name = reader.word();
                    reader.expect(")");
                    name
                });
                let Node::Object(members) = reader.node() else { panic!("{symbol} has no members") };
                resources.push((symbol, Resource { kind: kind.into(), api: api.into(), condition, members }));
            }
            "output" => {
                let name = reader.word();
                let kind = reader.word();
                reader.expect("=");
                outputs.push((name, kind, reader.node()));
            }
            other => panic!("{other} begins nothing"),
        }
    }
    let known: BTreeMap<String, &Resource> =
        resources.iter().map(|(symbol, resource)| (symbol.clone(), resource)).collect();
    let outputs: Map<String, Json> = outputs
        .iter()
        .map(|(name, kind, node)| (name.clone(), json!({ "type": kind, "value": value(node, &known) })))
        .collect();
    let resources: Vec<Json> = resources.iter().map(|(_, resource)| of(resource, &known)).collect();
    json!({ "parameters": parameters, "resources": resources, "outputs": outputs })
}

fn of(resource: &Resource, known: &BTreeMap<String, &Resource>) -> Json {
    let mut arm = Map::new();
    if let Some(condition) = &resource.condition {
        arm.insert("condition".into(), format!("[parameters('{condition}')]").into());
    }
    arm.insert("type".into(), resource.kind.as_str().into());
    arm.insert("apiVersion".into(), resource.api.as_str().into());
    for (name, node) in &resource.members {
        let member = match (name.as_str(), node) {
            ("scope", Node::Name(symbol)) => {
                let scope = known[symbol];
                format!("[concat('{}/', {})]", scope.kind, expression(name_of(scope), known)).into()
            }
            ("dependsOn", Node::List(symbols)) => symbols
                .iter()
                .map(|symbol| {
                    let Node::Name(symbol) = symbol else { panic!("{symbol:?} is no resource") };
                    Json::from(format!("[{}]", id(known[symbol], known)))
                })
                .collect(),
            _ => value(node, known),
        };
        arm.insert(name.clone(), member);
    }
    Json::Object(arm)
}

fn name_of(resource: &Resource) -> &Node {
    &resource.members.iter().find(|(name, _)| name == "name").expect("a name").1
}

fn id(resource: &Resource, known: &BTreeMap<String, &Resource>) -> String {
    let name = name_of(resource);
    // What is within a workspace has two segments of a name.
    let segments = match name {
        Node::Call(concat, parts) if concat == "concat" && resource.kind.matches('/').count() == 2 => {
            let [whole, Node::Text(part)] = &parts[..] else { panic!("{parts:?}") };
            format!("{}, '{}'", expression(whole, known), part.strip_prefix('/').expect("a part"))
        }
        name => expression(name, known),
    };
    format!("resourceId('{}', {segments})", resource.kind)
}

fn value(node: &Node, known: &BTreeMap<String, &Resource>) -> Json {
    match node {
        Node::Text(text) => text.as_str().into(),
        Node::Number(number) => (*number).into(),
        Node::Truth(truth) => (*truth).into(),
        Node::List(items) => items.iter().map(|item| value(item, known)).collect(),
        Node::Object(members) => {
            Json::Object(members.iter().map(|(name, member)| (name.clone(), value(member, known))).collect())
        }
        computed => format!("[{}]", expression(computed, known)).into(),
    }
}

fn expression(node: &Node, known: &BTreeMap<String, &Resource>) -> String {
    match node {
        Node::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Node::Name(name) => format!("parameters('{name}')"),
        Node::Call(function, arguments) => {
            let arguments: Vec<_> = arguments.iter().map(|argument| expression(argument, known)).collect();
            format!("{function}({})", arguments.join(", "))
        }
        Node::Member(whole, member) => match (whole.as_ref(), member.as_str()) {
            (Node::Name(symbol), "id") => id(known[symbol], known),
            (Node::Name(symbol), "properties") => {
                format!("reference({}, '{}')", id(known[symbol], known), known[symbol].api)
            }
            (whole, member) => format!("{}.{member}", expression(whole, known)),
        },
        other => panic!("{other:?} is no expression"),
    }
}
