//! The way of a record: checked, understood, filtered, written.

use std::{borrow::Cow, sync::Arc};

use schemas::{ContentType, Rendered, TenantId, Unrenderable};

use crate::{
    Facts, Filter, RenderOptions, View,
    json::{
        Fault, has_controls,
        repair::{Repair, repair},
    },
    ocsf,
    parameters::Rewritten,
    plain::Plain,
    reading::Reading,
    record::{Order, Record},
    tags,
    understood::{self, Understood},
    view,
};

/// Where a record comes from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The tenant.
    pub tenant: TenantId,
    /// Its name in the configuration.
    pub tenant_name: &'a str,
    /// The content type whose feed listed the blob.
    pub content_type: ContentType,
    /// The blob.
    pub content_id: &'a str,
}

/// Renders records for one sink.
#[derive(Debug, Clone)]
pub struct Renderer {
    options: RenderOptions,
    order: Arc<Order>,
}

impl Renderer {
    /// A renderer with these options.
    #[must_use]
    pub fn new(options: RenderOptions) -> Self {
        Self { options, order: Arc::new(Order::new()) }
    }

    /// The options that it was made with.
    #[must_use]
    pub fn options(&self) -> &RenderOptions {
        &self.options
    }

    /// Tells once what a record says, as columns have it. Of what cannot be understood nothing is told.
    pub fn understand(&self, bytes: &[u8], origin: &Origin<'_>, told: &mut dyn FnMut(&Understood<'_>)) {
        let Ok(text) = simdutf8::compat::from_utf8(bytes) else { return told(&Understood::default()) };
        let mut tell = |record: &Record<'_>| {
            let rewritten = Rewritten::new(record);
            understood::tell(
                &Reading::new(record, &rewritten, origin, 0, &self.options),
                &self.options,
                told,
            );
        };
        let mut record = Record::empty(&self.order);
        match record.fill(text, has_controls(bytes)) {
            Ok(()) => tell(&record),
            Err(Fault::ControlCharacter { .. } | Fault::LoneSurrogate { .. }) => {
                let repaired = repair(text, Repair::Everything);
                match Record::read(&repaired) {
                    Ok(record) => tell(&record),
                    Err(_) => told(&Understood::default()),
                }
            }
            Err(_) => told(&Understood::default()),
        }
    }

    /// Renders the record at `position` of its blob. Appends it to `out`, or counts it as filtered, or adds a dead letter.
    pub fn render(
        &self,
        record: &[u8],
        position: u32,
        origin: &Origin<'_>,
        filter: &Filter,
        out: &mut Rendered,
    ) {
        if let Err(reason) = self.try_render(record, position, origin, filter, out) {
            out.undo_record();
            out.unrenderable.push(Unrenderable { position, reason });
        }
    }

    fn try_render(
        &self,
        bytes: &[u8],
        position: u32,
        origin: &Origin<'_>,
        filter: &Filter,
        out: &mut Rendered,
    ) -> Result<(), String> {
        let text = simdutf8::compat::from_utf8(bytes)
            .map_err(|e| format!("it is not UTF-8 at byte {}", e.valid_up_to()))?;
        // Nearly every record has no control character, so it has no line break either, nor one that stands bare in a string.
        let controls = has_controls(bytes);
        let line = if controls { on_one_line(text, self.options.view) } else { Cow::Borrowed(text) };
        if self.options.view == View::Raw && self.options.facts != Facts::All && filter.keeps_all() {
            match Plain::read(&line, controls) {
                Ok(plain) if self.options.facts == Facts::Plain || plain.names_mailbox_owner() => {
                    view::raw::write(&line, out.buffer());
                    plain.tell(|facts| out.end_record(position, facts));
                    return Ok(());
                }
                // What is repaired goes the usual way, too.
                Ok(_) | Err(Fault::ControlCharacter { .. } | Fault::LoneSurrogate { .. }) => {}
                Err(fault) => return Err(fault.to_string()),
            }
        }
        let mut record = Record::empty(&self.order);
        match record.fill(&line, controls) {
            Ok(()) => self.write(bytes, &line, &record, position, origin, filter, out),
            Err(Fault::ControlCharacter { .. } | Fault::LoneSurrogate { .. }) => {
                let repaired = repair(text, Repair::Everything);
                let record = Record::read(&repaired).map_err(|fault| fault.to_string())?;
                // The raw view keeps what is wrong with a record, as long as it stays on its line.
                let lines = (self.options.view == View::Raw).then(|| repair(text, Repair::Lines));
                let line = lines.as_ref().unwrap_or(&repaired);
                self.write(bytes, line, &record, position, origin, filter, out);
            }
            Err(fault) => return Err(fault.to_string()),
        }
        Ok(())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call each for a record that was good and for one that was repaired"
    )]
    fn write(
        &self,
        bytes: &[u8],
        line: &str,
        record: &Record<'_>,
        position: u32,
        origin: &Origin<'_>,
        filter: &Filter,
        out: &mut Rendered,
    ) {
        let rewritten = Rewritten::new(record);
        let reading = Reading::new(record, &rewritten, origin, position, &self.options);
        let facts = reading.facts();
        let tags = tags::of_record(&reading, &self.options);
        if !filter.keeps_all() && !filter.keeps(&facts.borrow(tags), &facts.mailbox_guid, origin) {
            out.filtered += 1;
            return;
        }
        let (options, buffer) = (&self.options, out.buffer());
        match options.view {
            View::Ocsf => ocsf::write(&reading, options, tags, bytes, buffer),
            View::Raw => view::raw::write(line, buffer),
            View::Ecs => view::ecs::write(&reading, options, tags, buffer),
            View::Asim => view::asim::write(&reading, options, tags, buffer),
            View::Splunk => view::splunk::write(line, &reading, options, tags, buffer),
            View::OfficeActivity => view::office_activity::write(&reading, tags, buffer),
        }
        out.end_record(position, facts.borrow(tags));
    }
}

