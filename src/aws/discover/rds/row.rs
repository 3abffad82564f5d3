//! One database of a list, and the obstacles to connecting to it.

use aws_sdk_rds::types::{
    DbCluster, DbClusterEndpoint, DbInstance, DbProxy, DbProxyEndpoint, IamAuthMode,
    VpcSecurityGroupMembership,
};
use rustls::pki_types::ServerName;

use crate::aws::discover::{Database, DatabaseKind, DiscoverError, is_id};
use crate::base::foreign_text::ForeignText;
use crate::base::names::Region;
use crate::config::{DEFAULT_UPSTREAM_PORT, Endpoint, RdsIdentifier};

/// Engines that speak PostgreSQL.
const ENGINES: [&str; 2] = ["postgres", "aurora-postgresql"];
/// `EngineFamily` of proxies for PostgreSQL.
const FAMILY: &str = "POSTGRESQL";
/// `EndpointType` of a custom endpoint of a cluster.
const CUSTOM: &str = "CUSTOM";
/// `EngineMode` of the first version of Aurora Serverless. Its clusters have no instances.
const SERVERLESS: &str = "serverless";

pub(crate) fn is_postgres(engine: &str) -> bool {
    ENGINES.contains(&engine)
}

/// One database of a list.
#[derive(Clone, Debug)]
pub(crate) struct DatabaseRow {
    pub(crate) database: Database,
    /// Identifier of the cluster or proxy that this row belongs to.
    pub(super) parent: Option<String>,
    /// The parent is a proxy.
    of_proxy: bool,
    /// Reason why its writer accepts no connections.
    no_writer: Option<String>,
}

impl DatabaseRow {
    fn new(kind: DatabaseKind, identifier: String, region: &Region) -> Self {
        let database = Database {
            kind,
            identifier,
            endpoint: None,
            reader: None,
            region: region.to_owned(),
            resource_id: None,
            arn: None,
            iam: None,
            status: None,
            engine: None,
            engine_version: None,
            database: None,
            vpc: None,
            security_groups: Vec::new(),
            subnets: Vec::new(),
            ca: None,
        };
        Self {
            database,
            parent: None,
            of_proxy: false,
            no_writer: None,
        }
    }

    /// Returns the row without values that only a forged answer can contain; `None` if its
    /// identifier is invalid.
    pub(super) fn checked(self) -> Option<Self> {
        let Database {
            kind,
            identifier,
            endpoint,
            reader,
            region,
            resource_id,
            arn,
            iam,
            status,
            engine,
            engine_version,
            database,
            vpc,
            security_groups,
            subnets,
            ca,
        } = self.database;
        let shown = |text: Option<String>| text.map(|text| ForeignText::from(text).into_string());
        let all = |texts: Vec<String>| texts.into_iter().filter(|text| is_id(text)).collect();
        let host =
            |at: Option<Endpoint>| at.filter(|at| ServerName::try_from(at.host.as_str()).is_ok());
        let database = Database {
            kind,
            identifier: Some(identifier).filter(|identifier| is_id(identifier))?,
            endpoint: host(endpoint),
            reader: host(reader),
            region,
            resource_id: resource_id.filter(|id| is_id(id)),
            arn: arn.filter(|arn| is_id(arn)),
            iam,
            status: shown(status),
            engine: shown(engine),
            engine_version: shown(engine_version),
            database: shown(database),
            vpc: vpc.filter(|vpc| is_id(vpc)),
            security_groups: all(security_groups),
            subnets: all(subnets),
            ca: shown(ca),
        };
        Some(Self { database, ..self })
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.database.kind == DatabaseKind::Cluster
    }

    pub(super) fn is_endpoint(&self) -> bool {
        self.database.kind == DatabaseKind::Endpoint
    }

    pub(super) fn is_of_proxy(&self) -> bool {
        self.of_proxy
    }

