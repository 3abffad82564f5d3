//! What was typed: flags and `PGIAM_*` variables. `config.rs` says what it means.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Destination, Layer, Listen, ServeLayer, WrittenBastion};

/// Local PostgreSQL proxy: log in to private RDS and Aurora databases with your AWS identity.
#[derive(Debug, Parser)]
#[command(name = "pgiam", version, max_term_width = 100, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Cli {
    /// What to do; `serve` when left out.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The flags of `serve`, for when the word is left out.
    #[command(flatten)]
    pub serve: ServeArgs,
}

const EXAMPLES: &str = "\
Examples:
  pgiam serve                          every target of ./pgiam.toml or ~/.config/pgiam/config.toml
  pgiam serve orders                   one of them
  pgiam serve --host db.abc.eu-central-1.rds.amazonaws.com --bastion i-0123456789abcdef0 --user db_user
Then, without a password:
  psql -h localhost -p 5433
For anything that is not PostgreSQL:
  pgiam tunnel --help";

const TUNNEL_EXAMPLES: &str = "\
Examples:
  pgiam tunnel mysql.internal:3306 --bastion i-0123456789abcdef0
      mysql -h 127.0.0.1 -P 3306
  pgiam tunnel cache.internal:6379 --target orders --listen 6380
      redis-cli -p 6380; the way is that of the target \"orders\" in the file
  pgiam tunnel 10.0.3.7:80 --bastion tag:Name=bastion --listen 127.0.0.1:8080
      curl http://127.0.0.1:8080/

Bytes pass as they are: nothing is logged in, encrypted or verified. TLS clients that compare the
server's name need the real one (curl --connect-to), or check its authority alone (mysql
--ssl-mode=VERIFY_CA).";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Listen on local ports and connect every client to its database.
    #[command(after_help = EXAMPLES)]
    Serve(Box<ServeArgs>),
    /// Carry plain TCP to any host and port behind the bastion: MySQL, Redis, HTTP.
    #[command(after_help = TUNNEL_EXAMPLES)]
    Tunnel(Box<TunnelArgs>),
}

/// The flags of `pgiam serve`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// Targets to serve, by their names in the file; all of them when left out.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// The database's real endpoint, NAME or NAME:PORT.
    #[arg(long, env = "PGIAM_HOST", value_name = "HOST")]
    pub host: Option<String>,
    /// Database role for clients that send only their operating-system user name.
    #[arg(long, env = "PGIAM_USER", value_name = "ROLE")]
    pub user: Option<String>,
    /// Database for clients that name none.
    #[arg(long, env = "PGIAM_DATABASE", value_name = "NAME")]
    pub database: Option<String>,
    /// Local port. Default: 5433; 0 lets the system choose.
    #[arg(long, short, env = "PGIAM_PORT", value_name = "PORT")]
    pub port: Option<u16>,
    /// The way to the database: ssm or direct. Default: ssm.
    #[arg(long, env = "PGIAM_VIA", value_name = "WAY")]
    pub via: Option<String>,
    /// The flags of the tunnel.
    #[command(flatten)]
    pub ssm: SsmArgs,
    /// Seconds the bastion may take to connect to the database. Default: 10, and never more than
    /// the connect timeout.
    #[arg(long, env = "PGIAM_DIAL_TIMEOUT", value_name = "SECONDS")]
    pub dial_timeout: Option<u64>,
    /// Trust only the CA certificates in this PEM file for the database, instead of the built-in
    /// Amazon RDS and public roots.
    #[arg(long, env = "PGIAM_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Folder for what is made once: the certificate shown to local TLS clients.
    #[arg(long, env = "PGIAM_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// The flags about logging in.
    #[command(flatten)]
    pub login: LoginArgs,
    /// The flags about who may connect.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// The flags of every command.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// The flags about how connections log in.
