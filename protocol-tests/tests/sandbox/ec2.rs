//! The list of machines.

use std::time::{Duration, SystemTime};

use protocol_tests::aws::api::ApiFault;
use protocol_tests::aws::inventory::Ec2Instance;
use protocol_tests::aws::sandbox::{DEFAULT_TARGET, Sandbox};

use crate::DB_HOST;
use crate::http::{Answer, call, query, query_request};

const OTHER: &str = "i-0aaaaaaaaaaaaaaaa";

/// The bastion, and a stopped machine elsewhere.
async fn with_machines() -> Sandbox {
    let sandbox = Sandbox::builder().start().await.unwrap();
    sandbox.inventory().furnish(DB_HOST, 5432);
    let other = Ec2Instance::new(OTHER, "vpc-0other").tag("Team", "data");
    sandbox
        .inventory()
        .add_machine(other.with(|machine| machine.state = "stopped".into()));
    sandbox
}

async fn describe(sandbox: &Sandbox, parameters: &str) -> Answer {
    let parameters = format!("DescribeInstances&{parameters}");
    query(sandbox, sandbox.user(), "ec2", &parameters).await
}

/// Ids of what is found.
async fn find(sandbox: &Sandbox, parameters: &str) -> Vec<String> {
    let answer = describe(sandbox, parameters).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.texts("instanceId")
}

#[tokio::test]
async fn a_machine_is_described_in_full() {
    let sandbox = with_machines().await;
    let answer = describe(&sandbox, &format!("InstanceId.1={DEFAULT_TARGET}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let one = |name: &str| answer.texts(name).concat();
    let namespace =
        "<DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">";
    assert!(answer.text.contains(namespace), "{}", answer.text);
    assert_eq!(one("instanceId"), DEFAULT_TARGET);
    assert_eq!(one("vpcId"), "vpc-0a1b2c3d");
    assert_eq!(one("subnetId"), "subnet-0a1b2c3d");
    assert_eq!(one("privateIpAddress"), "10.0.0.10");
    assert_eq!(
        (one("key"), one("value")),
        ("Name".into(), "bastion".into())
    );
    assert!(
        answer
            .text
            .contains("<instanceState><code>16</code><name>running</name></instanceState>")
    );
    assert_eq!(one("requestId"), answer.headers["x-amzn-requestid"]);
    let stopped = describe(&sandbox, &format!("InstanceId.1={OTHER}")).await;
    assert!(stopped.text.contains("<code>80</code><name>stopped</name>"));
}

#[tokio::test]
async fn machines_are_found_by_filters() {
    let sandbox = with_machines().await;
    let find = async |filter: &str| find(&sandbox, filter).await;
    assert_eq!(find("").await, [DEFAULT_TARGET, OTHER]);
    for (filter, id) in [
        ("Filter.1.Name=vpc-id&Filter.1.Value.1=vpc-0other", OTHER),
        (
            "Filter.1.Name=instance-state-name&Filter.1.Value.1=running",
            DEFAULT_TARGET,
        ),
        (
            "Filter.1.Name=tag%3AName&Filter.1.Value.1=bas*",
            DEFAULT_TARGET,
        ),
        (
            "Filter.1.Name=tag-key&Filter.1.Value.1=Cost&Filter.1.Value.2=Team",
            OTHER,
        ),
        (
            "Filter.1.Name=instance-id&Filter.1.Value.1=i-0aaaaaaaaaaaaaaaa",
            OTHER,
        ),
    ] {
        assert_eq!(find(filter).await, [id], "{filter}");
    }
    let both = "Filter.1.Name=tag%3AName&Filter.1.Value.1=bastion\
                &Filter.2.Name=instance-state-name&Filter.2.Value.1=stopped";
    assert_eq!(find(both).await, [""; 0]);
}

#[tokio::test]
async fn errors_have_a_shape_of_their_own() {
    let sandbox = with_machines().await;
    for (parameters, code) in [
        (
            "InstanceId.1=i-0ffffffffffffffff",
            "InvalidInstanceID.NotFound",
        ),
        ("InstanceId.1=bastion", "InvalidInstanceID.Malformed"),
        (
            "Filter.1.Name=colour&Filter.1.Value.1=x",
            "InvalidParameterValue",
        ),
        ("MaxResults=2", "InvalidParameterValue"),
        (
            "MaxResults=5&InstanceId.1=i-0aaaaaaaaaaaaaaaa",
            "InvalidParameterCombination",
        ),
        ("NextToken=what", "InvalidParameterValue"),
    ] {
        let answer = describe(&sandbox, parameters).await;
        assert_eq!(answer.status, 400, "{parameters}");
        assert_eq!(answer.code(), code, "{parameters}");
    }
    let missing = describe(&sandbox, "InstanceId.1=i-0ffffffffffffffff").await;
    let shape = "<Response><Errors><Error><Code>InvalidInstanceID.NotFound</Code>\
                 <Message>The instance ID 'i-0ffffffffffffffff' does not exist</Message></Error>\
                 </Errors><RequestID>";
    assert!(missing.text.contains(shape), "{}", missing.text);
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let sandbox = Sandbox::builder().start().await.unwrap();
    for n in 0..12 {
        let id = format!("i-000000000000000{n:02}");
        sandbox
            .inventory()
            .add_machine(Ec2Instance::new(&id, "vpc-0a1b2c3d"));
    }
    let pages = async || {
        let (mut sizes, mut token) = (Vec::new(), String::new());
        loop {
            let answer = describe(&sandbox, &format!("MaxResults=5&NextToken={token}")).await;
            sizes.push(answer.texts("instanceId").len());
            token = answer.texts("nextToken").concat();
            if token.is_empty() {
                break sizes;
            }
        }
    };
    assert_eq!(pages().await, [5, 5, 2]);
    sandbox.api().limit_pages(4);
    assert_eq!(pages().await, [4, 4, 4]);
}

#[tokio::test]
async fn refusals_are_worded_as_by_ec2() {
    let sandbox = with_machines().await;
    let key = &sandbox.user().access_key_id;
    let deny = |entry: &str| {
        sandbox
            .iam()
            .update(key, |user| user.deny = [entry.to_owned()].into());
    };
    deny("ec2:DescribeInstances");
    let answer = describe(&sandbox, "").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "UnauthorizedOperation")
    );
    let text = "You are not authorized to perform this operation. User: \
         arn:aws:iam::123456789012:user/dev is not authorized to perform: ec2:DescribeInstances \
         because no identity-based policy allows the ec2:DescribeInstances action";
    assert_eq!(answer.texts("Message"), [text]);
    deny("nothing");
    sandbox
        .api()
        .fail("DescribeInstances", ApiFault::Throttled, 1);
    let answer = describe(&sandbox, "").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "RequestLimitExceeded")
    );
    let unsigned = call(&sandbox, None, query_request("ec2", "DescribeInstances")).await;
    assert_eq!(unsigned.code(), "MissingAuthenticationToken");
    let mut stranger = sandbox.user().clone();
    stranger.access_key_id = "AKIAUNKNOWN".to_owned();
    let answer = query(&sandbox, &stranger, "ec2", "DescribeInstances").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (401, "AuthFailure")
    );
    sandbox.iam().update(key, |user| {
        user.expires = Some(SystemTime::now() - Duration::from_secs(1));
    });
    let answer = describe(&sandbox, "").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "RequestExpired")
    );
}
