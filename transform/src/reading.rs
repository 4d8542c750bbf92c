//! A record as it was understood: what every view needs to know of it, worked out once.

use std::borrow::Cow;

use schemas::{
    RecordFacts,
    record_type::record_type_number,
    time::{parse_plain, parse_utc},
};

use crate::{
    Origin, RenderOptions,
    address::{Address, Host, is_host_name, parse_address},
    cmdlet::{Cmdlet, Noun},
    forwarding::{Domains, Forwarding},
    inbox_rule::InboxRule,
    json::{Json, Text},
    names::letters_digits_and,
    operation::{Meaning, Source, meaning},
    parameters::{Parameters, Rewritten},
    parts::{Context, Folder, Item},
    record::{Field, FieldSet, Record},
};

/// A record with what it means.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    pub(crate) record: &'a Record<'a>,
    pub(crate) origin: &'a Origin<'a>,
    /// The record's position in its blob.
    pub(crate) position: u32,
    pub(crate) source: Source,
    /// Whether this is about Exchange at all.
    pub(crate) exchange: bool,
    pub(crate) record_type: Option<i64>,
    pub(crate) operation: Option<Text<'a>>,
    pub(crate) cmdlet: Option<Cmdlet<'a>>,
    pub(crate) meaning: Meaning,
    pub(crate) time: Time,
    pub(crate) client: Option<Client<'a>>,
    pub(crate) server: Option<Server<'a>>,
    pub(crate) parameters: Parameters<'a>,
    /// `AppAccessContext`, which is documented as a list and comes as an object.
    pub(crate) context: Option<Context<'a>>,
    /// `Item`, mostly one.
    pub(crate) items: Vec<Item<'a>>,
    /// `AffectedItems`.
    pub(crate) affected_items: Vec<Item<'a>>,
    /// The owner of the mailbox that an admin's cmdlet was about, when the cmdlet names it by its address.
    pub(crate) administered_mailbox: Option<&'a str>,
    /// In a box because it is large and rare.
    pub(crate) inbox_rule: Option<Box<InboxRule<'a>>>,
    pub(crate) forwarding: Option<Forwarding<'a>>,
}

/// When it happened, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) ms: i64,
    pub(crate) source: TimeSource,
}

/// Where a time was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeSource {
    /// `CreationTime`, in the form that nearly every record has, `2015-06-29T20:03:19`.
    Plain,
    /// `CreationTime` in any other form.
    Record,
    /// The record does not say; this is when its blob was made available, by the blob's name.
    Blob,
    /// Nothing says when.
    Nowhere,
}

/// The first address of a record that can be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client<'a> {
    pub(crate) address: Address<'a>,
    /// The fields that the address says everything of.
    pub(crate) told: FieldSet,
}

/// `OriginatingServer`, `HOST (15.20.4129.032)`: a server and the build that it runs. The number is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Server<'a> {
    pub(crate) host: &'a str,
    pub(crate) build: Option<&'a str>,
}

/// Record types of Exchange whose operations are done to a mailbox.
const MAILBOX_TYPES: [i64; 4] = [2, 3, 19, 50];

