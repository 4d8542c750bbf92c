//! `metadata`, `cloud` and `api`: what every class has.

use chrono::{DateTime, Datelike, Utc};
use schemas::record_type::record_type_name;

use super::Event;
use crate::{json::write::key, operation::Source, record::Field};

impl Event<'_, '_> {
    pub(super) fn metadata(&mut self) {
        let (reading, record) = (self.reading, self.reading.record);
        let object = self.w.object(key!("metadata"));
        self.w.str(key!("version"), self.options.ocsf_version.as_str());
        self.product();
        match record.text(Field::Id) {
            Some(id) => {
                self.used.insert(Field::Id);
                self.w.text(key!("uid"), id);
                self.w.text(key!("original_event_uid"), id);
            }
            None => {
                self.w.raw(key!("uid"));
                self.made_up_uid();
            }
        }
        if let Some(number) = reading.record_type {
            match record_type_name(number) {
                Some(name) => self.w.str(key!("event_code"), name),
                None => self.w.str(key!("event_code"), itoa::Buffer::new().format(number)),
            }
        }
        self.w.str(key!("log_name"), reading.origin.content_type.as_str());
        self.w.raw(r#""log_provider":"Office 365 Management Activity API","#);
        if let Some(time) = record.text(Field::CreationTime) {
            self.used.insert(Field::CreationTime);
            self.w.text(key!("original_time"), time);
        }
        match record.text(Field::OrganizationId) {
            Some(id) => self.w.text(key!("tenant_uid"), id),
            None => self.w.str(key!("tenant_uid"), &reading.origin.tenant.to_string()),
        }
        if let Some(version) = record.get(Field::Version).and_then(crate::json::Json::int) {
            self.used.insert(Field::Version);
            self.w.str(key!("log_version"), itoa::Buffer::new().format(version));
        }
        self.w.raw(r#""profiles":["cloud","datetime"],"#);
        self.w.close(object);
    }

    fn product(&mut self) {
        let object = self.w.object(key!("product"));
        self.w.str(key!("name"), if self.reading.exchange { "Exchange Online" } else { "Microsoft 365" });
        self.w.raw(r#""vendor_name":"Microsoft","#);
        let feature = match self.reading.source {
            Source::ExchangeAdmin => Some("Admin Audit"),
            Source::ExchangeMailbox => Some("Mailbox Audit"),
            Source::Elsewhere => None,
        };
        if let Some(feature) = feature {
            let object = self.w.object(key!("feature"));
            self.w.str(key!("name"), feature);
            self.w.close(object);
        }
        self.w.close(object);
    }

    /// A name for a record that has none: its blob and its position there, which never change.
    fn made_up_uid(&mut self) {
        self.w.raw("\"");
        self.w.escaped(self.reading.origin.content_id);
        self.w.raw("#");
        self.w.raw(itoa::Buffer::new().format(self.reading.position));
        self.w.raw("\",");
    }

    pub(super) fn cloud(&mut self) {
        let record = self.reading.record;
        let object = self.w.object(key!("cloud"));
        self.w.raw(r#""provider":"Microsoft 365","#);
        let account = self.w.object(key!("account"));
        match record.text(Field::OrganizationId) {
            Some(id) => {
                self.used.insert(Field::OrganizationId);
                self.w.text(key!("uid"), id);
            }
            None => self.w.str(key!("uid"), &self.reading.origin.tenant.to_string()),
        }
        self.w.raw(r#""type_id":99,"type":"Microsoft 365 Tenant","#);
        if let Some(name) = record.text(Field::OrganizationName) {
            self.used.insert(Field::OrganizationName);
            self.w.text(key!("name"), name);
        }
        self.w.close(account);
        self.w.close(object);
    }

    pub(super) fn api(&mut self) {
        let (reading, record) = (self.reading, self.reading.record);
        let object = self.w.object(key!("api"));
        match reading.operation {
            Some(operation) => {
                self.used.insert(Field::Operation);
                self.w.text(key!("operation"), operation);
            }
            None => self.w.raw(r#""operation":"Unknown","#),
        }
        if let Some(workload) = record.text(Field::Workload) {
            self.used.insert(Field::Workload);
            let service = self.w.object(key!("service"));
            self.w.text(key!("name"), workload);
            self.w.close(service);
        }
        self.request();
        self.w.close(object);
    }

    /// `api.request`, which must have a `uid` to be there at all.
    fn request(&mut self) {
        let (reading, record) = (self.reading, self.reading.record);
        let own = [Field::ClientRequestId, Field::RequestId]
            .into_iter()
            .find(|field| record.text(*field).is_some());
        if own.is_none() && reading.parameters.is_empty() {
            return;
        }
        let object = self.w.object(key!("request"));
        match (own, record.text(Field::Id)) {
            (Some(field), _) => {
                self.used.insert(field);
                self.w.maybe_text(key!("uid"), record.text(field));
            }
            (None, Some(id)) => self.w.text(key!("uid"), id),
            (None, None) => {
                self.w.raw(key!("uid"));
                self.made_up_uid();
            }
        }
        if !reading.parameters.is_empty() {
            let data = self.w.object(key!("data"));
            reading.parameters.write(&mut self.w);
            self.w.close(data);
        }
        if reading.parameters.parameters_exact {
            self.used.insert(Field::Parameters);
        }
        if reading.parameters.properties_exact {
            self.used.insert(Field::OperationProperties);
        }
        self.w.close(object);
    }
}

/// A time as OCSF writes it (its type `datetime_t`), which has four digits for the year.
pub(super) fn datetime(ms: i64) -> Option<String> {
    let time = DateTime::<Utc>::from_timestamp_millis(ms)?;
    (0..=9999).contains(&time.year()).then(|| time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}
