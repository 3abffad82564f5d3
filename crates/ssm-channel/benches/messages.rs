//! Measures the channel's cost per message: `cargo bench -p ssm-channel`.
//!
//! Prints the best of several rounds, in nanoseconds for one Output message of 1,024 bytes,
//! acknowledgement included: made for a received message, read for a sent one. The other side's
//! work is prepared outside the measured time.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement reads the clock, prints, and stops when it cannot go on"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ssm_channel::{
    Acknowledge, AgentMessage, Channel, ChannelConfig, ChannelToken, MAX_PAYLOAD, MessageId,
    MessageType, PayloadType, SequenceNumber, Transmit,
};

const MESSAGES: u64 = 32 * 1024;
const ZERO: Duration = Duration::ZERO;
const REQUEST: &[u8] = concat!(
    r#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","#,
    r#""ActionParameters":{"SessionType":"Port","Properties":{"portNumber":"5432"}}}]}"#
)
.as_bytes();
const COMPLETE: &[u8] = br#"{"HandshakeTimeToComplete":1,"CustomerMessage":""}"#;

fn main() {
    for (name, round) in [
        ("receive and acknowledge", receive as fn() -> f64),
        ("the same, every other one late", receive_swapped),
        ("send and be acknowledged", send),
        ("decode alone", decode),
        ("encode alone", encode),
    ] {
        let best = (0..9).map(|_| round()).fold(f64::INFINITY, f64::min);
        println!("{name:34} {best:7.0} ns");
    }
}

fn per_message(time: Duration, messages: u64) -> f64 {
    time.as_nanos() as f64 / messages as f64
}

fn from_agent(number: u64, kind: PayloadType, payload: Bytes) -> Bytes {
    let id = MessageId::new(u128::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060));
    let sequence = SequenceNumber::new(number);
    let direction = MessageType::OutputStreamData;
    AgentMessage::data(direction, sequence, id, 0, (kind, payload)).encode()
}

fn established() -> Channel {
    let token = ChannelToken::new("token".to_owned());
    let config = ChannelConfig::new(token, "request".to_owned(), "client".to_owned(), 1, 0);
    let mut channel = Channel::new(config, ZERO);
    let hello = [
        (PayloadType::HandshakeRequest, REQUEST),
        (PayloadType::HandshakeComplete, COMPLETE),
    ];
    for (number, (kind, text)) in (0..).zip(hello) {
        let message = from_agent(number, kind, Bytes::from_static(text));
        channel.handle_message(ZERO, message).unwrap();
    }
    while channel.poll_event().is_some() {}
    acknowledge(&mut channel, ZERO);
    channel
}

/// Acknowledges everything the channel hands out.
fn acknowledge(channel: &mut Channel, now: Duration) {
    while let Some(transmit) = channel.poll_transmit(now) {
        if let Transmit::Binary(bytes) = transmit
            && let Some(ack) = ack_of(bytes)
        {
            channel.handle_message(now, ack).unwrap();
        }
    }
}

fn ack_of(bytes: Bytes) -> Option<Bytes> {
    let message = AgentMessage::decode(bytes).unwrap();
    let ours = message.message_type == MessageType::InputStreamData;
    let ack = || AgentMessage::acknowledge(&Acknowledge::of(&message), message.id, 0).encode();
    ours.then(ack)
}

fn receive_in(order: impl Fn(u64) -> u64) -> f64 {
    let mut channel = established();
    let payload = Bytes::from(vec![7; MAX_PAYLOAD]);
    let output = |n| from_agent(2 + order(n), PayloadType::Output, payload.clone());
    let messages: Vec<_> = (0..MESSAGES).map(output).collect();
    let start = Instant::now();
    for message in messages {
        channel.handle_message(ZERO, message).unwrap();
        while let Some(event) = channel.poll_event() {
            black_box(event);
        }
        black_box(channel.poll_transmit(ZERO).unwrap());
    }
    per_message(start.elapsed(), MESSAGES)
}

fn receive() -> f64 {
    receive_in(|n| n)
}

fn receive_swapped() -> f64 {
    receive_in(|n| n ^ 1)
}

fn send() -> f64 {
    let mut channel = established();
    let payload = Bytes::from(vec![7; MAX_PAYLOAD]);
    let mut time = Duration::ZERO;
    let (mut now, mut sent) = (ZERO, 0);
    while sent < MESSAGES {
        now += Duration::from_millis(2);
        let mut flight = Vec::with_capacity(4096);
        let start = Instant::now();
        while channel.sendable() > 0 {
            channel.send(now, payload.clone()).unwrap();
            while let Some(Transmit::Binary(bytes)) = channel.poll_transmit(now) {
                flight.push(bytes);
            }
        }
        time += start.elapsed();
        sent += flight.len() as u64;
        let acks: Vec<_> = flight.into_iter().filter_map(ack_of).collect();
        now += Duration::from_millis(2);
        let start = Instant::now();
        for ack in acks {
            channel.handle_message(now, ack).unwrap();
        }
        time += start.elapsed();
    }
    assert!(channel.is_drained());
    per_message(time, sent)
}

fn decode() -> f64 {
    let message = from_agent(5, PayloadType::Output, Bytes::from(vec![7; MAX_PAYLOAD]));
    let start = Instant::now();
    for _ in 0..MESSAGES {
        black_box(AgentMessage::decode(black_box(message.clone())).unwrap());
    }
    per_message(start.elapsed(), MESSAGES)
}

fn encode() -> f64 {
    let message = from_agent(5, PayloadType::Output, Bytes::from(vec![7; MAX_PAYLOAD]));
    let message = AgentMessage::decode(message).unwrap();
    let start = Instant::now();
    for _ in 0..MESSAGES {
        black_box(black_box(&message).encode());
    }
    per_message(start.elapsed(), MESSAGES)
}
