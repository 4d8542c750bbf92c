//! What goes wrong, and how often.
//!
//! A fault is named, has a share of the items that it afflicts, and fails each of them a number of times before it
//! lets it through: a run against any mix of transient faults ends with everything collected. Only `expired`,
//! `gone` and `gzip_bomb` are for good, and [`Truth`](crate::Truth) knows which blobs they take.
//!
//! Which items are afflicted depends on the seed only. For blobs an item is a blob; for listings and tokens, which
//! have no lasting identity, an item is a turn: an afflicted turn is answered wrongly that many times in a row, then
//! rightly once, and the next turn begins.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    time::Duration,
};

use chrono::TimeDelta;
use schemas::ContentType;

use crate::dice::{hash, hash_text};

/// Which items a fault afflicts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Share {
    /// Each with this probability, 0 to 1, decided by the seed.
    Probability(f64),
    /// One of every so many, at least 1.
    OneIn(u64),
}

macro_rules! kinds {
    ($($kind:ident $name:literal $value:literal $what:literal;)*) => {
        /// A fault that afflicts items.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum FaultKind {
            $(#[doc = $what] $kind),*
        }

        impl FaultKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The name by which it is set.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),* }
            }
        }

        /// What can be set, for help texts: the faults that afflict items, then the others.
        pub const FAULTS: &[FaultHelp] = &[
            $(FaultHelp { name: $name, value: $value, what: $what },)*
            FaultHelp { name: "token_expiry", value: "DURATION", what: "tokens live only this long" },
            FaultHelp { name: "clock_skew", value: "[-]DURATION", what: "the servers' clock is ahead (or behind) by this much; at the start only" },
            FaultHelp { name: "permission_denied", value: "CONTENT_TYPE", what: "AF10001 for this content type, for as long as it is set" },
            FaultHelp { name: "subscription_disabled", value: "CONTENT_TYPE", what: "the subscription is disabled (AF20023) until it is started again" },
            FaultHelp { name: "subscription_limbo", value: "CONTENT_TYPE", what: "as after a stop and a start at once, for as long as it is set: started (AF20024), but not listed and without content (AF20023)" },
            FaultHelp { name: "auditing_off", value: "on|off", what: "the tenant records nothing: no subscription can be started (HTTP 400 without a code), those that were are disabled (AF20023)" },
            FaultHelp { name: "tenant_misconfigured", value: "on|off", what: "AF20012 for every request" },
            FaultHelp { name: "padded_entries", value: "BYTES", what: "each entry of a listing has so many bytes more, so that pages become long; 0 for none" },
            FaultHelp { name: "partial_listing", value: "on|off", what: "a window of more than 24 h is answered in part instead of AF20055" },
            FaultHelp { name: "lost_publisher_id", value: "on|off", what: "NextPageUri comes without PublisherIdentifier; on by default, as in reality" },
        ];
    };
}

/// One line of the help text.
#[derive(Debug, Clone, Copy)]
pub struct FaultHelp {
    /// The name before the `=`.
    pub name: &'static str,
    /// The form of the value.
    pub value: &'static str,
    /// What it does.
    pub what: &'static str,
}

