//! The paths from a client to the server in `bench direct`, and the programs on them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::database::postgres::{Postgres, PostgresOptions, SCRAM_PASSWORD};
use crate::harness::pki::Pki;
use crate::harness::ports::free_port;
use crate::harness::program::{Launch, Proxy, clean_env};

/// Role and database of every client.
pub(super) const ROLE: &str = "scram_only";
pub(super) const DATABASE: &str = "app";
/// Name in the server's certificate.
const SERVER: &str = "localhost";
/// Time limit for a program to listen.
const START: Duration = Duration::from_secs(10);

/// A path from a client to the server. All programs verify the server's certificate and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// TLS without a program between.
    Direct,
    /// stunnel, which adds TLS and knows no PostgreSQL after the SSLRequest.
    Stunnel,
    /// PgBouncer in session mode, which keeps connections to the server.
    PgBouncer,
    Pgiam,
}

impl Way {
    pub(super) const ALL: [Self; 4] = [Self::Direct, Self::Stunnel, Self::PgBouncer, Self::Pgiam];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Stunnel => "stunnel",
            Self::PgBouncer => "PgBouncer",
            Self::Pgiam => "pgiam",
        }
    }
}

/// A PostgreSQL server with TLS, and a program on each path to it.
pub(super) struct Paths {
    pub(super) postgres: Postgres,
    ca_file: PathBuf,
    stunnel: Rival,
    pgbouncer: Rival,
    pgiam: Proxy,
    // Field order matters: the files of the programs are in it.
    _dir: tempfile::TempDir,
}

/// A running program of others. Dropping it kills it.
struct Rival {
    child: Child,
    port: u16,
}

impl Paths {
    /// Starts everything.
    ///
    /// # Errors
    /// If a program is missing (the text names the packages), or does not listen in time.
    pub(super) async fn start(pgiam: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("pgiam-bench").tempdir()?;
        let pki = Pki::new(dir.path())?;
        let certificate = pki.issue(&[SERVER])?;
        let mut options = PostgresOptions::new(dir.path());
        options.tls = Some((certificate.cert_path, certificate.key_path));
        options.fresh = true;
        // Not SCRAM: libpq refuses the offer of channel binding that stunnel passes on.
        options.hba = Some("hostssl all all 127.0.0.1/32 password".to_owned());
        options.settings = [
            ("max_connections", "400"),
            ("shared_buffers", "256MB"),
            ("log_connections", "off"),
            ("log_disconnections", "off"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let postgres = Postgres::start(options).await?;
        let ca_file = pki.ca_pem_path().to_owned();
        let files = Files {
            dir: dir.path(),
            ca_file: &ca_file,
            server: postgres.addr().port(),
        };
        Ok(Self {
            stunnel: files.stunnel().await?,
            pgbouncer: files.pgbouncer().await?,
            pgiam: files.pgiam(pgiam).await?,
            postgres,
            ca_file,
            _dir: dir,
        })
    }

    /// Process of the program on this path; `None` without one.
    pub(super) fn pid(&self, way: Way) -> Option<u32> {
        match way {
            Way::Direct => None,
            Way::Stunnel => self.stunnel.child.id(),
            Way::PgBouncer => self.pgbouncer.child.id(),
            Way::Pgiam => self.pgiam.pid(),
        }
    }

    /// Lets a libpq program take this path, with plain TCP to a program on this machine.
    pub(super) fn through(&self, command: &mut Command, way: Way) {
        clean_env(command, &["PG"]);
        let port = match way {
            Way::Direct => self.postgres.addr().port(),
            Way::Stunnel => self.stunnel.port,
            Way::PgBouncer => self.pgbouncer.port,
            Way::Pgiam => self.pgiam.port(),
        };
        let mode = if way == Way::Direct {
            "verify-full"
        } else {
            "disable"
        };
        command
            .env("PGPASSFILE", "/nonexistent")
            .env("PGSERVICEFILE", "/dev/null")
            .env("PGHOST", SERVER)
            .env("PGHOSTADDR", "127.0.0.1")
            .env("PGPORT", port.to_string())
            .env("PGUSER", ROLE)
            .env("PGDATABASE", DATABASE)
            .env("PGPASSWORD", SCRAM_PASSWORD)
            .env("PGSSLROOTCERT", &self.ca_file)
            .env("PGSSLMODE", mode);
    }

    /// Versions of the programs, for the table.
    pub(super) async fn versions(&self) -> anyhow::Result<String> {
        let mut pgbouncer = Command::new(program("pgbouncer")?);
        let pgbouncer = pgbouncer.arg("--version").output().await?;
        let mut stunnel = Command::new(program("stunnel4")?);
        let stunnel = stunnel.arg("-version").output().await?;
        let first = |output: &[u8]| {
            let text = String::from_utf8_lossy(output);
            let line = text.lines().find(|line| !line.contains("Initializing"));
            let words = line.unwrap_or_default().split_ascii_whitespace().take(2);
            words.collect::<Vec<_>>().join(" ")
        };
        Ok(format!(
            "PostgreSQL {}, {}, {}",
            self.postgres.version(),
            first(&pgbouncer.stdout),
            first(&stunnel.stderr),
        ))
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        let pgiam = self.pgiam.stop().await;
        drop((self.stunnel, self.pgbouncer));
        pgiam.and(self.postgres.stop().await)
    }
}

/// What the configurations of the programs need.
struct Files<'a> {
    dir: &'a Path,
    ca_file: &'a Path,
    /// Port of the server.
    server: u16,
}

impl Files<'_> {
    async fn pgiam(&self, pgiam: &Path) -> anyhow::Result<Proxy> {
        let config = self.dir.join("pgiam.toml");
        let text = format!(
            "[targets.bench]\nhost = \"{SERVER}:{}\"\nvia = \"direct\"\nauth = \"passthrough\"\nport = 0\nregion = \"eu-central-1\"\n",
            self.server
        );
        fs::write(&config, text)?;
        let mut proxy = Proxy::start(Launch {
            collect_log: true,
            ..Launch::serve(pgiam, &config, self.ca_file, &self.dir.join("state"))
        })?;
        proxy.wait_ready(START).await?;
        Ok(proxy)
    }

