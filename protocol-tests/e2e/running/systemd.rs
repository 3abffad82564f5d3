//! `pgiam service` with a real systemd: a user manager of this test's own.
//!
//! It needs root, for a mount namespace in which the system counts as booted with systemd, and for a
//! control group. Without, only the tests of errors run.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use protocol_tests::aws::sandbox::Sandbox;
use protocol_tests::database::rds::RdsDatabase;
use protocol_tests::harness::ports::free_port;
use protocol_tests::harness::program::{clean_env, psql};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::support::{PATIENCE, Ran, Setup, behind, eventually, ordinary_config, pgiam, run};

/// Runs a user manager until its standard input ends, and removes its control group.
const MANAGER: &str = r#"
set -e
mkdir -p /run/systemd
mount -t tmpfs none /run/systemd
mkdir /run/systemd/system
mount -t cgroup2 none /sys/fs/cgroup
group=/sys/fs/cgroup/pgiam-test-$$
mkdir "$group"
sh -c 'echo $$ > '"$group"'/cgroup.procs; exec /lib/systemd/systemd --user --log-level=notice' <&- &
manager=$!
cat > /dev/null
# It stops its units and ends.
kill -TERM "$manager" || true
wait "$manager" || true
find "$group" -depth -type d -exec rmdir {} +
"#;

/// Line about a test that cannot run.
const SKIPPED: &str = "SKIPPED: a user manager of systemd needs root and systemd";

/// An account with AWS, a database and a home directory.
struct Home {
    dir: PathBuf,
    port: u16,
    manager: Option<Child>,
    database: RdsDatabase,
    sandbox: Sandbox,
}

impl Home {
    async fn new() -> Self {
        let (sandbox, database) = behind(&Setup::default()).await;
        let dir = sandbox.dir().join("home");
        for name in [".config/pgiam", "run", "bin"] {
            std::fs::create_dir_all(dir.join(name)).expect("a directory");
        }
        private(&dir.join("run"));
        let port = free_port();
        let text = ordinary_config().replace("port = 0", &format!("port = {port}"));
        std::fs::write(dir.join(".config/pgiam/config.toml"), text).expect("config.toml");
        let user = sandbox.user();
        let keys = format!(
            "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            user.access_key_id, user.secret_access_key
        );
        std::fs::write(sandbox.dir().join("credentials"), keys).expect("credentials");
        Self {
            dir,
            port,
            manager: None,
            database,
            sandbox,
        }
    }

    /// As [`Self::new`], with systemd; `None` where that cannot be had.
    async fn with_systemd() -> Option<Self> {
        let has_systemd = Path::new("/lib/systemd/systemd").exists();
        if !nix::unistd::geteuid().is_root() || !has_systemd {
            return None;
        }
        let mut home = Self::new().await;
        let mut command = home.command("unshare", &["--mount", "bash", "-c", MANAGER]);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        home.manager = Some(command.spawn().expect("unshare"));
        let private = home.dir.join("run/systemd/private");
        eventually("systemd runs", || private.exists().then_some(())).await;
        Some(home)
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        clean_env(&mut command, &["AWS_", "PGIAM_", "XDG_", "DBUS_", "SUDO_"]);
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(args)
            .envs(self.sandbox.env_without_keys())
            .env("PGIAM_CA_FILE", self.sandbox.pki().ca_pem_path())
            .env("HOME", &self.dir)
            .env("XDG_RUNTIME_DIR", self.dir.join("run"))
            .env("PATH", format!("{}:{path}", self.dir.join("bin").display()))
            .env("NO_PROXY", "localhost,127.0.0.1")
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn service(&self, args: &[&str]) -> Ran {
        let mut command = self.command(pgiam(), &["service"]);
        command.args(args);
        run(command).await
    }

    fn unit(&self, name: &str) -> PathBuf {
        self.dir.join(".config/systemd/user").join(name)
    }

    async fn query(&self, host: &str) -> Ran {
        let psql_program = self.database.postgres().psql_program();
        let mut command = psql(&psql_program, self.port);
        command.args(["-At", "-h", host, "-c", "select current_user", "app"]);
        run(command).await
    }

    /// Waits for the state of a unit.
    async fn until(&self, unit: &str, state: &str) {
        let waited = timeout(PATIENCE, async {
            loop {
                let args = ["--user", "show", "--property=ActiveState", "--value", unit];
                if run(self.command("systemctl", &args)).await.stdout.trim() == state {
                    return;
                }
            }
        });
        waited
            .await
            .unwrap_or_else(|_| panic!("{unit} is not {state}"));
    }

    async fn stop(mut self) {
        if let Some(mut manager) = self.manager.take() {
            let mut input = manager.stdin.take().expect("a pipe");
            input.shutdown().await.expect("it reads");
            drop(input);
            let ended = timeout(PATIENCE, manager.wait()).await;
            let status = ended.expect("systemd ends").expect("it was started");
            assert!(status.success(), "{status}");
        }
        self.database.stop().await.expect("the server stops");
        self.sandbox.shutdown().await;
    }
}

fn private(dir: &Path) {
    let mode = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(dir, mode).expect("a mode");
}

/// Writes a program in place of one of the system.
fn program(home: &Home, name: &str, text: &str) {
    let path = home.dir.join("bin").join(name);
    std::fs::write(&path, text).expect("a program");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&path, mode).expect("a mode");
}

