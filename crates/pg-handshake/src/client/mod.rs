//! The server's side of the startup phase, facing the local client.

use std::collections::VecDeque;
use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::cancel_key::{CANCEL_REQUEST_CODE, CancelKey};
use crate::startup::{MAX_LENGTH, MIN_LENGTH, ProtocolVersion, Startup, StartupError};
use crate::{ALPN, MAX_REMAINDER};

mod types;

pub use types::{ClientError, ClientEvent, EncryptionRequest};

/// `NEGOTIATE_SSL_CODE` of `pqcomm.h`: 1234 and 5679 in the two halves.
pub(crate) const SSL_REQUEST_CODE: u32 = 80_877_103;
/// `NEGOTIATE_GSS_CODE` of `pqcomm.h`: 1234 and 5680.
const GSS_REQUEST_CODE: u32 = 80_877_104;
/// First byte of a TLS handshake record (RFC 8446, 5.1). No length word of a startup packet begins
/// with it; PostgreSQL 17 recognizes direct TLS by it.
const TLS_HANDSHAKE_RECORD: u8 = 0x16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StartupStage {
    /// No byte received yet.
    First,
    /// Between packets, or inside one.
    Packets,
    /// `S` is on its way; only TLS may follow.
    TlsHandshake,
    /// The client began with TLS; its first bytes wait for the caller to take them.
    DirectTlsOffered,
    /// The caller has those bytes and performs the handshake.
    DirectTlsHandshake,
    /// The last event is out; further input is kept for later.
    Done,
}

/// Reads a client's packets before authentication, by the rules of the server's `ProcessSSLStartup`
/// and `ProcessStartupPacket` (`backend_startup.c` of PostgreSQL 17 and 18; `postmaster.c` before):
///
/// - a first byte 0x16 begins TLS at once, which must negotiate [`ALPN`];
/// - SSLRequest and GSSENCRequest come at most once each, in any order. GSS is always refused.
///   Servers before the fix of CVE-2026-6479 accepted them in turns without end;
/// - after the `S` to an SSLRequest neither may follow. Inside direct TLS both are allowed and both
///   are refused with `N`, as a server without GSSAPI does;
/// - no data may be sent ahead of the answer to a request (CVE-2021-23214).
///
/// See the [crate] documentation for the calling order. It matters here: output that has not been
/// polled counts as not sent, and input before that as sent ahead.
pub struct Client {
    tls_available: bool,
    in_tls: bool,
    asked_ssl: bool,
    asked_gss: bool,
    /// An SSLRequest was answered `S`; no further request may come.
    asked_tls: bool,
    last_request: EncryptionRequest,
    stage: StartupStage,
    buf: BytesMut,
    output: VecDeque<Bytes>,
    events: VecDeque<ClientEvent>,
    error: Option<ClientError>,
}

impl Client {
    /// Creates a machine for a new connection. With `tls_available`, SSLRequest is answered with
    /// `S` and direct TLS is accepted.
    #[must_use]
    pub fn new(tls_available: bool) -> Self {
        Self {
            tls_available,
            in_tls: false,
            asked_ssl: false,
            asked_gss: false,
            asked_tls: false,
            last_request: EncryptionRequest::Ssl,
            stage: StartupStage::First,
            buf: BytesMut::new(),
            output: VecDeque::new(),
            events: VecDeque::new(),
            error: None,
        }
    }