    /// Returns `true` if this row belongs to `parent`.
    pub(super) fn is_of(&self, parent: &Self) -> bool {
        let kind = match self.of_proxy {
            true => DatabaseKind::Proxy,
            false => DatabaseKind::Cluster,
        };
        parent.database.kind == kind && self.parent.as_ref() == Some(&parent.database.identifier)
    }

    /// Copies VPC, subnets and CA from a member if the cluster itself does not have them.
    pub(super) fn is_where(&mut self, member: &Self) {
        let (own, member) = (&mut self.database, &member.database);
        own.vpc = own.vpc.take().or_else(|| member.vpc.clone());
        own.ca = own.ca.take().or_else(|| member.ca.clone());
        if own.subnets.is_empty() {
            own.subnets.clone_from(&member.subnets);
        }
    }

    /// Copies the properties that a part has from its parent. Permissions refer to the parent,
    /// whichever part the login goes to (Aurora User Guide, "Creating and using an IAM policy for
    /// IAM database access").
    pub(super) fn inherit(&mut self, parent: &Self) {
        self.is_where(parent);
        let of_cluster = self.is_endpoint() && !self.of_proxy;
        let (own, parent) = (&mut self.database, &parent.database);
        if let (true, Some(at), Some(of_parent)) = (of_cluster, &mut own.endpoint, &parent.endpoint)
        {
            at.port = of_parent.port;
        }
        own.resource_id.clone_from(&parent.resource_id);
        own.iam = own.iam.or(parent.iam);
        let or = |own: &mut Option<String>, theirs: &Option<String>| {
            *own = own.take().or_else(|| theirs.clone());
        };
        or(&mut own.engine, &parent.engine);
        or(&mut own.engine_version, &parent.engine_version);
        or(&mut own.database, &parent.database);
        if own.is_available() {
            own.status.clone_from(&parent.status);
        }
        if own.security_groups.is_empty() {
            own.security_groups.clone_from(&parent.security_groups);
        }
    }

    /// Returns the database that `db` refers to, if clients can connect to it.
    ///
    /// # Errors
    /// [`DiscoverError::Unusable`].
    pub(crate) fn usable(self, db: &RdsIdentifier) -> Result<Database, DiscoverError> {
        let obstacle = self.obstacle(db.reader);
        let mut database = self.database;
        if db.reader {
            database.endpoint = database.reader.clone();
        }
        match obstacle {
            None => Ok(database),
            Some(reason) => Err(DiscoverError::Unusable {
                wanted: db.clone(),
                reason: reason.into(),
            }),
        }
    }

    fn obstacle(&self, reader: bool) -> Option<String> {
        let Database {
            kind,
            identifier,
            engine,
            status,
            ..
        } = &self.database;
        if let Some(engine) = engine.as_deref().filter(|engine| !is_postgres(engine)) {
            return Some(format!(
                "runs {engine}, not PostgreSQL; use pgiam tunnel HOST:PORT for other protocols"
            ));
        }
        let word = kind.word();
        if reader && *kind != DatabaseKind::Cluster {
            let article = match kind {
                DatabaseKind::Proxy => "a",
                _ => "an",
            };
            return Some(format!(
                "has no readers: it is {article} {word}, not a cluster"
            ));
        }
        if let Some(reason) = status
            .as_deref()
            .and_then(|status| dead(status, *kind, identifier))
        {
            return Some(reason);
        }
        match (reader, &self.database.endpoint, &self.database.reader) {
            (true, _, None) => Some("has no reader endpoint".to_owned()),
            (true, _, Some(_)) => None,
            (false, None, _) => {
                let status = status.as_deref().unwrap_or("unknown");
                Some(format!("has no endpoint yet (status: {status})"))
            }
            (false, Some(_), _) => self.no_writer.clone(),
        }
    }
}

