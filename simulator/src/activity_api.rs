//! The Management Activity API: who is let in, listing and fetching (Microsoft, "Office 365 Management Activity API
//! reference" and "Troubleshooting the Office 365 Management Activity API").

use std::sync::atomic::Ordering;

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use bytes::{BufMut, Bytes, BytesMut};
use chrono::{DateTime, Utc};
use percent_encoding::percent_decode_str;
use schemas::{ContentType, TenantId};
use serde_json::{Value, json};

use crate::{
    FaultKind,
    config::delta,
    dice::{hash, hash_text},
    feed::{BlobNumber, looks_like_content_id},
    page::{Place, seal, unseal},
    respond::{
        Answer, accepts_gzip, answer, api_error, bomb, empty, first_half, instead, pretty, reversed, send,
        throttled, unauthorized,
    },
    state::{LiveFeed, SnapshotKey, State, Tenant, lock},
    stats::RequestKind,
    subscriptions,
    token::{BadToken, Claims, is_api_audience},
    window::{self, Window, write_time},
};

pub(crate) const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

/// A request to the API.
pub(crate) struct ApiRequest<'a> {
    pub(crate) kind: RequestKind,
    pub(crate) tenant: &'a str,
    /// The origin by which the client knows the API.
    pub(crate) host: &'a str,
    pub(crate) path_and_query: &'a str,
    pub(crate) query: &'a [(String, String)],
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
    /// The last segment of a blob's path.
    pub(crate) content_id: &'a str,
}

/// A request that is refused.
pub(crate) type Refusal = Box<Answer>;

pub(crate) fn refuse(status: u16, code: &str, message: &str) -> Refusal {
    Box::new(api_error(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), code, message))
}

impl ApiRequest<'_> {
    /// A parameter; their names are not case-sensitive.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    }

    /// How the API calls the request in its messages about throttling.
    pub(crate) fn method(&self) -> &'static str {
        match self.kind {
            RequestKind::FetchBlob => "GetBlob",
            RequestKind::ListContent | RequestKind::NextPage => "GetContent",
            RequestKind::StartSubscription => "StartSubscription",
            RequestKind::StopSubscription => "StopSubscription",
            _ => "ListSubscriptions",
        }
    }
}

/// Answers a request.
pub(crate) async fn handle(state: &State, request: ApiRequest<'_>) -> Answer {
    let (tenant, claims) = match admit(state, &request) {
        Ok(admitted) => admitted,
        Err(refusal) => return *refusal,
    };
    let answer = match request.kind {
        RequestKind::StartSubscription => subscriptions::start(state, tenant, &request),
        RequestKind::StopSubscription => subscriptions::stop(state, tenant, &request),
        RequestKind::ListSubscriptions => Ok(subscriptions::list(state, tenant)),
        RequestKind::ListContent | RequestKind::NextPage => list(state, tenant, &claims, &request).await,
        RequestKind::FetchBlob => fetch(state, tenant, &claims, &request).await,
        RequestKind::FriendlyNames => friendly_names(&request),
        _ => Ok(empty(StatusCode::NOT_FOUND)),
    };
    answer.unwrap_or_else(|refusal| *refusal)
}