#[derive(Clone, Debug, Default, Args)]
pub struct LoginArgs {
    /// Who proves who you are: iam (pgiam does, with a token) or passthrough (your client does, with
    /// a password of its own, as for roles without rds_iam and for replication). Default: iam.
    #[arg(long, env = "PGIAM_AUTH", value_name = "HOW")]
    pub auth: Option<String>,
    /// Seconds that TLS and login at the database may take. Default: 30.
    #[arg(long, env = "PGIAM_LOGIN_TIMEOUT", value_name = "SECONDS")]
    pub login_timeout: Option<u64>,
    /// Most connections to each target at a time. Default: no limit but --max-connections.
    #[arg(long, env = "PGIAM_CONNECTION_LIMIT", value_name = "N")]
    pub connection_limit: Option<u64>,
    /// Startup parameters not to pass on, for servers that do not know them; separated by commas.
    #[arg(
        long,
        env = "PGIAM_IGNORE_STARTUP_PARAMETERS",
        value_name = "NAMES",
        value_delimiter = ','
    )]
    pub ignore_startup_parameters: Option<Vec<String>>,
    /// The name server to ask what a host name of your own stands for. Default: the system's.
    #[arg(long, env = "PGIAM_DNS_SERVER", value_name = "ADDRESS")]
    pub dns_server: Option<String>,
}

/// The flags about where `pgiam serve` listens, and for whom.
#[derive(Clone, Debug, Default, Args)]
pub struct ListenArgs {
    /// Addresses to listen on, separated by commas. Others than the loopback's need a password
    /// (--password-file). Default: 127.0.0.1,::1
    #[arg(long, env = "PGIAM_ADDRESS", value_name = "IP", value_delimiter = ',')]
    pub address: Option<Vec<String>>,
    /// A further port on which the database name picks among all targets: TARGET or
    /// TARGET/DATABASE.
    #[arg(long, env = "PGIAM_HUB_PORT", value_name = "PORT")]
    pub hub_port: Option<u16>,
    /// Directory of the Unix sockets, or "none". Default: $XDG_RUNTIME_DIR/pgiam, else run in the
    /// state folder.
    #[arg(long, env = "PGIAM_SOCKET_DIR", value_name = "DIR")]
    pub socket_dir: Option<PathBuf>,
    /// Serve only clients of the user who runs pgiam, where the system tells whose they are.
    /// --peer-check=false is for containers that share a network. Default: true.
    #[arg(
        long,
        env = "PGIAM_PEER_CHECK",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    pub peer_check: Option<bool>,
    /// File with a password that TCP clients must give (SCRAM-SHA-256); PGIAM_LOCAL_PASSWORD does
    /// the same.
    #[arg(long, env = "PGIAM_PASSWORD_FILE", value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Most connections at a time. Default: 400.
    #[arg(long, env = "PGIAM_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<u64>,
    /// Seconds a client may take to say what it wants. Default: 30.
    #[arg(long, env = "PGIAM_STARTUP_TIMEOUT", value_name = "SECONDS")]
    pub startup_timeout: Option<u64>,
}

/// The flags of `pgiam tunnel`.
#[derive(Clone, Debug, Args)]
pub struct TunnelArgs {
    /// Where to, as the bastion sees it: a name or an address (IPv6 in brackets), and a port.
    #[arg(value_name = "HOST:PORT")]
    pub to: Destination,
    /// Where to listen: PORT, 127.0.0.1:PORT or [::1]:PORT; several times, or separated by commas.
    /// Default: the port of HOST:PORT, on 127.0.0.1 and ::1; 0 lets the system choose.
    #[arg(
        long,
        env = "PGIAM_LISTEN",
        value_name = "ADDR:PORT",
        value_delimiter = ','
    )]
    pub listen: Vec<Listen>,
    /// Take bastion, profile and region of this target in the file.
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
    /// The flags of the tunnel.
    #[command(flatten)]
    pub ssm: SsmArgs,
    /// The flags of every command.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// The flags of a tunnel, whatever it is for.
#[derive(Clone, Debug, Default, Args)]
pub struct SsmArgs {
    /// Managed node that carries the tunnel: i-…, mi-… or ecs:CLUSTER_TASK_RUNTIME; several
    /// separated by commas, to be tried in this order; or tag:KEY=VALUE.
    #[arg(long, env = "PGIAM_BASTION", value_name = "ID")]
    pub bastion: Option<String>,
    /// Session document. Default: AWS-StartPortForwardingSessionToRemoteHost.
    #[arg(long, env = "PGIAM_DOCUMENT", value_name = "NAME")]
    pub document: Option<String>,
    /// Most Session Manager sessions at a time, 1 to 20; each carries about 0.7 MB/s. Default: 4.
    #[arg(long, env = "PGIAM_SESSIONS", value_name = "N")]
    pub sessions: Option<u64>,
    /// Seconds after which a session without connections is closed. Default: 300.
    #[arg(long, env = "PGIAM_IDLE_TIMEOUT", value_name = "SECONDS")]
    pub idle_timeout: Option<u64>,
    /// Open the first session at the start, not with the first connection.
    #[arg(
        long,
        env = "PGIAM_WARM",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    pub warm: Option<bool>,
    /// Keep open sessions from ending at the account's idle timeout. Ask whoever set it.
    #[arg(
        long,
        env = "PGIAM_KEEP_ALIVE",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    pub keep_alive: Option<bool>,
    /// AWS profile. Default: the AWS SDK's (AWS_PROFILE or "default").
    #[arg(long, env = "PGIAM_PROFILE", value_name = "NAME")]
    pub profile: Option<String>,
    /// AWS region, for hosts whose name does not say it.
    #[arg(long, env = "PGIAM_REGION", value_name = "REGION")]
    pub region: Option<String>,
    /// Seconds a client waits for tunnel and token before it is told why not. Default: 30.
    #[arg(long, env = "PGIAM_CONNECT_TIMEOUT", value_name = "SECONDS")]
    pub connect_timeout: Option<u64>,
}

