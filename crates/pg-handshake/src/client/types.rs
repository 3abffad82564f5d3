//! What the client's side tells its caller: what happened, what went wrong.

use std::fmt;

use bytes::Bytes;

use crate::MAX_REMAINDER;
use crate::cancel_key::CancelKey;
use crate::startup::{Startup, StartupError};

/// The two packets that ask for encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncryptionRequest {
    /// SSLRequest.
    Ssl,
    /// GSSENCRequest.
    Gss,
}

impl fmt::Display for EncryptionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ssl => "SSLRequest",
            Self::Gss => "GSSENCRequest",
        })
    }
}

/// What the client did that ends the connection. All of it is the client's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The connection began with a TLS ClientHello (libpq's `sslnegotiation=direct`) and TLS is not
    /// available, or plain bytes went on after [`ClientEvent::StartDirectTls`] had been taken. No
    /// ErrorResponse can be read by that client.
    #[error("the client began with TLS, which is not available on this connection")]
    DirectTls,
    /// The TLS that the connection began with has not agreed on [`ALPN`](crate::ALPN). The server
    /// refuses that too (`ProcessSSLStartup`), because without the name a TLS client of another
    /// protocol could be led here. TLS stands, so an ErrorResponse can be read.
    #[error(
        "received direct SSL connection request without ALPN protocol negotiation extension: the \
         client has to offer the protocol \"postgresql\""
    )]
    DirectTlsWithoutAlpn,
    /// The packet is not a well-formed startup packet or cancel request.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// An encryption request with more in it than its code. "Message Formats" fixes its length; the
    /// server reads the rest and ignores it, which here would be a place to hide bytes in.
    #[error("{request} of {length} bytes instead of 8")]
    RequestLength {
        /// Which one.
        request: EncryptionRequest,
        /// Its length word.
        length: usize,
    },
    /// An encryption request for the second time, or inside the TLS that an SSLRequest began.
    #[error("{request} a second time, or inside TLS")]
    RepeatedRequest {
        /// Which one.
        request: EncryptionRequest,
    },
    /// Bytes came before the answer to the request could have been read: a broken client, or
    /// someone in the middle putting words in before TLS begins (CVE-2021-23214).
    #[error("received unencrypted data after {request}")]
    UnencryptedData {
        /// The request they followed.
        request: EncryptionRequest,
    },
    /// More was pipelined behind the startup packet than is kept.
    #[error("more than {MAX_REMAINDER} bytes sent before the login was answered")]
    TooMuchPipelined,
    /// The connection ended inside a packet.
    #[error("the client closed the connection inside its startup packet")]
    UnexpectedEof,
}

/// What the caller has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// Accept TLS on the connection (after the output is written), then call
    /// [`Client::tls_established`](crate::Client::tls_established).
    StartTls,
    /// Accept TLS on the connection at once: the client began with it (`sslnegotiation=direct`).
    /// Then call [`Client::direct_tls_established`](crate::Client::direct_tls_established).
    StartDirectTls {
        /// All that the client has sent, the beginning of its ClientHello: give it to the TLS
        /// acceptor before what is read from the connection.
        received: Bytes,
    },
    /// The startup packet is here. Last event.
    Startup(Startup),
    /// The connection is for cancelling a query: act, then close without an answer. Last event.
    Cancel(CancelKey),
}
