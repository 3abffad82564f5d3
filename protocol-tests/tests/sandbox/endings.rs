//! How sessions pause and end, and what can still be resumed.

use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol_tests::aws::agent::AgentEnd;
use protocol_tests::aws::events::Event;
use protocol_tests::aws::preferences::{IDLE_REASON, MAXIMUM_REASON};
use protocol_tests::aws::sandbox::{DEFAULT_TARGET, Sandbox};
use protocol_tests::aws::wire::{flag, payload};
use protocol_tests::network::vpc::Endpoint;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::client::{FIN, MiniClient, PSH, SYN};
use crate::http::{Started, resume, ssm, start_session};
use crate::{DB_HOST, PATIENCE, assert_no_violation, echo_server, expect_event, with_echo};

const VERSION: &str = "1.2.764.0";
/// Keepalive of the multiplexer.
const NOP: u8 = 3;

async fn connect(sandbox: &Sandbox) -> (Started, MiniClient) {
    let session = start_session(sandbox, DB_HOST, 5432).await;
    let client = MiniClient::shake(sandbox, &session, VERSION).await;
    (session, client)
}

async fn echo(client: &mut MiniClient, stream: u32, text: &'static [u8]) {
    client.frame(PSH, stream, text).await;
    let frame = client.next_frame().await.expect("an open connection");
    assert_eq!(frame, (PSH, stream, Bytes::from_static(text)));
}

#[tokio::test]
async fn a_session_without_data_times_out_and_keepalive_is_data() {
    let sandbox = with_echo().await;
    let idle = Duration::from_millis(800);
    sandbox.preferences().update(|l| l.idle = Some(idle));
    let (session, mut client) = connect(&sandbox).await;
    let begin = Instant::now();
    while begin.elapsed() < idle * 3 / 2 {
        client.frame(NOP, 0, b"").await;
        client.settle().await;
        client.turn().await;
    }
    assert!(!client.closed, "{:?}", client.service);
    let quiet = Instant::now();
    assert_eq!(client.end_reason().await, IDLE_REASON);
    assert!(quiet.elapsed() >= idle / 2);
    assert_eq!(resume(&sandbox, &session).await.token, "");
    let ended = Event::SessionEnded {
        session_id: session.id,
        reason: IDLE_REASON.to_owned(),
    };
    assert_eq!(sandbox.events().count(|e| *e == ended), 1);
}

#[tokio::test]
async fn a_session_lasts_no_longer_than_allowed() {
    let sandbox = with_echo().await;
    let maximum = Duration::from_millis(300);
    sandbox.preferences().update(|l| l.maximum = Some(maximum));
    let begin = Instant::now();
    let (session, mut client) = connect(&sandbox).await;
    // What was started under other preferences keeps them.
    sandbox.preferences().update(|l| l.maximum = None);
    client.frame(SYN, 3, b"").await;
    while !client.closed {
        client.frame(PSH, 3, b"busy").await;
        client.turn().await;
    }
    assert!(begin.elapsed() >= maximum);
    assert_eq!(client.end_reason().await, MAXIMUM_REASON);
    // Some answers leave the token out instead of leaving it empty.
    sandbox.api().leave_token_out(true);
    let body = json!({ "SessionId": session.id });
    let answer = ssm(&sandbox, sandbox.user(), "ResumeSession", body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json().get("TokenValue"), None);
}

#[tokio::test]
async fn an_administrator_gives_no_reason() {
    let sandbox = with_echo().await;
    let (session, mut client) = connect(&sandbox).await;
    assert!(sandbox.terminate_session(&session.id));
    assert_eq!(client.end_reason().await, "");
    assert!(!sandbox.terminate_session(&session.id));
    assert_eq!(resume(&sandbox, &session).await.token, "");
}

#[tokio::test]
async fn sockets_are_closed_in_time_and_sessions_go_on() {
    let sandbox = with_echo().await;
    let life = Duration::from_millis(200);
    sandbox
        .preferences()
        .update(|l| l.close_sockets_after = Some(life));
    let (session, mut client) = connect(&sandbox).await;
    client.frame(SYN, 3, b"").await;
    for _ in 0..2 {
        let begin = Instant::now();
        client.until_closed().await;
        assert!(begin.elapsed() < PATIENCE / 2);
        let again = resume(&sandbox, &session).await;
        client.reconnect(&sandbox, &again).await;
        echo(&mut client, 3, b"still here").await;
    }
    let bye = |e: &Event| {
        matches!(e, Event::GatewayClosed { reason, .. }
            if reason == "closed by the service, 1000 Bye" || reason == "closed by peer, 1000")
    };
    assert!(sandbox.events().count(bye) >= 1, "{:#?}", sandbox.events());
    assert_no_violation(&sandbox);
}

