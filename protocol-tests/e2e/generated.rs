//! Every connection string that the program generates, given to the parsers and drivers of eight
//! languages, which connect with it: `pgiam url` in each of its forms, and the DATABASE_URL of
//! `pgiam run`.
//!
//! The clients are those of [`clients`](crate::clients), and are left out in the same way.

mod files;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use protocol_tests::harness::ports::free_port;
use protocol_tests::harness::program::clean_env;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::clients::{Client, Kit, rust};
use crate::support::{BASTION, HOST, Ran, Setup, World, pgiam, run};

/// For one language with all cases, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(180);

/// Characters that mean something to URLs, shells and connection strings.
const ROLES: [&str; 6] = [
    "db_user",
    "ana@example.com",
    "a:b/c",
    "50%",
    "Zoë von X",
    r#"we"ird Na'me;$x+%&=?#\"#,
];
const DATABASES: [&str; 12] = [
    "a b",
    "50%25",
    "Zürich",
    "a@b:c",
    "a+b",
    "a?b",
    "a#b",
    "a&b=c",
    "x'y",
    "p;q$r,s",
    "[z]",
    r"back\slash",
];

/// What a client is given, and where it has to arrive.
struct Case {
    name: String,
    role: String,
    database: String,
    forms: Value,
}

struct Ports {
    /// Of one target alone.
    own: u16,
    /// Of a target without a database.
    bare: u16,
    /// Of two targets.
    shared: u16,
    /// Of all targets.
    hub: u16,
}

impl Ports {
    fn free() -> Self {
        Self {
            own: free_port(),
            bare: free_port(),
            shared: free_port(),
            hub: free_port(),
        }
    }

    fn config(&self) -> String {
        let target = |name: &str, port: u16, more: &str| {
            format!("[targets.{name}]\nhost = \"{HOST}\"\nport = {port}\n{more}\n")
        };
        let database = "database = \"app\"";
        format!(
            "[serve]\nhub_port = {}\n[defaults]\nuser = \"db_user\"\nbastion = \"{BASTION}\"\n{}{}{}{}",
            self.hub,
            target("alone", self.own, database),
            target("bare", self.bare, ""),
            target("orders", self.shared, database),
            target("stock", self.shared, database),
        )
    }
}

/// A world whose database has all of these names.
async fn world() -> (World, Ports) {
    let ports = Ports::free();
    let world = World::with(Setup {
        config: Some(ports.config()),
        ..Setup::default()
    })
    .await;
    let identifier = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    for role in &ROLES[1..] {
        let role = identifier(role);
        world
            .admin(&format!(
                "create role {role} login; grant rds_iam to {role}"
            ))
            .await;
    }
    for database in DATABASES.into_iter().chain(["db_user"]) {
        let database = identifier(database);
        world.admin(&format!("create database {database}")).await;
    }
    (world, ports)
}

