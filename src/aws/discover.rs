//! Discovery of AWS resources: databases by identifier, and managed nodes that can be bastions.
//!
//! A connection with configured host and bastion does not need this module. Missing permissions are
//! reported, and the results that depend on them are left out.

mod ask;
mod ec2;
mod nodes;
mod rank;
mod rds;
#[cfg(test)]
pub(crate) mod tests;

use std::ops::Deref;
use std::time::Duration;

use thiserror::Error;

use crate::aws::api_error::ApiAnswer;
use crate::aws::{AwsContext, CallTimeout, CredentialsError};
use crate::base::foreign_text::ForeignText;
use crate::base::names::{NodeId, Region};
use crate::base::suggest::nearest;
use crate::config::{ConfigError, Endpoint, RdsIdentifier, ResolvedTarget, TargetConfig};
use ask::LookupContext;
pub use nodes::MARK;
pub use rank::{NodeRanking, RankedNode};

/// Deadline for all calls of one discovery together.
const DEADLINE: Duration = Duration::from_secs(15);

/// Kind of an RDS resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseKind {
    /// A DB instance that belongs to no cluster.
    Instance,
    /// An Aurora cluster, or a Multi-AZ DB cluster.
    Cluster,
    /// An RDS Proxy.
    Proxy,
    /// A custom endpoint of a cluster, or an additional one of a proxy.
    Endpoint,
}

/// A PostgreSQL database known to RDS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Kind of resource.
    pub kind: DatabaseKind,
    /// RDS identifier.
    pub identifier: String,
    /// Endpoint; for a cluster, that of its writer. `None` while the resource is being created.
    pub endpoint: Option<Endpoint>,
    /// Reader endpoint of a cluster.
    pub reader: Option<Endpoint>,
    /// Region.
    pub region: Region,
    /// Resource id for `rds-db:connect` policies: `db-…`, `cluster-…`, `prx-…`.
    pub resource_id: Option<String>,
    /// ARN.
    pub arn: Option<String>,
    /// IAM authentication is enabled; `None` if RDS does not report it.
    pub iam: Option<bool>,
    /// Status: `available`, `stopped` and so on.
    pub status: Option<String>,
    /// Engine: `postgres`, `aurora-postgresql`.
    pub engine: Option<String>,
    /// Engine version.
    pub engine_version: Option<String>,
    /// Name of the database created with the instance.
    pub database: Option<String>,
    /// VPC.
    pub vpc: Option<String>,
    /// Security groups.
    pub security_groups: Vec<String>,
    /// Subnets.
    pub subnets: Vec<String>,
    /// CA that signs its certificate, such as `rds-ca-rsa2048-g1`.
    pub ca: Option<String>,
}

impl DatabaseKind {
    /// Returns the kind as a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Cluster => "cluster",
            Self::Proxy => "proxy",
            Self::Endpoint => "endpoint",
        }
    }
}

impl Database {
    /// Returns `true` if the database speaks PostgreSQL. Proxies for PostgreSQL and their endpoints
    /// have no `engine`.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        self.engine.as_deref().is_none_or(rds::is_postgres)
    }

    /// Returns `true` if the status reported by RDS allows connections.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.status
            .as_deref()
            .is_none_or(|status| status == "available")
    }
}

/// A managed node known to Systems Manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Node id: `i-…` or `mi-…`.
    pub id: NodeId,
    /// `Name` tag if EC2 returns it, otherwise the computer name.
    pub name: Option<String>,
    /// `true` if its agent is connected to Systems Manager.
    pub online: bool,
    /// Ping status: `Online`, `ConnectionLost`, `Inactive`.
    pub ping: String,
    /// Time of the agent's last ping (RFC 3339).
    pub last_ping: Option<String>,
    /// Agent version.
    pub agent: Option<String>,
    /// Platform: `Linux`, `Windows`, `MacOS`.
    pub platform: Option<String>,
    /// VPC, if EC2 returns it.
    pub vpc: Option<String>,
    /// `true` if the node has the tag that marks bastions.
    pub marked: bool,
}

