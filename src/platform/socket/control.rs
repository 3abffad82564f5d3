//! Control socket `pgiam.<pid>.sock`, by which `pgiam status`, `wait` and `stop` find a running
//! pgiam.
//!
//! It is in the directory of the Unix sockets and has the same permissions. Its name contains the
//! process id, so it needs no lock: no other process uses that name while this one lives.

use std::path::{Path, PathBuf};

use super::{SocketError, UnixSocket};

/// An existing control socket. Only connecting shows whether a process serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingSocket {
    /// Process id in its name.
    pub pid: u32,
    /// Path of the socket.
    pub path: PathBuf,
}

fn name(pid: u32) -> String {
    format!("pgiam.{pid}.sock")
}

fn pid_in(name: &str) -> Option<u32> {
    let pid = name.strip_prefix("pgiam.")?.strip_suffix(".sock")?;
    // In canonical form only, not "+7" or "007".
    let number = pid.parse().ok()?;
    (self::name(number) == name).then_some(number)
}

/// Listens at the control socket of this process, and removes those of dead processes.
///
/// Must be called inside a Tokio runtime. Accesses the file system and so blocks for a moment.
///
/// # Errors
/// [`SocketError`]; on Windows always [`SocketError::Unsupported`].
pub fn bind(dir: &Path) -> Result<UnixSocket, SocketError> {
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
    #[cfg(not(unix))]
    {
        let _ = dir;
        Err(SocketError::Unsupported)
    }
}

/// Removes a socket without a server if its process is dead. If the process lives, the socket may
/// be about to get a server. A process that is not visible may be in a container that shares the
/// directory; its socket has a server then.
#[cfg(unix)]
fn remove_if_dead(found: &ExistingSocket) {
    let refused = super::unix::connect(&found.path)
        .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
    if refused && !is_alive(found.pid) {
        // It may have been removed meanwhile, which is fine.
        _ = std::fs::remove_file(&found.path);
    }
}

/// Returns `true` if a process with this id exists; a zombie does not count. Only known on Unix.
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
    #[cfg(not(unix))]
    {
        let _ = pid;
        false
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
}
