//! What is deployed for a table: the table, a data collection endpoint and rule, the role of the application, and for
//! ASIM the functions that join the table to the unifying parsers. One model, which is written as ARM and as Bicep.

use super::{LogsKind, TableColumn, Target, parsers};

/// A deployment to the resource group of a workspace.
#[derive(Debug)]
pub(super) struct Deployment {
    pub(super) parameters: Vec<Parameter>,
    pub(super) resources: Vec<Resource>,
    /// By name, all of them texts.
    pub(super) outputs: Vec<(&'static str, Expression)>,
}

/// What whoever deploys can or has to say.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// `string`, `int` or `bool`.
    pub(super) kind: &'static str,
    pub(super) about: &'static str,
    pub(super) default: Option<Value>,
    pub(super) bounds: Option<(i64, i64)>,
}

/// One resource.
#[derive(Debug)]
pub(super) struct Resource {
    /// What others refer to it by.
    pub(super) symbol: Symbol,
    pub(super) kind: &'static str,
    pub(super) api: &'static str,
    pub(super) name: Expression,
    pub(super) located: bool,
    /// The resource that it belongs to without being a part of it.
    pub(super) scope: Option<Symbol>,
    /// The parameter that decides whether it is deployed.
    pub(super) condition: Option<&'static str>,
    pub(super) depends_on: Vec<Symbol>,
    pub(super) properties: Value,
}

/// The name of a resource within the deployment.
pub(super) type Symbol = &'static str;

/// A value of a property.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Int(i64),
    Bool(bool),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
    Computed(Expression),
}

