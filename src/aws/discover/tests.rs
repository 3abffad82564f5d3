//! Tests of discovery in the sandbox's account, and of the ranking of bastions.

use std::sync::LazyLock;

use protocol_tests::aws::inventory::{
    DbCluster, DbInstance, DbProxy, Ec2Instance, Inventory, VPC_ID,
};
use protocol_tests::aws::sandbox::Sandbox;

use super::*;
use crate::aws::AwsOptions;

const REGION: &str = "eu-central-1";
static IN: LazyLock<Region> = LazyLock::new(|| REGION.into());
const BASTION: &str = "i-0123456789abcdef0";
const OTHER: &str = "i-0aaaaaaaaaaaaaaa1";
const SOME_CLUSTER: &str = "orders.cluster-abc.eu-central-1.rds.amazonaws.com";

/// A sandbox account with an identity.
pub(crate) struct Account {
    pub(crate) sandbox: Sandbox,
    pub(crate) aws: AwsContext,
}

impl Account {
    async fn new() -> Self {
        let sandbox = Sandbox::builder().region(REGION).target(OTHER).start();
        let sandbox = sandbox.await.unwrap();
        let user = sandbox.user();
        let config = format!(
            "[profile dev]\nendpoint_url = {}\naws_access_key_id = {}\n\
             aws_secret_access_key = {}\n",
            sandbox.endpoint_url(),
            user.access_key_id,
            user.secret_access_key,
        );
        std::fs::write(sandbox.dir().join("config"), config).unwrap();
        let aws = AwsContext::new(AwsOptions {
            profile: Some("dev".to_owned()),
            region: Some(REGION.into()),
            ca_bundle: Some(sandbox.pki().ca_pem_path().to_owned()),
            config_file: Some(sandbox.dir().join("config")),
            credentials_file: Some(sandbox.dir().join("credentials")),
            ..AwsOptions::default()
        });
        Self { sandbox, aws }
    }

    /// Creates an account with databases of every kind.
    pub(crate) async fn furnished() -> Self {
        let account = Self::new().await;
        let inventory = account.inventory();
        inventory.furnish(SOME_CLUSTER, 5432);
        inventory.update_cluster("orders", |cluster| {
            *cluster = cluster.clone().endpoint("reports");
            cluster.port = 5444;
        });
        let at = |name: &str| format!("{name}.abc.eu-central-1.rds.amazonaws.com");
        inventory.add_instance(DbInstance::new("Billing", &at("billing"), 5433));
        let mysql = DbInstance::new("shop", &at("shop"), 3306);
        inventory.add_instance(mysql.with(|shop| "mysql".clone_into(&mut shop.engine)));
        let host = "front.proxy-abc.eu-central-1.rds.amazonaws.com";
        inventory.add_proxy(DbProxy::new("front", host).endpoint("front-ro", true));
        account
    }

    pub(crate) fn inventory(&self) -> &Inventory {
        self.sandbox.inventory()
    }

    pub(crate) fn deny(&self, actions: &[&str]) {
        let key = &self.sandbox.user().access_key_id;
        let deny = actions.iter().map(|action| (*action).to_owned());
        let changed = self
            .sandbox
            .iam()
            .update(key, |user| user.deny = deny.collect());
        assert!(changed);
    }

    async fn find(&self, name: &str) -> Result<Database, DiscoverError> {
        let (identifier, reader) = match name.strip_suffix(":reader") {
            Some(identifier) => (identifier, true),
            None => (name, false),
        };
        let identifier = identifier.to_owned();
        find(&self.aws, &IN, &RdsIdentifier { identifier, reader }).await
    }

    async fn refusal(&self, name: &str) -> String {
        self.find(name).await.unwrap_err().to_string()
    }

    pub(crate) fn mark(&self, id: &str) {
        self.sandbox.agent(id).update(|settings| {
            settings.tags.insert(MARK.to_owned(), String::new());
        });
    }
}

fn names(databases: &[Database]) -> Vec<(&str, &'static str)> {
    let named = databases.iter();
    named
        .map(|one| (one.identifier.as_str(), one.kind.word()))
        .collect()
}

