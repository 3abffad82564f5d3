use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use tokio::sync::Semaphore;
use tokio::time::{advance, sleep};

use super::*;
use crate::aws::process::tests::program;

fn keys(id: &str) -> Credentials {
    Credentials::new(id, "sk", None, None, "test")
}

/// A program that waits for a permit before each answer, and numbers its answers.
struct SlowProgram {
    runs: ProcessRuns,
    started: Arc<AtomicUsize>,
    permits: Arc<Semaphore>,
}

impl SlowProgram {
    fn new() -> Self {
        Self {
            runs: ProcessRuns::default(),
            started: Arc::default(),
            permits: Arc::new(Semaphore::new(0)),
        }
    }

    /// Calls it; returns the number of its answer.
    async fn call(&self, caller: &ProcessCaller) -> Result<String, String> {
        let make = || {
            let (started, permits) = (self.started.clone(), self.permits.clone());
            async move {
                let number = started.fetch_add(1, SeqCst) + 1;
                permits.acquire().await.unwrap().forget();
                Ok(keys(&number.to_string()))
            }
        };
        let made = caller.join(&self.runs, &program(&["p", "x"]), make).await;
        made.map(|credentials| credentials.access_key_id().to_owned())
    }

    /// Calls it, and gives up after the usual deadline.
    async fn give_up(&self, caller: &ProcessCaller) {
        let call = timeout(CREDENTIALS_DEADLINE, self.call(caller)).await;
        assert!(call.is_err(), "{call:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn callers_of_all_contexts_share_a_run() {
    let slow = SlowProgram::new();
    let callers: [ProcessCaller; 20] = std::array::from_fn(|_| ProcessCaller::default());
    let calls = callers.iter().map(|caller| slow.call(caller));
    let answer = async {
        sleep(Duration::from_secs(300)).await;
        slow.permits.add_permits(1);
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(calls), answer);
    assert!(answers.iter().all(|answer| answer.as_deref() == Ok("1")));
    assert_eq!(slow.started.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_serves_each_context_once() {
    let slow = SlowProgram::new();
    let [first, second, third] = std::array::from_fn(|_| ProcessCaller::default());
    slow.give_up(&first).await;
    slow.give_up(&first).await;
    assert_eq!(slow.started.load(SeqCst), 1);
    slow.permits.add_permits(3);
    sleep(Duration::from_secs(4 * 60)).await;
    for caller in [&first, &second] {
        assert_eq!(slow.call(caller).await.as_deref(), Ok("1"));
    }
    // AWS has rejected them, or they have expired.
    assert_eq!(slow.call(&first).await.as_deref(), Ok("2"));
    // The others get the newest answer.
    for caller in [&second, &third] {
        assert_eq!(slow.call(caller).await.as_deref(), Ok("2"));
    }
    assert_eq!(slow.started.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_not_kept_for_long() {
    let slow = SlowProgram::new();
    let caller = ProcessCaller::default();
    slow.give_up(&caller).await;
    slow.permits.add_permits(2);
    sleep(ANSWER_KEPT + Duration::from_secs(1)).await;
    assert_eq!(slow.call(&caller).await.as_deref(), Ok("2"));
}

#[tokio::test(start_paused = true)]
async fn expired_credentials_are_not_kept() {
    let runs = ProcessRuns::default();
    let started = AtomicUsize::new(0);
    let expired = async |caller: &ProcessCaller| {
        started.fetch_add(1, SeqCst);
        let past = SystemTime::now() - Duration::from_secs(1);
        let keys = Credentials::new("A", "sk", None, Some(past), "test");
        let make = || async move { Ok(keys) };
        caller.join(&runs, &program(&["p"]), make).await.unwrap();
        runs.0.lock().unwrap().last
    };
    let callers: [ProcessCaller; 2] = std::array::from_fn(|_| ProcessCaller::default());
    assert_eq!(expired(&callers[0]).await, 1);
    assert_eq!(expired(&callers[1]).await, 2);
}

#[tokio::test(start_paused = true)]
async fn an_error_serves_all_callers_for_a_while() {
    let runs = ProcessRuns::default();
    let started = AtomicUsize::new(0);
    let fail = async || {
        let caller = ProcessCaller::default();
        let make = || {
            started.fetch_add(1, SeqCst);
            async { Err("exit status 3".to_owned()) }
        };
        let refused = caller.join(&runs, &program(&["p"]), make).await;
        assert_eq!(refused.unwrap_err(), "exit status 3");
        started.load(SeqCst)
    };
    assert_eq!((fail().await, fail().await), (1, 1));
    advance(ERROR_KEPT - Duration::from_millis(1)).await;
    assert_eq!(fail().await, 1);
    advance(Duration::from_millis(1)).await;
    assert_eq!((fail().await, fail().await), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_run_has_a_generous_deadline() {
    struct SetOnDrop(Arc<AtomicBool>);
    impl Drop for SetOnDrop {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    let killed = Arc::new(AtomicBool::new(false));
    let group = SetOnDrop(killed.clone());
    let make = || async move {
        let _group = group;
        std::future::pending().await
    };
    let (runs, caller) = (ProcessRuns::default(), ProcessCaller::default());
    let begin = Instant::now();
    let refused = caller.join(&runs, &program(&["p"]), make).await;
    assert_eq!(refused.unwrap_err(), "it did not end within 10 minutes");
    assert_eq!(begin.elapsed().as_secs(), 600);
    assert!(killed.load(SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_error_of_the_run() {
    let (runs, caller) = (ProcessRuns::default(), ProcessCaller::default());
    let make = || async { panic!("on purpose") };
    let refused = caller.join(&runs, &program(&["p"]), make).await;
    assert_eq!(refused.unwrap_err(), TaskStopped.to_string());
}

#[tokio::test(start_paused = true)]
async fn profiles_and_commands_have_runs_of_their_own() {
    let runs = ProcessRuns::default();
    let caller = ProcessCaller::default();
    let other_profile = Process {
        profile: "ops".into(),
        ..program(&["p"])
    };
    for (number, process) in [program(&["p"]), program(&["p", "x"]), other_profile]
        .iter()
        .enumerate()
    {
        let id = number.to_string();
        let keys = keys(&id);
        let made = caller.join(&runs, process, || async { Ok(keys) }).await;
        assert_eq!(made.unwrap().access_key_id(), id);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_can_name_the_program() {
    let slow = SlowProgram::new();
    let caller = ProcessCaller::default();
    assert_eq!(caller.running(), None);
    slow.give_up(&caller).await;
    sleep(Duration::from_secs(5)).await;
    let running = caller.running().unwrap();
    assert_eq!(
        running.to_string(),
        "the credential_process of profile dev (p), running for 25 s"
    );
    slow.permits.add_permits(1);
    slow.call(&caller).await.unwrap();
    assert_eq!(caller.running(), None);
}
