//! The rules of the channel, one conversation each.

use bytes::Bytes;
use ssm_channel::handshake::{ActionStatus, HandshakeResponse, OpenDataChannel, from_json};
use ssm_channel::{
    AgentMessage, CLIENT_VERSION, Channel, ChannelToken, Error, Event, FlagPayload, FrameError,
    MAX_PAYLOAD, MessageType, PayloadType, Transmit,
};

use crate::support::{
    COMPLETE, REQUEST, Rng, WALL, ack_from_agent, config, established, events, flag, from_agent,
    from_service, ms, sorted, transmits,
};

fn output(number: u64, payload: &str) -> Bytes {
    from_agent(number, PayloadType::Output, payload.as_bytes())
}

fn outputs(channel: &mut Channel) -> Vec<Bytes> {
    let output = |event| match event {
        Event::Output(bytes) => bytes,
        other => panic!("{other:?}"),
    };
    events(channel).into_iter().map(output).collect()
}

#[test]
fn the_opening_text_comes_first_and_keeps_its_secret_from_debug() {
    let mut channel = Channel::new(config(1), ms(0));
    assert!(!channel.is_drained());
    assert!(!format!("{channel:?} {:?}", config(1)).contains("tok-secret"));
    let text = channel.poll_transmit(ms(0)).unwrap();
    assert!(!format!("{text:?}").contains("tok-secret"));
    let Transmit::Text(text) = text else { panic!() };
    let open: OpenDataChannel = from_json(text.as_bytes()).unwrap();
    assert_eq!(open.token_value, ChannelToken::new("tok-secret".to_owned()));
    assert_eq!(open.client_version.as_deref(), Some(CLIENT_VERSION));
    assert_eq!(
        (open.request_id.as_str(), open.client_id.as_str()),
        ("request-1", "client-1")
    );
    assert_eq!(channel.poll_transmit(ms(0)), None);
    assert!(channel.is_drained());
}

#[test]
fn nothing_can_be_sent_before_the_handshake_is_complete() {
    let mut channel = Channel::new(config(1), ms(0));
    assert_eq!(channel.sendable(), 0);
    let early = channel.send(ms(0), Bytes::from_static(b"x"));
    assert!(matches!(early, Err(Error::NotSendable)));
    let request = from_agent(0, PayloadType::HandshakeRequest, REQUEST.as_bytes());
    channel.handle_message(ms(0), request).unwrap();
    assert_eq!(channel.sendable(), 0);
    let complete = from_agent(1, PayloadType::HandshakeComplete, COMPLETE.as_bytes());
    channel.handle_message(ms(0), complete).unwrap();
    assert_eq!(
        channel.sendable(),
        32 - 1,
        "the handshake response is still under way"
    );
    assert_eq!(
        channel.session_type().unwrap().property("host"),
        Some("db.internal")
    );
}

#[test]
fn a_handshake_that_arrives_backwards_works_too() {
    let mut channel = Channel::new(config(1), ms(0));
    let complete = from_agent(1, PayloadType::HandshakeComplete, COMPLETE.as_bytes());
    channel.handle_message(ms(0), output(2, "banner")).unwrap();
    channel.handle_message(ms(0), complete).unwrap();
    assert_eq!(events(&mut channel), []);
    assert_eq!(sorted(&mut channel, ms(0)).0, [2, 1]);
    let request = from_agent(0, PayloadType::HandshakeRequest, REQUEST.as_bytes());
    channel.handle_message(ms(0), request).unwrap();
    let seen = events(&mut channel);
    assert!(matches!(seen[0], Event::Established { .. }));
    assert_eq!(seen[1], Event::Output(Bytes::from_static(b"banner")));
}

