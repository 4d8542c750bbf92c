//! Workload identity federation: a token of Kubernetes, or of another issuer that the application trusts, is exchanged
//! for one of Entra. The file is replaced by whoever issues it, often every hour, so it is read for every request
//! (Microsoft identity platform, "Workload identity federation"; Azure Workload Identity for Kubernetes).

use std::path::PathBuf;

use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use crate::secret::{SecretError, SecretSource};

/// The file that holds the federated token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkloadIdentity {
    token_file: PathBuf,
}

impl WorkloadIdentity {
    /// The token is in `token_file`.
    #[must_use]
    pub const fn new(token_file: PathBuf) -> Self {
        Self { token_file }
    }

    /// The token is where `AZURE_FEDERATED_TOKEN_FILE` says.
    ///
    /// # Errors
    ///
    /// When it says nothing: the pod does not use the workload identity webhook.
    pub fn from_environment() -> Result<Self, SecretError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// The same with the variables given by `lookup`.
    ///
    /// # Errors
    ///
    /// When `AZURE_FEDERATED_TOKEN_FILE` is not among them.
    pub fn from_variables(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SecretError> {
        let name = "AZURE_FEDERATED_TOKEN_FILE";
        let file = lookup(name).filter(|file| !file.is_empty());
        let file = file.ok_or_else(|| SecretError::NotSet { name: name.to_owned() })?;
        Ok(Self::new(file.into()))
    }

    /// The federated token as it is now.
    pub(crate) async fn assertion(&self) -> Result<Zeroizing<String>, SecretError> {
        let token = SecretSource::File(self.token_file.clone()).read().await?;
        Ok(Zeroizing::new(token.expose_secret().trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_the_file() {
        let found = WorkloadIdentity::from_variables(|name| {
            (name == "AZURE_FEDERATED_TOKEN_FILE").then(|| "/var/run/secrets/azure/tokens/token".to_owned())
        });
        assert_eq!(found.unwrap().token_file, PathBuf::from("/var/run/secrets/azure/tokens/token"));
        for nothing in [None, Some(String::new())] {
            let error = WorkloadIdentity::from_variables(|_| nothing.clone()).unwrap_err();
            assert!(error.to_string().contains("AZURE_FEDERATED_TOKEN_FILE"));
        }
    }
}
