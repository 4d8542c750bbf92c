//! SharePoint and OneDrive (content type `Audit.SharePoint`).

use schemas::ContentType;

use super::{Kind, Record, Row, Scene, kinds_in, pairs};

const ROWS: &[Row] = &[
    ("FileAccessed", 6, "", 120, file),
    ("FileDownloaded", 6, "", 40, file),
    ("FileModified", 6, "", 60, file),
    ("FileDeleted", 6, "", 8, file),
    ("FileSyncDownloadedFull", 6, "", 20, file),
    ("PageViewed", 4, "", 40, page),
    ("SharingSet", 14, "", 4, sharing),
    ("AnonymousLinkCreated", 14, "", 2, sharing),
    ("ListViewed", 36, "", 10, list),
];

pub(super) fn kinds() -> Vec<Kind> {
    kinds_in(ContentType::SharePoint, ROWS)
}

/// The host part of the organisation: `contoso` of `contoso.onmicrosoft.com`.
fn name<'a>(s: &Scene<'a>) -> &'a str {
    s.cast.organisation.split('.').next().unwrap_or("contoso")
}

/// The fields of every record of SharePoint; gives the site's address.
fn base(s: &mut Scene<'_>, record: &mut Record) -> String {
    let person = s.cast.any_user(&mut s.dice);
    let mine = s.dice.once_in(2);
    let site = if mine {
        format!("https://{}-my.sharepoint.com/personal/{}/", name(s), person.upn.replace(['@', '.'], "_"))
    } else {
        format!("https://{}.sharepoint.com/sites/aurora/", name(s))
    };
    record.put("Workload", if mine { "OneDrive" } else { "SharePoint" });
    record.put("UserKey", format!("i:0h.f|membership|{}@live.com", person.puid.to_lowercase()));
    record.put("UserType", 0);
    record.put("UserId", person.upn.as_str());
    record.put("ClientIP", if s.dice.once_in(3) { person.ipv6.to_string() } else { person.ipv4.to_string() });
    record.put("CorrelationId", s.dice.guid().to_string());
    record.put("EventSource", "SharePoint");
    record.put("Site", s.episode.clone().guid().to_string());
    record.put("WebId", s.dice.guid().to_string());
    record.put("UserAgent", "Microsoft SkyDriveSync 24.126.0623.0001 ship; Windows NT 10.0 (22631)");
    site
}

fn file(s: &mut Scene<'_>, record: &mut Record) {
    let site = base(s, record);
    let (file, extension) = s.dice.pick(&[
        ("Accounts overview.docx", "docx"),
        ("Plan Q3 (final).xlsx", "xlsx"),
        ("Übersicht.pdf", "pdf"),
        ("logo.png", "png"),
    ]);
    record.put("ObjectId", format!("{site}Documents/{file}"));
    record.put("ItemType", "File");
    record.put("ListId", s.dice.guid().to_string());
    record.put("ListItemUniqueId", s.dice.guid().to_string());
    record.put("SiteUrl", site);
    record.put("SourceFileName", file);
    record.put("SourceFileExtension", extension);
    record.put("SourceRelativeUrl", "Documents");
    record.put("FileSizeBytes", s.dice.below(9_000_000));
    record.put("HighPriorityMediaProcessing", false);
}

fn page(s: &mut Scene<'_>, record: &mut Record) {
    let site = base(s, record);
    record.put("ObjectId", format!("{site}SitePages/Home.aspx"));
    record.put("ItemType", "Page");
}

fn list(s: &mut Scene<'_>, record: &mut Record) {
    let site = base(s, record);
    record.put("ObjectId", format!("{site}Lists/Tasks"));
    record.put("ItemType", "List");
    record.put("ListTitle", "Tasks");
}

fn sharing(s: &mut Scene<'_>, record: &mut Record) {
    let site = base(s, record);
    record.put("ObjectId", format!("{site}Documents/Accounts overview.docx"));
    record.put("ItemType", "File");
    record.put("SiteUrl", site);
    record.put("TargetUserOrGroupType", "Guest");
    record.put("TargetUserOrGroupName", s.cast.external(&mut s.dice));
    record.put("EventData", "<Permissions granted>Read</Permissions granted>");
    record.put("ExtendedProperties", pairs(&[("LinkScope", "Anonymous")]));
}