#[test]
fn unknown_wishes_are_refused_by_name_and_the_agent_is_told() {
    let with = |action: &str| {
        let begin = r#""RequestedClientActions":["#;
        REQUEST.replace(begin, &format!("{begin}{action},"))
    };
    let new = with(r#"{"ActionType":"New","ActionParameters":{}}"#);
    let shapeless = with(r#"{"ActionType":"KMSEncryption","ActionParameters":{"Key":"k"}}"#);
    let both = with(concat!(
        r#"{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"k"}},"#,
        r#"{"ActionType":"New"}"#
    ));
    let kms = r#"{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"k"}}"#;
    let twice = with(&format!("{kms},{kms}"));
    let shell = REQUEST.replace(r#""Port""#, r#""Standard_Stream""#);
    let (success, failed, unsupported) = (
        ActionStatus::Success,
        ActionStatus::Failed,
        ActionStatus::Unsupported,
    );
    for (request, expected, statuses) in [
        (new, "New", vec![unsupported, success]),
        (shapeless, "KMSEncryption", vec![unsupported, success]),
        (both, "New", vec![failed, unsupported, success]),
        (
            twice,
            "a second KMSEncryption",
            vec![failed, unsupported, success],
        ),
        (shell, "SessionType Standard_Stream", vec![unsupported]),
    ] {
        let mut channel = Channel::new(config(1), ms(0));
        let request = from_agent(0, PayloadType::HandshakeRequest, request.as_bytes());
        let error = channel.handle_message(ms(0), request).unwrap_err();
        assert!(matches!(&error, Error::UnsupportedAction { action } if action == expected));
        assert!(error.is_fatal() && !error.is_peer_fault());
        let (acks, data) = sorted(&mut channel, ms(0));
        assert_eq!((acks, data.len()), (vec![0], 1));
        let response: HandshakeResponse = from_json(&data[0].payload).unwrap();
        let answered = response
            .processed_client_actions
            .iter()
            .map(|a| a.action_status);
        assert!(answered.eq(statuses));
        let refused = response
            .processed_client_actions
            .iter()
            .filter(|action| action.action_status != success);
        let texts: Vec<_> = refused.map(|action| action.error.clone()).collect();
        assert_eq!(response.errors, Some(texts));
        assert_eq!(events(&mut channel), []);
        // It is not repeated, and nothing else happens.
        assert_eq!(channel.poll_timeout(), None);
        assert_eq!(channel.poll_transmit(ms(10_000)), None);
        assert!(channel.handle_timeout(ms(20_000)).is_err());
    }
}

#[test]
fn a_handshake_without_sense_fails() {
    for (request, peer_fault) in [
        (REQUEST.replace("SessionType\",\"A", "\",\"A"), false),
        (
            r#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[]}"#.to_owned(),
            true,
        ),
        (REQUEST.replace("3.3.0.0", "new"), true),
        ("{}".to_owned(), true),
        ("not JSON".to_owned(), true),
    ] {
        let mut channel = Channel::new(config(1), ms(0));
        let bytes = from_agent(0, PayloadType::HandshakeRequest, request.as_bytes());
        let error = channel.handle_message(ms(0), bytes).unwrap_err();
        assert_eq!(error.is_peer_fault(), peer_fault, "{request}: {error:?}");
    }
}

#[test]
fn payloads_out_of_their_phase_are_an_error() {
    for kind in [
        PayloadType::Output,
        PayloadType::HandshakeComplete,
        PayloadType::EncryptionChallengeRequest,
    ] {
        let mut channel = Channel::new(config(1), ms(0));
        let outcome = channel.handle_message(ms(0), from_agent(0, kind, b"x"));
        assert!(
            matches!(outcome, Err(Error::UnexpectedPayload { payload_type, .. }) if payload_type == kind)
        );
    }
    let mut channel = established();
    let again = from_agent(2, PayloadType::HandshakeRequest, REQUEST.as_bytes());
    assert!(
        channel
            .handle_message(ms(0), again)
            .unwrap_err()
            .is_peer_fault()
    );
}

#[test]
fn the_handshake_has_a_deadline() {
    let mut channel = Channel::new(config(1), ms(500));
    assert_eq!(channel.poll_timeout(), Some(ms(15_500)));
    channel.handle_timeout(ms(15_499)).unwrap();
    let outcome = channel.handle_timeout(ms(15_500));
    assert!(
        matches!(outcome, Err(Error::HandshakeTimeout { .. })),
        "{outcome:?}"
    );
    let request = from_agent(0, PayloadType::HandshakeRequest, REQUEST.as_bytes());
    let late = channel.handle_message(ms(15_501), request);
    assert!(
        matches!(late, Err(Error::HandshakeTimeout { .. })),
        "the first error sticks"
    );
    assert_eq!(established().poll_timeout(), None);
}

#[test]
fn output_is_put_in_order_and_every_message_is_acknowledged() {
    let mut channel = established();
    for (number, payload) in [
        (4, "c"),
        (3, "b"),
        (4, "c"),
        (2, "a"),
        (2, "a"),
        (5, ""),
        (6, "d"),
    ] {
        channel
            .handle_message(ms(1), output(number, payload))
            .unwrap();
    }
    assert_eq!(outputs(&mut channel), ["a", "b", "c", "d"]);
    // The second number 2 repeats those above it.
    let acks = sorted(&mut channel, ms(1)).0;
    assert_eq!(acks, [4, 3, 4, 2, 2, 3, 4, 5, 6]);
    let stats = channel.stats();
    assert_eq!(
        (stats.received, stats.duplicates, stats.reordering),
        (2 + 5, 2, 0)
    );
}

#[test]
fn an_acknowledgement_names_the_message_it_is_for() {
    let mut channel = established();
    let message = output(2, "a");
    channel.handle_message(ms(5), message.clone()).unwrap();
    let sent = transmits(&mut channel, ms(7)).remove(0).unwrap();
    let ack = ssm_channel::Acknowledge::from_json(&sent.payload).unwrap();
    assert_eq!(ack.id, AgentMessage::decode(message).unwrap().id);
    assert_eq!(
        (sent.flags, sent.sequence.get(), sent.created_date),
        (3, 0, WALL + 7)
    );
    assert_eq!(
        (sent.payload_type, sent.schema_version),
        (PayloadType::None, 1)
    );
}

#[test]
fn what_does_not_fit_ahead_of_a_gap_is_neither_kept_nor_acknowledged() {
    let mut channel = established();
    let mut small = config(1);
    small.reorder_messages = 2;
    let mut limited = Channel::new(small, ms(0));
    for number in 3..20 {
        channel.handle_message(ms(0), output(number, "x")).unwrap();
        limited.handle_message(ms(0), output(number, "x")).unwrap();
    }
    assert_eq!(sorted(&mut channel, ms(0)).0.len(), 17);
    assert_eq!(sorted(&mut limited, ms(0)).0, [3, 4]);
    assert_eq!(
        (limited.stats().reordering, limited.stats().dropped),
        (2, 15)
    );
}

#[test]
fn sent_messages_are_repeated_unchanged_until_acknowledged() {
    let mut channel = established();
    channel.send(ms(0), Bytes::from_static(b"one")).unwrap();
    let Some(Transmit::Binary(first)) = channel.poll_transmit(ms(0)) else {
        panic!()
    };
    channel.send(ms(100), Bytes::from_static(b"two")).unwrap();
    assert_eq!(sorted(&mut channel, ms(100)).1.len(), 1);
    let mut now = ms(0);
    for expected in [200, 400 + 200, 600 + 800] {
        // The second message has its own time; take only the first one's.
        while let Some(due) = channel.poll_timeout() {
            now = due;
            channel.handle_timeout(now).unwrap();
            let Some(Transmit::Binary(again)) = channel.poll_transmit(now) else {
                panic!()
            };
            if again == first {
                break;
            }
        }
        assert_eq!(now, ms(expected));
    }
    assert!(!channel.is_drained());
    let acked = AgentMessage::decode(first).unwrap();
    channel.handle_message(now, ack_from_agent(&acked)).unwrap();
    assert_eq!(channel.stats().in_flight, 1);
    let (_, again) = sorted(&mut channel, now + ms(5000));
    assert_eq!(again.len(), 1);
    channel
        .handle_message(now, ack_from_agent(&again[0]))
        .unwrap();
    assert!(channel.is_drained());
    assert_eq!(channel.poll_timeout(), None);
    assert_eq!(channel.poll_transmit(now + ms(50_000)), None);
}

#[test]
fn a_timer_that_nobody_answers_does_not_spin() {
    let mut channel = established();
    channel.send(ms(0), Bytes::from_static(b"one")).unwrap();
    channel.poll_transmit(ms(0)).unwrap();
    channel.handle_timeout(ms(200)).unwrap();
    // The carrier is full: the message waits to be handed out, and no timer is running for it.
    assert_eq!(channel.poll_timeout(), None);
    assert!(channel.poll_transmit(ms(300)).is_some());
    assert_eq!(channel.poll_timeout(), Some(ms(700)));
}

#[test]
fn acknowledgements_that_fit_nothing_are_ignored() {
    let mut channel = established();
    channel.send(ms(0), Bytes::from_static(b"one")).unwrap();
    let (_, data) = sorted(&mut channel, ms(0));
    let mut unknown = data[0].clone();
    unknown.sequence = ssm_channel::SequenceNumber::new(99);
    let mut wrong_direction = data[0].clone();
    wrong_direction.message_type = MessageType::OutputStreamData;
    for message in [unknown, wrong_direction] {
        channel
            .handle_message(ms(1), ack_from_agent(&message))
            .unwrap();
        assert_eq!(
            (channel.stats().in_flight, channel.stats().srtt),
            (1, Some(ms(0)))
        );
    }
    channel
        .handle_message(ms(1), ack_from_agent(&data[0]))
        .unwrap();
    channel
        .handle_message(ms(9), ack_from_agent(&data[0]))
        .unwrap();
    assert_eq!((channel.stats().in_flight, channel.stats().acked), (0, 2));
}

#[test]
fn the_window_bounds_what_is_under_way() {
    let mut channel = established();
    let mut sent = Vec::new();
    while channel.sendable() > 0 {
        channel
            .send(ms(0), Bytes::from(vec![1; MAX_PAYLOAD]))
            .unwrap();
        sent.extend(sorted(&mut channel, ms(0)).1);
    }
    assert_eq!(sent.len(), 32, "the first window");
    assert!(matches!(
        channel.send(ms(0), Bytes::from_static(b"x")),
        Err(Error::NotSendable)
    ));
    channel
        .handle_message(ms(1), ack_from_agent(&sent[17]))
        .unwrap();
    assert_eq!(
        channel.sendable(),
        2,
        "and one more for every acknowledgement"
    );
    let large = Bytes::from(vec![1; MAX_PAYLOAD + 1]);
    assert!(matches!(
        channel.send(ms(0), large),
        Err(Error::PayloadTooLarge(1025))
    ));
    channel.send(ms(0), Bytes::new()).unwrap();
    assert_eq!(channel.sendable(), 2, "nothing is not a message");
}

#[test]
fn a_pause_holds_data_and_repetitions_but_not_acknowledgements() {
    for by_data in [false, true] {
        let mut channel = established();
        channel
            .send(ms(0), Bytes::from_static(b"under way"))
            .unwrap();
        channel.poll_transmit(ms(0)).unwrap();
        channel.send(ms(0), Bytes::from_static(b"waiting")).unwrap();
        channel.handle_message(ms(1), output(2, "a")).unwrap();
        for _ in 0..2 {
            channel
                .handle_message(ms(2), from_service("pause_publication", ""))
                .unwrap();
        }
        assert_eq!(channel.sendable(), 0);
        assert!(matches!(
            channel.send(ms(2), Bytes::from_static(b"x")),
            Err(Error::NotSendable)
        ));
        assert_eq!(channel.poll_timeout(), None);
        channel.handle_timeout(ms(5000)).unwrap();
        let (acks, data) = sorted(&mut channel, ms(5000));
        assert_eq!((acks, data), (vec![2], vec![]));

        let back = if by_data {
            output(3, "b")
        } else {
            from_service("start_publication", "")
        };
        channel.handle_message(ms(60_000), back).unwrap();
        let expected = [
            Event::Output(Bytes::from_static(b"a")),
            Event::Paused,
            Event::Restarted,
        ];
        assert_eq!(events(&mut channel)[..3], expected);
        let (_, data) = sorted(&mut channel, ms(60_000));
        assert_eq!(
            data.iter().map(|m| m.sequence.get()).collect::<Vec<_>>(),
            [1, 2]
        );
        assert!(channel.sendable() > 0);
        channel
            .handle_message(ms(60_100), ack_from_agent(&data[0]))
            .unwrap();
        assert_eq!(
            channel.stats().srtt,
            Some(ms(0)),
            "a pause is no round trip"
        );
    }
}

#[test]
fn flags_become_events_in_their_place() {
    let mut channel = established();
    channel.handle_message(ms(0), output(2, "a")).unwrap();
    let flags = [
        FlagPayload::ConnectToPortError,
        FlagPayload::DisconnectToPort,
        FlagPayload::Other(77),
    ];
    for (number, kind) in (3..).zip(flags) {
        let message = from_agent(number, PayloadType::Flag, &flag(kind));
        channel.handle_message(ms(0), message).unwrap();
    }
    let short = from_agent(6, PayloadType::Flag, &[0, 0, 3]);
    channel.handle_message(ms(0), short).unwrap();
    let a = Event::Output(Bytes::from_static(b"a"));
    assert_eq!(
        events(&mut channel),
        [a, Event::ConnectToPortError, Event::Disconnected]
    );
    assert_eq!(sorted(&mut channel, ms(0)).0, [2, 3, 4, 5, 6]);
    assert_eq!(channel.stats().ignored, 2);
}

#[test]
fn goodbye_comes_after_the_data_and_ends_the_sending() {
    let mut channel = established();
    channel.send(ms(0), Bytes::from_static(b"last")).unwrap();
    channel.terminate(ms(0));
    channel.terminate(ms(0));
    assert_eq!(channel.sendable(), 0);
    let (_, data) = sorted(&mut channel, ms(0));
    assert_eq!(
        data.iter()
            .map(|m| m.payload_type.code())
            .collect::<Vec<_>>(),
        [1, 10]
    );
    assert_eq!(data[1].payload, flag(FlagPayload::TerminateSession));
    // Still receiving, and still repeating.
    channel.handle_message(ms(0), output(2, "a")).unwrap();
    assert_eq!(outputs(&mut channel), ["a"]);
    channel
        .handle_message(ms(0), ack_from_agent(&data[0]))
        .unwrap();
    let (_, again) = sorted(&mut channel, ms(1000));
    assert_eq!(again, [data[1].clone()]);
    channel
        .handle_message(ms(1001), ack_from_agent(&data[1]))
        .unwrap();
    assert!(channel.is_drained());
}

#[test]
fn goodbye_during_the_handshake_waits_for_its_end() {
    let mut channel = Channel::new(config(1), ms(0));
    channel.terminate(ms(0));
    assert!(matches!(
        channel.poll_transmit(ms(0)),
        Some(Transmit::Text(_))
    ));
    assert_eq!(channel.poll_transmit(ms(0)), None);
    let request = from_agent(0, PayloadType::HandshakeRequest, REQUEST.as_bytes());
    let complete = from_agent(1, PayloadType::HandshakeComplete, COMPLETE.as_bytes());
    channel.handle_message(ms(0), request).unwrap();
    channel.handle_message(ms(0), complete).unwrap();
    assert_eq!(channel.sendable(), 0);
    let (_, data) = sorted(&mut channel, ms(0));
    assert_eq!(
        data.iter()
            .map(|m| m.payload_type.code())
            .collect::<Vec<_>>(),
        [6, 10]
    );
}

#[test]
fn the_service_closes_the_channel_with_its_reason() {
    for (payload, expected) in [
        (
            r#"{"MessageType":"channel_closed","SessionId":"s","Output":"timed out"}"#,
            "timed out",
        ),
        ("{}", ""),
        ("?", ""),
    ] {
        let mut channel = established();
        channel.handle_message(ms(0), output(2, "a")).unwrap();
        channel.send(ms(0), Bytes::from_static(b"x")).unwrap();
        let closed = from_service("channel_closed", payload);
        for message in [closed, output(3, "b")] {
            let error = channel.handle_message(ms(0), message).unwrap_err();
            assert!(matches!(&error, Error::Closed { reason } if reason == expected));
            assert!(!error.is_peer_fault());
        }
        assert_eq!(
            outputs(&mut channel),
            ["a"],
            "what came before it is still delivered"
        );
        assert!(channel.send(ms(0), Bytes::new()).is_err());
        assert_eq!(channel.poll_timeout(), None);
    }
}

#[test]
fn messages_that_mean_nothing_to_a_client_are_ignored() {
    let mut channel = established();
    let mut back_to_sender = AgentMessage::decode(output(2, "x")).unwrap();
    back_to_sender.message_type = MessageType::InputStreamData;
    channel
        .handle_message(ms(0), back_to_sender.encode())
        .unwrap();
    channel
        .handle_message(ms(0), from_service("agent_session_state", "{}"))
        .unwrap();
    for (number, kind) in (2..).zip([
        PayloadType::Error,
        PayloadType::StdErr,
        PayloadType::ExitCode,
        PayloadType::Other(99),
    ]) {
        channel
            .handle_message(ms(0), from_agent(number, kind, b"x"))
            .unwrap();
    }
    assert_eq!(events(&mut channel), []);
    assert_eq!(sorted(&mut channel, ms(0)).0, [2, 3, 4, 5]);
    assert_eq!(channel.stats().ignored, 6);
}

#[test]
fn malformed_messages_end_the_channel() {
    let mut channel = established();
    let mut bad = output(2, "payload").to_vec();
    *bad.last_mut().unwrap() ^= 1;
    let error = channel.handle_message(ms(0), bad.into()).unwrap_err();
    assert!(matches!(error, Error::Malformed(FrameError::Digest)));
    assert!(error.is_fatal() && error.is_peer_fault());
    assert!(matches!(
        channel.handle_message(ms(0), output(2, "x")),
        Err(Error::Malformed(_))
    ));

    let mut channel = established();
    let error = channel
        .handle_message(ms(0), from_service("acknowledge", "{}"))
        .unwrap_err();
    assert!(matches!(error, Error::Json { .. }));
}

/// Any bytes at all: events or an error that sticks, never a panic.
#[test]
fn noise_never_panics() {
    let samples = [
        from_agent(0, PayloadType::HandshakeRequest, REQUEST.as_bytes()),
        from_agent(1, PayloadType::HandshakeComplete, COMPLETE.as_bytes()),
        output(2, "data"),
        from_agent(3, PayloadType::Flag, &flag(FlagPayload::ConnectToPortError)),
        from_service("pause_publication", ""),
        from_service("start_publication", ""),
        from_service("acknowledge", "{}"),
        from_service("something_new", "?"),
    ];
    for seed in 0..3000 {
        let mut rng = Rng(seed);
        let mut channel = Channel::new(config(seed), ms(0));
        let mut failed = false;
        for step in 0..10 {
            let mut bytes = samples[rng.below(8) as usize].to_vec();
            if rng.chance(30) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.next() as u8;
            }
            if rng.chance(5) {
                bytes.truncate(rng.below(bytes.len() as u64) as usize);
            }
            let outcome = channel.handle_message(ms(step), bytes.into());
            assert!(
                !failed || outcome.is_err(),
                "seed {seed}: the error did not stick"
            );
            failed = outcome.is_err();
            while channel.poll_event().is_some() {}
            while channel.poll_transmit(ms(step)).is_some() {}
        }
    }
}
