//! What a run until idle shows while it works, on a terminal: one line with blobs, records, their rate and what is left.

use std::{io::IsTerminal, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::pipeline::Pipeline;

/// How often the line is drawn anew.
const DRAW: Duration = Duration::from_millis(250);

/// The line; nothing when stderr is no terminal.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
}

impl Progress {
    pub(crate) fn new(shown: &MultiProgress) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg}").expect("the template is right");
            let bar = shown.add(ProgressBar::new_spinner().with_style(style));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, started: Instant::now() }
    }

    /// Draws until it is dropped.
    pub(crate) async fn follow(&self, pipeline: &Pipeline) {
        let Some(bar) = &self.bar else { return std::future::pending().await };
        loop {
            let (mut fetched, mut records) = (0, 0);
            for tenant in pipeline.collected() {
                fetched += tenant.fetcher.fetched.get();
                records += tenant.fetcher.records.get();
            }
            let delivered: u64 = pipeline
                .sinks()
                .iter()
                .map(|sink| sink.health.report().counters)
                .map(|all| all.records + all.restored)
                .sum();
            let rate = records as f64 / self.started.elapsed().as_secs_f64().max(0.001);
            let left = match pipeline.ledger().idle_state().await {
                Ok(state) => {
                    let blobs: u64 = state.fetches.iter().map(|left| left.due + left.waiting).sum();
                    let deliveries: u64 =
                        state.deliveries.iter().map(|left| left.due + left.waiting + left.held).sum();
                    format!("left: {blobs} blobs to fetch, {deliveries} to deliver")
                }
                Err(_) => String::new(),
            };
            bar.set_message(format!(
                "{fetched} blobs, {records} records in ({rate:.0}/s), {delivered} records out; {left}"
            ));
            tokio::time::sleep(DRAW).await;
        }
    }

    /// Takes the line away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
