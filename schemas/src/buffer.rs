//! Buffers that are used again.
//!
//! Pieces of blobs come and go a thousand times a second, each in buffers of some hundred kilobytes. A fresh buffer of
//! that size costs a page fault for every 4 KiB of it, which is as much as filling it does. So a few that were let go
//! are kept for the next ones.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
};

/// The lengths of buffers that are worth keeping: smaller ones are cheap, larger ones are left by single large records.
const KEPT_LENGTHS: std::ops::RangeInclusive<usize> = 32 << 10..=1 << 20;

/// Bytes that are kept at most. What is in use is counted by whoever uses it.
const KEPT_BYTES: usize = 6 << 20;

static SPARE: Mutex<Spare> = Mutex::new(Spare { buffers: Vec::new(), bytes: 0 });

struct Spare {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Spare {
    /// The smallest buffer with so much room.
    fn take(&mut self, room: usize) -> Option<Vec<u8>> {
        let fits = self.buffers.iter().enumerate().filter(|(_, buffer)| buffer.capacity() >= room);
        let (at, _) = fits.min_by_key(|(_, buffer)| buffer.capacity())?;
        let buffer = self.buffers.swap_remove(at);
        self.bytes -= buffer.capacity();
        Some(buffer)
    }

    fn keep(&mut self, mut buffer: Vec<u8>) {
        let length = buffer.capacity();
        if KEPT_LENGTHS.contains(&length) && self.bytes + length <= KEPT_BYTES {
            buffer.clear();
            self.bytes += length;
            self.buffers.push(buffer);
        }
    }
}

/// A buffer for bytes that is used again when it is dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// An empty buffer with room for so many bytes.
    #[must_use]
    pub fn with_room(bytes: usize) -> Self {
        let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).take(bytes);
        Self(spare.unwrap_or_else(|| Vec::with_capacity(bytes)))
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if KEPT_LENGTHS.contains(&self.0.capacity()) {
            let buffer = std::mem::take(&mut self.0);
            SPARE.lock().unwrap_or_else(PoisonError::into_inner).keep(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_let_go_comes_again_empty_and_no_more_is_kept_than_allowed() {
        let mut spare = Spare { buffers: Vec::new(), bytes: 0 };
        for length in [1000, 64 << 10, 200 << 10, 2 << 20] {
            let mut buffer = Vec::with_capacity(length);
            buffer.push(b'x');
            spare.keep(buffer);
        }
        assert_eq!(spare.buffers.len(), 2, "neither small nor huge ones");
        let taken = spare.take(50 << 10).unwrap();
        assert!(taken.is_empty() && (64 << 10..200 << 10).contains(&taken.capacity()));
        assert!(spare.take(1 << 20).is_none());
        (0..100).for_each(|_| spare.keep(Vec::with_capacity(1 << 20)));
        assert!(spare.bytes <= KEPT_BYTES);
        assert_eq!(spare.bytes, spare.buffers.iter().map(Vec::capacity).sum::<usize>());
    }
}
