//! Unix socket `.s.PGSQL.<port>`, which local clients find by its directory (PostgreSQL docs,
//! "Connections and Authentication", `unix_socket_directories`).
//!
//! Directory, socket and lock file belong to pgiam's user and are closed to all others. Windows is
//! not supported: there, [`bind`] fails.

use crate::base::quote::shown;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::permissions::PathError;
#[cfg(not(unix))]
use super::user::UserId;

/// Maximum length of a socket path in bytes: `sun_path` without the final zero byte (unix(7); 104
/// with it on the BSDs and macOS).
#[cfg(any(target_os = "linux", target_os = "android"))]
pub const LONGEST_PATH: usize = 107;
/// Maximum length of a socket path in bytes: `sun_path` without the final zero byte (unix(7); 104
/// with it on the BSDs and macOS).
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub const LONGEST_PATH: usize = 103;

/// Reason why there is no Unix socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another program serves it, or is about to.
    #[error("{path} is in use{}; stop the other program or choose another port", by(.pid), path = shown(.path))]
    InUse {
        /// Path of the socket.
        path: PathBuf,
        /// Process id in the lock file.
        pid: Option<u32>,
    },
    /// The directory is not private to this user.
    #[error(transparent)]
    Directory(#[from] PathError),
    /// A file of another kind exists at the path.
    #[error("{path} exists and is not a socket; remove it", path = shown(.path))]
    NotASocket {
        /// Path of the file.
        path: PathBuf,
    },
    /// The path is too long for the operating system.
    #[error(
        "the socket path {path} is too long ({length} bytes, at most {LONGEST_PATH} on this system); choose a shorter directory", path = shown(.path)
)]
    TooLong {
        /// Path of the socket.
        path: PathBuf,
        /// Length in bytes.
        length: usize,
    },
    /// Error of the file system or the kernel.
    #[error("cannot {doing} {path}: {source}", path = shown(.path))]
    File {
        /// Attempted operation.
        doing: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// This operating system has no supported Unix sockets.
    #[error("Unix sockets are not supported on this system; connect to localhost")]
    Unsupported,
}

fn by(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" by process {pid}"))
        .unwrap_or_default()
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SocketError {
    let path = path.to_owned();
    move |source| SocketError::File {
        doing,
        path,
        source,
    }
}

/// Returns the default directory of the sockets: `$XDG_RUNTIME_DIR/pgiam`, else `run` in the state
/// directory. `None` without either, and on Windows.
///
/// A runtime directory that is missing or belongs to another user is ignored, as the XDG Base
/// Directory Specification requires: `su` and `sudo` often leave another user's in the environment.
#[must_use]
pub fn default_dir(state_dir: Option<&Path>) -> Option<PathBuf> {
    if !cfg!(unix) {
        return None;
    }
    dir_below(runtime_dir(), state_dir)
}

/// Returns `$XDG_RUNTIME_DIR`, if it exists and belongs to this user.
#[must_use]
pub fn runtime_dir() -> Option<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    runtime.filter(|dir| dir.is_absolute() && is_ours(dir))
}

fn dir_below(runtime: Option<PathBuf>, state_dir: Option<&Path>) -> Option<PathBuf> {
    runtime
        .filter(|dir| dir.is_absolute() && is_ours(dir))
        .map(|dir| dir.join("pgiam"))
        .or_else(|| state_dir.map(|dir| dir.join("run")))
}

/// Returns the directory for files of running processes: that of the sockets, or, on systems
/// without them, `run` in the state directory. `None` without either.
#[must_use]
pub fn run_dir(state_dir: Option<&Path>) -> Option<PathBuf> {
    default_dir(state_dir).or_else(|| state_dir.map(|dir| dir.join("run")))
}

/// Ensures that a directory for the files of running processes exists and is private to this user
/// (Unix; elsewhere that it exists).
///
/// # Errors
/// [`SocketError`].
pub fn prepare_dir(dir: &Path) -> Result<(), SocketError> {
    #[cfg(unix)]
    {
        unix::prepare(dir)
    }
    #[cfg(not(unix))]
    {
        super::create_private_dir(dir).map_err(|source| SocketError::File {
            doing: "create the directory",
            path: dir.to_owned(),
            source,
        })
    }
}

/// Returns the port in the name of a Unix socket, `.s.PGSQL.5433`.
#[must_use]
pub fn port_of(path: &Path) -> Option<u16> {
    let port = path.file_name()?.to_str()?.strip_prefix(".s.PGSQL.")?;
    port.parse().ok()
}

fn is_ours(dir: &Path) -> bool {
    #[cfg(unix)]
    {
        std::fs::metadata(dir).is_ok_and(|found| {
            found.is_dir()
                && Some(std::os::unix::fs::MetadataExt::uid(&found)) == super::peer::own_uid()
        })
    }
    #[cfg(not(unix))]
    {
        let _ = dir;
        false
    }
}

#[cfg(unix)]
pub use unix::{UnixSocket, bind};

pub mod control;
#[cfg(unix)]
mod lock;
#[cfg(windows)]
mod pipe;
#[cfg(unix)]
mod unix;

/// Placeholder for the Unix socket on systems without: it has no values.
#[cfg(not(unix))]
#[derive(Debug)]
pub enum UnixSocket {}

#[cfg(not(unix))]
impl UnixSocket {
    /// Returns the next client.
    ///
    /// # Errors
    /// None.
    pub async fn accept(&self) -> std::io::Result<(tokio::net::TcpStream, UserId)> {
        match *self {}
    }

    /// Returns the path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        match *self {}
    }
}

/// Fails: there are no Unix sockets on this system.
///
/// # Errors
/// Always [`SocketError::Unsupported`].
#[cfg(not(unix))]
pub fn bind(_dir: &Path, _port: u16) -> Result<UnixSocket, SocketError> {
    Err(SocketError::Unsupported)
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
