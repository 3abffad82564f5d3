//! `pgiam up`: `pgiam serve` in the background.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use super::background_log;
use super::connection_string::client_host;
use super::login::on_demand::{self, needs_aws};
use super::reload::LoadedConfiguration;
use super::serve::state_dir;
use super::status::short;
use crate::admin::ProcessKind;
use crate::admin::client;
use crate::admin::document::{ProcessDocument, TargetDocument};
use crate::base::quote::{clean, shell};
use crate::cli::terminal::{self, GOOD, Progress, Table, WARNING, styled};
use crate::cli::{ServeArgs, exit};
use crate::platform::{StopSignals, background};

/// Interval between two looks at the new process.
const LOOK: Duration = Duration::from_millis(50);
/// Longest time to wait for the server to listen. Its own limit for lookups at the start is 10 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a server in the background, unless one serves these targets already.
///
/// # Errors
/// An invalid configuration, a failed login, or no program to start.
pub async fn up(args: &ServeArgs) -> anyhow::Result<u8> {
    let configured = LoadedConfiguration::load(args)?;
    let targets = configured.valid_targets()?;
    let host = client_host(configured.serve.addresses.as_slice());
    let dir = state_dir(args.state.state_dir.as_ref())?.context(
        "this account has no home directory for the log file\nhint: choose a directory with --state-dir",
    )?;
    let names: BTreeSet<&str> = targets.iter().map(|target| &*target.name).collect();
    if let Some(process) = running(&dir, &names, configured.file.as_deref()).await? {
        terminal::write(format!(
            "pgiam is already running (process {})\n\n{}",
            process.pid,
            shown(&process, &host)
        ))?;
        return Ok(code(&process));
    }
    let profiles = targets.iter().filter(|target| needs_aws(target));
    let profiles = profiles.map(|target| target.settings.profile.as_deref());
    for profile in profiles.collect::<BTreeSet<_>>() {
        on_demand::offer_for(profile).await?;
    }
    let log = background_log::path(&dir, &args.targets);
    start(&dir, &log, &host).await
}

/// Starts the server and waits until it is ready, or has failed.
async fn start(dir: &Path, log: &Path, host: &str) -> anyhow::Result<u8> {
    let mut signals = StopSignals::install().context("cannot listen for signals")?;
    let at = || format!("cannot write {}", log.display());
    let output = background_log::open(log).with_context(at)?;
    let begin = output.metadata().with_context(at)?.len();
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut child = background::spawn(&program, &arguments(log), &output)
        .with_context(|| format!("cannot start {}", program.display()))?;
    let started = tokio::select! {
        started = started(dir, &mut child) => started?,
        signal = signals.next() => {
            background::terminate(&mut child);
            bail!("stopped by {signal}");
        }
    };
    match started {
        Started::Serving(process) => {
            terminal::write(format!(
                "pgiam is running in the background (process {})\n\n{}\nlog   {}\nstop  pgiam down\n",
                process.pid,
                shown(&process, host),
                short(log)
            ))?;
            Ok(code(&process))
        }
        Started::Ended(code) => {
            let failure = match background_log::failure(log, begin) {
                nothing if nothing.is_empty() => {
                    format!("pgiam: the server ended with code {code}")
                }
                failure => clean(&failure),
            };
            terminal::tell(format!("{failure}\nThe whole log: {}", short(log)))?;
            Ok(code)
        }
        Started::Silent => {
            terminal::tell(format!(
                "pgiam: process {} is not ready after {} s\nhint: its log has the reason:\n  {}",
                child.id(),
                PATIENCE.as_secs(),
                short(log)
            ))?;
            Ok(exit::NOT_RUNNING)
        }
    }
}

/// Returns the command line of the server: that of this process, with another command.
fn arguments(log: &Path) -> Vec<OsString> {
    let mut all: Vec<OsString> = vec!["serve".into(), "--background-log".into(), log.into()];
    // The command is the first argument, because clap accepts no flags before it.
    all.extend(std::env::args_os().skip(2));
    all
}

/// Outcome of a start.
enum Started {
    /// It listens.
    Serving(Box<ProcessDocument>),
    /// It has ended with this exit code.
    Ended(u8),
    /// It has not listened in time, and still runs.
    Silent,
}

async fn started(dir: &Path, child: &mut Child) -> anyhow::Result<Started> {
    let _progress = Progress::start("starting pgiam");
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child
            .try_wait()
            .context("cannot wait for the new process")?
        {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(Started::Ended(code.unwrap_or(exit::FAILED)));
        }
        let all = client::all(Some(dir)).await.into_iter();
        let mut processes = all.filter_map(|(_, status)| status.ok());
        let own = processes.find(|process| process.pid == child.id());
        if let Some(process) = own.filter(|process| process.state == "serving") {
            return Ok(Started::Serving(Box::new(process)));
        }
        if Instant::now() >= until {
            return Ok(Started::Silent);
        }
        sleep(LOOK).await;
    }
}

/// Returns the server that serves all these targets of the same file, if one runs.
async fn running(
    dir: &Path,
    names: &BTreeSet<&str>,
    file: Option<&Path>,
) -> anyhow::Result<Option<ProcessDocument>> {
    let file = file.map(|file| std::path::absolute(file).unwrap_or_else(|_| file.to_owned()));
    let serves = |process: &ProcessDocument| {
        let own: BTreeSet<&str> = process.targets.iter().map(|target| &*target.name).collect();
        let config = process.config.as_deref();
        process.kind == ProcessKind::Serve.as_str()
            && process.state != "draining"
            && names.is_subset(&own)
            && config.map(std::path::absolute).and_then(Result::ok) == file
    };
    let all = client::all(Some(dir)).await.into_iter();
    let mut processes = all.filter_map(|(_, status)| status.ok());
    Ok(processes.find(serves))
}

/// Returns a line for each target: the command to connect, and the state.
pub(super) fn shown(process: &ProcessDocument, host: &str) -> String {
    let mut table = Table::new(&["TARGET", "CONNECT", "STATE"]);
    for target in &process.targets {
        let shared = process
            .targets
            .iter()
            .filter(|other| other.port == target.port);
        let database = match shared.count() {
            0 | 1 => String::new(),
            _ => format!(" -d {}", shell(&target.name)),
        };
        table.row([
            target.name.clone(),
            format!("psql -h {host} -p {}{database}", target.port),
            state(target),
        ]);
    }
    let left_out = process.left_out.iter();
    let left_out: String = left_out
        .map(|reason| format!("not served: {reason}\n"))
        .collect();
    let table = table.within(terminal::stdout_width());
    format!("{table}{left_out}")
}

fn state(target: &TargetDocument) -> String {
    if target.ready {
        return styled(GOOD, "ready");
    }
    let last = target.last_error.as_ref().map(|error| &error.id);
    let reason = target.failing.as_ref().or(last);
    let reason = reason.map(|id| format!(" [{id}]")).unwrap_or_default();
    styled(WARNING, format!("not ready{reason}"))
}

pub(super) fn code(process: &ProcessDocument) -> u8 {
    match process.targets.iter().all(|target| target.ready) {
        true => 0,
        false => exit::NOT_RUNNING,
    }
}
