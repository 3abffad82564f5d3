//! The multiplexer inside the stream payloads (smux version 1), server side, and the sockets to the
//! database behind it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::outgoing::Outgoing;
use super::{AgentControl, pump};
use crate::aws::cloud::Cloud;
use crate::aws::events::Event;
use crate::aws::session::Session;
use crate::aws::wire::{flag, payload};
use crate::harness::sync::lock;

/// Bytes before the data of a frame: version, command, length, stream id (little-endian).
const FRAME_HEADER: usize = 8;
/// Most data bytes of one frame from the agent.
const MAX_FRAME: usize = 32_768;
const VERSION: u8 = 1;
/// Opens a stream.
const CMD_SYN: u8 = 0;
/// Closes a stream, both ways.
const CMD_FIN: u8 = 1;
/// Carries data.
const CMD_PSH: u8 = 2;
/// Keeps the session alive.
const CMD_NOP: u8 = 3;

/// Received bytes the session may hold for all its streams together.
const RECEIVE_BUDGET: i64 = 4 << 20;
/// Streams waiting to be dialled for.
const BACKLOG: usize = 1024;
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_DEATH: Duration = Duration::from_secs(30);
/// Frames and payloads between two tasks; small, so that a slow reader is felt at once.
const PIPE: usize = 8;

/// Where every stream of the session goes.
pub(super) struct Destination {
    pub(super) host: String,
    pub(super) port: u16,
    /// In the order in which they are tried; never empty.
    pub(super) addresses: Vec<IpAddr>,
}

/// Streams whose SYN was thrown away: what comes for them means nothing to the agent, and is no
/// fault of the client's. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Lost(Arc<Mutex<HashSet<u32>>>);

impl Lost {
    /// Notes the streams that the whole frames in `bytes` would have opened.
    pub(super) fn note(&self, mut bytes: &[u8]) {
        while let Some((header, rest)) = bytes.split_at_checked(FRAME_HEADER) {
            let length = usize::from(u16::from_le_bytes([header[2], header[3]]));
            if header[1] == CMD_SYN {
                let id = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
                lock(&self.0).insert(id);
            }
            bytes = rest.get(length..).unwrap_or_default();
        }
    }

    fn has(&self, stream: u32) -> bool {
        lock(&self.0).contains(&stream)
    }
}

/// What a session's multiplexer is made from.
pub(super) struct Mux {
    pub(super) cloud: Arc<Cloud>,
    pub(super) session: Arc<Session>,
    pub(super) control: AgentControl,
    pub(super) outgoing: Arc<Outgoing>,
    pub(super) destination: Destination,
    pub(super) lost: Lost,
    pub(super) keepalive: bool,
}

struct Shared {
    session: Arc<Session>,
    streams: Mutex<HashMap<u32, mpsc::UnboundedSender<Bytes>>>,
    budget: AtomicI64,
    budget_grew: Notify,
    heard: AtomicBool,
}

struct NewStream {
    id: u32,
    input: mpsc::UnboundedReceiver<Bytes>,
}

impl Mux {
    /// Starts all its parts; the sender takes the payloads in order.
    pub(super) fn start(self, tasks: &mut JoinSet<()>) -> mpsc::Sender<Bytes> {
        let shared = Arc::new(Shared {
            session: self.session.clone(),
            streams: Mutex::default(),
            budget: AtomicI64::new(RECEIVE_BUDGET),
            budget_grew: Notify::new(),
            heard: AtomicBool::new(false),
        });
        let (bytes, bytes_in) = mpsc::channel(PIPE);
        let (accept, accepted) = mpsc::channel(BACKLOG);
        let (frames, frames_out) = mpsc::channel(PIPE);
        let lost = self.lost.clone();
        tasks.spawn(receive_frames(shared.clone(), lost, bytes_in, accept));
        tasks.spawn(pump::send_payloads(
            self.outgoing.clone(),
            self.control.clone(),
            frames_out,
        ));
        if self.keepalive {
            tasks.spawn(keep_alive(shared.clone(), frames.clone()));
        }
        tasks.spawn(self.accept_streams(shared, accepted, frames));
        bytes
    }

