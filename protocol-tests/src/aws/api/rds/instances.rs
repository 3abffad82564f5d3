//! `DescribeDBInstances`.

use super::{ApiError, CREATED, Call, Filter, Xml, names, not_found, security_groups, tags};
use crate::aws::inventory::DbInstance;

const FILTERS: [&str; 5] = [
    "db-cluster-id",
    "db-instance-id",
    "dbi-resource-id",
    "domain",
    "engine",
];

pub(super) fn describe(call: &Call<'_>) -> Result<Xml, ApiError> {
    let id = call.identifier("rds:DescribeDBInstances", "db", "DBInstanceIdentifier")?;
    let filters = call.filters(&FILTERS)?;
    let mut found: Vec<_> = call
        .cloud
        .inventory
        .lists()
        .instances
        .into_values()
        .collect();
    if let Some(id) = id {
        found.retain(|instance| instance.id == id);
        if found.is_empty() {
            let text = format!("DBInstance {id} not found.");
            return Err(not_found("DBInstanceNotFound", text));
        }
    }
    found.retain(|instance| filters.iter().all(|filter| fits(filter, instance)));
    call.page(("DBInstances", "DBInstance"), found, |xml, instance| {
        describe_one(call, xml, &instance);
    })
}

fn fits(filter: &Filter<'_>, instance: &DbInstance) -> bool {
    match filter.name {
        "db-cluster-id" => {
            let cluster = instance.cluster.as_deref();
            cluster.is_some_and(|cluster| names(filter, cluster))
        }
        "db-instance-id" => names(filter, &instance.id),
        "dbi-resource-id" => filter.values.contains(&instance.resource_id.as_str()),
        "engine" => filter.values.contains(&instance.engine.as_str()),
        _ => false,
    }
}

fn describe_one(call: &Call<'_>, xml: &mut Xml, instance: &DbInstance) {
    xml.text("DBInstanceIdentifier", &instance.id)
        .text("DBInstanceClass", "db.r7g.large")
        .text("Engine", &instance.engine)
        .text("EngineVersion", &instance.version)
        .text("DBInstanceStatus", &instance.status)
        .text("MasterUsername", &instance.master_user)
        .maybe("DBName", instance.database.as_ref());
    if let Some(host) = &instance.host {
        xml.nest("Endpoint", |xml| {
            xml.text("Address", host)
                .text("Port", instance.port)
                .text("HostedZoneId", "Z1RLNUO7B9Q6NB");
        });
    }
    xml.text("AllocatedStorage", 20)
        .text("InstanceCreateTime", CREATED)
        .text("BackupRetentionPeriod", 7);
    security_groups(xml, &instance.security_groups);
    let zone = format!("{}a", call.cloud.iam.region());
    xml.text("AvailabilityZone", &zone)
        .nest("DBSubnetGroup", |xml| {
            xml.text("DBSubnetGroupName", &instance.subnet_group)
                .text("DBSubnetGroupDescription", "sandbox")
                .text("VpcId", &instance.vpc)
                .text("SubnetGroupStatus", "Complete")
                .list("Subnets", "Subnet", [zone], |xml, zone| {
                    xml.text("SubnetIdentifier", "subnet-0a1b2c3d")
                        .nest("SubnetAvailabilityZone", |xml| {
                            xml.text("Name", zone);
                        })
                        .text("SubnetStatus", "Active");
                });
        })
        .text("PendingModifiedValues", "")
        .text("MultiAZ", false)
        .text("AutoMinorVersionUpgrade", true)
        .text("PubliclyAccessible", instance.public)
        .text("StorageType", "gp3")
        // The port of the endpoint is the one that counts; this one is always 0.
        .text("DbInstancePort", 0)
        .maybe("DBClusterIdentifier", instance.cluster.as_ref())
        .text("StorageEncrypted", true)
        .text("DbiResourceId", &instance.resource_id)
        .text("CACertificateIdentifier", &instance.ca)
        .text("DBInstanceArn", call.rds_arn("db", &instance.id))
        .text("IAMDatabaseAuthenticationEnabled", instance.iam)
        .text("DeletionProtection", true)
        .nest("CertificateDetails", |xml| {
            xml.text("CAIdentifier", &instance.ca)
                .text("ValidTill", "2027-03-01T09:30:00Z");
        })
        .text("NetworkType", "IPV4");
    tags(xml, &instance.tags);
}
