//! Where tests let the writer fail or die.
//!
//! Every step that makes something durable passes one of these points. In a test a point can refuse, as a full disk
//! does, or end the writer as a kill does, after a part of a write if it is an append. Outside of tests nothing is here.

#[cfg(not(test))]
use std::io;

/// A step towards durability, in the order of a group commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// A segment file is made.
    MakeSegment,
    /// Frames are appended to a segment.
    Append,
    /// Segments are made durable.
    SyncSegments,
    /// The journal of the duplicate index is made durable.
    SyncIds,
    /// The database commits.
    Commit,
    /// The database has committed, and nothing that follows has been done.
    Committed,
    /// A segment file is removed.
    RemoveSegment,
    /// A part of a segment is read. No step towards durability, but what the disk cannot read is lost all the same.
    ReadSegment,
}

/// Outside of tests: nothing ever fails here.
#[cfg(not(test))]
#[derive(Debug, Clone)]
pub(crate) struct Faults;

#[cfg(not(test))]
#[expect(clippy::unused_self, reason = "the same shape as in tests")]
impl Faults {
    pub(crate) fn none() -> Self {
        Self
    }

    pub(crate) fn at(&self, _: Point) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn cut(&self, _: Point, _: usize) -> Option<usize> {
        None
    }

    pub(crate) fn synced(&self, _: &std::path::Path, _: u64) {}

    pub(crate) fn crashed(&self) -> bool {
        false
    }
}

#[cfg(test)]
pub(crate) use in_tests::Faults;
#[cfg(test)]
pub(crate) mod in_tests {
    use std::{
        collections::HashMap,
        io,
        path::{Path, PathBuf},
        sync::{Arc, Mutex},
    };

    use super::Point;

    /// What happens at a point.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Fault {
        /// The process dies.
        Crash,
        /// The process dies after this share of the bytes was written, in 256ths.
        CutAppend(u8),
        /// The disk is full.
        Full,
        /// The disk fails.
        Broken,
        /// The disk cannot read a sector.
        Unreadable,
    }

    #[derive(Debug, Default)]
    struct State {
        /// The fault, and how many points of the kind are passed before.
        plan: Option<(Point, u32, Fault)>,
        crashed: bool,
        /// How much of each file is known to be durable.
        durable: HashMap<PathBuf, u64>,
    }

    #[derive(Debug, Clone, Default)]
    pub(crate) struct Faults(Arc<Mutex<State>>);

    impl Faults {
        pub(crate) fn none() -> Self {
            Self::default()
        }

        /// Plans a fault at a point, after it was passed `after` times.
        pub(crate) fn plan(&self, point: Point, after: u32, fault: Fault) {
            self.0.lock().unwrap().plan = Some((point, after, fault));
        }

        /// Forgets what was planned; true when it had happened already.
        pub(crate) fn clear(&self) -> bool {
            self.0.lock().unwrap().plan.take().is_none()
        }

        fn due(&self, point: Point) -> Option<Fault> {
            let mut state = self.0.lock().unwrap();
            match &mut state.plan {
                Some((planned, after, fault)) if *planned == point => {
                    if *after > 0 {
                        *after -= 1;
                        return None;
                    }
                    let fault = *fault;
                    state.plan = None;
                    state.crashed |= matches!(fault, Fault::Crash | Fault::CutAppend(_));
                    Some(fault)
                }
                _ => None,
            }
        }

        pub(crate) fn at(&self, point: Point) -> io::Result<()> {
            match self.due(point) {
                None => Ok(()),
                Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
                Some(Fault::Unreadable) => Err(nix::errno::Errno::EIO.into()),
                Some(fault) => Err(io::Error::other(format!("simulated {fault:?}"))),
            }
        }

        /// How many of `length` bytes are written before the process dies.
        pub(crate) fn cut(&self, point: Point, length: usize) -> Option<usize> {
            let mut state = self.0.lock().unwrap();
            match state.plan {
                Some((planned, 0, Fault::CutAppend(share))) if planned == point => {
                    state.plan = None;
                    state.crashed = true;
                    Some(length * usize::from(share) / 256)
                }
                _ => None,
            }
        }

        pub(crate) fn synced(&self, path: &Path, length: u64) {
            self.0.lock().unwrap().durable.insert(path.to_owned(), length);
        }

        pub(crate) fn crashed(&self) -> bool {
            self.0.lock().unwrap().crashed
        }

        /// Which files are durable up to where.
        pub(crate) fn durable(&self) -> HashMap<PathBuf, u64> {
            self.0.lock().unwrap().durable.clone()
        }
    }
}
