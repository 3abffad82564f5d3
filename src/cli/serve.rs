//! Flags of `pgiam serve` and `pgiam tunnel`, the commands that listen.

use std::path::PathBuf;

use clap::Args;

use super::args::{DatabaseArgs, DrainArgs, PROGRAM, ProgramArgs, StateArgs};
use crate::config::{
    AwsFlags, BrowserFlags, ClientFlags, Destination, HttpFlags, Listen, ListenFlags, PeerFlags,
    PortFlags, ServeLayer, TargetLayer, TunnelFlags,
};

/// Flags of `pgiam serve`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// Targets to serve, by name in the configuration file. Default: all.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Log in to each target once at startup; if a login fails, report the error and exit with 4.
    #[arg(long)]
    pub test: bool,
    /// Stop after this time without clients. With socket activation the next client starts pgiam
    /// again.
    #[arg(
        long,
        env = "PGIAM_EXIT_WHEN_IDLE",
        value_name = "SECONDS",
        help_heading = PROGRAM
    )]
    pub exit_when_idle: Option<u64>,
    /// Run as a process of `pgiam up`: in a session of its own, with this log file.
    #[arg(long, value_name = "FILE", hide = true)]
    pub background_log: Option<PathBuf>,
    /// Flag for the local port.
    #[command(flatten)]
    pub port: PortFlags,
    /// Flags for the listeners.
    #[command(flatten)]
    pub listen: ListenFlags,
    /// Flag for the check of client owners.
    #[command(flatten)]
    pub peer: PeerFlags,
    /// Flags for clients.
    #[command(flatten)]
    pub client: ClientFlags,
    /// Flags for the database and the route to it.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Flag for logins to AWS.
    #[command(flatten)]
    pub browser: BrowserFlags,
    /// Flags for health endpoints and metrics.
    #[command(flatten)]
    pub http: HttpFlags,
    /// Flag for the state directory.
    #[command(flatten)]
    pub state: StateArgs,
    /// Flag for the drain timeout.
    #[command(flatten)]
    pub drain: DrainArgs,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
    /// The command line is `pgiam`, without any word.
    #[arg(skip)]
    pub is_bare: bool,
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
        help_heading = "Listening"
    )]
    pub listen: Vec<Listen>,
    /// Use the bastion, profile and region of this target in the configuration file.
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
    /// Flag for the check of client owners.
    #[command(flatten)]
    pub peer: PeerFlags,
    /// Flags for the tunnel.
    #[command(flatten)]
    pub tunnel: TunnelFlags,
    /// Flags for AWS.
    #[command(flatten)]
    pub aws: AwsFlags,
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
        self.port.layer().or(self.database.layer())
    }

    /// Returns the settings that override `[serve]` in the file.
    #[must_use]
    pub fn serve_layer(&self) -> ServeLayer {
        self.listen
            .layer()
            .or(self.peer.layer())
            .or(self.client.layer())
            .or(self.browser.layer())
            .or(self.http.layer())
    }
}

impl TunnelArgs {
    /// Returns the settings that override the file.
    #[must_use]
    pub fn layer(&self) -> TargetLayer {
        self.tunnel.layer().or(self.aws.layer())
    }

    /// Returns the settings that override `[serve]` in the file.
    #[must_use]
    pub fn serve_layer(&self) -> ServeLayer {
        self.peer.layer()
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
