//! One database a client can reach through us.

use std::path::PathBuf;
use std::time::Duration;

use super::{Endpoint, LoginSettings, Via};

/// One database a client can reach through us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name in the file.
    pub name: String,
    /// The real database endpoint.
    pub endpoint: Endpoint,
    /// The region tokens are signed for and the tunnel runs in; `None`: the AWS default region.
    pub region: Option<String>,
    /// Replaces the client's default user name.
    pub user: Option<String>,
    /// Replaces the client's default database.
    pub database: Option<String>,
    /// Where clients connect; 0 lets the system choose.
    pub local_port: u16,
    /// The way there.
    pub via: Via,
    /// The AWS profile; `None`: the SDK's default.
    pub profile: Option<String>,
    /// Replaces the built-in trust roots.
    pub ca_file: Option<PathBuf>,
    /// Deadline for tunnel and token together.
    pub connect_timeout: Duration,
    /// How its connections log in.
    pub login: LoginSettings,
}
