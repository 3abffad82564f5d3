//! The HTTPS side: signatures, answers and error shapes.

use std::time::{Duration, SystemTime};

use protocol_tests::aws::api::ApiFault;
use protocol_tests::aws::events::Event;
use protocol_tests::aws::iam::User;
use protocol_tests::aws::sandbox::{DEFAULT_TARGET, Sandbox};
use serde_json::{Value, json};

use crate::DB_HOST;
use crate::http::{Answer, call, ssm, ssm_request, start_input, start_session, started};

async fn sandbox() -> Sandbox {
    Sandbox::builder().start().await.unwrap()
}

async fn start(sandbox: &Sandbox, user: &User, input: Value) -> Answer {
    ssm(sandbox, user, "StartSession", input).await
}

fn input() -> Value {
    start_input(DEFAULT_TARGET, DB_HOST, 5432)
}

#[tokio::test]
async fn start_session_answers_like_the_service() {
    let sandbox = sandbox().await;
    let answer = start(&sandbox, sandbox.user(), input()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/x-amz-json-1.1");
    assert_eq!(answer.headers["x-amzn-requestid"].len(), 36);
    let date = httpdate::parse_http_date(&answer.headers["date"]).unwrap();
    let age = SystemTime::now().duration_since(date).unwrap();
    assert!(age < Duration::from_secs(5));
    let started = started(&answer.json());
    assert!(started.id.starts_with("dev-") && started.id.len() == 4 + 17);
    assert!(started.token.len() > 200);
    let url = format!(
        "wss://localhost:{}/v1/data-channel/{}?role=publish_subscribe",
        sandbox.port(),
        started.id
    );
    assert_eq!(started.url, url);
    let granted = Event::StartSession {
        session_id: started.id.clone(),
        target: DEFAULT_TARGET.to_owned(),
        host: DB_HOST.to_owned(),
        port: 5432,
        user_arn: "arn:aws:iam::123456789012:user/dev".to_owned(),
    };
    assert_eq!(sandbox.events().all().first(), Some(&granted));
    assert_eq!(sandbox.open_sessions(), [started.id]);
    assert!(!format!("{:?}", sandbox.events()).contains(&started.token));
}

#[tokio::test]
async fn who_cannot_sign_gets_nothing() {
    let sandbox = sandbox().await;
    let request = || ssm_request("StartSession", &input());
    let unsigned = call(&sandbox, None, request()).await;
    assert_eq!(unsigned.status, 400);
    assert_eq!(unsigned.code(), "MissingAuthenticationTokenException");

    let mut thief = sandbox.user().clone();
    thief.secret_access_key = "x".repeat(40);
    let forged = start(&sandbox, &thief, input()).await;
    assert_eq!(forged.status, 400);
    assert_eq!(forged.code(), "InvalidSignatureException");
    assert!(
        forged.json()["message"]
            .as_str()
            .unwrap()
            .contains("does not match")
    );

    thief.access_key_id = "AKIAUNKNOWN".to_owned();
    let stranger = start(&sandbox, &thief, input()).await;
    assert_eq!(stranger.code(), "UnrecognizedClientException");
    let text = "The security token included in the request is invalid.";
    assert_eq!(stranger.json()["message"], text);

    let other_service = call(&sandbox, Some((sandbox.user(), "ec2")), request()).await;
    assert_eq!(other_service.code(), "InvalidSignatureException");
    assert!(sandbox.open_sessions().is_empty());
    let denied =
        |e: &Event| matches!(e, Event::ApiDenied { action, .. } if action == "ssm:StartSession");
    assert_eq!(sandbox.events().count(denied), 4);
}

#[tokio::test]
async fn time_matters() {
    let builder = Sandbox::builder().temporary_credentials(Duration::from_secs(600));
    let sandbox = builder.start().await.unwrap();
    let user = sandbox.user();
    assert!(
        sandbox
            .env()
            .iter()
            .any(|(name, _)| name == "AWS_SESSION_TOKEN")
    );
    assert_eq!(start(&sandbox, user, input()).await.status, 200);
    sandbox.iam().update(&user.access_key_id, |u| {
        u.expires = Some(SystemTime::now() - Duration::from_secs(1));
    });
    let late = start(&sandbox, user, input()).await;
    assert_eq!(late.code(), "ExpiredTokenException");
    sandbox
        .iam()
        .update(&user.access_key_id, |u| u.expires = None);
    sandbox.iam().set_clock_ahead(3600);
    let skewed = start(&sandbox, user, input()).await;
    assert_eq!(skewed.code(), "InvalidSignatureException");
    assert!(
        skewed.json()["message"]
            .as_str()
            .unwrap()
            .starts_with("Signature expired: ")
    );
    let date = httpdate::parse_http_date(&skewed.headers["date"]).unwrap();
    assert!(date > SystemTime::now() + Duration::from_secs(3500));
}

#[tokio::test]
async fn policies_and_nodes_are_worded_as_by_aws() {
    let sandbox = sandbox().await;
    let user = sandbox.user();
    let deny = |action: &str| {
        sandbox
            .iam()
            .update(&user.access_key_id, |u| u.deny = [action.to_owned()].into());
    };
    deny("ssm:StartSession");
    let answer = start(&sandbox, user, input()).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "AccessDeniedException")
    );
    let text = "User: arn:aws:iam::123456789012:user/dev is not authorized to perform: \
         ssm:StartSession on resource: arn:aws:ec2:eu-central-1:123456789012:instance/\
         i-0123456789abcdef0 because no identity-based policy allows the ssm:StartSession action";
    assert_eq!(answer.json()["Message"], text);
    deny("ssm:StartSession:document");
    let answer = start(&sandbox, user, input()).await;
    let text = answer.json()["Message"].as_str().unwrap().to_owned();
    assert!(
        text.contains(
            "arn:aws:ssm:eu-central-1::document/AWS-StartPortForwardingSessionToRemoteHost"
        )
    );
    deny("nothing");
    let unknown = start(
        &sandbox,
        user,
        start_input("i-0ffffffffffffffff", DB_HOST, 1),
    )
    .await;
    assert_eq!(unknown.code(), "TargetNotConnected");
    assert_eq!(
        unknown.json()["message"],
        "i-0ffffffffffffffff is not connected."
    );
    sandbox.agent(DEFAULT_TARGET).set_online(false);
    let offline = start(&sandbox, user, input()).await;
    assert_eq!(offline.code(), "TargetNotConnected");
}

