//! `sandbox demo`: the whole way at once, with the real program in the middle.
//!
//! Starts the sandbox, a real PostgreSQL server behind it and the real `pgiam` with an ordinary
//! configuration, and either waits for somebody to try it or tries it itself and reports.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::aws::iam::DbEndpoint;
use crate::aws::sandbox::Sandbox;
use crate::database::rds::{Engine, RdsDatabase, RdsOptions};
use crate::harness::program::{Launch, Proxy};

mod check;
pub mod standing;

const REGION: &str = "eu-central-1";
pub(crate) const HOST: &str = "orders.cluster-abc.eu-central-1.rds.amazonaws.com";
const PORT: u16 = 5432;
/// The file with what to export, in the sandbox's directory.
const ENVIRONMENT: &str = "env";
pub(crate) const BASTION: &str = "i-0123456789abcdef0";

/// How long `pgiam` may take to print its ready line.
pub(crate) const READY_DEADLINE: Duration = Duration::from_secs(30);

/// What to show: the role and the TLS connection, both as the database sees them.
pub const QUERY: &str = "select current_user, ssl, version from pg_stat_ssl \
                         join pg_stat_activity using (pid) where pid = pg_backend_pid()";

/// What was asked for on the command line.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// The `pgiam` binary.
    pub pgiam: PathBuf,
    /// Local port; `None` is 5433 for people and any free one for the check.
    pub port: Option<u16>,
    /// Run one query, report and end, instead of waiting for a signal.
    pub check: bool,
}

/// Runs the demo to its end and leaves nothing behind.
///
/// # Errors
/// When something does not start or, with `check`, does not work; the text says what and why.
pub async fn run(options: DemoOptions) -> anyhow::Result<()> {
    let mut signals = Signals::install()?;
    say("starting the sandbox: AWS, a bastion, a PostgreSQL server …")?;
    // Not interrupted: a server in the middle of its start could not be taken down cleanly. A signal
    // that comes meanwhile is seen right after.
    let far_side = FarSide::start().await?;
    let outcome = far_side.with_proxy(&options, &mut signals).await;
    let events = far_side.sandbox.events().clone();
    let ended = far_side.stop().await;
    if let Some(report) = outcome? {
        check::print(&report, &events)?;
    }
    ended
}

/// Everything but the program under test.
pub(crate) struct FarSide {
    // Field order matters: the server's files are in the sandbox's directory.
    pub(crate) database: RdsDatabase,
    pub(crate) sandbox: Sandbox,
}

