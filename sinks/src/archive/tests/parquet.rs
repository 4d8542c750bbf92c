//! Objects with Parquet files: the same promises as without.

use std::{collections::BTreeSet, fs, time::Duration};

use ::archive::{LakeSource, Merkle, SealedObject, parquet::SortBy};
use parquet::{
    file::reader::{FileReader as _, SerializedFileReader},
    record::RowAccessor as _,
};

use super::{
    super::{Compression, Formats, Layout, Parquet, state},
    World,
    crashes::{Life, alone},
    files,
};
use crate::test_ledger::Kind;

fn both() -> Formats {
    let hive = Parquet { raw: true, layout: Layout::Hive { sort: SortBy::User } };
    Formats { parquet: Some(hive), ..Formats::default() }
}

fn lake(compression: Option<Compression>) -> Formats {
    let source = LakeSource::new("mailtrail", "eu-central-1").unwrap();
    Formats { compression, parquet: Some(Parquet { raw: true, layout: Layout::SecurityLake { source } }) }
}

impl World {
    fn twins(&self) -> Vec<String> {
        files(&self.target()).into_iter().filter(|path| path.ends_with(".parquet")).collect()
    }

    /// The records of every Parquet file, in the order of its rows.
    fn columns(&self) -> Vec<String> {
        self.twins().iter().flat_map(|path| raw_of(path)).collect()
    }

    /// The records are in Parquet files as in lines, each once.
    fn columns_are_complete(&self, works: &[usize]) {
        let columns = self.columns();
        let distinct: BTreeSet<_> = columns.iter().collect();
        assert_eq!(distinct.len(), columns.len(), "no record is there twice");
        let due = works.iter().map(|records| (0..*records).filter(|n| n % 11 != 10).count());
        assert_eq!(columns.len(), due.sum::<usize>());
    }

    async fn run(&self) {
        self.start().finish(&self.ledger).await;
        assert!(files(&self.staging()).is_empty(), "{:?}", files(&self.staging()));
    }
}

