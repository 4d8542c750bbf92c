//! Blobs whose bytes the caller chooses: recorded ones, broken ones, late ones.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use schemas::{ContentType, TenantId};

/// A blob with given bytes.
#[derive(Debug, Clone)]
pub struct Blob {
    pub(crate) tenant: Option<TenantId>,
    pub(crate) content_type: ContentType,
    pub(crate) created: DateTime<Utc>,
    pub(crate) available: Option<DateTime<Utc>>,
    pub(crate) expires: Option<DateTime<Utc>>,
    pub(crate) content_id: Option<String>,
    pub(crate) body: Bytes,
}

impl Blob {
    /// A blob that holds these records, byte for byte, in this order. It belongs to the first tenant, is listed at
    /// once and expires after the configured retention.
    #[must_use]
    pub fn from_records<R: AsRef<[u8]>>(
        content_type: ContentType,
        created: DateTime<Utc>,
        records: &[R],
    ) -> Self {
        let mut body = vec![b'['];
        for (position, record) in records.iter().enumerate() {
            if position > 0 {
                body.push(b',');
            }
            body.extend_from_slice(record.as_ref());
        }
        body.push(b']');
        Self::from_body(content_type, created, body)
    }

    /// A blob with this body, whatever it is.
    #[must_use]
    pub fn from_body(content_type: ContentType, created: DateTime<Utc>, body: impl Into<Bytes>) -> Self {
        Self {
            tenant: None,
            content_type,
            created,
            available: None,
            expires: None,
            content_id: None,
            body: body.into(),
        }
    }

    /// It belongs to this tenant.
    #[must_use]
    pub fn of_tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// It is listed from this instant on, although its `contentCreated` is earlier.
    #[must_use]
    pub fn available_at(mut self, at: DateTime<Utc>) -> Self {
        self.available = Some(at);
        self
    }

    /// It can be fetched until then (`contentExpiration`).
    #[must_use]
    pub fn expires_at(mut self, at: DateTime<Utc>) -> Self {
        self.expires = Some(at);
        self
    }

    /// It is called this. Two blobs of a feed with the same id are the same blob listed twice; the first one's body
    /// is served.
    #[must_use]
    pub fn called(mut self, content_id: impl Into<String>) -> Self {
        self.content_id = Some(content_id.into());
        self
    }
}
