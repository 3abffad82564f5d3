//! Converts the settings in the file, the environment and the flags to validated
//! [`ResolvedTarget`]s and [`ServeSettings`].
//!
//! `keys.rs` lists the keys. Precedence: flags, then `PGIAM_*` variables (both arrive here as
//! [`TargetLayer`] from `cli.rs`), then the target's table in the file, then `[defaults]`, then the
//! defaults in `keys.rs`.

mod bastion;
mod database_ref;
mod encoding;
mod endpoint;
mod error;
mod file;
mod forms;
mod forward;
mod home_path;
mod keys;
mod login;
mod relay;
mod resolved_target;
mod search;
mod serve;
mod target_config;
mod target_settings;
mod toml_messages;
mod via;

#[cfg(test)]
mod tests;

pub use bastion::{Bastion, WrittenBastion};
pub use database_ref::{DatabaseRef, RdsIdentifier};
pub use endpoint::{Endpoint, EndpointKind, region_of};
pub use error::ConfigError;
#[cfg(test)]
pub(crate) use file::COMMANDS;
pub use file::ConfigFile;
pub(crate) use file::{MAX_FILE_BYTES, fingerprint};
pub use forms::parse_switch;
pub use forward::{Destination, Listen};
pub use home_path::expand_home;
pub use keys::{
    AwsFlags, BrowserFlags, ClientFlags, DatabaseFlags, DialFlags, HttpFlags, ListenFlags,
    LoginFlags, PeerFlags, PortFlags, RouteFlags, ServeDefaults, ServeLayer, TargetDefaults,
    TargetLayer, TunnelFlags,
};
pub use login::{Auth, LoginSettings};
pub use relay::{DEFAULT_RELAY_PORT, RelaySettings, WrittenRelay, is_relay};
pub use resolved_target::ResolvedTarget;
pub use serve::{DEFAULT_ADDRESSES, ServeSettings, SocketDir};
pub use target_config::TargetConfig;
pub use target_settings::TargetSettings;
pub use via::{SsmSettings, Via};

/// PostgreSQL's registered port, used upstream if `host` has none.
pub const DEFAULT_UPSTREAM_PORT: u16 = 5432;
