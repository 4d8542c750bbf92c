//! Leases: who is working on what. They live in memory only, so that after a crash everything is pending again (L7),
//! and there is never more than one for the same thing (L5).

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::mpsc::Sender,
};

use crate::{WorkId, writer::Message};

/// What is leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Leased {
    /// A blob, to be fetched.
    Fetch(WorkId),
    /// A work, for the sink with this number.
    Delivery(i64, WorkId),
}

/// A live claim. Dropping it releases what is claimed; nothing else does.
pub struct Claim {
    what: Leased,
    token: u64,
    writer: Sender<Message>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The channel is unbounded, so that dropping never waits; it holds no more releases than there were claims.
        // When the writer is gone, so is its memory of the claim.
        let _ = self.writer.send(Message::Release(self.what, self.token));
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Claim").field(&self.what).finish()
    }
}

/// Every live claim.
#[derive(Debug)]
pub(crate) struct Leases {
    live: HashMap<Leased, u64>,
    next_token: u64,
    writer: Sender<Message>,
    fetches: usize,
}

impl Leases {
    pub(crate) fn new(writer: Sender<Message>) -> Self {
        Self { live: HashMap::new(), next_token: 1, writer, fetches: 0 }
    }

    /// Claims something; `None` when somebody has it.
    pub(crate) fn claim(&mut self, what: Leased) -> Option<Claim> {
        match self.live.entry(what) {
            Entry::Occupied(_) => None,
            Entry::Vacant(place) => {
                let token = self.next_token;
                place.insert(token);
                self.next_token += 1;
                self.fetches += usize::from(matches!(what, Leased::Fetch(_)));
                Some(Claim { what, token, writer: self.writer.clone() })
            }
        }
    }

    /// Whether somebody has it.
    pub(crate) fn is_claimed(&self, what: Leased) -> bool {
        self.live.contains_key(&what)
    }

    /// Ends a claim.
    pub(crate) fn release(&mut self, what: Leased, token: u64) {
        if self.live.get(&what) == Some(&token) {
            self.live.remove(&what);
            self.fetches -= usize::from(matches!(what, Leased::Fetch(_)));
        }
    }

    /// How many blobs are being fetched.
    pub(crate) fn fetches(&self) -> usize {
        self.fetches
    }

    /// How many works a sink has leased.
    pub(crate) fn of_sink(&self, sink: i64) -> usize {
        self.live.keys().filter(|what| matches!(what, Leased::Delivery(of, _) if *of == sink)).count()
    }

    /// Every live claim.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Leased> {
        self.live.keys().copied()
    }
}
