//! The log: to stderr, as text or as one JSON object a line.
//!
//! Data never goes to the log and secrets cannot: they live in types whose `Debug` hides them. While a progress bar
//! is shown, each line is written above it, whole.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
};

use indicatif::MultiProgress;
use tracing_subscriber::{
    EnvFilter,
    filter::ParseError,
    fmt::{MakeWriter, format::FmtSpan},
};

/// The environment variable that sets the filter when `--log-level` is not given.
pub(crate) const FILTER_VARIABLE: &str = "MAILTRAIL_LOG";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people: time, level, where, message and fields.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoggingError {
    /// The filter is not one.
    #[error(
        "{origin} is `{text}`, which is no log filter: {source}; use error, warn, info, debug or trace, or directives \
         such as info,ingest=debug"
    )]
    Filter {
        /// `--log-level` or the environment variable.
        origin: &'static str,
        /// What was given.
        text: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// A log was set up before.
    #[error("the log is set up already")]
    AlreadySet,
}

/// Sets up the log of the process. `level` is what `--log-level` gave, else `MAILTRAIL_LOG` counts, else `info`.
/// Progress bars that are added to the returned set do not get mixed up with log lines.
///
/// # Errors
///
/// When the filter is wrong, or the log was set up before.
pub(crate) fn init(format: LogFormat, level: Option<&str>) -> Result<MultiProgress, LoggingError> {
    let progress = MultiProgress::new();
    let writer = ProgressWriter { progress: progress.clone() };
    let filter = filter(level, env::var(FILTER_VARIABLE).ok().as_deref())?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_writer(writer)
        .with_ansi(io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none());
    let set = match format {
        LogFormat::Text => subscriber.compact().try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).with_ansi(false).try_init(),
    };
    set.map_err(|_| LoggingError::AlreadySet)?;
    Ok(progress)
}

/// The filter that the options and the environment ask for. What libraries say below `warn` is left out unless a
/// directive names them.
fn filter(level: Option<&str>, variable: Option<&str>) -> Result<EnvFilter, LoggingError> {
    let (origin, text) = match (level, variable.map(str::trim).filter(|text| !text.is_empty())) {
        (Some(level), _) => ("--log-level", level),
        (None, Some(variable)) => (FILTER_VARIABLE, variable),
        (None, None) => ("the default", "info"),
    };
    let wrong = |source| LoggingError::Filter { origin, text: text.to_owned(), source };
    if !text.contains(['=', ',']) && text.parse::<tracing::level_filters::LevelFilter>().is_err() {
        // A single word that is no level is a target for `EnvFilter`: a typing error would switch the log off.
        let source = EnvFilter::builder().parse(format!("mailtrail={text}")).err();
        if let Some(source) = source {
            return Err(wrong(source));
        }
    }
    let quiet =
        ["hyper", "hyper_util", "h2", "reqwest", "rustls", "tower"].map(|library| format!("{library}=warn"));
    EnvFilter::builder().parse(format!("{},{text}", quiet.join(","))).map_err(wrong)
}

/// Writes each log line above the progress bars.
#[derive(Debug, Clone)]
struct ProgressWriter {
    progress: MultiProgress,
}

/// One log line, written when it is complete.
struct Line {
    bytes: Vec<u8>,
    progress: MultiProgress,
}

impl MakeWriter<'_> for ProgressWriter {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line { bytes: Vec::new(), progress: self.progress.clone() }
    }
}

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.bytes);
        self.progress.suspend(|| io::stderr().write_all(&bytes))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // A log that cannot be written has nobody left to be told.
        let _ = self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_counts_before_the_variable_and_libraries_are_quiet() {
        let shown = |level, variable| filter(level, variable).unwrap().to_string();
        assert!(shown(None, None).contains("info"));
        assert!(shown(Some("debug"), Some("trace")).contains("debug"));
        assert!(!shown(Some("debug"), Some("trace")).contains("trace"));
        assert!(shown(None, Some("info,ingest=trace")).contains("ingest=trace"));
        assert!(shown(None, Some("  ")).contains("info"));
        assert!(shown(Some("debug"), None).contains("hyper=warn"));
        assert!(shown(Some("info,hyper=debug"), None).contains("hyper=debug"));
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_by_name() {
        let error = filter(Some("inof"), None).unwrap_err().to_string();
        assert!(error.starts_with("--log-level is `inof`, which is no log filter"), "{error}");
        let error = filter(None, Some("ingest=loud")).unwrap_err().to_string();
        assert!(error.starts_with("MAILTRAIL_LOG is `ingest=loud`"), "{error}");
    }
}
