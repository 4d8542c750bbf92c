//! Where mail is sent on to, however that was arranged: a property of the mailbox, an inbox rule, or a transport rule.

use std::borrow::Cow;

use crate::{
    cmdlet::{Cmdlet, Noun},
    inbox_rule::InboxRule,
    json::{Json, Text},
    operation::Source,
    parameters::Parameters,
    reading::Reading,
    record::Field,
};

/// `unmapped.exchange.forwarding`.
#[derive(Debug, Default)]
pub(crate) struct Forwarding<'a> {
    /// Whom mail goes to, in the order of the record, each once.
    pub(crate) targets: Vec<Target<'a>>,
    /// Whether the mailbox keeps a copy, where that can be told.
    pub(crate) keep_copy: Option<bool>,
}

/// One receiver: an address, or the name of a recipient of the organisation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    pub(crate) address: Cow<'a, str>,
    /// Whether the address lies outside of the organisation.
    pub(crate) external: bool,
}

/// Parameters of `Set-Mailbox` that send mail on.
const MAILBOX: [&str; 2] = ["ForwardingSmtpAddress", "ForwardingAddress"];
/// Parameters of transport rules that send a copy, and that send the mail itself.
const COPIES: [&str; 3] = ["BlindCopyTo", "CopyTo", "AddToRecipients"];
const REDIRECTIONS: [&str; 2] = ["RedirectMessageTo", "RedirectToRecipients"];

impl<'a> Forwarding<'a> {
    /// What the record says of forwarding, or `None` when it says nothing.
    pub(crate) fn read(
        cmdlet: Option<Cmdlet<'_>>,
        source: Source,
        parameters: &Parameters<'a>,
        rule: Option<&InboxRule<'a>>,
    ) -> Option<Self> {
        let mut found = Self::default();
        if let Some(rule) = rule {
            for address in rule.receivers() {
                found.add(address.clone());
            }
            found.keep_copy = (!found.targets.is_empty()).then_some(rule.delete != Some(true));
        }
        let noun = cmdlet.filter(|_| source == Source::ExchangeAdmin).map(|cmdlet| cmdlet.noun);
        if noun == Some(Noun::Mailbox) {
            found.add_parameters(&MAILBOX, parameters);
            found.keep_copy = parameters.truth("DeliverToMailboxAndForward");
        } else if noun == Some(Noun::TransportRule) {
            found.add_parameters(&COPIES, parameters);
            let copies = !found.targets.is_empty();
            found.add_parameters(&REDIRECTIONS, parameters);
            found.keep_copy = (!found.targets.is_empty()).then_some(copies);
        }
        (!found.targets.is_empty()).then_some(found)
    }

    fn add_parameters(&mut self, names: &[&str], parameters: &Parameters<'a>) {
        for address in names.iter().filter_map(|name| parameters.get(name)).flat_map(addresses) {
            self.add(address);
        }
    }

    fn add(&mut self, address: Cow<'a, str>) {
        // A list of thousands would make looking through it costly; a receiver that is in it twice does no harm.
        if self.targets.len() > 100 || self.targets.iter().all(|target| target.address != address) {
            self.targets.push(Target { address, external: false });
        }
    }

    /// Says of each receiver whether it is external.
    pub(crate) fn judge(&mut self, domains: &Domains<'_>) {
        for target in &mut self.targets {
            target.external = domains.is_external(&target.address);
        }
    }

    pub(crate) fn has_external(&self) -> bool {
        self.targets.iter().any(|target| target.external)
    }
}

