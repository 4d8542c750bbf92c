//! A sink that comes after another one of its name, while a write of that one hangs.

use std::{
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use super::{
    super::disk::{Access, Disk, DiskFile, Look},
    config, records_of,
    sim::{Platter, SimDisk},
    sink,
};
use crate::{
    sink::{Batch, Disposition, Sink},
    test_ledger::{Fuse, MemoryLedger},
};

/// Writes wait at it while it is closed.
#[derive(Default)]
struct Gate {
    /// Whether it is closed, and how many wait.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, closed: bool) {
        self.state.lock().unwrap().0 = closed;
        self.changed.notify_all();
    }

    fn waiting(&self) -> usize {
        self.state.lock().unwrap().1
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        state = self.changed.wait_while(state, |(closed, _)| *closed).unwrap();
        state.1 -= 1;
    }
}

/// A disk whose writes hang on demand.
struct Hanging {
    disk: SimDisk,
    gate: Arc<Gate>,
}

struct HangingFile {
    file: Box<dyn DiskFile>,
    gate: Arc<Gate>,
}

impl Hanging {
    fn file(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(HangingFile { file, gate: Arc::clone(&self.gate) })
    }
}

impl Disk for Hanging {
    fn look(&self, path: &Path) -> io::Result<Option<Look>> {
        self.disk.look(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(path).map(|file| self.file(file))
    }

    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create(path, access).map(|file| self.file(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.disk.sync_directory(directory)
    }

    fn make_directory(&self, directory: &Path, access: Access) -> io::Result<()> {
        self.disk.make_directory(directory, access)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.disk.list(directory)
    }
}

impl DiskFile for HangingFile {
    fn look(&self) -> io::Result<Look> {
        self.file.look()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.gate.pass();
        self.file.write_at(bytes, offset)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.file.set_length(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn permit(&self, access: Access) -> io::Result<()> {
        self.file.permit(access)
    }
}

#[tokio::test]
async fn a_sink_that_was_ended_and_the_one_after_it_never_write_at_the_same_time() {
    const LIVE: &str = "/logs/mailtrail.ndjson";
    let platter = Platter::new(&[LIVE], 1);
    let gate = Arc::new(Gate::default());
    let disk = SimDisk { platter: Arc::clone(&platter), fuse: Fuse::new(None) };
    let disk: Arc<dyn Disk> = Arc::new(Hanging { disk, gate: Arc::clone(&gate) });
    let ledger = Arc::new(MemoryLedger::plain([3, 2]));
    let announce = |sink: &dyn Sink, batch: &Batch| ledger.set_state(sink.state(&[], Some(batch)));

    let first = sink(Arc::clone(&disk), config("/logs"), &ledger);
    assert_eq!(first.open().await.unwrap(), []);
    let batch = ledger.batch(&[(0, 0..3)]);
    announce(first.as_ref(), &batch);
    gate.set(true);
    let delivery = tokio::spawn({
        let first = Arc::clone(&first);
        async move { first.deliver(batch).await }
    });
    while gate.waiting() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The configuration is read again: the sink has had its time and is ended.
    delivery.abort();
    assert!(delivery.await.unwrap_err().is_cancelled());

    let second = sink(Arc::clone(&disk), config("/logs"), &ledger);
    let error = second.open().await.unwrap_err();
    assert_eq!(error.disposition, Disposition::Retry { after: None, ambiguous: false });
    assert!(error.context.contains("has not ended"), "{error}");

    gate.set(false);
    let unfinished = loop {
        match second.open().await {
            Ok(unfinished) => break unfinished,
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    assert_eq!(unfinished.len(), 1);
    let written = || platter.lock().unwrap().files().remove(LIVE).expect("it is there");
    assert_eq!(records_of(&written()), [(0, 0), (0, 1), (0, 2)], "it was written to its end");
    // Whatever the first has left to do, it writes nothing any more.
    let late = ledger.batch(&[(1, 0..2)]);
    announce(first.as_ref(), &late);
    first.deliver(late).await.unwrap_err();
    assert_eq!(records_of(&written()).len(), 3);
    assert!(first.open().await.is_err(), "and does not come back");

    let batch = ledger.batch(&[(0, 0..3)]);
    announce(second.as_ref(), &batch);
    let _ = second.deliver(batch).await.unwrap();
    assert_eq!(records_of(&written()), [(0, 0), (0, 1), (0, 2)], "what was there is recognised");
    let tailer = platter.lock().unwrap().tailer.take().expect("nobody cut the power");
    assert_eq!((tailer.seen.len(), tailer.complaints), (3, vec![]));
}
