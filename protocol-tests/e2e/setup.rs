//! What `pgiam setup`, `pgiam url` and `pgiam token` print, given to those whom it is for: CloudFormation's
//! linter, IAM's reference, PostgreSQL, libpq and other clients.
//!
//! `./dev test` installs the judges in Python and names one of them in `PGIAM_CFN_LINT`. Without it they are
//! left out aloud; in CI that is a failure.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use protocol_tests::harness::program::clean_env;
use serde_json::Value;
use tokio::process::Command;

use crate::shell::admin_command;
use crate::support::{BASTION, HOST, PORT, REGION, Ran, World, pgiam, run};

/// Names that mean something to every language they are written in.
const ODD_ROLE: &str = r#"we"ird Na'me $pgiam$ 50%"#;
const ODD_DATABASE: &str = r"a b\c&d=e?#f'g";

/// `pgiam` in a folder of its own, without any AWS.
fn alone(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(pgiam());
    clean_env(&mut command, &["AWS_", "PGIAM_"]);
    command
        .args(args)
        .current_dir(dir)
        .env("HOME", dir)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .stdin(Stdio::null());
    command
}

/// The same with the sandbox as its AWS.
fn in_world(world: &World, args: &[&str]) -> Command {
    let mut command = alone(world.sandbox.dir(), args);
    command
        .env_remove("AWS_EC2_METADATA_DISABLED")
        .envs(world.sandbox.env())
        .env("NO_PROXY", "localhost,127.0.0.1");
    command
}

/// Standard output of a program that has to go well.
async fn output(command: Command) -> String {
    let ran = run(command).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.stdout
}

/// Programs in Python that judge.
struct Judges {
    cfn_lint: PathBuf,
}

impl Judges {
    /// `None`, and a word about it, where they are not installed.
    #[expect(clippy::print_stdout, reason = "what was left out is to be seen")]
    fn find() -> Option<Self> {
        match std::env::var_os("PGIAM_CFN_LINT").map(PathBuf::from) {
            Some(cfn_lint) if cfn_lint.exists() => Some(Self { cfn_lint }),
            given => {
                let reason =
                    format!("PGIAM_CFN_LINT is {given:?}: run ./dev test, or see ./dev judges");
                let strict = std::env::var_os("CI").is_some_and(|ci| ci == "true");
                assert!(!strict, "judges are missing, and this is CI: {reason}");
                println!("SKIPPED the judges of pgiam setup: {reason}");
                None
            }
        }
    }

    /// One of our scripts, with files.
    async fn script(&self, name: &str, files: &[PathBuf]) {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("protocol-tests/judges/setup");
        let mut command = Command::new(self.cfn_lint.with_file_name("python"));
        command
            .arg(sources.join(name))
            .args(files)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        let said = output(command).await;
        assert_eq!(said.lines().count(), files.len(), "{said}");
    }
}

/// Targets of every kind, by what is typed for them.
const TARGETS: [(&str, &[&str]); 9] = [
    (
        "cluster",
        &[
            "--host",
            HOST,
            "--user",
            "db_user",
            "--database",
            "app",
            "--bastion",
            BASTION,
        ],
    ),
    (
        "tag",
        &[
            "--host",
            HOST,
            "--user",
            "db_user",
            "--bastion",
            "tag:Name=bastion",
        ],
    ),
    (
        "auto",
        &["--db", "orders", "--region", REGION, "--user", ODD_ROLE],
    ),
    (
        "proxy",
        &[
            "--host",
            "o.proxy-abc.us-east-1.rds.amazonaws.com",
            "--user",
            "db_user",
            "--bastion",
            "mi-0123456789abcdef0",
        ],
    ),
    (
        "ecs",
        &[
            "--host",
            HOST,
            "--user",
            "db_user",
            "--bastion",
            "ecs:my_apps_0123456789abcdef0123456789abcdef_rt-1",
            "--document",
            "Our-Forward",
        ],
    ),
    (
        "dsql",
        &[
            "--host",
            "abcdefghijklmnopqrst123456.dsql.us-east-1.on.aws",
            "--user",
            "app_user",
            "--via",
            "direct",
        ],
    ),
    (
        "dsql-admin",
        &[
            "--host",
            "abcdefghijklmnopqrst123456.dsql.us-east-1.on.aws",
            "--user",
            "admin",
            "--bastion",
            BASTION,
        ],
    ),
    (
        "govcloud",
        &[
            "--host",
            "db.abc123.us-gov-west-1.rds.amazonaws.com",
            "--user",
            "db_user",
        ],
    ),
    (
        "china",
        &[
            "--host",
            "db.abc123.rds.cn-north-1.amazonaws.com.cn",
            "--user",
            "db_user",
            "--bastion",
            BASTION,
        ],
    ),
];

