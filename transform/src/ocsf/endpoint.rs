//! `src_endpoint`, `dst_endpoint` and `http_request`: from where, to where, with which client.

use super::Event;
use crate::{address::Host, json::write::key, operation::Class, reading::ADDRESS_FIELDS, record::Field};

impl Event<'_, '_> {
    pub(super) fn source_endpoint(&mut self) {
        let (reading, record) = (self.reading, self.reading.record);
        let object = self.w.object(key!("src_endpoint"));
        match &reading.client {
            Some(client) => {
                match &client.address.host {
                    Host::Ip(ip) => self.w.fragment(key!("ip"), ip.as_str()),
                    Host::Name(name) => self.w.fragment(key!("hostname"), name),
                }
                if let Some(port) = client.address.port {
                    self.w.int(key!("port"), i64::from(port));
                }
                for field in ADDRESS_FIELDS {
                    if client.told.contains(field) {
                        self.used.insert(field);
                    }
                }
            }
            // The class requires that somebody is named, and such records are of the service's own doing.
            None => self.w.fragment(key!("svc_name"), self.service_name()),
        }
        for (key, field) in [(key!("name"), Field::ClientMachineName), (key!("uid"), Field::DeviceId)] {
            if let Some(text) = record.text(field) {
                self.used.insert(field);
                self.w.text(key, text);
            }
        }
        self.w.close(object);
    }

    fn service_name(&self) -> &'static str {
        if self.reading.exchange { "Exchange Online" } else { "Microsoft 365" }
    }

    pub(super) fn destination_endpoint(&mut self) {
        let Some(server) = self.reading.server else { return };
        let object = self.w.object(key!("dst_endpoint"));
        self.w.fragment(key!("svc_name"), self.service_name());
        self.w.fragment(key!("hostname"), server.host);
        self.w.close(object);
        if self.reading.exchange || server.build.is_none() {
            self.used.insert(Field::OriginatingServer);
        }
    }

    pub(super) fn http_request(&mut self, class: Class) {
        if !class.has_http_request() {
            return;
        }
        let record = self.reading.record;
        let fields = [Field::ClientInfoString, Field::UserAgent];
        let found = fields.into_iter().find_map(|field| Some((field, record.text(field)?)));
        if let Some((field, agent)) = found {
            self.used.insert(field);
            let object = self.w.object(key!("http_request"));
            self.w.text(key!("user_agent"), agent);
            self.w.close(object);
        }
    }
}