impl<'a> Reading<'a> {
    pub(crate) fn new(
        record: &'a Record<'a>,
        rewritten: &'a Rewritten,
        origin: &'a Origin<'a>,
        position: u32,
        options: &'a RenderOptions,
    ) -> Self {
        let record_type = record.get(Field::RecordType).and_then(record_type_of);
        let operation = record.text(Field::Operation);
        let cmdlet = record.plain(Field::Operation).and_then(Cmdlet::named);
        let workload = record.text(Field::Workload);
        let exchange = matches!(record_type, Some(1 | 2 | 3 | 19 | 50 | 101))
            || workload.is_some_and(|workload| workload.is("Exchange"));
        let source = match record_type {
            Some(1) => Source::ExchangeAdmin,
            Some(number) if MAILBOX_TYPES.contains(&number) => Source::ExchangeMailbox,
            // Without a record type the form of the operation decides.
            None if exchange && cmdlet.is_some() => Source::ExchangeAdmin,
            _ if exchange => Source::ExchangeMailbox,
            _ => Source::Elsewhere,
        };
        let context = record.get(Field::AppAccessContext);
        let items = |field| record.get(field).map(|value| Item::each(value).collect()).unwrap_or_default();
        let parameters = Parameters::read(record, rewritten);
        let inbox_rule = InboxRule::read(operation, cmdlet, source, &parameters);
        let forwarding = Forwarding::read(cmdlet, source, &parameters, inbox_rule.as_ref());
        let mut reading = Self {
            record,
            origin,
            position,
            source,
            exchange,
            record_type,
            operation,
            cmdlet,
            meaning: meaning(operation, cmdlet, source),
            time: time(record, origin),
            client: client(record),
            server: record.text(Field::OriginatingServer).and_then(server),
            context: context.and_then(|context| context.each().next()).map(Context::read),
            items: items(Field::Item),
            affected_items: items(Field::AffectedItems),
            administered_mailbox: administered_mailbox(cmdlet, source, &parameters),
            parameters,
            inbox_rule: inbox_rule.map(Box::new),
            forwarding: None,
        };
        if let Some(mut forwarding) = forwarding {
            forwarding.judge(&reading.domains(options));
            reading.forwarding = Some(forwarding);
        }
        reading
    }

    /// Whether this is a record of mailbox audit, by its type or by a field that only those have.
    pub(crate) fn is_mailbox_audit(&self) -> bool {
        self.record_type.is_some_and(|number| MAILBOX_TYPES.contains(&number))
            || self.record.get(Field::LogonType).is_some()
    }

    /// The mail domains that belong to the organisation.
    pub(crate) fn domains(&self, options: &'a RenderOptions) -> Domains<'a> {
        Domains::new(&options.accepted_domains, self)
    }

    /// What a sink may know of the record.
    pub(crate) fn facts(&self) -> Facts<'a> {
        let text = |field| self.record.unescaped(field);
        let mailbox_guid = text(Field::MailboxGuid);
        let mailbox = match (self.record.text(Field::MailboxOwnerUpn), self.administered_mailbox) {
            (Some(_), _) => text(Field::MailboxOwnerUpn),
            (None, Some(owner)) => resolved(owner),
            (None, None) => mailbox_guid.clone(),
        };
        Facts {
            id: text(Field::Id),
            user: text(Field::UserId),
            mailbox,
            mailbox_guid,
            operation: text(Field::Operation),
            workload: text(Field::Workload),
            time_ms: matches!(self.time.source, TimeSource::Plain | TimeSource::Record)
                .then_some(self.time.ms),
            client: self.client.map(|client| client.address.host),
            record_type: self.record_type,
        }
    }

    /// The application that acted, and the field it was found in.
    pub(crate) fn app_id(&self) -> Option<Text<'a>> {
        self.record
            .text(Field::ClientAppId)
            .or_else(|| self.context?.app)
            .or_else(|| self.record.text(Field::AppId))
            .or_else(|| self.record.text(Field::ApplicationId))
    }

    /// The first token of `ClientInfoString`: `OWA` of `Client=OWA;Action=ViaProxy`.
    pub(crate) fn client_protocol(&self) -> Option<&'a str> {
        let info = self.record.text(Field::ClientInfoString)?.raw();
        let rest = match info.strip_prefix("Client=") {
            Some(rest) => rest,
            None => info.split_once("Client=")?.1,
        };
        let end = rest.bytes().position(|byte| byte == b';').unwrap_or(rest.len());
        rest.get(..end).map(str::trim).filter(|protocol| !protocol.is_empty())
    }

    /// `Item` and `AffectedItems`.
    pub(crate) fn all_items(&self) -> impl Iterator<Item = &Item<'a>> {
        self.items.iter().chain(&self.affected_items)
    }

    /// The folder of an operation on a folder's permissions, with whom it is about.
    pub(crate) fn folder_member(&self) -> Option<Folder<'a>> {
        let has_member = |folder: &Folder<'a>| folder.member_upn.is_some() || folder.member_sid.is_some();
        let parent = self.items.first().and_then(|item| item.parent).filter(has_member);
        parent.or_else(|| self.record.get(Field::Folder).map(Folder::read).filter(has_member))
    }

    /// Whether the actor owns the mailbox; by their SIDs, else by their addresses, and `None` when neither can be told: a SID
    /// is no other than the owner's address only because it is written in another way.
    pub(crate) fn is_owner(&self) -> Option<bool> {
        let text = |field| self.record.text(field);
        if let (Some(actor), Some(owner)) = (text(Field::LogonUserSid), text(Field::MailboxOwnerSid)) {
            // The owner of a linked mailbox logs on with the account that it is linked to.
            let linked =
                text(Field::MailboxOwnerMasterAccountSid).is_some_and(|linked| linked.is_text(actor));
            return Some(actor.is_text(owner) || linked);
        }
        let (actor, owner) = (text(Field::UserId)?, text(Field::MailboxOwnerUpn)?);
        let same = actor.is_text(owner);
        (same || is_email(actor.raw())).then_some(same)
    }
}