    async fn stunnel(&self) -> anyhow::Result<Rival> {
        let (config, port) = (self.dir.join("stunnel.conf"), free_port());
        let text = format!(
            "foreground = yes\npid =\ndebug = err\n[postgres]\nclient = yes\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{}\nprotocol = pgsql\nverifyChain = yes\ncheckHost = {SERVER}\nCAfile = {}\n",
            self.server,
            self.ca_file.display()
        );
        fs::write(&config, text)?;
        let mut command = Command::new(program("stunnel4")?);
        command.arg(&config);
        Rival::start(command, port).await
    }

    async fn pgbouncer(&self) -> anyhow::Result<Rival> {
        let (config, port) = (self.dir.join("pgbouncer.ini"), free_port());
        let text = format!(
            "[databases]\n{DATABASE} = host={SERVER} port={} dbname={DATABASE} user={ROLE} password={SCRAM_PASSWORD}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = session\n\
             server_tls_sslmode = verify-full\nserver_tls_ca_file = {}\nmax_client_conn = 500\ndefault_pool_size = 300\n\
             ignore_startup_parameters = extra_float_digits\n",
            self.server,
            self.ca_file.display()
        );
        fs::write(&config, text)?;
        let mut command = Command::new(program("pgbouncer")?);
        command.arg("-q");
        if nix::unistd::geteuid().is_root() {
            // It refuses to run as root. The user needs the directory, which has no secrets.
            command.args(["-u", "postgres"]);
            nix::unistd::chown(&config, user_id("postgres")?, None)?;
        }
        command.arg(&config);
        Rival::start(command, port).await
    }
}

fn user_id(name: &str) -> anyhow::Result<Option<nix::unistd::Uid>> {
    let user = nix::unistd::User::from_name(name)?;
    Ok(Some(user.with_context(|| format!("no user {name}"))?.uid))
}

/// Path of an installed program.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let places = [
        "/usr/sbin",
        "/usr/bin",
        "/usr/local/bin",
        "/opt/homebrew/bin",
    ];
    let paths = places.map(|place| Path::new(place).join(name));
    let found = paths.into_iter().find(|path| path.exists());
    found.with_context(|| format!("{name} is missing; install the packages pgbouncer and stunnel4"))
}

impl Rival {
    /// Starts a program and waits until it listens.
    async fn start(mut command: Command, port: u16) -> anyhow::Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let name = command.as_std().get_program().display().to_string();
        let mut child = command.spawn().with_context(|| name.clone())?;
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            let ended = child.try_wait()?;
            if ended.is_some() || began.elapsed() > START {
                _ = child.start_kill();
                let output = child.wait_with_output().await?;
                let said = String::from_utf8_lossy(&output.stderr);
                bail!("{name} does not listen: {}", said.trim());
            }
            sleep(Duration::from_millis(20)).await;
        }
        // A full pipe would stop it.
        if let Some(mut stderr) = child.stderr.take() {
            tokio::spawn(async move { tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await });
        }
        Ok(Self { child, port })
    }
}
