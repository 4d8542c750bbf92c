//! The token at hand: who may use it, who fetches the next one, and who waits.
//!
//! - Without a usable token one caller asks, and those that came meanwhile share its outcome, success or failure.
//! - With a token that is due but usable one caller asks, and all others go on with what they have. When asking fails,
//!   that caller goes on too, and nobody asks again for a while.
//! - After a failure with a time to wait nobody asks before that time, within reason.
//! - A caller that is dropped in the midst of asking changes nothing: the next one asks.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{error::TokenError, token::AccessToken};

/// The pause after a renewal that failed while the old token is good.
const RENEWAL_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause that a service that gives tokens can impose: somebody may have repaired what was wrong.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// At most one token, and at most one request for the next.
#[derive(Default)]
pub(crate) struct TokenCache {
    state: Mutex<State>,
    /// Held by whoever asks.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    token: Option<AccessToken>,
    /// How often somebody asked, up to the end.
    asked: u64,
    /// The outcome of the last time, also when its token was invalidated since.
    outcome: Option<Result<AccessToken, TokenError>>,
    not_before: Option<Instant>,
}

enum Verdict {
    Use(AccessToken),
    Renew(AccessToken),
    Fail(TokenError),
    Ask { asked: u64 },
}

impl State {
    fn verdict(&self, now: Instant) -> Verdict {
        let pause = self.not_before.map(|not_before| not_before.saturating_duration_since(now));
        let pause = pause.filter(|left| !left.is_zero());
        let pausing = pause.is_some();
        match (&self.token, &self.outcome) {
            (Some(token), _) if token.is_usable(now) => {
                if token.is_due(now) && !pausing {
                    Verdict::Renew(token.clone())
                } else {
                    Verdict::Use(token.clone())
                }
            }
            (_, Some(Err(failure))) if pausing && failure.retry_after().is_some() => {
                Verdict::Fail(failure.clone().with_wait(pause))
            }
            _ => Verdict::Ask { asked: self.asked },
        }
    }
}

impl TokenCache {
    /// The token at hand, or the one that `ask` gets. Nothing is asked before the future is polled.
    pub(crate) async fn token(
        &self,
        ask: impl Future<Output = Result<AccessToken, TokenError>>,
    ) -> Result<AccessToken, TokenError> {
        let verdict = self.state().verdict(Instant::now());
        let asked = match verdict {
            Verdict::Use(token) => return Ok(token),
            Verdict::Fail(failure) => return Err(failure),
            Verdict::Renew(old) => {
                let Ok(_asking) = self.asking.try_lock() else { return Ok(old) };
                // The one who asked before may just have finished.
                let verdict = self.state().verdict(Instant::now());
                return match verdict {
                    Verdict::Use(token) => Ok(token),
                    Verdict::Renew(old) => self.renew(old, ask).await,
                    Verdict::Fail(_) | Verdict::Ask { .. } => self.ask(ask).await,
                };
            }
            Verdict::Ask { asked } => asked,
        };
        let _asking = self.asking.lock().await;
        {
            let state = self.state();
            match state.verdict(Instant::now()) {
                Verdict::Use(token) | Verdict::Renew(token) => return Ok(token),
                Verdict::Fail(failure) => return Err(failure),
                Verdict::Ask { .. } => {}
            }
            // Somebody asked while this caller waited, and a second request would fare no better. A token that was
            // invalidated at once is no exception: else each of those who wait would ask for one of its own.
            match &state.outcome {
                Some(Ok(token)) if state.asked != asked && token.is_usable(Instant::now()) => {
                    return Ok(token.clone());
                }
                Some(Err(failure)) if state.asked != asked => return Err(failure.clone()),
                _ => {}
            }
        }
        self.ask(ask).await
    }

    async fn renew(
        &self,
        old: AccessToken,
        ask: impl Future<Output = Result<AccessToken, TokenError>>,
    ) -> Result<AccessToken, TokenError> {
        match self.ask(ask).await {
            Ok(token) => Ok(token),
            Err(error) if old.is_usable(Instant::now()) => {
                tracing::warn!(
                    %error,
                    advice = error.advice(),
                    token_ends_in_seconds = old.remaining().as_secs(),
                    "cannot renew the access token; the one at hand is still good"
                );
                Ok(old)
            }
            Err(error) => Err(error),
        }
    }