impl FarSide {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        Self::with(Engine::default()).await
    }

    /// With this kind of database.
    pub(crate) async fn with(engine: Engine) -> anyhow::Result<Self> {
        let sandbox = Sandbox::builder().region(REGION).start().await?;
        let endpoint = DbEndpoint {
            host: HOST.to_owned(),
            port: PORT,
            region: REGION.to_owned(),
        };
        let mut options = RdsOptions::new(sandbox.dir(), endpoint);
        options.fresh = true;
        options.engine = engine;
        let database =
            RdsDatabase::start(options, sandbox.pki(), sandbox.iam(), sandbox.events()).await?;
        sandbox.vpc().open(HOST, PORT, database.addr());
        sandbox.inventory().furnish(HOST, PORT);
        Ok(Self { database, sandbox })
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let database = self.database.stop().await;
        self.sandbox.shutdown().await;
        database
    }

    /// Runs `pgiam` for as long as the demo lasts. Returns the report of a check.
    async fn with_proxy(
        &self,
        options: &DemoOptions,
        signals: &mut Signals,
    ) -> anyhow::Result<Option<check::Report>> {
        let mut proxy = self.start_proxy(options)?;
        let used = tokio::select! {
            used = self.use_proxy(&mut proxy, options.check) => used,
            name = signals.next() => match options.check {
                true => Err(anyhow::anyhow!("{name} before the check was done")),
                false => say(&format!("{name}: stopping …")).map(|()| None),
            },
        };
        // The first failure is the interesting one.
        let stopped = proxy.stop().await;
        let report = used?;
        stopped?;
        Ok(report)
    }

    pub(crate) fn start_proxy(&self, options: &DemoOptions) -> anyhow::Result<Proxy> {
        let dir = self.sandbox.dir();
        let port = options.port.unwrap_or(if options.check { 0 } else { 5433 });
        let config = dir.join("pgiam.toml");
        std::fs::write(&config, configuration(port)).context("writing pgiam.toml")?;
        let ca_file = self.sandbox.pki().ca_pem_path();
        self.write_environment(&options.pgiam)?;
        Proxy::start(Launch {
            env: self.sandbox.env(),
            collect_log: options.check,
            ..Launch::serve(&options.pgiam, &config, ca_file, &dir.join("state"))
        })
    }

    /// What somebody types to try further commands: the account, and where this program's files are.
    fn write_environment(&self, pgiam: &Path) -> anyhow::Result<()> {
        let dir = self.sandbox.dir();
        let mut text = String::new();
        let own = [
            ("PGIAM_CONFIG", dir.join("pgiam.toml")),
            ("PGIAM_STATE_DIR", dir.join("state")),
            ("PGIAM_CA_FILE", self.sandbox.pki().ca_pem_path().to_owned()),
        ];
        let own = own.map(|(name, path)| (name.to_owned(), path.display().to_string()));
        for (name, value) in self.sandbox.env().into_iter().chain(own) {
            text.push_str(&format!("export {name}='{value}'\n"));
        }
        if let Some(folder) = pgiam.parent().and_then(|dir| dir.canonicalize().ok()) {
            text.push_str(&format!("export PATH='{}':\"$PATH\"\n", folder.display()));
        }
        std::fs::write(dir.join(ENVIRONMENT), text).context("writing the environment")
    }

    async fn use_proxy(
        &self,
        proxy: &mut Proxy,
        check: bool,
    ) -> anyhow::Result<Option<check::Report>> {
        proxy.wait_ready(READY_DEADLINE).await?;
        if check {
            return check::run(self, proxy).await.map(Some);
        }
        say(&self.invitation(proxy))?;
        bail!("pgiam ended by itself: {}", proxy.died().await)
    }

    fn invitation(&self, proxy: &Proxy) -> String {
        let version = self.database.postgres().version();
        format!(
            "\n{}\n\nPaste this into another terminal. There is no password to give:\n\n    \
             psql -h localhost -p {}\n\nand then, to see who you are and that the way to the \
             database is encrypted:\n\n    {QUERY};\n\nFor the other commands (pgiam list, check, status, run, setup) first:\n\n    \
             . {}\n\n{}\nCtrl-C stops everything.\n",
            proxy.ready_line(),
            proxy.port(),
            self.sandbox.dir().join(ENVIRONMENT).display(),
            table(
                &["what", "where"],
                &[
                    [
                        "database",
                        &format!("{HOST}:{PORT}, a name only the bastion knows")
                    ],
                    ["server", &format!("PostgreSQL {version}")],
                    ["bastion", BASTION],
                    ["AWS", &self.sandbox.endpoint_url()],
                    ["files", &self.sandbox.dir().display().to_string()],
                ],
            ),
        )
    }

    /// The server's own `psql` when it came with one, else the one in the path.
    pub(crate) fn psql(&self) -> PathBuf {
        let own = self.database.postgres().bindir().join("psql");
        if own.is_file() { own } else { "psql".into() }
    }
}

/// What a user would write.
fn configuration(port: u16) -> String {
    format!(
        "[targets.orders]\n\
         host     = \"{HOST}\"\n\
         user     = \"db_user\"\n\
         database = \"app\"\n\
         port     = {port}\n\
         bastion  = \"{BASTION}\"\n"
    )
}

/// Columns padded to their widest cell.
pub(crate) fn table<const N: usize>(head: &[&str; N], rows: &[[&str; N]]) -> String {
    let mut out = String::new();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column]);
        let cells = cells.chain([head[column]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in std::iter::once(head).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        out.push_str("  ");
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A line on standard output, at once.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// The signals that mean "stop".
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    pub(crate) fn install() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}