#[tokio::test]
async fn bad_input_is_named() {
    let sandbox = sandbox().await;
    let user = sandbox.user();
    let mut cases = vec![
        ("StartSession", json!({}), "ValidationException"),
        ("TerminateSession", json!({}), "ValidationException"),
        (
            "TerminateSession",
            json!({"SessionId": "dev-0"}),
            "DoesNotExistException",
        ),
        (
            "ResumeSession",
            json!({"SessionId": "dev-0"}),
            "DoesNotExistException",
        ),
        ("SendCommand", json!({}), "UnknownOperationException"),
        ("StartSession", json!([1]), "SerializationException"),
    ];
    let mut wrong = input();
    wrong["DocumentName"] = json!("AWS-Nonsense");
    cases.push(("StartSession", wrong, "InvalidDocument"));
    for (name, value) in [("portNumber", "x"), ("portNumber", "0"), ("more", "x")] {
        let mut wrong = input();
        wrong["Parameters"][name] = json!([value]);
        cases.push(("StartSession", wrong, "ValidationException"));
    }
    for (operation, body, code) in cases {
        let answer = ssm(&sandbox, user, operation, body.clone()).await;
        assert_eq!(answer.status, 400, "{operation} {body}");
        assert_eq!(answer.code(), code, "{operation} {body}");
    }
}

#[tokio::test]
async fn faults_come_on_command_and_pass() {
    let sandbox = sandbox().await;
    let user = sandbox.user();
    sandbox.api().fail("StartSession", ApiFault::Throttled, 1);
    sandbox
        .api()
        .fail("StartSession", ApiFault::InternalError, 1);
    sandbox
        .api()
        .fail("StartSession", ApiFault::EmptyBadRequest, 1);
    let answer = start(&sandbox, user, input()).await;
    assert_eq!(answer.code(), "ThrottlingException");
    assert_eq!(answer.json()["message"], "Rate exceeded");
    let answer = start(&sandbox, user, input()).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (500, "InternalServerError")
    );
    let answer = start(&sandbox, user, input()).await;
    assert_eq!((answer.status, answer.text.as_str()), (400, ""));
    assert_eq!(start(&sandbox, user, input()).await.status, 200);
}

