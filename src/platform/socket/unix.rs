//! Creating, serving and removing the socket.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

use super::lock::{FileId, SocketLock};
use super::{LONGEST_PATH, SocketError, failed};
use crate::platform::create_private_dir;
use crate::platform::permissions::{CheckedDir, FileRole};
use crate::platform::user::UserId;

/// A listening socket and its lock. Dropping it removes both files.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// `None` if the file belongs to the service manager.
    id: Option<FileId>,
    // Dropped last: the lock outlives the socket.
    _lock: Option<SocketLock>,
}

impl UnixSocket {
    /// Listens on a socket that the service manager created, and leaves its file alone.
    ///
    /// # Errors
    /// Any error of the system.
    pub fn from_passed(socket: Socket, path: PathBuf) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            listener: UnixListener::from_std(socket.into())?,
            path,
            id: None,
            _lock: None,
        })
    }

    /// Returns the next client, and the user it belongs to. Cancel-safe.
    ///
    /// # Errors
    /// As for accepting from any listener, or when the kernel does not report the user.
    pub async fn accept(&self) -> io::Result<(UnixStream, UserId)> {
        let (stream, _) = self.listener.accept().await?;
        let uid = peer_uid(&stream)?;
        Ok((stream, UserId::Uid(uid)))
    }

    /// Returns the path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            id.remove(&self.path);
        }
    }
}

/// Returns the user at the other end (`SO_PEERCRED`, `getpeereid`): the one that connected,
/// whatever has become of that process since.
///
/// # Errors
/// When the kernel does not report it.
fn peer_uid(stream: &UnixStream) -> io::Result<u32> {
    stream.peer_cred().map(|peer| peer.uid())
}

/// Listens at `dir/.s.PGSQL.<port>`. Creates the directory if it is missing.
///
/// Must be called inside a Tokio runtime. Accesses the file system and so blocks for a moment.
///
/// # Errors
/// [`SocketError`], all of which name the file and the remedy.
pub fn bind(dir: &Path, port: u16) -> Result<UnixSocket, SocketError> {
    let path = dir.join(format!(".s.PGSQL.{port}"));
    check_length(&path)?;
    prepare(dir)?;
    let mut lock = SocketLock::take(dir.join(format!(".s.PGSQL.{port}.lock")), &path)?;
    if let Err(error) = remove_stale(&path) {
        lock.leave_foreign();
        return Err(error);
    }
    lock.sign()?;
    listen(path, Some(lock))
}

/// Checks the length of a socket path against the operating system's limit.
pub(super) fn check_length(path: &Path) -> Result<(), SocketError> {
    let length = path.as_os_str().as_bytes().len();
    if length > LONGEST_PATH {
        let path = path.to_owned();
        return Err(SocketError::TooLong { path, length });
    }
    Ok(())
}

pub(super) fn listen(path: PathBuf, lock: Option<SocketLock>) -> Result<UnixSocket, SocketError> {
    let listener = UnixListener::bind(&path).map_err(failed("listen on", &path))?;
    let id = FileId::at(&path).map_err(failed("check", &path))?;
    let socket = UnixSocket {
        listener,
        path,
        id: Some(id),
        _lock: lock,
    };
    // Until here the umask applied; other users could not enter the directory anyway.
    fs::set_permissions(&socket.path, Permissions::from_mode(0o600))
        .map_err(failed("set the mode of", &socket.path))?;
    Ok(socket)
}

/// Ensures that `dir` exists and is private to this user.
pub(super) fn prepare(dir: &Path) -> Result<(), SocketError> {
    if let Err(error) = create_private_dir(dir)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(failed("create the directory", dir)(error));
    }
    CheckedDir::open(FileRole::SocketDir, dir)?;
    Ok(())
}

/// Removes a socket without a server. The caller must hold the lock.
pub(super) fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("check", path)(error)),
    };
    // Connecting to an ordinary file is refused as well, and it would be deleted.
    if !found.file_type().is_socket() {
        return Err(SocketError::NotASocket {
            path: path.to_owned(),
        });
    }
    match connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("remove the old socket", path))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // WouldBlock means that a server is there, and busy.
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
            Err(failed("connect to", path)(error))
        }
        Ok(()) | Err(_) => Err(SocketError::InUse {
            path: path.to_owned(),
            pid: None,
        }),
    }
}

pub(super) fn connect(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}
