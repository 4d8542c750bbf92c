//! References to secrets. The file says where a secret is, never the secret itself; [`SecretSource`] reads it when it is
//! needed.

use std::path::PathBuf;

use entra::SecretSource;

use super::reader::Section;

impl Section<'_> {
    /// A key that refers to a secret: `{ env = "NAME" }` or `{ file = "/path" }`. `None` when it is absent or wrong.
    pub(super) fn secret(&mut self, key: &'static str) -> Option<SecretSource> {
        let there = self.has(key);
        if there && !self.is_section(key) {
            self.asked_for(key);
            self.wrong(
                key,
                "must not be written into the file; write { env = \"NAME\" } to take it from an environment \
                 variable, or { file = \"/path\" } to read it from a file",
            );
            return None;
        }
        let mut reference = self.section(key);
        let env: Option<String> = reference.get("env");
        let file: Option<PathBuf> = reference.get("file");
        let reported = reference.has("env") != env.is_some() || reference.has("file") != file.is_some();
        reference.finish();
        let secret = match (env, file) {
            (Some(name), None) => Some(SecretSource::Env(name)),
            (None, Some(path)) => Some(SecretSource::File(path)),
            _ if there && !reported => {
                self.wrong(key, "must name one place: { env = \"NAME\" } or { file = \"/path\" }");
                None
            }
            _ => None,
        };
        if let Some(secret) = &secret {
            self.refers_to(key, secret);
        }
        secret
    }
}
