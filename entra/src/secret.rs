//! Where a secret is kept. A secret itself is never part of a configuration or of a command line.
//!
//! A secret is read when it is needed and forgotten after it was used, so a file that changes is a rotation that
//! needs no restart. The buffers that it is read into are zeroed when they are dropped.

use std::{
    env, fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use secrecy::SecretString;
use zeroize::Zeroizing;

/// A reference to a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// An environment variable.
    Env(String),
    /// A file; line breaks at its end do not belong to the secret.
    File(PathBuf),
}

/// A secret cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SecretError {
    /// The environment variable does not exist.
    #[error("the environment variable `{name}` is not set")]
    NotSet {
        /// Its name.
        name: String,
    },
    /// The file cannot be read.
    #[error("cannot read the secret file {}: {cause}; check its path, owner and mode", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: Arc<io::Error>,
    },
    /// It holds nothing.
    #[error("the secret in {source_of} is empty")]
    Empty {
        /// Where it was looked for.
        source_of: SecretSource,
    },
    /// It holds bytes that are no text.
    #[error("the secret in {source_of} is not UTF-8 text")]
    NotText {
        /// Where it was looked for.
        source_of: SecretSource,
    },
    /// It is far larger than any secret.
    #[error(
        "the secret in {source_of} has more than {} bytes; is it the right file?",
        SecretSource::MAX_BYTES
    )]
    TooLarge {
        /// Where it was looked for.
        source_of: SecretSource,
    },
}

impl SecretSource {
    /// The longest secret that is read: a certificate with its key and a long chain has less.
    pub const MAX_BYTES: usize = 256 * 1024;

    /// Reads the secret as it is now.
    ///
    /// # Errors
    ///
    /// When there is none, or it is no text. The error never holds any of it.
    pub async fn read(&self) -> Result<SecretString, SecretError> {
        let bytes = match self {
            Self::Env(name) => {
                let value = env::var_os(name).ok_or_else(|| SecretError::NotSet { name: name.clone() })?;
                Zeroizing::new(value.into_encoded_bytes())
            }
            Self::File(path) => {
                let unreadable =
                    |cause| SecretError::Unreadable { path: path.clone(), cause: Arc::new(cause) };
                let owned = path.clone();
                tokio::task::spawn_blocking(move || read_bounded(&owned, Self::MAX_BYTES))
                    .await
                    .map_err(|gone| unreadable(io::Error::other(gone)))?
                    .map_err(unreadable)?
            }
        };
        if bytes.len() > Self::MAX_BYTES {
            return Err(SecretError::TooLarge { source_of: self.clone() });
        }
        let text = str::from_utf8(&bytes).map_err(|_| SecretError::NotText { source_of: self.clone() })?;
        // Some editors begin a file with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end_matches(['\n', '\r']);
        if text.is_empty() {
            return Err(SecretError::Empty { source_of: self.clone() });
        }
        Ok(SecretString::from(text))
    }
}

/// Reads at most one byte more than `limit` of a regular file, into a buffer that never moves and is zeroed at its end.
pub(crate) fn read_bounded(path: &Path, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Opening a pipe would wait for its writer.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let bound = limit.saturating_add(1);
    let length = usize::try_from(metadata.len()).unwrap_or(bound).min(limit);
    let mut bytes = Zeroizing::new(vec![0; length + 1]);
    let mut file = fs::File::open(path)?;
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    if filled == bytes.len() && filled < bound {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it changed while it was read; it will be read again",
        ));
    }
    bytes.truncate(filled);
    Ok(bytes)
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "the environment variable `{name}`"),
            Self::File(path) => write!(f, "the file {}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    async fn read(content: &[u8]) -> Result<String, SecretError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, content).unwrap();
        SecretSource::File(path).read().await.map(|secret| secret.expose_secret().to_owned())
    }

    #[tokio::test]
    async fn line_breaks_at_the_end_and_a_byte_order_mark_do_not_belong_to_a_secret() {
        for content in ["s~3 cret", "s~3 cret\n", "s~3 cret\r\n", "s~3 cret\n\n", "\u{feff}s~3 cret\n"] {
            assert_eq!(read(content.as_bytes()).await.unwrap(), "s~3 cret");
        }
        assert_eq!(read(b" a\nb \n").await.unwrap(), " a\nb ");
    }

    #[tokio::test]
    async fn what_is_no_secret_is_refused_without_being_shown() {
        assert!(matches!(read(b"").await, Err(SecretError::Empty { .. })));
        assert!(matches!(read(b"\r\n").await, Err(SecretError::Empty { .. })));
        let not_text = read(b"hunter2\xff").await.unwrap_err();
        assert!(matches!(not_text, SecretError::NotText { .. }));
        assert!(!format!("{not_text} {not_text:?}").contains("hunter2"));
        assert!(matches!(
            read(&vec![b'x'; SecretSource::MAX_BYTES + 1]).await,
            Err(SecretError::TooLarge { .. })
        ));
        assert_eq!(read(&vec![b'x'; SecretSource::MAX_BYTES]).await.unwrap().len(), SecretSource::MAX_BYTES);
    }

    #[tokio::test]
    async fn a_missing_secret_is_named() {
        let missing = SecretSource::Env("ENTRA_TEST_IS_NOT_SET".to_owned());
        assert_eq!(
            missing.read().await.unwrap_err().to_string(),
            "the environment variable `ENTRA_TEST_IS_NOT_SET` is not set"
        );
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path().join("absent"), directory.path().to_owned()] {
            let error = SecretSource::File(path.clone()).read().await.unwrap_err();
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            assert!(matches!(error, SecretError::Unreadable { .. }));
        }
    }

    #[tokio::test]
    async fn an_environment_variable_is_read() {
        let secret = SecretSource::Env("CARGO_PKG_NAME".to_owned()).read().await.unwrap();
        assert_eq!(secret.expose_secret(), "entra");
        assert!(!format!("{secret:?}").contains("entra"));
    }

    #[tokio::test]
    async fn a_file_is_read_as_it_is_now() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let source = SecretSource::File(path.clone());
        for content in ["first", "second, and longer"] {
            fs::write(&path, content).unwrap();
            assert_eq!(source.read().await.unwrap().expose_secret(), content);
        }
    }
}
