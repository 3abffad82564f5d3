//! The driver against a mock peer, over an in-memory WebSocket. The peer never repeats a message,
//! so any loss in the driver shows at the end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use ssm_channel::{
    AgentMessage, ChannelConfig, ChannelToken, IdSource, MessageType, PayloadType, SequenceNumber,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::resume::{OpenedChannel, SessionCalls};
use super::{Driver, READ_BATCH, SessionInfo, SessionPhase, channel};
use crate::aws::api_error::ApiAnswer;
use crate::base::names::{NodeId, SessionId};
use crate::base::stream::Stream;
use crate::config::Endpoint;
use crate::tunnel::ssm::SsmStream;
use crate::tunnel::ssm::socket::WebSocket;
use crate::tunnel::ssm::state::{Repeatability, SharedSession, StreamSlot};
use crate::tunnel::{ApiRefusal, EndCause, TunnelError};

const REQUEST: &str = r#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port","Properties":{"host":"db","portNumber":"5432","localPortNumber":"0","type":"LocalPortForwarding"}}}]}"#;
const COMPLETE: &str = r#"{"HandshakeTimeToComplete":1,"CustomerMessage":""}"#;

struct Peer {
    socket: WebSocketStream<DuplexStream>,
    ids: IdSource,
    next: u64,
    /// Skip the NOPs with which sessions begin; they are repeated while nothing acknowledges them.
    skips_nops: bool,
}

/// A frame of the multiplexer without effect.
const NOP: [u8; 8] = [1, 3, 0, 0, 0, 0, 0, 0];

impl Peer {
    fn message(&mut self, payload_type: PayloadType, payload: &[u8]) -> Message {
        let payload = (payload_type, Bytes::copy_from_slice(payload));
        let number = SequenceNumber::new(self.next);
        self.next += 1;
        let id = self.ids.next_id();
        let message = AgentMessage::data(MessageType::OutputStreamData, number, id, 0, payload);
        Message::Binary(message.encode())
    }

