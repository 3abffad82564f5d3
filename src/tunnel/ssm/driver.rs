//! The one task that owns a session's WebSocket, both protocol machines and one timer.
//!
//! ```text
//!   SsmStream ─ write ─► smux ─► ssm-channel ─► batch ─► WebSocket
//!   SsmStream ◄─ inbox ─ smux ◄─ ssm-channel ◄────────── WebSocket
//! ```
//! Each turn first moves what the machines have to say into a batch, then waits for whatever comes
//! first: the socket taking the batch, a message, a handle's wake-up, a deadline. Writing and
//! reading are polled together, so a peer that does not read us cannot keep us from reading it.
//!
//! While the streams' inboxes together are full the socket is not read: the multiplexer's version 1
//! has no window per stream, so the alternative would be memory without bound.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use ssm_channel::{AgentVersion, Channel, Event};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::{self, Message};
use tracing::{debug, warn};

use super::socket::{self, Ready, Socket, WebSocket};
use super::state::{SEND_BUFFER, Shared, State};
use crate::tunnel::{EndCause, TunnelError, chain, plain};

/// How often we ping an idle path. The agent pings every 54 s; a client should every 20–30 s.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Silence after a ping that makes the path a dead one.
const PONG_DEADLINE: Duration = Duration::from_secs(10);
/// How long the goodbye may wait for the agent's acknowledgements.
const GOODBYE_DEADLINE: Duration = Duration::from_secs(2);
/// How long full inboxes of which nobody takes a byte may keep other streams waiting. Somebody who
/// waits for another connection's answer before reading on would wait for ever. Below the 30 s that
/// a new connection has for its login.
const STANDSTILL_DEADLINE: Duration = Duration::from_secs(20);
/// Messages taken from the socket per turn before the machines may answer.
const READ_BATCH: usize = 64;
/// Older agents ignore the document's `host` and dial themselves.
const OLDEST_AGENT: AgentVersion = AgentVersion::FIRST_WITH_REMOTE_HOST;

/// Where a session is in its life, for those who wait for it.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// The handshake is going on.
    Starting,
    /// Data may flow.
    Up,
    /// Over.
    Ended(TunnelError),
}

pub(super) struct Driver {
    shared: Arc<Shared>,
    socket: Socket,
    phase: watch::Sender<Phase>,
    bastion: Arc<str>,
    /// The machines' zero.
    epoch: Instant,
    last_heard: Instant,
    last_ping: Instant,
    /// When to stop waiting for the goodbye to be acknowledged.
    give_up: Option<Instant>,
    /// The inboxes are full, or were until recently.
    stalled: bool,
    /// While the socket is not read: since when nobody has taken a byte, and how many had been.
    standstill: Option<(Instant, u64)>,
}

/// Ends the streams of a driver that is dropped, as when the runtime stops.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.lock().end(TunnelError::Protocol {
            reason: "the session's driver ended without a reason".to_owned(),
        });
    }
}

/// What woke the driver.
enum Turn {
    Socket(Ready),
    Woken,
    Timer,
}

impl Driver {
    pub(super) fn new(
        socket: WebSocket,
        shared: Arc<Shared>,
        phase: watch::Sender<Phase>,
        bastion: Arc<str>,
    ) -> Self {
        let now = Instant::now();
        Self {
            shared,
            socket: Socket::new(socket),
            phase,
            bastion,
            epoch: now,
            last_heard: now,
            last_ping: now,
            give_up: None,
            stalled: false,
            standstill: None,
        }
    }

    /// Runs until the session ends, tells every stream and every waiter why, and `terminate`s the
    /// session at AWS before the socket is closed.
    pub(super) async fn run(mut self, terminate: impl Future<Output = ()>) {
        let _guard = EndOnDrop(Arc::clone(&self.shared));
        let end = AssertUnwindSafe(self.drive()).catch_unwind().await;
        let end = end.unwrap_or_else(|_| TunnelError::Protocol {
            reason: "the session's driver panicked".to_owned(),
        });
        debug!(bastion = %self.bastion, reason = %end, "SSM session ended");
        self.shared.lock().end(end.clone());
        self.phase.send_replace(Phase::Ended(end));
        self.last_words().await;
        terminate.await;
        self.socket.close().await;
    }

