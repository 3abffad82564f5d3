//! Commands that know the running pgiam: `pgiam url` and `pgiam check`.

use serde_json::Value;

use super::{Lab, command, write};
use crate::support::{HOST, Ran, World, ordinary_config, run};

async fn pgiam(world: &World, args: &[&str]) -> Ran {
    run(command(&world.sandbox, args)).await
}

#[tokio::test]
async fn url_has_the_port_of_the_running_server() {
    let world = World::start().await;
    let (port, pid) = (world.proxy.port(), world.proxy.pid().expect("it runs"));
    let expected = format!("postgresql://db_user@localhost:{port}/app\n");
    let ran = pgiam(&world, &["url", "orders"]).await;
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        (expected.as_str(), "")
    );
    let all = pgiam(&world, &["url", "--json"]).await;
    let all: Value = serde_json::from_str(all.rows()).expect("JSON");
    assert_eq!(
        (all["pid"].as_u64(), all["port"].as_u64()),
        (Some(pid.into()), Some(port.into()))
    );
    let socket = all["socket"].as_str().expect("a socket");
    assert!(socket.ends_with(&format!("/.s.PGSQL.{port}")), "{socket}");
    // Another database of this name is not served.
    let other = pgiam(
        &world,
        &["url", "orders", "--host", HOST, "--profile", "prod"],
    )
    .await;
    assert_eq!(
        (other.code, other.stdout.as_str()),
        (Some(1), ""),
        "{other:?}"
    );
    // A given port is the caller's business.
    let given = pgiam(&world, &["url", "orders", "--port", "6000"]).await;
    assert_eq!(given.stdout, "postgresql://db_user@localhost:6000/app\n");
    assert_eq!(given.stderr, "");
    // The server's own knowledge is enough.
    std::fs::remove_file(world.sandbox.dir().join("pgiam.toml")).expect("the file");
    for args in [&["url"][..], &["url", "orders"]] {
        assert_eq!(pgiam(&world, args).await.stdout, expected, "{args:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn url_says_that_no_server_runs() {
    let lab = Lab::open().await;
    let ran = run(command(&lab.sandbox, &["url", "orders"])).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    assert_eq!(
        ran.stderr,
        "pgiam: target \"orders\" uses a new free port at each start (port = 0), and no running pgiam serves it\nhint: start it, then repeat this command:\n  pgiam serve orders\n"
    );
    let file = lab.sandbox.dir().join("pgiam.toml");
    write(&file, &ordinary_config().replace("port = 0", "port = 5433"));
    let ran = run(command(&lab.sandbox, &["url", "orders", "--format", "dsn"])).await;
    assert_eq!(
        ran.stdout,
        "host=localhost port=5433 user=db_user dbname=app sslmode=disable\n"
    );
    assert_eq!(
        ran.stderr,
        "note: no running pgiam serves orders; start it:\n  pgiam serve orders\n"
    );
    lab.close().await;
}

#[tokio::test]
async fn check_reports_the_running_server() {
    let world = World::start().await;
    assert_eq!(world.query("select 1").await, "1");
    let args = ["check", "orders", "--no-speed", "--json"];
    let step = async || {
        let ran = pgiam(&world, &args).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let all: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        all["steps"][0].clone()
    };
    let (port, pid) = (world.proxy.port(), world.proxy.pid().expect("it runs"));
    let found = step().await;
    assert_eq!(found["name"], "running");
    assert_eq!(found["result"], "ok", "{found}");
    assert_eq!(found["said"], format!("process {pid}, port {port}: ready"));
    assert_eq!(
        (found["pid"].as_u64(), found["port"].as_u64()),
        (Some(pid.into()), Some(port.into()))
    );
    // A server that cannot connect is a warning; the check has a connection of its own.
    let mut elsewhere = command(&world.sandbox, &args);
    elsewhere.env("PGIAM_PROFILE", "default");
    let ran = run(elsewhere).await;
    let all: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(all["steps"][0]["result"], "warning", "{all}");
    world.stop().await;
}

#[tokio::test]
async fn a_running_target_without_a_file_is_known_to_every_command() {
    let world = World::start().await;
    let pid = world.proxy.pid().expect("it runs");
    std::fs::remove_file(world.sandbox.dir().join("pgiam.toml")).expect("the file");
    for args in [
        &["check", "orders", "--no-speed", "--json"][..],
        &["check", "--no-speed", "--json"],
    ] {
        let ran = pgiam(&world, args).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let all: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        assert_eq!(all["steps"][0]["name"], "running", "{all}");
        assert_eq!(all["steps"][0]["result"], "ok", "{all}");
        assert_eq!(all["steps"][0]["pid"].as_u64(), Some(pid.into()));
        let login = all["steps"].as_array().expect("steps").iter();
        let login = login.clone().find(|step| step["name"] == "login");
        assert_eq!(login.expect("a login")["user"], "db_user", "{all}");
    }
    let sh = ["sh", "-c", "echo $PGUSER $PGDATABASE"];
    for own in [&["run", "orders", "--"][..], &["run", "--"]] {
        let ran = pgiam(&world, &[own, &sh[..]].concat()).await;
        assert_eq!(ran.rows(), "db_user app", "{own:?}");
    }
    let sql = pgiam(&world, &["setup", "sql", "orders"]).await;
    assert!(sql.stdout.contains("GRANT rds_iam TO"), "{sql:?}");
    let token = pgiam(&world, &["token", "orders", "--json"]).await;
    let token: Value = serde_json::from_str(token.rows()).expect("JSON");
    assert_eq!(token["host"], HOST);
    // A wrong name is corrected, in every command.
    for args in [
        &["check", "ordres"][..],
        &["url", "ordres"],
        &["psql", "ordres"],
        &["run", "ordres", "--", "true"],
    ] {
        let ran = pgiam(&world, args).await;
        let said = format!("did you mean \"orders\", which process {pid} serves?");
        assert!(ran.stderr.contains(&said), "{args:?}: {ran:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn the_form_of_the_configuration_is_no_other_database() {
    let world = World::start().await;
    let file = world.sandbox.dir().join("pgiam.toml");
    let host = format!("host = \"{HOST}\"");
    write(&file, &ordinary_config().replace(&host, "db = \"orders\""));
    let ran = pgiam(&world, &["check", "orders", "--no-speed", "--json"]).await;
    let all: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(all["steps"][0]["name"], "running", "{all}");
    assert_eq!(all["steps"][0]["result"], "ok", "{all}");
    write(&file, &ordinary_config().replace(&host, "db = \"stock\""));
    let ran = pgiam(&world, &["check", "orders", "--no-speed", "--json"]).await;
    let all: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(all["steps"][0]["result"], "warning", "{all}");
    world.stop().await;
}

#[tokio::test]
async fn commands_without_a_target_name_themselves() {
    let lab = Lab::open().await;
    std::fs::remove_file(lab.sandbox.dir().join("pgiam.toml")).expect("the file");
    for (args, line) in [
        (&["check"][..], "pgiam check --db NAME --user ROLE"),
        (
            &["run", "--", "true"],
            "pgiam run --db NAME --user ROLE -- CMD",
        ),
        (&["psql"], "pgiam psql --db NAME --user ROLE"),
        (&["url"], "pgiam url --db NAME --user ROLE"),
        (&["up"], "pgiam up --db NAME --user ROLE"),
        (&["setup", "sql"], "pgiam setup sql --db NAME --user ROLE"),
        (&["serve"], "pgiam serve --db NAME --user ROLE"),
        (
            &["service", "install", "--dry-run"],
            "pgiam service install -- --db NAME --user ROLE",
        ),
    ] {
        let ran = run(command(&lab.sandbox, args)).await;
        let expected = format!("hint: name a database:\n  {line}\n");
        assert!(ran.stderr.contains(&expected), "{args:?}: {ran:?}");
    }
    lab.close().await;
}

#[tokio::test]
async fn a_busy_port_names_the_pgiam_that_uses_it() {
    let world = World::start().await;
    let (port, pid) = (world.proxy.port(), world.proxy.pid().expect("it runs"));
    let ran = pgiam(&world, &["serve", "--port", &port.to_string()]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let said = format!("the port is in use by pgiam serve, process {pid} (orders)\n");
    assert!(ran.stderr.contains(&said), "{ran:?}");
    let stop = format!("hint: stop it:\n  pgiam stop --pid {pid}\nor choose another port with ");
    assert!(ran.stderr.contains(&stop), "{ran:?}");
    world.stop().await;
}

#[tokio::test]
async fn files_and_logs_in_place_of_a_target_are_corrected() {
    let lab = Lab::open().await;
    for (args, expected) in [
        (
            &["serve", "pgiam.toml"][..],
            "  pgiam serve --config pgiam.toml\n",
        ),
        (
            &["check", "pgiam.toml"],
            "  pgiam check --config pgiam.toml\n",
        ),
        (
            &["logs"],
            "  pgiam service logs\nThe log of pgiam up is a file:\n  ",
        ),
        (&["log"], "  pgiam service logs\n"),
        (
            &["check", "--config", "none.toml"],
            "hint: correct the path, or write the file with the databases found in AWS:\n  pgiam init none.toml\n",
        ),
    ] {
        let ran = run(command(&lab.sandbox, args)).await;
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(expected), "{args:?}: {ran:?}");
    }
    lab.close().await;
}

#[tokio::test]
async fn without_a_target_the_shell_offers_databases_that_were_seen() {
    let lab = Lab::open().await;
    let file = lab.sandbox.dir().join("pgiam.toml");
    let offered = async |words: &[&str]| {
        let all = [&["__complete", "zsh", "--", "pgiam"], words].concat();
        run(command(&lab.sandbox, &all)).await.stdout
    };
    let of_psql = offered(&["psql", ""]).await;
    assert!(
        of_psql.contains("orders") && !of_psql.contains("--"),
        "{of_psql}"
    );
    std::fs::remove_file(file).expect("the file");
    let listed = run(command(&lab.sandbox, &["list", "--region", "eu-central-1"])).await;
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let of_check = offered(&["check", ""]).await;
    assert!(of_check.contains("--db=orders"), "{of_check}");
    let of_status = offered(&["status", ""]).await;
    assert!(!of_status.contains("--db"), "{of_status}");
    lab.close().await;
}
