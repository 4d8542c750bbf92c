//! The receivers: which one gets the next request, how each is doing, and its channel.
//!
//! A request goes to the receiver with the fewest requests under way among those that are not resting. One that failed
//! rests, longer each time; when all rest, the one that rests shortest is tried.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};
use url::Url;

use super::{channel::Channel, config::HecUrl};

/// How long a receiver rests after its first failure, and at most.
const REST: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// One receiver.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) url: HecUrl,
    pub(super) event: Url,
    pub(super) ack: Url,
    pub(super) health: Url,
    /// Requests with events that may be under way.
    pub(super) permits: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    channel: Option<Arc<Channel>>,
    /// Every channel on which something may be awaited.
    channels: Vec<Weak<Channel>>,
    failures: u32,
    rests_until: Option<Instant>,
    chosen: usize,
}

/// All receivers.
#[derive(Debug)]
pub(super) struct Pool {
    endpoints: Vec<Arc<Endpoint>>,
    next: AtomicUsize,
}

/// A receiver that was chosen for a request; it counts as busy until this is dropped.
#[derive(Debug)]
pub(super) struct Turn(Arc<Endpoint>);

impl Endpoint {
    fn new(url: &HecUrl, connections: usize) -> Arc<Self> {
        Arc::new(Self {
            event: url.path("event"),
            ack: url.path("ack"),
            health: url.path("health"),
            url: url.clone(),
            permits: Semaphore::new(connections),
            state: Mutex::default(),
        })
    }

    /// The channel for the next request, and whether it is a new one.
    pub(super) fn channel(&self) -> (Arc<Channel>, bool) {
        let mut state = self.state();
        if let Some(channel) = state.channel.as_ref().filter(|channel| channel.use_again()) {
            return (Arc::clone(channel), false);
        }
        let channel = Channel::new();
        state.channels.retain(|old| old.strong_count() > 0);
        state.channels.push(Arc::downgrade(&channel));
        state.channel = Some(Arc::clone(&channel));
        (channel, true)
    }

    /// A request was answered well.
    pub(super) fn succeeded(&self) {
        let mut state = self.state();
        state.failures = 0;
        state.rests_until = None;
    }

    /// A request failed: it rests, at least for as long as it asked for.
    pub(super) fn failed(&self, after: Option<Duration>) {
        let mut state = self.state();
        let rest = REST.0.saturating_mul(1 << state.failures.min(10)).min(REST.1);
        state.failures = state.failures.saturating_add(1);
        state.rests_until = Some(Instant::now() + rest.max(after.unwrap_or_default()));
    }

    /// Whether its last request was answered well, or there was none.
    pub(super) fn is_healthy(&self) -> bool {
        self.state().failures == 0
    }

