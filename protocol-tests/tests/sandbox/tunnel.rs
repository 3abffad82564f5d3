//! The built-in agent, through the whole way from `StartSession`.

use bytes::Bytes;
use protocol_tests::aws::agent::AgentEnd;
use protocol_tests::aws::events::Event;
use protocol_tests::aws::sandbox::{DEFAULT_TARGET, Sandbox};
use protocol_tests::aws::wire::{self, Message, flag, payload};
use protocol_tests::network::link::Conditions;
use protocol_tests::network::vpc::{Endpoint, Resolver};
use serde_json::{Value, json};
use std::time::Duration;

use crate::client::{FIN, MiniClient, PSH, SYN};
use crate::http::{ssm, start_session, started};
use crate::{DB_HOST, assert_no_violation, expect_event, with_echo};

const VERSION: &str = "1.2.764.0";

async fn connect(sandbox: &Sandbox) -> MiniClient {
    let session = start_session(sandbox, DB_HOST, 5432).await;
    MiniClient::shake(sandbox, &session, VERSION).await
}

/// Reads data of `stream` until `length` bytes are there.
async fn read(client: &mut MiniClient, stream: u32, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < length {
        let (command, id, data) = client.next_frame().await.expect("an open connection");
        assert_eq!((command, id), (PSH, stream));
        all.extend_from_slice(&data);
    }
    all
}

/// Bytes that show a lost or doubled piece anywhere.
fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| (i % 251) as u8 ^ (i >> 10) as u8)
        .collect()
}

#[test]
fn every_line_of_the_capture_decodes_and_encodes_to_itself() {
    let capture = include_str!("../../vectors/ssm-session.jsonl");
    let mut kinds = std::collections::BTreeMap::new();
    for line in capture.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let Some(hex) = line["hex"].as_str() else {
            assert!(line["text"].is_string());
            continue;
        };
        let digits = hex.as_bytes().chunks(2);
        let raw: Bytes = digits
            .map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap())
            .collect::<Vec<u8>>()
            .into();
        let message = Message::decode(&raw).unwrap();
        assert_eq!(message.encode(), raw);
        *kinds.entry(message.kind).or_insert(0) += 1;
    }
    let kinds: Vec<_> = kinds.iter().map(|(k, n)| (k.as_str(), *n)).collect();
    let expected = [
        (wire::ACKNOWLEDGE, 27),
        (wire::AGENT_STATE, 2),
        (wire::INPUT, 15),
        (wire::OUTPUT, 14),
    ];
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn the_handshake_says_what_was_asked_for() {
    let sandbox = with_echo().await;
    let session = start_session(&sandbox, DB_HOST, 5432).await;
    let mut client = MiniClient::connect(&sandbox, &session).await;
    let request = client.message().await.unwrap();
    assert_eq!((request.sequence, request.flags), (0, wire::SYN));
    let content: Value = serde_json::from_slice(&request.payload).unwrap();
    let expected = json!({
        "AgentVersion": "3.3.0.0",
        "RequestedClientActions": [{
            "ActionType": "SessionType",
            "ActionParameters": {
                "SessionType": "Port",
                "Properties": {
                    "host": DB_HOST, "localPortNumber": "0", "portNumber": "5432",
                    "type": "LocalPortForwarding",
                },
            },
        }],
    });
    assert_eq!(content, expected);
    client.answer_handshake(VERSION, 1).await;
    let complete = client.message().await.unwrap();
    assert_eq!(
        (complete.sequence, complete.payload_type),
        (1, payload::HANDSHAKE_COMPLETE)
    );
    let content: Value = serde_json::from_slice(&complete.payload).unwrap();
    assert!(content["HandshakeTimeToComplete"].as_u64().unwrap() > 0);
    expect_event(&sandbox, |e| {
        matches!(e, Event::HandshakeComplete { client_version, .. } if client_version == VERSION)
    })
    .await;
    assert_no_violation(&sandbox);
}

