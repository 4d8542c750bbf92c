//! The data collection rules: which is next, what each may take, and which is left alone for a while.
//!
//! A rule takes 2 GB and 12,000 requests a minute (Azure Monitor service limits, "Logs Ingestion API"). Both are kept to
//! here, spread evenly over the seconds, so that the service need not refuse what could have waited.

use std::{
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use url::Url;

use super::config::{RuleId, SentinelConfig};
use crate::rate::Allowance;

/// What a rule takes in a minute, in bytes before compression.
const BYTES_A_MINUTE: u32 = 2_000_000_000;
/// What a rule takes in a minute, in requests.
const REQUESTS_A_MINUTE: u32 = 12_000;

/// All rules of a sink.
#[derive(Debug)]
pub(super) struct Rules {
    rules: Vec<Arc<Rule>>,
    /// Where the search for the next one begins.
    next: AtomicUsize,
}

/// One rule.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) id: RuleId,
    pub(super) url: Url,
    /// How many requests may be under way.
    permits: Arc<Semaphore>,
    bytes: Allowance,
    requests: Allowance,
    state: Mutex<State>,
    /// Whether it has taken rows since a record was last given up because of it.
    vouches: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    pause: Option<Pause>,
    /// Since when it refuses the application.
    refusing_since: Option<Instant>,
}

/// A rule is left alone for a while.
#[derive(Debug, Clone)]
pub(super) struct Pause {
    /// Until when.
    pub(super) until: Instant,
    /// Whether the service asked for it.
    pub(super) asked: bool,
    /// Why.
    pub(super) why: String,
}

impl Rules {
    /// It has to be made within a runtime, whose clock it uses.
    pub(super) fn new(config: &SentinelConfig) -> Self {
        let a_second = |a_minute: u32| NonZeroU32::new(a_minute / 60).expect("the limits are not zero");
        let rule = |id: &RuleId| {
            Arc::new(Rule {
                id: id.clone(),
                url: config.url(id),
                permits: Arc::new(Semaphore::new(config.connections)),
                bytes: Allowance::new(a_second(BYTES_A_MINUTE)),
                requests: Allowance::new(a_second(REQUESTS_A_MINUTE)),
                state: Mutex::default(),
                vouches: AtomicBool::new(false),
            })
        };
        Self { rules: config.rules.iter().map(rule).collect(), next: AtomicUsize::new(0) }
    }

    pub(super) fn all(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// Whether another one could take what this one does not.
    pub(super) fn has_others(&self) -> bool {
        self.rules.len() > 1
    }

    /// How many are left alone at present.
    pub(super) fn paused(&self) -> usize {
        let now = Instant::now();
        self.rules.iter().filter(|rule| rule.pause(now).is_some()).count()
    }

    /// The rule for the next request: the one with the least under way. When all are left alone, the pause that ends
    /// first.
    pub(super) fn choose(&self) -> Result<&Arc<Rule>, Pause> {
        let now = Instant::now();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let turns = (0..self.rules.len()).map(|offset| &self.rules[(first + offset) % self.rules.len()]);
        let mut soonest: Option<Pause> = None;
        let mut chosen: Option<&Arc<Rule>> = None;
        for rule in turns {
            let Some(pause) = rule.pause(now) else {
                if chosen.is_none_or(|other| rule.free() > other.free()) {
                    chosen = Some(rule);
                }
                continue;
            };
            if soonest.as_ref().is_none_or(|other| pause.until < other.until) {
                soonest = Some(pause);
            }
        }
        chosen.ok_or_else(|| soonest.expect("there is a rule, which is free or left alone"))
    }
}

impl Rule {
    fn free(&self) -> usize {
        self.permits.available_permits()
    }

    /// Waits for one of its places, and until its limits allow a request of this many bytes before compression.
    pub(super) async fn turn(&self, bytes: usize) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the permits are never closed");
        self.requests.take(1).await;
        self.bytes.take(bytes).await;
        permit
    }

    fn pause(&self, now: Instant) -> Option<Pause> {
        self.state().pause.clone().filter(|pause| pause.until > now)
    }

    /// It took rows.
    pub(super) fn took(&self) {
        *self.state() = State::default();
        self.vouches.store(true, Ordering::Release);
    }

    /// Leaves it alone for a while. A longer pause stays.
    pub(super) fn rest(&self, wait: Duration, asked: bool, why: &str) {
        let until = Instant::now() + wait;
        let mut state = self.state();
        if state.pause.as_ref().is_none_or(|pause| pause.until < until) {
            state.pause = Some(Pause { until, asked, why: why.to_owned() });
        }
    }

    /// It refuses the application; for how long it has done so.
    pub(super) fn refuses(&self) -> Duration {
        self.state().refusing_since.get_or_insert_with(Instant::now).elapsed()
    }

    /// Whether it has taken rows since this was last asked: then what it refuses alone is at fault, and not the rule.
    pub(super) fn vouches(&self) -> bool {
        self.vouches.swap(false, Ordering::AcqRel)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::config, *};

    fn rules(count: usize) -> Rules {
        let mut config = config();
        config.rules = (0..count).map(|n| format!("dcr-{n:032x}").parse().unwrap()).collect();
        config.connections = 100;
        Rules::new(&config)
    }

    #[tokio::test(start_paused = true)]
    async fn rules_share_the_load_and_one_that_rests_is_left_out() {
        let rules = rules(3);
        let mut permits = Vec::new();
        for _ in 0..30 {
            permits.push(rules.choose().unwrap().turn(1).await);
        }
        assert!(rules.all().iter().all(|rule| rule.free() == 90), "each has ten");
        rules.all()[1].rest(Duration::from_secs(30), true, "busy");
        assert_eq!(rules.paused(), 1);
        for _ in 0..30 {
            permits.push(rules.choose().unwrap().turn(1).await);
        }
        let free: Vec<_> = rules.all().iter().map(|rule| rule.free()).collect();
        assert_eq!(free, [75, 90, 75]);
        rules.all()[0].rest(Duration::from_secs(60), true, "busy");
        rules.all()[2].rest(Duration::from_secs(10), false, "away");
        let pause = rules.choose().unwrap_err();
        assert_eq!((pause.why.as_str(), pause.asked), ("away", false));
        tokio::time::sleep_until(pause.until).await;
        assert_eq!(rules.choose().unwrap().id, rules.all()[2].id);
        rules.all()[0].took();
        assert_eq!(rules.paused(), 1, "who takes rows rests no more");
    }

    #[tokio::test(start_paused = true)]
    async fn the_limits_of_a_minute_are_kept_ahead_of_time() {
        for (bytes, a_minute) in [(1, REQUESTS_A_MINUTE), (1_000_000, BYTES_A_MINUTE / 1_000_000)] {
            let rules = rules(1);
            let start = Instant::now();
            for _ in 0..2 * a_minute {
                drop(rules.choose().unwrap().turn(bytes).await);
            }
            let took = start.elapsed().as_secs_f64();
            // A second's worth was saved up.
            assert!((118.0..121.0).contains(&took), "{took} s for two minutes' worth of {bytes} bytes each");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_refusal_is_vouched_for_by_one_success() {
        let rules = rules(1);
        let rule = rules.choose().unwrap();
        assert!(!rule.vouches());
        rule.took();
        rule.took();
        assert!(rule.vouches());
        assert!(!rule.vouches());
        assert_eq!(rule.refuses(), Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(rule.refuses(), Duration::from_secs(600));
        rule.took();
        assert_eq!(rule.refuses(), Duration::ZERO);
    }
}
