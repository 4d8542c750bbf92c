//! The shapes of an event other than OCSF, for the products that have a schema of their own.
//!
//! Each is written from the record and from what was understood of it, straight into the buffer, and each has every leaf
//! of the record somewhere: published detections look for the record's own names, so those are kept beside the names of the
//! schema. [`tables`] says which names a view has.
//!
//! | module | view |
//! |---|---|
//! | `raw` | `raw`: the record itself |
//! | `splunk` | `splunk`: the record itself, with the fields of Splunk's Common Information Model behind its own |
//! | `ecs` | `ecs`: a document like those of Elastic's `o365` integration |
//! | `asim` | `asim`: AuditEvent, or Authentication for a mailbox logon |
//! | `office_activity` | `officeactivity`: the columns of Sentinel's table of that name |
//! | `column`, `row`, `meaning` | what they share: names with types, writing them, what a record means in common words |

pub(crate) mod asim;
mod column;
pub(crate) mod ecs;
mod meaning;
pub(crate) mod office_activity;
pub(crate) mod raw;
mod row;
pub(crate) mod splunk;

pub use column::{Column, ColumnKind, Table};

use crate::View;

/// What the events of a view have in them: one table, or two for [`View::Asim`]. None for [`View::Raw`], which is the record
/// itself, and none for [`View::Ocsf`], whose schema is published elsewhere.
#[must_use]
pub fn tables(view: View) -> &'static [Table] {
    match view {
        View::Ocsf | View::Raw => &[],
        View::Ecs => &ecs::TABLES,
        View::Asim => &asim::TABLES,
        View::Splunk => &splunk::TABLES,
        View::OfficeActivity => &office_activity::TABLES,
    }
}