/// Runs `pgiam setup` for each target, and writes what it prints into files.
async fn print_all(dir: &Path, what: &[&str], extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for (name, flags) in TARGETS {
        let args = [&["setup"], what, flags].concat();
        let ran = run(alone(dir, &args)).await;
        assert_eq!(ran.code, Some(0), "{name}: {ran:?}");
        assert!(!ran.stderr.is_empty(), "{name} says what to do with it");
        let file = dir.join(format!("{name}{}.{extension}", what.concat()));
        std::fs::write(&file, ran.stdout).expect("the file");
        files.push(file);
    }
    files
}

/// Runs `pgiam setup` for a target with a relay, and writes what it prints into a file.
async fn with_relay(dir: &Path, what: &[&str], extension: &str) -> PathBuf {
    let args = [&["setup"], what, &["--relay"], TARGETS[0].1].concat();
    let ran = run(alone(dir, &args)).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let file = dir.join(format!("relay.{extension}"));
    std::fs::write(&file, ran.stdout).expect("the file");
    file
}

#[tokio::test]
async fn setup_bastion_passes_cfn_lint() {
    let dir = tempfile::tempdir().expect("a folder");
    let plain = print_all(dir.path(), &["bastion"], "yaml").await;
    let endpoints = print_all(dir.path(), &["bastion", "--endpoints"], "yaml").await;
    for file in plain.iter().chain(&endpoints) {
        let text = std::fs::read_to_string(file).expect("the file");
        for never in [
            "KeyName",
            "AssociatePublicIpAddress: true",
            "SecurityGroupIngress:\n        -",
        ] {
            assert!(!text.contains(never), "{never} in {}", file.display());
        }
    }
    let relay = with_relay(dir.path(), &["bastion"], "yaml").await;
    let Some(judges) = Judges::find() else { return };
    // The targets differ in what is filled in only, and the linter takes its time: two of them, with
    // and without endpoints, in two partitions, because types and their properties differ there.
    let mut lint = Command::new(&judges.cfn_lint);
    lint.args(["--regions", "eu-central-1", "cn-north-1", "-t"])
        .args([&plain[0], &endpoints[TARGETS.len() - 1], &relay]);
    let said = output(lint).await;
    assert_eq!(said, "");
}

#[tokio::test]
async fn setup_bastion_for_terraform_is_hcl() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut files = print_all(dir.path(), &["bastion", "--terraform"], "tf").await;
    let relay = with_relay(dir.path(), &["bastion", "--terraform"], "tf").await;
    files.truncate(2); // The others differ in what is filled in only, and the parser takes its time.
    files.push(relay);
    let Some(judges) = Judges::find() else { return };
    judges.script("hcl.py", &files).await;
}

#[tokio::test]
async fn setup_policy_is_what_iam_knows() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut files = print_all(dir.path(), &["policy"], "json").await;
    files.push(with_relay(dir.path(), &["policy"], "json").await);
    for file in &files {
        // What only the account or the database can tell.
        let text = std::fs::read_to_string(file).expect("the file");
        let text = text
            .replace("REPLACE_WITH_ACCOUNT_ID", "111122223333")
            .replace("REPLACE_WITH_RESOURCE_ID", "cluster-ABCDEFGHIJKL");
        assert!(!text.contains("REPLACE_WITH"), "{text}");
        std::fs::write(file, text).expect("the file");
    }
    let Some(judges) = Judges::find() else { return };
    judges.script("iam.py", &files).await;
}

