//! The API's addresses. Every URL that a token is sent to is made here, from the configured host.
//!
//! A blob's URL is rebuilt from its content id, because listings were seen with a `contentUri` of another host, scheme
//! and tenant. The next page's address has to be taken from the answer, so its scheme, host and port must be the
//! configured ones. `PublisherIdentifier` is on every URL: without it all callers share one quota (Office 365
//! Management Activity API reference, "API throttling").

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::HeaderMap;
use schemas::{ContentId, ContentType, TenantId, TimeRange};
use url::{Host, Url};

use super::error::ApiError;

/// What is escaped in a content id: everything but the unreserved characters and `$`, which the API wants as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'$');

const PUBLISHER: &str = "PublisherIdentifier";

/// The configured address of the API cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadApiAddress {
    /// It has no host, or a scheme other than HTTP.
    #[error("`{0}` is no address of an API; expected the form https://manage.office.com")]
    NotHttp(String),
    /// It would send tokens in the clear.
    #[error("`{0}` would send access tokens in the clear; http:// is for loopback addresses only")]
    InTheClear(String),
}

/// The API of one tenant.
#[derive(Debug, Clone)]
pub struct ApiAddress {
    origin: Url,
    feed: String,
    publisher: TenantId,
}

/// A next page that may be asked for: it is on the configured host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PageUri(Url);

impl PageUri {
    /// Its address.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.0
    }
}

impl ApiAddress {
    /// The API at `api` (such as `https://manage.office.com`), for `tenant`, on behalf of `publisher`.
    ///
    /// # Errors
    ///
    /// When it is not `https://`, or `http://` to a loopback address.
    pub fn new(api: &Url, tenant: TenantId, publisher: TenantId) -> Result<Self, BadApiAddress> {
        let loopback = match api.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => return Err(BadApiAddress::NotHttp(api.to_string())),
        };
        match api.scheme() {
            "https" => {}
            "http" if loopback => {}
            "http" => return Err(BadApiAddress::InTheClear(api.to_string())),
            _ => return Err(BadApiAddress::NotHttp(api.to_string())),
        }
        let base = api.as_str().trim_end_matches('/');
        let feed = format!("{base}/api/v1.0/{tenant}/activity/feed");
        Ok(Self { origin: api.clone(), feed, publisher })
    }

    pub(crate) fn subscriptions(&self) -> Option<Url> {
        self.call("subscriptions/list", "")
    }

    pub(crate) fn start(&self, content_type: ContentType) -> Option<Url> {
        self.call("subscriptions/start", &format!("contentType={content_type}&"))
    }

    /// Times go without a zone, which means UTC, so that no `+` has to be escaped.
    pub(crate) fn content(&self, content_type: ContentType, window: TimeRange) -> Option<Url> {
        let form = "%Y-%m-%dT%H:%M:%S";
        let (start, end) = (window.start.format(form), window.end.format(form));
        self.call(
            "subscriptions/content",
            &format!("contentType={content_type}&startTime={start}&endTime={end}&"),
        )
    }

    /// `None` for the two ids that a URL cannot hold: `.` and `..` mean a folder however they are escaped.
    pub(crate) fn blob(&self, content_id: &ContentId) -> Option<Url> {
        if matches!(content_id.as_str(), "." | "..") {
            return None;
        }
        let id = utf8_percent_encode(content_id.as_str(), SEGMENT);
        self.call(&format!("audit/{id}"), "")
    }

    fn call(&self, path: &str, query: &str) -> Option<Url> {
        Url::parse(&format!("{}/{path}?{query}{PUBLISHER}={}", self.feed, self.publisher)).ok()
    }

    /// Finds the next page in an answer's headers.
    ///
    /// # Errors
    ///
    /// [`ApiError::ForeignPage`] when it is on another host, [`ApiError::UnreadablePage`] when it is no URL.
    pub(crate) fn next_page(&self, headers: &HeaderMap) -> Result<Option<PageUri>, ApiError> {
        // The map's names are in lower case. The reference spells it NextPageUri, the troubleshooting page NextPageUrl.
        let Some(value) = headers.get("nextpageuri").or_else(|| headers.get("nextpageurl")) else {
            return Ok(None);
        };
        let text = value.to_str().map_err(|_| ApiError::UnreadablePage)?.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let mut url = self.origin.join(text).map_err(|_| ApiError::UnreadablePage)?;
        let ours = url.scheme() == self.origin.scheme()
            && url.host() == self.origin.host()
            && url.port_or_known_default() == self.origin.port_or_known_default()
            && url.username().is_empty()
            && url.password().is_none();
        if !ours {
            return Err(ApiError::ForeignPage { found: origin_of(&url), expected: origin_of(&self.origin) });
        }
        url.set_fragment(None);
        // The rest of the query is the server's own and stays as it is, byte for byte.
        let mut query: Vec<&str> = url
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty() && !is_publisher(pair))
            .collect();
        let publisher = format!("{PUBLISHER}={}", self.publisher);
        query.push(&publisher);
        let query = query.join("&");
        url.set_query(Some(&query));
        Ok(Some(PageUri(url)))
    }
}

