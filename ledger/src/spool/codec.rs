//! Compression of pieces: zstd at its fastest useful level.
//!
//! Measured on audit records (`cargo bench -p ledger --bench intake`, figures in docs/ledger-store.md): level -5 takes
//! half of the CPU time of level 1 and still makes the bodies nearly four times smaller, so that the spool's bound holds
//! four times as much, and less has to be written than without compression.

use std::sync::Mutex;

use zstd::bulk::{Compressor, Decompressor};

/// The zstd level. Negative levels trade ratio for speed.
pub(crate) const LEVEL: i32 = -5;

/// Contexts and buffers are kept for the next piece, because making one costs more than a small piece does. There are
/// never more than are in use at the same time.
#[derive(Default)]
pub(crate) struct Codecs {
    packers: Pool<Packer>,
    decompressors: Pool<Decompressor<'static>>,
    buffers: Pool<Vec<u8>>,
}

struct Packer {
    compressor: Compressor<'static>,
    /// What a piece was compressed to.
    packed: Vec<u8>,
}

/// Things of each kind that are kept while nobody uses them.
const KEPT: usize = 4;

/// Longer buffers, left by single large records, are not kept.
const KEPT_BYTES: usize = 512 << 10;

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
    /// An empty buffer, perhaps with room for a piece.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        self.buffers.take().unwrap_or_default()
    }

    /// Takes back a buffer that is not needed any more.
    pub(crate) fn keep_buffer(&self, mut buffer: Vec<u8>) {
        if (1..=KEPT_BYTES).contains(&buffer.capacity()) {
            buffer.clear();
            self.buffers.keep(buffer);
        }
    }

    /// Appends the compressed bytes to `out`. False, with nothing appended, when that is not worth it.
    pub(crate) fn compress(&self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        let mut packer = match self.packers.take() {
            Some(packer) => packer,
            None => match Compressor::new(LEVEL) {
                Ok(compressor) => Packer { compressor, packed: Vec::new() },
                Err(_) => return false,
            },
        };
        // What needs more room than nine tenths is stored as it is.
        let worth_it = bytes.len() / 10 * 9;
        packer.packed.clear();
        packer.packed.reserve(worth_it);
        let compressed = packer.compressor.compress_to_buffer(bytes, &mut packer.packed);
        let worth_it = compressed.is_ok_and(|length| length <= worth_it);
        if worth_it {
            out.extend_from_slice(&packer.packed);
        }
        if packer.packed.capacity() <= KEPT_BYTES {
            self.packers.keep(packer);
        }
        worth_it
    }

    /// Decompresses bytes that must give exactly `length`; `None` when they do not.
    pub(crate) fn decompress(&self, bytes: &[u8], length: usize) -> Option<Vec<u8>> {
        let mut decompressor = self.decompressors.take().or_else(|| Decompressor::new().ok())?;
        let result = decompressor.decompress(bytes, length);
        self.decompressors.keep(decompressor);
        result.ok().filter(|bytes| bytes.len() == length)
    }
}
