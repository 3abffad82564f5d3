//! Decides when a session's first bytes may leave.
//!
//! The agent sends HandshakeComplete before it is ready. For a moment it acknowledges messages and
//! discards them for good; then it silently drops messages until its port handler runs. The first
//! is seen in 2 of 40 fresh sessions without any network delay and in 0 of 36 with a round trip of
//! 2 ms, and lasts longer where the agent is not scheduled; the second takes some tens of
//! milliseconds on EC2. No answer distinguishes a discarded message from an accepted one. So a
//! session does not depend on its first messages:
//!
//! - The first message is a NOP of the multiplexer. It carries no data and may be lost: the loss of
//!   whole frames does not break the framing.
//! - Data follow [`HOLD`] after the handshake, less the round trip, which passes as well.
//! - Messages that may be dropped are repeated soon (`ssm_channel`), and a first dial without an
//!   answer is repeated (`supervisor`).
//! - Bytes that cannot be repeated, those of `pgiam tunnel`, wait until the agent has acknowledged
//!   two NOPs, of which the second left [`SETTLED`] after the handshake.

use std::time::Duration;

use tokio::time::Instant;

/// Delay from the agent's HandshakeComplete to the first data: five times the observed need.
const HOLD: Duration = Duration::from_millis(10);
/// Delay for bytes that must not be lost. It affects only the first connection of a cold tunnel.
const SETTLED: Duration = Duration::from_millis(100);

/// Number of messages, sent within that time after the handshake, that may come before the agent is
/// ready.
const EARLY: (u8, Duration) = (4, Duration::from_secs(2));

/// Action for a session's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstBytesAction {
    /// Send a NOP, and call again.
    Probe,
    /// Hold the data back until then, or with `None` until the agent acknowledges.
    Hold(Option<Instant>),
    /// Data may flow.
    Open,
}

/// Known state of the agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct AgentSigns {
    /// It has acknowledged all messages.
    pub(super) acknowledged: bool,
    /// Some of the waiting bytes cannot be repeated.
    pub(super) irreplaceable: bool,
    /// The round trip, as measured in the handshake.
    pub(super) round_trip: Option<Duration>,
}

/// Progress of a session with its first bytes.
#[derive(Debug, Default)]
pub(super) struct FirstBytes {
    established: Option<Instant>,
    probes: u8,
    open: bool,
    /// Messages sent so far, up to the number that can be early.
    sent: u8,
}

impl FirstBytes {
    /// Records that the handshake is complete.
    pub(super) fn established(&mut self) {
        self.established = Some(Instant::now());
    }

    /// Returns true if the handshake is complete.
    pub(super) fn is_established(&self) -> bool {
        self.established.is_some()
    }

    /// Counts a message; returns true if the agent may drop it because it comes too early.
    pub(super) fn is_early(&mut self) -> bool {
        let recent = self.established.is_some_and(|at| at.elapsed() < EARLY.1);
        let early = recent && self.sent < EARLY.0;
        self.sent = (self.sent + 1).min(EARLY.0);
        early
    }

    /// Returns the next action. `bytes_wait`: there is something to send.
    pub(super) fn step(&mut self, signs: AgentSigns, bytes_wait: bool) -> FirstBytesAction {
        let Some(established) = self.established.filter(|_| !self.open) else {
            return FirstBytesAction::Open; // Before the handshake the channel accepts nothing anyway.
        };
        let now = Instant::now();
        if self.probes == 0 {
            self.probes = 1;
            return FirstBytesAction::Probe;
        }
        if bytes_wait && !signs.irreplaceable {
            let hold = HOLD.saturating_sub(signs.round_trip.unwrap_or_default());
            if now < established + hold {
                return FirstBytesAction::Hold(Some(established + hold));
            }
            self.open = true;
            return FirstBytesAction::Open;
        }
        match self.probes {
            1 if now < established + SETTLED => FirstBytesAction::Hold(Some(established + SETTLED)),
            1 if signs.acknowledged => {
                self.probes = 2;
                FirstBytesAction::Probe
            }
            2.. if signs.acknowledged => {
                self.open = true;
                FirstBytesAction::Open
            }
            _ => FirstBytesAction::Hold(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const ROUND_TRIP: Duration = Duration::from_millis(4);

    fn signs(acknowledged: bool, irreplaceable: bool) -> AgentSigns {
        AgentSigns {
            acknowledged,
            irreplaceable,
            round_trip: Some(ROUND_TRIP),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn data_follow_a_nop_and_a_moment() {
        let mut first = FirstBytes::default();
        assert_eq!(first.step(signs(true, false), true), FirstBytesAction::Open);
        first.established();
        assert_eq!(
            first.step(signs(false, false), true),
            FirstBytesAction::Probe
        );
        let until = Instant::now() + HOLD - ROUND_TRIP;
        assert_eq!(
            first.step(signs(false, false), true),
            FirstBytesAction::Hold(Some(until))
        );
        advance(HOLD - ROUND_TRIP).await;
        // With or without its acknowledgement: a repeated message arrives in order.
        assert_eq!(
            first.step(signs(false, false), true),
            FirstBytesAction::Open
        );
        assert_eq!(first.step(signs(false, true), true), FirstBytesAction::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_cannot_be_sent_again_wait_for_two_acknowledgements() {
        let mut first = FirstBytes::default();
        first.established();
        let settled = Instant::now() + SETTLED;
        assert_eq!(
            first.step(signs(false, true), true),
            FirstBytesAction::Probe
        );
        assert_eq!(
            first.step(signs(true, true), true),
            FirstBytesAction::Hold(Some(settled))
        );
        advance(SETTLED).await;
        assert_eq!(
            first.step(signs(false, true), true),
            FirstBytesAction::Hold(None)
        );
        assert_eq!(first.step(signs(true, true), true), FirstBytesAction::Probe);
        assert_eq!(
            first.step(signs(false, true), true),
            FirstBytesAction::Hold(None)
        );
        assert_eq!(first.step(signs(true, true), true), FirstBytesAction::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_waits_for_its_first_stream_is_ready_for_it() {
        let mut first = FirstBytes::default();
        first.established();
        assert_eq!(
            first.step(signs(false, false), false),
            FirstBytesAction::Probe
        );
        advance(SETTLED).await;
        assert_eq!(
            first.step(signs(true, false), false),
            FirstBytesAction::Probe
        );
        assert_eq!(
            first.step(signs(true, false), false),
            FirstBytesAction::Open
        );
        assert_eq!(first.step(signs(true, true), true), FirstBytesAction::Open);
    }
}
