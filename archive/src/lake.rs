//! How Parquet twins are named as custom sources of Amazon Security Lake.
//!
//! ```text
//! ext/mailtrail_6003/region=eu-central-1/accountId=123456789012/eventDay=20261121/<object>.parquet
//! ```
//!
//! Security Lake wants one source for each class of OCSF, one class in each object, its records sorted by time, and the day
//! on which they happened in the path, so an object becomes one twin for each class and day that is in it. The partition
//! keys are spelt as its crawler expects them, capital letters included. The columns are those of every twin, with
//! `class_uid` among them: what OCSF nests stands flat, and the record itself is in `raw`.

use chrono::{DateTime, NaiveDate, Utc};

use crate::{
    names::{FileFormat, ObjectName},
    parquet::Slice,
    path::ObjectPath,
};

/// Custom sources of a lake that differ only in the class of their events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LakeSource {
    name: String,
    region: String,
    account: String,
}

/// The settings name no custom source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotALakeSource {
    /// The name.
    #[error("`{0}` cannot name a custom source: use 1 to 14 letters, digits, `_` and `-`")]
    Name(String),
    /// The region.
    #[error("`{0}` is no region of AWS, such as eu-central-1")]
    Region(String),
    /// The account.
    #[error("`{0}` is no account: use the 12 digits of an account of AWS, or external_ and an id")]
    Account(String),
}

impl LakeSource {
    /// The longest name: Security Lake takes 20 characters, and the class has to fit as well.
    pub const MAX_NAME: usize = 14;

    /// The sources `NAME_CLASS` of this region and account.
    ///
    /// # Errors
    ///
    /// When one of them is not of the form that Security Lake takes.
    pub fn new(name: &str, region: &str, account: &str) -> Result<Self, NotALakeSource> {
        let word = |text: &str, more: &[u8]| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
        };
        if name.len() > Self::MAX_NAME || !word(name, b"_-") {
            return Err(NotALakeSource::Name(name.to_owned()));
        }
        if !word(region, b"-") || !region.contains('-') {
            return Err(NotALakeSource::Region(region.to_owned()));
        }
        let number = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        let external = account.strip_prefix("external_").is_some_and(|id| id.len() <= 64 && word(id, b"_-"));
        if !number && !external {
            return Err(NotALakeSource::Account(account.to_owned()));
        }
        let (name, region, account) = (name.to_owned(), region.to_owned(), account.to_owned());
        Ok(Self { name, region, account })
    }

    /// The name of the source for a class, as it has to be registered.
    #[must_use]
    pub fn name(&self, class_uid: i32) -> String {
        format!("{}_{class_uid}", self.name)
    }

    /// Where the twin of a slice of an object lies. What does not say when it happened counts to the day on which the
    /// object was begun.
    #[must_use]
    pub fn path(&self, slice: Slice, object: &ObjectName, begun: DateTime<Utc>) -> ObjectPath {
        let day: NaiveDate = slice.day.unwrap_or(begun.date_naive());
        let (source, day) = (self.name(slice.class_uid), day.format("%Y%m%d"));
        let folder = format!("ext/{source}/region={}/accountId={}/eventDay={day}", self.region, self.account);
        // Those without a time stand beside those of that day, and want a name of their own.
        let undated = if slice.day.is_none() { "-undated" } else { "" };
        format!("{folder}/{object}{undated}.{}", FileFormat::Parquet)
            .parse()
            .expect("checked names, numbers and days are made of the letters of a path")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> ObjectName {
        "0f1e2d3c-4b5a-4988-8776-655443322110-7-1204-ba7816bf8f01cfea".parse().unwrap()
    }

    #[test]
    fn a_slice_lies_where_the_crawler_looks() {
        let begun = "2026-11-21T18:00:00Z".parse().unwrap();
        let source = LakeSource::new("mailtrail", "eu-central-1", "123456789012").unwrap();
        assert_eq!(source.name(6003), "mailtrail_6003");
        let day = Some("2026-11-19".parse().unwrap());
        assert_eq!(
            source.path(Slice { class_uid: 6003, day }, &object(), begun).as_str(),
            "ext/mailtrail_6003/region=eu-central-1/accountId=123456789012/eventDay=20261119/\
             0f1e2d3c-4b5a-4988-8776-655443322110-7-1204-ba7816bf8f01cfea.parquet"
        );
        let today = Slice { class_uid: 0, day: Some(begun.date_naive()) };
        let undated = source.path(Slice { class_uid: 0, day: None }, &object(), begun);
        assert!(undated.as_str().contains("/eventDay=20261121/"));
        assert_ne!(undated, source.path(today, &object(), begun));
    }

    #[test]
    fn what_the_lake_would_refuse_is_refused() {
        let new = |name, region, account| LakeSource::new(name, region, account);
        assert!(new("mailtrail", "us-gov-west-1", "external_41463f53-8812").is_ok());
        for name in ["", "a/b", "mail trail", "mailtrail-audits"] {
            assert_eq!(new(name, "eu-west-1", "123456789012"), Err(NotALakeSource::Name(name.to_owned())));
        }
        for region in ["", "europe", "eu/west"] {
            let found = new("mailtrail", region, "123456789012");
            assert_eq!(found, Err(NotALakeSource::Region(region.to_owned())));
        }
        for account in ["", "12345678901", "external_", "123456789012/..", "external"] {
            let found = new("mailtrail", "eu-west-1", account);
            assert_eq!(found, Err(NotALakeSource::Account(account.to_owned())));
        }
    }
}