fn administered_mailbox<'a>(
    cmdlet: Option<Cmdlet<'_>>,
    source: Source,
    parameters: &Parameters<'a>,
) -> Option<&'a str> {
    let cmdlet = cmdlet.filter(|_| source == Source::ExchangeAdmin)?;
    let about_mailbox = match cmdlet.noun {
        Noun::Mailbox | Noun::RecipientPermission | Noun::InboxRule => true,
        _ => cmdlet.noun_has(&["Mailbox"]),
    };
    let of = |value: Option<Text<'a>>| {
        // A folder is named behind its mailbox: `cfo@contoso.com:\Calendar`.
        let text = value?.raw();
        let domain = memchr::memchr(b'@', text.as_bytes())?;
        let end = text.bytes().skip(domain).position(|byte| byte == b':');
        text.get(..end.map_or(text.len(), |end| domain + end)).filter(|owner| is_email(owner))
    };
    if about_mailbox { of(parameters.text("Mailbox")).or_else(|| of(parameters.identity)) } else { None }
}

/// [`RecordFacts`] before they are borrowed.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    id: Cow<'a, str>,
    user: Cow<'a, str>,
    mailbox: Cow<'a, str>,
    pub(crate) mailbox_guid: Cow<'a, str>,
    operation: Cow<'a, str>,
    workload: Cow<'a, str>,
    time_ms: Option<i64>,
    client: Option<Host<'a>>,
    record_type: Option<i64>,
}

impl Facts<'_> {
    pub(crate) fn borrow(&self, tags: u32) -> RecordFacts<'_> {
        RecordFacts {
            id: &self.id,
            time_ms: self.time_ms,
            user: &self.user,
            mailbox: &self.mailbox,
            operation: &self.operation,
            workload: &self.workload,
            client_ip: self.client.as_ref().map_or("", Host::as_str),
            record_type: self.record_type,
            tags,
        }
    }
}

/// The number of a record type that stands there as a number, as text, or by its name.
pub(crate) fn record_type_of(value: Json<'_>) -> Option<i64> {
    value.int().or_else(|| record_type_number(value.text()?.plain()?))
}

fn time(record: &Record<'_>, origin: &Origin<'_>) -> Time {
    if let Some(written) = record.plain(Field::CreationTime)
        && let Some(ms) = parse_plain(written)
    {
        // A leap second is written as another.
        let source = if written.ends_with("60") { TimeSource::Record } else { TimeSource::Plain };
        return Time { ms, source };
    }
    if let Some(time) = parse_utc(&record.unescaped(Field::CreationTime)) {
        return Time { ms: time.timestamp_millis(), source: TimeSource::Record };
    }
    match blob_time(origin.content_id) {
        Some(ms) => Time { ms, source: TimeSource::Blob },
        None => Time { ms: 0, source: TimeSource::Nowhere },
    }
}

