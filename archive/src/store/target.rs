//! Which place an archive lies in, as the configuration names it. No secret is in here, only where it is kept.

use std::path::PathBuf;

/// Where an archive lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A directory of this machine. It is made when it is not there, the one above it is not.
    Directory(PathBuf),
}
