//! The native Session Manager tunnel.
//!
//! [`supervisor`] gives a target its streams: it asks the `pool` for a session, which chooses by
//! `placement` and has further ones started by `start`. A `session` is a `driver`, the task that owns
//! its `socket` and protocol machines, and `stream`s, the handles connections hold; `state` is what
//! they share, `dials` knows whom a refusal is about.
//!
//! `connect` opens the WebSocket at an `endpoint`, through a `proxy` where there is one; `api` calls
//! Systems Manager, `datakey` KMS; `bastions` knows whom to try next, `ending` what the service's last
//! words mean, `leftovers` which sessions a killed process has left open.

mod api;
mod bastions;
mod connect;
mod datakey;
mod dials;
mod driver;
mod ending;
mod endpoint;
pub mod leftovers;
mod placement;
mod pool;
mod proxy;
mod session;
mod socket;
mod start;
mod state;
mod stream;
pub mod supervisor;

pub use stream::SsmStream;