/// The policy for a target that flags describe.
async fn policy(world: &World, flags: &[&str]) -> Value {
    let args = [&["setup", "policy"], flags].concat();
    let text = output(in_world(world, &args)).await;
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test]
async fn setup_asks_aws_for_what_it_can() {
    let world = World::start().await;
    let user = world.sandbox.user();
    let account = user.arn.split(':').nth(4).expect("an account").to_owned();
    let flags = ["--host", HOST, "--user", "db_user", "--bastion", BASTION];
    let said = policy(&world, &flags).await;
    let of = |statement: usize| said["Statement"][statement]["Resource"][0].clone();
    let login = of(0);
    let login = login.as_str().expect("an ARN");
    let place = format!("arn:aws:rds-db:{REGION}:{account}:dbuser:cluster-");
    assert!(
        login.starts_with(&place) && login.ends_with("/db_user"),
        "{login}"
    );
    assert_eq!(
        of(1),
        format!("arn:aws:ec2:{REGION}:{account}:instance/{BASTION}")
    );
    // The sandbox's is an IAM user.
    assert_eq!(of(3), "arn:aws:ssm:*:*:session/${aws:username}-*");

    let args = [&["setup", "bastion"], &flags[..]].concat();
    let template = output(in_world(&world, &args)).await;
    for known in ["    Default: \"vpc-", "    Default: \"sg-"] {
        assert!(template.contains(known), "{known}\n{template}");
    }
    world.stop().await;
}

/// The policy of a target that is looked up allows what the lookup needs, and nothing else.
#[tokio::test]
async fn setup_policy_is_enough_for_a_lookup() {
    let world = World::start().await;
    let flags = [
        "--db",
        "orders",
        "--region",
        REGION,
        "--user",
        "db_user",
        "--bastion",
        BASTION,
    ];
    let said = policy(&world, &flags).await;
    let find = said["Statement"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["Sid"] == "FindDatabase"))
        .expect("the lookup");
    let arn = find["Resource"][0].as_str().expect("an ARN");
    assert!(arn.ends_with(":cluster:orders"), "{find}");
    assert_eq!(
        find["Action"],
        serde_json::json!(["rds:DescribeDBClusters"])
    );
    let others = [
        "rds:DescribeDBInstances",
        "rds:DescribeDBProxies",
        "rds:DescribeDBClusterEndpoints",
        "rds:DescribeDBProxyEndpoints",
    ];
    let all = format!(
        "rds:DescribeDBClusters {}",
        arn.replace(":cluster:orders", ":cluster:*")
    );
    let key = world.sandbox.user().access_key_id.clone();
    let changed = world.sandbox.iam().update(&key, |user| {
        user.deny.extend(others.map(str::to_owned));
        user.deny.insert(all);
    });
    assert!(changed, "the user is there");
    let args = [&["token"], &flags[..], &["--json"]].concat();
    let token: Value = serde_json::from_str(&output(in_world(&world, &args)).await).expect("JSON");
    assert_eq!(token["host"], HOST);
    world.stop().await;
}

