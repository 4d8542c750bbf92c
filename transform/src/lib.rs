//! Record to event to view: what a record means, written in the shape that a sink wants.
//!
//! Pure functions over bytes: no I/O, no clock, no async runtime. [`Renderer::render`] takes a record as the API gave it and
//! appends one line to a [`schemas::Rendered`]. It promises:
//!
//! - Every JSON object becomes an event, whatever its fields are; what is no JSON object becomes a dead letter with the
//!   reason. Nothing panics.
//! - Nothing is dropped: every leaf of the record is found again in its event, and the event is valid against its schema.
//! - No tree is built, neither of the record nor of the event: the record is checked and indexed in one pass, and the event is
//!   copied together from its slices.
//!
//! | module | what it holds |
//! |---|---|
//! | [`options`] | what a sink can choose |
//! | [`filter`] | which records a sink wants |
//! | [`tags`] | what a record may be a sign of |
//! | [`published`] | JSON Schemas of what the views emit |
//! | [`render`] | the way of a record through this crate |
//! | `understood` | what a record says, as columns |
//! | `json` | checking, walking and writing JSON |
//! | `names` | finding a name among many known ones |
//! | `record`, `reading` | a record's fields, and what they mean |
//! | `parts` | the objects inside of a record |
//! | `plain` | the few fields of a record that is only passed on |
//! | `address`, `parameters`, `powershell` | the forms that single fields come in |
//! | `inbox_rule`, `forwarding` | what records say of rules and forwarding, in one shape each |
//! | `operation`, `cmdlet` | which operation is what |
//! | `ocsf` | the OCSF event |
//! | `view` | the other shapes |

mod address;
mod cmdlet;
pub mod filter;
mod forwarding;
mod inbox_rule;
mod json;
mod names;
mod ocsf;
mod operation;
pub mod options;
mod parameters;
mod parts;
mod plain;
mod powershell;
pub mod published;
mod reading;
mod record;
pub mod render;
pub mod tags;
mod understood;
mod view;

pub use filter::{Filter, Match};
pub use options::{ClassPolicy, Facts, OcsfVersion, RawData, RenderOptions, UnknownView, View};
pub use render::{Origin, Renderer};
pub use understood::Understood;
pub use view::{Column, ColumnKind, Table, tables};
