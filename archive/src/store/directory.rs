//! A directory as the place of an archive.
//!
//! # On disk
//!
//! An object is a file under its name. While it is written it is `.NAME.part` beside it:
//!
//! 1. the folders that are missing are made, each with a flush of the one above;
//! 2. `.NAME.part` is written, hashed meanwhile, and flushed;
//! 3. it gets its name by a hard link, which never replaces what is there;
//! 4. `.NAME.part` is removed, and the folder flushed.
//!
//! A crash leaves at most a `.NAME.part`, which the next put of that object replaces and no listing shows. A full disk
//! leaves not even that.

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, DirEntry, File, OpenOptions},
    io::{self, ErrorKind, Read as _, Write as _},
    ops::Range,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures_util::stream::{self, Stream, TryStreamExt as _};

use super::{Body, Head, Listed, Source, StoreError};
use crate::{Hash, Hasher, ObjectPath, blocking::blocking};

/// How much of a file is read at a time.
const CHUNK: usize = 256 * 1024;
/// The owner reads and writes, the group reads.
const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;

/// The directory.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
}

impl Directory {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The file of an object.
    pub(super) fn file(&self, path: &ObjectPath) -> PathBuf {
        self.root.join(path.as_str())
    }

    /// Puts an object; `false` when something has that name already.
    pub(super) async fn create(
        &self,
        path: &ObjectPath,
        source: &Source<'_>,
        sha256: &Hash,
    ) -> Result<bool, StoreError> {
        let (root, file, sha256) = (self.root.clone(), self.file(path), *sha256);
        match source {
            Source::File(from) => {
                let from = from.to_path_buf();
                blocking(move || create(&root, &file, Content::File(&from), &sha256)).await
            }
            Source::Bytes(bytes) => {
                let bytes = bytes.clone();
                blocking(move || create(&root, &file, Content::Bytes(&bytes), &sha256)).await
            }
        }
    }

    pub(super) async fn get(&self, path: &ObjectPath) -> Result<Body, StoreError> {
        let path = self.file(path);
        let (file, bytes) = blocking(move || open(&path).map(|(file, bytes)| ((file, path), bytes))).await?;
        let pieces = stream::try_unfold(file, |(mut file, path)| {
            blocking(move || {
                let mut piece = BytesMut::zeroed(CHUNK);
                let mut filled = 0;
                while filled < piece.len() {
                    match file.read(&mut piece[filled..]) {
                        Ok(0) => break,
                        Ok(count) => filled += count,
                        Err(source) if source.kind() == ErrorKind::Interrupted => {}
                        Err(source) => return Err(StoreError::io("read", path, source)),
                    }
                }
                piece.truncate(filled);
                Ok((filled > 0).then(|| (piece.freeze(), (file, path))))
            })
        });
        Ok(Body { bytes, pieces: Box::pin(pieces) })
    }

    pub(super) async fn get_part(&self, path: &ObjectPath, part: Range<u64>) -> Result<Bytes, StoreError> {
        let path = self.file(path);
        blocking(move || {
            let (file, bytes) = open(&path)?;
            let unreadable = |source| StoreError::io("read", &path, source);
            // What is asked for may come from a file that says more than it has: nothing is reserved for that.
            if bytes < part.end {
                return Err(unreadable(ErrorKind::UnexpectedEof.into()));
            }
            let length = usize::try_from(part.end - part.start)
                .map_err(|_| unreadable(ErrorKind::OutOfMemory.into()))?;
            let mut bytes = BytesMut::zeroed(length);
            file.read_exact_at(&mut bytes, part.start).map_err(unreadable)?;
            Ok(bytes.freeze())
        })
        .await
    }