#[tokio::test]
async fn a_service_is_installed_updated_and_removed() {
    let Some(home) = Home::with_systemd().await else {
        println!("{SKIPPED}");
        return;
    };
    let status = home.service(&["status"]).await;
    assert_eq!(status.code, Some(3), "{status:?}");
    let dry = home.service(&["install", "--dry-run"]).await;
    assert_eq!(dry.code, Some(0), "{dry:?}");
    assert!(!home.unit("pgiam.service").exists(), "{dry:?}");

    let ran = home.service(&["install", "--yes"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stdout.starts_with("Installed and running (process "),
        "{ran:?}"
    );
    let row = format!("orders  psql -h localhost -p {}  ready\n", home.port);
    assert!(ran.stdout.ends_with(&row), "{ran:?}");
    assert_eq!(home.query("localhost").await.rows(), "db_user");
    let text = std::fs::read_to_string(home.unit("pgiam.service")).expect("a unit");
    assert!(
        dry.stdout.contains(text.lines().last().expect("lines")),
        "{dry:?}"
    );
    assert!(!text.contains(&home.sandbox.user().secret_access_key));
    let status = home.service(&["status"]).await;
    assert_eq!(status.code, Some(0), "{status:?}");
    for part in [
        "service  active (running), process ",
        ", starts at login\n",
        "status   serving 1 target\n",
    ] {
        assert!(status.stdout.contains(part), "{part}: {status:?}");
    }

    let again = home.service(&["install", "--yes"]).await;
    assert_eq!(
        (again.code, &*again.stdout),
        (
            Some(0),
            "The service is installed, up to date and running.\n"
        )
    );
    // Another setting in the shell, and a word that needs every kind of quotes.
    let role = "we \"ird\" 'x' $HOME %h \\n & ;";
    let words = ["service", "install", "--yes", "--", "--user", role];
    let mut update = home.command(pgiam(), &words);
    update.env("PGIAM_MAX_CONNECTIONS", "7");
    let update = run(update).await;
    assert_eq!(update.code, Some(0), "{update:?}");
    let status = run(home.command(pgiam(), &["status", "--json"])).await;
    let served: serde_json::Value = serde_json::from_str(&status.stdout).expect("JSON");
    assert_eq!(served[0]["max_connections"], 7, "{status:?}");
    assert_eq!(served[0]["targets"][0]["user"], role, "{status:?}");

    let text = std::fs::read_to_string(home.unit("pgiam.service")).expect("a unit");
    std::fs::write(
        home.unit("pgiam.service"),
        text.replace("RestartSec=5", "RestartSec=7"),
    )
    .expect("a unit");
    for action in ["install", "uninstall"] {
        let refused = home.service(&[action, "--yes"]).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(
            refused
                .stderr
                .contains("has been changed since pgiam wrote it"),
            "{refused:?}"
        );
    }
    std::fs::write(home.unit("pgiam.service"), text).expect("a unit");

    let removed = home.service(&["uninstall", "--yes"]).await;
    let said = format!("removed {}\n", home.unit("pgiam.service").display());
    let said = said.replace(&home.dir.display().to_string(), "~");
    assert_eq!((removed.code, removed.stdout), (Some(0), said));
    let left: Vec<_> = std::fs::read_dir(home.unit(""))
        .expect("a directory")
        .flatten()
        .collect();
    let left: Vec<_> = left.iter().filter(|entry| entry.path().is_file()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(run(home.command(pgiam(), &["status"])).await.code, Some(3));
    let removed = home.service(&["uninstall", "--yes"]).await;
    assert_eq!(removed.code, Some(3), "{removed:?}");
    home.stop().await;
}

#[tokio::test]
async fn the_first_client_starts_the_service() {
    let Some(home) = Home::with_systemd().await else {
        println!("{SKIPPED}");
        return;
    };
    let words = [
        "install",
        "--on-demand",
        "--yes",
        "--",
        "--exit-when-idle",
        "1",
    ];
    let ran = home.service(&words).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let status = home.service(&["status"]).await;
    assert_eq!(status.code, Some(0), "{status:?}");
    assert!(
        status
            .stdout
            .contains("service  waiting for the first client\n"),
        "{status:?}"
    );
    let unix = home.dir.join("run/pgiam").display().to_string();
    for host in ["127.0.0.1", &unix, "localhost"] {
        home.until("pgiam.service", "inactive").await;
        assert_eq!(home.query(host).await.rows(), "db_user", "{host}");
    }
    // The same target as an ordinary service, and back.
    let ran = home.service(&["install", "--yes"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(!home.unit("pgiam.socket").exists());
    assert_eq!(home.query("localhost").await.rows(), "db_user");
    let ran = home.service(&words).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(home.query("localhost").await.rows(), "db_user");
    let removed = home.service(&["uninstall", "--yes"]).await;
    assert_eq!(removed.code, Some(0), "{removed:?}");
    assert_eq!(removed.stdout.lines().count(), 2, "{removed:?}");
    assert_eq!(
        home.query("localhost").await.code,
        Some(2),
        "nothing listens"
    );
    home.stop().await;
}

#[tokio::test]
async fn a_service_that_does_not_start_says_why() {
    let Some(home) = Home::with_systemd().await else {
        println!("{SKIPPED}");
        return;
    };
    // No journal runs here.
    program(
        &home,
        "journalctl",
        "#!/bin/sh\necho 'INFO began'\necho 'pgiam: cannot listen on 127.0.0.1:1: the port is in use'\necho 'hint: choose another port'\n",
    );
    let other = TcpListener::bind(("127.0.0.1", home.port))
        .await
        .expect("the port");
    let ran = home.service(&["install", "--yes"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let said = "pgiam: the service is installed, but does not start\npgiam: cannot listen on 127.0.0.1:1: the port is in use\nhint: choose another port\nhint: look at its log";
    assert!(ran.stderr.contains(said), "{ran:?}");
    drop(other);
    let ran = home.service(&["uninstall", "--yes"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    home.stop().await;
}

#[tokio::test]
async fn without_systemd_the_remedy_is_named() {
    let home = Home::new().await;
    let show = home.service(&["install"]).await;
    assert_eq!(show.code, Some(1), "{show:?}");
    assert!(
        show.stderr
            .starts_with("pgiam: systemd does not run for this account: "),
        "{show:?}"
    );
    assert!(
        show.stderr
            .ends_with("hint: start pgiam in the background without a service:\n  pgiam up\n"),
        "{show:?}"
    );
    let mut sudo = home.command(pgiam(), &["service", "install"]);
    sudo.env("SUDO_USER", "ada");
    let sudo = run(sudo).await;
    assert_eq!(sudo.code, Some(1), "{sudo:?}");
    assert!(
        sudo.stderr.ends_with("run it without sudo, as ada\n"),
        "{sudo:?}"
    );
    // A manager that runs, as far as the question for a terminal goes.
    program(
        &home,
        "systemctl",
        "#!/bin/sh\necho \"$@\" >> \"$HOME/calls\"\n",
    );
    let ran = home.service(&["install"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(
        ran.stderr.contains("there is no terminal to ask at"),
        "{ran:?}"
    );
    assert!(!home.unit("pgiam.service").exists());
    std::fs::create_dir_all(home.unit("")).expect("a directory");
    std::fs::write(home.unit("pgiam.service"), "[Service]\n").expect("a unit");
    for action in ["install", "uninstall"] {
        let ran = home.service(&[action, "--yes"]).await;
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(
            ran.stderr
                .contains("was not written by pgiam service install"),
            "{ran:?}"
        );
    }
    let calls = std::fs::read_to_string(home.dir.join("calls")).expect("calls");
    assert!(
        calls.lines().all(|call| call.starts_with("--user show ")),
        "{calls}"
    );
    home.stop().await;
}
