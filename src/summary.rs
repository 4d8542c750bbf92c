//! What a run until idle did: the table at its end.

use std::fmt;

use sinks::health::Counters;

use crate::{
    pipeline::Pipeline,
    table::{Align, Table},
    units::{format_bytes, format_count},
};

/// What a run did.
#[derive(Debug)]
pub(crate) struct Summary {
    tenants: Vec<TenantLine>,
    sinks: Vec<(String, Counters)>,
}

#[derive(Debug)]
struct TenantLine {
    name: String,
    listed: u64,
    fetched: u64,
    gaps: u64,
    records: u64,
    duplicates: u64,
    bytes: u64,
    requests: u64,
}

impl Summary {
    /// What it has done until now.
    pub(crate) fn of(pipeline: &Pipeline) -> Self {
        let tenants = pipeline.collected().into_iter().map(|tenant| TenantLine {
            name: tenant.name.clone(),
            listed: tenant.feeds.iter().map(|feed| feed.new_blobs.get()).sum(),
            fetched: tenant.fetcher.fetched.get(),
            gaps: tenant.fetcher.gaps.get(),
            records: tenant.fetcher.records.get(),
            duplicates: tenant.fetcher.duplicates.get(),
            bytes: tenant.fetcher.bytes.get(),
            requests: tenant.requests.counts().iter().map(|(_, _, count)| count).sum(),
        });
        let running = pipeline.sinks();
        let sinks = running.iter().map(|sink| (sink.name.to_string(), sink.health.report().counters));
        Self { tenants: tenants.collect(), sinks: sinks.collect() }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Align::{Left, Right};
        let mut table = Table::new([
            ("tenant", Left),
            ("new blobs", Right),
            ("fetched", Right),
            ("gaps", Right),
            ("records", Right),
            ("duplicates", Right),
            ("bytes", Right),
            ("requests", Right),
        ]);
        for line in &self.tenants {
            table.row([
                line.name.clone(),
                format_count(line.listed),
                format_count(line.fetched),
                format_count(line.gaps),
                format_count(line.records),
                format_count(line.duplicates),
                format_bytes(line.bytes),
                format_count(line.requests),
            ]);
        }
        write!(f, "{table}")?;
        let mut table = Table::new([
            ("sink", Left),
            ("delivered", Right),
            ("filtered", Right),
            ("dead", Right),
            ("resent", Right),
            ("bytes", Right),
        ]);
        for (name, done) in &self.sinks {
            table.row([
                name.clone(),
                format_count(done.records),
                format_count(done.filtered),
                format_count(done.dead),
                format_count(done.resent),
                format_bytes(done.bytes),
            ]);
            if done.restored > 0 {
                table.row([format!("{name} (restored)"), format_count(done.restored)]);
            }
        }
        write!(f, "\n{table}")
    }
}
