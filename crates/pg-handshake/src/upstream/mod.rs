//! The client's side of the startup phase, facing the real server.

use std::collections::VecDeque;
use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::MAX_REMAINDER;
use crate::cancel_key::CancelKey;
use crate::frame::next_frame;
use crate::server_error::ServerError;
use crate::startup::Startup;

mod authentication;
mod messages;
mod other_protocol;
mod tls_answer;
mod types;

pub use authentication::MAX_AUTH_REQUESTS;
use authentication::Passthrough;
pub use messages::MAX_PASSWORD;
use messages::{check_negotiation, check_parameter_status, check_ready};
pub use other_protocol::OtherProtocol;
pub use types::{Negotiation, UpstreamError, UpstreamEvent, UpstreamStage};

/// SSLRequest: length word and `NEGOTIATE_SSL_CODE`.
const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Step after the TLS handshake.
enum Purpose {
    Login(Startup),
    Passthrough(Passthrough),
    Cancel(CancelKey),
}

/// Logs in to the server, or sends a cancel request. No byte of either is sent before
/// [`tls_established`](Self::tls_established).
///
/// From AuthenticationOk on, every message of the server is relayed unchanged. Before it only
/// NegotiateProtocolVersion is, and in a [`passthrough`](Self::passthrough) the authentication
/// requests; a notice waits until after AuthenticationOk, because clients do not expect one
/// earlier. See the [crate] documentation for the calling order.
pub struct Upstream {
    purpose: Purpose,
    stage: UpstreamStage,
    /// The server has requested the password (which may be sent before the request).
    asked: bool,
    negotiated: bool,
    has_key: bool,
    held_notices: Vec<Bytes>,
    buf: BytesMut,
    output: VecDeque<Bytes>,
    events: VecDeque<UpstreamEvent>,
    error: Option<UpstreamError>,
}

impl Upstream {
    /// Creates a login with this startup message, in which the caller gives a
    /// [`password`](Self::password).
    #[must_use]
    pub fn login(startup: Startup, negotiation: Negotiation) -> Self {
        Self::new(Purpose::Login(startup), negotiation)
    }

    /// Creates a login with this startup message, in which the client itself answers: every
    /// authentication request is relayed to it, and its answers go back with
    /// [`client_message`](Self::client_message).
    #[must_use]
    pub fn passthrough(startup: Startup, negotiation: Negotiation) -> Self {
        Self::new(Purpose::Passthrough(Passthrough::new(startup)), negotiation)
    }

    /// Creates a cancel request with this key: TLS, CancelRequest, close.
    #[must_use]
    pub fn cancel(key: CancelKey, negotiation: Negotiation) -> Self {
        Self::new(Purpose::Cancel(key), negotiation)
    }

    fn new(purpose: Purpose, negotiation: Negotiation) -> Self {
        let mut machine = Self {
            purpose,
            stage: UpstreamStage::TlsAnswer,
            asked: false,
            negotiated: false,
            has_key: false,
            held_notices: Vec::new(),
            buf: BytesMut::new(),
            output: VecDeque::new(),
            events: VecDeque::new(),
            error: None,
        };
        match negotiation {
            Negotiation::SslRequest => machine.output.push_back(Bytes::from_static(SSL_REQUEST)),
            Negotiation::Direct => {
                machine.stage = UpstreamStage::TlsHandshake;
                machine.events.push_back(UpstreamEvent::StartTls);
            }
        }
        machine
    }

