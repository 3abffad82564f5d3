//! `pgiam psql [TARGET] [-- ARGS]`.

use protocol_tests::aws::events::Event;
use protocol_tests::aws::sandbox::Sandbox;
use tokio::process::Command;

use super::screen::{END, Terminal};
use super::{Lab, command, write};
use crate::support::{BASTION, HOST, Ran, Setup, World, ordinary_config, run};

const WHO: &str = "select current_user || ' ' || current_database()";

/// Returns `pgiam psql` with the arguments of psql that print the answer only.
fn psql(sandbox: &Sandbox, program: &str, args: &[&str], sql: &str) -> Command {
    let all = [&["psql"], args, &["--", "-X", "-A", "-t", "-c", sql]].concat();
    let mut command = command(sandbox, &all);
    command.env("PGIAM_PSQL", program).env("LC_ALL", "C");
    command
}

fn sessions(sandbox: &Sandbox) -> usize {
    let started = |event: &Event| matches!(event, Event::StartSession { .. });
    sandbox.events().count(started)
}

impl World {
    fn psql_program(&self) -> String {
        let psql = self.database.postgres().psql_program();
        psql.display().to_string()
    }

    async fn asks(&self, args: &[&str]) -> Ran {
        run(psql(&self.sandbox, &self.psql_program(), args, WHO)).await
    }
}

#[tokio::test]
async fn without_a_server_it_has_a_tunnel_of_its_own() {
    let lab = Lab::open().await;
    for args in [&["orders"][..], &[]] {
        let ran = run(psql(&lab.sandbox, &lab.psql(), args, WHO)).await;
        assert_eq!(ran.rows(), "db_user app");
        assert_eq!(ran.stderr, "", "quiet in a pipe");
    }
    assert_eq!(sessions(&lab.sandbox), 2);
    // Nothing in the environment or in files of libpq leads elsewhere.
    let service = lab.sandbox.dir().join("pg_service.conf");
    write(&service, "[other]\nhost=192.0.2.1\n");
    let mut misled = psql(&lab.sandbox, &lab.psql(), &["orders"], WHO);
    misled.env("PGSERVICEFILE", service).envs([
        ("PGHOST", "192.0.2.2"),
        ("PGPORT", "1"),
        ("PGHOSTADDR", "192.0.2.3"),
        ("PGSERVICE", "other"),
        ("PGPASSWORD", "wrong"),
        ("PGSSLMODE", "verify-full"),
        ("PGSSLROOTCERT", "/nonexistent"),
        ("PGCHANNELBINDING", "require"),
        ("PGREQUIREAUTH", "scram-sha-256"),
    ]);
    assert_eq!(run(misled).await.rows(), "db_user app");
    // The exit code is that of psql, or says that psql was not started.
    let failed = run(psql(&lab.sandbox, &lab.psql(), &["orders"], "select 1/0")).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let unknown = run(psql(&lab.sandbox, &lab.psql(), &["ordres"], WHO)).await;
    assert_eq!(unknown.code, Some(125), "{unknown:?}");
    assert!(
        unknown.stderr.contains("did you mean \"orders\"?"),
        "{unknown:?}"
    );
    lab.close().await;
}

#[tokio::test]
async fn a_running_server_is_used() {
    let world = World::with(Setup {
        // Clients of the Unix socket need no password.
        env: vec![("PGIAM_LOCAL_PASSWORD", Some("secret".to_owned()))],
        ..Setup::default()
    })
    .await;
    assert_eq!(world.asks(&["orders"]).await.rows(), "db_user app");
    assert_eq!(world.asks(&[]).await.rows(), "db_user app");
    assert_eq!(sessions(&world.sandbox), 1);
    world.admin("create database reports").await;
    let other = world.asks(&["orders", "--database", "reports"]).await;
    assert_eq!(other.rows(), "db_user reports");
    assert_eq!(sessions(&world.sandbox), 1);
    // A flag selects another route.
    let tag = "tag:Name=bastion-1";
    let own = world.asks(&["orders", "--bastion", tag]).await;
    assert_eq!(own.code, Some(125), "no such node: {own:?}");
    // A file is not needed.
    std::fs::remove_file(world.sandbox.dir().join("pgiam.toml")).expect("the file");
    for args in [&["orders"][..], &[]] {
        let ran = world.asks(args).await;
        assert_eq!(ran.rows(), "db_user app", "{args:?}");
    }
    let unknown = world.asks(&["stock"]).await;
    assert_eq!(unknown.code, Some(125), "{unknown:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_shared_port_of_a_running_server_is_used() {
    let target = |name: &str| format!("[targets.{name}]\nhost = \"{HOST}\"\ndatabase = \"app\"\n");
    let world = World::with(Setup {
        config: Some(format!(
            "[defaults]\nport = {}\nuser = \"db_user\"\nbastion = \"{BASTION}\"\n{}{}",
            protocol_tests::harness::ports::free_port(),
            target("orders"),
            target("stock")
        )),
        ..Setup::default()
    })
    .await;
    for args in [&["stock"][..], &["orders", "--database", "app"]] {
        assert_eq!(world.asks(args).await.rows(), "db_user app", "{args:?}");
    }
    assert!(sessions(&world.sandbox) <= 2);
    let unclear = world.asks(&[]).await;
    assert_eq!(unclear.code, Some(125), "{unclear:?}");
    assert!(unclear.stderr.contains("orders, stock"), "{unclear:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_missing_psql_has_a_remedy() {
    let lab = Lab::open().await;
    let mut missing = psql(&lab.sandbox, "psql", &["orders"], WHO);
    missing.env("PATH", lab.sandbox.dir());
    let ran = run(missing).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(127), ""), "{ran:?}");
    assert!(
        ran.stderr
            .starts_with("pgiam: psql is not installed, or not in PATH\nhint: install it"),
        "{ran:?}"
    );
    assert!(ran.stderr.ends_with("  pgiam url orders\n"), "{ran:?}");
    assert_eq!(sessions(&lab.sandbox), 0);
    lab.close().await;
}

