//! Who we are for a bucket: secrets that are read anew for every request, so that a rotated one needs no restart, and
//! tokens of Entra.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use entra::{SecretError, SecretSource, TokenError, TokenSource};
use object_store::{
    CredentialProvider,
    aws::AwsCredential,
    azure::{AzureAccessKey, AzureCredential, split_sas},
};
use reqwest::header::HeaderValue;
use secrecy::ExposeSecret as _;

/// What a trait of an `async_trait` returns.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = object_store::Result<Arc<T>>> + Send + 'a>>;

/// Why there is no credential. `object_store` carries it through to whoever asked.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum NoCredential {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("{0}")]
    Token(TokenError),
    /// The secret is there, but is none of its kind.
    #[error("the secret in {source_of} is {expected}")]
    Malformed { source_of: SecretSource, expected: &'static str },
}

impl From<NoCredential> for object_store::Error {
    fn from(error: NoCredential) -> Self {
        Self::Generic { store: "credentials", source: Box::new(error) }
    }
}

/// An access key of AWS.
#[derive(Debug)]
pub(super) struct AwsKey {
    pub(super) id: String,
    pub(super) secret: SecretSource,
    pub(super) token: Option<SecretSource>,
}

impl AwsKey {
    async fn read(&self) -> Result<AwsCredential, NoCredential> {
        let secret = self.secret.read().await?;
        let token = match &self.token {
            Some(token) => Some(token.read().await?.expose_secret().to_owned()),
            None => None,
        };
        Ok(AwsCredential { key_id: self.id.clone(), secret_key: secret.expose_secret().to_owned(), token })
    }
}

impl CredentialProvider for AwsKey {
    type Credential = AwsCredential;

    fn get_credential<'life0, 'async_trait>(&'life0 self) -> Boxed<'async_trait, AwsCredential>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(Arc::new(self.read().await?)) })
    }
}

/// What proves to Azure who we are.
pub(super) enum AzureIdentity {
    Key(SecretSource),
    Sas(SecretSource),
    Entra(TokenSource),
}

impl AzureIdentity {
    async fn read(&self) -> Result<AzureCredential, NoCredential> {
        let malformed =
            |source: &SecretSource, expected| NoCredential::Malformed { source_of: source.clone(), expected };
        match self {
            Self::Key(source) => {
                let key = source.read().await?;
                let key = AzureAccessKey::try_new(key.expose_secret())
                    .map_err(|_| malformed(source, "no account key, which is base64"))?;
                Ok(AzureCredential::AccessKey(key))
            }
            Self::Sas(source) => {
                let token = source.read().await?;
                let pairs = split_sas(token.expose_secret());
                let pairs = pairs.ok().filter(|pairs| pairs.iter().any(|(name, _)| name == "sig"));
                let expected = "no shared access signature, which looks like sv=…&sp=racwl&sig=…";
                Ok(AzureCredential::SASToken(pairs.ok_or_else(|| malformed(source, expected))?))
            }
            Self::Entra(source) => {
                let token = source.token().await.map_err(NoCredential::Token)?;
                Ok(AzureCredential::BearerToken(token.expose().to_owned()))
            }
        }
    }
}

impl AzureIdentity {
    pub(super) fn has_tokens(&self) -> bool {
        matches!(self, Self::Entra(_))
    }

    /// Another token than the one that was refused. `None` for whoever needs none.
    pub(super) async fn another_token(
        &self,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, NoCredential> {
        let Self::Entra(source) = self else { return Ok(None) };
        let token = source.token().await.map_err(NoCredential::Token)?;
        let header = token.authorization_header();
        if Some(&header) != refused {
            return Ok(Some(header));
        }
        source.invalidate(&token);
        let token = source.token().await.map_err(NoCredential::Token)?;
        Ok(Some(token.authorization_header()))
    }
}

impl fmt::Debug for AzureIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AzureIdentity")
    }
}

impl CredentialProvider for AzureIdentity {
    type Credential = AzureCredential;

    fn get_credential<'life0, 'async_trait>(&'life0 self) -> Boxed<'async_trait, AzureCredential>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(Arc::new(self.read().await?)) })
    }
}
