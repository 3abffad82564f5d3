//! Token cache: one signature serves all logins of the next minutes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{IamToken, TokenError, TokenFuture, TokenProvider, TokenRequest};
use crate::base::single_flight::{Clock, Expiring, Refreshing, system_clock};

/// Number of entries at which those without a valid token are removed. Clients choose the user
/// name, and so the number of entries.
const MANY: usize = 256;

/// A cache in front of another provider.
///
/// Concurrent requests for the same token call the provider once. Tokens are renewed in the
/// background before they expire. A valid token is always returned, even if renewing it fails.
/// Validity is checked against the wall clock at the time of the request.
pub struct CachedTokens {
    inner: Arc<dyn TokenProvider>,
    clock: Clock,
    kept: Mutex<HashMap<TokenRequest, Arc<Refreshing<IamToken, TokenError>>>>,
}

impl CachedTokens {
    /// Creates a cache for the tokens of `inner`.
    pub fn new(inner: impl TokenProvider + 'static) -> Self {
        Self::with_clock(Arc::new(inner), system_clock())
    }

    /// Creates a cache with the given clock.
    pub fn with_clock(inner: Arc<dyn TokenProvider>, clock: Clock) -> Self {
        Self {
            inner,
            clock,
            kept: Mutex::new(HashMap::new()),
        }
    }

    fn place(&self, request: &TokenRequest) -> Arc<Refreshing<IamToken, TokenError>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = kept.get(request) {
            return place.clone();
        }
        if kept.len() >= MANY {
            // An entry that another call has just taken and not yet filled is in use as well.
            kept.retain(|_, place| Arc::strong_count(place) > 1 || place.is_alive());
        }
        let place = Arc::new(Refreshing::new(self.clock.clone()));
        kept.insert(request.clone(), place.clone());
        place
    }
}

impl TokenProvider for CachedTokens {
    fn token<'a>(&'a self, request: &'a TokenRequest) -> TokenFuture<'a> {
        Box::pin(async move {
            let place = self.place(request);
            let make = || {
                let (inner, clock, request) =
                    (self.inner.clone(), self.clock.clone(), request.clone());
                async move {
                    let made_at = clock();
                    let token = inner.token(&request).await?;
                    let until = Some(token.expires_at);
                    Ok(Expiring {
                        value: token,
                        made_at,
                        until,
                    })
                }
            };
            let (lease, from_cache) = place.get(make).await?;
            Ok(IamToken {
                from_cache,
                ..lease.value
            })
        })
    }

    fn invalidate(&self, request: &TokenRequest, token: &IamToken) {
        // Of many connections with the same rejected token, the first one gets here in time; a
        // newer token must stay.
        if self
            .place(request)
            .forget_if(|kept| kept.value == token.value)
        {
            self.inner.invalidate(request, token);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
    use std::time::{Duration, SystemTime};

    use tokio::sync::Semaphore;

    use super::*;
    use crate::aws::CredentialsError;
    use crate::base::redacted::Redacted;

    /// A clock that a test sets by hand.
    #[derive(Clone, Default)]
    struct Hand(Arc<AtomicU64>);

    impl Hand {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + self.0.load(SeqCst))
        }
        fn set(&self, second: u64) {
            self.0.store(second, SeqCst);
        }
        fn clock(&self) -> Clock {
            let hand = self.clone();
            Arc::new(move || hand.now())
        }
    }

    /// A provider that numbers its tokens, waits for a permit before each, and fails on request.
    struct TokenSigner {
        hand: Hand,
        asked: AtomicUsize,
        permits: Semaphore,
        failing: std::sync::atomic::AtomicBool,
        validity: AtomicU64,
        rejections: AtomicUsize,
    }

    impl TokenSigner {
        fn new(permits: usize) -> (Arc<Self>, Arc<CachedTokens>, Hand) {
            let hand = Hand::default();
            let source = Arc::new(Self {
                hand: hand.clone(),
                asked: AtomicUsize::new(0),
                permits: Semaphore::new(permits),
                failing: false.into(),
                validity: AtomicU64::new(900),
                rejections: AtomicUsize::new(0),
            });
            let cached = CachedTokens::with_clock(source.clone(), hand.clock());
            (source, Arc::new(cached), hand)
        }
        fn asked(&self) -> usize {
            self.asked.load(SeqCst)
        }
    }

