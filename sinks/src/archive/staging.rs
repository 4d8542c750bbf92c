//! The staging folder: what is open and what waits to be put.
//!
//! | file | what it is |
//! |---|---|
//! | `N.ndjson` | the records of an object that is open, one a line |
//! | `N.works` | what its works came to: one [`Entry`] a line, as JSON |
//! | `N.object` | the object's first file as it is put, once it is sealed; `N.object.part` while it is made |
//! | `N.1.object`, … | its other files |
//!
//! No file is kept open: the number of tenants costs no descriptors. What the ledger does not know is thrown away when
//! the sink is opened; the spool still has it.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{
    span::{BadJournal, Entry, Whole},
    state::OnDisk,
};
use crate::sink::{Batch, DeliverError};

/// A folder that the sink has for itself.
#[derive(Debug, Clone)]
pub(super) struct Staging {
    folder: PathBuf,
    #[cfg(test)]
    pub(super) fuse: Option<std::sync::Arc<crate::test_ledger::Fuse>>,
}

/// Something about a file of the staging folder.
#[derive(Debug, thiserror::Error)]
pub(super) enum StagingError {
    #[error("the disk that holds {} is full; nothing is lost, and it goes on when there is room", path.display())]
    Full { path: PathBuf },
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is shorter than it was: {found} bytes of {expected}", path.display())]
    Short { path: PathBuf, expected: u64, found: u64 },
    #[error("{} is damaged: {source}", path.display())]
    Journal { path: PathBuf, source: BadJournal },
    #[error("{} is not what was written: {what}", path.display())]
    Changed { path: PathBuf, what: String },
    #[error("stopped before it was done")]
    Cancelled,
}

impl StagingError {
    /// What it means to the delivery loop.
    pub(super) fn retried(self) -> DeliverError {
        DeliverError::retry(self.to_string())
    }

    /// Whether a file does not have what was written to it.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Short { .. } | Self::Journal { .. } | Self::Changed { .. } => true,
            Self::Io { source, .. } => source.kind() == ErrorKind::NotFound,
            Self::Full { .. } | Self::Cancelled => false,
        }
    }
}

/// The kinds of files of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Records,
    Works,
    /// A file of the sealed object, by its place among them.
    File(u32),
    /// The same while it is made.
    Part(u32),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Records => f.write_str("ndjson"),
            Self::Works => f.write_str("works"),
            Self::File(0) => f.write_str("object"),
            Self::File(index) => write!(f, "{index}.object"),
            Self::Part(index) => write!(f, "{}.part", Self::File(*index)),
        }
    }
}

impl FromStr for Kind {
    type Err = NotOurs;

    fn from_str(text: &str) -> Result<Self, NotOurs> {
        let (file, whole) = text.strip_suffix(".part").map_or((text, true), |file| (file, false));
        let index = match file.strip_suffix("object").ok_or(NotOurs) {
            Ok("") => Ok(0),
            Ok(index) => index.strip_suffix('.').and_then(|index| index.parse().ok()).ok_or(NotOurs),
            Err(other) => Err(other),
        };
        match (file, index, whole) {
            ("ndjson", _, true) => Ok(Self::Records),
            ("works", _, true) => Ok(Self::Works),
            (_, Ok(index), true) => Ok(Self::File(index)),
            (_, Ok(index), false) => Ok(Self::Part(index)),
            _ => Err(NotOurs),
        }
    }
}

/// The file is somebody else's.
pub(super) struct NotOurs;

