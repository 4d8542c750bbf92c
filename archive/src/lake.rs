//! How Parquet twins are named as custom sources of Amazon Security Lake.
//!
//! ```text
//! ext/mailtrail_6003/region=eu-central-1/accountId=external_<tenant>/eventDay=20261121/<object>.parquet
//! ```
//!
//! Security Lake wants one source for each class of OCSF, one class in each object, its records sorted by time, and the day
//! on which they happened in the path, so an object becomes one twin for each class and day that is in it. The partition
//! keys are spelt as its crawler expects them, capital letters included. What did not happen in an account of AWS is
//! filed under `external_` and an id, here the tenant's. The columns are those of every twin, with `class_uid` among
//! them: what OCSF nests stands flat, and the record itself is in `raw`.

use chrono::{DateTime, NaiveDate, Utc};
use schemas::TenantId;
use serde::{Deserialize, Serialize};

use crate::{
    names::{FileFormat, ObjectName},
    parquet::Slice,
    path::ObjectPath,
};

/// Custom sources of a lake that differ only in the class of their events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Named")]
pub struct LakeSource {
    name: String,
    region: String,
}

/// A [`LakeSource`] that was not checked.
#[derive(Deserialize)]
struct Named {
    name: String,
    region: String,
}

impl TryFrom<Named> for LakeSource {
    type Error = NotALakeSource;

    fn try_from(Named { name, region }: Named) -> Result<Self, NotALakeSource> {
        Self::new(&name, &region)
    }
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
}

impl LakeSource {
    /// The longest name: Security Lake takes 20 characters, and the class has to fit as well.
    pub const MAX_NAME: usize = 14;

    /// The sources `NAME_CLASS` in this region.
    ///
    /// # Errors
    ///
    /// When one of them is not of the form that Security Lake takes.
    pub fn new(name: &str, region: &str) -> Result<Self, NotALakeSource> {
        let word = |text: &str, more: &[u8]| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
        };
        if name.len() > Self::MAX_NAME || !word(name, b"_-") {
            return Err(NotALakeSource::Name(name.to_owned()));
        }
        if !word(region, b"-") || !region.contains('-') {
            return Err(NotALakeSource::Region(region.to_owned()));
        }
        Ok(Self { name: name.to_owned(), region: region.to_owned() })
    }

    /// The name of the source for a class, as it has to be registered.
    #[must_use]
    pub fn name(&self, class_uid: i32) -> String {
        format!("{}_{class_uid}", self.name)
    }

    /// Where the twin of a slice of an object lies. What does not say when it happened counts to the day on which the
    /// object was begun.
    #[must_use]
    pub fn path(
        &self,
        tenant: TenantId,
        slice: Slice,
        object: &ObjectName,
        begun: DateTime<Utc>,
    ) -> ObjectPath {
        let day: NaiveDate = slice.day.unwrap_or(begun.date_naive());
        let (source, day, region) = (self.name(slice.class_uid), day.format("%Y%m%d"), &self.region);
        // Those without a time stand beside those of that day, and want a name of their own.
        let undated = if slice.day.is_none() { "undated." } else { "" };
        let end = FileFormat::Parquet;
        format!(
            "ext/{source}/region={region}/accountId=external_{tenant}/eventDay={day}/{object}.{undated}{end}"
        )
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
        let source = LakeSource::new("mailtrail", "eu-central-1").unwrap();
        assert_eq!(source.name(6003), "mailtrail_6003");
        let tenant = "41463f53-8812-40f4-890f-865bf6e35190".parse().unwrap();
        let path = |class_uid, day| source.path(tenant, Slice { class_uid, day }, &object(), begun);
        let day = Some("2026-11-19".parse().unwrap());
        assert_eq!(
            path(6003, day).as_str(),
            "ext/mailtrail_6003/region=eu-central-1/accountId=external_41463f53-8812-40f4-890f-865bf6e35190/\
             eventDay=20261119/0f1e2d3c-4b5a-4988-8776-655443322110-7-1204-ba7816bf8f01cfea.parquet"
        );
        let undated = path(0, None);
        assert!(undated.as_str().contains("/eventDay=20261121/"));
        assert_ne!(undated, path(0, Some(begun.date_naive())));
        // Whoever looks for what no entry names reads the name of either.
        let file = undated.as_str().rsplit('/').next().unwrap();
        assert_eq!(file.parse(), Ok(object()));
    }

    #[test]
    fn what_the_lake_would_refuse_is_refused() {
        assert!(LakeSource::new("mailtrail", "us-gov-west-1").is_ok());
        for name in ["", "a/b", "mail trail", "mailtrail-audits"] {
            assert_eq!(LakeSource::new(name, "eu-west-1"), Err(NotALakeSource::Name(name.to_owned())));
        }
        for region in ["", "europe", "eu/west"] {
            assert_eq!(LakeSource::new("mailtrail", region), Err(NotALakeSource::Region(region.to_owned())));
        }
    }

    #[test]
    fn what_is_read_again_is_checked_again() {
        let source = LakeSource::new("mailtrail", "eu-west-1").unwrap();
        let text = serde_json::to_string(&source).unwrap();
        assert_eq!(text, r#"{"name":"mailtrail","region":"eu-west-1"}"#);
        assert_eq!(serde_json::from_str::<LakeSource>(&text).unwrap(), source);
        assert!(serde_json::from_str::<LakeSource>(r#"{"name":"../x","region":"eu-west-1"}"#).is_err());
    }
}
