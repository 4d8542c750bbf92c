//! The configuration: one TOML file, read whole and checked before anything starts.
//!
//! Everything that is wrong with a file is said at once, each thing with its line, the full path of the key and what
//! would be right. Unknown keys are errors. Secrets are never in the file: it says where they are
//! ([`entra::SecretSource`]), and they are read when they are needed. `docs/configuration.md` lists every key; a test holds it
//! against the code.

mod http;
mod network;
mod reader;
mod secret;
mod sink;
mod state;
mod tenant;
#[cfg(test)]
mod tests;
mod value;

use std::{
    env, fmt, fs, io,
    path::{Component, Path, PathBuf},
};

use entra::SecretSource;
use toml::de::DeTable;

use reader::Document;

pub(crate) use http::HttpConfig;
pub(crate) use network::NetworkConfig;
pub(crate) use reader::Problem;
pub(crate) use sink::{SinkConfig, SinkKind, StartFrom};
pub(crate) use state::StateConfig;
pub(crate) use tenant::{Credentials, TenantConfig};

/// The environment variable that names the file when `--config` does not.
pub(crate) const PATH_VARIABLE: &str = "MAILTRAIL_CONFIG";

/// Where the file is looked for when nothing names it.
const USUAL_PATHS: [&str; 2] = ["mailtrail.toml", "/etc/mailtrail/mailtrail.toml"];

/// A whole, valid configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// The file that it was read from.
    pub(crate) path: PathBuf,
    /// Where mailtrail keeps its memory.
    pub(crate) state: StateConfig,
    /// How it reaches Microsoft.
    pub(crate) network: NetworkConfig,
    /// Where metrics and health are served.
    pub(crate) http: HttpConfig,
    /// Whom it collects, in the order of the file.
    pub(crate) tenants: Vec<TenantConfig>,
    /// Where it delivers to, in the order of the file.
    pub(crate) sinks: Vec<SinkConfig>,
    /// Every secret that the file refers to, with the path of its key.
    pub(crate) secrets: Vec<(String, SecretSource)>,
}

/// There is no valid configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// Nothing names a file and none is where one would be.
    #[error(
        "no configuration: neither {} exists; write one, or name it with --config PATH or {PATH_VARIABLE}",
        USUAL_PATHS.join(" nor ")
    )]
    NotFound,
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is wrong.
    #[error(transparent)]
    Invalid(#[from] InvalidConfig),
}

/// Everything that is wrong with a file, one line each: `mailtrail.toml:12: unknown key …`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) struct InvalidConfig {
    /// Which file.
    pub(crate) path: PathBuf,
    /// What is wrong, in the order of the file; never empty.
    pub(crate) problems: Vec<Problem>,
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:", self.path.display())?;
            if let Some(line) = problem.line {
                write!(f, "{line}:")?;
            }
            write!(f, " {}", problem.message)?;
        }
        Ok(())
    }
}

/// The file to read: what `--config` names, else what `MAILTRAIL_CONFIG` names, else `./mailtrail.toml`, else
/// `/etc/mailtrail/mailtrail.toml`.
///
/// # Errors
///
/// When nothing names one and none is at the usual places.
pub(crate) fn find(given: Option<&Path>) -> Result<PathBuf, ConfigError> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    if let Some(path) = env::var_os(PATH_VARIABLE).filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    // A file that is there but cannot be looked at is to be complained about, not passed over.
    let absent = |path: &Path| fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    USUAL_PATHS.iter().map(PathBuf::from).find(|path| !absent(path)).ok_or(ConfigError::NotFound)
}

/// Reads and checks the file that [`find`] finds.
///
/// # Errors
///
/// When there is none, or when it is wrong: then with everything that is.
pub(crate) fn load(given: Option<&Path>) -> Result<Config, ConfigError> {
    let path = find(given)?;
    match fs::read(&path) {
        Ok(bytes) => Ok(Config::parse(&path, &bytes)?),
        Err(source) => Err(ConfigError::Unreadable { path, source }),
    }
}

/// The state directory that the file names, as far as it can be read: whoever asks a running process needs no more,
/// and a mistake made since it was started is none of its own.
///
/// # Errors
///
/// When there is no file, or none that names one; then with everything that is wrong with it.
pub(crate) fn load_state_directory(given: Option<&Path>) -> Result<PathBuf, ConfigError> {
    let path = find(given)?;
    let named = fs::read_to_string(path).ok().and_then(|text| {
        let (table, _) = DeTable::parse_recoverable(&text);
        let state = table.get_ref().get("state")?.get_ref();
        let directory = state.get("directory")?.get_ref().as_str().filter(|path| !path.is_empty());
        directory.map(PathBuf::from)
    });
    match named {
        Some(directory) => Ok(directory),
        None => Ok(load(given)?.state.directory),
    }
}

