//! The built-in agent: the managed node's end of a port session, with the real agent's habits.
//!
//! It has no send window, retransmits only its oldest message, dials serially inside its accept
//! loop, and reports a refused dial with a flag that names no stream. A client that works with it
//! must not lean on anything the real one does not give.

mod basic;
mod cipher;
mod encryption;
mod handshake;
mod mux;
mod outgoing;
mod pace;
mod pump;
mod races;
mod session;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use races::Races;
pub(crate) use session::serve;
use tokio::sync::watch;

use crate::harness::sync::lock;

/// Time from one 1,024-byte message to the next: the real agent sleeps 1 ms after each, which with
/// the rest of its loop was measured at 0.71 MB/s.
pub const REAL_PACE: Duration = Duration::from_micros(1_440);

/// What a managed node is and how its agent behaves. Changes act on running sessions where that
/// makes sense (pace, payload size, race) and on new sessions otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSettings {
    /// False: `StartSession` answers `TargetNotConnected`.
    pub online: bool,
    /// Agent version as the service lists it and as the handshake says it.
    pub version: String,
    /// As `DescribeInstanceInformation` lists it.
    pub ip_address: String,
    /// As `DescribeInstanceInformation` lists it.
    pub computer_name: String,
    /// Tags for the `tag:` filters.
    pub tags: BTreeMap<String, String>,
    /// True: no built-in agent; an independent one attaches through its side of the gateway.
    pub external: bool,
    /// Least time between two stream messages; `None` for load tests.
    pub pace: Option<Duration>,
    /// Most payload bytes of one stream message.
    pub payload_size: usize,
    /// After HandshakeComplete, acknowledge this many stream messages and throw them away, for good.
    /// The real agent does so until it has noted that the handshake is complete.
    pub discard_messages: u32,
    /// After HandshakeComplete, do so for this long.
    pub discard_for: Duration,
    /// After that, throw away this many stream messages without acknowledging them.
    /// The real agent does so while its port handler starts.
    pub not_ready_messages: u32,
    /// After HandshakeComplete, throw stream messages away for this long.
    pub not_ready_for: Duration,
    /// Every so many messages, miss the first acknowledgement if it comes back at once, as the real
    /// agent does when it has not recorded the message yet.
    pub miss_ack_every: Option<u32>,
    /// The races of a fast link in a share of the sessions, on top of what is set above; `None`: in
    /// none.
    pub races: Option<Races>,
    /// The agent is dead and the service does not know: new sessions get no agent.
    pub dead: bool,
    /// How long the client has for the handshake.
    pub handshake_limit: Duration,
    /// Never send the handshake request, as when the node cannot reach `ssmmessages`.
    pub mute: bool,
    /// Go through the handshake but never send HandshakeComplete.
    pub withhold_complete: bool,
    /// Encrypt sessions under this KMS key: a name that
    /// [`Kms::create_key`](crate::aws::kms::Kms::create_key) returned, or an alias of it.
    pub kms_key: Option<String>,
    /// Send a random `Challenge` with the `KMSEncryption` action, as agents do since 2025; the
    /// client's data key is then bound to it, if the client says it understood.
    pub kms_challenge: bool,
    /// Refuse clients that do not acknowledge the challenge (agent setting
    /// `RequireKMSChallengeResponse`).
    pub kms_challenge_required: bool,
}

/// How an agent's sessions lose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentEnd {
    /// The node shuts down or reboots and its session workers can say goodbye: the service closes
    /// the channels, without a reason, and there is nothing to resume.
    ///
    /// A mere restart of the agent's service (`systemctl restart amazon-ssm-agent`, or an update) is
    /// not this: its unit has `KillMode=process`, so the workers and their sessions live on.
    Graceful,
    /// The node or its container is killed or loses its network. The service tells the client
    /// `pause_publication`, again for every message it sends, and nothing else: the session can be
    /// resumed and will never move again, until the idle timeout ends it.
    Crash,
    /// The same without a word of the service, which goes on answering pings and takes new sessions,
    /// until [`AgentControl::set_online`].
    Silent,
}

