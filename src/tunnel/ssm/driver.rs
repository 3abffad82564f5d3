//! The task that owns a session's WebSocket, both protocol machines and one timer.
//!
//! ```text
//!   SsmStream ─ write ─► smux ─► ssm-channel ─► batch ─► WebSocket
//!   SsmStream ◄─ inbox ─ smux ◄─ ssm-channel ◄────────── WebSocket
//! ```
//! Each turn first moves the machines' output into a batch, then waits for the first of these
//! events: the socket takes the batch, a message arrives, a handle wakes the driver, a deadline
//! passes. Writing and reading are polled together, so a peer that does not read cannot block our
//! reading.
//!
//! `resume` replaces a lost connection; `pulse` detects the loss. `first_bytes` decides when the
//! first bytes may leave.
//!
//! # Clients that do not read
//! The multiplexer's version 1 has no window per stream: the agent cannot hold back one of them.
//! The following limits apply in this order.
//! 1. A stream with 256 KiB unread makes its session a troubled one: new streams go to other
//!    sessions, and a further one is started for them if necessary (`placement`). So a later client
//!    is never delayed.
//! 2. The inboxes of a session hold up to its share of 64 MiB for a target: with the default of 4
//!    sessions 16 MiB, which the agent's 0.7 MB/s takes 23 s to fill. Until then the other streams
//!    are not affected.
//! 3. Then the socket is not read, and all streams of the session stand still. A client that is
//!    alone in the session, or among idle ones, may pause without limit.
//! 4. Once another stream has waited 5 s for an answer, and the client with the most unread bytes
//!    has not taken a byte for as long, its stream is closed. A client that reads slowly is not
//!    affected; it slows down the streams of its session, as on any shared line.
//!
//! Memory per target: 64 MiB in inboxes (80 MiB with 20 sessions of at least 4 MiB each), plus the
//! data of one turn of [`READ_BATCH`] messages for each.

mod first_bytes;
mod keepalive;
mod losses;
pub(super) mod resume;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ssm_channel::{AgentVersion, Channel, DataKey, Event};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::{self, Message};
use tracing::{debug, info, warn};

use self::first_bytes::{AgentSigns, FirstBytes, FirstBytesAction};
use self::losses::LossReports;
use self::resume::{FlapLimit, SessionCalls};
use super::ending;
use super::leftovers::SessionRecord;
use super::socket::{self, ChannelSocket, SocketEvent, WebSocket};
use super::state::{SEND_BUFFER, SessionMachines, SharedSession};
use crate::base::background;
use crate::base::error_text::{chain, plain};
use crate::base::event_limit::{EventDecision, EventLimiter};
use crate::base::foreign_text::ForeignText;
use crate::base::names::{NodeId, SessionId};
use crate::base::single_flight::Clock;
use crate::base::stream::BoxFuture;
use crate::config::Endpoint;
use crate::tunnel::ssm::driver::keepalive::{Keepalive, KeepaliveAction};
use crate::tunnel::{EndCause, TunnelError};

/// Timeout for the agent's acknowledgements at the end of a session.
const GOODBYE_DEADLINE: Duration = Duration::from_secs(2);
/// Longest time that a stream waits for an answer while the inboxes of others are full.
const STALL_DEADLINE: Duration = Duration::from_secs(5);
/// Interval of keepalives on an idle session with streams, if enabled. The shortest idle timeout
/// that an account can set is a minute.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// Messages taken from the socket per turn before the machines may answer.
const READ_BATCH: usize = 64;
/// Pauses and restarts of one session that are logged within [`PAUSES_WINDOW`].
const MOST_PAUSES: u32 = 4;
const PAUSES_WINDOW: Duration = Duration::from_secs(10);
/// Older agents ignore the document's `host` and connect to their own.
const OLDEST_AGENT: AgentVersion = AgentVersion::FIRST_WITH_REMOTE_HOST;

/// Phase of a session, for waiters.
#[derive(Clone, Debug)]
pub(super) enum SessionPhase {
    /// The handshake is running.
    Starting,
    /// Data may flow.
    Up,
    /// The connection was lost and is being replaced.
    Resuming,
    /// Over.
    Ended(TunnelError),
}

