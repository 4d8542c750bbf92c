//! `mailtrail archive`: keys, verifying, proving, listing and restoring.

mod keygen;
mod list;
mod prove;
mod restore;
mod verify;

use std::{
    fs,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
};

use archive::{PublicKey, Store, Target};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{Failure, found, load, print, print_json, printable, runtime};
use crate::{
    cli::{ArchiveArgs, ArchiveCommand, ConfigArgs, PlaceArgs},
    config::SinkKind,
    pipeline,
};

/// Runs the command.
pub(super) fn run(args: ArchiveArgs, shown: MultiProgress) -> Result<ExitCode, Failure> {
    let config = args.config;
    match args.command {
        ArchiveCommand::Keygen(args) => keygen::run(&args),
        ArchiveCommand::Verify(args) => verify::run(&config, args, &shown),
        ArchiveCommand::Prove(args) => prove::run(&config, args, &shown),
        ArchiveCommand::List(args) => list::run(&config, &args),
        ArchiveCommand::Restore(args) => restore::run(&config, args, &shown),
    }
}

/// Opens the archive that is meant.
async fn open(config: &ConfigArgs, place: &PlaceArgs) -> Result<Store, Failure> {
    let target = match (&place.sink, &place.directory) {
        (Some(name), _) => {
            let config = load(config)?;
            match config.sinks.iter().find(|sink| sink.name == *name).map(|sink| &sink.kind) {
                Some(SinkKind::Archive(archive)) => {
                    let http = pipeline::http_client(&config.network).await.map_err(Failure::problem)?;
                    archive.target(config.network.archive(), &http).map_err(Failure::Problem)?
                }
                Some(_) => return Err(Failure::Usage(format!("sink {name} is no archive"))),
                None => {
                    return Err(Failure::Usage(format!(
                        "there is no sink {name} in {}",
                        config.path.display()
                    )));
                }
            }
        }
        // A folder that is not there would otherwise look like an empty archive.
        (None, Some(directory)) if !directory.is_dir() => {
            return Err(Failure::Usage(format!("{} is no folder", directory.display())));
        }
        (None, Some(directory)) => Target::Directory(directory.clone()),
        (None, None) => {
            return Err(Failure::Usage("say which archive is meant: --sink or --directory".to_owned()));
        }
    };
    Store::open(&target).await.map_err(Failure::problem)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))
}

/// The public keys in these files.
fn public_keys(files: &[PathBuf]) -> Result<Vec<PublicKey>, Failure> {
    let key = |path: &PathBuf| {
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        PublicKey::from_pem(&text).map_err(|error| {
            Failure::Usage(format!("cannot use {} as a public key: {error}", path.display()))
        })
    };
    files.iter().map(key).collect()
}

/// A bar over bytes on a terminal; nothing when stderr is none.
fn bar(shown: &MultiProgress) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left; {msg}";
    let style = ProgressStyle::with_template(template).expect("the template is right");
    shown.add(ProgressBar::new(0).with_style(style))
}

/// Writes a file that must not exist, with this mode, durably.
fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Failure> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let cannot = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::Usage(format!("{} exists, and nothing is written over it", path.display()))
        }
        _ => Failure::Problem(format!("cannot write {}: {error}", path.display())),
    };
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(cannot)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(cannot)
}
