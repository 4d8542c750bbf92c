//! What an inbox rule does, in one shape for the cmdlets that make one (`New-InboxRule`, `Set-InboxRule`) and for what
//! Outlook records when it makes one (`UpdateInboxRules`).

use std::borrow::Cow;

use crate::{
    cmdlet::{Cmdlet, Noun},
    forwarding::{addresses, split},
    json::{Json, Text, scan::scan_value},
    operation::Source,
    parameters::Parameters,
};

/// `unmapped.exchange.inbox_rule`. What the record does not say is empty or `None`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct InboxRule<'a> {
    pub(crate) name: Option<Cow<'a, str>>,
    pub(crate) forward_to: Vec<Cow<'a, str>>,
    pub(crate) redirect_to: Vec<Cow<'a, str>>,
    pub(crate) forward_as_attachment_to: Vec<Cow<'a, str>>,
    pub(crate) delete: Option<bool>,
    pub(crate) move_to_folder: Option<Cow<'a, str>>,
    pub(crate) mark_read: Option<bool>,
    pub(crate) stop_processing: Option<bool>,
    pub(crate) subject: Vec<Cow<'a, str>>,
    pub(crate) body: Vec<Cow<'a, str>>,
    pub(crate) subject_or_body: Vec<Cow<'a, str>>,
    pub(crate) from: Vec<Cow<'a, str>>,
}

impl<'a> InboxRule<'a> {
    /// The rule that a record is about, if it is about one and says anything of it.
    pub(crate) fn read(
        operation: Option<Text<'_>>,
        cmdlet: Option<Cmdlet<'_>>,
        source: Source,
        parameters: &Parameters<'a>,
    ) -> Option<Self> {
        let by_cmdlet =
            source == Source::ExchangeAdmin && cmdlet.is_some_and(|cmdlet| cmdlet.noun == Noun::InboxRule);
        if !by_cmdlet
            && (cmdlet.is_some() || !operation.is_some_and(|operation| operation.is("UpdateInboxRules")))
        {
            return None;
        }
        let mut rule = Self::from_parameters(parameters);
        if !by_cmdlet {
            rule.add_outlook(parameters);
        }
        (rule != Self::default()).then_some(rule)
    }

    /// The parameters of the cmdlets; Outlook uses some of the same names.
    fn from_parameters(parameters: &Parameters<'a>) -> Self {
        let list = |name| parameters.get(name).map(addresses).unwrap_or_default();
        let words = |name| parameters.get(name).map(split).unwrap_or_default();
        let text = |name| parameters.text(name).map(Text::unescape);
        let truth = |name| parameters.truth(name);
        let delete = [truth("DeleteMessage"), truth("SoftDeleteMessage")];
        Self {
            name: text("Name").or_else(|| text("RuleName")),
            forward_to: list("ForwardTo"),
            redirect_to: list("RedirectTo"),
            forward_as_attachment_to: list("ForwardAsAttachmentTo"),
            delete: delete.into_iter().flatten().reduce(|either, or| either || or),
            move_to_folder: text("MoveToFolder"),
            mark_read: truth("MarkAsRead"),
            stop_processing: truth("StopProcessingRules"),
            subject: words("SubjectContainsWords"),
            body: words("BodyContainsWords"),
            subject_or_body: words("SubjectOrBodyContainsWords"),
            from: list("From"),
        }
    }

    /// Outlook's `RuleActions`: JSON in a string, a list of `{"ActionType", "Recipients", "ForwardFlags", …}`.
    fn add_outlook(&mut self, parameters: &Parameters<'a>) {
        let Some(value) = parameters.get("RuleActions") else { return };
        let text = value.text().map(Text::unescape);
        let actions = match &text {
            Some(text) => scan_value(text).ok(),
            None => Some(value),
        };
        for action in actions.into_iter().flat_map(Json::each) {
            self.add_action(action);
        }
    }

    fn add_action(&mut self, action: Json<'_>) {
        let Some(kind) = action.get_text("ActionType") else { return };
        let kind = kind.unescape().to_ascii_lowercase();
        let flags = action.get_text("ForwardFlags").map(|flags| flags.unescape().to_ascii_lowercase());
        let flag = |part: &str| flags.as_ref().is_some_and(|flags| flags.contains(part));
        let receivers = action.get("Recipients").map(addresses).unwrap_or_default();
        let receivers = receivers.into_iter().map(|address| Cow::Owned(address.into_owned()));
        if kind.contains("attachment") || kind.contains("forward") && flag("attachment") {
            self.forward_as_attachment_to.extend(receivers);
        } else if kind.contains("redirect")
            || kind.contains("forward") && (flag("preserve") || flag("redirect"))
        {
            self.redirect_to.extend(receivers);
        } else if kind.contains("forward") {
            self.forward_to.extend(receivers);
        } else if kind.contains("delete") {
            self.delete = Some(true);
        } else if kind.contains("move") {
            let folder = ["Folder", "FolderName", "TargetFolder", "DestinationFolder", "FolderId"];
            let folder = folder.into_iter().find_map(|name| action.get_text(name));
            self.move_to_folder = folder.map(|folder| Cow::Owned(folder.unescape().into_owned()));
        } else if kind.contains("read") {
            self.mark_read = Some(true);
        } else if kind.contains("stop") {
            self.stop_processing = Some(true);
        }
    }