/// Of so many messages the real agent misses the acknowledgement of one, without any network delay:
/// 5.5 %.
const MISSED_ACKS: u32 = 18;

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            online: true,
            version: "3.3.0.0".to_owned(),
            ip_address: "10.0.0.10".to_owned(),
            computer_name: "bastion.eu-central-1.compute.internal".to_owned(),
            tags: BTreeMap::from([("Name".to_owned(), "bastion".to_owned())]),
            external: false,
            pace: Some(REAL_PACE),
            payload_size: 1024,
            discard_messages: 0,
            discard_for: Duration::ZERO,
            not_ready_messages: 0,
            not_ready_for: Duration::ZERO,
            miss_ack_every: Some(MISSED_ACKS),
            races: Some(Races::default()),
            dead: false,
            handshake_limit: Duration::from_secs(15),
            mute: false,
            withhold_complete: false,
            kms_key: None,
            kms_challenge: true,
            kms_challenge_required: false,
        }
    }
}

/// Controls of one node and its agent; clones share it.
#[derive(Debug, Clone)]
pub struct AgentControl(Arc<Node>);

#[derive(Debug)]
struct Node {
    settings: Mutex<AgentSettings>,
    /// Sessions that have begun.
    sessions: AtomicU64,
    end: watch::Sender<Option<AgentEnd>>,
}

impl Default for AgentControl {
    fn default() -> Self {
        Self(Arc::new(Node {
            settings: Mutex::default(),
            sessions: AtomicU64::new(0),
            end: watch::Sender::new(None),
        }))
    }
}

impl AgentControl {
    /// The settings as they are now.
    pub fn settings(&self) -> AgentSettings {
        lock(&self.0.settings).clone()
    }

    /// Changes the settings.
    pub fn update(&self, change: impl FnOnce(&mut AgentSettings)) {
        change(&mut lock(&self.0.settings));
    }

    /// The real agent's speed (on) or as fast as it goes (off).
    pub fn set_pacing(&self, on: bool) {
        self.update(|s| s.pace = on.then_some(REAL_PACE));
    }

    /// Connected to the service or not. Running sessions go on; end them separately.
    pub fn set_online(&self, online: bool) {
        self.update(|s| (s.online, s.dead) = (online, false));
    }

    /// Turns on the races of a fast link in every session: the first stream message after the
    /// handshake is dropped and one acknowledgement in sixteen is missed. Off, there are none.
    pub fn set_races(&self, on: bool) {
        self.update(|s| {
            s.races = None;
            s.not_ready_messages = u32::from(on);
            s.miss_ack_every = on.then_some(16);
        });
    }

    /// Takes the agent away from all its running sessions, and offline until
    /// [`Self::set_online`] brings it back; the old sessions it does not take up again. With
    /// [`AgentEnd::Silent`] the service goes on taking it for online.
    pub fn stop(&self, end: AgentEnd) {
        match end {
            AgentEnd::Silent => self.update(|s| s.dead = true),
            AgentEnd::Graceful | AgentEnd::Crash => self.set_online(false),
        }
        self.0.end.send_replace(Some(end));
    }

    /// The settings for the next session, with the races that come up in it.
    fn of_next_session(&self) -> AgentSettings {
        let number = self.0.sessions.fetch_add(1, Ordering::Relaxed);
        let mut settings = self.settings();
        if let Some(races) = settings.races {
            races.come_up(number, &mut settings);
        }
        settings
    }

    /// Waits for the next [`Self::stop`] after this call.
    fn stopped(&self) -> impl Future<Output = AgentEnd> + Send + use<> {
        let mut end = self.0.end.subscribe();
        async move {
            if end.changed().await.is_err() {
                // The node's last control is gone, so nobody can stop it any more.
                std::future::pending::<()>().await;
            }
            let end = *end.borrow();
            end.unwrap_or(AgentEnd::Crash)
        }
    }

    fn read<T>(&self, look: impl FnOnce(&AgentSettings) -> T) -> T {
        look(&lock(&self.0.settings))
    }
}

/// Compares dotted version numbers by their parts; missing parts are 0, strange ones too.
fn version_at_least(version: &str, least: [u32; 4]) -> bool {
    let mut parts = version.split('.').map(|p| p.parse().unwrap_or(0));
    let parts: [u32; 4] = std::array::from_fn(|_| parts.next().unwrap_or(0));
    parts >= least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(version_at_least("1.2.1000.0", [1, 2, 331, 0]));
        assert!(!version_at_least("1.2.330.9", [1, 2, 331, 0]));
        assert!(version_at_least("3", [3, 0, 0, 0]));
        assert!(!version_at_least("", [0, 0, 0, 1]));
    }
}
