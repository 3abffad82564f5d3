//! Error types for connections. `report` turns them into messages.

pub mod connection;
pub mod forward;
pub mod route;
pub mod session_end;
pub mod setup;

pub use connection::SessionError;
pub use forward::ForwardError;
pub use route::RouteError;
pub use session_end::{EndedBy, SessionEnd};
pub use setup::SetupError;
