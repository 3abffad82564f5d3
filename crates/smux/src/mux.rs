//! The session: all streams of one carrier.

use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};

use crate::error::MuxError;
use crate::frame::{Command, HEADER_LEN, Header, StreamId};
use crate::parser::{FrameParser, ParsedItem};
use crate::schedule::Schedule;
use crate::stream::{FillResult, Stream, put_header};

/// Side of the carrier; it decides which ids a session may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MuxRole {
    /// Opens 3, 5, 7, …; the peer opens none.
    Client,
    /// Accepts the client's odd ids; may open 2, 4, 6, ….
    Server,
}

impl MuxRole {
    const fn first_id(self) -> u32 {
        match self {
            Self::Client => 3,
            Self::Server => 2,
        }
    }
}

/// Action of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MuxEvent {
    /// The peer opened a stream (server role only).
    Opened(StreamId),
    /// Bytes of a stream, in order. A frame may come in several pieces.
    Data {
        /// The stream.
        id: StreamId,
        /// At least one byte, a slice of the bytes given to [`Mux::handle_input`].
        data: Bytes,
    },
    /// The peer closed the stream, for both directions. Its queued data is dropped; no more events
    /// carry this id.
    Finished(StreamId),
    /// The peer closed a stream that this side had closed or abandoned before. Repeated if the peer
    /// repeats it.
    Closed(StreamId),
}

/// All streams of one carrier.
///
/// Calling order: after each [`handle_input`](Self::handle_input) take all
/// [`poll_event`](Self::poll_event)s; after that, and after each `open`, `send`, `finish`,
/// `abandon` or `keep_alive`, take [`poll_transmit`](Self::poll_transmit) as long as the carrier
/// has room. Events and queued data are not bounded here: the driver stops reading the carrier when
/// it has no room for events, and stops calling [`send`](Self::send) when [`queued`](Self::queued)
/// exceeds its limit.
///
/// The first protocol violation of the peer sticks: later calls return it and nothing is sent any
/// more. Events that were complete before it can still be taken.
#[derive(Debug)]
pub struct Mux {
    role: MuxRole,
    next_id: Option<u32>,
    streams: HashMap<StreamId, Stream>,
    schedule: Schedule,
    parser: FrameParser,
    events: VecDeque<MuxEvent>,
    /// The rest of a frame that was larger than the `max` of the poll that wrote it.
    carry: Bytes,
    /// A keepalive is to be sent.
    nop_pending: bool,
    failed: Option<MuxError>,
}

impl Mux {
    /// Creates a session without streams.
    pub fn new(role: MuxRole) -> Self {
        Self {
            role,
            next_id: Some(role.first_id()),
            streams: HashMap::new(),
            schedule: Schedule::default(),
            parser: FrameParser::default(),
            events: VecDeque::new(),
            carry: Bytes::new(),
            nop_pending: false,
            failed: None,
        }
    }

    /// Opens a stream. Its SYN leaves with the next [`poll_transmit`](Self::poll_transmit), in one
    /// piece with data sent before that.
    ///
    /// # Errors
    /// [`MuxError::IdsExhausted`], or the error that ended the session.
    pub fn open(&mut self) -> Result<StreamId, MuxError> {
        self.check()?;
        let id = self.next_id.ok_or(MuxError::IdsExhausted)?;
        self.next_id = id.checked_add(2);
        let id = StreamId::new(id);
        self.streams.insert(id, Stream::opening());
        self.wake(id);
        Ok(id)
    }

    /// Queues bytes of a stream. Takes any amount; see [`queued`](Self::queued).
    ///
    /// # Errors
    /// [`MuxError::NotOpen`] when the stream is unknown or closed by either side, or the error that
    /// ended the session.
    pub fn send(&mut self, id: StreamId, data: Bytes) -> Result<(), MuxError> {
        self.check()?;
        let stream = self.streams.get_mut(&id).filter(|s| !s.is_closing());
        let stream = stream.ok_or(MuxError::NotOpen(id))?;
        if !data.is_empty() {
            stream.push(data);
            self.wake(id);
        }
        Ok(())
    }

    /// Returns the bytes taken by [`send`](Self::send) for this stream and not yet transmitted; 0
    /// when unknown.
    pub fn queued(&self, id: StreamId) -> usize {
        self.streams.get(&id).map_or(0, Stream::queued)
    }

