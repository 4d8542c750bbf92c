//! A sink that asks for few facts gets the same bytes and the same facts, and the same dead letters, as one that asks for all.

use proptest::prelude::*;
use schemas::{RecordFacts, Rendered};
use transform::{Facts, Filter, RenderOptions, Renderer, View};

use crate::{
    lossless::record,
    records::{all, origin},
};

fn raw(record: &[u8], facts: Facts, filter: &Filter) -> Rendered {
    let mut out = Rendered::default();
    let options = RenderOptions { view: View::Raw, facts, ..RenderOptions::default() };
    Renderer::new(options).render(record, 3, &origin(), filter, &mut out);
    out
}

/// The facts that a sink is promised that asks for these.
fn promised(asked: Facts, facts: RecordFacts<'_>) -> RecordFacts<'_> {
    let RecordFacts { id, time_ms, operation, user, record_type, mailbox, .. } = facts;
    let mailbox = if asked == Facts::Mailbox { mailbox } else { "" };
    RecordFacts { id, time_ms, operation, user, record_type, mailbox, ..RecordFacts::default() }
}

fn check(record: &[u8]) {
    let full = raw(record, Facts::All, &Filter::default());
    for asked in [Facts::Plain, Facts::Mailbox] {
        let few = raw(record, asked, &Filter::default());
        assert_eq!(full.unrenderable, few.unrenderable);
        let told = |rendered: &Rendered| -> Vec<String> {
            let record = |record: schemas::RenderedRecord<'_>| {
                let text = String::from_utf8_lossy(record.bytes).into_owned();
                format!("{} {text} {:?}", record.position, promised(asked, record.facts))
            };
            rendered.iter().map(record).collect()
        };
        assert_eq!(told(&full), told(&few), "{}", String::from_utf8_lossy(record));
    }
}

#[test]
fn every_record_is_the_same_with_few_facts() {
    all().iter().for_each(|text| check(text.as_bytes()));
    for odd in [
        r#"{"I\u0064":"a\\b","Id":"second","CreationTime":"2024-01-02T03:04:05","RecordType":"ExchangeItem"}"#,
        r#"{"Id":5,"Id":"second","Operation":null,"UserId":[],"RecordType":2.0}"#,
        "{\n  \"Id\": \"1\",\r\n \"UserId\": \"tab\there\",\n \"Operation\": \"\\ud800\"}",
        r#"{"Id":"1","Operation":"Send",}"#,
        r#"{"MailboxOwnerUPN":"cfo@\u0063ontoso.com","MailboxOwnerUPN":"second@contoso.com"}"#,
        r#"{"MailboxOwnerUPN":"","MailboxGuid":"7a5d8b8e-0f4f-4c4e-8b3d-0d8c1e5f2a01"}"#,
        r#"{"MailboxOwnerUPN":null,"MailboxOwnerUPN":"second@contoso.com","MailboxGuid":7}"#,
        r#"{"RecordType":1,"Operation":"Set-Mailbox","Parameters":[{"Name":"Identity","Value":"cfo@contoso.com"}]}"#,
        "[]",
        "",
        "{\"Id\":\"\u{1}\"",
    ] {
        check(odd.as_bytes());
    }
    check(b"{\"Id\":\"\xff\"}");
}

#[test]
fn a_filter_still_asks_for_what_it_needs() {
    let text = br#"{"Id":"1","Operation":"Send","MailboxOwnerUPN":"cfo@contoso.com"}"#;
    let of = |mailbox: &str| Filter { mailboxes: vec![mailbox.to_owned()], ..Filter::default() };
    assert_eq!(raw(text, Facts::Plain, &of("cfo@*")).len(), 1);
    assert_eq!(raw(text, Facts::Plain, &of("ceo@*")).filtered, 1);
}

proptest! {
    #[test]
    fn any_record_is_the_same_with_few_facts(record in record()) {
        check(record.to_string().as_bytes());
    }

    #[test]
    fn any_bytes_are_the_same_with_few_facts(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        check(&bytes);
    }
}
