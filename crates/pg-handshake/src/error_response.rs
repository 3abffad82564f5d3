//! ErrorResponse messages made by this crate.

use std::fmt;

use bytes::{Bytes, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::response::ErrorResponse;

use crate::frame::MAX_ERROR_FRAME;

/// Most bytes of the primary message; the rest of the frame belongs to Detail and Hint.
const MAX_MESSAGE: usize = 8_000;
/// Most bytes of the Detail, so that a long one cannot push the Hint out.
const MAX_DETAIL: usize = 12_000;
/// Most bytes of the Hint. The three together with their overhead stay below the frame's limit.
const MAX_HINT: usize = 8_000;
const _: () = assert!(MAX_MESSAGE + MAX_DETAIL + MAX_HINT + 100 < MAX_ERROR_FRAME);

/// A five-character error code ("PostgreSQL Error Codes"): digits and capital letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// Creates a code known at compile time.
    ///
    /// # Panics
    /// On anything but digits and capital letters; in a constant that is a compile error.
    #[must_use]
    pub const fn new(code: [u8; 5]) -> Self {
        assert!(
            is_code(&code),
            "an SQLSTATE is five digits or capital letters"
        );
        Self(code)
    }

    /// Parses a received code; `None` unless it is five digits or capital letters.
    #[must_use]
    pub const fn parse(code: &[u8]) -> Option<Self> {
        match code.first_chunk::<5>() {
            Some(five) if code.len() == 5 && is_code(five) => Some(Self(*five)),
            _ => None,
        }
    }

    /// Returns the five characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Both constructors accept only ASCII.
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }
}

const fn is_code(code: &[u8; 5]) -> bool {
    let mut at = 0;
    while at < 5 {
        if !(code[at].is_ascii_digit() || code[at].is_ascii_uppercase()) {
            return false;
        }
        at += 1;
    }
    true
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlState({self})")
    }
}

/// Severity, for the fields S and V.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The session ends.
    Fatal,
    /// Nothing failed: a NoticeResponse.
    Warning,
}

impl Severity {
    /// Returns the word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fatal => "FATAL",
            Self::Warning => "WARNING",
        }
    }
}

/// An ErrorResponse or NoticeResponse made by this crate, with the fields S, V, C, M and, if set, D
/// and H.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReply {
    /// Fields S and V.
    pub severity: Severity,
    /// Field C.
    pub sqlstate: SqlState,
    /// Field M, the primary message: one line.
    pub message: String,
    /// Field D.
    pub detail: Option<String>,
    /// Field H.
    pub hint: Option<String>,
}

impl ErrorReply {
    /// Creates a reply that ends the session, without Detail and Hint.
    #[must_use]
    pub fn fatal(sqlstate: SqlState, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Fatal,
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    /// Creates a NoticeResponse: information for the user, without other effect. Clients expect
    /// none before AuthenticationOk.
    #[must_use]
    pub fn notice(sqlstate: SqlState, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::fatal(sqlstate, message)
        }
    }

    /// Adds a Detail.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a Hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Encodes the frame. Zero bytes, which would end a field early, are dropped; texts are cut so
    /// that the frame stays within libpq's limit during a login
    /// ([`MAX_ERROR_FRAME`](crate::MAX_ERROR_FRAME)); an empty Detail or Hint is left out.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let severity = self.severity.as_str().to_owned();
        let mut fields = vec![
            (b'S', severity.clone()),
            (b'V', severity),
            (b'C', self.sqlstate.to_string()),
            (b'M', clip(&self.message, MAX_MESSAGE)),
        ];
        for (code, text, limit) in [
            (b'D', &self.detail, MAX_DETAIL),
            (b'H', &self.hint, MAX_HINT),
        ] {
            let text = clip(text.as_deref().unwrap_or_default(), limit);
            if !text.is_empty() {
                fields.push((code, text));
            }
        }
        let mut frame = BytesMut::new();
        #[expect(
            clippy::expect_used,
            reason = "pgwire refuses only frames above 2 GiB; this one is below 30,000 bytes"
        )]
        ErrorResponse::new(fields)
            .encode(&mut frame)
            .expect("a frame below the limit");
        if self.severity == Severity::Warning {
            frame[0] = b'N'; // The same layout ("Message Formats").
        }
        frame.freeze()
    }
}

/// Returns the text without zero bytes, at most `limit` bytes of it, cut between characters.
pub(crate) fn clip(text: &str, limit: usize) -> String {
    const MARK: &str = "…";
    let mut clean: String = text.chars().filter(|c| *c != '\0').collect();
    if clean.len() > limit {
        let end = clean.floor_char_boundary(limit.saturating_sub(MARK.len()));
        clean.truncate(end);
        if limit >= MARK.len() {
            clean.push_str(MARK);
        }
    }
    clean
}
