//! A channel: a random id under which one indexer numbers requests, and the acknowledgements that are awaited on it.
//!
//! An indexer counts the requests of a channel from the first one on, and no number comes twice. When one does, it has
//! started anew, or a load balancer has sent requests of the channel to several indexers; either way a number no longer
//! tells whose batch was indexed, and nothing on the channel can be believed any more.
//!
//! Splunk forgets a channel that is idle for 10 minutes (`ackIdleCleanup` and `maxIdleTime` of inputs.conf) and then
//! counts from the first number again. So a channel that was idle for half of that is not used again.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};
use uuid::Uuid;

use super::cookies::Cookies;

/// How many runs of numbers are remembered. An indexer's numbers are one run; only the oldest are forgotten.
const MOST_RUNS: usize = 1024;

/// How long a channel may be idle and be used again. Splunk's `maxIdleTime` is 600 s unless it is configured otherwise.
pub(super) const MOST_IDLE: Duration = Duration::from_secs(300);

/// What became of what an acknowledgement is awaited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// The indexer has it.
    Indexed,
    /// Nobody will ever know.
    Unknown(String),
    /// A person has to do something before any acknowledgement comes.
    Halted(String),
}

/// The number was given out on this channel before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GivenTwice;

/// A channel with one receiver.
#[derive(Debug)]
pub(super) struct Channel {
    /// Its id.
    pub(super) id: Uuid,
    cookies: Mutex<Cookies>,
    acks: Mutex<Acks>,
    opening: Arc<tokio::sync::Mutex<()>>,
    opened: AtomicBool,
    retired: AtomicBool,
    /// Asks for the acknowledgements now.
    pub(super) ask_now: Notify,
}

#[derive(Debug)]
struct Acks {
    given: Runs,
    /// When it was last given to a request, or a number of it was given out or asked for.
    used: Instant,
    awaited: BTreeMap<u64, Awaited>,
    /// Whether somebody asks for them.
    asked_for: bool,
    /// What went wrong when they were last asked for.
    trouble: Option<String>,
}

#[derive(Debug)]
struct Awaited {
    since: Instant,
    tell: oneshot::Sender<Fate>,
}

/// An acknowledgement that is awaited; dropping it stops that.
#[derive(Debug)]
pub(super) struct Await {
    channel: Arc<Channel>,
    number: u64,
    fate: oneshot::Receiver<Fate>,
}

/// Numbers, as runs.
#[derive(Debug, Default)]
struct Runs(BTreeMap<u64, u64>);

impl Runs {
    /// Adds a number; whether it is new.
    fn insert(&mut self, number: u64) -> bool {
        let before = self.0.range(..=number).next_back().map(|(start, end)| (*start, *end));
        if before.is_some_and(|(_, end)| number <= end) {
            return false;
        }
        let next = number.checked_add(1).and_then(|next| self.0.remove(&next));
        let end = next.unwrap_or(number);
        match before {
            Some((start, before)) if before + 1 == number => self.0.insert(start, end),
            _ => self.0.insert(number, end),
        };
        if self.0.len() > MOST_RUNS {
            self.0.pop_first();
        }
        true
    }
}

impl Channel {
    /// A new one.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            id: Uuid::new_v4(),
            cookies: Mutex::default(),
            acks: Mutex::new(Acks {
                given: Runs::default(),
                used: Instant::now(),
                awaited: BTreeMap::new(),
                asked_for: false,
                trouble: None,
            }),
            opening: Arc::default(),
            opened: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            ask_now: Notify::new(),
        })
    }

    /// Waits for the turn to open it. Until it is open one request goes at a time, so that no other one leaves before the
    /// cookie that leads to the same indexer is there.
    pub(super) async fn opening(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.opening).lock_owned().await
    }

    /// Whether a request was answered on it.
    pub(super) fn is_open(&self) -> bool {
        self.opened.load(Ordering::Acquire)
    }

    /// A request was answered on it.
    pub(super) fn opened(&self) {
        self.opened.store(true, Ordering::Release);
    }

    /// Whether nothing new may be sent on it.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Nothing new is sent on it any more; what is awaited goes on to be asked for.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Takes it for another request, if it is not retired; it is when it was idle for so long that the receiver may have
    /// forgotten it.
    pub(super) fn use_again(&self) -> bool {
        let mut acks = lock(&self.acks);
        if acks.awaited.is_empty() && acks.used.elapsed() >= MOST_IDLE {
            self.retire();
        }
        acks.used = Instant::now();
        !self.is_retired()
    }

    /// The cookies to send.
    pub(super) fn cookie_header(&self) -> Option<String> {
        lock(&self.cookies).header()
    }

    /// Takes cookies of an answer.
    pub(super) fn set_cookie(&self, header: &str) {
        lock(&self.cookies).set(header);
    }

    /// Awaits an acknowledgement; and whether somebody has to begin to ask for it.
    ///
    /// # Errors
    ///
    /// When the number was given out before. Then the channel is of no use, and everything that is awaited on it is
    /// told so.
    pub(super) fn awaits(self: &Arc<Self>, number: u64) -> Result<(Await, bool), GivenTwice> {
        let mut acks = lock(&self.acks);
        acks.used = Instant::now();
        if !acks.given.insert(number) {
            drop(acks);
            self.retire();
            self.end(&Fate::Unknown(
                "the receiver gave an acknowledgement id a second time: it was restarted, or a load balancer sends the \
                 requests of one channel to several indexers (then give it sticky sessions, or list the indexers in \
                 `urls`)"
                    .to_owned(),
            ));
            return Err(GivenTwice);
        }
        let (tell, fate) = oneshot::channel();
        acks.awaited.insert(number, Awaited { since: Instant::now(), tell });
        let begin = !std::mem::replace(&mut acks.asked_for, true);
        Ok((Await { channel: Arc::clone(self), number, fate }, begin))
    }

    /// What is awaited. With nothing, whoever asks stops asking.
    pub(super) fn awaited(&self) -> Vec<u64> {
        let mut acks = lock(&self.acks);
        if !acks.awaited.is_empty() {
            acks.used = Instant::now();
        }
        acks.asked_for = !acks.awaited.is_empty();
        acks.awaited.keys().copied().collect()
    }

    /// How many are awaited.
    pub(super) fn waiting(&self) -> usize {
        lock(&self.acks).awaited.len()
    }

    /// The indexer has these; returns how long each took.
    pub(super) fn indexed(&self, numbers: &[u64]) -> Vec<Duration> {
        let mut acks = lock(&self.acks);
        acks.trouble = None;
        let mut took = Vec::new();
        for number in numbers {
            if let Some(awaited) = acks.awaited.remove(number) {
                took.push(awaited.since.elapsed());
                // Who stopped waiting meanwhile has said so to the delivery loop.
                let _ = awaited.tell.send(Fate::Indexed);
            }
        }
        took
    }

    /// Asking went wrong.
    pub(super) fn troubled(&self, what: String) {
        lock(&self.acks).trouble = Some(what);
    }

    /// Nothing that is awaited will come.
    pub(super) fn end(&self, fate: &Fate) {
        let mut acks = lock(&self.acks);
        acks.asked_for = false;
        for (_, awaited) in std::mem::take(&mut acks.awaited) {
            let _ = awaited.tell.send(fate.clone());
        }
    }
}