/// The flags of every command.
#[derive(Clone, Debug, Default, Args)]
pub struct ProgramArgs {
    /// Configuration file. Default: ./pgiam.toml, then the one in the user's configuration folder.
    #[arg(long, env = "PGIAM_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Seconds that open connections get after the first SIGINT or SIGTERM; a second one ends them
    /// at once.
    #[arg(
        long,
        env = "PGIAM_DRAIN_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 5
    )]
    pub drain_timeout: u64,
    /// How log lines look.
    #[arg(long, env = "PGIAM_LOG_FORMAT", value_enum, default_value_t = LogFormat::Human)]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or a tracing filter such as
    /// "info,pgiam::tunnel=debug".
    #[arg(
        long,
        env = "PGIAM_LOG",
        value_name = "FILTER",
        default_value = "info,aws_config=error"
    )]
    pub log: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text per event.
    #[default]
    Human,
    /// One JSON object per event.
    Json,
}

impl SsmArgs {
    fn layer(&self) -> Layer {
        Layer {
            bastion: self.bastion.clone().map(WrittenBastion::Text),
            document: self.document.clone(),
            sessions: self.sessions,
            idle_timeout: self.idle_timeout,
            warm: self.warm,
            keep_alive: self.keep_alive,
            profile: self.profile.clone(),
            region: self.region.clone(),
            connect_timeout: self.connect_timeout,
            ..Layer::default()
        }
    }
}

impl ServeArgs {
    /// The settings that override the file.
    #[must_use]
    pub fn layer(&self) -> Layer {
        Layer {
            host: self.host.clone(),
            user: self.user.clone(),
            database: self.database.clone(),
            port: self.port,
            via: self.via.clone(),
            dial_timeout: self.dial_timeout,
            ca_file: self.ca_file.clone(),
            auth: self.login.auth.clone(),
            login_timeout: self.login.login_timeout,
            connection_limit: self.login.connection_limit,
            ignore_startup_parameters: self.login.ignore_startup_parameters.clone(),
            dns_server: self.login.dns_server.clone(),
            ..self.ssm.layer()
        }
    }
}

impl ListenArgs {
    /// The settings that override `[serve]` in the file.
    #[must_use]
    pub fn layer(&self) -> ServeLayer {
        ServeLayer {
            address: self.address.clone(),
            socket_dir: self.socket_dir.clone(),
            peer_check: self.peer_check,
            password_file: self.password_file.clone(),
            hub_port: self.hub_port,
            max_connections: self.max_connections,
            startup_timeout: self.startup_timeout,
        }
    }
}

impl TunnelArgs {
    /// The settings that override the file.
    #[must_use]
    pub fn layer(&self) -> Layer {
        self.ssm.layer()
    }

    /// Where to listen: as asked, or on the loopback with the port that is led to.
    #[must_use]
    pub fn listen(&self) -> Vec<Listen> {
        if self.listen.is_empty() {
            vec![Listen::Localhost(self.to.0.port)]
        } else {
            self.listen.clone()
        }
    }
}

impl Cli {
    /// The command, which is `serve` when the word was not typed.
    #[must_use]
    pub fn into_command(self) -> Command {
        self.command
            .unwrap_or_else(|| Command::Serve(Box::new(self.serve)))
    }
}

