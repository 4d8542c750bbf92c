//! A simulated Microsoft 365 tenant: the Entra ID token endpoint and the Office 365 Management Activity API.
//!
//! It is for demonstrations, tests and benchmarks, and for anyone who builds a collector. It promises three things:
//!
//! * **Strict where Microsoft is.** Tokens, tenants, subscriptions, time windows, paging and quotas are checked, and
//!   a breach is answered as the API answers it and counted in [`StatsSnapshot::violations`].
//! * **Deterministic.** The same [`SimulatorConfig`] with the same [`anchor`](SimulatorConfig::anchor) has the same
//!   blobs with the same bytes; without an anchor only the times move. Nothing is kept: a blob is made from its
//!   number whenever it is fetched, so that a backlog of any size costs no memory.
//! * **It knows the truth.** [`Truth`] tells what a perfect collector delivers, whatever [`Faults`] are injected.
//!
//! ```no_run
//! # async fn example() -> Result<(), simulator::SimulatorError> {
//! use simulator::{Simulator, SimulatorConfig};
//! let running = Simulator::start(SimulatorConfig::default(), ([127, 0, 0, 1], 0).into()).await?;
//! println!("authority and API host: {}", running.base_url());
//! println!("{} records to collect", running.truth().count());
//! running.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `config` | [`SimulatorConfig`], [`TenantConfig`]: what is simulated |
//! | `faults`, `fault_desk` | [`Faults`]: what goes wrong, and how often; which request suffers it |
//! | `blob` | [`Blob`]: a blob whose bytes the caller chooses |
//! | `cast` | the people, mailboxes, folders and clients that the records speak of |
//! | `records` | one module per workload: what its records look like |
//! | `catalogue` | [`catalogue()`]: one example of every kind of record |
//! | `feed` | which blobs exist, and when |
//! | `truth` | [`Truth`]: what a perfect collector delivers |
//! | `token`, `assertion` | the token endpoint, and the client assertions that it accepts |
//! | `activity_api`, `subscriptions` | what the API answers |
//! | `window`, `page` | the rules for times and for next pages |
//! | `respond` | answers, and how a body is damaged on its way |
//! | `stats`, `control` | what was seen, and the control plane under `/_simulator/` |
//! | `server` | [`Simulator`], [`Running`]: sockets, routing, start and stop |

mod activity_api;
mod assertion;
mod blob;
mod cast;
mod catalogue;
mod clock;
mod config;
mod control;
mod dice;
mod fault_desk;
mod faults;
mod feed;
mod page;
mod records;
mod respond;
mod server;
mod state;
mod stats;
mod subscriptions;
mod token;
mod truth;
mod window;

pub use blob::Blob;
pub use catalogue::{Example, catalogue, quirk_catalogue};
pub use config::{ConfigError, SimulatorConfig, TenantConfig, ThrottleAnswer};
pub use faults::{BadFault, FAULTS, FaultHelp, FaultKind, Faults, Share};
pub use records::{Logon, MailboxKind};
pub use server::{Running, Simulator, SimulatorError};
pub use stats::{RequestKind, StatsSnapshot};
pub use truth::{Fate, Truth, TruthBlob, TruthSummary};