#[tokio::test]
async fn setup_sql_runs_twice_and_lets_the_role_in() {
    let world = World::start().await;
    for role in ["reports", ODD_ROLE, r"back\slash"] {
        let args = [
            "setup",
            "sql",
            "--host",
            HOST,
            "--user",
            role,
            "--database",
            "app",
            "--bastion",
            BASTION,
        ];
        let sql = output(in_world(&world, &args)).await;
        let file = world.sandbox.dir().join("setup.sql");
        std::fs::write(&file, sql).expect("the file");
        let file = file.to_str().expect("a plain path");
        let refused = world.psql(&["-U", role, "-c", "select 1"]).await;
        assert_ne!(refused.code, Some(0), "{role} is nobody yet: {refused:?}");
        for _ in 0..2 {
            let ran = run(admin_command(
                &world,
                &["-v", "ON_ERROR_STOP=1", "-f", file],
            ))
            .await;
            assert_eq!(ran.code, Some(0), "{role}: {ran:?}");
        }
        let seen = world
            .psql(&["-U", role, "-At", "-c", "select current_user"])
            .await;
        assert_eq!(seen.rows(), role);
    }
    // A role that is there without LOGIN.
    let made = world
        .database
        .postgres()
        .psql_admin_in("app", "create role parked")
        .await;
    made.expect("the role");
    let args = [
        "setup",
        "sql",
        "--host",
        HOST,
        "--user",
        "parked",
        "--database",
        "app",
        "--bastion",
        BASTION,
    ];
    let sql = output(in_world(&world, &args)).await;
    let ran = run(admin_command(
        &world,
        &["-v", "ON_ERROR_STOP=1", "-c", &sql],
    ))
    .await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let seen = world
        .psql(&["-U", "parked", "-At", "-c", "select current_user"])
        .await;
    assert_eq!(seen.rows(), "parked");
    world.stop().await;
}

/// `pgiam url` for the world's one target, in a form.
async fn url(world: &World, form: &[&str]) -> String {
    let port = world.proxy.port().to_string();
    let args = [&["url", "orders", "--port", &port], form].concat();
    output(in_world(world, &args)).await.trim_end().to_owned()
}

#[tokio::test]
async fn url_is_what_libpq_takes() {
    let world = World::start().await;
    let psql = world.database.postgres().psql_program();
    let query = "select current_user || ' ' || current_database()";
    for (form, written) in [
        ("uri", url(&world, &[]).await),
        ("dsn", url(&world, &["--format", "dsn"]).await),
    ] {
        let mut command = Command::new(&psql);
        clean_env(&mut command, &["PG"]);
        command.args([&written, "-w", "-At", "-c", query]);
        assert_eq!(run(command).await.rows(), "db_user app", "{form}");
    }
    let env = url(&world, &["--format", "env"]).await;
    for by in ["psql -w", "psql \"$DATABASE_URL\" -w"] {
        let mut command = Command::new("sh");
        clean_env(&mut command, &["PG"]);
        let psql = by.replacen("psql", psql.to_str().expect("a plain path"), 1);
        command
            .arg("-c")
            .arg(format!("{env}\n{psql} -At -c \"{query}\""));
        assert_eq!(run(command).await.rows(), "db_user app", "{by}");
    }
    world.stop().await;
}

/// What a client makes of a form, without connecting.
async fn read_by(command: Command) -> Value {
    serde_json::from_str(&output(command).await).expect("JSON")
}

#[tokio::test]
async fn url_keeps_odd_names() {
    let dir = tempfile::tempdir().expect("a folder");
    let args = [
        "url",
        "--host",
        HOST,
        "--user",
        ODD_ROLE,
        "--database",
        ODD_DATABASE,
        "--port",
        "5434",
        "--json",
    ];
    let text = output(alone(dir.path(), &args)).await;
    let forms: Value = serde_json::from_str(&text).expect("JSON");
    let form = |name: &str| forms[name].as_str().expect("text").to_owned();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!(
        "{}\nprintf '%s\\n' \"$PGHOST\" \"$PGPORT\" \"$PGUSER\" \"$PGDATABASE\" \"$DATABASE_URL\"",
        form("env")
    ));
    let said = output(shell).await;
    let expected = ["localhost", "5434", ODD_ROLE, ODD_DATABASE, &form("uri")];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);

    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("protocol-tests/judges/clients");
    let Some(clients) = std::env::var_os("PGIAM_CLIENTS").map(PathBuf::from) else {
        println!("SKIPPED drivers that read URLs: PGIAM_CLIENTS is not set");
        return;
    };
    let right = |name: &str| {
        let mut right = serde_json::json!({
            "host": "localhost", "port": "5434", "user": ODD_ROLE, "database": ODD_DATABASE,
        });
        if name == "dsn" {
            right["sslmode"] = "disable".into();
        }
        right
    };
    let python = clients.join("venv/bin/python");
    if python.exists() {
        for (reader, name) in [
            ("libpq", "uri"),
            ("libpq", "dsn"),
            ("sqlalchemy", "uri"),
            ("urllib", "uri"),
        ] {
            let mut command = Command::new(&python);
            command
                .arg(sources.join("python/read_url.py"))
                .args([reader, &form(name)]);
            assert_eq!(read_by(command).await, right(name), "{name} by {reader}");
        }
    }
    let driver = clients.join("jdbc/usr/share/java/postgresql.jar");
    if driver.exists() {
        let mut command = Command::new("java");
        command
            .env("CLASSPATH", driver)
            .arg(sources.join("java/ReadUrl.java"))
            .arg(form("jdbc"));
        let said = output(command).await;
        let expected = ["localhost", "5434", ODD_ROLE, ODD_DATABASE, "disable"];
        assert_eq!(said.lines().collect::<Vec<_>>(), expected, "JDBC");
    }
}