impl Command {
    /// The flags that every command has.
    #[must_use]
    pub fn program(&self) -> &ProgramArgs {
        match self {
            Self::Serve(args) => &args.program,
            Self::Tunnel(args) => &args.program,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Bastion;
    use clap::CommandFactory;

    fn parse(words: &[&str]) -> Result<Command, clap::Error> {
        Cli::try_parse_from([&["pgiam"], words].concat()).map(Cli::into_command)
    }

    fn serve(words: &[&str]) -> ServeArgs {
        match parse(words).unwrap() {
            Command::Serve(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    fn tunnel(words: &[&str]) -> TunnelArgs {
        match parse(&[&["tunnel"], words].concat()).unwrap() {
            Command::Tunnel(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default() {
        for line in [
            &["--port", "6000"][..],
            &["serve", "--port", "6000"],
            &["--warm", "--port", "6000"],
        ] {
            assert_eq!(serve(line).port, Some(6000));
        }
        assert_eq!(serve(&["serve", "orders"]).targets, ["orders"]);
    }

    #[test]
    fn switches_take_a_value_only_behind_an_equals_sign() {
        let layer = |words: &[&str]| serve(&[&["serve"], words].concat()).layer();
        assert_eq!(layer(&["--warm"]).warm, Some(true));
        assert_eq!(layer(&["--warm=false"]).warm, Some(false));
        assert_eq!(layer(&["--keep-alive=on"]).keep_alive, Some(true));
        assert_eq!(layer(&[]).warm, None);
        let args = serve(&["serve", "--warm", "orders"]);
        assert_eq!(
            (args.layer().warm, &args.targets[..]),
            (Some(true), &["orders".to_owned()][..])
        );
        assert!(parse(&["serve", "--warm=perhaps"]).is_err());
    }

    #[test]
    fn every_flag_of_the_tunnel_arrives() {
        let words = [
            "--bastion",
            "i-1,i-2",
            "--document",
            "Our-Forward",
            "--sessions",
            "3",
            "--idle-timeout",
            "60",
            "--warm",
            "--keep-alive",
            "--profile",
            "dev",
            "--region",
            "eu-central-1",
            "--connect-timeout",
            "20",
        ];
        let of_serve = serve(&[&["serve", "--dial-timeout", "7"], &words[..]].concat()).layer();
        let of_tunnel = tunnel(&[&["db:1"], &words[..]].concat()).layer();
        for layer in [&of_serve, &of_tunnel] {
            let bastion = layer.bastion.as_ref().unwrap().parse().unwrap();
            assert_eq!(bastion, Bastion::Nodes(vec!["i-1".into(), "i-2".into()]));
            assert_eq!(layer.document.as_deref(), Some("Our-Forward"));
            assert_eq!(
                (layer.sessions, layer.idle_timeout, layer.connect_timeout),
                (Some(3), Some(60), Some(20))
            );
            assert_eq!((layer.warm, layer.keep_alive), (Some(true), Some(true)));
            assert_eq!(layer.profile.as_deref(), Some("dev"));
            assert_eq!(layer.region.as_deref(), Some("eu-central-1"));
        }
        assert_eq!(
            (of_serve.dial_timeout, of_tunnel.dial_timeout),
            (Some(7), None)
        );
    }

    #[test]
    fn a_tunnel_listens_where_it_leads_unless_told() {
        assert_eq!(
            tunnel(&["db.internal:3306"]).listen(),
            [Listen::Localhost(3306)]
        );
        let args = tunnel(&[
            "db.internal:3306",
            "--listen",
            "3307",
            "--listen",
            "[::1]:3308",
        ]);
        let also = Listen::Address("[::1]:3308".parse().unwrap());
        assert_eq!(args.listen(), [Listen::Localhost(3307), also]);
        let args = tunnel(&["db.internal:3306", "--listen", "3307,[::1]:3308"]);
        assert_eq!(args.listen(), [Listen::Localhost(3307), also]);
    }

    #[test]
    fn a_tunnel_is_refused_with_the_remedy() {
        for (words, expected) in [
            (&["tunnel"][..], "<HOST:PORT>"),
            (
                &["tunnel", "db.internal"],
                "the port is missing; write HOST:PORT",
            ),
            (
                &["tunnel", "db:1", "--listen", "0.0.0.0:1"],
                "asks for no password",
            ),
            (
                &["tunnel", "db:1", "--via", "direct"],
                "unexpected argument '--via'",
            ),
            (
                &["tunnel", "db:1", "--drain-timeout", "x"],
                "invalid value 'x'",
            ),
        ] {
            let said = parse(words).unwrap_err().to_string();
            assert!(said.contains(expected), "{words:?}\n→ {said}");
        }
    }
}