    pub(super) async fn head(&self, path: &ObjectPath) -> Result<Option<Head>, StoreError> {
        let path = self.file(path);
        blocking(move || match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(head(&metadata))),
            Ok(_) => Ok(None),
            Err(source) if is_missing(&source) => Ok(None),
            Err(source) => Err(StoreError::io("look at", path, source)),
        })
        .await
    }

    /// Every file below a folder. One folder is read at a time.
    pub(super) fn list(
        &self,
        below: Option<&ObjectPath>,
    ) -> impl Stream<Item = Result<Listed, StoreError>> + Send + use<> {
        let root = self.root.clone();
        let from = below.map_or_else(|| root.clone(), |below| self.file(below));
        stream::try_unfold(VecDeque::from([from]), move |mut folders| {
            let root = root.clone();
            async move {
                let Some(folder) = folders.pop_front() else { return Ok(None) };
                let (files, mut more) = blocking(move || read_folder(&root, &folder)).await?;
                more.append(&mut folders);
                Ok::<_, StoreError>(Some((stream::iter(files.into_iter().map(Ok)), more)))
            }
        })
        .try_flatten()
    }

    /// Writes a file and takes it away again.
    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        let root = self.root.clone();
        blocking(move || {
            make_folder(&root, &root)?;
            let (part, end) = (root.join(".probe.part"), root.join(".probe.linked.part"));
            for path in [&part, &end] {
                remove(path)?;
            }
            write_part(&part, Content::Bytes(b"probe"), &Hash::of(b"probe"))?;
            let linked = link(&part, &end);
            for path in [&part, &end] {
                remove(path)?;
            }
            linked.map(drop)
        })
        .await
    }
}

/// Opens an object, and says how large it is. What is no file is none, and is not opened: a pipe would wait for somebody to write to it.
fn open(path: &Path) -> Result<(File, u64), StoreError> {
    let no_object = || StoreError::NotFound { object: path.display().to_string() };
    let size = |metadata: fs::Metadata| metadata.is_file().then_some(metadata.len()).ok_or_else(no_object);
    size(fs::metadata(path).map_err(|source| missing("look at", path, source))?)?;
    let file = File::open(path).map_err(|source| missing("read", path, source))?;
    let bytes = size(file.metadata().map_err(|source| StoreError::io("look at", path, source))?)?;
    Ok((file, bytes))
}

/// What is written into a file.
#[derive(Clone, Copy)]
enum Content<'a> {
    File(&'a Path),
    Bytes(&'a [u8]),
}

fn create(root: &Path, file: &Path, content: Content<'_>, sha256: &Hash) -> Result<bool, StoreError> {
    // A put that comes again costs no copy.
    match fs::symlink_metadata(file) {
        Ok(_) => return Ok(false),
        Err(source) if is_missing(&source) => {}
        Err(source) => return Err(StoreError::io("look at", file, source)),
    }
    let folder = file.parent().unwrap_or(root);
    make_folder(root, folder)?;
    let part = part_of(file);
    // It may be a second name of a finished object, whose bytes must not be written to.
    remove(&part)?;
    let linked = write_part(&part, content, sha256).and_then(|()| link(&part, file));
    let removed = remove(&part);
    let created = linked?;
    removed?;
    flush_folder(folder)?;
    Ok(created)
}

/// Makes a folder and those between it and the root, so that they are there after a power cut.
fn make_folder(root: &Path, folder: &Path) -> Result<(), StoreError> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above.filter(|_| folder != root) {
        make_folder(root, above)?;
    }
    match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
        Ok(()) => {}
        Err(source) if source.kind() == ErrorKind::AlreadyExists && folder.is_dir() => {}
        Err(source) if source.kind() == ErrorKind::NotFound => {
            return Err(StoreError::NoTarget {
                what: format!("directory above {}", folder.display()),
                advice: "make it, or mount the disk that it is on",
            });
        }
        Err(source) => return Err(StoreError::io("make the folder", folder, source)),
    }
    flush_folder(above.unwrap_or(Path::new(".")))
}