fn in_world(world: &World, args: &[&str]) -> Command {
    let mut command = Command::new(pgiam());
    clean_env(&mut command, &["AWS_", "PGIAM_", "PG"]);
    let dir = world.sandbox.dir();
    command
        .args(args)
        .envs(world.sandbox.env())
        .env("PGIAM_CA_FILE", world.sandbox.pki().ca_pem_path())
        .env("PGIAM_STATE_DIR", dir.join("state-of-run"))
        .env("HOME", dir)
        .env("NO_PROXY", "localhost,127.0.0.1")
        .current_dir(dir)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn case(world: &World, args: &[&str], name: &str, (role, database): (&str, &str)) -> Case {
    let ran = run(in_world(world, &[&["url", "--json"], args].concat())).await;
    assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
    Case {
        name: name.to_owned(),
        role: role.to_owned(),
        database: database.to_owned(),
        forms: serde_json::from_str(&ran.stdout).expect("JSON"),
    }
}

async fn cases(world: &World, ports: &Ports) -> Vec<Case> {
    let mut all = Vec::new();
    let [.., weird] = ROLES;
    let names = ROLES.iter().map(|role| (*role, "app"));
    let names = names.chain(DATABASES.iter().map(|database| ("db_user", *database)));
    for (role, database) in names.chain([(weird, "a b")]) {
        let args = ["alone", "--user", role, "--database", database];
        let name = format!("{role} in {database}");
        all.push(case(world, &args, &name, (role, database)).await);
    }
    all.push(case(world, &["bare"], "no database", ("db_user", "db_user")).await);
    let hub = ports.hub.to_string();
    for (role, database) in [("db_user", "app"), ("ana@example.com", "a b")] {
        let named = ["--user", role, "--database", database];
        let name = |port: &str| format!("{port}, {role} in {database}");
        let args = [&["orders"][..], &named].concat();
        all.push(case(world, &args, &name("a shared port"), (role, database)).await);
        let args = [&["alone", "--port", &hub][..], &named].concat();
        all.push(case(world, &args, &name("the hub"), (role, database)).await);
    }
    all
}

/// One line for each case, with tabs between the fields: no name has one.
fn table(cases: &[Case]) -> String {
    let mut text = String::new();
    for Case {
        name,
        role,
        database,
        forms,
    } in cases
    {
        let form = |name: &str| forms[name].as_str().expect("text");
        let [uri, jdbc, dsn] = ["uri", "jdbc", "dsn"].map(form);
        writeln!(text, "{name}\t{role}\t{database}\t{uri}\t{jdbc}\t{dsn}").expect("a String");
    }
    text
}

fn languages() -> Vec<Client> {
    vec![
        ("Python", |kit| kit.python("use_generated.py")),
        ("Node.js", |kit| kit.node("use_generated.js")),
        ("Java", |kit| kit.java("UseGenerated.java")),
        ("Rust", |kit| rust(kit, "generated")),
        ("Go", |kit| {
            Ok(Command::new(kit.installed("go/use_generated")?))
        }),
        ("Ruby", |kit| {
            let probe = "require 'pg'; require 'active_record'";
            kit.system("ruby", "ruby/use_generated.rb", &["-e", probe])
        }),
        ("PHP", |kit| {
            let probe = "exit(extension_loaded('pdo_pgsql') && extension_loaded('pgsql') ? 0 : 1);";
            kit.system("php", "php/use_generated.php", &["-r", probe])
        }),
        ("Perl", |kit| {
            kit.system("perl", "perl/use_generated.pl", &["-MDBD::Pg", "-e", "1"])
        }),
    ]
}

/// Runs a language's program to its end; what is wrong, if anything.
async fn judge(mut command: Command, least: usize) -> Result<(), String> {
    let child = command
        .env("LC_ALL", "C.UTF-8")
        .env("PGPASSFILE", "/nonexistent")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(DEADLINE, child).await;
    let output = output.map_err(|_| "it took too long".to_owned())?;
    let output = output.map_err(|error| format!("it does not start: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (fine, bad): (Vec<&str>, Vec<&str>) =
        said.lines().partition(|line| line.starts_with("ok "));
    if output.status.success() && bad.is_empty() && fine.len() >= least {
        return Ok(());
    }
    let complaints = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{}, {} fine\n{}\n{complaints}",
        output.status,
        fine.len(),
        bad.join("\n")
    ))
}

/// Has every language that is installed do its work; `prepare` makes of its program what is run.
#[expect(clippy::print_stdout, reason = "what was left out is to be seen")]
async fn every_language(least: usize, prepare: impl Fn(Command) -> Command) {
    let kit = Kit::find();
    let strict = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    let mut failures = Vec::new();
    for (name, start) in languages() {
        match start(&kit) {
            Ok(command) => {
                if let Err(error) = judge(prepare(command), least).await {
                    failures.push(format!("{name}: {error}"));
                }
            }
            Err(reason) if strict => failures.push(format!("{name} is missing: {reason}")),
            Err(reason) => println!("SKIPPED {name}: {reason}"),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn url_is_read_alike_in_every_language() {
    let (world, ports) = world().await;
    let cases = cases(&world, &ports).await;
    let file = world.sandbox.dir().join("strings");
    std::fs::write(&file, table(&cases)).expect("the cases");
    every_language(cases.len(), |mut command| {
        clean_env(&mut command, &["PG"]);
        command.env("JUDGE_STRINGS", &file);
        command
    })
    .await;
    // The shell's form needs no driver but libpq.
    let psql = world.database.postgres().psql_program();
    for shell in ["sh", "bash", "zsh"] {
        if !installed(shell).await {
            continue;
        }
        for case in &cases {
            let ran = by_variables(shell, &psql, case).await;
            let expected = format!("{}|{}", case.role, case.database);
            assert_eq!(ran.rows(), expected, "{shell}: {}", case.name);
        }
    }
    world.stop().await;
}

/// Whether a shell is there; in CI it has to be.
async fn installed(shell: &str) -> bool {
    let found = Command::new(shell).args(["-c", ":"]).output().await.is_ok();
    assert!(
        found || std::env::var("CI").as_deref() != Ok("true"),
        "{shell} is missing"
    );
    found
}

/// psql in a shell that has taken the variables, after others that lead elsewhere.
async fn by_variables(shell: &str, psql: &Path, case: &Case) -> Ran {
    let env = case.forms["env"].as_str().expect("text");
    let psql = psql.display();
    let script = format!(
        "set -eu; eval \"$PGIAM_ENV\"; exec '{psql}' -X -w -A -t -c 'select current_user, current_database()'"
    );
    let mut command = Command::new(shell);
    clean_env(&mut command, &["PG"]);
    command
        .args(["-c", &script])
        .env("PGIAM_ENV", env)
        .env("PGHOSTADDR", "192.0.2.1")
        .env("PGSERVICE", "nosuch")
        .env("PGUSER", "nobody")
        .env("PGDATABASE", "elsewhere")
        .env("PGREQUIREAUTH", "scram-sha-256")
        .env("PGSSLMODE", "verify-full");
    // Without a user or database of its own, libpq names the role.
    run(command).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_url_of_run_is_read_alike_in_every_language() {
    let (world, _) = world().await;
    for (socket, role, database) in [
        (&[][..], "db_user", "app"),
        (&["--socket"], "ana@example.com", "a+b"),
    ] {
        let named = ["run", "alone", "--user", role, "--database", database];
        every_language(1, |inner| {
            let inner = inner.as_std();
            let mut command = in_world(&world, &[&named, socket, &["--"]].concat());
            command.arg(inner.get_program()).args(inner.get_args());
            let variables = inner.get_envs();
            command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
            command
                .env("JUDGE_ROLE", role)
                .env("JUDGE_DATABASE", database);
            command
        })
        .await;
    }
    world.stop().await;
}
