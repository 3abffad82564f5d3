use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{advance, timeout};

use super::*;

const NAME: &str = "orders.abc.eu-central-1.rds.amazonaws.com";
const TRIP: Duration = Duration::from_millis(50);

/// The streams of a target with a login a moment ago, and the facts about its server.
struct Target {
    ready: ReadyStreams,
    server: Arc<ServerCapabilities>,
}

impl Target {
    fn in_use() -> Self {
        let ready = ReadyStreams::default();
        assert!(ready.logged_in(), "the first login starts the keeper");
        assert!(!ready.logged_in(), "there is one");
        Self {
            ready,
            server: Arc::default(),
        }
    }

    /// Returns how many streams are to be opened, and in how many seconds the keeper looks again.
    fn step(&self, most: usize) -> Option<(usize, u64)> {
        match self.ready.step(most) {
            KeeperStep::Open { count, look_at, .. } => {
                Some((count, (look_at - Instant::now()).as_secs()))
            }
            KeeperStep::End => None,
        }
    }

    /// Opens what is to be opened, which takes a round trip; returns the server's ends.
    async fn fill(&self, most: usize) -> Vec<DuplexStream> {
        let KeeperStep::Open { count, began, .. } = self.ready.step(most) else {
            return Vec::new();
        };
        advance(TRIP).await;
        let opened = (0..count).map(|_| {
            let (near, far) = duplex(64);
            let stream = self.stream(near, began);
            self.ready.opened(began, Some(stream), most);
            far
        });
        opened.collect()
    }

    fn stream(&self, near: DuplexStream, began: Instant) -> ReadyStream {
        ReadyStream {
            name: NAME.to_owned(),
            capabilities: Arc::clone(&self.server),
            stream: Box::new(near),
            tls: "TLSv1.3".to_owned(),
            mark: SpareMark::default(),
            began: (began, SystemTime::now()),
        }
    }

    async fn take(&self) -> Option<ReadyStream> {
        self.ready.take(NAME, &self.server, SpareMark::take).await
    }

    fn count(&self) -> usize {
        self.ready.counts().ready
    }
}

async fn is_closed(far: &mut DuplexStream) -> bool {
    let read = timeout(Duration::ZERO, far.read(&mut [0; 1])).await;
    matches!(read, Ok(Ok(0)))
}

#[tokio::test(start_paused = true)]
async fn they_are_kept_while_the_target_is_in_use() {
    let target = Target::in_use();
    let mut far = target.fill(2).await;
    assert_eq!((far.len(), target.count()), (2, 2));
    assert_eq!(target.step(2).map(|(count, _)| count), Some(0));
    // The last login was three minutes ago.
    advance(RECENT - USABLE_FOR).await;
    target.fill(2).await;
    advance(USABLE_FOR).await;
    assert_eq!(target.step(2), None);
    assert_eq!(target.count(), 0);
    assert!(is_closed(&mut far[0]).await && is_closed(&mut far[1]).await);
    assert!(target.ready.logged_in(), "and from the next login on again");
    assert_eq!(target.step(1).map(|(count, _)| count), Some(1));
}