impl Config {
    /// Checks a file's content.
    ///
    /// # Errors
    ///
    /// When it is wrong: then with everything that is.
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, InvalidConfig> {
        let invalid = |problems| InvalidConfig { path: path.to_owned(), problems };
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let line = 1 + bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count();
            invalid(vec![Problem { line: Some(line), message: "the file is not UTF-8 text".to_owned() }])
        })?;
        let document = Document::new(text);
        let table = parse_toml(&document, text);
        let config = table.as_ref().and_then(|table| read(path, &document, table.get_ref()));
        drop(table);
        let problems = document.into_problems();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(invalid(problems)),
        }
    }
}

fn parse_toml<'t>(document: &Document<'_>, text: &'t str) -> Option<toml::Spanned<DeTable<'t>>> {
    match DeTable::parse(text) {
        Ok(table) => Some(table),
        Err(error) => {
            // Only the message: the error's own display quotes the line, which may hold a secret.
            let line = error.span().map(|span| document.line_of(span.start));
            let said = error.message().replace('\n', ", ");
            // A bare word reads like a misspelt `true` or `false`.
            let hint = if said.starts_with("invalid boolean") { "; a text needs quotes" } else { "" };
            document.report(line, format!("this is not TOML: {said}{hint}"));
            None
        }
    }
}

fn read<'a>(path: &Path, document: &'a Document<'a>, table: &'a DeTable<'a>) -> Option<Config> {
    let mut root = document.root(table);
    let state = StateConfig::read(root.section("state"));
    let network = NetworkConfig::read(root.section("network"));
    let http = HttpConfig::read(root.section("http"));
    let tenant_sections = root.named_sections("tenants");
    if tenant_sections.is_empty() && !root.has("tenants") {
        document.report(None, "there is no tenant; add a section [tenants.NAME]");
    }
    let mut tenant_lines = Vec::new();
    let mut tenants: Vec<TenantConfig> = Vec::new();
    for (name, section) in tenant_sections {
        let line = section.line_of("tenant_id");
        if let Some(tenant) = TenantConfig::read(name, section) {
            tenant_lines.push(line);
            tenants.push(tenant);
        }
    }
    for (index, tenant) in tenants.iter().enumerate() {
        if let Some(first) = tenants[..index].iter().find(|other| other.tenant_id == tenant.tenant_id) {
            let message = format!(
                "'tenants.{}.tenant_id' is that of 'tenants.{}' too; one organisation is one section",
                tenant.name, first.name
            );
            document.report(tenant_lines[index], message);
        }
    }
    let sink_sections = root.named_sections("sinks");
    if sink_sections.is_empty() && !root.has("sinks") {
        document.report(None, "there is no sink; add a section [sinks.NAME]");
    }
    let mut sinks: Vec<SinkConfig> = Vec::new();
    for (name, section) in sink_sections {
        let (line, header) = (section.line_of("directory"), section.line_of("target"));
        let Some(sink) = SinkConfig::read(&name, section, &tenants) else { continue };
        check_directory(document, line, &sink, &sinks, state.as_ref());
        check_bucket(document, header, &sink, &sinks);
        sinks.push(sink);
    }
    root.finish();
    let secrets = document.secrets();
    Some(Config { path: path.to_owned(), state: state?, network, http, tenants, sinks, secrets })
}

/// A sink's directory is its own: another sink's files or the ledger in it would be taken for its own.
fn check_directory(
    document: &Document<'_>,
    line: Option<usize>,
    sink: &SinkConfig,
    others: &[SinkConfig],
    state: Option<&StateConfig>,
) {
    let Some(directory) = sink.directory().map(plain) else { return };
    let key = format!("'sinks.{}.directory'", sink.name);
    for other in others {
        if other.directory().is_some_and(|other| plain(other) == directory) {
            document.report(
                line,
                format!("{key} is that of 'sinks.{}' too; give each sink a directory of its own", other.name),
            );
        }
    }
    if state.is_some_and(|state| directory.starts_with(plain(&state.directory))) {
        document.report(
            line,
            format!("{key} is in the state directory, where only the ledger may be; choose another"),
        );
    }
}

/// An archive's place is its own: two sinks would have the same chains there.
fn check_bucket(document: &Document<'_>, line: Option<usize>, sink: &SinkConfig, others: &[SinkConfig]) {
    let Some(bucket) = sink.bucket() else { return };
    for other in others.iter().filter(|other| other.bucket().as_ref() == Some(&bucket)) {
        document.report(
            line,
            format!(
                "'sinks.{}' lies in {bucket}, as 'sinks.{}' does; give each sink a bucket or a prefix of its own",
                sink.name, other.name
            ),
        );
    }
}

/// The path with `.` and `..` taken out and links followed as far as they exist, so that two spellings of one
/// directory are found equal.
fn plain(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut plain = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            part => plain.push(part),
        }
        if let Ok(target) = fs::canonicalize(&plain) {
            plain = target;
        }
    }
    plain
}

/// Whether the text can be a label: in logs, metrics and paths it stands unquoted.
fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}
