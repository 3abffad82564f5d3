//! Error types for connections. `report` turns them into messages.

pub mod connection;
pub mod connection_end;
pub mod forward;
pub mod route;
pub mod setup;

pub use connection::ConnectionError;
pub use connection_end::{ConnectionEnd, EndedBy};
pub use forward::ForwardError;
pub use route::RouteError;
pub use setup::SetupError;
