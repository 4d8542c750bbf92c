//! Which records are wanted.

use chrono::{DateTime, Utc};
use schemas::{FeedKey, Rendered};
use transform::{
    Filter, Origin, Renderer,
    options::{Facts, RenderOptions, View},
};

use crate::cli::RestoreArgs;

/// Which records are wanted.
pub(super) struct Wanted {
    renderer: Renderer,
    filter: Filter,
    since_ms: i64,
    until_ms: i64,
}

/// What a record turns out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// It is to be put back.
    Wanted,
    /// It is of another time, or the lists do not have it.
    Unwanted,
    /// It does not say when it was made.
    WithoutTime,
}

impl Wanted {
    /// What the command line asks for, of that span.
    pub(super) fn new(args: &RestoreArgs, (since, until): (DateTime<Utc>, DateTime<Utc>)) -> Self {
        let options = RenderOptions { view: View::Raw, facts: Facts::Plain, ..RenderOptions::default() };
        let filter = Filter {
            operations: args.operations.clone(),
            users: args.users.clone(),
            mailboxes: args.mailboxes.clone(),
            ..Filter::default()
        };
        let mut wanted = Self { renderer: Renderer::new(options), filter, since_ms: 0, until_ms: 0 };
        wanted.span(since, until);
        wanted
    }

    /// Asks for another span.
    pub(super) fn span(&mut self, since: DateTime<Utc>, until: DateTime<Utc>) {
        (self.since_ms, self.until_ms) = (since.timestamp_millis(), until.timestamp_millis());
    }

    /// Looks at a record.
    pub(super) fn look(&self, record: &[u8], feed: FeedKey, object: &str) -> Look {
        let origin = Origin {
            tenant: feed.tenant,
            tenant_name: "",
            content_type: feed.content_type,
            // An object's name holds no time, so that a record's own is the only one that it can have.
            content_id: object,
        };
        let mut out = Rendered::default();
        self.renderer.render(record, 0, &origin, &self.filter, &mut out);
        if out.is_empty() {
            return Look::Unwanted;
        }
        match out.get(0).facts.time_ms {
            None => Look::WithoutTime,
            Some(time) if (self.since_ms..self.until_ms).contains(&time) => Look::Wanted,
            Some(_) => Look::Unwanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use schemas::ContentType;

    use super::*;
    use crate::cli::{ArchiveCommand, Cli, Command};

    fn wanted(more: &str) -> Wanted {
        let line = format!("mailtrail archive restore --sink x --since 2026-03-01 --until 2026-04-01 {more}");
        let Command::Archive(args) = Cli::parse_from(line.split_whitespace()).command else { panic!() };
        let ArchiveCommand::Restore(args) = args.command else { panic!() };
        let span = (args.since.resolve(Utc::now()), args.until.resolve(Utc::now()));
        Wanted::new(&args, span)
    }

    fn look(wanted: &Wanted, time: &str) -> Look {
        let feed = FeedKey {
            tenant: "41463f53-8812-40f4-890f-865bf6e35190".parse().unwrap(),
            content_type: ContentType::Exchange,
        };
        let record = format!(
            r#"{{"Id":"1c7412a6-858d-49ff-3f93-08d7ac0f45bf",{time}"Operation":"MailItemsAccessed","RecordType":50,
            "UserId":"kim@contoso.com","MailboxOwnerUPN":"cfo@contoso.com"}}"#
        );
        wanted.look(record.as_bytes(), feed, "tenant=x/content_type=y/z.ndjson.zst")
    }

    #[test]
    fn a_span_holds_its_beginning_and_not_its_end() {
        for more in
            ["", "--users kim@contoso.com", "--mailboxes CFO@*,ceo@contoso.com --operations Send,mail*"]
        {
            let wanted = wanted(more);
            for (time, expected) in [
                ("2026-02-28T23:59:59", Look::Unwanted),
                ("2026-03-01T00:00:00", Look::Wanted),
                ("2026-03-31T23:59:59Z", Look::Wanted),
                ("2026-04-01T00:00:00", Look::Unwanted),
                ("yesterday", Look::WithoutTime),
            ] {
                assert_eq!(look(&wanted, &format!(r#""CreationTime":"{time}","#)), expected, "{time} {more}");
            }
            assert_eq!(look(&wanted, ""), Look::WithoutTime);
        }
    }

    #[test]
    fn every_list_that_is_given_has_to_have_it() {
        let time = r#""CreationTime":"2026-03-15T12:00:00","#;
        for more in
            ["--users cfo@contoso.com", "--operations Send --users kim@contoso.com", "--mailboxes kim@*"]
        {
            assert_eq!(look(&wanted(more), time), Look::Unwanted, "{more}");
        }
    }
}
