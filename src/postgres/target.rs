//! The targets and their state.

pub mod context;
pub mod last_failure;
pub mod limits;
pub mod slot;
pub mod status;

use super::server_memory::Memory;
use context::{ProtocolState, Rooms};
use slot::{Entry, Slot};

impl ProtocolState for Memory {}

/// Context of a PostgreSQL target.
pub type PgRooms = Rooms<Memory>;
/// A PostgreSQL target that is served.
pub type PgSlot = Slot<Memory>;
/// The PostgreSQL targets of a port.
pub type PgEntry = Entry<Memory>;
