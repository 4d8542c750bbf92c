//! Trying the receivers without sending an event.
//!
//! A request without any event tells whether the token is taken: who is let in is told that there was no data. A
//! question for acknowledgements tells whether the token has them.

use futures_util::future::join_all;
use tracing::warn;

use super::{
    Inner,
    answer::{ACKNOWLEDGEMENT_OFF, Meaning, indexed, meaning},
    channel::Channel,
    config::Acknowledgement,
    endpoint::Endpoint,
    request::Unanswered,
};
use crate::sink::{DeliverError, Disposition};

/// HEC's code for a request without any event, which is answered to whoever is let in.
const NO_DATA: u64 = 5;

impl Inner {
    /// Whether events could be delivered, as far as that can be told without one.
    pub(super) async fn probe(&self) -> Result<(), DeliverError> {
        let tried = join_all(self.pool.endpoints().iter().map(|endpoint| async {
            self.try_health(endpoint).await?;
            self.try_token(endpoint).await
        }));
        self.best_of(tried.await)
    }

    /// Whether the receivers let the token in, and acknowledge if they have to.
    pub(super) async fn try_tokens(&self) -> Result<(), DeliverError> {
        let tried = join_all(self.pool.endpoints().iter().map(|endpoint| self.try_token(endpoint)));
        self.best_of(tried.await)
    }

    /// One receiver is enough to go on, unless another needs a person.
    fn best_of(&self, tried: Vec<Result<(), DeliverError>>) -> Result<(), DeliverError> {
        let works = tried.iter().any(Result::is_ok);
        let mut failed = None;
        for error in tried.into_iter().filter_map(Result::err) {
            if error.disposition == Disposition::Halt {
                return Err(error);
            }
            if works {
                warn!(sink = %self.context.name, "one of the receivers is out of order: {error}");
            }
            failed.get_or_insert(error);
        }
        failed.filter(|_| !works).map_or(Ok(()), Err)
    }

    async fn try_health(&self, endpoint: &Endpoint) -> Result<(), DeliverError> {
        let answered = self.requests.health(&endpoint.health).await;
        let answered = answered.map_err(|error| unreached(endpoint, error))?;
        // Other answers than a receiver's own say nothing about it: a load balancer may keep this path for itself.
        let said = answered.said();
        match said.code {
            Some(18..=20 | 23) => Err(DeliverError::retry(self.told(endpoint, answered.http, &said))),
            _ => Ok(()),
        }
    }

    async fn try_token(&self, endpoint: &Endpoint) -> Result<(), DeliverError> {
        let acknowledges = self.config.acknowledgement == Acknowledgement::Indexer;
        // A channel of its own: ids of the other ones must not be used up.
        let channel = acknowledges.then(Channel::new);
        let answered = self.requests.ask(&endpoint.event, channel.as_deref(), String::new()).await;
        let answered = answered.map_err(|error| unreached(endpoint, error))?;
        let said = answered.said();
        if said.code != Some(NO_DATA) {
            let what = self.told(endpoint, answered.http, &said);
            match meaning(answered.http, answered.after, &said) {
                Meaning::Refused { advice } => return Err(DeliverError::halt(format!("{what}; {advice}"))),
                Meaning::Busy { .. } | Meaning::Failed { .. } => return Err(DeliverError::retry(what)),
                // Somebody read the token and went on to the events.
                Meaning::Taken { .. }
                | Meaning::Poisoned { .. }
                | Meaning::WrongIndex { .. }
                | Meaning::TooLarge => {}
            }
        }
        match channel {
            Some(channel) => self.try_acknowledgement(endpoint, &channel).await,
            None => Ok(()),
        }
    }

    async fn try_acknowledgement(&self, endpoint: &Endpoint, channel: &Channel) -> Result<(), DeliverError> {
        let question = serde_json::json!({ "acks": [0] }).to_string();
        let answered = self.requests.ask(&endpoint.ack, Some(channel), question).await;
        let answered = answered.map_err(|error| unreached(endpoint, error))?;
        if answered.http == 200 && indexed(&answered.body).is_some() {
            return Ok(());
        }
        let said = answered.said();
        let what = self.told(endpoint, answered.http, &said);
        let off = || Err(DeliverError::halt(format!("{what}; {ACKNOWLEDGEMENT_OFF}")));
        // Some receivers without acknowledgements have no address for the question, others take it for an event.
        if said.code == Some(14) || said.code == Some(NO_DATA) || matches!(answered.http, 404 | 405 | 501) {
            return off();
        }
        match meaning(answered.http, answered.after, &said) {
            Meaning::Taken { .. } | Meaning::Poisoned { .. } => off(),
            Meaning::Refused { advice } => Err(DeliverError::halt(format!("{what}; {advice}"))),
            _ => Err(DeliverError::retry(format!("cannot ask for acknowledgements: {what}"))),
        }
    }
}

fn unreached(endpoint: &Endpoint, error: Unanswered) -> DeliverError {
    match error {
        Unanswered::Local(why) => DeliverError::halt(why),
        Unanswered::NotSent(why) | Unanswered::Unknown(why) => {
            DeliverError::retry(format!("{}: {why}", endpoint.url))
        }
    }
}
