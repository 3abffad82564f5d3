//! Processes without a terminal, for `pgiam up`.
//!
//! Windows has no control socket, by which `pgiam down` could find such a process, so there is none.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Starts a program with both outputs in a file and without input. It calls [`detach`].
///
/// # Errors
/// Any error of the system.
pub fn spawn(program: &Path, arguments: &[OsString], output: &File) -> io::Result<Child> {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .spawn()
}

/// Moves this process to a session of its own: no signal of the terminal reaches it any more, and
/// the end of the terminal does not end it.
///
/// # Errors
/// Any error of the system; on Windows always.
pub fn detach() -> io::Result<()> {
    #[cfg(unix)]
    {
        // A process that leads its group, because a shell started it directly, has to stay there.
        match rustix::process::setsid() {
            Ok(_) | Err(rustix::io::Errno::PERM) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
    #[cfg(not(unix))]
    Err(io::ErrorKind::Unsupported.into())
}

/// Makes a file the standard output and the standard error of this process.
///
/// # Errors
/// Any error of the system; on Windows always.
pub fn redirect_output(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    {
        rustix::stdio::dup2_stdout(file)?;
        rustix::stdio::dup2_stderr(file)?;
        Ok(())
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Asks a process to end with SIGTERM. It may have ended already.
pub fn terminate(pid: u32) {
    #[cfg(unix)]
    {
        use rustix::process::{Pid, Signal, kill_process};
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            _ = kill_process(pid, Signal::TERM);
        }
    }
    #[cfg(not(unix))]
    let _ = pid;
}