    /// Takes bytes from the server: plain ones first, decrypted ones after
    /// [`tls_established`](Self::tls_established).
    ///
    /// # Errors
    /// The first [`UpstreamError`], now and at every later call. Events that came before it in the
    /// same bytes can still be polled.
    pub fn handle_input(&mut self, data: &[u8]) -> Result<(), UpstreamError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        if self.stage == UpstreamStage::CancelSent {
            return Ok(()); // Answers to a cancel request are ignored, as in libpq.
        }
        if self.stage == UpstreamStage::Ready && self.buf.len() + data.len() > MAX_REMAINDER {
            return Err(self.fail(UpstreamError::TooMuchUnread));
        }
        self.buf.extend_from_slice(data);
        self.process().map_err(|error| self.fail(error))
    }

    /// Handles the end of the server's input.
    ///
    /// # Errors
    /// [`UpstreamError::UnexpectedEof`] during the login (or the server's bare error text, if that
    /// was cut off), else the error that came before. `Ok` once ready, or after a cancel request.
    pub fn handle_eof(&mut self) -> Result<(), UpstreamError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let stage = self.stage;
        match stage {
            UpstreamStage::Ready | UpstreamStage::CancelSent => Ok(()),
            UpstreamStage::TlsAnswer if self.buf.len() > 1 && self.buf[1] != 0 => {
                let error = ServerError::from_bare_text(&self.buf[1..]);
                Err(self.fail(UpstreamError::ServerBeforeTls(error)))
            }
            _ => Err(self.fail(UpstreamError::UnexpectedEof { stage })),
        }
    }

    /// Returns bytes to write to the server, oldest first. One of them holds the password; its
    /// memory is wiped when the last reference is dropped.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        self.output.pop_front()
    }

    /// Returns the next event, oldest first.
    pub fn poll_event(&mut self) -> Option<UpstreamEvent> {
        self.events.pop_front()
    }

    /// Returns true if the server has requested a clear-text password, even if the password went
    /// out before the request. Only then does a refusal concern the password.
    #[must_use]
    pub fn password_asked(&self) -> bool {
        self.asked
    }

    /// Returns the stage reached.
    #[must_use]
    pub fn stage(&self) -> UpstreamStage {
        self.stage
    }

    /// Reports that the TLS handshake requested by [`UpstreamEvent::StartTls`] is complete **and
    /// the server's certificate and name are verified** (and, with [`Negotiation::Direct`],
    /// [`ALPN`](crate::ALPN) was negotiated). The StartupMessage or CancelRequest goes out now.
    /// Does nothing without that event, or after an error.
    pub fn tls_established(&mut self) {
        if self.stage != UpstreamStage::TlsHandshake || self.error.is_some() {
            return;
        }
        match &self.purpose {
            Purpose::Login(startup) | Purpose::Passthrough(Passthrough { startup, .. }) => {
                self.output.push_back(startup.encode());
                self.stage = UpstreamStage::Authentication;
            }
            Purpose::Cancel(key) => {
                self.output.push_back(key.encode());
                self.events.push_back(UpstreamEvent::CancelSent);
                self.stage = UpstreamStage::CancelSent;
            }
        }
    }

    /// Returns the bytes after ReadyForQuery, which the caller forwards to the client first.
    #[must_use]
    pub fn into_remainder(self) -> Bytes {
        self.buf.freeze()
    }

    #[cfg(test)]
    pub(crate) fn buffered(&self) -> usize {
        self.buf.len() + self.held_notices.iter().map(Bytes::len).sum::<usize>()
    }

    fn fail(&mut self, error: UpstreamError) -> UpstreamError {
        if self.stage == UpstreamStage::TlsHandshake {
            self.events.clear(); // No TLS on a connection with injected bytes.
        }
        self.error = Some(error.clone());
        self.buf = BytesMut::new();
        self.held_notices = Vec::new();
        self.output.clear();
        error
    }

    fn process(&mut self) -> Result<(), UpstreamError> {
        loop {
            match self.stage {
                UpstreamStage::TlsAnswer => return self.read_tls_answer(),
                UpstreamStage::TlsHandshake if !self.buf.is_empty() => {
                    return Err(UpstreamError::BytesBeforeTls);
                }
                UpstreamStage::TlsHandshake | UpstreamStage::Ready | UpstreamStage::CancelSent => {
                    return Ok(());
                }
                UpstreamStage::Authentication
                | UpstreamStage::PasswordWanted
                | UpstreamStage::PasswordSent
                | UpstreamStage::Starting => {
                    self.check_place()?;
                    match next_frame(&mut self.buf) {
                        Ok(Some(frame)) => self.take_frame(frame)?,
                        Ok(None) => return Ok(()),
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
    }

    /// Checks that the message at the front is allowed now ("Start-up" in "Message Flow"), by its
    /// type byte, before its length is trusted.
    fn check_place(&self) -> Result<(), UpstreamError> {
        let Some(tag) = self.buf.first().copied() else {
            return Ok(());
        };
        let allowed = match (tag, self.stage) {
            (b'E' | b'N', _) => true,
            (b'v', UpstreamStage::Starting) => false,
            (b'v', _) => !self.negotiated,
            (b'R', UpstreamStage::Starting) => false,
            (b'R', _) => true,
            (b'S' | b'Z', UpstreamStage::Starting) => true,
            (b'K', UpstreamStage::Starting) => !self.has_key,
            _ => false,
        };
        if allowed {
            Ok(())
        } else {
            Err(UpstreamError::UnexpectedMessage {
                tag,
                stage: self.stage,
            })
        }
    }

    fn take_frame(&mut self, frame: Bytes) -> Result<(), UpstreamError> {
        match frame[0] {
            b'R' => return self.authentication(frame),
            b'E' => return Err(UpstreamError::Server(ServerError::parse(frame)?)),
            b'N' => return self.notice(frame),
            b'v' => {
                check_negotiation(&frame)?;
                self.negotiated = true;
            }
            b'S' => check_parameter_status(&frame)?,
            b'K' => {
                let key = CancelKey::from_frame(&frame)?;
                self.events.push_back(UpstreamEvent::BackendKey(key));
                self.has_key = true;
            }
            b'Z' => {
                check_ready(&frame)?;
                self.events.push_back(UpstreamEvent::Relay(frame));
                self.events.push_back(UpstreamEvent::Ready);
                self.stage = UpstreamStage::Ready;
                return Ok(());
            }
            tag => {
                let stage = self.stage;
                return Err(UpstreamError::UnexpectedMessage { tag, stage });
            }
        }
        self.events.push_back(UpstreamEvent::Relay(frame));
        Ok(())
    }
}

impl fmt::Debug for Upstream {
    /// Leaves out the buffers: the output holds the password for a while.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("stage", &self.stage)
            .field("buffered", &self.buf.len())
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}
