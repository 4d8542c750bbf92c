//! Asking for acknowledgements: one task for each channel on which some are awaited.
//!
//! The indexer says `true` once, and `false` for what it has not indexed yet, does not know or has forgotten. So nothing
//! but `true` counts, whatever goes wrong; what stays unanswered is sent again when its time is over.

use std::{sync::Arc, time::Duration};

use tracing::warn;

use super::{
    Inner,
    answer::{ACKNOWLEDGEMENT_OFF, indexed},
    channel::{Channel, Fate},
    endpoint::Endpoint,
    request::Unanswered,
};

/// The pause before the first question, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// How many ids are asked about at once.
const AT_ONCE: usize = 1000;

/// Why there is no answer.
enum Trouble {
    /// The token does not acknowledge.
    Off(String),
    /// It can pass.
    Passing(String),
}

/// Asks in the background until nothing is awaited on the channel.
pub(super) fn begin(inner: &Arc<Inner>, endpoint: &Arc<Endpoint>, channel: &Arc<Channel>) {
    let (inner, endpoint, channel) = (Arc::clone(inner), Arc::clone(endpoint), Arc::clone(channel));
    tokio::spawn(async move {
        let stop = inner.stop.clone();
        tokio::select! {
            () = ask_until_none_is_awaited(&inner, &endpoint, &channel) => {}
            () = stop.cancelled() => {}
        }
    });
}

async fn ask_until_none_is_awaited(inner: &Inner, endpoint: &Endpoint, channel: &Channel) {
    let mut pause = PAUSE.0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = channel.ask_now.notified() => {}
        }
        let awaited = channel.awaited();
        if awaited.is_empty() {
            return;
        }
        let mut some = false;
        for numbers in awaited.chunks(AT_ONCE) {
            match ask(inner, endpoint, channel, numbers).await {
                Ok(indexed) => {
                    for took in channel.indexed(&indexed) {
                        some = true;
                        inner.counters.acknowledged(took);
                    }
                }
                Err(Trouble::Off(why)) => {
                    channel.retire();
                    channel.end(&Fate::Halted(why));
                    return;
                }
                Err(Trouble::Passing(why)) => {
                    warn!(sink = %inner.context.name, "cannot ask for acknowledgements, tried again: {why}");
                    channel.troubled(why);
                    break;
                }
            }
        }
        pause = if some { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
    }
}

/// Asks about these numbers, ascending; returns those that are indexed.
async fn ask(
    inner: &Inner,
    endpoint: &Endpoint,
    channel: &Channel,
    numbers: &[u64],
) -> Result<Vec<u64>, Trouble> {
    inner.counters.polled();
    let question = serde_json::json!({ "acks": numbers }).to_string();
    let answered = match inner.requests.ask(&endpoint.ack, Some(channel), question).await {
        Ok(answered) => answered,
        Err(Unanswered::Local(why) | Unanswered::NotSent(why) | Unanswered::Unknown(why)) => {
            return Err(Trouble::Passing(format!("{}: {why}", endpoint.url)));
        }
    };
    if answered.http == 200
        && let Some(mut indexed) = indexed(&answered.body)
    {
        indexed.retain(|number| numbers.binary_search(number).is_ok());
        return Ok(indexed);
    }
    let said = answered.said();
    let what = inner.told(endpoint, answered.http, &said);
    if said.code == Some(14) {
        return Err(Trouble::Off(format!("{what}; {ACKNOWLEDGEMENT_OFF}")));
    }
    Err(Trouble::Passing(what))
}
