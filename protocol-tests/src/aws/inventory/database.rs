//! DB instances and Aurora clusters.

use super::{VPC_ID, resource_id};

/// A DB instance, on its own or in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbInstance {
    /// `DBInstanceIdentifier`.
    pub id: String,
    /// `DbiResourceId`, `db-…`: what policies for `rds-db:connect` name.
    pub resource_id: String,
    /// `postgres`, `aurora-postgresql`, `mysql` and so on.
    pub engine: String,
    /// `EngineVersion`.
    pub version: String,
    /// `available`, `stopped`, `creating` and so on.
    pub status: String,
    /// `Endpoint.Address`; `None` while it is being created.
    pub host: Option<String>,
    /// `Endpoint.Port`.
    pub port: u16,
    /// `IAMDatabaseAuthenticationEnabled`.
    pub iam: bool,
    /// `CACertificateIdentifier`.
    pub ca: String,
    /// The VPC of its subnet group.
    pub vpc: String,
    /// Name of its subnet group.
    pub subnet_group: String,
    /// Ids of security groups.
    pub security_groups: Vec<String>,
    /// `DBName`, of an instance that was made with a first database.
    pub database: Option<String>,
    /// `MasterUsername`.
    pub master_user: String,
    /// `PubliclyAccessible`.
    pub public: bool,
    /// `DBClusterIdentifier`, of a member of a cluster.
    pub cluster: Option<String>,
    /// Tags: names and values.
    pub tags: Vec<(String, String)>,
}

impl DbInstance {
    /// An available, private instance of RDS for PostgreSQL with IAM logins.
    pub fn new(id: &str, host: &str, port: u16) -> Self {
        Self {
            id: id.to_owned(),
            resource_id: resource_id("db", id),
            engine: "postgres".to_owned(),
            version: "17.6".to_owned(),
            status: "available".to_owned(),
            host: Some(host.to_owned()),
            port,
            iam: true,
            ca: "rds-ca-rsa2048-g1".to_owned(),
            vpc: VPC_ID.to_owned(),
            subnet_group: "default-vpc".to_owned(),
            security_groups: vec!["sg-0database".to_owned()],
            database: Some("app".to_owned()),
            master_user: "postgres".to_owned(),
            public: false,
            cluster: None,
            tags: Vec::new(),
        }
    }

    /// The same after `change`.
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// An instance's place in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// `DBInstanceIdentifier`.
    pub instance: String,
    /// `IsClusterWriter`.
    pub writer: bool,
}

/// A custom endpoint of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterEndpoint {
    /// `DBClusterEndpointIdentifier`.
    pub id: String,
    /// Its name in DNS.
    pub host: String,
    /// `CustomEndpointType`: `READER` or `ANY`.
    pub kind: String,
    /// Identifiers of the instances it leads to; all that fit when there are none.
    pub members: Vec<String>,
}

/// An Aurora cluster, or a Multi-AZ cluster of RDS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbCluster {
    /// `DBClusterIdentifier`.
    pub id: String,
    /// `DbClusterResourceId`, `cluster-…`: what policies for `rds-db:connect` name.
    pub resource_id: String,
    /// `aurora-postgresql`, `aurora-mysql`, `postgres` and so on.
    pub engine: String,
    /// `EngineVersion`.
    pub version: String,
    /// `EngineMode`: `provisioned`, or `serverless` for the first version of that.
    pub mode: String,
    /// `available`, `stopped` and so on.
    pub status: String,
    /// `Endpoint`: the writer's name.
    pub host: String,
    /// `ReaderEndpoint`.
    pub reader: Option<String>,
    /// Custom endpoints.
    pub endpoints: Vec<ClusterEndpoint>,
    /// `Port`.
    pub port: u16,
    /// `DBClusterMembers`.
    pub members: Vec<Member>,
    /// `IAMDatabaseAuthenticationEnabled`.
    pub iam: bool,
    /// The VPC of its subnet group. The cluster itself does not say it, its instances do.
    pub vpc: String,
    /// `DBSubnetGroup`.
    pub subnet_group: String,
    /// Ids of security groups.
    pub security_groups: Vec<String>,
    /// `DatabaseName`.
    pub database: Option<String>,
    /// `MasterUsername`.
    pub master_user: String,
    /// Tags: names and values.
    pub tags: Vec<(String, String)>,
}

impl DbCluster {
    /// An available cluster of Aurora PostgreSQL with IAM logins and no members. With the writer's
    /// name as AWS makes them (`….cluster-….…`) it has the reader's as well.
    pub fn new(id: &str, host: &str, port: u16) -> Self {
        Self {
            id: id.to_owned(),
            resource_id: resource_id("cluster", id),
            engine: "aurora-postgresql".to_owned(),
            version: "17.5".to_owned(),
            mode: "provisioned".to_owned(),
            status: "available".to_owned(),
            host: host.to_owned(),
            reader: host
                .contains(".cluster-")
                .then(|| host.replacen(".cluster-", ".cluster-ro-", 1)),
            endpoints: Vec::new(),
            port,
            members: Vec::new(),
            iam: true,
            vpc: VPC_ID.to_owned(),
            subnet_group: "default-vpc".to_owned(),
            security_groups: vec!["sg-0database".to_owned()],
            database: Some("app".to_owned()),
            master_user: "postgres".to_owned(),
            tags: Vec::new(),
        }
    }

    /// The same with one member more.
    pub fn member(mut self, instance: &str, writer: bool) -> Self {
        let instance = instance.to_owned();
        self.members.push(Member { instance, writer });
        self
    }

    /// The same with one custom endpoint more, for all instances, with a name as AWS makes them.
    pub fn endpoint(mut self, id: &str) -> Self {
        let rest = self.host.split_once('.').map_or("", |(_, rest)| rest);
        let rest = rest.replacen("cluster-", "cluster-custom-", 1);
        self.endpoints.push(ClusterEndpoint {
            id: id.to_owned(),
            host: format!("{id}.{rest}"),
            kind: "ANY".to_owned(),
            members: Vec::new(),
        });
        self
    }

    /// The same after `change`.
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// An instance that fits into this cluster.
    pub(super) fn instance(&self, id: &str) -> DbInstance {
        let rest = self.host.split_once('.').map_or("", |(_, rest)| rest);
        let rest = rest.strip_prefix("cluster-").unwrap_or(rest);
        DbInstance::new(id, &format!("{id}.{rest}"), self.port).with(|instance| {
            instance.engine.clone_from(&self.engine);
            instance.version.clone_from(&self.version);
            instance.status.clone_from(&self.status);
            instance.iam = self.iam;
            instance.vpc.clone_from(&self.vpc);
            instance.subnet_group.clone_from(&self.subnet_group);
            instance.security_groups.clone_from(&self.security_groups);
            instance.database.clone_from(&self.database);
            instance.master_user.clone_from(&self.master_user);
            instance.cluster = Some(self.id.clone());
        })
    }
}
