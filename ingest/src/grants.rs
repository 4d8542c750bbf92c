//! What a tenant's application may read, by the roles that stand in its access tokens.
//!
//! Whoever lacks `ActivityFeed.ReadDlp` is refused nothing: records of `DLP.All` come without what was detected, for good.
//! So it is looked for where it can be seen. Nobody verifies what stands in a token, and it need not be readable: nothing
//! here decides anything but what is told.

use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use entra::{AccessToken, Claims};
use schemas::ContentType;

use crate::health::Trouble;

/// The role without which no feed can be read.
pub const READ: &str = "ActivityFeed.Read";

/// The role without which `DLP.All` has no detected values.
pub const READ_DLP: &str = "ActivityFeed.ReadDlp";

/// The roles that reading these feeds takes and that a token does not name.
#[must_use]
pub fn missing(claims: &Claims, content_types: &[ContentType]) -> Vec<&'static str> {
    let dlp = content_types.contains(&ContentType::DlpAll);
    let needed = [Some(READ), dlp.then_some(READ_DLP)].into_iter().flatten();
    needed.filter(|role| claims.roles.iter().all(|has| has != role)).collect()
}

/// What it means that a role is missing, and how it is granted.
#[must_use]
pub fn lacks(role: &str) -> Trouble {
    let so = if role == READ_DLP {
        "so records of DLP.All come without what was detected in them, for good"
    } else {
        "so no feed can be read"
    };
    Trouble {
        error: format!("the application lacks the permission {role}, {so}"),
        advice: format!(
            "Entra admin center > App registrations > the app > API permissions > Add a permission > Office 365 \
             Management APIs > Application permissions > {role}, then Grant admin consent"
        ),
    }
}

/// What the tokens of one tenant allow.
#[derive(Debug)]
pub(crate) struct Grants {
    tenant: String,
    content_types: Vec<ContentType>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    looked_at: Option<AccessToken>,
    missing: Vec<&'static str>,
    since: Option<DateTime<Utc>>,
}

impl Grants {
    /// Of a tenant of this name, of which these are collected.
    pub(crate) fn new(tenant: &str, content_types: &[ContentType]) -> Self {
        Self { tenant: tenant.to_owned(), content_types: content_types.to_vec(), state: Mutex::default() }
    }

    /// Looks at a token that it has not seen yet. One that cannot be read says nothing, neither good nor bad.
    pub(crate) fn look(&self, token: &AccessToken) {
        let mut state = self.lock();
        if state.looked_at.as_ref().is_none_or(|known| !known.is(token)) {
            state.looked_at = Some(token.clone());
            self.heed(&mut state, token.claims());
        }
    }

    fn heed(&self, state: &mut State, claims: Option<Claims>) {
        let Some(claims) = claims else { return };
        let missing = missing(&claims, &self.content_types);
        if missing == state.missing {
            return;
        }
        for role in missing.iter().filter(|role| !state.missing.contains(role)) {
            let Trouble { error, advice } = lacks(role);
            tracing::warn!(tenant = %self.tenant, %advice, "{error}");
        }
        for role in state.missing.iter().filter(|role| !missing.contains(role)) {
            tracing::info!(tenant = %self.tenant, "the permission {role} is there now");
        }
        state.since = (!missing.is_empty()).then(Utc::now);
        state.missing = missing;
    }

    /// What the last token that could be read lacks, and since when.
    pub(crate) fn missing(&self) -> Option<(DateTime<Utc>, Vec<Trouble>)> {
        let state = self.lock();
        Some((state.since?, state.missing.iter().map(|role| lacks(role)).collect()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(roles: &[&str]) -> Claims {
        Claims { roles: roles.iter().map(|role| (*role).to_owned()).collect(), ..Claims::default() }
    }

    #[test]
    fn what_is_missing_is_told_until_a_later_token_has_it() {
        let grants = Grants::new("contoso", &[ContentType::DlpAll]);
        let heed = |claims: Option<Claims>| {
            grants.heed(&mut grants.lock(), claims);
            grants.missing().map(|(_, troubles)| troubles.len())
        };
        assert_eq!(heed(None), None, "nothing is known of what cannot be read");
        assert_eq!(heed(Some(claims(&[]))), Some(2));
        assert_eq!(heed(Some(claims(&[READ]))), Some(1));
        assert!(grants.missing().is_some_and(|(_, told)| told[0].error.contains(READ_DLP)));
        assert_eq!(heed(None), Some(1), "nor does it take anything back");
        assert_eq!(heed(Some(claims(&[READ, READ_DLP]))), None);
    }

    #[test]
    fn only_what_is_collected_needs_a_role() {
        let exchange = [ContentType::Exchange];
        let both = [ContentType::Exchange, ContentType::DlpAll];
        assert!(missing(&claims(&[READ]), &exchange).is_empty());
        assert_eq!(missing(&claims(&[READ]), &both), [READ_DLP]);
        assert_eq!(missing(&claims(&["ServiceHealth.Read"]), &both), [READ, READ_DLP]);
        assert!(missing(&claims(&[READ_DLP, READ]), &both).is_empty());
    }
}
