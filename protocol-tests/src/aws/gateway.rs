//! The message gateway (`ssmmessages`): where the client's and the agent's WebSockets meet.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::Full;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{self, Message as Frame};

use crate::aws::api::{Reply, Request};
use crate::aws::cloud::Cloud;
use crate::aws::events::Event;
use crate::aws::session::{Attachment, Order, Session, Side};

/// How long a socket may stay silent before its open message.
const OPEN_LIMIT: Duration = Duration::from_secs(15);
/// How long the peer may take to answer a close frame.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// Messages written between two flushes.
const BATCH: usize = 64;
const PATH: &str = "/v1/data-channel/";

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The first message of either side, a JSON text.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Open {
    message_schema_version: String,
    request_id: String,
    token_value: String,
    client_id: String,
    client_version: Option<String>,
    client_instance_id: Option<String>,
}

/// True when the request is for the gateway rather than for an API.
pub(crate) fn owns(path: &str) -> bool {
    path.starts_with(PATH)
}

/// Answers `POST` (an agent asks for its token) and `GET` (either side opens its WebSocket).
pub(crate) fn answer(cloud: &Arc<Cloud>, request: &Request, upgrade: Upgrade) -> Reply {
    let user = match cloud.authenticate(request, "ssmmessages") {
        Ok(user) => user,
        Err(denied) => return cloud.forbid("ssmmessages:OpenDataChannel", denied.json_code()),
    };
    let id = request.uri.path().strip_prefix(PATH).unwrap_or_default();
    let Some(session) = cloud.session(id) else {
        return plain(StatusCode::NOT_FOUND, "{\"message\":\"Not Found\"}");
    };
    match request.method {
        Method::POST => {
            if user.deny.contains("ssmmessages:CreateDataChannel") {
                return cloud.forbid("ssmmessages:CreateDataChannel", "AccessDeniedException");
            }
            let node = cloud.node(&session.info.target);
            if node.is_none_or(|n| !n.settings().external) {
                // The built-in agent serves this session already.
                return plain(StatusCode::CONFLICT, "");
            }
            agent_token(&session, &request.body)
        }
        Method::GET => {
            if user.deny.contains("ssmmessages:OpenDataChannel") {
                return cloud.forbid("ssmmessages:OpenDataChannel", "AccessDeniedException");
            }
            let signer = Signer {
                access_key_id: user.access_key_id,
                arn: user.arn,
            };
            open_socket(cloud, session, request, upgrade, signer)
        }
        _ => plain(StatusCode::METHOD_NOT_ALLOWED, ""),
    }
}

/// Who signed an upgrade.
struct Signer {
    access_key_id: String,
    arn: String,
}

type Upgrade = hyper::upgrade::OnUpgrade;

fn plain(status: StatusCode, body: &'static str) -> Reply {
    let mut reply = Reply::new(Full::new(Bytes::from_static(body.as_bytes())));
    *reply.status_mut() = status;
    reply
}

/// What a real agent asks for before it opens its WebSocket: answered in XML with status 201.
fn agent_token(session: &Session, body: &Bytes) -> Reply {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    #[expect(dead_code, reason = "the fields only have to be there")]
    struct Create {
        message_schema_version: String,
        request_id: String,
        client_id: String,
    }
    if serde_json::from_slice::<Create>(body).is_err() {
        return plain(StatusCode::BAD_REQUEST, "");
    }
    if session.has_ended() {
        return plain(StatusCode::GONE, "Session is already terminated");
    }
    let token = session.issue_token(Side::Agent);
    let xml = format!(
        "<CreateDataChannelResponse><MessageSchemaVersion>1.0</MessageSchemaVersion>\
         <TokenValue>{token}</TokenValue></CreateDataChannelResponse>"
    );
    let mut reply = Reply::new(Full::new(Bytes::from(xml)));
    *reply.status_mut() = StatusCode::CREATED;
    let kind = http::HeaderValue::from_static("application/xml");
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply
}

