//! PostgreSQL startup for both sides, as sans-io state machines without socket, clock or task.
//!
//! Before any query flows, a proxy plays two roles. Towards the local client it is the server
//! ([`Client`]: encryption requests, direct TLS, startup packet, cancel request). Towards the real
//! server it is the client ([`Upstream`]: TLS, startup packet, then a clear-text password of its
//! own or the client's answers, up to the first ReadyForQuery). A [`PasswordReader`] reads the
//! client's answers to authentication requests. After that the proxy only copies bytes; a
//! [`Follower`] tracks the message boundaries of the server's stream.
//!
//! Calling order for both machines:
//! 1. give received bytes to `handle_input` (with [`Negotiation::Direct`] there are none before
//!    TLS: begin with 3);
//! 2. write the output of `poll_output` until it returns `None`;
//! 3. act on the events of `poll_event` until it returns `None`; on `StartTls` run the TLS
//!    handshake and then call `tls_established`, on `StartDirectTls` the same with
//!    `direct_tls_established` (and go back to 2);
//! 4. after the last event, take the bytes that were read too far with `into_remainder`.
//!
//! The first error sticks: every later call of `handle_input` returns it again and nothing more is
//! written. Message names and layouts are those of the chapters "Message Flow" and "Message
//! Formats" of the PostgreSQL documentation. Messages are cut and length-checked here; `pgwire`
//! decodes only complete frames of a checked size, because its decoders trust the length they are
//! given.

#![forbid(unsafe_code)]

mod auth;
mod cancel_key;
mod client;
mod error_response;
mod follow;
mod frame;
mod password;
pub mod scram;
mod server_error;
mod startup;
#[cfg(test)]
mod tests;
mod upstream;

pub use auth::AuthMethod;
pub use cancel_key::CancelKey;
pub use client::{Client, ClientError, ClientEvent, EncryptionRequest};
pub use error_response::{ErrorReply, Severity, SqlState};
pub use follow::{ASKS_FOR_READY, FollowError, Follower, READY_FOR_QUERY};
pub use frame::{MAX_AUTH_FRAME, MAX_ERROR_FRAME, MalformedMessage};
pub use password::{
    AUTHENTICATION_OK, PasswordError, PasswordReader, SaslInitialResponse, authentication_sasl,
    authentication_sasl_continue, authentication_sasl_final, gs2_says_unsupported, sasl_response,
};
pub use server_error::ServerError;
pub use startup::{MAX_STARTUP_PACKET, ProtocolVersion, Startup, StartupError};
pub use upstream::{
    MAX_AUTH_REQUESTS, MAX_PASSWORD, Negotiation, OtherProtocol, Upstream, UpstreamError,
    UpstreamEvent, UpstreamStage,
};

/// Name of the protocol in TLS (ALPN, RFC 7301; registered with IANA, `PG_ALPN_PROTOCOL` of
/// `pqcomm.h`). Both sides require it when TLS begins without an SSLRequest.
pub const ALPN: &[u8] = b"postgresql";

/// Most bytes a machine keeps for its caller after its last event (the client's pipelined bytes, or
/// the server's bytes after ReadyForQuery) if the caller continues to feed it. In bytes.
pub const MAX_REMAINDER: usize = 64 * 1024;
