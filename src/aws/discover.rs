//! What there is at AWS: databases by their identifiers, and nodes that can be bastions.
//!
//! Nothing here is needed for a connection whose host and bastion are written down, and nothing asks
//! for more permissions than it can do without: what may not be seen is named, and left out.

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
use crate::aws::{AwsContext, CredentialsError, Late};
use crate::base::foreign_text::ForeignText;
use crate::base::suggest::nearest;
use crate::config::{ConfigError, Db, Endpoint, Plan, Target};
use ask::Asker;
pub use nodes::MARK;
pub use rank::{Candidate, Ranked};

/// How long a look at AWS may take, all its calls together.
const DEADLINE: Duration = Duration::from_secs(15);

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

impl Kind {
    /// In a word.
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
    /// Whether PostgreSQL is spoken there. Proxies and their endpoints say so by being here at all.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        self.engine.as_deref().is_none_or(rds::is_postgres)
    }

    /// Whether RDS says that it can be connected to.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.status
            .as_deref()
            .is_none_or(|status| status == "available")
    }
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

/// What could be seen, and what could not.
///
/// Most who look want what is there, so this is a list of that.
#[derive(Clone, Debug)]
pub struct Seen<T> {
    /// What there is, as far as could be seen.
    pub found: Vec<T>,
    /// The calls that had no answer.
    pub missing: Vec<Missing>,
}

/// A call that had no answer.
#[derive(Clone, Debug)]
pub struct Missing {
    /// Its IAM action, such as `rds:DescribeDBProxies`.
    pub action: &'static str,
    /// Why.
    pub error: DiscoverError,
}

/// Some refusals have no words.
fn behind(message: &str) -> String {
    match message {
        "" => String::new(),
        message => format!(": {message}"),
    }
}

impl DiscoverError {
    /// Whether it is a permission that is missing.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Refused { denied: true, .. })
    }
}

impl<T> Seen<T> {
    /// The actions that are not allowed.
    #[must_use]
    pub fn denied(&self) -> Vec<&'static str> {
        let denied = self.missing.iter().filter(|call| call.error.is_denied());
        denied.map(|call| call.action).collect()
    }
}

impl<T> Deref for Seen<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.found
    }
}

impl<T> IntoIterator for Seen<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.found.into_iter()
    }
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
    #[error("AWS refused {action}: {}{}", .answer.code, behind(&.answer.message))]
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
        reason: ForeignText,
    },
    /// A call was not answered in time.
    #[error(transparent)]
    Late(Late),
    /// There is no database of that name.
    #[error("no database in {region} is called \"{wanted}\"")]
    NoDatabase {
        /// The identifier.
        wanted: Db,
        /// The region asked in.
        region: String,
        /// The one that may have been meant.
        nearest: Option<String>,
        /// Actions that would have shown more, and are not allowed.
        unseen: Vec<&'static str>,
    },
    /// It is there, and cannot be connected to.
    #[error("the database \"{wanted}\" {reason}")]
    Unusable {
        /// The identifier.
        wanted: Db,
        /// What is in the way: not PostgreSQL, no endpoint yet, no readers.
        reason: ForeignText,
    },
    /// AWS answered what cannot be understood.
    #[error("{action} answered something that is not as documented: {reason}")]
    Answer {
        /// The IAM action.
        action: &'static str,
        /// What was wrong with it.
        reason: ForeignText,
    },
}

/// Most bytes of an identifier: ARNs have at most 2,048 characters.
const LONGEST_ID: usize = 2048;

/// Whether a text of AWS can be an identifier of a thing there: an ARN, an id, a name that AWS allows.
pub(crate) fn is_id(text: &str) -> bool {
    let fits = (1..=LONGEST_ID).contains(&text.len());
    fits && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The region to look in: this one, or that of the environment or the profile.
///
/// # Errors
/// [`DiscoverError::NoRegion`], [`DiscoverError::Credentials`].
pub async fn region(aws: &AwsContext, wanted: Option<&str>) -> Result<String, DiscoverError> {
    let found = match wanted {
        Some(region) => Some(region.to_owned()),
        None => aws.region().await?,
    };
    found
        .filter(|region| !region.is_empty())
        .ok_or(DiscoverError::NoRegion)
}

/// Every PostgreSQL database of the region that the credentials can see, by identifier. Instances of
/// a cluster are part of the cluster. Takes no longer than 15 s.
///
/// # Errors
/// [`DiscoverError`], when nothing at all could be found out.
pub async fn databases(aws: &AwsContext, region: &str) -> Result<Seen<Database>, DiscoverError> {
    let mut seen = postgres(&Asker::new(aws, region, DEADLINE)?).await;
    if seen.missing.len() == rds::CALLS {
        return Err(seen.missing.swap_remove(0).error);
    }
    Ok(seen)
}

async fn postgres(asker: &Asker<'_>) -> Seen<Database> {
    let rows = rds::all(asker).await;
    let found = rows.found.into_iter().map(|row| row.database);
    Seen {
        found: found.filter(Database::is_postgres).collect(),
        missing: rows.missing,
    }
}

/// What there is to connect to and to go through.
#[derive(Clone, Debug)]
pub struct Survey {
    /// As [`databases`] has it.
    pub databases: Vec<Database>,
    /// As [`nodes`] has it.
    pub nodes: Vec<Node>,
    /// The calls that had no answer.
    pub missing: Vec<Missing>,
}

impl Survey {
    /// The nodes as bastions for a database in this VPC.
    #[must_use]
    pub fn bastions(&self, vpc: Option<&str>) -> Ranked {
        let found = self.nodes.clone();
        let missing = Vec::new();
        rank::rank(Seen { found, missing }, vpc)
    }
}

/// Databases and managed nodes of the region, as far as the credentials can see them. Takes no longer
/// than 15 s.
///
/// # Errors
/// [`DiscoverError`], when nothing at all could be found out.
pub async fn survey(aws: &AwsContext, region: &str) -> Result<Survey, DiscoverError> {
    let asker = Asker::new(aws, region, DEADLINE)?;
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
            missing.push(Missing { action, error });
            Vec::new()
        }
    };
    Ok(Survey {
        databases: databases.found,
        nodes,
        missing,
    })
}

