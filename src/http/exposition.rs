//! Prometheus' text exposition format, version 0.0.4.
//!
//! Written here, because every figure is a snapshot that exists already, and because the client library writes
//! OpenMetrics only, whose counters go by another name in `# TYPE` than in their samples: tools that read the older
//! format, promtool among them, then take them for metrics without a type.

use std::{collections::BTreeMap, fmt::Write as _};

/// The media type of the format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The kinds of metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Labels of a sample.
pub(super) type Labels<'a> = [(&'a str, &'a str)];

/// A page of samples, grouped by metric.
#[derive(Debug, Default)]
pub(super) struct Page(BTreeMap<String, Family>);

#[derive(Debug)]
struct Family {
    help: String,
    kind: Kind,
    samples: String,
}

impl Page {
    fn family(&mut self, name: &str, help: &str, kind: Kind) -> &mut String {
        let family = self.0.entry(name.to_owned()).or_insert_with(|| Family {
            help: help.to_owned(),
            kind,
            samples: String::new(),
        });
        debug_assert_eq!(family.kind, kind, "{name} is of one kind");
        &mut family.samples
    }

    /// Adds one number.
    pub(super) fn sample(&mut self, name: &str, help: &str, kind: Kind, labels: &Labels<'_>, value: f64) {
        let samples = self.family(name, help, kind);
        line(samples, name, labels, None, value);
    }

    /// Adds a histogram. `counts` are not cumulative; the last one is of what is beyond all bounds.
    pub(super) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        labels: &Labels<'_>,
        (bounds, counts, sum): (&[f64], &[u64], f64),
    ) {
        let samples = self.family(name, help, Kind::Histogram);
        let bucket = format!("{name}_bucket");
        let mut total = 0;
        for (index, count) in counts.iter().enumerate() {
            total += count;
            let bound = bounds.get(index).copied().unwrap_or(f64::INFINITY);
            line(samples, &bucket, labels, Some(bound), total as f64);
        }
        line(samples, &format!("{name}_sum"), labels, None, sum);
        line(samples, &format!("{name}_count"), labels, None, total as f64);
    }

    /// The page as it is sent.
    pub(super) fn finish(self) -> String {
        let mut text = String::new();
        for (name, Family { help, kind, samples }) in self.0 {
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let help = help.replace('\\', "\\\\").replace('\n', "\\n");
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}");
        }
        text
    }
}

fn line(out: &mut String, name: &str, labels: &Labels<'_>, bound: Option<f64>, value: f64) {
    out.push_str(name);
    let bound = bound.map(number);
    let bound = bound.as_deref().map(|bound| ("le", bound));
    for (index, (label, value)) in labels.iter().copied().chain(bound).enumerate() {
        out.push(if index == 0 { '{' } else { ',' });
        let _ = write!(out, "{label}=\"");
        for character in value.chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                other => out.push(other),
            }
        }
        out.push('"');
    }
    if !labels.is_empty() || bound.is_some() {
        out.push('}');
    }
    let _ = writeln!(out, " {}", number(value));
}

fn number(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_each_metric_once_with_its_help_and_type() {
        let mut page = Page::default();
        page.sample("b_total", "What it\ncounts.", Kind::Counter, &[("sink", "a\"b\\\n")], 3.0);
        page.sample("a_bytes", "A level.", Kind::Gauge, &[], 1.5);
        page.sample("b_total", "What it\ncounts.", Kind::Counter, &[("sink", "c"), ("code", "0")], 1e15);
        page.histogram("c_seconds", "Times.", &[("sink", "c")], (&[0.1, 5.0], &[2, 0, 1], 9.25));
        page.histogram("d_seconds", "Times.", &[], (&[1.0], &[0, 0], 0.0));
        let expected = "# HELP a_bytes A level.\n# TYPE a_bytes gauge\na_bytes 1.5\n\
            # HELP b_total What it\\ncounts.\n# TYPE b_total counter\n\
            b_total{sink=\"a\\\"b\\\\\\n\"} 3\nb_total{sink=\"c\",code=\"0\"} 1000000000000000\n\
            # HELP c_seconds Times.\n# TYPE c_seconds histogram\n\
            c_seconds_bucket{sink=\"c\",le=\"0.1\"} 2\nc_seconds_bucket{sink=\"c\",le=\"5\"} 2\n\
            c_seconds_bucket{sink=\"c\",le=\"+Inf\"} 3\nc_seconds_sum{sink=\"c\"} 9.25\nc_seconds_count{sink=\"c\"} 3\n\
            # HELP d_seconds Times.\n# TYPE d_seconds histogram\n\
            d_seconds_bucket{le=\"1\"} 0\nd_seconds_bucket{le=\"+Inf\"} 0\nd_seconds_sum 0\nd_seconds_count 0\n";
        assert_eq!(page.finish(), expected);
    }
}
