//! Flags of `pgiam relay`.

use std::net::IpAddr;

use clap::Args;

use super::args::{DrainArgs, ProgramArgs};
use crate::config::DEFAULT_RELAY_PORT;
use crate::relay::AllowPattern;

const LISTENING: &str = "Listening";
const DATABASES: &str = "Databases";

/// Flags of `pgiam relay`.
#[derive(Clone, Debug, Args)]
pub struct RelayArgs {
    /// Port on 127.0.0.1 and ::1, the only addresses that the relay listens on; 0 lets the system
    /// choose.
    #[arg(long, env = "PGIAM_PORT", value_name = "PORT", default_value_t = DEFAULT_RELAY_PORT, help_heading = LISTENING)]
    pub port: u16,
    /// Target that clients may reach: HOST (port 5432) or HOST:PORT. A * stands for one label of the
    /// name, or for any port. Comma-separated or repeated. Default: rds, the endpoints of RDS, Aurora,
    /// RDS Proxy and Aurora DSQL.
    #[arg(long, env = "PGIAM_ALLOW", value_name = "PATTERN", value_delimiter = ',', help_heading = DATABASES)]
    pub allow: Vec<AllowPattern>,
    /// Use this address for a name instead of asking DNS. Comma-separated or repeated.
    #[arg(long, env = "PGIAM_RESOLVE", value_name = "NAME=ADDRESS", value_parser = name_and_address, value_delimiter = ',', help_heading = DATABASES)]
    pub resolve: Vec<(String, IpAddr)>,
    /// Maximum number of connections to databases.
    #[arg(
        long,
        env = "PGIAM_MAX_CONNECTIONS",
        value_name = "N",
        default_value_t = 1000,
        help_heading = DATABASES
    )]
    pub max_connections: u16,
    /// Flag for the drain timeout.
    #[command(flatten)]
    pub drain: DrainArgs,
    /// Flags common to all commands.
    #[command(flatten)]
    pub program: ProgramArgs,
}

fn name_and_address(text: &str) -> Result<(String, IpAddr), String> {
    let parsed = text.split_once('=').and_then(|(name, address)| {
        let address = address.trim_matches(['[', ']']).parse().ok()?;
        Some((name.trim_end_matches('.').to_ascii_lowercase(), address))
    });
    parsed.ok_or_else(|| "expected NAME=ADDRESS, such as db.internal=10.0.3.7".to_owned())
}