#[tokio::test]
async fn a_session_is_its_owners_alone() {
    let sandbox = sandbox().await;
    let user = sandbox.user();
    let session = start_session(&sandbox, DB_HOST, 5432).await;
    let body = json!({ "SessionId": session.id });
    let other = ssm(
        &sandbox,
        sandbox.node_role(),
        "TerminateSession",
        body.clone(),
    )
    .await;
    assert_eq!(other.code(), "DoesNotExistException");
    let resumed = ssm(&sandbox, user, "ResumeSession", body.clone())
        .await
        .json();
    assert_ne!(started(&resumed).token, session.token);
    assert_eq!(started(&resumed).url, session.url);
    let ended = ssm(&sandbox, user, "TerminateSession", body.clone()).await;
    assert_eq!(ended.json()["SessionId"], json!(session.id));
    let over = ssm(&sandbox, user, "ResumeSession", body).await;
    assert_eq!(
        (over.status, started(&over.json()).token.as_str()),
        (200, "")
    );
    assert!(sandbox.open_sessions().is_empty());
}

#[tokio::test]
async fn nodes_can_be_found() {
    let builder = Sandbox::builder().target("i-0aaaaaaaaaaaaaaaa");
    let sandbox = builder.start().await.unwrap();
    let other = sandbox.agent("i-0aaaaaaaaaaaaaaaa");
    other.update(|s| {
        s.online = false;
        s.tags.insert("Name".to_owned(), "spare".to_owned());
    });
    let find = async |filters: Value| {
        let body = json!({ "Filters": filters });
        let answer = ssm(
            &sandbox,
            sandbox.user(),
            "DescribeInstanceInformation",
            body,
        )
        .await;
        let list = answer.json()["InstanceInformationList"].clone();
        list.as_array().unwrap().clone()
    };
    assert_eq!(find(json!([])).await.len(), 2);
    let tagged = find(json!([{"Key": "tag:Name", "Values": ["bastion"]}])).await;
    assert_eq!(tagged.len(), 1);
    assert_eq!(tagged[0]["InstanceId"], DEFAULT_TARGET);
    assert_eq!(tagged[0]["AgentVersion"], "3.3.0.0");
    assert_eq!(tagged[0]["PlatformType"], "Linux");
    assert!(tagged[0]["LastPingDateTime"].as_f64().unwrap() > 1.7e9);
    let lost = find(json!([{"Key": "PingStatus", "Values": ["ConnectionLost"]}])).await;
    assert_eq!(lost[0]["InstanceId"], "i-0aaaaaaaaaaaaaaaa");
    let both = json!([
        {"Key": "PingStatus", "Values": ["Online"]},
        {"Key": "InstanceIds", "Values": ["i-0aaaaaaaaaaaaaaaa"]},
    ]);
    assert!(find(both).await.is_empty());
}

#[tokio::test]
async fn sts_tells_who_one_is_in_xml() {
    let sandbox = sandbox().await;
    let request = || {
        http::Request::post("/")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(b"Action=GetCallerIdentity&Version=2011-06-15".to_vec())
            .unwrap()
    };
    let answer = call(&sandbox, Some((sandbox.user(), "sts")), request()).await;
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .text
            .contains("<Arn>arn:aws:iam::123456789012:user/dev</Arn>")
    );
    assert!(answer.text.contains("<Account>123456789012</Account>"));
    let mut stranger = sandbox.user().clone();
    stranger.access_key_id = "AKIAUNKNOWN".to_owned();
    let answer = call(&sandbox, Some((&stranger, "sts")), request()).await;
    assert_eq!(answer.status, 403);
    assert!(answer.text.contains("<Code>InvalidClientTokenId</Code>"));
    assert!(answer.text.contains(&answer.headers["x-amzn-requestid"]));
}
