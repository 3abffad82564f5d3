//! The lists of databases and proxies, read by AWS's own client.

use aws_sdk_rds::Client;
use aws_sdk_rds::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
use aws_sdk_rds::error::ProvideErrorMetadata as _;
use aws_sdk_rds::types::Filter;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use protocol_tests::aws::api::ApiFault;
use protocol_tests::aws::events::Event;
use protocol_tests::aws::inventory::{DbCluster, DbInstance, DbProxy};
use protocol_tests::aws::sandbox::Sandbox;

use crate::DB_HOST;
use crate::http::{call, query, query_request};

const INSTANCE_HOST: &str = "plain.abc.eu-central-1.rds.amazonaws.com";
const PROXY_HOST: &str = "pool.proxy-abc.eu-central-1.rds.amazonaws.com";

/// AWS's client, which trusts the sandbox alone and never asks twice.
fn client(sandbox: &Sandbox) -> Client {
    let roots = TrustStore::empty().with_pem_certificate(sandbox.pki().ca_pem());
    let tls = TlsContext::builder()
        .with_trust_store(roots)
        .build()
        .unwrap();
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(tls)
        .build_https();
    let user = sandbox.user();
    let token = user.session_token.clone();
    let credentials = Credentials::new(
        &user.access_key_id,
        &user.secret_access_key,
        token,
        None,
        "test",
    );
    let config = aws_sdk_rds::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .endpoint_url(sandbox.endpoint_url())
        .credentials_provider(credentials)
        .retry_config(RetryConfig::disabled())
        .http_client(http)
        .build();
    Client::from_conf(config)
}

/// A cluster of two, an instance by itself, and a proxy.
async fn with_databases() -> Sandbox {
    let sandbox = Sandbox::builder().start().await.unwrap();
    let inventory = sandbox.inventory();
    inventory.furnish(DB_HOST, 5432);
    inventory.update_cluster("orders", |c| *c = c.clone().endpoint("reports"));
    inventory.add_instance(DbInstance::new("plain", INSTANCE_HOST, 6432).with(|i| {
        i.iam = false;
        i.status = "stopped".into();
        i.database = None;
        i.public = true;
    }));
    inventory.add_proxy(DbProxy::new("pool", PROXY_HOST).endpoint("readers", true));
    sandbox
}

fn filter(name: &str, values: &[&str]) -> Filter {
    let values = values.iter().map(|&value| value.to_owned()).collect();
    let filter = Filter::builder().name(name).set_values(Some(values));
    filter.build()
}

fn deny(sandbox: &Sandbox, entry: &str) {
    let key = &sandbox.user().access_key_id;
    sandbox
        .iam()
        .update(key, |user| user.deny = [entry.to_owned()].into());
}

#[tokio::test]
async fn an_instance_is_described_in_full() {
    let sandbox = with_databases().await;
    let request = client(&sandbox).describe_db_instances();
    // Identifiers are not case-sensitive.
    let answer = request
        .db_instance_identifier("Plain")
        .send()
        .await
        .unwrap();
    let [instance] = answer.db_instances() else {
        panic!("{answer:?}")
    };
    assert_eq!(instance.db_instance_identifier(), Some("plain"));
    assert_eq!(instance.engine(), Some("postgres"));
    assert_eq!(instance.db_instance_status(), Some("stopped"));
    let endpoint = instance.endpoint().unwrap();
    assert_eq!(endpoint.address(), Some(INSTANCE_HOST));
    assert_eq!(endpoint.port(), Some(6432));
    assert_eq!(instance.iam_database_authentication_enabled(), Some(false));
    assert_eq!(instance.publicly_accessible(), Some(true));
    assert_eq!(
        instance.ca_certificate_identifier(),
        Some("rds-ca-rsa2048-g1")
    );
    assert_eq!(instance.db_name(), None);
    assert_eq!(instance.master_username(), Some("postgres"));
    let id = instance.dbi_resource_id().unwrap();
    assert!(id.starts_with("db-") && id.len() == 29);
    let network = instance.db_subnet_group().unwrap();
    assert_eq!(network.vpc_id(), Some("vpc-0a1b2c3d"));
    let [group] = instance.vpc_security_groups() else {
        panic!("{instance:?}")
    };
    assert_eq!(group.vpc_security_group_id(), Some("sg-0database"));
    let arn = "arn:aws:rds:eu-central-1:123456789012:db:plain";
    assert_eq!(instance.db_instance_arn(), Some(arn));
    let asked =
        |e: &Event| matches!(e, Event::Asked { action, .. } if action == "rds:DescribeDBInstances");
    assert_eq!(sandbox.events().count(asked), 1);
}