/// Token, tenant, publisher, quota: what every request must pass.
fn admit<'s>(state: &'s State, request: &ApiRequest<'_>) -> Result<(&'s Tenant, Claims), Refusal> {
    let breach = |name| state.stats.violation(name);
    let publisher = request.parameter("PublisherIdentifier");
    if publisher.is_none() {
        state.stats.change(|stats| stats.without_publisher_identifier += 1);
        breach("missing_publisher_identifier");
    }
    let revoked = state.revoked_before.load(Ordering::Relaxed);
    let claims = state.mint.check(request.headers, state.clock.now(), revoked).map_err(|bad| {
        let (name, text) = match bad {
            BadToken::Missing => ("no_token", "Authorization has been denied for this request."),
            BadToken::Invalid => {
                ("bad_token", "Authorization has been denied for this request: the token is not valid.")
            }
            BadToken::Expired => {
                ("expired_token", "Authorization has been denied for this request: the token has expired.")
            }
        };
        breach(name);
        Box::new(unauthorized(text))
    })?;
    if !is_api_audience(state, &claims.aud, request.host) {
        breach("wrong_audience");
        return Err(Box::new(unauthorized(
            "Authorization has been denied for this request: the token is for another audience.",
        )));
    }
    let Ok(id) = request.tenant.parse::<TenantId>() else {
        breach("tenant_not_a_guid");
        return Err(refuse(
            400,
            "AF20013",
            &format!("The tenant ID passed in the URL ({}) is not a valid GUID.", request.tenant),
        ));
    };
    let Some(tenant) = state.tenant(id) else {
        breach("unknown_tenant");
        return Err(refuse(
            400,
            "AF20011",
            &format!("Specified tenant ID ({id}) does not exist in the system or has been deleted."),
        ));
    };
    if claims.tid != id.to_string() {
        breach("wrong_tenant");
        let text = format!(
            "The tenant ID passed in the URL ({id}) does not match the tenant ID passed in the access token ({}).",
            claims.tid
        );
        return Err(refuse(400, "AF20010", &text));
    }
    if !claims.roles.iter().any(|role| role == "ActivityFeed.Read") {
        breach("missing_role");
        return Err(permission_denied(&claims));
    }
    if state.faults.read(|faults| faults.tenant_misconfigured) {
        state.stats.fault("tenant_misconfigured");
        return Err(refuse(
            400,
            "AF20012",
            &format!("Specified tenant ID ({id}) is incorrectly configured."),
        ));
    }
    if let Some(text) = publisher.filter(|text| text.parse::<TenantId>().is_err()) {
        breach("bad_publisher_identifier");
        return Err(refuse(
            400,
            "AF20002",
            &format!("Invalid parameter type: PublisherIdentifier ({text}). Expected type: Guid."),
        ));
    }
    if let Some(per_minute) = state.config.requests_per_minute {
        let publisher = publisher.map_or_else(|| NOBODY.to_owned(), str::to_lowercase);
        if let Err(wait) = tenant.count_request(&publisher, per_minute) {
            breach("over_quota");
            let how = state.config.throttle;
            let status = StatusCode::from_u16(how.status).unwrap_or(StatusCode::FORBIDDEN);
            return Err(Box::new(throttled(
                status,
                request.method(),
                &publisher,
                how.retry_after.then_some(wait),
            )));
        }
    }
    Ok((tenant, claims))
}

fn permission_denied(claims: &Claims) -> Refusal {
    let set = claims.roles.join(" ");
    let text = format!(
        "The permission set ({set}) sent in the request did not include the expected permission ActivityFeed.Read."
    );
    refuse(401, "AF10001", &text)
}

pub(crate) fn content_type(state: &State, request: &ApiRequest<'_>) -> Result<ContentType, Refusal> {
    let Some(text) = request.parameter("contentType") else {
        state.stats.violation("missing_parameter");
        return Err(refuse(400, "AF20001", "Missing parameter: contentType."));
    };
    // The API does not mind the case of a content type.
    ContentType::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(text)).ok_or_else(|| {
        state.stats.violation("unknown_content_type");
        refuse(400, "AF20020", &format!("The specified content type ({text}) is not valid."))
    })
}

