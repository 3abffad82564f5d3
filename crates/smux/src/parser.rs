//! Cuts the peer's byte stream into headers and pieces of data, in any split.

use bytes::Bytes;

use crate::frame::{Command, FrameError, HEADER_LEN, Header, StreamId};

/// One step of the peer's byte stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ParsedItem {
    /// A header, and the offset of its first byte.
    Header { header: Header, offset: u64 },
    /// Some bytes of the data of the current PSH frame: never waits for the whole frame.
    Data { id: StreamId, data: Bytes },
}

/// Remembers at most seven bytes of a split header, and the amount of outstanding data.
#[derive(Debug, Default)]
pub(crate) struct FrameParser {
    partial: [u8; HEADER_LEN],
    have: usize,
    body: Option<(StreamId, usize)>,
    /// Bytes taken so far.
    offset: u64,
}

impl FrameParser {
    /// Takes the next item off `input`; `None` when the input is used up. The error carries the
    /// offset of the bad header; the parser cannot continue after it.
    pub(crate) fn next(
        &mut self,
        input: &mut Bytes,
    ) -> Result<Option<ParsedItem>, (u64, FrameError)> {
        if input.is_empty() {
            return Ok(None);
        }
        if let Some((id, remaining)) = self.body {
            let data = input.split_to(remaining.min(input.len()));
            self.offset += data.len() as u64;
            let left = remaining - data.len();
            self.body = (left > 0).then_some((id, left));
            return Ok(Some(ParsedItem::Data { id, data }));
        }
        let taken = input.split_to((HEADER_LEN - self.have).min(input.len()));
        self.partial[self.have..self.have + taken.len()].copy_from_slice(&taken);
        self.have += taken.len();
        self.offset += taken.len() as u64;
        if self.have < HEADER_LEN {
            return Ok(None);
        }
        self.have = 0;
        let offset = self.offset - HEADER_LEN as u64;
        let header = Header::decode(self.partial).map_err(|source| (offset, source))?;
        if header.command == Command::Psh && header.length > 0 {
            self.body = Some((header.stream, usize::from(header.length)));
        }
        Ok(Some(ParsedItem::Header { header, offset }))
    }
}
