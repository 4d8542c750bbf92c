//! `mailtrail archive keygen`.

use std::process::ExitCode;

use archive::SigningKey;
use secrecy::ExposeSecret;

use super::{Failure, print, write_new};
use crate::cli::KeygenArgs;

/// Makes a key.
pub(super) fn run(args: &KeygenArgs) -> Result<ExitCode, Failure> {
    let key = SigningKey::generate().map_err(Failure::problem)?;
    let pem = key.to_pem().map_err(Failure::problem)?;
    write_new(&args.out, 0o600, pem.expose_secret().as_bytes())?;
    let id = key.public().id();
    // The lines around it are no part of the key: whoever reads PEM passes over them.
    print(&format!("mailtrail archive, key id {id}\n{}", key.public().to_pem()))?;
    Ok(ExitCode::SUCCESS)
}