#[tokio::test]
async fn two_streams_echo_and_close_both_ways() {
    let sandbox = with_echo().await;
    let mut client = connect(&sandbox).await;
    client.frame(SYN, 3, b"").await;
    client.frame(PSH, 3, b"one").await;
    assert_eq!(read(&mut client, 3, 3).await, b"one");
    client.frame(SYN, 5, b"").await;
    let long = pattern(100_000);
    for part in long.chunks(32_768) {
        client.frame(PSH, 5, part).await;
    }
    assert!(read(&mut client, 5, long.len()).await == long);
    client.frame(FIN, 3, b"").await;
    assert_eq!(client.next_frame().await.unwrap(), (FIN, 3, Bytes::new()));
    client.frame(FIN, 5, b"").await;
    assert_eq!(client.next_frame().await.unwrap(), (FIN, 5, Bytes::new()));
    let finished = expect_event(&sandbox, |e| {
        matches!(e, Event::StreamFinished { stream: 5, .. })
    });
    let Event::StreamFinished {
        to_server,
        from_server,
        ..
    } = finished.await
    else {
        panic!("another event");
    };
    assert_eq!((to_server, from_server), (100_000, 100_000));
    client.flag(flag::TERMINATE_SESSION).await;
    client.until_closed().await;
    assert!(client.is_settled(), "the goodbye is acknowledged");
    assert!(sandbox.open_sessions().is_empty());
    assert_no_violation(&sandbox);
}

#[tokio::test]
async fn a_failed_dial_is_a_flag_without_a_stream() {
    let sandbox = with_echo().await;
    let session = start_session(&sandbox, DB_HOST, 1).await;
    let mut client = MiniClient::shake(&sandbox, &session, VERSION).await;
    client.frame(SYN, 3, b"").await;
    assert_eq!(client.next_frame().await.unwrap(), (FIN, 3, Bytes::new()));
    assert_eq!(client.flags, [flag::CONNECT_TO_PORT_ERROR]);
    expect_event(&sandbox, |e| {
        matches!(e, Event::Dial { result: Err(_), .. })
    })
    .await;
    // The session lives on, and data for the dead stream does no harm.
    client.frame(PSH, 3, b"late").await;
    client.frame(SYN, 5, b"").await;
    assert_eq!(client.next_frame().await.unwrap(), (FIN, 5, Bytes::new()));
    assert_no_violation(&sandbox);
}

#[tokio::test]
async fn a_failed_lookup_ends_the_session_with_the_resolvers_words() {
    let sandbox = with_echo().await;
    let vpc = sandbox.vpc();
    for (resolver, host, words) in [
        (Resolver::Answers, "unknown.example", "no such host"),
        (Resolver::Misbehaves, DB_HOST, "server misbehaving"),
        (Resolver::Silent, DB_HOST, "i/o timeout"),
    ] {
        vpc.set_resolver(resolver);
        let session = start_session(&sandbox, host, 5432).await;
        let mut client = MiniClient::shake(&sandbox, &session, VERSION).await;
        let reason = client.end_reason().await;
        assert!(
            reason.starts_with(&format!("lookup {host} on ")),
            "{reason}"
        );
        assert!(reason.ends_with(words), "{reason}");
    }
    assert_eq!(
        sandbox.events().count(|e| matches!(e, Event::Dial { .. })),
        0
    );
    assert_no_violation(&sandbox);
}