/// Whether the application may read the feed and is subscribed to it; gives when its content begins to be listed.
fn readable(state: &State, live: &LiveFeed, claims: &Claims) -> Result<Option<DateTime<Utc>>, Refusal> {
    let kind = live.feed.content_type;
    let (denied, disabled, limbo, auditing_off) = state.faults.read(|faults| {
        let disabled = faults.subscription_disabled.contains(&kind);
        let limbo = faults.subscription_limbo.contains(&kind);
        (faults.permission_denied.contains(&kind), disabled, limbo, faults.auditing_off)
    });
    if denied {
        state.stats.fault("permission_denied");
        return Err(permission_denied(claims));
    }
    let subscription = *lock(&live.subscription);
    for (happens, name) in [(limbo, "subscription_limbo"), (auditing_off, "auditing_off")] {
        if happens {
            state.stats.fault(name);
        }
    }
    if disabled || limbo || subscription.known && (auditing_off || !subscription.enabled) {
        if disabled {
            state.stats.fault("subscription_disabled");
        }
        return Err(refuse(400, "AF20023", "The subscription was disabled."));
    }
    if !subscription.enabled {
        state.stats.violation("not_subscribed");
        return Err(refuse(
            400,
            "AF20022",
            &format!("No subscription found for the specified content type ({kind})."),
        ));
    }
    Ok(subscription.started.map(|started| started + delta(state.config.first_content_delay)))
}

/// `GET /subscriptions/content`
async fn list(
    state: &State,
    tenant: &Tenant,
    claims: &Claims,
    request: &ApiRequest<'_>,
) -> Result<Answer, Refusal> {
    let kind = content_type(state, request)?;
    let live = tenant.live(kind);
    let first_content = readable(state, live, claims)?;
    let fault = state.faults.on_turn(hash(&[live.feed.seed, 1]), FaultKind::LIST);
    if let Some((kind, rule)) = fault {
        state.stats.fault(kind.name());
        if let Some(instead) = instead(state, (kind, rule), request.method(), request.path_and_query) {
            return Ok(instead);
        }
    }
    let now = state.clock.now();
    let partial = state.faults.read(|faults| faults.partial_listing);
    let window = window::read(request.parameter("startTime"), request.parameter("endTime"), now, partial)
        .map_err(|bad| {
            state.stats.violation(bad.violation);
            refuse(400, bad.code, &bad.message)
        })?;
    let place = match request.parameter("nextPage") {
        None => Place { at: now, offset: 0 },
        Some(text) => next_place(state, live, window, text)?,
    };
    let key = SnapshotKey { start: window.start, end: window.end, at: place.at };
    let snapshot = if first_content.is_some_and(|first| place.at < first) {
        [].into()
    } else {
        live.snapshot(key, |blobs| with_doubles(state, live, blobs))
    };
    let origin = state.origin(request.host);
    let end = snapshot.len().min(place.offset.saturating_add(state.config.page_size));
    let page: Value = snapshot
        .get(place.offset..end)
        .unwrap_or_default()
        .iter()
        .filter_map(|blob| entry(state, tenant, live, *blob, &origin))
        .collect();
    let mut answer = send(state, fault, page.to_string().into(), accepts_gzip(request.headers), None).await;
    if end < snapshot.len() {
        let next = Place { at: place.at, offset: end };
        if let Ok(uri) = HeaderValue::from_str(&next_page_uri(state, tenant, live, window, &next, &origin)) {
            answer.headers_mut().insert("nextpageuri", uri);
        }
    }
    Ok(answer)
}

fn next_place(state: &State, live: &LiveFeed, window: Window, text: &str) -> Result<Place, Refusal> {
    let invalid = || refuse(400, "AF20031", &format!("Invalid nextPage Input: {text}."));
    let stale = state.faults.on_turn(hash(&[live.feed.seed, 2]), &[FaultKind::StaleNextPage]);
    if stale.is_some() {
        state.stats.fault(FaultKind::StaleNextPage.name());
        return Err(invalid());
    }
    unseal(live.feed.seed, window, text).ok_or_else(|| {
        state.stats.violation("invalid_next_page");
        invalid()
    })
}

