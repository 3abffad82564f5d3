//! The PostgreSQL targets: those of `targets`, with the facts about their servers.

use super::server_memory::Memory;
use crate::targets::context::{ProtocolState, Rooms};
use crate::targets::served_target::{Entry, Slot};

impl ProtocolState for Memory {}

/// Context of a PostgreSQL target.
pub type PgRooms = Rooms<Memory>;
/// A PostgreSQL target that is served.
pub type PgSlot = Slot<Memory>;
/// The PostgreSQL targets of a port.
pub type PgEntry = Entry<Memory>;
