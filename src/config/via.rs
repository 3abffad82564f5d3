//! Connection path to a database.

use std::fmt;
use std::time::Duration;

use super::bastion::Bastion;
use super::relay::RelaySettings;
use super::{ConfigError, TargetDefaults, TargetLayer};
use crate::base::names::TargetName;
use crate::base::suggest::nearest;

/// Upper limit of `sessions`: each is a session of the AWS account, which other users can see and
/// AWS counts. The relay's protocol has the same limit.
const MAX_SESSIONS: usize = 32;

/// Connection path to the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// A TCP connection from this machine: inside the VPC, over a VPN or peering.
    Direct,
    /// A Session Manager tunnel.
    Ssm(SsmSettings),
}

impl Via {
    /// Returns the connection path in `layer` for the target of this name. Its clients wait
    /// `connect_timeout`.
    pub(super) fn from_layer(
        target: &str,
        layer: &TargetLayer,
        connect_timeout: Duration,
    ) -> Result<Self, ConfigError> {
        match layer.via.as_deref() {
            Some("direct") => Ok(Self::Direct),
            None | Some("ssm") => {
                let bastion = match &layer.bastion {
                    None => Bastion::Auto,
                    Some(written) => written.parse().map_err(|reason| {
                        ConfigError::invalid(&target.into(), "bastion", written, reason)
                    })?,
                };
                SsmSettings::from_layer(&target.into(), bastion, layer, connect_timeout)
                    .map(Self::Ssm)
            }
            Some(other) => {
                let suggestion = nearest(other, ["ssm", "direct"])
                    .map(|known| format!("; did you mean \"{known}\"?"))
                    .unwrap_or_default();
                let reason = format!("expected \"ssm\" or \"direct\"{suggestion}");
                Err(ConfigError::invalid(&target.into(), "via", other, reason))
            }
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("direct"),
            Self::Ssm(settings) => write!(f, "ssm {}", settings.bastion),
        }
    }
}

/// Tunnel of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SsmSettings {
    /// Managed node or nodes that carry it.
    pub bastion: Bastion,
    /// Session document; `None`: AWS's own for a remote host.
    pub document: Option<String>,
    /// Relay on the bastion; `None`: it is not used.
    pub relay: Option<RelaySettings>,
    /// Maximum number of concurrent sessions without a relay, 1 to 32.
    pub sessions: usize,
    /// Time after which a session without connections is closed; the last one stays longer.
    pub idle_timeout: Duration,
    /// Open the first session when the program starts.
    pub warm: bool,
    /// Keep sessions open past the account's idle timeout.
    pub keep_alive: bool,
    /// Time that the bastion may take to connect to the database.
    pub dial_timeout: Duration,
}

impl SsmSettings {
    /// Returns the settings in `layer` for the target of this name. Its clients wait
    /// `connect_timeout`.
    fn from_layer(
        target: &TargetName,
        bastion: Bastion,
        layer: &TargetLayer,
        connect_timeout: Duration,
    ) -> Result<Self, ConfigError> {
        if let Some(document) = &layer.document
            && !is_document(document)
        {
            return Err(ConfigError::invalid(
                target,
                "document",
                document,
                "expected the name or ARN of a session document, such as AWS-StartPortForwardingSessionToRemoteHost",
            ));
        }
        let sessions = sessions(target, layer)?;
        let relay = match &layer.relay {
            None => None,
            Some(written) => written
                .parse(sessions)
                .map_err(|reason| ConfigError::invalid(target, "relay", written, reason))?,
        };
        let default = usize::try_from(TargetDefaults::sessions()).ok();
        Ok(Self {
            bastion,
            document: layer.document.clone(),
            relay,
            sessions: sessions.or(default).unwrap_or(1),
            idle_timeout: seconds(
                target,
                "idle_timeout",
                layer.idle_timeout.unwrap_or(TargetDefaults::idle_timeout()),
            )?,
            warm: layer.warm.unwrap_or_default(),
            keep_alive: layer.keep_alive.unwrap_or_default(),
            dial_timeout: dial_timeout(target, layer, connect_timeout)?,
        })
    }
}

#[cfg(test)]
impl SsmSettings {
    /// Returns the default settings for a bastion.
    pub(super) fn new(bastion: Bastion) -> Self {
        let wait = Duration::from_secs(TargetDefaults::connect_timeout());
        Self::from_layer(&"test".into(), bastion, &TargetLayer::default(), wait).unwrap()
    }
}

/// Returns the configured number of sessions.
fn sessions(target: &TargetName, layer: &TargetLayer) -> Result<Option<usize>, ConfigError> {
    let Some(sessions) = layer.sessions else {
        return Ok(None);
    };
    let valid = usize::try_from(sessions).ok();
    match valid.filter(|sessions| (1..=MAX_SESSIONS).contains(sessions)) {
        Some(sessions) => Ok(Some(sessions)),
        None => {
            let reason = format!("expected 1 to {MAX_SESSIONS}");
            Err(ConfigError::invalid(target, "sessions", sessions, reason))
        }
    }
}

fn dial_timeout(
    target: &TargetName,
    layer: &TargetLayer,
    connect_timeout: Duration,
) -> Result<Duration, ConfigError> {
    let Some(dial_timeout) = layer.dial_timeout else {
        // A shorter wait of the clients also shortens the dial.
        let default = Duration::from_secs(TargetDefaults::dial_timeout());
        return Ok(default.min(connect_timeout));
    };
    if Duration::from_secs(dial_timeout) > connect_timeout {
        let all = connect_timeout.as_secs();
        return Err(ConfigError::invalid(
            target,
            "dial_timeout",
            dial_timeout,
            format!(
                "it is longer than connect_timeout, {all}; lower dial_timeout to at most {all}, or raise connect_timeout to at least {dial_timeout}"
            ),
        ));
    }
    seconds(target, "dial_timeout", dial_timeout)
}

/// Returns a time in seconds; zero is invalid.
pub(super) fn seconds(
    target: &TargetName,
    key: &'static str,
    seconds: u64,
) -> Result<Duration, ConfigError> {
    match seconds {
        0 => {
            let reason = "expected whole seconds, 1 or more";
            Err(ConfigError::invalid(target, key, 0, reason))
        }
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

/// Returns `true` for a valid `DocumentName` of `StartSession` (SSM API Reference): a name, or an
/// ARN if another account shares the document.
fn is_document(text: &str) -> bool {
    (3..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-.:/".contains(&b))
}
