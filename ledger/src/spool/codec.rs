//! Compression of pieces: none while the spool is nearly empty, else zstd at its fastest useful level.
//!
//! A body that every sink takes within moments is written, read once and removed: packing it would only cost. Once bodies
//! pile up, room is what counts.
//!
//! Measured on audit records (`cargo bench -p ledger --bench intake`, figures in docs/ledger-store.md): level -5 takes
//! half of the CPU time of level 1 and still makes the bodies nearly four times smaller, so that the spool's bound holds
//! four times as much, and less has to be written than without compression.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use schemas::Buffer;
use zstd::bulk::{Compressor, Decompressor};

/// The zstd level. Negative levels trade ratio for speed.
pub(crate) const LEVEL: i32 = -5;

/// Contexts are kept for the next piece, because making one costs more than a small piece does. There are
/// never more than are in use at the same time.
#[derive(Default)]
pub(crate) struct Codecs {
    compressors: Pool<Compressor<'static>>,
    decompressors: Pool<Decompressor<'static>>,
    /// Whether room counts more than time.
    packing: AtomicBool,
}

/// Contexts of each kind that are kept while nobody uses them.
const KEPT: usize = 4;

struct Pool<T>(Mutex<Vec<T>>);

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Pool<T> {
    fn take(&self) -> Option<T> {
        self.0.lock().ok()?.pop()
    }

    fn keep(&self, thing: T) {
        if let Ok(mut kept) = self.0.lock()
            && kept.len() < KEPT
        {
            kept.push(thing);
        }
    }
}

impl Codecs {
    /// Says whether pieces are worth packing from now on, because bodies pile up.
    pub(crate) fn set_packing(&self, packing: bool) {
        self.packing.store(packing, Ordering::Relaxed);
    }

    /// Whether pieces are worth packing.
    pub(crate) fn packing(&self) -> bool {
        self.packing.load(Ordering::Relaxed)
    }

    /// Appends the compressed bytes to `out`. False, with nothing appended, when that is not worth it.
    pub(crate) fn compress(&self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(mut compressor) = self.compressors.take().or_else(|| Compressor::new(LEVEL).ok()) else {
            return false;
        };
        // What needs more room than nine tenths is stored as it is.
        let worth_it = bytes.len() / 10 * 9;
        let mut packed = Buffer::with_room(worth_it);
        let compressed = compressor.compress_to_buffer(bytes, &mut *packed);
        self.compressors.keep(compressor);
        let worth_it = compressed.is_ok_and(|length| length <= worth_it);
        if worth_it {
            out.extend_from_slice(&packed);
        }
        worth_it
    }

    /// Decompresses bytes that must give exactly `length`; `None` when they do not.
    pub(crate) fn decompress(&self, bytes: &[u8], length: usize) -> Option<Buffer> {
        let mut decompressor = self.decompressors.take().or_else(|| Decompressor::new().ok())?;
        let mut out = Buffer::with_room(length);
        let result = decompressor.decompress_to_buffer(bytes, &mut *out);
        self.decompressors.keep(decompressor);
        result.is_ok_and(|written| written == length).then_some(out)
    }
}