    /// Asks, and writes the outcome down. The caller holds `asking`.
    async fn ask(
        &self,
        ask: impl Future<Output = Result<AccessToken, TokenError>>,
    ) -> Result<AccessToken, TokenError> {
        let outcome = ask.await;
        let mut state = self.state();
        state.asked += 1;
        match &outcome {
            Ok(token) => {
                state.token = Some(token.clone());
                state.not_before = None;
            }
            Err(error) => {
                let pause = error.retry_after().unwrap_or_default().min(LONGEST_PAUSE);
                let pause = if state.token.is_some() { pause.max(RENEWAL_PAUSE) } else { pause };
                state.not_before = Some(Instant::now() + pause);
            }
        }
        state.outcome = Some(outcome.clone());
        outcome
    }

    /// Forgets `token`, if it is the one at hand.
    pub(crate) fn invalidate(&self, token: &AccessToken) {
        let mut state = self.state();
        if state.token.as_ref().is_some_and(|current| current.is(token)) {
            state.token = None;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in the state is half done when a panic passes, so a poisoned lock is as good as any.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use tokio::{task::JoinSet, time};

    use super::*;
    use crate::{error::Service, testing::Log};

    /// Gives tokens of one hour after a second, as long as `fails` is empty.
    #[derive(Default)]
    struct Giver {
        asked: AtomicU32,
        fails: Mutex<Option<TokenError>>,
    }

    impl Giver {
        async fn give(&self) -> Result<AccessToken, TokenError> {
            let number = self.asked.fetch_add(1, Ordering::SeqCst);
            let asked_at = Instant::now();
            time::sleep(Duration::from_secs(1)).await;
            match self.fails.lock().unwrap().clone() {
                Some(error) => Err(error),
                None => {
                    Ok(AccessToken::new(&format!("t{number}"), Duration::from_secs(3600), asked_at).unwrap())
                }
            }
        }

        fn asked(&self) -> u32 {
            self.asked.load(Ordering::SeqCst)
        }

        fn fail_with(&self, retry_after: Option<u64>) {
            *self.fails.lock().unwrap() = Some(TokenError::Unavailable {
                service: Service::Entra,
                status: 503,
                retry_after: retry_after.map(Duration::from_secs),
            });
        }

        fn recover(&self) {
            *self.fails.lock().unwrap() = None;
        }
    }

    struct Bench {
        cache: Arc<TokenCache>,
        giver: Arc<Giver>,
    }

    impl Bench {
        fn new() -> Self {
            Self { cache: Arc::default(), giver: Arc::default() }
        }

        async fn token(&self) -> Result<String, TokenError> {
            self.cache.token(self.giver.give()).await.map(|token| token.expose().to_owned())
        }

        /// What 50 concurrent callers get.
        async fn many(&self) -> Vec<Result<String, TokenError>> {
            let mut callers = JoinSet::new();
            for _ in 0..50 {
                let (cache, giver) = (self.cache.clone(), self.giver.clone());
                callers.spawn(async move { Self { cache, giver }.token().await });
            }
            callers.join_all().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_callers_make_one_request() {
        let bench = Bench::new();
        assert!(bench.many().await.iter().all(|token| token.as_ref().unwrap() == "t0"));
        assert!(bench.many().await.iter().all(|token| token.as_ref().unwrap() == "t0"));
        assert_eq!(bench.giver.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn many_callers_share_a_failure_and_the_next_one_asks_again() {
        let bench = Bench::new();
        bench.giver.fail_with(None);
        assert!(bench.many().await.iter().all(Result::is_err));
        assert_eq!(bench.giver.asked(), 1);
        bench.giver.recover();
        assert_eq!(bench.token().await.unwrap(), "t1");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_asks_before_the_time_that_was_asked_for() {
        let bench = Bench::new();
        bench.giver.fail_with(Some(60));
        assert!(bench.token().await.is_err());
        bench.giver.recover();
        time::sleep(Duration::from_secs(59)).await;
        assert!(bench.token().await.is_err());
        assert_eq!(bench.giver.asked(), 1);
        let failure = bench.cache.token(bench.giver.give()).await.unwrap_err();
        assert_eq!(failure.retry_after(), Some(Duration::from_secs(1)), "what is left of it");
        time::sleep(Duration::from_secs(2)).await;
        assert_eq!(bench.token().await.unwrap(), "t1");

        // A service cannot keep us away for hours.
        let bench = Bench::new();
        bench.giver.fail_with(Some(3600));
        assert!(bench.token().await.is_err());
        bench.giver.recover();
        time::sleep(LONGEST_PAUSE).await;
        assert_eq!(bench.token().await.unwrap(), "t1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_by_one_caller_before_its_end_and_the_others_do_not_wait() {
        let bench = Bench::new();
        bench.token().await.unwrap();
        time::sleep(Duration::from_secs(2600)).await;
        assert_eq!(bench.token().await.unwrap(), "t0", "it is too early");
        time::sleep(Duration::from_secs(100)).await;
        let before = Instant::now();
        let tokens = bench.many().await;
        assert_eq!(tokens.iter().filter(|token| token.as_ref().unwrap() == "t1").count(), 1);
        assert_eq!(tokens.iter().filter(|token| token.as_ref().unwrap() == "t0").count(), 49);
        assert_eq!(before.elapsed(), Duration::from_secs(1));
        assert_eq!(bench.token().await.unwrap(), "t1");
        assert_eq!(bench.giver.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_old_token_survives_renewals_that_fail_until_its_end() {
        let log = Log::default();
        let _logging = log.capture();
        let bench = Bench::new();
        bench.token().await.unwrap();
        bench.giver.fail_with(None);
        time::sleep(Duration::from_secs(2700)).await;
        assert_eq!(bench.token().await.unwrap(), "t0");
        assert_eq!(bench.giver.asked(), 2);
        assert_eq!(bench.token().await.unwrap(), "t0", "nobody asks again at once");
        assert_eq!(bench.giver.asked(), 2);
        time::sleep(RENEWAL_PAUSE).await;
        assert_eq!(bench.token().await.unwrap(), "t0");
        assert_eq!(bench.giver.asked(), 3);
        time::sleep(Duration::from_secs(900)).await;
        assert!(bench.token().await.is_err(), "its time is over");
        bench.giver.recover();
        assert_eq!(bench.token().await.unwrap(), "t4");
        let log = log.text();
        assert_eq!(log.matches("WARN").count(), 2, "{log}");
        assert!(log.contains("Microsoft Entra ID is not available (HTTP 503)"), "{log}");
        assert!(log.contains("the one at hand is still good"), "{log}");
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_wait_share_a_token_even_when_it_is_invalidated_at_once() {
        let bench = Bench::new();
        let mut callers = JoinSet::new();
        for _ in 0..50 {
            let (cache, giver) = (bench.cache.clone(), bench.giver.clone());
            callers.spawn(async move {
                let token = cache.token(giver.give()).await.unwrap();
                cache.invalidate(&token);
                token.expose().to_owned()
            });
        }
        assert!(callers.join_all().await.iter().all(|token| token == "t0"));
        assert_eq!(bench.giver.asked(), 1);
        assert_eq!(bench.token().await.unwrap(), "t1", "whoever comes later gets another");
    }

    #[tokio::test(start_paused = true)]
    async fn several_callers_that_were_refused_with_one_token_cause_one_request() {
        let bench = Bench::new();
        let refused = bench.cache.token(bench.giver.give()).await.unwrap();
        for _ in 0..10 {
            bench.cache.invalidate(&refused);
            assert_eq!(bench.token().await.unwrap(), "t1");
        }
        assert_eq!(bench.giver.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_goes_away_leaves_nothing_behind() {
        let bench = Bench::new();
        let gone = time::timeout(Duration::from_millis(500), bench.token()).await;
        assert!(gone.is_err());
        assert_eq!(bench.token().await.unwrap(), "t1");
        time::sleep(Duration::from_secs(2700)).await;
        assert!(time::timeout(Duration::from_millis(500), bench.token()).await.is_err());
        assert_eq!(bench.token().await.unwrap(), "t3");
    }
}
