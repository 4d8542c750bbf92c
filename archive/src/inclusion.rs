//! Proofs that a leaf is in a Merkle tree: the audit path of RFC 6962, section 2.1.1, made while the leaves go by and checked as
//! in RFC 9162, section 2.1.3.2.

use serde::{Deserialize, Serialize};

use crate::{
    hash::Hash,
    merkle::{Merkle, node_hash},
};

/// The way from one leaf of a tree to its root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inclusion {
    /// Which leaf, counted from 0.
    pub index: u64,
    /// How many leaves the tree has.
    pub leaves: u64,
    /// The neighbours on the way up, the leaf's own first.
    pub path: Vec<Hash>,
}

impl Inclusion {
    /// The root of the tree in which this leaf has this place; `None` when no tree of so many leaves has such a path.
    #[must_use]
    pub fn root(&self, leaf: Hash) -> Option<Hash> {
        if self.index >= self.leaves {
            return None;
        }
        let (mut node, mut last) = (self.index, self.leaves - 1);
        let mut hash = leaf;
        for neighbour in &self.path {
            if last == 0 {
                return None;
            }
            if node & 1 == 1 || node == last {
                hash = node_hash(neighbour, &hash);
                // The last node of a row without a neighbour moves up as it is.
                while node & 1 == 0 && node != 0 {
                    node >>= 1;
                    last >>= 1;
                }
            } else {
                hash = node_hash(&hash, neighbour);
            }
            node >>= 1;
            last >>= 1;
        }
        (last == 0).then_some(hash)
    }
}

/// A tree that grows leaf by leaf and remembers the way from one of them. It takes a few hundred bytes, as [`Merkle`] does.
#[derive(Debug, Clone)]
pub struct Prover {
    tree: Merkle,
    index: u64,
    path: Vec<Hash>,
}

impl Prover {
    /// A prover for the leaf of this index.
    #[must_use]
    pub fn new(index: u64) -> Self {
        Self { tree: Merkle::default(), index, path: Vec::new() }
    }

    /// Adds the hash of a leaf behind the others.
    pub fn push(&mut self, leaf: Hash) {
        let Self { tree, index, path } = self;
        tree.push_watched(leaf, |starts, left, middle, right, ends| {
            if (starts..middle).contains(index) {
                path.push(*right);
            } else if (middle..ends).contains(index) {
                path.push(*left);
            }
        });
    }

    /// The proof and the tree's root, when all leaves have been pushed; `None` when the tree has no leaf of the index.
    #[must_use]
    pub fn finish(mut self) -> Option<(Inclusion, Hash)> {
        if self.index >= self.tree.leaves() {
            return None;
        }
        let Self { tree, index, path } = &mut self;
        let root = tree.root_watched(|starts, left, middle, right, ends| {
            if (starts..middle).contains(index) {
                path.push(*right);
            } else if (middle..ends).contains(index) {
                path.push(*left);
            }
        });
        Some((Inclusion { index: self.index, leaves: self.tree.leaves(), path: self.path }, root))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::merkle::leaf_hash;

    /// The definition of RFC 6962, word for word.
    fn defined(index: usize, leaves: &[Vec<u8>]) -> Vec<Hash> {
        if leaves.len() <= 1 {
            return Vec::new();
        }
        let half = leaves.len().next_power_of_two() / 2;
        let root = |leaves: &[Vec<u8>]| {
            let mut tree = Merkle::default();
            leaves.iter().for_each(|leaf| tree.push(leaf));
            tree.root()
        };
        let (left, right) = leaves.split_at(half);
        let (mut path, neighbour) = if index < half {
            (defined(index, left), root(right))
        } else {
            (defined(index - half, right), root(left))
        };
        path.push(neighbour);
        path
    }

    fn prove(index: usize, leaves: &[Vec<u8>]) -> (Inclusion, Hash) {
        let mut prover = Prover::new(index as u64);
        leaves.iter().for_each(|leaf| prover.push(leaf_hash(leaf)));
        prover.finish().unwrap()
    }

    #[test]
    fn a_tree_has_no_proof_of_a_leaf_that_it_has_not() {
        let mut prover = Prover::new(1);
        assert!(prover.clone().finish().is_none());
        prover.push(leaf_hash(b"x"));
        assert!(prover.finish().is_none());
        let beyond = Inclusion { index: 1, leaves: 1, path: Vec::new() };
        assert_eq!(beyond.root(leaf_hash(b"x")), None);
    }

    #[test]
    fn every_leaf_of_every_small_tree_is_proved() {
        let leaves: Vec<Vec<u8>> = (0..40u8).map(|n| vec![n]).collect();
        for count in 1..=leaves.len() {
            let leaves = &leaves[..count];
            for (index, leaf) in leaves.iter().enumerate() {
                let (inclusion, root) = prove(index, leaves);
                assert_eq!(inclusion.path, defined(index, leaves), "leaf {index} of {count}");
                assert_eq!(inclusion.root(leaf_hash(leaf)), Some(root), "leaf {index} of {count}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_path_is_that_of_the_definition_and_proves_this_leaf_in_this_place_only(
            leaves in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 1..300),
            index in any::<proptest::sample::Index>(),
            other in any::<proptest::sample::Index>(),
            bit in 0..256usize,
        ) {
            let index = index.index(leaves.len());
            let (inclusion, root) = prove(index, &leaves);
            let leaf = leaf_hash(&leaves[index]);
            let mut whole = Merkle::default();
            leaves.iter().for_each(|leaf| whole.push(leaf));
            prop_assert_eq!(root, whole.root());
            prop_assert_eq!(&inclusion.path, &defined(index, &leaves));
            prop_assert_eq!(inclusion.root(leaf), Some(root));

            let mut longer = inclusion.clone();
            longer.path.push(leaf);
            prop_assert_eq!(longer.root(leaf), None);
            if !inclusion.path.is_empty() {
                let mut shorter = inclusion.clone();
                shorter.path.pop();
                prop_assert_eq!(shorter.root(leaf), None);
                let mut changed = inclusion.clone();
                let at = other.index(changed.path.len());
                changed.path[at] = flipped(changed.path[at], bit);
                prop_assert_ne!(changed.root(leaf), Some(root));
            }
            prop_assert_ne!(inclusion.root(flipped(leaf, bit)), Some(root));
            // The same leaf elsewhere: only two equal halves could tell no difference, and the tree tells places apart by order.
            let elsewhere = Inclusion { index: other.index(leaves.len()) as u64, ..inclusion.clone() };
            if elsewhere.index != inclusion.index && leaves.iter().filter(|one| **one == leaves[index]).count() == 1 {
                prop_assert_ne!(elsewhere.root(leaf), Some(root));
            }
        }
    }

    fn flipped(hash: Hash, bit: usize) -> Hash {
        let mut bytes = *hash.as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        Hash::from_bytes(bytes)
    }
}
