//! What is found at AWS, and what is done with it.

mod moto;

use std::process::Stdio;

use protocol_tests::aws::inventory::{DbInstance, Ec2Instance};
use protocol_tests::aws::sandbox::Sandbox;
use protocol_tests::harness::program;
use serde_json::Value;
use tokio::process::Command;

use crate::support::{BASTION, HOST, PATIENCE, PORT, REGION, Ran, Setup, World, pgiam, run};

const OTHER: &str = "i-0aaaaaaaaaaaaaaa1";
const MARK: &str = "pgiam:bastion";

/// The program in the account of the sandbox, with nothing inherited.
fn command(sandbox: &Sandbox, args: &[&str]) -> Command {
    let mut command = Command::new(pgiam());
    program::clean_env(&mut command, &["AWS_", "PGIAM_", "PG"]);
    command
        .args(args)
        .envs(sandbox.env())
        .env("NO_PROXY", "localhost,127.0.0.1")
        .env("XDG_CONFIG_HOME", sandbox.dir().join("no-config"))
        .env("PGIAM_STATE_DIR", sandbox.dir().join("state"))
        .current_dir(sandbox.dir())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn tell(sandbox: &Sandbox, args: &[&str]) -> Ran {
    run(command(sandbox, args)).await
}

/// An account with the usual database, and nobody who answers there.
async fn account() -> Sandbox {
    let sandbox = Sandbox::builder().region(REGION).start().await;
    let sandbox = sandbox.expect("sandbox");
    sandbox.inventory().furnish(HOST, PORT);
    sandbox
}

fn deny(sandbox: &Sandbox, actions: &[&str]) {
    let deny = actions.iter().map(|action| (*action).to_owned());
    let key = &sandbox.user().access_key_id;
    assert!(sandbox.iam().update(key, |user| user.deny = deny.collect()));
}

fn mark(sandbox: &Sandbox, id: &str) {
    sandbox.agent(id).update(|node| {
        node.tags.insert(MARK.to_owned(), "yes".to_owned());
    });
}

fn words<'a>(json: &'a Value, list: &str, key: &str) -> Vec<&'a str> {
    let entries = json[list].as_array().expect("a list").iter();
    entries
        .map(|entry| entry[key].as_str().expect("a text"))
        .collect()
}

