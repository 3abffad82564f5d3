//! `pgiam up` and `pgiam down`: a server without a terminal.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use protocol_tests::aws::sandbox::Sandbox;
use protocol_tests::database::rds::RdsDatabase;
use protocol_tests::harness::program::{clean_env, psql};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::support::{Ran, Setup, behind, eventually, ordinary_config, pgiam, run};

/// AWS and a database, and a state directory of its own for the programs.
struct Account {
    database: RdsDatabase,
    sandbox: Sandbox,
}

impl Account {
    async fn new() -> Self {
        let (sandbox, database) = behind(&Setup::default()).await;
        std::fs::write(sandbox.dir().join("pgiam.toml"), ordinary_config()).expect("pgiam.toml");
        Self { database, sandbox }
    }

    fn state(&self) -> PathBuf {
        self.sandbox.dir().join("state")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(pgiam());
        clean_env(&mut command, &["AWS_", "PGIAM_"]);
        command
            .args(args)
            .envs(self.sandbox.env())
            .env("PGIAM_STATE_DIR", self.state())
            .env("NO_PROXY", "localhost,127.0.0.1")
            .env_remove("XDG_RUNTIME_DIR")
            .kill_on_drop(true);
        command
    }

    async fn up(&self, args: &[&str]) -> Ran {
        let dir = self.sandbox.dir();
        let mut command = self.command(&["up"]);
        command
            .args(args)
            .arg("--config")
            .arg(dir.join("pgiam.toml"))
            .arg("--ca-file")
            .arg(self.sandbox.pki().ca_pem_path());
        run(command).await
    }

    async fn ask(&self, args: &[&str]) -> Ran {
        run(self.command(args)).await
    }

    /// The processes of this account's state directory.
    async fn processes(&self) -> Vec<Value> {
        let ran = self.ask(&["status", "--json"]).await;
        let all: Vec<Value> = serde_json::from_str(&ran.stdout).expect("JSON");
        let dir = self.sandbox.dir().display().to_string();
        let own = |process: &Value| {
            let config = process["config"].as_str();
            config.is_some_and(|config| config.starts_with(&dir))
        };
        all.into_iter().filter(own).collect()
    }

    async fn stop(self) {
        self.database.stop().await.expect("the server stops");
        self.sandbox.shutdown().await;
    }
}

/// Field `nth` of proc(5), counted behind the name of the program: 0 is the state.
fn stat(pid: u64, nth: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(nth).map(str::to_owned)
}

#[tokio::test]
async fn a_server_in_the_background_stays_until_down() {
    let account = Account::new().await;
    let ran = account.up(&[]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let [process] = &account.processes().await[..] else {
        panic!("one runs");
    };
    let pid = process["pid"].as_u64().expect("a number");
    let port = process["targets"][0]["port"].as_u64().expect("a number");
    let log = account.state().join("log/pgiam.log");
    assert_eq!(process["log"].as_str(), log.to_str());
    let shown = format!(
        "pgiam is running in the background (process {pid})\n\nTARGET  CONNECT                     STATE\norders  psql -h localhost -p {port}  ready\n\nlog   {}\nstop  pgiam down\n",
        log.display()
    );
    assert_eq!(ran.stdout, shown, "{ran:?}");
    // A session of its own, with nothing of its starter's.
    assert_eq!(stat(pid, 3), Some(pid.to_string()), "its session");
    assert_eq!(stat(pid, 4).as_deref(), Some("0"), "no terminal");
    let mode = std::fs::metadata(&log).expect("a log").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&log).expect("a log");
    assert!(text.contains("psql -h localhost"), "{text}");

    let psql_program = account.database.postgres().psql_program();
    let mut query = psql(&psql_program, u16::try_from(port).expect("a port"));
    query.args(["-Atc", "select current_user", "app"]);
    assert_eq!(run(query).await.rows(), "db_user");

    let again = account.up(&[]).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    let first = format!("pgiam is already running (process {pid})\n");
    assert!(again.stdout.starts_with(&first), "{again:?}");
    assert_eq!(account.processes().await.len(), 1);
    let shown = account.ask(&["status"]).await.stdout;
    assert!(shown.contains("/log/pgiam.log"), "{shown}");

    // A full log file is replaced while the server runs.
    let full = std::fs::OpenOptions::new()
        .append(true)
        .open(&log)
        .expect("a log");
    full.set_len(8 * 1024 * 1024).expect("a sparse file");
    let before = log.with_extension("log.1");
    eventually("a new log file", || {
        let is_new = std::fs::metadata(&log).is_ok_and(|found| found.len() < 1024 * 1024);
        (before.exists() && is_new).then_some(())
    })
    .await;
    let mut query = psql(&psql_program, u16::try_from(port).expect("a port"));
    query.args(["-Atc", "select 1", "app"]);
    assert_eq!(run(query).await.rows(), "1");
    eventually("a line in it", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.contains("orders").then_some(())
    })
    .await;

    let down = account.ask(&["down", "other"]).await;
    assert_eq!(down.code, Some(3), "{down:?}");
    let down = account.ask(&["down"]).await;
    assert_eq!(
        (down.code, down.stdout),
        (Some(0), format!("stopped {pid}\n"))
    );
    // This test's own process has to wait for its orphans only if it is a subreaper; it is none.
    eventually("the process ends", || {
        matches!(stat(pid, 0).as_deref(), None | Some("Z")).then_some(())
    })
    .await;
    let down = account.ask(&["down"]).await;
    assert_eq!(down.code, Some(3), "{down:?}");
    account.stop().await;
}

#[tokio::test]
async fn a_failed_start_says_why_and_leaves_nothing() {
    let account = Account::new().await;
    let other = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = other.local_addr().expect("an address").port().to_string();
    let ran = account.up(&["--port", &port]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let expected = format!("pgiam: cannot listen on 127.0.0.1:{port}: the port is in use\nhint: ");
    assert!(ran.stderr.starts_with(&expected), "{ran:?}");
    assert_eq!(ran.stdout, "");
    let config = account.sandbox.dir().join("pgiam.toml");
    std::fs::write(&config, "[targets.orders]\nhots = 1\n").expect("pgiam.toml");
    let ran = account.up(&[]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("hots"), "{ran:?}");
    assert_eq!(account.ask(&["down"]).await.code, Some(3));
    account.stop().await;
}

#[tokio::test]
async fn a_target_that_is_not_ready_is_told() {
    let account = Account::new().await;
    let config = account.sandbox.dir().join("pgiam.toml");
    let text = ordinary_config().replace("user =", "profile = \"gone\"\nuser =");
    std::fs::write(config, text).expect("pgiam.toml");
    let ran = account.up(&[]).await;
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stdout.contains("  not ready ["), "{ran:?}");
    assert_eq!(account.ask(&["down"]).await.code, Some(0));
    account.stop().await;
}
