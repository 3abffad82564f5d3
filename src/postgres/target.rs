//! The targets and their state.

pub mod context;
pub mod last_failure;
pub mod limits;
pub mod server_memory;
pub mod slot;
pub mod status;
