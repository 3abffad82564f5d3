//! Client side of a connection: startup and authentication.

pub mod admit;
pub mod authenticate;
pub mod password_file;
pub mod probe;
pub mod startup;
