//! A file system in memory that can lose its power, and somebody who tails the live file.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use super::super::disk::{Access, Disk, DiskFile, Identity, Look};
use crate::test_ledger::{Fuse, Step};

#[derive(Debug, Default)]
struct Inode {
    data: Vec<u8>,
    /// What would be left after the power is cut.
    durable: Vec<u8>,
    /// From here on a failed fsync has thrown away what was to be written, though reading still shows it.
    lost_from: Option<usize>,
}

/// What is on the disk. It outlives the processes.
#[derive(Debug)]
pub(super) struct Platter {
    files: HashMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    next: u64,
    /// Bytes that there is room for.
    pub(super) room: Option<usize>,
    /// How many fsyncs fail.
    pub(super) failing_syncs: u32,
    pub(super) tailer: Option<Tailer>,
    /// Decides what is left of an operation in which the process dies.
    chance: u64,
}

/// Reads every whole line of the live file as soon as it is there, and follows renames.
#[derive(Debug, Default)]
pub(super) struct Tailer {
    live: Vec<PathBuf>,
    /// What was read of each file, in the order of discovery.
    read: Vec<(u64, Vec<u8>)>,
    pub(super) seen: Vec<String>,
    pub(super) complaints: Vec<String>,
}

/// The file system as one process sees it.
#[derive(Clone)]
pub(super) struct SimDisk {
    pub(super) platter: Arc<Mutex<Platter>>,
    pub(super) fuse: Arc<Fuse>,
}

impl Platter {
    pub(super) fn new(live: &[&str], chance: u64) -> Arc<Mutex<Self>> {
        let tailer = Tailer { live: live.iter().map(PathBuf::from).collect(), ..Tailer::default() };
        Arc::new(Mutex::new(Self {
            files: HashMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            next: 1,
            room: None,
            failing_syncs: 0,
            tailer: Some(tailer),
            chance,
        }))
    }

    /// Some number under `below`.
    fn draw(&mut self, below: u64) -> u64 {
        self.chance =
            self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.chance >> 33) % below.max(1)
    }

    /// The power is cut: what was not fsynced is gone, or there in part.
    pub(super) fn cut_power(&mut self, all_that_can_be_lost: bool) {
        // Whoever tails loses what is taken back; that cannot be helped.
        self.tailer = None;
        if all_that_can_be_lost || self.draw(2) == 0 {
            self.names = self.durable_names.clone();
        }
        let inodes: Vec<u64> = self.files.keys().copied().collect();
        for inode in inodes {
            let (length, torn) = (self.draw(1 << 20) as usize, self.draw(1 << 20) as usize);
            let keep = !all_that_can_be_lost && self.draw(2) == 0;
            let Some(file) = self.files.get_mut(&inode) else { continue };
            let mut left = file.durable.clone();
            if keep && file.data.len() > left.len() && file.data.starts_with(&left) {
                let extra = file.data.len() - left.len();
                left = file.data[..left.len() + length % (extra + 1)].to_vec();
                // A block that was not written reads as zeros.
                let from = file.durable.len() + torn % (left.len() - file.durable.len() + 1);
                let to = from + length % (left.len() - from + 1);
                if torn.is_multiple_of(3) {
                    left[from..to].fill(0);
                }
            }
            file.data = left.clone();
            file.durable = left;
            file.lost_from = None;
        }
        self.durable_names = self.names.clone();
    }

    /// Every file by name.
    pub(super) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let read = |inode: &u64| self.files[inode].data.clone();
        self.names.iter().map(|(path, inode)| (path.display().to_string(), read(inode))).collect()
    }

    pub(super) fn put(&mut self, path: &str, data: &[u8]) {
        let inode = self.next;
        self.next += 1;
        self.files.insert(inode, Inode { data: data.to_vec(), durable: data.to_vec(), lost_from: None });
        self.names.insert(path.into(), inode);
        self.durable_names = self.names.clone();
    }

    pub(super) fn take_away(&mut self, path: &str) {
        self.names.remove(Path::new(path)).expect("it is there");
        self.durable_names = self.names.clone();
    }

    fn used(&self) -> usize {
        self.files.values().map(|file| file.data.len()).sum()
    }

    fn observe(&mut self) {
        let Some(tailer) = &mut self.tailer else { return };
        for path in &tailer.live {
            if let Some(inode) = self.names.get(path)
                && !tailer.read.iter().any(|(known, _)| known == inode)
            {
                tailer.read.push((*inode, Vec::new()));
            }
        }
        for (inode, read) in &mut tailer.read {
            let data = &self.files[inode].data;
            if !data.starts_with(read) {
                let same = data.iter().zip(&*read).take_while(|(one, other)| one == other).count();
                tailer.complaints.push(format!("of {} bytes that were read, {same} are left", read.len()));
                read.truncate(same);
            }
            if let Some(end) = data[read.len()..].iter().rposition(|&b| b == b'\n') {
                let new = data[read.len()..=read.len() + end].to_vec();
                let text = String::from_utf8_lossy(&new);
                tailer.seen.extend(text.lines().map(str::to_owned));
                read.extend(new);
            }
        }
    }
}

fn dead() -> io::Error {
    io::Error::other("the process is dead")
}

impl SimDisk {
    pub(super) fn lock(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().unwrap()
    }