    /// Closes a stream after its queued data. Version 1 has no half-close: later data of the peer
    /// is dropped, and no event but [`MuxEvent::Closed`] carries this id.
    pub fn finish(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.close();
            self.wake(id);
        }
    }

    /// Closes a stream and drops its queued data. Returns false if the stream's SYN was not
    /// transmitted yet: the stream vanishes and the peer never learns of it.
    pub fn abandon(&mut self, id: StreamId) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return true;
        };
        if stream.syn_pending() {
            self.streams.remove(&id);
            return false;
        }
        stream.close_now();
        self.wake(id);
        true
    }

    /// Queues one NOP frame, to keep a carrier open that closes when idle. It leaves ahead of any
    /// data, and further calls before that add none, so a blocked carrier does not accumulate them.
    /// Does nothing once the session has failed.
    ///
    /// The frame carries stream id 0, as `xtaci/smux` writes it; stricter readers accept no other.
    pub fn keep_alive(&mut self) {
        self.nop_pending = self.failed.is_none();
    }

    /// Takes bytes of the peer, split in any way.
    ///
    /// # Errors
    /// The peer's first violation of the protocol, now and on every later call. Bytes before it
    /// have become events.
    pub fn handle_input(&mut self, mut data: Bytes) -> Result<(), MuxError> {
        self.check()?;
        let outcome = self.read(&mut data);
        if let Err(error) = &outcome {
            self.failed = Some(error.clone());
        }
        outcome
    }

    /// Returns the next event, oldest first.
    pub fn poll_event(&mut self) -> Option<MuxEvent> {
        self.events.pop_front()
    }

    /// Returns up to `max` bytes for the carrier, or `None` when there is nothing to send (or `max`
    /// is 0).
    ///
    /// Frames of several streams are packed together. Data is cut so that frames end with the
    /// packet; a frame is split only when `max` is too small for a header and one byte. Streams
    /// take turns, previously idle ones first.
    pub fn poll_transmit(&mut self, max: usize) -> Option<Bytes> {
        if self.failed.is_some() || max == 0 {
            return None;
        }
        if self.carry.is_empty() {
            self.carry = self.pack(max.max(HEADER_LEN + 1));
        }
        let out = self.carry.split_to(max.min(self.carry.len()));
        (!out.is_empty()).then_some(out)
    }

    /// Returns true if [`poll_transmit`](Self::poll_transmit) has bytes to return.
    pub fn has_transmit(&self) -> bool {
        let pending = |id| self.streams.get(&id).is_some_and(Stream::has_pending);
        let own = self.nop_pending || !self.carry.is_empty();
        self.failed.is_none() && (own || self.schedule.iter().any(pending))
    }

    /// Returns the number of streams that neither side has closed.
    pub fn open_streams(&self) -> usize {
        self.streams.values().filter(|s| !s.is_closing()).count()
    }

    fn check(&self) -> Result<(), MuxError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Puts a stream that has something to send in the schedule, once.
    fn wake(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.scheduled
        {
            stream.scheduled = true;
            self.schedule.add(id);
        }
    }

    /// Returns whole frames of at most `room` bytes; empty when nothing is to be sent.
    fn pack(&mut self, room: usize) -> Bytes {
        let mut out = BytesMut::new();
        if std::mem::take(&mut self.nop_pending) {
            put_header(&mut out, Command::Nop, 0, StreamId::new(0));
        }
        while let Some(turn) = self.schedule.next() {
            let Some(stream) = self.streams.get_mut(&turn.id) else {
                continue;
            };
            if out.capacity() == 0 {
                // Room for the first stream's data; more is rare and grows the buffer. A buffer
                // that ends up exactly full also saves an allocation in freeze.
                out.reserve(room.min(stream.queued() + 3 * HEADER_LEN));
            }
            match stream.fill(turn.id, room - out.len(), &mut out) {
                FillResult::Served => {
                    let more = stream.has_pending();
                    stream.scheduled = self.schedule.served(turn, more);
                }
                FillResult::NoRoom => {
                    self.schedule.skipped(turn);
                    break;
                }
                FillResult::Closed => {
                    self.streams.remove(&turn.id);
                }
            }
        }
        out.freeze()
    }

    fn read(&mut self, data: &mut Bytes) -> Result<(), MuxError> {
        let bad_frame = |(offset, source)| MuxError::Frame { offset, source };
        while let Some(item) = self.parser.next(data).map_err(bad_frame)? {
            match item {
                ParsedItem::Header { header, offset } => self.handle_header(header, offset)?,
                ParsedItem::Data { id, data } => {
                    if self.receives(id) {
                        self.events.push_back(MuxEvent::Data { id, data });
                    }
                }
            }
        }
        Ok(())
    }

    fn handle_header(&mut self, header: Header, offset: u64) -> Result<(), MuxError> {
        let id = header.stream;
        match header.command {
            Command::Syn => self.accept(id, offset),
            Command::Fin => {
                self.peer_closed(id);
                Ok(())
            }
            Command::Psh | Command::Nop => Ok(()),
        }
    }

    fn accept(&mut self, id: StreamId, offset: u64) -> Result<(), MuxError> {
        if self.role == MuxRole::Client || !id.is_client_side() {
            return Err(MuxError::ForeignSyn { id, offset });
        }
        if self.streams.contains_key(&id) {
            return Err(MuxError::DuplicateSyn { id, offset });
        }
        self.streams.insert(id, Stream::accepted());
        self.events.push_back(MuxEvent::Opened(id));
        Ok(())
    }

    fn peer_closed(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            // Its own FIN is out already. Ids that this side never opened are ignored.
            if self.was_ours(id) {
                self.events.push_back(MuxEvent::Closed(id));
            }
            return;
        };
        self.events.push_back(if stream.is_closing() {
            MuxEvent::Closed(id)
        } else {
            MuxEvent::Finished(id)
        });
        // The peer has left the stream in both directions, so the queued data has no reader.
        stream.close_now();
        self.wake(id);
    }

    /// Returns true if this side has ever opened a stream of this id.
    fn was_ours(&self, id: StreamId) -> bool {
        let ours = id.is_client_side() == (self.role == MuxRole::Client);
        ours && self.next_id.is_none_or(|next| id.get() < next)
    }

    fn receives(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_some_and(|s| !s.is_closing())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_run_out_once_and_are_never_reused() {
        let mut session = Mux::new(MuxRole::Client);
        session.next_id = Some(u32::MAX - 2);
        assert_eq!(session.open().unwrap().get(), u32::MAX - 2);
        let last = session.open().unwrap();
        assert_eq!(last.get(), u32::MAX);
        assert_eq!(session.open(), Err(MuxError::IdsExhausted));
        session.abandon(last);
        assert_eq!(session.open(), Err(MuxError::IdsExhausted));
        assert!(session.has_transmit(), "the session itself goes on");
    }
}
