//! The driver against a peer of a few lines, over an in-memory WebSocket. The peer never repeats a
//! message, so whatever the driver loses is missing at the end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use ssm_channel::{
    AgentMessage, Config, IdSource, MessageType, PayloadType, SequenceNumber, Token,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Driver, Phase, READ_BATCH, channel};
use crate::config::Endpoint;
use crate::tunnel::ssm::SsmStream;
use crate::tunnel::ssm::state::Shared;
use crate::tunnel::{Stream, TunnelError};

const REQUEST: &str = r#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port","Properties":{"host":"db","portNumber":"5432","localPortNumber":"0","type":"LocalPortForwarding"}}}]}"#;
const COMPLETE: &str = r#"{"HandshakeTimeToComplete":1,"CustomerMessage":""}"#;

struct Peer {
    socket: WebSocketStream<DuplexStream>,
    ids: IdSource,
    next: u64,
}

impl Peer {
    fn message(&mut self, payload_type: PayloadType, payload: &[u8]) -> Message {
        let payload = (payload_type, Bytes::copy_from_slice(payload));
        let number = SequenceNumber::new(self.next);
        self.next += 1;
        let id = self.ids.next_id();
        let message = AgentMessage::data(MessageType::OutputStreamData, number, id, 0, payload);
        Message::Binary(message.encode())
    }

