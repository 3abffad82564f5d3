//! Settings of a target that do not depend on its endpoint.

use std::path::PathBuf;
use std::time::Duration;

use super::via::seconds;
use super::{ConfigError, LoginSettings, TargetDefaults, TargetLayer, Via};
use crate::base::names::TargetName;

/// Settings of a target that do not depend on its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSettings {
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

impl TargetSettings {
    /// Validates the settings in `layer` for the target of this name.
    pub(super) fn from_layer(
        target: &TargetName,
        layer: &TargetLayer,
    ) -> Result<Self, ConfigError> {
        for (key, value) in [("user", &layer.user), ("database", &layer.database)] {
            if let Some(value) = value
                && (value.is_empty() || value.contains('\0'))
            {
                let reason = "expected a name that is not empty and has no NUL character";
                return Err(ConfigError::invalid(target, key, value, reason));
            }
        }
        let connect_timeout = layer
            .connect_timeout
            .unwrap_or(TargetDefaults::connect_timeout());
        let connect_timeout = seconds(target, "connect_timeout", connect_timeout)?;
        Ok(Self {
            user: layer.user.clone(),
            database: layer.database.clone(),
            local_port: layer.port.unwrap_or(TargetDefaults::port()),
            via: Via::from_layer(target, layer, connect_timeout)?,
            profile: layer.profile.clone(),
            ca_file: layer.ca_file.clone(),
            connect_timeout,
            login: LoginSettings::from_layer(target, layer)?,
        })
    }
}
