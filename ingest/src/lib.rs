//! From a tenant to the ledger: the Management Activity API client, the lister and the fetcher.
//!
//! [`Collector::spawn`] runs one tenant: a lister for each content type and one fetcher for all of them, which share
//! one request [`budget`], one server [clock](skew) and one [health] record. They see the durable memory only through
//! [`feed_ledger::FeedLedger`], and they promise:
//!
//! - what was listed is recorded before the watermark passes it (L1), every span of time is listed or a recorded hole
//!   (L9), and the whole retained week is listed again every few hours, so that what is published late is found;
//! - a body goes to the ledger chunk by chunk as it arrives (L8), and is ended only when all of it came (L2);
//! - stopping, cancelling, a timeout, a panic and a drop never acknowledge anything (L7);
//! - one feed's, blob's or content type's failure never stops another's (L11);
//! - the bearer token goes to the configured API host and to nobody else.
//!
//! | module | what it holds |
//! |---|---|
//! | [`api`] | [`ActivityApi`](api::ActivityApi): the calls of the API, its errors and what they ask for |
//! | [`http`] | the HTTP client that logins and API calls share: proxy, extra certificate authorities, connect timeout |
//! | [`plan`] | which spans of time to list next; pure |
//! | `lister` | one feed: keeps its subscription, lists it, records pages and holes |
//! | `fetcher` | one tenant: claims blobs and streams their bodies into the ledger |
//! | `gates` | who may not fetch at present |
//! | [`grants`] | what a token allows, to be told |
//! | `intake` | the blocking half of a fetch: unpacks a body and hands it to the ledger |
//! | [`places`] | how many bodies of all tenants are taken in at once, and how large |
//! | [`budget`] | one tenant's requests: how many a minute, who goes first, when to pause |
//! | [`backoff`] | growing waits |
//! | [`skew`] | the API's clock, from its `Date` header |
//! | [`health`] | what is going on, for status, metrics and `/readyz` |
//! | [`collector`] | puts all of it together for one tenant |
//! | [`feed_ledger`] | what the lister and the fetcher need of the ledger |

pub mod api;
pub mod backoff;
pub mod budget;
pub mod collector;
pub mod feed_ledger;
mod fetcher;
mod gates;
pub mod grants;
pub mod health;
pub mod http;
mod intake;
mod lister;
pub mod places;
pub mod plan;
pub mod skew;

pub use collector::{Collector, CollectorHandle, Listing, Passes, TenantConfig};
pub use feed_ledger::FeedLedger;
pub use fetcher::BEYOND_EXPIRY;
pub use health::TenantHealth;
pub use http::HttpSettings;
pub use places::Places;
