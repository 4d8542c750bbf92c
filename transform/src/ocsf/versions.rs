//! What the older releases of OCSF lack. Whatever is left out for one of them stays under `unmapped`, since the field of the
//! record that it was made from then counts as not used.

use crate::OcsfVersion;

impl OcsfVersion {
    /// `api.token`, since 1.8.0.
    pub(super) fn has_api_token(self) -> bool {
        self >= Self::V1_8
    }

    /// `metadata.original_event_uid`, since 1.7.0.
    pub(super) fn has_original_event_uid(self) -> bool {
        self >= Self::V1_7
    }

    /// `resources[].role` and `role_id`, since 1.6.0.
    pub(super) fn has_resource_roles(self) -> bool {
        self >= Self::V1_6
    }

    /// `raw_data_hash`, since 1.6.0.
    pub(super) fn has_raw_data_hash(self) -> bool {
        self >= Self::V1_6
    }

    /// `Service` as a `type_id` of users, since 1.6.0.
    pub(super) fn has_service_user(self) -> bool {
        self >= Self::V1_6
    }

    /// `email.sender`, since 1.6.0. The actor is the same.
    pub(super) fn has_email_sender(self) -> bool {
        self >= Self::V1_6
    }
}