    fn read<T>(&self, read: impl FnOnce(&Platter) -> io::Result<T>) -> io::Result<T> {
        let platter = self.lock();
        if self.fuse.is_blown() { Err(dead()) } else { read(&platter) }
    }

    /// A step that the process may die in: then it has happened or not.
    fn change<T>(&self, change: impl FnOnce(&mut Platter) -> io::Result<T>) -> io::Result<T> {
        let mut platter = self.lock();
        // Under the lock, so that nothing happens after the moment of death.
        let step = self.fuse.step();
        let happens = match step {
            Step::Go => true,
            Step::Now => platter.draw(2) == 0,
            Step::Dead => false,
        };
        let result = if happens { change(&mut platter) } else { Err(dead()) };
        platter.observe();
        if step == Step::Go { result } else { Err(dead()) }
    }
}

impl Disk for SimDisk {
    fn look(&self, path: &Path) -> io::Result<Option<Look>> {
        self.read(|platter| {
            let look = |inode: &u64| Look {
                regular: true,
                length: platter.files[inode].data.len() as u64,
                identity: Identity { device: 1, inode: *inode },
            };
            Ok(platter.names.get(path).map(look))
        })
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.read(|platter| match platter.names.get(path) {
            Some(&inode) => Ok(Box::new(SimFile { disk: self.clone(), inode }) as Box<dyn DiskFile>),
            None => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn create(&self, path: &Path, _: Access) -> io::Result<Box<dyn DiskFile>> {
        self.change(|platter| {
            if platter.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let inode = platter.next;
            platter.next += 1;
            platter.files.insert(inode, Inode::default());
            platter.names.insert(path.to_owned(), inode);
            Ok(Box::new(SimFile { disk: self.clone(), inode }) as Box<dyn DiskFile>)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|platter| {
            let inode = platter.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            assert!(!platter.names.contains_key(to), "{} is overwritten", to.display());
            platter.names.insert(to.to_owned(), inode);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|platter| match platter.names.remove(path) {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.change(|platter| {
            platter.durable_names.retain(|path, _| path.parent() != Some(directory));
            let there = platter.names.iter().filter(|(path, _)| path.parent() == Some(directory));
            let there: Vec<_> = there.map(|(path, inode)| (path.clone(), *inode)).collect();
            platter.durable_names.extend(there);
            Ok(())
        })
    }

    fn make_directory(&self, _: &Path, _: Access) -> io::Result<()> {
        self.read(|_| Ok(()))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.read(|platter| {
            let there = platter.names.keys().filter(|path| path.parent() == Some(directory));
            Ok(there.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
        })
    }
}

struct SimFile {
    disk: SimDisk,
    inode: u64,
}

impl DiskFile for SimFile {
    fn look(&self) -> io::Result<Look> {
        self.disk.read(|platter| {
            let length = platter.files[&self.inode].data.len() as u64;
            Ok(Look { regular: true, length, identity: Identity { device: 1, inode: self.inode } })
        })
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.read(|platter| {
            let data = &platter.files[&self.inode].data;
            let rest = data.get(offset as usize..).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut platter = self.disk.lock();
        let step = self.disk.fuse.step();
        let mut count = match step {
            Step::Go => bytes.len(),
            // It dies in the midst of the write, at any byte.
            Step::Now => platter.draw(bytes.len() as u64 + 1) as usize,
            Step::Dead => return Err(dead()),
        };
        let (used, room) = (platter.used(), platter.room);
        let offset = offset as usize;
        let file = platter.files.get_mut(&self.inode).unwrap();
        let mut full = false;
        if let Some(room) = room {
            let grows = (offset + count).saturating_sub(file.data.len());
            let free = room.saturating_sub(used);
            if grows > free {
                count -= grows - free;
                full = count == 0;
            }
        }
        if file.data.len() < offset + count {
            file.data.resize(offset + count, 0);
        }
        file.data[offset..offset + count].copy_from_slice(&bytes[..count]);
        if let Some(lost) = file.lost_from
            && (offset..offset + count).contains(&lost)
        {
            file.lost_from = (offset + count < file.data.len()).then_some(offset + count);
        }
        platter.observe();
        match step {
            Step::Go if full => Err(io::ErrorKind::StorageFull.into()),
            Step::Go => Ok(count),
            _ => Err(dead()),
        }
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.disk.change(|platter| {
            let file = platter.files.get_mut(&self.inode).unwrap();
            file.data.resize(length as usize, 0);
            file.lost_from = file.lost_from.filter(|lost| *lost < length as usize);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.change(|platter| {
            let fails = platter.failing_syncs > 0;
            platter.failing_syncs = platter.failing_syncs.saturating_sub(1);
            let file = platter.files.get_mut(&self.inode).unwrap();
            if fails {
                // As Linux does: the pages count as clean, whatever became of them.
                let same =
                    file.data.iter().zip(&file.durable).take_while(|(one, other)| one == other).count();
                file.lost_from = Some(file.lost_from.map_or(same, |lost| lost.min(same)));
                return Err(io::Error::from_raw_os_error(5));
            }
            file.durable = match file.lost_from {
                Some(lost) => file.data[..lost.min(file.data.len())].to_vec(),
                None => file.data.clone(),
            };
            Ok(())
        })
    }

    fn permit(&self, _: Access) -> io::Result<()> {
        self.disk.read(|_| Ok(()))
    }
}