kinds! {
    Throttle403 "throttle403" "SHARE[xTIMES]" "AF429 with HTTP status 403 and without Retry-After, for lists and fetches";
    Throttle429 "throttle429" "SHARE[xTIMES][@DURATION]" "AF429 with HTTP status 429 and Retry-After (default 1s)";
    Throttle200 "throttle200" "SHARE[xTIMES]" "AF429 in the body of an answer with HTTP status 200";
    ServerError "server_error" "SHARE[xTIMES]" "HTTP 500 with AF50000";
    Unavailable "unavailable" "SHARE[xTIMES]" "HTTP 503 with an HTML body";
    InternalError "internal_error" "SHARE[xTIMES]" "HTTP 503 with AF50005, which is undocumented";
    RequestTimeout "request_timeout" "SHARE[xTIMES]" "HTTP 408 without a body";
    Unauthorized "unauthorized" "SHARE[xTIMES]" "HTTP 401 although the token is good";
    TokenError "token_error" "SHARE[xTIMES][@DURATION]" "HTTP 503 with AADSTS90033 from the token endpoint, with Retry-After when it has a duration";
    SlowFirstByte "slow_first_byte" "SHARE[xTIMES][@DURATION]" "the answer begins late (default 2s)";
    SlowBody "slow_body" "SHARE[xTIMES][@DURATION]" "a blob's body comes whole, little by little over so long (default 10s)";
    Stall "stall" "SHARE[xTIMES][@DURATION]" "a blob's body stops midway, silently (default 10m), and is cut after that";
    CutBody "cut_body" "SHARE[xTIMES]" "the connection closes before Content-Length is reached";
    CutChunked "cut_chunked" "SHARE[xTIMES]" "the connection closes before the last chunk";
    Cut200 "cut200" "SHARE[xTIMES]" "a complete HTTP answer whose JSON stops midway";
    CutGzip "cut_gzip" "SHARE[xTIMES]" "a complete HTTP answer whose gzip stream stops midway (cut200 for clients without gzip)";
    ErrorIn200 "error_in_200" "SHARE[xTIMES]" "HTTP 200 with an error object instead of the array";
    Empty200 "empty_200" "SHARE[xTIMES]" "HTTP 200 without a body";
    Html200 "html_200" "SHARE[xTIMES]" "HTTP 200 with an HTML page, as a proxy answers";
    Redirect "redirect" "SHARE[xTIMES]" "HTTP 302 to another origin, which counts the tokens that follow";
    Bare404 "bare_404" "SHARE[xTIMES]" "HTTP 404 without a body for a blob that exists";
    WrongBlobId "wrong_blob_id" "SHARE[xTIMES]" "AF20052 for a blob that exists";
    Expired "expired" "SHARE" "AF20051 for good: the blob is a gap";
    Gone "gone" "SHARE" "AF20050 for good: the blob is a gap";
    GzipBomb "gzip_bomb" "SHARE" "the body unpacks to 1 GiB more than it says, for good: the blob is a gap when it expires";
    Late "late" "SHARE[@DURATION]" "the blob is listed only this long (default 2m) after it should be; at the start only";
    SameCreated "same_created" "SHARE" "the blob shares contentCreated with the one before it; at the start only";
    DuplicateRecords "duplicate_records" "SHARE" "the blob repeats a record of an earlier blob and one of its own, with another key order; at the start only";
    DuplicateListing "duplicate_listing" "SHARE" "the blob is listed twice, on the same page or on the next";
    BrokenContentUri "broken_content_uri" "SHARE" "contentUri names http://localhost and another tenant";
    Bom "bom" "SHARE" "the body begins with a byte order mark";
    PrettyPrinted "pretty_printed" "SHARE" "the body is indented JSON on many lines";
    StaleNextPage "stale_next_page" "SHARE[xTIMES]" "AF20031 for a next page";
    NextPageOtherHost "next_page_other_host" "SHARE[xTIMES]" "NextPageUri names another origin, which counts the tokens that follow";
    BlobNextPage "blob_next_page" "SHARE[xTIMES]" "a blob comes with half of its records and a NextPageUri, which is for listings";
    OtherBody "other_body" "SHARE" "a blob that was fetched whole comes with another body when it is fetched again: its records in the other order";
}

impl FaultKind {
    pub(crate) fn is_structural(self) -> bool {
        matches!(self, Self::Late | Self::SameCreated | Self::DuplicateRecords)
    }

    fn default_delay(self) -> Duration {
        Duration::from_secs(match self {
            Self::Throttle429 => 1,
            Self::SlowFirstByte => 2,
            Self::SlowBody => 10,
            Self::Stall => 600,
            Self::Late => 120,
            _ => 0,
        })
    }