    /// The next message of a kind; everything else is passed over.
    async fn next(&mut self, wanted: MessageType) -> AgentMessage {
        loop {
            match self.socket.next().await.unwrap().unwrap() {
                Message::Binary(bytes) => {
                    let message = AgentMessage::decode(bytes).unwrap();
                    if message.message_type == wanted {
                        return message;
                    }
                }
                Message::Text(_) | Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A driver whose handshake is complete, its peer, and what the session's handles share.
async fn established() -> (Peer, Arc<Shared>, watch::Receiver<Phase>) {
    let (ours, theirs) = tokio::io::duplex(1024 * 1024);
    let ours: Stream = Box::new(ours);
    let client = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
    let socket = WebSocketStream::from_raw_socket(theirs, Role::Server, None).await;
    let mut peer = Peer {
        socket,
        ids: IdSource::new(7),
        next: 0,
    };

    let config = Config::new(
        Token::new("t".to_owned()),
        "r".to_owned(),
        "c".to_owned(),
        1,
        0,
    );
    let shared = Arc::new(Shared::new(
        channel(config),
        smux::Session::new(smux::Role::Client),
    ));
    let (sender, mut phase) = watch::channel(Phase::Starting);
    let driver = Driver::new(client, Arc::clone(&shared), sender, Arc::from("i-1"));
    tokio::spawn(driver.run(std::future::ready(())));

    let request = peer.message(PayloadType::HandshakeRequest, REQUEST.as_bytes());
    peer.socket.send(request).await.unwrap();
    peer.next(MessageType::InputStreamData).await;
    let complete = peer.message(PayloadType::HandshakeComplete, COMPLETE.as_bytes());
    peer.socket.send(complete).await.unwrap();
    phase
        .wait_for(|phase| matches!(phase, Phase::Up))
        .await
        .unwrap();
    (peer, shared, phase)
}

fn open(shared: &Arc<Shared>) -> SsmStream {
    let endpoint = Endpoint {
        host: "db".to_owned(),
        port: 5432,
    };
    SsmStream::open(shared, &Arc::from("i-1"), &endpoint).unwrap()
}

/// A smux frame of the first client stream.
fn frame(command: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_le_bytes();
    [&[1, command], &length[..], &3u32.to_le_bytes(), data].concat()
}

#[tokio::test]
async fn a_burst_of_any_length_loses_nothing() {
    for burst in [
        1,
        READ_BATCH - 1,
        READ_BATCH,
        READ_BATCH + 1,
        5 * READ_BATCH + 3,
    ] {
        let (mut peer, shared, _phase) = established().await;
        let mut stream = open(&shared);
        let mut expected = Vec::new();
        for n in 0..burst {
            let data = vec![u8::try_from(n % 251).unwrap(); 100];
            expected.extend_from_slice(&data);
            let message = peer.message(PayloadType::Output, &frame(2, &data));
            peer.socket.feed(message).await.unwrap();
        }
        peer.socket.flush().await.unwrap();
        let mut received = vec![0; expected.len()];
        let read = stream.read_exact(&mut received);
        tokio::time::timeout(Duration::from_secs(30), read)
            .await
            .unwrap_or_else(|_| panic!("bytes are missing after a burst of {burst}"))
            .unwrap();
        assert!(received == expected, "other bytes after a burst of {burst}");
    }
}

#[tokio::test]
async fn a_refused_dial_fails_the_stream_with_its_reason() {
    let (mut peer, shared, _phase) = established().await;
    let mut stream = open(&shared);
    let flag = peer.message(PayloadType::Flag, &[0, 0, 0, 3]);
    let fin = peer.message(PayloadType::Output, &frame(1, b""));
    peer.socket.send(flag).await.unwrap();
    peer.socket.send(fin).await.unwrap();
    let error = stream.read_u8().await.unwrap_err();
    assert!(
        matches!(
            TunnelError::of(&error),
            Some(TunnelError::DialRefused { .. })
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_lost_socket_fails_open_streams_and_later_ones() {
    let (peer, shared, mut phase) = established().await;
    let mut stream = open(&shared);
    drop(peer);
    let error = stream.read_u8().await.unwrap_err();
    assert!(
        matches!(
            TunnelError::of(&error),
            Some(TunnelError::ChannelLost { .. })
        ),
        "{error:?}"
    );
    assert!(stream.write_all(b"x").await.is_err());
    phase
        .wait_for(|phase| matches!(phase, Phase::Ended(_)))
        .await
        .unwrap();
    let endpoint = Endpoint {
        host: "db".to_owned(),
        port: 5432,
    };
    assert!(SsmStream::open(&shared, &Arc::from("i-1"), &endpoint).is_err());
}

#[tokio::test(start_paused = true)]
async fn silence_after_a_ping_is_a_dead_path_within_thirty_seconds() {
    // The peer is kept, and never answers: a WebSocket answers pings only when it is read.
    let (_peer, shared, _phase) = established().await;
    let mut stream = open(&shared);
    let began = tokio::time::Instant::now();
    let error = stream.read_u8().await.unwrap_err();
    assert!(
        matches!(
            TunnelError::of(&error),
            Some(TunnelError::ChannelLost { .. })
        ),
        "{error:?}"
    );
    assert!(
        began.elapsed() <= Duration::from_secs(31),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn goodbye_finishes_the_streams_and_says_so_to_the_agent() {
    let (mut peer, shared, mut phase) = established().await;
    let _stream = open(&shared);
    shared.close();
    loop {
        let message = peer.next(MessageType::InputStreamData).await;
        if message.payload_type == PayloadType::Flag {
            assert_eq!(message.payload[..], [0, 0, 0, 2]);
            break;
        }
    }
    let ended = phase
        .wait_for(|phase| matches!(phase, Phase::Ended(_)))
        .await
        .unwrap()
        .clone();
    assert!(
        matches!(ended, Phase::Ended(TunnelError::ShuttingDown)),
        "{ended:?}"
    );
}

/// Sends `pieces` of 1,000 bytes to the first stream.
async fn flood(peer: &mut Peer, pieces: usize) {
    let piece = frame(2, &[7; 1000]);
    for _ in 0..pieces {
        let message = peer.message(PayloadType::Output, &piece);
        peer.socket.send(message).await.unwrap();
    }
}

const BEYOND: usize = crate::tunnel::ssm::state::RECEIVE_BUFFER / 1000 + 3 * READ_BATCH;

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_another_before_it_reads_on_is_ended_for_the_others_sake() {
    let (mut peer, shared, _phase) = established().await;
    let (mut first, mut second) = (open(&shared), open(&shared));
    let sending = tokio::spawn(async move {
        flood(&mut peer, BEYOND).await;
        let mut answer = frame(2, b"answer");
        answer[4] = 5; // For the second stream.
        let message = peer.message(PayloadType::Output, &answer);
        peer.socket.send(message).await.unwrap();
        peer
    });
    // Nobody reads the first stream, and the second one's answer is behind it.
    let mut answered = [0; 6];
    second.read_exact(&mut answered).await.unwrap();
    assert_eq!(answered, *b"answer");
    let error = first.read_u8().await.unwrap_err();
    assert!(
        matches!(TunnelError::of(&error), Some(TunnelError::Overrun)),
        "{error:?}"
    );
    assert!(first.write_all(b"x").await.is_err());
    sending.abort();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_alone_may_pause_for_an_hour() {
    let (mut peer, shared, _phase) = established().await;
    let mut only = open(&shared);
    let sending = tokio::spawn(async move {
        flood(&mut peer, BEYOND).await;
        peer
    });
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let mut everything = vec![0; BEYOND * 1000];
    only.read_exact(&mut everything).await.unwrap();
    assert!(everything.iter().all(|byte| *byte == 7));
    sending.abort();
}
