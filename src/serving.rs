//! The server of any protocol: ports, accept loops, reload and shutdown.

pub mod idle;
pub mod ports;
pub mod protocol;
pub mod runtimes;
pub mod server;
pub mod shutdown;
pub mod state;
