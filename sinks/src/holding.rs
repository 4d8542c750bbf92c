//! A sink that takes records at once and has them where they must be much later, many works together: an object of an
//! archive is open for an hour before it is put.
//!
//! To wait in [`Sink::deliver`](crate::sink::Sink::deliver) for that long would cost a batch under way for every few
//! records. So such a sink is asked for a [`Holding`]: a receipt then says that the sink has the records, and whatever
//! becomes of them is its own affair; a work that is complete by receipts is **held**: its lease stays claimed, its
//! settlement waits, and it is settled when [`Holding::advance`] names it. Until then it is pending for everybody else
//! (L3), and when the sink is opened anew, or by the next process, it is leased and held again or delivered again, as
//! [`Holding::held`] says. A held work costs its settlement and its claim, no bytes of records.

use crate::{
    delivery_ledger::{Settlement, WorkId},
    sink::{BoxFuture, DeliverError},
};

/// What the delivery loop asks of a sink that holds works. Such a sink is
/// [`exactly_once`](crate::sink::Limits::exactly_once) and leaves [`Sink::state`](crate::sink::Sink::state) alone: its
/// state goes with [`Holding::advance`].
pub trait Holding: Send + Sync {
    /// Whether it takes another batch at present. When not, it is asked again after the next [`Holding::advance`].
    fn has_room(&self) -> bool;

    /// Every record of the work is accounted for. Whether the sink holds some of them, so that it is settled when
    /// [`Holding::advance`] names it; otherwise it is settled now.
    fn hold(&self, settlement: &Settlement) -> bool;

    /// What was held and is still to be settled, asked once after each [`Sink::open`](crate::sink::Sink::open). What
    /// is not among these comes again, from its beginning. Works that somebody else settled meanwhile are left out by
    /// the delivery loop, and [`Holding::advance`] may name them nevertheless.
    fn held(&self) -> Vec<Settlement>;

    /// Carries on with what is held, until there is something to be committed; waits while nothing is due. It is asked
    /// again only when what it said before is durable, so it can rely on that. Dropping the future is safe at any time.
    fn advance(&self) -> BoxFuture<'_, Result<Advance, DeliverError>>;

    /// Nothing more is coming for now: what is held is not to wait for it.
    fn flush(&self);

    /// Whether everything that [`Holding::flush`] began is done.
    fn is_finished(&self) -> bool;
}

/// A step of a sink that holds works. All of it is committed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advance {
    /// The sink's own state.
    pub state: Vec<u8>,
    /// Works whose records are all where they must be now: they are settled.
    pub arrived: Vec<WorkId>,
    /// The bytes of these records, as rendered.
    pub bytes: u64,
    /// Whether the destination took something: then it works.
    pub reached: bool,
}