#[tokio::test]
async fn a_node_that_shuts_down_closes_its_sessions() {
    let sandbox = with_echo().await;
    let agent = sandbox.agent(DEFAULT_TARGET);
    let (session, mut client) = connect(&sandbox).await;
    agent.stop(AgentEnd::Graceful);
    assert_eq!(client.end_reason().await, "");
    let input = crate::http::start_input(DEFAULT_TARGET, DB_HOST, 5432);
    let refused = ssm(&sandbox, sandbox.user(), "StartSession", input).await;
    assert_eq!(refused.code(), "TargetNotConnected");
    agent.set_online(true);
    assert_eq!(resume(&sandbox, &session).await.token, "");
    let (_, mut client) = connect(&sandbox).await;
    client.frame(SYN, 3, b"").await;
    echo(&mut client, 3, b"back").await;
}

#[tokio::test]
async fn a_node_that_dies_leaves_its_sessions_paused_for_good() {
    let sandbox = with_echo().await;
    let idle = Duration::from_millis(1500);
    sandbox.preferences().update(|l| l.idle = Some(idle));
    let agent = sandbox.agent(DEFAULT_TARGET);
    let (session, mut client) = connect(&sandbox).await;
    client.frame(SYN, 3, b"").await;
    echo(&mut client, 3, b"hello").await;
    agent.stop(AgentEnd::Crash);
    let lost = Event::AgentLost {
        session_id: session.id.clone(),
        graceful: false,
    };
    expect_event(&sandbox, |e| *e == lost).await;
    // The service says so at once, and again for every message.
    client.frame(PSH, 3, b"anybody?").await;
    while client.pauses() < 3 {
        client.turn().await;
    }
    assert!(!client.is_settled());
    // Resuming works and helps nobody, also when the node is back.
    agent.set_online(true);
    assert!(sandbox.cut_client(&session.id));
    client.until_closed().await;
    let again = resume(&sandbox, &session).await;
    assert_ne!(again.token, "");
    client.reconnect(&sandbox, &again).await;
    // The client falls silent, and the idle timeout ends what nobody serves.
    let quiet = tokio::time::timeout(
        PATIENCE,
        sandbox.events().wait_for(
            |e| matches!(e, Event::SessionEnded { reason, .. } if reason == IDLE_REASON),
            PATIENCE,
        ),
    );
    assert!(quiet.await.unwrap().is_some());
    assert_eq!(client.end_reason().await, IDLE_REASON);
    assert_eq!(resume(&sandbox, &session).await.token, "");
}

#[tokio::test]
async fn while_the_client_is_away_the_agent_holds_its_data() {
    let sandbox = with_echo().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    sandbox.vpc().open(DB_HOST, 5432, address);
    let (session, mut client) = connect(&sandbox).await;
    client.frame(SYN, 3, b"").await;
    let (mut server, _) = listener.accept().await.unwrap();
    server.write_all(b"before").await.unwrap();
    assert_eq!(client.next_frame().await.unwrap().2, "before");
    client.settle().await;
    assert!(sandbox.cut_client(&session.id));
    expect_event(&sandbox, |e| matches!(e, Event::GatewayClosed { .. })).await;
    // More than the service would keep for somebody who is away.
    let sent: Vec<u8> = (0..600_000u32).map(|i| (i % 249) as u8).collect();
    let sending = sent.clone();
    let writer = tokio::spawn(async move {
        server.write_all(&sending).await.unwrap();
        server
    });
    let resent = sandbox
        .events()
        .count(|e| matches!(e, Event::AgentResent { .. }));
    let again = resume(&sandbox, &session).await;
    client.reconnect(&sandbox, &again).await;
    let mut received = Vec::new();
    while received.len() < sent.len() {
        received.extend_from_slice(&client.next_frame().await.unwrap().2);
    }
    assert!(received == sent);
    drop(writer.await.unwrap());
    assert_eq!(client.next_frame().await.unwrap().0, FIN);
    // What the agent had in hand when it was told to pause comes as a retransmission.
    let now = sandbox
        .events()
        .count(|e| matches!(e, Event::AgentResent { .. }));
    assert!(now > resent, "{:#?}", sandbox.events());
    assert_no_violation(&sandbox);
}

