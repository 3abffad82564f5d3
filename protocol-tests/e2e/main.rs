//! The real program between a real psql and a real PostgreSQL server, through the sandbox AWS.

mod cancel;
mod failures;
mod lifecycle;
mod load;
mod login;
mod shell;
mod support;
