//! RDS resources: clusters, instances, proxies and their endpoints.

mod calls;
mod row;

use super::ask::LookupContext;
use super::{Database, DiscoverError, FailedCall, PartialListing};
use crate::base::error_text::chain;
use crate::config::{Endpoint, EndpointKind};
use calls::ResourceFilter;
pub(super) use row::{DatabaseRow, is_postgres};

/// Result of a search by identifier.
pub(super) enum SearchResult {
    Found(Box<DatabaseRow>),
    /// Description of the clusters of a global database.
    Global(String),
    Nothing {
        /// Denied IAM actions that could have found more.
        unseen: Vec<&'static str>,
    },
}

/// Number of calls that [`all`] makes.
pub(super) const CALLS: usize = 5;

/// Returns every database of any engine, sorted by identifier.
pub(super) async fn all(asker: &LookupContext<'_>) -> PartialListing<DatabaseRow> {
    let (clusters, instances, proxies, cluster_endpoints, proxy_endpoints) = tokio::join!(
        calls::clusters(asker, ResourceFilter::All),
        calls::instances(asker, ResourceFilter::All),
        calls::proxies(asker, ResourceFilter::All),
        calls::cluster_endpoints(asker, ResourceFilter::All),
        calls::proxy_endpoints(asker, ResourceFilter::All),
    );
    let mut missing = Vec::new();
    let mut take = |action, rows: Result<Vec<DatabaseRow>, DiscoverError>| {
        rows.unwrap_or_else(|error| {
            missing.push(FailedCall { action, error });
            Vec::new()
        })
    };
    let mut clusters = take(calls::CLUSTERS, clusters);
    let mut instances = take(calls::INSTANCES, instances);
    let mut proxies = take(calls::PROXIES, proxies);
    let mut endpoints = take(calls::CLUSTER_ENDPOINTS, cluster_endpoints);
    endpoints.extend(take(calls::PROXY_ENDPOINTS, proxy_endpoints));
    for cluster in &mut clusters {
        let mut members = instances.iter().filter(|instance| instance.is_of(cluster));
        if let Some(member) = members.next() {
            cluster.is_where(member);
        }
    }
    // Instances of a cluster that may not be listed are kept as rows of their own.
    instances.retain(|instance| !clusters.iter().any(|cluster| instance.is_of(cluster)));
    for endpoint in &mut endpoints {
        let mut parents = clusters.iter().chain(&proxies);
        if let Some(parent) = parents.find(|parent| endpoint.is_of(parent)) {
            endpoint.inherit(parent);
        }
    }
    let mut found = clusters;
    found.append(&mut instances);
    found.append(&mut proxies);
    found.append(&mut endpoints);
    found.sort_by(|a, b| a.database.identifier.cmp(&b.database.identifier)); // Stable sort.
    PartialListing { found, missing }
}

/// Finds the database with this identifier. Each call names the identifier: a policy may allow
/// access to one resource and deny listing all.
///
/// # Errors
/// An error that leaves open whether the database exists.
pub(super) async fn by_identifier(
    asker: &LookupContext<'_>,
    identifier: &str,
) -> Result<SearchResult, DiscoverError> {
    let one = ResourceFilter::One(identifier);
    let mut answers = LookupAnswers::default();
    let (clusters, instances, proxies) = tokio::join!(
        calls::clusters(asker, one),
        calls::instances(asker, one),
        calls::proxies(asker, one),
    );
    answers.take([clusters, instances, proxies]);
    if let Some(row) = answers.preferred() {
        return Ok(SearchResult::Found(Box::new(complete(asker, row).await)));
    }
    let optional = asker.optional();
    let (cluster_endpoints, proxy_endpoints, global) = tokio::join!(
        calls::cluster_endpoints(asker, one),
        calls::proxy_endpoints(asker, one),
        calls::global(&optional, identifier),
    );
    answers.take([cluster_endpoints, proxy_endpoints]);
    if let Some(row) = answers.preferred() {
        return Ok(SearchResult::Found(Box::new(complete(asker, row).await)));
    }
    match global {
        Ok(Some(members)) => Ok(SearchResult::Global(members)),
        _ => answers.nothing(),
    }
}

/// Answers of the calls for one identifier.
#[derive(Default)]
struct LookupAnswers {
    found: Vec<DatabaseRow>,
    refused: Vec<DiscoverError>,
}

impl LookupAnswers {
    fn take<const N: usize>(&mut self, answers: [Result<Vec<DatabaseRow>, DiscoverError>; N]) {
        for answer in answers {
            match answer {
                Ok(mut rows) => self.found.append(&mut rows),
                Err(error) => self.refused.push(error),
            }
        }
    }