#[tokio::test]
async fn all_addresses_of_a_name_are_dialled_in_their_order() {
    let sandbox = with_echo().await;
    let vpc = sandbox.vpc();
    let open = vpc.resolve(DB_HOST).unwrap();
    let refusing = vpc.add("down.internal", 5432, Endpoint::Refused);
    vpc.point_to_all(DB_HOST, &[refusing, open, refusing]);
    let mut client = connect(&sandbox).await;
    client.frame(SYN, 3, b"").await;
    client.frame(PSH, 3, b"through").await;
    assert_eq!(read(&mut client, 3, 7).await, b"through");
    let dials = sandbox.events().all().into_iter().filter_map(|e| match e {
        Event::Dial { result, .. } => Some(result.is_ok()),
        _ => None,
    });
    assert_eq!(dials.collect::<Vec<_>>(), [false, true]);
    assert!(client.flags.is_empty());
}

#[tokio::test]
async fn what_comes_too_early_is_acknowledged_and_lost_or_dropped_without_a_word() {
    let sandbox = with_echo().await;
    let agent = sandbox.agent(DEFAULT_TARGET);
    agent.update(|s| s.discard_messages = 1);
    let mut client = connect(&sandbox).await;
    client.frame(SYN, 3, b"").await;
    client.settle().await;
    // Nobody knows this stream any more, and the next one works.
    client.frame(PSH, 3, b"into the void").await;
    client.frame(FIN, 3, b"").await;
    client.frame(SYN, 5, b"").await;
    client.frame(PSH, 5, b"heard").await;
    let (command, id, data) = client.next_frame().await.unwrap();
    assert_eq!((command, id, &data[..]), (PSH, 5, &b"heard"[..]));
    let discarded = |e: &Event| matches!(e, Event::InputDiscarded { .. });
    assert_eq!(sandbox.events().count(discarded), 1);

    agent.update(|s| (s.discard_messages, s.not_ready_messages) = (0, 2));
    let mut client = connect(&sandbox).await;
    client.frame(SYN, 3, b"").await;
    client.frame(PSH, 3, b"late").await;
    assert_eq!(read(&mut client, 3, 4).await, b"late");
    let dropped = |e: &Event| matches!(e, Event::InputDropped { .. });
    assert_eq!(sandbox.events().count(dropped), 2);
    assert_no_violation(&sandbox);
}

#[tokio::test]
async fn an_agent_that_dies_silently_leaves_the_service_unaware() {
    let sandbox = with_echo().await;
    let mut client = connect(&sandbox).await;
    client.frame(SYN, 3, b"").await;
    client.frame(PSH, 3, b"alive").await;
    assert_eq!(read(&mut client, 3, 5).await, b"alive");
    let agent = sandbox.agent(DEFAULT_TARGET);
    agent.stop(AgentEnd::Silent);
    let lost = |e: &Event| {
        matches!(
            e,
            Event::AgentLost {
                graceful: false,
                ..
            }
        )
    };
    expect_event(&sandbox, lost).await;
    client.frame(PSH, 3, b"anybody there").await;
    for _ in 0..5 {
        client.turn().await;
    }
    assert!(!client.is_settled() && !client.closed);
    assert_eq!(client.pauses(), 0, "the service says nothing");
    // Nor does it refuse another session, in which nothing comes either.
    let session = start_session(&sandbox, DB_HOST, 5432).await;
    let mut other = MiniClient::connect(&sandbox, &session).await;
    other.turn().await;
    assert!(!other.closed);
    agent.set_online(true);
    connect(&sandbox).await;
}

#[tokio::test]
async fn the_name_is_looked_up_once_and_metadata_is_out_of_bounds() {
    let sandbox = with_echo().await;
    let mut client = connect(&sandbox).await;
    sandbox.vpc().forget(DB_HOST);
    client.frame(SYN, 3, b"").await;
    client.frame(PSH, 3, b"still there").await;
    assert_eq!(read(&mut client, 3, 11).await, b"still there");

    let session = start_session(&sandbox, "169.254.169.254", 80).await;
    let mut client = MiniClient::shake(&sandbox, &session, VERSION).await;
    client.until_closed().await;
    let text = &client.service[0].1;
    assert!(text.contains("Forwarding to IP address 169.254.169.254 is forbidden."));
}

