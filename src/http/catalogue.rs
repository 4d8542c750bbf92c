//! Every metric that mailtrail shows, but for those of the kinds of sink. `docs/operations.md` lists the same; a test
//! holds them together.

use super::exposition::{Kind, Labels, Page};

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Metric {
    /// Its name.
    pub(super) name: &'static str,
    help: &'static str,
    kind: Kind,
}

impl Metric {
    /// Adds a sample of it.
    pub(super) fn put(&self, page: &mut Page, labels: &Labels<'_>, value: f64) {
        page.sample(self.name, self.help, self.kind, labels, value);
    }

    /// Adds what it counted.
    pub(super) fn count(&self, page: &mut Page, labels: &Labels<'_>, value: u64) {
        self.put(page, labels, value as f64);
    }

    /// Adds a histogram of it: bounds, counts that are not cumulative, and the sum.
    pub(super) fn histogram(&self, page: &mut Page, labels: &Labels<'_>, of: (&[f64], &[u64], f64)) {
        page.histogram(self.name, self.help, labels, of);
    }

    /// Adds 1 for the state that is, and 0 for each that could be.
    pub(super) fn state(&self, page: &mut Page, labels: &Labels<'_>, is: &str, could_be: &[&str]) {
        debug_assert!(could_be.contains(&is), "{is} is among the states of {}", self.name);
        for state in could_be {
            let labels = [labels, &[("state", *state)]].concat();
            self.put(page, &labels, f64::from(u8::from(*state == is)));
        }
    }
}

