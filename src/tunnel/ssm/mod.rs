//! The native Session Manager tunnel.
//!
//! [`supervisor`] gives a target its streams: it requests a session from the `pool`, which chooses
//! by `placement` and has further ones started by `start`. A `session` consists of a `driver`, the
//! task that owns its `socket` and protocol machines, and `stream`s, the handles held by
//! connections; `state` is shared by them, `dials` attributes a refusal to a stream.
//!
//! With a relay on the bastion, `relayed` spreads the connections over sessions to it instead.
//!
//! `connect` opens the WebSocket at an `endpoint`, through a `proxy` if there is one; `api` calls
//! Systems Manager, `datakey` KMS; `bastions` selects the next node, `ending` classifies the
//! service's last message, `leftovers` ends sessions left open by a killed process.

mod api;
mod bastions;
mod data_channel;
mod datakey;
mod driver;
mod ending;
mod endpoint;
pub mod leftovers;
mod pending_dials;
mod placement;
mod pool;
mod proxy;
mod relayed;
mod session;
mod socket;
mod start;
mod state;
mod stream;
pub mod supervisor;

pub use stream::SsmStream;
