//! The store against what stands for S3, Azure Blob Storage and Google Cloud Storage: moto and Azurite, as `tests/servers/`
//! installs them (`cargo test -p archive -- --ignored real_`), and a server of the tests' own for what these cannot do.

mod azure;
mod fake;
mod gcs;
#[path = "../../../tests/scenarios/support/installed.rs"]
mod installed;
mod s3;
mod support;
