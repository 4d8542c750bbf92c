//! The blocking half of a fetch: unpacks a body as it arrives and hands it to the ledger's [`BodyWriter`].
//!
//! It runs on a blocking thread, fed through a small channel. The body is ended only by a parcel that says that it is the
//! last one, which is sent when all of it came: a channel that is dropped before leaves no trace in the ledger (L2, L7).
//!
//! A body that does not begin with `[` never reaches the ledger: it is an error answer with the wrong status, or the
//! page of something on the way, and no proof that the blob itself is broken.

use bytes::Bytes;
use reqwest::StatusCode;
use tokio::sync::mpsc;

use crate::{
    api::{
        ApiError, Refusal,
        body::{Packing, Unpacker},
        error::BLOB,
    },
    feed_ledger::{BodyError, BodyWriter, Finishing},
    places::{Place, WRITER},
};

/// How much of a body that is no array is kept, to find the error in it.
const ODD_BYTES: usize = 16 << 10;

/// What comes through the channel: the next bytes of the body, as they came.
#[derive(Debug, Default)]
pub(crate) struct Parcel {
    pub(crate) parts: Vec<Bytes>,
    /// There are no more, and all came.
    pub(crate) last: bool,
}

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Body(#[from] BodyError),
    /// It is too large to be taken in while another large body is. Nothing is wrong with it.
    #[error("it is large, and another large body is being taken in")]
    Outgrown,
    /// The other half went away: nothing more is known here.
    #[error("the fetch was abandoned")]
    Abandoned,
    /// The collector stops.
    #[error("stopped")]
    Stopped,
    #[error("a panic: {message}; this is a mistake of mailtrail, report it")]
    Panicked { message: String },
}

/// What the first byte of a body says that it is.
enum Kind {
    /// Nothing but white space so far.
    Unknown,
    /// An array: for the ledger.
    Array,
    /// Something else, of which the beginning is kept.
    Odd(Vec<u8>),
}

struct Intake {
    writer: Box<dyn BodyWriter>,
    place: Place,
    kind: Kind,
    /// Bytes of a byte order mark that were skipped.
    mark: usize,
    /// The writer found the body broken.
    broken: bool,
}

impl Intake {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), FetchError> {
        if matches!(self.kind, Kind::Unknown) {
            while self.mark < 3 && bytes.first() == Some(&b"\xef\xbb\xbf"[self.mark]) {
                self.mark += 1;
                bytes = &bytes[1..];
            }
            if let Some(first) = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
                self.kind = if *first == b'[' { Kind::Array } else { Kind::Odd(Vec::new()) };
            }
        }
        match &mut self.kind {
            Kind::Unknown => Ok(()),
            Kind::Odd(kept) => {
                let room = ODD_BYTES.saturating_sub(kept.len()).min(bytes.len());
                kept.extend_from_slice(&bytes[..room]);
                Ok(())
            }
            // After an error the writer takes no more, but the rest is still read: only a body that came whole is
            // worth recording as broken.
            Kind::Array if self.broken => Ok(()),
            Kind::Array => match self.writer.write(bytes) {
                Err(BodyError::Split(_)) => {
                    self.broken = true;
                    Ok(())
                }
                Ok(()) if self.writer.memory() > WRITER && !self.place.grow() => Err(FetchError::Outgrown),
                other => Ok(other?),
            },
        }
    }

    fn end(mut self) -> Result<(Finishing, Place), FetchError> {
        match self.kind {
            Kind::Array => {
                let memory = self.writer.memory();
                let finishing = self.writer.finish()?;
                self.place.shrink(memory);
                Ok((finishing, self.place))
            }
            Kind::Unknown => Err(ApiError::Damaged { cause: "it is empty".to_owned() }.into()),
            Kind::Odd(kept) => {
                let refusal = Refusal::read(StatusCode::OK, &kept, None, None);
                Err(if refusal.code.is_some() {
                    refusal.into()
                } else {
                    ApiError::NotAList { excerpt: refusal.message }
                }
                .into())
            }
        }
    }
}

