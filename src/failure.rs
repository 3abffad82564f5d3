//! The errors of connections, as types. `report` turns them into words.

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
