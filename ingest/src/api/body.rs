//! Bodies as they arrive, and what they unpack to.
//!
//! A body is never held whole here (L8), and never believed before it is: a length that does not match, a chunked
//! body that is cut, a gzip trailer that is missing or wrong are all failures. gzip is unpacked by ourselves, so that
//! its trailer is checked and what it grows to is bounded.

use std::{io::Write, time::Duration};

use bytes::Bytes;
use entra::error::causes;
use flate2::write::MultiGzDecoder;
use reqwest::{Response, header::CONTENT_ENCODING};
use tokio::time::{Instant, timeout_at};

use super::{
    Timeouts,
    error::{ApiError, Wait},
};

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// As it is.
    Plain,
    /// gzip, in one or several members.
    Gzip,
}

/// The body of an answer, on its way.
#[derive(Debug)]
pub struct Body {
    response: Response,
    packing: Packing,
    stall: Duration,
    whole: Duration,
    deadline: Instant,
}

impl Body {
    pub(crate) fn new(response: Response, timeouts: &Timeouts) -> Result<Self, ApiError> {
        let encoding = match response.headers().get(CONTENT_ENCODING) {
            None => String::new(),
            Some(value) => String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase(),
        };
        let packing = match encoding.as_str() {
            "" | "identity" => Packing::Plain,
            "gzip" | "x-gzip" => Packing::Gzip,
            _ => return Err(ApiError::Encoding { encoding: super::refusal::scrub(&encoding, None) }),
        };
        Ok(Self {
            response,
            packing,
            stall: timeouts.stall,
            whole: timeouts.whole_body,
            deadline: Instant::now() + timeouts.whole_body,
        })
    }

    /// How the bytes of [`Body::chunk`] are packed.
    #[must_use]
    pub const fn packing(&self) -> Packing {
        self.packing
    }

    /// Only now it is read: the time that it may take begins.
    pub(crate) fn begin(&mut self) {
        self.deadline = Instant::now() + self.whole;
    }

    /// The next bytes, still packed; `None` at the body's end.
    ///
    /// # Errors
    ///
    /// When nothing comes for too long, the whole takes too long, or the body ends before its announced length.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        let stalled = Instant::now() + self.stall;
        match timeout_at(stalled.min(self.deadline), self.response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(ApiError::Damaged { cause: causes(error) }),
            Err(_) if self.deadline <= stalled => {
                Err(ApiError::TimedOut { waited_for: Wait::WholeBody, after: self.whole })
            }
            Err(_) => Err(ApiError::TimedOut { waited_for: Wait::NextBytes, after: self.stall }),
        }
    }

    /// Reads a body that is known to be small, such as a page of a listing.
    pub(crate) async fn whole(mut self, what: &'static str, limit: u64) -> Result<Vec<u8>, ApiError> {
        let mut unpacker = Unpacker::new(self.packing, what, limit);
        let mut whole = Vec::new();
        let mut keep = |bytes: &[u8]| {
            whole.extend_from_slice(bytes);
            Ok::<(), ApiError>(())
        };
        while let Some(chunk) = self.chunk().await? {
            unpacker.push(&chunk, &mut keep)?;
        }
        unpacker.finish(&mut keep)?;
        Ok(whole)
    }

    /// Reads the beginning of an answer that is an error: whatever comes of it is good enough.
    pub(crate) async fn beginning(mut self, limit: usize) -> Vec<u8> {
        let mut beginning = Beginning::new(self.packing, limit);
        while !beginning.is_full()
            && let Ok(Some(chunk)) = self.chunk().await
            && beginning.push(&chunk)
        {}
        beginning.end()
    }
}

/// The first bytes of a body, unpacked, whatever follows them.
struct Beginning {
    unpacker: Unpacker,
    kept: Vec<u8>,
    limit: usize,
}

impl Beginning {
    fn new(packing: Packing, limit: usize) -> Self {
        Self { unpacker: Unpacker::new(packing, "error", u64::MAX), kept: Vec::new(), limit }
    }

