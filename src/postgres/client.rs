//! The client's side of a connection: its first words, and who it is.

pub mod admit;
pub mod authenticate;
pub mod password_file;
pub mod probe;
pub mod startup;