    impl TokenProvider for TokenSigner {
        fn token<'a>(&'a self, request: &'a TokenRequest) -> TokenFuture<'a> {
            Box::pin(async move {
                let number = self.asked.fetch_add(1, SeqCst) + 1;
                self.permits.acquire().await.unwrap().forget();
                if self.failing.load(SeqCst) {
                    let after = Duration::from_secs(20);
                    return Err(CredentialsError::Timeout {
                        after,
                        profile: None,
                        process: None,
                    }
                    .into());
                }
                let validity = Duration::from_secs(self.validity.load(SeqCst));
                Ok(IamToken {
                    value: Redacted::new(format!("{} {number}", request.user)),
                    expires_at: self.hand.now() + validity,
                    from_cache: false,
                })
            })
        }
        fn invalidate(&self, _: &TokenRequest, _: &IamToken) {
            self.rejections.fetch_add(1, SeqCst);
        }
    }

    fn request(user: &str) -> TokenRequest {
        TokenRequest {
            host: "db".to_owned(),
            port: 5432,
            user: user.to_owned(),
            region: "eu-central-1".into(),
        }
    }

    async fn value(cached: &CachedTokens, user: &str) -> (String, bool) {
        let token = cached.token(&request(user)).await.unwrap();
        (token.value.expose().clone(), token.from_cache)
    }

    fn ask(cached: &Arc<CachedTokens>) -> tokio::task::JoinHandle<Result<IamToken, TokenError>> {
        let cached = cached.clone();
        tokio::spawn(async move { cached.token(&request("app")).await })
    }