    /// Sends what the machine still has to say, such as the answer that refuses an action of the
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

    async fn drive(&mut self) -> TunnelError {
        loop {
            let (deadline, may_read) = match self.advance() {
                Ok(next) => next,
                Err(end) => return end,
            };
            let outcome = match self.wait(deadline, may_read).await {
                Turn::Socket(Ready::Written(written)) => written.map_err(|error| lost(&error)),
                Turn::Socket(Ready::Read(message)) => self.read_some(message).await,
                Turn::Woken => Ok(()),
                Turn::Timer => self.on_timer(),
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    /// Moves what the machines have to say into the batch. Returns the next deadline and whether
    /// the inboxes have room.
    fn advance(&mut self) -> Result<(Instant, bool), TunnelError> {
        let now = self.epoch.elapsed();
        let shared = Arc::clone(&self.shared);
        let mut guard = shared.lock();
        let state = &mut *guard;
        if state.closing {
            self.say_goodbye(state);
        }
        while state.channel.sendable() > 0 {
            let Some(payload) = state.mux.poll_transmit(ssm_channel::MAX_PAYLOAD) else {
                break;
            };
            state
                .channel
                .send(now, payload)
                .map_err(|error| self.translate(error))?;
        }
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
        if state.is_full()
            && let Some(limit) = self.stall(state)
        {
            return Ok((self.give_up.map_or(limit, |at| at.min(limit)), false));
        }
        self.standstill = None;
        if state.has_ample_room() {
            self.stalled = false;
        }
        let ping = self.ping_due();
        let machine = state
            .channel
            .poll_timeout()
            .map_or(ping, |at| self.epoch + at);
        let deadline = ping.min(machine);
        Ok((self.give_up.map_or(deadline, |at| at.min(deadline)), true))
    }

    /// The inboxes are full: until when the session waits for their readers. `None` when it has
    /// waited long enough and given up the fullest stream.
    fn stall(&mut self, state: &mut State) -> Option<Instant> {
        if !std::mem::replace(&mut self.stalled, true) {
            warn!(
                bastion = %self.bastion,
                "clients do not read their results; all connections of the session wait for them"
            );
        }
        let now = Instant::now();
        self.last_heard = now; // Silence that we cause says nothing about the path.
        let (since, taken) = self.standstill.get_or_insert((now, state.taken()));
        // A client that is alone may pause for as long as it likes.
        if *taken != state.taken() || state.streams.len() < 2 {
            (*since, *taken) = (now, state.taken());
        }
        let limit = *since + STANDSTILL_DEADLINE;
        if now < limit {
            return Some(limit);
        }
        warn!(bastion = %self.bastion, "a connection that does not read is ended for the others' sake");
        state.give_up_fullest();
        None
    }

    /// Once: FIN for every stream behind its queued bytes; then, when those are out, the terminate
    /// flag.
    fn say_goodbye(&mut self, state: &mut State) {
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

    async fn wait(&mut self, deadline: Instant, may_read: bool) -> Turn {
        tokio::select! {
            biased;
            ready = self.socket.ready(may_read) => Turn::Socket(ready),
            () = self.shared.wake.notified() => Turn::Woken,
            () = sleep_until(deadline) => Turn::Timer,
        }
    }

    /// Handles the message that woke us and those that are already here.
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
                        reason: "the service closed the WebSocket".to_owned(),
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
        self.last_heard = Instant::now();
        match message {
            Message::Binary(bytes) => self.on_binary(bytes),
            Message::Close(frame) => Err(TunnelError::ChannelLost {
                reason: match frame {
                    Some(frame) => format!(
                        "the service closed the WebSocket ({} {})",
                        frame.code, frame.reason
                    ),
                    None => "the service closed the WebSocket".to_owned(),
                },
            }),
            // The library answers pings itself; a pong has done its work above.
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
        let outcome = state.channel.handle_message(now, bytes);
        // What came before an error still counts.
        self.drain_events(&mut state)?;
        outcome.map_err(|error| self.translate(error))
    }

    fn drain_events(&self, state: &mut State) -> Result<(), TunnelError> {
        while let Some(event) = state.channel.poll_event() {
            match event {
                Event::Established {
                    agent_version,
                    customer_message,
                } => {
                    debug!(bastion = %self.bastion, agent = %agent_version, customer_message, "SSM handshake complete");
                    if agent_version < OLDEST_AGENT {
                        return Err(TunnelError::AgentTooOld {
                            bastion: self.bastion.to_string(),
                            version: agent_version.to_string(),
                            needed: OLDEST_AGENT.to_string(),
                        });
                    }
                    self.phase.send_replace(Phase::Up);
                }
                Event::Output(data) => {
                    let fed = state.mux.handle_input(data);
                    state.deliver();
                    fed.map_err(|error| TunnelError::Protocol {
                        reason: error.to_string(),
                    })?;
                }
                Event::ConnectToPortError => state.refuse_oldest(),
                Event::Disconnected => {
                    return Err(TunnelError::SessionEnded {
                        cause: EndCause::Agent,
                        reason: "the agent disconnected the port".to_owned(),
                    });
                }
                Event::Paused => debug!(bastion = %self.bastion, "the service paused the session"),
                Event::Restarted => {
                    debug!(bastion = %self.bastion, "the service resumed the session")
                }
            }
        }
        Ok(())
    }

    fn on_timer(&mut self) -> Result<(), TunnelError> {
        let now = Instant::now();
        {
            let mut state = self.shared.lock();
            state
                .channel
                .handle_timeout(self.epoch.elapsed())
                .map_err(|error| self.translate(error))?;
        }
        if now < self.ping_due() {
            return Ok(());
        }
        if self.awaits_pong() {
            warn!(bastion = %self.bastion, "no answer to a ping: the path to the service is dead");
            return Err(TunnelError::ChannelLost {
                reason: format!("no answer for {} s", (now - self.last_heard).as_secs()),
            });
        }
        self.last_ping = now;
        self.socket.push_ping();
        Ok(())
    }

    /// Whether nothing has been heard since the last ping.
    fn awaits_pong(&self) -> bool {
        self.last_ping > self.last_heard
    }

    /// When the silence becomes a reason to ping or, after a ping, to give the path up.
    fn ping_due(&self) -> Instant {
        if self.awaits_pong() {
            self.last_ping + PONG_DEADLINE
        } else {
            self.last_heard + PING_INTERVAL
        }
    }

    /// The channel's error in the tunnel's words.
    fn translate(&self, error: ssm_channel::Error) -> TunnelError {
        match error {
            ssm_channel::Error::HandshakeTimeout { after, .. } => TunnelError::HandshakeTimeout {
                bastion: self.bastion.to_string(),
                after,
            },
            ssm_channel::Error::UnsupportedAction { action } => {
                TunnelError::UnsupportedAction { action }
            }
            ssm_channel::Error::Closed { reason } => TunnelError::SessionEnded {
                cause: EndCause::Other,
                reason,
            },
            other => TunnelError::Protocol {
                reason: chain(&other),
            },
        }
    }
}

fn lost(error: &tungstenite::Error) -> TunnelError {
    let reason = match error {
        tungstenite::Error::Io(error) => plain(error),
        other => chain(other),
    };
    TunnelError::ChannelLost { reason }
}

/// Makes the machine for a session; kept here beside its only user.
pub(super) fn channel(config: ssm_channel::Config) -> Channel {
    Channel::new(config, Duration::ZERO)
}

#[cfg(test)]
mod tests;
