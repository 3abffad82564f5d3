//! Tests of failed database lookups.

use super::answers::printed;
use super::*;
use crate::aws::discover::DiscoverError;
use crate::config::RdsIdentifier;

fn orders(reader: bool) -> RdsIdentifier {
    let identifier = "ordres".to_owned();
    RdsIdentifier { identifier, reader }
}

fn refused(action: &'static str, denied: bool, answer: (&str, &str)) -> DiscoverError {
    let (code, message) = answer;
    DiscoverError::Refused {
        action,
        denied,
        answer: ApiAnswer {
            code: code.into(),
            message: message.into(),
            request_id: Some("11111111-2222".into()),
            clock: Some(ClockOffset { seconds: -960 }),
        },
        region: "cn-north-1".to_owned().into(),
    }
}

fn none(reader: bool, nearest: Option<&str>, unseen: Vec<&'static str>) -> DiscoverError {
    DiscoverError::NoDatabase {
        wanted: orders(reader),
        region: "eu-central-1".to_owned().into(),
        nearest: nearest.map(str::to_owned),
        unseen,
    }
}

fn cases() -> [(&'static str, DiscoverError); 12] {
    const CLUSTERS: &str = "rds:DescribeDBClusters";
    let not_authorized = "User: arn:aws:iam::123456789012:user/dev is not authorized to perform: rds:DescribeDBClusters";
    let by_organisation =
        "User: dev is not authorized with an explicit deny in a service control policy";
    [
        ("no such name", none(true, Some("orders"), Vec::new())),
        (
            "no such name, as far as can be seen",
            none(false, None, vec!["rds:DescribeDBProxies"]),
        ),
        (
            "a permission",
            refused(CLUSTERS, true, ("AccessDenied", not_authorized)),
        ),
        (
            "an organisation's policy",
            refused(CLUSTERS, true, ("AccessDenied", by_organisation)),
        ),
        (
            "too many calls",
            refused(CLUSTERS, false, ("Throttling", "Rate exceeded")),
        ),
        (
            "keys that have ended",
            refused(
                CLUSTERS,
                false,
                (
                    "ExpiredToken",
                    "The security token included in the request is expired",
                ),
            ),
        ),
        (
            "a wrong clock",
            refused(
                CLUSTERS,
                false,
                ("SignatureDoesNotMatch", "Signature expired"),
            ),
        ),
        (
            "AWS's own trouble",
            refused(CLUSTERS, false, ("InternalFailure", "")),
        ),
        (
            "out of reach",
            DiscoverError::Unreachable {
                service: "rds",
                region: "eu-central-1".to_owned().into(),
                reason: "no answer in 15 s".into(),
            },
        ),
        (
            "stopped",
            DiscoverError::Unusable {
                wanted: orders(false),
                reason:
                    "is stopped; start it: aws rds start-db-cluster --db-cluster-identifier ordres"
                        .into(),
            },
        ),
        (
            "nonsense",
            DiscoverError::Answer {
                action: "ec2:DescribeInstances",
                reason: "missing element reservationSet".into(),
            },
        ),
        ("no region", DiscoverError::NoRegion),
    ]
}

/// Returns the error for a database that contradicts the configuration.
fn one_elsewhere() -> ConnectionError {
    let text = "[targets.orders]\ndb='orders'\nregion='eu-west-1'";
    let file: ConfigFile = toml::from_str(text).unwrap();
    let config = file.target(None, &TargetLayer::default()).unwrap();
    ConnectionError::Config(config.resolve(endpoint()).unwrap_err())
}

#[test]
fn a_database_that_is_not_found() {
    let one = target("bastion='i-1'\nprofile='dev'");
    let mut texts: Vec<String> = cases()
        .into_iter()
        .map(|(title, error)| {
            let error = ConnectionError::Discovery(Arc::new(error));
            printed(title, &before_login(&error, Some(&context(&one))))
        })
        .collect();
    let slow = ConnectionError::LookupTimeout(Duration::from_secs(30));
    texts.push(printed(
        "too late",
        &before_login(&slow, Some(&context(&one))),
    ));
    let elsewhere = before_login(&one_elsewhere(), None);
    texts.push(printed("found in another region", &elsewhere));
    snapshot("discovery", &texts);
}

#[test]
fn the_statement_for_a_lookup_is_json_of_the_partition() {
    let error = refused("rds:DescribeDBInstances", true, ("AccessDenied", "no"));
    let hint = crate::report::discovery::discovery(&error, None)
        .hint
        .unwrap()
        .text();
    let (statement, _) = hint
        .strip_prefix("Add this statement to your IAM policy:\n  ")
        .unwrap()
        .split_once("\nTo avoid")
        .unwrap();
    let statement: serde_json::Value = serde_json::from_str(statement).unwrap();
    assert_eq!(statement["Action"], "rds:DescribeDBInstances");
    assert_eq!(statement["Resource"], "arn:aws-cn:rds:cn-north-1:*:*");
}
