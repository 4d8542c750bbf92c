//! The commands that use the simulated tenant.

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroU64},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, ValueEnum};
use schemas::ContentType;
use simulator::{Faults, SimulatorConfig, TenantConfig};

use super::When;
use crate::units;

pub(super) const DEMO_HELP: &str = "\
Examples:
  mailtrail demo
  mailtrail demo --out /tmp/demo --blobs 1000 --view raw
  mailtrail demo --fault throttle429=0.05 --fault cut_body=0.02

Nothing leaves this machine and no account is needed. `mailtrail simulate --help` lists the faults.

Exit status: 0 every record arrived exactly once, 1 one did not, 2 wrong usage.";

/// The help of `simulate`, with the faults that there are.
pub(super) fn simulate_help() -> String {
    let faults: String = simulator::FAULTS
        .iter()
        .map(|fault| format!("  {}={}\n      {}\n", fault.name, fault.value, fault.what))
        .collect();
    format!(
        "\
Example:
  mailtrail simulate --blobs 5000 --rate 200 --fault throttle403=0.02 --fault cut_body=1/50x2

It prints a configuration that `mailtrail run` takes as it is. The secrets of simulated tenants are no secrets.

Faults (a SHARE is 0.1 or 1/10, TIMES says how often each is suffered, a DURATION is 500ms, 30s, 5m or 2h):
{faults}
Exit status: 0 stopped as asked, 1 could not serve, 2 wrong usage."
    )
}

/// A view that a demonstration can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum DemoView {
    /// OCSF events
    #[default]
    Ocsf,
    /// The records as they came
    Raw,
}

/// What a simulated tenant holds and what goes wrong with it.
#[derive(Debug, Clone, Args)]
pub(crate) struct TrafficArgs {
    /// The same seed makes the same records
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Simulated tenant")]
    pub(crate) seed: u64,
    /// People with a mailbox
    #[arg(long, value_name = "N", default_value = "25", help_heading = "Simulated tenant")]
    pub(crate) users: NonZeroU64,
    /// Blobs that wait to be collected
    #[arg(long, value_name = "N", default_value_t = 200, help_heading = "Simulated tenant")]
    pub(crate) blobs: u64,
    /// Records in a blob
    #[arg(long, value_name = "N", default_value = "100", help_heading = "Simulated tenant")]
    pub(crate) records_per_blob: NonZeroU64,
    /// Grow records to about this size, such as 2KiB [default: as large as they are, 0.7 to 3 KB]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Simulated tenant")]
    pub(crate) record_bytes: Option<usize>,
    /// How far back the waiting blobs reach, at most 7d
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = units::parse_duration)]
    #[arg(help_heading = "Simulated tenant")]
    pub(crate) backlog_span: Duration,
    /// Let something go wrong, and how often; can be repeated
    #[arg(long = "fault", value_name = "NAME=VALUE", value_parser = fault, help_heading = "Simulated tenant")]
    pub(crate) faults: Vec<String>,
}

/// `mailtrail demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where the records and the ledger go; must be empty or not exist
    #[arg(long, value_name = "DIR", default_value = "mailtrail-demo")]
    pub(crate) out: PathBuf,
    /// In which shape the records are written
    #[arg(long, value_enum, default_value_t)]
    pub(crate) view: DemoView,
    /// What the tenant holds.
    #[command(flatten)]
    pub(crate) traffic: TrafficArgs,
}

