//! Why a store does not do what it is asked for, and what helps.

use std::{io, path::PathBuf, time::Duration};

use entra::{SecretError, TokenError};

use crate::Hash;

/// A store did not do what it was asked for. No variant holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no object of that name.
    #[error("there is no {object}")]
    NotFound {
        /// Its address.
        object: String,
    },
    /// The name is taken by an object with other bytes, which was left as it is.
    #[error(
        "{object} is there with other bytes: its SHA-256 is {}, and {} was to be put; nothing was overwritten: \
         find out who wrote it, and give each mailtrail a target or prefix of its own",
        found,
        expected
    )]
    OtherBytes {
        /// Its address.
        object: String,
        /// The hash of what was to be put.
        expected: Hash,
        /// The hash of what is there.
        found: Hash,
    },
    /// The object is larger than one of its kind can be.
    #[error("{object} has more than {at_most} bytes, more than one of its kind can have")]
    TooLarge {
        /// Its address.
        object: String,
        /// The most that it may have.
        at_most: usize,
    },
    /// What was to be put does not have the bytes that it had when it was hashed.
    #[error(
        "{} has changed since it was sealed: its SHA-256 is {}, not {}; it was not put: look for a faulty disk",
        path.display(), found, expected
    )]
    SourceChanged {
        /// The file.
        path: PathBuf,
        /// The hash that it should have.
        expected: Hash,
        /// The hash that it has.
        found: Hash,
    },
    /// The disk is full. Nothing is under the object's name.
    #[error("the disk that holds {} is full; nothing was put: make room, it goes on by itself", path.display())]
    Full {
        /// What was being written.
        path: PathBuf,
    },
    /// The bucket, container or directory does not exist.
    #[error("there is no {what}; {advice}")]
    NoTarget {
        /// Which one.
        what: String,
        /// What helps.
        advice: &'static str,
    },
    /// Somebody else was writing the object at the same moment, and it is not there after all.
    #[error("{object} was being written by somebody else, and is not there")]
    Contended {
        /// Its address.
        object: String,
    },
    /// The store asks for fewer requests.
    #[error("{place} is asked too often ({why})")]
    Throttled {
        /// Which one.
        place: String,
        /// What it said.
        why: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The store cannot be reached, or fails.
    #[error("cannot {doing}: {why}")]
    Unavailable {
        /// What was tried.
        doing: String,
        /// What happened.
        why: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The store does not take a request of this form.
    #[error("{place} refuses to {doing} ({why}); {advice}")]
    Refused {
        /// Which one.
        place: String,
        /// What was tried.
        doing: &'static str,
        /// What it said.
        why: String,
        /// What helps.
        advice: &'static str,
    },
    /// The settings of the target cannot be used.
    #[error("{0}")]
    Settings(String),
    /// A secret cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// There is no access token.
    #[error("{error}; {advice}", advice = .error.advice())]
    Token {
        /// Why not.
        error: TokenError,
    },
    /// It may not be done.
    #[error("{what} is denied ({why}); {advice}")]
    Denied {
        /// What was tried.
        what: String,
        /// What the store or the system said.
        why: String,
        /// What helps.
        advice: String,
    },
    /// A file or a directory of this machine.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl StoreError {
    /// Whether the same may go well later without anybody changing the configuration or the target.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Full { .. }
            | Self::Io { .. }
            | Self::Contended { .. }
            | Self::Throttled { .. }
            | Self::Unavailable { .. } => true,
            Self::Token { error } => error.retryable(),
            Self::NotFound { .. }
            | Self::OtherBytes { .. }
            | Self::TooLarge { .. }
            | Self::SourceChanged { .. }
            | Self::NoTarget { .. }
            | Self::Refused { .. }
            | Self::Settings(_)
            | Self::Secret(_)
            | Self::Denied { .. } => false,
        }
    }

    /// How long the store asks to be left alone.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after, .. } | Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What went wrong with a file or directory.
    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Denied {
                what: format!("to {doing} {}", path.display()),
                why: source.to_string(),
                advice: "give the user that mailtrail runs as the right to read and write there".to_owned(),
            },
            _ => Self::Io { doing, path, source },
        }
    }
}
