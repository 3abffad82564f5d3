//! Reasons of the peer, and errors of a stream.

use std::fmt;
use std::io;
use std::sync::Arc;

/// A refusal by the peer: of a stream, or of a carrier. Written as `CODE: words`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind, for the remedy.
    pub kind: RefusalKind,
    /// The words, from the peer: foreign text.
    pub words: String,
}

/// Kind of a refusal. Its code on the wire never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// The relay's allow list does not contain the target.
    NotAllowed,
    /// The name has no address.
    UnknownName,
    /// The database's port is closed.
    Refused,
    /// The database does not answer.
    Timeout,
    /// A limit of the relay is reached.
    Full,
    /// The relay speaks another version.
    Version,
    /// The carrier's number was used before.
    Generation,
    /// The relay does not know the bundle of the carrier (any more).
    UnknownBundle,
    /// The peer is shutting down.
    Stopping,
    /// The connection behind the peer has broken.
    Lost,
    /// Any other reason.
    Other,
}

impl RefusalKind {
    const ALL: [(Self, &'static str); 11] = [
        (Self::NotAllowed, "not-allowed"),
        (Self::UnknownName, "unknown-name"),
        (Self::Refused, "refused"),
        (Self::Timeout, "timeout"),
        (Self::Full, "full"),
        (Self::Version, "version"),
        (Self::Generation, "generation"),
        (Self::UnknownBundle, "unknown-bundle"),
        (Self::Stopping, "stopping"),
        (Self::Lost, "lost"),
        (Self::Other, "other"),
    ];

    /// Returns the code on the wire.
    #[must_use]
    pub fn code(self) -> &'static str {
        let found = Self::ALL.iter().find(|(kind, _)| *kind == self);
        found.map_or("other", |(_, code)| code)
    }
}

impl Refusal {
    /// Creates a refusal.
    #[must_use]
    pub fn new(kind: RefusalKind, words: impl Into<String>) -> Self {
        Self {
            kind,
            words: words.into(),
        }
    }

    /// Parses the peer's text. A text without a known code is of kind [`RefusalKind::Other`].
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let known = text.split_once(": ").and_then(|(code, words)| {
            let kind = RefusalKind::ALL.iter().find(|(_, known)| *known == code)?;
            Some(Self::new(kind.0, words))
        });
        known.unwrap_or_else(|| Self::new(RefusalKind::Other, text))
    }

    /// Returns the text for the peer.
    #[must_use]
    pub fn to_wire(&self) -> String {
        format!("{}: {}", self.kind.code(), self.words)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// Error of a striped stream.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StripingError {
    /// The peer has reset the stream.
    #[error("{0}")]
    Reset(Refusal),
    /// The bundle is over, and so are all its streams.
    #[error("the connection to the relay is over: {0}")]
    Ended(Arc<str>),
    /// The stream cannot be opened.
    #[error(transparent)]
    NotOpened(#[from] stripe::StripeError),
}

impl StripingError {
    /// Returns the striping error inside an error of a stream.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Wraps the error for a stream's reader or writer.
    pub(super) fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::Reset(_) => io::ErrorKind::ConnectionReset,
            Self::Ended(_) | Self::NotOpened(_) => io::ErrorKind::ConnectionAborted,
        };
        io::Error::new(kind, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_comes_back_with_its_words() {
        for (kind, code) in RefusalKind::ALL {
            let refusal = Refusal::new(kind, "db:5432: no");
            assert_eq!(refusal.to_wire(), format!("{code}: db:5432: no"));
            assert_eq!(Refusal::parse(&refusal.to_wire()), refusal);
        }
        for text in ["later-kind: words", "no code", "", "full"] {
            assert_eq!(Refusal::parse(text), Refusal::new(RefusalKind::Other, text));
        }
    }

    #[test]
    fn an_error_of_a_stream_is_found_in_its_io_error() {
        let refusal = Refusal::new(RefusalKind::Timeout, "no answer");
        let error = StripingError::Reset(refusal.clone()).into_io();
        assert_eq!(error.to_string(), "no answer");
        assert!(matches!(
            StripingError::of(&error),
            Some(StripingError::Reset(found)) if *found == refusal
        ));
        assert!(StripingError::of(&io::ErrorKind::TimedOut.into()).is_none());
    }
}
