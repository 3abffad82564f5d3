//! Stages, events and errors of a login.

use std::fmt;

use bytes::Bytes;

use super::{MAX_AUTH_REQUESTS, OtherProtocol};
use crate::MAX_REMAINDER;
use crate::auth::AuthMethod;
use crate::cancel_key::CancelKey;
use crate::frame::{FrameError, MalformedMessage, tag_name};
use crate::server_error::ServerError;

/// TLS negotiation with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Negotiation {
    /// SSLRequest, its one-byte answer, TLS. Every server supports it.
    SslRequest,
    /// TLS at once, with [`ALPN`](crate::ALPN) negotiated in it (libpq's `sslnegotiation=direct`):
    /// saves a round trip, but only servers from PostgreSQL 17 on support it. Older ones close the
    /// connection on a ClientHello. [`UpstreamEvent::StartTls`] is available from the beginning,
    /// and no byte outside TLS is sent or accepted.
    Direct,
}

/// Stage of a login or a cancel request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamStage {
    /// SSLRequest is out, its one-byte answer is awaited.
    TlsAnswer,
    /// The server answered `S`, or direct TLS was chosen; the caller performs the TLS handshake.
    TlsHandshake,
    /// StartupMessage is out, the first authentication request is awaited.
    Authentication,
    /// The server requested the password, or in a passthrough any answer; it has not been given
    /// yet.
    PasswordWanted,
    /// The password or the client's answer is out; the server's reply is awaited.
    PasswordSent,
    /// AuthenticationOk has come, ReadyForQuery is awaited.
    Starting,
    /// ReadyForQuery has come; the session belongs to the caller.
    Ready,
    /// CancelRequest is out; the server closes without an answer.
    CancelSent,
}

impl fmt::Display for UpstreamStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TlsAnswer => "before the answer to SSLRequest",
            Self::TlsHandshake => "during the TLS handshake",
            Self::Authentication => "before the authentication request",
            Self::PasswordWanted => "before the password was sent",
            Self::PasswordSent => "before the answer to the password",
            Self::Starting => "before the server was ready for queries",
            Self::Ready => "after the login",
            Self::CancelSent => "after the cancel request",
        })
    }
}

/// Error on the server's side of the login.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// The server answered `N` to SSLRequest: its configuration has no TLS. Nothing else was sent
    /// to it.
    #[error("the server does not support TLS")]
    TlsRefused,
    /// Bytes came between `S` and TLS, or before direct TLS: a man in the middle that injects bytes
    /// (CVE-2021-23222), or a broken server.
    #[error("received unencrypted data before TLS")]
    BytesBeforeTls,
    /// The answer to SSLRequest is the greeting of another protocol. Only the SSLRequest was sent.
    #[error("{0} answered instead of PostgreSQL")]
    NotPostgres(OtherProtocol),
    /// The server refused the login with an ErrorResponse.
    #[error("{0}")]
    Server(ServerError),
    /// An ErrorResponse instead of the answer to SSLRequest. It came in clear text from an
    /// unverified peer, so its text is not to be trusted (CVE-2024-10977).
    #[error("error from a server not yet verified by TLS: {0}")]
    ServerBeforeTls(ServerError),
    /// The server requests an authentication method that a token cannot serve. On RDS: the role has
    /// not been granted `rds_iam`.
    #[error("the server requests {0} instead of a clear-text password")]
    UnexpectedAuth(AuthMethod),
    /// The server requested the password a second time.
    #[error("the server requested the password twice")]
    PasswordAskedTwice,
    /// The server accepted the login without requesting the password that had been sent ahead. It
    /// will read the password as the session's first message and end the session with "invalid
    /// frontend message type 112", so the session is unusable. A login that waits for the request
    /// succeeds.
    #[error("the server did not request the password that was sent early")]
    PasswordNotAsked,
    /// More than [`MAX_AUTH_REQUESTS`] authentication requests in one login.
    #[error("more than {MAX_AUTH_REQUESTS} authentication requests in one login")]
    TooManyAuthRequests,
    /// Without channel binding, none of the server's mechanisms is left. PostgreSQL always offers
    /// SCRAM-SHA-256 too.
    #[error("the server offers only authentication with channel binding")]
    OnlyChannelBinding,
    /// The caller's password is empty, too long or has a zero byte in it, or this stage accepts
    /// none.
    #[error("cannot send the password: {0}")]
    Password(&'static str),
    /// A message that is not allowed at this stage; the peer may not be PostgreSQL.
    #[error("unexpected '{}' message {stage}", tag_name(*tag))]
    UnexpectedMessage {
        /// Its type byte.
        tag: u8,
        /// Stage at which it came.
        stage: UpstreamStage,
    },
    /// A message larger than a login needs.
    #[error("'{}' message of {length} bytes exceeds the limit of {limit} bytes", tag_name(*tag))]
    TooLarge {
        /// Its type byte.
        tag: u8,
        /// Its length word, or the bytes so far where it has none.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// Bytes of a message contradict its format.
    #[error(transparent)]
    Malformed(#[from] MalformedMessage),
    /// The caller fed more than [`MAX_REMAINDER`] bytes after [`UpstreamEvent::Ready`].
    #[error("more than {MAX_REMAINDER} unread bytes after the login")]
    TooMuchUnread,
    /// The server closed the connection during the login.
    #[error("the server closed the connection {stage}")]
    UnexpectedEof {
        /// Stage at which it closed.
        stage: UpstreamStage,
    },
}

/// Next action for the caller.
#[derive(Clone, PartialEq, Eq)]
pub enum UpstreamEvent {
    /// Perform the TLS handshake, verify the certificate, then call
    /// [`crate::Upstream::tls_established`].
    StartTls,
    /// The server requests a clear-text password: call [`crate::Upstream::password`].
    PasswordRequired,
    /// In a passthrough: the server requests an answer from the client. Comes just before the frame
    /// that carries the request to the client.
    AuthRequest {
        /// Requested method; for SASL all mechanisms that the server offers, even those not
        /// forwarded.
        method: AuthMethod,
        /// True if the client must answer: give its answer to [`crate::Upstream::client_message`].
        /// AuthenticationSASLFinal expects no answer.
        expects_answer: bool,
    },
    /// A whole frame for the client, as received (but see
    /// [`crate::Upstream::without_channel_binding`]).
    Relay(Bytes),
    /// The key that cancels this session's queries; comes just before the frame that carries it to
    /// the client.
    BackendKey(CancelKey),
    /// The login is complete. Last event.
    Ready,
    /// The CancelRequest is in the output: write it and close. Last event.
    CancelSent,
}

impl fmt::Debug for UpstreamEvent {
    /// Leaves out the frames' bodies: one of them holds the cancel key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartTls => f.write_str("StartTls"),
            Self::PasswordRequired => f.write_str("PasswordRequired"),
            Self::AuthRequest {
                method,
                expects_answer,
            } => f
                .debug_struct("AuthRequest")
                .field("method", method)
                .field("expects_answer", expects_answer)
                .finish(),
            Self::Relay(frame) => {
                let tag = frame.first().copied().unwrap_or_default();
                write!(f, "Relay('{}', {} bytes)", tag_name(tag), frame.len())
            }
            Self::BackendKey(key) => f.debug_tuple("BackendKey").field(key).finish(),
            Self::Ready => f.write_str("Ready"),
            Self::CancelSent => f.write_str("CancelSent"),
        }
    }
}

impl From<FrameError> for UpstreamError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::TooLarge { tag, length, limit } => Self::TooLarge { tag, length, limit },
            FrameError::Malformed(error) => Self::Malformed(error),
        }
    }
}
