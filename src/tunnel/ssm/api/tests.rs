//! The SDK's client against a loopback HTTP server that answers from a list.

use std::sync::{LazyLock, Mutex};
use std::time::{Duration, SystemTime};

use aws_sdk_ssm::config::{BehaviorVersion, Credentials, Region as SdkRegion};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::nodes::{explained, online_nodes};
use super::*;
use crate::base::names::{NodeId, Region, SessionId};

static REGION: LazyLock<Region> = LazyLock::new(|| "eu-central-1".into());
static NODE: LazyLock<NodeId> = LazyLock::new(|| "i-1".into());
static SESSION: LazyLock<SessionId> = LazyLock::new(|| "me-0".into());

/// A mock SSM that answers from a list and records the requests.
struct Service {
    client: Client,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Service {
    async fn with(answers: Vec<(u16, Value)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = client(&listener);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        tokio::spawn(async move {
            for (status, answer) in answers {
                let (stream, _) = listener.accept().await.unwrap();
                let request = serve(stream, status, &answer.to_string()).await;
                kept.lock().unwrap().push(request);
            }
        });
        Self { client, asked }
    }

    /// Creates a mock SSM that answers each request with these bytes, and closes.
    async fn raw(answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = client(&listener);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"}") {
                    assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
                }
                stream.write_all(answer).await.unwrap();
            }
        });
        let asked = Arc::default();
        Self { client, asked }
    }

    fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().unwrap().clone()
    }
}

fn client(listener: &TcpListener) -> Client {
    let config = aws_sdk_ssm::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(SdkRegion::new("eu-central-1"))
        .credentials_provider(Credentials::new("AKID", "secret", None, None, "test"))
        .retry_config(aws_sdk_ssm::config::retry::RetryConfig::disabled())
        .endpoint_url(format!("http://{}", listener.local_addr().unwrap()))
        .build();
    Client::from_conf(config)
}