    fn is_full(&self) -> bool {
        self.kept.len() >= self.limit
    }

    /// Whether more can be unpacked.
    fn push(&mut self, chunk: &[u8]) -> bool {
        self.unpacker.push(chunk, &mut keep(&mut self.kept, self.limit)).is_ok()
    }

    fn end(self) -> Vec<u8> {
        let Self { unpacker, mut kept, limit } = self;
        let _ = unpacker.finish(&mut keep(&mut kept, limit));
        kept
    }
}

fn keep(kept: &mut Vec<u8>, limit: usize) -> impl FnMut(&[u8]) -> Result<(), ApiError> {
    move |bytes| {
        let room = limit.saturating_sub(kept.len()).min(bytes.len());
        kept.extend_from_slice(&bytes[..room]);
        Ok(())
    }
}

/// Unpacks a body chunk by chunk, and checks its trailer at the end.
pub struct Unpacker {
    packed: Option<MultiGzDecoder<Vec<u8>>>,
    what: &'static str,
    limit: u64,
    unpacked: u64,
}

impl Unpacker {
    /// Unpacks at most `limit` bytes of a body of `what`.
    #[must_use]
    pub fn new(packing: Packing, what: &'static str, limit: u64) -> Self {
        let packed = (packing == Packing::Gzip).then(|| MultiGzDecoder::new(Vec::new()));
        Self { packed, what, limit, unpacked: 0 }
    }

    /// Hands what the next bytes unpack to on, in pieces of at most the chunk's size or 64 KiB.
    ///
    /// # Errors
    ///
    /// What `sink` returned, or [`ApiError::Damaged`] or [`ApiError::TooLarge`]; nothing more can then be unpacked.
    pub fn push<E: From<ApiError>>(
        &mut self,
        mut bytes: &[u8],
        sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(decoder) = &mut self.packed else {
            count(&mut self.unpacked, bytes, self.what, self.limit)?;
            return sink(bytes);
        };
        while !bytes.is_empty() {
            // One write unpacks at most the decoder's own buffer, however much the bytes grow.
            let taken = decoder.write(bytes).map_err(|error| damaged(&error))?;
            if taken == 0 {
                return Err(
                    ApiError::Damaged { cause: "bytes follow the end of the gzip data".to_owned() }.into()
                );
            }
            bytes = &bytes[taken..];
            let unpacked = decoder.get_mut();
            count(&mut self.unpacked, unpacked, self.what, self.limit)?;
            if !unpacked.is_empty() {
                sink(unpacked)?;
            }
            unpacked.clear();
        }
        Ok(())
    }

    /// Ends the body: hands on what is left and checks the trailer.
    ///
    /// # Errors
    ///
    /// As [`Unpacker::push`].
    pub fn finish<E: From<ApiError>>(
        mut self,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(decoder) = self.packed.take() else { return Ok(()) };
        let rest = decoder.finish().map_err(|error| damaged(&error))?;
        count(&mut self.unpacked, &rest, self.what, self.limit)?;
        if rest.is_empty() { Ok(()) } else { sink(&rest) }
    }