#[tokio::test(start_paused = true)]
async fn one_is_replaced_before_the_server_ends_it() {
    let target = Target::in_use();
    let mut first = target.fill(1).await;
    assert_eq!(target.step(1), Some((0, 44)));
    advance(RENEW_AFTER).await;
    // It can be used until there is another.
    assert_eq!(target.count(), 1);
    let second = target.fill(1).await;
    assert_eq!((second.len(), target.count()), (1, 1));
    assert!(is_closed(&mut first[0]).await);
    // Without a successor it ends as well.
    advance(RENEW_AFTER).await;
    let KeeperStep::Open { count, began, .. } = target.ready.step(1) else {
        panic!("the target is in use");
    };
    target.ready.opened(began, None, 1);
    assert_eq!((count, target.count()), (1, 1));
    advance(USABLE_FOR - RENEW_AFTER).await;
    assert!(target.take().await.is_none());
    assert_eq!(target.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_suspend_of_the_machine_counts_for_its_age() {
    let target = Target::in_use();
    let (near, _far) = duplex(64);
    let mut stream = target.stream(near, Instant::now());
    stream.began.1 -= USABLE_FOR;
    target.ready.opened(Instant::now(), Some(stream), 1);
    assert!(target.take().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn one_that_the_server_ends_or_uses_is_not_taken_and_not_replaced_before_a_login() {
    for says_something in [false, true] {
        let target = Target::in_use();
        let mut far = target.fill(1).await.remove(0);
        let changed = target.ready.changed();
        tokio::pin!(changed);
        // The notification of the login comes first.
        changed.as_mut().await;
        changed.set(target.ready.changed());
        assert!(timeout(TRIP, changed.as_mut()).await.is_err());
        if says_something {
            far.write_all(b"E").await.unwrap();
        } else {
            drop(far);
        }
        changed.as_mut().await;
        assert_eq!(target.count(), 0);
        assert!(target.take().await.is_none());
        assert_eq!(target.step(1).map(|(count, _)| count), Some(0));
        target.ready.logged_in();
        assert_eq!(target.step(1).map(|(count, _)| count), Some(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_sees_the_end_before_the_keeper() {
    let target = Target::in_use();
    drop(target.fill(1).await);
    assert!(target.take().await.is_none());
    let counts = target.ready.counts();
    assert_eq!((counts.hits, counts.misses), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn one_of_another_server_is_closed_and_one_that_does_not_suit_stays() {
    let target = Target::in_use();
    let mut far = target.fill(1).await;
    let busy = |_: &SpareMark| false;
    assert!(
        target
            .ready
            .take(NAME, &target.server, busy)
            .await
            .is_none()
    );
    assert_eq!(target.count(), 1);
    let moved = Arc::default();
    let taken = target.ready.take(NAME, &moved, SpareMark::take).await;
    assert!(taken.is_none() && target.count() == 0);
    assert!(is_closed(&mut far[0]).await);
}

#[tokio::test(start_paused = true)]
async fn a_login_waits_for_one_that_is_being_opened() {
    let target = Target::in_use();
    let _far = target.fill(1).await;
    assert!(target.take().await.is_some());
    // One more is being opened, and expected after a round trip.
    let KeeperStep::Open { began, count, .. } = target.ready.step(1) else {
        panic!("the target is in use");
    };
    assert_eq!(count, 1);
    let (near, _far) = duplex(64);
    let arrives = async {
        tokio::time::sleep(TRIP / 2).await;
        target
            .ready
            .opened(began, Some(target.stream(near, began)), 1);
    };
    // A second login would wait in vain.
    let (taken, other, ()) = tokio::join!(target.take(), target.take(), arrives);
    assert!(taken.is_some() && other.is_none());
    assert_eq!(began.elapsed(), TRIP / 2);
    let counts = target.ready.counts();
    assert_eq!((counts.hits, counts.misses), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn it_does_not_wait_long_for_one_that_does_not_come() {
    for fails in [false, true] {
        let target = Target::in_use();
        let _far = target.fill(1).await;
        assert!(target.take().await.is_some());
        let KeeperStep::Open { began, .. } = target.ready.step(1) else {
            panic!("the target is in use");
        };
        let fate = async {
            tokio::time::sleep(TRIP / 2).await;
            if fails {
                target.ready.opened(began, None, 1);
            }
        };
        let (taken, ()) = tokio::join!(target.take(), fate);
        assert!(taken.is_none());
        let limit = match fails {
            true => TRIP / 2,
            false => TRIP * 3 / 2 + WAIT_ALLOWANCE,
        };
        // The timer of a paused clock has a resolution of a millisecond.
        let late = began.elapsed() - limit;
        assert!(late < Duration::from_millis(3), "{late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_server_gets_none_for_minutes() {
    let target = Target::in_use();
    let mut far = target.fill(1).await;
    target.ready.server_is_full();
    assert!(is_closed(&mut far[0]).await);
    let mut minutes = 0;
    loop {
        target.ready.logged_in();
        match target.step(1) {
            Some((0, _)) => minutes += 1,
            step => break assert_eq!(step.map(|(count, _)| count), Some(1)),
        }
        advance(Duration::from_secs(60)).await;
    }
    assert_eq!(minutes, 5);
}

#[tokio::test(start_paused = true)]
async fn failures_cause_growing_pauses_and_wait_for_a_login() {
    let target = Target::in_use();
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let began = Instant::now();
        loop {
            target.ready.logged_in();
            if let KeeperStep::Open {
                count: 1, began, ..
            } = target.ready.step(1)
            {
                target.ready.opened(began, None, 1);
                break;
            }
            advance(Duration::from_secs(1)).await;
        }
        pauses.push(began.elapsed().as_secs());
    }
    assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32, 60]);
    advance(Duration::from_secs(60)).await;
    assert_eq!(target.step(1).map(|(count, _)| count), Some(0), "no login");
}

#[tokio::test(start_paused = true)]
async fn after_a_stale_one_the_others_are_not_trusted() {
    let target = Target::in_use();
    let mut far = target.fill(3).await;
    assert!(target.take().await.is_some());
    target.ready.was_stale();
    assert_eq!(target.count(), 0);
    assert!(is_closed(&mut far[2]).await);
    assert_eq!(target.ready.counts().stale, 1);
    assert_eq!(target.step(3).map(|(count, _)| count), Some(0));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_when_no_client_will_come() {
    let target = Target::in_use();
    let KeeperStep::Open { began, .. } = target.ready.step(1) else {
        panic!("the target is in use");
    };
    target.ready.close();
    let (near, mut far) = duplex(64);
    target
        .ready
        .opened(began, Some(target.stream(near, began)), 1);
    assert!(is_closed(&mut far).await, "it comes too late");
    assert!(target.take().await.is_none());
    assert_eq!(target.step(1), None);
    assert!(!target.ready.logged_in(), "a connection that is still open");
    assert_eq!(target.ready.counts(), ReadyCounts::default());
}
