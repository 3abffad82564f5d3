//! The channel itself.

mod connection;
mod encryption;
mod receive;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::MAX_PAYLOAD;
use crate::config::{Config, Token};
use crate::crypt::{self, Cipher};
use crate::error::Error;
use crate::event::{Event, Stats, Transmit};
use crate::frame::{self, AgentMessage};
use crate::handshake::{MESSAGE_SCHEMA_VERSION, OpenDataChannel, SessionType};
use crate::id::{IdSource, MessageId, SequenceNumber};
use crate::kinds::{Flag, MessageType, PayloadType};
use crate::negotiate::Pending;
use crate::recv::Incoming;
use crate::said::Said;
use crate::send::Outgoing;
use crate::version::AgentVersion;
use crate::window::Window;

/// How far the handshake is.
#[derive(Debug)]
enum Phase {
    /// Waiting for HandshakeRequest.
    Opening,
    /// Waiting for the caller's data key; all but that is ready for the answer.
    Keyless(Box<Pending>),
    /// Answered; waiting for HandshakeComplete.
    Answered {
        agent_version: AgentVersion,
        /// The agent has tested the encryption.
        challenged: bool,
    },
    /// Data flows.
    Established,
}

impl Phase {
    fn describe(&self) -> &'static str {
        match self {
            Self::Opening => "waiting for the handshake request",
            Self::Keyless(_) => "waiting for a data key from KMS",
            Self::Answered { .. } => "waiting for the end of the handshake",
            Self::Established => "established",
        }
    }
}

/// The client's end of one data channel. The crate's front page has the calling order.
///
/// Received messages are bounded by the reorder limits; sent ones by the window, which
/// [`sendable`](Self::sendable) shows. Events are not bounded: the driver takes them all after each message, and
/// stops reading the WebSocket when it cannot place them.
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
    phase: Phase,
    session_type: Option<SessionType>,
    /// Once there is one, Output is encrypted both ways.
    cipher: Option<Cipher>,
    /// The agent's data messages to acknowledge.
    acks: VecDeque<(MessageId, SequenceNumber)>,
    /// Those that may have to be said again.
    said: Said,
    outgoing: Outgoing,
    incoming: Incoming,
    events: VecDeque<Event>,
    paused: bool,
    /// There is a WebSocket to send on.
    connected: bool,
    /// Goodbye was said, or will be as soon as there is somebody to hear it.
    terminating: bool,
    failed: Option<Error>,
    stats: Stats,
}

impl Channel {
    /// A channel on a WebSocket that is about to be opened. The handshake's time starts now.
    pub fn new(config: Config, now: Duration) -> Self {
        let Config {
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
            phase: Phase::Opening,
            session_type: None,
            cipher: None,
            acks: VecDeque::new(),
            said: Said::default(),
            outgoing: Outgoing::new(Window::new(config.send_window)),
            incoming: Incoming::new(config.reorder_messages, config.reorder_bytes),
            events: VecDeque::new(),
            paused: false,
            connected: true,
            terminating: false,
            failed: None,
            stats: Stats::default(),
        }
    }

    /// Takes one binary WebSocket message.
    ///
    /// # Errors
    /// A fatal error, now and on every later call. Events before it can still be taken, and
    /// [`poll_transmit`](Self::poll_transmit) still hands out answers that were never sent.
    pub fn handle_message(&mut self, now: Duration, message: Bytes) -> Result<(), Error> {
        self.check()?;
        let outcome = self.receive(now, message);
        self.stick(outcome)
    }

    /// How many more Output messages [`send`](Self::send) takes now: 0 before
    /// [`Event::Established`], while paused or disconnected, after [`terminate`](Self::terminate), and when
    /// the window is full.
    pub fn sendable(&self) -> usize {
        let open = matches!(self.phase, Phase::Established) && !self.terminating;
        if open && self.connected && !self.paused && self.failed.is_none() {
            self.outgoing.room()
        } else {
            0
        }
    }

    /// Most bytes that [`send`](Self::send) takes at once: [`MAX_PAYLOAD`], less what encryption
    /// adds. Does not change any more once the channel is established.
    pub fn max_payload(&self) -> usize {
        match self.cipher {
            Some(_) => MAX_PAYLOAD - crypt::OVERHEAD,
            None => MAX_PAYLOAD,
        }
    }

    /// Queues one Output message of at most [`max_payload`](Self::max_payload) bytes. An empty
    /// payload is no message.
    ///
    /// Just after the handshake the agent may drop messages without a word, or acknowledge them and
    /// throw them away, which nothing here can notice: the caller must not depend on what it sends
    /// first. See [`send_early`](Self::send_early).
    ///
    /// # Errors
    /// [`Error::PayloadTooLarge`], [`Error::NotSendable`] when [`sendable`](Self::sendable) is 0, or the error that ended the
    /// channel.
    pub fn send(&mut self, now: Duration, payload: Bytes) -> Result<(), Error> {
        self.send_output(now, payload, false)
    }

    /// The same for a message that the agent may drop, because its port handler is not ready: it is
    /// repeated after little more than a round trip, some times, instead of after the ordinary timeout.
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

    /// Says goodbye: queues Flag 2 behind everything that was sent, and takes no more data. Before
    /// the end of the handshake it waits for that; nobody would understand it earlier.
    pub fn terminate(&mut self, now: Duration) {
        let first = !std::mem::replace(&mut self.terminating, true);
        if first && self.failed.is_none() && !self.in_handshake() {
            self.push_goodbye(now);
        }
    }

    /// True when all that was sent is acknowledged and nothing waits to be handed out. Means
    /// nothing after a fatal error.
    pub fn is_drained(&self) -> bool {
        self.open.is_none() && self.acks.is_empty() && self.outgoing.in_flight() == 0
    }

    /// The next WebSocket message to send: the opening text, then acknowledgements, then, as far as
    /// the window allows, overdue messages and new ones.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Transmit> {
        if !self.connected {
            return None;
        }
        if let Some(open) = self.open.take() {
            // Plain strings always serialise; going through a String leaves no second copy of the token.
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

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called; ask again after every other call. While
    /// disconnected there is nothing to wait for.
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

    /// Time has passed. Overdue messages become ready for [`poll_transmit`](Self::poll_transmit). Calling it too early
    /// does nothing.
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

    /// What the agent said about the session in its handshake: host and port, for logs.
    pub fn session_type(&self) -> Option<&SessionType> {
        self.session_type.as_ref()
    }

    /// Whether received messages wait for an earlier one.
    pub fn has_gap(&self) -> bool {
        self.incoming.waiting() > 0
    }

    /// Numbers about the channel so far.
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
        !matches!(self.phase, Phase::Established)
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
        let flag = Bytes::copy_from_slice(&Flag::TerminateSession.encode());
        self.push(now, PayloadType::Flag, flag);
    }
}

/// The first message on a WebSocket.
fn opening(client_id: &str, version: &str, token: Token, request_id: String) -> OpenDataChannel {
    OpenDataChannel {
        message_schema_version: MESSAGE_SCHEMA_VERSION.to_owned(),
        request_id,
        token_value: token,
        client_instance_id: None,
        client_id: client_id.to_owned(),
        client_version: Some(version.to_owned()),
    }
}