macro_rules! metrics {
    ($($kind:ident $constant:ident $name:literal $help:literal;)*) => {
        $(pub(super) const $constant: Metric = Metric { name: $name, help: $help, kind: Kind::$kind };)*

        /// All of them.
        #[cfg(test)]
        pub(super) const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    Gauge BUILD_INFO "mailtrail_build_info" "The version that runs, as a label.";
    Gauge START_TIME "mailtrail_start_time_seconds" "When the process started, in seconds since 1970.";
    Gauge CONFIG_ACCEPTED "mailtrail_config_accepted" "Whether the configuration that was read last is in use.";
    Gauge CONFIG_TIME "mailtrail_config_applied_timestamp_seconds" "When the configuration in use was applied, in seconds since 1970.";
    Gauge MEMORY_RESERVED "mailtrail_memory_reserved_bytes" "What records on their way to the sinks take of their memory budget.";
    Gauge MEMORY_LIMIT "mailtrail_memory_limit_bytes" "The memory budget of records on their way to the sinks.";

    Gauge LEDGER_READABLE "mailtrail_ledger_readable" "Whether the figures of the ledger could be read.";
    Gauge SPOOL "mailtrail_spool_bytes" "What the spool's files take on the disk.";
    Gauge SPOOL_WANTED "mailtrail_spool_wanted_bytes" "What of the spool some sink still wants.";
    Gauge SPOOL_LIMIT "mailtrail_spool_limit_bytes" "What the spool may take: spool_max_bytes.";
    Gauge SPOOL_FULL "mailtrail_spool_full" "Whether fetching pauses because the spool is full.";
    Gauge DEAD_LETTERS "mailtrail_dead_letters" "Dead letters that were neither retried nor acknowledged.";
    Gauge DEAD_LETTER_BYTES "mailtrail_dead_letter_bytes" "What dead letters take in the ledger.";
    Gauge QUARANTINED "mailtrail_quarantined_blobs" "Quarantined blobs that nobody has acknowledged.";
    Counter DAMAGED_PIECES "mailtrail_damaged_pieces_total" "Pieces of bodies in the spool that were found damaged.";

    Gauge FEED_STATE "mailtrail_feed_state" "1 for the state that the feed is in.";
    Gauge FEED_LAG "mailtrail_feed_listing_lag_seconds" "How long ago the time is until which everything was listed.";
    Gauge FEED_SILENT "mailtrail_feed_silent_seconds" "How long ago Microsoft made the newest blob that is known.";
    Gauge FEED_TO_FETCH "mailtrail_feed_blobs_to_fetch" "Blobs that are listed and not fetched.";
    Gauge FEED_EXPIRY "mailtrail_feed_expiry_remaining_seconds" "How long Microsoft keeps the first of the blobs that are to be fetched.";
    Gauge FEED_GAPS "mailtrail_feed_gaps" "Gaps that nobody has acknowledged.";
    Gauge FEED_HOLES "mailtrail_feed_holes" "Holes that were not recovered and that nobody has acknowledged.";
    Counter FEED_PASSES "mailtrail_feed_passes_total" "Complete listings.";
    Counter FEED_SWEEPS "mailtrail_feed_sweeps_total" "Complete listings of everything that Microsoft keeps.";
    Counter FEED_NEW "mailtrail_feed_new_blobs_total" "Blobs that were listed for the first time.";
    Counter FEED_UNUSABLE "mailtrail_feed_unusable_entries_total" "Entries of listings that name no blob.";
    Counter FEED_STARTS "mailtrail_feed_subscription_starts_total" "Starts of the subscription.";
    Counter FEED_PANICS "mailtrail_feed_panics_total" "Panics of the lister that were caught.";

    Gauge TENANT_STARTED "mailtrail_tenant_started" "Whether the tenant is collected at all.";
    Gauge TENANT_STATE "mailtrail_tenant_fetching_state" "1 for the state that the tenant's fetcher is in.";
    Counter FETCHED "mailtrail_tenant_blobs_fetched_total" "Blobs whose bodies are durable in the spool.";
    Counter RECORDS "mailtrail_tenant_records_total" "Records in them.";
    Counter DUPLICATES "mailtrail_tenant_duplicates_total" "Records of them that were dropped as repetitions.";
    Counter FETCHED_BYTES "mailtrail_tenant_fetched_bytes_total" "Bytes of bodies, unpacked.";
    Counter WIRE_BYTES "mailtrail_tenant_wire_bytes_total" "Bytes of bodies as they came over the network.";
    Counter FETCH_FAILED "mailtrail_tenant_fetch_failures_total" "Fetches that failed and are tried again.";
    Counter GAPS "mailtrail_tenant_gaps_total" "Blobs that became gaps when they were fetched; mailtrail_feed_gaps has those too that expired while they waited.";
    Counter QUARANTINES "mailtrail_tenant_quarantined_total" "Bodies that were quarantined when they were fetched.";
    Counter FETCH_PANICS "mailtrail_tenant_panics_total" "Panics of the fetcher that were caught.";
    Gauge FETCHING "mailtrail_tenant_fetches_in_flight" "Blobs that are being fetched.";
    Counter REQUESTS "mailtrail_tenant_requests_total" "Requests to the Management Activity API, by call and outcome.";
    Gauge BUDGET "mailtrail_tenant_request_budget" "Requests a minute that are allowed at present.";
    Gauge BUDGET_LIMIT "mailtrail_tenant_request_budget_limit" "Requests a minute that the configuration allows.";
    Counter THROTTLED "mailtrail_tenant_throttled_total" "Answers that asked for fewer requests.";
    Counter THROTTLED_FOR "mailtrail_tenant_throttled_seconds_total" "What was waited because answers asked for it.";
    Gauge PAUSED "mailtrail_tenant_pause_remaining_seconds" "How much longer Microsoft asked the tenant to wait.";
    Gauge SKEW "mailtrail_tenant_clock_skew_seconds" "How far Microsoft's clock is ahead of the local one.";
    Gauge CERTIFICATE "mailtrail_tenant_certificate_remaining_seconds" "How long the certificate is valid that the tenant logs in with.";

    Gauge SINK_STATE "mailtrail_sink_state" "1 for the state that the sink is in.";
    Gauge SINK_CONFIGURED "mailtrail_sink_configured" "Whether the sink is in the configuration; 0 for one that is gone and not forgotten.";
    Gauge SINK_REQUIRED "mailtrail_sink_required" "Whether fetching waits for the sink when the spool is full.";
    Gauge SINK_LAG_BLOBS "mailtrail_sink_lag_blobs" "Blobs that are pending for the sink.";
    Gauge SINK_LAG_RECORDS "mailtrail_sink_lag_records" "Records in them.";
    Gauge SINK_LAG_RESTORED "mailtrail_sink_lag_restored_records" "Of those records, the ones that were restored from an archive.";
    Gauge SINK_LAG "mailtrail_sink_lag_seconds" "How long ago the oldest of them was spooled; 0 when there is none.";
    Gauge SINK_WAITING "mailtrail_sink_waiting_blobs" "Those of them that wait after a failure.";
    Gauge SINK_IN_FLIGHT "mailtrail_sink_batches_in_flight" "Batches that are under way.";
    Gauge SINK_LEASED "mailtrail_sink_leased_blobs" "Blobs that the sink has leased.";
    Gauge SINK_LAST "mailtrail_sink_last_delivery_timestamp_seconds" "When a batch was last confirmed, in seconds since 1970.";
    Counter SINK_BATCHES "mailtrail_sink_batches_total" "Batches that receipts cover.";
    Counter SINK_RECORDS "mailtrail_sink_records_total" "Records that receipts cover.";
    Counter SINK_RESTORED "mailtrail_sink_restored_total" "Records that were restored from an archive and that receipts cover; mailtrail_sink_records_total is without them.";
    Counter SINK_BYTES "mailtrail_sink_bytes_total" "Bytes of these records, as rendered.";
    Counter SINK_SETTLED "mailtrail_sink_settled_blobs_total" "Blobs that were settled.";
    Counter SINK_FILTERED "mailtrail_sink_filtered_total" "Records that the sink's filter took out.";
    Counter SINK_DEAD "mailtrail_sink_dead_letters_total" "Records that became dead letters.";
    Counter SINK_RESENT "mailtrail_sink_resent_total" "Records that were sent again after an ambiguous outcome: at most so many arrived twice.";
    Counter SINK_RETRIES "mailtrail_sink_retries_total" "Deliveries that failed and were tried again.";
    Counter SINK_DEFERRED "mailtrail_sink_deferred_total" "Blobs that were put off into the ledger after failures.";
    Gauge SINK_CERTIFICATE "mailtrail_sink_certificate_remaining_seconds" "How long the certificate is valid that the sink shows to its destination.";
    Counter SINK_PANICS "mailtrail_sink_panics_total" "Panics that were caught.";
    Histogram SINK_DELIVERY "mailtrail_sink_delivery_seconds" "How long a batch took from sending to its receipt.";
    Histogram SINK_AGE "mailtrail_sink_record_age_seconds" "How old records were when a receipt covered them, counted from their CreationTime.";
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    /// The metrics that the page lists: the first cells of its tables, with their kinds.
    fn documented() -> BTreeSet<(String, String)> {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
        let page = fs::read_to_string(page).expect("docs/operations.md is there");
        let row = |line: &str| {
            let (name, rest) = line.strip_prefix("| `mailtrail_")?.split_once('`')?;
            let kind = rest.split('|').nth(1)?.trim();
            Some((format!("mailtrail_{name}"), kind.to_owned()))
        };
        page.lines().filter_map(row).collect()
    }

    #[test]
    fn the_documentation_lists_exactly_the_metrics_that_there_are() {
        let kind = |metric: &Metric| format!("{:?}", metric.kind).to_lowercase();
        let known: BTreeSet<_> = ALL.iter().map(|metric| (metric.name.to_owned(), kind(metric))).collect();
        assert_eq!(known.len(), ALL.len(), "a name is used twice");
        let of_sinks = |name: &str| {
            ["archive_", "hec_", "kafka_", "sentinel_"].iter().any(|kind| name[10..].starts_with(kind))
        };
        let documented: BTreeSet<_> = documented().into_iter().filter(|(name, _)| !of_sinks(name)).collect();
        assert_eq!(
            known.difference(&documented).collect::<Vec<_>>(),
            Vec::<&(String, String)>::new(),
            "not documented"
        );
        assert_eq!(
            documented.difference(&known).collect::<Vec<_>>(),
            Vec::<&(String, String)>::new(),
            "no such metric"
        );
    }

    #[test]
    fn names_and_helps_keep_the_conventions() {
        for metric in ALL {
            let Metric { name, help, kind } = metric;
            assert!(name.starts_with("mailtrail_") && help.ends_with('.'), "{name}: {help}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            let words = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.chars().all(words), "{name}");
        }
    }
}