fn write_part(part: &Path, content: Content<'_>, sha256: &Hash) -> Result<(), StoreError> {
    let failed = |source| StoreError::io("write", part, source);
    let mut to =
        OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(part).map_err(failed)?;
    let mut hash = Hasher::default();
    match content {
        Content::Bytes(bytes) => {
            hash.update(bytes);
            to.write_all(bytes).map_err(failed)?;
        }
        Content::File(from) => {
            let unreadable = |source| StoreError::io("read", from, source);
            let mut source = File::open(from).map_err(unreadable)?;
            let mut chunk = vec![0; CHUNK];
            loop {
                match source.read(&mut chunk) {
                    Ok(0) => break,
                    Ok(count) => {
                        hash.update(&chunk[..count]);
                        to.write_all(&chunk[..count]).map_err(failed)?;
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(unreadable(error)),
                }
            }
        }
    }
    let found = hash.finish();
    if found != *sha256 {
        let path = match content {
            Content::File(from) => from,
            Content::Bytes(_) => part,
        };
        return Err(StoreError::SourceChanged { path: path.to_owned(), expected: *sha256, found });
    }
    to.sync_all().map_err(failed)
}

/// Gives a finished file its name; `false` when something has it.
fn link(part: &Path, file: &Path) -> Result<bool, StoreError> {
    match fs::hard_link(part, file) {
        Ok(()) => Ok(true),
        Err(source) if source.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(source) => {
            Err(StoreError::io("give its name, which takes a file system with hard links, to", file, source))
        }
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(StoreError::io("remove", path, source)),
        _ => Ok(()),
    }
}

fn flush_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| StoreError::io("flush the folder", folder, source))
}

fn part_of(file: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    file.with_file_name(format!(".{name}.part"))
}

fn is_part(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".part")
}

/// The files of a folder, and the folders in it, by name.
fn read_folder(root: &Path, folder: &Path) -> Result<(Vec<Listed>, VecDeque<PathBuf>), StoreError> {
    let failed = |source| StoreError::io("read the folder", folder, source);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries.collect::<io::Result<Vec<DirEntry>>>().map_err(failed)?,
        Err(source) if is_missing(&source) && folder != root => return Ok(Default::default()),
        Err(source) if is_missing(&source) => {
            return Err(StoreError::NoTarget {
                what: format!("directory {}", root.display()),
                advice: "check its name, or mount the disk that it is on",
            });
        }
        Err(source) => return Err(failed(source)),
    };
    let mut entries: Vec<(PathBuf, DirEntry)> =
        entries.into_iter().map(|entry| (entry.path(), entry)).collect();
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    let (mut files, mut folders) = (Vec::new(), VecDeque::new());
    for (path, entry) in entries {
        let name = entry.file_name();
        // A link is not followed, so that nobody leads a walk in circles or out of the archive.
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(source) if is_missing(&source) => continue,
            Err(source) => return Err(StoreError::io("look at", path, source)),
        };
        if metadata.is_dir() {
            folders.push_back(path);
        } else if !is_part(&name.to_string_lossy()) {
            let below = path.strip_prefix(root).unwrap_or(&path);
            files.push(Listed { name: below.to_string_lossy().into_owned(), head: head(&metadata) });
        }
    }
    Ok((files, folders))
}

fn head(metadata: &fs::Metadata) -> Head {
    let modified = metadata.modified().map(DateTime::<Utc>::from).unwrap_or_default();
    Head { bytes: metadata.len(), modified }
}