/// Identity and settings of a session.
pub(super) struct SessionInfo {
    pub(super) bastion: NodeId,
    pub(super) session_id: SessionId,
    /// Destination of its streams.
    pub(super) endpoint: Endpoint,
    /// Timeout of a dial, and so of an outstanding answer of the agent.
    pub(super) dial_timeout: Duration,
    /// Its record for later processes, in case this one is killed.
    pub(super) record: Option<SessionRecord>,
    /// Send keepalives, so that the account's idle timeout never expires.
    pub(super) keep_alive: bool,
    /// Wall clock, to detect a suspend of the machine.
    pub(super) wall: Clock,
}

pub(super) struct Driver {
    shared: Arc<SharedSession>,
    socket: ChannelSocket,
    phase: watch::Sender<SessionPhase>,
    bastion: NodeId,
    session_id: SessionId,
    endpoint: Endpoint,
    dial_timeout: Duration,
    record: Option<SessionRecord>,
    calls: SessionCalls,
    /// The machines' time zero.
    epoch: Instant,
    pulse: Keepalive,
    first_bytes: FirstBytes,
    /// Limits the log lines about pauses.
    pauses: EventLimiter,
    /// Attempts to resume since the service last sent something.
    fruitless: u32,
    flapping: FlapLimit,
    /// Messages of the agent that were dropped.
    losses: LossReports,
    /// The pending request for a data key.
    key: Option<BoxFuture<'static, Result<DataKey, TunnelError>>>,
    /// Time of the next keepalive to the agent.
    keep_alive_at: Option<Instant>,
    /// Deadline for the acknowledgement of the terminate flag.
    give_up: Option<Instant>,
    /// Time since which the inboxes have been full, or close to it.
    stalled: Option<Instant>,
}

/// Ends the streams of a driver that is dropped, for example when the runtime stops.
struct EndStreamsOnDrop(Arc<SharedSession>);

impl Drop for EndStreamsOnDrop {
    fn drop(&mut self) {
        self.0.lock().end(TunnelError::Protocol {
            reason: "the session's driver task ended unexpectedly".into(),
        });
    }
}

/// Event that woke the driver.
enum DriverEvent {
    Socket(SocketEvent),
    Woken,
    Timer,
    Key(Result<DataKey, TunnelError>),
}

/// Events that a turn waits for.
struct WaitSet {
    deadline: Instant,
    /// The inboxes have room.
    may_read: bool,
}

impl Driver {
    pub(super) fn new(
        socket: WebSocket,
        shared: Arc<SharedSession>,
        phase: watch::Sender<SessionPhase>,
        about: SessionInfo,
        calls: SessionCalls,
    ) -> Self {
        let now = Instant::now();
        Self {
            shared,
            socket: ChannelSocket::new(socket),
            phase,
            bastion: about.bastion,
            session_id: about.session_id,
            endpoint: about.endpoint,
            dial_timeout: about.dial_timeout,
            record: about.record,
            calls,
            epoch: now,
            pulse: Keepalive::new(about.wall, about.dial_timeout),
            first_bytes: FirstBytes::default(),
            pauses: EventLimiter::new(MOST_PAUSES, PAUSES_WINDOW),
            fruitless: 0,
            flapping: FlapLimit::default(),
            losses: LossReports::default(),
            key: None,
            keep_alive_at: about.keep_alive.then_some(now + KEEP_ALIVE_INTERVAL),
            give_up: None,
            stalled: None,
        }
    }

