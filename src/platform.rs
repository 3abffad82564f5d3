//! The few places where operating systems differ: who runs us and who talks to us, where state,
//! configuration and sockets live, which signals ask us to stop.
//!
//! Linux is what the tests run on. The macOS and Windows branches follow those systems' documented
//! conventions and are untested.

pub mod peer;
pub mod service;
pub mod socket;

use std::io;
use std::path::{Path, PathBuf};

/// The name of the operating-system user who runs this process: what libpq sends as `user` when
/// its caller names none (libpq: `pg_fe_getusername`).
#[must_use]
pub fn os_user() -> Option<String> {
    whoami::username().ok().filter(|name| !name.is_empty())
}

/// Where the program keeps what it makes once and needs again: `$XDG_STATE_HOME/pgiam`, else
/// `~/.local/state/pgiam`; `%LOCALAPPDATA%\pgiam` on Windows.
///
/// `None` when the account has no home directory.
#[must_use]
pub fn state_dir() -> Option<PathBuf> {
    base_dir("XDG_STATE_HOME", &[".local", "state"], "LOCALAPPDATA")
}

/// Where the user's configuration file lives: `$XDG_CONFIG_HOME/pgiam/config.toml`, else
/// `~/.config/pgiam/config.toml`; `%APPDATA%\pgiam\config.toml` on Windows.
#[must_use]
pub fn user_config_file() -> Option<PathBuf> {
    base_dir("XDG_CONFIG_HOME", &[".config"], "APPDATA").map(|dir| dir.join("config.toml"))
}

fn base_dir(xdg: &str, below_home: &[&str], windows: &str) -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute()) // The XDG specification: ignore relative paths.
    };
    if let Some(dir) = absolute(xdg) {
        return Some(dir.join("pgiam"));
    }
    if cfg!(windows) {
        return absolute(windows).map(|dir| dir.join("pgiam"));
    }
    let mut dir = std::env::home_dir().filter(|home| home.is_absolute())?;
    dir.extend(below_home);
    Some(dir.join("pgiam"))
}

/// Creates `dir` and its parents, readable by this user only where the system has such modes.
///
/// # Errors
/// Whatever the file system answers.
pub fn create_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Writes a new file that only this user can read (0600 on Unix).
///
/// # Errors
/// Whatever the file system answers; an existing file is an error.
pub fn write_private_file(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    io::Write::write_all(&mut file, contents)?;
    file.sync_all()
}

/// The signals that ask the program to end.
#[derive(Debug)]
pub struct StopSignals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignals {
    /// Begins to listen: from here on the signals no longer kill the process by default.
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
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next signal and names it. Cancel-safe.
    pub async fn next(&mut self) -> &'static str {
        #[cfg(unix)]
        {
            tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
            }
        }
        #[cfg(not(unix))]
        {
            // An error here means no console is attached: then nobody can press Ctrl-C.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
            "Ctrl-C"
        }
    }
}
