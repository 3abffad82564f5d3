//! Sockets from the service manager: the first client starts the program.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol_tests::aws::sandbox::Sandbox;
use protocol_tests::database::rds::RdsDatabase;
use protocol_tests::harness::program::{clean_env, psql};
use socket2::Socket;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::support::{PATIENCE, Ran, Setup, behind, ordinary_config, pgiam, run};

/// Hands the descriptors whose numbers are the first arguments over as systemd does: from 3 on.
/// The others are the command line.
const HAND_OVER: &str = "set -e; n=0; while [ \"$1\" != -- ]; do eval \"exec $((3 + n))<&$1\"; n=$((n + 1)); shift; done; shift; export LISTEN_PID=$$ LISTEN_FDS=$n; exec \"$@\"";

/// A service manager that holds sockets, and all that is behind the program that it starts.
struct Manager {
    sockets: Vec<Socket>,
    port: u16,
    database: RdsDatabase,
    sandbox: Sandbox,
}

impl Manager {
    /// Listens on a free port of both loopback addresses, and on the Unix socket for it.
    async fn new() -> Self {
        let (sandbox, database) = behind(&Setup::default()).await;
        let (v4, v6, port) = both();
        let mut manager = Self {
            sockets: vec![v4.into(), v6.into()],
            port,
            database,
            sandbox,
        };
        std::fs::create_dir(manager.folder()).expect("a directory");
        let unix = UnixListener::bind(manager.unix()).expect("a socket");
        manager.sockets.push(unix.into());
        manager
    }

    fn folder(&self) -> PathBuf {
        self.sandbox.dir().join("sockets")
    }

    fn unix(&self) -> PathBuf {
        self.folder().join(format!(".s.PGSQL.{}", self.port))
    }

    /// `pgiam serve` with the sockets, for one target at this port.
    fn command(&self, port: u16, args: &[&str]) -> Command {
        let dir = self.sandbox.dir();
        let config = dir.join("pgiam.toml");
        let text = ordinary_config().replace("port = 0", &format!("port = {port}"));
        std::fs::write(&config, text).expect("pgiam.toml");
        let mut command = Command::new("bash");
        clean_env(&mut command, &["AWS_", "PGIAM_", "LISTEN_"]);
        command.args(["-c", HAND_OVER, "hand-over"]);
        // A shell redirects descriptors of one digit by number alone, and bash all of them.
        for socket in &self.sockets {
            socket.set_cloexec(false).expect("a flag");
            command.arg(socket.as_raw_fd().to_string());
        }
        command
            .arg("--")
            .arg(pgiam())
            .args(["serve", "--log", "info", "--config"])
            .arg(config)
            .arg("--ca-file")
            .arg(self.sandbox.pki().ca_pem_path())
            .arg("--state-dir")
            .arg(dir.join("state"))
            .args(args)
            .envs(self.sandbox.env())
            .env("NO_PROXY", "localhost,127.0.0.1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    fn start(&self, args: &[&str]) -> Child {
        let spawned = self.command(self.port, args).spawn();
        spawned.expect("bash")
    }

    /// A query over one of the sockets.
    fn query(&self, host: &str) -> Command {
        let psql_program = self.database.postgres().psql_program();
        let mut command = psql(&psql_program, self.port);
        command.args(["-At", "-h", host, "-c", "select current_user", "app"]);
        command
    }

    async fn stop(self) {
        self.database.stop().await.expect("the server stops");
        self.sandbox.shutdown().await;
    }
}

/// A free port of both loopback addresses.
fn both() -> (TcpListener, TcpListener, u16) {
    loop {
        let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = v4.local_addr().expect("an address").port();
        if let Ok(v6) = TcpListener::bind((Ipv6Addr::LOCALHOST, port)) {
            return (v4, v6, port);
        }
    }
}

async fn ended(child: Child) -> Ran {
    let output = timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.expect("it ends in time").expect("it was started");
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn inode(path: &Path) -> u64 {
    let found = std::fs::symlink_metadata(path).expect("a file");
    std::os::unix::fs::MetadataExt::ino(&found)
}

#[tokio::test]
async fn clients_that_were_there_first_are_served_on_every_socket() {
    let manager = Manager::new().await;
    let unix = manager.folder().display().to_string();
    // Nothing runs yet: each waits in the backlog of its socket.
    let clients = ["127.0.0.1", "::1", &unix].map(|host| tokio::spawn(run(manager.query(host))));
    let before = inode(&manager.unix());
    let child = manager.start(&[]);
    for client in clients {
        assert_eq!(client.await.expect("a task").rows(), "db_user");
    }
    let pid = child.id().expect("it runs").cast_signed();
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
    let ran = ended(child).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(inode(&manager.unix()), before, "it is the manager's file");
    manager.stop().await;
}

#[tokio::test]
async fn no_client_is_lost_while_the_program_comes_and_goes() {
    const ROUNDS: usize = 12;
    let manager = Manager::new().await;
    let unix = manager.folder().display().to_string();
    let (mut starts, mut served) = (0, 0);
    while served < ROUNDS {
        let hosts = ["127.0.0.1", "::1", &unix];
        let host = hosts[served % hosts.len()];
        let mut client = tokio::spawn(run(manager.query(host)));
        // The manager starts it for each client that waits, as often as it takes.
        loop {
            starts += 1;
            let ran = ended(manager.start(&["--exit-when-idle", "0"])).await;
            assert_eq!(ran.code, Some(0), "{ran:?}");
            assert!(ran.stderr.contains("no clients"), "{ran:?}");
            if client.is_finished() {
                break;
            }
        }
        assert_eq!((&mut client).await.expect("a task").rows(), "db_user");
        served += 1;
    }
    println!("{starts} starts for {ROUNDS} clients");
    manager.stop().await;
}

#[tokio::test]
async fn a_connected_client_keeps_the_program() {
    let manager = Manager::new().await;
    let mut query = manager.query("::1");
    query.args(["-c", "select pg_sleep(2.5)", "-c", "select 'still here'"]);
    let client = tokio::spawn(run(query));
    let child = manager.start(&["--exit-when-idle", "1"]);
    let rows = client.await.expect("a task");
    assert_eq!(rows.rows(), "db_user\n\nstill here");
    let ran = ended(child).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    manager.stop().await;
}

#[tokio::test]
async fn a_socket_that_belongs_to_no_target_is_an_error() {
    let manager = Manager::new().await;
    let (_, _, other) = both();
    let mut command = manager.command(other, &[]);
    let ran = ended(command.spawn().expect("bash")).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let expected = format!(
        "pgiam: the service manager passed the socket 127.0.0.1:{}, which belongs to no target\n",
        manager.port
    );
    assert!(ran.stderr.contains(&expected), "{ran:?}");
    // Open to other machines, which the configuration does not ask for.
    let mut manager = manager;
    let exposed = TcpListener::bind((Ipv4Addr::UNSPECIFIED, other)).expect("a port");
    manager.sockets = vec![exposed.into()];
    let mut command = manager.command(other, &[]);
    let ran = ended(command.spawn().expect("bash")).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(
        ran.stderr.contains(&format!("socket 0.0.0.0:{other},")),
        "{ran:?}"
    );
    // No socket for clients at all.
    manager.sockets =
        vec![Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).expect("a socket")];
    let mut command = manager.command(other, &[]);
    let ran = ended(command.spawn().expect("bash")).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(
        ran.stderr
            .contains("passed file descriptor 3, which is not a listening"),
        "{ran:?}"
    );
    manager.stop().await;
}