    /// Runs until the session ends, reports the reason to every stream and waiter, and `terminate`s
    /// the session at AWS before the socket is closed; the result tells if that worked.
    pub(super) async fn run(mut self, terminate: impl Future<Output = bool>) {
        let _guard = EndStreamsOnDrop(Arc::clone(&self.shared));
        let end = background::outcome(self.drive_and_resume()).await;
        let end = end.unwrap_or_else(TunnelError::Internal);
        // After the terminate flag, any end is the answer to it.
        let end = match self.give_up {
            Some(_) => TunnelError::ShuttingDown,
            None => end,
        };
        let (bastion, session_id) = (&self.bastion, &self.session_id);
        if matches!(end, TunnelError::ShuttingDown) {
            debug!(%bastion, %session_id, "SSM session closed");
        } else {
            let id = match &end {
                TunnelError::SessionEnded { cause, .. } => cause.id(),
                TunnelError::NameNotResolved { .. } => "tunnel.name",
                _ => "ssm.session",
            };
            info!(id, %bastion, %session_id, reason = %end, "SSM session ended");
        }
        let over_at_aws = is_over_at_aws(&end);
        self.shared.lock().end(end.clone());
        self.phase.send_replace(SessionPhase::Ended(end));
        self.last_words().await;
        if (over_at_aws || terminate.await)
            && let Some(record) = self.record.take()
        {
            record.over();
        }
        self.socket.close().await;
    }

    async fn drive_and_resume(&mut self) -> TunnelError {
        loop {
            let end = self.drive().await;
            let lost = matches!(end, TunnelError::ChannelLost { .. });
            // A session that never came up is started anew by the next connection.
            if !lost || matches!(*self.phase.borrow(), SessionPhase::Starting) {
                return end;
            }
            if let Err(end) = self.resume(&end).await {
                return end;
            }
        }
    }

    /// Sends the machine's remaining output, such as the answer that refuses an action of the
    /// handshake. Best effort.
    async fn last_words(&mut self) {
        let now = self.epoch.elapsed();
        {
            let mut state = self.shared.lock();
            std::iter::from_fn(|| state.channel.poll_transmit(now))
                .take(socket::BATCH)
                .for_each(|transmit| self.socket.push(transmit));
        }
        self.socket.last_words().await;
    }

