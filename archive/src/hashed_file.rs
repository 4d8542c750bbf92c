//! A file of an object while it is made.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use crate::hash::{Hash, Hasher};

/// A new file that hashes what is written to it. Only its owner may read it.
#[derive(Debug)]
pub struct HashedFile {
    file: File,
    hasher: Hasher,
}

impl HashedFile {
    /// Creates it, empty, also where there is one.
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(Self { file, hasher: Hasher::default() })
    }

    /// Makes it durable, and gives its hash and its size in bytes.
    ///
    /// # Errors
    ///
    /// When it cannot be made durable.
    pub fn finish(self) -> io::Result<(Hash, u64)> {
        self.file.sync_all()?;
        let bytes = self.hasher.bytes();
        Ok((self.hasher.finish(), bytes))
    }
}

impl Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_knows_what_was_written_and_nothing_of_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "something longer").unwrap();
        let mut file = HashedFile::create(&path).unwrap();
        file.write_all(b"some").unwrap();
        file.write_all(b"thing").unwrap();
        assert_eq!(file.finish().unwrap(), (Hash::of(b"something"), 9));
        assert_eq!(std::fs::read(&path).unwrap(), b"something");
    }
}