#[tokio::test]
async fn a_dial_into_the_void_stalls_the_streams_behind_it() {
    let sandbox = with_echo().await;
    let open = echo_endpoint(&sandbox).await;
    sandbox.vpc().add(DB_HOST, 5432, Endpoint::Blackhole);
    let mut client = connect(&sandbox).await;
    client.frame(SYN, 3, b"").await;
    client.settle().await;
    sandbox.vpc().add(DB_HOST, 5432, open);
    client.frame(SYN, 5, b"").await;
    client.frame(PSH, 5, b"waiting").await;
    client.settle().await;
    assert_eq!(
        sandbox.events().count(|e| matches!(e, Event::Dial { .. })),
        0
    );
    // Another session is not concerned.
    let mut other = connect(&sandbox).await;
    other.frame(SYN, 3, b"").await;
    other.frame(PSH, 3, b"free").await;
    assert_eq!(read(&mut other, 3, 4).await, b"free");
}

async fn echo_endpoint(_: &Sandbox) -> Endpoint {
    Endpoint::Open(crate::echo_server().await)
}

#[tokio::test]
async fn a_handshake_refused_or_missed_ends_the_session_with_the_reason() {
    let sandbox = with_echo().await;
    let session = start_session(&sandbox, DB_HOST, 5432).await;
    let mut client = MiniClient::connect(&sandbox, &session).await;
    client.message().await.unwrap();
    client.answer_handshake(VERSION, 3).await;
    client.until_closed().await;
    let text = &client.service[0].1;
    assert!(
        text.contains("SessionType failed on client with status 3"),
        "{text}"
    );

    let agent = sandbox.agent(DEFAULT_TARGET);
    agent.update(|s| {
        s.mute = true;
        s.handshake_limit = Duration::from_millis(50);
    });
    let session = start_session(&sandbox, DB_HOST, 5432).await;
    let mut client = MiniClient::connect(&sandbox, &session).await;
    client.until_closed().await;
    let text = &client.service[0].1;
    assert!(text.contains("Handshake timed out."), "{text}");
}

#[tokio::test]
async fn the_races_of_a_fast_link_cost_time_but_no_bytes() {
    let sandbox = with_echo().await;
    sandbox.agent(DEFAULT_TARGET).set_races(true);
    let mut client = connect(&sandbox).await;
    client.frame(SYN, 3, b"").await;
    let sent = pattern(40_000);
    for part in sent.chunks(4000) {
        client.frame(PSH, 3, part).await;
    }
    assert!(read(&mut client, 3, sent.len()).await == sent);
    let dropped = |e: &Event| matches!(e, Event::InputDropped { .. });
    assert_eq!(sandbox.events().count(dropped), 1);
    // A missed acknowledgement shows as a message sent again.
    while client.duplicates == 0 {
        client.turn().await;
    }
    assert_no_violation(&sandbox);
}

#[tokio::test]
async fn the_agent_resends_only_its_oldest_message() {
    let sandbox = with_echo().await;
    let mut client = connect(&sandbox).await;
    client.mute = true;
    client.frame(SYN, 3, b"").await;
    client.frame(PSH, 3, &pattern(10_000)).await;
    read(&mut client, 3, 10_000).await;
    while client.duplicates < 2 {
        client.turn().await;
    }
    let sequences = sandbox.events().all().into_iter().filter_map(|e| match e {
        Event::AgentResent { sequence, .. } => Some(sequence),
        _ => None,
    });
    let sequences: Vec<i64> = sequences.collect();
    assert!(
        sequences.len() >= 2 && sequences.iter().all(|s| *s == 2),
        "{sequences:?}"
    );
}

