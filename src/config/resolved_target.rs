//! One database that clients can reach through pgiam.

use std::path::PathBuf;
use std::time::Duration;

use super::{Endpoint, LoginSettings, Via};

/// One database that clients can reach through pgiam.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name in the file.
    pub name: String,
    /// Database endpoint.
    pub endpoint: Endpoint,
    /// Region for token signatures and the tunnel; `None`: the AWS default region.
    pub region: Option<String>,
    /// Replaces the client's default user name.
    pub user: Option<String>,
    /// Replaces the client's default database.
    pub database: Option<String>,
    /// Local port for clients; 0 lets the system choose.
    pub local_port: u16,
    /// Connection path to the database.
    pub via: Via,
    /// AWS profile; `None`: the SDK's default.
    pub profile: Option<String>,
    /// CA file that replaces the built-in trust roots.
    pub ca_file: Option<PathBuf>,
    /// Deadline for tunnel and token together.
    pub connect_timeout: Duration,
    /// Login settings.
    pub login: LoginSettings,
}