#[tokio::test]
async fn a_cluster_is_described_in_full() {
    let sandbox = with_databases().await;
    let request = client(&sandbox).describe_db_clusters();
    let answer = request
        .db_cluster_identifier("ORDERS")
        .send()
        .await
        .unwrap();
    let [cluster] = answer.db_clusters() else {
        panic!("{answer:?}")
    };
    assert_eq!(cluster.endpoint(), Some(DB_HOST));
    let reader = "orders.cluster-ro-abc.eu-central-1.rds.amazonaws.com";
    assert_eq!(cluster.reader_endpoint(), Some(reader));
    let custom = "reports.cluster-custom-abc.eu-central-1.rds.amazonaws.com";
    assert_eq!(cluster.custom_endpoints(), [custom]);
    assert_eq!(cluster.port(), Some(5432));
    assert_eq!(cluster.engine(), Some("aurora-postgresql"));
    assert_eq!(cluster.engine_mode(), Some("provisioned"));
    assert_eq!(cluster.status(), Some("available"));
    assert_eq!(cluster.database_name(), Some("app"));
    assert_eq!(cluster.iam_database_authentication_enabled(), Some(true));
    let id = "cluster-ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    assert_eq!(cluster.db_cluster_resource_id(), Some(id));
    assert_eq!(cluster.db_subnet_group(), Some("default-vpc"));
    let members = cluster.db_cluster_members().iter();
    let members: Vec<_> = members
        .map(|m| (m.db_instance_identifier().unwrap(), m.is_cluster_writer()))
        .collect();
    assert_eq!(
        members,
        [("orders-1", Some(true)), ("orders-2", Some(false))]
    );
    let members = client(&sandbox)
        .describe_db_instances()
        .filters(filter("db-cluster-id", &["orders"]));
    let members = members.send().await.unwrap();
    let hosts = members.db_instances().iter();
    let hosts: Vec<_> = hosts
        .map(|i| i.endpoint().unwrap().address().unwrap())
        .collect();
    assert_eq!(
        hosts,
        [
            "orders-1.abc.eu-central-1.rds.amazonaws.com",
            "orders-2.abc.eu-central-1.rds.amazonaws.com"
        ]
    );
}