fn is_missing(source: &io::Error) -> bool {
    matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn missing(doing: &'static str, path: &Path, source: io::Error) -> StoreError {
    if is_missing(&source) {
        StoreError::NotFound { object: path.display().to_string() }
    } else {
        StoreError::io(doing, path, source)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, os::unix::fs::MetadataExt as _};

    use tempfile::TempDir;

    use super::*;
    use crate::store::{Put, Store, Target};

    async fn store() -> (TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&Target::Directory(directory.path().join("archive"))).await.unwrap();
        (directory, store)
    }

    async fn put(store: &Store, path: &str, bytes: &'static [u8]) -> Result<Put, StoreError> {
        store
            .put_new(&path.parse().unwrap(), Source::Bytes(Bytes::from_static(bytes)), &Hash::of(bytes))
            .await
    }

    async fn names(store: &Store, below: Option<&str>) -> BTreeSet<String> {
        let below = below.map(|below| below.parse().unwrap());
        store.list(below.as_ref()).map_ok(|listed| listed.name).try_collect().await.unwrap()
    }

    /// Every file that is there, hidden ones as well.
    fn on_disk(folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { found.extend(on_disk(&path)) } else { found.push(path) }
        }
        found
    }

    #[tokio::test]
    async fn an_object_is_put_once_and_the_same_bytes_may_come_again() {
        let (directory, store) = store().await;
        assert_eq!(put(&store, "a/b/c.x", b"one").await.unwrap(), Put::Created);
        assert_eq!(put(&store, "a/b/c.x", b"one").await.unwrap(), Put::AlreadyThere);
        assert_eq!(on_disk(directory.path()).len(), 1);
        let path: ObjectPath = "a/b/c.x".parse().unwrap();
        assert_eq!(store.get_whole(&path, 3).await.unwrap(), "one");
        assert_eq!(store.head(&path).await.unwrap().unwrap().bytes, 3);
        assert_eq!(fs::metadata(directory.path().join("archive/a/b/c.x")).unwrap().nlink(), 1);
    }

    #[tokio::test]
    async fn other_bytes_under_the_same_name_are_an_error_and_stay() {
        let (directory, store) = store().await;
        put(&store, "a", b"one").await.unwrap();
        let error = put(&store, "a", b"two").await.unwrap_err();
        assert!(matches!(error, StoreError::OtherBytes { .. }) && !error.retryable());
        assert!(error.to_string().contains("archive/a is there with other bytes"), "{error}");
        assert_eq!(fs::read(directory.path().join("archive/a")).unwrap(), b"one");
    }

    #[tokio::test]
    async fn what_is_no_file_is_no_object_and_nobody_waits_for_it() {
        let (directory, store) = store().await;
        put(&store, "a", b"one").await.unwrap();
        let pipe = directory.path().join("archive/pipe");
        assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
        let path: ObjectPath = "pipe".parse().unwrap();
        assert!(matches!(store.get(&path).await, Err(StoreError::NotFound { .. })));
        assert!(matches!(store.get_part(&path, 0..1).await, Err(StoreError::NotFound { .. })));
        let error = put(&store, "pipe", b"two").await.unwrap_err();
        assert!(matches!(error, StoreError::Contended { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_source_that_changed_is_not_put() {
        let (directory, store) = store().await;
        let file = directory.path().join("sealed");
        fs::write(&file, "changed").unwrap();
        let path: ObjectPath = "a/b".parse().unwrap();
        let error = store.put_new(&path, Source::File(&file), &Hash::of(b"sealed")).await.unwrap_err();
        assert!(matches!(error, StoreError::SourceChanged { path, .. } if path == file));
        assert_eq!(store.head(&path).await.unwrap(), None);
        assert_eq!(on_disk(&directory.path().join("archive")), Vec::<PathBuf>::new());
    }

    #[tokio::test]
    async fn a_large_file_arrives_whole_and_in_pieces() {
        let (directory, store) = store().await;
        let bytes: Vec<u8> = (0..3 * CHUNK + 7).map(|at| (at % 251) as u8).collect();
        let file = directory.path().join("sealed");
        fs::write(&file, &bytes).unwrap();
        let path: ObjectPath = "large".parse().unwrap();
        assert_eq!(store.put_new(&path, Source::File(&file), &Hash::of(&bytes)).await.unwrap(), Put::Created);
        let body = store.get(&path).await.unwrap();
        let pieces: Vec<Bytes> = body.pieces.try_collect().await.unwrap();
        assert_eq!((body.bytes, pieces.len()), (bytes.len() as u64, 4));
        assert!(pieces.concat() == bytes);
        assert!(matches!(store.get_whole(&path, bytes.len() - 1).await, Err(StoreError::TooLarge { .. })));
        assert_eq!(store.get_part(&path, 5..CHUNK as u64 + 9).await.unwrap(), bytes[5..CHUNK + 9]);
        assert_eq!(store.get_part(&path, 7..7).await.unwrap(), "");
        assert!(store.get_part(&path, 1..bytes.len() as u64 + 1).await.is_err(), "it is not so long");
    }

    #[tokio::test]
    async fn what_a_crash_left_behind_is_not_listed_and_not_written_through() {
        let (directory, store) = store().await;
        put(&store, "a/done", b"done").await.unwrap();
        let folder = directory.path().join("archive/a");
        // Crashed between the link and the removal: both names are one file.
        fs::hard_link(folder.join("done"), folder.join(".done.part")).unwrap();
        fs::hard_link(folder.join("done"), folder.join(".next.part")).unwrap();
        assert_eq!(names(&store, None).await, BTreeSet::from(["a/done".to_owned()]));
        put(&store, "a/next", b"next").await.unwrap();
        assert_eq!(fs::read(folder.join("done")).unwrap(), b"done");
        assert_eq!(fs::read(folder.join("next")).unwrap(), b"next");
        assert!(!folder.join(".next.part").exists());
    }

    #[tokio::test]
    async fn a_listing_names_what_is_below_a_folder() {
        let (directory, store) = store().await;
        assert!(matches!(store.list(None).try_next().await, Err(StoreError::NoTarget { .. })));
        for path in ["a/1", "a/b/2", "ab/3"] {
            put(&store, path, b"x").await.unwrap();
        }
        fs::write(directory.path().join("archive/not ours"), "?").unwrap();
        let all = ["a/1", "a/b/2", "ab/3", "not ours"].map(str::to_owned);
        assert_eq!(names(&store, None).await, BTreeSet::from(all));
        assert_eq!(names(&store, Some("a")).await, BTreeSet::from(["a/1", "a/b/2"].map(str::to_owned)));
        assert_eq!(names(&store, Some("none")).await, BTreeSet::new());
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_found() {
        let (_directory, store) = store().await;
        put(&store, "a/b", b"x").await.unwrap();
        for path in ["a", "c", "a/b/c"] {
            let path: ObjectPath = path.parse().unwrap();
            assert_eq!(store.head(&path).await.unwrap(), None);
            assert!(matches!(store.get(&path).await, Err(StoreError::NotFound { .. })), "{path}");
        }
    }

    #[tokio::test]
    async fn a_probe_leaves_nothing_and_a_missing_disk_is_named() {
        let (directory, store) = store().await;
        store.probe().await.unwrap();
        assert_eq!(on_disk(directory.path()), Vec::<PathBuf>::new());
        let away = Store::open(&Target::Directory(directory.path().join("mount/archive"))).await.unwrap();
        let error = away.probe().await.unwrap_err();
        assert!(matches!(error, StoreError::NoTarget { .. }), "{error}");
        assert!(matches!(put(&away, "a", b"x").await, Err(StoreError::NoTarget { .. })));
    }

    /// `/dev/full` cannot hold a directory, so the error itself is made.
    #[test]
    fn a_full_disk_says_so_and_is_worth_another_try() {
        let error = StoreError::io("write", "/x", ErrorKind::StorageFull.into());
        assert!(matches!(error, StoreError::Full { .. }) && error.retryable());
        assert!(error.to_string().contains("is full"));
        assert!(matches!(
            StoreError::io("write", "/x", ErrorKind::QuotaExceeded.into()),
            StoreError::Full { .. }
        ));
    }
}
