//! The native Session Manager tunnel.
//!
//! [`supervisor`] owns a target's session: opens it on demand, places streams, says goodbye.
//! `driver` is the task that owns a session's WebSocket and protocol machines, `state` what both
//! share with `stream`, the handle a connection holds, `dials` whom a refusal is about, `connect` opens the WebSocket, `api` calls Systems Manager.

mod api;
mod connect;
mod dials;
mod driver;
mod state;
mod stream;
pub mod supervisor;

pub use stream::SsmStream;
