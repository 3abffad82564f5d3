//! Where sessions can be pointed: nodes, how they are found, and documents.

use protocol_tests::aws::api::{ApiFault, SessionDocument};
use protocol_tests::aws::sandbox::{DEFAULT_TARGET, Sandbox};
use serde_json::{Value, json};

use crate::client::{MiniClient, PSH, SYN, open_socket};
use crate::http::{ssm, start_input, start_on, start_session, started};
use crate::{DB_HOST, assert_no_violation, with_echo};

const HYBRID: &str = "mi-0123456789abcdef0";
const TASK: &str = "ecs:orders_0f9de17a6465404e8b1b2356dc13c2f8_0f9de17a6465404e-1234567890";

async fn describe(sandbox: &Sandbox, body: Value) -> Value {
    let user = sandbox.user();
    let answer = ssm(sandbox, user, "DescribeInstanceInformation", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

fn ids(answer: &Value) -> Vec<&str> {
    let list = answer["InstanceInformationList"].as_array().unwrap();
    list.iter()
        .map(|n| n["InstanceId"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn nodes_are_found_by_tags_kinds_and_names() {
    let sandbox = Sandbox::builder().start().await.unwrap();
    sandbox.agent(HYBRID).update(|s| {
        s.tags = [("Team".to_owned(), "data".to_owned())].into();
        s.version = "3.2.0.0".to_owned();
    });
    sandbox.agent(TASK);
    let spare = sandbox.agent("i-0aaaaaaaaaaaaaaaa");
    spare.set_online(false);
    let all = [DEFAULT_TARGET, "i-0aaaaaaaaaaaaaaaa", HYBRID];
    let find = async |key: &str, values: &[&str]| {
        let filters = json!([{ "Key": key, "Values": values }]);
        describe(&sandbox, json!({ "Filters": filters })).await
    };
    // Tasks are not in the list of managed nodes.
    assert_eq!(ids(&describe(&sandbox, json!({})).await), all);
    assert_eq!(ids(&find("tag-key", &["Team", "Cost"]).await), [HYBRID]);
    assert_eq!(ids(&find("tag:Team", &["data"]).await), [HYBRID]);
    assert_eq!(ids(&find("tag:Team", &["web"]).await), [""; 0]);
    assert_eq!(ids(&find("tag:Name", &["bastion"]).await), all[..2]);
    assert_eq!(
        ids(&find("ResourceType", &["ManagedInstance"]).await),
        [HYBRID]
    );
    assert_eq!(ids(&find("InstanceIds", &all[1..]).await), all[1..]);
    assert_eq!(
        ids(&find("PingStatus", &["ConnectionLost"]).await),
        all[1..2]
    );
    let hybrid = find("InstanceIds", &[HYBRID]).await;
    assert_eq!(
        hybrid["InstanceInformationList"][0]["AgentVersion"],
        "3.2.0.0"
    );
    for filter in [
        json!({ "Key": "Colour", "Values": ["blue"] }),
        json!({ "Key": "tag:Name", "Values": [] }),
    ] {
        let body = json!({ "Filters": [filter] });
        let answer = ssm(
            &sandbox,
            sandbox.user(),
            "DescribeInstanceInformation",
            body,
        )
        .await;
        assert_eq!(answer.status, 400);
    }
    assert!(sandbox.remove_node(HYBRID).is_some());
    assert_eq!(ids(&describe(&sandbox, json!({})).await), all[..2]);
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let sandbox = Sandbox::builder().start().await.unwrap();
    let mut all = vec![DEFAULT_TARGET.to_owned()];
    for n in 1..12 {
        all.push(format!("i-0123456789abcde{n:02}"));
        sandbox.agent(&all[n]);
    }
    all.sort();
    let pages = async |body: Value| {
        let (mut sizes, mut found, mut token) = (Vec::new(), Vec::new(), Value::Null);
        loop {
            let mut body = body.clone();
            body["NextToken"] = token;
            let answer = describe(&sandbox, body).await;
            let page = ids(&answer);
            sizes.push(page.len());
            found.extend(page.into_iter().map(str::to_owned));
            token = answer["NextToken"].clone();
            if token.is_null() {
                break (sizes, found);
            }
        }
    };
    assert_eq!(pages(json!({})).await, (vec![12], all.clone()));
    let five = json!({ "MaxResults": 5 });
    assert_eq!(pages(five.clone()).await, (vec![5, 5, 2], all.clone()));
    // The service may put fewer on a page than it was asked for.
    sandbox.api().limit_pages(4);
    assert_eq!(pages(five).await, (vec![4, 4, 4], all));
    let wrong = json!({ "MaxResults": 3 });
    let answer = ssm(
        &sandbox,
        sandbox.user(),
        "DescribeInstanceInformation",
        wrong,
    )
    .await;
    assert_eq!(answer.code(), "ValidationException");
}

#[tokio::test]
async fn every_kind_of_target_serves_and_has_its_own_resource() {
    let sandbox = with_echo().await;
    let user = sandbox.user();
    let account = "eu-central-1:123456789012";
    let kinds = [
        (
            DEFAULT_TARGET,
            format!("arn:aws:ec2:{account}:instance/{DEFAULT_TARGET}"),
        ),
        (
            HYBRID,
            format!("arn:aws:ssm:{account}:managed-instance/{HYBRID}"),
        ),
        (
            TASK,
            format!("arn:aws:ecs:{account}:task/orders/0f9de17a6465404e8b1b2356dc13c2f8"),
        ),
    ];
    for (target, arn) in &kinds {
        let unknown = ssm(
            &sandbox,
            user,
            "StartSession",
            start_input(target, DB_HOST, 5432),
        )
        .await;
        assert_eq!(
            unknown.status,
            if *target == DEFAULT_TARGET { 200 } else { 400 }
        );
        sandbox.agent(target).set_pacing(false);
        let session = start_on(&sandbox, target, DB_HOST, 5432).await;
        let mut client = MiniClient::shake(&sandbox, &session, "1.2.764.0").await;
        client.frame(SYN, 3, b"").await;
        client.frame(PSH, 3, b"hello").await;
        assert_eq!(client.next_frame().await.unwrap().2, "hello");

        // Denied on this one, and on no other.
        sandbox.iam().update(&user.access_key_id, |u| {
            u.deny = [format!("ssm:StartSession {arn}")].into();
        });
        for (other, _) in &kinds {
            sandbox.agent(other);
            let input = start_input(other, DB_HOST, 5432);
            let answer = ssm(&sandbox, user, "StartSession", input).await;
            if other == target {
                assert_eq!(answer.code(), "AccessDeniedException");
                let text = answer.json()["Message"].as_str().unwrap().to_owned();
                assert!(
                    text.contains(&format!("on resource: {arn} because")),
                    "{text}"
                );
            } else {
                assert_eq!(answer.status, 200, "{}", answer.text);
            }
        }
        sandbox
            .iam()
            .update(&user.access_key_id, |u| u.deny.clear());
        for (other, _) in &kinds[1..] {
            if other != target {
                sandbox.remove_node(other);
            }
        }
    }
    assert_no_violation(&sandbox);
}

#[tokio::test]
async fn own_documents_fix_what_they_like() {
    let sandbox = with_echo().await;
    let user = sandbox.user();
    let own = "arn:aws:ssm:eu-central-1:123456789012:document/Orders-Tunnel";
    let fixed = SessionDocument {
        host: Some(DB_HOST.to_owned()),
        port: Some(5432),
    };
    sandbox.add_document("Orders-Tunnel", fixed);
    sandbox.add_document("Any-Host", SessionDocument::default());
    let start = async |document: &str, parameters: Value| {
        let input = json!({
            "Target": DEFAULT_TARGET, "DocumentName": document, "Parameters": parameters,
        });
        ssm(&sandbox, user, "StartSession", input).await
    };
    for name in ["Orders-Tunnel", own] {
        let answer = start(name, json!({ "localPortNumber": ["0"] })).await;
        let session = started(&answer.json());
        let mut client = MiniClient::shake(&sandbox, &session, "1.2.764.0").await;
        client.frame(SYN, 3, b"").await;
        client.frame(PSH, 3, b"hello").await;
        assert_eq!(client.next_frame().await.unwrap().2, "hello");
    }
    let too_much = start("Orders-Tunnel", json!({ "host": ["other"] })).await;
    assert_eq!(too_much.code(), "ValidationException");
    let any = json!({ "host": [DB_HOST], "portNumber": ["5432"] });
    assert_eq!(start("Any-Host", any.clone()).await.status, 200);
    assert_eq!(
        start("Any-Host", json!({})).await.code(),
        "ValidationException"
    );
    assert_eq!(
        start("No-Such-Document", any.clone()).await.code(),
        "InvalidDocument"
    );
    sandbox.iam().update(&user.access_key_id, |u| {
        u.deny = [format!("ssm:StartSession:document {own}")].into();
    });
    let denied = start("Orders-Tunnel", json!({})).await;
    let text = denied.json()["Message"].as_str().unwrap().to_owned();
    assert!(
        text.contains(&format!("ssm:StartSession on resource: {own} because")),
        "{text}"
    );
    assert_eq!(start("Any-Host", any).await.status, 200);
}

#[tokio::test]
async fn other_partitions_have_other_names() {
    let sandbox = Sandbox::builder()
        .region("cn-north-1")
        .start()
        .await
        .unwrap();
    assert_eq!(sandbox.user().arn, "arn:aws-cn:iam::123456789012:user/dev");
    assert!(
        sandbox
            .kms()
            .create_key()
            .starts_with("arn:aws-cn:kms:cn-north-1:")
    );
}

#[tokio::test]
async fn a_cell_number_belongs_to_the_url() {
    let sandbox = Sandbox::builder().cell_numbers().start().await.unwrap();
    let session = start_session(&sandbox, DB_HOST, 5432).await;
    let (plain, cell) = session.url.split_once("&cell-number=").unwrap();
    assert!(cell.contains('+') && cell.contains('/'));
    let refused = open_socket(&sandbox, plain, Some(sandbox.user()))
        .await
        .err();
    assert_eq!(refused, Some(400));
    MiniClient::shake(&sandbox, &session, "1.2.764.0").await;
}

#[tokio::test]
async fn any_refusal_can_be_ordered() {
    let sandbox = Sandbox::builder().start().await.unwrap();
    let fault = ApiFault::Refused {
        status: 403,
        code: "ExpiredTokenException",
        message: "The security token included in the request is expired",
    };
    sandbox.api().fail("StartSession", fault, 1);
    let input = start_input(DEFAULT_TARGET, DB_HOST, 5432);
    let answer = ssm(&sandbox, sandbox.user(), "StartSession", input).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "ExpiredTokenException")
    );
}
