//! Subscriptions: started, stopped and listed (Activity API reference, "Start a subscription" and what follows).

use axum::http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::{
    activity_api::{ApiRequest, NOBODY, Refusal, content_type, refuse},
    config::delta,
    respond::{Answer, answer, empty, json_answer, throttled},
    state::{State, Tenant, lock},
};

/// `POST /subscriptions/start`
pub(crate) fn start(state: &State, tenant: &Tenant, request: &ApiRequest<'_>) -> Result<Answer, Refusal> {
    let kind = content_type(state, request)?;
    if !request.body.is_empty() {
        let body: Option<Value> = serde_json::from_slice(request.body).ok();
        match body.as_ref().map(|body| &body["webhook"]) {
            None => {
                return Err(refuse(
                    400,
                    "AF20002",
                    "Invalid parameter type: the request body. Expected type: JSON.",
                ));
            }
            Some(Value::Null) => {}
            // Nobody listens at a simulated client's webhook.
            Some(_) => return Err(refuse(400, "AF20021", "The webhook endpoint could not be validated.")),
        }
    }
    // Whatever becomes of it, it was asked for.
    let now = state.clock.now();
    let mut subscription = lock(&tenant.live(kind).subscription);
    let spacing = delta(state.config.start_spacing);
    let soon = subscription.asked.is_some_and(|asked| now - asked < spacing);
    subscription.asked = Some(now);
    if soon {
        state.stats.violation("started_too_soon");
        return Err(Box::new(throttled(
            StatusCode::FORBIDDEN,
            request.method(),
            request.parameter("PublisherIdentifier").unwrap_or(NOBODY),
            None,
        )));
    }
    if state.faults.read(|faults| faults.auditing_off) {
        state.stats.fault("auditing_off");
        // An exception's text in place of a code (Troubleshooting the Office 365 Management Activity API).
        let text = format!(
            "Microsoft.Office.Compliance.Audit.DataServiceException: Tenant {} does not exist.",
            tenant.config.tenant_id
        );
        return Err(Box::new(answer(StatusCode::BAD_REQUEST, HeaderValue::from_static("text/plain"), text)));
    }
    let already = || refuse(400, "AF20024", "The subscription is already enabled. No property change.");
    if state.faults.read(|faults| faults.subscription_limbo.contains(&kind)) {
        state.stats.fault("subscription_limbo");
        return Err(already());
    }
    let disabled = state.faults.read(|faults| faults.subscription_disabled.contains(&kind));
    if subscription.enabled && !disabled {
        state.stats.violation("started_twice");
        return Err(already());
    }
    if disabled {
        let lifted = state.faults.change(|faults| {
            faults.subscription_disabled.remove(&kind);
            Ok(())
        });
        debug_assert_eq!(lifted, Ok(()), "this fault can be lifted at any time");
    }
    (subscription.enabled, subscription.known, subscription.started) = (true, true, Some(now));
    Ok(json_answer(
        StatusCode::OK,
        &json!({ "contentType": kind.as_str(), "status": "enabled", "webhook": null }),
    ))
}

/// `POST /subscriptions/stop`
pub(crate) fn stop(state: &State, tenant: &Tenant, request: &ApiRequest<'_>) -> Result<Answer, Refusal> {
    let kind = content_type(state, request)?;
    state.stats.violation("stopped_a_subscription");
    let mut subscription = lock(&tenant.live(kind).subscription);
    if !subscription.known {
        return Err(refuse(
            400,
            "AF20022",
            &format!("No subscription found for the specified content type ({kind})."),
        ));
    }
    subscription.enabled = false;
    Ok(empty(StatusCode::OK))
}

/// `GET /subscriptions/list`
pub(crate) fn list(state: &State, tenant: &Tenant) -> Answer {
    let list: Value = tenant
        .all()
        .iter()
        .filter_map(|live| {
            let subscription = *lock(&live.subscription);
            let kind = live.feed.content_type;
            let (disabled, limbo, auditing_off) = state.faults.read(|faults| {
                let disabled = faults.subscription_disabled.contains(&kind);
                (disabled, faults.subscription_limbo.contains(&kind), faults.auditing_off)
            });
            let enabled = subscription.enabled && !disabled && !auditing_off;
            let status = if enabled { "enabled" } else { "disabled" };
            ((subscription.known || disabled) && !limbo)
                .then(|| json!({ "contentType": kind.as_str(), "status": status, "webhook": null }))
        })
        .collect();
    json_answer(StatusCode::OK, &list)
}
