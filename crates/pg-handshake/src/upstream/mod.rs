//! The client's side of the startup phase, spoken to the real server.

use std::collections::VecDeque;
use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::MAX_REMAINDER;
use crate::auth::{self, AuthRequest};
use crate::cancel_key::CancelKey;
use crate::frame::{MAX_AUTH_FRAME, next_frame, split_cstring};
use crate::server_error::{self, MAX_BARE_TEXT, ServerError};
use crate::startup::Startup;

mod messages;
mod types;

pub use messages::MAX_PASSWORD;
use messages::{
    check_negotiation, check_parameter_status, check_ready, password_message, password_problem,
};
pub use types::{Stage, UpstreamError, UpstreamEvent};

/// SSLRequest: length word and `NEGOTIATE_SSL_CODE`.
const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// What follows the TLS handshake.
enum Purpose {
    Login(Startup),
    Cancel(CancelKey),
}

/// Logs in to the server, or asks it to cancel a query. Either begins with SSLRequest, and not a
/// byte of either is sent before [`tls_established`](Self::tls_established).
///
/// From AuthenticationOk on everything the server says is relayed as it came. Before it only
/// NegotiateProtocolVersion is; a notice waits until after AuthenticationOk, because clients do not
/// expect one earlier. See the [crate] documentation for the calling order.
pub struct Upstream {
    purpose: Purpose,
    stage: Stage,
    /// Whether the server has asked for the password (it may be sent before it asks).
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
    /// A login with this startup message.
    #[must_use]
    pub fn login(startup: Startup) -> Self {
        Self::new(Purpose::Login(startup))
    }

    /// A cancel request with this key: SSLRequest, TLS, CancelRequest, close.
    #[must_use]
    pub fn cancel(key: CancelKey) -> Self {
        Self::new(Purpose::Cancel(key))
    }

    fn new(purpose: Purpose) -> Self {
        Self {
            purpose,
            stage: Stage::TlsAnswer,
            asked: false,
            negotiated: false,
            has_key: false,
            held_notices: Vec::new(),
            buf: BytesMut::new(),
            output: VecDeque::from([Bytes::from_static(SSL_REQUEST)]),
            events: VecDeque::new(),
            error: None,
        }
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
        if self.stage == Stage::CancelSent {
            return Ok(()); // Nobody reads an answer to a cancel request; libpq does not either.
        }
        if self.stage == Stage::Ready && self.buf.len() + data.len() > MAX_REMAINDER {
            return Err(self.fail(UpstreamError::TooMuchUnread));
        }
        self.buf.extend_from_slice(data);
        self.process().map_err(|error| self.fail(error))
    }

