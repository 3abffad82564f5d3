//! A whole world for one test: the sandbox AWS, a real PostgreSQL server behind it, the real
//! program in front of it, and psql.

use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use protocol_tests::aws::events::Event;
use protocol_tests::aws::iam::DbEndpoint;
use protocol_tests::aws::sandbox::Sandbox;
use protocol_tests::database::front::FrontKind;
use protocol_tests::database::rds::{Engine, RdsDatabase, RdsOptions, ServerCertificate};
use protocol_tests::harness::program::{self, Launch, Proxy};
use protocol_tests::network::line::LineOptions;
use tokio::process::Command;
use tokio::time::timeout;

pub(crate) const HOST: &str = "orders.cluster-abc.eu-central-1.rds.amazonaws.com";
pub(crate) const PORT: u16 = 5432;
pub(crate) const REGION: &str = "eu-central-1";
pub(crate) const BASTION: &str = "i-0123456789abcdef0";

/// For things that happen at once on a quiet machine and may take their time on a busy one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The real program, built by Cargo for this test, or one for another system: for Windows, see
/// [`windows`](crate::windows), or for ARM, which `./dev test --arm` names in `PGIAM_ARM`.
pub(crate) fn pgiam() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let windows = program::windows().map(|folder| folder.join("pgiam"));
        let arm = std::env::var_os("PGIAM_ARM").map(PathBuf::from);
        let other = windows.or(arm);
        other.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_pgiam")))
    });
    &PROGRAM
}

/// How a world differs from the ordinary one.
pub(crate) struct Setup {
    /// What certificate the database shows.
    pub(crate) certificate: ServerCertificate,
    /// Name and port of the database's endpoint.
    pub(crate) endpoint: (&'static str, u16),
    /// The configuration file; `None` is the ordinary one.
    pub(crate) config: Option<String>,
    /// Further arguments of `pgiam serve`.
    pub(crate) args: Vec<String>,
    /// Changes to the environment: a value replaces, `None` removes.
    pub(crate) env: Vec<(&'static str, Option<String>)>,
    /// Trust the program's own roots for the database, not the sandbox's authority.
    pub(crate) built_in_roots: bool,
    /// What answers at the endpoint.
    pub(crate) engine: Engine,
    /// A wire before the database that counts flights.
    pub(crate) line: Option<LineOptions>,
    /// Replaces the rules for TCP connections in `pg_hba.conf`.
    pub(crate) hba: Option<String>,
    /// Further settings of the server.
    pub(crate) settings: Vec<(&'static str, &'static str)>,
    /// Further names of the endpoint that the VPC's own DNS knows.
    pub(crate) names: Vec<&'static str>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            certificate: ServerCertificate::Right,
            endpoint: (HOST, PORT),
            config: None,
            args: Vec::new(),
            env: Vec::new(),
            built_in_roots: false,
            engine: Engine::default(),
            line: None,
            hba: None,
            settings: Vec::new(),
            names: Vec::new(),
        }
    }
}

/// Returns a `credential_process` that runs a line of shell; pgiam starts no shell by itself.
pub(crate) fn by_shell(line: &str) -> String {
    format!("sh -c '{}'", line.replace('\'', r"'\''"))
}

/// The ordinary configuration file: one target, any free port.
pub(crate) fn ordinary_config() -> String {
    format!(
        "[targets.orders]\nhost = \"{HOST}\"\nuser = \"db_user\"\ndatabase = \"app\"\nport = 0\nbastion = \"{BASTION}\"\n"
    )
}

pub(crate) struct World {
    // Field order matters: the proxy goes first, the server's files are in the sandbox's directory.
    pub(crate) proxy: Proxy,
    pub(crate) database: RdsDatabase,
    pub(crate) sandbox: Sandbox,
}

