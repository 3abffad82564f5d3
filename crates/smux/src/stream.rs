//! The sending half of one stream, and the progress of its close.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::{Command, HEADER_LEN, Header, StreamId};

/// Largest data part of a frame we write. The agent's library rejects sizes above 65,535 and uses
/// 32,768; the same size keeps its read buffers as they are.
const MAX_SEND_DATA: usize = 32_768;

/// Result of one visit of [`Stream::fill`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FillResult {
    /// Wrote something, or there was nothing to write.
    Served,
    /// There was data to write but no room for any of it.
    NoRoom,
    /// Wrote the FIN: the stream is over and can be forgotten.
    Closed,
}

/// One stream of a session. It lives from `open` or the peer's SYN until its FIN is handed out.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    chunks: VecDeque<Bytes>,
    queued: usize,
    syn_pending: bool,
    /// Set by either side's close. A FIN goes out after the queued data; nothing comes in any more.
    closing: bool,
    /// In the session's schedule.
    pub(crate) scheduled: bool,
}

impl Stream {
    /// Creates a stream opened by this side: its SYN has still to be sent.
    pub(crate) fn opening() -> Self {
        Self {
            syn_pending: true,
            ..Self::default()
        }
    }

    /// Creates a stream opened by the peer.
    pub(crate) fn accepted() -> Self {
        Self::default()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    pub(crate) fn syn_pending(&self) -> bool {
        self.syn_pending
    }

    /// Returns the number of bytes not transmitted yet.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Returns true if the stream has something to send: SYN, data or FIN.
    pub(crate) fn has_pending(&self) -> bool {
        self.syn_pending || self.queued > 0 || self.closing
    }

    pub(crate) fn push(&mut self, data: Bytes) {
        self.queued += data.len();
        self.chunks.push_back(data);
    }

    /// Sends FIN after the queued data.
    pub(crate) fn close(&mut self) {
        self.closing = true;
    }

    /// Sends FIN at once.
    pub(crate) fn close_now(&mut self) {
        self.chunks.clear();
        self.queued = 0;
        self.closing = true;
    }

    /// Writes as much as fits in `room` bytes: the SYN, one frame of data, the FIN.
    pub(crate) fn fill(&mut self, id: StreamId, room: usize, out: &mut BytesMut) -> FillResult {
        let limit = out.len() + room;
        let start = out.len();
        if self.syn_pending && limit - out.len() >= HEADER_LEN {
            put_header(out, Command::Syn, 0, id);
            self.syn_pending = false;
        }
        if !self.syn_pending && self.queued > 0 && limit - out.len() > HEADER_LEN {
            self.put_data(id, limit - out.len() - HEADER_LEN, out);
        }
        let only_fin_left = !self.syn_pending && self.queued == 0 && self.closing;
        if only_fin_left && limit - out.len() >= HEADER_LEN {
            put_header(out, Command::Fin, 0, id);
            return FillResult::Closed;
        }
        if out.len() == start && self.has_pending() {
            FillResult::NoRoom
        } else {
            FillResult::Served
        }
    }

    /// Writes one PSH frame of at most `room` data bytes, gathered from as many chunks as needed.
    fn put_data(&mut self, id: StreamId, room: usize, out: &mut BytesMut) {
        let mut left = self.queued.min(room).min(MAX_SEND_DATA);
        self.queued -= left;
        put_header(out, Command::Psh, left, id);
        while left > 0
            && let Some(mut chunk) = self.chunks.pop_front()
        {
            let part = chunk.split_to(left.min(chunk.len()));
            out.put_slice(&part);
            left -= part.len();
            if !chunk.is_empty() {
                self.chunks.push_front(chunk);
            }
        }
    }
}

/// Writes a header. `length` is at most [`MAX_SEND_DATA`].
pub(crate) fn put_header(out: &mut BytesMut, command: Command, length: usize, stream: StreamId) {
    // MAX_SEND_DATA bounds every length, so the conversion cannot saturate.
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    out.put_slice(
        &Header {
            command,
            length,
            stream,
        }
        .encode(),
    );
}
