//! The native Session Manager tunnel.
//!
//! [`supervisor`] owns a target's session: opens it on demand, places streams, says goodbye. A
//! session is a `driver`, the task that owns its `socket` and protocol machines, and `stream`s, the
//! handles connections hold; `state` is what they share, `dials` knows whom a refusal is about.
//! `connect` opens the WebSocket, `api` calls Systems Manager.

mod api;
mod connect;
mod dials;
mod driver;
mod socket;
mod state;
mod stream;
pub mod supervisor;

pub use stream::SsmStream;