#[tokio::test]
async fn flags_of_psql_need_no_dashes() {
    let lab = Lab::open().await;
    two_targets(&lab);
    let ask = async |args: &[&str]| {
        let mut asking = command(&lab.sandbox, &[&["psql"], args].concat());
        asking.env("PGIAM_PSQL", lab.psql()).env("LC_ALL", "C");
        run(asking).await
    };
    for args in [
        &["orders", "-XAtc", WHO][..],
        &["-XAtc", WHO, "orders"],
        &["orders", "-X", "-A", "-t", "-c", WHO],
        &["orders", "-XAt", "--", "-c", WHO],
        // The name of a target, as on a port that several targets share.
        &["-d", "orders", "-XAtc", WHO],
    ] {
        assert_eq!(ask(args).await.rows(), "db_user app", "{args:?}");
    }
    let other = ask(&["orders", "-d", "postgres", "-XAtc", WHO]).await;
    assert_eq!(other.rows(), "db_user postgres");
    let listed = ask(&["orders", "-XAtl"]).await;
    assert!(listed.rows().contains("template1"), "{listed:?}");
    let variable = ask(&["orders", "-XAt", "-v", "x=7", "-c", "\\echo :x"]).await;
    assert_eq!(variable.rows(), "7");
    lab.close().await;
}

/// A file with two targets.
fn two_targets(lab: &Lab) {
    let stock = ordinary_config().replace("[targets.orders]", "[targets.stock]");
    let both = format!("{}{stock}", ordinary_config());
    write(&lab.sandbox.dir().join("pgiam.toml"), &both);
}

#[tokio::test]
async fn at_a_terminal_the_target_is_selected() {
    let lab = Lab::open().await;
    two_targets(&lab);
    let asking = psql(&lab.sandbox, &lab.psql(), &[], WHO);
    let Some(terminal) = Terminal::run(&asking, "psql").await else {
        return;
    };
    terminal.shows("Target (type to filter)").await;
    terminal.press("sto").await;
    terminal.press("Enter").await;
    let screen = terminal.shows(END).await;
    assert!(
        screen.contains("\npsql through a tunnel of its own\n"),
        "{screen}"
    );
    assert!(screen.contains("\ndb_user app\n[exit 0]"), "{screen}");
    for key in ["Escape", "C-c"] {
        let asking = psql(&lab.sandbox, &lab.psql(), &[], WHO);
        let terminal = Terminal::run(&asking, "psql-end").await.expect("tmux");
        terminal.shows("Target (type to filter)").await;
        terminal.press(key).await;
        let screen = terminal.shows(END).await;
        assert!(
            screen.contains("pgiam: cancelled\n[exit 130]"),
            "{key}: {screen}"
        );
    }
    lab.close().await;
}

/// Interrupts a query in psql, which keeps running.
async fn interrupted(terminal: &Terminal) {
    terminal.shows("app=>").await;
    // tmux takes a semicolon at the end for itself.
    terminal.press("select pg_sleep(600) \\g").await;
    terminal.press("Enter").await;
    terminal.shows("pg_sleep(600) \\g\n").await;
    terminal.press("C-c").await;
    terminal
        .shows("canceling statement due to user request")
        .await;
    terminal.press("select 6*7 \\g").await;
    terminal.press("Enter").await;
    terminal.shows(" 42").await;
    terminal.press("\\q").await;
    terminal.press("Enter").await;
    let screen = terminal.shows(END).await;
    assert!(screen.contains("[exit 0]"), "{screen}");
}

#[tokio::test]
async fn ctrl_c_belongs_to_psql() {
    let lab = Lab::open().await;
    let mut own = command(&lab.sandbox, &["psql", "orders", "--", "-X"]);
    own.env("PGIAM_PSQL", lab.psql()).env("LC_ALL", "C");
    let Some(terminal) = Terminal::run(&own, "psql-own").await else {
        return;
    };
    interrupted(&terminal).await;
    drop(terminal);
    lab.close().await;
    let world = World::start().await;
    let mut through = command(&world.sandbox, &["psql", "orders", "--", "-X"]);
    through
        .env("PGIAM_PSQL", world.psql_program())
        .env("LC_ALL", "C");
    let terminal = Terminal::run(&through, "psql-through").await.expect("tmux");
    let line = format!(
        "psql through the running pgiam (process {}, port {})",
        world.proxy.pid().expect("it runs"),
        world.proxy.port()
    );
    terminal.shows(&line).await;
    interrupted(&terminal).await;
    world.stop().await;
}