/// `mailtrail simulate`.
#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// Where to serve the token endpoint and the API; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9400")]
    pub(crate) listen: SocketAddr,
    /// The origin in the URLs that the API hands out [default: the Host header]
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// What each tenant holds.
    #[command(flatten)]
    pub(crate) traffic: TrafficArgs,
    /// How many tenants there are
    #[arg(long, value_name = "N", default_value = "1", help_heading = "Simulated tenant")]
    pub(crate) tenants: NonZeroU32,
    /// A content type that has content; can be repeated [default: Audit.Exchange]
    #[arg(long = "content-type", value_name = "NAME", help_heading = "Simulated tenant")]
    pub(crate) content_types: Vec<ContentType>,
    /// Records that are added each second, per feed
    #[arg(long, value_name = "N", default_value_t = 0.0, help_heading = "Simulated tenant")]
    pub(crate) rate: f64,
    /// Stop adding after so many blobs, per feed
    #[arg(long, value_name = "N", help_heading = "Simulated tenant")]
    pub(crate) flow_blobs: Option<u64>,
    /// The instant between the waiting blobs and the added ones; a fixed one makes every byte the same [default: now]
    #[arg(long, value_name = "TIME", value_parser = When::parse, help_heading = "Simulated tenant")]
    pub(crate) anchor: Option<When>,
    /// Mix every known oddity of real records into them
    #[arg(long, help_heading = "Simulated tenant")]
    pub(crate) quirks: bool,
    /// Blobs on a page of a listing
    #[arg(long, value_name = "N", default_value = "200", help_heading = "Simulated service")]
    pub(crate) page_size: NonZeroU32,
    /// Do not compress answers
    #[arg(long, help_heading = "Simulated service")]
    pub(crate) no_gzip: bool,
    /// Render the waiting blobs at the start and keep them in memory, for benchmarks
    #[arg(long, help_heading = "Simulated service")]
    pub(crate) prerender: bool,
    /// How long tokens live
    #[arg(long, value_name = "DURATION", default_value = "59m59s", value_parser = units::parse_duration)]
    #[arg(help_heading = "Simulated service")]
    pub(crate) token_lifetime: Duration,
    /// The quota of a publisher; 0 is none
    #[arg(long, value_name = "N", default_value_t = 2000, help_heading = "Simulated service")]
    pub(crate) requests_per_minute: u32,
    /// The time that must pass between two starts of a subscription; 0s is none
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = units::parse_duration)]
    #[arg(help_heading = "Simulated service")]
    pub(crate) start_spacing: Duration,
    /// The subscriptions are started already
    #[arg(long, help_heading = "Simulated service")]
    pub(crate) subscribed: bool,
}

impl TrafficArgs {
    /// A simulation of one tenant that holds this.
    pub(crate) fn simulator_config(&self) -> SimulatorConfig {
        let mut faults = Faults::default();
        for text in &self.faults {
            faults.set(text).expect("each was read when the command line was");
        }
        SimulatorConfig {
            seed: self.seed,
            users: self.users.get(),
            blobs: self.blobs,
            records_per_blob: self.records_per_blob.get(),
            record_bytes: self.record_bytes,
            backlog_span: self.backlog_span,
            faults,
            ..SimulatorConfig::default()
        }
    }
}

impl SimulateArgs {
    /// The simulation; `now` is what an anchor such as `24h` counts back from.
    pub(crate) fn simulator_config(&self, now: chrono::DateTime<chrono::Utc>) -> SimulatorConfig {
        let base = self.traffic.simulator_config();
        let content_types =
            if self.content_types.is_empty() { base.content_types } else { self.content_types.clone() };
        SimulatorConfig {
            tenants: (0..self.tenants.get()).map(TenantConfig::numbered).collect(),
            content_types,
            anchor: self.anchor.map(|anchor| anchor.resolve(now)),
            rate: self.rate,
            flow_blobs: self.flow_blobs,
            quirks: self.quirks,
            page_size: self.page_size.get() as usize,
            gzip: !self.no_gzip,
            prerender: self.prerender,
            token_lifetime: self.token_lifetime,
            requests_per_minute: (self.requests_per_minute > 0).then_some(self.requests_per_minute),
            start_spacing: self.start_spacing,
            subscribed: self.subscribed,
            public_url: self.public_url.clone(),
            ..base
        }
    }
}

fn size(text: &str) -> Result<usize, String> {
    let bytes = units::parse_bytes(text).map_err(|error| error.to_string())?;
    usize::try_from(bytes).map_err(|_| "it is too large".to_owned())
}

/// A fault that can be set; it is set when the simulation is made.
fn fault(text: &str) -> Result<String, simulator::BadFault> {
    Faults::default().set(text)?;
    Ok(text.to_owned())
}
