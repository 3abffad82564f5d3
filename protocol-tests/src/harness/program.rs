//! The program under test as a process, and psql as its user's client.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::watch;
use tokio::time::timeout;

/// How long `pgiam` may take to end after [`stop_signal`].
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// Names the folder of the Windows program that takes the place of the native one.
const WINDOWS: &str = "PGIAM_WINDOWS";

/// The folder that `./dev test --windows` has made: the Windows program, Wine's drives, and a script
/// that runs the one in the other. `None` in all other tests.
#[must_use]
pub fn windows() -> Option<PathBuf> {
    std::env::var_os(WINDOWS).map(PathBuf::from)
}

/// Asks the program under test to end in order: SIGTERM, or for a Windows program SIGINT, which Wine
/// turns into Ctrl-C.
#[must_use]
pub fn stop_signal() -> Signal {
    match windows() {
        Some(_) => Signal::SIGINT,
        None => Signal::SIGTERM,
    }
}

/// What to start.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The `pgiam` binary.
    pub pgiam: &'a Path,
    /// Its arguments, from `serve` on.
    pub args: Vec<OsString>,
    /// Its environment, in place of everything inherited that begins with `AWS_` or `PGIAM_`.
    pub env: Vec<(String, String)>,
    /// Collect the log from standard error, as JSON lines, instead of letting it through to our own.
    pub collect_log: bool,
}

impl<'a> Launch<'a> {
    /// `pgiam serve` with the three settings that keep it inside the sandbox.
    pub fn serve(pgiam: &'a Path, config: &Path, ca_file: &Path, state_dir: &Path) -> Self {
        let mut args = vec![OsString::from("serve")];
        for (flag, value) in [
            ("--config", config),
            ("--ca-file", ca_file),
            ("--state-dir", state_dir),
        ] {
            args.extend([flag.into(), value.as_os_str().to_owned()]);
        }
        Self {
            pgiam,
            args,
            env: Vec::new(),
            collect_log: false,
        }
    }
}

/// A running `pgiam`.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    stdout: BufReader<ChildStdout>,
    ready_line: String,
    port: u16,
    /// Lines of standard error, when collected.
    log: watch::Receiver<Vec<String>>,
}

impl Proxy {
    /// Starts the process; [`Proxy::wait_ready`] waits for it to listen.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn start(launch: Launch<'_>) -> anyhow::Result<Self> {
        let mut command = Command::new(launch.pgiam);
        clean_env(&mut command, &["AWS_", "PGIAM_"]);
        command
            .args(launch.args)
            .envs(launch.env)
            // The sandbox is on this machine, whatever way the rest of the world is reached.
            .env("NO_PROXY", "localhost,127.0.0.1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Ctrl-C is for us; pgiam gets its signal when its turn has come.
            .process_group(0)
            .kill_on_drop(true);
        if launch.collect_log {
            command.args(["--log-format", "json"]);
            command.stderr(Stdio::piped());
        }
        let mut child = command.spawn().with_context(|| starting(launch.pgiam))?;
        let (sender, log) = watch::channel(Vec::new());
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(collect(stderr, sender));
        }
        let stdout = child.stdout.take().context("standard output of pgiam")?;
        Ok(Self {
            child,
            stdout: BufReader::new(stdout),
            ready_line: String::new(),
            port: 0,
            log,
        })
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.child.id().context("pgiam has ended")?;
        Ok(kill(Pid::from_raw(pid.cast_signed()), signal)?)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub async fn wait_end(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        match timeout(limit, self.child.wait()).await {
            Ok(ended) => Ok(ended?),
            Err(_) => bail!("pgiam was still running after {limit:?}"),
        }
    }

    /// Waits for the line that says where it listens.
    ///
    /// # Errors
    /// When it ends instead (the text is what it wrote), or takes longer than `limit`.
    pub async fn wait_ready(&mut self, limit: Duration) -> anyhow::Result<()> {
        let mut line = String::new();
        loop {
            line.clear();
            let Ok(read) = timeout(limit, self.stdout.read_line(&mut line)).await else {
                bail!("pgiam was not ready after {limit:?}\n{}", self.log_text());
            };
            match read? {
                0 => {
                    let status = self.child.wait().await?;
                    // Whatever it wrote has been read when its end of the pipe is gone.
                    while self.log.changed().await.is_ok() {}
                    bail!(
                        "pgiam ended before it was ready: {status}\n{}",
                        self.log_text()
                    );
                }
                // It listens either way, and says what clients will hear.
                _ if line.starts_with("ready") || line.starts_with("not ready") => break,
                _ => {}
            }
        }
        self.port = port_of(&line).with_context(|| format!("no port in {line:?}"))?;
        line.trim_end().clone_into(&mut self.ready_line);
        Ok(())
    }