    /// Selects the best match. A cluster and one of its instances may have the same identifier;
    /// then the cluster is selected.
    fn preferred(&mut self) -> Option<DatabaseRow> {
        let rows = &mut self.found;
        let postgres = rows.iter().position(|row| row.database.is_postgres());
        (!rows.is_empty()).then(|| rows.swap_remove(postgres.unwrap_or(0)))
    }

    /// Returns the result when nothing was found: an error if a denied call may have hidden the
    /// database.
    fn nothing(self) -> Result<SearchResult, DiscoverError> {
        let refused = self.refused.into_iter();
        let (few, other): (Vec<_>, Vec<_>) = refused.partition(is_of_a_few);
        match other.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(SearchResult::Nothing {
                unseen: few.iter().filter_map(action).collect(),
            }),
        }
    }
}

/// Returns `true` if a denied or unknown action only hides rare resources: a wrong identifier is
/// more likely then.
fn is_of_a_few(error: &DiscoverError) -> bool {
    const MOST: [&str; 2] = [calls::CLUSTERS, calls::INSTANCES];
    let DiscoverError::Refused { action, answer, .. } = error else {
        return false;
    };
    let is_unknown = answer.code == "InvalidAction" || answer.code.starts_with("HTTP status");
    !MOST.contains(action) && (error.is_denied() || is_unknown)
}

fn action(error: &DiscoverError) -> Option<&'static str> {
    match error {
        DiscoverError::Refused { action, .. } if error.is_denied() => Some(action),
        _ => None,
    }
}

/// Adds optional data that the row's list does not contain.
async fn complete(asker: &LookupContext<'_>, mut row: DatabaseRow) -> DatabaseRow {
    let asker = &asker.optional();
    let Some(parent) = row.parent.clone() else {
        if row.is_cluster() {
            place(asker, &mut row).await;
        }
        return row;
    };
    let parents = match row.is_of_proxy() {
        true => calls::proxies(asker, ResourceFilter::One(&parent)).await,
        false => calls::clusters(asker, ResourceFilter::One(&parent)).await,
    };
    let parents = parents.unwrap_or_else(|error| {
        tracing::debug!(
            reason = &*chain(&error),
            "cannot describe the cluster {parent}"
        );
        Vec::new()
    });
    if let Some(mut parent) = parents.into_iter().next() {
        if row.is_endpoint() && parent.is_cluster() {
            place(asker, &mut parent).await;
        }
        row.inherit(&parent);
    }
    row
}

/// Adds the VPC of a cluster from its instances: the cluster itself does not have it.
async fn place(asker: &LookupContext<'_>, cluster: &mut DatabaseRow) {
    let which = ResourceFilter::OfCluster(&cluster.database.identifier);
    match calls::instances(asker, which).await {
        Ok(members) => {
            if let Some(member) = members.first() {
                cluster.is_where(member);
            }
        }
        Err(error) => tracing::debug!(
            reason = &*chain(&error),
            "cannot look up the VPC of {}",
            cluster.database.identifier
        ),
    }
}

/// Finds the database with this endpoint.
///
/// # Errors
/// Any error of a call.
pub(super) async fn at(
    asker: &LookupContext<'_>,
    endpoint: &Endpoint,
) -> Result<Option<DatabaseRow>, DiscoverError> {
    let host = endpoint.host.as_str();
    // The first label is the identifier; the other labels give the kind of resource.
    let Some((identifier, rest)) = host.split_once('.') else {
        return Ok(None);
    };
    let one = ResourceFilter::One(identifier);
    let rows = match endpoint.kind() {
        EndpointKind::Instance => calls::instances(asker, one).await?,
        EndpointKind::Cluster | EndpointKind::Reader => calls::clusters(asker, one).await?,
        EndpointKind::Custom => calls::cluster_endpoints(asker, one).await?,
        EndpointKind::Proxy if rest.starts_with("endpoint.") => {
            calls::proxy_endpoints(asker, one).await?
        }
        EndpointKind::Proxy => calls::proxies(asker, one).await?,
        EndpointKind::Dsql | EndpointKind::Other => return Ok(None),
    };
    let is_there = |place: &Option<Endpoint>| place.as_ref().is_some_and(|at| at.host == host);
    let is_it = |database: &Database| is_there(&database.endpoint) || is_there(&database.reader);
    match rows.into_iter().find(|row| is_it(&row.database)) {
        Some(row) => Ok(Some(complete(asker, row).await)),
        None => Ok(None),
    }
}
