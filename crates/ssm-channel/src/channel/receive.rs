//! Handling of received messages.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{Channel, HandshakePhase};
use crate::error::Error;
use crate::event::Event;
use crate::frame::{Acknowledge, AgentMessage};
use crate::handshake::{ChannelClosed, HandshakeComplete, HandshakeRequest, from_json, to_json};
use crate::id::{MessageId, SequenceNumber};
use crate::kinds::{FlagPayload, MessageType, PayloadType};
use crate::negotiate::{HandshakeOutcome, answer};
use crate::recv::Disposition;
use crate::version::AgentVersion;

/// Most acknowledgements that may wait to be handed out. Further ones are dropped, which is
/// harmless: the agent sends the message again. Reached only by a driver that reads and never
/// writes.
const MAX_WAITING_ACKS: usize = 16_384;

impl Channel {
    /// Decodes one message and acts on it.
    pub(super) fn receive(&mut self, now: Duration, message: Bytes) -> Result<(), Error> {
        let message = AgentMessage::decode(message)?;
        match &message.message_type {
            MessageType::OutputStreamData => self.receive_data(now, message),
            MessageType::Acknowledge => self.receive_ack(now, &message.payload),
            MessageType::ChannelClosed => {
                // The type alone ends the session; an unreadable text only costs the reason.
                let closed: ChannelClosed = from_json(&message.payload).unwrap_or_default();
                Err(Error::Closed {
                    reason: closed.output,
                })
            }
            MessageType::PausePublication => {
                self.pause();
                Ok(())
            }
            MessageType::StartPublication => {
                self.restart();
                Ok(())
            }
            MessageType::InputStreamData | MessageType::Other(_) => {
                self.stats.ignored += 1;
                Ok(())
            }
        }
    }

    fn receive_ack(&mut self, now: Duration, payload: &Bytes) -> Result<(), Error> {
        let ack = Acknowledge::from_json(payload).map_err(|source| Error::Json {
            what: "acknowledgement",
            source: Arc::new(source),
        })?;
        // The plugin uses the number alone, so agents get that right.
        let ours = ack.message_type == MessageType::InputStreamData;
        if ours && self.outgoing.acknowledge(now, ack.sequence) {
            self.stats.acked += 1;
        }
        Ok(())
    }

    fn receive_data(&mut self, now: Duration, message: AgentMessage) -> Result<(), Error> {
        // Data can only come from an agent that is present.
        self.restart();
        let (id, sequence, kind) = (message.id, message.sequence, message.payload_type);
        let verdict = self.incoming.offer(sequence, kind, &message.payload);
        let mut outcome = Ok(());
        match verdict {
            Disposition::Next => {
                self.stats.received += 1;
                outcome = self.process_in_order(now, kind, message.payload);
            }
            Disposition::Kept => self.stats.received += 1,
            Disposition::Duplicate => self.stats.duplicates += 1,
            Disposition::NoRoom => self.stats.dropped += 1,
        }
        // An agent with a refused request gets its acknowledgement too.
        match verdict {
            Disposition::NoRoom => {}
            Disposition::Next | Disposition::Kept => {
                self.said.arrived(id, sequence, self.incoming.waiting());
                self.acknowledge([(id, sequence)]);
            }
            Disposition::Duplicate => {
                self.acknowledge([(id, sequence)]);
                let above = self.said.above(now, sequence);
                self.acknowledge(above);
            }
        }
        outcome
    }

    fn acknowledge(&mut self, messages: impl IntoIterator<Item = (MessageId, SequenceNumber)>) {
        let room = MAX_WAITING_ACKS.saturating_sub(self.acks.len());
        self.acks.extend(messages.into_iter().take(room));
    }

    fn process_in_order(
        &mut self,
        now: Duration,
        kind: PayloadType,
        payload: Bytes,
    ) -> Result<(), Error> {
        self.process(now, kind, payload)?;
        while let Some((kind, payload)) = self.incoming.next_ready() {
            self.process(now, kind, payload)?;
        }
        Ok(())
    }

    /// Handles one data message, in order.
    fn process(&mut self, now: Duration, kind: PayloadType, payload: Bytes) -> Result<(), Error> {
        match (kind, &self.phase) {
            (PayloadType::Output, HandshakePhase::Established) => {
                let payload = self.opened(payload)?;
                if !payload.is_empty() {
                    self.events.push_back(Event::Output(payload));
                }
                Ok(())
            }
            (PayloadType::HandshakeRequest, HandshakePhase::Opening) => self.answer(now, &payload),
            (PayloadType::EncryptionChallengeRequest, _) => self.answer_challenge(now, &payload),
            (PayloadType::HandshakeComplete, HandshakePhase::Answered { agent_version, .. }) => {
                self.complete(now, *agent_version, &payload)
            }
            (PayloadType::Flag, _) => {
                self.process_flag(&payload);
                Ok(())
            }
            (
                PayloadType::Output
                | PayloadType::HandshakeRequest
                | PayloadType::HandshakeComplete,
                phase,
            ) => Err(Error::UnexpectedPayload {
                payload_type: kind,
                phase: phase.describe(),
            }),
            _ => {
                self.stats.ignored += 1;
                Ok(())
            }
        }
    }

    fn complete(
        &mut self,
        now: Duration,
        agent_version: AgentVersion,
        payload: &Bytes,
    ) -> Result<(), Error> {
        let complete: HandshakeComplete = parse("handshake completion", payload)?;
        self.events.push_back(Event::Established {
            agent_version,
            customer_message: complete.customer_message,
        });
        self.phase = HandshakePhase::Established;
        if self.terminating {
            self.push_goodbye(now);
        }
        Ok(())
    }

    fn process_flag(&mut self, payload: &[u8]) {
        match FlagPayload::decode(payload) {
            Some(FlagPayload::ConnectToPortError) => {
                self.events.push_back(Event::ConnectToPortError)
            }
            Some(FlagPayload::DisconnectToPort) => self.events.push_back(Event::Disconnected),
            Some(FlagPayload::TerminateSession | FlagPayload::Other(_)) | None => {
                self.stats.ignored += 1
            }
        }
    }

    fn answer(&mut self, now: Duration, payload: &Bytes) -> Result<(), Error> {
        let request: HandshakeRequest = parse("handshake request", payload)?;
        match answer(request, &self.client_version) {
            HandshakeOutcome::Ready(response, outcome) => {
                self.push(now, PayloadType::HandshakeResponse, to_json(&response));
                let agreed = outcome?;
                self.session_type = Some(agreed.session_type);
                self.phase = HandshakePhase::Answered {
                    agent_version: agreed.agent_version,
                    challenged: false,
                };
            }
            HandshakeOutcome::NeedsKey(pending) => self.require_key(pending),
        }
        Ok(())
    }

    fn pause(&mut self) {
        if !self.paused {
            self.paused = true;
            self.outgoing.pause();
            self.events.push_back(Event::Paused);
        }
    }

    pub(super) fn restart(&mut self) {
        if self.paused {
            self.paused = false;
            self.events.push_back(Event::Restarted);
        }
    }
}

pub(super) fn parse<T: DeserializeOwned>(what: &'static str, payload: &[u8]) -> Result<T, Error> {
    from_json(payload).map_err(|source| Error::Json {
        what,
        source: Arc::new(source),
    })
}
