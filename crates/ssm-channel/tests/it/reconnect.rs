//! Loss of the WebSocket and reconnection.

use bytes::Bytes;
use ssm_channel::handshake::{OpenDataChannel, from_json};
use ssm_channel::{
    AgentMessage, Channel, ChannelToken, Error, Event, MAX_PAYLOAD, PayloadType, Transmit,
};

use crate::support::{
    COMPLETE, REQUEST, ack_from_agent, config, established, events, from_agent, from_service, ms,
    sorted, transmits,
};

fn token(text: &str) -> ChannelToken {
    ChannelToken::new(text.to_owned())
}

fn reconnect(channel: &mut Channel, now: u64) {
    let token = token("tok-second");
    channel
        .reconnect(ms(now), token, "request-2".to_owned())
        .unwrap();
}

fn send(channel: &mut Channel, now: u64, count: usize) -> Vec<AgentMessage> {
    for n in 0..count {
        channel.send(ms(now), Bytes::from(n.to_string())).unwrap();
    }
    sorted(channel, ms(now)).1
}

fn numbers(messages: &[AgentMessage]) -> Vec<u64> {
    messages.iter().map(|m| m.sequence.get()).collect()
}

#[test]
fn first_the_opening_then_acknowledgements_then_everything_without_one_in_order() {
    let mut channel = established();
    let sent = send(&mut channel, 0, 3);
    // The second is acknowledged, the first overdue, and two more were never handed out.
    channel
        .handle_message(ms(1), ack_from_agent(&sent[1]))
        .unwrap();
    channel.handle_timeout(ms(300)).unwrap();
    channel.send(ms(300), Bytes::from_static(b"fresh")).unwrap();
    let late = from_agent(2, PayloadType::Output, b"late");
    channel.handle_message(ms(300), late).unwrap();
    channel.disconnected(ms(301));
    reconnect(&mut channel, 5000);

    let Some(Transmit::Text(text)) = channel.poll_transmit(ms(5000)) else {
        panic!("no opening")
    };
    let open: OpenDataChannel = from_json(text.as_bytes()).unwrap();
    assert_eq!(open.token_value, token("tok-second"));
    assert_eq!(
        (open.request_id.as_str(), open.client_id.as_str()),
        ("request-2", "client-1")
    );
    assert!(!format!("{channel:?}").contains("tok-second"));

    let (acks, data) = sorted(&mut channel, ms(5000));
    assert_eq!((acks, numbers(&data)), (vec![0, 1, 2], vec![1, 3, 4]));
    assert_eq!(data[0], sent[0], "byte for byte");
    assert_eq!(data[1], sent[2], "byte for byte");
    let stats = channel.stats();
    assert_eq!((stats.retransmitted, stats.reconnects), (2, 1));
    // Repeated messages measure nothing; fresh ones do.
    for message in &data[..2] {
        channel
            .handle_message(ms(5080), ack_from_agent(message))
            .unwrap();
    }
    assert_eq!(channel.stats().srtt, stats.srtt);
    channel
        .handle_message(ms(5080), ack_from_agent(&data[2]))
        .unwrap();
    assert!(channel.stats().srtt > Some(ms(10)));
    assert!(channel.is_drained());
}

#[test]
fn without_a_websocket_nothing_moves_and_no_time_passes() {
    let mut channel = established();
    send(&mut channel, 0, 2);
    let late = from_agent(2, PayloadType::Output, b"late");
    channel.disconnected(ms(10));
    channel.disconnected(ms(11));
    // A message that the socket had received before it was lost.
    channel.handle_message(ms(11), late).unwrap();
    assert_eq!(
        events(&mut channel),
        [Event::Output(Bytes::from_static(b"late"))]
    );
    assert_eq!(channel.poll_transmit(ms(12)), None);
    assert_eq!(channel.poll_timeout(), None);
    assert_eq!(channel.sendable(), 0);
    let refused = channel.send(ms(12), Bytes::from_static(b"x"));
    assert!(matches!(refused, Err(Error::NotSendable)));
    // Ten minutes with a driver that calls continually.
    for second in 0..600 {
        channel.handle_timeout(ms(1000 * second)).unwrap();
        assert_eq!(channel.poll_transmit(ms(1000 * second)), None);
    }
    reconnect(&mut channel, 600_000);
    assert_eq!(channel.stats().rto, ms(200), "no back-off was collected");
    let (acks, data) = {
        assert!(channel.poll_transmit(ms(600_000)).is_some());
        sorted(&mut channel, ms(600_000))
    };
    assert_eq!((acks, numbers(&data)), (vec![0, 1, 2], vec![1, 2]));
    assert_eq!(channel.poll_timeout(), Some(ms(600_200)));
}

#[test]
fn a_driver_that_is_back_at_once_need_not_say_that_it_was_away() {
    let mut channel = established();
    let sent = send(&mut channel, 0, 2);
    reconnect(&mut channel, 1);
    let all = transmits(&mut channel, ms(1));
    assert_eq!(all[0], None, "the opening");
    // Then the acknowledgements of the handshake's two messages.
    assert_eq!(all[3..], [Some(sent[0].clone()), Some(sent[1].clone())]);
    // Once is enough.
    assert_eq!(channel.poll_transmit(ms(150)), None);
    assert!(channel.sendable() > 0);
}

