//! The WebSocket side: who gets in, how sessions end, and an agent that is not ours.

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use protocol_tests::aws::events::Event;
use protocol_tests::aws::iam::User;
use protocol_tests::aws::sandbox::{DEFAULT_TARGET, Sandbox};
use protocol_tests::aws::wire::{self, Message, payload};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::client::{MiniClient, Socket, open_message, open_socket};
use crate::http::{Answer, Started, call, ssm, start_session, started};
use crate::{DB_HOST, PATIENCE, assert_no_violation, with_echo};

#[tokio::test]
async fn an_unsigned_upgrade_is_forbidden() {
    let sandbox = with_echo().await;
    let session = start_session(&sandbox, DB_HOST, 5432).await;
    let refused = open_socket(&sandbox, &session.url, None).await.err();
    assert_eq!(refused, Some(403));
    let mut thief = sandbox.user().clone();
    thief.secret_access_key = "x".repeat(40);
    let refused = open_socket(&sandbox, &session.url, Some(&thief))
        .await
        .err();
    assert_eq!(refused, Some(403));
    let unknown = session.url.replace(&session.id, "dev-0");
    let refused = open_socket(&sandbox, &unknown, Some(sandbox.user()))
        .await
        .err();
    assert_eq!(refused, Some(404));
    let code = |wanted: &'static str| move |e: &Event| matches!(e, Event::ApiDenied { code, .. } if code == wanted);
    assert_eq!(
        sandbox
            .events()
            .count(code("MissingAuthenticationTokenException")),
        1
    );
    assert_eq!(sandbox.events().count(code("InvalidSignatureException")), 1);
}

/// Sends an open message and returns why the gateway refused it.
async fn refused(sandbox: &Sandbox, session: &Started, open: String) -> String {
    let mut socket = open_socket(sandbox, &session.url, Some(sandbox.user()))
        .await
        .unwrap();
    let before = sandbox
        .events()
        .count(|e| matches!(e, Event::GatewayRefused { .. }));
    socket.send(Frame::text(open)).await.unwrap();
    let wanted = |e: &Event| matches!(e, Event::GatewayRefused { .. });
    let event = sandbox
        .events()
        .wait_for_nth(before + 1, wanted, PATIENCE)
        .await;
    let Some(Event::GatewayRefused { reason, .. }) = event else {
        panic!("not refused");
    };
    assert!(matches!(
        socket.next().await,
        Some(Ok(Frame::Close(Some(_))))
    ));
    reason
}

#[tokio::test]
async fn only_the_right_token_opens_and_only_once() {
    let sandbox = with_echo().await;
    let session = start_session(&sandbox, DB_HOST, 5432).await;
    let version = ("ClientVersion", "1.2.764.0");
    let wrong = refused(&sandbox, &session, open_message("wrong", version)).await;
    assert_eq!(wrong, "wrong token");
    let nobody = refused(&sandbox, &session, open_message(&session.token, ("X", "Y"))).await;
    assert_eq!(nobody, "neither ClientVersion nor ClientInstanceId");
    MiniClient::shake(&sandbox, &session, "1.2.764.0").await;
    let again = refused(&sandbox, &session, open_message(&session.token, version)).await;
    assert_eq!(again, "wrong token");
    let connected = Event::GatewayConnected {
        session_id: session.id.clone(),
        signed_by: sandbox.user().access_key_id.clone(),
    };
    assert_eq!(sandbox.events().count(|e| *e == connected), 1);
}

#[tokio::test]
async fn the_service_ends_sessions_with_a_reason() {
    let sandbox = with_echo().await;
    let session = start_session(&sandbox, DB_HOST, 5432).await;
    let mut client = MiniClient::shake(&sandbox, &session, "1.2.764.0").await;
    assert!(sandbox.end_session(&session.id, "Your session timed out due to inactivity."));
    client.until_closed().await;
    let (kind, text) = client.service.pop().unwrap();
    assert_eq!(kind, wire::CHANNEL_CLOSED);
    let content: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        content["Output"],
        "Your session timed out due to inactivity."
    );
    assert_eq!(content["SessionId"], json!(session.id));
    assert!(!sandbox.end_session(&session.id, "again"));

    let session = start_session(&sandbox, DB_HOST, 5432).await;
    let mut client = MiniClient::shake(&sandbox, &session, "1.2.764.0").await;
    let body = json!({ "SessionId": session.id });
    ssm(&sandbox, sandbox.user(), "TerminateSession", body).await;
    client.until_closed().await;
    assert_eq!(client.service[0].0, wire::CHANNEL_CLOSED);
    assert_no_violation(&sandbox);
}

