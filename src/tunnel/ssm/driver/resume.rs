//! Replaces a lost WebSocket: `ssm:ResumeSession`, the same data channel with a new token, and all
//! unacknowledged messages again. The streams above only see a delay.

use std::collections::VecDeque;
use std::time::Duration;

use ssm_channel::{ChannelToken, DataKey};
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{Driver, SessionPhase};
use crate::base::jitter::jitter;
use crate::base::stream::BoxFuture;
use crate::tunnel::ssm::api;
use crate::tunnel::ssm::socket::{ChannelSocket, WebSocket};
use crate::tunnel::ssm::state::SharedSession;
use crate::tunnel::{EndCause, TunnelError};

/// Pause before the second attempt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause between attempts: a network that comes back is noticed within this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Attempts before missing credentials count as final.
const CREDENTIALS_ATTEMPTS: u32 = 6;
/// With more attempts than this within that time, each is delayed a little.
const FLAPPING_OFTEN: usize = 10;
const FLAPPING_WITHIN: Duration = Duration::from_secs(10);
const FLAPPING_PAUSE: Duration = Duration::from_secs(1);

/// A WebSocket to a session's data channel, and the message that opens it.
pub(in crate::tunnel::ssm) struct OpenedChannel {
    pub(in crate::tunnel::ssm) socket: WebSocket,
    pub(in crate::tunnel::ssm) token: ChannelToken,
}

/// A call to AWS that runs beside the driver's other work.
type Call<T> = BoxFuture<'static, Result<T, TunnelError>>;

/// Calls to AWS during a session.
pub(in crate::tunnel::ssm) struct SessionCalls {
    /// `ssm:ResumeSession` and the data channel anew; `None`: AWS reports that the session is over.
    pub(in crate::tunnel::ssm) rejoin: Box<dyn Fn() -> Call<Option<OpenedChannel>> + Send + Sync>,
    /// `kms:GenerateDataKey` for a key id and the agent's challenge.
    pub(in crate::tunnel::ssm) data_key:
        Box<dyn Fn(String, Option<String>) -> Call<DataKey> + Send + Sync>,
}

impl Driver {
    /// Restores the session after its connection was lost, however long that takes. The error ends
    /// the session: AWS has ended it, or further attempts are pointless.
    pub(super) async fn resume(&mut self, lost: &TunnelError) -> Result<(), TunnelError> {
        let began = Instant::now();
        self.phase.send_replace(SessionPhase::Resuming);
        {
            let mut state = self.shared.lock();
            state.interrupted.get_or_insert_with(Instant::now);
            state.channel.disconnected(self.epoch.elapsed());
        }
        warn!(bastion = %self.bastion, session_id = %self.session_id, reason = %lost, "connection to the SSM service lost; resuming the session");
        let mut told = false;
        let mut attempts = 0_u32;
        loop {
            let pause = pause(self.fruitless).max(self.flapping.pause());
            unless_closing(&self.shared, sleep(pause)).await?;
            self.fruitless = self.fruitless.saturating_add(1);
            attempts = attempts.saturating_add(1);
            let attempt = (self.calls.rejoin)();
            match unless_closing(&self.shared, attempt).await? {
                Ok(Some(joined)) => {
                    self.take_up(joined);
                    let after_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                    info!(bastion = %self.bastion, session_id = %self.session_id, after_ms, "SSM session resumed");
                    return Ok(());
                }
                Ok(None) => {
                    return Err(TunnelError::SessionEnded {
                        cause: EndCause::Gone,
                        reason: lost.to_string().into(),
                    });
                }
                Err(error) if api::is_final(&error) && !may_pass(&error, attempts) => {
                    return Err(error);
                }
                // The first failure is worth a warning; its repetition every ten seconds is not.
                Err(error) if told => {
                    debug!(bastion = %self.bastion, session_id = %self.session_id, reason = %error, "resuming the SSM session failed");
                }
                Err(error) => {
                    warn!(bastion = %self.bastion, session_id = %self.session_id, reason = %error, "resuming the SSM session failed; retrying");
                    told = true;
                }
            }
            if !self.shared.lock().is_in_use() {
                // No connection uses it; the next connection starts a session of its own.
                return Err(lost.clone());
            }
        }
    }

    fn take_up(&mut self, joined: OpenedChannel) {
        let mut state = self.shared.lock();
        let request_id = Uuid::new_v4().to_string();
        let now = self.epoch.elapsed();
        if let Err(error) = state.channel.reconnect(now, joined.token, request_id) {
            debug!(%error, "the channel had already failed"); // The next step reports it again.
        }
        state.interrupted = None;
        state.dials.interrupted(Instant::now());
        drop(state);
        self.socket = ChannelSocket::new(joined.socket);
        self.pulse = self.pulse.renewed();
        self.phase.send_replace(SessionPhase::Up);
    }
}

/// Returns true if an error that would end the session may be temporary: in the outage that broke
/// the connection, the source of credentials may be unreachable, too.
fn may_pass(error: &TunnelError, attempts: u32) -> bool {
    matches!(error, TunnelError::Credentials(_)) && attempts < CREDENTIALS_ATTEMPTS
}

/// Limits connections of one session that come and go without end, for example behind a middlebox
/// that relays one message and closes: each brings a message, so the pauses would never grow.
#[derive(Debug, Default)]
pub(super) struct FlapLimit(VecDeque<Instant>);

impl FlapLimit {
    /// Counts an attempt; returns the delay before it.
    fn pause(&mut self) -> Duration {
        let now = Instant::now();
        self.0.retain(|at| now < *at + FLAPPING_WITHIN);
        self.0.push_back(now);
        if self.0.len() > FLAPPING_OFTEN {
            FLAPPING_PAUSE
        } else {
            Duration::ZERO
        }
    }
}

/// Runs a step of the resumption; abandons it when the session is asked to end.
async fn unless_closing<T>(
    shared: &SharedSession,
    step: impl Future<Output = T>,
) -> Result<T, TunnelError> {
    tokio::pin!(step);
    loop {
        if shared.lock().closing {
            return Err(TunnelError::ShuttingDown);
        }
        tokio::select! {
            done = &mut step => return Ok(done),
            () = shared.wake.notified() => {}
        }
    }
}

/// Returns the pause before the next attempt, after `fruitless` ones without a byte from the
/// service. Between half and all of the doubled pause, so that the sessions of many machines do not
/// come at once.
fn pause(fruitless: u32) -> Duration {
    if fruitless == 0 {
        return Duration::ZERO;
    }
    let doubled = FIRST_PAUSE.saturating_mul(1 << (fruitless - 1).min(10));
    jitter(doubled.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_capped() {
        assert_eq!(pause(0), Duration::ZERO);
        for (fruitless, most) in [(1, 250), (2, 500), (4, 2000), (7, 10_000), (4_000, 10_000)] {
            let most = Duration::from_millis(most);
            let pauses: Vec<Duration> = (0..50).map(|_| pause(fruitless)).collect();
            assert!(pauses.iter().all(|p| *p >= most / 2 && *p <= most));
            assert!(pauses.iter().any(|p| *p != pauses[0]), "no jitter");
        }
    }
}
