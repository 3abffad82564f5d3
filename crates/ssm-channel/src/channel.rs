//! The data channel.

mod connection;
mod encryption;
mod receive;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::MAX_PAYLOAD;
use crate::config::{ChannelConfig, ChannelToken};
use crate::crypt::{self, Cipher};
use crate::error::Error;
use crate::event::{Event, Stats, Transmit};
use crate::frame::{self, AgentMessage};
use crate::handshake::{MESSAGE_SCHEMA_VERSION, OpenDataChannel, SessionType};
use crate::id::{IdSource, MessageId, SequenceNumber};
use crate::kinds::{FlagPayload, MessageType, PayloadType};
use crate::negotiate::PendingResponse;
use crate::recent_acks::RecentAcks;
use crate::recv::ReceiveBuffer;
use crate::send::SendBuffer;
use crate::version::AgentVersion;
use crate::window::SendWindow;

/// Progress of the handshake.
#[derive(Debug)]
enum HandshakePhase {
    /// Waiting for HandshakeRequest.
    Opening,
    /// Waiting for the caller's data key; the rest of the answer is ready.
    Keyless(Box<PendingResponse>),
    /// Answered; waiting for HandshakeComplete.
    Answered {
        agent_version: AgentVersion,
        /// The agent has tested the encryption.
        challenged: bool,
    },
    /// Data flows.
    Established,
}

impl HandshakePhase {
    fn describe(&self) -> &'static str {
        match self {
            Self::Opening => "waiting for the handshake request",
            Self::Keyless(_) => "waiting for a data key from KMS",
            Self::Answered { .. } => "waiting for the end of the handshake",
            Self::Established => "established",
        }
    }
}

/// The client's end of one data channel. See the crate documentation for the calling order.
///
/// Received messages are bounded by the reorder limits; sent ones by the window, see
/// [`sendable`](Self::sendable). Events are not bounded: the driver takes them all after each
/// message, and stops reading the WebSocket when it has no room for them.
#[derive(Debug)]
pub struct Channel {
    /// The opening message, until it is handed out.
    open: Option<OpenDataChannel>,
    client_id: String,
    client_version: String,
    wall_epoch_ms: u64,
    handshake_timeout: Duration,
    handshake_deadline: Duration,
    ids: IdSource,
    phase: HandshakePhase,
    session_type: Option<SessionType>,
    /// Once set, Output is encrypted both ways.
    cipher: Option<Cipher>,
    /// The agent's data messages to acknowledge.
    acks: VecDeque<(MessageId, SequenceNumber)>,
    /// Acknowledgements that may have to be repeated.
    said: RecentAcks,
    outgoing: SendBuffer,
    incoming: ReceiveBuffer,
    events: VecDeque<Event>,
    paused: bool,
    /// A WebSocket to send on is connected.
    connected: bool,
    /// The terminate flag was sent, or will be once the channel is established.
    terminating: bool,
    failed: Option<Error>,
    stats: Stats,
}

impl Channel {
    /// Creates a channel on a WebSocket that is about to be opened. The handshake timeout starts
    /// now.
    pub fn new(config: ChannelConfig, now: Duration) -> Self {
        let ChannelConfig {
            client_id,
            client_version,
            ..
        } = config;
        let open = opening(&client_id, &client_version, config.token, config.request_id);
        Self {
            open: Some(open),
            client_id,
            client_version,
            wall_epoch_ms: config.wall_epoch_ms,
            handshake_timeout: config.handshake_timeout,
            handshake_deadline: now + config.handshake_timeout,
            ids: IdSource::new(config.id_seed),
            phase: HandshakePhase::Opening,
            session_type: None,
            cipher: None,
            acks: VecDeque::new(),
            said: RecentAcks::default(),
            outgoing: SendBuffer::new(SendWindow::new(config.send_window)),
            incoming: ReceiveBuffer::new(config.reorder_messages, config.reorder_bytes),
            events: VecDeque::new(),
            paused: false,
            connected: true,
            terminating: false,
            failed: None,
            stats: Stats::default(),
        }
    }

