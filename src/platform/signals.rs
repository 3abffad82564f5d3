//! Signals of Unix, and the events of a Windows console.

use std::io;

#[cfg(unix)]
use super::is_in_front;

/// Number of SIGINT, on Windows also of the events of a console.
#[cfg(windows)]
const INTERRUPT: u8 = 2;

/// Events of a console. Windows ends a process some seconds after the last three of them, whatever
/// it does.
#[cfg(windows)]
#[derive(Debug)]
struct ConsoleEvents {
    ctrl_c: Option<tokio::signal::windows::CtrlC>,
    ctrl_break: Option<tokio::signal::windows::CtrlBreak>,
    close: Option<tokio::signal::windows::CtrlClose>,
    logoff: Option<tokio::signal::windows::CtrlLogoff>,
    shutdown: Option<tokio::signal::windows::CtrlShutdown>,
}

#[cfg(windows)]
impl ConsoleEvents {
    /// Starts listening. A process without a console has no events, which is no error.
    fn install() -> Self {
        use tokio::signal::windows;
        Self {
            ctrl_c: windows::ctrl_c().ok(),
            ctrl_break: windows::ctrl_break().ok(),
            close: windows::ctrl_close().ok(),
            logoff: windows::ctrl_logoff().ok(),
            shutdown: windows::ctrl_shutdown().ok(),
        }
    }

    /// Waits for the next event and returns its name. Cancel-safe.
    async fn next(&mut self) -> &'static str {
        std::future::poll_fn(|cx| {
            macro_rules! ready {
                ($($event:ident: $name:literal),*) => {$(
                    let event = self.$event.as_mut();
                    if event.is_some_and(|event| event.poll_recv(cx).is_ready()) {
                        return std::task::Poll::Ready($name);
                    }
                )*};
            }
            ready!(
                ctrl_c: "Ctrl-C",
                ctrl_break: "Ctrl-Break",
                close: "the end of the console",
                logoff: "logoff",
                shutdown: "shutdown"
            );
            std::task::Poll::Pending
        })
        .await
    }
}

/// Signals that are passed on to a child command. They include the signals that stop pgiam: the
/// command decides how to react.
#[derive(Debug)]
pub struct ForwardedSignals {
    #[cfg(unix)]
    all: Vec<(u8, tokio::signal::unix::Signal)>,
    #[cfg(windows)]
    events: ConsoleEvents,
}

impl ForwardedSignals {
    /// Starts listening: from here on none of these signals kills the process.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn install() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use rustix::process::Signal;
            use tokio::signal::unix::{SignalKind, signal};
            let wanted = [
                Signal::HUP,
                Signal::INT,
                Signal::QUIT,
                Signal::TERM,
                Signal::USR1,
                Signal::USR2,
            ];
            let all = wanted.into_iter().map(|wanted| {
                let number = wanted.as_raw();
                let received = signal(SignalKind::from_raw(number))?;
                Ok((u8::try_from(number).unwrap_or(u8::MAX), received))
            });
            let all = all.collect::<io::Result<_>>()?;
            Ok(Self { all })
        }
        #[cfg(windows)]
        Ok(Self {
            events: ConsoleEvents::install(),
        })
    }

    /// Waits for the next signal and returns its number. Cancel-safe.
    pub async fn next(&mut self) -> u8 {
        #[cfg(unix)]
        {
            std::future::poll_fn(|cx| {
                for (number, received) in &mut self.all {
                    if received.poll_recv(cx).is_ready() {
                        return std::task::Poll::Ready(*number);
                    }
                }
                std::task::Poll::Pending
            })
            .await
        }
        #[cfg(windows)]
        {
            self.events.next().await;
            INTERRUPT
        }
    }

    /// Sends a signal to a child. Signals that the terminal sends to its whole foreground group
    /// (Ctrl-C and the like) have reached the child already and are skipped. Windows has no other
    /// signals: all but those of the console end the child at once.
    pub fn forward(signal: u8, child: &mut tokio::process::Child) {
        #[cfg(unix)]
        {
            use rustix::process::{Pid, Signal, kill_process};
            let by_terminal = [Signal::INT, Signal::QUIT]
                .iter()
                .any(|key| key.as_raw() == i32::from(signal));
            if by_terminal && is_in_front() {
                return;
            }
            let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
            let pid = pid.and_then(Pid::from_raw);
            let signal = Signal::from_named_raw(i32::from(signal));
            if let (Some(pid), Some(signal)) = (pid, signal) {
                // It may have ended just now.
                _ = kill_process(pid, signal);
            }
        }
        #[cfg(windows)]
        if signal != INTERRUPT {
            // It may have ended just now.
            _ = child.start_kill();
        }
    }
}

/// Returns the signal that ended a process, if one did; on Windows only that of Ctrl-C and
/// Ctrl-Break.
#[must_use]
pub fn signal_of(status: std::process::ExitStatus) -> Option<u8> {
    #[cfg(unix)]
    {
        let signal = std::os::unix::process::ExitStatusExt::signal(&status)?;
        u8::try_from(signal).ok()
    }
    #[cfg(windows)]
    {
        /// `STATUS_CONTROL_C_EXIT` in ntstatus.h: the default handler ended the process.
        const CONTROL_C_EXIT: u32 = 0xC000_013A;
        let code = status.code()?;
        (code.cast_unsigned() == CONTROL_C_EXIT).then_some(INTERRUPT)
    }
}

/// The signal to reload the configuration: SIGHUP, if the system has it.
#[derive(Debug)]
pub struct HangUp {
    #[cfg(unix)]
    hang_up: tokio::signal::unix::Signal,
}

impl HangUp {
    /// Starts listening: from here on the signal no longer kills the process.
    ///
    /// # Errors
    /// When the handler cannot be installed.
    pub fn install() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let hang_up = signal(SignalKind::hangup())?;
            Ok(Self { hang_up })
        }
        #[cfg(windows)]
        Ok(Self {})
    }

    /// Waits for the next signal; forever on systems without it. Cancel-safe.
    pub async fn next(&mut self) {
        #[cfg(unix)]
        {
            self.hang_up.recv().await;
        }
        #[cfg(windows)]
        std::future::pending::<()>().await;
    }
}

/// Signals that stop the program.
#[derive(Debug)]
pub struct StopSignals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(windows)]
    events: ConsoleEvents,
}

impl StopSignals {
    /// Starts listening: from here on the signals no longer kill the process by default.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn install() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            })
        }
        #[cfg(windows)]
        Ok(Self {
            events: ConsoleEvents::install(),
        })
    }

    /// Waits for the next signal and returns its name. Cancel-safe.
    pub async fn next(&mut self) -> &'static str {
        #[cfg(unix)]
        {
            tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
            }
        }
        #[cfg(windows)]
        self.events.next().await
    }
}
