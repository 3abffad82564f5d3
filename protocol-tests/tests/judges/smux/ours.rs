//! The least a driver of our session can be: two tasks and a lock.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use smux::{Mux, MuxError, MuxEvent, MuxRole, StreamId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes a stream may have queued before its writer waits.
pub(super) const SEND_BUFFER: usize = 256 * 1024;
/// Unread bytes of all streams before the carrier is no longer read.
pub(super) const RECEIVE_BUFFER: usize = 512 * 1024;
/// Most bytes that are read at once.
pub(super) const READ: usize = 16 * 1024;

/// Our session on a carrier.
pub(super) struct Ours {
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    state: Mutex<State>,
    /// Changes with the state.
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct Inbox {
    chunks: VecDeque<Bytes>,
    finished: bool,
}

pub(super) struct State {
    pub(super) session: Mux,
    inboxes: HashMap<StreamId, Inbox>,
    opened: VecDeque<StreamId>,
    pub(super) unread: usize,
    /// All bytes that came off the carrier.
    pub(super) received: Vec<u8>,
    record: bool,
    /// How the session ended: orderly, or with an error.
    pub(super) end: Option<Result<(), MuxError>>,
}

impl Ours {
    pub(super) fn start(role: MuxRole, carrier: DuplexStream, packet: usize) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                session: Mux::new(role),
                inboxes: HashMap::new(),
                opened: VecDeque::new(),
                unread: 0,
                received: Vec::new(),
                record: false,
                end: None,
            }),
            changes: watch::Sender::new(()),
        });
        let (reader, writer) = tokio::io::split(carrier);
        let mut tasks = JoinSet::new();
        tasks.spawn(shared.clone().read(reader));
        tasks.spawn(shared.clone().write(writer, packet));
        Self {
            shared,
            _tasks: tasks,
        }
    }

    pub(super) fn open(&self) -> OurStream {
        let id = self.shared.change(|state| {
            let id = state.session.open().unwrap();
            state.inboxes.insert(id, Inbox::default());
            id
        });
        self.stream(id)
    }

    /// The next stream the peer opens.
    pub(super) async fn accept(&self) -> OurStream {
        let id = self.until(|state| state.opened.pop_front()).await;
        self.stream(id)
    }

    fn stream(&self, id: StreamId) -> OurStream {
        OurStream {
            shared: self.shared.clone(),
            id,
        }
    }

    /// Waits until `look` finds something.
    pub(super) async fn until<T>(&self, look: impl FnMut(&mut State) -> Option<T>) -> T {
        self.shared.until(look).await
    }

    /// Keeps a copy of what arrives from now on.
    pub(super) fn record(&self) {
        self.shared.change(|state| state.record = true);
    }

    pub(super) fn keep_alive(&self) {
        self.shared.change(|state| state.session.keep_alive());
    }

    /// Drops what is unread.
    pub(super) fn discard(&self) {
        self.shared.change(|state| {
            state.unread = 0;
            state.inboxes.values_mut().for_each(|i| i.chunks.clear());
        });
    }

    /// Until neither side has a stream open and nothing is queued.
    pub(super) async fn quiet(&self) {
        self.until(|s| (s.session.open_streams() == 0 && !s.session.has_transmit()).then_some(()))
            .await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let out = act(&mut self.lock());
        self.changes.send_replace(());
        out
    }

    async fn until<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            let found = look(&mut self.lock());
            if let Some(found) = found {
                return found;
            }
            changes.changed().await.unwrap();
        }
    }

    async fn read(self: Arc<Self>, mut carrier: ReadHalf<DuplexStream>) {
        loop {
            self.until(|state| (state.unread < RECEIVE_BUFFER).then_some(()))
                .await;
            let mut buffer = BytesMut::with_capacity(READ);
            let read = carrier.read_buf(&mut buffer).await;
            let over = self.change(|state| {
                match read {
                    Ok(1..) => state.take(buffer.freeze()),
                    _ => state.end = state.end.take().or(Some(Ok(()))),
                }
                state.end.is_some()
            });
            if over {
                return;
            }
        }
    }

    async fn write(self: Arc<Self>, mut carrier: WriteHalf<DuplexStream>, packet: usize) {
        loop {
            let next = self
                .until(|state| match state.session.poll_transmit(packet) {
                    Some(packet) => Some(Some(packet)),
                    None => state.end.is_some().then_some(None),
                })
                .await;
            let Some(packet) = next else { return };
            // Writers wait for room in the queue, which there is now.
            self.changes.send_replace(());
            if carrier.write_all(&packet).await.is_err() {
                return;
            }
        }
    }
}

impl State {
    fn take(&mut self, data: Bytes) {
        if self.record {
            self.received.extend_from_slice(&data);
        }
        if let Err(error) = self.session.handle_input(data) {
            self.end = Some(Err(error));
        }
        while let Some(event) = self.session.poll_event() {
            match event {
                MuxEvent::Opened(id) => {
                    self.inboxes.insert(id, Inbox::default());
                    self.opened.push_back(id);
                }
                MuxEvent::Data { id, data } => {
                    self.unread += data.len();
                    let inbox = self.inboxes.get_mut(&id).unwrap();
                    assert!(!inbox.finished, "data after the end");
                    inbox.chunks.push_back(data);
                }
                MuxEvent::Finished(id) => self.inboxes.get_mut(&id).unwrap().finished = true,
                MuxEvent::Closed(_) => {}
            }
        }
    }

    /// Closed here: nothing may come for it any more, and what is unread stays unread.
    fn close(&mut self, id: StreamId) {
        let inbox = self.inboxes.get_mut(&id).unwrap();
        inbox.finished = true;
        let chunks = std::mem::take(&mut inbox.chunks);
        self.unread -= chunks.iter().map(Bytes::len).sum::<usize>();
    }

    /// Some bytes of a stream, empty at its end, `None` when there is nothing yet.
    fn next_chunk(&mut self, id: StreamId, most: usize) -> Option<Bytes> {
        let over = self.end.is_some();
        let inbox = self.inboxes.get_mut(&id).unwrap();
        let Some(chunk) = inbox.chunks.front_mut() else {
            return (inbox.finished || over).then(Bytes::new);
        };
        let out = chunk.split_to(most.min(chunk.len()));
        if chunk.is_empty() {
            inbox.chunks.pop_front();
        }
        self.unread -= out.len();
        Some(out)
    }
}

/// One stream of our session.
#[derive(Clone)]
pub(super) struct OurStream {
    shared: Arc<Shared>,
    pub(super) id: StreamId,
}

impl OurStream {
    /// Waits for room, then queues the data.
    pub(super) async fn send(&self, data: Bytes) -> Result<(), MuxError> {
        let id = self.id;
        self.shared
            .until(|state| (state.session.queued(id) < SEND_BUFFER).then_some(()))
            .await;
        self.shared.change(|state| state.session.send(id, data))
    }

    /// Waits for bytes; none at the end of the stream.
    pub(super) async fn receive(&self, most: usize) -> Bytes {
        let bytes = self
            .shared
            .until(|state| state.next_chunk(self.id, most))
            .await;
        self.shared.changes.send_replace(());
        bytes
    }

    /// FIN after what is queued.
    pub(super) fn finish(&self) {
        self.shared.change(|state| {
            state.session.finish(self.id);
            state.close(self.id);
        });
    }

    /// FIN at once.
    pub(super) fn abandon(&self) {
        self.shared.change(|state| {
            state.session.abandon(self.id);
            state.close(self.id);
        });
    }
}
