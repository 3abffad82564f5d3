//! A server for the suites, the way to it, and the files both sides of it touch.

use std::fmt;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use super::{SuitesOptions, process};
use crate::aws::events::Event;
use crate::aws::iam::DbEndpoint;
use crate::aws::sandbox::Sandbox;
use crate::database::rds::{RdsDatabase, RdsOptions};
use crate::demo::{BASTION, HOST, READY_DEADLINE};
use crate::harness::program;
use crate::harness::program::{Launch, Proxy};

const REGION: &str = "eu-central-1";
const PORT: u16 = 5432;
/// The role the suites run as. RDS has no superusers; the tests need one, and the one that owns the
/// system's own tables.
const USER: &str = "postgres";
/// Copying the sources and the like.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// How the tests reach the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Proxy, tunnel, IAM token.
    Proxy,
    /// Straight to the server's port, which lets the role in without a password.
    Direct,
}

impl Way {
    /// For names of files.
    pub(super) fn tag(self) -> &'static str {
        match self {
            Self::Proxy => "through",
            Self::Direct => "direct",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Proxy => "through pgiam",
            Self::Direct => "directly",
        })
    }
}

/// A server with a superuser, and a way to it.
pub(super) struct World {
    way: Way,
    // Field order matters: the proxy goes first, the server's files are in the sandbox's directory.
    proxy: Option<Proxy>,
    database: RdsDatabase,
    sandbox: Sandbox,
    suites: PathBuf,
}

impl World {
    pub(super) async fn start(way: Way, options: &SuitesOptions) -> anyhow::Result<Self> {
        let sandbox = Sandbox::builder().region(REGION).start().await?;
        // The tests are about bytes, not about the real agent's speed.
        sandbox.agent(BASTION).set_pacing(false);
        let mut world = Self {
            way,
            proxy: None,
            database: start_database(&sandbox).await?,
            sandbox,
            suites: options.suites.clone(),
        };
        world.stage().await?;
        match way {
            Way::Proxy => world.proxy = Some(world.start_proxy(&options.pgiam).await?),
            Way::Direct => world.open_directly().await?,
        }
        Ok(world)
    }

    pub(super) fn way(&self) -> Way {
        self.way
    }

    /// Below it lie `regress` and `isolation` as in the sources, `lib` with what the server loads,
    /// and everything the drivers write. The server may read it all.
    pub(super) fn dir(&self) -> PathBuf {
        self.sandbox.dir().join("suites")
    }

