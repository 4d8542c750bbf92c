//! Names with types: what can stand in the events of a view.

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnKind {
    /// Text.
    String,
    /// A whole number of 32 bits.
    Int,
    /// A whole number of 64 bits.
    Long,
    /// A truth value.
    Bool,
    /// A time in UTC, as RFC 3339 writes it.
    DateTime,
    /// An address of IPv4 or IPv6.
    Ip,
    /// JSON of any shape.
    Dynamic,
}

/// One name, with what stands under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// The name; dots lead into objects in [`crate::View::Ecs`].
    pub name: &'static str,
    /// What it holds.
    pub kind: ColumnKind,
    /// Whether there may be several, as a list.
    pub list: bool,
    /// Whether every event has it.
    pub required: bool,
}

/// The names of one kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// What the product calls it: a table, a data stream, a source type.
    pub name: &'static str,
    /// The names, in the order in which they are written.
    pub columns: &'static [Column],
    /// Where the record's own fields stand under their own names: at the top (`Some("")`), under a name, or nowhere.
    pub native: Option<&'static str>,
}

impl Column {
    pub(super) const fn new(name: &'static str, kind: ColumnKind) -> Self {
        Self { name, kind, list: false, required: false }
    }

    /// Every event has it.
    pub(super) const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// There may be several.
    pub(super) const fn list(self) -> Self {
        Self { list: true, ..self }
    }
}

pub(super) const fn string(name: &'static str) -> Column {
    Column::new(name, ColumnKind::String)
}

pub(super) const fn int(name: &'static str) -> Column {
    Column::new(name, ColumnKind::Int)
}

pub(super) const fn long(name: &'static str) -> Column {
    Column::new(name, ColumnKind::Long)
}

pub(super) const fn boolean(name: &'static str) -> Column {
    Column::new(name, ColumnKind::Bool)
}

pub(super) const fn datetime(name: &'static str) -> Column {
    Column::new(name, ColumnKind::DateTime)
}

pub(super) const fn ip(name: &'static str) -> Column {
    Column::new(name, ColumnKind::Ip)
}

pub(super) const fn dynamic(name: &'static str) -> Column {
    Column::new(name, ColumnKind::Dynamic)
}
