//! User programs that must not outlive their purpose.

use std::process::Stdio;

use tokio::process::{Child, Command};

/// Returns a command without a shell and without input, in a process group of its own if the system
/// has such groups. On Windows only the program itself can be ended. The system finds a program
/// without a directory by `PATH`.
#[must_use]
pub fn command(program: &str, arguments: &[String]) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    command
}

/// Returns `true` if the system has stopped a program, started by [`command`], that reads from the
/// terminal or changes its settings: only the foreground group may do that.
#[must_use]
pub fn waits_for_terminal(child: &Child) -> bool {
    #[cfg(unix)]
    {
        use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
        // Without waiting, and without taking the event from those that wait for the end.
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let stopped = of_child(child).and_then(|id| waitid(WaitId::Pid(id), options).ok()?);
        let signal = stopped.and_then(|status| status.stopping_signal());
        [Signal::TTIN, Signal::TTOU]
            .iter()
            .any(|of_terminal| signal == Some(of_terminal.as_raw()))
    }
    #[cfg(not(unix))]
    {
        _ = child;
        false
    }
}

#[cfg(unix)]
fn of_child(child: &Child) -> Option<rustix::process::Pid> {
    let id = i32::try_from(child.id()?).ok()?;
    rustix::process::Pid::from_raw(id)
}

/// Kills a process group when it is dropped: the program and its descendants that did not leave the
/// group.
#[derive(Debug)]
pub struct EndOnDrop {
    #[cfg(unix)]
    group: Option<rustix::process::Pid>,
}

impl EndOnDrop {
    /// Guards the group that `child`, started by [`command`], leads.
    #[must_use]
    #[cfg_attr(
        not(unix),
        expect(unused_variables, reason = "there are no groups to end")
    )]
    pub fn of(child: &Child) -> Self {
        Self {
            #[cfg(unix)]
            group: of_child(child),
        }
    }
}

#[cfg(unix)]
impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // ESRCH: all processes have ended.
            _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}