impl Staging {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            #[cfg(test)]
            fuse: None,
        }
    }

    pub(super) fn file(&self, span: u64, kind: Kind) -> PathBuf {
        self.folder.join(format!("{span}.{kind}"))
    }

    /// Makes the folder.
    pub(super) fn make(&self) -> Result<(), StagingError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|source| io_error("make", &self.folder, source))
    }

    /// Appends the parts of a batch behind the first `at` bytes.
    pub(super) fn append(
        &self,
        span: u64,
        at: u64,
        batch: &Batch,
        parts: &[(usize, usize)],
    ) -> Result<(), StagingError> {
        self.step()?;
        let path = self.file(span, Kind::Records);
        let mut file = open_at(&path, at)?;
        for &(index, skip) in parts {
            let lines = batch.parts[index].lines(skip);
            file.write_all(lines).map_err(|source| io_error("write to", &path, source))?;
            self.step()?;
        }
        Ok(())
    }

    /// Writes lines of the journal behind its first `at` bytes.
    pub(super) fn append_works(&self, span: u64, at: u64, lines: &[u8]) -> Result<(), StagingError> {
        if lines.is_empty() {
            return Ok(());
        }
        let path = self.file(span, Kind::Works);
        let mut file = open_at(&path, at)?;
        file.write_all(lines).map_err(|source| io_error("write to", &path, source))
    }

    /// Makes a file durable.
    pub(super) fn sync(&self, span: u64, kind: Kind) -> Result<(), StagingError> {
        self.step()?;
        let path = self.file(span, kind);
        let synced = File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(|source| io_error("flush", &path, source))
    }

    /// Makes names durable.
    pub(super) fn sync_folder(&self) -> Result<(), StagingError> {
        self.step()?;
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|source| io_error("flush", &self.folder, source))
    }

    /// Gives a file of an object its name.
    pub(super) fn finish(&self, span: u64, index: u32) -> Result<(), StagingError> {
        self.step()?;
        let (part, file) = (self.file(span, Kind::Part(index)), self.file(span, Kind::File(index)));
        fs::rename(&part, &file).map_err(|source| io_error("rename", &part, source))
    }

    /// The whole works of a span, as its journal has them.
    pub(super) fn works(&self, of: &OnDisk) -> Result<(Whole, Vec<Entry>), StagingError> {
        let path = self.file(of.span, Kind::Works);
        let mut journal = fs::read(&path).map_err(|source| io_error("read", &path, source))?;
        let length = journal.len() as u64;
        if length < of.journal {
            return Err(StagingError::Short { path, expected: of.journal, found: length });
        }
        journal.truncate(usize::try_from(of.journal).unwrap_or(usize::MAX));
        Whole::of(&journal, of.bytes).map_err(|source| StagingError::Journal { path, source })
    }

    /// Whether the records of an open span reach as far as they should. What is behind is cut off by the next append.
    pub(super) fn reaches(&self, of: &OnDisk) -> Result<(), StagingError> {
        let path = self.file(of.span, Kind::Records);
        let found = fs::metadata(&path).map_err(|source| io_error("look at", &path, source))?.len();
        if found < of.bytes {
            return Err(StagingError::Short { path, expected: of.bytes, found });
        }
        Ok(())
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, span: u64, kind: Kind) -> Result<(), StagingError> {
        self.step()?;
        remove(&self.file(span, kind)).map(drop)
    }

    /// Removes every file of an object that is put.
    pub(super) fn remove_all(&self, span: u64) -> Result<(), StagingError> {
        [Kind::Records, Kind::Works].into_iter().try_for_each(|kind| self.remove(span, kind))?;
        for index in 0.. {
            self.step()?;
            // Behind the last one there is none. If one is gone already, the next start removes the others.
            if !remove(&self.file(span, Kind::File(index)))? {
                break;
            }
        }
        Ok(())
    }

    /// Removes what belongs to none of these; returns how many objects were thrown away that had been open.
    pub(super) fn tidy(&self, open: &BTreeSet<u64>, sealed: &BTreeSet<u64>) -> Result<usize, StagingError> {
        let mut thrown_away = 0;
        let names = fs::read_dir(&self.folder).map_err(|source| io_error("list", &self.folder, source))?;
        for name in names {
            let name = name.map_err(|source| io_error("list", &self.folder, source))?;
            let Some((span, kind)) = name.file_name().to_str().and_then(parse) else { continue };
            let wanted = match kind {
                Kind::Records => open.contains(&span),
                Kind::Works => open.contains(&span) || sealed.contains(&span),
                Kind::File(_) => sealed.contains(&span),
                Kind::Part(_) => false,
            };
            if !wanted {
                thrown_away += usize::from(kind == Kind::Records && !sealed.contains(&span));
                remove(&name.path())?;
            }
        }
        Ok(thrown_away)
    }

    /// Tries whether files can be made.
    pub(super) fn probe(&self) -> Result<(), StagingError> {
        if !self.folder.exists() {
            // It is made by the user that delivers, who may be another one than who asks.
            return Ok(());
        }
        let path = self.folder.join("probe");
        let written = fs::write(&path, b"probe").map_err(|source| io_error("write to", &path, source));
        written.and(remove(&path).map(drop))
    }

    /// A place where a process may die.
    #[cfg(not(test))]
    pub(super) fn step(&self) -> Result<(), StagingError> {
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn step(&self) -> Result<(), StagingError> {
        match self.fuse.as_ref().map_or(crate::test_ledger::Step::Go, |fuse| fuse.step()) {
            crate::test_ledger::Step::Go => Ok(()),
            crate::test_ledger::Step::Now | crate::test_ledger::Step::Dead => Err(StagingError::Cancelled),
        }
    }
}

/// Opens a file to write behind its first `at` bytes; what else is there is cut off.
fn open_at(path: &Path, at: u64) -> Result<File, StagingError> {
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let mut file = open.map_err(|source| io_error("open", path, source))?;
    let found = file.metadata().map_err(|source| io_error("look at", path, source))?.len();
    if found < at {
        return Err(StagingError::Short { path: path.to_owned(), expected: at, found });
    }
    let ready = if found > at { file.set_len(at) } else { Ok(()) };
    let ready = ready.and_then(|()| file.seek(SeekFrom::Start(at)));
    ready.map_err(|source| io_error("write to", path, source))?;
    Ok(file)
}

/// Removes a file; whether it was there.
fn remove(path: &Path) -> Result<bool, StagingError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(source) if source.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => Err(io_error("remove", path, source)),
    }
}

/// The span and the kind of a file.
fn parse(name: &str) -> Option<(u64, Kind)> {
    let (number, kind) = name.split_once('.')?;
    Some((number.parse().ok()?, kind.parse().ok()?))
}

pub(super) fn io_error(doing: &'static str, path: &Path, source: io::Error) -> StagingError {
    let path = path.to_owned();
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StagingError::Full { path },
        _ => StagingError::Io { doing, path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_known_again() {
        let staging = Staging::new(PathBuf::from("/state"));
        for kind in [Kind::Records, Kind::Works, Kind::File(0), Kind::File(12), Kind::Part(0), Kind::Part(3)]
        {
            let path = staging.file(7, kind);
            assert_eq!(path.file_name().and_then(|name| parse(name.to_str()?)), Some((7, kind)), "{path:?}");
        }
        assert_eq!(staging.file(7, Kind::Part(2)), Path::new("/state/7.2.object.part"));
        for name in ["7", "x.ndjson", "7.ndjson.part", "7.-1.object", "7.1object", "7..object", "probe"] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
