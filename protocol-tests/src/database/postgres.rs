//! A real PostgreSQL server, set up like an RDS instance.
//!
//! What the program meets at the far end of its tunnel must be the real thing: real TLS, real
//! authentication exchange, real error texts. The roles and the rules in `pg_hba.conf` follow RDS.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::database::ldap::{DN_PREFIX, DN_SUFFIX};

mod cluster;
mod eighteen;
mod install;
mod server;

pub use eighteen::{Postgres18, postgres18};
use install::Install;
use server::Server;

/// Password of the role `scram_only`, which is not in `rds_iam`.
pub const SCRAM_PASSWORD: &str = "not-an-iam-token";

/// How often a start is tried again because somebody else took the port in between.
const PORT_ATTEMPTS: u32 = 5;

/// The roles and the database every server starts with. `rds_iam` is what RDS calls the role whose
/// members must log in with a token.
const SETUP: &str = "\
CREATE ROLE rds_iam NOLOGIN;
CREATE ROLE db_user LOGIN IN ROLE rds_iam;
CREATE ROLE \"odd user@x\" LOGIN IN ROLE rds_iam;
CREATE ROLE \"comma,dc=rds\" LOGIN IN ROLE rds_iam;
CREATE ROLE scram_only LOGIN PASSWORD 'not-an-iam-token';
CREATE DATABASE app OWNER db_user;
";

/// How the server is to be.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// An existing directory; the server lives in a fresh one below it. When run by root, it is
    /// made traversable for the operating system user `postgres`.
    pub dir: PathBuf,
    /// Certificate chain and key, PEM files. `None` turns TLS off: the server answers `N`.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Where to have the passwords of `rds_iam` members checked.
    pub ldap: Option<SocketAddr>,
    /// Replaces the rules for TCP connections in `pg_hba.conf`.
    pub hba: Option<String>,
    /// Make the data directory anew instead of copying one that is kept for that in the temporary
    /// directory: slower, and nothing is left behind.
    pub fresh: bool,
    /// Further `postgresql.conf` settings; values are quoted here.
    pub settings: Vec<(String, String)>,
    /// Directory with `postgres` and `initdb`; `None` is the installed server. A package without a
    /// `psql` is used with the installed one.
    pub bindir: Option<PathBuf>,
}

impl PostgresOptions {
    /// A server below `dir`, without TLS and without anybody to ask about tokens.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            ..Self::default()
        }
    }

    /// The rules of RDS with `rds.force_ssl`: nothing in the clear, tokens for `rds_iam`, SCRAM for
    /// the rest.
    fn hba(&self) -> String {
        let mut rules = "local all postgres trust\n".to_owned();
        if let Some(own) = &self.hba {
            return rules + own + "\n";
        }
        if let Some(ldap) = self.ldap {
            // Writing to a String cannot fail.
            let _ = writeln!(
                rules,
                "hostssl all +rds_iam 127.0.0.1/32 ldap ldapserver={} ldapport={} \
                 ldapprefix=\"{DN_PREFIX}\" ldapsuffix=\"{DN_SUFFIX}\"",
                ldap.ip(),
                ldap.port()
            );
        }
        rules + "hostssl all all 127.0.0.1/32 scram-sha-256\n"
    }

    fn settings(&self, base: &Path, port: u16) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = [
            ("listen_addresses", Ipv4Addr::LOCALHOST.to_string()),
            ("port", port.to_string()),
            ("unix_socket_directories", base.display().to_string()),
            ("max_connections", "200".to_owned()),
            ("password_encryption", "scram-sha-256".to_owned()),
            ("fsync", "off".to_owned()),
            ("full_page_writes", "off".to_owned()),
            ("synchronous_commit", "off".to_owned()),
            ("log_connections", "on".to_owned()),
            ("log_disconnections", "on".to_owned()),
            (
                "ssl",
                if self.tls.is_some() { "on" } else { "off" }.to_owned(),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if self.tls.is_some() {
            for (name, file) in [
                ("ssl_cert_file", cluster::CERT_FILE),
                ("ssl_key_file", cluster::KEY_FILE),
            ] {
                all.push((name.to_owned(), base.join(file).display().to_string()));
            }
        }
        all.extend(self.settings.iter().cloned());
        all
    }
}

/// A running server. Dropping it stops it and removes its directory.
#[derive(Debug)]
pub struct Postgres {
    install: Install,
    /// Field order matters: the server ends before its directory goes.
    server: Option<Server>,
    base: tempfile::TempDir,
    port: u16,
}