/// Takes a body in. Blocks until it has come to its end; what it returns tells when it is durable, and is the place that
/// it has until then.
///
/// # Errors
///
/// When the body is damaged, too large, no array, has outgrown its place, or the ledger does not take it.
pub(crate) fn take_body(
    mut parcels: mpsc::Receiver<Parcel>,
    writer: Box<dyn BodyWriter>,
    place: Place,
    packing: Packing,
    limit: u64,
) -> Result<(Finishing, Place), FetchError> {
    let mut intake = Intake { writer, place, kind: Kind::Unknown, mark: 0, broken: false };
    let mut unpacker = Unpacker::new(packing, BLOB, limit);
    loop {
        let Some(Parcel { parts, last }) = parcels.blocking_recv() else { return Err(FetchError::Abandoned) };
        for part in parts {
            unpacker.push(&part, &mut |bytes| intake.take(bytes))?;
        }
        if last {
            unpacker.finish(&mut |bytes| intake.take(bytes))?;
            return intake.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures_util::FutureExt;
    use proptest::prelude::*;
    use schemas::{GapReason, Seq, Splitter};

    use super::*;
    use crate::{Places, api::Action, feed_ledger::Spooled};

    #[derive(Default, Clone)]
    struct Kept(Arc<Mutex<(Vec<u8>, u32)>>);

    struct Writer {
        kept: Kept,
        splitter: Splitter,
        records: u32,
        failed: bool,
    }

    impl BodyWriter for Writer {
        fn write(&mut self, bytes: &[u8]) -> Result<(), BodyError> {
            assert!(!self.failed, "written after an error");
            self.kept.0.lock().unwrap().0.extend_from_slice(bytes);
            let records = &mut self.records;
            let pushed = self.splitter.push(bytes, &mut |_, _| *records += 1);
            self.failed = pushed.is_err();
            Ok(pushed?)
        }

        fn memory(&self) -> usize {
            self.splitter.carried_bytes()
        }

        fn finish(self: Box<Self>) -> Result<Finishing, BodyError> {
            let mut kept = self.kept.0.lock().unwrap();
            kept.1 += 1;
            if self.failed {
                return Err(schemas::SplitError::Malformed { at: 0, found: 0 }.into());
            }
            self.splitter.finish()?;
            let bytes = kept.0.len() as u64;
            let spooled = Spooled { seq: Seq(1), records: self.records, duplicates: 0, bytes };
            Ok(Box::pin(std::future::ready(Ok(spooled))))
        }
    }

    /// Runs an intake; returns what it said, what the ledger was given, and how often it was ended.
    fn take(chunks: Vec<&[u8]>, end: bool) -> (Result<Spooled, FetchError>, Vec<u8>, u32) {
        let kept = Kept::default();
        let writer = Writer { kept: kept.clone(), splitter: Splitter::new(), records: 0, failed: false };
        let (sender, receiver) = mpsc::channel(1000);
        for chunk in chunks {
            let parts = vec![Bytes::copy_from_slice(chunk)];
            sender.try_send(Parcel { parts, last: false }).unwrap();
        }
        if end {
            sender.try_send(Parcel { parts: Vec::new(), last: true }).unwrap();
        }
        drop(sender);
        let place = Places::new().of_a_tenant().ordinary().now_or_never().expect("a place is free");
        let taken = take_body(receiver, Box::new(writer), place, Packing::Plain, 4 << 20).and_then(
            |(finishing, _)| Ok(finishing.now_or_never().expect("this ledger is durable at once")?),
        );
        let (bytes, ended) = kept.0.lock().unwrap().clone();
        (taken, bytes, ended)
    }

    #[test]
    fn an_array_is_handed_on_as_it_came_but_for_the_byte_order_mark() {
        for chunks in [
            vec![b"[{},".as_slice(), b"{}]"],
            vec![b"\xef", b"\xbb\xbf[", b"{},{}]"],
            vec![b"\xef\xbb\xbf", b"", b"[{},{}]"],
        ] {
            let (taken, bytes, ended) = take(chunks, true);
            assert_eq!(taken.unwrap().records, 2);
            assert_eq!((bytes.as_slice(), ended), (b"[{},{}]".as_slice(), 1));
        }
    }

    #[test]
    fn l2_a_body_without_its_end_is_never_ended() {
        let (taken, _, ended) = take(vec![b"[{},{}]"], false);
        assert!(matches!(taken, Err(FetchError::Abandoned)));
        assert_eq!(ended, 0);
    }

    #[test]
    fn what_is_no_array_never_reaches_the_ledger() {
        let (taken, bytes, ended) =
            take(vec![b" \n", br#"{"error":{"code":"#, br#""AF20051","message":"x"}}"#], true);
        let Err(FetchError::Api(error)) = taken else { panic!("{taken:?}") };
        assert_eq!(error.action(), Action::Gap(GapReason::Expired));
        assert_eq!((bytes.len(), ended), (0, 0));
        for body in [b"<html>log in</html>".as_slice(), b"null", b"\"x\"", b"", b"  ", b"{}"] {
            let (taken, bytes, ended) = take(vec![body], true);
            let Err(FetchError::Api(error)) = taken else { panic!("{taken:?}") };
            assert_eq!(error.action(), Action::Retry);
            assert_eq!((bytes.len(), ended), (0, 0));
        }
    }

    #[test]
    fn a_broken_array_is_recorded_as_broken_only_when_all_of_it_came() {
        let (taken, _, ended) = take(vec![b"[{}}", b"more"], true);
        assert!(matches!(taken, Err(FetchError::Body(BodyError::Split(_)))), "{taken:?}");
        assert_eq!(ended, 1);
        let (taken, _, ended) = take(vec![b"[{}}", b"more"], false);
        assert!(matches!(taken, Err(FetchError::Abandoned)), "{taken:?}");
        assert_eq!(ended, 0);
        let (taken, _, _) = take(vec![b"[{},{"], true);
        assert!(matches!(taken, Err(FetchError::Body(BodyError::Split(_)))), "{taken:?}");
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_ledger_gets_the_same(mark in any::<bool>(), blanks in "[ \\n]{0,3}", chunk in 1usize..9) {
            let body = format!("{}{blanks}[{{\"a\":1}},{{}}]", if mark { "\u{feff}" } else { "" });
            let (taken, bytes, ended) = take(body.as_bytes().chunks(chunk).collect(), true);
            prop_assert_eq!(taken.unwrap().records, 2);
            let expected: &[u8] = b"[{\"a\":1},{}]";
            prop_assert!(bytes.ends_with(expected));
            prop_assert_eq!(ended, 1);
        }
    }
}
