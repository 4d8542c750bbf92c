//! `src_endpoint`: where it came from.

use super::Event;
use crate::{address::Host, json::write::key, reading::ADDRESS_FIELDS};

impl Event<'_, '_> {
    pub(super) fn endpoints(&mut self) {
        let reading = self.reading;
        let object = self.w.object(key!("src_endpoint"));
        match reading.client {
            Some(client) => {
                match client.address.host {
                    Host::Ip(ip) => self.w.str(key!("ip"), ip.as_str()),
                    Host::Name(name) => self.w.str(key!("hostname"), name),
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
            None if reading.exchange => self.w.raw(r#""svc_name":"Exchange Online","#),
            None => self.w.raw(r#""svc_name":"Microsoft 365","#),
        }
        self.w.close(object);
    }
}