/// What is worked out when it is deployed.
#[derive(Debug, Clone)]
pub(super) enum Expression {
    Text(String),
    Parameter(&'static str),
    Call(&'static str, Vec<Expression>),
    /// A member of what another expression gives.
    Member(Box<Expression>, &'static str),
    /// The id of a resource of this deployment.
    IdOf(Symbol),
    /// Something below its `properties`.
    PropertyOf(Symbol, &'static str),
}

impl From<Expression> for Value {
    fn from(expression: Expression) -> Self {
        Self::Computed(expression)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn text(text: impl Into<String>) -> Expression {
    Expression::Text(text.into())
}

/// The built-in role Monitoring Metrics Publisher (Azure built-in roles).
const PUBLISHER: &str = "3913510d-42f4-4e42-8a64-420c390055eb";
const WORKSPACE: &str = "workspaceName";
const JOIN_ASIM: &str = "joinAsimParsers";

const TABLE: Symbol = "table";
const ENDPOINT: Symbol = "endpoint";
const RULE: Symbol = "rule";

impl Deployment {
    /// What is deployed for this table.
    pub(super) fn of(target: Target) -> Self {
        let mut parameters = vec![
            Parameter::text(
                WORKSPACE,
                "The Log Analytics workspace of Microsoft Sentinel, in this resource group",
            ),
            Parameter::text(
                "principalId",
                "The object id of the application's service principal (Entra ID > Enterprise applications), or of the managed \
                 identity",
            ),
            Parameter {
                default: Some(
                    Expression::Member(Box::new(Expression::Call("resourceGroup", Vec::new())), "location")
                        .into(),
                ),
                ..Parameter::text(
                    "location",
                    "The region of the workspace: endpoint and rule have to be there",
                )
            },
            Parameter {
                kind: "int",
                default: Some(Value::Int(90)),
                bounds: Some((4, 730)),
                ..Parameter::text("retentionInDays", "How long the table can be queried interactively")
            },
            Parameter {
                kind: "int",
                default: Some(Value::Int(365)),
                bounds: Some((4, 4383)),
                ..Parameter::text("totalRetentionInDays", "How long the table's rows are kept in all")
            },
        ];
        let mut resources = vec![table(target), endpoint(target), rule(target), role(target)];
        if target == Target::Asim {
            parameters.push(Parameter {
                kind: "bool",
                default: Some(Value::Bool(true)),
                ..Parameter::text(
                    JOIN_ASIM,
                    "Whether Im_AuditEventCustom and the like are deployed. Say false when the workspace has them already, and add \
                     this table's parsers to them",
                )
            });
            resources.extend(parsers::functions(target).into_iter().map(function));
        }
        Self {
            parameters,
            resources,
            outputs: vec![
                ("endpoint", Expression::PropertyOf(ENDPOINT, "logsIngestion.endpoint")),
                ("dcrImmutableId", Expression::PropertyOf(RULE, "immutableId")),
                ("stream", text(target.stream().as_str())),
            ],
        }
    }

    /// The resource of this symbol.
    pub(super) fn resource(&self, symbol: Symbol) -> &Resource {
        let found = self.resources.iter().find(|resource| resource.symbol == symbol);
        found.expect("resources refer to those of their own deployment")
    }
}

impl Parameter {
    fn text(name: &'static str, about: &'static str) -> Self {
        Self { name, kind: "string", about, default: None, bounds: None }
    }
}

/// What endpoint and rule are called.
fn name(target: Target) -> Expression {
    text(format!("mailtrail-{}", target.view()))
}

fn in_workspace(name: &str) -> Expression {
    Expression::Call("concat", vec![Expression::Parameter(WORKSPACE), text(format!("/{name}"))])
}

fn columns(columns: &[TableColumn], kind: impl Fn(LogsKind) -> &'static str) -> Value {
    let column =
        |column: &TableColumn| object([("name", column.name.into()), ("type", kind(column.kind).into())]);
    Value::List(columns.iter().map(column).collect())
}

fn table(target: Target) -> Resource {
    Resource {
        symbol: TABLE,
        kind: "Microsoft.OperationalInsights/workspaces/tables",
        api: "2022-10-01",
        name: in_workspace(target.table()),
        located: false,
        scope: None,
        condition: None,
        depends_on: Vec::new(),
        properties: object([
            ("plan", "Analytics".into()),
            ("retentionInDays", Expression::Parameter("retentionInDays").into()),
            ("totalRetentionInDays", Expression::Parameter("totalRetentionInDays").into()),
            (
                "schema",
                object([
                    ("name", target.table().into()),
                    ("columns", columns(&target.table_columns(), LogsKind::of_table)),
                ]),
            ),
        ]),
    }
}

fn endpoint(target: Target) -> Resource {
    Resource {
        symbol: ENDPOINT,
        kind: "Microsoft.Insights/dataCollectionEndpoints",
        api: "2022-06-01",
        name: name(target),
        located: true,
        scope: None,
        condition: None,
        depends_on: Vec::new(),
        properties: object([("networkAcls", object([("publicNetworkAccess", "Enabled".into())]))]),
    }
}

fn rule(target: Target) -> Resource {
    let workspace = "Microsoft.OperationalInsights/workspaces";
    let workspace_id =
        Expression::Call("resourceId", vec![text(workspace), Expression::Parameter(WORKSPACE)]);
    let stream = target.stream();
    Resource {
        symbol: RULE,
        kind: "Microsoft.Insights/dataCollectionRules",
        api: "2022-06-01",
        name: name(target),
        located: true,
        scope: None,
        condition: None,
        depends_on: vec![TABLE, ENDPOINT],
        properties: object([
            ("description", "Microsoft 365 audit records from mailtrail".into()),
            ("dataCollectionEndpointId", Expression::IdOf(ENDPOINT).into()),
            (
                "streamDeclarations",
                object([(
                    stream.as_str(),
                    object([("columns", columns(&target.stream_columns(), LogsKind::of_stream))]),
                )]),
            ),
            (
                "destinations",
                object([(
                    "logAnalytics",
                    Value::List(vec![object([
                        ("workspaceResourceId", workspace_id.into()),
                        ("name", "workspace".into()),
                    ])]),
                )]),
            ),
            (
                "dataFlows",
                Value::List(vec![object([
                    ("streams", Value::List(vec![stream.as_str().into()])),
                    ("destinations", Value::List(vec!["workspace".into()])),
                    ("transformKql", Value::Text(target.transformation())),
                    ("outputStream", stream.as_str().into()),
                ])]),
            ),
        ]),
    }
}

fn role(_: Target) -> Resource {
    Resource {
        symbol: "publisher",
        kind: "Microsoft.Authorization/roleAssignments",
        api: "2022-04-01",
        // The same for the same rule and application, so that deploying again changes nothing.
        name: Expression::Call(
            "guid",
            vec![Expression::IdOf(RULE), Expression::Parameter("principalId"), text(PUBLISHER)],
        ),
        located: false,
        scope: Some(RULE),
        condition: None,
        depends_on: vec![RULE],
        properties: object([
            (
                "roleDefinitionId",
                Expression::Call(
                    "subscriptionResourceId",
                    vec![text("Microsoft.Authorization/roleDefinitions"), text(PUBLISHER)],
                )
                .into(),
            ),
            ("principalId", Expression::Parameter("principalId").into()),
            ("principalType", "ServicePrincipal".into()),
        ]),
    }
}

fn function(function: parsers::Function) -> Resource {
    Resource {
        symbol: function.alias,
        kind: "Microsoft.OperationalInsights/workspaces/savedSearches",
        api: "2020-08-01",
        // A name of its own: a function of the same alias that somebody else made must not be overwritten.
        name: in_workspace(&format!("mailtrail_{}", function.alias)),
        located: false,
        scope: None,
        condition: function.unifies.then_some(JOIN_ASIM),
        depends_on: std::iter::once(TABLE).chain(function.calls).collect(),
        properties: object([
            ("category", "ASIM".into()),
            ("displayName", Value::Text(function.about)),
            ("functionAlias", function.alias.into()),
            ("functionParameters", Value::Text(function.parameters)),
            ("query", Value::Text(function.query)),
            ("version", Value::Int(2)),
        ]),
    }
}
