//! Runs of programs, shared by all AWS contexts of this process.
//!
//! A program may wait for a person, in a browser or at a fingerprint sensor, for longer than a
//! connection waits for credentials. A run therefore belongs to no caller: all callers wait for the
//! same run, none of them ends it, and an answer that comes late serves the next caller.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_profile::Process;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use crate::aws::CREDENTIALS_DEADLINE;
use crate::base::background::{self, TaskStopped};
use crate::base::foreign_text::ForeignText;

/// Maximum time of a run. The AWS CLI has no limit; the forms of a browser login are valid for about
/// ten minutes.
const RUN_DEADLINE: Duration = Duration::from_secs(10 * 60);

/// Time for which an answer serves further contexts. It is long enough for a pool of connections to
/// try again, and short enough that the answer is not older than the login of the user.
const ANSWER_KEPT: Duration = Duration::from_secs(5 * 60);

/// Time for which an error serves all callers, so that the connections of a pool do not open a
/// browser window each.
const ERROR_KEPT: Duration = Duration::from_secs(3);

static RUNS: LazyLock<ProcessRuns> = LazyLock::new(ProcessRuns::default);

type Outcome = Result<Credentials, String>;

/// One AWS context as a caller of programs. It gets the answer of each run once: if AWS rejects the
/// credentials, the next call runs the program again.
#[derive(Default)]
pub(in crate::aws) struct ProcessCaller(Mutex<CallerState>);

#[derive(Default)]
struct CallerState {
    /// Number of the last run whose credentials were returned.
    served: u64,
    /// The run that the last call waited for.
    joined: Option<Run>,
}

impl ProcessCaller {
    /// Returns the credentials that the program of a profile prints, after joining its run or
    /// starting one. Takes up to [`RUN_DEADLINE`].
    ///
    /// Cancel-safe: a cancelled call does not end the run, and the next call gets its answer.
    ///
    /// # Errors
    /// The problem with the program or its output. It contains no secrets that can be recognized.
    pub(in crate::aws) async fn credentials(&self, process: &Process) -> Outcome {
        let owned = process.clone();
        let make = || async move { super::credentials(&owned).await };
        self.join(&RUNS, process, make).await
    }

    /// Returns the program that the last call waited for, while it runs.
    pub(in crate::aws) fn running(&self) -> Option<RunningProcess> {
        let state = self.lock();
        let run = state.joined.as_ref()?;
        if !matches!(run.stage(), RunStage::Running) {
            return None;
        }
        Some(RunningProcess {
            profile: run.profile.to_string(),
            program: run.program.clone(),
            elapsed: run.started.elapsed(),
        })
    }

    /// Returns `true` if the program of the last call failed, so that the next call starts it again.
    pub(in crate::aws) fn would_repeat(&self) -> bool {
        let stage = self.lock().joined.as_ref().map(Run::stage);
        matches!(
            stage,
            Some(RunStage::Ended(EndedRun {
                outcome: Err(_),
                ..
            }))
        )
    }

    async fn join<F>(
        &self,
        runs: &ProcessRuns,
        process: &Process,
        make: impl FnOnce() -> F,
    ) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut run = {
            let mut state = self.lock();
            let run = runs.join(process, state.served, make);
            state.joined = Some(run.clone());
            run
        };
        let ended = match run.ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone(),
            // The runtime ends.
            Err(_) => None,
        };
        let outcome = ended.map_or_else(|| Err(TaskStopped.to_string()), |ended| ended.outcome);
        if outcome.is_ok() {
            let mut state = self.lock();
            state.served = state.served.max(run.number);
        }
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, CallerState> {
        // Every write is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ProcessCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessCaller").finish_non_exhaustive()
    }
}

/// A `credential_process` that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningProcess {
    /// Profile that names it.
    pub profile: String,
    /// The program without its arguments, which may be secret.
    pub program: ForeignText,
    /// Time since its start.
    pub elapsed: Duration,
}

impl fmt::Display for RunningProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            profile,
            program,
            elapsed,
        } = self;
        let seconds = elapsed.as_secs();
        write!(
            f,
            "the credential_process of profile {profile} ({program}), running for {seconds} s"
        )
    }
}

