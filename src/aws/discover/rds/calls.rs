//! RDS calls, each for all resources of a kind or for one identifier.

use std::error::Error;
use std::task::{Context, Poll};

use aws_sdk_rds::Client;
use aws_sdk_rds::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_rds::types::{Filter, GlobalClusterMember};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::row::{self, DatabaseRow};
use crate::aws::discover::DiscoverError;
use crate::aws::discover::ask::LookupContext;
use crate::base::names::Region;

pub(super) const CLUSTERS: &str = "rds:DescribeDBClusters";
pub(super) const INSTANCES: &str = "rds:DescribeDBInstances";
pub(super) const PROXIES: &str = "rds:DescribeDBProxies";
pub(super) const CLUSTER_ENDPOINTS: &str = "rds:DescribeDBClusterEndpoints";
pub(super) const PROXY_ENDPOINTS: &str = "rds:DescribeDBProxyEndpoints";
const GLOBAL: &str = "rds:DescribeGlobalClusters";

/// Selection of the resources to list.
#[derive(Clone, Copy)]
pub(super) enum ResourceFilter<'a> {
    All,
    One(&'a str),
    OfCluster(&'a str),
}

impl ResourceFilter<'_> {
    fn one(self) -> Option<String> {
        match self {
            Self::One(identifier) => Some(identifier.to_owned()),
            Self::All | Self::OfCluster(_) => None,
        }
    }

    fn filters(self) -> Option<Vec<Filter>> {
        match self {
            Self::OfCluster(identifier) => {
                let filter = Filter::builder().name("db-cluster-id");
                Some(vec![filter.values(identifier).build()])
            }
            Self::All | Self::One(_) => None,
        }
    }
}

/// A future that returns rows. Boxed, because the SDK's calls are large and several run at a time:
/// unboxed they would not fit on a thread's stack.
type RowsFuture<'a> = BoxFuture<'a, Result<Vec<DatabaseRow>, DiscoverError>>;

/// Runs a call and extracts rows from each page. "Not found" gives no rows.
async fn rows<P, T, E>(
    asker: &LookupContext<'_>,
    (action, which): (&'static str, ResourceFilter<'_>),
    mut next: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<P, SdkError<E>>>>,
    listed: impl Fn(P) -> Option<Vec<T>>,
    row: impl Fn(T, &Region) -> Option<DatabaseRow>,
) -> Result<Vec<DatabaseRow>, DiscoverError>
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let one = matches!(which, ResourceFilter::One(_));
    let next = |cx: &mut Context<'_>| match next(cx) {
        Poll::Ready(Some(Err(error))) if one && is_none(error.code()) => Poll::Ready(None),
        answer => answer,
    };
    let rows = |page| -> Vec<DatabaseRow> {
        let listed = listed(page).unwrap_or_default().into_iter();
        let rows = listed.filter_map(|one| row(one, asker.region));
        rows.filter_map(DatabaseRow::checked).collect()
    };
    asker.list(action, next, rows).await
}

/// Returns `true` if an error only says that the resource does not exist. For identifiers that are
/// never valid (`a--b`) RDS returns `InvalidParameterValue`.
fn is_none(code: Option<&str>) -> bool {
    code.is_some_and(|code| code.contains("NotFound") || code == "InvalidParameterValue")
}

async fn client(asker: &LookupContext<'_>) -> Result<Client, DiscoverError> {
    Ok(asker.aws.rds(asker.region).await?)
}

pub(super) fn clusters<'a>(
    asker: &'a LookupContext<'_>,
    which: ResourceFilter<'a>,
) -> RowsFuture<'a> {
    async move {
        let call = client(asker).await?.describe_db_clusters();
        let call = call.set_db_cluster_identifier(which.one());
        let mut pages = call.into_paginator().send();
        rows(
            asker,
            (CLUSTERS, which),
            |cx| pages.poll_next(cx),
            |page| page.db_clusters,
            row::of_cluster,
        )
        .await
    }
    .boxed()
}

pub(super) fn instances<'a>(
    asker: &'a LookupContext<'_>,
    which: ResourceFilter<'a>,
) -> RowsFuture<'a> {
    async move {
        let call = client(asker).await?.describe_db_instances();
        let call = call.set_db_instance_identifier(which.one());
        let call = call.set_filters(which.filters());
        let mut pages = call.into_paginator().send();
        rows(
            asker,
            (INSTANCES, which),
            |cx| pages.poll_next(cx),
            |page| page.db_instances,
            row::of_instance,
        )
        .await
    }
    .boxed()
}

pub(super) fn proxies<'a>(
    asker: &'a LookupContext<'_>,
    which: ResourceFilter<'a>,
) -> RowsFuture<'a> {
    async move {
        let call = client(asker).await?.describe_db_proxies();
        let call = call.set_db_proxy_name(which.one());
        let mut pages = call.into_paginator().send();
        rows(
            asker,
            (PROXIES, which),
            |cx| pages.poll_next(cx),
            |page| page.db_proxies,
            row::of_proxy,
        )
        .await
    }
    .boxed()
}

pub(super) fn cluster_endpoints<'a>(
    asker: &'a LookupContext<'_>,
    which: ResourceFilter<'a>,
) -> RowsFuture<'a> {
    async move {
        let call = client(asker).await?.describe_db_cluster_endpoints();
        let call = call.set_db_cluster_endpoint_identifier(which.one());
        let mut pages = call.into_paginator().send();
        rows(
            asker,
            (CLUSTER_ENDPOINTS, which),
            |cx| pages.poll_next(cx),
            |page| page.db_cluster_endpoints,
            row::of_cluster_endpoint,
        )
        .await
    }
    .boxed()
}

pub(super) fn proxy_endpoints<'a>(
    asker: &'a LookupContext<'_>,
    which: ResourceFilter<'a>,
) -> RowsFuture<'a> {
    async move {
        let call = client(asker).await?.describe_db_proxy_endpoints();
        let call = call.set_db_proxy_endpoint_name(which.one());
        let mut pages = call.into_paginator().send();
        rows(
            asker,
            (PROXY_ENDPOINTS, which),
            |cx| pages.poll_next(cx),
            |page| page.db_proxy_endpoints,
            row::of_proxy_endpoint,
        )
        .await
    }
    .boxed()
}

/// Describes the clusters of a global database; `None` if no global database has this identifier.
pub(super) fn global<'a>(
    asker: &'a LookupContext<'_>,
    identifier: &'a str,
) -> BoxFuture<'a, Result<Option<String>, DiscoverError>> {
    async move {
        let call = client(asker).await?.describe_global_clusters();
        let call = call.global_cluster_identifier(identifier).send();
        let found = asker.sdk(GLOBAL, call).await?;
        let found = found.global_clusters.unwrap_or_default().into_iter().next();
        let members = found.and_then(|found| found.global_cluster_members);
        Ok(members.map(|members| {
            let members: Vec<String> = members.iter().filter_map(member).collect();
            members.join(", ")
        }))
    }
    .boxed()
}

/// Returns `orders-eu in eu-central-1` for the ARN
/// `arn:aws:rds:eu-central-1:111122223333:cluster:orders-eu`.
fn member(member: &GlobalClusterMember) -> Option<String> {
    let mut parts = member.db_cluster_arn.as_deref()?.split(':');
    let region = parts.nth(3)?;
    let identifier = parts.next_back()?;
    let role = match member.is_writer {
        Some(true) => " (the writer)",
        _ => "",
    };
    Some(format!("{identifier} in {region}{role}"))
}
