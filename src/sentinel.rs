//! Tables of Microsoft Sentinel: which there are, and what deploys them.
//!
//! | file | what it holds |
//! |---|---|
//! | `sentinel.rs` | [`Target`]: the table for each view, with its columns |
//! | `sentinel/resource.rs` | the resources of a deployment, in one model |
//! | `sentinel/arm.rs`, `sentinel/bicep.rs` | that model as an ARM template and as Bicep |
//! | `sentinel/parsers.rs` | KQL functions that join the table to ASIM's unifying parsers |
//!
//! The columns are those of the view itself (`transform::tables`), so that a column that a view gains is in the next
//! template.

mod arm;
mod bicep;
mod parsers;
mod resource;
#[cfg(test)]
mod tests;

use sinks::sentinel::{Form, StreamName};
use transform::{ColumnKind, options::View, tables};

pub(crate) use self::{arm::arm, bicep::bicep};

/// The table that a view's events go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Microsoft's Advanced Security Information Model.
    Asim,
    /// The columns of Sentinel's own `OfficeActivity`.
    OfficeActivity,
    /// The records as they came.
    Raw,
}

/// A column of a table or of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableColumn {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it holds.
    pub(crate) kind: LogsKind,
}

/// The types of Log Analytics that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogsKind {
    String,
    Int,
    Long,
    Boolean,
    DateTime,
    Dynamic,
}

impl LogsKind {
    /// As the table's schema has it (Microsoft.OperationalInsights/workspaces/tables, `ColumnTypeEnum`).
    pub(crate) fn of_table(self) -> &'static str {
        match self {
            Self::DateTime => "dateTime",
            other => other.of_stream(),
        }
    }

    /// As the stream's declaration and KQL have it (Microsoft.Insights/dataCollectionRules,
    /// `KnownColumnDefinitionType`).
    pub(crate) fn of_stream(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int => "int",
            Self::Long => "long",
            Self::Boolean => "boolean",
            Self::DateTime => "datetime",
            Self::Dynamic => "dynamic",
        }
    }
}

/// Column names that Log Analytics keeps for itself (Azure Monitor, "Create a custom table"). A view's columns of that
/// name are left out of the rows.
const RESERVED: [&str; 8] =
    ["Type", "TenantId", "UniqueId", "Title", "id", "_ResourceId", "_SubscriptionId", "_ItemId"];
/// What the sink writes when it had to cut values.
const CUT_COLUMNS: TableColumn = TableColumn { name: "CutColumns", kind: LogsKind::String };
/// When it happened. Log Analytics moves `TimeGenerated` to the time of arrival when it is more than two days past.
const CREATION_TIME: TableColumn = TableColumn { name: "CreationTime", kind: LogsKind::DateTime };
const TIME_GENERATED: TableColumn = TableColumn { name: "TimeGenerated", kind: LogsKind::DateTime };

/// What the rule takes out of a record in the raw view: column, type, field.
const OF_RECORDS: [(TableColumn, &str); 12] = {
    const fn text(name: &'static str) -> (TableColumn, &'static str) {
        (TableColumn { name, kind: LogsKind::String }, name)
    }
    const fn as_text(name: &'static str, field: &'static str) -> (TableColumn, &'static str) {
        (TableColumn { name, kind: LogsKind::String }, field)
    }
    [
        (CREATION_TIME, "CreationTime"),
        as_text("RecordId", "Id"),
        (TableColumn { name: "RecordType", kind: LogsKind::Int }, "RecordType"),
        text("Operation"),
        text("Workload"),
        text("OrganizationId"),
        text("UserId"),
        (TableColumn { name: "UserType", kind: LogsKind::Int }, "UserType"),
        text("ClientIP"),
        text("ObjectId"),
        text("ResultStatus"),
        text("MailboxOwnerUPN"),
    ]
};

impl Target {
    /// Every table.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 3] = [Self::Asim, Self::OfficeActivity, Self::Raw];

    /// The table for a view, if there is one.
    pub(crate) fn of(view: View) -> Option<Self> {
        match view {
            View::Asim => Some(Self::Asim),
            View::OfficeActivity => Some(Self::OfficeActivity),
            View::Raw => Some(Self::Raw),
            View::Ocsf | View::Ecs | View::Splunk => None,
        }
    }

    /// The view.
    pub(crate) fn view(self) -> View {
        match self {
            Self::Asim => View::Asim,
            Self::OfficeActivity => View::OfficeActivity,
            Self::Raw => View::Raw,
        }
    }

    /// The table's name.
    pub(crate) fn table(self) -> &'static str {
        match self {
            Self::Asim => "MailtrailAsim_CL",
            Self::OfficeActivity => "MailtrailOfficeActivity_CL",
            Self::Raw => "MailtrailRaw_CL",
        }
    }

    /// The stream that leads there.
    pub(crate) fn stream(self) -> StreamName {
        format!("Custom-{}", self.table()).parse().expect("a table's name makes a stream's")
    }

    /// What a row is made of.
    pub(crate) fn form(self) -> Form {
        match self {
            Self::Asim => Form::Columns { without: &["Type"] },
            Self::OfficeActivity => Form::Columns { without: &[] },
            Self::Raw => Form::Record,
        }
    }

    /// What rows have when they are sent.
    pub(crate) fn stream_columns(self) -> Vec<TableColumn> {
        if self == Self::Raw {
            let record = TableColumn { name: "Record", kind: LogsKind::Dynamic };
            return vec![TIME_GENERATED, record, CUT_COLUMNS];
        }
        let mut columns: Vec<TableColumn> = Vec::new();
        for column in tables(self.view()).iter().flat_map(|table| table.columns) {
            if RESERVED.contains(&column.name) || columns.iter().any(|known| known.name == column.name) {
                continue;
            }
            let kind = match column.kind {
                _ if column.list => LogsKind::Dynamic,
                ColumnKind::String | ColumnKind::Ip => LogsKind::String,
                ColumnKind::Int => LogsKind::Int,
                ColumnKind::Long => LogsKind::Long,
                ColumnKind::Bool => LogsKind::Boolean,
                ColumnKind::DateTime => LogsKind::DateTime,
                ColumnKind::Dynamic => LogsKind::Dynamic,
            };
            columns.push(TableColumn { name: column.name, kind });
        }
        columns.push(CUT_COLUMNS);
        columns
    }

    /// What the table has: what is sent, and what the rule adds.
    pub(crate) fn table_columns(self) -> Vec<TableColumn> {
        let mut columns = self.stream_columns();
        match self {
            Self::Asim => columns.push(CREATION_TIME),
            // It has the record's own text in a column of that name.
            Self::OfficeActivity => {}
            Self::Raw => columns.extend(OF_RECORDS.iter().map(|(column, _)| *column)),
        }
        columns
    }

    /// What the rule does to each row on its way into the table (KQL).
    pub(crate) fn transformation(self) -> String {
        match self {
            Self::Asim => "source | extend CreationTime = EventStartTime".to_owned(),
            Self::OfficeActivity => "source".to_owned(),
            Self::Raw => {
                let taken = OF_RECORDS.iter().map(|(column, field)| {
                    let to = match column.kind {
                        LogsKind::Int => "toint",
                        LogsKind::DateTime => "todatetime",
                        _ => "tostring",
                    };
                    format!("{} = {to}(Record.{field})", column.name)
                });
                format!("source | extend {}", taken.collect::<Vec<_>>().join(", "))
            }
        }
    }
}