    /// What a fetch can suffer, in the order in which one blob suffers them.
    pub(crate) const FETCH: &[Self] = &[
        Self::Throttle403,
        Self::Throttle429,
        Self::Throttle200,
        Self::Unauthorized,
        Self::ServerError,
        Self::Unavailable,
        Self::InternalError,
        Self::RequestTimeout,
        Self::Redirect,
        Self::Bare404,
        Self::WrongBlobId,
        Self::ErrorIn200,
        Self::Empty200,
        Self::Html200,
        Self::Cut200,
        Self::CutGzip,
        Self::CutBody,
        Self::CutChunked,
        Self::Stall,
        Self::BlobNextPage,
        Self::SlowFirstByte,
        Self::SlowBody,
    ];
    /// What a listing can suffer.
    pub(crate) const LIST: &[Self] = &[
        Self::Throttle403,
        Self::Throttle429,
        Self::Throttle200,
        Self::Unauthorized,
        Self::ServerError,
        Self::Unavailable,
        Self::InternalError,
        Self::RequestTimeout,
        Self::Redirect,
        Self::ErrorIn200,
        Self::Empty200,
        Self::Html200,
        Self::CutBody,
        Self::CutChunked,
        Self::Cut200,
        Self::SlowFirstByte,
    ];
}

/// How a fault is set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rule {
    pub(crate) share: Share,
    pub(crate) times: u32,
    pub(crate) delay: Duration,
}

/// The faults of a simulation. Without any, only NextPageUri lacks its PublisherIdentifier.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    pub(crate) rules: BTreeMap<FaultKind, Rule>,
    pub(crate) permission_denied: BTreeSet<ContentType>,
    pub(crate) subscription_disabled: BTreeSet<ContentType>,
    pub(crate) subscription_limbo: BTreeSet<ContentType>,
    pub(crate) auditing_off: bool,
    pub(crate) tenant_misconfigured: bool,
    /// Bytes that each entry of a listing has more.
    pub(crate) padded_entries: usize,
    pub(crate) partial_listing: bool,
    pub(crate) lost_publisher_id: bool,
    pub(crate) token_expiry: Option<TimeDelta>,
    pub(crate) clock_skew: TimeDelta,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            rules: BTreeMap::new(),
            permission_denied: BTreeSet::new(),
            subscription_disabled: BTreeSet::new(),
            subscription_limbo: BTreeSet::new(),
            auditing_off: false,
            tenant_misconfigured: false,
            padded_entries: 0,
            partial_listing: false,
            lost_publisher_id: true,
            token_expiry: None,
            clock_skew: TimeDelta::zero(),
        }
    }
}

/// A fault that cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFault {
    /// There is no `=` in it.
    #[error("`{text}` is not of the form NAME=VALUE")]
    NoValue {
        /// What was given.
        text: String,
    },
    /// No fault has this name.
    #[error("unknown fault `{name}`; there are {}", FAULTS.iter().map(|fault| fault.name).collect::<Vec<_>>().join(", "))]
    UnknownName {
        /// What was given.
        name: String,
    },
    /// The value is not of the fault's form.
    #[error(
        "`{value}` is not a value for the fault `{name}`, which takes {form} (SHARE is 0.1 or 1/10, DURATION 500ms, 30s, 5m or 2h)"
    )]
    BadValue {
        /// The fault.
        name: &'static str,
        /// What was given.
        value: String,
        /// What it takes.
        form: &'static str,
    },
    /// It decides what the tenant holds, which cannot change while it runs.
    #[error("the fault `{name}` decides what the tenant holds and can be set at the start only")]
    StartOnly {
        /// The fault.
        name: &'static str,
    },
}

