//! Files that know their names: every failure says what was tried, with which file.
//!
//! All that the index writes goes through here, which is where the tests make disks fail.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::IdsError;

/// An open file and its path.
#[derive(Debug)]
pub(super) struct DiskFile {
    file: File,
    path: PathBuf,
}

impl DiskFile {
    /// Opens a file that is there, for reading and writing.
    pub(super) fn open(path: PathBuf) -> Result<Self, IdsError> {
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Ok(Self { file, path }),
            Err(source) => Err(IdsError::Io { action: "open", path, source }),
        }
    }

    /// Makes an empty file that only the owner may read, in place of one that may be there.
    pub(super) fn create(path: PathBuf) -> Result<Self, IdsError> {
        let made =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path);
        match made {
            Ok(file) => Ok(Self { file, path }),
            Err(source) => Err(IdsError::Io { action: "create", path, source }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn len(&self) -> Result<u64, IdsError> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(|source| self.failed("examine", source))
    }

    pub(super) fn set_len(&self, len: u64) -> Result<(), IdsError> {
        self.file.set_len(len).map_err(|source| self.failed("set the length of", source))
    }

    pub(super) fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), IdsError> {
        self.file.read_exact_at(bytes, offset).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => {
                IdsError::Damaged { path: self.path.clone(), what: "it is too short" }
            }
            _ => self.failed("read", source),
        })
    }

    pub(super) fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), IdsError> {
        #[cfg(test)]
        if let Some(source) = faults::fail_write() {
            self.file.write_all_at(&bytes[..bytes.len() / 2], offset).unwrap();
            return Err(self.failed("write to", source));
        }
        self.file.write_all_at(bytes, offset).map_err(|source| self.failed("write to", source))
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self) -> Result<(), IdsError> {
        #[cfg(test)]
        if let Some(source) = faults::fail_sync() {
            return Err(self.failed("sync", source));
        }
        self.file.sync_data().map_err(|source| self.failed("sync", source))
    }

    /// Gives the file another name in its directory, in place of a file that may have it.
    pub(super) fn rename(&mut self, path: PathBuf) -> Result<(), IdsError> {
        fs::rename(&self.path, &path).map_err(|source| self.failed("rename", source))?;
        self.path = path;
        Ok(())
    }

    fn failed(&self, action: &'static str, source: io::Error) -> IdsError {
        IdsError::Io { action, path: self.path.clone(), source }
    }
}

/// Makes the directory, for the owner alone, if it is not there; its entry in the parent is durable then.
pub(super) fn make_directory(dir: &Path) -> Result<(), IdsError> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => dir.parent().map_or(Ok(()), sync_directory),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(IdsError::Io { action: "create", path: dir.to_owned(), source }),
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(dir: &Path) -> Result<(), IdsError> {
    // The parent of a bare name is the empty path, which means the working directory.
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    #[cfg(test)]
    if let Some(source) = faults::fail_sync() {
        return Err(IdsError::Io { action: "sync", path: dir.to_owned(), source });
    }
    File::open(dir).and_then(|file| file.sync_all()).map_err(|source| IdsError::Io {
        action: "sync",
        path: dir.to_owned(),
        source,
    })
}

/// Removes a file; that it is not there is as good.
pub(super) fn remove(path: &Path) -> Result<(), IdsError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(IdsError::Io { action: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Makes the disk of the current thread fail on purpose.
#[cfg(test)]
pub(super) mod faults {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static WRITES_LEFT: Cell<Option<u32>> = const { Cell::new(None) };
        static SYNCS_LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// After so many more writes the disk is full: half of the next one is written.
    pub(in super::super) fn fill_disk_after(writes: u32) {
        WRITES_LEFT.set(Some(writes));
    }

    /// After so many more syncs one fails.
    pub(in super::super) fn break_sync_after(syncs: u32) {
        SYNCS_LEFT.set(Some(syncs));
    }

    /// The disk works again.
    pub(in super::super) fn heal() {
        WRITES_LEFT.set(None);
        SYNCS_LEFT.set(None);
    }

    pub(super) fn fail_write() -> Option<io::Error> {
        spent(&WRITES_LEFT).then(|| io::ErrorKind::StorageFull.into())
    }

    pub(super) fn fail_sync() -> Option<io::Error> {
        spent(&SYNCS_LEFT).then(|| io::Error::other("the disk is broken on purpose"))
    }

    fn spent(left: &'static std::thread::LocalKey<Cell<Option<u32>>>) -> bool {
        match left.get() {
            None => false,
            Some(0) => true,
            Some(some) => {
                left.set(Some(some - 1));
                false
            }
        }
    }
}
