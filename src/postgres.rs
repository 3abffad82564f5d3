//! PostgreSQL connections, from accept to the end of the session.

pub mod cancel_keys;
pub mod client;
pub mod connection;
mod connection_state;
pub mod database;
mod io;
mod ready_streams;
pub mod recovery;
pub mod route;
pub mod server_memory;
pub mod shared;
pub mod splice;
pub mod target;
mod timings;
mod waiting;

pub use recovery::prepare_all;

use crate::serving::server::{Server, TargetAtPort};
use shared::Proxy;
use target::PgTargetState;

/// The running PostgreSQL server.
pub type PgServer = Server<Proxy>;
/// A PostgreSQL target at one of its ports.
pub type PgTargetAtPort = TargetAtPort<PgTargetState>;
