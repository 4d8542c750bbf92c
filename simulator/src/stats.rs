//! What was seen: requests, breaches of the rules, faults, and what was served twice.

use std::{collections::BTreeMap, fmt, sync::Mutex};

use axum::http::StatusCode;
use serde::Serialize;

use crate::state::lock;

/// What a request asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// A token from the token endpoint.
    Token,
    /// A token from the managed identity endpoint.
    ManagedIdentity,
    /// To start a subscription.
    StartSubscription,
    /// To stop one.
    StopSubscription,
    /// The subscriptions.
    ListSubscriptions,
    /// The first page of a listing.
    ListContent,
    /// A further page.
    NextPage,
    /// A blob.
    FetchBlob,
    /// The names of the sensitive information types.
    FriendlyNames,
    /// Something that the servers do not know.
    Other,
}

impl fmt::Display for RequestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Token => "token",
            Self::ManagedIdentity => "managed_identity",
            Self::StartSubscription => "start_subscription",
            Self::StopSubscription => "stop_subscription",
            Self::ListSubscriptions => "list_subscriptions",
            Self::ListContent => "list_content",
            Self::NextPage => "next_page",
            Self::FetchBlob => "fetch_blob",
            Self::FriendlyNames => "friendly_names",
            Self::Other => "other",
        })
    }
}

/// The counters at one instant. The control plane's own requests are not counted.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct StatsSnapshot {
    /// Requests by what they asked for and by the status of the answer.
    pub requests: BTreeMap<RequestKind, BTreeMap<u16, u64>>,
    /// Bytes of the bodies of blobs that were handed to the network, as they were sent (compressed or not).
    pub blob_bytes: u64,
    /// Requests to the API without a PublisherIdentifier.
    pub without_publisher_identifier: u64,
    /// Breaches of the API's rules, by name (`docs/simulator.md` lists them).
    pub violations: BTreeMap<&'static str, u64>,
    /// Faults that were suffered, by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// Different blobs that were served whole.
    pub blobs_served: u64,
    /// Blobs that were served whole when they had been before.
    pub blobs_served_again: u64,
    /// Tokens that were issued.
    pub tokens_issued: u64,
    /// Requests that reached the other origin, which no collector should follow.
    pub other_origin_requests: u64,
    /// Those of them that carried a token.
    pub tokens_leaked: u64,
}

impl StatsSnapshot {
    /// Requests of a kind, whatever the answer.
    #[must_use]
    pub fn requests_of(&self, kind: RequestKind) -> u64 {
        self.requests.get(&kind).map_or(0, |by_status| by_status.values().sum())
    }

    /// How often a rule was broken.
    #[must_use]
    pub fn violations_of(&self, name: &str) -> u64 {
        self.violations.get(name).copied().unwrap_or_default()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Stats(Mutex<StatsSnapshot>);

impl Stats {
    pub(crate) fn snapshot(&self) -> StatsSnapshot {
        lock(&self.0).clone()
    }

    /// Starts counting anew.
    pub(crate) fn reset(&self) {
        *lock(&self.0) = StatsSnapshot::default();
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut StatsSnapshot)) {
        change(&mut lock(&self.0));
    }

    pub(crate) fn request(&self, kind: RequestKind, status: StatusCode) {
        self.change(|stats| {
            *stats.requests.entry(kind).or_default().entry(status.as_u16()).or_default() += 1
        });
    }

    pub(crate) fn violation(&self, name: &'static str) {
        self.change(|stats| *stats.violations.entry(name).or_default() += 1);
    }

    pub(crate) fn fault(&self, name: &'static str) {
        self.change(|stats| *stats.faults.entry(name).or_default() += 1);
    }
}
