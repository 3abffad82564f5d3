//! PostgreSQL connections, from accept to the end of the session.

pub mod cancel_keys;
pub mod client;
pub mod connection;
mod connection_state;
pub mod database;
mod io;
pub mod listen;
pub mod recovery;
pub mod route;
pub mod server;
pub mod server_memory;
pub mod shared;
pub mod splice;
pub mod target;
mod timings;
mod waiting;

pub use recovery::prepare_all;
