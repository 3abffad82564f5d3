//! The real `pgiam` process.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
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

/// How long `pgiam` may take to end after SIGTERM.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// What to start.
pub(super) struct Launch<'a> {
    pub(super) pgiam: &'a Path,
    pub(super) config: &'a Path,
    pub(super) ca_file: &'a Path,
    pub(super) state_dir: &'a Path,
    pub(super) env: Vec<(String, String)>,
    /// Collect JSON log lines instead of letting the log through to our own standard error.
    pub(super) json: bool,
}

/// A running `pgiam serve`.
pub(super) struct Proxy {
    child: Child,
    stdout: BufReader<ChildStdout>,
    ready_line: String,
    port: u16,
    /// Lines of standard error, when collected.
    log: watch::Receiver<Vec<String>>,
}

impl Proxy {
    pub(super) fn start(launch: Launch<'_>) -> anyhow::Result<Self> {
        let mut command = Command::new(launch.pgiam);
        super::clean_env(&mut command, &["AWS_", "PGIAM_"]);
        command
            .arg("serve")
            .arg("--config")
            .arg(launch.config)
            .arg("--ca-file")
            .arg(launch.ca_file)
            .arg("--state-dir")
            .arg(launch.state_dir)
            .envs(launch.env)
            // The sandbox is on this machine, whatever way the rest of the world is reached.
            .env("NO_PROXY", "localhost,127.0.0.1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Ctrl-C is for us; pgiam gets SIGTERM when its turn has come.
            .process_group(0)
            .kill_on_drop(true);
        if launch.json {
            command.args(["--log-format", "json"]);
            command.stderr(Stdio::piped());
        }
        let mut child = command
            .spawn()
            .with_context(|| super::starting(launch.pgiam))?;
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

    /// Waits for the line that says where it listens.
    pub(super) async fn wait_ready(&mut self, limit: Duration) -> anyhow::Result<()> {
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
                _ if line.starts_with("ready") => break,
                _ => {}
            }
        }
        self.port = port_of(&line).with_context(|| format!("no port in {line:?}"))?;
        line.trim_end().clone_into(&mut self.ready_line);
        Ok(())
    }

    pub(super) fn ready_line(&self) -> &str {
        &self.ready_line
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Waits until it ends by itself, and says how.
    pub(super) async fn died(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => format!("{status}\n{}", self.log_text()),
            Err(error) => error.to_string(),
        }
    }

    /// The first JSON log line with this message, past or future.
    pub(super) async fn wait_log(&self, message: &str, limit: Duration) -> Option<Value> {
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
    pub(super) fn log_text(&self) -> String {
        self.log.borrow().join("\n")
    }

    /// SIGTERM, and SIGKILL when that does not help in time. A failure to end by itself, and with
    /// success, is an error.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        // Without an id it has ended already, and has been waited for.
        let pid = self.child.id();
        if let Some(pid) = pid {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM);
        }
        let ended: Result<ExitStatus, _> = match timeout(STOP_DEADLINE, self.child.wait()).await {
            Ok(ended) => ended,
            Err(_) => {
                self.child.kill().await?;
                bail!("pgiam did not end within {STOP_DEADLINE:?} after SIGTERM");
            }
        };
        match ended? {
            status if status.success() || pid.is_none() => Ok(()),
            // It had no time to learn what SIGTERM asks of it.
            status if status.signal() == Some(15) && self.ready_line.is_empty() => Ok(()),
            status => bail!("pgiam ended with {status} after SIGTERM"),
        }
    }
}

async fn collect(stderr: ChildStderr, log: watch::Sender<Vec<String>>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        log.send_modify(|all| all.push(line));
    }
}

/// The number behind `-p` in `ready  orders  psql -h localhost -p 5433  → …`.
fn port_of(line: &str) -> Option<u16> {
    let mut words = line.split_whitespace().skip_while(|word| *word != "-p");
    words.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_names_the_port() {
        let line = "ready  orders  psql -h localhost -p 40123  → db:5432 as db_user via ssm i-1";
        assert_eq!(port_of(line), Some(40_123));
        assert_eq!(port_of("ready  orders"), None);
        assert_eq!(port_of("ready -p"), None);
    }
}
