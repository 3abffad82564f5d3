//! The forms for files of other programs, and for ODBC.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use protocol_tests::harness::program::clean_env;
use serde_json::Value;
use tokio::process::Command;

use super::{Case, cases, in_world, installed, judge, world};
use crate::clients::Kit;
use crate::support::{Ran, Setup, World, ordinary_config, run};

const WHO: &str = "select current_user, current_database()";
/// A local password with the characters of `.pgpass`.
const PASSWORD: &str = r"pass:wo\rd *";

/// Writes a file that only its owner may read.
fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).expect(name);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect(name);
    path
}

impl Case {
    fn form(&self, name: &str) -> Option<&str> {
        self.forms[name].as_str()
    }

    /// Insists that psql has arrived where it should.
    fn arrived(&self, ran: &Ran, form: &str) {
        let expected = format!("{}|{}", self.role, self.database);
        assert_eq!(ran.rows(), expected, "{form}: {}", self.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libpq_reads_each_section_of_a_service_file() {
    let (world, ports) = world().await;
    for case in cases(&world, &ports).await {
        let section = case.form("service").expect("a section");
        let service = section.lines().next().expect("its name");
        let service = service.trim_matches(['[', ']']);
        // Beside another section, which must not be taken.
        let text = format!("[other]\nhost=192.0.2.1\n\n{section}\n\n[last]\nport=1\n");
        let file = write(world.sandbox.dir(), "pg_service.conf", &text);
        let mut command = Command::new(world.database.postgres().psql_program());
        clean_env(&mut command, &["PG"]);
        let string = format!("service={service} application_name=judge");
        command
            .args(["-X", "-w", "-A", "-t", "-d", &string, "-c", WHO])
            .env("PGSERVICEFILE", file)
            .env("PGPASSFILE", "/nonexistent");
        case.arrived(&run(command).await, "service");
    }
    world.stop().await;
}

/// Runs psql in a shell that has read the file.
async fn in_shell(shell: &str, psql: &Path, file: &Path) -> Ran {
    let script = format!(
        "set -aeu; . '{}'; exec '{}' -X -w -A -t -c '{WHO}'",
        file.display(),
        psql.display()
    );
    let mut command = Command::new(shell);
    clean_env(&mut command, &["PG"]);
    command
        .args(["-c", &script])
        .env("PGPASSFILE", "/nonexistent");
    run(command).await
}

/// Returns the lines that a reader prints of the file.
async fn read_by(mut reader: Command, file: &Path) -> Vec<String> {
    reader.arg(file);
    let ran = run(reader).await;
    let mut lines: Vec<String> = ran.rows().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn env_files_are_read_alike() {
    let (world, ports) = world().await;
    let cases = cases(&world, &ports).await;
    let kit = Kit::find();
    let program = world.database.postgres().psql_program();
    let strict = std::env::var("CI").as_deref() == Ok("true");
    let mut unwritten = Vec::new();
    for case in &cases {
        let Some(text) = case.form("dotenv") else {
            unwritten.push(case.role.as_str());
            continue;
        };
        let file = write(world.sandbox.dir(), ".env", &format!("{text}\n"));
        for shell in ["sh", "bash", "zsh"] {
            if installed(shell).await {
                case.arrived(&in_shell(shell, &program, &file).await, shell);
            }
        }
        let mut expected = vec![
            "PGHOST=localhost".to_owned(),
            format!("PGPORT={}", case.forms["port"]),
            "PGSSLMODE=disable".to_owned(),
            format!("DATABASE_URL={}", case.form("uri").expect("a URL")),
        ];
        for (name, key) in [("PGUSER", "user"), ("PGDATABASE", "database")] {
            let value = case.form(key);
            expected.extend(value.map(|value| format!("{name}={value}")));
        }
        expected.sort();
        for reader in [kit.python("read_env.py"), kit.node("read_env.js")] {
            match reader {
                Ok(reader) => assert_eq!(read_by(reader, &file).await, expected, "{text}"),
                Err(reason) => {
                    assert!(!strict, "{reason}");
                    println!("SKIPPED: {reason}");
                }
            }
        }
    }
    // Only the role with every quote.
    unwritten.dedup();
    assert_eq!(unwritten, [super::ROLES[5]]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odbc_strings_lead_where_they_should() {
    let (world, ports) = world().await;
    let cases = cases(&world, &ports).await;
    let line = |case: &Case| {
        let string = case.form("odbc").expect("a string");
        format!(
            "{}\t{}\t{}\t{string}\n",
            case.name, case.role, case.database
        )
    };
    let text: String = cases.iter().map(line).collect();
    let file = write(world.sandbox.dir(), "strings", &text);
    let drivers = std::fs::read_to_string("/etc/odbcinst.ini").unwrap_or_default();
    let python = match drivers.contains("[PostgreSQL Unicode]") {
        true => Kit::find().python("use_odbc_strings.py"),
        false => Err("psqlODBC is missing".to_owned()),
    };
    match python {
        Ok(mut command) => {
            clean_env(&mut command, &["PG"]);
            command.env("JUDGE_STRINGS", &file);
            let judged = judge(command, cases.len()).await;
            assert_eq!(judged, Ok(()));
        }
        Err(reason) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{reason}");
            println!("SKIPPED: {reason}");
        }
    }
    world.stop().await;
}

/// Runs `pgiam url` beside a server with a local password.
async fn url(world: &World, args: &[&str]) -> Ran {
    let port = world.proxy.port().to_string();
    let mut command = in_world(world, &[&["url", "--port", &port][..], args].concat());
    command.env("PGIAM_LOCAL_PASSWORD", PASSWORD);
    run(command).await
}

#[tokio::test]
async fn a_line_of_a_password_file_opens_the_port() {
    let world = World::with(Setup {
        env: vec![("PGIAM_LOCAL_PASSWORD", Some(PASSWORD.to_owned()))],
        ..Setup::default()
    })
    .await;
    let role = r"a:b\c";
    world
        .admin(&format!(
            "create role \"{role}\" login; grant rds_iam to \"{role}\""
        ))
        .await;
    for args in [&[][..], &["--user", role]] {
        let ran = url(&world, &[args, &["--format", "pgpass"]].concat()).await;
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
        let file = write(world.sandbox.dir(), "pgpass", &ran.stdout);
        let uri = url(&world, args).await;
        let mut command = world.psql_command(&["-A", "-t", "-d", uri.rows(), "-c", WHO]);
        command.env("PGPASSFILE", file);
        let expected = args.last().unwrap_or(&"db_user");
        assert_eq!(run(command).await.rows(), format!("{expected}|app"));
    }
    // Nothing else prints the password.
    let all = url(&world, &["--json"]).await;
    let all: Value = serde_json::from_str(all.rows()).expect("JSON");
    assert_eq!(all["pgpass"], Value::Null);
    assert!(!all.to_string().contains("pass:wo"), "{all}");
    world.stop().await;
}

#[tokio::test]
async fn notes_say_what_a_form_needs() {
    let world = World::start().await;
    let note = async |text: &str, form: &str| {
        std::fs::write(world.sandbox.dir().join("pgiam.toml"), text).expect("the file");
        let ran = run(in_world(
            &world,
            &["url", "--port", "5433", "--format", form],
        ))
        .await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        (ran.stdout, ran.stderr)
    };
    let (line, said) = note(&ordinary_config(), "pgpass").await;
    assert_eq!(line, "localhost:5433:app:db_user:unused\n");
    assert!(said.contains("requires no password"), "{said}");
    let inside = "postgresql://db_user@host.docker.internal:5433/app\n";
    let (line, said) = note(&ordinary_config(), "docker").await;
    assert_eq!(line, inside);
    assert!(said.contains("loopback addresses only"), "{said}");
    assert!(
        said.contains("--add-host host.docker.internal:host-gateway"),
        "{said}"
    );
    let file = write(world.sandbox.dir(), "password", "secret\n");
    let exposed = format!(
        "[serve]\naddress = \"0.0.0.0\"\npassword_file = \"{}\"\n{}",
        file.display(),
        ordinary_config()
    );
    let (line, said) = note(&exposed, "docker").await;
    assert_eq!(line, inside);
    assert!(
        said.contains("-e PGPASSWORD") && !said.contains("loopback"),
        "{said}"
    );
    // The other name of the default, and a name that a file cannot express.
    let (line, said) = note(&ordinary_config(), "url").await;
    assert_eq!(
        (line.as_str(), said.as_str()),
        ("postgresql://db_user@localhost:5433/app\n", "")
    );
    let hostile = [
        "url",
        "--port",
        "5433",
        "--format",
        "service",
        "--database",
        "a\nhost=evil",
    ];
    let ran = run(in_world(&world, &hostile)).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    assert!(
        ran.stderr.starts_with(
            "pgiam: a pg_service.conf cannot express the database \"a\\nhost=evil\": it has control"
        ),
        "{ran:?}"
    );
    world.stop().await;
}