/// The addresses in a value: a text with `;` between them, or a list of such texts.
pub(crate) fn addresses(value: Json<'_>) -> Vec<Cow<'_, str>> {
    split(value)
        .into_iter()
        .map(|address| map(address, clean))
        .filter(|address| !address.is_empty())
        .collect()
}

/// The words in a value, split and trimmed like addresses.
pub(crate) fn split(value: Json<'_>) -> Vec<Cow<'_, str>> {
    let mut words = Vec::new();
    for text in value.each().filter_map(Json::text) {
        match text.unescape() {
            Cow::Borrowed(text) => words.extend(text.split(';').map(|word| Cow::Borrowed(word.trim()))),
            Cow::Owned(text) => words.extend(text.split(';').map(|word| Cow::Owned(word.trim().to_owned()))),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn map<'a>(text: Cow<'a, str>, part: fn(&str) -> &str) -> Cow<'a, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(part(text)),
        Cow::Owned(text) => Cow::Owned(part(&text).to_owned()),
    }
}

/// The bare address of `smtp:a@b.c`, `"Name" [SMTP:a@b.c]` and `Name <a@b.c>`, the name of `"Name" [EX:/o=…]`, which is a
/// recipient of the organisation; anything else as it is.
fn clean(text: &str) -> &str {
    let text = match text.rsplit_once('[') {
        Some((name, place)) if is_of_directory(place) && !name.trim().is_empty() => name.trim(),
        _ => text,
    };
    let bracketed = |open: char, close: char| {
        let inner = text.rsplit_once(open)?.1.split_once(close)?.0;
        inner.contains('@').then_some(inner)
    };
    let address = bracketed('[', ']').or_else(|| bracketed('<', '>')).unwrap_or(text);
    let address = address.trim().trim_matches(['"', '\'']);
    match address.get(..5) {
        Some(prefix) if prefix.eq_ignore_ascii_case("smtp:") => &address[5..],
        _ => address,
    }
}

/// Whether what stands behind a bracket is the place of a recipient in Exchange's directory.
fn is_of_directory(place: &str) -> bool {
    place.get(..4).is_some_and(|kind| kind.eq_ignore_ascii_case("EX:/"))
}

/// The mail domains that belong to the organisation.
#[derive(Debug)]
pub(crate) enum Domains<'d> {
    /// Those in the configuration.
    Configured(&'d [String]),
    /// None is configured: those that the record itself shows to be at home.
    Seen(Vec<Cow<'d, str>>),
}

impl<'d> Domains<'d> {
    pub(crate) fn new(configured: &'d [String], reading: &Reading<'d>) -> Self {
        if !configured.is_empty() {
            return Self::Configured(configured);
        }
        let text = |field| reading.record.text(field).map(Text::unescape);
        let owner = reading.administered_mailbox.map(Cow::Borrowed);
        let own = [text(Field::MailboxOwnerUpn), text(Field::UserId), owner]
            .into_iter()
            .flatten()
            .filter_map(domain);
        Self::Seen(text(Field::OrganizationName).into_iter().chain(own).collect())
    }

    /// Whether an address lies in none of them. A name without a domain is that of a recipient of the organisation.
    pub(crate) fn is_external(&self, address: &str) -> bool {
        let Some((_, domain)) = address.rsplit_once('@') else { return false };
        match self {
            Self::Configured(own) => !own.iter().any(|own| own.eq_ignore_ascii_case(domain)),
            Self::Seen(own) => !own.iter().any(|own| own.eq_ignore_ascii_case(domain)),
        }
    }
}

fn domain(address: Cow<'_, str>) -> Option<Cow<'_, str>> {
    match address {
        Cow::Borrowed(address) => address.rsplit_once('@').map(|(_, domain)| Cow::Borrowed(domain)),
        Cow::Owned(address) => address.rsplit_once('@').map(|(_, domain)| Cow::Owned(domain.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::scan::scan_value;

    #[test]
    fn addresses_come_in_several_forms() {
        for (json, expected) in [
            (r#""smtp:drop@evil.example""#, &["drop@evil.example"][..]),
            (r#""a@b.c; SMTP:d@e.f;;""#, &["a@b.c", "d@e.f"]),
            (r#"["a@b.c","d@e.f;g@h.i"]"#, &["a@b.c", "d@e.f", "g@h.i"]),
            (r#""\"Eve [X]\" [SMTP:eve@evil.example]""#, &["eve@evil.example"]),
            (r#""Eve \u003ceve@evil.example\u003e""#, &["eve@evil.example"]),
            (r#""\"joe@contoso.com\" [EX:/o=ExchangeLabs/ou=x/cn=Recipients/cn=joe]""#, &["joe@contoso.com"]),
            (r#""\"Joe\" [EX:/o=ExchangeLabs/cn=joe]; Eve [ex:/o=x]""#, &["Joe", "Eve"]),
            (r#""[EX:/o=ExchangeLabs/cn=joe]""#, &["[EX:/o=ExchangeLabs/cn=joe]"]),
            (r#""Finance Team""#, &["Finance Team"]),
            (
                r#""EURPR04A009.PROD.OUTLOOK.COM/x/contoso/joey""#,
                &["EURPR04A009.PROD.OUTLOOK.COM/x/contoso/joey"],
            ),
            ("\"\"", &[]),
            ("null", &[]),
            ("5", &[]),
        ] {
            assert_eq!(addresses(scan_value(json).unwrap()), expected, "{json}");
        }
    }

    #[test]
    fn an_address_is_external_when_its_domain_is_not_ones_own() {
        let configured = ["contoso.com".to_owned()];
        let domains = Domains::Configured(&configured);
        for (address, external) in [
            ("a@Contoso.com", false),
            ("a@sub.contoso.com", true),
            ("a@evil.example", true),
            ("Finance", false),
        ] {
            assert_eq!(domains.is_external(address), external, "{address}");
        }
    }
}
