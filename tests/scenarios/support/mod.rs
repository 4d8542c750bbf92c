//! What every scenario needs: a simulated tenant, the real binary with a configuration, and a judge who looks at what
//! arrived.

mod arrived;
mod binary;
mod world;

pub(crate) use arrived::{Arrived, files};
pub(crate) use binary::{Binary, Outcome, kill_hard, terminate};
pub(crate) use world::World;
