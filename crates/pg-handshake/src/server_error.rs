//! An ErrorResponse of the real server, kept as received.

use std::borrow::Cow;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::error_response::{SqlState, clip};
use crate::frame::{HEADER, MAX_ERROR_FRAME, MalformedMessage, split_cstring};
use crate::startup::put_length;

/// Longest bare error text, in bytes. With length word, two severities and terminators, the frame
/// built from it is [`MAX_ERROR_FRAME`] long.
pub(crate) const MAX_BARE_TEXT: usize = MAX_ERROR_FRAME - (4 + 2 * 7 + 2 + 1);

/// An ErrorResponse of the server: the frame as received and its fields ("Error and Notice Message
/// Fields"). Before a session has an encoding the texts can be in any encoding, so fields are bytes
/// and the text accessors replace invalid UTF-8.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerError {
    frame: Bytes,
    fields: Vec<(u8, Bytes)>,
}

impl ServerError {
    /// Parses a whole ErrorResponse frame, type byte included.
    ///
    /// # Errors
    /// [`MalformedMessage`] when it is not one, contradicts its length word, or has a field without
    /// terminator.
    pub fn parse(frame: Bytes) -> Result<Self, MalformedMessage> {
        let fields = fields(&frame, b'E')?
            .into_iter()
            .map(|(code, value)| (code, frame.slice_ref(value)))
            .collect();
        Ok(Self { frame, fields })
    }

    /// Creates the error from the form of protocol 2: bare text. The postmaster still sends it when
    /// it cannot start a process for the connection (`report_fork_failure_to_client`), before it
    /// has read a byte. The frame has severity and message, but no SQLSTATE. `text` must have no
    /// zero byte and at most [`MAX_BARE_TEXT`] bytes.
    pub(crate) fn from_bare_text(text: &[u8]) -> Self {
        let text: Vec<u8> = text.trim_ascii_end().to_vec();
        let fields = vec![
            (b'S', Bytes::from_static(b"FATAL")),
            (b'V', Bytes::from_static(b"FATAL")),
            (b'M', Bytes::from(text)),
        ];
        Self {
            frame: encode(&fields),
            fields,
        }
    }

    /// Returns the frame as the server sent it, type byte included.
    #[must_use]
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// Returns the first field with this code, as raw bytes.
    #[must_use]
    pub fn field(&self, code: u8) -> Option<&[u8]> {
        let found = self.fields.iter().find(|(have, _)| *have == code);
        found.map(|(_, value)| value.as_ref())
    }

    /// Returns field C; `None` when it is missing or not five digits or capital letters.
    #[must_use]
    pub fn sqlstate(&self) -> Option<SqlState> {
        self.field(b'C').and_then(SqlState::parse)
    }

    /// Returns field V, which is never translated, else S; empty when both are missing.
    #[must_use]
    pub fn severity(&self) -> Cow<'_, str> {
        let severity = self.field(b'V').or_else(|| self.field(b'S'));
        String::from_utf8_lossy(severity.unwrap_or_default())
    }

    /// Returns field M; empty when missing.
    #[must_use]
    pub fn message(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.field(b'M').unwrap_or_default())
    }

    /// Returns field D.
    #[must_use]
    pub fn detail(&self) -> Option<Cow<'_, str>> {
        self.field(b'D').map(String::from_utf8_lossy)
    }

    /// Returns field H.
    #[must_use]
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        self.field(b'H').map(String::from_utf8_lossy)
    }

    /// Returns the frame with added text. Every field of the server keeps its bytes and place;
    /// `detail` and `hint` follow the server's own on a new line, or in a new field at the end.
    /// Added text that does not fit into [`MAX_ERROR_FRAME`](crate::MAX_ERROR_FRAME) is cut, the
    /// Hint last.
    #[must_use]
    pub fn with_appended(&self, detail: Option<&str>, hint: Option<&str>) -> Bytes {
        let mut fields = self.fields.clone();
        // Each addition costs at most two bytes besides its text: a new line, or code and terminator.
        let mut room = MAX_ERROR_FRAME.saturating_sub(self.frame.len() - 1 + 4);
        let hint = clip(hint.unwrap_or_default(), room.min(MAX_ERROR_FRAME / 2));
        room -= hint.len();
        let detail = clip(detail.unwrap_or_default(), room);
        append(&mut fields, b'D', &detail);
        append(&mut fields, b'H', &hint);
        encode(&fields)
    }
}

impl fmt::Display for ServerError {
    /// Writes severity, message and code on one line, with control characters escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.severity().chars().chain(": ".chars()) {
            write_visible(f, c)?;
        }
        self.message()
            .chars()
            .try_for_each(|c| write_visible(f, c))?;
        match self.sqlstate() {
            Some(code) => write!(f, " ({code})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (code, value) in &self.fields {
            map.entry(&(*code as char), value);
        }
        map.finish()
    }
}

fn write_visible(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    if c.is_control() {
        write!(f, "{}", c.escape_default())
    } else {
        write!(f, "{c}")
    }
}

fn append(fields: &mut Vec<(u8, Bytes)>, code: u8, text: &str) {
    if text.is_empty() {
        return;
    }
    match fields.iter_mut().find(|(have, _)| *have == code) {
        None => fields.push((code, Bytes::copy_from_slice(text.as_bytes()))),
        Some((_, value)) => *value = [value.as_ref(), b"\n", text.as_bytes()].concat().into(),
    }
}

fn encode(fields: &[(u8, Bytes)]) -> Bytes {
    let body: usize = fields.iter().map(|(_, value)| value.len() + 2).sum();
    let length = 4 + body + 1;
    let mut frame = BytesMut::with_capacity(1 + length);
    frame.put_u8(b'E');
    put_length(&mut frame, length);
    for (code, value) in fields {
        frame.put_u8(*code);
        frame.put_slice(value);
        frame.put_u8(0);
    }
    frame.put_u8(0);
    frame.freeze()
}

/// Returns the fields of an ErrorResponse or NoticeResponse frame: code and text until a zero code,
/// which must be the last byte. `pgwire` decodes these too, but reads past the end without a
/// terminator and replaces bytes that are not UTF-8.
pub(crate) fn fields(frame: &[u8], tag: u8) -> Result<Vec<(u8, &[u8])>, MalformedMessage> {
    let wrong = |what| MalformedMessage { tag, what };
    let Some((&[have, a, b, c, d], mut rest)) = frame.split_first_chunk::<HEADER>() else {
        return Err(wrong("the message is too short"));
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if have != tag || length + 1 != frame.len() || length > MAX_ERROR_FRAME {
        return Err(wrong("invalid message type or length"));
    }
    let mut fields = Vec::new();
    loop {
        match rest.split_first() {
            None => return Err(wrong("missing terminator after the fields")),
            Some((0, [])) => return Ok(fields),
            Some((0, _)) => return Err(wrong("data after the terminator")),
            Some((code, after)) => {
                let (value, after) = split_cstring(after).ok_or(wrong("unterminated field"))?;
                fields.push((*code, value));
                rest = after;
            }
        }
    }
}
