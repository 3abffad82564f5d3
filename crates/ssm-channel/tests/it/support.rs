//! Helpers shared by the tests.

use std::time::Duration;

use bytes::Bytes;
use ssm_channel::{
    Acknowledge, AgentMessage, Channel, ChannelConfig, ChannelToken, Event, FlagPayload,
    MessageType, PayloadType, SequenceNumber, Transmit,
};

/// splitmix64: a small generator with a one-word seed, so that a failing seed can be named.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Returns true in `percent` of the cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) const WALL: u64 = 1_795_442_819_302;

pub(crate) fn config(seed: u64) -> ChannelConfig {
    let token = ChannelToken::new("tok-secret".to_owned());
    ChannelConfig::new(
        token,
        "request-1".to_owned(),
        "client-1".to_owned(),
        u128::from(seed),
        WALL,
    )
}

/// Returns everything the channel wants to send now. The opening text comes back as `None`.
pub(crate) fn transmits(channel: &mut Channel, now: Duration) -> Vec<Option<AgentMessage>> {
    let next = || channel.poll_transmit(now);
    std::iter::from_fn(next)
        .map(|transmit| match transmit {
            Transmit::Text(_) => None,
            Transmit::Binary(bytes) => Some(AgentMessage::decode(bytes).unwrap()),
        })
        .collect()
}

/// Returns the same without the opening text, split into acknowledged numbers and data messages.
pub(crate) fn sorted(channel: &mut Channel, now: Duration) -> (Vec<u64>, Vec<AgentMessage>) {
    let mut acks = Vec::new();
    let mut data = Vec::new();
    for message in transmits(channel, now).into_iter().flatten() {
        if message.message_type == MessageType::Acknowledge {
            assert!(data.is_empty(), "acknowledgements come first");
            let ack = Acknowledge::from_json(&message.payload).unwrap();
            assert_eq!(ack.message_type, MessageType::OutputStreamData);
            assert!(ack.is_sequential);
            acks.push(ack.sequence.get());
        } else {
            assert_eq!(message.message_type, MessageType::InputStreamData);
            data.push(message);
        }
    }
    (acks, data)
}

pub(crate) fn events(channel: &mut Channel) -> Vec<Event> {
    std::iter::from_fn(|| channel.poll_event()).collect()
}

/// Builds a data message of the agent. Its id depends on its number only.
pub(crate) fn from_agent(number: u64, payload_type: PayloadType, payload: &[u8]) -> Bytes {
    let id = ssm_channel::MessageId::new(u128::from(number) << 64 | 0xA);
    let payload = Bytes::copy_from_slice(payload);
    let sequence = SequenceNumber::new(number);
    AgentMessage::data(
        MessageType::OutputStreamData,
        sequence,
        id,
        WALL,
        (payload_type, payload),
    )
    .encode()
}

/// Builds the agent's acknowledgement of a client's data message.
pub(crate) fn ack_from_agent(of: &AgentMessage) -> Bytes {
    let id = ssm_channel::MessageId::new(u128::from(of.sequence.get()) << 64 | 0xB);
    AgentMessage::acknowledge(&Acknowledge::of(of), id, WALL).encode()
}

/// Builds a message of the service that is outside every sequence.
pub(crate) fn from_service(message_type: &str, payload: &str) -> Bytes {
    let mut message = AgentMessage::decode(from_agent(0, PayloadType::None, b"")).unwrap();
    message.message_type = MessageType::from_name(message_type);
    message.payload = Bytes::copy_from_slice(payload.as_bytes());
    message.encode()
}

pub(crate) const REQUEST: &str = concat!(
    r#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","#,
    r#""ActionParameters":{"SessionType":"Port","Properties":{"host":"db.internal","#,
    r#""localPortNumber":"0","portNumber":"5432","type":"LocalPortForwarding"}}}]}"#
);
pub(crate) const COMPLETE: &str = r#"{"HandshakeTimeToComplete":1000000,"CustomerMessage":""}"#;

/// Returns a channel after its handshake at time 0, with everything acknowledged and taken. The
/// agent's next number is 2, the client's is 1.
pub(crate) fn established() -> Channel {
    let mut channel = Channel::new(config(1), ms(0));
    assert!(matches!(
        channel.poll_transmit(ms(0)),
        Some(Transmit::Text(_))
    ));
    let request = from_agent(0, PayloadType::HandshakeRequest, REQUEST.as_bytes());
    channel.handle_message(ms(0), request).unwrap();
    let (acks, data) = sorted(&mut channel, ms(0));
    assert_eq!((acks, data.len()), (vec![0], 1));
    channel
        .handle_message(ms(0), ack_from_agent(&data[0]))
        .unwrap();
    let complete = from_agent(1, PayloadType::HandshakeComplete, COMPLETE.as_bytes());
    channel.handle_message(ms(0), complete).unwrap();
    assert_eq!(sorted(&mut channel, ms(0)).0, [1]);
    assert!(matches!(
        events(&mut channel)[..],
        [Event::Established { .. }]
    ));
    assert!(channel.is_drained());
    channel
}

pub(crate) fn flag(flag: FlagPayload) -> Vec<u8> {
    flag.encode().to_vec()
}