    /// Takes bytes from the client: plain ones first, decrypted ones after
    /// [`tls_established`](Self::tls_established).
    ///
    /// # Errors
    /// The first [`ClientError`], now and at every later call.
    pub fn handle_input(&mut self, data: &[u8]) -> Result<(), ClientError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let result = self.accept(data);
        result.inspect_err(|error| self.fail(error))
    }

    /// Handles the end of the client's input. `Ok` between packets: port checks, and clients that
    /// reject the answer to their encryption request, close there.
    ///
    /// # Errors
    /// [`ClientError::UnexpectedEof`] inside a packet, or the error that came before.
    pub fn handle_eof(&mut self) -> Result<(), ClientError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let in_handshake = self.stage == StartupStage::DirectTlsOffered; // The TLS acceptor reports it.
        if self.stage == StartupStage::Done || in_handshake || self.buf.is_empty() {
            return Ok(());
        }
        let error = ClientError::UnexpectedEof;
        self.fail(&error);
        Err(error)
    }

    /// Returns bytes to write to the client, oldest first.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        self.output.pop_front()
    }

    /// Returns the next event, oldest first.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        if self.stage == StartupStage::DirectTlsOffered && self.error.is_none() {
            self.stage = StartupStage::DirectTlsHandshake;
            let received = self.buf.split().freeze();
            return Some(ClientEvent::StartDirectTls { received });
        }
        self.events.pop_front()
    }

    /// Reports that the TLS handshake requested by [`ClientEvent::StartTls`] is complete; input is
    /// decrypted from now on. Does nothing without that event.
    pub fn tls_established(&mut self) {
        if self.stage == StartupStage::TlsHandshake && self.error.is_none() {
            self.stage = StartupStage::Packets;
            self.in_tls = true;
        }
    }

    /// Reports that the TLS handshake requested by [`ClientEvent::StartDirectTls`] is complete and
    /// negotiated this protocol; input is decrypted from now on. Does nothing without that event.
    ///
    /// # Errors
    /// [`ClientError::DirectTlsWithoutAlpn`] unless the protocol is [`ALPN`]; it sticks. TLS is
    /// established then, so the client can receive an ErrorResponse. Or the error that came before.
    pub fn direct_tls_established(&mut self, alpn: Option<&[u8]>) -> Result<(), ClientError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        if self.stage != StartupStage::DirectTlsHandshake {
            return Ok(());
        }
        self.in_tls = true;
        self.stage = StartupStage::Packets;
        if alpn == Some(ALPN) {
            return Ok(());
        }
        let error = ClientError::DirectTlsWithoutAlpn;
        self.fail(&error);
        Err(error)
    }

    /// Returns true if the connection uses TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.in_tls
    }

    /// Returns the bytes after the startup packet, which the caller forwards after the login.
    #[must_use]
    pub fn into_remainder(self) -> Bytes {
        self.buf.freeze()
    }

    #[cfg(test)]
    pub(crate) fn buffered(&self) -> usize {
        self.buf.len()
    }

    fn fail(&mut self, error: &ClientError) {
        self.error = Some(error.clone());
        self.buf = BytesMut::new();
        self.output.clear();
        self.events.clear();
    }

    fn accept(&mut self, data: &[u8]) -> Result<(), ClientError> {
        if data.is_empty() {
            return Ok(());
        }
        match self.stage {
            StartupStage::Done if self.buf.len() + data.len() > MAX_REMAINDER => {
                return Err(ClientError::TooMuchPipelined);
            }
            StartupStage::First if data[0] == TLS_HANDSHAKE_RECORD && self.tls_available => {
                self.stage = StartupStage::DirectTlsOffered;
            }
            StartupStage::First if data[0] == TLS_HANDSHAKE_RECORD => {
                return Err(ClientError::DirectTls);
            }
            StartupStage::DirectTlsOffered if self.buf.len() + data.len() > MAX_REMAINDER => {
                return Err(ClientError::TooMuchPipelined);
            }
            StartupStage::DirectTlsHandshake => return Err(ClientError::DirectTls),
            StartupStage::TlsHandshake => return Err(self.sent_ahead()),
            StartupStage::Packets if !self.output.is_empty() => return Err(self.sent_ahead()),
            StartupStage::First => self.stage = StartupStage::Packets,
            StartupStage::DirectTlsOffered | StartupStage::Packets | StartupStage::Done => {}
        }
        self.buf.extend_from_slice(data);
        while self.stage == StartupStage::Packets {
            let Some(code) = self.check_header()? else {
                return Ok(());
            };
            self.take_packet(code)?;
        }
        Ok(())
    }

    /// Checks the packet at the front as early as its bytes allow; returns its code once complete.
    fn check_header(&self) -> Result<Option<u32>, ClientError> {
        let Some((length, rest)) = self.buf.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if !(MIN_LENGTH..=MAX_LENGTH).contains(&length) {
            return Err(StartupError::InvalidLength { length }.into());
        }
        let Some(code) = rest.first_chunk::<4>() else {
            return Ok(None);
        };
        let code = u32::from_be_bytes(*code);
        match request_of(code) {
            Some(request) => self.check_request(request, length)?,
            None if code == CANCEL_REQUEST_CODE => {}
            None => {
                let version = ProtocolVersion::from_code(code);
                if version.major != 3 {
                    return Err(StartupError::UnsupportedProtocol(version).into());
                }
            }
        }
        Ok((self.buf.len() >= length).then_some(code))
    }

    fn check_request(&self, request: EncryptionRequest, length: usize) -> Result<(), ClientError> {
        let asked = match request {
            EncryptionRequest::Ssl => self.asked_ssl,
            EncryptionRequest::Gss => self.asked_gss,
        };
        if asked || self.asked_tls {
            return Err(ClientError::RepeatedRequest { request });
        }
        if length != MIN_LENGTH {
            return Err(ClientError::RequestLength { request, length });
        }
        Ok(())
    }

    fn take_packet(&mut self, code: u32) -> Result<(), ClientError> {
        let length = self.buf.first_chunk::<4>().copied().unwrap_or_default();
        let packet = self.buf.split_to(u32::from_be_bytes(length) as usize);
        let event = match request_of(code) {
            Some(request) => return self.answer(request),
            None if code == CANCEL_REQUEST_CODE => ClientEvent::Cancel(CancelKey::parse(&packet)?),
            None => ClientEvent::Startup(Startup::parse(&packet)?),
        };
        self.events.push_back(event);
        self.stage = StartupStage::Done;
        Ok(())
    }

    fn answer(&mut self, request: EncryptionRequest) -> Result<(), ClientError> {
        self.last_request = request;
        // The server refuses bytes sent ahead, whatever its answer; so does this machine.
        if !self.buf.is_empty() {
            return Err(self.sent_ahead());
        }
        match request {
            EncryptionRequest::Ssl => self.asked_ssl = true,
            EncryptionRequest::Gss => self.asked_gss = true,
        }
        if request == EncryptionRequest::Ssl && self.tls_available && !self.in_tls {
            self.asked_tls = true;
            self.output.push_back(Bytes::from_static(b"S"));
            self.events.push_back(ClientEvent::StartTls);
            self.stage = StartupStage::TlsHandshake;
        } else {
            self.output.push_back(Bytes::from_static(b"N"));
        }
        Ok(())
    }

    fn sent_ahead(&self) -> ClientError {
        ClientError::UnencryptedData {
            request: self.last_request,
        }
    }
}

fn request_of(code: u32) -> Option<EncryptionRequest> {
    match code {
        SSL_REQUEST_CODE => Some(EncryptionRequest::Ssl),
        GSS_REQUEST_CODE => Some(EncryptionRequest::Gss),
        _ => None,
    }
}

impl fmt::Debug for Client {
    /// Leaves out the buffered bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("stage", &self.stage)
            .field("in_tls", &self.in_tls)
            .field("buffered", &self.buf.len())
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}
