//! Deterministic randomness: the same numbers for the same seeds, in every version and on every machine.
//!
//! SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators") is used because its whole
//! definition is the few lines below; a library's generator may change between versions, and with it every record.

use uuid::Uuid;

/// A stream of numbers that depends on its seeds only.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// One number from several, such that changing any of them changes it.
pub(crate) fn hash(seeds: &[u64]) -> u64 {
    seeds.iter().fold(GAMMA, |sum, seed| mix(sum.wrapping_add(GAMMA) ^ mix(seed.wrapping_add(GAMMA))))
}

/// One number from a text (FNV-1a).
pub(crate) fn hash_text(text: &str) -> u64 {
    text.bytes()
        .fold(0xCBF2_9CE4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

impl Dice {
    pub(crate) fn new(seeds: &[u64]) -> Self {
        Self(hash(seeds))
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// A number under `end`; 0 when `end` is 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // The bias of the remainder is far below anything that a simulation could show.
        self.roll().checked_rem(end).unwrap_or(0)
    }

    /// True once in `n` rolls on average.
    pub(crate) fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    pub(crate) fn guid(&mut self) -> Uuid {
        let bytes = (u128::from(self.roll()) << 64) | u128::from(self.roll());
        uuid::Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid()
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.roll().to_le_bytes()[..chunk.len()]);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seeds_give_the_same_numbers_for_ever() {
        // Frozen: a change of these values changes every simulated record, and with it every recorded expectation.
        assert_eq!(Dice::new(&[1, 2, 3]).guid(), Dice::new(&[1, 2, 3]).guid());
        assert_eq!(mix(GAMMA), 0xE220_A839_7B1D_CDAF, "the first output of SplitMix64 with seed 0");
        assert_ne!(hash(&[1, 2]), hash(&[2, 1]));
        assert_ne!(hash(&[0]), hash(&[0, 0]));
    }

    #[test]
    fn numbers_stay_below_their_end() {
        let mut dice = Dice::new(&[7]);
        for end in [1, 2, 3, 10, 1000] {
            assert!((0..200).all(|_| dice.below(end) < end));
        }
        assert_eq!(dice.below(0), 0);
    }
}
