//! The capture of the real plugin and the real agent: its Output payloads are smux byte streams.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use smux::{Frame, Mux, MuxEvent, MuxRole};

use crate::support::{events, id, parse, wire};

/// Maps direction (session, sender) to the Output payloads in sequence order, concatenated.
fn directions() -> BTreeMap<(String, String), Bytes> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../protocol-tests/vectors/ssm-session.jsonl"
    );
    let mut payloads: BTreeMap<(String, String), BTreeMap<u64, Vec<u8>>> = BTreeMap::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let Some(hex) = line["hex"].as_str() else {
            continue;
        };
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        let message_type = String::from_utf8_lossy(&bytes[4..36]);
        let stream_data = message_type.trim_end().ends_with("stream_data");
        let payload_type = u32::from_be_bytes(bytes[112..116].try_into().unwrap());
        if stream_data && payload_type == 1 {
            let sequence = u64::from_be_bytes(bytes[48..56].try_into().unwrap());
            let text = |key: &str| line[key].as_str().unwrap().to_owned();
            let messages = payloads.entry((text("session"), text("from"))).or_default();
            // A retransmission repeats the number and the bytes.
            let first = messages
                .entry(sequence)
                .or_insert_with(|| bytes[120..].to_vec());
            assert_eq!(*first, bytes[120..]);
        }
    }
    let concat = |messages: BTreeMap<u64, Vec<u8>>| {
        Bytes::from(messages.into_values().collect::<Vec<_>>().concat())
    };
    payloads
        .into_iter()
        .map(|(key, messages)| (key, concat(messages)))
        .collect()
}

#[test]
fn every_direction_decodes_and_encodes_to_the_same_bytes() {
    let directions = directions();
    assert_eq!(directions.len(), 4);
    for bytes in directions.into_values() {
        let frames = parse(bytes.clone());
        assert!(!frames.is_empty());
        assert_eq!(wire(&frames), bytes);
    }
}

#[test]
fn the_first_session_reads_as_two_echoed_streams() {
    let directions = directions();
    let of = |from: &str| {
        let mut found = directions.iter().filter(|((_, f), _)| f == from);
        found
            .find(|(_, bytes)| bytes.len() > 1000)
            .unwrap()
            .1
            .clone()
    };
    let x = Bytes::from(vec![b'x'; 3000]);
    let hello = Bytes::from_static(b"hello through the tunnel\n");
    let expected = [
        Frame::Syn(id(3)),
        Frame::Psh {
            id: id(3),
            data: hello.clone(),
        },
        Frame::Syn(id(5)),
        Frame::Psh {
            id: id(5),
            data: x.clone(),
        },
        Frame::Fin(id(3)),
        Frame::Fin(id(5)),
    ];
    assert_eq!(parse(of("client")), expected);

    // The same through the machine: the server role's events for the client's bytes.
    let mut server = Mux::new(MuxRole::Server);
    server.handle_input(of("client")).unwrap();
    let expected = [
        MuxEvent::Opened(id(3)),
        MuxEvent::Data {
            id: id(3),
            data: hello,
        },
        MuxEvent::Opened(id(5)),
        MuxEvent::Data { id: id(5), data: x },
        MuxEvent::Finished(id(3)),
        MuxEvent::Finished(id(5)),
    ];
    assert_eq!(events(&mut server), expected);

    // And the agent's bytes through a client that opened the two streams.
    let mut client = Mux::new(MuxRole::Client);
    client.open().unwrap();
    client.open().unwrap();
    let mut got = BytesMut::new();
    client.handle_input(of("agent")).unwrap();
    for event in events(&mut client) {
        if let MuxEvent::Data { data, .. } = event {
            got.extend_from_slice(&data);
        }
    }
    assert_eq!(got[..25], b"HELLO THROUGH THE TUNNEL\n"[..]);
    assert!(got[25..].iter().all(|b| *b == b'X') && got.len() == 3025);
}