/// Returns the obstacle for a status in which connections fail and which does not pass by itself.
fn dead(status: &str, kind: DatabaseKind, identifier: &str) -> Option<String> {
    let start = match kind {
        DatabaseKind::Instance => {
            format!("aws rds start-db-instance --db-instance-identifier {identifier}")
        }
        DatabaseKind::Cluster => {
            format!("aws rds start-db-cluster --db-cluster-identifier {identifier}")
        }
        DatabaseKind::Proxy | DatabaseKind::Endpoint => {
            "aws rds start-db-cluster (or start-db-instance)".to_owned()
        }
    };
    match status {
        "stopped" => Some(format!("is stopped; start it: {start}")),
        "stopping" => Some(format!(
            "is stopping; when it has stopped, start it: {start}"
        )),
        "deleting"
        | "failed"
        | "inaccessible-encryption-credentials"
        | "inaccessible-encryption-credentials-recoverable"
        | "incompatible-network"
        | "incompatible-parameters"
        | "incompatible-restore"
        | "insufficient-capacity"
        | "restore-error" => Some(format!("does not accept connections (status: {status})")),
        _ => None,
    }
}

fn endpoint(host: Option<String>, port: Option<i32>) -> Option<Endpoint> {
    let host = host.filter(|host| !host.is_empty())?;
    let port = port.and_then(|port| u16::try_from(port).ok());
    Some(Endpoint {
        host: host.to_ascii_lowercase(),
        port: port
            .filter(|port| *port != 0)
            .unwrap_or(DEFAULT_UPSTREAM_PORT),
    })
}

fn groups(groups: Option<Vec<VpcSecurityGroupMembership>>) -> Vec<String> {
    let groups = groups.unwrap_or_default().into_iter();
    groups
        .filter_map(|group| group.vpc_security_group_id)
        .collect()
}

pub(super) fn of_instance(instance: DbInstance, region: &Region) -> Option<DatabaseRow> {
    let mut row = DatabaseRow::new(
        DatabaseKind::Instance,
        instance.db_instance_identifier?,
        region,
    );
    row.parent = instance.db_cluster_identifier;
    let at = instance.endpoint;
    let place = instance.db_subnet_group;
    let (vpc, subnets) = place
        .map(|place| (place.vpc_id, place.subnets))
        .unwrap_or_default();
    let subnets = subnets.unwrap_or_default().into_iter();
    row.database = Database {
        endpoint: at.and_then(|at| endpoint(at.address, at.port)),
        // IAM permissions for an instance of a cluster refer to the cluster.
        resource_id: instance.dbi_resource_id.filter(|_| row.parent.is_none()),
        arn: instance.db_instance_arn,
        iam: instance.iam_database_authentication_enabled,
        status: instance.db_instance_status,
        engine: instance.engine,
        engine_version: instance.engine_version,
        database: instance.db_name,
        vpc,
        security_groups: groups(instance.vpc_security_groups),
        subnets: subnets
            .filter_map(|subnet| subnet.subnet_identifier)
            .collect(),
        ca: instance.ca_certificate_identifier,
        ..row.database
    };
    Some(row)
}

pub(super) fn of_cluster(cluster: DbCluster, region: &Region) -> Option<DatabaseRow> {
    let mut row = DatabaseRow::new(
        DatabaseKind::Cluster,
        cluster.db_cluster_identifier?,
        region,
    );
    let members = cluster.db_cluster_members.unwrap_or_default();
    let is_writer = |writer: Option<bool>| writer == Some(true);
    row.no_writer = if cluster.engine_mode.as_deref() == Some(SERVERLESS) {
        None
    } else if members.is_empty() {
        Some("has no instances".to_owned())
    } else if !members
        .iter()
        .any(|member| is_writer(member.is_cluster_writer))
    {
        let id = &row.database.identifier;
        Some(format!(
            "has no writer in {region}: it is a secondary cluster of a global database; use its readers: {id}:reader"
        ))
    } else {
        None
    };
    row.database = Database {
        endpoint: endpoint(cluster.endpoint, cluster.port),
        reader: endpoint(cluster.reader_endpoint, cluster.port),
        resource_id: cluster.db_cluster_resource_id,
        arn: cluster.db_cluster_arn,
        iam: cluster.iam_database_authentication_enabled,
        status: cluster.status,
        engine: cluster.engine,
        engine_version: cluster.engine_version,
        database: cluster.database_name,
        security_groups: groups(cluster.vpc_security_groups),
        ca: cluster
            .certificate_details
            .and_then(|details| details.ca_identifier),
        ..row.database
    };
    Some(row)
}

