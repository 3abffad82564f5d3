//! What a transport has done so far, and what it holds open.

use std::ops::AddAssign;
use std::time::Duration;

/// Numbers of one transport, as they are at this moment.
#[derive(Clone, Debug, Default)]
pub struct TunnelStats {
    /// The sessions that stand, oldest first; and one that is being started, last.
    pub sessions: Vec<SessionStats>,
    /// Sessions that have stood.
    pub started: u64,
    /// Of those, the ones that are over.
    pub ended: u64,
    /// Starts that came to nothing.
    pub failed: u64,
    /// What all that have stood have done together.
    pub totals: TunnelTotals,
}

/// Counts that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelTotals {
    /// Bytes that streams gave to the session.
    pub up: u64,
    /// Bytes that came for streams.
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
    /// How it stands.
    pub state: SessionState,
    /// Its streams.
    pub streams: usize,
    /// Those that are moving bytes.
    pub busy: usize,
    /// What it has done.
    pub totals: TunnelTotals,
    /// Since its start began.
    pub age: Duration,
    /// The smoothed round trip to the agent, once there is a measurement.
    pub round_trip: Option<Duration>,
}

impl SessionStats {
    /// The one that is being started.
    #[must_use]
    pub fn starting(age: Duration) -> Self {
        Self {
            id: None,
            bastion: None,
            state: SessionState::Starting,
            streams: 0,
            busy: 0,
            totals: TunnelTotals::default(),
            age,
            round_trip: None,
        }
    }
}

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// It is being started.
    Starting,
    /// It takes streams.
    Up,
    /// Its connection is lost and being replaced.
    Interrupted,
    /// It takes no new streams, and ends with its last one.
    Leaving,
}

impl SessionState {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Up, Self::Interrupted, Self::Leaving];

    /// Its name, for people and programs.
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