    /// How many acknowledgements are awaited of it.
    pub(super) fn awaited(&self) -> usize {
        self.state().channels.iter().filter_map(Weak::upgrade).map(|channel| channel.waiting()).sum()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing here is left half changed, so a panic elsewhere is no reason to stop.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// At least one receiver, with so many requests at once to each.
    pub(super) fn new(urls: &[HecUrl], connections: usize) -> Self {
        debug_assert!(!urls.is_empty(), "a sink has a receiver");
        Self {
            endpoints: urls.iter().map(|url| Endpoint::new(url, connections)).collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// All of them.
    pub(super) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// How long the one that rests shortest still rests, when all do; `None` when another request can go at once.
    pub(super) fn rest(&self) -> Option<Duration> {
        let now = Instant::now();
        let rests =
            self.endpoints.iter().map(|endpoint| endpoint.state().rests_until.filter(|until| *until > now));
        // `None`, for one that does not rest, comes before every time.
        rests.min().flatten().map(|until| until - now)
    }

    /// Whose turn it is.
    pub(super) fn turn(&self) -> Turn {
        // Among equals they take turns.
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.endpoints.len();
        let now = Instant::now();
        let (rested, resting) = self.endpoints.split_at(first);
        let chosen = resting
            .iter()
            .chain(rested)
            .min_by_key(|endpoint| {
                let state = endpoint.state();
                (state.rests_until.filter(|until| *until > now), state.chosen)
            })
            .expect("there is at least one receiver");
        chosen.state().chosen += 1;
        Turn(Arc::clone(chosen))
    }
}

impl std::ops::Deref for Turn {
    type Target = Arc<Endpoint>;

    fn deref(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.state().chosen -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::{super::channel::MOST_IDLE, *};

    fn pool(number: usize) -> Pool {
        let urls: Vec<HecUrl> = (0..number).map(|n| format!("https://h{n}").parse().unwrap()).collect();
        Pool::new(&urls, 2)
    }

    fn host(turn: &Turn) -> String {
        turn.url.to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_spread_and_who_failed_rests() {
        let pool = pool(3);
        let turns: Vec<_> = (0..6).map(|_| pool.turn()).collect();
        for endpoint in pool.endpoints() {
            assert_eq!(turns.iter().filter(|turn| turn.url == endpoint.url).count(), 2);
        }
        drop(turns);
        pool.endpoints()[1].failed(None);
        assert!(!pool.endpoints()[1].is_healthy());
        assert!((0..9).all(|_| host(&pool.turn()) != "https://h1"));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!((0..9).any(|_| host(&pool.turn()) == "https://h1"), "it is tried again");
        pool.endpoints()[1].succeeded();
        assert!(pool.endpoints()[1].is_healthy());
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_rest_the_one_that_rests_shortest_is_tried() {
        let pool = pool(2);
        pool.endpoints()[0].failed(Some(Duration::from_secs(60)));
        pool.endpoints()[1].failed(None);
        assert!((0..4).all(|_| host(&pool.turn()) == "https://h1"));
        for _ in 0..100 {
            pool.endpoints()[1].failed(None);
        }
        tokio::time::sleep(REST.1).await;
        assert!((0..4).all(|_| host(&pool.turn()) == "https://h1"), "a rest has an end");
    }

    #[tokio::test(start_paused = true)]
    async fn the_pool_rests_when_all_do_and_as_long_as_the_first_of_them() {
        let pool = pool(2);
        assert_eq!(pool.rest(), None);
        pool.endpoints()[0].failed(Some(Duration::from_secs(120)));
        assert_eq!(pool.rest(), None, "the other one can take a request");
        pool.endpoints()[1].failed(Some(Duration::from_secs(7)));
        assert_eq!(pool.rest(), Some(Duration::from_secs(7)));
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert_eq!(pool.rest(), None);
    }

    #[tokio::test]
    async fn a_retired_channel_is_followed_by_a_new_one() {
        let pool = pool(1);
        let endpoint = &pool.endpoints()[0];
        let (first, new) = endpoint.channel();
        assert!(new);
        assert_eq!(endpoint.channel().0.id, first.id);
        let awaited = first.awaits(0).unwrap();
        first.retire();
        let (second, new) = endpoint.channel();
        assert!(new && second.id != first.id);
        let other = second.awaits(0).unwrap();
        assert_eq!(endpoint.awaited(), 2, "what the retired one awaits counts");
        drop((awaited, other));
        assert_eq!(endpoint.awaited(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_channel_that_the_receiver_may_have_forgotten_is_not_used_again() {
        let nearly = MOST_IDLE - Duration::from_secs(1);
        let pool = pool(1);
        let endpoint = &pool.endpoints()[0];
        let (first, _) = endpoint.channel();
        for _ in 0..3 {
            tokio::time::sleep(nearly).await;
            assert_eq!(endpoint.channel().0.id, first.id, "it is in use");
        }
        tokio::time::sleep(nearly).await;
        let (awaited, _) = first.awaits(0).unwrap();
        tokio::time::sleep(2 * MOST_IDLE).await;
        assert_eq!(endpoint.channel().0.id, first.id, "what is awaited is asked for all the time");
        tokio::time::sleep(nearly).await;
        assert_eq!(first.awaited(), [0]);
        drop(awaited);
        tokio::time::sleep(nearly).await;
        assert_eq!(endpoint.channel().0.id, first.id, "it was asked about");
        tokio::time::sleep(MOST_IDLE).await;
        let (second, new) = endpoint.channel();
        assert!(new && second.id != first.id && first.is_retired());
        assert_eq!(endpoint.channel().0.id, second.id);
    }
}