/// Lists some blobs twice: the second time right behind the first, or a page later.
fn with_doubles(state: &State, live: &LiveFeed, blobs: Vec<BlobNumber>) -> Vec<BlobNumber> {
    let kind = FaultKind::DuplicateListing;
    if state.faults.read(|faults| faults.rule(kind)).is_none() {
        return blobs;
    }
    let page = state.config.page_size;
    let mut listed = Vec::with_capacity(blobs.len());
    let mut later = std::collections::BTreeMap::<usize, Vec<BlobNumber>>::new();
    for (place, blob) in blobs.iter().copied().enumerate() {
        listed.push(blob);
        if state.faults.read(|faults| faults.has(kind, live.feed.seed, blob.item())) {
            state.stats.fault(kind.name());
            if blob.item().is_multiple_of(2) {
                listed.push(blob);
            } else {
                later.entry(place + page).or_default().push(blob);
            }
        }
        listed.extend(later.remove(&place).unwrap_or_default());
    }
    listed.extend(later.into_values().flatten());
    listed
}

/// One blob in a listing.
fn entry(state: &State, tenant: &Tenant, live: &LiveFeed, blob: BlobNumber, origin: &str) -> Option<Value> {
    let feed = &live.feed;
    let id = feed.content_id(blob)?;
    let uri = if state.faults.read(|faults| faults.has(FaultKind::BrokenContentUri, feed.seed, blob.item())) {
        state.stats.fault(FaultKind::BrokenContentUri.name());
        format!("http://localhost/{NOBODY}/activity/feed/audit/{id}")
    } else {
        format!("{origin}/api/v1.0/{}/activity/feed/audit/{id}", tenant.config.tenant_id)
    };
    let mut entry = json!({
        "contentType": feed.content_type.as_str(), "contentId": id, "contentUri": uri,
        "contentCreated": write_time(feed.created(blob)?), "contentExpiration": write_time(feed.expires(blob)?),
    });
    let padding = state.faults.read(|faults| faults.padded_entries);
    if padding > 0 {
        state.stats.fault("padded_entries");
        entry["padding"] = "x".repeat(padding).into();
    }
    Some(entry)
}

fn next_page_uri(
    state: &State,
    tenant: &Tenant,
    live: &LiveFeed,
    window: Window,
    place: &Place,
    origin: &str,
) -> String {
    let feed = &live.feed;
    let other = state.faults.on_turn(hash(&[feed.seed, 3]), &[FaultKind::NextPageOtherHost]);
    let origin = if other.is_some() {
        state.stats.fault(FaultKind::NextPageOtherHost.name());
        &state.other_origin
    } else {
        origin
    };
    let version = if state.config.next_page_v1 { "v1" } else { "v1.0" };
    let publisher = if state.faults.read(|faults| faults.lost_publisher_id) {
        String::new()
    } else {
        format!("&PublisherIdentifier={}", tenant.config.tenant_id)
    };
    format!(
        "{origin}/api/{version}/{}/activity/feed/subscriptions/content?contentType={}&startTime={}&endTime={}&nextPage={}{publisher}",
        tenant.config.tenant_id,
        feed.content_type,
        write_time(window.start),
        write_time(window.end),
        seal(feed.seed, window, place)
    )
}