/// What a finished program left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The rows, one line each, unaligned; panics with everything psql said if it failed.
    pub(crate) fn rows(&self) -> &str {
        assert_eq!(self.code, Some(0), "psql failed: {self:?}");
        self.stdout.trim_end()
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let (sandbox, database) = behind(&setup).await;
        let mut proxy = launch(&sandbox, &setup);
        proxy.wait_ready(PATIENCE).await.expect("pgiam is ready");
        Self {
            proxy,
            database,
            sandbox,
        }
    }

    /// `psql` with the server's version, to the proxy, with nothing but `args`.
    pub(crate) fn psql_command(&self, args: &[&str]) -> Command {
        let psql = self.database.postgres().psql_program();
        let mut command = program::psql(&psql, self.proxy.port());
        command.args(args);
        command
    }

    /// Runs psql to its end.
    pub(crate) async fn psql(&self, args: &[&str]) -> Ran {
        run(self.psql_command(args)).await
    }

    /// One query, answered unaligned and without headings.
    pub(crate) async fn query(&self, sql: &str) -> String {
        self.psql(&["-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .await
            .rows()
            .to_owned()
    }

    /// Ends everything in order and insists that each part did, and that the program never broke
    /// the data channel's protocol.
    pub(crate) async fn stop(self) {
        let Self {
            proxy,
            database,
            sandbox,
        } = self;
        proxy.stop().await.expect("pgiam ends on its signal");
        assert_eq!(
            sandbox.open_sessions(),
            Vec::<String>::new(),
            "sessions left at AWS"
        );
        let mut events = sandbox.events().all();
        events.retain(|event| matches!(event, Event::Violation { .. }));
        assert_eq!(events, [], "what the real agent would stumble over");
        database.stop().await.expect("the server stops");
        sandbox.shutdown().await;
    }
}

/// The world without the program: AWS, and a database in its VPC.
pub(crate) async fn behind(setup: &Setup) -> (Sandbox, RdsDatabase) {
    let sandbox = Sandbox::builder()
        .region(REGION)
        .start()
        .await
        .expect("sandbox");
    // Tests are about bytes, not about the real agent's speed, unless they say so.
    sandbox.agent(BASTION).set_pacing(false);
    let (host, port) = setup.endpoint;
    let endpoint = DbEndpoint {
        host: host.to_owned(),
        port,
        region: REGION.to_owned(),
    };
    let mut options = RdsOptions::new(sandbox.dir(), endpoint);
    options.certificate = setup.certificate;
    options.engine = setup.engine.clone();
    options.line = setup.line;
    options.hba.clone_from(&setup.hba);
    let settings = setup.settings.iter();
    options.settings = settings
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let database = RdsDatabase::start(options, sandbox.pki(), sandbox.iam(), sandbox.events())
        .await
        .expect("database");
    for name in setup.names.iter().chain([&host]) {
        sandbox.vpc().open(name, port, database.addr());
    }
    sandbox.inventory().furnish(host, port);
    (sandbox, database)
}

/// A name of this machine, from its hosts file, that can be an alias of a database: "localhost"
/// cannot, because no name server is asked about it (RFC 6761, section 6.3). Not every system has one.
pub(crate) fn name_of_this_machine() -> Option<String> {
    let hosts = std::fs::read_to_string("/etc/hosts").ok()?;
    let lines = hosts.lines().map(|line| line.split('#').next());
    let names = lines.flatten().flat_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        words.filter(move |_| address.is_some_and(|address| address.is_loopback()))
    });
    let mut usable = names.filter(|name| {
        let special = name.split('.').next_back() == Some("localhost");
        let found = (*name, 0).to_socket_addrs();
        !special && found.is_ok_and(|mut all| all.all(|addr| addr.ip().is_loopback()))
    });
    usable.next().map(str::to_owned)
}

/// Starts the program; it is not ready yet.
pub(crate) fn launch(sandbox: &Sandbox, setup: &Setup) -> Proxy {
    let dir = sandbox.dir();
    let config = dir.join("pgiam.toml");
    std::fs::write(
        &config,
        setup.config.clone().unwrap_or_else(ordinary_config),
    )
    .expect("pgiam.toml");
    let mut env = sandbox.env();
    // Tests count connections; those of `upstream/ready.rs` keep some ready, as the program does.
    env.push(("PGIAM_READY".to_owned(), "0".to_owned()));
    for (name, value) in &setup.env {
        env.retain(|(known, _)| known != name);
        env.extend(value.clone().map(|value| ((*name).to_owned(), value)));
    }
    let authority = match setup.engine {
        // AWS Certificate Manager signs for these.
        Engine::Front {
            kind: FrontKind::RdsProxy | FrontKind::Dsql,
            ..
        } => sandbox.pki().public_ca_pem_path(),
        _ => sandbox.pki().ca_pem_path(),
    };
    let mut launch = Launch::serve(pgiam(), &config, authority, &dir.join("state"));
    if setup.built_in_roots {
        let flag = launch.args.iter().position(|arg| arg == "--ca-file");
        let flag = flag.expect("the sandbox's authority is named");
        launch.args.drain(flag..flag + 2);
    }
    if !setup.args.iter().any(|arg| arg == "--log") {
        launch.args.extend(["--log", "debug"].map(Into::into));
    }
    launch.args.extend(setup.args.iter().map(Into::into));
    Proxy::start(Launch {
        env,
        collect_log: true,
        ..launch
    })
    .expect("pgiam starts")
}

/// Runs a command to its end.
pub(crate) async fn run(mut command: Command) -> Ran {
    let output = timeout(PATIENCE, command.output())
        .await
        .expect("the program ends in time")
        .expect("the program starts");
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Looks until there is what was looked for, for things that give no sign when they happen.
pub(crate) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let found = timeout(PATIENCE, async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    found
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"))
}
