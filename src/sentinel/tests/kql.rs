//! The KQL that is deployed and documented, against the columns that there are. No column may be misspelled, and no name
//! may come from nowhere. (`tests/scenarios/real_kql.rs` has Kusto's own parser look at the same.)

use std::{collections::BTreeSet, fs, path::Path};

use super::{super::parsers, Target};

/// Words of the language and functions that the queries use.
const WORDS: &[&str] = &[
    "and",
    "asc",
    "between",
    "bin",
    "bool",
    "by",
    "coalesce",
    "count",
    "countif",
    "datetime",
    "dcount",
    "desc",
    "dynamic",
    "extend",
    "false",
    "has",
    "has_any",
    "has_any_ipv4_prefix",
    "in",
    "ingestion_time",
    "inner",
    "int",
    "isnotempty",
    "isnull",
    "isfuzzy",
    "join",
    "kind",
    "left",
    "let",
    "make_set",
    "max",
    "min",
    "not",
    "now",
    "ago",
    "null",
    "on",
    "or",
    "order",
    "parse_json",
    "project",
    "project-away",
    "right",
    "source",
    "string",
    "sum",
    "summarize",
    "take",
    "tobool",
    "todatetime",
    "toint",
    "tostring",
    "true",
    "typeof",
    "union",
    "where",
    "array_length",
    "mv-expand",
    "to",
];

/// What a text is made of, strings aside.
#[derive(Debug, PartialEq)]
enum Token {
    Name(String),
    /// A name behind a dot: it leads into a dynamic value.
    Member,
    Sign(char),
}

fn tokens(query: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut chars = query.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '"' || c == '\'' {
            let closed = chars.by_ref().any(|next| next == c);
            assert!(closed, "a text does not end in {query}");
        } else if c.is_ascii_digit() {
            while chars.next_if(|next| next.is_ascii_alphanumeric()).is_some() {}
        } else if c.is_ascii_alphabetic() || c == '_' {
            let mut name = String::from(c);
            let more = |next: &char| next.is_ascii_alphanumeric() || matches!(next, '_' | '-');
            while let Some(next) = chars.next_if(more) {
                name.push(next);
            }
            let member = tokens.last() == Some(&Token::Sign('.'));
            tokens.push(if member { Token::Member } else { Token::Name(name) });
        } else if !c.is_whitespace() {
            tokens.push(Token::Sign(c));
        }
    }
    tokens
}

/// Every name of a query is a word, a column, or made by the query itself; gives the columns that it reads.
fn check(query: &str, columns: &BTreeSet<&str>, others: &[&str]) -> BTreeSet<String> {
    let tokens = tokens(query);
    let made: BTreeSet<&str> = tokens
        .windows(3)
        .filter_map(|three| match three {
            // `name = value`, and neither `==` nor `=~`.
            [Token::Name(name), Token::Sign('='), after] if !matches!(after, Token::Sign('=' | '~')) => {
                Some(name.as_str())
            }
            _ => None,
        })
        .collect();
    let mut read = BTreeSet::new();
    for token in &tokens {
        let Token::Name(name) = token else { continue };
        if columns.contains(name.as_str()) {
            read.insert(name.clone());
        } else {
            let known = made.contains(name.as_str())
                || WORDS.contains(&name.trim_end_matches('~'))
                || others.contains(&name.as_str());
            assert!(known, "`{name}` is no column, no word and made nowhere in\n{query}");
        }
    }
    read
}

fn columns(target: Target) -> BTreeSet<&'static str> {
    target.table_columns().iter().map(|column| column.name).collect()
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sentinel.md");
    fs::read_to_string(path).unwrap()
}

#[test]
fn the_documented_queries_read_columns_that_there_are() {
    let page = page();
    let queries: Vec<&str> =
        page.split("```kusto\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(queries.len(), 12, "the first event, a rule, and ten queries");
    for query in queries {
        let target = Target::ALL.into_iter().find(|target| query.contains(target.table())).unwrap();
        let read = check(query, &columns(target), &[target.table()]);
        assert!(read.len() > 3, "{query}");
    }
}

#[test]
fn the_rules_that_run_unchanged_read_columns_that_there_are() {
    let columns = columns(Target::OfficeActivity);
    let page = page();
    let table = page.split("| rule | reads |").nth(1).unwrap();
    let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() >= 10);
    for row in rows {
        let reads = row.split('|').nth(2).unwrap();
        for column in reads.split('`').skip(1).step_by(2) {
            assert!(columns.contains(column), "{column} of {row}");
        }
    }
}

#[test]
fn what_is_deployed_reads_columns_that_there_are() {
    for target in Target::ALL {
        let stream: BTreeSet<&str> = target.stream_columns().iter().map(|column| column.name).collect();
        check(&target.transformation(), &stream, &[]);
    }
    let functions = parsers::functions(Target::Asim);
    let aliases: Vec<&str> = functions.iter().map(|function| function.alias).collect();
    for function in &functions {
        let mut names: Vec<&str> = function
            .parameters
            .split(',')
            .filter_map(|parameter| parameter.split_once(':').map(|(name, _)| name))
            .collect();
        names.extend(&aliases);
        names.push(Target::Asim.table());
        check(&function.query, &columns(Target::Asim), &names);
        for parameter in &names[..names.len() - aliases.len() - 1] {
            assert!(function.query.contains(parameter) || *parameter == "pack", "{parameter} does nothing");
        }
    }
}

#[test]
fn a_misspelled_column_is_found() {
    let columns = columns(Target::Asim);
    let wrong = std::panic::catch_unwind(|| {
        check("MailtrailAsim_CL | where Operatoin == 'x'", &columns, &["MailtrailAsim_CL"])
    });
    assert!(wrong.is_err());
    let read =
        check("MailtrailAsim_CL | extend X = Operation.Y | where X == 1", &columns, &["MailtrailAsim_CL"]);
    assert_eq!(read.into_iter().collect::<Vec<_>>(), ["Operation"]);
}