#[tokio::test]
async fn endpoints_of_a_cluster_are_a_list_of_their_own() {
    let sandbox = with_databases().await;
    let client = client(&sandbox);
    let request = client.describe_db_cluster_endpoints();
    let answer = request
        .db_cluster_identifier("orders")
        .send()
        .await
        .unwrap();
    let found = answer.db_cluster_endpoints().iter();
    let found: Vec<_> = found
        .map(|e| {
            (
                e.endpoint_type().unwrap(),
                e.db_cluster_endpoint_identifier(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("WRITER", None),
            ("READER", None),
            ("CUSTOM", Some("reports"))
        ]
    );
    let request = client.describe_db_cluster_endpoints();
    let custom = request.filters(filter("db-cluster-endpoint-type", &["custom"]));
    let custom = custom.send().await.unwrap();
    let host = "reports.cluster-custom-abc.eu-central-1.rds.amazonaws.com";
    assert_eq!(custom.db_cluster_endpoints()[0].endpoint(), Some(host));
    let request = client.describe_db_cluster_endpoints();
    let none = request.db_cluster_endpoint_identifier("nothing").send();
    assert!(none.await.unwrap().db_cluster_endpoints().is_empty());
}

#[tokio::test]
async fn a_proxy_is_described_in_full() {
    let sandbox = with_databases().await;
    let client = client(&sandbox);
    let answer = client.describe_db_proxies().send().await.unwrap();
    let [proxy] = answer.db_proxies() else {
        panic!("{answer:?}")
    };
    assert_eq!(proxy.db_proxy_name(), Some("pool"));
    let arn = proxy.db_proxy_arn().unwrap();
    assert!(arn.starts_with("arn:aws:rds:eu-central-1:123456789012:db-proxy:prx-"));
    assert_eq!(proxy.endpoint(), Some(PROXY_HOST));
    assert_eq!(proxy.vpc_id(), Some("vpc-0a1b2c3d"));
    assert_eq!(proxy.engine_family(), Some("POSTGRESQL"));
    assert_eq!(proxy.require_tls(), Some(true));
    assert_eq!(proxy.status().unwrap().as_str(), "available");
    assert_eq!(proxy.auth()[0].iam_auth().unwrap().as_str(), "REQUIRED");
    let endpoints = client.describe_db_proxy_endpoints().db_proxy_name("pool");
    let answer = endpoints.send().await.unwrap();
    let [endpoint] = answer.db_proxy_endpoints() else {
        panic!("{answer:?}")
    };
    let host = "readers.endpoint.proxy-abc.eu-central-1.rds.amazonaws.com";
    assert_eq!(endpoint.endpoint(), Some(host));
    assert_eq!(endpoint.target_role().unwrap().as_str(), "READ_ONLY");
    sandbox
        .inventory()
        .update_proxy("pool", |proxy| proxy.iam = false);
    let answer = client.describe_db_proxies().send().await.unwrap();
    let auth = &answer.db_proxies()[0].auth()[0];
    assert_eq!(auth.iam_auth().unwrap().as_str(), "DISABLED");
}

#[tokio::test]
async fn what_is_not_there_is_an_error_of_its_own() {
    let sandbox = with_databases().await;
    let client = client(&sandbox);
    let request = client.describe_db_instances();
    let error = request
        .db_instance_identifier("ghost")
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.raw_response().unwrap().status().as_u16(), 404);
    assert_eq!(error.message(), Some("DBInstance ghost not found."));
    assert!(error.into_service_error().is_db_instance_not_found_fault());
    let request = client.describe_db_clusters();
    let error = request
        .db_cluster_identifier("ghost")
        .send()
        .await
        .unwrap_err();
    assert!(error.into_service_error().is_db_cluster_not_found_fault());
    let request = client.describe_db_proxies();
    let error = request.db_proxy_name("ghost").send().await.unwrap_err();
    assert!(error.into_service_error().is_db_proxy_not_found_fault());
    let request = client.describe_db_proxy_endpoints();
    let error = request.db_proxy_endpoint_name("ghost").send().await;
    let error = error.unwrap_err().into_service_error();
    assert!(error.is_db_proxy_endpoint_not_found_fault());
    let request = client.describe_db_instances();
    let error = request.db_instance_identifier("not_a_name").send().await;
    assert_eq!(error.unwrap_err().code(), Some("InvalidParameterValue"));
    let request = client.describe_db_instances();
    let error = request.filters(filter("colour", &["blue"])).send().await;
    let error = error.unwrap_err();
    assert_eq!(error.message(), Some("Unrecognized filter name: colour"));
}

#[tokio::test]
async fn filters_narrow_the_list() {
    let sandbox = with_databases().await;
    let client = client(&sandbox);
    let find = async |name: &str, value: &str| {
        let request = client.describe_db_instances();
        let answer = request.filters(filter(name, &[value])).send().await;
        let answer = answer.unwrap();
        let ids = answer.db_instances().iter();
        ids.map(|i| i.db_instance_identifier().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(find("engine", "postgres").await, ["plain"]);
    assert_eq!(find("db-instance-id", "Orders-2").await, ["orders-2"]);
    let arn = "arn:aws:rds:eu-central-1:123456789012:cluster:orders";
    assert_eq!(find("db-cluster-id", arn).await, ["orders-1", "orders-2"]);
    assert_eq!(find("dbi-resource-id", "db-NONE").await, [""; 0]);
    let request = client.describe_db_clusters();
    let id = "cluster-ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let found = request.filters(filter("db-cluster-resource-id", &[id]));
    assert_eq!(found.send().await.unwrap().db_clusters().len(), 1);
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let sandbox = Sandbox::builder().start().await.unwrap();
    for n in 0..25 {
        let cluster = DbCluster::new(&format!("c{n:02}"), DB_HOST, 5432);
        sandbox.inventory().add_cluster(cluster);
    }
    let client = client(&sandbox);
    let pages = async |size: i32| {
        let request = client.describe_db_clusters().max_records(size);
        let mut pages = request.into_paginator().send();
        let mut sizes = Vec::new();
        while let Some(page) = pages.next().await {
            sizes.push(page.unwrap().db_clusters().len());
        }
        sizes
    };
    assert_eq!(pages(100).await, [25]);
    assert_eq!(pages(20).await, [20, 5]);
    sandbox.api().limit_pages(10);
    assert_eq!(pages(20).await, [10, 10, 5]);
    let error = client.describe_db_clusters().max_records(5).send().await;
    assert_eq!(error.unwrap_err().code(), Some("InvalidParameterValue"));
    let error = client.describe_db_clusters().marker("what").send().await;
    assert_eq!(error.unwrap_err().code(), Some("InvalidParameterValue"));
}

#[tokio::test]
async fn permission_can_be_refused() {
    let sandbox = with_databases().await;
    let client = client(&sandbox);
    deny(&sandbox, "rds:DescribeDBInstances");
    let request = client.describe_db_instances();
    let error = request
        .db_instance_identifier("Plain")
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.raw_response().unwrap().status().as_u16(), 403);
    assert_eq!(error.code(), Some("AccessDenied"));
    let text = "User: arn:aws:iam::123456789012:user/dev is not authorized to perform: \
         rds:DescribeDBInstances on resource: arn:aws:rds:eu-central-1:123456789012:db:plain \
         because no identity-based policy allows the rds:DescribeDBInstances action";
    assert_eq!(error.message(), Some(text));
    let denied = Event::ApiDenied {
        action: "rds:DescribeDBInstances".to_owned(),
        code: "AccessDenied".to_owned(),
    };
    assert!(sandbox.events().all().contains(&denied));
    client.describe_db_clusters().send().await.unwrap();
    deny(&sandbox, "scp:rds:DescribeDBProxies");
    let error = client.describe_db_proxies().send().await.unwrap_err();
    let text = error.message().unwrap();
    assert!(text.ends_with("with an explicit deny in a service control policy"));
}

#[tokio::test]
async fn faults_come_in_the_words_of_the_service() {
    let sandbox = with_databases().await;
    let client = client(&sandbox);
    let api = sandbox.api();
    api.fail("DescribeDBInstances", ApiFault::Throttled, 1);
    let error = client.describe_db_instances().send().await.unwrap_err();
    assert_eq!(error.code(), Some("Throttling"));
    assert_eq!(error.message(), Some("Rate exceeded"));
    api.fail("DescribeDBInstances", ApiFault::InternalError, 1);
    let error = client.describe_db_instances().send().await.unwrap_err();
    assert_eq!(error.raw_response().unwrap().status().as_u16(), 500);
    client.describe_db_instances().send().await.unwrap();
}

#[tokio::test]
async fn a_request_must_be_signed_for_the_service() {
    let sandbox = with_databases().await;
    let user = sandbox.user();
    let request = || query_request("rds", "DescribeDBInstances");
    let unsigned = call(&sandbox, None, request()).await;
    assert_eq!(unsigned.status, 403);
    assert_eq!(unsigned.code(), "MissingAuthenticationToken");
    assert!(
        unsigned
            .text
            .contains("http://rds.amazonaws.com/doc/2014-10-31/")
    );
    let other = call(&sandbox, Some((user, "s3")), request()).await;
    assert_eq!(other.code(), "SignatureDoesNotMatch");
    assert!(other.text.contains("correct service: 'rds'"));
    let sts = call(&sandbox, Some((user, "sts")), request()).await;
    assert_eq!((sts.status, sts.code().as_str()), (400, "InvalidAction"));
    let unknown = query(&sandbox, user, "rds", "DeleteDBInstance").await;
    assert_eq!(unknown.code(), "InvalidAction");
    let mut thief = user.clone();
    thief.secret_access_key = "x".repeat(40);
    let forged = query(&sandbox, &thief, "rds", "DescribeDBInstances").await;
    assert_eq!(forged.code(), "SignatureDoesNotMatch");
    let denied = |e: &Event| matches!(e, Event::ApiDenied { .. });
    assert_eq!(sandbox.events().count(denied), 5);
}
