//! The file sink against crashes, foreign files, full disks and real directories.

mod crashes;
mod other_bodies;
mod real;
mod sim;
mod successors;
mod tidying;

use std::{path::Path, sync::Arc, time::Duration};

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{FileConfig, FileSink, disk::Disk};
use crate::{
    delivery::DeliveryLoop,
    delivery_ledger::LedgerFailure,
    health::Health,
    memory::MemoryBudget,
    rate::Rate,
    sink::{Sink, SinkContext},
    test_ledger::{MemoryLedger, sink_name},
};

fn config(directory: impl AsRef<Path>) -> FileConfig {
    FileConfig { rotate_bytes: 1 << 30, ..FileConfig::new(directory.as_ref().to_owned()) }
}

/// A file sink with its delivery loop, running.
struct Running {
    stop: CancellationToken,
    health: Arc<Health>,
    task: tokio::task::JoinHandle<Result<(), LedgerFailure>>,
}

fn start(disk: Arc<dyn Disk>, config: FileConfig, ledger: &Arc<MemoryLedger>) -> Running {
    start_at(Rate::new(None, None), disk, config, ledger)
}

/// No batch has more records than the rate allows in a second.
fn start_at(rate: Rate, disk: Arc<dyn Disk>, config: FileConfig, ledger: &Arc<MemoryLedger>) -> Running {
    let rate = Arc::new(rate);
    let context = SinkContext { name: sink_name(), ledger: ledger.clone(), rate: Arc::clone(&rate) };
    let sink = FileSink::on(disk, config, context).unwrap();
    let delivery = DeliveryLoop::new(Arc::new(sink), ledger.clone(), rate, &MemoryBudget::new(64 << 20));
    let (health, stop) = (delivery.health(), CancellationToken::new());
    let task = tokio::spawn(delivery.run(stop.clone()));
    Running { stop, health, task }
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("the loop does not panic").expect("the ledger does not fail");
    }

    /// Waits until everything is settled, and stops.
    async fn finish(self, ledger: &MemoryLedger) {
        let settled = tokio::time::timeout(Duration::from_secs(86_400), ledger.all_settled()).await;
        assert!(settled.is_ok(), "stuck: {:?}", self.health.report());
        self.stop().await;
    }
}

/// A sink outside a loop.
fn sink(disk: Arc<dyn Disk>, config: FileConfig, ledger: &Arc<MemoryLedger>) -> Arc<dyn Sink> {
    let context =
        SinkContext { name: sink_name(), ledger: ledger.clone(), rate: Arc::new(Rate::new(None, None)) };
    Arc::new(FileSink::on(disk, config, context).unwrap())
}

/// Which record a line is.
fn record_of(line: &str) -> (i64, u32) {
    fn find(value: &Value) -> Option<Uuid> {
        match value {
            Value::String(text) => text.parse().ok(),
            Value::Array(items) => items.iter().find_map(find),
            Value::Object(fields) => fields.values().find_map(find),
            _ => None,
        }
    }
    let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    let id = find(&value).expect("every record has an id").as_u128();
    ((id >> 64) as i64 - 1, id as u32)
}

fn records_of(text: &[u8]) -> Vec<(i64, u32)> {
    let text = std::str::from_utf8(text).expect("it is text");
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole");
    text.lines().map(record_of).collect()
}
