//! The handshake of an encrypted session.

use std::time::Duration;

use bytes::Bytes;

use super::receive::parse;
use super::{Channel, HandshakePhase};
use crate::crypt::{Cipher, DataKey};
use crate::error::Error;
use crate::event::Event;
use crate::handshake::{EncryptionChallenge, to_json};
use crate::kinds::PayloadType;
use crate::negotiate::PendingResponse;

impl Channel {
    /// Provides the data key requested by [`Event::KeyRequired`]. The handshake continues, and all
    /// Output after it is encrypted; see [`max_payload`](Self::max_payload).
    ///
    /// # Errors
    /// [`Error::KeyLength`] (the event remains open), [`Error::KeyNotRequired`], or the error that
    /// ended the channel.
    pub fn provide_key(&mut self, now: Duration, key: DataKey) -> Result<(), Error> {
        self.check()?;
        if !matches!(self.phase, HandshakePhase::Keyless(_)) {
            return Err(Error::KeyNotRequired);
        }
        let cipher = Cipher::new(&key.plaintext)?;
        let pending = self.take_pending()?;
        let (response, agreed) = pending.accept(key.ciphertext);
        self.cipher = Some(cipher);
        self.session_type = Some(agreed.session_type);
        self.phase = HandshakePhase::Answered {
            agent_version: agreed.agent_version,
            challenged: false,
        };
        self.push(now, PayloadType::HandshakeResponse, to_json(&response));
        Ok(())
    }

    /// Refuses the data key, for a `reason` that the agent shows to its administrator. Returns the
    /// error that ends the channel: [`Error::KeyRefused`], or the one that ended it before.
    /// [`Error::KeyNotRequired`] ends nothing.
    ///
    /// [`poll_transmit`](Self::poll_transmit) still hands out the answer with the refusal.
    #[must_use]
    pub fn refuse_key(&mut self, now: Duration, reason: &str) -> Error {
        let pending = match self.check().and_then(|()| self.take_pending()) {
            Ok(pending) => pending,
            Err(error) => return error,
        };
        let (response, error) = pending.refuse(reason.to_owned());
        self.push(now, PayloadType::HandshakeResponse, to_json(&response));
        self.failed = Some(error.clone());
        error
    }

    fn take_pending(&mut self) -> Result<PendingResponse, Error> {
        match std::mem::replace(&mut self.phase, HandshakePhase::Opening) {
            HandshakePhase::Keyless(pending) => Ok(*pending),
            other => {
                self.phase = other;
                Err(Error::KeyNotRequired)
            }
        }
    }

    /// Requests a key because the agent requires encryption.
    pub(super) fn require_key(&mut self, pending: Box<PendingResponse>) {
        self.events.push_back(Event::KeyRequired {
            kms_key_id: pending.wanted.key_id.clone(),
            challenge: pending.wanted.challenge.clone(),
        });
        self.phase = HandshakePhase::Keyless(pending);
    }

    /// Answers the agent's test of the key: its text, decrypted and encrypted again.
    pub(super) fn answer_challenge(&mut self, now: Duration, payload: &Bytes) -> Result<(), Error> {
        let payload_type = PayloadType::EncryptionChallengeRequest;
        let phase = self.phase.describe();
        let (Some(cipher), HandshakePhase::Answered { challenged, .. }) =
            (&mut self.cipher, &mut self.phase)
        else {
            return Err(Error::UnexpectedPayload {
                payload_type,
                phase,
            });
        };
        // The real agent tests once; further answers would bypass the window.
        if std::mem::replace(challenged, true) {
            return Err(Error::UnexpectedPayload {
                payload_type,
                phase,
            });
        }
        let request: EncryptionChallenge = parse("encryption challenge", payload)?;
        let text = cipher
            .open(&request.challenge)
            .ok_or(Error::Undecryptable { payload_type })?;
        let challenge = cipher.seal(&text)?.to_vec();
        let answer = to_json(&EncryptionChallenge { challenge });
        self.push(now, PayloadType::EncryptionChallengeResponse, answer);
        Ok(())
    }

    /// Returns an Output payload in clear text.
    pub(super) fn opened(&self, payload: Bytes) -> Result<Bytes, Error> {
        match &self.cipher {
            Some(cipher) => cipher.open(&payload).ok_or(Error::Undecryptable {
                payload_type: PayloadType::Output,
            }),
            None => Ok(payload),
        }
    }
}
