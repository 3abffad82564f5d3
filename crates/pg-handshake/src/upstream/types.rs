//! What a login tells its caller: how far it is, what happened, what went wrong.

use std::fmt;

use bytes::Bytes;

use super::{MAX_AUTH_REQUESTS, OtherProtocol};
use crate::MAX_REMAINDER;
use crate::auth::AuthMethod;
use crate::cancel_key::CancelKey;
use crate::frame::{FrameError, Malformed, tag_name};
use crate::server_error::ServerError;

/// How TLS begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Negotiation {
    /// SSLRequest, its one-byte answer, TLS. Every server understands that.
    SslRequest,
    /// TLS at once, with [`ALPN`](crate::ALPN) agreed on in it (libpq's `sslnegotiation=direct`): a
    /// round trip less, and only for servers from PostgreSQL 17 on. Older ones close the connection
    /// on a ClientHello. [`UpstreamEvent::StartTls`] is there from the beginning, and no byte outside
    /// TLS is sent or accepted.
    Direct,
}

/// How far a login or a cancel request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// SSLRequest is out, its one-byte answer is awaited.
    TlsAnswer,
    /// The server said `S`, or was not asked; the caller does the TLS handshake.
    TlsHandshake,
    /// StartupMessage is out, the first authentication request is awaited.
    Authentication,
    /// The server asked for the password, or in a passthrough for anything; it is not given yet.
    PasswordWanted,
    /// The password or the client's answer is out; what the server says to it is awaited.
    PasswordSent,
    /// AuthenticationOk has come, ReadyForQuery is awaited.
    Starting,
    /// ReadyForQuery has come; the session is the caller's.
    Ready,
    /// CancelRequest is out; the server closes without an answer.
    CancelSent,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TlsAnswer => "waiting for the answer to SSLRequest",
            Self::TlsHandshake => "in the TLS handshake",
            Self::Authentication => "waiting for the authentication request",
            Self::PasswordWanted => "being asked for the password",
            Self::PasswordSent => "waiting for the answer to the password",
            Self::Starting => "waiting for the session to start",
            Self::Ready => "ready for queries",
            Self::CancelSent => "having sent the cancel request",
        })
    }
}

/// Why the server's side of the login failed. Who is at fault is noted with each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// The server answered `N` to SSLRequest: its configuration has no TLS. Nothing was sent to it.
    #[error("the server does not support TLS")]
    TlsRefused,
    /// Bytes came between `S` and TLS, or at all before direct TLS: someone in the middle putting
    /// words in (CVE-2021-23222), or a broken server.
    #[error("received unencrypted data before TLS")]
    BytesBeforeTls,
    /// The answer to SSLRequest is how servers of another protocol begin. Nothing was sent but the
    /// SSLRequest.
    #[error("{0} answered instead of PostgreSQL")]
    NotPostgres(OtherProtocol),
    /// The server refused the login with an ErrorResponse.
    #[error("{0}")]
    Server(ServerError),
    /// An ErrorResponse instead of the answer to SSLRequest. It came in clear text from a peer not
    /// verified, so its words are not to be trusted (CVE-2024-10977).
    #[error("before TLS, from a server not yet verified: {0}")]
    ServerBeforeTls(ServerError),
    /// The server wants to authenticate in a way that a token cannot serve. On RDS: the role has
    /// not been granted `rds_iam`.
    #[error("the server asks for {0} instead of a clear-text password")]
    UnexpectedAuth(AuthMethod),
    /// The server asked for the password for the second time.
    #[error("the server asked for the password twice")]
    PasswordAskedTwice,
    /// The server let the login in without asking for the password that had been sent ahead. It will
    /// take the password for the session's first message and end the session with "invalid frontend
    /// message type 112", so nothing may be built on it; a login that waits to be asked succeeds.
    #[error("the server did not ask for the password that was sent ahead")]
    PasswordNotAsked,
    /// More than [`MAX_AUTH_REQUESTS`] authentication requests in one login.
    #[error("more than {MAX_AUTH_REQUESTS} authentication requests in one login")]
    TooManyAuthRequests,
    /// Without channel binding nothing is left of the mechanisms that the server offers. PostgreSQL
    /// always offers SCRAM-SHA-256 too.
    #[error("the server offers only authentication that is bound to its TLS channel")]
    OnlyChannelBinding,
    /// The caller's password is empty, too long or has a zero byte in it, or nobody can receive it
    /// at this stage.
    #[error("no password can be sent: {0}")]
    Password(&'static str),
    /// A message that has no place at this stage; the peer may not be PostgreSQL.
    #[error("unexpected '{}' message while {stage}", tag_name(*tag))]
    UnexpectedMessage {
        /// Its type byte.
        tag: u8,
        /// Where it came.
        stage: Stage,
    },
    /// A message larger than a login needs.
    #[error("'{}' message of {length} bytes, above the limit of {limit}", tag_name(*tag))]
    TooLarge {
        /// Its type byte.
        tag: u8,
        /// Its length word, or the bytes so far where it has none.
        length: usize,
        /// The most that is accepted.
        limit: usize,
    },
    /// A message whose bytes contradict its format.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The caller went on feeding after [`UpstreamEvent::Ready`] beyond [`MAX_REMAINDER`].
    #[error("more than {MAX_REMAINDER} bytes after the login left unread")]
    TooMuchUnread,
    /// The server closed the connection during the login.
    #[error("the server closed the connection while {stage}")]
    UnexpectedEof {
        /// How far the login had come.
        stage: Stage,
    },
}

/// What the caller has to do next.
#[derive(Clone, PartialEq, Eq)]
pub enum UpstreamEvent {
    /// Do the TLS handshake, verify the certificate, then call [`crate::Upstream::tls_established`].
    StartTls,
    /// The server asks for a clear-text password: call [`crate::Upstream::password`].
    PasswordRequired,
    /// In a passthrough: the server asks the client for something. Comes just before the frame that
    /// tells the client.
    AuthRequest {
        /// What it asks for; of SASL all mechanisms that the server offers, also those that are not
        /// passed on.
        method: AuthMethod,
        /// Whether the client has to answer: give that to [`crate::Upstream::client_message`].
        /// AuthenticationSASLFinal wants no answer.
        expects_answer: bool,
    },
    /// A whole frame for the client, as received (but see
    /// [`crate::Upstream::without_channel_binding`]).
    Relay(Bytes),
    /// The key with which this session's queries can be cancelled; comes just before the frame that
    /// tells the client.
    BackendKey(CancelKey),
    /// The login is complete. Last event.
    Ready,
    /// The CancelRequest is in the output: write it and close. Last event.
    CancelSent,
}

impl fmt::Debug for UpstreamEvent {
    /// Without the frames' bodies: one of them holds the cancel key.
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