pub(super) fn of_cluster_endpoint(
    custom: DbClusterEndpoint,
    region: &Region,
) -> Option<DatabaseRow> {
    if custom.endpoint_type.as_deref() != Some(CUSTOM) {
        return None; // The cluster lists the other endpoints.
    }
    let mut row = DatabaseRow::new(
        DatabaseKind::Endpoint,
        custom.db_cluster_endpoint_identifier?,
        region,
    );
    row.parent = custom.db_cluster_identifier;
    // The port is the cluster's: see `inherit`.
    row.database.endpoint = endpoint(custom.endpoint, None);
    row.database.arn = custom.db_cluster_endpoint_arn;
    row.database.status = custom.status;
    Some(row)
}

/// Returns the id in the ARN of a proxy (`…:db-proxy:prx-…`); no other field of a proxy has it.
fn proxy_id(arn: Option<&str>) -> Option<String> {
    let (_, id) = arn?.rsplit_once(':')?;
    id.starts_with("prx-").then(|| id.to_owned())
}

pub(super) fn of_proxy(proxy: DbProxy, region: &Region) -> Option<DatabaseRow> {
    let mut row = DatabaseRow::new(DatabaseKind::Proxy, proxy.db_proxy_name?, region);
    let is_on = |mode: &Option<IamAuthMode>| {
        matches!(mode, Some(IamAuthMode::Required | IamAuthMode::Enabled))
    };
    let by_default = proxy.default_auth_scheme.as_deref() == Some("IAM_AUTH");
    let secrets = proxy.auth.unwrap_or_default();
    row.database = Database {
        endpoint: endpoint(proxy.endpoint, None),
        resource_id: proxy_id(proxy.db_proxy_arn.as_deref()),
        arn: proxy.db_proxy_arn,
        iam: Some(by_default || secrets.iter().any(|secret| is_on(&secret.iam_auth))),
        status: proxy.status.map(|status| status.as_str().to_owned()),
        engine: proxy.engine_family.and_then(foreign),
        vpc: proxy.vpc_id,
        security_groups: proxy.vpc_security_group_ids.unwrap_or_default(),
        subnets: proxy.vpc_subnet_ids.unwrap_or_default(),
        ..row.database
    };
    Some(row)
}

/// Returns the engine of a proxy if it is not PostgreSQL.
fn foreign(family: String) -> Option<String> {
    (family != FAMILY).then(|| family.to_ascii_lowercase())
}

pub(super) fn of_proxy_endpoint(further: DbProxyEndpoint, region: &Region) -> Option<DatabaseRow> {
    if further.is_default == Some(true) {
        return None; // The proxy has it.
    }
    let mut row = DatabaseRow::new(
        DatabaseKind::Endpoint,
        further.db_proxy_endpoint_name?,
        region,
    );
    row.parent = further.db_proxy_name;
    row.of_proxy = true;
    row.database = Database {
        endpoint: endpoint(further.endpoint, None),
        arn: further.db_proxy_endpoint_arn,
        status: further.status.map(|status| status.as_str().to_owned()),
        vpc: further.vpc_id,
        security_groups: further.vpc_security_group_ids.unwrap_or_default(),
        subnets: further.vpc_subnet_ids.unwrap_or_default(),
        ..row.database
    };
    Some(row)
}
