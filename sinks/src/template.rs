//! Texts with placeholders: `o365.{content_type}`.

use std::{fmt, fmt::Write as _, str::FromStr};

use schemas::{ContentType, TenantId};

use crate::delivery_ledger::Work;

/// A text that is made anew for every blob: `{tenant}` is the tenant's name in the configuration, `{tenant_id}` its id,
/// `{content_type}` the content type and `{content_id}` the name of the blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Of(Placeholder),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    Tenant,
    TenantId,
    ContentType,
    ContentId,
}

impl Placeholder {
    const ALL: [(&'static str, Self); 4] = [
        ("tenant", Self::Tenant),
        ("tenant_id", Self::TenantId),
        ("content_type", Self::ContentType),
        ("content_id", Self::ContentId),
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::TenantId => "tenant_id",
            Self::ContentType => "content_type",
            Self::ContentId => "content_id",
        }
    }
}

/// The text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    /// There is no such placeholder.
    #[error(
        "there is no {{{name}}}; there are {{tenant}}, {{tenant_id}}, {{content_type}} and {{content_id}}"
    )]
    Unknown {
        /// What stands between the braces.
        name: String,
    },
    /// A brace has no partner.
    #[error("a brace has no partner")]
    Brace,
}

impl FromStr for Template {
    type Err = BadTemplate;

    fn from_str(text: &str) -> Result<Self, BadTemplate> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            match rest.find(['{', '}']) {
                None => {
                    parts.push(Part::Text(rest.to_owned()));
                    break;
                }
                Some(0) => {
                    let inner = rest.strip_prefix('{').ok_or(BadTemplate::Brace)?;
                    let (name, after) = inner.split_once('}').ok_or(BadTemplate::Brace)?;
                    let known = Placeholder::ALL.iter().find(|(known, _)| *known == name);
                    let (_, placeholder) =
                        known.ok_or_else(|| BadTemplate::Unknown { name: name.to_owned() })?;
                    parts.push(Part::Of(*placeholder));
                    rest = after;
                }
                Some(brace) => {
                    parts.push(Part::Text(rest[..brace].to_owned()));
                    rest = &rest[brace..];
                }
            }
        }
        Ok(Self { parts })
    }
}

impl Template {
    /// The text for what is from this work.
    #[must_use]
    pub fn expand(&self, work: &Work) -> String {
        self.fill(&work.tenant_name, work.feed.tenant, work.feed.content_type, work.content_id.as_str())
    }

    /// The text for whatever is from this feed. A blob that it names has no name then.
    #[must_use]
    pub fn expand_for(&self, tenant_name: &str, tenant: TenantId, content_type: ContentType) -> String {
        self.fill(tenant_name, tenant, content_type, "")
    }

    fn fill(
        &self,
        tenant_name: &str,
        tenant: TenantId,
        content_type: ContentType,
        content_id: &str,
    ) -> String {
        let mut text = String::new();
        for part in &self.parts {
            // Writing into a text cannot fail.
            let _ = match part {
                Part::Text(fixed) => text.write_str(fixed),
                Part::Of(Placeholder::Tenant) => text.write_str(tenant_name),
                Part::Of(Placeholder::TenantId) => write!(text, "{tenant}"),
                Part::Of(Placeholder::ContentType) => text.write_str(content_type.as_str()),
                Part::Of(Placeholder::ContentId) => text.write_str(content_id),
            };
        }
        text
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Of(placeholder) => write!(f, "{{{}}}", placeholder.name()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_ledger::work;

    #[test]
    fn placeholders_are_what_the_work_is_from() {
        let work = work(7, 3);
        let expand = |text: &str| text.parse::<Template>().unwrap().expand(&work);
        assert_eq!(expand("o365"), "o365");
        assert_eq!(expand(""), "");
        assert_eq!(
            expand("a.{tenant}/{tenant_id}{content_type}-{content_id}"),
            format!(
                "a.{}/{}{}-{}",
                work.tenant_name,
                work.feed.tenant,
                work.feed.content_type,
                work.content_id.as_str()
            )
        );
    }

    #[test]
    fn what_is_no_placeholder_is_refused() {
        for text in ["{", "}", "a{tenant", "tenant}", "{}}"] {
            assert!(text.parse::<Template>().is_err(), "{text}");
        }
        let error = "{tennant}".parse::<Template>().unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no {tennant}; there are {tenant}, {tenant_id}, {content_type} and {content_id}"
        );
    }

    #[test]
    fn it_is_printed_as_it_was_written() {
        for text in ["", "x", "{tenant}", "a{content_id}b{tenant_id}{content_type}"] {
            assert_eq!(text.parse::<Template>().unwrap().to_string(), text);
        }
    }
}
