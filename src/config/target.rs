//! One database a client can reach through us.

use std::path::PathBuf;
use std::time::Duration;

use super::file::Layer;
use super::via::{seconds, via};
use super::{
    ConfigError, DEFAULT_CONNECT_TIMEOUT, DEFAULT_LOCAL_PORT, Endpoint, LoginSettings, Via,
};

/// One database a client can reach through us.
#[derive(Clone, Debug)]
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

impl Target {
    pub(super) fn new(name: String, layer: Layer) -> Result<Self, ConfigError> {
        if let Some(reason) = flaw_of_name(&name) {
            return Err(ConfigError::TargetName { name, reason });
        }
        let invalid = |key, value: &str, reason: String| ConfigError::Invalid {
            target: name.clone(),
            key,
            value: value.to_owned(),
            reason,
        };
        let Some(host) = &layer.host else {
            return Err(ConfigError::Missing {
                target: name,
                key: "host",
                hint: "host = \"NAME.REGION.rds.amazonaws.com\", as the RDS console shows the endpoint",
            });
        };
        let endpoint: Endpoint = host
            .parse()
            .map_err(|reason| invalid("host", host, reason))?;
        let region = match (&layer.region, endpoint.region()) {
            (Some(region), Some(in_host)) if region != in_host => {
                return Err(invalid(
                    "region",
                    region,
                    format!(
                        "the host is in {in_host}, and a token for another region is refused; leave region out"
                    ),
                ));
            }
            (Some(region), _) => Some(region.clone()),
            (None, in_host) => in_host.map(str::to_owned),
        };
        let unusable = |value: &Option<String>| {
            value
                .as_ref()
                .is_some_and(|v| v.is_empty() || v.contains('\0'))
        };
        for (key, value) in [("user", &layer.user), ("database", &layer.database)] {
            if unusable(value) {
                return Err(invalid(key, "", "it is empty".to_owned()));
            }
        }
        let connect_timeout = connect_timeout(&name, &layer)?;
        let via = via(&name, &layer, connect_timeout)?;
        let login = LoginSettings::from_layer(&name, &layer)?;
        Ok(Self {
            name,
            endpoint,
            region,
            user: layer.user,
            database: layer.database,
            local_port: layer.port.unwrap_or(DEFAULT_LOCAL_PORT),
            via,
            profile: layer.profile,
            ca_file: layer.ca_file,
            connect_timeout,
            login,
        })
    }
}

/// What keeps clients from asking for a target of this name (`NAME/DATABASE`, see
/// [`route`](crate::route)), or people from reading it.
fn flaw_of_name(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("is empty")
    } else if name.contains('/') {
        Some("contains a slash, behind which stands the database")
    } else if name.contains(char::is_control) {
        Some("contains a control character")
    } else {
        None
    }
}

/// How long the clients of a target wait.
pub(super) fn connect_timeout(target: &str, layer: &Layer) -> Result<Duration, ConfigError> {
    let given = seconds(target, "connect_timeout", layer.connect_timeout)?;
    Ok(given.unwrap_or(DEFAULT_CONNECT_TIMEOUT))
}