impl Faults {
    /// Sets one fault, `NAME=VALUE`; [`FAULTS`] lists names and forms. A share of 0 takes the fault away.
    ///
    /// # Errors
    /// When the name or the value is not known; nothing is changed then.
    pub fn set(&mut self, text: &str) -> Result<(), BadFault> {
        let (name, value) =
            text.trim().split_once('=').ok_or_else(|| BadFault::NoValue { text: text.to_owned() })?;
        let help = FAULTS
            .iter()
            .find(|fault| fault.name == name)
            .ok_or_else(|| BadFault::UnknownName { name: name.to_owned() })?;
        let bad = || BadFault::BadValue { name: help.name, value: value.to_owned(), form: help.value };
        let switch = || match value {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(bad()),
        };
        match help.name {
            "token_expiry" => self.token_expiry = Some(delta(parse_duration(value).ok_or_else(bad)?)),
            "clock_skew" => {
                let (text, sign) = value.strip_prefix('-').map_or((value, 1), |rest| (rest, -1));
                self.clock_skew = delta(parse_duration(text).ok_or_else(bad)?) * sign;
            }
            "permission_denied" => {
                self.permission_denied.insert(value.parse().map_err(|_| bad())?);
            }
            "subscription_disabled" => {
                self.subscription_disabled.insert(value.parse().map_err(|_| bad())?);
            }
            "subscription_limbo" => {
                self.subscription_limbo.insert(value.parse().map_err(|_| bad())?);
            }
            "auditing_off" => self.auditing_off = switch()?,
            "tenant_misconfigured" => self.tenant_misconfigured = switch()?,
            "padded_entries" => self.padded_entries = value.parse().map_err(|_| bad())?,
            "partial_listing" => self.partial_listing = switch()?,
            "lost_publisher_id" => self.lost_publisher_id = switch()?,
            _ => {
                let kind = FaultKind::ALL.iter().copied().find(|kind| kind.name() == name).ok_or_else(bad)?;
                match parse_rule(kind, help.value, value).ok_or_else(bad)? {
                    Rule { share: Share::Probability(0.0), .. } => {
                        self.rules.remove(&kind);
                    }
                    rule => {
                        self.rules.insert(kind, rule);
                    }
                }
            }
        }
        Ok(())
    }

    /// Sets a fault that afflicts items, each of them once and with the fault's own delay.
    #[must_use]
    pub fn with(mut self, kind: FaultKind, share: Share) -> Self {
        self.rules.insert(kind, Rule { share, times: 1, delay: kind.default_delay() });
        self
    }

    pub(crate) fn rule(&self, kind: FaultKind) -> Option<Rule> {
        self.rules.get(&kind).copied()
    }

    /// Whether a fault of the blob itself, which does not wear off, has the blob of that number.
    pub(crate) fn has(&self, kind: FaultKind, seed: u64, item: u64) -> bool {
        self.rule(kind).is_some_and(|rule| rule.share.takes(kind, seed, item))
    }
}

impl Share {
    pub(crate) fn takes(self, kind: FaultKind, seed: u64, item: u64) -> bool {
        match self {
            Self::OneIn(n) => item.wrapping_add(kind as u64).is_multiple_of(n.max(1)),
            Self::Probability(p) => {
                // 53 bits, as many as a double holds exactly.
                let roll = hash(&[seed, hash_text(kind.name()), item]) >> 11;
                (roll as f64) < p * (1_u64 << 53) as f64
            }
        }
    }
}

impl FromStr for Faults {
    type Err = BadFault;

    /// Several faults, separated by commas, blanks or line breaks.
    fn from_str(text: &str) -> Result<Self, BadFault> {
        let mut faults = Self::default();
        for one in text.split([',', ' ', '\n', '\r']).filter(|one| !one.is_empty()) {
            faults.set(one)?;
        }
        Ok(faults)
    }
}