/// Profile and command of a run. The words may be secret.
#[derive(Clone, PartialEq, Eq, Hash)]
struct RunKey {
    profile: Arc<str>,
    words: Vec<String>,
}

/// The runs by profile and command.
#[derive(Default)]
struct ProcessRuns(Mutex<RunTable>);

#[derive(Default)]
struct RunTable {
    /// Number of the last run.
    last: u64,
    runs: HashMap<RunKey, Run>,
}

impl ProcessRuns {
    /// Returns the run that answers a caller that was served by run `served`, after starting one
    /// if needed.
    fn join<F>(&self, process: &Process, served: u64, make: impl FnOnce() -> F) -> Run
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let key = RunKey {
            profile: process.profile.clone(),
            words: process.words.clone(),
        };
        // The table is never inconsistent, so a panic elsewhere does no harm.
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.runs.retain(|_, run| run.answers(0));
        if let Some(run) = table.runs.get(&key).filter(|run| run.answers(served)) {
            return run.clone();
        }
        table.last += 1;
        let run = Run::start(table.last, process, make());
        table.runs.insert(key, run.clone());
        run
    }
}

/// A run of a program: in progress, or ended.
#[derive(Clone)]
struct Run {
    number: u64,
    profile: Arc<str>,
    program: ForeignText,
    started: Instant,
    ended: watch::Receiver<Option<EndedRun>>,
}

#[derive(Clone)]
struct EndedRun {
    at: Instant,
    outcome: Outcome,
}

impl Run {
    /// Starts a run in a task of its own, which ends with the runtime.
    fn start(
        number: u64,
        process: &Process,
        work: impl Future<Output = Outcome> + Send + 'static,
    ) -> Self {
        let (sender, ended) = watch::channel(None);
        let run = Self {
            number,
            profile: process.profile.clone(),
            program: process.words.first().map_or("", String::as_str).into(),
            started: Instant::now(),
            ended,
        };
        let (profile, program, started) = (run.profile.clone(), run.program.clone(), run.started);
        let work = background::outcome(timeout(RUN_DEADLINE, work));
        let task = async move {
            let outcome = match work.await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(format!(
                    "it did not end within {} minutes",
                    RUN_DEADLINE.as_secs() / 60
                )),
                Err(stopped) => Err(stopped.to_string()),
            };
            log(&profile, &program, started.elapsed(), &outcome);
            sender.send_replace(Some(EndedRun {
                at: Instant::now(),
                outcome,
            }));
        };
        tokio::spawn(task.in_current_span());
        run
    }

    /// Returns `true` if a caller that was served by run `served` does not need another one.
    fn answers(&self, served: u64) -> bool {
        match self.stage() {
            RunStage::Running => true,
            RunStage::Lost => false,
            RunStage::Ended(EndedRun { at, outcome }) => match outcome {
                Err(_) => at.elapsed() < ERROR_KEPT,
                Ok(credentials) => {
                    let expiry = credentials.expiry();
                    self.number > served
                        && at.elapsed() < ANSWER_KEPT
                        && expiry.is_none_or(|end| end > SystemTime::now())
                }
            },
        }
    }

    fn stage(&self) -> RunStage {
        // In this order: the task sends the outcome before it drops the sender.
        let has_sender = self.ended.has_changed().is_ok();
        match (self.ended.borrow().clone(), has_sender) {
            (Some(ended), _) => RunStage::Ended(ended),
            (None, true) => RunStage::Running,
            (None, false) => RunStage::Lost,
        }
    }
}

enum RunStage {
    Running,
    Ended(EndedRun),
    /// The runtime of its task has ended.
    Lost,
}

/// Logs the end of a run that connections have given up waiting for.
fn log(profile: &str, program: &ForeignText, elapsed: Duration, outcome: &Outcome) {
    if elapsed < CREDENTIALS_DEADLINE {
        return;
    }
    let seconds = elapsed.as_secs();
    match outcome {
        Ok(_) => tracing::info!(
            profile,
            %program,
            seconds,
            "the credential_process has printed credentials; the next connection uses them"
        ),
        Err(reason) => tracing::warn!(
            profile,
            %program,
            seconds,
            error = %ForeignText::folded(reason),
            "the credential_process failed"
        ),
    }
}

#[cfg(test)]
mod tests;
