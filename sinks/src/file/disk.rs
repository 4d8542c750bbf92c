//! The few things that the file sink asks of a file system. A trait, so that the tests can crash it at every step.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::Path,
};

use nix::libc::O_NOFOLLOW;
use serde::{Deserialize, Serialize};

/// Which file it is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// Whether it is a regular file; a link is none.
    pub(super) regular: bool,
    pub(super) length: u64,
    pub(super) identity: Identity,
}

/// Who may read the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) mode: u32,
    pub(super) group: Option<u32>,
}

/// A file system.
pub(super) trait Disk: Send + Sync {
    /// What stands there, links not followed.
    fn look(&self, path: &Path) -> io::Result<Option<Look>>;
    /// Opens a file for reading and writing, links refused.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Makes a file that must not exist.
    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes what was created, renamed and removed in it durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
    /// Makes a directory and those above it; one that exists is left as it is.
    fn make_directory(&self, directory: &Path, access: Access) -> io::Result<()>;
    /// The names in a directory.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
}

/// An open file.
pub(super) trait DiskFile: Send {
    fn look(&self) -> io::Result<Look>;
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some of the bytes, as many as it says.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Makes its bytes and its length durable.
    fn sync(&self) -> io::Result<()>;
    fn permit(&self, access: Access) -> io::Result<()>;
}

/// The file system of the machine.
pub(super) struct RealDisk;

impl From<std::fs::Metadata> for Look {
    fn from(metadata: std::fs::Metadata) -> Self {
        Self {
            regular: metadata.is_file(),
            length: metadata.len(),
            identity: Identity { device: metadata.dev(), inode: metadata.ino() },
        }
    }
}

impl Disk for RealDisk {
    fn look(&self, path: &Path) -> io::Result<Option<Look>> {
        match std::fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(metadata.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(O_NOFOLLOW).open(path)?;
        Ok(Box::new(file))
    }

    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(access.mode)
            .custom_flags(O_NOFOLLOW)
            .open(path)?;
        file.permit(access)?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn make_directory(&self, directory: &Path, access: Access) -> io::Result<()> {
        if std::fs::metadata(directory).is_ok_and(|metadata| metadata.is_dir()) {
            return Ok(());
        }
        // Who may read the files may enter the directory.
        let enter = (access.mode & 0o444) >> 2;
        DirBuilder::new().recursive(true).mode(access.mode | enter).create(directory)?;
        let made = File::open(directory)?;
        made.set_permissions(Permissions::from_mode(access.mode | enter))?;
        if access.group.is_some() {
            fchown(&made, None, access.group)?;
        }
        match directory.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_directory(parent),
            _ => Ok(()),
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }
}

impl DiskFile for File {
    fn look(&self) -> io::Result<Look> {
        Ok(self.metadata()?.into())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn permit(&self, access: Access) -> io::Result<()> {
        if access.group.is_some() {
            fchown(self, None, access.group)?;
        }
        self.set_permissions(Permissions::from_mode(access.mode))
    }
}

/// Writes all of the bytes; on an error, tells how many were written.
pub(super) fn write_all(file: &dyn DiskFile, bytes: &[u8], offset: u64) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < bytes.len() {
        match file.write_at(&bytes[written..], offset + written as u64) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}

/// Reads until the buffer is full or the file ends; returns how many bytes.
pub(super) fn read_full(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
