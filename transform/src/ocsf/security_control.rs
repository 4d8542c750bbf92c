//! `attacks`: the techniques of a record's tags, by the profile `security_control`.

use super::Event;
use crate::{json::write::key, tags};

impl Event<'_, '_> {
    pub(super) fn security_control(&mut self, tags: u32) {
        if tags == 0 {
            return;
        }
        let mut written = Vec::new();
        let attacks = self.w.array(key!("attacks"));
        for technique in tags::of(tags).flat_map(|tag| tag.techniques) {
            if written.contains(technique) {
                continue;
            }
            written.push(*technique);
            let attack = self.w.object("");
            let object = self.w.object(key!("technique"));
            self.w.fragment(key!("uid"), technique.uid);
            self.w.fragment(key!("name"), technique.name);
            self.w.close(object);
            if let Some((uid, name)) = technique.sub {
                let object = self.w.object(key!("sub_technique"));
                self.w.fragment(key!("uid"), uid);
                self.w.fragment(key!("name"), name);
                self.w.close(object);
            }
            self.w.close(attack);
        }
        self.w.close(attacks);
    }
}