/// The agent's two steps: ask for a token, then open the WebSocket and say which node it is.
async fn attach_agent(sandbox: &Sandbox, session: &Started) -> Socket {
    attach_agent_as(sandbox, &session.id, sandbox.node_role()).await
}

/// The first step.
pub(crate) async fn agent_token(sandbox: &Sandbox, session_id: &str, role: &User) -> Answer {
    let path = format!("/v1/data-channel/{session_id}");
    let body = json!({
        "MessageSchemaVersion": "1.0",
        "RequestId": uuid::Uuid::new_v4().to_string(),
        "ClientId": "client-1",
    });
    let request = http::Request::post(path)
        .body(body.to_string().into_bytes())
        .unwrap();
    call(sandbox, Some((role, "ssmmessages")), request).await
}

/// Both steps, signed by `role`.
pub(crate) async fn attach_agent_as(sandbox: &Sandbox, session_id: &str, role: &User) -> Socket {
    let answer = agent_token(sandbox, session_id, role).await;
    assert_eq!(answer.status, 201);
    let token = answer.text.split("<TokenValue>").nth(1).unwrap();
    let token = token.split('<').next().unwrap();
    let url = format!(
        "wss://localhost:{}/v1/data-channel/{session_id}?role=publish_subscribe",
        sandbox.port()
    );
    let mut socket = open_socket(sandbox, &url, Some(role)).await.unwrap();
    let open = open_message(token, ("ClientInstanceId", DEFAULT_TARGET));
    socket.send(Frame::text(open)).await.unwrap();
    socket
}

async fn next_binary(socket: &mut Socket) -> Message {
    match tokio::time::timeout(PATIENCE, socket.next()).await.unwrap() {
        Some(Ok(Frame::Binary(raw))) => Message::decode(&raw).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_independent_agent_attaches_and_hears_of_the_clients_absence() {
    let sandbox = with_echo().await;
    sandbox.external_agent(DEFAULT_TARGET);
    let session = start_session(&sandbox, DB_HOST, 5432).await;
    let mut agent = attach_agent(&sandbox, &session).await;
    let state = br#"{"SchemaVersion":1,"SessionState":"Connected","SessionId":"x"}"#;
    let state = Message::new(wire::AGENT_STATE, 0, Bytes::from_static(state));
    agent.send(Frame::Binary(state.encode())).await.unwrap();
    let mut request = Message::new(wire::OUTPUT, payload::HANDSHAKE_REQUEST, Bytes::from("{}"));
    request.flags = wire::SYN;
    agent.send(Frame::Binary(request.encode())).await.unwrap();

    // Said before the client came, yet not lost; the state stays with the service.
    let mut client = MiniClient::connect(&sandbox, &session).await;
    assert_eq!(client.message().await.unwrap(), request);
    let ack = next_binary(&mut agent).await;
    assert_eq!(ack.kind, wire::ACKNOWLEDGE);
    client
        .send(payload::HANDSHAKE_RESPONSE, Bytes::from("{}"))
        .await;
    assert_eq!(
        next_binary(&mut agent).await.payload_type,
        payload::HANDSHAKE_RESPONSE
    );

    assert!(sandbox.cut_client(&session.id));
    assert_eq!(next_binary(&mut agent).await.kind, wire::PAUSE);
    let body = json!({ "SessionId": session.id });
    let resumed = ssm(&sandbox, sandbox.user(), "ResumeSession", body).await;
    client.reconnect(&sandbox, &started(&resumed.json())).await;
    assert_eq!(next_binary(&mut agent).await.kind, wire::START);
    assert_eq!(next_binary(&mut agent).await.sequence, 0);

    drop(agent);
    while client.service.is_empty() {
        client.turn().await;
    }
    assert_eq!(client.service[0].0, wire::PAUSE);
    assert_no_violation(&sandbox);
}

#[tokio::test]
async fn nothing_is_left_after_shutdown() {
    let sandbox = with_echo().await;
    let session = start_session(&sandbox, DB_HOST, 5432).await;
    let mut client = MiniClient::shake(&sandbox, &session, "1.2.764.0").await;
    let (port, dir) = (sandbox.port(), sandbox.dir().to_owned());
    tokio::time::timeout(PATIENCE, sandbox.shutdown())
        .await
        .unwrap();
    client.until_closed().await;
    assert!(
        tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_err()
    );
    assert!(!dir.exists());
}
