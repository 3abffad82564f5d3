use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Barrier};

use tempfile::TempDir;
use tokio::net::UnixStream;

use super::*;
use crate::platform::user::own_user;

fn private() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    close(dir.path());
    dir
}

fn close(dir: &Path) {
    fs::set_permissions(dir, Permissions::from_mode(0o700)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Leaves a socket file without a server, like a killed program.
fn leave_stale(path: &Path) {
    drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    assert!(path.exists());
}

#[tokio::test]
async fn made_private_and_removed_when_dropped() {
    let dir = private();
    let below = dir.path().join("a/b");
    let socket = bind(&below, 5433).unwrap();
    assert_eq!(socket.path(), below.join(".s.PGSQL.5433"));
    assert_eq!(names(&below), [".s.PGSQL.5433", ".s.PGSQL.5433.lock"]);
    assert_eq!(mode(&below), 0o700);
    assert_eq!(mode(socket.path()), 0o600);
    let lock = below.join(".s.PGSQL.5433.lock");
    assert_eq!(mode(&lock), 0o600);
    assert_eq!(
        fs::read_to_string(lock).unwrap(),
        format!("{}\n", std::process::id())
    );
    drop(socket);
    assert!(names(&below).is_empty());
}

#[tokio::test]
async fn the_peer_is_who_connects() {
    let dir = private();
    let socket = bind(dir.path(), 1).unwrap();
    let client = UnixStream::connect(socket.path()).await.unwrap();
    let (_accepted, user) = socket.accept().await.unwrap();
    drop(client);
    assert_eq!(Some(user), own_user());
}

#[tokio::test]
async fn a_second_program_is_told_who_is_there() {
    let dir = private();
    let first = bind(dir.path(), 5433).unwrap();
    let error = bind(dir.path(), 5433).unwrap_err();
    assert!(
        matches!(&error, SocketError::InUse { pid: Some(pid), .. } if *pid == std::process::id())
    );
    let text = error.to_string();
    assert!(
        text.contains(".s.PGSQL.5433 is in use by process"),
        "{text}"
    );
    // The loser has removed nothing, and other ports are free.
    UnixStream::connect(first.path()).await.unwrap();
    bind(dir.path(), 5434).unwrap();
    drop(first);
    bind(dir.path(), 5433).unwrap();
}

#[tokio::test]
async fn what_a_killed_program_left_is_replaced() {
    let dir = private();
    leave_stale(&dir.path().join(".s.PGSQL.5433"));
    fs::write(dir.path().join(".s.PGSQL.5433.lock"), "999999999\nold\n").unwrap();
    let socket = bind(dir.path(), 5433).unwrap();
    UnixStream::connect(socket.path()).await.unwrap();
    drop(socket);
    assert!(names(dir.path()).is_empty());
}

#[tokio::test]
async fn a_live_socket_without_our_lock_stays() {
    let dir = private();
    let path = dir.path().join(".s.PGSQL.5433");
    let lock = dir.path().join(".s.PGSQL.5433.lock");
    let live = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = bind(dir.path(), 5433).unwrap_err();
    assert!(
        matches!(error, SocketError::InUse { pid: None, .. }),
        "{error}"
    );
    assert_eq!(
        names(dir.path()),
        [".s.PGSQL.5433"],
        "nothing is left of the attempt"
    );
    // A PostgreSQL server writes its process id to the lock file and does not lock it.
    fs::write(&lock, "4242\n/var/lib/postgresql\n").unwrap();
    bind(dir.path(), 5433).unwrap_err();
    assert!(fs::read_to_string(&lock).unwrap().starts_with("4242\n"));
    live.accept().unwrap();
}

#[tokio::test]
async fn a_busy_socket_is_in_use() {
    let dir = private();
    let path = dir.path().join(".s.PGSQL.5433");
    let busy = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    busy.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    busy.listen(0).unwrap();
    let _fills_the_queue = UnixStream::connect(&path).await.unwrap();
    let error = bind(dir.path(), 5433).unwrap_err();
    assert!(matches!(error, SocketError::InUse { .. }), "{error}");
}

#[tokio::test]
async fn a_file_in_its_place_is_not_deleted() {
    let dir = private();
    let path = dir.path().join(".s.PGSQL.5433");
    fs::write(&path, "precious").unwrap();
    let error = bind(dir.path(), 5433).unwrap_err();
    assert!(matches!(error, SocketError::NotASocket { .. }), "{error}");
    assert_eq!(names(dir.path()), [".s.PGSQL.5433"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn an_open_directory_is_refused() {
    let dir = private();
    for open in [0o701, 0o710, 0o704, 0o770, 0o755, 0o1777] {
        fs::set_permissions(dir.path(), Permissions::from_mode(open)).unwrap();
        let text = bind(dir.path(), 5433).unwrap_err().to_string();
        let expected = format!(
            "(mode {open:04o}); restrict it: chmod 700 {}",
            dir.path().display()
        );
        assert!(text.ends_with(&expected), "{text}");
    }
    assert!(names(dir.path()).is_empty());
    close(dir.path());
    bind(dir.path(), 5433).unwrap();
}

#[tokio::test]
async fn a_directory_of_somebody_else_is_refused() {
    let dir = private();
    let theirs = dir.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    close(&theirs);
    // Only root can change the owner of a directory.
    if own_user() == Some(0.into()) {
        std::os::unix::fs::chown(&theirs, Some(12_345), None).unwrap();
        let text = bind(&theirs, 5433).unwrap_err().to_string();
        assert!(text.contains("belongs to user id 12345"), "{text}");
    }
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [link, file] {
        let error = bind(&path, 5433).unwrap_err();
        assert!(
            matches!(error, SocketError::Directory(PathError::Kind { .. })),
            "{error}"
        );
    }
}

#[tokio::test]
async fn the_longest_path_works_and_one_more_byte_is_explained() {
    let dir = private();
    let room = LONGEST_PATH - dir.path().as_os_str().len() - "//.s.PGSQL.5433".len();
    let fits = dir.path().join("d".repeat(room));
    let socket = bind(&fits, 5433).unwrap();
    assert_eq!(socket.path().as_os_str().len(), LONGEST_PATH);
    UnixStream::connect(socket.path()).await.unwrap();

    let longer = dir.path().join("d".repeat(room + 1));
    let text = bind(&longer, 5433).unwrap_err().to_string();
    assert!(
        text.contains(&format!("({} bytes", LONGEST_PATH + 1)),
        "{text}"
    );
    assert!(!longer.exists(), "nothing was made");
}

#[tokio::test]
async fn a_replaced_socket_is_not_removed() {
    let dir = private();
    let socket = bind(dir.path(), 5433).unwrap();
    fs::remove_file(socket.path()).unwrap();
    let path = socket.path().to_owned();
    let _theirs = std::os::unix::net::UnixListener::bind(&path).unwrap();
    drop(socket);
    assert_eq!(names(dir.path()), [".s.PGSQL.5433"]);
}

/// Several starts race for a stale socket: one wins each round, and its socket is the one in the
/// directory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_starts_have_one_winner() {
    const STARTS: usize = 4;
    let dir = private();
    let path = dir.path().join(".s.PGSQL.5433");
    for _ in 0..50 {
        leave_stale(&path);
        let start = Arc::new(Barrier::new(STARTS));
        let starts: Vec<_> = (0..STARTS)
            .map(|_| {
                let (dir, start) = (dir.path().to_owned(), Arc::clone(&start));
                tokio::task::spawn_blocking(move || {
                    start.wait();
                    bind(&dir, 5433)
                })
            })
            .collect();
        let mut winners = Vec::new();
        for result in starts {
            match result.await.unwrap() {
                Ok(socket) => winners.push(socket),
                Err(error) => assert!(matches!(error, SocketError::InUse { .. }), "{error}"),
            }
        }
        assert_eq!(winners.len(), 1);
        UnixStream::connect(&path).await.unwrap();
        drop(winners);
        assert!(names(dir.path()).is_empty());
    }
}

#[test]
fn the_runtime_directory_is_used_if_it_is_ours() {
    let ours = private();
    let state = Path::new("/state/pgiam");
    let dir_below = |runtime| dir_below(runtime, Some(state)).unwrap();
    let dir = dir_below(Some(ours.path().to_owned()));
    assert_eq!(dir, ours.path().join("pgiam"));
    for unusable in ["run/user/1", "/nonexistent/run/user/1", "/dev/null", ""] {
        let dir = dir_below(Some(unusable.into()));
        assert_eq!(dir, Path::new("/state/pgiam/run"), "{unusable:?}");
    }
    assert_eq!(dir_below(None), Path::new("/state/pgiam/run"));
    assert_eq!(super::dir_below(None, None), None);
}
