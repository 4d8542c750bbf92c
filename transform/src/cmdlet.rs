//! Cmdlets, `Set-Mailbox`: the operations of admins. Their verbs and nouns are compared without regard to case, because
//! records spell them in several ways (`set-InboxRule`).

use crate::names::{Names, has_any, letters_digits_and};

macro_rules! words {
    ($(#[$about:meta])* $kind:ident: $($word:ident)*) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $kind {
            $(#[doc = stringify!($word)] $word,)*
            /// Any other.
            Other,
        }

        impl $kind {
            const ALL: &[Self] = &[$(Self::$word,)*];
            const NAMES: &[&str] = &[$(stringify!($word),)*];

            #[inline]
            fn of(word: &str) -> Self {
                static KNOWN: Names<128> = Names::new($kind::NAMES);
                KNOWN.place_in_any_case(word.as_bytes()).map_or(Self::Other, |place| Self::ALL[place])
            }

            /// As it is usually spelt; empty for any other.
            pub(crate) fn name(self) -> &'static str {
                Self::NAMES.get(self as usize).copied().unwrap_or_default()
            }
        }
    };
}

words! {
    /// A verb that some rule knows.
    Verb:
    Add Clear Complete Disable Enable Export Get Grant Import Initialize Install Invoke Move New Purge Remove Resume Revoke
    Search Set Start Stop Suspend Test Uninstall Update
}

words! {
    /// A noun that some rule knows.
    Noun:
    AcceptedDomain AdminAuditLogConfig ComplianceSearch ComplianceSearchAction DistributionGroup DistributionGroupMember
    DkimSigningConfig FederatedDomain InboundConnector InboxRule MailContact MailUser Mailbox MailboxAuditBypassAssociation
    MailboxExportRequest MailboxFolderPermission MailboxPermission ManagementRoleAssignment OrganizationConfig
    OutboundConnector RecipientPermission RemoteMailbox RoleGroup RoleGroupMember TransportRule
    UnifiedAuditLogRetentionPolicy UnifiedGroup UnifiedGroupLinks User
}

/// A cmdlet's name, taken apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cmdlet<'a> {
    pub(crate) verb: Verb,
    pub(crate) noun: Noun,
    /// The noun as the record spells it.
    pub(crate) noun_text: &'a str,
}

impl<'a> Cmdlet<'a> {
    /// `Verb-Noun`, both of ASCII letters and digits.
    pub(crate) fn named(operation: &'a str) -> Option<Self> {
        let is_word = |byte: &u8| ALPHANUMERIC[usize::from(*byte)];
        let hyphen = operation.as_bytes().iter().position(|byte| !is_word(byte))?;
        let (verb, noun) = (&operation[..hyphen], operation[hyphen..].strip_prefix('-')?);
        let words = !verb.is_empty() && !noun.is_empty() && noun.as_bytes().iter().all(is_word);
        words.then(|| Self { verb: Verb::of(verb), noun: Noun::of(noun), noun_text: noun })
    }

    /// Whether the noun has one of these in it, in any case.
    pub(crate) fn noun_has(self, parts: &[&str]) -> bool {
        has_any(self.noun_text.as_bytes(), parts)
    }
}

/// The bytes that words are made of.
static ALPHANUMERIC: [bool; 256] = letters_digits_and(b"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cmdlets_are_taken_apart_in_any_case() {
        for (operation, verb, noun) in [
            ("Set-Mailbox", Verb::Set, Noun::Mailbox),
            ("set-inboxrule", Verb::Set, Noun::InboxRule),
            ("NEW-TransportRule", Verb::New, Noun::TransportRule),
            ("Frobnicate-Mailboxes", Verb::Other, Noun::Other),
        ] {
            let cmdlet = Cmdlet::named(operation).unwrap();
            assert_eq!((cmdlet.verb, cmdlet.noun), (verb, noun), "{operation}");
            assert!(operation.ends_with(cmdlet.noun_text));
        }
        for none in
            ["", "Send", "-Mailbox", "Set-", "Set-Mail box", "Set-Mailbox-2", "Sign-in!", "Sét-Mailbox"]
        {
            assert!(Cmdlet::named(none).is_none(), "{none}");
        }
    }

    #[test]
    fn every_word_is_found() {
        for &verb in Verb::ALL {
            assert_eq!((Verb::of(verb.name()), Verb::of(&verb.name().to_lowercase())), (verb, verb));
        }
        for &noun in Noun::ALL {
            assert_eq!((Noun::of(noun.name()), Noun::of(&noun.name().to_uppercase())), (noun, noun));
        }
        assert_eq!((Verb::of("Se"), Noun::of("Mailbo"), Noun::Other.name()), (Verb::Other, Noun::Other, ""));
    }

    #[test]
    fn parts_of_nouns_are_found_anywhere() {
        let has = |operation, parts: &[&str]| Cmdlet::named(operation).unwrap().noun_has(parts);
        assert!(has("Set-AntiPhishPolicy", &["SafeLinks", "AntiPhish"]));
        assert!(has("Set-hostedsafelinksrule", &["SafeLinks", "AntiPhish"]));
        assert!(has("Set-XDlp", &["Dlp"]) && !has("Set-XDl", &["Dlp"]));
    }
}
