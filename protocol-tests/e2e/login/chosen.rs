//! What a client named is asked for first, and never replaced without a word.

use protocol_tests::aws::events::Event;
use protocol_tests::database::front::{Fault, FrontKind, ServerError};
use protocol_tests::database::rds::Engine;
use protocol_tests::harness::program::clean_env;
use serde_json::Value;
use tokio::process::Command;

use crate::shell::Shell;
use crate::support::{HOST, PATIENCE, PORT, Ran, Setup, World, ordinary_config, run};

const WHO: &str = "select current_user, current_database()";
/// A role without a database called like it.
const ODD: &str = "odd user@x";
const USING_DEFAULT: &str =
    "the database named like the role does not exist; using the target's database";

impl World {
    async fn prepare(&self, statements: &[&str]) {
        for sql in statements {
            let done = self.database.postgres().psql_admin(sql).await;
            done.expect("the server does it");
        }
    }

    async fn who(&self, args: &[&str]) -> Ran {
        self.psql(&[args, &["-A", "-t", "-c", WHO]].concat()).await
    }

    fn logged(&self, message: &str) -> Vec<Value> {
        let log = self.proxy.log_text();
        let lines = log
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        lines
            .filter(|line: &Value| line["message"] == message)
            .collect()
    }

    fn logins(&self) -> usize {
        let events = self.sandbox.events();
        events.count(|event| matches!(event, Event::DbToken { outcome: Ok(_), .. }))
    }
}

/// A world with a role and a database that have the same name.
async fn with_reports() -> World {
    let world = World::start().await;
    world
        .prepare(&[
            "CREATE ROLE reports LOGIN SUPERUSER IN ROLE rds_iam",
            "CREATE DATABASE reports OWNER reports",
        ])
        .await;
    world
}

#[tokio::test]
async fn a_database_called_like_the_role_is_the_one_that_is_meant() {
    let world = with_reports().await;
    let jdbc = "user=reports dbname=reports client_encoding=UTF8 options='-c extra_float_digits=2'";
    for args in [
        &["-U", "reports", "-d", "reports"][..],
        &["-U", "reports"],
        &["-d", jdbc],
    ] {
        let ran = world.who(args).await;
        assert_eq!(ran.rows(), "reports|reports", "{args:?}");
        assert!(!ran.stderr.contains("does not exist"), "{ran:?}");
    }
    let mut shell = Shell::open(&world, "user=reports dbname=app");
    let who = format!("{WHO};");
    assert_eq!(shell.ask(&who).await, "reports|app");
    shell.say("\\c reports").await;
    assert_eq!(shell.ask(&who).await, "reports|reports");
    assert_eq!(shell.end().await.code, Some(0));
    // Neither was chosen.
    assert_eq!(world.who(&[]).await.rows(), "db_user|app");
    assert!(world.logged(USING_DEFAULT).is_empty());
    world.stop().await;
}