fn is_publisher(pair: &str) -> bool {
    let name = pair.split('=').next().unwrap_or_default();
    percent_encoding::percent_decode_str(name)
        .decode_utf8()
        .is_ok_and(|name| name.eq_ignore_ascii_case(PUBLISHER))
}

/// Scheme, host and port: what may be said of a foreign URL, whose query could hold anything.
pub(crate) fn origin_of(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TENANT: &str = "41463f53-8812-40f4-890f-865bf6e35190";
    const BASE: &str =
        "https://manage.office.com/api/v1.0/41463f53-8812-40f4-890f-865bf6e35190/activity/feed";

    fn address(api: &str) -> ApiAddress {
        let tenant = TENANT.parse().unwrap();
        ApiAddress::new(&api.parse().unwrap(), tenant, tenant).unwrap()
    }

    fn blob(id: &str) -> String {
        address("https://manage.office.com").blob(&ContentId::try_from(id).unwrap()).unwrap().to_string()
    }

    fn next(api: &str, name: &'static str, value: &str) -> Result<Option<PageUri>, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        address(api).next_page(&headers)
    }

    #[test]
    fn every_call_names_the_publisher_once() {
        let address = address("https://manage.office.com/");
        let window = TimeRange {
            start: "2026-03-01T00:00:00.5Z".parse().unwrap(),
            end: "2026-03-02T00:00:00Z".parse().unwrap(),
        };
        let id = ContentId::try_from("a$b").unwrap();
        for (url, expected) in [
            (address.subscriptions(), format!("{BASE}/subscriptions/list?PublisherIdentifier={TENANT}")),
            (
                address.start(ContentType::Exchange),
                format!("{BASE}/subscriptions/start?contentType=Audit.Exchange&PublisherIdentifier={TENANT}"),
            ),
            (
                address.content(ContentType::DlpAll, window),
                format!(
                    "{BASE}/subscriptions/content?contentType=DLP.All&startTime=2026-03-01T00:00:00&\
                     endTime=2026-03-02T00:00:00&PublisherIdentifier={TENANT}"
                ),
            ),
            (address.blob(&id), format!("{BASE}/audit/a$b?PublisherIdentifier={TENANT}")),
        ] {
            assert_eq!(url.unwrap().as_str(), expected);
        }
    }

    #[test]
    fn a_content_id_stays_one_segment_of_the_path() {
        let modern = "20200705152230936019353$20200705152411486034089$audit_exchange$Audit_Exchange$emea0036";
        assert_eq!(blob(modern), format!("{BASE}/audit/{modern}?PublisherIdentifier={TENANT}"));
        for (id, escaped) in [
            ("../../secrets", "..%2F..%2Fsecrets"),
            ("a?b#c", "a%3Fb%23c"),
            ("a%2Fb", "a%252Fb"),
            ("a\\b c\n", "a%5Cb%20c%0A"),
            ("%2e%2e", "%252e%252e"),
            ("ü", "%C3%BC"),
        ] {
            assert_eq!(blob(id), format!("{BASE}/audit/{escaped}?PublisherIdentifier={TENANT}"), "{id}");
        }
        for folder in [".", ".."] {
            assert_eq!(
                address("https://manage.office.com").blob(&ContentId::try_from(folder).unwrap()),
                None
            );
        }
    }

    #[test]
    fn the_next_page_keeps_its_query_and_gains_the_publisher() {
        let api = "https://manage.office.com";
        let page = format!("{api}/api/v1/{TENANT}/activity/feed/subscriptions/content?nextPage=a%2Bb+c==");
        let expected = format!("{page}&PublisherIdentifier={TENANT}");
        for name in ["nextpageuri", "nextpageurl"] {
            assert_eq!(next(api, name, &page).unwrap().unwrap().url().as_str(), expected);
        }
        for publisher in ["PublisherIdentifier", "publisheridentifier", "Publisher%49dentifier"] {
            let named = format!("{page}&{publisher}=00000000-0000-0000-0000-000000000000#x");
            assert_eq!(next(api, "nextpageuri", &named).unwrap().unwrap().url().as_str(), expected);
        }
        assert_eq!(next(api, "nextpageuri", "").unwrap(), None);
        assert!(next(api, "nextpageuri", "https://manage.office.com:443/x").unwrap().is_some());
        assert_eq!(address(api).next_page(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn a_next_page_elsewhere_is_refused() {
        let api = "https://manage.office.com";
        for page in [
            "https://manage.office.com.evil.example/x",
            "https://evil.example/x?a=manage.office.com",
            "http://manage.office.com/x",
            "https://manage.office.com:444/x",
            "https://manage.office.com@evil.example/x",
            "https://user:password@manage.office.com/x",
            "//evil.example/x",
            "\\\\evil.example\\x",
            "ftp://manage.office.com/x",
            "javascript:alert(1)",
        ] {
            match next(api, "nextpageuri", page) {
                Err(ApiError::ForeignPage { found, expected }) => {
                    assert_eq!(expected, api);
                    assert!(!found.contains("password"));
                }
                other => panic!("{page}: {other:?}"),
            }
        }
        assert!(matches!(next(api, "nextpageuri", "https://[bad"), Err(ApiError::UnreadablePage)));
    }

    #[test]
    fn tokens_never_go_in_the_clear_but_to_this_machine() {
        let tenant: TenantId = TENANT.parse().unwrap();
        let new = |api: &str| ApiAddress::new(&api.parse().unwrap(), tenant, tenant).err();
        for fine in
            ["https://manage.office365.us", "http://127.0.0.1:9400", "http://[::1]:1", "http://localhost:1"]
        {
            assert_eq!(new(fine), None, "{fine}");
        }
        assert!(matches!(new("http://manage.office.com"), Some(BadApiAddress::InTheClear(_))));
        assert!(matches!(new("http://127.0.0.1.evil.example"), Some(BadApiAddress::InTheClear(_))));
        assert!(matches!(new("file:///etc"), Some(BadApiAddress::NotHttp(_))));
    }

    proptest! {
        /// Whatever the id, the URL stays below `…/audit/` on the configured host, and reads back as the id.
        #[test]
        fn no_content_id_leaves_its_place(id in "\\PC{1,60}") {
            prop_assume!(id != "." && id != "..");
            let url: Url = blob(&id).parse().unwrap();
            prop_assert_eq!(origin_of(&url), "https://manage.office.com");
            let segments: Vec<_> = url.path_segments().unwrap().collect();
            prop_assert_eq!(segments.len(), 7);
            prop_assert_eq!(&segments[..6], &["api", "v1.0", TENANT, "activity", "feed", "audit"][..]);
            let query = format!("PublisherIdentifier={TENANT}");
            prop_assert_eq!(url.query(), Some(query.as_str()));
        }

        /// Whatever a server names as its next page, it is on the configured host or refused.
        #[test]
        fn any_next_page_is_ours_or_refused(
            text in "(https?:)?(//|\\\\\\\\)?(manage\\.office\\.com|evil\\.example|[a-z@:/.]{0,12})(:[0-9]{1,5})?[/?#a-zA-Z=&%0-9@.]{0,40}",
        ) {
            let Ok(value) = reqwest::header::HeaderValue::from_str(&text) else { return Ok(()) };
            let mut headers = HeaderMap::new();
            headers.insert("nextpageuri", value);
            if let Ok(Some(page)) = address("https://manage.office.com").next_page(&headers) {
                prop_assert_eq!(origin_of(page.url()), "https://manage.office.com");
                prop_assert!(page.url().username().is_empty());
                let named = page.url().query_pairs().filter(|(name, _)| name.eq_ignore_ascii_case(PUBLISHER)).count();
                prop_assert_eq!(named, 1);
            }
        }
    }
}