/// The record without line breaks. A record that has none is not touched.
fn on_one_line(text: &str, view: View) -> Cow<'_, str> {
    if memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let what = if view == View::Raw { Repair::Lines } else { Repair::Everything };
    Cow::Owned(repair(text, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(record: &str) -> (Vec<String>, Option<i64>, Option<u32>, Vec<&'static str>) {
        let renderer = Renderer::new(RenderOptions { view: View::Raw, ..RenderOptions::default() });
        let tenant = "41463f53-8812-40f4-890f-865bf6e35190".parse().unwrap();
        let origin =
            Origin { tenant, tenant_name: "contoso", content_type: ContentType::Exchange, content_id: "" };
        let mut all = Vec::new();
        renderer.understand(record.as_bytes(), &origin, &mut |said| {
            let texts = [said.facts.user, said.facts.mailbox, said.user_key, said.object, said.result_status];
            let tags = tags::names(said.facts.tags).collect();
            all.push((texts.map(str::to_owned).to_vec(), said.user_type, said.class_uid, tags));
        });
        assert_eq!(all.len(), 1, "it tells once");
        all.remove(0)
    }

    #[test]
    fn what_a_record_says_is_told_once() {
        let text = r#"{"Id":"a","RecordType":1,"CreationTime":"2026-01-02T03:04:05","Operation":"Set-Mailbox","UserId":"ann\u0040contoso.com","UserKey":"k","UserType":"Admin","Workload":"Exchange","ResultStatus":"True","ObjectId":"bob","Parameters":[{"Name":"Identity","Value":"bob@contoso.com"},{"Name":"ForwardingSmtpAddress","Value":"smtp:eve@evil.example"}]}"#;
        let (texts, user_type, class, tags) = understood(text);
        assert_eq!(texts, ["ann@contoso.com", "bob@contoso.com", "k", "bob", "True"]);
        assert_eq!((user_type, class), (Some(2), Some(6003)));
        assert_eq!(tags, ["exo.forwarding.external"]);
        let (_, user_type, class, tags) = understood(r#"{"UserType":4,"RecordType":2,"Operation":"Send"}"#);
        assert_eq!((user_type, tags.len()), (Some(4), 0));
        assert!(class.is_some(), "every event has a class");
    }

    #[test]
    fn one_owner_is_one_mailbox_however_it_is_written() {
        let mailboxes = [
            r#"{"RecordType":2,"Operation":"Send","MailboxOwnerUPN":"O\u0027Neil@contoso.com"}"#,
            r#"{"RecordType":2,"Operation":"Send","MailboxOwnerUPN":"O'Neil@contoso.com"}"#,
            r#"{"RecordType":1,"Operation":"Set-Mailbox","Parameters":[{"Name":"Identity","Value":"O\u0027Neil@contoso.com"}]}"#,
            r#"{"RecordType":1,"Operation":"Add-MailboxFolderPermission","Parameters":[{"Name":"Identity","Value":"O\u0027Neil@contoso.com:\\Calendar"}]}"#,
        ]
        .map(|record| understood(record).0.swap_remove(1));
        assert_eq!(mailboxes, ["O'Neil@contoso.com"; 4]);
    }

    #[test]
    fn what_is_broken_says_what_can_be_repaired() {
        let (texts, ..) = understood("{\"UserId\":\"a\tb\",\"Operation\":\"Send\"}");
        assert_eq!(texts[0], "a\tb");
        let (texts, user_type, class, tags) = understood("[1]");
        assert_eq!((texts.concat(), user_type, class, tags.len()), (String::new(), None, None, 0));
    }
}