fn raw_of(path: &str) -> Vec<String> {
    let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|row| row.unwrap().get_string(16).unwrap().clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_object_has_lines_and_columns_under_one_name() {
    let works = [30, 0, 12, 40];
    let mut world = World::new(&works);
    world.config.formats = both();
    world.run().await;
    world.is_complete(&works);
    world.columns_are_complete(&works);
    let (lines, twins) = (super::objects_below(&world.target()), world.twins());
    assert_eq!((lines.len(), twins.len()), (1, 1));
    assert_eq!(lines[0].strip_suffix(".ndjson.zst"), twins[0].strip_suffix(".parquet"));
}

#[tokio::test(start_paused = true)]
async fn in_a_security_lake_each_class_and_day_is_a_file() {
    let works = [30, 0, 12, 40];
    let mut world = World::new(&works);
    world.config.formats = lake(Some(Compression::Zstd));
    world.run().await;
    world.is_complete(&works);
    world.columns_are_complete(&works);
    let twins = world.twins();
    for class in ["mailtrail_6003", "mailtrail_4009"] {
        for (day, undated) in [("20260202", false), ("20260203", false), ("", true)] {
            let tenant = "external_00000000-0000-0000-0000-000000000001";
            let folder = format!("/ext/{class}/region=eu-central-1/accountId={tenant}/eventDay={day}");
            let found = twins
                .iter()
                .filter(|path| path.contains(&folder) && path.ends_with(".undated.parquet") == undated);
            assert_eq!(found.count(), 1, "{folder} in {twins:?}");
        }
    }
    assert_eq!(twins.len(), 6);
}

/// Without lines the tree stands over the rows, file after file.
#[tokio::test(start_paused = true)]
async fn columns_alone_can_be_hashed_again() {
    for formats in [lake(None), Formats { compression: None, ..both() }] {
        let works = [30, 12];
        let mut world = World::new(&works);
        world.config.formats = formats;
        world.config.object_bytes = 1 << 20;
        let key = world.sign_with("key");
        world.run_to_the_end().await;
        world.columns_are_complete(&works);
        assert!(super::objects_below(&world.target()).is_empty());
        let verified = world.verify(&[key]).await;
        assert_eq!((verified.records, verified.not_yet_covered), (39, 0));
        let manifest = files(&world.target()).into_iter().find(|path| path.contains("/manifests/")).unwrap();
        let envelope = ::archive::Envelope::parse(&fs::read(manifest).unwrap()).unwrap();
        let entry = ::archive::Entry::parse(envelope.payload()).unwrap();
        let [object]: &[SealedObject; 1] = entry.objects.as_slice().try_into().unwrap();
        let mut tree = Merkle::default();
        for file in &object.files {
            let rows = raw_of(world.target().join(file.path.as_str()).to_str().unwrap());
            assert_eq!(rows.len() as u64, file.records);
            rows.iter().for_each(|record| tree.push(record.as_bytes()));
        }
        assert_eq!((tree.leaves(), tree.root()), (object.records, object.merkle_root));
        assert!(object.files[0].path.as_str().contains(&object.files[0].sha256.short()));
    }
}

#[test]
fn a_crash_at_every_step_with_columns() {
    let works = [3, 12, 1, 40];
    for formats in [both(), lake(None)] {
        let mut survived = 0;
        for steps in 0..400 {
            alone(async {
                let mut world = World::new(&works);
                world.config.formats = formats.clone();
                let life = Life { steps, object_bytes: 1500, flushes: true, stops_after: None };
                world.live(&life).await;
                survived += u32::from(world.ledger.pending() == 0);
                world.run().await;
                assert_eq!(world.ledger.pending(), 0);
                world.columns_are_complete(&works);
                if formats.compression.is_some() {
                    world.is_complete(&works);
                }
            });
            if survived > 3 {
                break;
            }
        }
        assert!(survived > 3, "a process that takes more than 400 steps has lost its way");
    }
}

/// A file of a sealed object is damaged here, and another of its files is in the archive already: it must not be made anew.
#[test]
fn an_object_that_is_half_put_and_damaged_is_never_doubled() {
    let works = [12, 40];
    let (mut halted, mut survived) = (0, 0);
    for steps in 0..400 {
        alone(async {
            let mut world = World::new(&works);
            world.config.formats = both();
            let life = Life { steps, object_bytes: 1 << 20, flushes: true, stops_after: None };
            world.live(&life).await;
            survived += u32::from(world.ledger.pending() == 0);
            let twin = files(&world.staging()).into_iter().find(|path| path.ends_with(".1.object"));
            let Some(twin) = twin.filter(|_| world.objects() == 1 && world.twins().is_empty()) else {
                return;
            };
            let good = fs::read(&twin).unwrap();
            fs::write(&twin, "garbage").unwrap();
            let running = world.start();
            tokio::time::sleep(Duration::from_secs(5)).await;
            let report = running.health.report();
            let told = format!("{:?}", report.state);
            if told.contains("Halted") {
                assert!(told.contains("bring back") && told.contains(".1.object"), "{told}");
                halted += 1;
            } else {
                // What the ledger did not know yet was never put.
                assert_eq!(world.ledger.pending(), 2, "{told}");
            }
            running.stop().await;
            fs::write(&twin, good).unwrap();
            world.run().await;
            world.is_complete(&works);
            assert_eq!((world.objects(), world.twins().len()), (1, 1));
        });
        if survived > 3 {
            break;
        }
    }
    assert!(halted > 0, "no life ended between the files of an object");
}

#[tokio::test(start_paused = true)]
async fn an_open_object_keeps_what_it_began_with() {
    let works = [30, 20];
    let mut world = World::new(&works);
    world.config.formats = both();
    let running = world.start();
    world.all_taken().await;
    running.stop().await;
    let kept = state::State::decode(&world.ledger.state().unwrap()).unwrap();
    assert_eq!(kept.open[0].formats, both());
    world.config.formats = Formats { compression: Some(Compression::Gzip), parquet: None };
    world.run().await;
    world.is_complete(&works);
    world.columns_are_complete(&works);
    // What begins now is of the new kind.
    world.ledger.add(2, vec![Kind::Plain; 5]);
    world.run().await;
    assert_eq!(world.twins().len(), 1);
    let gzipped = files(&world.target()).into_iter().filter(|path| path.ends_with(".ndjson.gz"));
    assert_eq!(gzipped.count(), 1);
}

/// A stop that comes when everything is to be ended leaves open what is not sealed yet.
#[test]
fn a_stop_while_columns_are_made_loses_nothing() {
    alone(async {
        let works = [30, 20];
        let mut world = World::new(&works);
        world.config.formats = lake(Some(Compression::Zstd));
        let running = world.start();
        world.all_taken().await;
        running.finish.cancel();
        tokio::task::yield_now().await;
        running.stop().await;
        world.run().await;
        world.is_complete(&works);
        world.columns_are_complete(&works);
    });
}

#[test]
fn what_would_keep_no_records_is_refused() {
    let parquet = Parquet { raw: false, layout: Layout::Hive { sort: SortBy::Time } };
    let formats = Formats { compression: None, parquet: Some(parquet) };
    assert!(!formats.keep_records());
    assert!(Formats::default().keep_records() && both().keep_records() && lake(None).keep_records());
}