#[tokio::test]
async fn the_old_token_and_the_old_socket_are_void_after_a_resume() {
    let sandbox = with_echo().await;
    let (session, mut client) = connect(&sandbox).await;
    let first = resume(&sandbox, &session).await;
    let second = resume(&sandbox, &session).await;
    // A token that was never used is void when a newer one is given out.
    let mut late = MiniClient::connect(&sandbox, &first).await;
    late.until_closed().await;
    let mut new = MiniClient::connect(&sandbox, &second).await;
    client.until_closed().await;
    // And the right one opens once.
    let mut twice = MiniClient::connect(&sandbox, &second).await;
    twice.until_closed().await;
    new.turn().await;
    assert!(!new.closed);
    let refused =
        |e: &Event| matches!(e, Event::GatewayRefused { reason, .. } if reason == "wrong token");
    assert_eq!(sandbox.events().count(refused), 2);
}

#[tokio::test]
async fn a_handshake_can_stay_without_its_end() {
    let sandbox = with_echo().await;
    let agent = sandbox.agent(DEFAULT_TARGET);
    agent.update(|s| s.withhold_complete = true);
    let session = start_session(&sandbox, DB_HOST, 5432).await;
    let mut client = MiniClient::connect(&sandbox, &session).await;
    client.message().await.unwrap();
    client.answer_handshake(VERSION, 1).await;
    client.settle().await;
    // Bytes that come now are acknowledged and lost.
    client.frame(SYN, 3, b"").await;
    client.settle().await;
    expect_event(
        &sandbox,
        |e| matches!(e, Event::Violation { what, .. } if what.contains("before the handshake")),
    )
    .await;
}

#[tokio::test]
async fn an_old_session_keeps_the_old_address() {
    let sandbox = with_echo().await;
    let (_, mut old) = connect(&sandbox).await;
    let refusing = sandbox.vpc().repoint(DB_HOST, 5432, Endpoint::Refused);
    old.frame(SYN, 3, b"").await;
    echo(&mut old, 3, b"old").await;
    let (_, mut new) = connect(&sandbox).await;
    new.frame(SYN, 3, b"").await;
    assert_eq!(new.next_frame().await.unwrap().0, FIN);
    assert_eq!(new.flags, [flag::CONNECT_TO_PORT_ERROR]);
    assert_eq!(sandbox.vpc().resolve(DB_HOST), Some(refusing));
    // The new address comes to life, and the old session still knows nothing of it.
    sandbox.vpc().open(DB_HOST, 5432, echo_server().await);
    new.frame(SYN, 5, b"").await;
    echo(&mut new, 5, b"new").await;
}

#[tokio::test]
async fn an_agent_without_multiplexer_carries_one_connection_as_it_is() {
    let sandbox = with_echo().await;
    sandbox.vpc().open("localhost", 5432, echo_server().await);
    let agent = sandbox.agent(DEFAULT_TARGET);
    agent.update(|s| s.version = "3.0.161.0".to_owned());
    let session = start_session(&sandbox, DB_HOST, 5432).await;
    let mut client = MiniClient::connect(&sandbox, &session).await;
    let request = client.message().await.unwrap();
    let request: Value = serde_json::from_slice(&request.payload).unwrap();
    assert_eq!(request["AgentVersion"], "3.0.161.0");
    client.answer_handshake(VERSION, 1).await;
    client.message().await.unwrap();
    for text in ["first", "second"] {
        client.send(payload::OUTPUT, Bytes::from(text)).await;
        let message = client.message().await.unwrap();
        assert_eq!(
            (message.payload_type, &message.payload[..]),
            (payload::OUTPUT, text.as_bytes())
        );
        client.flag(flag::DISCONNECT_TO_PORT).await;
        client.settle().await;
    }
    // It does not know the host parameter and dials its own machine, anew for each connection.
    let dials =
        |e: &Event| matches!(e, Event::Dial { host, result: Ok(()), .. } if host == "localhost");
    assert_eq!(sandbox.events().count(dials), 2);
    client.flag(flag::TERMINATE_SESSION).await;
    assert_eq!(client.end_reason().await, "");
    assert_no_violation(&sandbox);

    sandbox.vpc().add("localhost", 5432, Endpoint::Refused);
    let (_, mut client) = connect(&sandbox).await;
    let text = client.end_reason().await;
    assert!(
        text.starts_with("Unable to connect to specified port: dial tcp"),
        "{text}"
    );
}

#[tokio::test]
async fn an_agent_that_is_too_old_for_hosts_dials_itself() {
    let sandbox = with_echo().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap();
    sandbox.vpc().open("localhost", 5432, own);
    let agent = sandbox.agent(DEFAULT_TARGET);
    agent.update(|s| s.version = "3.1.1320.0".to_owned());
    let (_, mut client) = connect(&sandbox).await;
    client.frame(SYN, 3, b"").await;
    client.frame(PSH, 3, b"who is there").await;
    let (mut server, _) = listener.accept().await.unwrap();
    let mut heard = [0; 12];
    server.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"who is there");
}