    /// Returns the next message of a kind; skips everything else.
    async fn next(&mut self, wanted: MessageType) -> AgentMessage {
        loop {
            match self.socket.next().await.unwrap().unwrap() {
                Message::Binary(bytes) => {
                    let message = AgentMessage::decode(bytes).unwrap();
                    let skipped = self.skips_nops && message.payload[..] == NOP;
                    if message.message_type == wanted && !skipped {
                        return message;
                    }
                }
                Message::Text(_) | Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// AWS's answer to an attempt to resume.
enum Rejoin {
    /// A connection; the test gets the other end.
    Connection,
    /// The session is over.
    Over,
    /// A failure.
    Failure(TunnelError),
}

/// A mock AWS for a driver: gives the answers in turn, then connections.
#[derive(Default)]
struct Aws {
    answers: Mutex<VecDeque<Rejoin>>,
    peers: Mutex<Vec<WebSocketStream<DuplexStream>>>,
    asked: Mutex<Vec<tokio::time::Instant>>,
    connected: tokio::sync::Notify,
}

impl Aws {
    fn calls(self: &Arc<Self>) -> SessionCalls {
        let aws = Arc::clone(self);
        SessionCalls {
            rejoin: Box::new(move || {
                let aws = Arc::clone(&aws);
                Box::pin(async move {
                    aws.asked.lock().unwrap().push(tokio::time::Instant::now());
                    let answer = aws.answers.lock().unwrap().pop_front();
                    match answer.unwrap_or(Rejoin::Connection) {
                        Rejoin::Connection => {
                            let (socket, peer) = connection().await;
                            aws.peers.lock().unwrap().push(peer);
                            aws.connected.notify_one();
                            let token = ChannelToken::new("second".to_owned());
                            Ok(Some(OpenedChannel { socket, token }))
                        }
                        Rejoin::Over => Ok(None),
                        Rejoin::Failure(error) => Err(error),
                    }
                })
            }),
            data_key: Box::new(|key, _| {
                Box::pin(async move {
                    Err(TunnelError::DataKey {
                        key: key.into(),
                        denied: true,
                        reason: "not in this test".into(),
                    })
                })
            }),
        }
    }

    fn will(&self, answers: impl IntoIterator<Item = Rejoin>) {
        self.answers.lock().unwrap().extend(answers);
    }

    /// Returns the other end of the newest connection, once there is one.
    async fn peer(&self) -> WebSocketStream<DuplexStream> {
        self.connected.notified().await;
        self.peers.lock().unwrap().pop().unwrap()
    }
}

async fn connection() -> (WebSocket, WebSocketStream<DuplexStream>) {
    let (ours, theirs) = tokio::io::duplex(1024 * 1024);
    let ours: Stream = Box::new(ours);
    (
        WebSocketStream::from_raw_socket(ours, Role::Client, None).await,
        WebSocketStream::from_raw_socket(theirs, Role::Server, None).await,
    )
}

async fn established() -> (Peer, Arc<SharedSession>, watch::Receiver<SessionPhase>) {
    established_with(&Arc::default()).await
}

/// Most sessions of the target, so that the tests can fill a session's share of memory.
const SESSIONS: usize = 16;
const SHARE: usize = 4 * 1024 * 1024;

/// Returns a driver with a complete handshake, its peer, and the state shared by the session's
/// handles.
async fn established_with(
    aws: &Arc<Aws>,
) -> (Peer, Arc<SharedSession>, watch::Receiver<SessionPhase>) {
    let zero = tokio::time::Instant::now();
    let about = SessionInfo {
        bastion: NodeId::from("i-1"),
        session_id: SessionId::from("s-1"),
        endpoint: endpoint(),
        dial_timeout: Duration::from_secs(10),
        record: None,
        keep_alive: false,
        wall: Arc::new(move || SystemTime::UNIX_EPOCH + zero.elapsed()),
    };
    established_as(about, aws).await
}

async fn established_as(
    about: SessionInfo,
    aws: &Arc<Aws>,
) -> (Peer, Arc<SharedSession>, watch::Receiver<SessionPhase>) {
    let (client, socket) = connection().await;
    let mut peer = Peer {
        socket,
        ids: IdSource::new(7),
        next: 0,
        skips_nops: true,
    };

    let config = ChannelConfig::new(
        ChannelToken::new("t".to_owned()),
        "r".to_owned(),
        "c".to_owned(),
        1,
        0,
    );
    let shared = Arc::new(SharedSession::new(
        channel(config),
        smux::Mux::new(smux::MuxRole::Client),
        SESSIONS,
    ));
    let (sender, mut phase) = watch::channel(SessionPhase::Starting);
    let driver = Driver::new(client, Arc::clone(&shared), sender, about, aws.calls());
    tokio::spawn(driver.run(std::future::ready(true)));

    let request = peer.message(PayloadType::HandshakeRequest, REQUEST.as_bytes());
    peer.socket.send(request).await.unwrap();
    peer.next(MessageType::InputStreamData).await;
    let complete = peer.message(PayloadType::HandshakeComplete, COMPLETE.as_bytes());
    peer.socket.send(complete).await.unwrap();
    phase
        .wait_for(|phase| matches!(phase, SessionPhase::Up))
        .await
        .unwrap();
    (peer, shared, phase)
}

fn endpoint() -> Endpoint {
    Endpoint {
        host: "db".to_owned(),
        port: 5432,
    }
}

fn open(shared: &Arc<SharedSession>) -> SsmStream {
    open_with(shared, Repeatability::Repeatable)
}

fn open_with(shared: &Arc<SharedSession>, hello: Repeatability) -> SsmStream {
    let slot = StreamSlot::new(endpoint(), hello, None);
    SsmStream::open(shared, &NodeId::from("i-1"), slot).unwrap()
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

/// Captured log output.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_service_that_pauses_without_end_does_not_fill_the_log() {
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt().with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(lines.finish());
    let (mut peer, shared, _phase) = established().await;
    let mut stream = open(&shared);
    for kind in
        (0..500).flat_map(|_| [MessageType::PausePublication, MessageType::StartPublication])
    {
        let number = SequenceNumber::new(0);
        let id = peer.ids.next_id();
        let none = (PayloadType::Output, Bytes::new());
        let message = AgentMessage::data(kind, number, id, 0, none);
        let message = Message::Binary(message.encode());
        peer.socket.send(message).await.unwrap();
    }
    let answer = peer.message(PayloadType::Output, &frame(2, b"answer"));
    peer.socket.send(answer).await.unwrap();
    let mut answered = [0; 6];
    stream.read_exact(&mut answered).await.unwrap();
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        log.contains("the agent is disconnected") && log.contains("the agent has reconnected"),
        "{log}"
    );
    assert_eq!(log.matches("repeatedly").count(), 1, "{log}");
    assert!(log.lines().count() < 10, "{log}");
}

/// The text that opens the data channel.
async fn opening(socket: &mut WebSocketStream<DuplexStream>) -> String {
    match socket.next().await.unwrap().unwrap() {
        Message::Text(text) => text.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_socket_is_replaced_and_nothing_is_missing() {
    let aws = Arc::default();
    let (mut peer, shared, _phase) = established_with(&aws).await;
    let mut stream = open(&shared);
    // Data on this connection is lost with it: the agent never sees it.
    stream.write_all(b"question").await.unwrap();
    let lost = peer.next(MessageType::InputStreamData).await;
    peer.socket = {
        drop(peer.socket);
        let mut socket = aws.peer().await;
        let text = opening(&mut socket).await;
        assert!(text.contains("\"TokenValue\":\"second\""), "{text}");
        socket
    };
    // The peer acknowledges nothing, so the handshake is repeated first.
    let handshake = peer.next(MessageType::InputStreamData).await;
    assert_eq!(handshake.payload_type, PayloadType::HandshakeResponse);
    let again = peer.next(MessageType::InputStreamData).await;
    assert_eq!(again.sequence, lost.sequence);
    assert_eq!(again.payload, lost.payload);
    let answer = peer.message(PayloadType::Output, &frame(2, b"answer"));
    peer.socket.send(answer).await.unwrap();
    let mut answered = [0; 6];
    stream.read_exact(&mut answered).await.unwrap();
    assert_eq!(answered, *b"answer");
}

fn unreachable() -> Rejoin {
    Rejoin::Failure(TunnelError::ApiUnreachable {
        region: "eu-central-1".to_owned().into(),
        host: None,
        reason: "no route to host".into(),
    })
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_network_is_waited_for_with_growing_pauses() {
    let aws: Arc<Aws> = Arc::default();
    aws.will((0..500).map(|_| unreachable()));
    let (peer, shared, _phase) = established_with(&aws).await;
    let mut stream = open(&shared);
    drop(peer);
    let mut socket = aws.peer().await;
    opening(&mut socket).await;
    let asked = aws.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 501);
    let pauses: Vec<Duration> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] < Duration::from_millis(260), "{:?}", pauses[0]);
    let longest = pauses.iter().max().unwrap();
    assert!(*longest > Duration::from_secs(5) && *longest <= Duration::from_secs(11));
    assert!(asked[500] - asked[0] > Duration::from_secs(2500));
    stream.write_all(b"x").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_that_aws_has_given_up_ends_with_both_reasons() {
    let aws: Arc<Aws> = Arc::default();
    aws.will([unreachable(), Rejoin::Over]);
    let (peer, shared, mut phase) = established_with(&aws).await;
    let mut stream = open(&shared);
    drop(peer);
    let error = stream.read_u8().await.unwrap_err();
    let Some(TunnelError::SessionEnded { cause, reason }) = TunnelError::of(&error) else {
        panic!("{error:?}");
    };
    assert_eq!(*cause, EndCause::Gone);
    assert!(reason.contains("without closing handshake"), "{reason}");
    assert!(stream.write_all(b"x").await.is_err());
    phase
        .wait_for(|phase| matches!(phase, SessionPhase::Ended(_)))
        .await
        .unwrap();
    let slot = StreamSlot::new(endpoint(), Repeatability::Repeatable, None);
    assert!(SsmStream::open(&shared, &NodeId::from("i-1"), slot).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_will_not_change_is_not_asked_again() {
    let aws: Arc<Aws> = Arc::default();
    aws.will([Rejoin::Failure(TunnelError::Api {
        operation: "ResumeSession",
        kind: ApiRefusal::AccessDenied,
        answer: ApiAnswer {
            code: "AccessDeniedException".into(),
            message: "no".into(),
            request_id: None,
            clock: None,
        },
        bastion: "i-1".to_owned(),
        region: "eu-central-1".to_owned().into(),
    })]);
    let (peer, shared, _phase) = established_with(&aws).await;
    let mut stream = open(&shared);
    drop(peer);
    let error = stream.read_u8().await.unwrap_err();
    let denied = TunnelError::of(&error);
    assert!(matches!(denied, Some(TunnelError::Api { .. })), "{error:?}");
    assert_eq!(aws.asked.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_uses_is_not_fought_for() {
    let aws: Arc<Aws> = Arc::default();
    aws.will((0..500).map(|_| unreachable()));
    let (peer, _shared, mut phase) = established_with(&aws).await;
    drop(peer);
    phase
        .wait_for(|phase| matches!(phase, SessionPhase::Ended(_)))
        .await
        .unwrap();
    assert_eq!(aws.asked.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_can_be_closed_while_it_is_being_resumed() {
    let aws: Arc<Aws> = Arc::default();
    aws.will((0..100_000).map(|_| unreachable()));
    let (peer, shared, mut phase) = established_with(&aws).await;
    let _stream = open(&shared);
    drop(peer);
    phase
        .wait_for(|phase| matches!(phase, SessionPhase::Resuming))
        .await
        .unwrap();
    shared.close();
    phase
        .wait_for(|phase| matches!(phase, SessionPhase::Ended(TunnelError::ShuttingDown)))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_path_that_dies_silently_is_replaced_within_thirty_seconds() {
    let aws: Arc<Aws> = Arc::default();
    // The peer is kept, and never answers: a WebSocket answers pings only when it is read.
    let (_peer, shared, _phase) = established_with(&aws).await;
    let _stream = open(&shared);
    let began = tokio::time::Instant::now();
    opening(&mut aws.peer().await).await;
    let took = began.elapsed();
    assert!(took <= Duration::from_secs(30), "{took:?}");
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
        .wait_for(|phase| matches!(phase, SessionPhase::Ended(_)))
        .await
        .unwrap()
        .clone();
    assert!(
        matches!(ended, SessionPhase::Ended(TunnelError::ShuttingDown)),
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

/// Pieces of 1,000 bytes that overfill the inboxes.
const BEYOND: usize = SHARE / 1000 + 3 * READ_BATCH;

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_another_before_it_reads_on_is_ended_for_the_others_sake() {
    let (mut peer, shared, _phase) = established().await;
    let (mut first, mut second) = (open(&shared), open(&shared));
    second.write_all(b"question").await.unwrap();
    let sending = tokio::spawn(async move {
        flood(&mut peer, BEYOND).await;
        let mut answer = frame(2, b"answer");
        answer[4] = 5; // For the second stream.
        let message = peer.message(PayloadType::Output, &answer);
        peer.socket.send(message).await.unwrap();
        peer
    });
    // No client reads the first stream, and the second one's answer is behind it.
    let began = tokio::time::Instant::now();
    let mut answered = [0; 6];
    second.read_exact(&mut answered).await.unwrap();
    assert_eq!(answered, *b"answer");
    assert!(began.elapsed() < Duration::from_secs(6), "a freeze");
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

#[tokio::test(start_paused = true)]
async fn a_client_among_others_that_want_nothing_may_pause_too() {
    let (mut peer, shared, _phase) = established().await;
    let (mut first, _idle) = (open(&shared), open(&shared));
    let sending = tokio::spawn(async move {
        flood(&mut peer, BEYOND).await;
        peer
    });
    tokio::time::sleep(Duration::from_secs(600)).await;
    let mut everything = vec![0; BEYOND * 1000];
    first.read_exact(&mut everything).await.unwrap();
    sending.abort();
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_slept_probes_the_path_and_replaces_it_in_seconds() {
    let zero = tokio::time::Instant::now();
    let slept = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&slept);
    let about = SessionInfo {
        bastion: NodeId::from("i-1"),
        session_id: SessionId::from("s-1"),
        endpoint: endpoint(),
        dial_timeout: Duration::from_secs(10),
        record: None,
        keep_alive: false,
        wall: Arc::new(move || {
            let slept = Duration::from_secs(clock.load(Ordering::Relaxed));
            SystemTime::UNIX_EPOCH + zero.elapsed() + slept
        }),
    };
    let aws: Arc<Aws> = Arc::default();
    // The service has forgotten this connection and cannot report it any more.
    let (_peer, shared, _phase) = established_as(about, &aws).await;
    let _stream = open(&shared);
    slept.store(8 * 3600, Ordering::Relaxed);
    let began = tokio::time::Instant::now();
    opening(&mut aws.peer().await).await;
    let took = began.elapsed();
    assert!(took <= Duration::from_secs(6), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn idle_sessions_are_kept_alive_only_when_that_is_configured() {
    for keep_alive in [true, false] {
        let about = SessionInfo {
            bastion: NodeId::from("i-1"),
            session_id: SessionId::from("s-1"),
            endpoint: endpoint(),
            dial_timeout: Duration::from_secs(10),
            record: None,
            keep_alive,
            wall: Arc::new(|| SystemTime::UNIX_EPOCH),
        };
        let (mut peer, shared, _phase) = established_as(about, &Arc::default()).await;
        let mut stream = open(&shared);
        stream.write_all(b"x").await.unwrap();
        peer.skips_nops = false;
        let (mut nops, mut begun) = (0, false);
        let listening = async {
            loop {
                let message = peer.next(MessageType::InputStreamData).await;
                let nop = message.payload[..] == NOP;
                begun |= !nop;
                nops += usize::from(nop && begun);
                let taken = ssm_channel::Acknowledge::of(&message);
                let id = peer.ids.next_id();
                let ack = AgentMessage::acknowledge(&taken, id, 0).encode();
                peer.socket.send(Message::Binary(ack)).await.unwrap();
            }
        };
        _ = tokio::time::timeout(Duration::from_secs(610), listening).await;
        let expected = if keep_alive { 19..=21 } else { 0..=0 };
        assert!(expected.contains(&nops), "{keep_alive}: {nops}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_is_not_ended_for_others() {
    let (mut peer, shared, _phase) = established().await;
    let (mut slow, mut other) = (open(&shared), open(&shared));
    other.write_all(b"a long question").await.unwrap();
    let sending = tokio::spawn(async move {
        flood(&mut peer, BEYOND).await;
        peer
    });
    for _ in 0..120 {
        assert_eq!(slow.read_u8().await.unwrap(), 7);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    sending.abort();
}

#[tokio::test(start_paused = true)]
async fn ending_one_client_that_does_not_read_is_enough() {
    let (mut peer, shared, _phase) = established().await;
    let (mut first, mut second, mut third) = (open(&shared), open(&shared), open(&shared));
    third.write_all(b"question").await.unwrap();
    let sending = tokio::spawn(async move {
        // More than half of the limit to each of two streams.
        for pieces in [BEYOND * 3 / 5, BEYOND * 2 / 5] {
            let stream = if pieces > BEYOND / 2 { 3 } else { 5 };
            let mut piece = frame(2, &[7; 1000]);
            piece[4] = stream;
            for _ in 0..pieces {
                let message = peer.message(PayloadType::Output, &piece);
                peer.socket.send(message).await.unwrap();
            }
        }
        let mut answer = frame(2, b"answer");
        answer[4] = 7;
        let message = peer.message(PayloadType::Output, &answer);
        peer.socket.send(message).await.unwrap();
        peer
    });
    let mut answered = [0; 6];
    third.read_exact(&mut answered).await.unwrap();
    let error = first.read_u8().await.unwrap_err();
    assert!(
        matches!(TunnelError::of(&error), Some(TunnelError::Overrun)),
        "{error:?}"
    );
    let mut rest = vec![0; (BEYOND * 2 / 5) * 1000];
    second.read_exact(&mut rest).await.unwrap();
    sending.abort();
}

/// A service that answers pings and an agent that never answers.
#[tokio::test(start_paused = true)]
async fn an_agent_that_answers_nothing_is_left_and_the_path_is_kept() {
    let aws = Arc::default();
    let (mut peer, shared, _phase) = established_with(&aws).await;
    let (mut repeatable, mut other) = (
        open(&shared),
        open_with(&shared, Repeatability::Irreplaceable),
    );
    for stream in [&mut repeatable, &mut other] {
        stream.write_all(b"question").await.unwrap();
    }
    tokio::spawn(async move { while peer.socket.next().await.is_some() {} });
    let began = tokio::time::Instant::now();
    let silence = |error: &std::io::Error| match TunnelError::of(error) {
        Some(TunnelError::AgentSilent { bastion, .. }) => assert_eq!(bastion, "i-1"),
        other => panic!("{other:?}"),
    };
    silence(&repeatable.read_u8().await.unwrap_err());
    let took = began.elapsed().as_secs();
    assert!((5..8).contains(&took), "{took}");
    let slot = StreamSlot::new(endpoint(), Repeatability::Repeatable, None);
    let full = SsmStream::open(&shared, &NodeId::from("i-1"), slot);
    assert!(full.is_err(), "no new streams");
    // Bytes that cannot be repeated wait for as long as a dial may take.
    silence(&other.read_u8().await.unwrap_err());
    let took = began.elapsed().as_secs();
    assert!((10..16).contains(&took), "{took}");
    assert_eq!(
        aws.asked.lock().unwrap().len(),
        0,
        "the path was never lost"
    );
}

/// Ends the session from the service's side with this text.
async fn close(peer: &mut Peer, words: &str) {
    let id = peer.ids.next_id();
    let payload = (
        PayloadType::None,
        Bytes::from(format!("{{\"Output\":\"{words}\"}}")),
    );
    let mut message = AgentMessage::data(
        MessageType::OutputStreamData,
        SequenceNumber::FIRST,
        id,
        0,
        payload,
    );
    message.message_type = MessageType::ChannelClosed;
    let message = Message::Binary(message.encode());
    peer.socket.send(message).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_before_anything_came_back_has_failed() {
    for answered in [false, true] {
        let (mut peer, shared, mut phase) = established().await;
        let mut stream = open(&shared);
        if answered {
            let answer = peer.message(PayloadType::Output, &frame(2, b"answer"));
            peer.socket.send(answer).await.unwrap();
            stream.read_u8().await.unwrap();
        }
        close(&mut peer, "Something new").await;
        let ended = |phase: &SessionPhase| matches!(phase, SessionPhase::Ended(_));
        phase.wait_for(ended).await.unwrap();
        let mut state = shared.lock();
        assert_eq!(state.early_failure().is_none(), answered);
        if !answered {
            let Some(TunnelError::SessionEnded { cause, .. }) = state.count_early_failure() else {
                panic!("{:?}", state.end);
            };
            assert_eq!(cause, EndCause::AtStart);
        }
        assert!(state.count_early_failure().is_none(), "counted once");
    }
}

/// The answer to a dial waits behind a message that is missing.
#[tokio::test(start_paused = true)]
async fn a_session_with_a_gap_is_the_last_resort_and_its_dials_move() {
    let (mut peer, shared, _phase) = established().await;
    let mut waiting = open(&shared);
    let mut other = open_with(&shared, Repeatability::Irreplaceable);
    let missing = peer.message(PayloadType::Output, &frame(2, b"answer"));
    let later = peer.message(PayloadType::Output, &NOP);
    peer.socket.send(later).await.unwrap();
    let patience = Duration::from_secs(10);
    let troubled = || shared.lock().load(patience).troubled;
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(!troubled());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(troubled());
    let gap = shared.lock().long_gap().unwrap();
    shared.lock().delay(gap);
    let error = waiting.read_u8().await.unwrap_err();
    let delayed = TunnelError::of(&error);
    assert!(
        matches!(delayed, Some(TunnelError::Delayed { bastion, .. }) if bastion == "i-1"),
        "{error:?}"
    );
    let slot = StreamSlot::new(endpoint(), Repeatability::Repeatable, None);
    let full = SsmStream::open(&shared, &NodeId::from("i-1"), slot);
    assert!(full.is_err(), "no new streams");
    peer.socket.send(missing).await.unwrap();
    let mut answer = frame(2, b"late");
    answer[4] = 5;
    let answer = peer.message(PayloadType::Output, &answer);
    peer.socket.send(answer).await.unwrap();
    assert_eq!(other.read_u8().await.unwrap(), b'l');
    assert!(!troubled() && shared.lock().long_gap().is_none());
}
