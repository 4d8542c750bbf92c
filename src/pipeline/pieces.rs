//! Pieces of blobs that were read lately, so that sinks that are near each other read and unpack each piece once.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use ledger::{Piece, WorkId};

/// What the cache may hold, in bytes. It is a part of the memory that mailtrail may take in all, and enough for the
/// last few blobs; a sink that is farther behind reads for itself.
const MAX_BYTES: usize = 4 << 20;

#[derive(Debug, Default)]
struct Entries {
    /// The oldest first.
    pieces: VecDeque<(WorkId, u32, Arc<Piece>)>,
    bytes: usize,
}

/// Pieces that were read lately, by their work and first position.
#[derive(Debug, Default)]
pub(crate) struct Pieces(Mutex<Entries>);

impl Pieces {
    pub(crate) fn get(&self, work: WorkId, from: u32) -> Option<Arc<Piece>> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries.pieces.iter().rev().find(|(of, at, _)| (*of, *at) == (work, from));
        found.map(|(_, _, piece)| Arc::clone(piece))
    }

    pub(crate) fn put(&self, work: WorkId, from: u32, piece: &Arc<Piece>) {
        let bytes = piece.bytes();
        if bytes > MAX_BYTES {
            return;
        }
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.pieces.push_back((work, from, Arc::clone(piece)));
        entries.bytes += bytes;
        while entries.bytes > MAX_BYTES
            && let Some((_, _, oldest)) = entries.pieces.pop_front()
        {
            entries.bytes -= oldest.bytes();
        }
    }
}
