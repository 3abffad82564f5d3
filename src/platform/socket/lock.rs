//! Lock file beside the socket, and the identity of files.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{SocketError, failed};

/// Maximum number of attempts when the lock file vanishes because its owner has just ended.
const LOCK_ATTEMPTS: usize = 16;

/// `.s.PGSQL.<port>.lock`, held with flock(2) for the lifetime of this value.
///
/// Its first line is the process id, as in PostgreSQL's lock file of the same name. A PostgreSQL
/// server for the same socket therefore refuses to start and names this process (`CreateLockFile`
/// in `src/backend/utils/init/miscinit.c`).
#[derive(Debug)]
pub(super) struct SocketLock {
    file: File,
    path: PathBuf,
    id: FileId,
    remove: bool,
}

impl SocketLock {
    /// Takes the lock for `socket`.
    pub(super) fn take(path: PathBuf, socket: &Path) -> Result<Self, SocketError> {
        for _ in 0..LOCK_ATTEMPTS {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(failed("open", &path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(SocketError::InUse {
                        path: socket.to_owned(),
                        pid: noted_pid(&mut file),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
            }
            let id = FileId::of(&file).map_err(failed("check", &path))?;
            // Between open and lock, the previous owner may have ended and removed the file: then
            // other processes will not find the locked file.
            if FileId::at(&path).is_ok_and(|current| current == id) {
                return Ok(Self {
                    file,
                    path,
                    id,
                    remove: true,
                });
            }
        }
        Err(SocketError::InUse {
            path: socket.to_owned(),
            pid: None,
        })
    }

    /// Leaves the file to a server that does not lock it, like PostgreSQL: contents written by that
    /// server stay. An empty file is pgiam's own.
    pub(super) fn leave_foreign(&mut self) {
        self.remove = self.file.metadata().is_ok_and(|found| found.len() == 0);
    }

    pub(super) fn sign(&mut self) -> Result<(), SocketError> {
        let mut write = || {
            self.file.set_len(0)?;
            self.file.rewind()?;
            writeln!(self.file, "{}", std::process::id())
        };
        write().map_err(failed("write", &self.path))
    }
}

impl Drop for SocketLock {
    fn drop(&mut self) {
        if self.remove {
            self.id.remove(&self.path);
        }
    }
}

fn noted_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// Identity of a file, which distinguishes it from a later one at the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(file: &File) -> io::Result<Self> {
        file.metadata().map(|found| Self::from(&found))
    }

    pub(super) fn at(path: &Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|found| Self::from(&found))
    }

    /// Removes `path` if it is still this file. A cleaner may have removed it already, which is
    /// fine; any other failure could not be reported here.
    pub(super) fn remove(self, path: &Path) {
        if Self::at(path).is_ok_and(|current| current == self) {
            let _ = fs::remove_file(path);
        }
    }
}

impl From<&fs::Metadata> for FileId {
    fn from(found: &fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
        }
    }
}
