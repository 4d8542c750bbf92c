//! What is on disk against what the ledger says: decides, and changes nothing.

use std::{
    io,
    path::{Path, PathBuf},
};

use tracing::error;

use super::{
    closed::forms,
    disk::{Disk, Look},
    state::{Closing, State},
    writer::failed,
};
use crate::sink::DeliverError;

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    /// A rotation that was decided and has not happened.
    pub(super) rename: Option<Closing>,
    /// The live file; `None` when it is to be made where the configuration says.
    pub(super) live: Option<PathBuf>,
    /// Whether it is not the one that the ledger knows, which is gone or was never made.
    pub(super) anew: bool,
}

/// Looks for the file that the ledger knows, under both names if it was being rotated. `live` is the path of the
/// configuration.
pub(super) fn locate(disk: &dyn Disk, live: &Path, state: Option<&State>) -> Result<Found, DeliverError> {
    let look = |path: &Path| disk.look(path).map_err(|error| failed("look at", path, &error));
    let Some(state) = state else {
        let found = look(live)?;
        refuse_unknown(live, found)?;
        return Ok(Found { rename: None, live: found.map(|_| live.to_owned()), anew: true });
    };
    let rename = match &state.closing {
        Some(closing) => must_rename(disk, state, closing)?,
        None => None,
    };
    let leaves = |path: &Path| rename.as_ref().is_some_and(|closing: &Closing| closing.from == path);
    if state.path != live && !leaves(live) {
        refuse_unknown(live, look(live)?)?;
    }
    let path = &state.path;
    let found = if leaves(path) { None } else { look(path)? };
    match found {
        None => {
            if state.synced > 0 {
                error!(
                    "{} is missing; the {} bytes that were in it are gone for whoever had not read them. A new file \
                     is started",
                    path.display(),
                    state.synced
                );
            }
            let there = if leaves(live) { None } else { look(live)? };
            Ok(Found { rename, live: there.map(|_| live.to_owned()), anew: true })
        }
        Some(found) if !found.regular => Err(not_regular(path)),
        Some(found) if found.length < state.synced => Err(shorter(path, found.length, state.synced)),
        Some(_) => Ok(Found { rename, live: Some(path.clone()), anew: false }),
    }
}

/// Whether a decided rotation has still to be done.
fn must_rename(disk: &dyn Disk, state: &State, closing: &Closing) -> Result<Option<Closing>, DeliverError> {
    let Closing { from, to, length, identity } = closing;
    let look = |path: &Path| disk.look(path).map_err(|error| failed("look at", path, &error));
    let mut closed = false;
    for form in forms(to) {
        closed |= look(&form)?.is_some();
    }
    match look(from)? {
        Some(old) if old.identity == *identity => {
            if closed {
                return Err(DeliverError::halt(format!(
                    "{} was to be renamed to {}, which exists already; move that one away",
                    from.display(),
                    to.display()
                )));
            }
            if old.length < *length {
                return Err(shorter(from, old.length, *length));
            }
            Ok(Some(closing.clone()))
        }
        // After a copy or a restore no file is the one that it was. What is at least as long as the old file was
        // can hardly be the new one, which holds one batch at most.
        Some(old) if !closed && state.path == *from && old.length >= *length => {
            Err(DeliverError::halt(format!(
                "it cannot be told whether {} was rotated; rename it to {} if it is the old file, else move it away",
                from.display(),
                to.display()
            )))
        }
        None if !closed => {
            error!("{} is missing, also under its new name {}", from.display(), to.display());
            Ok(None)
        }
        Some(_) | None => Ok(None),
    }
}

/// A file that the ledger does not know is never appended to. An empty one can be taken.
fn refuse_unknown(path: &Path, found: Option<Look>) -> Result<(), DeliverError> {
    match found {
        Some(look) if !look.regular => Err(not_regular(path)),
        Some(look) if look.length > 0 => Err(unknown(path)),
        Some(_) | None => Ok(()),
    }
}

pub(super) fn unknown(path: &Path) -> DeliverError {
    DeliverError::halt(format!(
        "{} holds something that this installation did not write, and is not appended to; rename it, or choose \
         another directory",
        path.display()
    ))
}

pub(super) fn not_regular(path: &Path) -> DeliverError {
    DeliverError::halt(format!(
        "{} is no regular file (a link is not followed); remove it, or choose another directory",
        path.display()
    ))
}

pub(super) fn shorter(path: &Path, length: u64, synced: u64) -> DeliverError {
    DeliverError::halt(format!(
        "{} has {length} bytes, but {synced} were safely on disk: somebody cut it or the disk lost it. Rename it, \
         and a new file is started",
        path.display()
    ))
}

/// What to do about an error of the file system.
pub(super) fn is_for_a_person(error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, NotADirectory, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | NotADirectory | IsADirectory | Unsupported)
}
