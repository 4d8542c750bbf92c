//! The tenant's subscriptions: which content types Microsoft keeps content for.

use reqwest::{Method, StatusCode};
use schemas::ContentType;
use serde_json::Value;

use super::{ActivityApi, Call, codes::Action, error::ApiError, refusal::Refusal};

/// What `/subscriptions/list` says of a content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscription {
    /// Content is kept.
    Enabled,
    /// It was disabled: nothing is kept, and what was kept cannot be read.
    Disabled,
    /// There is none.
    Absent,
}

/// What a start changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// The subscription is enabled from now on.
    Now,
    /// It was enabled already, whatever the list of subscriptions said.
    Before,
}

/// A tenant's subscriptions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscriptions(Vec<(String, bool)>);

impl Subscriptions {
    /// That of one content type.
    #[must_use]
    pub fn of(&self, content_type: ContentType) -> Subscription {
        let mut found = Subscription::Absent;
        for (name, enabled) in &self.0 {
            if name.eq_ignore_ascii_case(content_type.as_str()) {
                if *enabled {
                    return Subscription::Enabled;
                }
                found = Subscription::Disabled;
            }
        }
        found
    }

    /// Reads the answer. One of the reference's samples has no `status`: it then counts as enabled.
    fn read(body: &[u8]) -> Option<Self> {
        let Value::Array(entries) = serde_json::from_slice(body).ok()? else { return None };
        let entry = |entry: &Value| {
            let name = entry.get("contentType")?.as_str()?.to_owned();
            let status = entry.get("status").and_then(Value::as_str);
            Some((name, status.is_none_or(|status| status.eq_ignore_ascii_case("enabled"))))
        };
        Some(Self(entries.iter().filter_map(entry).collect()))
    }
}

impl ActivityApi {
    /// Lists the tenant's subscriptions.
    ///
    /// # Errors
    ///
    /// Any [`ApiError`] of a call.
    pub async fn subscriptions(&self) -> Result<Subscriptions, ApiError> {
        let url = self.address.subscriptions();
        let answer = self.send(Call::Subscriptions, Method::GET, || super::plain(url.as_ref())).await?;
        let understand =
            |body: &[u8]| Subscriptions::read(super::without_bom(body)).ok_or_else(|| super::no_list(body));
        self.read(answer.response, answer.sent, super::SMALL, understand).await
    }

    /// Starts a subscription, without a webhook. One that is enabled already (AF20024) is a success. The API wants 15
    /// minutes between two starts; the caller sees to that.
    ///
    /// # Errors
    ///
    /// Any [`ApiError`] of a call.
    pub async fn start_subscription(&self, content_type: ContentType) -> Result<Started, ApiError> {
        let url = self.address.start(content_type);
        let started = match self.send(Call::Start, Method::POST, || super::plain(url.as_ref())).await {
            Ok(answer) => self.read(answer.response, answer.sent, super::SMALL, started).await,
            Err(error) => Err(error),
        };
        match started {
            Ok(()) => Ok(Started::Now),
            Err(ApiError::Refused(Refusal { action: Action::AlreadyEnabled, .. })) => Ok(Started::Before),
            Err(error) => Err(error),
        }
    }
}

/// What a start is answered with says nothing that the status does not, unless it is an error.
fn started(body: &[u8]) -> Result<(), ApiError> {
    let refusal = Refusal::read(StatusCode::OK, body, None, None);
    if refusal.code.is_some() { Err(refusal.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_in_the_answer_to_a_start_is_one() {
        assert!(started(br#"{"contentType":"Audit.Exchange","status":"enabled","webhook":null}"#).is_ok());
        assert!(started(b"").is_ok());
        let error = started(br#"{"error":{"code":"AF429","message":"Too many requests."}}"#).unwrap_err();
        assert_eq!(error.action(), Action::Throttle);
    }

    #[test]
    fn the_status_may_be_missing_and_a_content_type_may_be_there_twice() {
        let read = |body: &str| Subscriptions::read(body.as_bytes());
        let listed = read(
            r#"[{"contentType":"Audit.Exchange","status":"enabled","webhook":null},
                {"contentType":"Audit.General","status":"disabled","webhook":{"status":"enabled"}},
                {"contentType":"audit.sharepoint"},
                {"contentType":"DLP.All","status":"disabled"},{"contentType":"DLP.All","status":"enabled"},
                {"status":"enabled"}, 7]"#,
        )
        .unwrap();
        assert_eq!(listed.of(ContentType::Exchange), Subscription::Enabled);
        assert_eq!(listed.of(ContentType::General), Subscription::Disabled);
        assert_eq!(listed.of(ContentType::SharePoint), Subscription::Enabled);
        assert_eq!(listed.of(ContentType::DlpAll), Subscription::Enabled);
        assert_eq!(listed.of(ContentType::AzureActiveDirectory), Subscription::Absent);
        assert_eq!(read("[]").unwrap().of(ContentType::Exchange), Subscription::Absent);
        for bad in ["", "{}", "null", "<html>", r#"{"error":{"code":"AF50000"}}"#] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