    /// Handles one binary WebSocket message.
    ///
    /// # Errors
    /// A fatal error, now and on every later call. Events before it can still be taken, and
    /// [`poll_transmit`](Self::poll_transmit) still hands out answers that were never sent.
    pub fn handle_message(&mut self, now: Duration, message: Bytes) -> Result<(), Error> {
        self.check()?;
        let outcome = self.receive(now, message);
        self.stick(outcome)
    }

    /// Returns the number of further Output messages that [`send`](Self::send) takes now: 0 before
    /// [`Event::Established`], while paused or disconnected, after [`terminate`](Self::terminate),
    /// and when the window is full.
    pub fn sendable(&self) -> usize {
        let open = matches!(self.phase, HandshakePhase::Established) && !self.terminating;
        if open && self.connected && !self.paused && self.failed.is_none() {
            self.outgoing.room()
        } else {
            0
        }
    }

    /// Returns the most bytes that [`send`](Self::send) takes at once: [`MAX_PAYLOAD`], less the
    /// overhead of encryption. Constant once the channel is established.
    pub fn max_payload(&self) -> usize {
        match self.cipher {
            Some(_) => MAX_PAYLOAD - crypt::OVERHEAD,
            None => MAX_PAYLOAD,
        }
    }

    /// Queues one Output message of at most [`max_payload`](Self::max_payload) bytes. An empty
    /// payload queues none.
    ///
    /// Just after the handshake the agent may silently drop messages, or acknowledge and discard
    /// them, which this side cannot detect: the caller must not depend on its first messages. See
    /// [`send_early`](Self::send_early).
    ///
    /// # Errors
    /// [`Error::PayloadTooLarge`], [`Error::NotSendable`] when [`sendable`](Self::sendable) is 0,
    /// or the error that ended the channel.
    pub fn send(&mut self, now: Duration, payload: Bytes) -> Result<(), Error> {
        self.send_output(now, payload, false)
    }

