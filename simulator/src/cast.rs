//! The cast: people, mailboxes, folders, servers and clients that the records of one tenant speak of.
//!
//! Everything is computed from its number, so that the tenth user is the same person in every record, run and
//! process, and a cast of a hundred thousand costs nothing. Addresses come from the ranges that are reserved for
//! documentation (RFC 5737, RFC 3849), names from Microsoft's fictitious companies or from no one.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::{Engine, engine::general_purpose::STANDARD};
use schemas::TenantId;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    dice::{Dice, hash, hash_text},
    records::MailboxKind,
};

const FIRST: [&str; 32] = [
    "Adele", "Bente", "Chidi", "Danuta", "Emre", "Fatou", "Goran", "Hana", "Ines", "Jonas", "Katrin",
    "Lamar", "Mireille", "Nestor", "Oksana", "Pavel", "Quynh", "Rashid", "Sigrid", "Tomás", "Ursula",
    "Vikram", "Wiebke", "Ximena", "Yusuf", "Zofia", "Anneke", "Björn", "Carla", "Dmitri", "Esther", "Faisal",
];
const LAST: [&str; 32] = [
    "Achterberg",
    "Bianchi",
    "Castellano",
    "Dvorak",
    "Eriksen",
    "Farouk",
    "Grünwald",
    "Haddad",
    "Ivanova",
    "Jansson",
    "Kowalczyk",
    "Lindqvist",
    "Moreau",
    "Nakamura",
    "Okafor",
    "Petrov",
    "Quispe",
    "Rasmussen",
    "Schäfer",
    "Tanaka",
    "Ueda",
    "Vermeulen",
    "Wójcik",
    "Xu",
    "Yilmaz",
    "Zimmermann",
    "Abebe",
    "Brandt",
    "Calloway",
    "Delacroix",
    "Engel",
    "Ferrari",
];
const SHARED: [&str; 8] =
    ["Invoices", "Reception", "Human Resources", "Helpdesk", "Sales", "Press", "Board", "Recruiting"];
const GROUPS: [&str; 6] =
    ["All Company", "Project Aurora", "Works Council", "Finance Team", "Site Reliability", "Book Club"];
const EXTERNAL: [&str; 8] = [
    "ap@fabrikam.example",
    "clara.keller@adatum.example",
    "invoices@wingtiptoys.example",
    "d.ruiz@fourthcoffee.example",
    "office@northwind.example",
    "drop.box.7741@mailhost.example",
    "notice@litware.example",
    "j.smith@proseware.example",
];

/// The people and mailboxes of one tenant.
#[derive(Debug, Clone)]
pub(crate) struct Cast {
    seed: u64,
    /// Whose they are.
    pub(crate) tenant: TenantId,
    /// `contoso.onmicrosoft.com`.
    pub(crate) organisation: String,
    users: u64,
    shared: u64,
    groups: u64,
}

/// A user with a mailbox.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) number: u64,
    pub(crate) display: String,
    pub(crate) alias: String,
    pub(crate) upn: String,
    pub(crate) sid: String,
    /// The passport unique id, which is the `UserKey` of mailbox records.
    pub(crate) puid: String,
    pub(crate) object_id: Uuid,
    pub(crate) ipv4: Ipv4Addr,
    pub(crate) ipv6: Ipv6Addr,
}

/// A mailbox and whose it is.
#[derive(Debug, Clone)]
pub(crate) struct Mailbox {
    pub(crate) kind: MailboxKind,
    pub(crate) guid: Uuid,
    pub(crate) upn: String,
    pub(crate) sid: String,
}

/// How a client shows itself in a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    pub(crate) info: &'static str,
    pub(crate) app_id: &'static str,
    pub(crate) process: Option<(&'static str, &'static str)>,
}

/// Every kind of client: browser, desktop, REST, EWS, mobile, the old mail protocols, PowerShell.
pub(crate) const CLIENTS: [Client; 10] = [
    Client {
        info: "Client=OWA;Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36;",
        app_id: "00000002-0000-0ff1-ce00-000000000000",
        process: None,
    },
    Client {
        info: "Client=OWA;Action=ViaProxy",
        app_id: "00000002-0000-0ff1-ce00-000000000000",
        process: None,
    },
    Client { info: "Client=MSExchangeRPC", app_id: "", process: Some(("OUTLOOK.EXE", "16.0.17726.20160")) },
    Client {
        info: "Client=Outlook;Microsoft Outlook 16.0.17726;",
        app_id: "d3590ed6-52b3-4102-aeff-aad2292ab01c",
        process: Some(("OUTLOOK.EXE", "16.0.17726.20160")),
    },
    Client {
        info: "Client=REST;Client=RESTSystem;;",
        app_id: "00000003-0000-0000-c000-000000000000",
        process: None,
    },
    Client {
        info: "Client=WebServices;ExchangeWebServicesProxy/CrossSite/EXCH/15.20.7784.18/MacOutlook/16.87.24071426;",
        app_id: "d3590ed6-52b3-4102-aeff-aad2292ab01c",
        process: None,
    },
    Client {
        info: "Client=ActiveSync;Outlook-iOS-Android/1.0;DeviceId=9F2C81D64E0B",
        app_id: "27922004-5251-4030-b22d-91ecd9a37ea4",
        process: None,
    },
    Client { info: "Client=IMAP4;", app_id: "9e5f94bc-e8a4-4e73-b8be-63364c29d753", process: None },
    Client { info: "Client=POP3;", app_id: "", process: None },
    Client {
        info: "Client=Microsoft.Exchange.Powershell; Microsoft WinRM Client",
        app_id: "fb78d390-0c51-40cd-8e17-fdbfab77341b",
        process: None,
    },
];