    /// Lets the other tasks of this single-threaded runtime run until the condition holds.
    async fn until(condition: impl Fn() -> bool) {
        while !condition() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn many_first_requests_make_one_token() {
        let (source, cached, _) = TokenSigner::new(0);
        let waiting: Vec<_> = (0..50).map(|_| ask(&cached)).collect();
        until(|| source.asked() == 1).await;
        source.permits.add_permits(100);
        for task in waiting {
            let token = task.await.unwrap().unwrap();
            assert_eq!(
                (token.value.expose().as_str(), token.from_cache),
                ("app 1", false)
            );
        }
        assert_eq!(value(&cached, "app").await, ("app 1".to_owned(), true));
        assert_eq!(source.asked(), 1);
    }

    #[tokio::test]
    async fn each_user_has_a_token_of_its_own() {
        let (source, cached, _) = TokenSigner::new(9);
        assert_eq!(value(&cached, "a").await.0, "a 1");
        assert_eq!(value(&cached, "b").await.0, "b 2");
        assert_eq!(value(&cached, "a").await.0, "a 1");
        assert_eq!(source.asked(), 2);
    }

    #[tokio::test]
    async fn the_caller_that_began_may_leave() {
        let (source, cached, _) = TokenSigner::new(0);
        let first = ask(&cached);
        until(|| source.asked() == 1).await;
        let second = ask(&cached);
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        source.permits.add_permits(1);
        assert_eq!(second.await.unwrap().unwrap().value.expose(), "app 1");
        assert_eq!(source.asked(), 1);
    }

    #[tokio::test]
    async fn work_is_not_lost_when_all_callers_leave() {
        let (source, cached, _) = TokenSigner::new(0);
        let only = ask(&cached);
        until(|| source.asked() == 1).await;
        only.abort();
        assert!(only.await.unwrap_err().is_cancelled());
        source.permits.add_permits(1);
        assert_eq!(value(&cached, "app").await.0, "app 1");
        assert_eq!(source.asked(), 1);
    }

    #[tokio::test]
    async fn all_who_waited_get_the_same_error_and_the_next_one_tries_again() {
        let (source, cached, _) = TokenSigner::new(0);
        source.failing.store(true, SeqCst);
        let waiting: Vec<_> = (0..5).map(|_| ask(&cached)).collect();
        until(|| source.asked() == 1).await;
        source.permits.add_permits(100);
        for task in waiting {
            let error = task.await.unwrap().unwrap_err();
            assert!(matches!(
                error,
                TokenError::Credentials(CredentialsError::Timeout { .. })
            ));
        }
        assert_eq!(source.asked(), 1);
        source.failing.store(false, SeqCst);
        assert_eq!(value(&cached, "app").await, ("app 2".to_owned(), false));
    }

    #[tokio::test]
    async fn renewed_in_the_background_before_the_end() {
        let (source, cached, hand) = TokenSigner::new(1);
        assert_eq!(value(&cached, "app").await.0, "app 1");
        hand.set(599);
        assert_eq!(value(&cached, "app").await, ("app 1".to_owned(), true));
        assert_eq!(source.asked(), 1);
        // Five minutes left: the old token is returned at once, before the new one is permitted.
        hand.set(600);
        assert_eq!(value(&cached, "app").await, ("app 1".to_owned(), true));
        assert_eq!(value(&cached, "app").await, ("app 1".to_owned(), true));
        until(|| source.asked() == 2).await;
        source.permits.add_permits(1);
        until(|| source.permits.available_permits() == 0).await;
        let renewed = async {
            while value(&cached, "app").await.0 != "app 2" {
                tokio::task::yield_now().await;
            }
        };
        renewed.await;
        assert_eq!(source.asked(), 2);
    }

    #[tokio::test]
    async fn close_to_the_end_the_caller_waits_for_a_new_one() {
        let (source, cached, hand) = TokenSigner::new(2);
        assert_eq!(value(&cached, "app").await.0, "app 1");
        hand.set(880);
        assert_eq!(value(&cached, "app").await, ("app 2".to_owned(), false));
        assert_eq!(source.asked(), 2);
    }

    #[tokio::test]
    async fn a_valid_token_is_used_to_the_end_when_there_is_no_new_one() {
        let (source, cached, hand) = TokenSigner::new(100);
        assert_eq!(value(&cached, "app").await.0, "app 1");
        source.failing.store(true, SeqCst);
        for second in [600, 700, 880, 899] {
            hand.set(second);
            assert_eq!(
                value(&cached, "app").await,
                ("app 1".to_owned(), true),
                "{second}"
            );
        }
        hand.set(900);
        assert!(cached.token(&request("app")).await.is_err());
    }

    #[tokio::test]
    async fn failed_renewals_pause() {
        let (source, cached, hand) = TokenSigner::new(100);
        value(&cached, "app").await;
        source.failing.store(true, SeqCst);
        hand.set(600);
        value(&cached, "app").await;
        until(|| source.asked() == 2).await;
        // The failure has been recorded when nothing is being made any more.
        until(|| source.permits.available_permits() == 98).await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        hand.set(614);
        value(&cached, "app").await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert_eq!(source.asked(), 2);
        hand.set(615);
        value(&cached, "app").await;
        until(|| source.asked() == 3).await;
    }

    #[tokio::test]
    async fn the_wall_clock_decides_even_after_a_long_sleep() {
        let (_source, cached, hand) = TokenSigner::new(9);
        assert_eq!(value(&cached, "app").await.0, "app 1");
        hand.set(8 * 3600);
        assert_eq!(value(&cached, "app").await, ("app 2".to_owned(), false));
    }

    #[tokio::test]
    async fn the_end_of_the_credentials_is_respected() {
        let (source, cached, hand) = TokenSigner::new(9);
        source.validity.store(120, SeqCst);
        assert_eq!(value(&cached, "app").await.0, "app 1");
        hand.set(79);
        assert_eq!(value(&cached, "app").await.0, "app 1");
        hand.set(120);
        assert_eq!(value(&cached, "app").await.0, "app 2");
    }

    #[tokio::test]
    async fn only_the_rejected_token_is_forgotten() {
        let (source, cached, _) = TokenSigner::new(9);
        let first = cached.token(&request("app")).await.unwrap();
        cached.invalidate(&request("app"), &first);
        let second = cached.token(&request("app")).await.unwrap();
        assert_eq!(second.value.expose(), "app 2");
        assert!(!second.from_cache);
        // Another connection reports the first one late.
        cached.invalidate(&request("app"), &first);
        assert_eq!(value(&cached, "app").await, ("app 2".to_owned(), true));
        assert_eq!(source.rejections.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn entries_do_not_pile_up() {
        let (_source, cached, hand) = TokenSigner::new(usize::MAX >> 4);
        for number in 0..MANY {
            value(&cached, &number.to_string()).await;
        }
        hand.set(901);
        value(&cached, "one more").await;
        assert_eq!(cached.kept.lock().unwrap().len(), 1);
    }
}
