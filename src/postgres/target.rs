//! The PostgreSQL targets: those of `targets`, with the facts about their servers.

use super::server_memory::ServerMemory;
use crate::targets::context::{ProtocolState, TargetContext};
use crate::targets::served_target::{PortTargets, ServedTarget};

impl ProtocolState for ServerMemory {
    /// As in libpq 17 and later.
    const ALPN: Option<&'static [u8]> = Some(pg_handshake::ALPN);
}

/// Context of a PostgreSQL target.
pub type PgContext = TargetContext<ServerMemory>;
/// A PostgreSQL target that is served.
pub type PgTarget = ServedTarget<ServerMemory>;
/// The PostgreSQL targets of a port.
pub type PgPortTargets = PortTargets<ServerMemory>;