    /// One of the programs that `prepare` has put there.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.suites.join("bin").join(name)
    }

    /// Whether PostgreSQL compares the messages of this pipeline test, so that they never vary.
    pub(super) fn is_traced(&self, test: &str) -> bool {
        let traces = "source/src/test/modules/libpq_pipeline/traces";
        let file = self.suites.join(traces).join(format!("{test}.trace"));
        file.is_file()
    }

    /// Directory with psql.
    pub(super) fn bindir(&self) -> PathBuf {
        self.suites.join("bin")
    }

    /// Where clients connect to: host, port, user.
    pub(super) fn address(&self) -> (&'static str, u16, &'static str) {
        let port = match &self.proxy {
            Some(proxy) => proxy.port(),
            None => self.database.addr().port(),
        };
        ("127.0.0.1", port, USER)
    }

    /// A client program without a password and without settings of the caller's. With TLS, because
    /// that is what libpq does by itself where it is offered.
    pub(super) fn client(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        program::clean_env(&mut command, &["PG"]);
        command
            .env("PGPASSFILE", "/nonexistent")
            .env("PGSERVICEFILE", "/dev/null")
            .env("LC_ALL", "C");
        command
    }

    /// A directory that the tests and the server may both write to.
    pub(super) fn make_shared(&self, path: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(path).with_context(|| format!("creating {}", path.display()))?;
        fs::set_permissions(path, Permissions::from_mode(0o777))?;
        Ok(())
    }

    /// Copies what the tests read to where the server's user can read it.
    async fn stage(&self) -> anyhow::Result<()> {
        let dir = self.dir();
        fs::create_dir(&dir)?;
        let source = self.suites.join("source/src/test");
        let mut copy = Command::new("cp");
        copy.arg("-R");
        copy.args([source.join("regress"), source.join("isolation")]);
        copy.args([self.suites.join("lib"), dir.clone()]);
        process::run(copy, HOUSEKEEPING).await?.success("cp")?;
        // What the triggers test loads comes with the server.
        let query = "select setting from pg_config where name = 'PKGLIBDIR'";
        let modules = PathBuf::from(self.database.postgres().psql_admin(query).await?);
        for module in ["autoinc.so", "refint.so"] {
            symlink(modules.join(module), dir.join("lib").join(module))?;
        }
        let mut open = Command::new("chmod");
        open.args(["-R", "go+rX"]).arg(&dir);
        process::run(open, HOUSEKEEPING).await?.success("chmod")
    }

    async fn start_proxy(&self, pgiam: &Path) -> anyhow::Result<Proxy> {
        let dir = self.sandbox.dir();
        let config = dir.join("pgiam.toml");
        let text = format!(
            "[targets.suites]\nhost = \"{HOST}\"\nuser = \"{USER}\"\ndatabase = \"app\"\n\
             port = 0\nbastion = \"{BASTION}\"\n"
        );
        fs::write(&config, text).context("writing pgiam.toml")?;
        let ca_file = self.sandbox.pki().ca_pem_path();
        let mut proxy = Proxy::start(Launch {
            env: self.sandbox.env(),
            collect_log: true,
            ..Launch::serve(pgiam, &config, ca_file, &dir.join("state"))
        })?;
        proxy.wait_ready(READY_DEADLINE).await?;
        Ok(proxy)
    }

    /// Lets the role in without a token.
    async fn open_directly(&mut self) -> anyhow::Result<()> {
        let file = self.database.postgres().psql_admin("show hba_file").await?;
        let rules = fs::read_to_string(&file).context("reading pg_hba.conf")?;
        fs::write(
            &file,
            format!("host all {USER} 127.0.0.1/32 trust\n{rules}"),
        )
        .context("writing pg_hba.conf")?;
        // A reload would take effect some time after it was asked for.
        self.database.postgres_mut().restart().await
    }

    /// Ends everything, keeps the logs with the reports, and returns how many logins had a token.
    pub(super) async fn stop(self, reports: &Path) -> anyhow::Result<usize> {
        let tag = self.way.tag();
        let server_log = self.database.postgres().socket_dir().join("server.log");
        fs::copy(server_log, reports.join(format!("{tag}-server.log")))
            .context("keeping the server's log")?;
        if let Some(proxy) = self.proxy {
            fs::write(reports.join("pgiam.log"), proxy.log_text()).context("keeping the log")?;
            proxy.stop().await?;
        }
        let mut events = self.sandbox.events().all();
        let logins = events.iter().filter(|event| is_login(event)).count();
        events.retain(|event| matches!(event, Event::Violation { .. }));
        self.database.stop().await?;
        self.sandbox.shutdown().await;
        ensure!(
            events.is_empty(),
            "what the real agent would stumble over: {events:?}"
        );
        Ok(logins)
    }
}

fn is_login(event: &Event) -> bool {
    matches!(event, Event::DbToken { db_user, outcome: Ok(_) } if db_user == USER)
}

async fn start_database(sandbox: &Sandbox) -> anyhow::Result<RdsDatabase> {
    let endpoint = DbEndpoint {
        host: HOST.to_owned(),
        port: PORT,
        region: REGION.to_owned(),
    };
    let mut options = RdsOptions::new(sandbox.dir(), endpoint);
    // As a server of PostgreSQL's own test runs has it: late commits would change plans, and the
    // tests of prepared transactions would only see that there are none.
    for (name, value) in [
        ("synchronous_commit", "on"),
        ("max_prepared_transactions", "10"),
    ] {
        options.settings.push((name.to_owned(), value.to_owned()));
    }
    let database =
        RdsDatabase::start(options, sandbox.pki(), sandbox.iam(), sandbox.events()).await?;
    sandbox.vpc().open(HOST, PORT, database.addr());
    let grant = format!("grant rds_iam to {USER}");
    database.postgres().psql_admin(&grant).await?;
    Ok(database)
}
