//! Control socket, by which `pgiam status`, `wait` and `stop` find a running pgiam: the Unix socket
//! `pgiam.<pid>.sock`, or a named pipe on Windows.
//!
//! The Unix socket is in the directory of the Unix sockets and has the same permissions. Its name
//! contains the process id, so it needs no lock: no other process uses that name while this one
//! lives.

use std::io;
use std::path::{Path, PathBuf};

#[cfg(windows)]
pub use super::pipe::{ControlListener, ControlStream};
#[cfg(unix)]
pub use super::unix::UnixSocket as ControlListener;
#[cfg(unix)]
pub use tokio::net::UnixStream as ControlStream;

use super::SocketError;

/// An existing control socket. Only connecting shows whether a process serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingSocket {
    /// Process id in its name.
    pub pid: u32,
    /// Path of the socket; on Windows, of the file with the name of the pipe.
    pub path: PathBuf,
}

#[cfg(unix)]
fn name(pid: u32) -> String {
    format!("pgiam.{pid}.sock")
}

#[cfg(unix)]
fn pid_in(name: &str) -> Option<u32> {
    let pid = name.strip_prefix("pgiam.")?.strip_suffix(".sock")?;
    // In canonical form only, not "+7" or "007".
    let number = pid.parse().ok()?;
    (self::name(number) == name).then_some(number)
}

#[cfg(windows)]
use super::pipe::pid_in;

/// Listens at the control socket of this process, and removes those of dead processes.
///
/// Must be called inside a Tokio runtime. Accesses the file system and so blocks for a moment.
///
/// # Errors
/// [`SocketError`].
pub fn bind(dir: &Path) -> Result<ControlListener, SocketError> {
    #[cfg(unix)]
    {
        let path = dir.join(name(std::process::id()));
        super::unix::check_length(&path)?;
        super::unix::prepare(dir)?;
        for found in in_dir(dir) {
            remove_if_dead(&found);
        }
        // A pgiam process before the last boot may have had the same id.
        super::unix::remove_stale(&path)?;
        super::unix::listen(path, None)
    }
    #[cfg(windows)]
    {
        super::prepare_dir(dir)?;
        for found in in_dir(dir) {
            super::pipe::remove_if_dead(&found.path);
        }
        ControlListener::bind(dir)
    }
}

/// Connects to the process of a control socket. On Windows the process must be of this user.
/// Cancel-safe.
///
/// # Errors
/// As for any connection; with `NotFound` or `ConnectionRefused` no process serves the socket.
pub async fn connect(to: &ExistingSocket) -> io::Result<ControlStream> {
    ControlStream::connect(&to.path).await
}

/// Removes a socket without a server if its process is dead. If the process lives, the socket may
/// be about to get a server. A process that is not visible may be in a container that shares the
/// directory; its socket has a server then.
#[cfg(unix)]
fn remove_if_dead(found: &ExistingSocket) {
    let refused = super::unix::connect(&found.path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if refused && !is_alive(found.pid) {
        // It may have been removed meanwhile, which is fine.
        _ = std::fs::remove_file(&found.path);
    }
}

/// Returns `true` if a process with this id exists; a zombie does not count.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    #[cfg(unix)]
    {
        // proc(5): the state is the field behind the name, which is in parentheses.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        let Some(id) = i32::try_from(pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        else {
            return false;
        };
        let exists = !matches!(
            rustix::process::test_kill_process(id),
            Err(rustix::io::Errno::SRCH)
        );
        exists && !state.is_some_and(|state| state.starts_with('Z'))
    }
    #[cfg(windows)]
    {
        crate::platform::processes::exists(pid)
    }
}

/// Returns the control sockets of this user's processes, by process id, from all possible
/// directories: a service and a terminal do not have the same environment.
#[must_use]
pub fn all(state_dir: Option<&Path>) -> Vec<ExistingSocket> {
    let mut dirs: Vec<PathBuf> = super::default_dir(state_dir).into_iter().collect();
    dirs.extend(state_dir.map(|dir| dir.join("run")));
    if let Some(uid) = crate::platform::peer::own_uid() {
        dirs.push(PathBuf::from(format!("/run/user/{uid}/pgiam")));
    }
    dirs.sort();
    dirs.dedup();
    let mut all: Vec<ExistingSocket> = dirs.iter().flat_map(|dir| in_dir(dir)).collect();
    all.sort_by_key(|found| found.pid);
    all
}

fn in_dir(dir: &Path) -> Vec<ExistingSocket> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| {
        let pid = pid_in(entry.file_name().to_str()?)?;
        let path = entry.path();
        Some(ExistingSocket { pid, path })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn names_and_process_ids() {
        assert_eq!(pid_in(&name(4711)), Some(4711));
        for other in [
            "pgiam..sock",
            "pgiam.0x7.sock",
            "pgiam.+7.sock",
            "pgiam.007.sock",
            "pgiam.7.sock.old",
            ".s.PGSQL.5433",
        ] {
            assert_eq!(pid_in(other), None, "{other}");
        }
    }

    #[test]
    fn this_process_lives_and_one_that_was_never_started_does_not() {
        assert!(is_alive(std::process::id()));
        assert!(!is_alive(u32::MAX) && !is_alive(0x7fff_fff0));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn sockets_of_processes_that_are_gone_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("run");
        std::fs::create_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .unwrap();
        let [gone, alive, served] = [0x7fff_fff0, 1, 0x7fff_fff1].map(|pid| dir.join(name(pid)));
        for path in [&gone, &alive] {
            drop(std::os::unix::net::UnixListener::bind(path).unwrap());
        }
        let _server = std::os::unix::net::UnixListener::bind(&served).unwrap();
        let socket = bind(&dir).unwrap();
        assert!(!gone.exists());
        assert!(alive.exists() && served.exists());
        let own = socket.path().to_owned();
        assert_eq!(own, dir.join(name(std::process::id())));
        drop(socket);
        assert!(!own.exists());
    }

    #[tokio::test]
    async fn a_socket_is_found_and_serves_its_own_user() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let server = bind(&run).unwrap();
        let found: Vec<_> = in_dir(&run);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].pid, std::process::id());
        assert_eq!(found[0].path, server.path());
        // Twice: the listener makes room for the next client.
        for _ in 0..2 {
            let (accepted, connected) = tokio::join!(server.accept(), connect(&found[0]));
            let (mut accepted, user) = accepted.unwrap();
            assert_eq!(Some(user), crate::platform::user::own_user());
            let mut client = connected.unwrap();
            client.write_all(b"ping").await.unwrap();
            let mut read = [0; 4];
            accepted.read_exact(&mut read).await.unwrap();
            accepted.write_all(&read).await.unwrap();
            drop(accepted);
            let mut all = Vec::new();
            client.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"ping");
        }
        drop(server);
        assert!(in_dir(&run).is_empty());
        let gone = connect(&found[0]).await.unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }
}
