//! Statistics of a transport: totals and open sessions.

use std::ops::AddAssign;
use std::time::Duration;

use super::RelayStats;

/// Statistics of one transport at a moment.
#[derive(Clone, Debug, Default)]
pub struct TunnelStats {
    /// The open sessions, oldest first; and one that is being started, last.
    pub sessions: Vec<SessionStats>,
    /// Sessions that were opened.
    pub started: u64,
    /// Opened sessions that have ended.
    pub ended: u64,
    /// Starts that failed.
    pub failed: u64,
    /// Totals of all sessions that were opened.
    pub totals: TunnelTotals,
    /// The relay, if one is configured.
    pub relay: Option<RelayStats>,
}

impl TunnelStats {
    /// Adds the sessions to the relay, and their totals.
    pub(super) fn add_relay(&mut self, relay: RelayStats, of_relay: Self) {
        let sessions = of_relay.sessions.into_iter();
        self.sessions.extend(sessions.map(|session| SessionStats {
            to_relay: true,
            ..session
        }));
        self.started += of_relay.started;
        self.ended += of_relay.ended;
        self.failed += of_relay.failed;
        self.totals += of_relay.totals;
        self.relay = Some(relay);
    }
}

/// Counts that only increase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelTotals {
    /// Bytes sent by streams.
    pub up: u64,
    /// Bytes received for streams.
    pub down: u64,
    /// Lost connections that were replaced.
    pub resumes: u64,
    /// Messages sent again.
    pub retransmissions: u64,
}

impl AddAssign for TunnelTotals {
    fn add_assign(&mut self, other: Self) {
        self.up += other.up;
        self.down += other.down;
        self.resumes += other.resumes;
        self.retransmissions += other.retransmissions;
    }
}

/// One session.
#[derive(Clone, Debug)]
pub struct SessionStats {
    /// Its id at AWS; `None` while it is being started.
    pub id: Option<String>,
    /// The managed node that carries it; `None` while it is being started.
    pub bastion: Option<String>,
    /// Its state.
    pub state: SessionState,
    /// It leads to the relay on the bastion: its one stream carries parts of many connections.
    pub to_relay: bool,
    /// Its streams that a connection uses.
    pub streams: usize,
    /// Its streams that are kept for a later connection.
    pub spares: usize,
    /// Streams that are moving bytes.
    pub busy: usize,
    /// Its totals.
    pub totals: TunnelTotals,
    /// Time since its start began.
    pub age: Duration,
    /// The smoothed round trip to the agent, once there is a measurement.
    pub round_trip: Option<Duration>,
}

impl SessionStats {
    /// Creates the entry of a session that is being started.
    #[must_use]
    pub fn starting(age: Duration) -> Self {
        Self {
            id: None,
            bastion: None,
            state: SessionState::Starting,
            to_relay: false,
            streams: 0,
            spares: 0,
            busy: 0,
            totals: TunnelTotals::default(),
            age,
            round_trip: None,
        }
    }
}

/// State of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// It is being started.
    Starting,
    /// It accepts streams.
    Up,
    /// Its connection is lost and being replaced.
    Interrupted,
    /// It accepts no new streams, and ends with its last one.
    Leaving,
}

impl SessionState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Up, Self::Interrupted, Self::Leaving];

    /// Returns the state's name, for users and programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Interrupted => "interrupted",
            Self::Leaving => "leaving",
        }
    }
}
