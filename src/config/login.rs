//! Login settings of a target.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::via::seconds;
use super::{ConfigError, TargetDefaults, TargetLayer};
use crate::base::names::TargetName;

/// DNS port (RFC 1035, 4.2).
const DNS_PORT: u16 = 53;

/// Upper limit of `ready`: each is a process at the server.
const MAX_READY: usize = 8;

/// Method of authentication at the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// pgiam logs in with an IAM token.
    #[default]
    Iam,
    /// The client logs in with a password of its own, which passes through verified TLS.
    Passthrough,
}

/// Login settings of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginSettings {
    /// Method of authentication.
    pub auth: Auth,
    /// Timeout of TLS and login at the database.
    pub timeout: Duration,
    /// Startup parameters that are not passed on.
    pub ignore_startup_parameters: Vec<String>,
    /// DNS server that resolves a CNAME given as `host`; `None`: the system's.
    pub dns_server: Option<SocketAddr>,
    /// Maximum number of concurrent connections; `None`: no limit for this target.
    pub connection_limit: Option<usize>,
    /// Maximum number of connections to the database that are kept ready for the next clients.
    pub ready: usize,
}

#[cfg(test)]
impl Default for LoginSettings {
    fn default() -> Self {
        Self::from_layer(&"test".into(), &TargetLayer::default()).unwrap()
    }
}

impl LoginSettings {
    pub(super) fn from_layer(
        target: &TargetName,
        layer: &TargetLayer,
    ) -> Result<Self, ConfigError> {
        let invalid = |key, value: &str, reason| ConfigError::invalid(target, key, value, reason);
        let auth = match layer.auth.as_deref() {
            None | Some("iam") => Auth::Iam,
            Some("passthrough") => Auth::Passthrough,
            Some(other) => {
                return Err(invalid(
                    "auth",
                    other,
                    "expected \"iam\" or \"passthrough\"",
                ));
            }
        };
        let connection_limit = match layer.connection_limit {
            Some(0) => {
                return Err(invalid(
                    "connection_limit",
                    "0",
                    "expected 1 or more; for no limit other than max_connections, remove the key",
                ));
            }
            limit => limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        };
        let ignored = layer.ignore_startup_parameters.iter().flatten();
        let ignored: Vec<String> = ignored.map(|name| name.trim().to_owned()).collect();
        if let Some(name) = ignored.iter().find(|name| !may_be_ignored(name)) {
            return Err(invalid(
                "ignore_startup_parameters",
                name,
                "expected names of run-time parameters, such as extra_float_digits; user, database, options and replication cannot be ignored",
            ));
        }
        let dns_server =
            match &layer.dns_server {
                None => None,
                Some(text) => Some(parse_dns_server(text).ok_or_else(|| {
                    invalid("dns_server", text, "expected ADDRESS or ADDRESS:PORT")
                })?),
            };
        Ok(Self {
            auth,
            timeout: seconds(
                target,
                "login_timeout",
                layer
                    .login_timeout
                    .unwrap_or(TargetDefaults::login_timeout()),
            )?,
            ignore_startup_parameters: ignored,
            dns_server,
            connection_limit,
            ready: ready(target, layer, auth)?,
        })
    }
}

/// Returns the number of connections to keep ready. Clients with a password of their own do not use
/// them.
fn ready(target: &TargetName, layer: &TargetLayer, auth: Auth) -> Result<usize, ConfigError> {
    let by_default = u64::from(layer.via.as_deref() != Some("direct"));
    let ready = layer.ready.unwrap_or(by_default);
    let valid = usize::try_from(ready)
        .ok()
        .filter(|ready| *ready <= MAX_READY);
    let Some(ready) = valid else {
        let reason = format!("expected 0 to {MAX_READY}");
        return Err(ConfigError::invalid(target, "ready", ready, reason));
    };
    Ok(match auth {
        Auth::Iam => ready,
        Auth::Passthrough => 0,
    })
}

fn may_be_ignored(name: &str) -> bool {
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.".contains(&b));
    is_name && !["user", "database", "options", "replication"].contains(&name)
}

fn parse_dns_server(text: &str) -> Option<SocketAddr> {
    let bare: Option<IpAddr> = text.parse().ok();
    bare.map(|address| SocketAddr::new(address, DNS_PORT))
        .or_else(|| text.parse().ok())
}
