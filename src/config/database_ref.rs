//! Notations of a target's database: its endpoint, or its RDS identifier.

use std::fmt;

use super::{Endpoint, EndpointKind, TargetLayer};

/// Suffix of an identifier that selects the readers of a cluster.
const READER: &str = ":reader";
/// Maximum length of the identifier of an instance or a cluster (RDS API Reference,
/// `CreateDBInstance`).
const LONGEST_IDENTIFIER: usize = 63;

/// Notation of a target's database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseRef {
    /// By its endpoint.
    Host(Endpoint),
    /// By its RDS identifier.
    Identifier(RdsIdentifier),
}

/// Identifier of a database: of an instance, a cluster, a proxy, or an endpoint of one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RdsIdentifier {
    /// Identifier in lower case, as in RDS.
    pub identifier: String,
    /// `true` for the readers of the cluster.
    pub reader: bool,
}

impl fmt::Display for RdsIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.identifier)?;
        f.write_str(if self.reader { READER } else { "" })
    }
}

impl DatabaseRef {
    /// Returns the value of `host` or `db`.
    #[must_use]
    pub fn written(&self) -> String {
        match self {
            Self::Host(endpoint) => endpoint.to_string(),
            Self::Identifier(identifier) => identifier.to_string(),
        }
    }

    /// Adds the database to the settings of a target.
    pub(crate) fn write(&self, layer: &mut TargetLayer) {
        match self {
            Self::Host(endpoint) => layer.host = Some(endpoint.to_string()),
            Self::Identifier(identifier) => layer.db = Some(identifier.to_string()),
        }
    }

    /// Returns `true` if both name the same database, as far as their names tell it: the host name of
    /// an endpoint begins with the identifier of its instance, cluster or proxy.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Host(endpoint), Self::Identifier(identifier))
            | (Self::Identifier(identifier), Self::Host(endpoint)) => {
                RdsIdentifier::of(endpoint).as_ref() == Some(identifier)
            }
            (one, other) => one == other,
        }
    }
}

impl fmt::Display for DatabaseRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(endpoint) => endpoint.fmt(f),
            Self::Identifier(identifier) => write!(f, "RDS {identifier}"),
        }
    }
}

impl RdsIdentifier {
    /// Returns the identifier in the host name of an endpoint; `None` for custom endpoints and names
    /// that are not of RDS.
    #[must_use]
    pub fn of(endpoint: &Endpoint) -> Option<Self> {
        let reader = match endpoint.kind() {
            EndpointKind::Instance | EndpointKind::Cluster | EndpointKind::Proxy => false,
            EndpointKind::Reader => true,
            EndpointKind::Custom | EndpointKind::Dsql | EndpointKind::Other => return None,
        };
        let (identifier, _) = endpoint.host.split_once('.')?;
        Some(Self {
            identifier: identifier.to_owned(),
            reader,
        })
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (identifier, reader) = match text.strip_suffix(READER) {
            Some(identifier) => (identifier, true),
            None => (text, false),
        };
        // RDS API Reference, `CreateDBInstance`, `DBInstanceIdentifier`.
        let is_identifier = identifier.len() <= LONGEST_IDENTIFIER
            && identifier.starts_with(|c: char| c.is_ascii_alphabetic())
            && identifier
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if is_identifier {
            return Ok(Self {
                identifier: identifier.to_ascii_lowercase(),
                reader,
            });
        }
        Err(match identifier.contains('.') {
            true => "it is a host name; set host = \"…\" for an endpoint, db for an identifier".to_owned(),
            false => "expected the identifier of an instance, a cluster or a proxy, as shown by pgiam list and the RDS console, or IDENTIFIER:reader for the readers of a cluster".to_owned(),
        })
    }
}
