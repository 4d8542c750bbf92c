//! Access tokens from Microsoft Entra ID: for the Management Activity API, Event Hubs and Sentinel alike.
//!
//! A [`TokenSource`] proves to Entra who mailtrail is, by a client secret, a certificate, a workload identity or a
//! managed identity, and gives out the token that it gets for as long as that is good. It promises:
//!
//! - **One request.** Many callers that want a token at the same time cause one request, and share its outcome.
//! - **Early renewal.** A token is renewed well before its end. While the old one is good, a renewal that fails is a
//!   warning and nobody waits for it twice.
//! - **Rotation without a restart.** Secrets, certificates and federated tokens are read anew for every request.
//! - **Silence.** No secret, assertion or token is in any `Debug`, `Display`, error or log line. What Entra says of a
//!   failure is shortened to its error, its AADSTS code and one line, and scrubbed of what was sent.
//! - **Advice.** Every [`TokenError`] says whether waiting can help ([`TokenError::retryable`]) and what an
//!   administrator has to do ([`TokenError::advice`]).
//!
//! | module | what it holds |
//! |---|---|
//! | [`cloud`] | [`Cloud`], [`ServiceUrl`], [`Scope`]: where Microsoft's clouds are |
//! | [`credential`] | [`Credential`], [`ClientId`]: how an application proves who it is |
//! | [`secret`] | [`SecretSource`]: where a secret is kept |
//! | [`certificate`] | [`Certificate`]: a key, and the assertions signed with it |
//! | [`workload_identity`] | [`WorkloadIdentity`]: a token of Kubernetes or of another issuer, exchanged |
//! | [`managed_identity`] | [`ManagedIdentity`]: virtual machines, App Service, Azure Arc |
//! | [`endpoint`] | [`Endpoint`]: a tenant's token endpoint |
//! | [`proxy`] | which proxy a request goes through, for everybody who makes a client |
//! | [`source`] | [`TokenSource`]: what everybody asks for tokens |
//! | [`token`] | [`AccessToken`], [`Claims`] |
//! | [`error`], [`refusal`] | [`TokenError`], and what Entra's refusals mean |

mod answer;
mod cache;
pub mod certificate;
pub mod cloud;
pub mod credential;
pub mod endpoint;
pub mod error;
pub mod managed_identity;
pub mod proxy;
pub mod refusal;
mod scrub;
pub mod secret;
pub mod source;
#[cfg(test)]
mod testing;
pub mod token;
pub mod workload_identity;

pub use cache::LONGEST_PAUSE;
pub use certificate::{Certificate, CertificateError};
pub use cloud::{BadScope, BadUrl, Cloud, CloudError, Scope, ServiceUrl};
pub use credential::{BadClientId, ClientId, Credential};
pub use endpoint::{BadTenant, Endpoint};
pub use error::{Service, TokenError};
pub use managed_identity::{ManagedIdentity, ManagedIdentityError};
pub use refusal::{Reason, Refusal};
pub use secret::{SecretError, SecretSource};
pub use source::TokenSource;
pub use token::{AccessToken, Claims};
pub use workload_identity::WorkloadIdentity;
