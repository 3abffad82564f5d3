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
            group: child
                .id()
                .and_then(|id| i32::try_from(id).ok())
                .and_then(rustix::process::Pid::from_raw),
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
