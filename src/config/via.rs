//! Connection path to a database.

use std::fmt;
use std::time::Duration;

use super::bastion::Bastion;
use super::file::TargetLayer;
use super::{
    ConfigError, DEFAULT_DIAL_TIMEOUT, DEFAULT_IDLE_TIMEOUT, DEFAULT_SESSIONS, MAX_SESSIONS,
};
use crate::base::suggest::did_you_mean;

/// Connection path to the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// A TCP connection from this machine: inside the VPC, over a VPN or peering.
    Direct,
    /// A Session Manager tunnel.
    Ssm(SsmSettings),
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
    /// Maximum number of concurrent sessions, 1 to 20.
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
    /// Returns the built-in settings for a bastion.
    #[must_use]
    pub fn new(bastion: Bastion) -> Self {
        Self {
            bastion,
            document: None,
            sessions: DEFAULT_SESSIONS,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            warm: false,
            keep_alive: false,
            dial_timeout: DEFAULT_DIAL_TIMEOUT,
        }
    }

    /// Returns the settings in `layer` for the target of this name. Its clients wait
    /// `connect_timeout`.
    pub(super) fn from_layer(
        target: &str,
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
                "give the name or the ARN of a session document, such as AWS-StartPortForwardingSessionToRemoteHost",
            ));
        }
        let sessions = match layer.sessions {
            None => DEFAULT_SESSIONS,
            Some(asked) => usize::try_from(asked)
                .ok()
                .filter(|sessions| (1..=MAX_SESSIONS).contains(sessions))
                .ok_or_else(|| {
                    ConfigError::invalid(
                        target,
                        "sessions",
                        asked,
                        format!("give the most sessions to open at a time, 1 to {MAX_SESSIONS}"),
                    )
                })?,
        };
        let idle_timeout = seconds(target, "idle_timeout", layer.idle_timeout)?;
        let dial_timeout = match seconds(target, "dial_timeout", layer.dial_timeout)? {
            Some(asked) if asked > connect_timeout => {
                let (asked, all) = (asked.as_secs(), connect_timeout.as_secs());
                return Err(ConfigError::invalid(
                    target,
                    "dial_timeout",
                    asked,
                    format!(
                        "it is a part of connect_timeout, which is {all}: a client has given up by then; lower dial_timeout to at most {all}, or raise connect_timeout to at least {asked}"
                    ),
                ));
            }
            Some(asked) => asked,
            // A shorter wait of the clients also shortens the dial.
            None => DEFAULT_DIAL_TIMEOUT.min(connect_timeout),
        };
        Ok(Self {
            bastion,
            document: layer.document.clone(),
            sessions,
            idle_timeout: idle_timeout.unwrap_or(DEFAULT_IDLE_TIMEOUT),
            warm: layer.warm.unwrap_or(false),
            keep_alive: layer.keep_alive.unwrap_or(false),
            dial_timeout,
        })
    }
}

/// Returns a time in seconds, if set; zero is invalid.
pub(super) fn seconds(
    target: &str,
    key: &'static str,
    given: Option<u64>,
) -> Result<Option<Duration>, ConfigError> {
    match given {
        Some(0) => Err(ConfigError::invalid(
            target,
            key,
            0,
            "give whole seconds, 1 or more",
        )),
        given => Ok(given.map(Duration::from_secs)),
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

/// Returns the connection path that `layer` selects.
pub(super) fn via(
    target: &str,
    layer: &TargetLayer,
    connect_timeout: Duration,
) -> Result<Via, ConfigError> {
    match (layer.via.as_deref(), &layer.bastion) {
        (Some("direct"), _) => Ok(Via::Direct),
        (None | Some("ssm"), written) => {
            let bastion = match written {
                None => Bastion::Auto,
                Some(written) => written
                    .parse()
                    .map_err(|reason| ConfigError::invalid(target, "bastion", written, reason))?,
            };
            let settings = SsmSettings::from_layer(target, bastion, layer, connect_timeout)?;
            Ok(Via::Ssm(settings))
        }
        (Some(other), _) => Err(ConfigError::invalid(
            target,
            "via",
            other,
            format!(
                "{}it is \"ssm\" or \"direct\"",
                did_you_mean(other, ["ssm", "direct"])
            ),
        )),
    }
}
