//! Database side of a connection: dial and login.

pub mod attempts;
pub mod cancel;
pub mod dial_on_read;
pub mod login;
pub mod login_steps;
pub mod passthrough;
pub mod ready;