fn open_socket(
    cloud: &Arc<Cloud>,
    session: Arc<Session>,
    request: &Request,
    upgrade: Upgrade,
    signer: Signer,
) -> Reply {
    let query = request.uri.query().unwrap_or_default();
    let Some(accept) = accept_key(&request.headers) else {
        return plain(StatusCode::BAD_REQUEST, "");
    };
    let has = |wanted: &str| query.split('&').any(|p| p == wanted);
    let cell = session.info.cell.as_ref();
    let right_cell = cell.is_none_or(|cell| {
        let encoded = crate::aws::sigv4::uri_encode(cell.as_bytes(), false);
        has(&format!("cell-number={cell}")) || has(&format!("cell-number={encoded}"))
    });
    // The agent makes up its own URL, without a cell number.
    let from_node = signer.access_key_id == cloud.node_key;
    if !has("role=publish_subscribe") || !(right_cell || from_node) {
        return plain(StatusCode::BAD_REQUEST, "");
    }
    let inner = cloud.clone();
    cloud.tasks.spawn(async move {
        if let Ok(io) = upgrade.await {
            let socket =
                WebSocketStream::from_raw_socket(TokioIo::new(io), Role::Server, None).await;
            converse(&inner, &session, socket, &signer).await;
        }
    });
    let mut reply = plain(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = reply.headers_mut();
    headers.insert(
        header::CONNECTION,
        http::HeaderValue::from_static("Upgrade"),
    );
    headers.insert(header::UPGRADE, http::HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    reply
}

/// The answer to a well-formed WebSocket request (RFC 6455, 4.2.1); `None` for anything else.
fn accept_key(headers: &HeaderMap) -> Option<http::HeaderValue> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
    let upgrades = text(header::UPGRADE)?.eq_ignore_ascii_case("websocket");
    let mut connection = text(header::CONNECTION)?.split(',');
    let connected = connection.any(|v| v.trim().eq_ignore_ascii_case("upgrade"));
    let version = text(header::SEC_WEBSOCKET_VERSION)? == "13";
    let key = text(header::SEC_WEBSOCKET_KEY)?;
    if !(upgrades && connected && version) {
        return None;
    }
    tungstenite::handshake::derive_accept_key(key.as_bytes())
        .parse()
        .ok()
}

async fn converse(cloud: &Cloud, session: &Arc<Session>, mut socket: Socket, signer: &Signer) {
    let session_id = session.info.id.clone();
    let opened = match tokio::time::timeout(OPEN_LIMIT, first_message(&mut socket)).await {
        Ok(opened) => opened.and_then(|open| admit(session, &open, signer)),
        Err(_) => Err("no open message".to_owned()),
    };
    let side = match opened {
        Ok(side) => side,
        Err(reason) => {
            let frame = CloseFrame {
                code: 1008.into(),
                reason: "Invalid open message".into(),
            };
            let _ = socket.close(Some(frame)).await;
            return cloud
                .events
                .push(Event::GatewayRefused { session_id, reason });
        }
    };
    let (attachment, orders) = session.attach(side).await;
    cloud.events.push(match side {
        Side::Client => Event::GatewayConnected {
            session_id: session_id.clone(),
            signed_by: signer.access_key_id.clone(),
        },
        Side::Agent => Event::AgentConnected {
            session_id: session_id.clone(),
        },
    });
    let reason = pump(cloud, side, socket, attachment, orders).await;
    if side == Side::Client {
        cloud
            .events
            .push(Event::GatewayClosed { session_id, reason });
    }
}

async fn first_message(socket: &mut Socket) -> Result<Open, String> {
    loop {
        match socket.next().await {
            Some(Ok(Frame::Text(text))) => {
                return serde_json::from_str(&text).map_err(|e| format!("open message: {e}"));
            }
            Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => {}
            Some(Ok(_)) => return Err("the first message is not text".to_owned()),
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err("closed before the open message".to_owned()),
        }
    }
}

/// Decides which side speaks and whether it may.
fn admit(session: &Session, open: &Open, signer: &Signer) -> Result<Side, String> {
    if open.message_schema_version != "1.0" {
        return Err(format!("schema {}", open.message_schema_version));
    }
    if uuid::Uuid::parse_str(&open.request_id).is_err() {
        return Err("RequestId is not a UUID".to_owned());
    }
    let side = match (&open.client_version, &open.client_instance_id) {
        (Some(_), None) => Side::Client,
        (None, Some(_)) => Side::Agent,
        _ => return Err("neither ClientVersion nor ClientInstanceId".to_owned()),
    };
    // The stock plugin sends a UUID; aws-ssm-bridge, which works with AWS, the session's id.
    if side == Side::Client && open.client_id.is_empty() {
        return Err("there is no ClientId".to_owned());
    }
    if side == Side::Client && signer.arn != session.info.owner_arn {
        return Err("signed by somebody who does not own the session".to_owned());
    }
    if !session.redeem_token(side, &open.token_value) {
        return Err("wrong token".to_owned());
    }
    Ok(side)
}

/// Moves messages until the socket or the session ends; says which.
async fn pump(
    cloud: &Cloud,
    side: Side,
    socket: Socket,
    mut attachment: Attachment,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> String {
    let mut path = cloud.link.path();
    let life = match side {
        Side::Client => cloud.preferences.limits().close_sockets_after,
        Side::Agent => None,
    };
    let end_of_life = async {
        match life {
            Some(life) => tokio::time::sleep(life).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end_of_life);
    let mut alive = true;
    let session = attachment.session.clone();
    let (closing, close) = mpsc::unbounded_channel();
    let (sink, stream) = socket.split();
    let work = async {
        tokio::select! {
            reason = receive(&session, side, stream) => reason,
            reason = transmit(sink, &mut attachment, close) => reason,
        }
    };
    tokio::pin!(work);
    loop {
        let frozen = path.is_frozen();
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Close(code, reason)) => drop(closing.send((code, reason))),
                Some(Order::Cut) | None => return "cut".to_owned(),
                Some(Order::Replaced) => return "replaced".to_owned(),
            },
            () = path.changed() => {}
            () = &mut end_of_life, if alive => {
                alive = false;
                drop(closing.send((1000, "Bye".to_owned())));
            }
            // A frozen path does not even answer pings, so nothing of the socket may run then.
            reason = &mut work, if !frozen => return reason,
        }
    }
}

