//! A client of the data channel, small and patient rather than fast.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use protocol_tests::aws::iam::User;
use protocol_tests::aws::sandbox::Sandbox;
use protocol_tests::aws::wire::{self, Message, payload};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message as Frame};
use uuid::Uuid;

use crate::PATIENCE;
use crate::http::{Started, signature, tls};
use crate::kms::ClientCipher;

pub(crate) const SYN: u8 = 0;
pub(crate) const FIN: u8 = 1;
pub(crate) const PSH: u8 = 2;

/// Silence after which everything unacknowledged is sent again.
const RESEND_AFTER: Duration = Duration::from_millis(60);

pub(crate) type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Opens the WebSocket; `Err` holds the HTTP status of a refusal.
pub(crate) async fn open_socket(
    sandbox: &Sandbox,
    url: &str,
    user: Option<&User>,
) -> Result<Socket, u16> {
    open_socket_over(tls(sandbox).await, url, user).await
}

/// The same over a connection that is there already.
pub(crate) async fn open_socket_over(
    stream: TlsStream<TcpStream>,
    url: &str,
    user: Option<&User>,
) -> Result<Socket, u16> {
    use tungstenite::client::IntoClientRequest as _;
    let mut request = url.into_client_request().unwrap();
    if let Some(user) = user {
        let https = url.replace("wss://", "https://");
        let host = request.headers()["host"].clone();
        let plain = http::Request::get(https).header("host", host);
        let plain = plain.body(Vec::new()).unwrap();
        for (name, value) in signature(user, "ssmmessages", &plain) {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
    }
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn open_message(token: &str, who: (&str, &str)) -> String {
    let mut open = json!({
        "MessageSchemaVersion": "1.0",
        "RequestId": Uuid::new_v4().to_string(),
        "TokenValue": token,
        "ClientId": Uuid::new_v4().to_string(),
    });
    open[who.0] = json!(who.1);
    open.to_string()
}

pub(crate) struct MiniClient {
    socket: Socket,
    next: i64,
    unacked: BTreeMap<i64, Bytes>,
    expected: i64,
    early: BTreeMap<i64, Message>,
    inbox: VecDeque<Message>,
    stream: BytesMut,
    /// Flag payloads received.
    pub(crate) flags: Vec<u32>,
    /// Output messages that came more than once.
    pub(crate) duplicates: usize,
    /// Types and contents of the service's own messages.
    pub(crate) service: Vec<(String, String)>,
    /// The peer has closed.
    pub(crate) closed: bool,
    /// Withhold acknowledgements.
    pub(crate) mute: bool,
    /// Keys of an encrypted session.
    pub(crate) cipher: Option<ClientCipher>,
}

impl MiniClient {
    /// Connects with the token of `started` and does not speak yet.
    pub(crate) async fn connect(sandbox: &Sandbox, started: &Started) -> Self {
        let socket = open_socket(sandbox, &started.url, Some(sandbox.user())).await;
        let mut socket = socket.unwrap();
        let open = open_message(&started.token, ("ClientVersion", "1.2.764.0"));
        socket.send(Frame::text(open)).await.unwrap();
        Self {
            socket,
            next: 0,
            unacked: BTreeMap::new(),
            expected: 0,
            early: BTreeMap::new(),
            inbox: VecDeque::new(),
            stream: BytesMut::new(),
            flags: Vec::new(),
            duplicates: 0,
            service: Vec::new(),
            closed: false,
            mute: false,
            cipher: None,
        }
    }

    /// Connects and gets through the handshake as the given version.
    pub(crate) async fn shake(sandbox: &Sandbox, started: &Started, version: &str) -> Self {
        let mut client = Self::connect(sandbox, started).await;
        let request = client.message().await.unwrap();
        assert_eq!(request.payload_type, payload::HANDSHAKE_REQUEST);
        client.answer_handshake(version, 1).await;
        let complete = client.message().await.unwrap();
        assert_eq!(complete.payload_type, payload::HANDSHAKE_COMPLETE);
        client
    }

    pub(crate) async fn answer_handshake(&mut self, version: &str, status: u8) {
        let response = json!({
            "ClientVersion": version,
            "ProcessedClientActions": [{
                "ActionType": "SessionType", "ActionStatus": status,
                "ActionResult": null, "Error": "",
            }],
            "Errors": null,
        });
        let response = Bytes::from(response.to_string());
        self.send(payload::HANDSHAKE_RESPONSE, response).await;
    }

    /// Replaces a lost connection; what was not acknowledged goes out again.
    pub(crate) async fn reconnect(&mut self, sandbox: &Sandbox, started: &Started) {
        let fresh = Self::connect(sandbox, started).await;
        self.socket = fresh.socket;
        self.closed = false;
        self.resend().await;
    }

    pub(crate) async fn send(&mut self, payload_type: u32, payload: Bytes) {
        let payload = match &self.cipher {
            Some(cipher) if payload_type == payload::OUTPUT => cipher.seal(&payload),
            _ => payload,
        };
        let mut message = Message::new(wire::INPUT, payload_type, payload);
        message.sequence = self.next;
        self.next += 1;
        let raw = message.encode();
        self.unacked.insert(message.sequence, raw.clone());
        self.raw(raw).await;
    }

    /// Sends bytes as they are; a lost connection shows when reading.
    pub(crate) async fn raw(&mut self, raw: Bytes) {
        let _ = self.socket.send(Frame::Binary(raw)).await;
    }

    async fn resend(&mut self) {
        for raw in self.unacked.values().cloned().collect::<Vec<_>>() {
            self.raw(raw).await;
        }
    }

    /// Sends one smux frame, cut into payloads of at most 1,024 bytes.
    pub(crate) async fn frame(&mut self, command: u8, stream: u32, data: &[u8]) {
        let mut frame = BytesMut::new();
        frame.put_u8(1);
        frame.put_u8(command);
        frame.put_u16_le(data.len().try_into().unwrap());
        frame.put_u32_le(stream);
        frame.put_slice(data);
        let mut frame = frame.freeze();
        while !frame.is_empty() {
            let part = frame.split_to(frame.len().min(1024));
            self.send(payload::OUTPUT, part).await;
        }
    }

    pub(crate) async fn flag(&mut self, value: u32) {
        let value = Bytes::copy_from_slice(&value.to_be_bytes());
        self.send(payload::FLAG, value).await;
    }

    /// The next output message in order; `None` when the connection is over.
    pub(crate) async fn message(&mut self) -> Option<Message> {
        let work = async {
            loop {
                if let Some(message) = self.inbox.pop_front() {
                    return Some(message);
                }
                if self.closed {
                    return None;
                }
                self.turn().await;
            }
        };
        tokio::time::timeout(PATIENCE, work)
            .await
            .expect("a message in time")
    }

    /// The next smux frame; flags on the way are kept aside. `None` when the connection is over.
    pub(crate) async fn next_frame(&mut self) -> Option<(u8, u32, Bytes)> {
        loop {
            if let [1, command, low, high, id @ ..] = &self.stream[..]
                && let Some(id) = id.first_chunk()
            {
                let length = usize::from(u16::from_le_bytes([*low, *high]));
                let (command, id) = (*command, u32::from_le_bytes(*id));
                if self.stream.len() >= 8 + length {
                    let mut frame = self.stream.split_to(8 + length);
                    frame.advance(8);
                    return Some((command, id, frame.freeze()));
                }
            }
            let message = self.message().await?;
            match message.payload_type {
                payload::OUTPUT => match &self.cipher {
                    Some(cipher) => self
                        .stream
                        .extend_from_slice(&cipher.open(&message.payload)),
                    None => self.stream.extend_from_slice(&message.payload),
                },
                payload::FLAG => {
                    let value = message.payload[..].try_into().unwrap();
                    self.flags.push(u32::from_be_bytes(value));
                }
                other => panic!("payload type {other}"),
            }
        }
    }

    /// The reason in the service's `channel_closed`, once the connection is closed.
    pub(crate) async fn end_reason(&mut self) -> String {
        self.until_closed().await;
        let mut said = self.service.iter();
        let closed = said.find(|(kind, _)| kind == wire::CHANNEL_CLOSED);
        let closed = closed.unwrap_or_else(|| panic!("{:?}", self.service));
        let content: Value = serde_json::from_str(&closed.1).unwrap();
        content["Output"].as_str().unwrap().to_owned()
    }

    /// How often the service said that the other side is away.
    pub(crate) fn pauses(&self) -> usize {
        let said = self.service.iter();
        said.filter(|(kind, _)| kind == wire::PAUSE).count()
    }

    /// Reads until the agent has acknowledged everything.
    pub(crate) async fn settle(&mut self) {
        let work = async {
            while !self.unacked.is_empty() && !self.closed {
                self.turn().await;
            }
        };
        tokio::time::timeout(PATIENCE, work)
            .await
            .expect("acknowledged in time");
    }

    /// Reads until the service closes the connection.
    pub(crate) async fn until_closed(&mut self) {
        let work = async {
            while !self.closed {
                self.turn().await;
            }
        };
        tokio::time::timeout(PATIENCE, work)
            .await
            .expect("closed in time");
    }

    /// Takes the WebSocket messages that are there, or resends after some silence.
    pub(crate) async fn turn(&mut self) {
        let Ok(first) = tokio::time::timeout(RESEND_AFTER, self.socket.next()).await else {
            return self.resend().await;
        };
        let mut arrived = Some(first);
        while let Some(frame) = arrived.take() {
            match frame {
                Some(Ok(Frame::Binary(raw))) => self.take(&raw).await,
                Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => {}
                Some(Ok(Frame::Close(_)) | Err(_)) | None => self.closed = true,
                Some(Ok(other)) => panic!("{other:?}"),
            }
            if !self.closed {
                arrived = self.socket.next().now_or_never();
            }
        }
        let _ = self.socket.flush().await;
    }

    async fn take(&mut self, raw: &Bytes) {
        let message = Message::decode(raw).unwrap();
        match message.kind.as_str() {
            wire::ACKNOWLEDGE => {
                let ack: Value = serde_json::from_slice(&message.payload).unwrap();
                let sequence = &ack["AcknowledgedMessageSequenceNumber"];
                self.unacked.remove(&sequence.as_i64().unwrap());
            }
            wire::OUTPUT => {
                if !self.mute {
                    let ack = Message::ack(&message).encode();
                    let _ = self.socket.feed(Frame::Binary(ack)).await;
                }
                if message.sequence < self.expected || self.early.contains_key(&message.sequence) {
                    self.duplicates += 1;
                    return;
                }
                self.early.insert(message.sequence, message);
                while let Some(message) = self.early.remove(&self.expected) {
                    self.expected += 1;
                    self.inbox.push_back(message);
                }
            }
            kind => {
                let text = String::from_utf8(message.payload.to_vec()).unwrap();
                self.service.push((kind.to_owned(), text));
            }
        }
    }

    /// Whether everything sent so far has been acknowledged.
    pub(crate) fn is_settled(&self) -> bool {
        self.unacked.is_empty()
    }
}
