//! The PostgreSQL targets: those of `targets`, with the facts about their servers and the streams
//! that are kept for the next logins.

use std::sync::Arc;

use super::ready_streams::ReadyStreams;
use super::server_memory::{ServerCapabilities, ServerMemory};
use crate::config::Endpoint;
use crate::observe::ReadyCounts;
use crate::targets::context::{ProtocolState, TargetContext};
use crate::targets::served_target::{PortTargets, ServedTarget};

/// State of PostgreSQL for each target.
#[derive(Default)]
pub struct PgTargetState {
    servers: ServerMemory,
    pub(in crate::postgres) ready: ReadyStreams,
}

impl PgTargetState {
    /// Returns the facts about the server at `endpoint`.
    pub(in crate::postgres) fn server(&self, endpoint: &Endpoint) -> Arc<ServerCapabilities> {
        self.servers.of(endpoint)
    }
}

impl ProtocolState for PgTargetState {
    /// As in libpq 17 and later.
    const ALPN: Option<&'static [u8]> = Some(pg_handshake::ALPN);

    fn no_more_clients(&self) {
        self.ready.close();
    }

    fn ready(&self) -> ReadyCounts {
        self.ready.counts()
    }
}

impl Drop for PgTargetState {
    /// Ends the keeper of the streams, which outlives the target for a moment.
    fn drop(&mut self) {
        self.ready.close();
    }
}

/// Context of a PostgreSQL target.
pub type PgContext = TargetContext<PgTargetState>;
/// A PostgreSQL target that is served.
pub type PgTarget = ServedTarget<PgTargetState>;
/// The PostgreSQL targets of a port.
pub type PgPortTargets = PortTargets<PgTargetState>;
