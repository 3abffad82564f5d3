//! A target as configured. It may name its database by its RDS identifier.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::file::Layer;
use super::via::{seconds, via};
use super::{
    ConfigError, DEFAULT_CONNECT_TIMEOUT, DEFAULT_LOCAL_PORT, DEFAULT_UPSTREAM_PORT, Endpoint,
    LoginSettings, Target, Via,
};
use crate::base::foreign_text::is_invisible;

/// Suffix of an identifier that selects the readers of a cluster.
const READER: &str = ":reader";
/// Maximum length of the identifier of an instance or a cluster (RDS API Reference,
/// `CreateDBInstance`).
const LONGEST_IDENTIFIER: usize = 63;

/// Notation of a target's database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// By its endpoint.
    Host(Endpoint),
    /// By its RDS identifier.
    Db(Db),
}

/// Identifier of a database: of an instance, a cluster, a proxy, or an endpoint of one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Db {
    /// Identifier in lower case, as in RDS.
    pub identifier: String,
    /// `true` for the readers of the cluster.
    pub reader: bool,
}

impl fmt::Display for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.identifier)?;
        f.write_str(if self.reader { READER } else { "" })
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(endpoint) => endpoint.fmt(f),
            Self::Db(db) => write!(f, "RDS {db}"),
        }
    }
}

impl Db {
    fn parse(text: &str) -> Result<Self, String> {
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
            true => "it looks like a host name; write host = \"…\" for an endpoint, and db for an identifier".to_owned(),
            false => "write the identifier of an instance, a cluster or a proxy as pgiam list and the RDS console show it, or IDENTIFIER:reader for the readers of a cluster".to_owned(),
        })
    }
}

/// A target as configured. [`Plan::target`] and [`Plan::at`] convert it to a [`Target`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Name in the file.
    pub name: String,
    /// The database.
    pub wanted: Wanted,
    /// Region as written; the host's name may contain another one.
    pub region: Option<String>,
    /// See [`Target::user`].
    pub user: Option<String>,
    /// See [`Target::database`].
    pub database: Option<String>,
    /// See [`Target::local_port`].
    pub local_port: u16,
    /// See [`Target::via`].
    pub via: Via,
    /// See [`Target::profile`].
    pub profile: Option<String>,
    /// See [`Target::ca_file`].
    pub ca_file: Option<PathBuf>,
    /// See [`Target::connect_timeout`].
    pub connect_timeout: Duration,
    /// See [`Target::login`].
    pub login: LoginSettings,
}

impl Plan {
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
        let wanted = match (&layer.host, &layer.db) {
            (Some(host), None) => Wanted::Host(
                host.parse()
                    .map_err(|reason| invalid("host", host, reason))?,
            ),
            (None, Some(db)) => {
                Wanted::Db(Db::parse(db).map_err(|reason| invalid("db", db, reason))?)
            }
            (Some(_), Some(db)) => {
                let reason = "host says which database it is, too; leave one of the two out";
                return Err(invalid("db", db, reason.to_owned()));
            }
            (None, None) => {
                return Err(ConfigError::Missing {
                    target: name,
                    key: "host",
                    hint: "host = \"NAME.REGION.rds.amazonaws.com\", as the RDS console shows the endpoint, or db = \"NAME\", its identifier, to have it looked up",
                });
            }
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
        let plan = Self {
            name,
            wanted,
            region: layer.region,
            user: layer.user,
            database: layer.database,
            local_port: layer.port.unwrap_or(DEFAULT_LOCAL_PORT),
            via,
            profile: layer.profile,
            ca_file: layer.ca_file,
            connect_timeout,
            login,
        };
        if let Wanted::Host(endpoint) = &plan.wanted {
            plan.region_at(endpoint)?;
        }
        Ok(plan)
    }

    /// Returns the target if nothing has to be looked up for it.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        match &self.wanted {
            Wanted::Host(endpoint) => self.at(endpoint.clone()).ok(), // Checked in `new`.
            Wanted::Db(_) => None,
        }
    }

    /// Returns the identifier that has to be looked up.
    #[must_use]
    pub fn lookup(&self) -> Option<&Db> {
        match &self.wanted {
            Wanted::Host(_) => None,
            Wanted::Db(db) => Some(db),
        }
    }

    /// Returns the target at this endpoint.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] when the configured region is not that of the endpoint.
    pub fn at(&self, endpoint: Endpoint) -> Result<Target, ConfigError> {
        let region = self.region_at(&endpoint)?;
        Ok(self.with(endpoint, region))
    }

    /// Returns the target for messages before it is located: its endpoint has the identifier in
    /// place of a host name.
    #[must_use]
    pub fn anywhere(&self) -> Target {
        let endpoint = Endpoint {
            host: self.wanted.to_string(),
            port: DEFAULT_UPSTREAM_PORT,
        };
        self.with(endpoint, self.region.clone())
    }

    fn with(&self, endpoint: Endpoint, region: Option<String>) -> Target {
        Target {
            name: self.name.clone(),
            region,
            endpoint,
            user: self.user.clone(),
            database: self.database.clone(),
            local_port: self.local_port,
            via: self.via.clone(),
            profile: self.profile.clone(),
            ca_file: self.ca_file.clone(),
            connect_timeout: self.connect_timeout,
            login: self.login.clone(),
        }
    }

    fn region_at(&self, endpoint: &Endpoint) -> Result<Option<String>, ConfigError> {
        match (&self.region, endpoint.region()) {
            (Some(region), Some(in_host)) if region != in_host => Err(ConfigError::Invalid {
                target: self.name.clone(),
                key: "region",
                value: region.clone(),
                reason: format!(
                    "the host is in {in_host}, and a token for another region is refused; leave region out"
                ),
            }),
            (Some(region), _) => Ok(Some(region.clone())),
            (None, in_host) => Ok(in_host.map(str::to_owned)),
        }
    }
}

/// Returns the reason why clients could not request a target of this name (`NAME/DATABASE`, see
/// [`route`](crate::postgres::route)), or why its name would be unreadable.
pub(super) fn flaw_of_name(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("is empty")
    } else if name.contains('/') {
        Some("contains a slash, behind which stands the database")
    } else if name.contains(is_invisible) {
        Some("contains a control character or an invisible one")
    } else {
        None
    }
}

/// Returns the time that the clients of a target wait.
pub(super) fn connect_timeout(target: &str, layer: &Layer) -> Result<Duration, ConfigError> {
    let given = seconds(target, "connect_timeout", layer.connect_timeout)?;
    Ok(given.unwrap_or(DEFAULT_CONNECT_TIMEOUT))
}