impl fmt::Display for Faults {
    /// One fault a line, in the form in which it is set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, rule) in &self.rules {
            let name = kind.name();
            match rule.share {
                Share::Probability(p) => write!(f, "{name}={p}")?,
                Share::OneIn(n) => write!(f, "{name}=1/{n}")?,
            }
            // Only what the fault takes is written, so that what is written can be set again.
            let form = FAULTS.iter().find(|help| help.name == name).map_or("", |help| help.value);
            if form.contains("xTIMES") {
                write!(f, "x{}", rule.times)?;
            }
            if form.contains("@DURATION") {
                write!(f, "@{}ms", rule.delay.as_millis())?;
            }
            writeln!(f)?;
        }
        for kind in &self.permission_denied {
            writeln!(f, "permission_denied={kind}")?;
        }
        for kind in &self.subscription_disabled {
            writeln!(f, "subscription_disabled={kind}")?;
        }
        for kind in &self.subscription_limbo {
            writeln!(f, "subscription_limbo={kind}")?;
        }
        if let Some(expiry) = self.token_expiry {
            writeln!(f, "token_expiry={}ms", expiry.num_milliseconds())?;
        }
        if !self.clock_skew.is_zero() {
            writeln!(f, "clock_skew={}ms", self.clock_skew.num_milliseconds())?;
        }
        let switch = |on| if on { "on" } else { "off" };
        writeln!(f, "auditing_off={}", switch(self.auditing_off))?;
        writeln!(f, "tenant_misconfigured={}", switch(self.tenant_misconfigured))?;
        writeln!(f, "padded_entries={}", self.padded_entries)?;
        writeln!(f, "partial_listing={}", switch(self.partial_listing))?;
        writeln!(f, "lost_publisher_id={}", switch(self.lost_publisher_id))
    }
}

fn parse_rule(kind: FaultKind, form: &str, value: &str) -> Option<Rule> {
    let (rest, delay) = match value.split_once('@') {
        Some((rest, delay)) if form.contains("@DURATION") => (rest, parse_duration(delay)?),
        Some(_) => return None,
        None => (value, kind.default_delay()),
    };
    let (share, times) = match rest.split_once('x') {
        Some((share, times)) if form.contains("xTIMES") => (share, times.parse().ok().filter(|n| *n > 0)?),
        Some(_) => return None,
        None => (rest, 1),
    };
    let share = match share.split_once('/') {
        Some(("1", n)) => Share::OneIn(n.parse().ok().filter(|n| *n > 0)?),
        Some(_) => return None,
        None => Share::Probability(share.parse().ok().filter(|p| (0.0..=1.0).contains(p))?),
    };
    Some(Rule { share, times, delay })
}

/// `500ms`, `30s`, `5m`, `2h`.
fn parse_duration(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u32 = text[..end].parse().ok()?;
    let unit = match &text[end..] {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => return None,
    };
    unit.checked_mul(number)
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_set_by_the_form_that_its_help_names() {
        for help in FAULTS {
            let value = help
                .value
                .replace("[xTIMES]", "x3")
                .replace("[@DURATION]", "@5s")
                .replace("SHARE", "1/10")
                .replace("[-]DURATION", "-5m")
                .replace("DURATION", "5m")
                .replace("CONTENT_TYPE", "DLP.All")
                .replace("on|off", "on")
                .replace("BYTES", "4096");
            let mut faults = Faults::default();
            faults.set(&format!("{}={value}", help.name)).unwrap();
            let again: Faults =
                faults.to_string().parse().unwrap_or_else(|error| panic!("{faults}: {error}"));
            assert_eq!(again, faults, "{} is written in a form that can be read", help.name);
        }
    }

    #[test]
    fn what_is_no_fault_is_refused_with_the_reason() {
        let mut faults = Faults::default();
        for text in [
            "cut_body",
            "cut_bodies=1",
            "cut_body=2",
            "cut_body=1/0",
            "cut_body=0.5x0",
            "cut_body=0.5@3s",
            "expired=0.5x2",
            "token_expiry=5",
            "clock_skew=x",
            "permission_denied=Audit.Nothing",
            "partial_listing=1",
            "padded_entries=1KiB",
            "stall=1@3w",
        ] {
            assert!(faults.set(text).is_err(), "{text}");
        }
        assert_eq!(faults, Faults::default());
    }

    #[test]
    fn a_probability_takes_about_its_share_and_always_the_same() {
        let faults: Faults = "gone=0.25".parse().unwrap();
        let taken =
            |seed| (0..4000).filter(|item| faults.has(FaultKind::Gone, seed, *item)).collect::<Vec<_>>();
        assert!((800..1200).contains(&taken(1).len()), "{}", taken(1).len());
        assert_eq!(taken(1), taken(1));
        assert_ne!(taken(1), taken(2));
    }
}