    /// The server closed its side.
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
            Stage::Ready | Stage::CancelSent => Ok(()),
            Stage::TlsAnswer if self.buf.len() > 1 && self.buf[1] != 0 => {
                let error = ServerError::from_bare_text(&self.buf[1..]);
                Err(self.fail(UpstreamError::ServerBeforeTls(error)))
            }
            _ => Err(self.fail(UpstreamError::UnexpectedEof { stage })),
        }
    }

    /// Bytes to write to the server, oldest first. The password is in one of them; its memory is
    /// wiped when the last reference to it goes.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        self.output.pop_front()
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<UpstreamEvent> {
        self.events.pop_front()
    }

    /// How far it has come.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The TLS handshake that [`UpstreamEvent::StartTls`] asked for is complete **and the server's
    /// certificate and name are verified**: the StartupMessage or CancelRequest goes out now. Without
    /// that event, or after an error, it does nothing.
    pub fn tls_established(&mut self) {
        if self.stage != Stage::TlsHandshake || self.error.is_some() {
            return;
        }
        match &self.purpose {
            Purpose::Login(startup) => {
                self.output.push_back(startup.encode());
                self.stage = Stage::Authentication;
            }
            Purpose::Cancel(key) => {
                self.output.push_back(key.encode());
                self.events.push_back(UpstreamEvent::CancelSent);
                self.stage = Stage::CancelSent;
            }
        }
    }

    /// Sends the password or token: as the answer to [`UpstreamEvent::PasswordRequired`], or right
    /// after [`tls_established`](Self::tls_established) to save a round trip where the server is
    /// known to ask (the event does not come then).
    ///
    /// # Errors
    /// [`UpstreamError::Password`] at any other stage, and for a token that is empty, above
    /// [`MAX_PASSWORD`] or has a zero byte; nothing is sent then and the error sticks.
    pub fn password(&mut self, token: &[u8]) -> Result<(), UpstreamError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let problem = match self.stage {
            Stage::Authentication | Stage::PasswordWanted => password_problem(token),
            _ => Some("the server is not waiting for one"),
        };
        if let Some(problem) = problem {
            return Err(self.fail(UpstreamError::Password(problem)));
        }
        self.output.push_back(password_message(token));
        self.stage = Stage::PasswordSent;
        Ok(())
    }

    /// What the server sent behind ReadyForQuery, to be passed on to the client first.
    #[must_use]
    pub fn into_remainder(self) -> Bytes {
        self.buf.freeze()
    }

    #[cfg(test)]
    pub(crate) fn buffered(&self) -> usize {
        self.buf.len() + self.held_notices.iter().map(Bytes::len).sum::<usize>()
    }

    fn fail(&mut self, error: UpstreamError) -> UpstreamError {
        if self.stage == Stage::TlsHandshake {
            self.events.clear(); // No TLS on a connection that someone has written into.
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
                Stage::TlsAnswer => return self.read_tls_answer(),
                Stage::TlsHandshake if !self.buf.is_empty() => {
                    return Err(UpstreamError::BytesBeforeTls);
                }
                Stage::TlsHandshake | Stage::Ready | Stage::CancelSent => return Ok(()),
                Stage::Authentication
                | Stage::PasswordWanted
                | Stage::PasswordSent
                | Stage::Starting => {
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

    fn read_tls_answer(&mut self) -> Result<(), UpstreamError> {
        match self.buf.first().copied() {
            None => Ok(()),
            Some(b'S') if self.buf.len() > 1 => {
                self.stage = Stage::TlsHandshake;
                Err(UpstreamError::BytesBeforeTls)
            }
            Some(b'S') => {
                self.buf.clear();
                self.stage = Stage::TlsHandshake;
                self.events.push_back(UpstreamEvent::StartTls);
                Ok(())
            }
            Some(b'N') => Err(UpstreamError::TlsRefused),
            Some(b'E') => self.read_plain_error(),
            Some(tag) => Err(UpstreamError::UnexpectedMessage {
                tag,
                stage: self.stage,
            }),
        }
    }

    /// An error instead of the answer: an ErrorResponse, whose length word begins with a zero byte,
    /// or the bare text of a postmaster that could not start a process.
    fn read_plain_error(&mut self) -> Result<(), UpstreamError> {
        match self.buf.get(1).copied() {
            None => Ok(()),
            Some(0) => match next_frame(&mut self.buf)? {
                None => Ok(()),
                Some(frame) => Err(UpstreamError::ServerBeforeTls(ServerError::parse(frame)?)),
            },
            Some(_) => {
                let text = split_cstring(&self.buf[1..]).map(|(text, _)| text);
                let length = text.map_or(self.buf.len() - 1, <[u8]>::len);
                if length > MAX_BARE_TEXT {
                    let (tag, limit) = (b'E', MAX_BARE_TEXT);
                    return Err(UpstreamError::TooLarge { tag, length, limit });
                }
                text.map(ServerError::from_bare_text)
                    .map_or(Ok(()), |e| Err(UpstreamError::ServerBeforeTls(e)))
            }
        }
    }

    /// Whether the message that begins at the front may come now ("Start-up" in "Message Flow"),
    /// judged by its type byte, before its length is believed.
    fn check_place(&self) -> Result<(), UpstreamError> {
        let Some(tag) = self.buf.first().copied() else {
            return Ok(());
        };
        let allowed = match (tag, self.stage) {
            (b'E' | b'N', _) => true,
            (b'v', Stage::Starting) => false,
            (b'v', _) => !self.negotiated,
            (b'R', Stage::Starting) => false,
            (b'R', _) => true,
            (b'S' | b'Z', Stage::Starting) => true,
            (b'K', Stage::Starting) => !self.has_key,
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
                self.stage = Stage::Ready;
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

    fn authentication(&mut self, frame: Bytes) -> Result<(), UpstreamError> {
        match (auth::decode(&frame)?, self.stage) {
            // Granted before the password was given although it was asked for: no server does that.
            (AuthRequest::Ok, stage @ Stage::PasswordWanted) => {
                Err(UpstreamError::UnexpectedMessage { tag: b'R', stage })
            }
            (AuthRequest::Ok, _) => {
                self.stage = Stage::Starting;
                self.events.push_back(UpstreamEvent::Relay(frame));
                let held = self.held_notices.drain(..);
                self.events.extend(held.map(UpstreamEvent::Relay));
                Ok(())
            }
            (AuthRequest::CleartextPassword, _) if self.asked => {
                Err(UpstreamError::PasswordAskedTwice)
            }
            (AuthRequest::CleartextPassword, stage) => {
                self.asked = true;
                if stage == Stage::Authentication {
                    self.stage = Stage::PasswordWanted;
                    self.events.push_back(UpstreamEvent::PasswordRequired);
                }
                Ok(())
            }
            (AuthRequest::Other(method), _) => Err(UpstreamError::UnexpectedAuth(method)),
        }
    }

    /// The server itself holds notices back during authentication, "because many clients can't
    /// handle" them (`should_output_to_client` in `elog.c`); for one that does not, we do.
    fn notice(&mut self, frame: Bytes) -> Result<(), UpstreamError> {
        server_error::fields(&frame, b'N')?;
        if self.stage == Stage::Starting {
            self.events.push_back(UpstreamEvent::Relay(frame));
            return Ok(());
        }
        let held: usize = self.held_notices.iter().map(Bytes::len).sum();
        if held + frame.len() > MAX_AUTH_FRAME {
            return Err(UpstreamError::TooLarge {
                tag: b'N',
                length: held + frame.len(),
                limit: MAX_AUTH_FRAME,
            });
        }
        self.held_notices.push(frame);
        Ok(())
    }
}

impl fmt::Debug for Upstream {
    /// Without buffers: the output holds the password for a while.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("stage", &self.stage)
            .field("buffered", &self.buf.len())
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}
