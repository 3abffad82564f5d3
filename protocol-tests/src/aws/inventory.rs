//! What the account owns besides its managed nodes: databases, proxies before them, and machines.
//!
//! The lists of RDS and EC2 are made from it. Nothing here listens anywhere: a name only leads
//! somewhere once it is in the [`Vpc`](crate::network::vpc::Vpc).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::harness::sync::lock;

mod database;
mod ordinary;
mod proxy;

pub use database::{ClusterEndpoint, DbCluster, DbInstance, Member};
pub use ordinary::{BASTION_ID, CLUSTER_RESOURCE_ID, VPC_ID};
pub use proxy::{DbProxy, ProxyEndpoint};

/// A machine in the list of EC2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ec2Instance {
    /// `i-…`.
    pub id: String,
    /// `pending`, `running`, `shutting-down`, `terminated`, `stopping` or `stopped`.
    pub state: String,
    /// `None` once it is terminated.
    pub vpc: Option<String>,
    /// `None` once it is terminated.
    pub subnet: Option<String>,
    /// `None` once it is terminated.
    pub private_ip: Option<String>,
    /// Ids of security groups.
    pub security_groups: Vec<String>,
    /// Names and values.
    pub tags: BTreeMap<String, String>,
}

impl Ec2Instance {
    /// A running machine without tags.
    pub fn new(id: &str, vpc: &str) -> Self {
        Self {
            id: id.to_owned(),
            state: "running".to_owned(),
            vpc: Some(vpc.to_owned()),
            subnet: Some("subnet-0a1b2c3d".to_owned()),
            private_ip: Some("10.0.0.10".to_owned()),
            security_groups: vec!["sg-0bastion0".to_owned()],
            tags: BTreeMap::new(),
        }
    }

    /// The same with one tag more.
    pub fn tag(mut self, name: &str, value: &str) -> Self {
        self.tags.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The same after `change`.
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// All of it; clones share it. Identifiers are unique among their kind and written in lower case,
/// as RDS keeps them: adding again replaces.
#[derive(Debug, Clone, Default)]
pub struct Inventory(Arc<Mutex<Lists>>);

/// By identifier, which is the order of RDS's own lists.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lists {
    pub(crate) instances: BTreeMap<String, DbInstance>,
    pub(crate) clusters: BTreeMap<String, DbCluster>,
    pub(crate) proxies: BTreeMap<String, DbProxy>,
    pub(crate) machines: BTreeMap<String, Ec2Instance>,
}

impl Inventory {
    /// Adds an instance. One of a cluster's has to be a member there, too.
    pub fn add_instance(&self, mut instance: DbInstance) {
        instance.id.make_ascii_lowercase();
        let mut lists = lock(&self.0);
        lists.instances.insert(instance.id.clone(), instance);
    }

    /// Adds a cluster, and an instance that fits for each of its members that is not there yet.
    pub fn add_cluster(&self, mut cluster: DbCluster) {
        cluster.id.make_ascii_lowercase();
        let mut lists = lock(&self.0);
        for member in &mut cluster.members {
            member.instance.make_ascii_lowercase();
        }
        for member in &cluster.members {
            let fitting = || cluster.instance(&member.instance);
            let entry = lists.instances.entry(member.instance.clone());
            entry.or_insert_with(fitting);
        }
        lists.clusters.insert(cluster.id.clone(), cluster);
    }

    /// Adds a proxy with its endpoints.
    pub fn add_proxy(&self, mut proxy: DbProxy) {
        proxy.name.make_ascii_lowercase();
        let mut lists = lock(&self.0);
        lists.proxies.insert(proxy.name.clone(), proxy);
    }

    /// Adds a machine. The service knows it as a managed node only if the sandbox has one with the
    /// same id.
    pub fn add_machine(&self, machine: Ec2Instance) {
        let mut lists = lock(&self.0);
        lists.machines.insert(machine.id.clone(), machine);
    }

    /// Changes an instance in place; false when there is none with this identifier.
    pub fn update_instance(&self, id: &str, change: impl FnOnce(&mut DbInstance)) -> bool {
        let mut lists = lock(&self.0);
        let found = lists.instances.get_mut(&id.to_ascii_lowercase());
        found.map(change).is_some()
    }

    /// Changes a cluster in place; false when there is none with this identifier. What its instances
    /// have of it, as IAM logins, stays as it is.
    pub fn update_cluster(&self, id: &str, change: impl FnOnce(&mut DbCluster)) -> bool {
        let mut lists = lock(&self.0);
        let found = lists.clusters.get_mut(&id.to_ascii_lowercase());
        found.map(change).is_some()
    }

    /// Changes a proxy in place; false when there is none with this name.
    pub fn update_proxy(&self, name: &str, change: impl FnOnce(&mut DbProxy)) -> bool {
        let mut lists = lock(&self.0);
        let found = lists.proxies.get_mut(&name.to_ascii_lowercase());
        found.map(change).is_some()
    }

    /// Changes a machine in place; false when there is none with this id.
    pub fn update_machine(&self, id: &str, change: impl FnOnce(&mut Ec2Instance)) -> bool {
        let mut lists = lock(&self.0);
        lists.machines.get_mut(id).map(change).is_some()
    }

    /// Takes everything away.
    pub fn clear(&self) {
        *lock(&self.0) = Lists::default();
    }

    pub(crate) fn lists(&self) -> Lists {
        lock(&self.0).clone()
    }
}

/// An id as RDS gives them: `prefix-` and 26 letters and digits, always the same for one name.
fn resource_id(prefix: &str, name: &str) -> String {
    let digest = crate::aws::sigv4::sha256_hex(name.as_bytes()).to_ascii_uppercase();
    format!("{prefix}-{}", &digest[..26])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_brings_its_instances() {
        let inventory = Inventory::default();
        let host = "orders.cluster-abc.eu-central-1.rds.amazonaws.com";
        let cluster = DbCluster::new("Orders", host, 5432);
        inventory.add_cluster(cluster.member("Orders-1", true).member("orders-2", false));
        let lists = inventory.lists();
        let ids: Vec<&str> = lists.instances.keys().map(String::as_str).collect();
        assert_eq!(ids, ["orders-1", "orders-2"]);
        let first = &lists.instances["orders-1"];
        assert_eq!(first.cluster.as_deref(), Some("orders"));
        let host = "orders-1.abc.eu-central-1.rds.amazonaws.com";
        assert_eq!(first.host.as_deref(), Some(host));
        assert!(inventory.update_instance("ORDERS-1", |i| i.status = "stopped".into()));
        inventory.add_cluster(inventory.lists().clusters["orders"].clone());
        assert_eq!(inventory.lists().instances["orders-1"].status, "stopped");
        assert!(!inventory.update_proxy("orders", |_| panic!("there is none")));
        inventory.clear();
        assert!(inventory.lists().clusters.is_empty());
    }

    #[test]
    fn ids_are_stable_and_look_like_the_services() {
        let id = resource_id("db", "orders");
        assert_eq!(id, resource_id("db", "orders"));
        assert_eq!(id.len(), 29);
        assert_ne!(id, resource_id("db", "other"));
    }
}
