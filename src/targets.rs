//! The targets that are served, without the protocol of their clients: settings, lookup, transport,
//! tokens, limits, and the last failure.

pub mod connection_limit;
pub mod context;
pub mod last_failure;
pub mod served_target;
pub mod status;
