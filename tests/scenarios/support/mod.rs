//! What every scenario needs: a simulated tenant, the real binary with a configuration, and a judge who looks at what
//! arrived.

mod arrived;
mod binary;
pub(crate) mod bucket;
pub(crate) mod gate;
pub(crate) mod hec;
mod http;
mod install;
mod installed;
pub(crate) mod kafka;
pub(crate) mod sentinel;
pub(crate) mod tls;
pub(crate) mod verifiers;
pub(crate) mod wire;
mod world;

pub(crate) use arrived::{Arrived, files};
pub(crate) use binary::{Binary, Outcome, hang_up, interrupt, kill_hard, terminate};
pub(crate) use http::{free_address, get, sample};
pub(crate) use install::install;
pub(crate) use installed::installed;
pub(crate) use wire::lasting_port;
pub(crate) use world::World;