/// Results of a discovery and the calls that failed.
///
/// Dereferences to the results, which most callers need alone.
#[derive(Clone, Debug)]
pub struct PartialListing<T> {
    /// Resources that were found.
    pub found: Vec<T>,
    /// Calls that failed.
    pub missing: Vec<FailedCall>,
}

/// A call that failed.
#[derive(Clone, Debug)]
pub struct FailedCall {
    /// IAM action, such as `rds:DescribeDBProxies`.
    pub action: &'static str,
    /// Error of the call.
    pub error: DiscoverError,
}

/// Returns `: MESSAGE`, or nothing for an error without a message.
fn behind(message: &str) -> String {
    match message {
        "" => String::new(),
        message => format!(": {message}"),
    }
}

impl DiscoverError {
    /// Returns `true` if a permission is missing.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Refused { denied: true, .. })
    }
}

impl<T> PartialListing<T> {
    /// Returns the denied IAM actions.
    #[must_use]
    pub fn denied(&self) -> Vec<&'static str> {
        let denied = self.missing.iter().filter(|call| call.error.is_denied());
        denied.map(|call| call.action).collect()
    }
}

impl<T> Deref for PartialListing<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.found
    }
}

impl<T> IntoIterator for PartialListing<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.found.into_iter()
    }
}

/// Error of a discovery.
#[derive(Clone, Debug, Error)]
pub enum DiscoverError {
    /// There are no credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// No region is configured.
    #[error("no AWS region is known")]
    NoRegion,
    /// AWS refused a call.
    #[error("AWS refused {action}: {}{}", .answer.code, behind(&.answer.message))]
    Refused {
        /// IAM action, such as `rds:DescribeDBClusters`.
        action: &'static str,
        /// `true` if a permission is missing.
        denied: bool,
        /// AWS's answer.
        answer: ApiAnswer,
        /// Region of the request.
        region: Region,
    },
    /// AWS could not be reached.
    #[error("cannot reach {service} in {region}: {reason}")]
    Unreachable {
        /// Service: `rds`, `ec2`, `ssm`.
        service: &'static str,
        /// Region of the request.
        region: Region,
        /// Error with its causes.
        reason: ForeignText,
    },
    /// A call timed out.
    #[error(transparent)]
    Late(CallTimeout),
    /// No database has this identifier.
    #[error("found no database \"{wanted}\" in {region}")]
    NoDatabase {
        /// Identifier.
        wanted: RdsIdentifier,
        /// Region of the request.
        region: Region,
        /// Similar identifier to suggest.
        nearest: Option<String>,
        /// Denied IAM actions that could have found more.
        unseen: Vec<&'static str>,
    },
    /// The database exists but accepts no connections.
    #[error("the database \"{wanted}\" {reason}")]
    Unusable {
        /// Identifier.
        wanted: RdsIdentifier,
        /// Obstacle: not PostgreSQL, no endpoint yet, no readers.
        reason: ForeignText,
    },
    /// AWS's answer is invalid.
    #[error("invalid answer to {action}: {reason}")]
    Answer {
        /// IAM action.
        action: &'static str,
        /// Problem with the answer.
        reason: ForeignText,
    },
}

/// Maximum length of an identifier in bytes: ARNs have at most 2,048 characters.
const LONGEST_ID: usize = 2048;