/// The desktop client, the only one that synchronises whole folders.
pub(crate) const DESKTOP: Client = CLIENTS[3];

impl Cast {
    pub(crate) fn new(
        seed: u64,
        tenant: TenantId,
        organisation: &str,
        users: u64,
        shared: u64,
        groups: u64,
    ) -> Self {
        let seed = hash(&[seed, hash_text(&tenant.to_string())]);
        let organisation = organisation.to_owned();
        Self { seed, tenant, organisation, users: users.max(2), shared: shared.max(1), groups: groups.max(1) }
    }

    fn sid(&self, relative: u64) -> String {
        let mut dice = Dice::new(&[self.seed, 1]);
        let mut part = || 1_000_000_000 + dice.below(3_000_000_000);
        format!("S-1-5-21-{}-{}-{}-{relative}", part(), part(), part())
    }

    /// The user of that number (modulo how many there are).
    pub(crate) fn user(&self, number: u64) -> Person {
        let number = number % self.users;
        let mut dice = Dice::new(&[self.seed, 2, number]);
        let first = FIRST[(number % 32) as usize];
        let last = LAST[((number * 7 + number / 32 * 5 + 3) % 32) as usize];
        let mut alias = ascii(&format!("{first}.{last}"));
        // 32 first names with one of 32 family names each: from here on names repeat and need a number, as in life.
        if number >= 32 {
            alias = format!("{alias}{}", number / 32 + 1);
        }
        Person {
            number,
            display: format!("{first} {last}"),
            upn: format!("{alias}@{}", self.organisation),
            alias,
            sid: self.sid(20_000_000 + number),
            puid: format!("1003{:012X}", dice.roll() >> 16),
            object_id: dice.guid(),
            ipv4: Ipv4Addr::new(
                if number.is_multiple_of(2) { 198 } else { 203 },
                if number.is_multiple_of(2) { 51 } else { 0 },
                if number.is_multiple_of(2) { 100 } else { 113 },
                (number % 254 + 1) as u8,
            ),
            ipv6: Ipv6Addr::new(
                0x2001,
                0xdb8,
                (number % 0xffff) as u16,
                dice.below(0xffff) as u16,
                0,
                0,
                0,
                dice.below(0xfffe) as u16 + 1,
            ),
        }
    }

    pub(crate) fn any_user(&self, dice: &mut Dice) -> Person {
        // A few people make most of the traffic.
        let number = dice.below(self.users);
        self.user(dice.below(number + 1))
    }

    /// Somebody else.
    pub(crate) fn other_user(&self, dice: &mut Dice, not: &Person) -> Person {
        self.user(not.number + 1 + dice.below(self.users - 1))
    }

    /// One of the three administrators, who are users too.
    pub(crate) fn any_admin(&self, dice: &mut Dice) -> Person {
        self.user(self.users - 1 - dice.below(3.min(self.users)))
    }

    pub(crate) fn mailbox_of(&self, person: &Person) -> Mailbox {
        Mailbox {
            kind: MailboxKind::User,
            guid: Dice::new(&[self.seed, 3, person.number]).guid(),
            upn: person.upn.clone(),
            sid: person.sid.clone(),
        }
    }

    pub(crate) fn any_shared(&self, dice: &mut Dice) -> Mailbox {
        let number = dice.below(self.shared);
        self.mailbox_without_user(MailboxKind::Shared, number, SHARED[(number % 8) as usize])
    }

    pub(crate) fn any_group(&self, dice: &mut Dice) -> Mailbox {
        let number = dice.below(self.groups);
        self.mailbox_without_user(MailboxKind::Group, number, GROUPS[(number % 6) as usize])
    }

    fn mailbox_without_user(&self, kind: MailboxKind, number: u64, name: &str) -> Mailbox {
        let repeat = if number >= 8 { format!("{number}") } else { String::new() };
        let display = format!("{name}{repeat}");
        Mailbox {
            kind,
            guid: Dice::new(&[self.seed, 4, kind as u64, number]).guid(),
            upn: format!("{}@{}", ascii(&display.replace(' ', "")), self.organisation),
            sid: self.sid(26_000_000 + 100_000 * kind as u64 + number),
        }
    }