    /// Dials for one stream after the other, as the real agent does: while a dial hangs, no later
    /// stream is even looked at.
    async fn accept_streams(
        self,
        shared: Arc<Shared>,
        mut accepted: mpsc::Receiver<NewStream>,
        frames: mpsc::Sender<Bytes>,
    ) {
        let mut running = JoinSet::new();
        loop {
            let stream = tokio::select! {
                Some(_) = running.join_next() => continue,
                stream = accepted.recv() => stream,
            };
            let Some(stream) = stream else { return };
            let dialled = self.destination.dial(&self.cloud, &self.session, stream.id);
            match dialled.await {
                Ok(socket) => {
                    let (session, events) = (self.session.clone(), self.cloud.events.clone());
                    let (shared, frames) = (shared.clone(), frames.clone());
                    running.spawn(async move {
                        let id = stream.id;
                        let (to_server, from_server) =
                            shared.forward(stream, socket, &frames).await;
                        events.push(Event::StreamFinished {
                            session_id: session.info.id.clone(),
                            stream: id,
                            to_server,
                            from_server,
                        });
                    });
                }
                Err(_) => {
                    let value = flag::CONNECT_TO_PORT_ERROR.to_be_bytes();
                    let value = Bytes::copy_from_slice(&value);
                    self.outgoing.send(payload::FLAG, value).await;
                    shared.finish(stream, &frames).await;
                }
            }
        }
    }
}

impl Destination {
    /// Dials for the stream with this id, one address after the other, each without a timeout of its
    /// own, and notes what came of each dial.
    pub(super) async fn dial(
        &self,
        cloud: &Cloud,
        session: &Session,
        stream: u32,
    ) -> std::io::Result<TcpStream> {
        let mut dialled = Err(std::io::Error::other("dial tcp: missing address"));
        for address in &self.addresses {
            dialled = self.dial_one(*address, cloud, session, stream).await;
            if dialled.is_ok() {
                break;
            }
        }
        dialled
    }

    async fn dial_one(
        &self,
        address: IpAddr,
        cloud: &Cloud,
        session: &Session,
        stream: u32,
    ) -> std::io::Result<TcpStream> {
        let dialled = cloud.vpc.dial(address, self.port).await;
        cloud.events.push(Event::Dial {
            session_id: session.info.id.clone(),
            stream,
            host: self.host.clone(),
            port: self.port,
            result: dialled.as_ref().map(drop).map_err(ToString::to_string),
        });
        dialled
    }
}

fn frame(command: u8, stream: u32) -> Bytes {
    let mut frame = BytesMut::with_capacity(FRAME_HEADER);
    put_header(&mut frame, command, 0, stream);
    frame.freeze()
}

fn put_header(frame: &mut BytesMut, command: u8, length: u16, stream: u32) {
    frame.put_u8(VERSION);
    frame.put_u8(command);
    frame.put_u16_le(length);
    frame.put_u32_le(stream);
}

