//! Sets of positions in a body, in few bytes: which records of it are duplicates.
//!
//! The form, kept in the blob's row, is a run of pairs of numbers: how many positions are passed over, how many follow
//! that are in the set. Numbers are LEB128: seven bits a byte, the lowest first, the high bit set on all but the last.
//! Most blobs have no duplicate (no bytes), and one that repeats an earlier blob whole takes three bytes.

/// Writes a number.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads a number from the front of `bytes`; `None` when there is none.
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u32> {
    let mut number = 0u32;
    for shift in (0..35).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u32::from(first & 0x7f);
        let shifted = bits.checked_shl(shift)?;
        if shifted >> shift != bits {
            return None;
        }
        number |= shifted;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Encodes positions, which must be in rising order.
pub(crate) fn encode(positions: &[u32]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut next = 0;
    for run in positions.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
        debug_assert!(run[0] >= next, "positions must rise");
        put_varint(&mut out, run[0] - next);
        put_varint(&mut out, run.len() as u32);
        next = run[0].wrapping_add(run.len() as u32);
    }
    out
}

/// A set of positions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Positions {
    /// First position and end of each run, in rising order.
    runs: Vec<(u32, u32)>,
}

impl Positions {
    /// Decodes what [`encode`] wrote; `None` when it is something else.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut runs = Vec::new();
        let mut next = 0u32;
        while !bytes.is_empty() {
            let start = next.checked_add(take_varint(&mut bytes)?)?;
            let end = start.checked_add(take_varint(&mut bytes)?)?;
            runs.push((start, end));
            next = end;
        }
        Some(Self { runs })
    }

    /// Whether the position is in the set.
    pub(crate) fn contains(&self, position: u32) -> bool {
        let behind = self.runs.partition_point(|(start, _)| *start <= position);
        behind > 0 && position < self.runs[behind - 1].1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_usual_sets_are_small() {
        assert!(encode(&[]).is_empty());
        assert_eq!(encode(&(0..1000).collect::<Vec<_>>()).len(), 3);
        assert_eq!(Positions::decode(&[0x80]), None);
        assert_eq!(Positions::decode(&[1]), None);
        assert_eq!(Positions::decode(&[0xff, 0xff, 0xff, 0xff, 0x7f, 1]), None);
    }

    proptest! {
        #[test]
        fn what_was_put_in_is_in(set in proptest::collection::btree_set(0u32..300, 0..200)) {
            let positions: Vec<_> = set.iter().copied().collect();
            let decoded = Positions::decode(&encode(&positions)).unwrap();
            for position in 0..310 {
                prop_assert_eq!(decoded.contains(position), set.contains(&position));
            }
        }

        #[test]
        fn any_bytes_decode_or_do_not(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(positions) = Positions::decode(&bytes) {
                positions.contains(7);
            }
        }

        #[test]
        fn numbers_come_back(number: u32) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            prop_assert_eq!(take_varint(&mut bytes.as_slice()), Some(number));
        }
    }
}
