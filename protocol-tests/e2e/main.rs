//! The real program between a real psql and a real PostgreSQL server, through the sandbox AWS.

mod login;
mod support;
