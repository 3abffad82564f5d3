//! Events and errors of the client's side.

use std::fmt;

use bytes::Bytes;

use crate::MAX_REMAINDER;
use crate::cancel_key::CancelKey;
use crate::startup::{Startup, StartupError};

/// The two packets that request encryption.
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

/// Client fault that ends the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The connection began with a TLS ClientHello (libpq's `sslnegotiation=direct`) and TLS is not
    /// available, or plain bytes followed after [`ClientEvent::StartDirectTls`] was taken. Such a
    /// client cannot read an ErrorResponse.
    #[error("the client started TLS without SSLRequest, which is not available on this connection")]
    DirectTls,
    /// Direct TLS did not negotiate [`ALPN`](crate::ALPN). The server refuses that too
    /// (`ProcessSSLStartup`), because without the name a TLS client of another protocol could be
    /// redirected here. TLS is established, so an ErrorResponse can be read.
    #[error(
        "received direct SSL connection request without ALPN protocol negotiation extension: the \
         client must offer the protocol \"postgresql\""
    )]
    DirectTlsWithoutAlpn,
    /// The packet is not a well-formed startup packet or cancel request.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// An encryption request with more in it than its code. "Message Formats" fixes its length; the
    /// server ignores the rest, which here could hide bytes.
    #[error("invalid length of {request}: {length} bytes, expected 8")]
    RequestLength {
        /// The request.
        request: EncryptionRequest,
        /// Its length word.
        length: usize,
    },
    /// An encryption request for the second time, or inside the TLS that an SSLRequest began.
    #[error("unexpected {request}: sent twice, or inside TLS")]
    RepeatedRequest {
        /// The request.
        request: EncryptionRequest,
    },
    /// Bytes came before the answer to the request could have been read: a broken client, or a man
    /// in the middle that injects bytes before TLS begins (CVE-2021-23214).
    #[error("received unencrypted data after {request}")]
    UnencryptedData {
        /// The request before the data.
        request: EncryptionRequest,
    },
    /// More bytes than [`MAX_REMAINDER`](crate::MAX_REMAINDER) were pipelined after the startup
    /// packet.
    #[error("more than {MAX_REMAINDER} bytes sent before the login was complete")]
    TooMuchPipelined,
    /// The connection ended inside a packet.
    #[error("the client closed the connection in the middle of its startup packet")]
    UnexpectedEof,
}

/// Next action for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// Accept TLS on the connection (after the output is written), then call
    /// [`Client::tls_established`](crate::Client::tls_established).
    StartTls,
    /// Accept TLS on the connection at once: the client began with it (`sslnegotiation=direct`).
    /// Then call [`Client::direct_tls_established`](crate::Client::direct_tls_established).
    StartDirectTls {
        /// All bytes received so far, the beginning of the ClientHello: give them to the TLS
        /// acceptor before further bytes of the connection.
        received: Bytes,
    },
    /// The startup packet has arrived. Last event.
    Startup(Startup),
    /// The connection requests the cancellation of a query: act, then close without an answer. Last
    /// event.
    Cancel(CancelKey),
}
