//! Pieces of blobs that were read lately, so that sinks that are near each other read and unpack each piece once.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use ledger::{Piece, WorkId};
use schemas::Seq;

/// What the cache may hold, in bytes. It is a part of the memory that mailtrail may take in all, and enough for the
/// last few blobs; a sink that is farther behind reads for itself.
const MAX_BYTES: usize = 4 << 20;

/// Of which work, under which of its numbers, and the first position.
type Place = (WorkId, Seq, u32);

#[derive(Debug, Default)]
struct Entries {
    /// The oldest first.
    pieces: VecDeque<(Place, Arc<Piece>)>,
    bytes: usize,
}

/// Pieces that were read lately.
#[derive(Debug, Default)]
pub(crate) struct Pieces(Mutex<Entries>);

impl Pieces {
    pub(crate) fn get(&self, place: Place) -> Option<Arc<Piece>> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries.pieces.iter().rev().find(|(of, _)| *of == place);
        found.map(|(_, piece)| Arc::clone(piece))
    }

    pub(crate) fn put(&self, place: Place, piece: &Arc<Piece>) {
        let bytes = piece.bytes();
        if bytes > MAX_BYTES {
            return;
        }
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.pieces.push_back((place, Arc::clone(piece)));
        entries.bytes += bytes;
        while entries.bytes > MAX_BYTES
            && let Some((_, oldest)) = entries.pieces.pop_front()
        {
            entries.bytes -= oldest.bytes();
        }
    }
}
