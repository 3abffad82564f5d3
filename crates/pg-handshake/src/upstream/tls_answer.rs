//! The answer to SSLRequest: one byte, or an error in clear text.

use super::other_protocol::{OtherProtocol, SSH};
use super::{Upstream, UpstreamError, UpstreamEvent, UpstreamStage};
use crate::frame::{next_frame, split_cstring};
use crate::server_error::{MAX_BARE_TEXT, ServerError};

impl Upstream {
    pub(super) fn read_tls_answer(&mut self) -> Result<(), UpstreamError> {
        if let Some(other) = OtherProtocol::of(&self.buf) {
            return Err(UpstreamError::NotPostgres(other));
        }
        match self.buf.first().copied() {
            None => Ok(()),
            // Two or three bytes of an SSH greeting; the rest decides.
            Some(b'S') if self.buf.len() > 1 && SSH.starts_with(&self.buf) => Ok(()),
            Some(b'S') if self.buf.len() > 1 => {
                self.stage = UpstreamStage::TlsHandshake;
                Err(UpstreamError::BytesBeforeTls)
            }
            Some(b'S') => {
                self.buf.clear();
                self.stage = UpstreamStage::TlsHandshake;
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

    /// Reads an error in place of the answer: an ErrorResponse, with a length word that begins with
    /// a zero byte, or the bare text of a postmaster that could not start a process.
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
}
