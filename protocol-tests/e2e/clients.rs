//! Clients of many kinds, each a program of its own that does what its driver can and checks what
//! comes of it (`protocol-tests/judges/clients`), through the whole way and without a password.
//!
//! `./dev test` installs them and names the place in `PGIAM_CLIENTS`. What is not there is left
//! out aloud; in CI that is a failure.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use protocol_tests::database::front::FrontKind;
use protocol_tests::database::postgres::postgres18;
use protocol_tests::database::rds::Engine;
use protocol_tests::harness::ports::free_port;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{BASTION, HOST, Setup, World};

/// For one client with one kind of local connection, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(180);
/// How long the server may take to notice that a client has gone.
const GONE_SECONDS: u64 = 20;
/// Fewer steps than any client has: one that does nothing must not pass.
const STEPS: usize = 4;

/// Where the client's programs are.
pub(crate) struct Kit {
    /// This repository's part.
    pub(crate) sources: PathBuf,
    /// What `./dev test` has installed, if anything.
    installed: Option<PathBuf>,
}

/// As whom the clients of a group log in.
struct Login {
    /// The user that the client sends.
    user: String,
    /// The role that the server must see.
    role: &'static str,
    /// Further variables of the client: a password, ways to connect.
    env: Vec<(&'static str, String)>,
}

impl Login {
    /// What libpq sends for a user who names nobody, and no password: what pgiam is for.
    fn ordinary() -> Self {
        Self {
            user: pgiam::platform::os_user().expect("this user has a name"),
            role: "db_user",
            env: Vec::new(),
        }
    }
}

pub(crate) type Start = fn(&Kit) -> Result<Command, String>;

/// A client: its name, and how it is started.
pub(crate) type Client = (&'static str, Start);

impl Kit {
    pub(crate) fn find() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self {
            sources: root.join("protocol-tests/judges/clients"),
            installed: std::env::var_os("PGIAM_CLIENTS").map(PathBuf::from),
        }
    }

    /// A file that `./dev test` installs.
    pub(crate) fn installed(&self, path: &str) -> Result<PathBuf, String> {
        let dir = self.installed.as_ref();
        let dir = dir.ok_or("PGIAM_CLIENTS is not set: run ./dev test, or see ./dev judges")?;
        let file = dir.join(path);
        match file.exists() {
            true => Ok(file),
            false => Err(format!("there is no {}: run ./dev test", file.display())),
        }
    }

    /// A program of the system, with one of our scripts, if a probe of it goes well.
    pub(crate) fn system(
        &self,
        program: &str,
        script: &str,
        probe: &[&str],
    ) -> Result<Command, String> {
        let probed = std::process::Command::new(program)
            .args(probe)
            .stdin(Stdio::null())
            .output();
        let output = probed.map_err(|error| format!("{program}: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{program} {}: {}", probe.join(" "), said.trim()));
        }
        let mut command = Command::new(program);
        command.arg(self.sources.join(script));
        Ok(command)
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg(self.sources.join("shell").join(script));
        command
    }

    pub(crate) fn python(&self, script: &str) -> Result<Command, String> {
        self.installed("python.installed")?;
        let mut command = Command::new(self.installed("venv/bin/python")?);
        command
            .arg(self.sources.join("python").join(script))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        Ok(command)
    }