    /// How many bytes came out so far.
    #[must_use]
    pub const fn unpacked(&self) -> u64 {
        self.unpacked
    }
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker")
            .field("gzip", &self.packed.is_some())
            .field("unpacked", &self.unpacked)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

fn count(sum: &mut u64, bytes: &[u8], what: &'static str, limit: u64) -> Result<(), ApiError> {
    *sum += bytes.len() as u64;
    if *sum > limit { Err(ApiError::TooLarge { what, limit }) } else { Ok(()) }
}

fn damaged(error: &std::io::Error) -> ApiError {
    ApiError::Damaged { cause: format!("gzip: {error}") }
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(
        packing: Packing,
        packed: &[u8],
        chunk: usize,
        limit: u64,
    ) -> Result<(Vec<u8>, usize), ApiError> {
        let mut unpacker = Unpacker::new(packing, "test", limit);
        let (mut all, mut largest) = (Vec::new(), 0);
        let mut sink = |bytes: &[u8]| {
            all.extend_from_slice(bytes);
            largest = largest.max(bytes.len());
            Ok::<(), ApiError>(())
        };
        for chunk in packed.chunks(chunk) {
            unpacker.push(chunk, &mut sink)?;
        }
        unpacker.finish(&mut sink)?;
        Ok((all, largest))
    }

    #[test]
    fn what_little_grows_to_comes_in_small_pieces_and_is_bounded() {
        let bomb = gzip(&vec![b' '; 8 << 20]);
        assert!(bomb.len() < 128 * 1024);
        let (all, largest) = unpack(Packing::Gzip, &bomb, bomb.len(), 8 << 20).unwrap();
        assert_eq!(all.len(), 8 << 20);
        assert!(largest <= 64 * 1024, "{largest}");
        let mut seen = 0;
        let mut unpacker = Unpacker::new(Packing::Gzip, "blob", 1 << 20);
        let error = unpacker
            .push(&bomb, &mut |bytes| {
                seen += bytes.len();
                Ok::<(), ApiError>(())
            })
            .unwrap_err();
        assert!(matches!(error, ApiError::TooLarge { what: "blob", limit: 1_048_576 }), "{error:?}");
        assert!(seen <= 1 << 20);
        assert!(matches!(unpack(Packing::Plain, b"12345", 2, 4), Err(ApiError::TooLarge { limit: 4, .. })));
    }

    #[test]
    fn of_an_error_page_of_any_length_the_beginning_is_kept() {
        let page = [b"<html>blocked by policy ".as_slice(), &vec![b'x'; 100_000]].concat();
        for (packing, packed) in [(Packing::Plain, page.clone()), (Packing::Gzip, gzip(&page))] {
            for chunk in [7, 5000, packed.len()] {
                let mut beginning = Beginning::new(packing, 300);
                for chunk in packed.chunks(chunk) {
                    if beginning.is_full() || !beginning.push(chunk) {
                        break;
                    }
                }
                assert!(beginning.end() == page[..300], "{packing:?} in chunks of {chunk}");
            }
        }
    }

    #[test]
    fn a_body_cut_anywhere_or_with_a_wrong_trailer_is_damaged() {
        let packed = gzip(br#"[{"Id":1},{"Id":2}]"#);
        for end in 0..packed.len() {
            assert!(unpack(Packing::Gzip, &packed[..end], 7, 1000).is_err(), "{end}");
        }
        for at in packed.len() - 8..packed.len() {
            let mut wrong = packed.clone();
            wrong[at] ^= 1;
            assert!(unpack(Packing::Gzip, &wrong, 7, 1000).is_err(), "{at}");
        }
        let trailing = [packed.as_slice(), b"<html>"].concat();
        assert!(unpack(Packing::Gzip, &trailing, 7, 1000).is_err());
        assert!(unpack(Packing::Gzip, b"[plain]", 7, 1000).is_err());
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_out_however_it_is_cut(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 1..4),
            chunk in 1usize..500,
        ) {
            let packed: Vec<u8> = parts.iter().flat_map(|part| gzip(part)).collect();
            let plain = parts.concat();
            prop_assert_eq!(&unpack(Packing::Gzip, &packed, chunk, 100_000).unwrap().0, &plain);
            prop_assert_eq!(&unpack(Packing::Plain, &plain, chunk, 100_000).unwrap().0, &plain);
        }

        #[test]
        fn damage_is_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..300, chunk in 1usize..50) {
            let mut packed = gzip(&bytes);
            let at = at % packed.len();
            packed[at] ^= 0x55;
            if let Ok((all, _)) = unpack(Packing::Gzip, &packed, chunk, 100_000) {
                // Only the header's fields that say nothing of the data can change unnoticed.
                prop_assert!(at < 10 && all == bytes);
            }
        }
    }
}
