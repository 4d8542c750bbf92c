//! Compression of pieces: zstd at its fastest useful level.
//!
//! Measured on audit records (`cargo bench -p ledger --bench intake`, figures in docs/ledger-store.md): level -5 takes
//! half of the CPU time of level 1 and still makes the bodies nearly four times smaller, so that the spool's bound holds
//! four times as much, and less has to be written than without compression.

use std::sync::Mutex;

use zstd::bulk::{Compressor, Decompressor};

/// The zstd level. Negative levels trade ratio for speed.
pub(crate) const LEVEL: i32 = -5;

/// Contexts are kept for the next piece, because making one costs more than a small piece does. There are never more
/// than are in use at the same time.
#[derive(Default)]
pub(crate) struct Codecs {
    compressors: Mutex<Vec<Compressor<'static>>>,
    decompressors: Mutex<Vec<Decompressor<'static>>>,
}

/// Contexts of each kind that are kept while nobody uses them.
const KEPT: usize = 2;

impl Codecs {
    /// Appends the compressed bytes to `out`. False, with anything appended, when that is not worth it.
    pub(crate) fn compress(&self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        let mut compressor = match take(&self.compressors) {
            Some(compressor) => compressor,
            None => match Compressor::new(LEVEL) {
                Ok(compressor) => compressor,
                Err(_) => return false,
            },
        };
        let at = out.len();
        // What needs more room than nine tenths is stored as it is.
        out.resize(at + bytes.len() / 10 * 9, 0);
        let written = compressor.compress_to_buffer(bytes, &mut out[at..]);
        keep(&self.compressors, compressor);
        match written {
            Ok(written) => {
                out.truncate(at + written);
                true
            }
            Err(_) => false,
        }
    }

    /// Decompresses bytes that must give exactly `length`; `None` when they do not.
    pub(crate) fn decompress(&self, bytes: &[u8], length: usize) -> Option<Vec<u8>> {
        let mut decompressor = take(&self.decompressors).or_else(|| Decompressor::new().ok())?;
        let result = decompressor.decompress(bytes, length);
        keep(&self.decompressors, decompressor);
        result.ok().filter(|bytes| bytes.len() == length)
    }
}

fn take<T>(pool: &Mutex<Vec<T>>) -> Option<T> {
    pool.lock().ok()?.pop()
}

fn keep<T>(pool: &Mutex<Vec<T>>, context: T) {
    if let Ok(mut pool) = pool.lock()
        && pool.len() < KEPT
    {
        pool.push(context);
    }
}
