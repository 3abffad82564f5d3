//! `pgiam status`, `pgiam wait` and `pgiam stop`: query and control of running processes.

mod rates;
mod show;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::serve::state_dir;
use crate::admin::ProcessKind;
use crate::admin::client::{self, AskError};
use crate::admin::document::ProcessDocument;
use crate::base::foreign_text::visible_json;
use crate::cli::exit;
use crate::cli::terminal;
use crate::cli::terminal::Progress;
use crate::cli::{StatusArgs, StopArgs, WaitArgs};
use crate::platform::socket::control::{ExistingSocket, is_alive};
use rates::RateMeter;

/// Polling interval of `wait` and `stop`.
const LOOK: Duration = Duration::from_millis(50);
/// Longest time from the end of serving to the exit of a process.
const LAST_STEPS: Duration = Duration::from_secs(2);
/// Time for which `status` measures the rates of connections.
const MEASURE: Duration = Duration::from_millis(300);
const OTHERS: &str = "stop one with pgiam stop --pid PID, or all with pgiam stop --all";
const NONE_RUNS: &str = "pgiam: pgiam is not running\nhint: start it:\n  pgiam serve";

/// Prints the status of the running processes.
///
/// # Errors
/// Standard output cannot be written to.
pub async fn status(args: &StatusArgs) -> anyhow::Result<u8> {
    let state_dir = state_dir(args.state.state_dir.as_ref())?;
    if args.watch {
        return watch::watch(state_dir.as_deref(), args.output.json).await;
    }
    let (mut processes, failed) = running(state_dir.as_deref()).await?;
    if args.output.json {
        let text = serde_json::to_string_pretty(&processes)?;
        terminal::write(format!("{}\n", visible_json(&text)))?;
    } else if !processes.is_empty() {
        let mut rates = None;
        if has_connections(&processes) {
            let mut meter = RateMeter::default();
            meter.read(&processes);
            sleep(MEASURE).await;
            (processes, _) = running(state_dir.as_deref()).await?;
            meter.read(&processes);
            rates = Some(meter);
        }
        terminal::write(show::all(&processes, show::width(), rates.as_ref()))?;
    }
    if processes.is_empty() {
        terminal::tell(none_answers(&failed))?;
        return Ok(exit::NOT_RUNNING);
    }
    Ok(0)
}

/// Returns true if there is a rate to show.
fn has_connections(processes: &[ProcessDocument]) -> bool {
    let mut targets = processes.iter().flat_map(|process| &process.targets);
    targets.any(|target| !target.connections.is_empty())
}

/// Returns the reason why there is no status. `failed`: the running processes that gave none.
fn none_answers(failed: &StatusFailure) -> String {
    match failed.first() {
        None => NONE_RUNS.to_owned(),
        Some((pid, AskError::Silent(_))) => {
            let remedy = match cfg!(windows) {
                true => format!("if process {pid} hangs, end it: taskkill /F /PID {pid}"),
                false => format!(
                    "if process {pid} is suspended, resume it: kill -CONT {pid}; if it hangs, end it: kill {pid}"
                ),
            };
            format!("pgiam: no running pgiam process answers\nhint: {remedy}")
        }
        Some((pid, _)) => format!(
            "pgiam: process {pid} is running, but its status cannot be parsed\nhint: use the version of pgiam that it was started with"
        ),
    }
}

type StatusFailure = Vec<(u32, AskError)>;

/// Returns the status of the running processes, and the processes without a readable status, after
/// reporting those.
async fn running(
    state_dir: Option<&Path>,
) -> anyhow::Result<(Vec<ProcessDocument>, StatusFailure)> {
    let (mut processes, mut failed) = (Vec::new(), Vec::new());
    for (found, status) in client::all(state_dir).await {
        match status {
            Ok(process) => processes.push(process),
            Err(error) => {
                terminal::tell(format!("pgiam: process {}: {error}", found.pid))?;
                failed.push((found.pid, error));
            }
        }
    }
    Ok((processes, failed))
}

/// Waits until the targets are ready.
///
/// # Errors
/// The terminal cannot be written to.
pub async fn wait(args: &WaitArgs) -> anyhow::Result<u8> {
    let state_dir = state_dir(args.state.state_dir.as_ref())?;
    let limit = Duration::from_secs(args.timeout);
    let until = Instant::now() + limit;
    let progress = Progress::start("waiting for pgiam");
    loop {
        let (mut processes, mut silent) = (Vec::new(), None);
        for (found, status) in client::all(state_dir.as_deref()).await {
            match status {
                Ok(process) => processes.push(process),
                Err(_) => silent = Some(found.pid),
            }
        }
        let Some(missing) = missing(&processes, silent, &args.targets) else {
            return Ok(0);
        };
        progress.now(format!("waiting: {missing}"));
        if Instant::now() >= until {
            drop(progress);
            let seconds = limit.as_secs();
            terminal::tell(format!("pgiam: not ready after {seconds} s: {missing}"))?;
            return Ok(exit::NOT_RUNNING);
        }
        sleep(LOOK).await;
    }
}

