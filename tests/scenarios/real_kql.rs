//! Kusto's own parser, with the deployed tables in its schema, against every query that is documented or deployed.
//!
//! `tests/servers/kql-parser` installs it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{sentinel::template, support::installed};

/// Parses and binds queries. Each comes with the tables that there are for it; what is wrong is printed.
const CHECK: &str = r#"
const [home, input] = process.argv.slice(1);
require(home + '/node_modules/@kusto/language-service-next/bridge.min.js');
require(home + '/node_modules/@kusto/language-service-next/Kusto.Language.Bridge.min.js');
const { GlobalState, KustoCode, Symbols } = Kusto.Language;
let wrong = 0;
for (const { name, query, tables } of JSON.parse(require('fs').readFileSync(input, 'utf8'))) {
  const members = new (System.Collections.Generic.List$1(Symbols.Symbol).ctor)();
  for (const [table, columns] of Object.entries(tables)) members.add(Symbols.TableSymbol.From(columns).WithName(table));
  const globals = GlobalState.Default.WithDatabase(new Symbols.DatabaseSymbol.ctor('workspace', members));
  const found = KustoCode.ParseAndAnalyze(query, globals).GetDiagnostics();
  for (let i = 0; i < found.Count; i++) {
    if (found.getItem(i).Severity !== 'Error') continue;
    wrong += 1;
    console.log(`${name}: ${found.getItem(i).Code} ${found.getItem(i).Message}\n${query}`);
  }
}
console.log(`${wrong} errors`);
process.exit(wrong ? 1 : 0);
"#;

fn home() -> PathBuf {
    installed("kql-parser-12.4.1", "tests/servers/kql-parser")
}

/// Runs the parser over these; gives what it printed, and whether all is well.
fn parse(queries: &[Value]) -> (String, bool) {
    let directory = tempfile::tempdir().expect("a directory");
    let input = directory.path().join("queries.json");
    fs::write(&input, Value::from(queries.to_vec()).to_string()).expect("written");
    let outcome =
        Command::new("node").args(["-e", CHECK]).arg(home()).arg(&input).output().expect("Node.js runs");
    let mut said = String::from_utf8_lossy(&outcome.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&outcome.stderr));
    (said, outcome.status.success())
}

/// Columns as KQL declares them.
fn declared(columns: &Value) -> String {
    let columns = columns.as_array().expect("columns").iter().map(|column| {
        let kind = column["type"].as_str().expect("a type").to_lowercase();
        format!(
            "{}: {}",
            column["name"].as_str().expect("a name"),
            if kind == "boolean" { "bool" } else { &kind }
        )
    });
    format!("({})", columns.collect::<Vec<_>>().join(", "))
}

#[test]
#[ignore = "needs Kusto's parser: tests/servers/kql-parser"]
fn real_kql_parser_finds_nothing_wrong_with_any_query() {
    let mut tables = serde_json::Map::new();
    let mut queries = Vec::new();
    let mut functions = String::new();
    for view in ["asim", "officeactivity", "raw"] {
        let template: Value = serde_json::from_str(&template(view)).expect("JSON");
        for resource in template["resources"].as_array().expect("resources") {
            let properties = &resource["properties"];
            match resource["type"].as_str().expect("a type") {
                "Microsoft.OperationalInsights/workspaces/tables" => {
                    let schema = &properties["schema"];
                    let name = schema["name"].as_str().expect("a name");
                    tables.insert(name.to_owned(), declared(&schema["columns"]).into());
                }
                "Microsoft.Insights/dataCollectionRules" => {
                    let streams = properties["streamDeclarations"].as_object().expect("streams");
                    let columns = &streams.values().next().expect("a stream")["columns"];
                    queries.push(json!({
                        "name": format!("the transformation of {view}"),
                        "query": properties["dataFlows"][0]["transformKql"],
                        "tables": { "source": declared(columns) },
                    }));
                }
                "Microsoft.OperationalInsights/workspaces/savedSearches" => {
                    let text = |key: &str| properties[key].as_str().expect("text");
                    let function = format!(
                        "let {} = ({}) {{ {} }};\n",
                        text("functionAlias"),
                        text("functionParameters"),
                        text("query")
                    );
                    functions.push_str(&function);
                    let query =
                        format!("{functions}{}() | project TimeGenerated, EventUid", text("functionAlias"));
                    queries.push(json!({ "name": text("functionAlias"), "query": query }));
                }
                _ => {}
            }
        }
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sentinel.md");
    let page = fs::read_to_string(page).expect("docs/sentinel.md is there");
    for (number, block) in page.split("```kusto\n").skip(1).enumerate() {
        let query = block.split("```").next().unwrap_or_default();
        queries.push(json!({ "name": format!("documented query {number}"), "query": query }));
    }
    assert!(queries.len() >= 3 + 8 + 12, "{} queries", queries.len());
    for query in &mut queries {
        if query.get("tables").is_none() {
            query["tables"] = tables.clone().into();
        }
    }
    let (said, well) = parse(&queries);
    assert!(well, "{said}");
    // It would have noticed.
    let wrong =
        json!({ "name": "wrong", "query": "MailtrailAsim_CL | where Operatoin == 'x'", "tables": tables });
    let (said, well) = parse(&[wrong]);
    assert!(!well && said.contains("Operatoin"), "{said}");
}
