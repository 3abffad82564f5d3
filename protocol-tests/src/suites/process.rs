//! Programs that start others, run to their end.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::time::timeout;

/// How a program ended, and what it wrote.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Ended {
    /// An error with what it wrote unless it ended well.
    pub(super) fn success(self, program: &str) -> anyhow::Result<()> {
        if !self.status.success() {
            bail!("{program}: {}\n{}{}", self.status, self.stdout, self.stderr);
        }
        Ok(())
    }
}

/// Runs a program to its end, in a process group of its own. When `limit` is over, or the future is
/// dropped, the whole group is killed.
pub(super) async fn run(mut command: Command, limit: Duration) -> anyhow::Result<Ended> {
    let name = command.as_std().get_program().display().to_string();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    let mut group = Group(child.id());
    let Ok(output) = timeout(limit, child.wait_with_output()).await else {
        bail!("{name} had not ended after {limit:?}");
    };
    // The pipes are at their end, so nobody in the group is left, and its number may be used again.
    group.0 = None;
    let output = output?;
    Ok(Ended {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Kills a process group when dropped.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            // It may just have ended.
            let _ = killpg(Pid::from_raw(id.cast_signed()), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn what_a_program_writes_is_kept() {
        let limit = Duration::from_secs(60);
        let ended = run(shell("echo out; echo err >&2; exit 3"), limit)
            .await
            .unwrap();
        assert_eq!(ended.status.code(), Some(3));
        assert_eq!(
            (ended.stdout.as_str(), ended.stderr.as_str()),
            ("out\n", "err\n")
        );
        assert!(
            ended
                .success("sh")
                .unwrap_err()
                .to_string()
                .contains("out\nerr")
        );
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_is_an_error() {
        let error = run(shell("exec sleep 600"), Duration::from_millis(10)).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("had not ended"), "{error}");
    }

    #[tokio::test]
    async fn children_of_a_program_that_is_given_up_end_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        // The grandchild holds the other end of the fifo open for as long as it lives.
        let script = format!("sh -c 'exec sleep 600' >{} & wait", fifo.display());
        let limit = Duration::from_secs(60);
        let opened = tokio::task::spawn_blocking(move || std::fs::File::open(fifo));
        let mut end = tokio::select! {
            ended = run(shell(&script), limit) => panic!("it ended: {ended:?}"),
            opened = opened => opened.unwrap().unwrap(),
        };
        let read = tokio::task::spawn_blocking(move || std::io::Read::read(&mut end, &mut [0]));
        let read = timeout(limit, read).await;
        assert_eq!(read.expect("the grandchild ends").unwrap().unwrap(), 0);
    }
}
