//! `DescribeDBClusters` and `DescribeDBClusterEndpoints`.

use super::{ApiError, CREATED, Call, Filter, Xml, names, not_found, tags};
use crate::aws::inventory::{ClusterEndpoint, DbCluster};

const FILTERS: [&str; 5] = [
    "clone-group-id",
    "db-cluster-id",
    "db-cluster-resource-id",
    "domain",
    "engine",
];
const ENDPOINT_FILTERS: [&str; 4] = [
    "db-cluster-endpoint-type",
    "db-cluster-endpoint-custom-type",
    "db-cluster-endpoint-id",
    "db-cluster-endpoint-status",
];

/// The clusters in question: the named one, or all.
fn clusters(call: &Call<'_>, action: &str) -> Result<Vec<DbCluster>, ApiError> {
    let id = call.identifier(action, "cluster", "DBClusterIdentifier")?;
    let lists = call.cloud.inventory.lists();
    let mut found: Vec<_> = lists.clusters.into_values().collect();
    if let Some(id) = id {
        found.retain(|cluster| cluster.id == id);
        if found.is_empty() {
            let text = format!("DBCluster {id} not found.");
            return Err(not_found("DBClusterNotFoundFault", text));
        }
    }
    Ok(found)
}

pub(super) fn describe(call: &Call<'_>) -> Result<Xml, ApiError> {
    let mut found = clusters(call, "rds:DescribeDBClusters")?;
    let filters = call.filters(&FILTERS)?;
    found.retain(|cluster| filters.iter().all(|filter| fits(filter, cluster)));
    call.page(("DBClusters", "DBCluster"), found, |xml, cluster| {
        describe_one(call, xml, &cluster);
    })
}

fn fits(filter: &Filter<'_>, cluster: &DbCluster) -> bool {
    match filter.name {
        "db-cluster-id" => names(filter, &cluster.id),
        "db-cluster-resource-id" => filter.values.contains(&cluster.resource_id.as_str()),
        "engine" => filter.values.contains(&cluster.engine.as_str()),
        _ => false,
    }
}

fn describe_one(call: &Call<'_>, xml: &mut Xml, cluster: &DbCluster) {
    let region = call.cloud.iam.region();
    let zones = ["a", "b", "c"].map(|zone| format!("{region}{zone}"));
    let custom = cluster.endpoints.iter().map(|endpoint| &endpoint.host);
    xml.text("AllocatedStorage", 1)
        .texts("AvailabilityZones", "AvailabilityZone", zones)
        .text("BackupRetentionPeriod", 7)
        .maybe("DatabaseName", cluster.database.as_ref())
        .text("DBClusterIdentifier", &cluster.id)
        .text("DBClusterParameterGroup", "default.aurora-postgresql17")
        .text("DBSubnetGroup", &cluster.subnet_group)
        .text("Status", &cluster.status)
        .text("Endpoint", &cluster.host)
        .maybe("ReaderEndpoint", cluster.reader.as_ref())
        .texts("CustomEndpoints", "member", custom)
        .text("MultiAZ", cluster.members.len() > 1)
        .text("Engine", &cluster.engine)
        .text("EngineVersion", &cluster.version)
        .text("Port", cluster.port)
        .text("MasterUsername", &cluster.master_user);
    let members = cluster.members.iter();
    xml.list(
        "DBClusterMembers",
        "DBClusterMember",
        members,
        |xml, member| {
            xml.text("DBInstanceIdentifier", &member.instance)
                .text("IsClusterWriter", member.writer)
                .text("DBClusterParameterGroupStatus", "in-sync")
                .text("PromotionTier", 1);
        },
    );
    super::security_groups(xml, &cluster.security_groups);
    xml.text("HostedZoneId", "Z1RLNUO7B9Q6NB")
        .text("StorageEncrypted", true)
        .text("DbClusterResourceId", &cluster.resource_id)
        .text("DBClusterArn", call.rds_arn("cluster", &cluster.id))
        .text("IAMDatabaseAuthenticationEnabled", cluster.iam)
        .text("ClusterCreateTime", CREATED)
        .text("EngineMode", &cluster.mode)
        .text("DeletionProtection", true)
        .text("NetworkType", "IPV4");
    tags(xml, &cluster.tags);
}

/// One row of the list of endpoints.
struct Row<'a> {
    cluster: &'a DbCluster,
    host: &'a str,
    kind: &'static str,
    custom: Option<&'a ClusterEndpoint>,
}

impl Row<'_> {
    fn status(&self) -> &'static str {
        match self.cluster.status.as_str() {
            "available" => "available",
            _ => "inactive",
        }
    }

    fn fits(&self, filter: &Filter<'_>) -> bool {
        let any = |value: &str| filter.values.iter().any(|v| v.eq_ignore_ascii_case(value));
        match filter.name {
            "db-cluster-endpoint-type" => any(self.kind),
            "db-cluster-endpoint-custom-type" => self.custom.is_some_and(|c| any(&c.kind)),
            "db-cluster-endpoint-id" => self.custom.is_some_and(|c| any(&c.id)),
            _ => any(self.status()),
        }
    }
}

pub(super) fn describe_endpoints(call: &Call<'_>) -> Result<Xml, ApiError> {
    let found = clusters(call, "rds:DescribeDBClusterEndpoints")?;
    let filters = call.filters(&ENDPOINT_FILTERS)?;
    let asked = call.form.get("DBClusterEndpointIdentifier");
    let mut rows: Vec<Row<'_>> = found.iter().flat_map(rows).collect();
    // Nothing is wrong with an identifier that is not there: the list is empty.
    rows.retain(|row| {
        let custom = row.custom.map(|custom| custom.id.as_str());
        let named = asked.is_none_or(|id| custom.is_some_and(|c| c.eq_ignore_ascii_case(id)));
        named && filters.iter().all(|filter| row.fits(filter))
    });
    let list = ("DBClusterEndpoints", "DBClusterEndpointList");
    call.page(list, rows, |xml, row| describe_row(call, xml, &row))
}

fn rows(cluster: &DbCluster) -> Vec<Row<'_>> {
    let row = |host, kind, custom| Row {
        cluster,
        host,
        kind,
        custom,
    };
    let mut rows = vec![row(&cluster.host, "WRITER", None)];
    rows.extend(cluster.reader.iter().map(|host| row(host, "READER", None)));
    let custom = cluster.endpoints.iter();
    rows.extend(custom.map(|endpoint| row(&endpoint.host, "CUSTOM", Some(endpoint))));
    rows
}

fn describe_row(call: &Call<'_>, xml: &mut Xml, row: &Row<'_>) {
    // The two that every cluster has are without an identifier.
    xml.maybe(
        "DBClusterEndpointIdentifier",
        row.custom.map(|custom| &custom.id),
    )
    .text("DBClusterIdentifier", &row.cluster.id)
    .text("Endpoint", row.host)
    .text("Status", row.status())
    .text("EndpointType", row.kind);
    if let Some(custom) = row.custom {
        xml.text("CustomEndpointType", &custom.kind)
            .texts("StaticMembers", "member", &custom.members)
            .texts("ExcludedMembers", "member", [""; 0])
            .text(
                "DBClusterEndpointArn",
                call.rds_arn("cluster-endpoint", &custom.id),
            );
    }
}
