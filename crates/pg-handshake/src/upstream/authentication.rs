//! From the first authentication request to AuthenticationOk, with a password or with the client's
//! own answers.

use bytes::Bytes;

use super::messages::{password_message, password_problem};
use super::{Purpose, Upstream, UpstreamError, UpstreamEvent, UpstreamStage};
use crate::auth::{self, AuthMethod, AuthRequest};
use crate::frame::MAX_AUTH_FRAME;
use crate::startup::Startup;
use crate::{password, server_error};

/// Most authentication requests relayed in one login. SCRAM takes three, GSSAPI a few; a server
/// that never stops would occupy client and proxy forever.
pub const MAX_AUTH_REQUESTS: usize = 32;

/// State of a login in which the client itself answers.
pub(super) struct Passthrough {
    pub(super) startup: Startup,
    /// Remove the mechanisms that bind to a TLS channel from the offer.
    unbound: bool,
    /// Authentication requests so far.
    requests: usize,
}

impl Passthrough {
    pub(super) fn new(startup: Startup) -> Self {
        Self {
            startup,
            unbound: false,
            requests: 0,
        }
    }

    /// Returns the frame to relay for one request.
    fn request(&mut self, method: &AuthMethod, frame: Bytes) -> Result<Bytes, UpstreamError> {
        self.requests += 1;
        if self.requests > MAX_AUTH_REQUESTS {
            return Err(UpstreamError::TooManyAuthRequests);
        }
        match method {
            AuthMethod::Sasl { .. } if self.unbound => {
                auth::without_channel_binding(&frame).ok_or(UpstreamError::OnlyChannelBinding)
            }
            _ => Ok(frame),
        }
    }
}

impl Upstream {
    /// Removes the mechanisms that end in `-PLUS` from the server's offer, in a
    /// [`passthrough`](Self::passthrough). They bind the login to its TLS channel (RFC 5802 section
    /// 6, RFC 5929). The client's channel ends at the proxy, so the server would refuse them.
    #[must_use]
    pub fn without_channel_binding(mut self) -> Self {
        if let Purpose::Passthrough(passthrough) = &mut self.purpose {
            passthrough.unbound = true;
        }
        self
    }

    /// Sends the client's answer in a [`passthrough`](Self::passthrough): a whole `p` frame, as
    /// received. It may come before the server's request.
    ///
    /// # Errors
    /// [`UpstreamError::Password`] before TLS, after AuthenticationOk, in another kind of login,
    /// and for anything but one `p` frame; nothing is sent then and the error sticks.
    pub fn client_message(&mut self, frame: Bytes) -> Result<(), UpstreamError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let problem = match (&self.purpose, self.stage) {
            (
                Purpose::Passthrough(_),
                UpstreamStage::Authentication
                | UpstreamStage::PasswordWanted
                | UpstreamStage::PasswordSent,
            ) => password::body(&frame)
                .err()
                .map(|_| "the client's answer is not one complete message"),
            (Purpose::Passthrough(_), _) => Some("the server did not request one"),
            _ => Some("the proxy sends the password for the client"),
        };
        if let Some(problem) = problem {
            return Err(self.fail(UpstreamError::Password(problem)));
        }
        self.output.push_back(frame);
        self.stage = UpstreamStage::PasswordSent;
        Ok(())
    }

    /// Sends the password or token: as the answer to [`UpstreamEvent::PasswordRequired`], or right
    /// after [`tls_established`](Self::tls_established) to save a round trip if the server is known
    /// to request it (the event does not come then).
    ///
    /// # Errors
    /// [`UpstreamError::Password`] at any other stage, in a passthrough, and for a token that is
    /// empty, above [`MAX_PASSWORD`](crate::MAX_PASSWORD) or has a zero byte; nothing is sent then
    /// and the error sticks.
    pub fn password(&mut self, token: &[u8]) -> Result<(), UpstreamError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let problem = match (&self.purpose, self.stage) {
            (Purpose::Passthrough(_), _) => Some("the client sends its own password"),
            (_, UpstreamStage::Authentication | UpstreamStage::PasswordWanted) => {
                password_problem(token)
            }
            _ => Some("the server did not request one"),
        };
        if let Some(problem) = problem {
            return Err(self.fail(UpstreamError::Password(problem)));
        }
        self.output.push_back(password_message(token));
        self.stage = UpstreamStage::PasswordSent;
        Ok(())
    }

    pub(super) fn authentication(&mut self, frame: Bytes) -> Result<(), UpstreamError> {
        match auth::decode(&frame)? {
            AuthRequest::Ok => self.granted(frame),
            AuthRequest::Asks {
                method,
                expects_answer,
            } => match &mut self.purpose {
                Purpose::Passthrough(passthrough) => {
                    let frame = passthrough.request(&method, frame)?;
                    self.asked |= method == AuthMethod::CleartextPassword;
                    self.events.push_back(UpstreamEvent::AuthRequest {
                        method,
                        expects_answer,
                    });
                    self.events.push_back(UpstreamEvent::Relay(frame));
                    if expects_answer {
                        self.stage = UpstreamStage::PasswordWanted;
                    }
                    Ok(())
                }
                Purpose::Login(_) | Purpose::Cancel(_) => self.asks(method),
            },
        }
    }

    /// Handles AuthenticationOk.
    fn granted(&mut self, frame: Bytes) -> Result<(), UpstreamError> {
        match (&self.purpose, self.stage) {
            (Purpose::Passthrough(_), _) => {}
            // Granted before the requested password was given: no server does that.
            (_, stage @ UpstreamStage::PasswordWanted) => {
                return Err(UpstreamError::UnexpectedMessage { tag: b'R', stage });
            }
            (_, UpstreamStage::PasswordSent) if !self.asked => {
                return Err(UpstreamError::PasswordNotAsked);
            }
            _ => {}
        }
        self.stage = UpstreamStage::Starting;
        self.events.push_back(UpstreamEvent::Relay(frame));
        let held = self.held_notices.drain(..);
        self.events.extend(held.map(UpstreamEvent::Relay));
        Ok(())
    }

    /// Handles a request with an answer of our own, or fails.
    fn asks(&mut self, method: AuthMethod) -> Result<(), UpstreamError> {
        if method != AuthMethod::CleartextPassword {
            return Err(UpstreamError::UnexpectedAuth(method));
        }
        if self.asked {
            return Err(UpstreamError::PasswordAskedTwice);
        }
        self.asked = true;
        if self.stage == UpstreamStage::Authentication {
            self.stage = UpstreamStage::PasswordWanted;
            self.events.push_back(UpstreamEvent::PasswordRequired);
        }
        Ok(())
    }

    /// Holds a notice back until AuthenticationOk. The server itself holds notices back during
    /// authentication, "because many clients can't handle" them (`should_output_to_client` in
    /// `elog.c`); this covers servers that do not.
    pub(super) fn notice(&mut self, frame: Bytes) -> Result<(), UpstreamError> {
        server_error::fields(&frame, b'N')?;
        if self.stage == UpstreamStage::Starting {
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
