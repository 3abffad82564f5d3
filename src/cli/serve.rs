//! Flags of `pgiam serve` and `pgiam tunnel`, the commands that listen.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::args::{DatabaseArgs, DrainArgs, ProgramArgs, SsmArgs, StateArgs, path};
use crate::config::{Destination, Listen, ServeLayer, TargetLayer};

const LISTEN: &str = "Listening";
const HEALTH: &str = "Health and metrics";

/// Flags of `pgiam serve`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// Targets to serve, by name in the configuration file. Default: all.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Log in to each target once at startup; if a login fails, report the error and exit with 4.
    #[arg(long)]
    pub test: bool,
    /// Local port; 0 lets the system choose. Default: 5433.
    #[arg(long, short, env = "PGIAM_PORT", value_name = "PORT", help_heading = LISTEN)]
    pub port: Option<u16>,
    /// Flags for the listeners and for client access.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Flags for the database and the route to it.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Flags for health endpoints and metrics.
    #[command(flatten)]
    pub http: HttpArgs,
    /// Flag for the state directory.
    #[command(flatten)]
    pub state: StateArgs,
    /// Flag for the drain timeout.
    #[command(flatten)]
    pub drain: DrainArgs,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

/// Flags for the listeners of `pgiam serve` and for client access.
#[derive(Clone, Debug, Default, Args)]
pub struct ListenArgs {
    /// Addresses to listen on, comma-separated. Addresses other than loopback require a password
    /// (--password-file). Default: 127.0.0.1,::1
    #[arg(long, env = "PGIAM_ADDRESS", value_name = "IP", value_delimiter = ',', help_heading = LISTEN)]
    pub address: Option<Vec<String>>,
    /// Extra port for all targets; the database name selects one: TARGET or TARGET/DATABASE.
    #[arg(long, env = "PGIAM_HUB_PORT", value_name = "PORT", help_heading = LISTEN)]
    pub hub_port: Option<u16>,
    /// Directory of the Unix sockets, or "none". Default: $XDG_RUNTIME_DIR/pgiam, else run in the
    /// state directory.
    #[arg(long, env = "PGIAM_SOCKET_DIR", value_name = "DIR", value_parser = path(), help_heading = LISTEN)]
    pub socket_dir: Option<PathBuf>,
    /// Flag for the check of client owners.
    #[command(flatten)]
    pub peer: PeerArgs,
    /// File with the password that TCP clients must send (SCRAM-SHA-256). Alternatively, set
    /// PGIAM_LOCAL_PASSWORD to the password.
    #[arg(long, env = "PGIAM_PASSWORD_FILE", value_name = "FILE", value_parser = path(), help_heading = LISTEN)]
    pub password_file: Option<PathBuf>,
    /// Maximum concurrent connections. Default: 400.
    #[arg(long, env = "PGIAM_MAX_CONNECTIONS", value_name = "N", help_heading = LISTEN)]
    pub max_connections: Option<u64>,
    /// Seconds a client may take to complete startup (TLS, password, startup packet). Default: 30.
    #[arg(long, env = "PGIAM_STARTUP_TIMEOUT", value_name = "SECONDS", help_heading = LISTEN)]
    pub startup_timeout: Option<u64>,
}

/// Flag for the check of client owners, of every command that listens.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct PeerArgs {
    /// Serve only clients of the user that runs pgiam, where the system reports the owner of a
    /// connection. Use --peer-check=false for containers that share a network. Default: true.
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

/// Flags for health endpoints and metrics.
#[derive(Clone, Debug, Default, Args)]
pub struct HttpArgs {
    /// Port of the health endpoints /startup, /readiness, /liveness and of /metrics. Default: none.
    #[arg(long, env = "PGIAM_HTTP_PORT", value_name = "PORT", help_heading = HEALTH)]
    pub http_port: Option<u16>,
    /// Address of the health endpoints and metrics. They ask for no password, and show target names
    /// and usage. Default: 127.0.0.1.
    #[arg(long, env = "PGIAM_HTTP_ADDRESS", value_name = "IP", help_heading = HEALTH)]
    pub http_address: Option<IpAddr>,
}

/// Flags of `pgiam tunnel`.
#[expect(
    rustdoc::broken_intra_doc_links,
    reason = "[::1] is an address, as --help shows it"
)]
#[derive(Clone, Debug, Args)]
pub struct TunnelArgs {
    /// Destination as seen from the bastion: a name or an address (IPv6 in brackets), and a port.
    #[arg(value_name = "HOST:PORT")]
    pub to: Destination,
    /// Local PORT, 127.0.0.1:PORT or [::1]:PORT, comma-separated or repeated; port 0 lets the
    /// system choose. Default: the port of HOST:PORT, on 127.0.0.1 and ::1.
    #[arg(
        long,
        env = "PGIAM_LISTEN",
        value_name = "ADDR:PORT",
        value_delimiter = ',',
        help_heading = LISTEN
    )]
    pub listen: Vec<Listen>,
    /// Use the bastion, profile and region of this target in the configuration file.
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
    /// Flag for the check of client owners.
    #[command(flatten)]
    pub peer: PeerArgs,
    /// Flags for the tunnel.
    #[command(flatten)]
    pub ssm: SsmArgs,
    /// Flag for the state directory.
    #[command(flatten)]
    pub state: StateArgs,
    /// Flag for the drain timeout.
    #[command(flatten)]
    pub drain: DrainArgs,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

impl ServeArgs {
    /// Returns the settings that override the file.
    #[must_use]
    pub fn layer(&self) -> TargetLayer {
        TargetLayer {
            port: self.port,
            ..self.database.layer()
        }
    }

    /// Returns the settings that override `[serve]` in the file.
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
    /// Returns the settings that override the file.
    #[must_use]
    pub fn layer(&self) -> TargetLayer {
        self.ssm.layer()
    }

    /// Returns the settings that override `[serve]` in the file.
    #[must_use]
    pub fn serve_layer(&self) -> ServeLayer {
        ServeLayer {
            peer_check: self.peer.peer_check,
            ..ServeLayer::default()
        }
    }

    /// Returns the addresses to listen on: those given, else loopback with the port of the
    /// destination.
    #[must_use]
    pub fn listen(&self) -> Vec<Listen> {
        if self.listen.is_empty() {
            vec![Listen::Localhost(self.to.0.port)]
        } else {
            self.listen.clone()
        }
    }
}
