//! Whether a Parquet directory's schema can be decoded: the library's decoder calls itself for each level of it, and makes room for as
//! many columns as a group says that it has, whatever stands there.
//!
//! A directory is a struct of Thrift's compact protocol; its field 2 is the list of the schema's elements, depth first, and field 5 of an
//! element says how many of those that follow are in it. Only that is read here, everything else is passed over.

/// How deep a schema may be. Those of an archive have three levels.
const LEVELS: usize = 8;
/// How deep the structs and lists of a directory may be.
const DEPTH: usize = 32;
/// The fields that are looked at.
const SCHEMA: i64 = 2;
const CHILDREN: i64 = 5;
/// The types of Thrift's compact protocol that are told apart here.
const STOP: u8 = 0;
const I32: u8 = 5;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// Whether the schema in a directory is one that can be decoded.
pub(super) fn is_flat(directory: &[u8]) -> bool {
    Thrift(directory).directory().is_some()
}

/// What is left to be read.
struct Thrift<'a>(&'a [u8]);

impl Thrift<'_> {
    fn directory(&mut self) -> Option<()> {
        let mut last = 0;
        while let Some((field, kind)) = self.field(&mut last)? {
            match (field, kind) {
                (SCHEMA, LIST) => self.schema()?,
                (SCHEMA, _) => return None,
                _ => self.pass(kind, DEPTH)?,
            }
        }
        Some(())
    }

    fn schema(&mut self) -> Option<()> {
        let (STRUCT, elements) = self.list()? else { return None };
        // How many are still to come in each group that is open.
        let mut open: Vec<u64> = Vec::new();
        for behind in (0..elements).rev() {
            while open.pop_if(|left| *left == 0).is_some() {}
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
            let children = self.children()?;
            if children > 0 {
                open.push(children);
            }
            if children > behind || open.len() > LEVELS {
                return None;
            }
        }
        Some(())
    }

    /// How many children an element says that it has.
    fn children(&mut self) -> Option<u64> {
        let (mut last, mut children) = (0, 0);
        while let Some((field, kind)) = self.field(&mut last)? {
            match (field, kind) {
                (CHILDREN, I32) => children = u64::try_from(self.signed()?).ok()?,
                (CHILDREN, _) => return None,
                _ => self.pass(kind, DEPTH)?,
            }
        }
        Some(children)
    }

    /// A field's number and type. The inner is `None` at the end of a struct.
    #[expect(clippy::option_option, reason = "the outer is what all of these give when it is damaged")]
    fn field(&mut self, last: &mut i64) -> Option<Option<(i64, u8)>> {
        let byte = self.byte()?;
        let (step, kind) = (byte >> 4, byte & 15);
        if kind == STOP {
            return Some(None);
        }
        *last = if step == 0 { self.signed()? } else { last.checked_add(i64::from(step))? };
        i16::try_from(*last).ok()?;
        Some(Some((*last, kind)))
    }

    /// The type of a list's elements, and how many there are.
    fn list(&mut self) -> Option<(u8, u64)> {
        let byte = self.byte()?;
        let count = if byte >> 4 == 15 { self.number()? } else { u64::from(byte >> 4) };
        Some((byte & 15, count))
    }

    /// Passes over a value.
    fn pass(&mut self, kind: u8, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            // The value of these is their type.
            1 | 2 => {}
            3 => self.bytes(1)?,
            4..=6 => _ = self.number()?,
            7 => self.bytes(8)?,
            8 => {
                let length = self.number()?;
                self.bytes(length)?;
            }
            LIST | 10 => {
                let (kind, count) = self.list()?;
                for _ in 0..count {
                    self.pass_element(kind, depth)?;
                }
            }
            11 => {
                let count = self.number()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                for _ in 0..count {
                    self.pass_element(kinds >> 4, depth)?;
                    self.pass_element(kinds & 15, depth)?;
                }
            }
            STRUCT => {
                let mut last = 0;
                while let Some((_, kind)) = self.field(&mut last)? {
                    self.pass(kind, depth)?;
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// A truth value is a byte here.
    fn pass_element(&mut self, kind: u8, depth: usize) -> Option<()> {
        self.pass(if matches!(kind, 1 | 2) { 3 } else { kind }, depth)
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn bytes(&mut self, count: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(count).ok()?..)?;
        Some(())
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Some(number);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The directory of a file with groups in one another, of which the innermost says that it has so many children.
    pub(crate) fn nested(groups: usize, innermost: u32) -> Vec<u8> {
        let mut bytes = vec![0x15, 2, 0x19, 0xf0 | STRUCT];
        number(&mut bytes, groups as u64);
        for group in 1..=groups {
            // Its name, and how many children it has.
            bytes.extend([0x48, 1, b'g', 0x15]);
            let children = if group == groups { u64::from(innermost) } else { 1 };
            number(&mut bytes, 2 * children);
            bytes.push(0);
        }
        // No rows, and no row groups.
        bytes.extend([0x16, 0, 0x19, STRUCT, 0]);
        bytes
    }

    /// That directory at the end of a file.
    pub(crate) fn file(directory: &[u8]) -> Vec<u8> {
        let length = u32::try_from(directory.len()).unwrap().to_le_bytes();
        [b"PAR1", directory, &length, b"PAR1"].concat()
    }

    fn number(bytes: &mut Vec<u8>, mut number: u64) {
        while number > 127 {
            bytes.push(number as u8 | 128);
            number >>= 7;
        }
        bytes.push(number as u8);
    }

    #[test]
    fn a_schema_that_is_deep_or_says_more_than_it_has_is_not_decoded() {
        assert!(is_flat(&nested(3, 0)) && is_flat(&nested(LEVELS, 0)));
        assert!(!is_flat(&nested(LEVELS + 2, 0)));
        assert!(!is_flat(&nested(600_000, 0)));
        assert!(!is_flat(&nested(1, i32::MAX as u32)) && !is_flat(&nested(2, 1)));
        assert!(!is_flat(b"") && !is_flat(&nested(3, 0)[..20]));
        // A list that says that it is endless, and lists in lists.
        assert!(!is_flat(&[0x19, 0xf0 | STRUCT, 255, 255, 255, 255, 15]));
        assert!(!is_flat(&[vec![0x39], vec![0x19; 1000], vec![0; 1000]].concat()));
    }
}