/// When a blob was made available, by the second time stamp in its name:
/// `20200705152230936019353$20200705152411486034089$audit_exchange$…` (seen on the wire; not documented).
fn blob_time(content_id: &str) -> Option<i64> {
    let stamp = content_id.split('$').nth(1)?;
    let digits = stamp.get(..17).filter(|_| stamp.bytes().all(|b| b.is_ascii_digit()))?;
    let part = |from: usize, to: usize| &digits[from..to];
    let text = format!(
        "{}-{}-{}T{}:{}:{}.{}",
        part(0, 4),
        part(4, 6),
        part(6, 8),
        part(8, 10),
        part(10, 12),
        part(12, 14),
        part(14, 17)
    );
    Some(parse_utc(&text)?.timestamp_millis())
}

/// The address fields in the order in which they are believed: that of the client, then those that may be a proxy's.
pub(crate) const ADDRESS_FIELDS: [Field; 4] =
    [Field::ClientIpAddress, Field::ClientIp, Field::ActorIpAddress, Field::ActorIp];

fn client<'a>(record: &Record<'a>) -> Option<Client<'a>> {
    let mut named = None;
    for field in ADDRESS_FIELDS {
        let Some(text) = record.plain(field) else { continue };
        let Some(address) = parse_address(text) else { continue };
        match address.host {
            Host::Ip(_) => return Some(told(record, address, text)),
            Host::Name(_) => named = named.or(Some((address, text))),
        }
    }
    named.map(|(address, text)| told(record, address, text))
}

fn told<'a>(record: &Record<'a>, address: Address<'a>, text: &str) -> Client<'a> {
    let mut told = FieldSet::default();
    for field in ADDRESS_FIELDS {
        let said = record.plain(field);
        if said.is_some_and(|said| said == address.host.as_str() || address.exact && said == text) {
            told.insert(field);
        }
    }
    Client { address, told }
}

/// What may stand behind a server while its escapes are unresolved. Microsoft mostly writes `\u000d\u000a`.
const LINE_ENDS: [&str; 7] = [r"\u000d", r"\u000a", r"\r", r"\n", " ", r"\u000D", r"\u000A"];

/// A text without the line break at its end, its escapes unresolved.
pub(crate) fn without_line_end(text: Text<'_>) -> &str {
    let mut raw = text.raw();
    // What is behind a backslash that is itself escaped is no escape.
    let whole = |rest: &&str| rest.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 0;
    while !raw.ends_with(')')
        && let Some(rest) = LINE_ENDS.into_iter().find_map(|end| raw.strip_suffix(end).filter(whole))
    {
        raw = rest;
    }
    raw
}

fn server(text: Text<'_>) -> Option<Server<'_>> {
    let raw = without_line_end(text);
    let bracket = memchr::memchr_iter(b'(', raw.as_bytes()).find(|at| raw[..*at].ends_with(' '));
    let (host, build) = match bracket {
        Some(at) => (&raw[..at - 1], Some(raw[at + 1..].strip_suffix(')')?)),
        None => (raw, None),
    };
    let digits = |build: &str| {
        !build.is_empty() && build.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b':'))
    };
    (is_host_name(host) && build.is_none_or(digits)).then_some(Server { host, build })
}

/// Whether OCSF takes a text for an email address (its type `email_t`). Takes text with escapes unresolved too.
pub(crate) fn is_email(text: &str) -> bool {
    let Some(at) = text.bytes().position(|b| !LOCAL[usize::from(b)]) else { return false };
    let (local, domain) = text.as_bytes().split_at(at);
    match domain {
        // A backslash stands in no address.
        [b'\\', b'\\', ..] => return false,
        [b'\\', ..] => return is_escaped_email(text),
        _ => {}
    }
    let [b'@', domain @ ..] = domain else { return false };
    let Some(dot) = domain.iter().position(|b| *b == b'.') else { return false };
    // Before the first dot there is something, and behind it too.
    !local.is_empty() && dot > 0 && dot + 1 < domain.len() && domain.iter().all(|b| DOMAIN[usize::from(*b)])
}

