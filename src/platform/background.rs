//! Processes without a terminal, for `pgiam up`.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Starts a program with both outputs in a file and without input. On Windows it has no console; on
/// other systems it calls [`detach`].
///
/// # Errors
/// Any error of the system.
pub fn spawn(program: &Path, arguments: &[OsString], output: &File) -> io::Result<Child> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?);
    #[cfg(windows)]
    {
        /// `DETACHED_PROCESS` and `CREATE_NEW_PROCESS_GROUP` in winbase.h.
        const DETACHED: u32 = 0x0000_0008 | 0x0000_0200;
        std::os::windows::process::CommandExt::creation_flags(&mut command, DETACHED);
    }
    command.spawn()
}

/// Moves this process to a session of its own: no signal of the terminal reaches it any more, and
/// the end of the terminal does not end it. On Windows [`spawn`] does that.
///
/// # Errors
/// Any error of the system.
pub fn detach() -> io::Result<()> {
    #[cfg(unix)]
    {
        // A process that leads its group, because a shell started it directly, has to stay there.
        match rustix::process::setsid() {
            Ok(_) | Err(rustix::io::Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// [`redirect_output`] is supported. On Windows a process keeps its outputs.
pub const CAN_REDIRECT: bool = cfg!(unix);

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
    #[cfg(windows)]
    {
        let _ = file;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Asks a process of [`spawn`] to end: with SIGTERM, on Windows at once. It may have ended already.
pub fn terminate(child: &mut Child) {
    #[cfg(unix)]
    {
        use rustix::process::{Pid, Signal, kill_process};
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            _ = kill_process(pid, Signal::TERM);
        }
    }
    #[cfg(windows)]
    {
        _ = child.kill();
    }
}