    /// Queues a message that the agent may drop because its port handler is not ready. It is
    /// repeated a few times after little more than a round trip, instead of after the ordinary
    /// timeout.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn send_early(&mut self, now: Duration, payload: Bytes) -> Result<(), Error> {
        self.send_output(now, payload, true)
    }

    fn send_output(&mut self, now: Duration, payload: Bytes, early: bool) -> Result<(), Error> {
        self.check()?;
        if payload.len() > self.max_payload() {
            return Err(Error::PayloadTooLarge(payload.len()));
        }
        if self.sendable() == 0 {
            return Err(Error::NotSendable);
        }
        if payload.is_empty() {
            return Ok(());
        }
        let payload = match &mut self.cipher {
            Some(cipher) => cipher.seal(&payload)?,
            None => payload,
        };
        self.push_message(now, (PayloadType::Output, payload), early);
        Ok(())
    }

    /// Ends the session: queues Flag 2 (terminate) behind everything already sent, and takes no
    /// more data. During the handshake the flag waits until the handshake ends, because the agent
    /// does not understand it earlier.
    pub fn terminate(&mut self, now: Duration) {
        let first = !std::mem::replace(&mut self.terminating, true);
        if first && self.failed.is_none() && !self.in_handshake() {
            self.push_goodbye(now);
        }
    }

    /// Returns true if all sent messages are acknowledged and none waits to be handed out.
    /// Meaningless after a fatal error.
    pub fn is_drained(&self) -> bool {
        self.open.is_none() && self.acks.is_empty() && self.outgoing.in_flight() == 0
    }

    /// Returns the next WebSocket message to send: the opening text, then acknowledgements, then,
    /// as far as the window allows, overdue messages and new ones.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Transmit> {
        if !self.connected {
            return None;
        }
        if let Some(open) = self.open.take() {
            // Plain strings always serialise; going through a String leaves no second copy of the
            // token.
            return Some(Transmit::Text(
                serde_json::to_string(&open).unwrap_or_default(),
            ));
        }
        if let Some(of) = self.acks.pop_front() {
            self.said.handed_out(now, of);
            let (id, date) = (self.ids.next_id(), self.date(now));
            return Some(Transmit::Binary(frame::acknowledgement(of, id, date)));
        }
        if self.paused {
            return None;
        }
        let outbound = if self.failed.is_some() {
            self.outgoing.next_fresh(now)
        } else {
            self.outgoing.expire(now);
            self.outgoing.next_outbound(now)
        }?;
        if outbound.repeated {
            self.stats.retransmitted += 1;
        } else {
            self.stats.sent += 1;
        }
        Some(Transmit::Binary(outbound.message))
    }

    /// Returns the next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns the time at which to call [`handle_timeout`](Self::handle_timeout); ask again after
    /// every other call. `None` while disconnected or after a fatal error.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.failed.is_some() {
            return None;
        }
        if !self.connected {
            return None;
        }
        let overdue = if self.paused {
            None
        } else {
            self.outgoing.next_due()
        };
        let handshake = self.in_handshake().then_some(self.handshake_deadline);
        overdue.into_iter().chain(handshake).min()
    }

    /// Handles the passing of time: overdue messages become ready for
    /// [`poll_transmit`](Self::poll_transmit). Calling it too early does nothing.
    ///
    /// # Errors
    /// [`Error::HandshakeTimeout`], or the error that ended the channel before.
    pub fn handle_timeout(&mut self, now: Duration) -> Result<(), Error> {
        self.check()?;
        if !self.connected {
            return Ok(());
        }
        if self.in_handshake() && now >= self.handshake_deadline {
            let (after, waiting_for) = (self.handshake_timeout, self.phase.describe());
            return self.stick(Err(Error::HandshakeTimeout { after, waiting_for }));
        }
        if !self.paused {
            self.outgoing.expire(now);
        }
        Ok(())
    }

    /// Returns the session type from the agent's handshake: host and port, for logs.
    pub fn session_type(&self) -> Option<&SessionType> {
        self.session_type.as_ref()
    }

    /// Returns true if received messages wait for an earlier one.
    pub fn has_gap(&self) -> bool {
        self.incoming.waiting() > 0
    }

    /// Returns statistics of the channel so far.
    pub fn stats(&self) -> Stats {
        Stats {
            in_flight: self.outgoing.in_flight(),
            reordering: self.incoming.waiting(),
            window: self.outgoing.window().size(),
            min_rtt: self.outgoing.window().base(),
            srtt: self.outgoing.rtt().smoothed(),
            rto: self.outgoing.rtt().current(),
            ..self.stats.clone()
        }
    }

    fn check(&self) -> Result<(), Error> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn stick(&mut self, outcome: Result<(), Error>) -> Result<(), Error> {
        if let Err(error) = &outcome {
            self.failed = Some(error.clone());
        }
        outcome
    }

    fn in_handshake(&self) -> bool {
        !matches!(self.phase, HandshakePhase::Established)
    }

    fn date(&self, now: Duration) -> u64 {
        let elapsed = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.wall_epoch_ms.saturating_add(elapsed)
    }

    fn push(&mut self, now: Duration, payload_type: PayloadType, payload: Bytes) {
        self.push_message(now, (payload_type, payload), false);
    }

    fn push_message(&mut self, now: Duration, payload: (PayloadType, Bytes), early: bool) {
        let message = AgentMessage::data(
            MessageType::InputStreamData,
            self.outgoing.next_number(),
            self.ids.next_id(),
            self.date(now),
            payload,
        );
        if early {
            self.outgoing.push_early(message.encode());
        } else {
            self.outgoing.push(message.encode());
        }
    }

    fn push_goodbye(&mut self, now: Duration) {
        let flag = Bytes::copy_from_slice(&FlagPayload::TerminateSession.encode());
        self.push(now, PayloadType::Flag, flag);
    }
}

/// Builds the first message on a WebSocket.
fn opening(
    client_id: &str,
    version: &str,
    token: ChannelToken,
    request_id: String,
) -> OpenDataChannel {
    OpenDataChannel {
        message_schema_version: MESSAGE_SCHEMA_VERSION.to_owned(),
        request_id,
        token_value: token,
        client_instance_id: None,
        client_id: client_id.to_owned(),
        client_version: Some(version.to_owned()),
    }
}