#[tokio::test]
async fn a_dump_of_all_databases_holds_each_of_them_once() {
    let world = with_reports().await;
    for database in ["app", "reports"] {
        let sql = format!("CREATE TABLE only_in_{database} (n int)");
        let made = world
            .database
            .postgres()
            .psql_admin_in(database, &sql)
            .await;
        made.expect("a table");
    }
    let program = world.database.postgres().bindir().join("pg_dumpall");
    let mut dump = Command::new(program);
    clean_env(&mut dump, &["PG"]);
    let port = world.proxy.port().to_string();
    dump.args(["-w", "-h", "localhost", "-p", &port, "-U", "reports"]);
    dump.kill_on_drop(true);
    let ran = run(dump).await;
    let text = ran.rows();
    for database in ["app", "reports"] {
        let connects = text.matches(&format!("\\connect {database}\n")).count();
        let tables = text
            .matches(&format!("CREATE TABLE public.only_in_{database} "))
            .count();
        assert_eq!((connects, tables), (1, 1), "{database}: {text}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_role_without_a_database_gets_the_targets_own_and_is_told() {
    let world = World::start().await;
    let warning = format!(
        "WARNING:  database \"{ODD}\" does not exist; connected to \"app\", the default database of target \"orders\"\nHINT:  Select it by name: psql -d app."
    );
    let ran = world.who(&["-U", ODD]).await;
    assert_eq!(ran.rows(), format!("{ODD}|app"));
    assert!(ran.stderr.contains(&warning), "{ran:?}");
    // The server let the role in twice, with one token; that is known for the next.
    assert_eq!(world.logins(), 2);
    let ran = world.who(&["-U", ODD, "-d", ODD]).await;
    assert_eq!(ran.rows(), format!("{ODD}|app"));
    assert!(ran.stderr.contains(&warning), "{ran:?}");
    assert_eq!(world.logins(), 3);
    let logged = world.logged(USING_DEFAULT);
    let [line] = &logged[..] else {
        panic!("{logged:?}");
    };
    assert_eq!(line["level"], "INFO");
    let named = [&line["role"], &line["named"], &line["database"]];
    assert_eq!(named, [ODD, ODD, "app"]);
    // The log says where each of them went.
    let ready = world.logged("connection ready");
    let databases: Vec<&Value> = ready.iter().map(|line| &line["span"]["database"]).collect();
    assert_eq!(databases, ["app", "app"]);
    // A name of its own is asked for exactly.
    let ran = world.who(&["-U", ODD, "-d", "nosuch"]).await;
    assert!(
        ran.stderr.contains("database \"nosuch\" does not exist"),
        "{ran:?}"
    );
    // A database that is created is found before long.
    world
        .prepare(&[&format!("CREATE DATABASE \"{ODD}\"")])
        .await;
    let found = tokio::time::timeout(PATIENCE, async {
        while world.who(&["-U", ODD]).await.rows() != format!("{ODD}|{ODD}") {}
    });
    found.await.expect("it is looked for again");
    world.stop().await;
}

#[tokio::test]
async fn many_at_once_end_up_in_the_same_database() {
    let world = World::start().await;
    let all = (0..8).map(|_| world.who(&["-U", ODD]));
    for ran in futures_util::future::join_all(all).await {
        assert_eq!(ran.rows(), format!("{ODD}|app"));
    }
    assert_eq!(world.logged(USING_DEFAULT).len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn no_other_refusal_leads_to_another_database() {
    let world = World::start().await;
    world
        .prepare(&[
            "CREATE ROLE sales LOGIN IN ROLE rds_iam",
            "CREATE DATABASE sales",
            "REVOKE CONNECT ON DATABASE sales FROM PUBLIC",
        ])
        .await;
    let ran = world.who(&["-U", "sales"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(
        ran.stderr
            .contains("permission denied for database \"sales\""),
        "{ran:?}"
    );
    let closed = [
        "GRANT CONNECT ON DATABASE sales TO PUBLIC",
        "ALTER DATABASE sales CONNECTION LIMIT 0",
    ];
    world.prepare(&closed).await;
    let ran = world.who(&["-U", "sales"]).await;
    assert!(
        ran.stderr
            .contains("too many connections for database \"sales\""),
        "{ran:?}"
    );
    assert!(world.logged(USING_DEFAULT).is_empty());
    world.stop().await;
}

#[tokio::test]
async fn a_default_that_is_refused_too_is_told_beside_what_was_named() {
    let world = World::with(Setup {
        config: Some(ordinary_config().replace("\"app\"", "\"gone\"")),
        ..Setup::default()
    })
    .await;
    let named = format!("FATAL:  database \"{ODD}\" does not exist");
    let refused = "pgiam then tried the target's default database \"gone\": FATAL: database \"gone\" does not exist (3D000).";
    let ran = world.who(&["-U", ODD]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(
        ran.stderr.contains(&named) && ran.stderr.contains(refused),
        "{ran:?}"
    );
    // A default that works and then does not is left for what was named.
    world.prepare(&["CREATE DATABASE gone"]).await;
    assert_eq!(world.who(&["-U", ODD]).await.rows(), format!("{ODD}|gone"));
    world
        .prepare(&[
            "DROP DATABASE gone WITH (FORCE)",
            &format!("CREATE DATABASE \"{ODD}\""),
        ])
        .await;
    assert_eq!(world.who(&["-U", ODD]).await.rows(), format!("{ODD}|{ODD}"));
    world.stop().await;
}

#[tokio::test]
async fn the_clients_own_login_is_not_repeated_elsewhere() {
    let world = World::with(Setup {
        config: Some(ordinary_config() + "auth = \"passthrough\"\n"),
        ..Setup::default()
    })
    .await;
    let own = |args: &[&str]| {
        let mut command = world.psql_command(&[args, &["-A", "-t", "-c", WHO]].concat());
        command.env(
            "PGPASSWORD",
            protocol_tests::database::postgres::SCRAM_PASSWORD,
        );
        command.env("PGSSLMODE", "disable");
        command
    };
    let ran = run(own(&["-U", "scram_only"])).await;
    assert!(
        ran.stderr
            .contains("database \"scram_only\" does not exist"),
        "{ran:?}"
    );
    let ran = run(own(&["-U", "scram_only", "-d", "app"])).await;
    assert_eq!(ran.rows(), "scram_only|app");
    world.stop().await;
}

#[tokio::test]
async fn a_proxy_before_the_database_says_it_with_another_code() {
    const PROXY: &str = "orders.proxy-abc.eu-central-1.rds.amazonaws.com";
    let world = World::with(Setup {
        endpoint: (PROXY, PORT),
        config: Some(ordinary_config().replace(HOST, PROXY)),
        engine: Engine::front(FrontKind::RdsProxy),
        ..Setup::default()
    })
    .await;
    let front = world.database.front().expect("a front");
    let words = format!("database \"{ODD}\" does not exist");
    front.arm(Fault::AtToken(ServerError::new("XX000", &words)), 1);
    assert_eq!(world.who(&["-U", ODD]).await.rows(), format!("{ODD}|app"));
    // What is about something else stays the last word.
    let words = "database \"other\" does not exist";
    front.arm(Fault::AtToken(ServerError::new("XX000", words)), 1);
    let ran = world.who(&["-U", "db_user"]).await;
    assert!(ran.stderr.contains(words), "{ran:?}");
    world.stop().await;
}
