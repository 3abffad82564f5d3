//! Job control of a program that uses the whole terminal: Ctrl-Z, `fg`, and the signals behind them.

use std::io;

/// Signals that suspend and resume this process.
#[derive(Debug)]
pub struct SuspendSignals {
    #[cfg(unix)]
    stop: tokio::signal::unix::Signal,
    #[cfg(unix)]
    resume: tokio::signal::unix::Signal,
}

/// A signal of [`SuspendSignals`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuspendSignal {
    /// The process should restore the terminal and suspend itself.
    Suspend,
    /// The process continues; it may have been stopped without notice.
    Resumed,
}

impl SuspendSignals {
    /// Starts listening: from here on SIGTSTP no longer stops the process.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn install() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use rustix::process::Signal;
            use tokio::signal::unix::{SignalKind, signal};
            let [stop, resume] = [Signal::TSTP, Signal::CONT];
            Ok(Self {
                stop: signal(SignalKind::from_raw(stop.as_raw()))?,
                resume: signal(SignalKind::from_raw(resume.as_raw()))?,
            })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next signal; forever on systems without them. Cancel-safe.
    pub async fn next(&mut self) -> SuspendSignal {
        #[cfg(unix)]
        {
            tokio::select! {
                _ = self.stop.recv() => SuspendSignal::Suspend,
                _ = self.resume.recv() => SuspendSignal::Resumed,
            }
        }
        #[cfg(not(unix))]
        std::future::pending().await
    }
}

/// Suspends this process, or with `whole_job` its process group, as Ctrl-Z does, and returns after
/// it was resumed. Returns `false` at once if no shell could resume it.
pub fn suspend(whole_job: bool) -> bool {
    #[cfg(unix)]
    {
        use rustix::process::{Signal, getpgrp, getpid, getsid, kill_process, kill_process_group};
        // Without job control the process is in the group of the first process of the session. The
        // kernel discards stop signals of the terminal for it (POSIX, "orphaned process group").
        if getsid(None).is_ok_and(|session| session == getpgrp()) {
            return false;
        }
        let stopped = match whole_job {
            true => kill_process_group(getpgrp(), Signal::STOP),
            false => kill_process(getpid(), Signal::STOP),
        };
        stopped.is_ok()
    }
    #[cfg(not(unix))]
    {
        let _ = whole_job;
        false
    }
}
