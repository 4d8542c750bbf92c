//! Waking whoever waits for work, without losing a wake-up and without asking the database over and over.
//!
//! A waker counts events. Whoever asked for work and got less than wanted has seen the count of that moment; waiting
//! ends at once when the count has moved on since, and at the time when the first deferred work is due again.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::sync::watch;

use crate::clock::Clock;

/// One kind of work that somebody waits for.
#[derive(Debug)]
pub(crate) struct Waker {
    events: watch::Sender<u64>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Events up to the last time when there was nothing more to have; `None` before the first.
    events: Option<u64>,
    /// When deferred work is due.
    next_due: Option<DateTime<Utc>>,
}

impl Default for Waker {
    fn default() -> Self {
        Self { events: watch::Sender::new(0), seen: Mutex::default() }
    }
}

impl Waker {
    /// Something may be due.
    pub(crate) fn wake(&self) {
        self.events.send_modify(|events| *events += 1);
    }

    /// Notes that everything that was due was taken.
    pub(crate) fn drained(&self, next_due: Option<DateTime<Utc>>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = Seen { events: Some(*self.events.borrow()), next_due };
    }

    /// Resolves when something may be due, at the latest after `at_most`.
    pub(crate) async fn wait(&self, clock: &Clock, at_most: Duration) {
        let mut events = self.events.subscribe();
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.events != Some(*events.borrow_and_update()) {
            return;
        }
        let until_due = seen.next_due.map(|due| (due - clock.now()).to_std().unwrap_or_default());
        let sleep = tokio::time::sleep(until_due.map_or(at_most, |wait| wait.min(at_most)));
        tokio::select! {
            _ = events.changed() => {}
            () = sleep => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_wake_up_is_lost() {
        let (waker, clock) = (Waker::default(), Clock::system());
        let for_ever = Duration::from_secs(3600);
        // Nobody has asked yet.
        waker.wait(&clock, for_ever).await;
        waker.drained(None);
        // Between the question and the waiting.
        waker.wake();
        waker.wait(&clock, for_ever).await;
        waker.drained(None);
        tokio::join!(waker.wait(&clock, for_ever), async { waker.wake() });
        waker.drained(Some(clock.now() - chrono::TimeDelta::seconds(1)));
        waker.wait(&clock, for_ever).await;
    }
}
