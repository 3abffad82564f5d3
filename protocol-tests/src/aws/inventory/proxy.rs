//! RDS Proxies.

use super::{VPC_ID, resource_id};

/// A further endpoint of a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyEndpoint {
    /// `DBProxyEndpointName`.
    pub name: String,
    /// `prx-endpoint-…`, in its ARN.
    pub resource_id: String,
    /// Its name in DNS.
    pub host: String,
    /// `TargetRole` `READ_ONLY` instead of `READ_WRITE`.
    pub read_only: bool,
    /// `available` and so on.
    pub status: String,
}

/// An RDS Proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbProxy {
    /// `DBProxyName`.
    pub name: String,
    /// `prx-…`: in its ARN, and what policies for `rds-db:connect` name.
    pub resource_id: String,
    /// `available`, `creating` and so on.
    pub status: String,
    /// `POSTGRESQL`, `MYSQL` or `SQLSERVER`.
    pub family: String,
    /// `Endpoint`; proxies have no port of their own, PostgreSQL's are at 5432.
    pub host: String,
    /// `VpcId`.
    pub vpc: String,
    /// Ids of security groups.
    pub security_groups: Vec<String>,
    /// `IAMAuth` of every secret: `REQUIRED` or `DISABLED`.
    pub iam: bool,
    /// `RequireTLS`.
    pub require_tls: bool,
    /// Database users whose passwords it knows, one secret for each.
    pub users: Vec<String>,
    /// Endpoints besides [`Self::host`].
    pub endpoints: Vec<ProxyEndpoint>,
}

impl DbProxy {
    /// An available proxy for PostgreSQL that takes IAM logins and nothing else.
    pub fn new(name: &str, host: &str) -> Self {
        Self {
            name: name.to_owned(),
            // These are in lower case, unlike those of instances and clusters.
            resource_id: resource_id("prx", name).to_ascii_lowercase()[..21].to_owned(),
            status: "available".to_owned(),
            family: "POSTGRESQL".to_owned(),
            host: host.to_owned(),
            vpc: VPC_ID.to_owned(),
            security_groups: vec!["sg-0database".to_owned()],
            iam: true,
            require_tls: true,
            users: vec!["db_user".to_owned()],
            endpoints: Vec::new(),
        }
    }

    /// The same with one endpoint more, with a name as AWS makes them.
    pub fn endpoint(mut self, name: &str, read_only: bool) -> Self {
        let rest = self.host.split_once('.').map_or("", |(_, rest)| rest);
        let id = resource_id("prx-endpoint", name).to_ascii_lowercase();
        self.endpoints.push(ProxyEndpoint {
            name: name.to_owned(),
            resource_id: id[..30].to_owned(),
            host: format!("{name}.endpoint.{rest}"),
            read_only,
            status: "available".to_owned(),
        });
        self
    }

    /// The same after `change`.
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}