/// Returns the reason to wait; `None` when ready. `silent`: a process that gave no status.
fn missing(
    processes: &[ProcessDocument],
    silent: Option<u32>,
    targets: &[String],
) -> Option<String> {
    if processes.is_empty() {
        return Some(match silent {
            Some(pid) => format!("process {pid} does not answer"),
            None => "pgiam is not running".to_owned(),
        });
    }
    let served = || {
        let serving = processes.iter().filter(|p| p.state == "serving");
        serving.flat_map(|process| &process.targets)
    };
    if targets.is_empty() {
        if let Some(other) = processes.iter().find(|p| p.state != "serving") {
            return Some(format!("process {} is {}", other.pid, other.state));
        }
        // Its owner stopped the others.
        let mut running = served()
            .filter(|target| target.state != "stopped")
            .peekable();
        if running.peek().is_none() && served().next().is_some() {
            return Some("every target is stopped".to_owned());
        }
        return running.find(|target| !target.ready).map(not_ready);
    }
    targets.iter().find_map(|name| {
        let mut own = served().filter(|target| target.name == *name).peekable();
        if own.peek().is_none() {
            return Some(format!("no pgiam process serves target \"{name}\""));
        }
        own.find(|target| !target.ready).map(not_ready)
    })
}

fn not_ready(target: &crate::admin::document::TargetDocument) -> String {
    let last = target.last_error.as_ref().map(|error| &error.id);
    let last = last.filter(|_| target.state != "stopped");
    let why = target.failing.as_ref().or(last);
    let why = why.map(|id| format!(" [{id}]"));
    format!(
        "target \"{}\" is {}{}",
        target.name,
        target.state,
        why.unwrap_or_default()
    )
}

/// Stops the selected processes.
///
/// # Errors
/// The terminal cannot be written to.
pub async fn stop(args: &StopArgs) -> anyhow::Result<u8> {
    let state_dir = state_dir(args.state.state_dir.as_ref())?;
    let mut all = Vec::new();
    let mut left = Vec::new();
    for (found, status) in client::all(state_dir.as_deref()).await {
        match choice(args, found.pid, status.as_ref().ok()) {
            StopAction::Stop => all.push(found),
            StopAction::Leave(words) => left.push(words),
        }
    }
    if all.is_empty() {
        terminal::tell(nothing_to_stop(args, &left))?;
        return Ok(exit::NOT_RUNNING);
    }
    if !left.is_empty() && args.pid.is_none() {
        let left = left.join(", ");
        terminal::tell(format!("pgiam: still running: {left}\nhint: {OTHERS}"))?;
    }
    end_all(&all, Duration::from_secs(args.timeout)).await
}

/// Stops processes, each within a time limit, and reports each. Returns the exit code.
pub(super) async fn end_all(all: &[ExistingSocket], limit: Duration) -> anyhow::Result<u8> {
    let progress = Progress::start("stopping pgiam");
    let stopping = all.iter().map(|found| timeout(limit, end(found)));
    let outcomes = futures_util::future::join_all(stopping).await;
    drop(progress);
    let mut code = 0;
    for (found, outcome) in all.iter().zip(outcomes) {
        let pid = found.pid;
        let failure = match outcome {
            Ok(Ok(())) => {
                terminal::write(format!("stopped {pid}\n"))?;
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it is still running after {} s", limit.as_secs()),
        };
        terminal::tell(format!("pgiam: process {pid}: {failure}"))?;
        code = exit::NOT_RUNNING;
    }
    Ok(code)
}

/// Action of `stop` on a process.
#[derive(Debug, PartialEq, Eq)]
enum StopAction {
    Stop,
    /// Leave it running; the text describes it.
    Leave(String),
}

/// Selects the processes to stop: those with this pid, those for these targets, all of them, or
/// without arguments every server. A server with further targets is not stopped for one of them; a
/// process that does not answer may be of any kind.
fn choice(args: &StopArgs, pid: u32, process: Option<&ProcessDocument>) -> StopAction {
    let leave = |words: String| StopAction::Leave(words);
    if args.all || args.pid == Some(pid) {
        return StopAction::Stop;
    }
    let Some(process) = process else {
        return leave(format!("process {pid} (does not answer)"));
    };
    let targets: Vec<&str> = process.targets.iter().map(|target| &*target.name).collect();
    let words = format!("{} {pid} ({})", process.kind, targets.join(", "));
    let named = |name: &&str| args.targets.iter().any(|wanted| wanted == name);
    let chosen = match (args.pid, args.targets.is_empty()) {
        (Some(_), _) => false,
        (None, true) => process.kind == ProcessKind::Serve.as_str(),
        (None, false) => !targets.is_empty() && targets.iter().all(named),
    };
    if chosen {
        StopAction::Stop
    } else {
        leave(words)
    }
}

fn nothing_to_stop(args: &StopArgs, left: &[String]) -> String {
    if let Some(pid) = args.pid {
        return format!(
            "pgiam: process {pid} is not a pgiam process of this user\nhint: list the processes:\n  pgiam status"
        );
    }
    if left.is_empty() {
        return NONE_RUNS.to_owned();
    }
    let what = match args.targets.is_empty() {
        true => "pgiam serve is not running".to_owned(),
        false => format!("no pgiam process serves only {}", args.targets.join(", ")),
    };
    let left = left.join(", ");
    format!("pgiam: {what}; running: {left}\nhint: {OTHERS}")
}

/// Requests the end of a process, and waits for it.
async fn end(found: &ExistingSocket) -> Result<(), AskError> {
    match client::stop(found).await {
        Err(AskError::Gone) => return Ok(()),
        asked => asked?,
    }
    while client::is_there(found).await {
        sleep(LOOK).await;
    }
    // It may run in a container, with a pid that is not visible here.
    let gone = async {
        while is_alive(found.pid) {
            sleep(LOOK).await;
        }
    };
    _ = timeout(LAST_STEPS, gone).await;
    Ok(())
}

/// Abbreviates the home directory as `~`.
pub(super) fn short(path: &Path) -> String {
    let home = std::env::home_dir().filter(|home| home != Path::new("/"));
    match home.and_then(|home| path.strip_prefix(home).ok().map(PathBuf::from)) {
        Some(rest) => Path::new("~").join(rest).display().to_string(),
        None => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests;