    /// A message's or contact's address outside of the organisation.
    pub(crate) fn external(&self, dice: &mut Dice) -> &'static str {
        dice.pick(&EXTERNAL)
    }

    /// A mailbox server with its build, sometimes with the line break that the service leaves behind it.
    pub(crate) fn server(&self, dice: &mut Dice) -> String {
        let end = dice.pick(&["", "\r\n", "\r\n", "\n"]);
        format!("{} (15.20.{}.{:03}){end}", server_name(dice), 7700 + dice.below(120), dice.below(40))
    }

    /// A folder's `{Id, Path}` in a mailbox: the same id whenever it is named.
    pub(crate) fn folder(&self, mailbox: &Mailbox, path: &str) -> Value {
        json!({ "Id": self.folder_id(mailbox, path), "Path": path })
    }

    /// A folder's entry id: `L` with the store's bytes and the folder's.
    pub(crate) fn folder_id(&self, mailbox: &Mailbox, path: &str) -> String {
        let mut store = Dice::new(&[hash_text(&mailbox.guid.to_string())]);
        let mut folder = Dice::new(&[hash_text(&mailbox.guid.to_string()), hash_text(path)]);
        let mut id = vec![0x2E, 0, 0, 0, 0];
        id.extend(store.bytes::<16>());
        id.extend([1, 0]);
        id.extend(store.bytes::<16>());
        id.extend(folder.bytes::<7>());
        STANDARD.encode(id)
    }

    /// An item's entry id in a mailbox.
    pub(crate) fn item_id(&self, mailbox: &Mailbox, dice: &mut Dice) -> String {
        let mut store = Dice::new(&[hash_text(&mailbox.guid.to_string())]);
        let mut id = vec![0x46, 0, 0, 0, 0];
        id.extend(store.bytes::<16>());
        id.extend([7, 0]);
        id.extend(store.bytes::<16>());
        id.extend(dice.bytes::<31>());
        STANDARD.encode(id)
    }

    /// The id of a message that Exchange Online made.
    pub(crate) fn message_id(&self, dice: &mut Dice) -> String {
        let server = server_name(dice);
        format!("<{server}{:016X}{:08X}@{server}.eurprd04.prod.outlook.com>", dice.roll(), dice.roll() as u32)
    }

    /// How the directory spells a recipient in a cmdlet's parameters.
    pub(crate) fn canonical(&self, name: &str) -> String {
        format!(
            "EURPR04A009.PROD.OUTLOOK.COM/Microsoft Exchange Hosted Organizations/{}/{name}",
            self.organisation
        )
    }
}

fn server_name(dice: &mut Dice) -> String {
    let forest = dice.pick(&["AM0", "DB8", "HE1", "VI1", "PAX", "AS8"]);
    format!("{forest}PR04MB{}", 3000 + dice.below(6000))
}

/// Folds the letters of [`FIRST`] and [`LAST`] to those that an address has.
fn ascii(text: &str) -> String {
    let fold = |letter: char| match letter {
        'á' | 'ä' => 'a',
        'ö' | 'ó' => 'o',
        'ü' => 'u',
        other => other.to_ascii_lowercase(),
    };
    text.chars().map(fold).filter(|c| c.is_ascii_alphanumeric() || *c == '.').collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn cast() -> Cast {
        Cast::new(1, TenantId::new(Uuid::from_u128(5)), "contoso.onmicrosoft.com", 500, 5, 3)
    }

    #[test]
    fn every_user_is_one_person_for_ever_and_no_two_are_the_same() {
        let cast = cast();
        let mut seen = HashSet::new();
        for number in 0..500 {
            let person = cast.user(number);
            assert_eq!(person.upn, cast.user(number).upn);
            assert!(person.upn.is_ascii(), "{}", person.upn);
            assert!(seen.insert(person.upn) && seen.insert(person.sid) && seen.insert(person.puid));
        }
    }

    #[test]
    fn somebody_else_is_never_the_same_person() {
        let (cast, mut dice) = (cast(), Dice::new(&[1]));
        for number in 0..500 {
            let person = cast.user(number);
            assert_ne!(cast.other_user(&mut dice, &person).upn, person.upn);
        }
    }

    #[test]
    fn a_folder_keeps_its_id_and_another_mailbox_has_another() {
        let cast = cast();
        let (first, second) = (cast.mailbox_of(&cast.user(0)), cast.mailbox_of(&cast.user(1)));
        assert_eq!(cast.folder(&first, "\\Inbox"), cast.folder(&first, "\\Inbox"));
        assert_ne!(cast.folder_id(&first, "\\Inbox"), cast.folder_id(&first, "\\Drafts"));
        assert_ne!(cast.folder_id(&first, "\\Inbox"), cast.folder_id(&second, "\\Inbox"));
    }
}