async fn listed(sandbox: &Sandbox) -> Value {
    let ran = tell(sandbox, &["list", "--json"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    serde_json::from_str(&ran.stdout).expect("JSON")
}

#[tokio::test]
async fn list_shows_databases_and_bastions_from_all_pages() {
    let sandbox = account().await;
    for n in 0..5 {
        let name = format!("extra-{n}");
        let host = format!("{name}.abc.eu-central-1.rds.amazonaws.com");
        sandbox
            .inventory()
            .add_instance(DbInstance::new(&name, &host, 5432));
        sandbox.agent(&format!("mi-0{n}")).set_online(n > 0);
    }
    mark(&sandbox, OTHER);
    sandbox.api().limit_pages(2);
    let json = listed(&sandbox).await;
    let expected = [
        "extra-0", "extra-1", "extra-2", "extra-3", "extra-4", "orders",
    ];
    assert_eq!(words(&json, "databases", "identifier"), expected);
    let orders = &json["databases"][5];
    assert_eq!(
        (
            &orders["kind"],
            &orders["host"],
            &orders["port"],
            &orders["iam"]
        ),
        (&"cluster".into(), &HOST.into(), &PORT.into(), &true.into())
    );
    assert_eq!(json["bastions"].as_array().map(Vec::len), Some(7));
    let other = json["bastions"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["id"] == OTHER));
    assert_eq!(
        other.map(|one| &one["marked"]),
        Some(&Value::Bool(true)),
        "{json:#}"
    );
    assert_eq!(json["missing"], Value::Array(Vec::new()));
    let text = tell(&sandbox, &["list", "--region", REGION]).await;
    for part in [
        "orders    cluster",
        "aurora 17.5",
        OTHER,
        "marked",
        "offline",
        "pgiam serve --db",
    ] {
        assert!(text.stdout.contains(part), "{part}: {}", text.stdout);
    }
    assert!(
        text.stdout.lines().all(|line| line.chars().count() <= 80),
        "{}",
        text.stdout
    );
    sandbox.shutdown().await;
}

#[tokio::test]
async fn list_names_what_may_not_be_seen_and_fails_when_that_is_everything() {
    let sandbox = account().await;
    deny(
        &sandbox,
        &[
            "rds:DescribeDBProxies",
            "ec2:DescribeInstances",
            "ssm:DescribeInstanceInformation",
        ],
    );
    let json = listed(&sandbox).await;
    assert_eq!(
        words(&json, "missing", "action"),
        ["rds:DescribeDBProxies", "ssm:DescribeInstanceInformation"]
    );
    assert_eq!(words(&json, "databases", "identifier"), ["orders"]);
    let text = tell(&sandbox, &["list"]).await;
    assert!(
        text.stdout.contains(
            "The list may be incomplete: your policy does not allow:\n  rds:DescribeDBProxies\n"
        ),
        "{text:?}"
    );
    deny(
        &sandbox,
        &[
            "rds:DescribeDBClusters",
            "rds:DescribeDBClusterEndpoints",
            "rds:DescribeDBInstances",
            "rds:DescribeDBProxies",
            "rds:DescribeDBProxyEndpoints",
            "ssm:DescribeInstanceInformation",
        ],
    );
    let nothing = tell(&sandbox, &["list"]).await;
    assert_eq!((nothing.code, nothing.stdout.as_str()), (Some(1), ""));
    assert!(
        nothing.stderr.contains("[discover.denied]"),
        "{}",
        nothing.stderr
    );
    assert!(
        nothing
            .stderr
            .contains("\"Action\": \"rds:DescribeDBClusters\""),
        "{}",
        nothing.stderr
    );
    sandbox.shutdown().await;
}

#[tokio::test]
async fn init_writes_a_file_once() {
    let sandbox = account().await;
    let path = sandbox.dir().join("pgiam.toml");
    let shown = tell(&sandbox, &["init", "-", "--user", "db_user"]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("[targets.orders]") && !path.exists());
    let written = tell(&sandbox, &["init", "--user", "db_user"]).await;
    assert_eq!(written.code, Some(0), "{written:?}");
    assert_eq!(
        std::fs::read_to_string(&path).expect("the file"),
        shown.stdout
    );
    let again = tell(&sandbox, &["init"]).await;
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("--force"), "{again:?}");
    assert_eq!(tell(&sandbox, &["init", "--force"]).await.code, Some(0));
    let text = std::fs::read_to_string(&path).expect("the file");
    assert!(text.contains("# user = \"db_user\""), "{text}");
    for secret in [
        &sandbox.user().secret_access_key,
        &sandbox.user().access_key_id,
    ] {
        assert!(!text.contains(secret.as_str()));
    }
    let unknown = tell(&sandbox, &["init", "-", "--db", "ordres"]).await;
    assert_eq!(unknown.code, Some(1));
    assert!(
        unknown.stderr.contains("did you mean \"orders\"?"),
        "{unknown:?}"
    );
    let one = tell(&sandbox, &["init", "-", "--db", "ORDERS"]).await;
    assert_eq!(one.code, Some(0), "{one:?}");
    sandbox.shutdown().await;
}

fn by_identifier(more: &str) -> Setup {
    let lines = "[targets.orders]\nuser = \"db_user\"\ndatabase = \"app\"\nport = 0\n";
    Setup {
        config: Some(format!("{lines}{more}\n")),
        ..Setup::default()
    }
}

#[tokio::test]
async fn what_init_writes_is_served() {
    let world = World::with(by_identifier("db = \"orders\"")).await;
    let file = tell(&world.sandbox, &["init", "-", "--user", "db_user"]).await;
    assert_eq!(file.code, Some(0), "{file:?}");
    let text = file.stdout.replace("port = 5433", "port = 0");
    let path = world.sandbox.dir().join("made.toml");
    std::fs::write(&path, text).expect("the file");
    let dir = world.sandbox.dir();
    let authority = world.sandbox.pki().ca_pem_path();
    let launch = program::Launch::serve(pgiam(), &path, authority, &dir.join("state"));
    let mut proxy = program::Proxy::start(program::Launch {
        env: world.sandbox.env(),
        collect_log: true,
        ..launch
    })
    .expect("pgiam starts");
    proxy.wait_ready(PATIENCE).await.expect("pgiam is ready");
    let psql = world.database.postgres().psql_program();
    let mut psql = program::psql(&psql, proxy.port());
    psql.args(["-A", "-t", "-q", "-c", "select 1"]);
    assert_eq!(run(psql).await.rows(), "1");
    proxy.stop().await.expect("pgiam ends");
    world.stop().await;
}

#[tokio::test]
async fn a_database_by_its_identifier_through_a_bastion_that_is_found() {
    let world = World::with(by_identifier("db = \"Orders\"")).await;
    assert_eq!(world.query("select current_user").await, "db_user");
    let found = world.proxy.wait_log("found a bastion", PATIENCE).await;
    let found = found.expect("which bastion is taken is said");
    assert_eq!(found["id"], BASTION, "{found}");
    let why = found["why"].as_str().expect("why");
    assert!(
        why.contains("same VPC") && why.contains("named bastion"),
        "{why}"
    );
    world.stop().await;
}