    /// The line that said so.
    pub fn ready_line(&self) -> &str {
        &self.ready_line
    }

    /// The local port in it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits until it ends by itself, and says how.
    pub async fn died(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => format!("{status}\n{}", self.log_text()),
            Err(error) => error.to_string(),
        }
    }

    /// The first JSON log line with this message, past or future.
    pub async fn wait_log(&self, message: &str, limit: Duration) -> Option<Value> {
        let find = |lines: &Vec<String>| {
            let parsed = lines.iter().filter_map(|l| serde_json::from_str(l).ok());
            parsed.into_iter().find(|v: &Value| v["message"] == message)
        };
        let mut log = self.log.clone();
        let found = timeout(limit, log.wait_for(|lines| find(lines).is_some())).await;
        let lines = found.ok()?.ok()?;
        find(&lines)
    }

    /// What it has logged, when that was collected.
    pub fn log_text(&self) -> String {
        self.log.borrow().join("\n")
    }

    /// [`stop_signal`], and SIGKILL when that does not help in time.
    ///
    /// # Errors
    /// When it did not end by itself, or not with success.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        // Without an id it has ended already, and has been waited for.
        let pid = self.child.id();
        let signal = stop_signal();
        if let Some(pid) = pid {
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        }
        let ended: Result<ExitStatus, _> = match timeout(STOP_DEADLINE, self.child.wait()).await {
            Ok(ended) => ended,
            Err(_) => {
                self.child.kill().await?;
                bail!("pgiam did not end within {STOP_DEADLINE:?} after {signal}");
            }
        };
        match ended? {
            status if status.success() || pid.is_none() => Ok(()),
            // It had no time to learn what the signal asks of it.
            status if status.signal() == Some(signal as i32) && self.ready_line.is_empty() => {
                Ok(())
            }
            status => bail!("pgiam ended with {status} after {signal}"),
        }
    }
}

async fn collect(stderr: ChildStderr, log: watch::Sender<Vec<String>>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        log.send_modify(|all| all.push(line));
    }
}

/// The number behind `-p` in `ready  orders  psql -h localhost -p 5433  → …`, or that of the address
/// in `ready  tunnel  127.0.0.1:3306  → …`, likewise of `relay`.
fn port_of(line: &str) -> Option<u16> {
    let mut words = line.split_whitespace();
    let port = match (words.nth(1)?, words.next()?) {
        ("tunnel" | "relay", address) => address.rsplit_once(':')?.1,
        _ => words.skip_while(|word| *word != "-p").nth(1)?,
    };
    port.parse().ok()
}

/// Removes every inherited variable that begins with one of `prefixes`.
pub fn clean_env(command: &mut Command, prefixes: &[&str]) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if prefixes.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
}

/// `psql` as a user calls it who has no password anywhere: none asked for, none in the environment,
/// no files of the caller's, English messages.
pub fn psql(program: &Path, port: u16) -> Command {
    let mut command = Command::new(program);
    clean_env(&mut command, &["PG"]);
    command
        .args(["-X", "-w", "-h", "localhost", "-p", &port.to_string()])
        .env("PGPASSFILE", "/nonexistent")
        .env("PGSERVICEFILE", "/dev/null")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Text for an error about a program that is not there.
pub(crate) fn starting(program: &Path) -> String {
    format!("starting {}", program.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_names_the_port() {
        let line = "ready  orders  psql -h localhost -p 40123  → db:5432 as db_user via ssm i-1";
        assert_eq!(port_of(line), Some(40_123));
        let line = "ready  tunnel  [::1]:40124  → db:3306 via ssm i-1";
        assert_eq!(port_of(line), Some(40_124));
        assert_eq!(port_of("ready  orders"), None);
        assert_eq!(port_of("ready -p"), None);
    }
}
