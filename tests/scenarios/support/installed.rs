//! Where the scripts of `tests/servers` put what they install. Whatever needs a real server of another project shares it.

use std::{env, path::PathBuf};

/// `what` in the cache, which `script` puts there.
pub(crate) fn installed(what: &str, script: &str) -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").expect("a home directory")).join(".cache");
    let cache = env::var_os("MAILTRAIL_CI_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("mailtrail-ci")
    });
    let path = cache.join(what);
    assert!(path.exists(), "there is no {}: run {script}", path.display());
    path
}