/// Cuts the byte stream into frames and hands their data to the streams.
async fn receive_frames(
    shared: Arc<Shared>,
    lost: Lost,
    mut bytes: mpsc::Receiver<Bytes>,
    accept: mpsc::Sender<NewStream>,
) {
    let mut held = BytesMut::new();
    let mut opened = HashSet::new();
    while let Some(chunk) = bytes.recv().await {
        held.extend_from_slice(&chunk);
        while held.len() >= FRAME_HEADER {
            let (version, command) = (held[0], held[1]);
            let length = usize::from(u16::from_le_bytes([held[2], held[3]]));
            let stream = u32::from_le_bytes([held[4], held[5], held[6], held[7]]);
            if version != VERSION || command > CMD_NOP {
                let what = format!("smux frame with version {version}, command {command}");
                shared.session.violation(&what);
                // The real multiplexer gives up on a frame it does not know.
                return shared.session.end("");
            }
            if held.len() < FRAME_HEADER + length {
                break;
            }
            let mut data = held.split_to(FRAME_HEADER + length).freeze();
            data.advance(FRAME_HEADER);
            shared.heard.store(true, Ordering::Relaxed);
            match command {
                CMD_SYN if opened.insert(stream) => {
                    let (sender, input) = mpsc::unbounded_channel();
                    lock(&shared.streams).insert(stream, sender);
                    let new = NewStream { id: stream, input };
                    if accept.send(new).await.is_err() {
                        return;
                    }
                }
                CMD_SYN => {
                    let what = format!("smux stream {stream} opened again");
                    shared.session.violation(&what);
                }
                CMD_FIN | CMD_PSH if lost.has(stream) => {}
                CMD_FIN | CMD_PSH if !opened.contains(&stream) => {
                    let what = format!("smux command {command} for unopened stream {stream}");
                    shared.session.violation(&what);
                }
                // What is buffered before the FIN still reaches the database.
                CMD_FIN => drop(lock(&shared.streams).remove(&stream)),
                CMD_PSH => shared.take(stream, data).await,
                _ => {}
            }
        }
    }
}

impl Shared {
    /// Buffers data for a stream; then, if the whole session's budget is spent, waits for any of
    /// its streams to make room. Until then nothing more of the session is read.
    async fn take(&self, stream: u32, data: Bytes) {
        let length = i64::try_from(data.len()).unwrap_or(i64::MAX);
        let sent = match lock(&self.streams).get(&stream) {
            Some(input) => input.send(data).is_ok(),
            // Closed by this side already; the client could not know.
            None => false,
        };
        if sent {
            self.budget.fetch_sub(length, Ordering::AcqRel);
        }
        loop {
            let grew = self.budget_grew.notified();
            if self.budget.load(Ordering::Acquire) > 0 {
                return;
            }
            grew.await;
        }
    }

    fn give_back(&self, length: usize) {
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        if self.budget.fetch_add(length, Ordering::AcqRel) <= 0 {
            self.budget_grew.notify_one();
        }
    }

    /// Copies both ways until either way ends, then closes the stream; returns the bytes written to
    /// and read from the database.
    async fn forward(
        &self,
        mut stream: NewStream,
        mut socket: TcpStream,
        frames: &mpsc::Sender<Bytes>,
    ) -> (u64, u64) {
        let (to_server, from_server) = (AtomicU64::new(0), AtomicU64::new(0));
        let (reader, writer) = socket.split();
        tokio::select! {
            () = self.to_socket(&mut stream.input, writer, &to_server) => {}
            () = from_socket(stream.id, reader, frames, &from_server) => {}
        }
        drop(socket);
        self.finish(stream, frames).await;
        (to_server.into_inner(), from_server.into_inner())
    }

    async fn to_socket(
        &self,
        input: &mut mpsc::UnboundedReceiver<Bytes>,
        mut writer: tokio::net::tcp::WriteHalf<'_>,
        count: &AtomicU64,
    ) {
        while let Some(data) = input.recv().await {
            let length = data.len();
            let written = writer.write_all(&data).await;
            self.give_back(length);
            if written.is_err() {
                return;
            }
            count.fetch_add(length as u64, Ordering::Relaxed);
        }
    }

    /// Forgets the stream, returns what it held to the budget and tells the client.
    async fn finish(&self, mut stream: NewStream, frames: &mpsc::Sender<Bytes>) {
        lock(&self.streams).remove(&stream.id);
        stream.input.close();
        while let Ok(data) = stream.input.try_recv() {
            self.give_back(data.len());
        }
        let _ = frames.send(frame(CMD_FIN, stream.id)).await;
    }
}

