//! `metadata`, `cloud` and `api`: what every class has.

use chrono::{DateTime, Datelike, Utc};
use schemas::{
    record_type::record_type_name,
    time::{parse_plain, parse_utc},
};

use super::Event;
use crate::{
    json::{Json, Text, write::key},
    operation::{Class, Source},
    reading::{Reading, TimeSource},
    record::Field,
    tags,
};

impl Event<'_, '_> {
    pub(super) fn metadata(&mut self, class: Class, tags: u32) {
        let (reading, record) = (self.reading, self.reading.record);
        let version = self.options.ocsf_version;
        self.w.raw(r#""metadata":{"version":""#);
        self.w.raw(version.as_str());
        self.product();
        match record.text(Field::Id) {
            Some(id) => {
                self.used.insert(Field::Id);
                self.w.text(key!("uid"), id);
                if version.has_original_event_uid() {
                    self.w.text(key!("original_event_uid"), id);
                }
            }
            None => self.made_up_uid(),
        }
        if let Some(number) = reading.record_type {
            match record_type_name(number) {
                Some(name) => self.w.fragment(key!("event_code"), name),
                None => self.w.fragment(key!("event_code"), itoa::Buffer::new().format(number)),
            }
        }
        self.w.raw(r#""log_name":""#);
        self.w.raw(reading.origin.content_type.as_str());
        self.w.raw(r#"","log_provider":"Office 365 Management Activity API","#);
        if let Some(time) = record.text(Field::CreationTime) {
            self.used.insert(Field::CreationTime);
            self.w.text(key!("original_time"), time);
        }
        match record.text(Field::OrganizationId) {
            Some(id) => self.w.text(key!("tenant_uid"), id),
            None => self.w.fragment(key!("tenant_uid"), &reading.origin.tenant.to_string()),
        }
        if let Some(version) = record.get(Field::Version).and_then(Json::int) {
            self.w.fragment(key!("log_version"), itoa::Buffer::new().format(version));
            self.use_number(Field::Version, version);
        }
        self.correlation();
        if tags != 0 {
            let labels = self.w.array(key!("labels"));
            for name in tags::names(tags) {
                self.w.fragment("", name);
            }
            self.w.close(labels);
        }
        self.w.raw(match (class == Class::Email, tags != 0) {
            (false, false) => r#""profiles":["cloud","datetime"]},"#,
            (false, true) => r#""profiles":["cloud","datetime","security_control"]},"#,
            (true, false) => r#""profiles":["cloud","datetime","host"]},"#,
            (true, true) => r#""profiles":["cloud","datetime","host","security_control"]},"#,
        });
    }

    fn correlation(&mut self) {
        match self.reading.context.and_then(|context| context.correlation) {
            Some(id) => self.w.text(key!("correlation_uid"), id),
            None => {
                if let Some(id) = self.reading.record.text(Field::CorrelationId) {
                    self.used.insert(Field::CorrelationId);
                    self.w.text(key!("correlation_uid"), id);
                }
            }
        }
    }

    /// The product, behind the text of the version.
    fn product(&mut self) {
        let reading = self.reading;
        self.w.raw(match reading.source {
            Source::ExchangeAdmin => concat!(
                r#"","product":{"name":"Exchange Online","vendor_name":"Microsoft","#,
                r#""feature":{"name":"Admin Audit"}},"#
            ),
            Source::ExchangeMailbox if reading.is_mailbox_audit() => concat!(
                r#"","product":{"name":"Exchange Online","vendor_name":"Microsoft","#,
                r#""feature":{"name":"Mailbox Audit"}},"#
            ),
            // Exchange also tells of its rules for data loss and of encrypted mail, which nobody did to a mailbox.
            Source::ExchangeMailbox => r#"","product":{"name":"Exchange Online","vendor_name":"Microsoft"},"#,
            Source::Elsewhere => r#"","product":{"name":"Microsoft 365","vendor_name":"Microsoft"},"#,
        });
    }

    /// A name for a record that has none: its blob and its position there, which never change.
    fn made_up_uid(&mut self) {
        self.w.raw(r#""uid":""#);
        self.w.escaped(self.reading.origin.content_id);
        self.w.raw("#");
        self.w.raw(itoa::Buffer::new().format(self.reading.position));
        self.w.raw("\",");
    }

    pub(super) fn cloud(&mut self) {
        let record = self.reading.record;
        self.w.raw(r#""cloud":{"provider":"Microsoft 365","account":{"#);
        match record.text(Field::OrganizationId) {
            Some(id) => {
                self.used.insert(Field::OrganizationId);
                self.w.text(key!("uid"), id);
            }
            None => self.w.fragment(key!("uid"), &self.reading.origin.tenant.to_string()),
        }
        if let Some(name) = record.text(Field::OrganizationName) {
            self.used.insert(Field::OrganizationName);
            self.w.text(key!("name"), name);
        }
        // OCSF asks for the source's own word beside 99.
        self.w.raw(r#""type_id":99,"type":"Microsoft 365 Tenant"}},"#);
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
            self.w.raw(r#""service":{"name":"#);
            self.w.raw(workload.json());
            self.w.raw("},");
        }
        self.request();
        if self.options.ocsf_version.has_api_token() {
            let token = self.w.object(key!("token"));
            self.w.maybe_text(key!("uid"), reading.context.and_then(|context| context.token));
            if let Some((ms, _)) = reading.context.and_then(|context| token_time(context.issued?)) {
                self.w.int(key!("created_time"), ms);
            }
            self.w.close_or_undo(token);
        }
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
            (None, None) => self.made_up_uid(),
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

    /// `time`, which nothing may lack, and its text.
    pub(super) fn time(&mut self) {
        let time = self.reading.time;
        self.w.int(key!("time"), time.ms);
        match self.reading.record.text(Field::CreationTime) {
            Some(text) if time.source == TimeSource::Plain => {
                self.w.raw(r#""time_dt":""#);
                self.w.raw(text.raw());
                self.w.raw(".000Z\",");
            }
            _ => {
                if let Some(text) = datetime(time.ms) {
                    self.w.fragment(key!("time_dt"), &text);
                }
            }
        }
    }

    pub(super) fn status(&mut self) {
        let status = self.reading.record.text(Field::ResultStatus);
        match outcome(self.reading) {
            None => self.caption(r#""status_id":0,"#, r#""status_id":0,"status":"Unknown","#),
            Some(Outcome::Success) => {
                self.caption(r#""status_id":1,"#, r#""status_id":1,"status":"Success","#);
            }
            Some(Outcome::Failure) => {
                self.caption(r#""status_id":2,"#, r#""status_id":2,"status":"Failure","#);
            }
            // OCSF asks for the source's own word beside 99.
            Some(Outcome::Other) => {
                self.w.raw(r#""status_id":99,"#);
                self.w.maybe_text(key!("status"), status);
            }
        }
        if let Some(status) = status {
            self.w.text(key!("status_code"), status);
            self.used.insert(Field::ResultStatus);
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    Failure,
    /// In part, or in a way that is not known.
    Other,
}

/// How it ended, where the record says so. A sign-in that failed has failed, though its `ResultStatus` is `Success` nearly
/// always, because the directory did answer (seen on the wire).
pub(crate) fn outcome(reading: &Reading<'_>) -> Option<Outcome> {
    let failed = reading.source == Source::Elsewhere
        && reading.operation.is_some_and(|operation| operation.is("UserLoginFailed"));
    if failed {
        return Some(Outcome::Failure);
    }
    reading.record.text(Field::ResultStatus).map(outcome_of)
}

/// What `ResultStatus` says. Admin records say `True` and `False`, mailbox records `Succeeded`, `PartiallySucceeded` and
/// `Failed`, other workloads all of these in several cases.
fn outcome_of(status: Text<'_>) -> Outcome {
    match status.bytes() {
        // As they are spelt nearly always.
        b"True" | b"Succeeded" => return Outcome::Success,
        b"False" | b"Failed" => return Outcome::Failure,
        _ => {}
    }
    if status.is_one_of(&["Succeeded", "True", "Success"]) {
        Outcome::Success
    } else if status.is_one_of(&["Failed", "False", "Failure", "Fail"]) {
        Outcome::Failure
    } else {
        Outcome::Other
    }
}

/// When a token was issued, in milliseconds, and whether the number says all that the text said.
pub(super) fn token_time(text: Text<'_>) -> Option<(i64, bool)> {
    let plain = text.plain()?;
    let time = parse_utc(plain)?;
    let seconds = plain.trim_end_matches('Z');
    let exact = parse_plain(seconds).is_some() && !seconds.ends_with("60");
    Some((time.timestamp_millis(), exact))
}

/// A time as OCSF writes it (its type `datetime_t`), which has four digits for the year.
pub(crate) fn datetime(ms: i64) -> Option<String> {
    let time = DateTime::<Utc>::from_timestamp_millis(ms)?;
    (0..=9999).contains(&time.year()).then(|| time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}
