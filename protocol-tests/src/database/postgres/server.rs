//! The server process: start, readiness, end.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cluster::DATA_DIR;
use super::install::Install;

/// How long a start may take before it counts as failed.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long the server may take for a fast shutdown, then for an immediate one.
const STOP_DEADLINES: [(Signal, Duration); 2] = [
    (Signal::SIGINT, Duration::from_secs(5)),
    (Signal::SIGQUIT, Duration::from_secs(3)),
];
/// How often a condition outside of this process is looked at.
const POLL: Duration = Duration::from_millis(5);
/// How much of the log an error carries, in lines.
const TAIL: usize = 25;
const LOG_FILE: &str = "server.log";

/// A running server process. Dropping it stops the server.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    guard: Guard,
}

/// Why a start failed, and whether another port could help.
#[derive(Debug)]
pub(super) struct LaunchError {
    pub(super) error: anyhow::Error,
    pub(super) port_taken: bool,
}

impl From<anyhow::Error> for LaunchError {
    fn from(error: anyhow::Error) -> Self {
        Self {
            error,
            port_taken: false,
        }
    }
}

impl Server {
    /// Starts the server of `base` and waits until it accepts connections.
    pub(super) fn launch(install: &Install, base: &Path) -> Result<Self, LaunchError> {
        let mut server = Self::spawn(install, base)?;
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if is_ready(base, server.pid()) {
                return Ok(server);
            }
            let ended = server.child.try_wait().context("waiting for postgres")?;
            let reason = match ended {
                Some(status) => format!("it ended with {status}"),
                None if Instant::now() > deadline => {
                    format!("it was not ready after {START_DEADLINE:?}")
                }
                None => {
                    std::thread::sleep(POLL);
                    continue;
                }
            };
            let log = log_tail(base);
            let hint = if log.contains("not supported by this build") {
                "\nThis PostgreSQL was built without LDAP; the Debian and Ubuntu packages have it."
            } else {
                ""
            };
            return Err(LaunchError {
                port_taken: log.contains("Address already in use"),
                error: anyhow!("PostgreSQL did not start: {reason}{hint}\n{log}"),
            });
        }
    }

    fn spawn(install: &Install, base: &Path) -> anyhow::Result<Self> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(base.join(LOG_FILE))?;
        let child = install
            .command("postgres", base)
            .arg("-D")
            .arg(base.join(DATA_DIR))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting postgres")?;
        match Guard::new(child.id(), base) {
            Ok(guard) => Ok(Self { child, guard }),
            Err(error) => {
                stop(&mut { child });
                Err(error)
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        stop(&mut self.child);
        self.guard.dismiss();
    }
}

/// Ends the process: politely, less politely, by force. Returns when it is gone.
fn stop(child: &mut Child) {
    for (signal, limit) in STOP_DEADLINES {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        let Ok(pid) = i32::try_from(child.id()) else {
            break;
        };
        let _ = kill(Pid::from_raw(pid), signal);
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(POLL);
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// The first line of `postmaster.pid` is the process id, and the eighth says `ready` once
/// connections are accepted; `pg_ctl` waits for the same. A killed server leaves its file behind.
fn is_ready(base: &Path, pid: u32) -> bool {
    fs::read_to_string(base.join(DATA_DIR).join("postmaster.pid")).is_ok_and(|text| {
        let mut lines = text.lines();
        lines.next() == Some(&pid.to_string()) && lines.nth(6).is_some_and(|l| l.trim() == "ready")
    })
}

/// The last lines of the server's log.
pub(super) fn log_tail(base: &Path) -> String {
    let bytes = fs::read(base.join(LOG_FILE)).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

/// A tiny process that ends the server and removes its directory when we die without doing so
/// (SIGKILL, a runner's timeout): our end of its standard input closes in every case.
#[derive(Debug)]
struct Guard(Child);

/// `$1` is the server's process id, `$2` its directory. A line of input means "all is well". The
/// process id is only trusted while the directory still names it.
const GUARD_SCRIPT: &str = r#"
read -r _ && exit 0
alive() { [ "$(head -n 1 "$2/data/postmaster.pid" 2>/dev/null)" = "$1" ] && kill -0 "$1" 2>/dev/null; }
alive "$1" "$2" && kill -INT "$1"
n=0
while alive "$1" "$2" && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
alive "$1" "$2" && kill -QUIT "$1" && sleep 1
rm -rf -- "$2"
"#;

impl Guard {
    fn new(pid: u32, base: &Path) -> anyhow::Result<Self> {
        let child = Command::new("sh")
            .args(["-c", GUARD_SCRIPT, "guard", &pid.to_string()])
            .arg(base)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .context("starting the server's guard")?;
        Ok(Self(child))
    }

    fn dismiss(&mut self) {
        if let Some(mut input) = self.0.stdin.take() {
            let _ = input.write_all(b"\n");
        }
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stand-in for the server: a process named in `postmaster.pid` that SIGINT ends.
    fn victim(base: &Path) -> Child {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        fs::create_dir(base.join(DATA_DIR)).unwrap();
        let file = base.join(DATA_DIR).join("postmaster.pid");
        fs::write(file, format!("{}\n", child.id())).unwrap();
        child
    }

    #[test]
    fn the_guard_cleans_up_after_a_sudden_death() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        fs::create_dir(&base).unwrap();
        let mut victim = victim(&base);
        let mut guard = Guard::new(victim.id(), &base).unwrap();
        // What happens to our end of the pipe when we are killed.
        drop(guard.0.stdin.take());
        assert!(!victim.wait().unwrap().success());
        guard.0.wait().unwrap();
        assert!(!base.exists());
    }

    #[test]
    fn a_dismissed_guard_leaves_everything_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut victim = victim(dir.path());
        let mut guard = Guard::new(victim.id(), dir.path()).unwrap();
        guard.dismiss();
        assert!(matches!(victim.try_wait(), Ok(None)));
        assert!(dir.path().join(DATA_DIR).exists());
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
}