async fn from_socket(
    stream: u32,
    mut reader: tokio::net::tcp::ReadHalf<'_>,
    frames: &mpsc::Sender<Bytes>,
    count: &AtomicU64,
) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(FRAME_HEADER + MAX_FRAME);
        put_header(&mut buffer, CMD_PSH, 0, stream);
        let read = reader.read_buf(&mut (&mut buffer).limit(MAX_FRAME)).await;
        let Ok(length @ 1..) = read else { return };
        // Never above MAX_FRAME, which fits.
        let field = u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes();
        buffer[2..4].copy_from_slice(&field);
        count.fetch_add(length as u64, Ordering::Relaxed);
        if frames.send(buffer.split().freeze()).await.is_err() {
            return;
        }
    }
}

/// The multiplexer's own keepalive, which only old clients still get.
async fn keep_alive(shared: Arc<Shared>, frames: mpsc::Sender<Bytes>) {
    let begin = Instant::now();
    let mut ping = tokio::time::interval_at(begin + KEEPALIVE_EVERY, KEEPALIVE_EVERY);
    let mut death = tokio::time::interval_at(begin + KEEPALIVE_DEATH, KEEPALIVE_DEATH);
    loop {
        tokio::select! {
            _ = ping.tick() => {
                let _ = frames.send(frame(CMD_NOP, 0)).await;
            }
            _ = death.tick() => {
                if !shared.heard.swap(false, Ordering::Relaxed) {
                    return shared.session.end("");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::aws::events::EventLog;
    use crate::aws::session::{PortParameters, SessionInfo};
    use crate::harness::sync::Tasks;
    use crate::network::link::Link;

    fn shared() -> Arc<Shared> {
        let info = SessionInfo {
            id: "dev-0".to_owned(),
            target: "i-0".to_owned(),
            owner_arn: String::new(),
            parameters: PortParameters {
                host: String::new(),
                port: 1,
                local_port: String::new(),
            },
            cell: None,
        };
        Arc::new(Shared {
            session: Session::new(info, Link::new(), EventLog::new(), Tasks::new()),
            streams: Mutex::default(),
            budget: AtomicI64::new(RECEIVE_BUDGET),
            budget_grew: Notify::new(),
            heard: AtomicBool::new(false),
        })
    }

    #[test]
    fn a_spent_budget_stops_the_session_until_some_stream_reads() {
        let shared = shared();
        let (sender, mut input) = mpsc::unbounded_channel();
        lock(&shared.streams).insert(3, sender);
        let frame = Bytes::from(vec![0; MAX_FRAME]);
        let whole = usize::try_from(RECEIVE_BUDGET).unwrap() / MAX_FRAME;
        for _ in 1..whole {
            assert!(shared.take(3, frame.clone()).now_or_never().is_some());
        }
        let mut last = std::pin::pin!(shared.take(3, frame.clone()));
        assert!(last.as_mut().now_or_never().is_none());
        shared.give_back(input.try_recv().unwrap().len());
        assert!(last.now_or_never().is_some());
        // Data for a stream that is gone costs nothing.
        lock(&shared.streams).clear();
        let free = shared.budget.load(Ordering::Relaxed);
        assert!(shared.take(3, frame).now_or_never().is_some());
        assert_eq!(shared.budget.load(Ordering::Relaxed), free);
    }

    #[tokio::test(start_paused = true)]
    async fn old_clients_are_pinged_and_given_up_after_silence() {
        let shared = shared();
        let (frames, mut sent) = mpsc::channel(PIPE);
        let begin = Instant::now();
        tokio::spawn(keep_alive(shared.clone(), frames));
        shared.heard.store(true, Ordering::Relaxed);
        for n in 1..=3 {
            assert_eq!(sent.recv().await.unwrap(), frame(CMD_NOP, 0));
            assert_eq!(begin.elapsed(), n * KEEPALIVE_EVERY);
        }
        assert!(!shared.session.has_ended(), "something was heard");
        shared.session.ended().await;
        assert_eq!(begin.elapsed(), 2 * KEEPALIVE_DEATH);
    }
}