#[tokio::test]
async fn a_bastion_elsewhere_is_passed_over_even_if_it_is_marked() {
    let world = World::with(by_identifier("db = \"orders\"")).await;
    mark(&world.sandbox, OTHER);
    let inventory = world.sandbox.inventory();
    inventory.add_machine(Ec2Instance::new(OTHER, "vpc-elsewhere"));
    world.query("select 1").await;
    let found = world.proxy.wait_log("found a bastion", PATIENCE).await;
    assert_eq!(found.expect("a word about it")["id"], BASTION);
    world.stop().await;
}

#[tokio::test]
async fn a_marked_bastion_is_taken_without_any_permission_for_ec2_and_rds() {
    let world = World::with(by_identifier(&format!("host = \"{HOST}\""))).await;
    let sandbox = &world.sandbox;
    mark(sandbox, OTHER);
    sandbox.agent(OTHER).set_pacing(false);
    deny(
        sandbox,
        &[
            "ec2:DescribeInstances",
            "rds:DescribeDBClusters",
            "rds:DescribeDBInstances",
        ],
    );
    world.query("select 1").await;
    let found = world.proxy.wait_log("found a bastion", PATIENCE).await;
    assert_eq!(found.expect("a word about it")["id"], OTHER);
    world.stop().await;
}

#[tokio::test]
async fn another_bastion_is_taken_when_the_best_one_is_not_connected() {
    let world = World::with(by_identifier(&format!("host = \"{HOST}\""))).await;
    let sandbox = &world.sandbox;
    mark(sandbox, OTHER);
    // Systems Manager takes minutes to notice that a node is gone, and the sandbox less.
    sandbox.agent(OTHER).set_online(false);
    world.query("select 1").await;
    let up = world
        .proxy
        .wait_log("SSM session established", PATIENCE)
        .await;
    assert_eq!(up.expect("a tunnel")["bastion"], BASTION);
    world.stop().await;
}

#[tokio::test]
async fn a_missing_permission_is_told_with_what_does_without_it() {
    let world = World::with(by_identifier(&format!("host = \"{HOST}\""))).await;
    deny(
        &world.sandbox,
        &["rds:DescribeDBClusters", "ssm:DescribeInstanceInformation"],
    );
    let refused = world.psql(&["-c", "select 1"]).await;
    for part in [
        "\"Action\": \"ssm:DescribeInstanceInformation\"",
        "set bastion to the ids of the nodes",
        "[ssm.access-denied]",
    ] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    world.stop().await;
    let mut world = by_identifier("db = \"orders\"");
    world.args = vec!["--bastion".to_owned(), BASTION.to_owned()];
    let (sandbox, database) = crate::support::behind(&world).await;
    deny(&sandbox, &["rds:DescribeDBClusters"]);
    let mut proxy = crate::support::launch(&sandbox, &world);
    proxy.wait_ready(PATIENCE).await.expect("pgiam is ready");
    let psql = database.postgres().psql_program();
    let mut psql = program::psql(&psql, proxy.port());
    psql.args(["-c", "select 1"]);
    let refused = run(psql).await;
    for part in [
        "AWS denied rds:DescribeDBClusters",
        "set host = ",
        "[discover.denied]",
    ] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    proxy.stop().await.expect("pgiam ends");
    database.stop().await.expect("the server stops");
    sandbox.shutdown().await;
}

/// Names that the last lookup returned are offered to a shell without asking AWS again.
#[tokio::test]
async fn listed_names_are_offered_without_aws() {
    let sandbox = account().await;
    listed(&sandbox).await;
    let asked = sandbox.events().all().len();
    for (line, expected) in [
        (&["check", "--db", ""][..], "orders\tcluster, eu-central-1"),
        (&["check", "--host", ""], HOST),
        (&["check", "--bastion", ""], BASTION),
        (
            &["check", "--region", REGION, "--db="],
            "--db=orders\tcluster",
        ),
    ] {
        let args = [&["__complete", "zsh", "--", "pgiam"], line].concat();
        let offered = tell(&sandbox, &args).await;
        let is_offered = offered.stdout.lines().any(|own| own.starts_with(expected));
        assert!(is_offered, "{line:?}: {offered:?}");
    }
    let elsewhere = [
        "__complete",
        "zsh",
        "--",
        "pgiam",
        "check",
        "--region",
        "us-east-1",
        "--db",
        "",
    ];
    assert_eq!(tell(&sandbox, &elsewhere).await.stdout, "values\n");
    assert_eq!(
        sandbox.events().all().len(),
        asked,
        "completion asks nobody"
    );
    sandbox.shutdown().await;
}
