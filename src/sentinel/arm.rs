//! A deployment as an ARM template (Azure Resource Manager, deployment template schema 2019-04-01).

use serde_json::{Map, Value as Json, json};

use super::{
    Target,
    resource::{Deployment, Expression, Resource, Symbol, Value},
};

/// The template for a table.
pub(crate) fn arm(target: Target) -> String {
    let deployment = Deployment::of(target);
    let template = template(&deployment);
    let mut text = serde_json::to_string_pretty(&template).expect("a JSON value is written without fail");
    text.push('\n');
    text
}

fn template(deployment: &Deployment) -> Json {
    let mut parameters = Map::new();
    for parameter in &deployment.parameters {
        let mut declared = json!({ "type": parameter.kind, "metadata": { "description": parameter.about } });
        if let Some(default) = &parameter.default {
            declared["defaultValue"] = value(deployment, default);
        }
        if let Some((least, most)) = parameter.bounds {
            declared["minValue"] = least.into();
            declared["maxValue"] = most.into();
        }
        parameters.insert(parameter.name.to_owned(), declared);
    }
    let outputs: Map<String, Json> = deployment
        .outputs
        .iter()
        .map(|(name, expression)| {
            let value = value(deployment, &Value::Computed(expression.clone()));
            ((*name).to_owned(), json!({ "type": "string", "value": value }))
        })
        .collect();
    let resources: Vec<Json> =
        deployment.resources.iter().map(|resource| of_resource(deployment, resource)).collect();
    json!({
        "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
        "contentVersion": "1.0.0.0",
        "metadata": { "description": "Microsoft 365 audit records from mailtrail" },
        "parameters": parameters,
        "resources": resources,
        "outputs": outputs,
    })
}

fn of_resource(deployment: &Deployment, resource: &Resource) -> Json {
    let mut of = Map::new();
    if let Some(condition) = resource.condition {
        of.insert("condition".into(), format!("[parameters('{condition}')]").into());
    }
    of.insert("type".into(), resource.kind.into());
    of.insert("apiVersion".into(), resource.api.into());
    if let Some(scope) = resource.scope {
        let scope = deployment.resource(scope);
        let id = Expression::Call(
            "concat",
            vec![Expression::Text(format!("{}/", scope.kind)), scope.name.clone()],
        );
        of.insert("scope".into(), format!("[{}]", expression(deployment, &id)).into());
    }
    of.insert("name".into(), value(deployment, &Value::Computed(resource.name.clone())));
    if resource.located {
        of.insert("location".into(), "[parameters('location')]".into());
    }
    if !resource.depends_on.is_empty() {
        let ids = resource
            .depends_on
            .iter()
            .map(|symbol| Json::from(format!("[{}]", expression(deployment, &Expression::IdOf(symbol)))));
        of.insert("dependsOn".into(), ids.collect());
    }
    of.insert("properties".into(), value(deployment, &resource.properties));
    Json::Object(of)
}

fn value(deployment: &Deployment, of: &Value) -> Json {
    match of {
        // What begins with a bracket would be an expression.
        Value::Text(text) if text.starts_with('[') => format!("[{text}").into(),
        Value::Text(text) => text.as_str().into(),
        Value::Int(number) => (*number).into(),
        Value::Bool(truth) => (*truth).into(),
        Value::List(items) => items.iter().map(|item| value(deployment, item)).collect(),
        Value::Object(members) => {
            let members = members.iter().map(|(name, member)| (name.clone(), value(deployment, member)));
            Json::Object(members.collect())
        }
        Value::Computed(Expression::Text(text)) => value(deployment, &Value::Text(text.clone())),
        Value::Computed(computed) => format!("[{}]", expression(deployment, computed)).into(),
    }
}

fn expression(deployment: &Deployment, of: &Expression) -> String {
    let id_of = |symbol: Symbol| {
        let Resource { kind, name, .. } = deployment.resource(symbol);
        let name = match name {
            // What is a part of a workspace has the workspace's name and its own, which the id wants apart.
            Expression::Call("concat", parts) => {
                let parts = parts.iter().map(|part| match part {
                    Expression::Text(text) => format!("'{}'", text.trim_start_matches('/')),
                    other => expression(deployment, other),
                });
                parts.collect::<Vec<_>>().join(", ")
            }
            name => expression(deployment, name),
        };
        format!("resourceId('{kind}', {name})")
    };
    match of {
        Expression::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Expression::Parameter(name) => format!("parameters('{name}')"),
        Expression::Call(function, arguments) => {
            let arguments: Vec<String> =
                arguments.iter().map(|argument| expression(deployment, argument)).collect();
            format!("{function}({})", arguments.join(", "))
        }
        Expression::Member(whole, member) => format!("{}.{member}", expression(deployment, whole)),
        Expression::IdOf(symbol) => id_of(*symbol),
        Expression::PropertyOf(symbol, path) => {
            format!("reference({}, '{}').{path}", id_of(*symbol), deployment.resource(symbol).api)
        }
    }
}
