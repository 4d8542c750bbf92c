//! Sets of known names, each found by one look into a table that is filled when this is compiled.

use std::collections::HashSet;

use crate::json::{Text, same_word};

/// Known names, at most 255. `SLOTS` is a power of two, a few times as many as there are names.
#[derive(Debug)]
pub(crate) struct Names<const SLOTS: usize> {
    names: &'static [&'static str],
    /// Open addressing: a name's place in `names` plus 1; 0 stands for a free slot.
    slots: [u8; SLOTS],
}

impl<const SLOTS: usize> Names<SLOTS> {
    pub(crate) const fn new(names: &'static [&'static str]) -> Self {
        assert!(SLOTS.is_power_of_two() && names.len() < SLOTS && names.len() < 256);
        let mut slots = [0; SLOTS];
        let mut index = 0;
        while index < names.len() {
            let mut slot = hash(names[index].as_bytes()) % SLOTS;
            while slots[slot] != 0 {
                slot = (slot + 1) % SLOTS;
            }
            index += 1;
            slots[slot] = index as u8;
        }
        Self { names, slots }
    }

    /// The place of a name in the order of the names.
    #[inline]
    pub(crate) fn place(&self, name: &[u8]) -> Option<usize> {
        self.find(name, |known| known == name)
    }

    /// [`Names::place`] without regard to the case of ASCII letters.
    #[inline]
    pub(crate) fn place_in_any_case(&self, name: &[u8]) -> Option<usize> {
        self.find(name, |known| known == name || known.eq_ignore_ascii_case(name))
    }

    #[inline(always)]
    fn find(&self, name: &[u8], is_it: impl Fn(&[u8]) -> bool) -> Option<usize> {
        let mut slot = hash(name) % SLOTS;
        loop {
            let place = usize::from(self.slots[slot]).checked_sub(1)?;
            if is_it(self.names[place].as_bytes()) {
                return Some(place);
            }
            slot = (slot + 1) % SLOTS;
        }
    }
}

/// Which names were seen, as far as their hashes tell: enough to know that most others were not.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen([u64; 4]);

impl Seen {
    /// Adds a name. Whether one with the same hash was there already.
    #[inline]
    fn insert(&mut self, name: &[u8]) -> bool {
        let hash = hash(name) % 256;
        let (word, bit) = (&mut self.0[hash / 64], 1 << (hash % 64));
        let before = *word;
        *word |= bit;
        before & bit != 0
    }

    /// Whether a name may have been added, in any case of its letters.
    #[inline]
    pub(crate) fn may_have(&self, name: &[u8]) -> bool {
        let hash = hash(name) % 256;
        self.0[hash / 64] >> (hash % 64) & 1 == 1
    }

    /// Whether two of the names are the same; `escaped` says whether any of them has escapes. Adds them, if none has.
    pub(crate) fn repeats<V>(&mut self, fields: &[(Text<'_>, V)], escaped: bool) -> bool {
        if escaped {
            let mut seen = HashSet::with_capacity(fields.len());
            return fields.iter().any(|(name, _)| !seen.insert(name.unescape()));
        }
        let (mut repeats, mut asked) = (false, 0);
        for (index, (name, _)) in fields.iter().enumerate() {
            // A name is compared only with earlier ones when one of them may be it.
            if self.insert(name.bytes()) && !repeats && asked < MOST_COMPARED {
                asked += 1;
                repeats = fields[..index].iter().any(|(other, _)| other.json() == name.json());
            }
        }
        repeats || asked == MOST_COMPARED && self.repeats(fields, true)
    }
}

/// How many names are compared with all before them, until it is cheaper to hash them all.
const MOST_COMPARED: u32 = 64;

/// Whether a text has one of these words in it, in any case of ASCII letters. The words have two letters at least.
pub(crate) fn has_any(text: &[u8], words: &[&str]) -> bool {
    let beginnings = words.iter().fold(0, |all, word| match word.as_bytes() {
        [first, second, ..] => all | beginning(*first, *second),
        _ => all,
    });
    let mut before = 0;
    for (at, &byte) in text.iter().enumerate() {
        if beginnings & beginning(before, byte) != 0 && at > 0 {
            let rest = &text[at - 1..];
            let here = |word: &&str| rest.get(..word.len()).is_some_and(|piece| same_word(piece, word));
            if words.iter().any(here) {
                return true;
            }
        }
        before = byte;
    }
    false
}

/// A bit of 64 for the two letters that a word begins with, whatever their case.
#[inline]
fn beginning(first: u8, second: u8) -> u64 {
    1 << ((first << 1 ^ second & 31) & 63)
}

/// A table of the ASCII letters, the digits and these signs: it answers quicker than several comparisons.
pub(crate) const fn letters_digits_and(signs: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut index = 0;
    while index < signs.len() {
        table[signs[index] as usize] = true;
        index += 1;
    }
    table
}

/// A hash that is the same for letters of either case.
#[inline]
pub(crate) const fn hash(name: &[u8]) -> usize {
    let [first, .., last] = name else { return 0 };
    let middle = name[name.len() / 2];
    let (first, middle, last) = (*first as usize & 31, middle as usize & 31, *last as usize & 31);
    name.len() << 5 ^ first << 1 ^ middle << 3 ^ last << 4
}