impl Postgres {
    /// Starts a server and creates the roles and the database `app`.
    ///
    /// Takes about half a second, and a second longer the very first time, when the template that
    /// later starts copy is made.
    ///
    /// Not cancel-safe: a start that nobody waits for goes on, and stops the server when it is up.
    ///
    /// # Errors
    /// When no PostgreSQL server is installed (the text names the package), or it does not come up;
    /// then with the end of its log.
    pub async fn start(options: PostgresOptions) -> anyhow::Result<Self> {
        blocking(move || Self::start_here(&options)).await
    }

    fn start_here(options: &PostgresOptions) -> anyhow::Result<Self> {
        let install = match &options.bindir {
            Some(bindir) => Install::at(bindir)?,
            None => Install::find()?,
        };
        let base = cluster::make_base(&install, &options.dir)?;
        cluster::create(&install, base.path(), options.tls.as_ref(), options.fresh)?;
        cluster::write_hba(base.path(), &options.hba())?;
        let mut postgres = Self {
            install,
            server: None,
            base,
            port: 0,
        };
        for attempt in 1.. {
            postgres.port = free_port()?;
            let settings = options.settings(postgres.base.path(), postgres.port);
            cluster::write_settings(postgres.base.path(), &settings)?;
            match Server::launch(&postgres.install, postgres.base.path()) {
                Ok(server) => {
                    postgres.server = Some(server);
                    break;
                }
                Err(error) if attempt == PORT_ATTEMPTS || !error.port_taken => {
                    return Err(error.error);
                }
                Err(_) => {}
            }
        }
        postgres.psql_here("postgres", SETUP)?;
        Ok(postgres)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Directory with the programs of this version. Not every package has `psql`:
    /// [`Self::psql_program`].
    pub fn bindir(&self) -> &Path {
        &self.install.bindir
    }

    /// This version's `psql`, or the installed one where the package has none.
    pub fn psql_program(&self) -> PathBuf {
        let own = self.install.bindir.join("psql");
        if own.is_file() {
            return own;
        }
        let installed = Install::find().map(|found| found.bindir.join("psql"));
        installed
            .ok()
            .filter(|path| path.is_file())
            .unwrap_or_else(|| "psql".into())
    }

    /// Server version as it names itself, for example `15.18`.
    pub fn version(&self) -> &str {
        &self.install.version
    }

    /// The first number of the version.
    pub fn major(&self) -> u32 {
        let digits = self.version().split(|c: char| !c.is_ascii_digit()).next();
        digits.and_then(|d| d.parse().ok()).unwrap_or_default()
    }

    /// Process id of the running server.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Server::pid)
    }

    /// Directory with the Unix socket, for a superuser's `psql -h DIR -U postgres`.
    pub fn socket_dir(&self) -> &Path {
        self.base.path()
    }

    /// Runs SQL as superuser in the database `postgres`, over the Unix socket. Returns the rows,
    /// unaligned and without headers.
    pub async fn psql_admin(&self, sql: &str) -> anyhow::Result<String> {
        self.psql_admin_in("postgres", sql).await
    }

    /// The same in another database.
    pub async fn psql_admin_in(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        let command = self.psql(database);
        let sql = sql.to_owned();
        blocking(move || run_psql(command, &sql)).await
    }

    fn psql_here(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        run_psql(self.psql(database), sql)
    }

    fn psql(&self, database: &str) -> Command {
        let mut command = Command::new(self.psql_program());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command
            .args(["-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1"])
            .args(["-U", "postgres", "-d", database])
            .arg("-h")
            .arg(self.base.path())
            .args(["-p", &self.port.to_string()]);
        command
    }

    /// Stops the server (open connections get 57P01) and starts it again on the same port.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.halt().await?;
        self.resume().await
    }

    /// Stops the server and keeps its data; [`Self::resume`] continues.
    pub async fn halt(&mut self) -> anyhow::Result<()> {
        if let Some(server) = self.server.take() {
            blocking(move || {
                drop(server);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Starts a halted server again on the same port.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        if self.server.is_none() {
            let (install, base) = (self.install.clone(), self.base.path().to_owned());
            let server =
                blocking(move || Server::launch(&install, &base).map_err(|e| e.error)).await?;
            self.server = Some(server);
        }
        Ok(())
    }

    /// The end of the server's log.
    pub fn log_tail(&self) -> String {
        server::log_tail(self.base.path())
    }

    /// Stops the server and removes its directory.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.halt().await?;
        let base = self.base;
        blocking(move || Ok(base.close()?)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

fn run_psql(mut command: Command, sql: &str) -> anyhow::Result<String> {
    use std::io::Write as _;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    if let Some(mut input) = child.stdin.take() {
        // A psql that gave up early closes its end; its own words below say why.
        let _ = input.write_all(sql.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("psql: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8(output.stdout).context("psql output")?;
    Ok(text.trim_end_matches('\n').to_owned())
}
