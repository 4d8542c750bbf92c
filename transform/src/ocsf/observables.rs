//! `observables`: what an analyst would look up, with the path where it stands in the event.

use super::Event;
use crate::json::{Text, Writer, write::key};

/// A kind of observable, as OCSF numbers and names it: what stands between its path and its value, with and without caption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    captioned: &'static str,
    bare: &'static str,
}

macro_rules! kind {
    ($id:literal $caption:literal) => {
        Kind {
            captioned: concat!("\",\"type_id\":", $id, ",\"type\":\"", $caption, "\",\"value\":\""),
            bare: concat!("\",\"type_id\":", $id, ",\"value\":\""),
        }
    };
}

pub(super) const IP_ADDRESS: Kind = kind!(2 "IP Address");
pub(super) const USER_NAME: Kind = kind!(4 "User Name");
pub(super) const EMAIL_ADDRESS: Kind = kind!(5 "Email Address");
pub(super) const FILE_NAME: Kind = kind!(7 "File Name");
pub(super) const MESSAGE_UID: Kind = kind!(42 "Message UID");

/// Where an observable stands in the event.
#[derive(Debug, Clone, Copy)]
pub(super) enum Path {
    /// `actor.user.name`
    Plain(&'static str),
    /// `email.files[2].name`
    Indexed(&'static str, usize, &'static str),
}

/// The observables of an event while it is written, their texts with escapes unresolved.
#[derive(Debug, Default)]
pub(super) struct Observables<'a> {
    found: Vec<(Path, Kind, &'a str)>,
    wanted: bool,
}

impl<'a> Observables<'a> {
    pub(super) fn new(wanted: bool) -> Self {
        Self { found: Vec::with_capacity(if wanted { 4 } else { 0 }), wanted }
    }

    pub(super) fn add(&mut self, path: Path, kind: Kind, text: Text<'a>) {
        self.piece(path, kind, text.raw());
    }

    pub(super) fn address(&mut self, path: Path, text: Text<'a>) {
        self.piece(path, EMAIL_ADDRESS, text.raw());
    }

    pub(super) fn piece(&mut self, path: Path, kind: Kind, raw: &'a str) {
        if self.wanted {
            self.found.push((path, kind, raw));
        }
    }
}

impl Event<'_, '_> {
    pub(super) fn observables(&mut self) {
        if !self.observables.wanted {
            return;
        }
        let captions = self.options.captions;
        let list = self.w.array(key!("observables"));
        if let Some(client) = &self.reading.client
            && let crate::address::Host::Ip(ip) = &client.address.host
        {
            write(&mut self.w, Path::Plain("src_endpoint.ip"), IP_ADDRESS, ip.as_str(), captions);
        }
        for (path, kind, raw) in &self.observables.found {
            write(&mut self.w, *path, *kind, raw, captions);
        }
        self.w.close_or_undo(list);
    }
}

#[inline(always)]
fn write(w: &mut Writer<'_>, path: Path, kind: Kind, raw: &str, captions: bool) {
    w.raw(r#"{"name":""#);
    match path {
        Path::Plain(path) => w.raw(path),
        Path::Indexed(list, index, rest) => {
            w.raw(list);
            w.raw("[");
            w.raw(itoa::Buffer::new().format(index));
            w.raw("]");
            w.raw(rest);
        }
    }
    w.raw(if captions { kind.captioned } else { kind.bare });
    w.raw(raw);
    w.raw("\"},");
}
