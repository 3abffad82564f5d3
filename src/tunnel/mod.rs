//! Transports to the database: a byte stream to `host:port`, direct or through Session Manager.
//!
//! This module is independent of PostgreSQL.

pub mod direct;
pub mod error;
pub mod relay;
pub mod ssm;
mod stats;
pub mod transport;

pub use direct::DirectFailure;
pub use error::{ApiRefusal, EndCause, TunnelError};
pub use relay::{RELAY_VERSION, RelayAbsence, RelayRefusal, RelayState, RelayStats};
pub use stats::{SessionState, SessionStats, TunnelStats, TunnelTotals};
pub use transport::{
    BastionCandidate, BastionState, Readiness, SpareMark, StreamPurpose, Transport,
};