async fn receive(
    session: &Session,
    side: Side,
    stream: futures_util::stream::SplitStream<Socket>,
) -> String {
    // What has arrived together is passed on together.
    let mut stream = stream.ready_chunks(BATCH);
    let mut messages = Vec::with_capacity(BATCH);
    loop {
        let Some(frames) = stream.next().await else {
            return "transport ended".to_owned();
        };
        let mut last = None;
        for frame in frames {
            match frame {
                Ok(Frame::Binary(message)) => messages.push(message),
                Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_)) => {}
                Ok(Frame::Text(_)) => session.violation("text message after the open message"),
                Ok(Frame::Close(frame)) => {
                    let code = frame.map_or(1005, |f| f.code.into());
                    last = last.or(Some(format!("closed by peer, {code}")));
                }
                Err(error) => last = last.or(Some(format!("transport: {error}"))),
            }
        }
        session.relay_all(side, &mut messages).await;
        if let Some(reason) = last {
            return reason;
        }
    }
}

async fn transmit(
    mut sink: futures_util::stream::SplitSink<Socket, Frame>,
    attachment: &mut Attachment,
    mut close: mpsc::UnboundedReceiver<(u16, String)>,
) -> String {
    let session = attachment.session.clone();
    let ended = session.ended();
    tokio::pin!(ended);
    let mut batch = Vec::with_capacity(BATCH);
    let (code, reason) = loop {
        tokio::select! {
            biased;
            order = close.recv() => match order {
                Some(order) => break order,
                None => return "cut".to_owned(),
            },
            _ = attachment.queue.recv_many(&mut batch, BATCH) => {
                for message in batch.drain(..) {
                    if let Err(error) = sink.feed(Frame::Binary(message)).await {
                        return format!("transport: {error}");
                    }
                }
                if let Err(error) = sink.flush().await {
                    return format!("transport: {error}");
                }
            }
            reason = &mut ended => {
                let last = Frame::Binary(session.channel_closed(&reason));
                let _ = sink.send(last).await;
                break (1000, "session ended".to_owned());
            }
        }
    };
    let frame = CloseFrame {
        code: code.into(),
        reason: reason.clone().into(),
    };
    let _ = sink.send(Frame::Close(Some(frame))).await;
    // Dropping the transport with input unread would make the kernel throw away what was just sent,
    // so the reader goes on until the peer has answered.
    tokio::time::sleep(CLOSE_LIMIT).await;
    format!("closed by the service, {code} {reason}")
}