#[test]
fn a_full_window_is_replayed_as_the_new_path_takes_it() {
    let mut channel = established();
    // Opens the window to a few hundred messages.
    let mut now = 0;
    let mut under_way = Vec::new();
    for _ in 0..5 {
        while channel.sendable() > 0 {
            let payload = Bytes::from(vec![1; MAX_PAYLOAD]);
            channel.send(ms(now), payload).unwrap();
        }
        under_way = sorted(&mut channel, ms(now)).1;
        now += 20;
        if under_way.len() < 400 {
            for message in &under_way {
                channel
                    .handle_message(ms(now), ack_from_agent(message))
                    .unwrap();
            }
        }
    }
    assert!(under_way.len() >= 400, "{}", under_way.len());
    channel.disconnected(ms(now));
    reconnect(&mut channel, now);
    assert!(channel.poll_transmit(ms(now)).is_some());
    let mut replayed = 0;
    let mut rounds = 0;
    while !channel.is_drained() {
        let data = sorted(&mut channel, ms(now)).1;
        assert!(data.len() <= 32 << rounds, "round {rounds}: {}", data.len());
        assert!(data.len() <= channel.stats().window);
        let expected = &under_way[replayed..replayed + data.len()];
        assert_eq!(data, expected, "in order");
        replayed += data.len();
        rounds += 1;
        now += 20;
        for message in &data {
            channel
                .handle_message(ms(now), ack_from_agent(message))
                .unwrap();
        }
    }
    assert_eq!(replayed, under_way.len());
    assert!(rounds < 8, "{rounds}");
}

#[test]
fn a_new_connection_is_not_paused() {
    let mut channel = established();
    send(&mut channel, 0, 1);
    channel
        .handle_message(ms(1), from_service("pause_publication", ""))
        .unwrap();
    assert_eq!(channel.sendable(), 0);
    reconnect(&mut channel, 100);
    assert_eq!(events(&mut channel), [Event::Paused, Event::Restarted]);
    assert!(channel.poll_transmit(ms(100)).is_some());
    assert_eq!(numbers(&sorted(&mut channel, ms(100)).1), [1]);
    assert!(channel.sendable() > 0);
}

#[test]
fn a_handshake_goes_on_where_it_was_with_its_full_time() {
    let mut channel = Channel::new(config(1), ms(0));
    assert!(channel.poll_transmit(ms(0)).is_some());
    let request = from_agent(0, PayloadType::HandshakeRequest, REQUEST.as_bytes());
    channel.handle_message(ms(14_000), request).unwrap();
    let (_, response) = sorted(&mut channel, ms(14_000));
    channel.disconnected(ms(14_500));
    assert_eq!(channel.poll_timeout(), None);
    channel.handle_timeout(ms(20_000)).unwrap();
    reconnect(&mut channel, 20_000);
    assert_eq!(channel.poll_timeout(), Some(ms(35_000)));
    assert!(channel.poll_transmit(ms(20_000)).is_some());
    assert_eq!(sorted(&mut channel, ms(20_000)).1, response);
    let complete = from_agent(1, PayloadType::HandshakeComplete, COMPLETE.as_bytes());
    channel.handle_message(ms(20_010), complete).unwrap();
    assert!(matches!(
        events(&mut channel)[..],
        [Event::Established { .. }]
    ));
    assert_eq!(send(&mut channel, 20_010, 1)[0].sequence.get(), 1);
}

#[test]
fn a_handshake_on_a_new_connection_has_its_deadline_too() {
    let mut channel = Channel::new(config(1), ms(0));
    channel.disconnected(ms(10_000));
    reconnect(&mut channel, 100_000);
    channel.handle_timeout(ms(114_999)).unwrap();
    let late = channel.handle_timeout(ms(115_000));
    assert!(matches!(late, Err(Error::HandshakeTimeout { .. })));
}

#[test]
fn an_ended_channel_does_not_come_back() {
    let mut channel = established();
    let closed = from_service("channel_closed", r#"{"Output":"timed out"}"#);
    channel.handle_message(ms(0), closed).unwrap_err();
    channel.disconnected(ms(0));
    let again = channel.reconnect(ms(1), token("tok-second"), String::new());
    assert!(matches!(again, Err(Error::Closed { reason }) if reason == "timed out"));
    assert_eq!(channel.poll_transmit(ms(1)), None);
}

#[test]
fn a_goodbye_survives_too() {
    let mut channel = established();
    channel.terminate(ms(0));
    let goodbye = sorted(&mut channel, ms(0)).1;
    channel.disconnected(ms(1));
    reconnect(&mut channel, 2);
    assert!(channel.poll_transmit(ms(2)).is_some());
    assert_eq!(sorted(&mut channel, ms(2)).1, goodbye);
    assert_eq!(channel.sendable(), 0);
}