    /// Runs until the session ends or its connection is lost.
    async fn drive(&mut self) -> TunnelError {
        loop {
            let next = match self.advance() {
                Ok(next) => next,
                Err(end) => return end,
            };
            let outcome = match self.wait(next).await {
                DriverEvent::Socket(SocketEvent::Written(written)) => {
                    written.map_err(|error| lost(&error))
                }
                DriverEvent::Socket(SocketEvent::Read(message)) => self.read_some(message).await,
                DriverEvent::Woken => Ok(()),
                DriverEvent::Timer => self.on_timer(),
                DriverEvent::Key(key) => self.on_key(key),
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    /// Moves the machines' output into the batch; returns the events to wait for.
    fn advance(&mut self) -> Result<WaitSet, TunnelError> {
        let now = self.epoch.elapsed();
        let shared = Arc::clone(&self.shared);
        let mut guard = shared.lock();
        let state = &mut *guard;
        if state.retired || state.closing {
            state.release_spares();
        }
        // A retired session ends with its last stream.
        state.closing |= state.retired && state.streams.is_empty();
        if state.closing {
            self.say_goodbye(state);
        }
        let held = self.release(state, now)?;
        for (id, slot) in &mut state.streams {
            if state.mux.queued(*id) < SEND_BUFFER {
                slot.wake_writer();
            }
        }
        while self.socket.has_room() {
            match state.channel.poll_transmit(now) {
                Some(transmit) => self.socket.push(transmit),
                None => break,
            }
        }
        let waited_enough = self.give_up.is_some_and(|at| Instant::now() >= at);
        let said = state.goodbye_queued && self.socket.is_empty() && state.is_said();
        if waited_enough || said {
            return Err(TunnelError::ShuttingDown);
        }
        let stall_ends = self.stall(state);
        let may_read = !state.is_full();
        if !may_read {
            self.pulse.note_input(); // Silence caused by this side says nothing about the path.
        }
        // The handshake has a deadline of its own, and an agent that the service reported as away
        // is not expected to answer.
        if !may_read || !self.first_bytes.is_established() || state.interrupted.is_some() {
            self.pulse.heard_agent();
        }
        let machine = state.channel.poll_timeout().map(|at| self.epoch + at);
        let path = self.pulse.deadline(!state.channel.is_drained());
        let keep_alive = self.keep_alive_at.filter(|_| state.is_in_use());
        let others = [machine, self.give_up, stall_ends, keep_alive, held];
        let deadline = others.into_iter().flatten().fold(path, Instant::min);
        Ok(WaitSet { deadline, may_read })
    }

    /// Moves the streams' output into the channel, as far as it may leave. Returns the time until
    /// which it is held back.
    fn release(
        &mut self,
        state: &mut SessionMachines,
        now: Duration,
    ) -> Result<Option<Instant>, TunnelError> {
        while state.channel.sendable() > 0 {
            let signs = AgentSigns {
                acknowledged: state.channel.stats().in_flight == 0,
                irreplaceable: state.is_irreplaceable(),
                round_trip: state.channel.stats().srtt,
            };
            let bytes_wait = state.mux.has_transmit();
            let most = match self.first_bytes.step(signs, bytes_wait) {
                // The terminate flag does not wait: no data follows that could be lost.
                FirstBytesAction::Open => state.channel.max_payload(),
                FirstBytesAction::Hold(_) if state.closing => state.channel.max_payload(),
                FirstBytesAction::Hold(until) => return Ok(until),
                FirstBytesAction::Probe => {
                    state.mux.keep_alive();
                    smux::HEADER_LEN
                }
            };
            let Some(payload) = state.mux.poll_transmit(most) else {
                break;
            };
            let sent = if self.first_bytes.is_early() {
                state.channel.send_early(now, payload)
            } else {
                state.channel.send(now, payload)
            };
            sent.map_err(|error| self.translate(error))?;
        }
        Ok(None)
    }

    /// Handles clients that do not read their results. Returns the deadline of the streams that
    /// wait for them; closes the fullest stream after it. See the module documentation.
    fn stall(&mut self, state: &mut SessionMachines) -> Option<Instant> {
        if state.has_ample_room() {
            self.stalled = None;
        }
        if self.stalled.is_none() && !state.is_full() {
            return None;
        }
        let now = Instant::now();
        let since = *self.stalled.get_or_insert_with(|| {
            info!(
                bastion = %self.bastion, session_id = %self.session_id, streams = state.streams.len(),
                "a client does not read its result and blocks the other connections of its session"
            );
            now
        });
        let waiting = state.longest_wait()?;
        let (id, idle) = state.fullest()?;
        let limit = since.max(waiting).max(idle) + STALL_DEADLINE;
        if now < limit {
            return Some(limit);
        }
        warn!(bastion = %self.bastion, session_id = %self.session_id, "ending a connection whose client does not read, to unblock the other connections");
        state.give_up(id);
        self.stalled = None;
        None
    }

    /// Ends the session once: FIN for every stream after its queued bytes, then the terminate flag.
    fn say_goodbye(&mut self, state: &mut SessionMachines) {
        if self.give_up.is_none() {
            self.give_up = Some(Instant::now() + GOODBYE_DEADLINE);
            for id in state.streams.keys() {
                state.mux.finish(*id);
            }
        }
        if !state.goodbye_queued && !state.mux.has_transmit() {
            state.goodbye_queued = true;
            state.channel.terminate(self.epoch.elapsed());
        }
    }

    async fn wait(&mut self, next: WaitSet) -> DriverEvent {
        let key = async {
            match &mut self.key {
                Some(key) => key.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            ready = self.socket.ready(next.may_read) => DriverEvent::Socket(ready),
            () = self.shared.wake.notified() => DriverEvent::Woken,
            () = sleep_until(next.deadline) => DriverEvent::Timer,
            key = key => DriverEvent::Key(key),
        }
    }

    /// Handles the message that woke the driver and those that are already here.
    async fn read_some(
        &mut self,
        first: Option<Result<Message, tungstenite::Error>>,
    ) -> Result<(), TunnelError> {
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(message) = next.take() {
            match message {
                Some(Ok(message)) => self.on_message(message)?,
                Some(Err(error)) => return Err(lost(&error)),
                None => {
                    return Err(TunnelError::ChannelLost {
                        reason: "the service closed the WebSocket".into(),
                    });
                }
            }
            taken += 1;
            if taken < READ_BATCH {
                next = self.socket.already_here().await;
            }
        }
        Ok(())
    }

    fn on_message(&mut self, message: Message) -> Result<(), TunnelError> {
        self.pulse.note_input();
        match message {
            Message::Binary(bytes) => {
                self.fruitless = 0;
                self.on_binary(bytes)
            }
            Message::Close(frame) => Err(TunnelError::ChannelLost {
                reason: match frame {
                    Some(frame) => format!(
                        "the service closed the WebSocket ({} {})",
                        frame.code,
                        ForeignText::new(&frame.reason)
                    )
                    .into(),
                    None => "the service closed the WebSocket".into(),
                },
            }),
            // The library answers pings itself; a pong was recorded above.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
            Message::Text(_) => {
                debug!("ignored an unexpected text message on the data channel");
                Ok(())
            }
        }
    }

    fn on_binary(&mut self, bytes: Bytes) -> Result<(), TunnelError> {
        let now = self.epoch.elapsed();
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        state.heard = Instant::now();
        state.silent_since = None;
        self.pulse.heard_agent();
        let outcome = state.channel.handle_message(now, bytes);
        state.note_gap();
        if let Some(dropped) = self.losses.unreported(state.channel.stats().dropped) {
            warn!(bastion = %self.bastion, session_id = %self.session_id, dropped, "dropped messages of the SSM agent: too many are queued behind a missing one; the agent resends them slowly");
        }
        // Events before an error still count.
        self.drain_events(&mut state)?;
        outcome.map_err(|error| self.translate(error))
    }

    fn drain_events(&mut self, state: &mut SessionMachines) -> Result<(), TunnelError> {
        while let Some(event) = state.channel.poll_event() {
            match event {
                Event::Established {
                    agent_version,
                    customer_message,
                } => {
                    debug!(bastion = %self.bastion, agent = %agent_version, customer_message, "SSM handshake complete");
                    self.judge(agent_version)?;
                    self.first_bytes.established();
                    self.phase.send_replace(SessionPhase::Up);
                }
                Event::KeyRequired {
                    kms_key_id,
                    challenge,
                } => self.key = Some((self.calls.data_key)(kms_key_id, challenge)),
                Event::Output(data) => {
                    let fed = state.mux.handle_input(data);
                    state.deliver();
                    fed.map_err(|error| TunnelError::Protocol {
                        reason: chain(&error),
                    })?;
                }
                Event::ConnectToPortError => state.refuse_oldest(),
                Event::Disconnected => {
                    return Err(TunnelError::SessionEnded {
                        cause: EndCause::Agent,
                        reason: "the agent disconnected the port".into(),
                    });
                }
                Event::Paused => {
                    self.tell_of_pause("the service paused the session: the agent is disconnected");
                    state.interrupted.get_or_insert_with(Instant::now);
                }
                Event::Restarted => {
                    self.tell_of_pause("the agent has reconnected");
                    state.interrupted = None;
                    state.dials.interrupted(Instant::now());
                }
            }
        }
        Ok(())
    }

    /// Logs that the service paused or restarted the session. Limited, so that a service that does
    /// so all the time does not fill the log.
    fn tell_of_pause(&self, news: &'static str) {
        let (bastion, session_id) = (&self.bastion, &self.session_id);
        match self.pauses.next() {
            EventDecision::Through { held: 0 } => info!(%bastion, %session_id, "{news}"),
            EventDecision::Through { held } => {
                info!(%bastion, %session_id, left_out = held, "{news}")
            }
            EventDecision::First => {
                let seconds = PAUSES_WINDOW.as_secs();
                warn!(%bastion, %session_id, "the service pauses and restarts the session repeatedly; suppressing further lines for up to {seconds} s");
            }
            EventDecision::Held => {}
        }
    }

    /// Refuses agents that would forward the bytes to another host.
    fn judge(&self, agent: AgentVersion) -> Result<(), TunnelError> {
        let (bastion, version) = (self.bastion.to_string(), agent.to_string());
        if agent < AgentVersion::FIRST_WITH_SMUX {
            return Err(TunnelError::NoMultiplexing { bastion, version });
        }
        if agent < OLDEST_AGENT {
            let needed = OLDEST_AGENT.to_string();
            return Err(TunnelError::AgentTooOld {
                bastion,
                version,
                needed,
            });
        }
        Ok(())
    }

    fn on_key(&mut self, key: Result<DataKey, TunnelError>) -> Result<(), TunnelError> {
        self.key = None;
        let now = self.epoch.elapsed();
        let mut state = self.shared.lock();
        match key {
            Ok(key) => state
                .channel
                .provide_key(now, key)
                .map_err(|error| self.translate(error)),
            Err(error) => {
                // The agent receives it in the last message, and does not wait for its deadline.
                _ = state.channel.refuse_key(now, &error.to_string());
                Err(error)
            }
        }
    }

    fn on_timer(&mut self) -> Result<(), TunnelError> {
        let unacked = {
            let mut state = self.shared.lock();
            state
                .channel
                .handle_timeout(self.epoch.elapsed())
                .map_err(|error| self.translate(error))?;
            if self.keep_alive_at.is_some_and(|at| Instant::now() >= at) {
                self.keep_alive_at = Some(Instant::now() + KEEP_ALIVE_INTERVAL);
                state.mux.keep_alive();
            }
            !state.channel.is_drained()
        };
        if Instant::now() < self.pulse.deadline(unacked) {
            return Ok(());
        }
        match self.pulse.check(unacked) {
            KeepaliveAction::Wait => {}
            KeepaliveAction::Ping => self.socket.push_ping(),
            KeepaliveAction::Woken(slept) => {
                info!(bastion = %self.bastion, session_id = %self.session_id, slept_s = slept.as_secs(), "the machine was suspended; probing the connection");
                self.socket.push_ping();
            }
            KeepaliveAction::AgentSilent(silence) => {
                let after_s = silence.as_secs();
                warn!(id = "ssm.agent-silent", bastion = %self.bastion, session_id = %self.session_id, after_s, "the SSM agent does not answer; new connections use other sessions");
                let mut state = self.shared.lock();
                state.note_silent_agent(&self.bastion, silence, self.dial_timeout);
            }
            KeepaliveAction::Dead(silence) => {
                return Err(TunnelError::ChannelLost {
                    reason: format!("no answer for {} s", silence.as_secs()).into(),
                });
            }
        }
        Ok(())
    }

    /// Converts the channel's error to the tunnel's.
    fn translate(&self, error: ssm_channel::Error) -> TunnelError {
        match error {
            ssm_channel::Error::HandshakeTimeout { after, .. } => TunnelError::HandshakeTimeout {
                bastion: self.bastion.to_string(),
                after,
            },
            ssm_channel::Error::UnsupportedAction { action } => TunnelError::UnsupportedAction {
                action: action.into(),
            },
            ssm_channel::Error::Closed { reason }
                if ending::is_failed_lookup(&reason, &self.endpoint.host) =>
            {
                TunnelError::NameNotResolved {
                    bastion: self.bastion.to_string(),
                    endpoint: self.endpoint.clone(),
                    reason: ending::words(&reason),
                }
            }
            ssm_channel::Error::Closed { reason } => TunnelError::SessionEnded {
                cause: ending::classify_at(&reason, self.epoch.elapsed()),
                reason: ending::words(&reason),
            },
            other => TunnelError::Protocol {
                reason: chain(&other),
            },
        }
    }
}

/// Returns true if AWS has ended the session for good, so that it need not be terminated.
fn is_over_at_aws(end: &TunnelError) -> bool {
    use EndCause::{Gone, IdleTimeout, MaximumDuration, Terminated};
    matches!(
        end,
        TunnelError::SessionEnded {
            cause: IdleTimeout | MaximumDuration | Terminated | Gone,
            ..
        }
    )
}

fn lost(error: &tungstenite::Error) -> TunnelError {
    let reason = match error {
        tungstenite::Error::Io(error) => plain(error),
        other => chain(other),
    };
    TunnelError::ChannelLost { reason }
}

/// Creates the machine for a session; kept here beside its only user.
pub(super) fn channel(config: ssm_channel::ChannelConfig) -> Channel {
    Channel::new(config, Duration::ZERO)
}

#[cfg(test)]
mod tests;
