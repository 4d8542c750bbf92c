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

/// How many times as large as what is asked for a buffer may be.
const WASTE: usize = 4;

/// What room for more than a kept buffer takes at least: the allocator (glibc) gets so much from the system by itself and gives
/// it back as soon as it is let go, instead of keeping it for the thread; and it grows without being copied. Only what is written
/// to takes memory.
const ROOM_OF_ITS_OWN: usize = 33 << 20;

static SPARE: Mutex<Spare> = Mutex::new(Spare { buffers: Vec::new(), bytes: 0 });

struct Spare {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Spare {
    /// The smallest buffer with so much room, and with what was in it. None that is far too large: it would be held by
    /// a few bytes.
    fn take(&mut self, room: usize) -> Option<Vec<u8>> {
        let lengths = room..=room.saturating_mul(WASTE);
        let fits = self.buffers.iter().enumerate().filter(|(_, buffer)| lengths.contains(&buffer.capacity()));
        let (at, _) = fits.min_by_key(|(_, buffer)| buffer.capacity())?;
        let buffer = self.buffers.swap_remove(at);
        self.bytes -= buffer.capacity();
        Some(buffer)
    }

    fn keep(&mut self, buffer: Vec<u8>) {
        let length = buffer.capacity();
        if KEPT_LENGTHS.contains(&length) && self.bytes + length <= KEPT_BYTES {
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
        let mut buffer = Self::used(bytes);
        buffer.clear();
        buffer
    }

    /// A buffer of so many bytes, which are whatever they were before: for those who overwrite all of them.
    #[must_use]
    pub fn of_length(bytes: usize) -> Self {
        let mut buffer = Self::used(bytes);
        buffer.resize(bytes, 0);
        buffer
    }

    fn used(room: usize) -> Self {
        let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).take(room);
        Self(spare.unwrap_or_else(|| Vec::with_capacity(room)))
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

/// Makes room for so many more elements in a vector that may become very large.
pub fn make_room<T>(vector: &mut Vec<T>, more: usize) {
    let needed = vector.len().saturating_add(more);
    if needed > vector.capacity() && needed.saturating_mul(size_of::<T>()) > *KEPT_LENGTHS.end() {
        let room = needed.max(vector.capacity() * 2).max(ROOM_OF_ITS_OWN / size_of::<T>().max(1));
        vector.reserve_exact(room - vector.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_let_go_comes_again_and_no_more_is_kept_than_allowed() {
        let mut spare = Spare { buffers: Vec::new(), bytes: 0 };
        for length in [1000, 64 << 10, 200 << 10, 2 << 20] {
            let mut buffer = Vec::with_capacity(length);
            buffer.push(b'x');
            spare.keep(buffer);
        }
        assert_eq!(spare.buffers.len(), 2, "neither small nor huge ones");
        let taken = spare.take(50 << 10).unwrap();
        assert!((64 << 10..200 << 10).contains(&taken.capacity()));
        assert!(spare.take(40 << 10).is_none(), "what is left is far too large");
        assert!(spare.take(1 << 20).is_none());
        (0..100).for_each(|_| spare.keep(Vec::with_capacity(1 << 20)));
        assert!(spare.bytes <= KEPT_BYTES);
        assert_eq!(spare.bytes, spare.buffers.iter().map(Vec::capacity).sum::<usize>());
    }

    #[test]
    fn buffers_have_the_length_that_was_asked_for() {
        for length in [0, 10, 40 << 10, 50 << 10, 33 << 10] {
            assert!(Buffer::with_room(length).is_empty());
            let mut buffer = Buffer::of_length(length);
            assert_eq!(buffer.len(), length);
            buffer.fill(b'x');
        }
    }
}