/// `GET /audit/{contentId}`
async fn fetch(
    state: &State,
    tenant: &Tenant,
    claims: &Claims,
    request: &ApiRequest<'_>,
) -> Result<Answer, Refusal> {
    let id = percent_decode_str(request.content_id).decode_utf8_lossy();
    let found = tenant.all().iter().find_map(|live| live.feed.find(&id).map(|blob| (live, blob)));
    let Some((live, blob)) = found else {
        state.stats.violation("unknown_blob");
        return Err(if looks_like_content_id(&id) {
            refuse(404, "AF20050", &format!("The specified content ({id}) does not exist."))
        } else {
            refuse(400, "AF20052", &format!("Blob key {id} is invalid."))
        });
    };
    let feed = &live.feed;
    readable(state, live, claims)?;
    let now = state.clock.now();
    let chosen = |kind: FaultKind| {
        let has = state.faults.read(|faults| faults.has(kind, feed.seed, blob.item()));
        if has {
            state.stats.fault(kind.name());
        }
        has
    };
    let past_expiry = feed.expires(blob).is_none_or(|expires| expires <= now);
    if past_expiry || chosen(FaultKind::Expired) {
        return Err(refuse(
            400,
            "AF20051",
            &format!(
                "Content requested with the key {id} has already expired. Content older than 7 days cannot be retrieved."
            ),
        ));
    }
    if feed.available(blob).is_none_or(|available| available > now) || chosen(FaultKind::Gone) {
        return Err(refuse(404, "AF20050", &format!("The specified content ({id}) does not exist.")));
    }
    let fault = state.faults.on_blob(
        feed.seed,
        match blob {
            BlobNumber::Generated(number) => number,
            // Given blobs suffer on their own account.
            BlobNumber::Given(_) => hash_text(&id) & !0xFF | blob.item(),
        },
    );
    if let Some((kind, rule)) = fault {
        state.stats.fault(kind.name());
        if let Some(instead) = instead(state, (kind, rule), request.method(), request.path_and_query) {
            return Ok(instead);
        }
    }
    let Some(mut body) = feed.body(&tenant.cast, blob) else {
        return Ok(empty(StatusCode::NOT_FOUND));
    };
    if chosen(FaultKind::GzipBomb) {
        return Ok(bomb(&body, state.config.gzip && accepts_gzip(request.headers)));
    }
    let mut compressed = feed.compressed(blob);
    if lock(&live.served).contains(&blob) && chosen(FaultKind::OtherBody) {
        (body, compressed) = (reversed(&body), None);
    }
    if chosen(FaultKind::PrettyPrinted) {
        (body, compressed) = (pretty(&body), None);
    }
    if chosen(FaultKind::Bom) {
        (body, compressed) = (with_bom(&body), None);
    }
    let paged = matches!(fault, Some((FaultKind::BlobNextPage, _)));
    if paged {
        (body, compressed) = (first_half(&body), None);
    }
    let whole = matches!(fault, None | Some((FaultKind::SlowFirstByte, _)));
    let mut answer = send(state, fault, body, accepts_gzip(request.headers), compressed).await;
    if paged {
        let next = format!("{}{}&nextPage=2", state.origin(request.host), request.path_and_query);
        if let Ok(uri) = HeaderValue::from_str(&next) {
            answer.headers_mut().insert("nextpageuri", uri);
        }
    }
    if whole {
        count_served(state, live, blob, &answer);
    }
    Ok(answer)
}

fn count_served(state: &State, live: &LiveFeed, blob: BlobNumber, answer: &Answer) {
    use axum::body::HttpBody;
    let first = lock(&live.served).insert(blob);
    let bytes = answer.body().size_hint().exact().unwrap_or_default();
    state.stats.change(|stats| {
        stats.blob_bytes += bytes;
        if first {
            stats.blobs_served += 1;
        } else {
            stats.blobs_served_again += 1;
        }
    });
}

fn with_bom(body: &[u8]) -> Bytes {
    let mut marked = BytesMut::with_capacity(body.len() + 3);
    marked.put_slice(b"\xEF\xBB\xBF");
    marked.put_slice(body);
    marked.freeze()
}

/// `GET /resources/dlpSensitiveTypes`
fn friendly_names(request: &ApiRequest<'_>) -> Result<Answer, Refusal> {
    let languages =
        request.headers.get("accept-language").and_then(|value| value.to_str().ok()).unwrap_or("en-US");
    if languages.contains(',') {
        return Err(refuse(400, "AF20053", "There can be only one language in the Accept-Language header."));
    }
    let names = json!([
        { "id": "50842eb7-edc8-4019-85dd-5a5c1f2bb085", "name": "Credit Card Number" },
        { "id": "cb353f78-2b72-4c3c-8827-92ebe4f69fdf", "name": "ABA Routing Number" },
    ]);
    Ok(answer(StatusCode::OK, HeaderValue::from_static("application/json"), names.to_string()))
}
