//! Striping over real carriers: the driver of a [`stripe::Bundle`], for both ends.
//!
//! A [`StripedBundle`] spreads its streams over carriers, which are byte streams of any kind. The
//! client attaches carriers and opens streams; the relay accepts both. The module knows neither
//! Session Manager nor PostgreSQL.
//!
//! One lock holds the machine, the inboxes of the streams and the outboxes of the carriers, and is
//! never held across an await. Each carrier has one task that reads and writes it, and the bundle has
//! one task for its timer. Memory is bounded: an inbox by the window of its stream, an outbox by the
//! credit of its carrier, and idle streams and carriers have no buffers.

mod bundle;
mod carrier;
mod greeting;
mod inbox;
mod refusal;
mod state;
mod stream;
#[cfg(test)]
mod tests;

pub use bundle::{OpenedStreams, StripedBundle};
pub use carrier::{Carrier, CarrierEnd, close_gently};
pub use greeting::{NoHello, read_hello};
pub use refusal::{Refusal, RefusalKind, StripingError};
pub use state::{BundleState, CarrierStats};
pub use stream::StripedStream;
