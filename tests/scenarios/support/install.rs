//! Real servers and readers of other projects, which the scripts of `tests/servers` install.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::deploy::root;

/// What a script installs, unless it is there already: the path that it prints.
pub(crate) fn install(script: &str) -> PathBuf {
    let script = root().join("tests/servers").join(script);
    let output = Command::new(&script).stderr(Stdio::inherit()).output().expect("the script runs");
    assert!(output.status.success(), "{} failed", script.display());
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
}
