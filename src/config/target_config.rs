//! A target as configured. It may name its database by its RDS identifier.

use super::{
    ConfigError, DEFAULT_UPSTREAM_PORT, DatabaseRef, Endpoint, RdsIdentifier, ResolvedTarget,
    TargetLayer, TargetSettings,
};
use crate::base::foreign_text::is_invisible;
use crate::base::names::{Region, TargetName};

/// A target as configured. [`TargetConfig::resolved`] and [`TargetConfig::resolve`] convert it to a
/// [`ResolvedTarget`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetConfig {
    /// See [`ResolvedTarget::name`].
    pub name: TargetName,
    /// The database.
    pub database_ref: DatabaseRef,
    /// Region as written; the host's name may contain another one.
    pub region: Option<Region>,
    /// Settings that do not depend on the endpoint.
    pub settings: TargetSettings,
}

impl TargetConfig {
    pub(super) fn from_layer(name: String, layer: TargetLayer) -> Result<Self, ConfigError> {
        if let Some(reason) = name_fault(&name) {
            return Err(ConfigError::TargetName { name, reason });
        }
        let name = TargetName::from(name);
        let invalid =
            |key, value: &str, reason: String| ConfigError::invalid(&name, key, value, reason);
        let database_ref = match (&layer.host, &layer.db) {
            (Some(host), None) => DatabaseRef::Host(
                host.parse()
                    .map_err(|reason| invalid("host", host, reason))?,
            ),
            (None, Some(db)) => DatabaseRef::Identifier(
                RdsIdentifier::parse(db).map_err(|reason| invalid("db", db, reason))?,
            ),
            (Some(_), Some(db)) => {
                let reason = "host and db cannot be used together; remove one";
                return Err(invalid("db", db, reason.to_owned()));
            }
            (None, None) => {
                return Err(ConfigError::Missing {
                    target: name,
                    key: "host",
                    hint: "set host = \"NAME.REGION.rds.amazonaws.com\" (the endpoint in the RDS console), or db = \"NAME\" (the identifier, which pgiam looks up)",
                });
            }
        };
        let settings = TargetSettings::from_layer(&name, &layer)?;
        let config = Self {
            name,
            database_ref,
            region: layer.region,
            settings,
        };
        if let DatabaseRef::Host(endpoint) = &config.database_ref {
            config.region_of(endpoint)?;
        }
        Ok(config)
    }

    /// Creates the target that another process serves with the settings `theirs`; `flags` take
    /// precedence.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn of_running(
        name: &str,
        theirs: TargetLayer,
        flags: TargetLayer,
    ) -> Result<Self, ConfigError> {
        Self::from_layer(name.to_owned(), flags.over(theirs))
    }

    /// Returns the target if its endpoint needs no lookup.
    #[must_use]
    pub fn resolved(&self) -> Option<ResolvedTarget> {
        match &self.database_ref {
            DatabaseRef::Host(endpoint) => self.resolve(endpoint.clone()).ok(), // Checked in `from_layer`.
            DatabaseRef::Identifier(_) => None,
        }
    }

    /// Returns the identifier to look up, if the target has no endpoint.
    #[must_use]
    pub fn rds_identifier(&self) -> Option<&RdsIdentifier> {
        match &self.database_ref {
            DatabaseRef::Host(_) => None,
            DatabaseRef::Identifier(identifier) => Some(identifier),
        }
    }

    /// Returns the target with this endpoint.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] when the configured region is not that of the endpoint.
    pub fn resolve(&self, endpoint: Endpoint) -> Result<ResolvedTarget, ConfigError> {
        Ok(ResolvedTarget {
            iam_login: None,
            name: self.name.clone(),
            region: self.region_of(&endpoint)?,
            endpoint,
            settings: self.settings.clone(),
        })
    }

    /// Returns the target for messages before the lookup: its endpoint has the identifier in place
    /// of a host name.
    #[must_use]
    pub fn unresolved(&self) -> ResolvedTarget {
        ResolvedTarget {
            iam_login: None,
            name: self.name.clone(),
            region: self.region.clone(),
            endpoint: Endpoint {
                host: self.database_ref.to_string(),
                port: DEFAULT_UPSTREAM_PORT,
            },
            settings: self.settings.clone(),
        }
    }

    fn region_of(&self, endpoint: &Endpoint) -> Result<Option<Region>, ConfigError> {
        match (&self.region, endpoint.region()) {
            (Some(region), Some(in_host)) if *region != in_host => Err(ConfigError::invalid(
                &self.name,
                "region",
                region,
                format!("the host is in {in_host}; remove region"),
            )),
            (Some(region), _) => Ok(Some(region.clone())),
            (None, in_host) => Ok(in_host.map(Region::from)),
        }
    }
}

/// Returns the reason why clients could not request a target of this name (`NAME/DATABASE`, see
/// [`route`](crate::postgres::route)), or why its name would be unreadable.
pub(super) fn name_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("is empty")
    } else if name.contains('/') {
        Some("contains a slash, which separates target and database")
    } else if name.contains(is_invisible) {
        Some("contains a control character or an invisible character")
    } else {
        None
    }
}
