//! Differences between operating systems: users and peers, directories for state, configuration and
//! sockets, and signals that stop the program.
//!
//! Most tests run on Linux. `./dev test --windows` runs a part of them with the Windows program under
//! Wine. The macOS branches are compiled (`./dev lint --targets`), and follow the documented
//! conventions of that system.

pub mod background;
pub mod descriptors;
pub mod job_control;
pub mod peer;
pub mod permissions;
pub mod process_group;
#[cfg(windows)]
mod processes;
pub mod program;
pub mod service;
pub mod service_manager;
mod signals;
pub mod socket;
pub mod user;

pub use signals::{ForwardedSignals, HangUp, StopSignals, signal_of};

use std::io;
use std::path::{Path, PathBuf};

/// Returns the operating-system user name of this process: libpq's default for `user` (libpq:
/// `pg_fe_getusername`).
#[must_use]
pub fn os_user() -> Option<String> {
    whoami::username().ok().filter(|name| !name.is_empty())
}

/// Returns the directory for persistent state: `$XDG_STATE_HOME/pgiam`, else
/// `~/.local/state/pgiam`; `%LOCALAPPDATA%\pgiam` on Windows.
///
/// `None` if the account has no home directory.
#[must_use]
pub fn state_dir() -> Option<PathBuf> {
    base_dir("XDG_STATE_HOME", &[".local", "state"], "LOCALAPPDATA")
}

/// Returns the path of the user's configuration file: `$XDG_CONFIG_HOME/pgiam/config.toml`, else
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

/// Returns `true` if both directories are on one file system. On Windows, which has a letter for each,
/// always.
#[must_use]
pub fn is_one_file_system(one: &Path, other: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev()).ok();
        device(one).is_some_and(|found| device(other) == Some(found))
    }
    #[cfg(not(unix))]
    {
        let _ = (one, other);
        true
    }
}

/// Creates `dir` and its parents, readable by this user only if the system has such modes.
///
/// # Errors
/// Any error of the file system.
pub fn create_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Creates a directory below `base` that only this user can access, whatever the umask; it is
/// removed when the result is dropped. Its name begins with `prefix`.
///
/// # Errors
/// Any error of the file system.
pub fn private_temp_dir(base: &Path, prefix: &str) -> io::Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    builder.tempdir_in(base)
}

/// Writes a new file that only this user can read (0600 on Unix).
///
/// # Errors
/// Any error of the file system; an existing file is an error.
pub fn write_private_file(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    io::Write::write_all(&mut file, contents)?;
    file.sync_all()
}

/// Returns `true` if the terminal that this process was started from is gone; `false` if it was
/// started without one. `was_there` says which.
#[must_use]
pub fn terminal_is_gone(was_there: bool) -> bool {
    #[cfg(unix)]
    {
        was_there && rustix::termios::tcgetpgrp(io::stdin()).is_err()
    }
    #[cfg(not(unix))]
    {
        let _ = was_there;
        false
    }
}

/// Returns `true` if this process is in the foreground of its terminal.
#[must_use]
pub fn is_in_front() -> bool {
    #[cfg(unix)]
    {
        use rustix::process::getpgrp;
        use rustix::termios::tcgetpgrp;
        let ours = getpgrp();
        tcgetpgrp(io::stdin()).is_ok_and(|front| front == ours)
            || tcgetpgrp(io::stderr()).is_ok_and(|front| front == ours)
    }
    #[cfg(not(unix))]
    true
}
