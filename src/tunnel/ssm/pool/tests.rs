use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::aws::{AwsContext, AwsOptions};
use crate::config::{ConfigFile, TargetLayer, Via};
use crate::tunnel::ssm::supervisor::SsmTransport;
use crate::tunnel::{EndCause, Transport};

const NEED: StreamNeeds<'_> = StreamNeeds {
    not_before: None,
    brief: false,
    hello: Repeatability::Repeatable,
    spare: None,
    elsewhere: false,
};
const HOST: &str = "orders.cluster-abc.eu-central-1.rds.amazonaws.com";

fn settings() -> SsmSettings {
    let text = format!("[targets.orders]\nhost = '{HOST}'\nbastion = 'i-0123456789abcdef0'\n");
    let file: ConfigFile = toml::from_str(&text).unwrap();
    let mut targets = file.resolved_targets(&[], &TargetLayer::default()).unwrap();
    match targets.remove(0).settings.via {
        Via::Ssm(settings) => settings,
        Via::Direct => panic!("a tunnel"),
    }
}

/// Returns a context with credentials that panic on use, and the number of uses.
fn panicking(dir: &TempDir) -> (AwsContext, Arc<AtomicUsize>) {
    let empty = |name| {
        let path = dir.path().join(name);
        std::fs::write(&path, "").unwrap();
        Some(path)
    };
    let attempts = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&attempts);
    let aws = AwsContext::new(AwsOptions {
        region: Some("eu-central-1".to_owned().into()),
        config_file: empty("config"),
        credentials_file: empty("credentials"),
        clock: Arc::new(move || {
            count.fetch_add(1, SeqCst);
            panic!("on purpose")
        }),
        ..AwsOptions::default()
    });
    (aws, attempts)
}

/// Clients that retry all the time.
#[tokio::test(start_paused = true)]
async fn a_panic_is_told_to_all_and_not_provoked_again_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (aws, attempts) = panicking(&dir);
    let endpoint: Endpoint = format!("{HOST}:5432").parse().unwrap();
    let region = Some("eu-central-1".into());
    let transport = SsmTransport::new(Arc::new(aws), region, settings(), endpoint);
    let begin = Instant::now();
    let mut told = 0;
    while begin.elapsed() < Duration::from_secs(60) {
        for brief in [false, true] {
            let hello = Bytes::from_static(b"hello");
            let opened = match brief {
                false => transport.open(hello).await,
                true => transport.open_briefly(hello).await,
            };
            let error = opened.err().unwrap();
            assert!(matches!(error, TunnelError::Internal(_)), "{error}");
        }
        let error = transport.prepare().await.unwrap_err();
        assert!(matches!(error, TunnelError::Internal(_)), "{error}");
        told += 3;
        sleep(Duration::from_millis(10)).await;
    }
    assert!(told > 1000, "{told}");
    assert_eq!(attempts.load(SeqCst), 4, "at 0, 5, 15 and 35 s");
    assert_eq!(transport.stats().failed, 4);
    transport.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_cancelled_is_a_failure_and_no_reason_to_start_again() {
    let dir = tempfile::tempdir().unwrap();
    let (aws, attempts) = panicking(&dir);
    let endpoint: Endpoint = format!("{HOST}:5432").parse().unwrap();
    let region = Some("eu-central-1".into());
    let starter = SessionStarter::new(Arc::new(aws), region, settings(), endpoint.clone());
    let pool = SessionPool::new(starter, settings(), endpoint);
    // State left by a task that is dropped before its end.
    let (tell, starting) = watch::channel(None);
    pool.lock().starting = Some(starting);
    let waiting = {
        let pool = Arc::clone(&pool);
        tokio::spawn(async move { pool.open(NEED).await.err() })
    };
    tokio::task::yield_now().await;
    drop(tell);
    let error = waiting.await.unwrap().unwrap();
    assert!(matches!(error, TunnelError::Internal(_)), "{error}");
    // The next one gets the same answer, for a while.
    let error = pool.open(NEED).await.err().unwrap();
    assert!(matches!(error, TunnelError::Internal(_)), "{error}");
    assert_eq!(attempts.load(SeqCst), 0);
}

#[tokio::test]
async fn a_start_that_fails_between_two_looks_is_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (aws, attempts) = panicking(&dir);
    let endpoint: Endpoint = format!("{HOST}:5432").parse().unwrap();
    let region = Some("eu-central-1".into());
    let starter = SessionStarter::new(Arc::new(aws), region, settings(), endpoint.clone());
    let pool = SessionPool::new(starter, settings(), endpoint);
    let (tell, starting) = watch::channel(None);
    tell.send_replace(Some(Err(TunnelError::ShuttingDown)));
    let step = pool.step(&mut None, Some(starting), NEED);
    assert!(matches!(step, Err(TunnelError::ShuttingDown)));
    assert!(pool.lock().starting().is_none(), "no further start");
    assert_eq!(attempts.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn sessions_that_are_of_no_use_are_started_with_growing_pauses() {
    let ended = |words: &str| TunnelError::SessionEnded {
        cause: EndCause::AtStart,
        reason: words.into(),
    };
    let mut sessions = Sessions::default();
    // Time between the failures at which a session could be started again.
    let mut pauses = Vec::new();
    for _ in 0..7 {
        sessions.failed_early(&ended("first"));
        let failed = Instant::now();
        while sessions.may_not_start(false, Instant::now()).is_some() {
            // Those that end during a pause count as the same failure.
            sessions.failed_early(&ended("beside"));
            assert!(sessions.may_not_start(true, Instant::now()).is_none());
            sleep(Duration::from_secs(1)).await;
        }
        pauses.push(failed.elapsed().as_secs());
    }
    assert_eq!(pauses, [0, 5, 10, 20, 40, 60, 60]);
    sleep(Duration::from_secs(61)).await;
    sessions.failed_early(&ended("much later"));
    assert!(sessions.may_not_start(false, Instant::now()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_unknown_has_a_pause_at_once() {
    let unknown = TunnelError::NameNotResolved {
        bastion: "i-1".to_owned(),
        endpoint: format!("{HOST}:5432").parse().unwrap(),
        reason: "no such host".into(),
    };
    let mut sessions = Sessions::default();
    sessions.failed_early(&unknown);
    assert!(sessions.may_not_start(false, Instant::now()).is_some());
    sleep(Duration::from_secs(5)).await;
    assert!(sessions.may_not_start(false, Instant::now()).is_none());
}
