//! The channel itself.

mod receive;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::MAX_PAYLOAD;
use crate::config::Config;
use crate::error::Error;
use crate::event::{Event, Stats, Transmit};
use crate::frame::{Acknowledge, AgentMessage};
use crate::handshake::{MESSAGE_SCHEMA_VERSION, OpenDataChannel, SessionType};
use crate::id::IdSource;
use crate::kinds::{Flag, MessageType, PayloadType};
use crate::recv::Incoming;
use crate::send::Outgoing;
use crate::version::AgentVersion;
use crate::window::Window;

/// How far the handshake is.
#[derive(Debug)]
enum Phase {
    /// Waiting for HandshakeRequest.
    Opening,
    /// Answered; waiting for HandshakeComplete.
    Answered { agent_version: AgentVersion },
    /// Data flows.
    Established,
}

impl Phase {
    fn describe(&self) -> &'static str {
        match self {
            Self::Opening => "waiting for the handshake request",
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
    client_version: String,
    wall_epoch_ms: u64,
    handshake_timeout: Duration,
    handshake_deadline: Duration,
    ids: IdSource,
    phase: Phase,
    session_type: Option<SessionType>,
    acks: VecDeque<Acknowledge>,
    outgoing: Outgoing,
    incoming: Incoming,
    events: VecDeque<Event>,
    paused: bool,
    /// Goodbye was said, or will be as soon as there is somebody to hear it.
    terminating: bool,
    failed: Option<Error>,
    stats: Stats,
}

impl Channel {
    /// A channel on a WebSocket that is about to be opened. The handshake's time starts now.
    pub fn new(config: Config, now: Duration) -> Self {
        let open = OpenDataChannel {
            message_schema_version: MESSAGE_SCHEMA_VERSION.to_owned(),
            request_id: config.request_id,
            token_value: config.token,
            client_instance_id: None,
            client_id: config.client_id,
            client_version: Some(config.client_version.clone()),
        };
        Self {
            open: Some(open),
            client_version: config.client_version,
            wall_epoch_ms: config.wall_epoch_ms,
            handshake_timeout: config.handshake_timeout,
            handshake_deadline: now + config.handshake_timeout,
            ids: IdSource::new(config.id_seed),
            phase: Phase::Opening,
            session_type: None,
            acks: VecDeque::new(),
            outgoing: Outgoing::new(Window::new(config.send_window)),
            incoming: Incoming::new(config.reorder_messages, config.reorder_bytes),
            events: VecDeque::new(),
            paused: false,
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
    /// [`Event::Established`], while paused, after [`terminate`](Self::terminate), and when the
    /// window is full.
    pub fn sendable(&self) -> usize {
        let open = matches!(self.phase, Phase::Established) && !self.terminating;
        if open && !self.paused && self.failed.is_none() {
            self.outgoing.room()
        } else {
            0
        }
    }

    /// Queues one Output message of at most [`MAX_PAYLOAD`] bytes. An empty payload is no message.
    ///
    /// # Errors
    /// [`Error::PayloadTooLarge`], [`Error::NotSendable`] when [`sendable`](Self::sendable) is 0, or the error that ended the
    /// channel.
    pub fn send(&mut self, now: Duration, payload: Bytes) -> Result<(), Error> {
        self.check()?;
        if payload.len() > MAX_PAYLOAD {
            return Err(Error::PayloadTooLarge(payload.len()));
        }
        if self.sendable() == 0 {
            return Err(Error::NotSendable);
        }
        if !payload.is_empty() {
            self.push(now, PayloadType::Output, payload);
        }
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

    /// The next WebSocket message to send: the opening text, then acknowledgements, then overdue
    /// messages, then new ones.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Transmit> {
        if let Some(open) = self.open.take() {
            // Plain strings always serialise; going through a String leaves no second copy of the token.
            return Some(Transmit::Text(
                serde_json::to_string(&open).unwrap_or_default(),
            ));
        }
        if let Some(ack) = self.acks.pop_front() {
            let message = AgentMessage::acknowledge(&ack, self.ids.next_id(), self.date(now));
            return Some(Transmit::Binary(message.encode()));
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

    /// When [`handle_timeout`](Self::handle_timeout) is to be called; ask again after every other call.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.failed.is_some() {
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

    /// Numbers about the channel so far.
    pub fn stats(&self) -> Stats {
        Stats {
            in_flight: self.outgoing.in_flight(),
            reordering: self.incoming.waiting(),
            srtt: self.outgoing.rtt().smoothed(),
            rto: self.outgoing.rtt().timeout(1),
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
        matches!(self.phase, Phase::Opening | Phase::Answered { .. })
    }

    fn date(&self, now: Duration) -> u64 {
        let elapsed = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.wall_epoch_ms.saturating_add(elapsed)
    }

    fn push(&mut self, now: Duration, payload_type: PayloadType, payload: Bytes) {
        let message = AgentMessage::data(
            MessageType::InputStreamData,
            self.outgoing.next_number(),
            self.ids.next_id(),
            self.date(now),
            (payload_type, payload),
        );
        self.outgoing.push(message.encode());
    }

    fn push_goodbye(&mut self, now: Duration) {
        let flag = Bytes::copy_from_slice(&Flag::TerminateSession.encode());
        self.push(now, PayloadType::Flag, flag);
    }
}