/// [`is_email`] for a text with an escape before its `@`: serializers that write for web pages make an escape of the
/// apostrophe in `O'Neil@contoso.com`.
#[inline(never)]
fn is_escaped_email(text: &str) -> bool {
    let text = memchr::memchr(b'@', text.as_bytes()).map(|_| resolved(text));
    text.is_some_and(|text| !text.contains('\\') && is_email(&text))
}

/// A part of a string of the record with its escapes resolved.
fn resolved(raw: &str) -> Cow<'_, str> {
    match memchr::memchr(b'\\', raw.as_bytes()) {
        Some(_) => serde_json::from_str(&format!("\"{raw}\"")).map_or(Cow::Borrowed(raw), Cow::Owned),
        None => Cow::Borrowed(raw),
    }
}

/// The bytes that may stand before the `@`.
static LOCAL: [bool; 256] = letters_digits_and(b"!#$%&'*+,-./=?^_`{|}~");

/// The bytes that may stand behind the `@`.
static DOMAIN: [bool; 256] = letters_digits_and(b"-.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_taken_apart_and_a_build_is_no_address() {
        for (text, expected) in [
            (r#""VI1PR04MB5056 (15.20.4129.032)\r\n""#, Some(("VI1PR04MB5056", Some("15.20.4129.032")))),
            (r#""AM6PR01MB4535 (15.20.225.32)\n""#, Some(("AM6PR01MB4535", Some("15.20.225.32")))),
            (r#""AM6PR01MB4535""#, Some(("AM6PR01MB4535", None))),
            (
                r#""DB8PR04MB6875 (15.20.4042.018)\u000d\u000a""#,
                Some(("DB8PR04MB6875", Some("15.20.4042.018"))),
            ),
            (r#""DB8PR04MB6875\u000A""#, Some(("DB8PR04MB6875", None))),
            (r#""[SOMETHING (10.555.1.2)]""#, None),
            (r#""A (B)""#, None),
            (r#""A\\n""#, None),
            (r#""A (1.2)\\r\n""#, None),
            (r#""\r\n""#, None),
        ] {
            let found = server(crate::json::scan::scan_value(text).unwrap().text().unwrap());
            assert_eq!(found.map(|server| (server.host, server.build)), expected, "{text}");
        }
    }

    #[test]
    fn line_breaks_at_an_end_are_left_out_and_nothing_else() {
        for (text, expected) in [
            (r#""A (1)\u000d\u000a""#, "A (1)"),
            (r#""A\r\n \u000A""#, "A"),
            (r#""A\\n""#, r"A\\n"),
            (r#""A\\\n""#, r"A\\"),
            (r#""A\t""#, r"A\t"),
            (r#""\n""#, ""),
        ] {
            let text = crate::json::scan::scan_value(text).unwrap().text().unwrap();
            assert_eq!(without_line_end(text), expected, "{text:?}");
        }
    }

    #[test]
    fn only_addresses_that_the_schema_takes_are_addresses() {
        for good in [
            "a@b.c",
            "first.last+tag@sub.example.com",
            "O'Neil@x-y.org",
            r"O\u0027Neil@x-y.org",
            r"a\/b@c.d",
            "a,b/c@d.e",
            "x@y..z",
        ] {
            assert!(is_email(good), "{good}");
        }
        for bad in [
            "",
            "@",
            "a@b",
            "a@.b",
            "a@b.",
            "a b@c.d",
            "a@b@c.d",
            "NT AUTHORITY\\SYSTEM",
            r"CONTOSO\\joni@b.c",
            r"CONTOSO\joni@b.c",
            r"a\u0040b.c",
            "é@b.c",
            "a@é.c",
            "S-1-5-18",
        ] {
            assert!(!is_email(bad), "{bad}");
        }
    }

    #[test]
    fn a_blob_tells_when_it_was_made_available() {
        let name = "20200705152230936019353$20200705152411486034089$audit_exchange$Audit_Exchange$emea0036";
        assert_eq!(blob_time(name), Some(1_593_962_651_486));
        for name in ["", "a$b", "1$2", "20200705152230936019353", "x$20209905152411486034089$y"] {
            assert_eq!(blob_time(name), None, "{name}");
        }
    }
}