#[tokio::test]
async fn a_bad_link_loses_no_bytes_and_heals() {
    let sandbox = with_echo().await;
    let mut client = connect(&sandbox).await;
    let conditions = Conditions {
        delay: Duration::from_millis(2),
        loss: 0.03,
        duplicate: 0.05,
        reorder: 0.1,
    };
    sandbox.link().set(conditions, 7);
    client.frame(SYN, 3, b"").await;
    let sent = pattern(60_000);
    for part in sent.chunks(3000) {
        client.frame(PSH, 3, part).await;
    }
    assert!(read(&mut client, 3, sent.len()).await == sent);
    assert!(client.duplicates > 0, "the link was bad");
    sandbox.link().clear();
    client.frame(PSH, 3, b"healed").await;
    assert_eq!(read(&mut client, 3, 6).await, b"healed");
    assert_no_violation(&sandbox);
}

#[tokio::test]
async fn a_cut_connection_resumes_where_it_was() {
    let sandbox = with_echo().await;
    let session = start_session(&sandbox, DB_HOST, 5432).await;
    let mut client = MiniClient::shake(&sandbox, &session, VERSION).await;
    client.frame(SYN, 3, b"").await;
    client.frame(PSH, 3, b"before").await;
    assert_eq!(read(&mut client, 3, 6).await, b"before");
    for hard in [true, false] {
        let gone = if hard {
            sandbox.cut_client(&session.id)
        } else {
            sandbox.close_client(&session.id, 1000, "Bye")
        };
        assert!(gone);
        client.until_closed().await;
        client.frame(PSH, 3, b"while away").await;
        let body = json!({ "SessionId": session.id });
        let resumed = ssm(&sandbox, sandbox.user(), "ResumeSession", body).await;
        client.reconnect(&sandbox, &started(&resumed.json())).await;
        assert_eq!(read(&mut client, 3, 10).await, b"while away");
    }
    assert_no_violation(&sandbox);
}

#[tokio::test]
async fn a_frozen_path_answers_nothing_until_it_thaws() {
    let sandbox = with_echo().await;
    let mut client = connect(&sandbox).await;
    client.frame(SYN, 3, b"").await;
    client.settle().await;
    sandbox.link().blackhole(true);
    client.frame(PSH, 3, b"hello").await;
    // Every turn waits for an answer for a while and then resends.
    for _ in 0..3 {
        client.turn().await;
        assert!(!client.is_settled());
    }
    sandbox.link().blackhole(false);
    assert_eq!(read(&mut client, 3, 5).await, b"hello");
}

#[tokio::test]
async fn a_stranded_connection_is_replaced_by_a_new_one() {
    let sandbox = with_echo().await;
    let session = start_session(&sandbox, DB_HOST, 5432).await;
    let mut client = MiniClient::shake(&sandbox, &session, VERSION).await;
    client.frame(SYN, 3, b"").await;
    client.settle().await;
    sandbox.link().strand();
    client.frame(PSH, 3, b"moved").await;
    client.turn().await;
    assert!(!client.is_settled() && !client.closed);
    let body = json!({ "SessionId": session.id });
    let resumed = ssm(&sandbox, sandbox.user(), "ResumeSession", body).await;
    client.reconnect(&sandbox, &started(&resumed.json())).await;
    assert_eq!(read(&mut client, 3, 5).await, b"moved");
    let replaced =
        |e: &Event| matches!(e, Event::GatewayClosed { reason, .. } if reason == "replaced");
    expect_event(&sandbox, replaced).await;
}

#[tokio::test]
async fn what_breaks_the_protocol_is_noted() {
    let sandbox = with_echo().await;
    let mut client = connect(&sandbox).await;
    client.raw(Bytes::from_static(b"nonsense")).await;
    client.frame(PSH, 9, b"unopened").await;
    client.settle().await;
    let violations = |e: &Event| matches!(e, Event::Violation { .. });
    assert_eq!(sandbox.events().count(violations), 2);
    client
        .send(payload::OUTPUT, Bytes::from_static(&[2; 8]))
        .await;
    client.until_closed().await;
    assert_eq!(sandbox.events().count(violations), 3);
}
