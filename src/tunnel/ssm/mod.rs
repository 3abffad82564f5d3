//! The native Session Manager tunnel.
//!
//! [`supervisor`] owns a target's session: opens it on demand, places streams, says goodbye. A
//! session is a `driver`, the task that owns its `socket` and protocol machines, and `stream`s, the
//! handles connections hold; `state` is what they share, `dials` knows whom a refusal is about.
//! `connect` opens the WebSocket at an `endpoint`, through a `proxy` where there is one; `api` calls
//! Systems Manager, `datakey` KMS; `bastions` knows whom to try next, `ending` what the service's last
//! words mean.

#[cfg_attr(not(test), expect(dead_code, reason = "not all of it is called yet"))]
mod api;
#[cfg_attr(not(test), expect(dead_code, reason = "not all of it is called yet"))]
mod bastions;
mod connect;
#[cfg_attr(not(test), expect(dead_code, reason = "not all of it is called yet"))]
mod datakey;
mod dials;
mod driver;
#[cfg_attr(not(test), expect(dead_code, reason = "not all of it is called yet"))]
mod ending;
mod endpoint;
mod proxy;
mod socket;
mod state;
mod stream;
pub mod supervisor;

pub use stream::SsmStream;
