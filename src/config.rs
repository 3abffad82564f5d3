//! Converts the settings in the file, the environment and the flags to validated [`ResolvedTarget`]s.
//!
//! Precedence: flags, then `PGIAM_*` variables (both arrive here as [`TargetLayer`] from `cli.rs`), then
//! the target's table in the file, then `[defaults]`, then the built-in values below.

mod bastion;
mod database_ref;
mod encoding;
mod endpoint;
mod error;
mod file;
mod forms;
mod forward;
mod home_path;
mod login;
mod resolved_target;
mod serve;
mod target_config;
mod target_settings;
mod toml_messages;
mod via;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use bastion::{Bastion, WrittenBastion};
pub use database_ref::{DatabaseRef, RdsIdentifier};
pub use endpoint::{Endpoint, EndpointKind, region_of};
pub use error::ConfigError;
#[cfg(test)]
pub(crate) use file::COMMANDS;
pub use file::{ConfigFile, TargetLayer};
pub(crate) use file::{LONGEST, fingerprint};
pub use forms::switch_of;
pub use forward::{Destination, Listen};
pub use home_path::expand_home;
pub use login::{Auth, LoginSettings};
pub use resolved_target::ResolvedTarget;
pub use serve::{Serve, ServeLayer, SocketDir};
pub use target_config::TargetConfig;
pub use target_settings::TargetSettings;
pub use via::{SsmSettings, Via};

/// Default local port of a target: one above PostgreSQL's own, so that a local server can keep
/// 5432.
pub const DEFAULT_LOCAL_PORT: u16 = 5433;
/// PostgreSQL's registered port, used upstream if `host` has none.
pub const DEFAULT_UPSTREAM_PORT: u16 = 5432;
/// Default time that a client waits for tunnel and token before it gets an error.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Default timeout of TLS and login at the database. It is below the server's own
/// `authentication_timeout` (60 s), so that pgiam reports the reason.
pub const DEFAULT_LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Default time that a client may take to complete startup.
pub const DEFAULT_STARTUP_TIMEOUT: Duration = Duration::from_secs(30);
/// Default limit of concurrent connections. It is far above the number that RDS instances accept
/// per role, and below the usual limit of 1,024 descriptors, of which a connection takes one or
/// two.
pub const DEFAULT_MAX_CONNECTIONS: usize = 400;

/// Default maximum number of sessions of a target: one session carries 0.7 MB/s from the database,
/// a limit that pgiam cannot raise.
pub const DEFAULT_SESSIONS: usize = 4;
/// Upper limit of `sessions`: each is a session of the AWS account, which other users can see and
/// AWS counts.
pub const MAX_SESSIONS: usize = 20;
/// Default time that a session without connections stays open.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Default time that the bastion may take to connect to the database.
pub const DEFAULT_DIAL_TIMEOUT: Duration = Duration::from_secs(10);