    /// Everybody whom the rule sends mail to.
    pub(crate) fn receivers(&self) -> impl Iterator<Item = &Cow<'a, str>> {
        self.forward_to.iter().chain(&self.redirect_to).chain(&self.forward_as_attachment_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{json::scan::scan_value, parameters::Rewritten, record::Record};

    fn rule(text: &str, check: impl FnOnce(Option<InboxRule<'_>>)) {
        let record = Record::read(text).unwrap();
        let rewritten = Rewritten::new(&record);
        let parameters = Parameters::read(&record, &rewritten);
        let operation = record.text(crate::record::Field::Operation);
        let cmdlet = operation.and_then(Text::plain).and_then(Cmdlet::named);
        let source = if cmdlet.is_some() { Source::ExchangeAdmin } else { Source::ExchangeMailbox };
        check(InboxRule::read(operation, cmdlet, source, &parameters));
    }

    #[test]
    fn a_cmdlet_and_outlook_make_the_same_rule() {
        let expected = || InboxRule {
            name: Some("..".into()),
            forward_to: vec!["drop@evil.example".into()],
            delete: Some(true),
            ..InboxRule::default()
        };
        rule(
            r#"{"Operation":"new-inboxrule","Parameters":[{"Name":"Name","Value":".."},{"Name":"ForwardTo","Value":"smtp:drop@evil.example"},{"Name":"DeleteMessage","Value":"True"}]}"#,
            |rule| assert_eq!(rule, Some(expected())),
        );
        let actions = r#"[{"ActionType":"Forward","Recipients":["drop@evil.example"],"ForwardFlags":"None"},{"ActionType":"Delete"}]"#;
        let outlook = serde_json::json!({"Operation": "UpdateInboxRules", "OperationProperties": [
            {"Name": "RuleName", "Value": ".."}, {"Name": "RuleActions", "Value": actions},
        ]});
        rule(&outlook.to_string(), |rule| assert_eq!(rule, Some(expected())));
    }

    #[test]
    fn every_part_of_a_rule_is_read() {
        let parameters = [
            ("ForwardAsAttachmentTo", "a@b.c;d@e.f"),
            ("RedirectTo", "\"X\" [SMTP:x@y.z]"),
            ("SoftDeleteMessage", "False"),
            ("MoveToFolder", "RSS Feeds"),
            ("MarkAsRead", "True"),
            ("StopProcessingRules", "True"),
            ("SubjectContainsWords", "invoice; wire"),
            ("BodyContainsWords", "password"),
            ("SubjectOrBodyContainsWords", "mfa"),
            ("From", "it@contoso.com"),
        ];
        let parameters: Vec<_> = parameters
            .iter()
            .map(|(name, value)| serde_json::json!({"Name": name, "Value": value}))
            .collect();
        let text = serde_json::json!({"Operation": "Set-InboxRule", "Parameters": parameters}).to_string();
        rule(&text, |rule| {
            let expected = InboxRule {
                forward_as_attachment_to: vec!["a@b.c".into(), "d@e.f".into()],
                redirect_to: vec!["x@y.z".into()],
                delete: Some(false),
                move_to_folder: Some("RSS Feeds".into()),
                mark_read: Some(true),
                stop_processing: Some(true),
                subject: vec!["invoice".into(), "wire".into()],
                body: vec!["password".into()],
                subject_or_body: vec!["mfa".into()],
                from: vec!["it@contoso.com".into()],
                ..InboxRule::default()
            };
            assert_eq!(rule, Some(expected));
        });
    }

    #[test]
    fn a_command_line_makes_the_same_rule() {
        let line =
            r#"-Name "." -ForwardTo "a@b.c","d@e.f" -DeleteMessage $true -MarkAsRead:$false -From $null"#;
        let text = serde_json::json!({"Operation": "New-InboxRule", "Parameters": line}).to_string();
        rule(&text, |rule| {
            let expected = InboxRule {
                name: Some(".".into()),
                forward_to: vec!["a@b.c".into(), "d@e.f".into()],
                delete: Some(true),
                mark_read: Some(false),
                ..InboxRule::default()
            };
            assert_eq!(rule, Some(expected));
        });
    }

    #[test]
    fn outlook_says_how_it_forwards() {
        for (action, check) in [
            (
                r#"{"ActionType":"Forward","Recipients":["a@b.c"],"ForwardFlags":"ForwardAsAttachment"}"#,
                InboxRule { forward_as_attachment_to: vec!["a@b.c".into()], ..InboxRule::default() },
            ),
            (
                r#"{"ActionType":"Forward","Recipients":"a@b.c","ForwardFlags":"PreserveSender, DoNotMungeMessage"}"#,
                InboxRule { redirect_to: vec!["a@b.c".into()], ..InboxRule::default() },
            ),
            (
                r#"{"ActionType":"Move","FolderName":"Archive"}"#,
                InboxRule { move_to_folder: Some("Archive".into()), ..InboxRule::default() },
            ),
            (r#"{"ActionType":"MarkAsRead"}"#, InboxRule { mark_read: Some(true), ..InboxRule::default() }),
        ] {
            let mut rule = InboxRule::default();
            rule.add_action(scan_value(action).unwrap());
            assert_eq!(rule, check, "{action}");
        }
    }

    #[test]
    fn other_operations_have_no_rule() {
        rule(r#"{"Operation":"Set-Mailbox","Parameters":[{"Name":"Name","Value":"x"}]}"#, |rule| {
            assert_eq!(rule, None)
        });
        rule(r#"{"Operation":"UpdateInboxRules"}"#, |rule| assert_eq!(rule, None));
    }
}
