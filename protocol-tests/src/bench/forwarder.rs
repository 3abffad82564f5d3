//! Programs that forward a local port through the sandbox: ours and those it is measured beside.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::aws::sandbox::Sandbox;
use crate::harness::program::{clean_env, starting};
use crate::harness::sync::lock;

/// How long a forwarder may take to say where it listens.
const READY: Duration = Duration::from_secs(30);
/// How long it may take to end when told.
const STOP: Duration = Duration::from_secs(10);
/// Lines of its standard error that are kept, the first ones.
const KEPT_LINES: usize = 50;

/// A running program with a local port.
#[derive(Debug)]
pub struct Forwarder {
    child: Child,
    /// Closing it tells some to end.
    stdin: Option<ChildStdin>,
    address: SocketAddr,
}

impl Forwarder {
    /// `pgiam tunnel HOST:PORT` through `bastion`.
    ///
    /// # Errors
    /// When it does not start to listen; with what it wrote.
    pub async fn pgiam(
        program: &Path,
        sandbox: &Sandbox,
        bastion: &str,
        (host, port): (&str, u16),
    ) -> anyhow::Result<Self> {
        let mut command = command(program, sandbox);
        command
            .args(["tunnel", &format!("{host}:{port}"), "--bastion", bastion])
            .args(["--listen", "127.0.0.1:0"]);
        Self::start(command, |line| {
            line.starts_with("ready").then(|| loopback_port(line))?
        })
        .await
    }

    /// `bridge-forward` (`protocol-tests/judges/ssm-bridge`), a client that shares no line with ours.
    ///
    /// # Errors
    /// When it does not start to listen; with what it wrote.
    pub async fn bridge(
        program: &Path,
        sandbox: &Sandbox,
        bastion: &str,
        (host, port): (&str, u16),
    ) -> anyhow::Result<Self> {
        let mut command = command(program, sandbox);
        command
            .args([bastion, host, &port.to_string()])
            .env("SSL_CERT_FILE", sandbox.pki().ca_pem_path());
        Self::start(command, |line| {
            line.starts_with("listening").then(|| loopback_port(line))?
        })
        .await
    }

    /// Starts `command` and waits for a line of its standard output in which `port` finds one.
    pub(crate) async fn start(
        mut command: Command,
        port: fn(&str) -> Option<u16>,
    ) -> anyhow::Result<Self> {
        let program = Path::new(command.as_std().get_program()).to_owned();
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for us.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().with_context(|| starting(&program))?;
        let stdin = child.stdin.take();
        let written = Arc::new(Mutex::new(Vec::new()));
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(keep(BufReader::new(stderr).lines(), written.clone()));
        }
        let stdout = child.stdout.take().context("its standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let found = timeout(READY, find_port(&mut lines, &written, port)).await;
        let name = program.display();
        let Ok(Some(port)) = found else {
            let _ = child.start_kill();
            let ended = child.wait().await?;
            bail!(
                "{name} did not say where it listens ({ended})\n{}",
                lock(&written).join("\n")
            );
        };
        // Nobody may have to wait because its output is not read.
        tokio::spawn(keep(lines, written));
        Ok(Self {
            child,
            stdin,
            address: (Ipv4Addr::LOCALHOST, port).into(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// End of input and SIGTERM, and SIGKILL when that does not help in time.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.stdin.take());
        if let Some(pid) = self.child.id() {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM);
        }
        if timeout(STOP, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }
}

/// A command that has nothing of the caller's AWS but everything of the sandbox's.
pub(crate) fn command(program: &Path, sandbox: &Sandbox) -> Command {
    let mut command = Command::new(program);
    clean_env(&mut command, &["AWS_", "PGIAM_", "SSL_CERT_"]);
    command
        .envs(sandbox.env())
        // The sandbox is on this machine, whatever way the rest of the world is reached.
        .env("NO_PROXY", "localhost,127.0.0.1");
    command
}

async fn find_port(
    lines: &mut Lines<BufReader<ChildStdout>>,
    written: &Mutex<Vec<String>>,
    port: fn(&str) -> Option<u16>,
) -> Option<u16> {
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(port) = port(&line) {
            return Some(port);
        }
        lock(written).push(line);
    }
    None
}

async fn keep<R: AsyncRead + Unpin>(
    mut lines: Lines<BufReader<R>>,
    written: Arc<Mutex<Vec<String>>>,
) {
    while let Ok(Some(line)) = lines.next_line().await {
        let mut written = lock(&written);
        if written.len() < KEPT_LINES {
            written.push(line);
        }
    }
}

/// The port in the first `127.0.0.1:PORT` of a line.
pub(crate) fn loopback_port(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("127.0.0.1:")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_wherever_it_stands() {
        let line = "ready  mysql  127.0.0.1:40123  → db.internal:3306 via ssm i-1";
        assert_eq!(loopback_port(line), Some(40_123));
        assert_eq!(loopback_port("listening 127.0.0.1:7"), Some(7));
        assert_eq!(loopback_port("listening 127.0.0.1:"), None);
        assert_eq!(loopback_port("ready"), None);
    }

    #[tokio::test]
    async fn a_program_that_ends_first_is_quoted() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo hello; echo sorry >&2; exit 3"]);
        let error = Forwarder::start(command, |_| None).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("hello"), "{text}");
    }

    #[tokio::test]
    async fn a_program_that_listens_is_stopped_when_told() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo listening 127.0.0.1:12345; exec cat"]);
        let forwarder = Forwarder::start(command, loopback_port).await.unwrap();
        assert_eq!(forwarder.address().port(), 12_345);
        forwarder.stop().await.unwrap();
    }
}
