//! The flags of `pgiam serve` and `pgiam tunnel`, which listen.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::args::{DatabaseArgs, DrainArgs, ProgramArgs, SsmArgs, StateArgs, path};
use crate::config::{Destination, Layer, Listen, ServeLayer};

const LISTEN: &str = "Listening";
const HEALTH: &str = "Health and metrics";

/// The flags of `pgiam serve`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// Targets to serve, by their names in the file; all of them when left out.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Log in once at every target at the start; if that fails at one, say why and exit with 4.
    #[arg(long)]
    pub test: bool,
    /// Local port. Default: 5433; 0 lets the system choose.
    #[arg(long, short, env = "PGIAM_PORT", value_name = "PORT", help_heading = LISTEN)]
    pub port: Option<u16>,
    /// The flags about who may connect.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// The flags about the database and the way to it.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// The flags about health and metrics.
    #[command(flatten)]
    pub http: HttpArgs,
    /// The folder of what is made once.
    #[command(flatten)]
    pub state: StateArgs,
    /// How long open connections get at the end.
    #[command(flatten)]
    pub drain: DrainArgs,
    /// The flags of every command.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// The flags about where `pgiam serve` listens, and for whom.
#[derive(Clone, Debug, Default, Args)]
pub struct ListenArgs {
    /// Addresses to listen on, separated by commas. Others than the loopback's need a password
    /// (--password-file). Default: 127.0.0.1,::1
    #[arg(long, env = "PGIAM_ADDRESS", value_name = "IP", value_delimiter = ',', help_heading = LISTEN)]
    pub address: Option<Vec<String>>,
    /// A further port on which the database name picks among all targets: TARGET or
    /// TARGET/DATABASE.
    #[arg(long, env = "PGIAM_HUB_PORT", value_name = "PORT", help_heading = LISTEN)]
    pub hub_port: Option<u16>,
    /// Directory of the Unix sockets, or "none". Default: $XDG_RUNTIME_DIR/pgiam, else run in the
    /// state folder.
    #[arg(long, env = "PGIAM_SOCKET_DIR", value_name = "DIR", value_parser = path(), help_heading = LISTEN)]
    pub socket_dir: Option<PathBuf>,
    /// The flag about whose clients are served.
    #[command(flatten)]
    pub peer: PeerArgs,
    /// File with a password that TCP clients must give (SCRAM-SHA-256); PGIAM_LOCAL_PASSWORD does
    /// the same.
    #[arg(long, env = "PGIAM_PASSWORD_FILE", value_name = "FILE", value_parser = path(), help_heading = LISTEN)]
    pub password_file: Option<PathBuf>,
    /// Most connections at a time. Default: 400.
    #[arg(long, env = "PGIAM_MAX_CONNECTIONS", value_name = "N", help_heading = LISTEN)]
    pub max_connections: Option<u64>,
    /// Seconds a client may take to say what it wants. Default: 30.
    #[arg(long, env = "PGIAM_STARTUP_TIMEOUT", value_name = "SECONDS", help_heading = LISTEN)]
    pub startup_timeout: Option<u64>,
}

/// The flag about whose clients are served, of every command that listens for others.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct PeerArgs {
    /// Serve only clients of the user who runs pgiam, where the system tells whose they are.
    /// --peer-check=false is for containers that share a network. Default: true.
    #[arg(
        long,
        env = "PGIAM_PEER_CHECK",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        help_heading = LISTEN
    )]
    pub peer_check: Option<bool>,
}

/// The flags about health and metrics.
#[derive(Clone, Debug, Default, Args)]
pub struct HttpArgs {
    /// Port of the health endpoints /startup, /readiness, /liveness and of /metrics. Default: none.
    #[arg(long, env = "PGIAM_HTTP_PORT", value_name = "PORT", help_heading = HEALTH)]
    pub http_port: Option<u16>,
    /// Address of the health endpoints. They tell the names of targets and how much they are used to
    /// whoever asks. Default: 127.0.0.1.
    #[arg(long, env = "PGIAM_HTTP_ADDRESS", value_name = "IP", help_heading = HEALTH)]
    pub http_address: Option<IpAddr>,
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
        value_delimiter = ',',
        help_heading = LISTEN
    )]
    pub listen: Vec<Listen>,
    /// Take bastion, profile and region of this target in the file.
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
    /// The flag about whose clients are served.
    #[command(flatten)]
    pub peer: PeerArgs,
    /// The flags of the tunnel.
    #[command(flatten)]
    pub ssm: SsmArgs,
    /// Where `pgiam status` looks.
    #[command(flatten)]
    pub state: StateArgs,
    /// How long open connections get at the end.
    #[command(flatten)]
    pub drain: DrainArgs,
    /// The flags of every command.
    #[command(flatten)]
    pub program: ProgramArgs,
}

impl ServeArgs {
    /// The settings that override the file.
    #[must_use]
    pub fn layer(&self) -> Layer {
        Layer {
            port: self.port,
            ..self.database.layer()
        }
    }

    /// The settings that override `[serve]` in the file.
    #[must_use]
    pub fn serve_layer(&self) -> ServeLayer {
        let (listen, http) = (&self.listen, &self.http);
        ServeLayer {
            address: listen.address.clone(),
            socket_dir: listen.socket_dir.clone(),
            peer_check: listen.peer.peer_check,
            password_file: listen.password_file.clone(),
            hub_port: listen.hub_port,
            max_connections: listen.max_connections,
            startup_timeout: listen.startup_timeout,
            http_port: http.http_port,
            http_address: http.http_address,
        }
    }
}

impl TunnelArgs {
    /// The settings that override the file.
    #[must_use]
    pub fn layer(&self) -> Layer {
        self.ssm.layer()
    }

    /// The settings that override `[serve]` in the file.
    #[must_use]
    pub fn serve_layer(&self) -> ServeLayer {
        ServeLayer {
            peer_check: self.peer.peer_check,
            ..ServeLayer::default()
        }
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
