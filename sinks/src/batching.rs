//! From pieces of blobs to batches. Pure: no clock, no I/O.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    ops::Range,
    sync::Arc,
};

use crate::{
    delivery_ledger::{Work, WorkId},
    memory::Piece,
    positions::Positions,
    sink::{Batch, BatchPart, Limits},
};

/// A range of a piece, without its bytes: enough to read it again.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    pub(crate) work: Arc<Work>,
    /// Where the piece is read from.
    pub(crate) from: u32,
    /// What of it is rendered.
    pub(crate) only: Option<Arc<BTreeSet<u32>>>,
    /// Which records of the rendered piece.
    pub(crate) indexes: Range<usize>,
    /// Where these stand in the body.
    pub(crate) positions: Positions,
    /// What the whole piece takes of memory.
    pub(crate) memory: usize,
    pub(crate) first: bool,
    pub(crate) last: bool,
}

impl Slice {
    pub(crate) fn len(&self) -> usize {
        self.indexes.len()
    }

    /// Whether the other is from the same rendered piece.
    pub(crate) fn shares_piece(&self, other: &Self) -> bool {
        let same_pass = match (&self.only, &other.only) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        self.work.id == other.work.id && self.from == other.from && same_pass
    }

    /// Cuts it before its `at`th record; both halves must have records.
    pub(crate) fn split_at(mut self, at: usize) -> (Self, Self) {
        debug_assert!(0 < at && at < self.len(), "a cut at {at} of {}", self.len());
        let mut rest = self.clone();
        rest.positions = self.positions.split_off(at);
        rest.indexes.start += at;
        rest.first = false;
        self.indexes.end = rest.indexes.start;
        self.last = false;
        (self, rest)
    }

    /// Takes records out, by index into the slice, ascending. What is left may be in several slices.
    pub(crate) fn without(self, out: &BTreeSet<usize>) -> Vec<Self> {
        let (first, last) = (self.first, self.last);
        let mut left: Vec<Self> = Vec::new();
        for (offset, (index, position)) in self.indexes.clone().zip(self.positions.iter()).enumerate() {
            if out.contains(&offset) {
                continue;
            }
            match left.last_mut() {
                Some(slice) if slice.indexes.end == index => {
                    slice.indexes.end += 1;
                    slice.positions.push(position);
                }
                _ => left.push(Self {
                    indexes: index..index + 1,
                    positions: Positions::from_iter([position]),
                    first: false,
                    last: false,
                    ..self.clone()
                }),
            }
        }
        if let Some(slice) = left.first_mut() {
            slice.first = first;
        }
        if let Some(slice) = left.last_mut() {
            slice.last = last;
        }
        left
    }

    pub(crate) fn part(&self, piece: &Arc<Piece>) -> BatchPart {
        BatchPart {
            work: Arc::clone(&self.work),
            piece: Arc::clone(piece),
            indexes: self.indexes.clone(),
            first: self.first,
            last: self.last,
        }
    }
}

/// How many records these hold.
pub(crate) fn records(slices: &[Slice]) -> usize {
    slices.iter().map(Slice::len).sum()
}

/// Cuts slices in two halves by records; there must be at least two.
pub(crate) fn halve(slices: Vec<Slice>) -> (Vec<Slice>, Vec<Slice>) {
    let at = records(&slices) / 2;
    cut(slices, at)
}

/// Cuts slices before their `at`th record; either part may be empty.
pub(crate) fn cut(slices: Vec<Slice>, at: usize) -> (Vec<Slice>, Vec<Slice>) {
    let mut left = at;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for slice in slices {
        if left == 0 {
            second.push(slice);
        } else if slice.len() <= left {
            left -= slice.len();
            first.push(slice);
        } else {
            let (one, other) = slice.split_at(left);
            left = 0;
            first.push(one);
            second.push(other);
        }
    }
    (first, second)
}

/// A slice with its bytes.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) slice: Slice,
    pub(crate) piece: Arc<Piece>,
}

/// A batch, and what is needed to make it again.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) slices: Vec<Slice>,
    pub(crate) batch: Batch,
}

/// What was read and waits to be sent, in order.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    ready: VecDeque<Ready>,
    records: usize,
    bytes: usize,
}

impl Queue {
    pub(crate) fn push(&mut self, ready: Ready) {
        self.records += ready.slice.len();
        self.bytes += ready.piece.bytes_of(ready.slice.indexes.clone());
        self.ready.push_back(ready);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Whether there is enough for a batch.
    pub(crate) fn is_full(&self, limits: &Limits) -> bool {
        self.records >= limits.max_records || self.bytes + self.records * limits.beside >= limits.max_bytes
    }

    /// How many records and bytes it holds.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.records, self.bytes)
    }