/// Returns `true` if a text from AWS can be an identifier: an ARN, an id, or a valid name.
pub(crate) fn is_id(text: &str) -> bool {
    let fits = (1..=LONGEST_ID).contains(&text.len());
    fits && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Returns the region for a discovery: `wanted`, or that of the environment or the profile.
///
/// # Errors
/// [`DiscoverError::NoRegion`], [`DiscoverError::Credentials`].
pub async fn region(aws: &AwsContext, wanted: Option<&Region>) -> Result<Region, DiscoverError> {
    let found = match wanted {
        Some(region) => Some(region.to_owned()),
        None => aws.region().await?,
    };
    found
        .filter(|region| !region.is_empty())
        .ok_or(DiscoverError::NoRegion)
}

/// Returns every PostgreSQL database of the region that the credentials can list, sorted by
/// identifier. Instances of a cluster are part of the cluster. Takes at most 15 s.
///
/// # Errors
/// [`DiscoverError`] if every call failed.
pub async fn databases(
    aws: &AwsContext,
    region: &Region,
) -> Result<PartialListing<Database>, DiscoverError> {
    let mut seen = postgres(&LookupContext::new(aws, region, DEADLINE)?).await;
    if seen.missing.len() == rds::CALLS {
        return Err(seen.missing.swap_remove(0).error);
    }
    Ok(seen)
}

async fn postgres(asker: &LookupContext<'_>) -> PartialListing<Database> {
    let rows = rds::all(asker).await;
    let found = rows.found.into_iter().map(|row| row.database);
    PartialListing {
        found: found.filter(Database::is_postgres).collect(),
        missing: rows.missing,
    }
}

/// Databases and bastions of a region.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Databases, as from [`databases`].
    pub databases: Vec<Database>,
    /// Nodes, as from [`nodes`].
    pub nodes: Vec<Node>,
    /// Calls that failed.
    pub missing: Vec<FailedCall>,
}

impl Survey {
    /// Ranks the nodes as bastions for a database in this VPC.
    #[must_use]
    pub fn bastions(&self, vpc: Option<&str>) -> NodeRanking {
        let found = self.nodes.clone();
        let missing = Vec::new();
        rank::rank(PartialListing { found, missing }, vpc)
    }
}

/// Returns the databases and managed nodes of the region that the credentials can list. Takes at
/// most 15 s.
///
/// # Errors
/// [`DiscoverError`] if every call failed.
pub async fn survey(aws: &AwsContext, region: &Region) -> Result<Survey, DiscoverError> {
    let asker = LookupContext::new(aws, region, DEADLINE)?;
    let (databases, nodes) = tokio::join!(postgres(&asker), nodes::all(&asker));
    let mut missing = databases.missing;
    let nodes = match nodes {
        Ok(mut nodes) => {
            missing.append(&mut nodes.missing);
            nodes.found
        }
        Err(_) if missing.len() == rds::CALLS => return Err(missing.swap_remove(0).error),
        Err(error) => {
            let action = nodes::LIST;
            missing.push(FailedCall { action, error });
            Vec::new()
        }
    };
    Ok(Survey {
        databases: databases.found,
        nodes,
        missing,
    })
}

/// Finds the database with this identifier: a cluster, an instance, a proxy, or an endpoint of one.
/// Its `endpoint` is the address for connections; with `:reader`, the reader endpoint. Takes at
/// most 15 s.
///
/// # Errors
/// [`DiscoverError`].
pub async fn find(
    aws: &AwsContext,
    region: &Region,
    db: &RdsIdentifier,
) -> Result<Database, DiscoverError> {
    let asker = LookupContext::new(aws, region, DEADLINE)?;
    let unseen = match rds::by_identifier(&asker, &db.identifier).await? {
        rds::SearchResult::Found(row) => return row.usable(db),
        rds::SearchResult::Global(members) => {
            return Err(DiscoverError::Unusable {
                wanted: db.clone(),
                reason: format!("is an Aurora global database; use one of its clusters: {members}")
                    .into(),
            });
        }
        rds::SearchResult::Nothing { unseen } => unseen,
    };
    let known = rds::all(&asker).await.found;
    let known = known.iter().filter(|row| row.database.is_postgres());
    let known = known.map(|row| row.database.identifier.as_str());
    Err(DiscoverError::NoDatabase {
        wanted: db.clone(),
        region: region.to_owned(),
        nearest: nearest(&db.identifier, known).map(str::to_owned),
        unseen,
    })
}

