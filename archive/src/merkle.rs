//! The Merkle tree of RFC 6962, section 2.1, over leaves that come one after the other.
//!
//! A leaf is hashed as `SHA-256(0x00 || leaf)`, an inner node as `SHA-256(0x01 || left || right)`, and the tree of no
//! leaves is `SHA-256("")`. Only the roots of complete subtrees are kept, one for each bit of the number of leaves, so
//! a tree over any number of records takes a few hundred bytes.

use crate::hash::{Hash, Hasher};

/// A tree that grows leaf by leaf.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merkle {
    leaves: u64,
    /// The roots of complete subtrees, the largest first.
    complete: Vec<Hash>,
}

impl Merkle {
    /// Adds a leaf behind the others.
    pub fn push(&mut self, leaf: &[u8]) {
        self.push_hash(leaf_hash(leaf));
    }

    /// Adds a leaf behind the others, by its hash (see [`LeafHasher`]).
    pub fn push_hash(&mut self, leaf: Hash) {
        self.push_watched(leaf, |_, _, _, _, _| {});
    }

    /// Adds the hash of a leaf; `joined` sees every two nodes that become one: where the left one starts, its hash, where the
    /// right one starts, its hash, and where that ends, counted in leaves.
    pub(crate) fn push_watched(&mut self, leaf: Hash, mut joined: impl FnMut(u64, &Hash, u64, &Hash, u64)) {
        let mut hash = leaf;
        let ends = self.leaves + 1;
        // Each trailing one bit of the number of leaves is a subtree as large as the one that is complete now.
        for height in 0..self.leaves.trailing_ones() {
            if let Some(left) = self.complete.pop() {
                joined(ends - (2 << height), &left, ends - (1 << height), &hash, ends);
                hash = node_hash(&left, &hash);
            }
        }
        self.complete.push(hash);
        self.leaves = ends;
    }

    /// How many leaves it has.
    #[must_use]
    pub fn leaves(&self) -> u64 {
        self.leaves
    }

    /// Its root.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.root_watched(|_, _, _, _, _| {})
    }

    /// Its root; `joined` sees every two nodes that become one, as in [`Merkle::push_watched`].
    pub(crate) fn root_watched(&self, mut joined: impl FnMut(u64, &Hash, u64, &Hash, u64)) -> Hash {
        let mut larger = self.complete.iter().rev();
        let Some(last) = larger.next() else { return Hash::of(&[]) };
        let mut right = *last;
        // The bits of the number of leaves are the sizes of the complete subtrees; the last is the smallest.
        let mut sizes = self.leaves;
        let mut starts = self.leaves - (1 << sizes.trailing_zeros());
        for left in larger {
            sizes &= sizes - 1;
            let middle = starts;
            starts -= 1 << sizes.trailing_zeros();
            joined(starts, left, middle, &right, self.leaves);
            right = node_hash(left, &right);
        }
        right
    }
}

/// Hashes a leaf whose bytes come one after the other.
#[derive(Debug, Clone)]
pub struct LeafHasher(Hasher);

impl Default for LeafHasher {
    fn default() -> Self {
        let mut hasher = Hasher::default();
        hasher.update(&[0]);
        Self(hasher)
    }
}

impl LeafHasher {
    /// Takes more of the leaf's bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of the leaf.
    #[must_use]
    pub fn finish(self) -> Hash {
        self.0.finish()
    }
}

/// The hash of a leaf.
pub(crate) fn leaf_hash(leaf: &[u8]) -> Hash {
    let mut hasher = LeafHasher::default();
    hasher.update(leaf);
    hasher.finish()
}

/// The hash of an inner node.
pub(crate) fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut pair = [1; 65];
    pair[1..33].copy_from_slice(left.as_bytes());
    pair[33..].copy_from_slice(right.as_bytes());
    Hash::of(&pair)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition of the RFC, word for word: a tree over n leaves splits at the largest power of two below n.
    fn defined(leaves: &[Vec<u8>]) -> Hash {
        match leaves {
            [] => Hash::of(&[]),
            [leaf] => leaf_hash(leaf),
            _ => {
                let half = leaves.len().next_power_of_two() / 2;
                node_hash(&defined(&leaves[..half]), &defined(&leaves[half..]))
            }
        }
    }

    #[test]
    fn roots_are_those_that_certificate_transparency_publishes() {
        let mut tree = Merkle::default();
        assert_eq!(
            tree.root().to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        tree.push(b"");
        assert_eq!(
            tree.root().to_string(),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
        tree.push(b"\x00");
        assert_eq!(
            tree.root().to_string(),
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
        );
        assert_eq!(tree.leaves(), 2);
    }

    proptest! {
        #[test]
        fn a_growing_tree_has_the_root_of_the_definition(
            leaves in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 0..70)
        ) {
            let mut tree = Merkle::default();
            for leaf in &leaves {
                tree.push(leaf);
            }
            prop_assert_eq!(tree.root(), defined(&leaves));
        }
    }
}