    /// How much memory is reserved for what it holds. A piece of which some is under way counts: it comes free with the rest.
    pub(crate) fn reserved(&self) -> usize {
        let pieces = self.ready.iter().map(|ready| &ready.piece);
        let before = std::iter::once(None).chain(pieces.clone().map(Some));
        let each_once =
            pieces.zip(before).filter(|(piece, before)| !before.is_some_and(|b| Arc::ptr_eq(piece, b)));
        each_once.map(|(piece, _)| piece.room().bytes()).sum()
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Removes what is of this work; returns how many records that were.
    pub(crate) fn purge(&mut self, work: WorkId) -> usize {
        let before = self.records;
        for ready in std::mem::take(self).ready {
            if ready.slice.work.id != work {
                self.push(ready);
            }
        }
        before - self.records
    }

    /// Takes the next batch off; `None` when there is nothing. Works in `alone` do not travel with others.
    pub(crate) fn take(&mut self, limits: &Limits, alone: &HashSet<WorkId>) -> Option<Outgoing> {
        let mut outgoing = Outgoing { slices: Vec::new(), batch: Batch::default() };
        let (mut records, mut bytes) = (0, 0);
        while let Some(Ready { slice, piece }) = self.ready.pop_front() {
            let size = piece.bytes_of(slice.indexes.clone());
            self.records -= slice.len();
            self.bytes -= size;
            let with_beside = size + slice.len() * limits.beside;
            let whole_fits =
                records + slice.len() <= limits.max_records && bytes + with_beside <= limits.max_bytes;
            let starts_over = match outgoing.slices.last() {
                None => false,
                Some(before) => {
                    let id = slice.work.id;
                    let other_work = before.work.id != id;
                    (other_work && (alone.contains(&id) || alone.contains(&before.work.id)))
                        || (limits.whole_works && (!whole_fits || (other_work && slice.first && !slice.last)))
                }
            };
            let fitting = if starts_over {
                0
            } else if whole_fits {
                slice.len()
            } else {
                let (max_records, max_bytes) =
                    (limits.max_records - records, limits.max_bytes.saturating_sub(bytes));
                how_many_fit(&slice, &piece, max_records, max_bytes, limits.beside)
                    .max(usize::from(records == 0))
            };
            if fitting < slice.len() {
                let rest = if fitting == 0 {
                    slice
                } else {
                    let (head, rest) = slice.split_at(fitting);
                    outgoing.batch.parts.push(head.part(&piece));
                    outgoing.slices.push(head);
                    rest
                };
                self.push_front(Ready { slice: rest, piece });
                break;
            }
            records += slice.len();
            bytes += with_beside;
            outgoing.batch.parts.push(slice.part(&piece));
            outgoing.slices.push(slice);
        }
        (!outgoing.slices.is_empty()).then_some(outgoing)
    }

    fn push_front(&mut self, ready: Ready) {
        self.records += ready.slice.len();
        self.bytes += ready.piece.bytes_of(ready.slice.indexes.clone());
        self.ready.push_front(ready);
    }
}

/// How many of a slice's first records have room.
fn how_many_fit(slice: &Slice, piece: &Piece, max_records: usize, max_bytes: usize, beside: usize) -> usize {
    let start = slice.indexes.start;
    let (mut low, mut high) = (0, slice.len().min(max_records));
    while low < high {
        let middle = (low + high).div_ceil(2);
        let size = piece.bytes_of(start..start + middle) + middle * beside;
        if size <= max_bytes { low = middle } else { high = middle - 1 }
    }
    low
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use schemas::{RecordFacts, Rendered};

    use super::*;
    use crate::{memory::Reservation, test_ledger::work};

    fn limits(max_records: usize, max_bytes: usize, whole_works: bool) -> Limits {
        Limits {
            max_records,
            max_bytes,
            beside: 0,
            linger: Duration::ZERO,
            in_flight: 1,
            ordered: true,
            timeout: Duration::from_secs(60),
            exactly_once: false,
            whole_works,
        }
    }

    /// A work of pieces of records of these sizes.
    fn ready(id: i64, pieces: &[Vec<usize>]) -> Vec<Ready> {
        let work = work(id, pieces.iter().map(Vec::len).sum());
        let mut position = 0;
        let mut all = Vec::new();
        for (number, sizes) in pieces.iter().enumerate() {
            let (from, mut rendered) = (position, Rendered::default());
            for size in sizes {
                rendered.buffer().extend(std::iter::repeat_n(b'x', *size));
                rendered.end_record(position, RecordFacts::default());
                position += 1;
            }
            all.push(Ready {
                slice: Slice {
                    work: Arc::clone(&work),
                    from,
                    only: None,
                    indexes: 0..sizes.len(),
                    positions: (from..position).collect(),
                    memory: rendered.memory(),
                    first: number == 0,
                    last: number + 1 == pieces.len(),
                },
                piece: Arc::new(Piece::new(Arc::new(rendered), Arc::new(Reservation::uncounted()))),
            });
        }
        all
    }

    fn works(outgoing: &Outgoing) -> Vec<(i64, usize)> {
        outgoing.slices.iter().map(|slice| (slice.work.id.0, slice.len())).collect()
    }

    #[test]
    fn whole_works_keeps_blobs_together_where_they_fit() {
        let limits = limits(10, 1000, true);
        let mut queue = Queue::default();
        for (id, pieces) in [
            (1, vec![vec![1; 4]]),
            (2, vec![vec![1; 4]]),
            (3, vec![vec![1; 4]]),
            (4, vec![vec![1; 2], vec![1; 2]]),
            (5, vec![vec![1; 25]]),
        ] {
            ready(id, &pieces).into_iter().for_each(|ready| queue.push(ready));
        }
        let mut batches = Vec::new();
        while let Some(outgoing) = queue.take(&limits, &HashSet::new()) {
            batches.push(works(&outgoing));
        }
        assert_eq!(
            batches,
            [
                vec![(1, 4), (2, 4)],
                vec![(3, 4)],
                vec![(4, 2), (4, 2)],
                vec![(5, 10)],
                vec![(5, 10)],
                vec![(5, 5)]
            ]
        );
    }

    #[test]
    fn a_suspect_travels_alone() {
        let mut queue = Queue::default();
        for id in 1..=3 {
            ready(id, &[vec![1]]).into_iter().for_each(|ready| queue.push(ready));
        }
        let alone = HashSet::from([WorkId(2)]);
        let limits = limits(10, 1000, false);
        let batches: Vec<_> =
            std::iter::from_fn(|| queue.take(&limits, &alone)).map(|outgoing| works(&outgoing)).collect();
        assert_eq!(batches, [vec![(1, 1)], vec![(2, 1)], vec![(3, 1)]]);
    }

    proptest! {
        /// Batches lose nothing, repeat nothing, keep the order, and keep to the limits.
        #[test]
        fn batches_are_the_records_in_order(
            blobs in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(1usize..40, 1..8), 1..4), 1..8),
            max_records in 1usize..12,
            max_bytes in 1usize..120,
            beside in 0usize..4,
            whole_works: bool,
            alone in proptest::collection::hash_set(0i64..8, 0..3),
        ) {
            let limits = Limits { beside, ..limits(max_records, max_bytes, whole_works) };
            let alone: HashSet<_> = alone.into_iter().map(WorkId).collect();
            let mut queue = Queue::default();
            let mut expected = Vec::new();
            for (id, pieces) in blobs.iter().enumerate() {
                for ready in ready(id as i64, pieces) {
                    expected.extend(ready.slice.positions.iter().map(|position| (id as i64, position)));
                    queue.push(ready);
                }
            }
            let mut seen = Vec::new();
            while let Some(outgoing) = queue.take(&limits, &alone) {
                let batch = &outgoing.batch;
                prop_assert!(!batch.is_empty());
                prop_assert!(batch.len() <= max_records);
                prop_assert!(batch.bytes() + batch.len() * beside <= max_bytes || batch.len() == 1);
                let ids: HashSet<_> = batch.parts.iter().map(|part| part.work.id).collect();
                prop_assert!(ids.len() == 1 || ids.is_disjoint(&alone));
                for (slice, part) in outgoing.slices.iter().zip(&batch.parts) {
                    prop_assert_eq!(
                        slice.positions.iter().collect::<Vec<_>>(),
                        part.records().map(|record| record.position).collect::<Vec<_>>()
                    );
                    let first = slice.positions.iter().next() == Some(0);
                    prop_assert_eq!(slice.first, first);
                    let last = slice.positions.iter().last() == Some(slice.work.records - 1);
                    prop_assert_eq!(slice.last, last);
                }
                seen.extend(batch.records().map(|(work, record)| (work.id.0, record.position)));
            }
            prop_assert_eq!(seen, expected);
            prop_assert_eq!((queue.records, queue.bytes), (0, 0));
        }

        /// Halves and what is left after refusals are again the records in order.
        #[test]
        fn cuts_lose_nothing(
            sizes in proptest::collection::vec(1usize..9, 2..20),
            out in proptest::collection::btree_set(0usize..20, 0..10),
        ) {
            let [Ready { slice, .. }] = <[Ready; 1]>::try_from(ready(1, std::slice::from_ref(&sizes))).unwrap();
            let all: Vec<_> = slice.positions.iter().collect();
            let (one, other) = halve(vec![slice.clone()]);
            prop_assert_eq!(records(&one), sizes.len() / 2);
            prop_assert_eq!(
                one.iter().chain(&other).flat_map(|slice| slice.positions.iter()).collect::<Vec<_>>(),
                all.clone()
            );
            let left = slice.without(&out);
            let expected: Vec<_> =
                all.iter().copied().filter(|position| !out.contains(&(*position as usize))).collect();
            prop_assert_eq!(left.iter().flat_map(|slice| slice.positions.iter()).collect::<Vec<_>>(), expected);
            for slice in &left {
                prop_assert_eq!(slice.positions.len(), slice.len());
            }
        }
    }
}