/// Error while locating the database of a target.
#[derive(Debug, Error)]
pub enum NotLocated {
    /// The database was not found.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// The database contradicts the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Finds the database of a target that sets `db`. Returns the target and the database. If no database
/// name is configured, the target uses the one created with the instance. Takes at most 15 s.
///
/// # Errors
/// [`NotLocated`].
pub async fn locate(
    aws: &AwsContext,
    config: &TargetConfig,
    db: &RdsIdentifier,
) -> Result<(ResolvedTarget, Database), NotLocated> {
    let region = region(aws, config.region.as_ref()).await?;
    let found = find(aws, &region, db).await?;
    let endpoint = found.endpoint.clone();
    let endpoint = endpoint.ok_or_else(|| DiscoverError::Unusable {
        wanted: db.clone(),
        reason: "has no endpoint yet".into(),
    })?;
    let mut target = config.resolve(endpoint)?;
    target.iam_login = found.iam;
    if target.settings.database.is_none() {
        target.settings.database = found.database.clone();
    }
    Ok((target, found))
}

/// Finds the database with this endpoint; `None` if RDS has none in this region. Its engine and
/// status may be any. Takes at most 15 s.
///
/// # Errors
/// [`DiscoverError`].
pub async fn at(
    aws: &AwsContext,
    region: &Region,
    endpoint: &Endpoint,
) -> Result<Option<Database>, DiscoverError> {
    let row = rds::at(&LookupContext::new(aws, region, DEADLINE)?, endpoint).await?;
    Ok(row.map(|row| row.database))
}

/// Returns every managed node of the region, sorted by id, with data from EC2 if that is permitted.
/// Takes at most 15 s.
///
/// # Errors
/// [`DiscoverError`].
pub async fn nodes(
    aws: &AwsContext,
    region: &Region,
) -> Result<PartialListing<Node>, DiscoverError> {
    nodes::all(&LookupContext::new(aws, region, DEADLINE)?).await
}

/// Returns the managed nodes that can carry a tunnel to `database`, best first. Without a database,
/// or if RDS does not report its VPC, the VPC does not affect the ranking. Takes at most 15 s.
///
/// # Errors
/// [`DiscoverError`]. An empty result is not an error.
pub async fn bastions(
    aws: &AwsContext,
    region: &Region,
    database: Option<&Endpoint>,
) -> Result<NodeRanking, DiscoverError> {
    let asker = LookupContext::new(aws, region, DEADLINE)?;
    let vpc = async {
        let optional = asker.optional();
        match database {
            Some(endpoint) => rds::at(&optional, endpoint).await,
            None => Ok(None),
        }
    };
    let (nodes, database) = tokio::join!(nodes::all(&asker), vpc);
    let (database, unknown) = match database {
        Ok(row) => (row.map(|row| row.database), None),
        Err(error) => (None, Some(error)),
    };
    let vpc = database.and_then(|database| database.vpc);
    let mut ranked = rank::rank(nodes?, vpc.as_deref());
    if let Some(error) = unknown {
        let action = "rds:DescribeDBInstances";
        let action = match &error {
            DiscoverError::Refused { action, .. } => action,
            _ => action,
        };
        ranked.missing.push(FailedCall { action, error });
    }
    Ok(ranked)
}

/// As [`bastions`], for a database in a known VPC.
///
/// # Errors
/// As for [`bastions`].
pub async fn bastions_in(
    aws: &AwsContext,
    region: &Region,
    vpc: Option<&str>,
) -> Result<NodeRanking, DiscoverError> {
    let nodes = nodes::all(&LookupContext::new(aws, region, DEADLINE)?).await?;
    Ok(rank::rank(nodes, vpc))
}
