//! What every scenario needs: a simulated tenant, the real binary with a configuration, and a judge who looks at what
//! arrived.

mod arrived;
mod binary;
mod world;

pub use arrived::{Arrived, files};
pub use binary::{Binary, Outcome, kill_hard, terminate};
pub use world::World;