/// What is wrong with a command, as `pgiam` says it.
async fn complaint(command: Command) -> String {
    let Ran {
        code,
        stdout,
        stderr,
    } = run(command).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    stderr
}

#[tokio::test]
async fn url_of_a_port_that_is_not_known() {
    let dir = tempfile::tempdir().expect("a folder");
    let said = complaint(alone(dir.path(), &["url", "--host", HOST, "--port", "0"])).await;
    assert!(said.contains("\n  pgiam serve default\n"), "{said}");
}

#[tokio::test]
async fn token_is_a_password_at_the_database() {
    let world = World::start().await;
    let token = output(in_world(&world, &["token", "orders"])).await;
    let server = world.database.addr();
    let ca = world.sandbox.pki().ca_pem_path().display().to_string();
    let mut command = Command::new(world.database.postgres().psql_program());
    clean_env(&mut command, &["PG"]);
    command
        .args(["-w", "-At", "-c", "select current_user"])
        .arg(format!(
            "host={HOST} hostaddr={} port={} user=db_user dbname=app sslmode=verify-full sslrootcert={ca}",
            server.ip(),
            server.port()
        ))
        .env("PGPASSWORD", token.trim_end());
    assert_eq!(run(command).await.rows(), "db_user");

    let json = output(in_world(&world, &["token", "orders", "--json"])).await;
    let json: serde_json::Map<String, Value> = serde_json::from_str(&json).expect("JSON");
    let keys: Vec<&str> = json.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        ["expires_at", "host", "port", "region", "token", "user"]
    );
    assert_eq!(
        (&json["host"], &json["port"], &json["user"], &json["region"]),
        (
            &HOST.into(),
            &PORT.into(),
            &"db_user".into(),
            &REGION.into()
        )
    );
    assert!(
        json["expires_at"]
            .as_str()
            .is_some_and(|at| at.ends_with('Z')),
        "{:?}",
        json["expires_at"]
    );
    world.stop().await;
}

#[tokio::test]
async fn token_does_not_stay_on_the_screen() {
    let world = World::start().await;
    // A terminal, as the util-linux of every Linux makes one.
    let on_terminal = |words: &str| {
        let mut command = in_world(&world, &[]);
        let pgiam = command.as_std().get_program().to_owned();
        let mut script = Command::new("script");
        for (name, value) in command.as_std_mut().get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        let line = format!("{} token orders {words}", pgiam.to_string_lossy());
        script
            .args(["-qec", &line, "/dev/null"])
            .current_dir(world.sandbox.dir())
            .stdin(Stdio::null());
        script
    };
    let refused = run(on_terminal("")).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stdout.contains("--show") && !refused.stdout.contains("X-Amz"),
        "{refused:?}"
    );
    let shown = run(on_terminal("--show")).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(
        shown.stdout.contains("X-Amz-Signature="),
        "the token is there"
    );
    world.stop().await;
}