#[tokio::test]
async fn databases_are_listed_whatever_their_kind_and_the_pages() {
    let account = Account::furnished().await;
    let expected = [
        ("billing", "instance"),
        ("front", "proxy"),
        ("front-ro", "endpoint"),
        ("orders", "cluster"),
        ("reports", "endpoint"),
    ];
    for limit in [0, 1] {
        account.sandbox.api().limit_pages(limit);
        let seen = databases(&account.aws, &IN).await.unwrap();
        assert_eq!(names(&seen), expected);
        assert!(seen.missing.is_empty());
        let all = |what: fn(&Database) -> bool| seen.iter().all(what);
        assert!(all(|one| one.vpc.as_deref() == Some(VPC_ID)));
        assert!(all(|one| one.iam == Some(true) && one.is_available()));
        assert!(all(|one| one.resource_id.is_some() && one.arn.is_some()));
        let ports: Vec<u16> = seen
            .iter()
            .filter_map(|one| Some(one.endpoint.as_ref()?.port))
            .collect();
        assert_eq!(ports, [5433, 5432, 5432, 5444, 5444]);
    }
}

#[tokio::test]
async fn what_may_not_be_seen_is_named() {
    let account = Account::furnished().await;
    account.deny(&["rds:DescribeDBProxies", "rds:DescribeDBProxyEndpoints"]);
    let seen = databases(&account.aws, &IN).await.unwrap();
    assert_eq!(seen.len(), 3);
    assert_eq!(
        seen.denied(),
        ["rds:DescribeDBProxies", "rds:DescribeDBProxyEndpoints"]
    );
    account.deny(&["rds:DescribeDBClusters", "rds:DescribeDBClusterEndpoints"]);
    let seen = databases(&account.aws, &IN).await.unwrap();
    let expected = [
        ("billing", "instance"),
        ("front", "proxy"),
        ("front-ro", "endpoint"),
        ("orders-1", "instance"),
        ("orders-2", "instance"),
    ];
    assert_eq!(names(&seen), expected);
    account.deny(&[
        "rds:DescribeDBClusters",
        "rds:DescribeDBClusterEndpoints",
        "rds:DescribeDBInstances",
        "rds:DescribeDBProxies",
        "rds:DescribeDBProxyEndpoints",
    ]);
    let refused = databases(&account.aws, &IN).await.unwrap_err();
    assert!(refused.is_denied());
    assert!(
        refused
            .to_string()
            .starts_with("AWS refused rds:DescribeDBClusters: AccessDenied: ")
    );
}

#[tokio::test]
async fn identifiers_find_databases_of_every_kind() {
    let account = Account::furnished().await;
    let cluster = account.find("orders").await.unwrap();
    let reader = account.find("orders:reader").await.unwrap();
    assert_eq!(cluster.endpoint.unwrap().host, SOME_CLUSTER);
    assert_eq!(
        reader.endpoint.unwrap().to_string(),
        format!("{}:5444", SOME_CLUSTER.replace("cluster-", "cluster-ro-"))
    );
    assert_eq!(
        (cluster.kind, cluster.vpc.as_deref()),
        (DatabaseKind::Cluster, Some(VPC_ID))
    );
    let resource = cluster.resource_id;
    for (name, kind, host) in [
        (
            "orders-1",
            DatabaseKind::Instance,
            "orders-1.abc.eu-central-1.rds.amazonaws.com",
        ),
        (
            "reports",
            DatabaseKind::Endpoint,
            "reports.cluster-custom-abc.eu-central-1.rds.amazonaws.com",
        ),
    ] {
        let part = account.find(name).await.unwrap();
        assert_eq!(
            (part.kind, part.endpoint.unwrap().host.as_str()),
            (kind, host)
        );
        assert_eq!(
            part.resource_id, resource,
            "{name}: logins are allowed on the cluster"
        );
        assert_eq!(part.vpc.as_deref(), Some(VPC_ID), "{name}");
    }
    let billing = account.find("billing").await.unwrap();
    assert!(billing.resource_id.unwrap().starts_with("db-"));
    let front = account.find("front").await.unwrap();
    assert!(front.resource_id.clone().unwrap().starts_with("prx-"));
    let further = account.find("front-ro").await.unwrap();
    assert_eq!(
        (further.kind, further.resource_id),
        (DatabaseKind::Endpoint, front.resource_id)
    );
}