impl Await {
    /// What becomes of it.
    pub(super) async fn fate(&mut self) -> Fate {
        match (&mut self.fate).await {
            Ok(fate) => fate,
            Err(_) => Fate::Unknown("nobody asks for the acknowledgement any more".to_owned()),
        }
    }

    /// Why it may not come, as far as is known.
    pub(super) fn trouble(&self) -> Option<String> {
        lock(&self.channel.acks).trouble.clone()
    }
}

impl Drop for Await {
    fn drop(&mut self) {
        lock(&self.channel.acks).awaited.remove(&self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here is left half changed, so a panic elsewhere is no reason to stop.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn only_what_the_indexer_has_is_confirmed_and_once() {
        let channel = Channel::new();
        let (mut first, begin) = channel.awaits(0).unwrap();
        assert!(begin);
        let (mut second, begin) = channel.awaits(1).unwrap();
        assert!(!begin, "somebody asks already");
        assert_eq!(channel.awaited(), [0, 1]);
        assert_eq!(channel.indexed(&[1, 7]).len(), 1);
        assert_eq!(second.fate().now_or_never(), Some(Fate::Indexed));
        assert_eq!(first.fate().now_or_never(), None);
        assert!(channel.indexed(&[1]).is_empty(), "it was told before");
        drop(first);
        assert_eq!(channel.waiting(), 0, "who is dropped waits no more");
        assert!(channel.awaited().is_empty());
        assert!(channel.awaits(2).unwrap().1, "nobody asks any more");
    }

    #[tokio::test]
    async fn a_number_that_comes_twice_ends_the_channel() {
        let channel = Channel::new();
        let (mut first, _) = channel.awaits(0).unwrap();
        let (mut second, _) = channel.awaits(1).unwrap();
        assert_eq!(channel.indexed(&[0]).len(), 1);
        assert_eq!(first.fate().await, Fate::Indexed);
        assert_eq!(channel.awaits(0).unwrap_err(), GivenTwice, "also when it was confirmed");
        assert!(matches!(second.fate().now_or_never(), Some(Fate::Unknown(why)) if why.contains("sticky")));
        assert!(channel.is_retired());
    }

    proptest! {
        #[test]
        fn a_number_is_new_exactly_once(numbers in proptest::collection::vec(0_u64..60, 0..200)) {
            let (mut runs, mut seen) = (Runs::default(), BTreeSet::new());
            for number in numbers {
                prop_assert_eq!(runs.insert(number), seen.insert(number));
            }
            let total: u64 = runs.0.iter().map(|(start, end)| end - start + 1).sum();
            prop_assert_eq!(total, seen.len() as u64);
            let apart = runs.0.iter().zip(runs.0.iter().skip(1)).all(|((_, end), (start, _))| end + 1 < *start);
            prop_assert!(apart, "runs that touch are one");
        }
    }

    #[test]
    fn the_largest_number_is_a_number() {
        let mut runs = Runs::default();
        assert!(runs.insert(u64::MAX) && runs.insert(u64::MAX - 1) && !runs.insert(u64::MAX));
        for number in 0..10_000 {
            runs.insert(number * 2);
        }
        assert!(runs.0.len() <= MOST_RUNS);
    }
}
