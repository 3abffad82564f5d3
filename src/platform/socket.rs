//! The Unix socket `.s.PGSQL.<port>` that clients of this machine find by its directory
//! (PostgreSQL docs, "Connections and Authentication", `unix_socket_directories`).
//!
//! Directory, socket and lock file belong to the user who runs the proxy and are closed to all
//! others. Windows has none of this: there, [`bind`] says so.

use crate::base::quote::shown;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::permissions::PathError;

/// The longest path of a socket, in bytes: `sun_path` without the final zero byte (unix(7); 104
/// with it on the BSDs and macOS).
#[cfg(any(target_os = "linux", target_os = "android"))]
pub const LONGEST_PATH: usize = 107;
/// The longest path of a socket, in bytes: `sun_path` without the final zero byte (unix(7); 104
/// with it on the BSDs and macOS).
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub const LONGEST_PATH: usize = 103;

/// Why there is no Unix socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another program serves it, or is just starting to.
    #[error("{path} is in use{}; stop the other program or choose another port", by(.pid), path = shown(.path))]
    InUse {
        /// The socket.
        path: PathBuf,
        /// Who has noted its process id in the lock file.
        pid: Option<u32>,
    },
    /// The directory is not ours alone.
    #[error(transparent)]
    Directory(#[from] PathError),
    /// Something else has the socket's name.
    #[error("{path} exists and is not a socket; remove it", path = shown(.path))]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The operating system takes no address of this length.
    #[error(
        "the path of the socket {path} is too long ({length} bytes, this system takes {LONGEST_PATH}); choose a shorter directory", path = shown(.path)
)]
    TooLong {
        /// The socket.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// The file system or the kernel said no.
    #[error("cannot {doing} {path}: {source}", path = shown(.path))]
    File {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// This operating system has no Unix sockets that we could use.
    #[error("there are no Unix sockets on this system; clients connect to localhost")]
    Unsupported,
}

fn by(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" by process {pid}"))
        .unwrap_or_default()
}

#[cfg(unix)]
fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SocketError {
    let path = path.to_owned();
    move |source| SocketError::File {
        doing,
        path,
        source,
    }
}

/// Where the sockets live when nobody chooses: `$XDG_RUNTIME_DIR/pgiam`, else `run` in the state
/// directory. `None` where there is neither, and on Windows.
///
/// A runtime directory that is not there or not ours is passed over, as the XDG Base Directory
/// Specification asks: `su` and `sudo` like to leave another user's in the environment.
#[must_use]
pub fn default_dir(state_dir: Option<&Path>) -> Option<PathBuf> {
    if !cfg!(unix) {
        return None;
    }
    dir_below(runtime_dir(), state_dir)
}

/// `$XDG_RUNTIME_DIR`, if it is there and ours.
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

/// Where files of running processes live: the directory of the sockets, and where there are none, `run`
/// in the state directory. `None` without either.
#[must_use]
pub fn run_dir(state_dir: Option<&Path>) -> Option<PathBuf> {
    default_dir(state_dir).or_else(|| state_dir.map(|dir| dir.join("run")))
}

/// Sees to it that a directory for the files of running processes exists and is this user's alone
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
#[cfg(unix)]
mod unix;

/// Stands for the Unix socket on systems without: there is no such value.
#[cfg(not(unix))]
#[derive(Debug)]
pub enum UnixSocket {}

#[cfg(not(unix))]
impl UnixSocket {
    /// The next client.
    ///
    /// # Errors
    /// None.
    pub async fn accept(&self) -> std::io::Result<(tokio::net::TcpStream, u32)> {
        match *self {}
    }

    /// The socket's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match *self {}
    }
}

/// There are no Unix sockets here.
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
