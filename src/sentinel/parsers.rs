//! KQL functions that join the table to ASIM's unifying parsers (Microsoft Sentinel, "Manage ASIM parsers").
//!
//! For each of the two schemas there is a parser with parameters, which filters early (`vim…`), one without (`ASim…`), and
//! the two functions through which the built-in `_Im_…` and `_ASim_…` find parsers of the workspace's own.

use transform::{Column, tables};

use super::{Target, resource::Symbol};

/// A function of the workspace.
#[derive(Debug)]
pub(super) struct Function {
    /// What queries call it.
    pub(super) alias: &'static str,
    /// What it is, in a few words.
    pub(super) about: String,
    /// Its parameters, with types and defaults.
    pub(super) parameters: String,
    /// KQL.
    pub(super) query: String,
    /// Whether a workspace may have one of this name already.
    pub(super) unifies: bool,
    /// Those of these functions that it calls.
    pub(super) calls: Vec<Symbol>,
}

/// What of a schema the parsers need to know.
struct Schema {
    name: &'static str,
    parser: Symbol,
    filtering: Symbol,
    custom: Symbol,
    custom_filtering: Symbol,
    filters: &'static [Filter],
}

/// A parameter, and what it keeps.
struct Filter {
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    keeps: &'static str,
}

const fn any(name: &'static str, keeps: &'static str) -> Filter {
    Filter { name, kind: "dynamic", default: "dynamic([])", keeps }
}

const START: Filter = Filter {
    name: "starttime",
    kind: "datetime",
    default: "datetime(null)",
    keeps: "isnull(starttime) or TimeGenerated >= starttime",
};
const END: Filter = Filter {
    name: "endtime",
    kind: "datetime",
    default: "datetime(null)",
    keeps: "isnull(endtime) or TimeGenerated <= endtime",
};
const ADDRESS: Filter = any(
    "srcipaddr_has_any_prefix",
    "array_length(srcipaddr_has_any_prefix) == 0 or has_any_ipv4_prefix(SrcIpAddr, srcipaddr_has_any_prefix)",
);
const TYPE: Filter = any("eventtype_in", "array_length(eventtype_in) == 0 or EventType in~ (eventtype_in)");
const RESULT: Filter = Filter {
    name: "eventresult",
    kind: "string",
    default: "'*'",
    keeps: "eventresult == '*' or EventResult =~ eventresult",
};

/// In the order of the built-in parsers.
const SCHEMAS: [Schema; 2] = [
    Schema {
        name: "AuditEvent",
        parser: "ASimAuditEventMailtrail",
        filtering: "vimAuditEventMailtrail",
        custom: "ASim_AuditEventCustom",
        custom_filtering: "Im_AuditEventCustom",
        filters: &[
            START,
            END,
            ADDRESS,
            any(
                "actorusername_has_any",
                "array_length(actorusername_has_any) == 0 or ActorUsername has_any (actorusername_has_any)",
            ),
            any(
                "operation_has_any",
                "array_length(operation_has_any) == 0 or Operation has_any (operation_has_any)",
            ),
            TYPE,
            RESULT,
            any("object_has_any", "array_length(object_has_any) == 0 or Object has_any (object_has_any)"),
            any(
                "newvalue_has_any",
                "array_length(newvalue_has_any) == 0 or NewValue has_any (newvalue_has_any)",
            ),
        ],
    },
    Schema {
        name: "Authentication",
        parser: "ASimAuthenticationMailtrail",
        filtering: "vimAuthenticationMailtrail",
        custom: "ASim_AuthenticationCustom",
        custom_filtering: "Im_AuthenticationCustom",
        filters: &[
            START,
            END,
            any(
                "username_has_any",
                "array_length(username_has_any) == 0 or TargetUsername has_any (username_has_any)",
            ),
            any(
                "targetappname_has_any",
                "array_length(targetappname_has_any) == 0 or TargetAppName has_any (targetappname_has_any)",
            ),
            ADDRESS,
            any(
                "srchostname_has_any",
                "array_length(srchostname_has_any) == 0 or SrcHostname has_any (srchostname_has_any)",
            ),
            TYPE,
            // Exchange does not say why a logon failed.
            any("eventresultdetails_in", "array_length(eventresultdetails_in) == 0"),
            RESULT,
        ],
    },
];

/// All functions, each after those that it calls.
pub(super) fn functions(target: Target) -> Vec<Function> {
    SCHEMAS.iter().flat_map(|schema| schema.functions(target)).collect()
}

impl Schema {
    fn functions(&self, target: Target) -> [Function; 4] {
        let filters = self.filters.iter();
        let declared: Vec<String> =
            filters.map(|filter| format!("{}:{}={}", filter.name, filter.kind, filter.default)).collect();
        let declared = declared.join(",");
        let passed: Vec<String> = self.filters.iter().map(|filter| format!("{0}={0}", filter.name)).collect();
        let passed = passed.join(", ");
        let keeps: String = self.filters.iter().map(|filter| format!("| where {}\n", filter.keeps)).collect();
        let rows = |filters: &str| {
            format!(
                "{}\n| where not(disabled)\n| where EventSchema == '{}'\n{filters}| project-away {}",
                target.table(),
                self.name,
                self.of_the_other(target).join(", ")
            )
        };
        let about =
            |what: &str| format!("{what} for ASIM {}, Microsoft 365 records from mailtrail", self.name);
        [
            Function {
                alias: self.filtering,
                about: about("Filtering parser"),
                // `pack` is what the unifying parsers hand on; there is nothing to pack that is not in AdditionalFields.
                parameters: format!("{declared},disabled:bool=false,pack:bool=false"),
                query: rows(&keeps),
                unifies: false,
                calls: Vec::new(),
            },
            Function {
                alias: self.parser,
                about: about("Parser"),
                parameters: "disabled:bool=false,pack:bool=false".to_owned(),
                query: rows(""),
                unifies: false,
                calls: Vec::new(),
            },
            Function {
                alias: self.custom_filtering,
                about: about("Filtering parsers of this workspace"),
                parameters: format!("{declared},disabled:bool=false,pack:bool=false"),
                query: format!(
                    "union isfuzzy=true\n  {}({passed}, disabled=disabled, pack=pack)",
                    self.filtering
                ),
                unifies: true,
                calls: vec![self.filtering],
            },
            Function {
                alias: self.custom,
                about: about("Parsers of this workspace"),
                parameters: "disabled:bool=false,pack:bool=false".to_owned(),
                query: format!("union isfuzzy=true\n  {}(disabled=disabled, pack=pack)", self.parser),
                unifies: true,
                calls: vec![self.parser],
            },
        ]
    }

    /// The columns of the other schema alone, which are empty in this one's rows.
    fn of_the_other(&self, target: Target) -> Vec<&'static str> {
        let of = |own: bool| -> Vec<&'static Column> {
            let tables = tables(target.view()).iter();
            let tables = tables.filter(|table| table.name.contains(self.name) == own);
            tables.flat_map(|table| table.columns).collect()
        };
        let own = of(true);
        let others = of(false).into_iter().map(|column| column.name);
        others.filter(|name| !own.iter().any(|column| column.name == *name)).collect()
    }
}
