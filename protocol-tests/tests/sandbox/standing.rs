//! The sandbox by itself, as a container runs it.

use bytes::Bytes;
use futures_util::SinkExt as _;
use protocol_tests::aws::sandbox::DEFAULT_TARGET;
use protocol_tests::aws::wire::{self, Message, payload};
use protocol_tests::demo::standing::{Route, Standing, StandingOptions};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::client::MiniClient;
use crate::gateway::{agent_token, attach_agent_as};
use crate::http::{call_over, query, ssm_request, start_input, start_session, started, tls_over};
use crate::{DB_HOST, echo_server};

#[tokio::test]
async fn its_files_are_where_others_find_them() {
    let dir = tempfile::tempdir().unwrap();
    // Left by an earlier one.
    std::fs::write(dir.path().join("env"), "OLD=1\n").unwrap();
    let options = || StandingOptions {
        dir: Some(dir.path().to_owned()),
        names: vec!["sandbox".to_owned()],
        ..StandingOptions::default()
    };
    let standing = Standing::start(options()).await.unwrap();
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let port = standing.sandbox().port();
    let here = dir.path().canonicalize().unwrap();
    let env = read("env");
    for line in [
        format!("AWS_ENDPOINT_URL=https://sandbox:{port}"),
        format!("AWS_CA_BUNDLE={}", here.join("ca.pem").display()),
        format!("AWS_CONFIG_FILE={}", here.join("config").display()),
        "AWS_REGION=eu-central-1".to_owned(),
        format!(
            "AWS_ACCESS_KEY_ID={}",
            standing.sandbox().user().access_key_id
        ),
    ] {
        assert!(env.lines().any(|l| l == line), "{line} in {env}");
    }
    assert!(read("config").contains(&format!("endpoint_url = https://sandbox:{port}\n")));
    let config = read("config");
    let start_url = standing.sandbox().identity_center().start_url();
    for line in [
        "[profile sso]",
        &format!("sso_start_url = {start_url}"),
        "[profile mfa]",
        "mfa_serial = arn:aws:iam::123456789012:mfa/dev",
    ] {
        assert!(config.lines().any(|l| l == line), "{line} in {config}");
    }
    assert!(read("credentials").contains("aws_secret_access_key = "));
    assert!(read("ca.pem").starts_with("-----BEGIN CERTIFICATE-----"));
    let machines = query(
        standing.sandbox(),
        standing.sandbox().user(),
        "ec2",
        "DescribeInstances",
    );
    assert_eq!(machines.await.texts("instanceId"), [DEFAULT_TARGET]);
    standing.stop().await;
    assert!(!dir.path().join("env").exists());
    assert!(dir.path().join("ca.pem").exists());
    // The same directory again.
    Standing::start(options()).await.unwrap().stop().await;
}

/// A client of a few lines in the place of the agent: credentials and sessions are all it is told.
#[tokio::test]
async fn an_agent_from_outside_attaches_with_what_is_written_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let standing = Standing::start(StandingOptions {
        dir: Some(dir.path().to_owned()),
        external_agent: true,
        ..StandingOptions::default()
    });
    let standing = standing.await.unwrap();
    let sandbox = standing.sandbox();
    let session = start_session(sandbox, DB_HOST, 5432).await;
    let said = standing.session(1).await;
    let expected = format!("session {} {DEFAULT_TARGET} {DB_HOST} 5432", session.id);
    assert_eq!(said, expected);
    let env = std::fs::read_to_string(dir.path().join("agent.env")).unwrap();
    let value = |name: &str| {
        let lines = env.lines().filter_map(|line| line.split_once('='));
        let found = lines.into_iter().find(|(key, _)| *key == name);
        found
            .unwrap_or_else(|| panic!("{name} in {env}"))
            .1
            .to_owned()
    };
    let mut role = sandbox.node_role().clone();
    role.access_key_id = value("AWS_ACCESS_KEY_ID");
    role.secret_access_key = value("AWS_SECRET_ACCESS_KEY");
    role.session_token = Some(value("AWS_SESSION_TOKEN"));
    let mut agent = attach_agent_as(sandbox, &session.id, &role).await;
    let hello = Message::new(wire::OUTPUT, payload::HANDSHAKE_REQUEST, Bytes::from("{}"));
    agent.send(Frame::Binary(hello.encode())).await.unwrap();
    let mut client = MiniClient::connect(sandbox, &session).await;
    assert_eq!(client.message().await.unwrap().payload, hello.payload);

    // A session that is over is not handed out again.
    assert!(sandbox.terminate_session(&session.id));
    let answer = agent_token(sandbox, &session.id, &role).await;
    assert_eq!(answer.status, 410);
    assert!(
        answer.text.contains("Session is already terminated"),
        "{}",
        answer.text
    );
    standing.stop().await;
}

#[tokio::test]
async fn it_is_reached_by_its_other_names() {
    let listen = "127.0.0.1".parse().unwrap();
    let route = format!("{DB_HOST}:5432={}", echo_server().await);
    let standing = Standing::start(StandingOptions {
        listen: Some(listen),
        names: vec!["sandbox".to_owned(), "aws.internal".to_owned()],
        routes: vec![route.parse::<Route>().unwrap()],
        ..StandingOptions::default()
    });
    let standing = standing.await.unwrap();
    let sandbox = standing.sandbox();
    assert!(sandbox.vpc().resolve(DB_HOST).is_some());
    for name in ["sandbox", "aws.internal"] {
        let socket = TcpStream::connect((listen, sandbox.port())).await.unwrap();
        let stream = tls_over(sandbox, socket, name).await.unwrap();
        let host = format!("{name}:{}", sandbox.port());
        let request = ssm_request("StartSession", &start_input(DEFAULT_TARGET, DB_HOST, 5432));
        let answer = call_over(stream, &host, Some((sandbox.user(), "ssm")), request).await;
        let url = started(&answer.json()).url;
        assert!(
            url.starts_with(&format!("wss://{host}/v1/data-channel/")),
            "{url}"
        );
    }
    standing.stop().await;
}
