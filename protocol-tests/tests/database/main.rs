//! The sandbox's databases, as `psql` meets them: real servers that judge IAM tokens.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test binary are test code too"
)]

mod eighteen;
mod front;
mod ldap;
mod line;
mod postgres;
mod standing;
mod support;