#[tokio::test]
async fn endpoints_lead_back_to_their_databases() {
    let account = Account::furnished().await;
    let at = async |host: &str| {
        let found = at(&account.aws, &IN, &host.parse().unwrap()).await.unwrap();
        found.map(|found| found.identifier)
    };
    for name in [
        "orders", "orders-1", "billing", "reports", "front", "front-ro", "shop",
    ] {
        let identifier = RdsIdentifier {
            identifier: name.to_owned(),
            reader: false,
        };
        let asker = LookupContext::new(&account.aws, &IN, DEADLINE).unwrap();
        let rds::SearchResult::Found(row) = rds::by_identifier(&asker, name).await.unwrap() else {
            panic!("{identifier} is there");
        };
        let host = row.database.endpoint.unwrap().host;
        assert_eq!(at(&host).await.as_deref(), Some(name));
    }
    assert_eq!(
        at(&SOME_CLUSTER.replace("cluster-", "cluster-ro-"))
            .await
            .unwrap(),
        "orders"
    );
    for other in [
        SOME_CLUSTER.replace("cluster-abc", "cluster-xyz"),
        "gone.abc.eu-central-1.rds.amazonaws.com".to_owned(),
        "orders.example.com".to_owned(),
    ] {
        assert_eq!(at(&other).await, None, "{other}");
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_said() {
    let account = Account::furnished().await;
    assert_eq!(
        account.refusal("ordres").await,
        "found no database \"ordres\" in eu-central-1"
    );
    let Err(DiscoverError::NoDatabase {
        nearest, unseen, ..
    }) = account.find("ordres").await
    else {
        panic!("there is none");
    };
    assert_eq!((nearest.as_deref(), unseen), (Some("orders"), Vec::new()));
    assert!(matches!(
        account.find("a--b").await,
        Err(DiscoverError::NoDatabase { .. })
    ));
    assert_eq!(
        account.refusal("shop").await,
        "the database \"shop\" runs mysql, not PostgreSQL; use pgiam tunnel HOST:PORT for other protocols"
    );
    assert_eq!(
        account.refusal("billing:reader").await,
        "the database \"billing:reader\" has no readers: it is an instance, not a cluster"
    );
    let inventory = account.inventory();
    inventory.update_instance("billing", |billing| billing.status = "stopped".to_owned());
    assert_eq!(
        account.refusal("billing").await,
        "the database \"billing\" is stopped; start it: aws rds start-db-instance --db-instance-identifier billing"
    );
    inventory.update_instance("billing", |billing| {
        billing.status = "creating".to_owned();
        billing.host = None;
    });
    assert_eq!(
        account.refusal("billing").await,
        "the database \"billing\" has no endpoint yet (status: creating)"
    );
    inventory.update_cluster("orders", |orders| {
        orders
            .members
            .iter_mut()
            .for_each(|member| member.writer = false);
    });
    assert_eq!(
        account.refusal("orders").await,
        "the database \"orders\" has no writer in eu-central-1: it is a secondary cluster of a global database; use its readers: orders:reader"
    );
    assert!(account.find("orders:reader").await.is_ok());
    inventory.add_cluster(DbCluster::new(
        "empty",
        &SOME_CLUSTER.replace("orders", "empty"),
        5432,
    ));
    assert_eq!(
        account.refusal("empty").await,
        "the database \"empty\" has no instances"
    );
}

#[tokio::test]
async fn a_refusal_only_counts_where_it_leaves_something_open() {
    let account = Account::furnished().await;
    account.deny(&["rds:DescribeDBProxies", "rds:DescribeDBInstances"]);
    assert!(
        account.find("orders").await.is_ok(),
        "what is found is found"
    );
    let refused = account.find("billing").await.unwrap_err();
    assert!(
        matches!(
            refused,
            DiscoverError::Refused {
                action: "rds:DescribeDBInstances",
                denied: true,
                ..
            }
        ),
        "{refused}"
    );
    account.deny(&["rds:DescribeDBProxies", "rds:DescribeDBProxyEndpoints"]);
    let Err(DiscoverError::NoDatabase { unseen, .. }) = account.find("front").await else {
        panic!("it cannot be seen");
    };
    assert_eq!(
        unseen,
        ["rds:DescribeDBProxies", "rds:DescribeDBProxyEndpoints"]
    );
    // A policy may allow access to one database and deny all others.
    let orders = "rds:DescribeDBClusters arn:aws:rds:eu-central-1:123456789012:cluster:*";
    account.deny(&[orders]);
    assert!(
        databases(&account.aws, &IN)
            .await
            .unwrap()
            .denied()
            .contains(&"rds:DescribeDBClusters")
    );
    assert!(account.find("orders").await.is_ok());
}

#[tokio::test]
async fn nodes_get_names_and_vpcs_from_ec2_where_that_is_allowed() {
    let account = Account::furnished().await;
    account.mark(OTHER);
    account.sandbox.api().limit_pages(1);
    let seen = nodes(&account.aws, &IN).await.unwrap();
    assert!(seen.missing.is_empty());
    let rows: Vec<_> = seen
        .iter()
        .map(|node| {
            (
                node.id.as_str(),
                node.online,
                node.marked,
                node.vpc.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            (BASTION, true, false, Some(VPC_ID)),
            (OTHER, true, true, None)
        ]
    );
    assert_eq!(seen[0].name.as_deref(), Some("bastion"));
    account.deny(&["ec2:DescribeInstances"]);
    let seen = nodes(&account.aws, &IN).await.unwrap();
    assert_eq!(seen.denied(), ["ec2:DescribeInstances"]);
    assert!(seen.iter().all(|node| node.vpc.is_none()));
    account.deny(&["ssm:DescribeInstanceInformation"]);
    let refused = nodes(&account.aws, &IN).await.unwrap_err();
    assert!(refused.is_denied(), "{refused}");
}

#[tokio::test]
async fn the_bastion_in_the_databases_vpc_is_taken() {
    let account = Account::furnished().await;
    let endpoint: Endpoint = format!("{SOME_CLUSTER}:5444").parse().unwrap();
    let ranked = async || bastions(&account.aws, &IN, Some(&endpoint)).await.unwrap();
    let inventory = account.inventory();
    inventory.add_machine(Ec2Instance::new(OTHER, "vpc-other"));
    account.mark(OTHER);
    let best = ranked().await;
    let ids: Vec<_> = best
        .nodes
        .iter()
        .map(|one| (one.node.id.as_str(), one.why.as_str()))
        .collect();
    let elsewhere = "tag pgiam:bastion, another VPC, named bastion";
    let expected = [(BASTION, "same VPC, named bastion"), (OTHER, elsewhere)];
    assert_eq!(ids, expected);
    assert!(best.note.is_none() && best.missing.is_empty());
    account.deny(&["rds:DescribeDBClusters"]);
    let blind = ranked().await;
    let ids: Vec<_> = blind
        .nodes
        .iter()
        .map(|one| (one.node.id.as_str(), one.why.as_str()))
        .collect();
    assert_eq!(
        ids,
        [
            (OTHER, "tag pgiam:bastion, named bastion"),
            (BASTION, "named bastion")
        ]
    );
    assert_eq!(blind.missing[0].action, "rds:DescribeDBClusters");
    account.deny(&[]);
    inventory.update_machine(BASTION, |machine| {
        machine.vpc = Some("vpc-third".to_owned())
    });
    let far = ranked().await;
    assert_eq!(far.nodes.len(), 2);
    assert_eq!(
        far.note.unwrap(),
        "no online managed node is in the database's VPC vpc-0a1b2c3d; i-0aaaaaaaaaaaaaaa1 is in vpc-other and can reach the database only if the VPCs are connected (peering, transit gateway)"
    );
}

fn node(id: &str) -> Node {
    Node {
        id: id.into(),
        name: None,
        online: true,
        ping: "Online".to_owned(),
        last_ping: None,
        agent: None,
        platform: Some("Linux".to_owned()),
        vpc: None,
        marked: false,
    }
}

fn ranked(nodes: Vec<Node>) -> NodeRanking {
    let missing = Vec::new();
    let seen = PartialListing {
        found: nodes,
        missing,
    };
    rank::rank(seen, Some("vpc-1"))
}

#[test]
fn bastions_are_ordered_by_what_speaks_for_them() {
    let windows = Node {
        platform: Some("Windows".to_owned()),
        ..node("i-0")
    };
    let named = Node {
        name: Some("Jump-Host".to_owned()),
        ..node("i-8")
    };
    let near = Node {
        vpc: Some("vpc-1".to_owned()),
        ..node("i-9")
    };
    let far = Node {
        vpc: Some("vpc-2".to_owned()),
        marked: true,
        ..node("i-1")
    };
    let marked = Node {
        marked: true,
        ..node("i-7")
    };
    let off = Node {
        online: false,
        marked: true,
        ..node("i-2")
    };
    let all = vec![
        windows,
        node("i-3"),
        node("i-4"),
        named,
        near,
        far,
        marked,
        off,
    ];
    let best = ranked(all);
    let ids: Vec<_> = best.nodes.iter().map(|one| one.node.id.as_str()).collect();
    assert_eq!(ids, ["i-7", "i-9", "i-8", "i-3", "i-4", "i-0", "i-1"]);
    assert_eq!(best.equals, 1);
    let offline: Vec<_> = best
        .offline
        .iter()
        .map(|one| (one.node.id.as_str(), one.why.as_str()))
        .collect();
    assert_eq!(offline, [("i-2", "tag pgiam:bastion, offline")]);
}

#[test]
fn equals_are_counted_and_the_only_one_is_told() {
    assert_eq!(
        ranked(vec![node("i-2"), node("i-1"), node("i-3")]).equals,
        3
    );
    let only = ranked(vec![node("i-1")]);
    assert_eq!(
        (only.equals, only.nodes[0].why.as_str()),
        (1, "the only one online")
    );
    let none = ranked(Vec::new());
    assert_eq!((none.equals, none.nodes.len()), (0, 0));
}

const MACHINES: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
    <requestId>1</requestId><reservationSet><item><instancesSet>\
    <item><instanceId>i-1</instanceId><vpcId>vpc-1</vpcId><tagSet>\
    <item><key>Team</key><value>x</value></item><item><key>Name</key><value>a &amp; b</value></item></tagSet></item>\
    <item><instanceId>i-2</instanceId><tagSet/></item></instancesSet></item>\
    <item><instancesSet><item><vpcId>vpc-3</vpcId></item></instancesSet></item>\
    </reservationSet><nextToken>more</nextToken></DescribeInstancesResponse>";

#[test]
fn machines_are_read_from_ec2s_document() {
    let page = ec2::InstancePage::read(MACHINES).unwrap();
    let some = |text: &str| Some(text.to_owned());
    let machine = |name, vpc| ec2::InstanceFacts { name, vpc };
    assert_eq!(
        page.machines,
        [
            ("i-1".to_owned(), machine(some("a & b"), some("vpc-1"))),
            ("i-2".to_owned(), machine(None, None)),
        ]
    );
    assert_eq!(page.next.as_deref(), Some("more"));
    assert!(ec2::InstancePage::read("<html/>").is_err());
    for end in 0..MACHINES.len() {
        assert!(ec2::InstancePage::read(&MACHINES[..end]).is_err(), "{end}");
    }
}

#[tokio::test]
async fn silence_has_an_end() {
    let account = Account::furnished().await;
    let silent = protocol_tests::aws::api::ApiFault::NoAnswer;
    for call in ["DescribeDBClusters", "DescribeDBInstances"] {
        account.sandbox.api().fail(call, silent, 9);
    }
    let asker = LookupContext::new(&account.aws, &IN, Duration::from_secs(1)).unwrap();
    let seen = rds::all(&asker).await;
    assert_eq!(seen.missing.len(), 2, "the others have answered");
    let late = seen.missing[0].error.to_string();
    let port = account.sandbox.port();
    assert_eq!(
        late,
        format!("rds:DescribeDBClusters got no answer from localhost:{port} within 1 s (1 try)")
    );
    assert!(matches!(
        LookupContext::new(&account.aws, &"".into(), DEADLINE),
        Err(DiscoverError::NoRegion)
    ));
}
