//! `[http]`: where metrics and health are served.

use std::net::SocketAddr;

use super::reader::Section;

/// Where metrics and health are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpConfig {
    /// The address; `None` is nowhere.
    pub(crate) listen: Option<SocketAddr>,
}

impl HttpConfig {
    /// Reads the section.
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let config = Self { listen: section.get("listen") };
        section.finish();
        config
    }
}