/// Reads one request (its operation and its body) and sends one answer.
async fn serve(mut stream: TcpStream, status: u16, body: &str) -> (String, Value) {
    let mut request = Vec::new();
    let (head, content) = loop {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        let text = String::from_utf8_lossy(&request);
        let Some((head, content)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length: usize = header(head, "content-length").parse().unwrap();
        if content.len() >= length {
            break (head.to_owned(), content.to_owned());
        }
    };
    let answer = format!(
        "HTTP/1.1 {status} X\r\nconnection: close\r\nx-amzn-requestid: rid\r\n\
         content-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    let operation = header(&head, "x-amz-target").replace("AmazonSSM.", "");
    (operation, serde_json::from_str(&content).unwrap())
}

fn header(head: &str, name: &str) -> String {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.to_owned())
        .unwrap()
}

#[tokio::test]
async fn start_session_names_document_host_and_port() {
    let opened = json!({"SessionId": "me-0", "TokenValue": "t", "StreamUrl": "wss://x"});
    let service = Service::with(vec![(200, opened); 3]).await;
    let to_host = |document: Option<&str>| SessionRoute::Host {
        endpoint: "db.example:5432".parse().unwrap(),
        document: document.map(str::to_owned),
    };
    for route in [
        to_host(None),
        to_host(Some("Own")),
        SessionRoute::Port(5439),
    ] {
        let started = start_session(&service.client, &REGION, &NODE, &route);
        let started = started.await.unwrap();
        assert_eq!(started.session_id, "me-0");
        assert_eq!(started.ticket.unwrap().stream_url, "wss://x");
    }
    let host = json!({"host": ["db.example"], "portNumber": ["5432"]});
    let expected = [
        ("AWS-StartPortForwardingSessionToRemoteHost", &host),
        ("Own", &host),
        (
            "AWS-StartPortForwardingSession",
            &json!({"portNumber": ["5439"]}),
        ),
    ];
    for ((operation, body), (document, parameters)) in service.asked().into_iter().zip(expected) {
        assert_eq!(operation, "StartSession");
        assert_eq!(
            body,
            json!({
                "Target": "i-1", "DocumentName": document, "Reason": "pgiam",
                "Parameters": parameters,
            })
        );
    }
}

#[tokio::test]
async fn a_session_without_a_token_is_over() {
    let service = Service::with(vec![
        (200, json!({"SessionId": "me-0"})),
        (
            200,
            json!({"SessionId": "me-0", "TokenValue": "", "StreamUrl": ""}),
        ),
        (410, json!({"message": "Session is already terminated"})),
        (404, json!({})),
        (200, json!({"SessionId": "me-0", "TokenValue": "t"})),
        (
            200,
            json!({"SessionId": "me-0", "TokenValue": "t", "StreamUrl": "wss://x"}),
        ),
    ])
    .await;
    let resume = || resume_session(&service.client, &REGION, &NODE, &SESSION);
    for _ in 0..4 {
        assert!(resume().await.unwrap().is_none());
    }
    assert!(matches!(
        resume().await,
        Err(TunnelError::IncompleteAnswer("StreamUrl"))
    ));
    assert_eq!(resume().await.unwrap().unwrap().stream_url, "wss://x");
    assert_eq!(
        service.asked()[0],
        ("ResumeSession".to_owned(), json!({"SessionId": "me-0"}))
    );
}

#[tokio::test]
async fn all_pages_of_the_nodes_with_a_tag_are_read() {
    let page = |nodes: Value, next: Value| {
        (
            200,
            json!({"InstanceInformationList": nodes, "NextToken": next}),
        )
    };
    let service = Service::with(vec![
        page(
            json!([{"InstanceId": "i-2", "PingStatus": "ConnectionLost", "LastPingDateTime": 1_790_000_000},
                   {"InstanceId": "i-3", "PingStatus": "Online", "AgentVersion": "3.3.0.0"}]),
            json!("more"),
        ),
        page(
            json!([{"InstanceId": "i-1", "PingStatus": "Online"}]),
            Value::Null,
        ),
    ])
    .await;
    let nodes = online_nodes(&service.client, &REGION, "Name", "bastion").await;
    let nodes = nodes.unwrap();
    let ids: Vec<_> = nodes.iter().map(|node| node.id.as_str()).collect();
    assert_eq!(ids, ["i-1", "i-3", "i-2"]);
    assert_eq!(nodes[1].agent.as_deref(), Some("3.3.0.0"));
    assert_eq!(nodes[2].last_ping.as_deref(), Some("2026-09-21T14:13:20Z"));
    let asked = service.asked();
    let filters = json!([{"Key": "tag:Name", "Values": ["bastion"]}]);
    assert_eq!(asked[0].0, "DescribeInstanceInformation");
    assert_eq!(asked[0].1["Filters"], filters);
    assert_eq!(asked[1].1["Filters"], filters);
    assert_eq!(asked[1].1["NextToken"], "more");
}

fn offline() -> TunnelError {
    api("TargetNotConnected", "i-1 is not connected.")
}

/// Returns the refusal as it would come from AWS.
fn api(code: &str, message: &str) -> TunnelError {
    TunnelError::Api {
        operation: "ResumeSession",
        kind: classify(code, message),
        answer: ApiAnswer {
            code: code.into(),
            message: message.into(),
            request_id: None,
            clock: None,
        },
        bastion: "i-1".to_owned(),
        region: "eu-central-1".to_owned().into(),
    }
}

fn message(error: &TunnelError) -> &str {
    match error {
        TunnelError::Api { answer, .. } => &answer.message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_node_that_is_not_connected_is_looked_up() {
    let lost = json!({"InstanceInformationList": [
        {"InstanceId": "i-1", "PingStatus": "ConnectionLost", "LastPingDateTime": 1_790_000_000}]});
    let denied = json!({"__type": "AccessDeniedException", "Message": "no"});
    let service = Service::with(vec![
        (200, lost),
        (200, json!({"InstanceInformationList": []})),
        (400, denied),
    ])
    .await;
    for expected in [
        "i-1 is not connected. Ping status ConnectionLost, last ping 2026-09-21T14:13:20Z.",
        "i-1 is not connected. Systems Manager has no node with this id in eu-central-1.",
        "i-1 is not connected.",
    ] {
        let error = explained(&service.client, offline()).await;
        assert_eq!(message(&error), expected);
    }
    let asked = service.asked();
    assert_eq!(
        asked[0].1["Filters"],
        json!([{"Key": "InstanceIds", "Values": ["i-1"]}])
    );
    // Other errors lead to no lookup: the mock has no more answers.
    let other = explained(&service.client, api("AccessDeniedException", "x")).await;
    assert_eq!(message(&other), "x");
}

#[tokio::test]
async fn a_list_that_does_not_end_is_refused() {
    let page = |n: usize| json!({"InstanceInformationList": [], "NextToken": n.to_string()});
    let service = Service::with((0..300).map(|n| (200, page(n))).collect()).await;
    let listed = online_nodes(&service.client, &REGION, "Name", "b").await;
    match listed.unwrap_err() {
        TunnelError::BadAnswer { operation, reason } => {
            assert_eq!(operation, "DescribeInstanceInformation");
            assert_eq!(&*reason, "the list has more than 200 pages");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(service.asked().len(), 201);
    // A repeated marker ends the list.
    let page = json!({"InstanceInformationList": [], "NextToken": "same"});
    let service = Service::with(vec![(200, page.clone()), (200, page)]).await;
    let listed = online_nodes(&service.client, &REGION, "Name", "b").await;
    assert_eq!(listed.unwrap(), []);
}

/// Returns the error of `online_nodes` for an answer of these bytes.
async fn of_raw(answer: &'static [u8]) -> TunnelError {
    let service = Service::raw(answer).await;
    let listed = online_nodes(&service.client, &REGION, "Name", "b").await;
    listed.unwrap_err()
}

#[tokio::test]
async fn answers_that_are_not_of_aws_are_no_failure_of_the_network() {
    const REDIRECT: &[u8] =
        b"HTTP/1.1 302 Found\r\nlocation: https://portal/\r\ncontent-length: 0\r\n\r\n";
    for (answer, expected) in [
        (&b"SSH-2.0-OpenSSH_9.6\r\n\r\n"[..], "it is not valid HTTP"),
        (b"HTTP/1.1 999999 X\r\n\r\n", "it is not valid HTTP"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            "its body is not valid HTTP",
        ),
        (
            REDIRECT,
            "HTTP status 302: unexpected redirect; possible causes: a proxy or a captive portal",
        ),
        (
            b"HTTP/1.1 407 X\r\ncontent-length: 0\r\n\r\n",
            "HTTP status 407: the proxy requires authentication",
        ),
        (
            b"HTTP/1.1 511 X\r\ncontent-length: 0\r\n\r\n",
            "HTTP status 511: a captive portal requires a login",
        ),
    ] {
        match of_raw(answer).await {
            TunnelError::BadAnswer { reason, .. } => assert_eq!(&*reason, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    // A connection that closes may be a network fault.
    match of_raw(b"").await {
        TunnelError::ApiUnreachable { reason, .. } => assert_eq!(
            &*reason,
            "the server closed the connection before its answer was complete"
        ),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn refusals_keep_the_words_of_aws() {
    let throttled = json!({"__type": "ThrottlingException", "message": "Rate exceeded"});
    let service = Service::with(vec![(400, throttled), (429, json!({})), (503, json!({}))]).await;
    let nodes = || online_nodes(&service.client, &REGION, "Name", "b");
    for (kind, code) in [
        (ApiRefusal::Throttled, "ThrottlingException"),
        (ApiRefusal::Throttled, "HTTP status 429, no reason given"),
        (ApiRefusal::Other, "HTTP status 503, no reason given"),
    ] {
        match nodes().await.unwrap_err() {
            TunnelError::Api {
                operation,
                kind: found,
                answer,
                bastion,
                ..
            } => {
                assert_eq!(operation, "DescribeInstanceInformation");
                assert_eq!((found, answer.code.as_str()), (kind, code));
                assert_eq!(answer.request_id.as_deref(), Some("rid"));
                assert_eq!(bastion, "tag Name=b");
            }
            other => panic!("{other:?}"),
        }
    }
    // The mock has no more answers and is gone.
    assert!(matches!(
        nodes().await,
        Err(TunnelError::ApiUnreachable { .. })
    ));
}

#[derive(Debug, thiserror::Error)]
#[error("wrapped")]
struct Wrapped(#[source] CredentialsError);

#[test]
fn missing_credentials_are_found_below_the_sdks_error() {
    let inner = CredentialsError::Expired {
        at: None,
        profile: None,
    };
    let outer: SdkError<aws_sdk_ssm::operation::start_session::StartSessionError> =
        SdkError::construction_failure(Wrapped(inner));
    assert!(matches!(
        refusal(&outer, "StartSession", "i-1", &REGION),
        TunnelError::Credentials(error) if matches!(*error, CredentialsError::Expired { .. })
    ));
}

#[test]
fn a_gateway_that_knows_no_such_session_says_that_it_is_over() {
    for (gone, status) in [(true, 404), (true, 410), (false, 403), (false, 503)] {
        let refused = TunnelError::ChannelRefused {
            host: String::new(),
            region: Region::default(),
            status,
            skew: None,
        };
        assert_eq!(is_gone(&refused), gone, "{status}");
    }
}

fn foreign_url() -> TunnelError {
    TunnelError::ForeignStreamUrl {
        host: String::new(),
    }
}

#[test]
fn what_ends_the_attempts_to_resume() {
    let credentials = |error| TunnelError::Credentials(Arc::new(error));
    let profile = || Some("dev".to_owned());
    let source = || Arc::new(std::io::Error::other("x")) as crate::aws::SharedCause;
    let role = credentials(CredentialsError::AssumeRole {
        profile: profile(),
        role: None,
        caller: None,
        code: "AccessDenied".into(),
        message: "".into(),
    });
    let rejected = credentials(CredentialsError::Rejected {
        profile: profile(),
        code: "SignatureDoesNotMatch".into(),
        message: "".into(),
        clock: None,
    });
    let scp = "not authorized, with an explicit deny in a service control policy";
    for (last, error) in [
        (true, api("AccessDeniedException", "not authorized")),
        (true, api("AccessDeniedException", scp)),
        (true, api("ExpiredTokenException", "")),
        (true, api("DoesNotExistException", "Session does not exist")),
        (false, api("ThrottlingException", "Rate exceeded")),
        (false, api("InternalServerError", "")),
        (false, api("HTTP status 502, no reason given", "")),
        (false, api("InvalidSignatureException", "Signature expired")),
        (false, api("TargetNotConnected", "")),
        (
            true,
            credentials(CredentialsError::Expired {
                at: Some(SystemTime::UNIX_EPOCH),
                profile: profile(),
            }),
        ),
        (
            true,
            credentials(CredentialsError::SsoSession {
                profile: profile(),
                ended_at: None,
                session: None,
                source: source(),
            }),
        ),
        (
            true,
            credentials(CredentialsError::NotFound {
                profile: profile(),
                looked: Vec::new(),
                source: source(),
            }),
        ),
        (true, role),
        (false, rejected),
        (
            false,
            credentials(CredentialsError::Process {
                profile: profile(),
                reason: "exit status 1".into(),
            }),
        ),
        (
            false,
            credentials(CredentialsError::Timeout {
                after: Duration::from_secs(20),
                profile: profile(),
                process: None,
            }),
        ),
        (
            false,
            credentials(CredentialsError::Other {
                profile: profile(),
                source: source(),
            }),
        ),
        (
            false,
            TunnelError::ApiUnreachable {
                region: Region::default(),
                host: None,
                reason: "".into(),
            },
        ),
        (
            false,
            TunnelError::ChannelConnect {
                host: String::new(),
                port: 443,
                reason: "".into(),
            },
        ),
        (true, foreign_url()),
        (true, TunnelError::ShuttingDown),
    ] {
        assert_eq!(is_final(&error), last, "{error:?}");
    }
}
