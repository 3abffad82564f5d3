//! What an ordinary account has around one database.

use super::{DbCluster, DbInstance, DbProxy, Ec2Instance, Inventory};

/// The VPC everything is in unless told otherwise.
pub const VPC_ID: &str = "vpc-0a1b2c3d";
/// The bastion: a machine, and the sandbox's managed node.
pub const BASTION_ID: &str = crate::aws::sandbox::DEFAULT_TARGET;
/// `DbClusterResourceId` of the cluster that [`Inventory::furnish`] makes.
pub const CLUSTER_RESOURCE_ID: &str = "cluster-ABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// `DbiResourceId` of the instance, and proxy id, that it makes instead of a cluster.
const OTHER_RESOURCE_IDS: [&str; 2] = ["db-ABCDEFGHIJKLMNOPQRSTUVWXYZ", "prx-0123456789abcdef0"];

impl Inventory {
    /// Adds what an account has that uses the database at this endpoint: the database, named by the
    /// first label of its host, and the bastion in its VPC.
    ///
    /// The host name says what it is: `….cluster-….…` is an Aurora cluster with a writer and a
    /// reader, `….proxy-….…` an RDS Proxy, and any other an instance. Databases of other services
    /// (`….dsql.….…`) are not in the lists of RDS. The first of a kind has a resource id that is
    /// easy to know again.
    pub fn furnish(&self, host: &str, port: u16) {
        let name = host.split('.').next().unwrap_or_default();
        let lists = self.lists();
        let [instance_id, proxy_id] = OTHER_RESOURCE_IDS;
        if host.contains(".cluster-") {
            let mut cluster = DbCluster::new(name, host, port)
                .member(&format!("{name}-1"), true)
                .member(&format!("{name}-2"), false);
            if lists.clusters.is_empty() {
                CLUSTER_RESOURCE_ID.clone_into(&mut cluster.resource_id);
            }
            self.add_cluster(cluster);
        } else if host.contains(".proxy-") {
            let mut proxy = DbProxy::new(name, host);
            if lists.proxies.is_empty() {
                proxy_id.clone_into(&mut proxy.resource_id);
            }
            self.add_proxy(proxy);
        } else if !host.contains(".dsql.") {
            let mut instance = DbInstance::new(name, host, port);
            if lists.instances.is_empty() {
                instance_id.clone_into(&mut instance.resource_id);
            }
            self.add_instance(instance);
        }
        self.add_bastion();
    }

    /// Adds the machine that is the sandbox's managed node, with the same tag `Name=bastion`.
    pub fn add_bastion(&self) {
        self.add_machine(Ec2Instance::new(BASTION_ID, VPC_ID).tag("Name", "bastion"));
    }
}