/// The database with this identifier: a cluster, an instance, a proxy, or an endpoint of one. Its
/// `endpoint` is where to connect: with `:reader`, where the readers are. Takes no longer than 15 s.
///
/// # Errors
/// [`DiscoverError`].
pub async fn find(aws: &AwsContext, region: &str, db: &Db) -> Result<Database, DiscoverError> {
    let asker = Asker::new(aws, region, DEADLINE)?;
    let unseen = match rds::by_identifier(&asker, &db.identifier).await? {
        rds::Search::Found(row) => return row.usable(db),
        rds::Search::Global(members) => {
            return Err(DiscoverError::Unusable {
                wanted: db.clone(),
                reason: format!(
                    "is an Aurora global database; name one of its clusters: {members}"
                )
                .into(),
            });
        }
        rds::Search::Nothing { unseen } => unseen,
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

/// Why the database of a plan has no place.
#[derive(Debug, Error)]
pub enum NotLocated {
    /// It was not found.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// What was found contradicts the plan.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// The target of a plan that names its database as `db`, and what was found. Where no database name is
/// configured, it is that of the one which was made with it. Takes no longer than 15 s.
///
/// # Errors
/// [`NotLocated`].
pub async fn locate(
    aws: &AwsContext,
    plan: &Plan,
    db: &Db,
) -> Result<(Target, Database), NotLocated> {
    let region = region(aws, plan.region.as_deref()).await?;
    let found = find(aws, &region, db).await?;
    let endpoint = found.endpoint.clone();
    let endpoint = endpoint.ok_or_else(|| DiscoverError::Unusable {
        wanted: db.clone(),
        reason: "has no endpoint yet".into(),
    })?;
    let target = plan.at(endpoint)?;
    let target = Target {
        database: target.database.or_else(|| found.database.clone()),
        ..target
    };
    Ok((target, found))
}

/// The database that has this endpoint; `None`: none that RDS knows here. It need not be PostgreSQL,
/// nor available. Takes no longer than 15 s.
///
/// # Errors
/// [`DiscoverError`].
pub async fn at(
    aws: &AwsContext,
    region: &str,
    endpoint: &Endpoint,
) -> Result<Option<Database>, DiscoverError> {
    let row = rds::at(&Asker::new(aws, region, DEADLINE)?, endpoint).await?;
    Ok(row.map(|row| row.database))
}

/// Every managed node of the region, with what EC2 adds where it may be asked; by id. Takes no longer
/// than 15 s.
///
/// # Errors
/// [`DiscoverError`].
pub async fn nodes(aws: &AwsContext, region: &str) -> Result<Seen<Node>, DiscoverError> {
    nodes::all(&Asker::new(aws, region, DEADLINE)?).await
}

/// The managed nodes that can carry a tunnel to `database`, the best first. Without a database, or
/// where RDS does not say which VPC it is in, that plays no part. Takes no longer than 15 s.
///
/// # Errors
/// [`DiscoverError`]. That there are none is no error.
pub async fn bastions(
    aws: &AwsContext,
    region: &str,
    database: Option<&Endpoint>,
) -> Result<Ranked, DiscoverError> {
    let asker = Asker::new(aws, region, DEADLINE)?;
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
        ranked.missing.push(Missing { action, error });
    }
    Ok(ranked)
}

/// The same for a database whose VPC is known already.
///
/// # Errors
/// As for [`bastions`].
pub async fn bastions_in(
    aws: &AwsContext,
    region: &str,
    vpc: Option<&str>,
) -> Result<Ranked, DiscoverError> {
    let nodes = nodes::all(&Asker::new(aws, region, DEADLINE)?).await?;
    Ok(rank::rank(nodes, vpc))
}