    fn dbt(&self) -> Result<Command, String> {
        self.installed("dbt.installed")?;
        let mut command = Command::new(self.installed("dbt/bin/python")?);
        command
            .arg(self.sources.join("dbt/use_dbt.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        Ok(command)
    }

    pub(crate) fn node(&self, script: &str) -> Result<Command, String> {
        self.installed("node.installed")?;
        let modules = self.installed("node/node_modules")?;
        let mut command = self.system("node", &format!("node/{script}"), &["--version"])?;
        command.env("NODE_PATH", modules);
        Ok(command)
    }

    pub(crate) fn java(&self, source: &str) -> Result<Command, String> {
        let driver = self.installed("jdbc/usr/share/java/postgresql.jar")?;
        let mut command = self.system("java", &format!("java/{source}"), &["--version"])?;
        // Where a class path on the command line would be, for a program that is one source file.
        command.env("CLASSPATH", driver);
        Ok(command)
    }
}

/// psqlodbc of the system, used from Python.
fn odbc(kit: &Kit) -> Result<Command, String> {
    let probe = "import pyodbc, sys; sys.exit('PostgreSQL Unicode' not in pyodbc.drivers())";
    let probed = std::process::Command::new(kit.installed("venv/bin/python")?)
        .args(["-c", probe])
        .output();
    match probed.map_err(|error| error.to_string())?.status.success() {
        true => kit.python("use_odbc.py"),
        false => Err("psqlodbc is not registered in odbcinst.ini, or pyodbc is missing".to_owned()),
    }
}

fn go(kit: &Kit, program: &str) -> Result<Command, String> {
    Ok(Command::new(kit.installed(&format!("go/{program}"))?))
}

fn psql_18(kit: &Kit) -> Result<Command, String> {
    let eighteen = postgres18().map_err(|error| format!("{error:#}"))?;
    let mut command = kit.shell("psql.sh");
    command.env("LIBPQ", eighteen.libdir());
    Ok(command)
}

pub(crate) fn rust(kit: &Kit, name: &str) -> Result<Command, String> {
    Ok(Command::new(kit.installed(&format!("rust/debug/{name}"))?))
}

/// Runs a client to its end; what it said, or what went wrong.
async fn judge(
    world: &World,
    login: &Login,
    mut command: Command,
    sslmode: &str,
) -> Result<String, String> {
    let bindir = world.database.postgres().bindir();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = [bindir.to_owned()].into_iter();
    let path = std::env::join_paths(dirs.chain(std::env::split_paths(&path)));
    for variable in ["PGPASSWORD", "PGOPTIONS", "PGSSLROOTCERT", "PGAPPNAME"] {
        command.env_remove(variable);
    }
    for (name, value) in &login.env {
        command.env(name, value);
    }
    // A group of its own, so that an end in time is one for the programs that it started, too.
    let child = command
        .env("PATH", path.map_err(|error| error.to_string())?)
        .env("HOME", world.sandbox.dir())
        .env("LC_ALL", "C.UTF-8")
        .env("PGHOST", "localhost")
        .env("PGPORT", world.proxy.port().to_string())
        .env("PGUSER", &login.user)
        .env("PGDATABASE", "app")
        .env("PGSSLMODE", sslmode)
        .env("PGPASSFILE", "/nonexistent")
        .env("PGSERVICEFILE", "/dev/null")
        .env("JUDGE_ROLE", login.role)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("does not start: {error}"))?;
    let group = child.id().map(|id| Pid::from_raw(id.cast_signed()));
    let mut ending = pin!(child.wait_with_output());
    let (output, late) = match timeout(DEADLINE, &mut ending).await {
        Ok(output) => (output, ""),
        Err(_) => {
            if let Some(group) = group {
                let _ = killpg(group, Signal::SIGKILL);
            }
            (ending.await, " (it took too long)")
        }
    };
    let output = output.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let steps = said.lines().filter(|line| line.starts_with("ok ")).count();
    if !output.status.success() || steps < STEPS {
        let complaints = String::from_utf8_lossy(&output.stderr);
        let status = output.status;
        return Err(format!("{status}{late}, {steps} steps\n{said}{complaints}"));
    }
    Ok(said)
}

/// Waits until no client has a session at the server; after a client that failed, ends what is left.
async fn cleared(world: &World, failed: bool) -> Result<(), String> {
    let ask = async |sql: &str| {
        let answer = world.database.postgres().psql_admin_in("app", sql).await;
        answer.map_err(|error| format!("{error:#}"))
    };
    if failed {
        ask("select pg_terminate_backend(pid) from pg_stat_activity where client_addr is not null")
            .await?;
    }
    ask(&format!(
        "do $wait$ begin
           while exists (select from pg_stat_activity where client_addr is not null) loop
             if clock_timestamp() > now() + interval '{GONE_SECONDS} s' then
               raise 'sessions are left at the server';
             end if;
             perform pg_sleep(0.01), pg_stat_clear_snapshot();
           end loop;
         end $wait$"
    ))
    .await
    .map(drop)
}

/// Has clients do their work one after the other, with and without local TLS, and reports all that
/// went wrong at once.
pub(crate) async fn group(world: World, clients: &[Client]) {
    group_as(world, &Login::ordinary(), clients).await;
}

#[expect(
    clippy::print_stdout,
    reason = "what was done and what was left out is to be seen"
)]
async fn group_as(world: World, login: &Login, clients: &[Client]) {
    let kit = Kit::find();
    let strict = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    let mut failures = Vec::new();
    for (name, start) in clients {
        for sslmode in ["disable", "require"] {
            let command = match start(&kit) {
                Ok(command) => command,
                Err(reason) if strict => {
                    failures.push(format!("{name} is missing, and this is CI: {reason}"));
                    break;
                }
                Err(reason) => {
                    println!("SKIPPED {name}: {reason}");
                    break;
                }
            };
            let began = Instant::now();
            let outcome = judge(&world, login, command, sslmode).await;
            let seconds = began.elapsed().as_secs_f64();
            println!("{name}, sslmode={sslmode}, {seconds:.1} s");
            let left = cleared(&world, outcome.is_err()).await;
            match outcome {
                Ok(said) => println!("{said}"),
                Err(error) => failures.push(format!("{name}, sslmode={sslmode}: {error}")),
            }
            if let Err(error) = left {
                failures.push(format!("{name}, sslmode={sslmode}, afterwards: {error}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_of_two_versions() {
    let clients: &[Client] = &[
        ("psql", |kit| Ok(kit.shell("psql.sh"))),
        ("psql with libpq 18", psql_18),
    ];
    group(World::start().await, clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_of_postgresql() {
    let clients: &[Client] = &[
        ("pgbench", |kit| Ok(kit.shell("pgbench.sh"))),
        ("pg_dump and pg_restore", |kit| Ok(kit.shell("pg_dump.sh"))),
    ];
    group(World::start().await, clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_drivers() {
    let clients: &[Client] = &[
        ("psycopg2", |kit| kit.python("use_psycopg2.py")),
        ("psycopg 3", |kit| kit.python("use_psycopg3.py")),
        ("psycopg 3, async", |kit| {
            kit.python("use_psycopg3_async.py")
        }),
        ("psycopg_pool", |kit| kit.python("use_psycopg_pool.py")),
        ("asyncpg", |kit| kit.python("use_asyncpg.py")),
        ("pg8000", |kit| kit.python("use_pg8000.py")),
    ];
    group(World::start().await, clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_frameworks() {
    let clients: &[Client] = &[
        ("SQLAlchemy", |kit| kit.python("use_sqlalchemy.py")),
        ("Django", |kit| kit.python("use_django.py")),
        ("pgcli", |kit| kit.python("use_pgcli.py")),
    ];
    group(World::start().await, clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dbt() {
    group(World::start().await, &[("dbt", Kit::dbt)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node() {
    let clients: &[Client] = &[
        ("node-postgres", |kit| kit.node("use_pg.js")),
        ("postgres.js", |kit| kit.node("use_postgres.js")),
        ("Sequelize", |kit| kit.node("use_sequelize.js")),
        ("TypeORM", |kit| kit.node("use_typeorm.js")),
    ];
    group(World::start().await, clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_over_node_postgres() {
    let clients: &[Client] = &[
        ("Drizzle", |kit| kit.node("use_drizzle.js")),
        ("Knex", |kit| kit.node("use_knex.js")),
        ("Kysely", |kit| kit.node("use_kysely.js")),
        ("MikroORM", |kit| kit.node("use_mikro_orm.js")),
        ("Prisma", |kit| {
            kit.installed("node/node_modules/judge-prisma-client/index.js")?;
            kit.node("use_prisma.js")
        }),
    ];
    group(World::start().await, clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rust_drivers() {
    let clients: &[Client] = &[
        ("tokio-postgres", |kit| rust(kit, "tokio_postgres")),
        ("sqlx", |kit| rust(kit, "sqlx")),
        ("Diesel", |kit| rust(kit, "diesel")),
    ];
    group(World::start().await, clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_drivers() {
    let clients: &[Client] = &[
        ("lib/pq", |kit| go(kit, "use_pq")),
        ("pgx", |kit| go(kit, "use_pgx")),
    ];
    group(World::start().await, clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odbc_and_active_record() {
    let clients: &[Client] = &[
        ("ODBC", odbc),
        ("ActiveRecord", |kit| {
            let probe = "require 'pg'; require 'logger'; require 'active_record'";
            kit.system("ruby", "ruby/use_active_record.rb", &["-e", probe])
        }),
    ];
    group(World::start().await, clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn java_ruby_php_and_perl() {
    let clients: &[Client] = &[
        ("JDBC", |kit| kit.java("UseJdbc.java")),
        ("Ruby pg", |kit| {
            kit.system("ruby", "ruby/use_pg.rb", &["-e", "require 'pg'"])
        }),
        ("PHP PDO", |kit| {
            let probe = "exit(extension_loaded('pdo_pgsql') && extension_loaded('pgsql') ? 0 : 1);";
            kit.system("php", "php/use_pdo.php", &["-r", probe])
        }),
        ("Perl DBD::Pg", |kit| {
            kit.system("perl", "perl/use_dbd_pg.pl", &["-MDBD::Pg", "-e", "1"])
        }),
    ];
    group(World::start().await, clients).await;
}

/// Protocol 3.2, which only a newer server answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newest_protocol() {
    let Ok(eighteen) = postgres18() else {
        // `psql with libpq 18` has said so above, and failed if it had to be there.
        return;
    };
    let clients: &[Client] = &[
        ("psql with libpq 18", |kit| {
            let mut command = psql_18(kit)?;
            command.env("JUDGE_PROTOCOL", "3.2");
            Ok(command)
        }),
        ("psycopg 3", |kit| {
            let mut command = kit.python("use_psycopg3.py")?;
            command.env("JUDGE_PROTOCOL", "3.2");
            Ok(command)
        }),
    ];
    let setup = Setup {
        engine: Engine::Front {
            kind: FrontKind::Instance,
            direct: true,
            bindir: Some(eighteen.bindir()),
        },
        ..Setup::default()
    };
    group(World::with(setup).await, clients).await;
}

/// With a password of the role's own, which is the only way to replication.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replication() {
    let config = format!(
        "[targets.orders]\nhost = \"{HOST}\"\nport = 0\nbastion = \"{BASTION}\"\n\
         auth = \"passthrough\"\n"
    );
    let world = World::with(Setup {
        config: Some(config),
        engine: Engine::Passwords { bindir: None },
        hba: Some("hostssl all,replication all 127.0.0.1/32 scram-sha-256".to_owned()),
        settings: vec![("wal_level", "logical")],
        ..Setup::default()
    })
    .await;
    let role = "create role repl login replication password 'copies all';
                grant create on schema public to repl";
    let made = world.database.postgres().psql_admin_in("app", role).await;
    made.expect("the role");
    let login = Login {
        user: "repl".to_owned(),
        role: "repl",
        env: vec![("PGPASSWORD", "copies all".to_owned())],
    };
    let clients: &[Client] = &[("pg_recvlogical and psql", |kit| {
        Ok(kit.shell("replication.sh"))
    })];
    group_as(world, &login, clients).await;
}

/// The strings and settings of docs/clients.md: the port of all targets, the Unix socket, a role by
/// its name, a password that nobody asks for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_strings() {
    let parent = tempfile::tempdir().expect("a directory");
    let sockets = parent.path().join("sockets").display().to_string();
    let hub = free_port().to_string();
    let args = ["--socket-dir", &sockets, "--hub-port", &hub];
    let world = World::with(Setup {
        args: args.map(str::to_owned).to_vec(),
        ..Setup::default()
    })
    .await;
    let clients: &[Client] = &[
        ("Python", |kit| kit.python("use_strings.py")),
        ("Node", |kit| kit.node("use_strings.js")),
        ("JDBC", |kit| kit.java("UseUrls.java")),
    ];
    let login = Login {
        env: vec![("JUDGE_HUB", hub), ("JUDGE_SOCKETS", sockets)],
        ..Login::ordinary()
    };
    group_as(world, &login, clients).await;
}
