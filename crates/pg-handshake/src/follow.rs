//! Tracks message boundaries in a stream by the length words alone.

use crate::frame::{HEADER, tag_name};

/// Bytes of an ErrorResponse that hold its first two fields, which are the severity.
const SEVERITY: usize = 64;

/// The stream is not PostgreSQL framing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid message: type '{}', length {length}", tag_name(*tag))]
pub struct FollowError {
    /// Type byte of the message.
    pub tag: u8,
    /// Its length word, which counts itself: at least 4, at most 2³¹-1 (it is a signed Int32).
    pub length: u32,
}

/// Follows the messages after ReadyForQuery in one direction. Keeps five bytes, a count and the
/// severity fields of an error.
///
/// A proxy may insert a message of its own into the stream only [at a boundary](Self::at_boundary).
#[derive(Debug, Default)]
pub struct Follower {
    header: [u8; HEADER],
    /// Beginning of the body of an ErrorResponse: the severity comes first.
    error_head: Vec<u8>,
    have: usize,
    body_left: usize,
    error: Option<FollowError>,
    /// Message types to count.
    wanted: &'static [u8],
    counted: u64,
    /// The previous message was a Sync and has been counted.
    sync_counted: bool,
}

/// Client message types that the server answers with a ReadyForQuery each: Query, Sync,
/// FunctionCall (PostgreSQL docs, "Message Flow").
pub const ASKS_FOR_READY: &[u8] = b"QSF";
/// Type of ReadyForQuery.
pub const READY_FOR_QUERY: &[u8] = b"Z";

impl Follower {
    /// Creates a follower that stands at a boundary.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a follower that counts the messages of these types.
    #[must_use]
    pub fn counting(wanted: &'static [u8]) -> Self {
        Self {
            wanted,
            ..Self::default()
        }
    }

    /// Returns the number of counted messages that have begun. A Sync followed by COPY data is not
    /// counted: during COPY FROM STDIN the server ignores it (PostgreSQL docs, "COPY Operations").
    #[must_use]
    pub fn counted(&self) -> u64 {
        self.counted
    }

    /// Follows the next bytes of the stream.
    ///
    /// # Errors
    /// [`FollowError`] for a length word no message can have. It sticks, and from then on the
    /// stream never counts as standing at a boundary; the bytes may still be forwarded.
    pub fn advance(&mut self, mut data: &[u8]) -> Result<(), FollowError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        while !data.is_empty() {
            if self.body_left > 0 {
                let take = self.body_left.min(data.len());
                if self.header[0] == b'E' {
                    let keep = take.min(SEVERITY - self.error_head.len());
                    self.error_head.extend_from_slice(&data[..keep]);
                }
                self.body_left -= take;
                data = &data[take..];
                continue;
            }
            let take = (HEADER - self.have).min(data.len());
            self.header[self.have..self.have + take].copy_from_slice(&data[..take]);
            self.have += take;
            data = &data[take..];
            if self.have == HEADER {
                self.begin_body()?;
            }
        }
        Ok(())
    }

    /// Returns true if every message begun so far is complete.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.error.is_none() && self.have == 0 && self.body_left == 0
    }

    /// Returns the type byte of the current or latest message; `None` before the first one.
    #[must_use]
    pub fn last_type(&self) -> Option<u8> {
        let [tag, ..] = self.header;
        (tag != 0).then_some(tag)
    }

    /// Returns true if the latest message is a complete ErrorResponse that ends the session. The
    /// severity says so (PostgreSQL docs, "Error and Notice Message Fields": `V` equals `S` but is
    /// never translated).
    #[must_use]
    pub fn last_is_fatal(&self) -> bool {
        let mut fields = self.error_head.split(|byte| *byte == 0);
        self.at_boundary()
            && self.last_type() == Some(b'E')
            && fields.any(|field| matches!(field, b"VFATAL" | b"VPANIC" | b"SFATAL" | b"SPANIC"))
    }

    fn begin_body(&mut self) -> Result<(), FollowError> {
        let [tag, a, b, c, d] = self.header;
        let length = u32::from_be_bytes([a, b, c, d]);
        if length < 4 || i32::try_from(length).is_err() {
            let error = FollowError { tag, length };
            self.error = Some(error.clone());
            return Err(error);
        }
        self.have = 0;
        let is_copy = matches!(tag, b'd' | b'c' | b'f');
        self.counted -= u64::from(is_copy && self.sync_counted);
        let counts = self.wanted.contains(&tag);
        self.counted += u64::from(counts);
        self.sync_counted = counts && tag == b'S';
        self.error_head.clear();
        self.body_left = length as usize - 4;
        Ok(())
    }
}
