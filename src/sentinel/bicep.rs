//! A deployment as Bicep.

use std::fmt::Write as _;

use super::{
    Target,
    resource::{Deployment, Expression, Resource, Value},
};

/// The Bicep file for a table.
pub(crate) fn bicep(target: Target) -> String {
    let deployment = Deployment::of(target);
    let mut out = String::from("// Microsoft 365 audit records from mailtrail\n\n");
    // Writing into a text cannot fail.
    for parameter in &deployment.parameters {
        let _ = writeln!(out, "@description({})", quoted(parameter.about));
        if let Some((least, most)) = parameter.bounds {
            let _ = writeln!(out, "@minValue({least})\n@maxValue({most})");
        }
        let _ = write!(out, "param {} {}", parameter.name, parameter.kind);
        if let Some(default) = &parameter.default {
            out.push_str(" = ");
            value(&mut out, default, 0);
        }
        out.push_str("\n\n");
    }
    for resource in &deployment.resources {
        of_resource(&mut out, resource);
    }
    for (name, computed) in &deployment.outputs {
        let _ = writeln!(out, "output {name} string = {}", expression(computed));
    }
    out
}

fn of_resource(out: &mut String, resource: &Resource) {
    let Resource { symbol, kind, api, .. } = resource;
    let condition = resource.condition.map(|name| format!("if ({name}) ")).unwrap_or_default();
    // Writing into a text cannot fail.
    let _ = writeln!(out, "resource {symbol} '{kind}@{api}' = {condition}{{");
    if let Some(scope) = resource.scope {
        let _ = writeln!(out, "  scope: {scope}");
    }
    let _ = writeln!(out, "  name: {}", expression(&resource.name));
    if resource.located {
        out.push_str("  location: location\n");
    }
    if !resource.depends_on.is_empty() {
        let _ = writeln!(out, "  dependsOn: [\n    {}\n  ]", resource.depends_on.join("\n    "));
    }
    out.push_str("  properties: ");
    value(out, &resource.properties, 2);
    out.push_str("\n}\n\n");
}

fn value(out: &mut String, of: &Value, indent: usize) {
    let inner = indent + 2;
    match of {
        Value::Text(text) => out.push_str(&quoted(text)),
        Value::Int(number) => out.push_str(&number.to_string()),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::List(items) => {
            out.push_str("[\n");
            for item in items {
                out.push_str(&" ".repeat(inner));
                value(out, item, inner);
                out.push('\n');
            }
            out.push_str(&" ".repeat(indent));
            out.push(']');
        }
        Value::Object(members) => {
            out.push_str("{\n");
            for (name, member) in members {
                let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                out.push_str(&" ".repeat(inner));
                out.push_str(&if plain { name.clone() } else { quoted(name) });
                out.push_str(": ");
                value(out, member, inner);
                out.push('\n');
            }
            out.push_str(&" ".repeat(indent));
            out.push('}');
        }
        Value::Computed(computed) => out.push_str(&expression(computed)),
    }
}

fn expression(of: &Expression) -> String {
    match of {
        Expression::Text(text) => quoted(text),
        Expression::Parameter(name) => (*name).to_owned(),
        Expression::Call(function, arguments) => {
            let arguments: Vec<String> = arguments.iter().map(expression).collect();
            format!("{function}({})", arguments.join(", "))
        }
        Expression::Member(whole, member) => format!("{}.{member}", expression(whole)),
        Expression::IdOf(symbol) => format!("{symbol}.id"),
        Expression::PropertyOf(symbol, path) => format!("{symbol}.properties.{path}"),
    }
}

/// A text as Bicep writes it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("'");
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\'' => quoted.push_str("\\'"),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            // Otherwise it would begin an expression.
            '$' if rest.peek() == Some(&'{') => quoted.push_str("\\$"),
            c => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}
