//! `raw_data`: the record's own bytes, where a sink wants them in the event.

use sha2::{Digest, Sha256};

use super::Event;
use crate::{RawData, json::write::key};

impl Event<'_, '_> {
    pub(super) fn raw_data(&mut self, bytes: &[u8]) {
        match self.options.raw_data {
            RawData::None => return,
            RawData::Hash => {
                if !self.options.ocsf_version.has_raw_data_hash() {
                    return;
                }
                let digest = Sha256::digest(bytes);
                let object = self.w.object(key!("raw_data_hash"));
                self.caption(r#""algorithm_id":3,"#, r#""algorithm_id":3,"algorithm":"SHA-256","#);
                self.w.raw(r#""value":""#);
                for byte in digest {
                    self.w.raw(&format!("{byte:02x}"));
                }
                self.w.raw("\",");
                self.w.close(object);
            }
            RawData::Full => self.w.str(key!("raw_data"), &String::from_utf8_lossy(bytes)),
        }
        self.w.int(key!("raw_data_size"), i64::try_from(bytes.len()).unwrap_or(i64::MAX));
    }
}
