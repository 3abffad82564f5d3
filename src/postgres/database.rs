//! The database's side of a connection: reaching it, and logging in.

pub mod attempts;
pub mod cancel;
pub mod dial_on_read;
pub mod login;
pub mod login_steps;
pub mod passthrough;
