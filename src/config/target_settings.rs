//! Settings of a target that do not depend on its endpoint.

use std::path::PathBuf;
use std::time::Duration;

use super::via::seconds;
use super::{Auth, ConfigError, LoginSettings, TargetDefaults, TargetLayer, Via};
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

    /// Returns these settings as a layer of the file, from which another process of pgiam can create
    /// them.
    #[must_use]
    pub fn layer(&self) -> TargetLayer {
        let LoginSettings {
            auth,
            timeout,
            ignore_startup_parameters,
            dns_server,
            connection_limit,
            ready,
        } = &self.login;
        let auth = match auth {
            Auth::Iam => "iam",
            Auth::Passthrough => "passthrough",
        };
        let route = match &self.via {
            Via::Direct => TargetLayer {
                via: Some("direct".to_owned()),
                ..TargetLayer::default()
            },
            Via::Ssm(settings) => TargetLayer {
                via: Some("ssm".to_owned()),
                bastion: Some((&settings.bastion).into()),
                document: settings.document.clone(),
                relay: settings.relay.map(Into::into),
                // Without a configured number the two defaults differ.
                sessions: match settings.relay {
                    Some(relay) if relay.sessions != settings.sessions => None,
                    _ => u64::try_from(settings.sessions).ok(),
                },
                idle_timeout: Some(settings.idle_timeout.as_secs()),
                warm: Some(settings.warm),
                keep_alive: Some(settings.keep_alive),
                dial_timeout: Some(settings.dial_timeout.as_secs()),
                ..TargetLayer::default()
            },
        };
        TargetLayer {
            user: self.user.clone(),
            database: self.database.clone(),
            ca_file: self.ca_file.clone(),
            port: Some(self.local_port),
            profile: self.profile.clone(),
            connect_timeout: Some(self.connect_timeout.as_secs()),
            auth: Some(auth.to_owned()),
            login_timeout: Some(timeout.as_secs()),
            connection_limit: connection_limit.and_then(|limit| u64::try_from(limit).ok()),
            ready: u64::try_from(*ready).ok(),
            ignore_startup_parameters: Some(ignore_startup_parameters.clone())
                .filter(|names| !names.is_empty()),
            dns_server: dns_server.map(|server| server.to_string()),
            ..route
        }
    }
}
