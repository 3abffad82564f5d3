//! Every message of the captured sessions, decoded and encoded again.

use bytes::Bytes;
use serde_json::Value;
use ssm_channel::handshake::{
    HandshakeComplete, HandshakeRequest, HandshakeResponse, OpenDataChannel, from_json, to_json,
};
use ssm_channel::{Acknowledge, AgentMessage, FlagPayload, MessageType, PayloadType};

/// One WebSocket message of the capture.
pub(crate) struct Line {
    pub(crate) t_ms: u64,
    pub(crate) session: String,
    pub(crate) from_client: bool,
    pub(crate) message: Message,
}

pub(crate) enum Message {
    Text(String),
    Binary(Bytes),
}

pub(crate) fn lines() -> Vec<Line> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../protocol-tests/vectors/ssm-session.jsonl"
    );
    std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(line)
        .collect()
}

fn line(text: &str) -> Line {
    let line: Value = serde_json::from_str(text).unwrap();
    let message = match (line["text"].as_str(), line["hex"].as_str()) {
        (Some(text), None) => Message::Text(text.to_owned()),
        (None, Some(hex)) => Message::Binary(
            (0..hex.len() / 2)
                .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
                .collect(),
        ),
        _ => panic!("{text}"),
    };
    Line {
        t_ms: line["t_ms"].as_u64().unwrap(),
        session: line["session"].as_str().unwrap().to_owned(),
        from_client: line["from"] == "client",
        message,
    }
}

/// Decodes the payload into its type and encodes it again.
fn reencode_payload(message: &AgentMessage) -> Bytes {
    let payload = &message.payload;
    match (&message.message_type, message.payload_type) {
        (MessageType::Acknowledge, _) => Acknowledge::from_json(payload).unwrap().to_json(),
        (_, PayloadType::HandshakeRequest) => {
            to_json(&from_json::<HandshakeRequest>(payload).unwrap())
        }
        (_, PayloadType::HandshakeResponse) => {
            to_json(&from_json::<HandshakeResponse>(payload).unwrap())
        }
        (_, PayloadType::HandshakeComplete) => {
            to_json(&from_json::<HandshakeComplete>(payload).unwrap())
        }
        (_, PayloadType::Flag) => {
            Bytes::copy_from_slice(&FlagPayload::decode(payload).unwrap().encode())
        }
        (_, PayloadType::Output | PayloadType::None) => payload.clone(),
        (_, other) => panic!("{other:?} is not in the capture"),
    }
}

#[test]
fn every_line_decodes_and_encodes_to_the_same_bytes() {
    let mut texts = 0;
    let mut kinds = std::collections::BTreeMap::<String, u32>::new();
    for line in lines() {
        match line.message {
            Message::Text(text) => {
                let open: OpenDataChannel = from_json(text.as_bytes()).unwrap();
                assert_eq!(open.client_version.is_some(), line.from_client);
                assert_eq!(open.client_instance_id.is_some(), !line.from_client);
                assert_eq!(to_json(&open), text);
                texts += 1;
            }
            Message::Binary(bytes) => {
                let mut message = AgentMessage::decode(bytes.clone()).unwrap();
                message.payload = reencode_payload(&message);
                assert_eq!(message.encode(), bytes);
                let kind = format!("{} {:?}", message.message_type, message.payload_type);
                *kinds.entry(kind).or_default() += 1;
            }
        }
    }
    assert_eq!((texts, kinds.values().sum::<u32>()), (4, 58));
    // The capture contains every kind.
    for kind in [
        "acknowledge None",
        "agent_session_state None",
        "input_stream_data HandshakeResponse",
        "input_stream_data Output",
        "input_stream_data Flag",
        "output_stream_data HandshakeRequest",
        "output_stream_data HandshakeComplete",
        "output_stream_data Output",
        "output_stream_data Flag",
    ] {
        assert!(kinds.contains_key(kind), "{kind}");
    }
}

#[test]
fn every_line_is_refused_when_a_byte_is_missing_or_the_payload_differs() {
    for line in lines() {
        let Message::Binary(bytes) = line.message else {
            continue;
        };
        for cut in 0..bytes.len() {
            assert!(AgentMessage::decode(bytes.slice(..cut)).is_err(), "{cut}");
        }
        let mut bad = bytes.to_vec();
        *bad.last_mut().unwrap() ^= 0x10;
        assert!(AgentMessage::decode(bad.into()).is_err());
    }
}
